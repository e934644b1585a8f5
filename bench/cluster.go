//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	//go:embed lineitem.sql
	lineitemSQL string
	//go:embed small.sql
	smallSQL string
	//go:embed wide.sql
	wideSQL string
	//go:embed ledger.sql
	ledgerSQL string
)

// superuser is also what the measured commands connect as.
const superuser = "bench"

// settings keep the disk and the server's own chores out of the figures. With wal_level logical leat does all
// it does elsewhere, an exact log position included.
const settings = `
listen_addresses = '127.0.0.1'
shared_buffers = 2GB
max_wal_size = 8GB
checkpoint_timeout = 1h
fsync = off
full_page_writes = off
autovacuum = off
wal_level = logical
max_locks_per_transaction = 256
max_connections = 1000
max_replication_slots = 120
max_wal_senders = 120
`

// cluster is a PostgreSQL server whose data folder is kept between runs.
type cluster struct {
	bin    string
	socket string
	port   int // of 127.0.0.1, and part of the socket's name
	data   string
	log    string
	as     *syscall.Credential // nil: us
	lock   *os.File
	server *exec.Cmd
	ended  chan struct{} // closed when the server has ended
}

// openCluster starts the cached cluster, which it makes at the first call.
func openCluster(ctx context.Context, cache, bin, scratch string) (*cluster, error) {
	c := &cluster{socket: filepath.Join(scratch, "socket"), log: filepath.Join(scratch, "postgres.log")}
	var err error
	if c.bin, err = findPrograms(bin); err != nil {
		return nil, err
	}
	if c.as, err = unprivileged(); err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, c.program("postgres"), "--version").Output()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(string(version) + lineitemSQL + smallSQL + wideSQL + ledgerSQL + crowdSQL))
	folder := filepath.Join(cache, hex.EncodeToString(sum[:6]))
	c.data = filepath.Join(folder, "data")
	for _, dir := range []string{folder, c.socket} {
		if err := errors.Join(os.MkdirAll(dir, 0o755), c.own(dir)); err != nil {
			return nil, err
		}
	}
	if c.lock, err = os.OpenFile(filepath.Join(folder, "lock"), os.O_CREATE|os.O_RDWR, 0o644); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(c.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another bench uses %s: %w", folder, err)
	}
	if _, err := os.Stat(filepath.Join(c.data, "PG_VERSION")); err != nil {
		if err := c.initdb(ctx); err != nil {
			return nil, err
		}
	}
	progress("PostgreSQL's data: %s", c.data)
	return c, c.start(ctx)
}

func findPrograms(bin string) (string, error) {
	if bin != "" {
		return bin, nil
	}
	newest := 0
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	for _, path := range found {
		dir := filepath.Dir(path)
		if major, err := strconv.Atoi(filepath.Base(filepath.Dir(dir))); err == nil && major > newest {
			newest, bin = major, dir
		}
	}
	if bin != "" {
		return bin, nil
	}
	path, err := exec.LookPath("postgres")
	if err != nil {
		return "", fmt.Errorf("a PostgreSQL server is needed; give -pgbin: %w", err)
	}
	return filepath.Dir(path), nil
}

// unprivileged is the user of a server that refuses to run as root.
func unprivileged() (*syscall.Credential, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
	gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, errors.Join(errUID, errGID)
}

func (c *cluster) own(path string) error {
	if c.as == nil {
		return nil
	}
	return os.Chown(path, int(c.as.Uid), int(c.as.Gid))
}

func (c *cluster) program(name string) string { return filepath.Join(c.bin, name) }

// initdb makes the data folder beside its place and moves it there whole.
func (c *cluster) initdb(ctx context.Context) error {
	fresh := c.data + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, c.program("initdb"), "-D", fresh, "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
	cmd.Dir = c.socket
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.as}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return os.Rename(fresh, c.data)
}

func (c *cluster) start(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	c.port = port
	conf := filepath.Join(c.data, "postgresql.auto.conf")
	text := fmt.Sprintf("%sunix_socket_directories = '%s'\nport = %d\n", settings, c.socket, c.port)
	if err := errors.Join(os.WriteFile(conf, []byte(text), 0o600), c.own(conf)); err != nil {
		return err
	}
	log, err := os.Create(c.log)
	if err != nil {
		return err
	}
	defer log.Close()
	c.server = exec.Command(c.program("postgres"), "-D", c.data)
	c.server.Dir, c.server.Stdout, c.server.Stderr = c.socket, log, log
	// A group of its own, else Ctrl-C reaches it before us. SIGQUIT takes the backends along.
	c.server.SysProcAttr = &syscall.SysProcAttr{Credential: c.as, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	if err := c.server.Start(); err != nil {
		return err
	}
	c.ended = make(chan struct{})
	go func() { // ends with the server
		_ = c.server.Wait() // its log tells how it ended
		close(c.ended)
	}()
	return c.ready(ctx)
}

// freePort is a port of 127.0.0.1 that nothing listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}

func (c *cluster) ready(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.do(ctx, "postgres", "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			c.stop()
			return ctx.Err()
		case <-c.ended:
			text, _ := os.ReadFile(c.log)
			return fmt.Errorf("PostgreSQL ended while it started (if its data are broken, remove %s): %w\n%s", filepath.Dir(c.data), err, text)
		}
	}
}

// stop ends the server in an orderly way: the next run begins with the same files.
func (c *cluster) stop() {
	_ = c.server.Process.Signal(syscall.SIGINT)
	<-c.ended
	c.lock.Close()
}

// env is how leat, psql and pg_dump find a database.
func (c *cluster) env(database string) []string {
	return []string{"PGHOST=" + c.socket, "PGPORT=" + strconv.Itoa(c.port), "PGUSER=" + superuser, "PGDATABASE=" + database}
}

// byTCP is env for those that connect by the network.
func (c *cluster) byTCP(database string) []string {
	return append(c.env(database), "PGHOST=127.0.0.1", "PGSSLMODE=disable")
}

func (c *cluster) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, fmt.Sprintf("host='%s' port=%d user=%s dbname=%s", c.socket, c.port, superuser, database))
}

func (c *cluster) do(ctx context.Context, database string, statements ...string) error {
	conn, err := c.connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, sql := range statements {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(sql[:min(len(sql), 60)]), err)
		}
	}
	return nil
}

// scalar is the one value, as text, that a query gives.
func (c *cluster) scalar(ctx context.Context, database, query string) (value string, err error) {
	conn, err := c.connect(ctx, database)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return value, conn.QueryRow(ctx, "SELECT ("+query+")::text").Scan(&value)
}

// change makes changes whose commits do not wait for the disk. When it returns they are all there: a run that is to
// catch up ends at the WAL that is flushed, and would leave out the last ones. A commit that waits brings what was
// committed before it to the disk too.
func (c *cluster) change(ctx context.Context, database, sql string) error {
	return c.do(ctx, database, "SET synchronous_commit = off", sql, "SET synchronous_commit = on", "SELECT pg_logical_emit_message(true, 'bench', 'the end')")
}

// database makes a database with fill unless an earlier run has. It has its name only when it is whole.
func (c *cluster) database(ctx context.Context, name string, fill func(database string) error) error {
	conn, err := c.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT count(*) > 0 FROM pg_database WHERE datname = $1", name).Scan(&there); err != nil || there {
		return err
	}
	progress("making the database %s; the next run finds it there", name)
	fresh := name + "_new"
	if err := c.do(ctx, "postgres", "DROP DATABASE IF EXISTS "+fresh, "CREATE DATABASE "+fresh); err != nil {
		return err
	}
	if err := fill(fresh); err != nil {
		return err
	}
	// Hint bits and the visibility map are set now, not by the first run that reads.
	return errors.Join(c.do(ctx, fresh, "VACUUM (FREEZE, ANALYZE)", "CHECKPOINT"),
		c.do(ctx, "postgres", "ALTER DATABASE "+fresh+" RENAME TO "+name))
}
