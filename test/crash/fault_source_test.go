package crash_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	toxics "github.com/Shopify/toxiproxy/v2/client"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/testlab"
)

// TestEveryRefusalNamesTheThingAndTheMend runs the binary against what is missing, locked or forbidden.
func TestEveryRefusalNamesTheThingAndTheMend(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	role := db.Role("")
	db.Exec(`create schema vault; create table vault.gold (id bigint);
create table guarded (id bigint, owner text); insert into guarded values (1, 'somebody');
alter table guarded enable row level security; create policy mine on guarded using (owner = current_user);
grant select on scans, returns, guarded to ` + role.Name)
	wrong := testlab.Secret("lab-wrong-password-7Yd")
	with := func(env []string, more ...string) []string { return append(append([]string{}, env...), more...) }
	cases := []struct {
		name string
		env  []string
		args []string
		exit int
		says []string
	}{
		{"wrong password", with(db.Env(), "PGPASSWORD="+wrong), []string{"--table", "scans"}, 3, []string{"code: source-auth", "password authentication failed"}},
		{"unknown user", with(db.Env(), "PGUSER=nobody_here"), []string{"--table", "scans"}, 3, []string{"code: source-auth", "nobody_here"}},
		{"unknown database", with(db.Env(), "PGDATABASE=no_such_shop"), []string{"--table", "scans"}, 3, []string{"code: source-missing", "no_such_shop"}},
		{"nobody listens", with(db.Env(), "PGPORT=1"), []string{"--table", "scans"}, 3, []string{"code: source-unreachable", "127.0.0.1:1"}},
		{"unknown host", with(db.Env(), "PGHOST=no-such-host.invalid"), []string{"--table", "scans"}, 3, []string{"code: source-unreachable", "no-such-host.invalid"}},
		{"unknown table", db.Env(), []string{"--table", "scanz"}, 3, []string{"code: source-missing", "scanz"}},
		{"a right on one of three tables", db.EnvOf(role), []string{"--table", "scans", "--table", "returns", "--table", "parcels"}, 3,
			[]string{"code: source-rights", "public.parcels", `grant select on "public"."parcels" to "` + role.Name + `"`}},
		{"a right on a schema", db.EnvOf(role), []string{"--table", "vault.gold"}, 3,
			[]string{"code: source-rights", "vault.gold", `grant usage on schema "vault"`, `grant select on "vault"."gold"`}},
		{"row security", db.EnvOf(role), []string{"--table", "guarded"}, 3, []string{"code: source-rights", "public.guarded", "BYPASSRLS"}},
		{"a password in the address", db.Env(), []string{"--table", "scans", "--from", "postgres://x:" + wrong + "@127.0.0.1:port/x"}, 2, []string{"mend"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			r := testlab.Leat(t).Run(c.env, append([]string{"dump", "--to", dir}, c.args...)...)
			refused(t, r, c.exit, c.says...)
			nothing(t, folderPlace(dir))
		})
	}
}

func TestEveryRefusalOfTheStoreNamesTheThingAndTheMend(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	store := testlab.S3(t)
	dump := func(t *testing.T, s testlab.Store, bucket string, more ...string) testlab.Result {
		env := append(append(db.Env(), s.Env()...), more...)
		return testlab.Leat(t).Run(env, "dump", "--table", "public.*", "--to", "s3://"+bucket+"/x")
	}
	t.Run("no such bucket", func(t *testing.T) {
		t.Parallel()
		refused(t, dump(t, store, "no-such-bucket-here"), 4, "code: bucket-missing", "no-such-bucket-here")
	})
	t.Run("wrong secret", func(t *testing.T) {
		t.Parallel()
		bad := store.As(testlab.Keys{AccessKey: store.AccessKey, SecretKey: testlab.Secret("lab-wrong-s3-secret-4Qp")})
		refused(t, dump(t, bad, store.Bucket), 4, "code: bucket-auth", store.Bucket)
	})
	t.Run("expired token", func(t *testing.T) {
		t.Parallel()
		proxy := testlab.FaultyS3(t, store, testlab.Always(puts, testlab.Fail(403, "ExpiredToken")))
		refused(t, dump(t, proxy.Store, store.Bucket, "AWS_SESSION_TOKEN="+testlab.Secret("lab-session-token-1Zc")), 4, "code: bucket-")
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		gone := store
		gone.Endpoint = "http://127.0.0.1:1"
		refused(t, dump(t, gone, store.Bucket, "AWS_MAX_ATTEMPTS=1"), 4, "code: bucket-unreachable")
	})
	t.Cleanup(func() { nothing(t, s3Place{store}) })
}

func refused(t *testing.T, r testlab.Result, exit int, says ...string) {
	t.Helper()
	if r.Exit != exit {
		t.Errorf("exit %d, want %d", r.Exit, exit)
	}
	for _, text := range says {
		if !strings.Contains(r.Stderr, text) {
			t.Errorf("nothing is said of %q", text)
		}
	}
	if t.Failed() {
		t.Logf("%s%s", r.Stdout, r.Stderr)
	}
}

func TestALockedTableIsNamedWithTheSessionThatHoldsIt(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	other := db.Connect()
	exec(t, other, "begin; lock table scans in access exclusive mode")
	dir := t.TempDir()
	r := testlab.Leat(t).Run(db.Env(), "dump", "--to", dir, "--table", "public.*", "--lock-timeout", "300ms")
	refused(t, r, 3, "code: source-timeout", "scans", fmt.Sprintf("session %d", other.PgConn().PID()), "300ms")
	nothing(t, folderPlace(dir))
}

// waitsForLock says whether leat waits for a lock.
func waitsForLock(db *testlab.DB) bool {
	return db.One("select count(*) from pg_locks l join pg_stat_activity a using (pid) where a.application_name = 'leat' and a.datname = current_database() and not l.granted") != "0"
}

func TestATableDroppedBetweenListingAndLockingIsMissedWhereItWasAskedFor(t *testing.T) {
	t.Parallel()
	for _, asked := range []string{"public.*", "public.scans"} {
		t.Run(asked, func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t)
			warehouse(t, db)
			other := db.Connect()
			exec(t, other, "begin; drop table scans")
			dir := t.TempDir()
			p := testlab.Leat(t).Start(db.Env(), "dump", "--to", dir, "--table", asked, "--lock-timeout", "60s")
			until(t, "leat waits for the lock", func() bool { return waitsForLock(db) })
			exec(t, other, "commit")
			r := p.Wait()
			if asked == "public.scans" {
				refused(t, r, 3, "code: source-missing", "public.scans")
				nothing(t, folderPlace(dir))
			} else if r.Exit != 0 || !strings.Contains(r.Stderr, "a table was dropped after it was listed") || !strings.Contains(r.Stdout, "Dumped 2 tables") {
				t.Errorf("leat dump ends with %d:\n%s%s", r.Exit, r.Stdout, r.Stderr)
			}
		})
	}
}

// sessions counts leat's sessions in the database.
func sessions(db *testlab.DB) string {
	return db.One("select count(*) from pg_stat_activity where application_name = 'leat' and datname = current_database()")
}

func TestASignalEndsADumpAndLeavesNothing(t *testing.T) {
	t.Parallel()
	signals := []struct {
		name   string
		signal syscall.Signal
		exit   int
	}{{"SIGINT", syscall.SIGINT, 130}, {"SIGTERM", syscall.SIGTERM, 143}}
	for _, s := range signals {
		t.Run(s.name+" while rows are read", func(t *testing.T) {
			t.Parallel()
			db, store := testlab.Postgres(t), testlab.S3(t)
			warehouse(t, db)
			p := testlab.Leat(t).Start(append(db.Env(), store.Env()...), "dump", "--to", "s3://"+store.Bucket, "--table", "public.*", "--max-rate", "2MiB", "--json")
			until(t, "rows are read", func() bool {
				return db.One("select count(*) from pg_stat_activity where application_name = 'leat' and datname = current_database() and query like 'copy%' and state = 'active'") != "0"
			})
			ended(t, db, p, s.signal, s.exit)
			nothing(t, s3Place{store})
		})
		t.Run(s.name+" while a lock is waited for", func(t *testing.T) {
			t.Parallel()
			db, dir := testlab.Postgres(t), t.TempDir()
			warehouse(t, db)
			exec(t, db.Connect(), "begin; lock table scans in access exclusive mode")
			p := testlab.Leat(t).Start(db.Env(), "dump", "--to", dir, "--table", "public.*", "--lock-timeout", "10m")
			until(t, "leat waits for the lock", func() bool { return waitsForLock(db) })
			ended(t, db, p, s.signal, s.exit)
			nothing(t, folderPlace(dir))
		})
		t.Run(s.name+" while a slot waits for a transaction", func(t *testing.T) {
			t.Parallel()
			db, dir := testlab.Postgres(t), t.TempDir()
			warehouse(t, db)
			exec(t, db.Connect(), "begin; insert into returns values (1)")
			p := testlab.Leat(t).Start(db.Env(), "dump", "--to", dir, "--table", "public.*", "--lsn", "exact", "--slot-wait", "10m")
			until(t, "the slot waits", func() bool {
				return db.One("select count(*) from pg_stat_activity where backend_type = 'walsender' and datname = current_database() and wait_event_type = 'Lock'") != "0"
			})
			ended(t, db, p, s.signal, s.exit)
			nothing(t, folderPlace(dir))
		})
		t.Run(s.name+" while the server computes", func(t *testing.T) {
			t.Parallel()
			db, dir := testlab.Postgres(t), t.TempDir()
			db.Exec("create view endless as select 1::bigint as id from pg_sleep(3600)")
			p := testlab.Leat(t).Start(db.Env(), "dump", "--to", dir, "--table", "endless")
			until(t, "the server computes", func() bool {
				return db.One("select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'") != "0"
			})
			ended(t, db, p, s.signal, s.exit)
			nothing(t, folderPlace(dir))
		})
	}
}

// ended sends the signal and looks at how leat ends, and that the server has heard of it.
func ended(t *testing.T, db *testlab.DB, p *testlab.Process, signal syscall.Signal, exit int) {
	t.Helper()
	p.Signal(signal)
	r := p.Wait()
	if r.Exit != exit || !strings.Contains(r.Stderr, "nothing half-written is visible") {
		t.Errorf("exit %d, want %d\n%s%s", r.Exit, exit, r.Stdout, r.Stderr)
	}
	until(t, "leat's sessions are gone", func() bool { return sessions(db) == "0" })
}

// TestNoLockStrongerThanAccessShareIsTaken samples pg_locks while a slow wire holds the dump open.
func TestNoLockStrongerThanAccessShareIsTaken(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	db.Exec("create view seen as select id from scans; create materialized view kept as select id from scans; create table parted (id bigint) partition by range (id); create table part1 partition of parted for values from (0) to (100)")
	wire := wireTo(t, db)
	wire.add("slow", "bandwidth", toxics.Attributes{"rate": 20_000})
	dir := t.TempDir()
	p := testlab.Leat(t).Start(db.Env(), "dump", "--from", fmt.Sprintf("postgres://%s/%s", wire.Listen, db.Name), "--to", dir, "--table", "public.*", "--format", "csv")
	seen := map[string]bool{}
	until(t, "the dump ends", func() bool {
		for _, row := range db.Query("select distinct l.mode from pg_locks l join pg_stat_activity a using (pid) where a.application_name = 'leat' and a.datname = current_database() and l.locktype in ('relation', 'tuple', 'page', 'extend', 'object') and (l.relation is null or l.relation >= 16384)") {
			seen[row[0]] = true
		}
		select {
		case <-p.Done():
			return true
		default:
			return false
		}
	})
	if r := p.Wait(); r.Exit != 0 {
		t.Errorf("exit %d\n%s", r.Exit, r.Stderr)
	}
	if len(seen) != 1 || !seen["AccessShareLock"] {
		t.Errorf("the locks that were held: %v", seen)
	}
}

// exec runs statements in a session of the test's own.
func exec(t testing.TB, c *pgx.Conn, sql string) {
	t.Helper()
	if _, err := c.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}
