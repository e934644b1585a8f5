package postgres

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/session"
)

// Settings say how to reach a server.
type Settings struct {
	// ConnString is a libpq connection string or URL without a password. What it leaves out
	// comes from PG* variables, the service file and .pgpass, as with libpq.
	ConnString string
	// Password gives the password; nil leaves it to libpq's own ways.
	Password func() string
	// IAMRegion asks for an RDS IAM token instead of a password: a region, "auto" for the
	// AWS configuration's own, "" for no token.
	IAMRegion string
	// ApplicationName is seen in pg_stat_activity; "leat" when empty.
	ApplicationName string
	// LockTimeout and StatementTimeout are set for every session; 0 is none.
	LockTimeout, StatementTimeout time.Duration
}

// Source is a server that was reached once, and how to reach it again.
type Source struct {
	config     *pgconn.Config
	set        Settings
	Version    int    // server_version_num, 150018 for 15.18
	Name       string // host:port/database, for people
	InRecovery bool   // a standby: no slot before 16, LSNs are replay positions
	Encoding   string // server_encoding

	searchPath []string          // schemas that names without one are looked for in
	others     map[string]string // what other roles have of settings in which this role differs
	proven     *sync.Map         // see Catalog.prove
	idle       *idleSessions
}

// Connect reaches the server once and reads its version.
func Connect(ctx context.Context, set Settings) (*Source, error) {
	cfg, err := pgconn.ParseConfig(set.ConnString)
	if err != nil {
		return nil, fault.Wrap(err, fault.ConfigInvalid, "from", "the database address cannot be used")
	}
	if set.Password != nil {
		cfg.Password = set.Password()
	}
	if set.ApplicationName == "" {
		set.ApplicationName = "leat"
	}
	cfg.OnNotice = func(*pgconn.PgConn, *pgconn.Notice) {}
	s := &Source{config: cfg, set: set, Name: describe(cfg), proven: new(sync.Map), idle: &idleSessions{keep: idleFor}}
	c, err := s.open(ctx, session.Read, nil)
	if err != nil {
		return nil, err
	}
	defer leave(c)
	if err := s.look(ctx, c); err != nil {
		return nil, err
	}
	if err := s.prepare(ctx, c, session.Read, nil); err != nil { // by what was found; look has reset some of it
		return nil, classify(ctx, err, s.Name, "cannot prepare the session")
	}
	c.CustomData()[idleKey] = s.idle
	return s, nil
}

// ascii says whether text in the database may be any bytes: the server knows no encoding of it.
func (s *Source) ascii() bool { return s.Encoding == "SQL_ASCII" }

// dataEncoding is the setting of sessions that read data where the server must hand on bytes of no known encoding: it does so only to a
// client that asks for none. Who reads them looks at them.
func (s *Source) dataEncoding() map[string]string {
	if s.ascii() {
		return map[string]string{"client_encoding": "SQL_ASCII"}
	}
	return map[string]string{}
}

// describe names the server without user, password or options.
func describe(cfg *pgconn.Config) string {
	if strings.HasPrefix(cfg.Host, "/") {
		return fmt.Sprintf("%s:%d/%s", cfg.Host, cfg.Port, cfg.Database)
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))) + "/" + cfg.Database
}

// dial opens a connection, for [Source.open] alone. params are extra start-up parameters (replication=database).
func (s *Source) dial(ctx context.Context, params map[string]string) (*pgconn.PgConn, error) {
	cfg := s.config.Copy()
	if cfg.RuntimeParams == nil {
		cfg.RuntimeParams = map[string]string{}
	}
	cfg.RuntimeParams["application_name"] = s.set.ApplicationName
	for k, v := range params {
		cfg.RuntimeParams[k] = v
	}
	if s.set.IAMRegion != "" {
		token, err := iamToken(ctx, cfg, s.set.IAMRegion)
		if err != nil {
			return nil, err
		}
		cfg.Password = token
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot connect as %s", cfg.User)
	}
	return c, nil
}

// iamToken signs an RDS login, valid for 15 minutes, with the credentials of AWS's default chain.
func iamToken(ctx context.Context, cfg *pgconn.Config, region string) (string, error) {
	var opts []func(*config.LoadOptions) error
	if region != "auto" {
		opts = append(opts, config.WithRegion(region))
	}
	endpoint := net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
	awsConfig, err := config.LoadDefaultConfig(ctx, opts...)
	if err != nil {
		return "", fault.Wrap(err, fault.SourceAuth, endpoint, "cannot load the AWS configuration for an IAM token")
	}
	token, err := auth.BuildAuthToken(ctx, endpoint, awsConfig.Region, cfg.User, awsConfig.Credentials)
	if err != nil {
		return "", fault.Wrap(err, fault.SourceAuth, endpoint, "cannot make an RDS IAM token for %s", cfg.User)
	}
	return token, nil
}

// closeWithin is how long a server may take to hear that we leave.
const closeWithin = 2 * time.Second

// leave ends the use of a session, and what is under way in it. One that reads may wait for its next use.
func leave(c *pgconn.PgConn) {
	if p, waits := c.CustomData()[idleKey].(*idleSessions); waits && p.put(c) {
		return
	}
	closeSession(c)
}

// closeSession ends a session. The driver ends one whose statement was cancelled by itself, and beside us: without waiting
// for it the process could end before the server has heard, and the session would go on waiting for its lock.
func closeSession(c *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	_ = c.Close(ctx) // ending the session ends its transaction, whatever Close says
	select {
	case <-c.CleanupDone():
	case <-ctx.Done():
	}
}

// query runs one statement with text parameters and returns all its rows as text; nil is NULL.
func query(ctx context.Context, c *pgconn.PgConn, sql string, args ...string) ([][][]byte, error) {
	res := c.ExecParams(ctx, sql, texts(args), nil, nil, nil).Read()
	return res.Rows, res.Err
}

// prepared is query for a statement that a session runs again and again while it [keepsPlans]: the server parses it once. Otherwise it is
// query: behind a pooler by transactions, which serves a dump or a check, the name would outlive us, and the next one would find it taken.
func prepared(ctx context.Context, c *pgconn.PgConn, sql string, args ...string) ([][][]byte, error) {
	if c.CustomData()[keepsPlans] == nil {
		return query(ctx, c, sql, args...)
	}
	known, _ := c.CustomData()[preparedKey].(map[string]string)
	if known == nil {
		known = map[string]string{}
		c.CustomData()[preparedKey] = known
	}
	name := known[sql]
	if name == "" {
		name = fmt.Sprintf("leat_%d", len(known)+1)
		if _, err := c.Prepare(ctx, name, sql, nil); err != nil {
			return nil, err
		}
		known[sql] = name
	}
	res := c.ExecPrepared(ctx, name, texts(args), nil, nil).Read()
	return res.Rows, res.Err
}

// texts are the parameters of a statement in the form of text.
func texts(args []string) [][]byte {
	params := make([][]byte, len(args))
	for i, a := range args {
		params[i] = []byte(a)
	}
	return params
}

// In a connection's own data.
const (
	keepsPlans  = "leat.keeps"    // there while its statements are prepared
	preparedKey = "leat.prepared" // the names of its statements, by their SQL
)

// exec runs statements that take no parameters and give no rows.
func exec(ctx context.Context, c *pgconn.PgConn, sql string) error {
	_, err := c.Exec(ctx, sql).ReadAll()
	return err
}
