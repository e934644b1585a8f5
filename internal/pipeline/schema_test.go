package pipeline_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

// long says whether whole matrices are tried (make crash).
func long() bool { return os.Getenv("LEAT_TEST_LONG") != "" }

// bed is a database that leat run follows into a folder.
type bed struct {
	t    *testing.T
	db   *testlab.DB
	dir  string
	more []string
	env  []string // of leat; the superuser's if nil
}

func newBed(t *testing.T, major int, more ...string) *bed {
	t.Helper()
	return &bed{t: t, db: testlab.Postgres(t, major), dir: t.TempDir(), more: more}
}

func (b *bed) args(more ...string) []string {
	args := []string{"run", "--to", b.dir + "/lake", "--set", "run.slot=" + b.slot(), "--keep", "both", "--work-dir", b.dir + "/work", "--set", "run.lease_ttl=2s"}
	return append(append(args, b.more...), more...)
}

// slot is a name of the database's own: slots belong to the server.
func (b *bed) slot() string { return b.db.Name[max(0, len(b.db.Name)-60):] }

func (b *bed) environment() []string {
	if b.env == nil {
		return b.db.Env()
	}
	return b.env
}

// catchUp runs leat until the lake holds what the source holds now.
func (b *bed) catchUp() testlab.Result {
	b.t.Helper()
	return testlab.Leat(b.t).Run(b.environment(), b.args("--until-caught-up")...)
}

func (b *bed) mustCatchUp() testlab.Result {
	b.t.Helper()
	r := b.catchUp()
	if r.Exit != 0 {
		b.t.Fatalf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	return r
}

// start runs leat in the background.
func (b *bed) start() *testlab.Process {
	b.t.Helper()
	return testlab.Leat(b.t).Start(b.environment(), b.args("--commit-interval", "100ms")...)
}

// flushed waits until the slot is acknowledged up to now.
func (b *bed) flushed(p *testlab.Process) {
	b.t.Helper()
	lsn := b.db.One("select pg_current_wal_lsn()")
	b.db.Exec("select pg_logical_emit_message(false, 'leat', '')")
	for end := time.Now().Add(60 * time.Second); ; {
		if b.db.One("select count(*) from pg_replication_slots where slot_name = '"+b.slot()+"' and confirmed_flush_lsn >= '"+lsn+"'") == "1" {
			return
		}
		select {
		case <-p.Done():
			b.t.Fatalf("leat run ends by itself: %s", p.Wait().Stderr)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(end) {
			b.t.Fatalf("the slot is not acknowledged up to %s", lsn)
		}
	}
}

// lakeTable is an Iceberg table as PyIceberg reads it.
type lakeTable struct {
	Columns []string
	Rows    [][]*string
	Error   string
}

// inLake reads tables of the lake with PyIceberg.
func (b *bed) inLake(tables ...string) map[string]lakeTable {
	b.t.Helper()
	var folders []string
	for _, name := range tables {
		folders = append(folders, b.dir+"/lake/public/"+name)
	}
	question, err := json.Marshal(map[string]any{"properties": map[string]string{}, "tables": folders})
	if err != nil {
		b.t.Fatal(err)
	}
	script, err := os.ReadFile(testlab.RepoFile(b.t, "test/crash/testdata/lake.py"))
	if err != nil {
		b.t.Fatal(err)
	}
	out, _ := testlab.RunPython(b.t, string(script), string(question))
	found := map[string]lakeTable{}
	for i, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var l lakeTable
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Error != "" {
			b.t.Fatalf("%s: %v %s", tables[i], err, l.Error)
		}
		found[tables[i]] = l
	}
	return found
}

// chosen are the named columns of all rows as text, sorted.
func (l lakeTable) chosen(columns []string) []string {
	var out []string
	for _, row := range l.Rows {
		var values []string
		for _, name := range columns {
			at := slices.Index(l.Columns, name)
			switch {
			case at < 0:
				values = append(values, "(no column "+name+")")
			case row[at] == nil:
				values = append(values, "NULL")
			default:
				values = append(values, *row[at])
			}
		}
		out = append(out, strings.Join(values, "|"))
	}
	slices.Sort(out)
	return out
}

// judge compares the lake's current tables with the source.
func (b *bed) judge(tables ...string) {
	b.t.Helper()
	for name, l := range b.inLake(tables...) {
		var columns, texts []string
		for _, r := range b.db.Query("select attname, format('coalesce(%I::text, ''NULL'')', attname) from pg_attribute where attrelid = 'public." + name + "'::regclass and attnum > 0 and not attisdropped order by attnum") {
			columns, texts = append(columns, r[0]), append(texts, r[1])
		}
		var want []string
		for _, r := range b.db.Query("select concat_ws('|', " + strings.Join(texts, ", ") + ") from public." + name) {
			want = append(want, r[0])
		}
		slices.Sort(want)
		if got := l.chosen(columns); !slices.Equal(got, want) {
			b.t.Errorf("%s: the lake has\n%s\nthe source has\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		kept := slices.DeleteFunc(slices.Clone(l.Columns), func(c string) bool { return strings.Contains(c, "__v") })
		slices.Sort(kept)
		slices.Sort(columns)
		if !slices.Equal(kept, columns) {
			b.t.Errorf("%s: the lake has columns %v, the source %v", name, kept, columns)
		}
	}
}

// alterations are tables with what is done to each, step by step.
var alterations = map[string][]string{
	"added":     {"insert into added values (5, 'e'); alter table added add c int; insert into added values (6, 'f', 1)", "update added set c = 2 where id = 1", "delete from added where id = 2"},
	"constant":  {"insert into constant values (5, 'e'); alter table constant add c int not null default 7, add d numeric(10,2) default 1.50; update constant set v = 'x' where id = 1", "insert into constant values (6, 'f')", "delete from constant where id in (2, 5); update constant set c = 8 where id = 3"},
	"unlike":    {"insert into unlike values (5, 'e'); alter table unlike add c text default md5(random()::text); update unlike set v = 'x' where id = 1", "insert into unlike values (6, 'f')", "delete from unlike where id = 2"},
	"dropped":   {"alter table dropped drop v; insert into dropped values (5)", "alter table dropped add v text; update dropped set v = 'again' where id = 1", "alter table dropped drop v; alter table dropped add v int default 3; insert into dropped values (6)"},
	"renamed":   {"update renamed set v = 'x' where id = 1; alter table renamed rename v to w; insert into renamed values (5, 'e')", "alter table renamed rename id to key; update renamed set w = 'y' where key = 2", "delete from renamed where key = 3; alter table renamed add v text default 'new'; insert into renamed values (7, 'g')"},
	"widened":   {"insert into widened values (5, 5, 'e', 1.5); alter table widened alter n type bigint, alter s type varchar(50), alter m type numeric(12,2); update widened set n = 5000000000, s = 'longer than before' where id = 1", "insert into widened values (6, 6000000000, 'f', 1234567890.25)", "delete from widened where id = 2; alter table widened alter id type bigint; update widened set n = 3 where id = 3"},
	"narrowed":  {"update narrowed set s = 'xx' where id = 1; alter table narrowed alter n type int, alter s type varchar(3), alter m type numeric(6,2); insert into narrowed values (5, 5, 'e', 1.5)", "update narrowed set n = -3 where id = 2", "alter table narrowed alter n type bigint, alter s type text; update narrowed set n = 6000000000, s = 'long again' where id = 3"},
	"nullable":  {"alter table nullable alter n drop not null, alter v set not null; insert into nullable values (5, null, 'e')", "update nullable set n = null where id = 1", "update nullable set n = 0; alter table nullable alter n set not null; insert into nullable values (6, 6, 'f')"},
	"midway":    {"begin; update midway set v = 'before' where id = 1; insert into midway values (5, 'e'); alter table midway add c int default 9; update midway set c = 10 where id = 5; insert into midway values (6, 'f', 11); alter table midway drop v; insert into midway values (7, 12); commit", "begin; update midway set c = 0 where id = 1; alter table midway rename c to d; update midway set d = 1 where id = 2; rollback; delete from midway where id = 3", "begin; insert into midway values (8, 8); savepoint s; alter table midway add x text; insert into midway values (9, 9, 'x'); rollback to s; insert into midway values (10, 10); commit"},
	"rekeyed":   {"alter table rekeyed drop constraint rekeyed_pkey; alter table rekeyed add primary key (v); update rekeyed set id = 10 where v = 'a'", "delete from rekeyed where v = 'b'; update rekeyed set v = 'cc' where v = 'c'", "alter table rekeyed drop id; insert into rekeyed values ('z')"},
	"keyless":   {"insert into keyless values (1, 'a'); alter table keyless add c int default 4; delete from keyless where ctid = (select min(ctid) from keyless where id = 1)", "alter table keyless drop v; delete from keyless where ctid = (select min(ctid) from keyless where id = 1); insert into keyless values (2, 5)", "update keyless set c = 6 where id = 3; alter table keyless alter id type bigint; delete from keyless where id = 2"},
	"untouched": {"alter table untouched add c int default 5", "alter table untouched drop v", "update untouched set c = 6 where id = 1"},
}

func (b *bed) setUp() (tables []string) {
	for name := range alterations {
		tables = append(tables, name)
		key := "primary key"
		if name == "keyless" {
			key = ""
		}
		switch name {
		case "widened":
			b.db.Exec("create table widened (id int primary key, n int, s varchar(5), m numeric(10,2)); insert into widened select i, i, 'v' || i, i from generate_series(1, 4) i")
			continue
		case "narrowed":
			b.db.Exec("create table narrowed (id int primary key, n bigint, s text, m numeric(10,2)); insert into narrowed select i, i, 'v' || i, i from generate_series(1, 4) i")
			continue
		case "nullable":
			b.db.Exec("create table nullable (id int primary key, n int not null, v text); insert into nullable select i, i, 'v' from generate_series(1, 4) i")
			continue
		}
		b.db.Exec(fmt.Sprintf("create table %[1]s (id int %[2]s, v text not null); insert into %[1]s select i, chr(96 + i) from generate_series(1, 4) i", name, key))
	}
	b.db.Exec("alter table keyless replica identity full; insert into keyless values (1, 'a'), (1, 'a')")
	slices.Sort(tables)
	return tables
}

func (b *bed) alter(tables []string, step int) {
	for _, name := range tables {
		for statement := range strings.SplitSeq(alterations[name][step], "; ") {
			b.db.Exec(statement)
		}
	}
}

func TestAlterationsAreFollowedWhileLeatIsAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		major, version int
	}{{15, 2}, {18, 3}} {
		t.Run(fmt.Sprint("PostgreSQL ", c.major), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, c.major, "--set", fmt.Sprint("lake.format_version=", c.version))
			tables := b.setUp()
			b.mustCatchUp()
			b.alter(tables, 0)
			b.mustCatchUp()
			b.judge(tables...)
			b.alter(tables, 1)
			b.alter(tables, 2)
			b.mustCatchUp()
			b.judge(tables...)
			b.untold(tables)
		})
	}
}

// untold looks that nothing more comes: a run that has nothing to do changes nothing.
func (b *bed) untold(tables []string) {
	b.t.Helper()
	if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied anew") {
		b.t.Errorf("a table is copied anew though nothing has happened: %s", r.Stderr)
	}
	b.judge(tables...)
}

func TestAlterationsAreFollowedAsTheyHappen(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 15} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, major)
			tables := b.setUp()
			b.mustCatchUp()
			p := b.start()
			for step := range 3 {
				b.alter(tables, step)
				b.flushed(p)
			}
			p.Signal(syscall.SIGTERM)
			p.Wait()
			b.mustCatchUp() // a copy may have been under way
			b.judge(tables...)
		})
	}
}

func TestAlterationsAreFollowedUnderKills(t *testing.T) {
	t.Parallel()
	b := newBed(t, 15)
	tables := b.setUp()
	b.mustCatchUp()
	for step := range 3 {
		for i, name := range tables {
			b.alter([]string{name}, step)
			if i%4 != step {
				continue
			}
			p := b.start()
			select {
			case <-time.After(time.Duration(700+300*i) * time.Millisecond):
			case <-p.Done():
				t.Fatalf("leat run ends by itself: %s", p.Wait().Stderr)
			}
			p.Kill()
		}
	}
	b.mustCatchUp()
	b.judge(tables...)
}

func TestAColumnThatWasNullableForATimeHasItsNulls(t *testing.T) {
	t.Parallel()
	for _, keep := range []string{"current", "history"} {
		t.Run(keep, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 15, "--set", "run.keep="+keep, "--set", "run.commit_rows=1")
			b.db.Exec("create table t (id int primary key, n int not null); insert into t values (1, 1)")
			b.mustCatchUp()
			b.db.Exec("alter table t alter n drop not null")
			b.db.Exec("insert into t values (2, null)")
			b.db.Exec("update t set n = null where id = 1")
			b.db.Exec("update t set n = 0")
			b.db.Exec("alter table t alter n set not null")
			b.db.Exec("insert into t values (3, 3)")
			if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied") {
				t.Errorf("the table is copied again:\n%s", r.Stderr)
			}
			b.db.Exec("insert into t values (4, 4)")
			b.mustCatchUp()
			if keep == "current" {
				b.judge("t")
				return
			}
			rows := b.inLake("t_history")["t_history"].chosen([]string{"id", "n"})
			slices.Sort(rows)
			if want := []string{"1|0", "1|1", "1|NULL", "2|0", "2|NULL", "3|3", "4|4"}; !slices.Equal(rows, want) {
				t.Errorf("the history has %v, want %v", rows, want)
			}
		})
	}
}

func TestATypeThatTheLakeCannotWidenToGoesByThePolicy(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"version", "copy", "stop"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 15, "--set", "run.on_schema_change="+policy)
			b.db.Exec("create table t (id int primary key, n int, at timestamp(6)); insert into t values (1, 1, '2024-01-02 03:04:05.678901'), (2, 2, null)")
			b.mustCatchUp()
			b.db.Exec("update t set n = 3 where id = 1")
			b.db.Exec("alter table t alter n type text using 'no ' || n, alter at type timestamp(0)")
			b.db.Exec("insert into t values (3, 'three', '2024-01-02 03:04:05')")
			r := b.catchUp()
			switch policy {
			case "stop":
				if r.Exit != 5 || !strings.Contains(r.Stderr, "schema-unfollowable") {
					t.Errorf("leat run ends with %d: %s", r.Exit, r.Stderr)
				}
			case "copy":
				if r.Exit != 0 {
					t.Fatalf("leat run ends with %d: %s", r.Exit, r.Stderr)
				}
				b.judge("t")
			case "version":
				if r.Exit != 0 {
					t.Fatalf("leat run ends with %d: %s", r.Exit, r.Stderr)
				}
				b.judge("t")
				l := b.inLake("t_history")["t_history"]
				kept := slices.DeleteFunc(slices.Clone(l.Columns), func(c string) bool { return !strings.Contains(c, "__v") })
				want := []string{"1|1", "2|2"} // what was told; the copy brings the rest
				got := slices.DeleteFunc(l.chosen(append([]string{"id"}, kept...)), func(row string) bool { return strings.HasSuffix(row, "NULL") })
				if len(kept) != 1 || !slices.Equal(got, want) {
					t.Errorf("of before the history has %v: %v", kept, got)
				}
			}
		})
	}
}
