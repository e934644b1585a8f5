package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/testlab"
)

//go:embed shop.sql
var shopSQL string

// The role has only the rights that a dump needs.
const database, role = "shop", "app"

// shop is a database on a PostgreSQL server of the demo's own.
type shop struct {
	server   *testlab.Server
	password string // of role
	url      string // for role, without the password
	admin    string // for the superuser, with the password
}

// openShop starts a server, which it first installs where there is none, and makes an empty database.
func openShop(ctx context.Context, root string) (*shop, error) {
	if err := findServer(ctx, root); err != nil {
		return nil, err
	}
	server, err := testlab.StartServer(testlab.ServerOptions{})
	if err != nil {
		return nil, err
	}
	s := &shop{server: server, password: testlab.Secret("shop-app-4cT7xQ")}
	s.url = address(server.Port, url.User(role), database)
	s.admin = address(server.Port, url.UserPassword("postgres", server.Password), database)
	template := address(server.Port, url.UserPassword("postgres", server.Password), "postgres")
	return s, do(ctx, template, "CREATE DATABASE "+database)
}

func address(port int, user *url.Userinfo, name string) string {
	u := url.URL{Scheme: "postgres", User: user, Host: "127.0.0.1:" + strconv.Itoa(port), Path: "/" + name}
	return u.String()
}

// findServer makes sure that testlab finds a server's programs: Debian's, else those in PATH, else new ones.
func findServer(ctx context.Context, root string) error {
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres"); len(found) > 0 {
		return nil
	}
	program, err := exec.LookPath("postgres")
	if errors.Is(err, exec.ErrNotFound) {
		fmt.Println("No PostgreSQL server is installed here; asking apt-get for one.")
		install := exec.CommandContext(ctx, filepath.Join(root, "hack", "test-deps"), "server")
		install.Stdout, install.Stderr = os.Stdout, os.Stderr
		if err := install.Run(); err != nil {
			return fmt.Errorf("the demo needs a PostgreSQL server, 12 or newer, in PATH or from Debian's package postgresql: %w", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	return offer(ctx, program)
}

var majorOf = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

// offer puts a link to a server that lies anywhere to where testlab looks: <cache>/postgres/<major>/bin.
func offer(ctx context.Context, program string) error {
	version, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s --version: %w", program, err)
	}
	major := majorOf.FindSubmatch(version)
	if major == nil {
		return fmt.Errorf("%s --version does not say which it is: %s", program, version)
	}
	program, err = filepath.EvalSymlinks(program)
	if err != nil {
		return err
	}
	cache := filepath.Join(os.TempDir(), fmt.Sprintf("leat-demo-%d", os.Getuid()))
	link := filepath.Join(cache, "postgres", string(major[1]))
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return err
	}
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(filepath.Dir(filepath.Dir(program)), link); err != nil {
		return err
	}
	return os.Setenv("LEAT_TEST_CACHE", cache)
}

// fill makes the shop's tables and their rows.
func (s *shop) fill(ctx context.Context) error {
	began := time.Now()
	err := do(ctx, s.admin, fmt.Sprintf("CREATE ROLE %s LOGIN REPLICATION PASSWORD '%s'", role, s.password), shopSQL)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var tables, rows int64
	var size string
	// reltuples is what ANALYZE counted just now; of tables this small it reads every page.
	err = conn.QueryRow(ctx, `SELECT count(*), sum(reltuples)::bigint, pg_size_pretty(sum(pg_table_size(oid)))
		FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'`).Scan(&tables, &rows, &size)
	if err != nil {
		return err
	}
	fmt.Printf("A shop         %d tables, %s rows, %s, one view; made in %.1f s\n", tables, thousands(rows), size, time.Since(began).Seconds())
	return nil
}

// do runs scripts, one after the other.
func do(ctx context.Context, address string, scripts ...string) error {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range scripts {
		if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
			return err
		}
	}
	return nil
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
