package main_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

// shop makes a small database with a table of every nature that a first user has.
func shop(t *testing.T) *testlab.DB {
	db := testlab.Postgres(t)
	db.Exec(`create table customers (id int primary key, name text not null, since timestamptz);
insert into customers select i, 'customer "' || i || '", ü', timestamptz '2020-01-01 00:00:00+00' + i * interval '1 hour' from generate_series(1, 500) i;
create table orders (id bigint primary key, customer_id int, total numeric(12,2), placed date, note text);
insert into orders select i, i % 500, i * 1.07, date '2024-01-01' + i % 300, case when i % 3 = 0 then E'line\nbreak, "quoted"' end from generate_series(1, 20000) i;
create table audit_log (id int); create table empty_table (a int, b text); analyze`)
	return db
}

func gunzip(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func one(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		t.Fatalf("%s: found %v, %v", pattern, found, err)
	}
	return found[0]
}

func TestWithTheEnvironmentAloneItIsTheOldJob(t *testing.T) {
	t.Parallel()
	db := shop(t)
	out := t.TempDir()
	r := testlab.Leat(t).Run(append(db.Env(), "TABLES=customers orders", "S3_OUTPUT="+out), "dump")
	if r.Exit != 0 {
		t.Fatalf("exit %d\n%s", r.Exit, r.Stderr)
	}
	for _, name := range []string{"customers", "orders"} {
		for _, line := range []string{"Table '" + name + "': Data collection started.\n", "Table '" + name + "': Dump uploaded to intermediate storage.\n"} {
			if !strings.Contains(r.Stdout, line) {
				t.Errorf("the log does not say %q:\n%s", line, r.Stdout)
			}
		}
		if got, want := gunzip(t, one(t, out+"/????-??-??/"+name+".csv.gz")), db.Copy("copy "+name+" to stdout csv"); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, COPY gives %d others", name, len(got), len(want))
		}
	}
	if !strings.HasSuffix(r.Stdout, "\nSuccess.\n") {
		t.Errorf("the last line is not Success.:\n%s", r.Stdout)
	}
}

func TestADumpToS3IsWhatItsManifestSays(t *testing.T) {
	t.Parallel()
	db, store := shop(t), testlab.S3(t)
	env := append(db.Env(), store.Env()...)
	r := testlab.Leat(t).Run(env, "dump", "--json", "--to", "s3://"+store.Bucket+"/a path/ü", "--table", "public.*", "--exclude", "audit_*")
	if r.Exit != 0 {
		t.Fatalf("exit %d\n%s", r.Exit, r.Stderr)
	}
	var done struct {
		Event    string
		Manifest string
		Totals   struct{ Tables, Rows int }
		Snapshot struct {
			Exact bool `json:"lsn_exact"`
		}
	}
	for line := range strings.Lines(r.Stdout) {
		if err := json.Unmarshal([]byte(line), &done); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	if done.Event != "done" || done.Totals.Tables != 3 || done.Totals.Rows != 20500 || !done.Snapshot.Exact {
		t.Errorf("the last event is %+v", done)
	}
	if !strings.HasPrefix(done.Manifest, "s3://"+store.Bucket+"/") {
		t.Errorf("the manifest is said to be at %s", done.Manifest)
	}
}

func TestSettingsComeFromTheFileAndAFlagGoesBeforeIt(t *testing.T) {
	t.Parallel()
	db := shop(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "leat.yaml")
	yaml := "from:\n  url: " + db.Bare + "\n  password: ${env:SHOP_PASSWORD}\nto: " + dir + "/out\ndump:\n  tables: [orders]\n  format: csv\n  layout: date\n"
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"SHOP_PASSWORD=" + db.Server.Password}
	r := testlab.Leat(t).Run(env, "dump", "-f", file, "--table", "customers")
	if r.Exit != 0 {
		t.Fatalf("exit %d\n%s", r.Exit, r.Stderr)
	}
	got, err := os.ReadFile(one(t, dir+"/out/*/*.csv"))
	if err != nil || !bytes.Equal(got, db.Copy("copy customers to stdout csv")) {
		t.Errorf("%v: the file is not what COPY gives", err)
	}
	if !strings.Contains(r.Stdout, "[1/1] public.customers") || !strings.Contains(r.Stdout, "500 rows") {
		t.Errorf("the lines for people do not name the table:\n%s", r.Stdout)
	}
}

func TestAMistakeOnTheCommandLineNamesTheMend(t *testing.T) {
	t.Parallel()
	leat := testlab.Leat(t)
	f := func(exit int, says string, args ...string) {
		t.Helper()
		r := leat.Run(nil, args...)
		if r.Exit != exit || !strings.Contains(r.Stderr, says) {
			t.Errorf("leat %v: exit %d, want %d and %q:\n%s", args, r.Exit, exit, says, r.Stderr)
		}
	}
	f(2, "unknown flag: --tabel", "dump", "--tabel", "x")
	f(2, `unknown command "dmup"`, "dmup")
	f(2, "to.url", "dump", "--table", "x")
	f(2, "dump.tables", "dump", "--to", "out")
	f(2, "dump.format", "dump", "--to", "out", "--table", "x", "--format", "parket")
	f(2, "did you mean dump.keep", "dump", "--set", "dump.kep=3")
	f(2, "mend: Write --set key=value.", "dump", "--set", "keep")
	f(2, "leat.yaml", "dump", "-f", "leat.yaml")
}

func TestHelpHasExamplesAndShellsComplete(t *testing.T) {
	t.Parallel()
	leat := testlab.Leat(t)
	f := func(says string, args ...string) {
		t.Helper()
		r := leat.Run(nil, args...)
		if r.Exit != 0 || !strings.Contains(r.Stdout, says) {
			t.Errorf("leat %v: exit %d, want %q:\n%s%s", args, r.Exit, says, r.Stdout, r.Stderr)
		}
	}
	f("Examples:", "--help")
	f("S3_OUTPUT=s3://egress/shop", "dump", "--help")
	f("leat check -f leat.yaml --deep --json", "check", "--help")
	f("leat ", "version")
	f("bash completion", "completion", "bash")
	f("parquet", "__complete", "dump", "--format", "")
}

func TestCheckFindsNothingWhereADumpWouldWork(t *testing.T) {
	t.Parallel()
	db, store := shop(t), testlab.S3(t)
	r := testlab.Leat(t).Run(append(db.Env(), store.Env()...), "check", "--to", "s3://"+store.Bucket+"/x", "--deep", "--table", "public.*")
	if r.Exit != 0 {
		t.Fatalf("exit %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
	for _, code := range []string{"(server-version)", "(wal-level)", "(tables)", "(bucket-write)", "(bucket-read)", "(bucket-list)", "(bucket-multipart)", "(bucket-delete)", "(clock-bucket)"} {
		if !strings.Contains(r.Stdout, code) {
			t.Errorf("nothing is said of %s:\n%s", code, r.Stdout)
		}
	}
	if keys := store.List(t); len(keys) > 0 {
		t.Errorf("left behind: %v", keys)
	}
}

func TestCheckNamesEveryObstacleAndItsMend(t *testing.T) {
	t.Parallel()
	db := shop(t)
	role := db.Role("")
	db.Exec(`create table secret_rows (id int); alter table secret_rows enable row level security; grant select on secret_rows, empty_table to ` + role.Name + `;
create table dated (d date, n numeric(6,2), a int[], t time); insert into dated values ('infinity', 'NaN', '{{1,2}}', '24:00'), ('2020-01-01', 1, '{1}', '12:00');
grant select on dated to ` + role.Name)
	type finding struct{ Code, Severity, Where, Mend string }
	found := map[string]finding{}
	r := testlab.Leat(t).Run(db.EnvOf(role), "check", "--json", "--deep", "--to", "/proc/leat-cannot-write-here")
	for line := range strings.Lines(r.Stdout) {
		var f finding
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		found[f.Code+" "+f.Where] = f
	}
	if r.Exit != 6 {
		t.Errorf("exit %d\n%s", r.Exit, r.Stderr)
	}
	f := func(code, where, severity, mend string) {
		t.Helper()
		got, ok := found[code+" "+where]
		if !ok || got.Severity != severity || !strings.Contains(got.Mend, mend) {
			t.Errorf("%s at %s: found %+v\n%s", code, where, got, r.Stdout)
		}
	}
	f("table-select", "public.orders", "error", `grant select on "public"."orders" to "`+role.Name+`";`)
	f("row-security", "public.secret_rows", "error", "bypassrls")
	f("replication-right", role.Name, "warn", "replication")
	f("replica-identity", "public.empty_table", "info", "replica identity full")
	f("type-policy", "public.dated.d", "error", "dump.types.date")
	f("type-policy", "public.dated.n", "error", "dump.types.numeric")
	f("type-policy", "public.dated.a", "error", "dump.types.array")
	f("type-policy", "public.dated.t", "error", "dump.types.time")
	for key, got := range found {
		if strings.HasPrefix(key, "bucket-missing ") && got.Severity == "error" {
			return
		}
	}
	t.Errorf("a folder that cannot be written to is not found:\n%s", r.Stdout)
}

// checked runs leat check and gives its findings by code and place.
func checked(t *testing.T, env []string, exit int, args ...string) (found map[string]string) {
	t.Helper()
	r := testlab.Leat(t).Run(env, append([]string{"check", "--json"}, args...)...)
	if r.Exit != exit {
		t.Errorf("check %q ends with %d instead of %d\n%s%s", args, r.Exit, exit, r.Stdout, r.Stderr)
	}
	found = map[string]string{}
	for line := range strings.Lines(r.Stdout) {
		var f struct{ Code, Severity, Where, What, Mend string }
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		found[f.Code+" "+f.Where] = f.Severity + " " + f.What + " " + f.Mend
	}
	return found
}

func TestCheckForARunTellsWhatARunWouldMeet(t *testing.T) {
	t.Parallel()
	db, to := testlab.Postgres(t), t.TempDir()
	db.Exec(`create table orders (id int primary key); create table loose (a int); create unlogged table scratch (id int primary key);
create table odd (id int primary key, _leat_op text); create table orders_history (id int primary key); create view seen as select 1 as a;
create table parts (id int, at date) partition by range (at); alter table parts replica identity full; create table parts_1 partition of parts for values from ('2026-01-01') to ('2027-01-01')`)
	name, cache := db.Name[max(0, len(db.Name)-40):], t.TempDir()
	run := []string{"--for", "run", "--name", name, "--to", to}
	env := append(db.Env(), "XDG_CACHE_HOME="+cache)
	tells := func(found map[string]string, at, what string) {
		t.Helper()
		code, place, _ := strings.Cut(at, " ")
		for key, told := range found {
			if strings.HasPrefix(key, code+" ") && strings.HasSuffix(key, place) && strings.Contains(told, what) {
				return
			}
		}
		t.Errorf("of %s it does not tell %q: %v", at, what, found)
	}
	found := checked(t, env, 0, run...)
	tells(found, "replica-identity public.loose", `leat run leaves the table out ALTER TABLE "public"."loose" REPLICA IDENTITY FULL;`)
	tells(found, "replica-identity public.parts_1", `ALTER TABLE "public"."parts_1" REPLICA IDENTITY FULL;`)
	tells(found, "not-followed public.scratch", "warn left out")
	tells(found, "not-followed public.seen", "info left out")
	tells(found, "publication leat_"+name, "ok it can be made, or is there; tables: 1")
	tells(found, "schema-unfollowable public.odd._leat_op", "leat run leaves the table out Rename the column")
	tells(found, "schema-unfollowable public.orders_history", "leat run leaves the table out Exclude one of the two")
	if len(found) < 12 || found["catalog file"] != "ok the catalog answers " {
		t.Errorf("it tells too little: %v", found)
	}
	outright := []string{"--table", "public.orders", "--table", "public.loose"}
	tells(checked(t, env, 6, append(run, outright...)...), "replica-identity public.loose", "error the log cannot tell updates and deletes")
	if r := testlab.Leat(t).Run(db.Env(), append([]string{"run", "--name", name, "--to", t.TempDir(), "--work-dir", t.TempDir(), "--until-caught-up"}, outright...)...); r.Exit != 3 || !strings.Contains(r.Stderr, "public.loose") {
		t.Errorf("leat run ends with %d\n%s", r.Exit, r.Stderr)
	}

	found = checked(t, env, 0, append(run, "--set", "run.without_identity=recopy")...)
	tells(found, "replica-identity public.loose", "warn the log cannot tell updates and deletes, so the whole table is copied again every 1h")
	db.Exec("drop table odd, orders_history; alter table parts_1 replica identity full")
	found = checked(t, env, 0, append(run, "--set", "run.without_identity=inserts")...)
	tells(found, "replica-identity public.loose", "warn only inserts and truncates are followed")
	tells(found, "publication leat_"+name+"_inserts", "ok it can be made, or is there; tables: 1")
	found = checked(t, env, 0, append(run, "--set", "run.without_identity=skip", "--catalog", "sqlite", "--catalog-uri", t.TempDir()+"/catalog.db")...)
	tells(found, "replica-identity public.loose", "warn left out")
	tells(found, "catalog sqlite", "ok the catalog answers")

	role := db.Role("")
	db.Exec("grant select on orders to " + role.Name)
	found = checked(t, db.EnvOf(role), 6, append(run, "--table", "public.orders")...)
	tells(found, "replication-right "+role.Name, "error the role may not replicate")
	tells(found, "publication-unusable leat_"+name, `create publication "leat_`+name+`" for table only "public"."orders"`)
	found = checked(t, env, 6, append(run, "--table", "public.orders", "--set", "run.own_publication=false")...)
	tells(found, "publication-unusable leat_"+name, "it does not exist")
	db.Exec(`create publication "leat_` + name + `" for table orders with (publish_via_partition_root = true)`)
	found = checked(t, env, 0, append(run, "--table", "public.orders", "--set", "run.own_publication=false")...)
	tells(found, "publication leat_"+name, "ok it gives all that is needed; tables: 1")

	db.Exec("select pg_create_logical_replication_slot('leat_" + name + "', 'test_decoding')")
	found = checked(t, env, 6, append(run, "--table", "public.orders")...)
	tells(found, "source-failed leat_"+name, "the slot is of output plugin test_decoding")
	found = checked(t, env, 6, append(run, "--table", "public.nothing_*")...)
	tells(found, "table-missing run.tables", "error no table matches")
	found = checked(t, env, 6, append(run, "--table", "public.orders", "--set", "run.slot=leat_f"+name, "--set", "run.failover=true")...)
	tells(found, "source-version "+db.Name, "failover slots exist from PostgreSQL 17 on")

	db.Exec(`create table days (id int primary key, at date, hidden date); insert into days values (1, 'infinity', 'infinity'), (2, '2026-01-01', 'infinity')`)
	days := append(run, "--table", "public.days", "--deep", "--set", "run.slot=leat_d"+name)
	found = checked(t, env, 0, days...)
	tells(found, "type-policy public.days.hidden", "info 2 of its values")
	days = append(days, "--set", "run.types.date=fail")
	found = checked(t, env, 6, days...)
	tells(found, "type-policy public.days.at", "error 1 of its values")
	tells(found, "type-policy public.days.hidden", "error 2 of its values")
	checked(t, env, 6, append(days, "--set", "lake.target=files", "--set", "lake.file_format=csv")...)
	checked(t, env, 0, append(days, "--set", "run.columns=public.days = id, at", "--set", "run.row_filters=public.days = id > 1", "--set", "run.publication=other", "--set", "run.own_publication=true")...)

	if left := db.One("select (select count(*) from pg_publication) || ' ' || (select count(*) from pg_replication_slots where slot_name like '%" + name + "')"); left != "1 1" {
		t.Errorf("there are %s publications and slots, one each of which is the test's", left)
	}
	for _, dir := range []string{to, cache} {
		if entries, err := os.ReadDir(dir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != ".leat-tmp" }) {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	}
}

func TestCheckRefusesFlagsThatSayNothingOfItsJob(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--for", "run", "--format", "csv"}, {"--keep", "both"}, {"--for", "mirror"}} {
		if r := testlab.Leat(t).Run(nil, append([]string{"check"}, args...)...); r.Exit != 2 || !strings.Contains(r.Stderr, "usage-invalid") {
			t.Errorf("%q: exit %d\n%s", args, r.Exit, r.Stderr)
		}
	}
}

func TestAFlagThatIsMistypedIsNamedWithTheOneThatWasMeant(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"check --to-endpoint x", "Did you mean --endpoint? See leat check --help."}, {"mirror --endpoint x", "Did you mean --from-endpoint or --to-endpoint? See leat mirror --help."},
		{"run --until-caugt-up", "Did you mean --until-caught-up? See"}, {"dump --colour", "mend: See leat dump --help."}, {"dump -z", "mend: See leat dump --help."},
	} {
		if r := testlab.Leat(t).Run(nil, strings.Fields(c.args)...); r.Exit != 2 || !strings.Contains(r.Stderr, c.want) {
			t.Errorf("%s: exit %d\n%s", c.args, r.Exit, r.Stderr)
		}
	}
}

func TestCheckTellsOfADatabaseItCannotReachAndStillLooksAtTheBucket(t *testing.T) {
	t.Parallel()
	r := testlab.Leat(t).Run(nil, "check", "--from", "postgres://nobody@127.0.0.1:1/none", "--to", t.TempDir())
	if r.Exit != 6 || !strings.Contains(r.Stdout, "(source-unreachable)") || !strings.Contains(r.Stdout, "(bucket-write)") {
		t.Errorf("exit %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
}
