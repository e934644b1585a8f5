package testlab

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Majors are the PostgreSQL majors that leat supports, the oldest first.
var Majors = []int{12, 13, 14, 15, 16, 17, 18}

// DB is a database of the test's own. Its methods fail the test instead of returning errors.
type DB struct {
	URL    string // with user and password: for connections of the test itself
	Bare   string // the same without the password: for a command line, with Env
	Name   string
	Server *Server

	t    testing.TB
	mu   sync.Mutex
	conn *pgx.Conn
	life *child // the run of the server that conn belongs to
}

// Role is a login made for one test.
type Role struct {
	Name     string
	Password string
	URL      string // of the test's database, with user and password
	Bare     string // without the password
}

var shared struct {
	mu      sync.Mutex
	servers map[int]*sharedServer
}

type sharedServer struct {
	once   sync.Once
	server *Server
	err    error
}

// sharedPostgres starts the process's server of a major at the first call.
func sharedPostgres(want int) (*Server, error) {
	_, major, err := postgresBin(want)
	if err != nil {
		return nil, err
	}
	shared.mu.Lock()
	if shared.servers == nil {
		shared.servers = map[int]*sharedServer{}
	}
	s := shared.servers[major]
	if s == nil {
		s = &sharedServer{}
		shared.servers[major] = s
	}
	shared.mu.Unlock()
	s.once.Do(func() { s.server, s.err = StartServer(ServerOptions{Major: major}) })
	return s.server, s.err
}

// Postgres returns a fresh, empty database on a server that the tests of this process share. Without a major
// it is this machine's own server: Debian's oldest, or else the oldest in the cache. The database, its slots and
// its roles are dropped when the test ends.
func Postgres(t testing.TB, major ...int) *DB {
	t.Helper()
	want := 0
	if len(major) > 0 {
		want = major[0]
	}
	s, err := sharedPostgres(want)
	return newDB(t, s, err, "")
}

// ASCIIPostgres is Postgres with a database whose text may be any bytes.
func ASCIIPostgres(t testing.TB) *DB {
	t.Helper()
	s, err := sharedPostgres(0)
	return newDB(t, s, err, " encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'")
}

// OwnPostgres returns a fresh database on a server that no other test uses, to be crashed, stopped or set
// otherwise. The server is stopped when the test ends.
func OwnPostgres(t testing.TB, o ServerOptions) *DB {
	t.Helper()
	s, err := StartServer(o)
	if err == nil {
		t.Cleanup(s.Stop)
	}
	return newDB(t, s, err, "")
}

func newDB(t testing.TB, s *Server, err error, options string) *DB {
	t.Helper()
	need(t, err)
	name := unique(t, "_")
	need(t, s.do("CREATE DATABASE "+name+options))
	db := &DB{Name: name, Server: s, t: t, URL: s.url(superuser, s.Password, name)}
	db.Bare = bare(db.URL)
	t.Cleanup(db.drop)
	return db
}

// need ends the test on an error: it skips, or fails under LEAT_TEST_STRICT, when a part is not installed.
func need(t testing.TB, err error) {
	t.Helper()
	var absent *notInstalled
	if errors.As(err, &absent) {
		missing(t, absent.what, absent.mend)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func bare(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err) // we wrote it ourselves
	}
	u.User = url.User(u.User.Username())
	return u.String()
}

// drop removes the database and what else of the cluster belongs to it. A server that the test has left
// stopped or crashed keeps it: it goes with the folder.
func (db *DB) drop() {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.conn != nil {
		db.conn.Close(context.Background())
		db.conn = nil
	}
	if db.Server.child.ended() {
		return
	}
	// WITH (FORCE) would do for sessions from 13 on, but not for slots.
	err := db.Server.do(
		"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = '"+db.Name+"' AND active",
		"ALTER DATABASE "+db.Name+" ALLOW_CONNECTIONS false",
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+db.Name+"'",
	)
	if err == nil {
		err = db.dropWhenFree()
	}
	if err != nil {
		db.t.Logf("database %s stays: %v", db.Name, err)
	}
}

// dropWhenFree drops the slots and then the database; terminated sessions need a moment to let go of both.
func (db *DB) dropWhenFree() error {
	return db.Server.child.ready(func() error {
		return db.Server.do(
			"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+db.Name+"'",
			"DROP DATABASE "+db.Name)
	})
}

// Exec runs SQL as superuser: one statement with arguments, or any number without.
func (db *DB) Exec(sql string, args ...any) {
	db.t.Helper()
	db.with(func(ctx context.Context, conn *pgx.Conn) error {
		if len(args) == 0 {
			_, err := conn.PgConn().Exec(ctx, sql).ReadAll()
			return err
		}
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// Null stands for NULL in the rows of Query.
const Null = "<null>"

// Query returns the rows of a statement as PostgreSQL itself writes the values in text.
func (db *DB) Query(sql string) [][]string {
	db.t.Helper()
	var rows [][]string
	db.with(func(ctx context.Context, conn *pgx.Conn) error {
		result := conn.PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Read()
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = Null
				if v != nil {
					row[i] = string(v)
				}
			}
			rows = append(rows, row)
		}
		return result.Err
	})
	return rows
}

// One returns the single value of a statement that gives one row of one column.
func (db *DB) One(sql string) string {
	db.t.Helper()
	rows := db.Query(sql)
	if len(rows) != 1 || len(rows[0]) != 1 {
		db.t.Fatalf("%s gives %d rows, not one value", sql, len(rows))
	}
	return rows[0][0]
}

// Copy returns the bytes of a COPY … TO STDOUT.
func (db *DB) Copy(sql string) []byte {
	db.t.Helper()
	var out strings.Builder
	db.with(func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.PgConn().CopyTo(ctx, &out, sql)
		return err
	})
	return []byte(out.String())
}

// with runs f on the database's one administrative connection, which it opens at the first call and again
// after a crash of the server.
func (db *DB) with(f func(context.Context, *pgx.Conn) error) {
	db.t.Helper()
	db.mu.Lock()
	defer db.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if db.conn == nil || db.conn.IsClosed() || db.life != db.Server.child {
		conn, err := pgx.Connect(ctx, db.URL)
		if err != nil {
			db.t.Fatalf("connect to the lab's database: %v", err)
		}
		db.conn, db.life = conn, db.Server.child
	}
	if err := f(ctx, db.conn); err != nil {
		db.t.Fatal(explain(err))
	}
}

// explain adds what the server says beyond its message.
func explain(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return strings.TrimSpace(fmt.Sprintf("%v %s %s %s", err, pg.Detail, pg.Hint, pg.Where))
	}
	return err.Error()
}

// Connect opens a connection of the test's own and closes it when the test ends.
func (db *DB) Connect() *pgx.Conn {
	db.t.Helper()
	conn, err := pgx.Connect(context.Background(), db.URL)
	if err != nil {
		db.t.Fatalf("connect to the lab's database: %v", err)
	}
	db.t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// Load runs a script of psql, such as pg_dump writes.
func (db *DB) Load(path string) {
	db.t.Helper()
	psql, err := exec.LookPath("psql")
	if err != nil {
		missing(db.t, "psql", mendDeps)
	}
	cmd := exec.Command(psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", path)
	cmd.Env = append(os.Environ(), db.Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		db.t.Fatalf("psql -f %s: %v\n%s", path, err, out)
	}
}

// Env is the database in libpq's own variables, for a child process.
func (db *DB) Env() []string { return db.env(superuser, db.Server.Password) }

// EnvOf is Env with another role.
func (db *DB) EnvOf(r Role) []string { return db.env(r.Name, r.Password) }

func (db *DB) env(user, password string) []string {
	return []string{
		"PGHOST=127.0.0.1", "PGPORT=" + strconv.Itoa(db.Server.Port), "PGDATABASE=" + db.Name,
		"PGUSER=" + user, "PGPASSWORD=" + password, "PGSSLMODE=disable",
	}
}

// Role makes a login with the given attributes, as "REPLICATION" or "" for a plain one, and drops it with the
// test. Roles belong to the whole server, so tests that share it must not choose names themselves.
func (db *DB) Role(attributes string) Role {
	db.t.Helper()
	r := Role{Name: unique(db.t, "_")}
	r.Password = Secret("lab-role-" + r.Name)
	r.URL = db.Server.url(r.Name, r.Password, db.Name)
	r.Bare = bare(r.URL)
	db.Exec("CREATE ROLE " + r.Name + " LOGIN " + attributes + " PASSWORD '" + r.Password + "'")
	db.t.Cleanup(func() {
		if !db.Server.child.ended() {
			db.Exec("DROP OWNED BY " + r.Name + "; DROP ROLE " + r.Name)
		}
	})
	return r
}
