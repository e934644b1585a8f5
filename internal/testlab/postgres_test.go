package testlab_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

func TestPostgresOfEveryMajorAnswers(t *testing.T) {
	t.Parallel()
	for _, major := range testlab.Majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			if got := db.One("SELECT current_setting('server_version_num')::int / 10000"); got != fmt.Sprint(major) {
				t.Errorf("asked for PostgreSQL %d, got %s", major, got)
			}
			db.Exec("CREATE EXTENSION hstore; CREATE EXTENSION citext")
			if got := db.One("SELECT 'a=>1'::hstore -> 'a'"); got != "1" {
				t.Errorf("hstore gives %s", got)
			}
		})
	}
}

func TestPostgresGivesEachTestADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	a, b := testlab.Postgres(t), testlab.Postgres(t)
	if a.Server != b.Server {
		t.Error("two tests have two servers")
	}
	a.Exec("CREATE TABLE here (i int)")
	if got := b.One("SELECT to_regclass('here')"); got != testlab.Null {
		t.Errorf("a table of one database is seen in another: %s", got)
	}
}

func TestPostgresDropsADatabaseWithASlotAndSessions(t *testing.T) {
	t.Parallel()
	var name string
	var server *testlab.Server
	t.Run("a test that leaves everything behind", func(t *testing.T) {
		db := testlab.Postgres(t)
		name, server = db.Name, db.Server
		db.Exec("SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
		if _, err := pgx.Connect(context.Background(), db.URL); err != nil {
			t.Fatal(err)
		}
	})
	db := testlab.Postgres(t)
	if db.Server != server {
		t.Fatal("another server")
	}
	if got := db.One("SELECT count(*) FROM pg_database WHERE datname = '" + name + "'"); got != "0" {
		t.Error("the database is still there")
	}
}

func TestPostgresAsksEverybodyForAPassword(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	role := db.Role("")
	for _, address := range []string{db.Bare, role.Bare} {
		if _, err := pgx.Connect(context.Background(), address); err == nil {
			t.Errorf("%s connects without a password", address)
		}
	}
	conn, err := pgx.Connect(context.Background(), role.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(context.Background(), "CREATE ROLE another"); err == nil {
		t.Error("a plain role may make roles")
	}
}

func TestPostgresSpeaksTLSWithACertificateOfItsOwn(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	address := strings.Replace(db.URL, "sslmode=disable", "sslmode=verify-full&sslrootcert="+db.Server.CA, 1)
	conn, err := pgx.Connect(context.Background(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
}

func TestOwnPostgresKeepsWhatWasCommittedThroughACrash(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{Settings: []string{"work_mem = 1MB"}})
	if got := db.One("SHOW work_mem"); got != "1MB" {
		t.Errorf("work_mem is %s", got)
	}
	db.Exec("CREATE TABLE kept AS SELECT 1 AS i")
	for range 3 {
		db.Server.Crash()
		if _, err := pgx.Connect(context.Background(), db.URL); err == nil {
			t.Fatal("a crashed server answers")
		}
		if err := db.Server.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if got := db.One("SELECT i FROM kept"); got != "1" {
		t.Errorf("the table has %s", got)
	}
}

func TestACrashedServerStartsWhenItsLastBackendHasEnded(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	conn, err := pgx.Connect(context.Background(), db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	backend := int(conn.PgConn().PID())
	if err := syscall.Kill(backend, syscall.SIGSTOP); err != nil { // it holds the server's memory until it goes on
		t.Fatal(err)
	}
	goesOn := time.AfterFunc(time.Second, func() { _ = syscall.Kill(backend, syscall.SIGCONT) })
	defer goesOn.Stop()
	db.Server.Crash()
	if err := db.Server.Start(); err != nil {
		t.Fatal(err)
	}
	if got := db.One("SELECT 1"); got != "1" {
		t.Errorf("it answers %s", got)
	}
}

func TestPostgresReturnsValuesAndCopiesAsTheServerWritesThem(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	rows := db.Query("SELECT 1.50::numeric, NULL, 'ä,b', '-infinity'::date")
	if got := fmt.Sprint(rows); got != "[[1.50 <null> ä,b -infinity]]" {
		t.Errorf("Query gives %s", got)
	}
	if got := string(db.Copy("COPY (SELECT 1, 'ä,b') TO STDOUT CSV")); got != "1,\"ä,b\"\n" {
		t.Errorf("Copy gives %q", got)
	}
}

func TestPagilaLoads(t *testing.T) {
	t.Parallel()
	path := testlab.Pagila(t)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	db := testlab.Postgres(t)
	db.Load(path)
	if got := db.One("SELECT count(*) FROM film"); got != "1000" {
		t.Errorf("Pagila has %s films", got)
	}
}
