package pipeline_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// meddling is what happens to a table so that the WAL does not tell all of it, and is not to be seen in what the catalog says afterwards.
type meddling struct {
	from  int    // the oldest server that can
	rows  string // what the table's rows are made of
	does  []string
	other bool // it is another table, of which leat tells in another way
}

// parted is a table of two partitions, flat one without.
const (
	parted = `create table %[1]s (id int, d int, v text, primary key (id, d)) partition by range (d);
create table %[1]s_1 partition of %[1]s for values from (0) to (10); create table %[1]s_2 partition of %[1]s for values from (10) to (20);
insert into %[1]s select i, i, 'first' from generate_series(0, 19) i`
	twice = `create table %[1]s (id int, d int, k int not null, v text, primary key (id, d), unique (k, d)) partition by range (d);
create table %[1]s_1 partition of %[1]s for values from (0) to (10); insert into %[1]s select i, i % 10, i * 10, 'first' from generate_series(0, 19) i`
	flat      = `create table %[1]s (id int primary key, v text); insert into %[1]s select i, 'first' from generate_series(0, 19) i`
	numbered  = `create table %[1]s (id int primary key, n int, m int, v text); insert into %[1]s select i, i, i, 'first' from generate_series(0, 19) i`
	generated = `create table %[1]s (id int primary key, n int, v text, g int generated always as (n * 2) stored); insert into %[1]s select i, i, 'first' from generate_series(0, 19) i`
	tree      = `create table %[1]s (id int, d int, v text, primary key (id, d)) partition by range (d);
create table %[1]s_1 partition of %[1]s for values from (0) to (10) partition by list (d); create table %[1]s_11 partition of %[1]s_1 default;
insert into %[1]s select i, i, 'first' from generate_series(0, 9) i`
)

// meddlings are by the name of the table, which %[1]s stands for.
var meddlings = map[string]meddling{
	"filled": {rows: parted, does: []string{`begin; create table %[1]s_3 (like %[1]s including all); insert into %[1]s_3 values (30, 30, 'untold');
alter table %[1]s attach partition %[1]s_3 for values from (30) to (40); commit`, `insert into %[1]s values (31, 31, 'told')`}},
	"plainly": {rows: parted, does: []string{`begin; create table %[1]s_3 (id int not null, d int not null, v text); insert into %[1]s_3 values (30, 30, 'untold');
alter table %[1]s attach partition %[1]s_3 for values from (30) to (40); grant select on %[1]s_3 to public; commit`}},
	"savepoint": {rows: parted, does: []string{`begin; create table %[1]s_3 (like %[1]s including all); savepoint s; insert into %[1]s_3 values (30, 30, 'untold'); release s;
alter table %[1]s attach partition %[1]s_3 for values from (30) to (40); commit`}},
	"rewritten": {rows: parted, does: []string{`create table %[1]s_3 (like %[1]s including all); insert into %[1]s_3 values (30, 30, 'untold')`,
		`alter table %[1]s attach partition %[1]s_3 for values from (30) to (40)`, `alter table %[1]s_3 set unlogged`, `alter table %[1]s_3 set logged`}},
	"renewed": {rows: parted, does: []string{`begin; create table %[1]s_3 partition of %[1]s for values from (30) to (40); alter table %[1]s detach partition %[1]s_3;
insert into %[1]s_3 values (30, 30, 'untold'); alter table %[1]s attach partition %[1]s_3 for values from (30) to (40); commit`}},
	"detached": {rows: parted, does: []string{`alter table %[1]s detach partition %[1]s_1`, `update %[1]s_1 set v = 'untold' where id = 1; delete from %[1]s_1 where id = 2`,
		`alter table %[1]s attach partition %[1]s_1 for values from (0) to (10)`}},
	"returned": {rows: parted, does: []string{`create table %[1]s_3 partition of %[1]s for values from (30) to (40)`, `insert into %[1]s values (30, 30, 'told')`, `alter table %[1]s detach partition %[1]s_3`,
		`delete from %[1]s_3`, `alter table %[1]s attach partition %[1]s_3 for values from (30) to (40)`}},
	"bulk":    {rows: parted, does: []string{`create unlogged table %[1]s_3 partition of %[1]s for values from (30) to (40)`, `insert into %[1]s values (30, 30, 'untold')`, `alter table %[1]s_3 set logged`}},
	"cleared": {rows: parted, does: []string{`create table %[1]s_3 partition of %[1]s for values from (30) to (40)`, `insert into %[1]s values (30, 30, 'told')`, `truncate %[1]s_3`}},
	"other_root": {rows: twice, does: []string{`alter table %[1]s replica identity using index %[1]s_k_d_key`, `delete from %[1]s where id = 1; update %[1]s set id = 200 where id = 2`,
		`alter table %[1]s replica identity default`}},
	"other_leaf": {rows: twice, does: []string{`alter table %[1]s_1 replica identity using index %[1]s_1_k_d_key`, `delete from %[1]s where id = 1; update %[1]s set id = 200 where id = 2`,
		`alter table %[1]s_1 replica identity default`, `vacuum full %[1]s_1`}},
	"concurrent": {from: 14, rows: parted, does: []string{`alter table %[1]s detach partition %[1]s_1 concurrently`, `delete from %[1]s_1 where id = 2`,
		`alter table %[1]s attach partition %[1]s_1 for values from (0) to (10)`}},
	"hung": {rows: tree, does: []string{`alter table %[1]s detach partition %[1]s_1`, `update %[1]s_11 set v = 'untold' where id = 1`,
		`alter table %[1]s attach partition %[1]s_1 for values from (0) to (10)`}},
	"subtree": {rows: tree, does: []string{`begin; create table %[1]s_2 (like %[1]s including all) partition by list (d); create table %[1]s_21 partition of %[1]s_2 default;
insert into %[1]s_2 values (10, 10, 'untold'); alter table %[1]s attach partition %[1]s_2 for values from (10) to (20); commit`}},
	"unlogged": {rows: parted, does: []string{`alter table %[1]s_1 set unlogged`, `insert into %[1]s values (101, 1, 'untold'); update %[1]s set v = 'untold' where id = 1`,
		`alter table %[1]s_1 set logged`}},
	"refilled": {rows: parted, does: []string{`begin; truncate %[1]s; insert into %[1]s values (103, 1, 'told'), (113, 13, 'gone'); truncate %[1]s_2; insert into %[1]s values (114, 14, 'told'); commit`}},
	"loaded":   {rows: parted, does: []string{`create unlogged table %[1]s_3 partition of %[1]s for values from (30) to (40)`, `insert into %[1]s values (30, 30, 'untold')`, `alter table %[1]s_3 set logged`}},
	"loadedbare": {rows: `create table %[1]s (id int, d int, v name, primary key (id, d)) partition by range (d); create table %[1]s_1 partition of %[1]s for values from (0) to (30)`,
		does: []string{`begin; create unlogged table %[1]s_3 partition of %[1]s for values from (30) to (40); insert into %[1]s values (30, 30); alter table %[1]s_3 set logged; commit`}},
	"loadedatonce": {rows: parted, does: []string{`begin; create unlogged table %[1]s_3 partition of %[1]s for values from (30) to (40); insert into %[1]s values (30, 30, 'untold');
alter table %[1]s_3 set logged; grant select on %[1]s_3 to public; commit`}},
	"emptied": {rows: parted, does: []string{`truncate %[1]s_1`, `insert into %[1]s values (102, 1, 'told')`}},
	"taken": {rows: flat, does: []string{`begin; alter publication shop drop table %[1]s; insert into %[1]s values (30, 'untold'); delete from %[1]s where id = 1;
alter publication shop add table only %[1]s; commit`}},
	"rooted": {rows: parted, does: []string{`begin; alter publication shop drop table %[1]s; insert into %[1]s values (30, 3, 'untold'); alter publication shop add table %[1]s; commit`}},
	"filtered": {from: 15, rows: flat, does: []string{`begin; alter publication shop drop table %[1]s; alter publication shop add table only %[1]s where (id > 5);
update %[1]s set v = 'untold' where id = 1; alter publication shop drop table %[1]s; alter publication shop add table only %[1]s; commit`}},
	"listed": {from: 15, rows: flat, does: []string{`begin; alter publication shop drop table %[1]s; alter publication shop add table only %[1]s (id);
update %[1]s set v = 'untold' where id = 1; alter publication shop drop table %[1]s; alter publication shop add table only %[1]s; commit`}},
	"weakened": {rows: parted, does: []string{`create unique index %[1]s_u on %[1]s_1 (id)`, `begin; alter table %[1]s_1 replica identity using index %[1]s_u;
update %[1]s set d = 0 where id = 3; alter table %[1]s_1 replica identity default; commit`}},
	"traceless": {rows: parted, does: []string{`begin; create unique index %[1]s_u on %[1]s_1 (id); alter table %[1]s_1 replica identity using index %[1]s_u;
update %[1]s set d = 0 where id = 3; alter table %[1]s_1 replica identity default; drop index %[1]s_u; commit`}},
	"keyless": {rows: flat, does: []string{`begin; alter table %[1]s drop constraint %[1]s_pkey; insert into %[1]s values (1, 'twin'), (1, 'triplet');
alter table %[1]s add primary key (id, v); commit`}},
	"nothing": {rows: flat, does: []string{`begin; alter table %[1]s replica identity nothing; insert into %[1]s values (30, 'told'); alter table %[1]s replica identity default; commit`}},
	"whole": {rows: flat, does: []string{`begin; alter table %[1]s replica identity full; alter table %[1]s drop constraint %[1]s_pkey; insert into %[1]s values (1, 'twin');
delete from %[1]s where v = 'twin'; insert into %[1]s values (30, 'told'); alter table %[1]s add primary key (id); alter table %[1]s replica identity default; commit`}},
	"computed": {rows: flat, does: []string{`alter table %[1]s alter v type text using v || '!'`, `insert into %[1]s values (30, 'told')`}},
	"doubled": {rows: numbered, does: []string{`begin; alter table %[1]s alter n type bigint; alter table %[1]s alter v type char(5) using 'other'; alter table %[1]s alter n type int using n * 2;
alter table %[1]s alter v type text; commit`}},
	"retyped":    {rows: numbered, does: []string{`alter table %[1]s alter v type varchar(20) using v || '!'`}},
	"widened":    {rows: numbered, does: []string{`alter table %[1]s alter m type bigint using m * 2`}},
	"expression": {from: 18, rows: generated, does: []string{`alter table %[1]s alter g set expression as (n * 3)`}},
	"hidden":     {rows: numbered, does: []string{`alter table %[1]s alter n type int using n * 2`, `alter table %[1]s alter m type bigint`, `insert into %[1]s values (30, 30, 30, 'told')`}},
	"hiddenlong": {rows: numbered, does: []string{`alter table %[1]s alter n type int using n * 2`, `alter table %[1]s alter m type bigint`, `alter table %[1]s alter n set default 1`,
		`grant select on %[1]s to public`, `alter table %[1]s alter m set default 1`, `update %[1]s set v = 'told' where id = 3`}},
	"hiddenadded": {rows: numbered, does: []string{`alter table %[1]s alter v type text using v || '!'`, `alter table %[1]s add w double precision default random()`, `alter table %[1]s drop w`}},
	"hiddenkey":   {rows: numbered, does: []string{`alter table %[1]s alter id type int using id + 1000`, `alter table %[1]s alter m type bigint`, `insert into %[1]s values (30, 30, 30, 'told')`}},
	"beside":      {rows: numbered, does: []string{`alter table %[1]s alter m type bigint, alter n type int using n + 1`}},
	"again":       {rows: flat, does: []string{`drop table %[1]s; create table %[1]s (id int primary key, v text); insert into %[1]s values (1, 'another')`}, other: true},
	"swapped":     {rows: flat, does: []string{`create table %[1]s_new (id int primary key, v text); insert into %[1]s_new values (1, 'another'); begin; alter table %[1]s rename to %[1]s_old; alter table %[1]s_new rename to %[1]s; commit`}, other: true},
}

// harmless is what may happen to tables and makes no copy necessary.
var harmless = map[string]meddling{
	"allowed": {rows: parted + "; grant select on all tables in schema public to public", does: []string{`grant select on all tables in schema public to public`}},
	"monthly": {rows: parted, does: []string{`create table %[1]s_3 partition of %[1]s for values from (30) to (40); insert into %[1]s values (30, 30, 'told')`,
		`begin; create table %[1]s_4 partition of %[1]s for values from (40) to (50); insert into %[1]s values (40, 40, 'told'); alter table %[1]s_4 owner to postgres; grant select on %[1]s_4 to public; commit`,
		`create table %[1]s_5 partition of %[1]s for values from (50) to (60) partition by list (d); create table %[1]s_51 partition of %[1]s_5 default; insert into %[1]s values (50, 50, 'told')`}},
	"defaults": {rows: numbered, does: []string{`alter table %[1]s add w int not null default 7`, `alter table %[1]s alter n set default 5`, `alter table %[1]s alter m type bigint`,
		`alter table %[1]s alter v set not null`, `alter table %[1]s alter v type varchar(30)`, `alter table %[1]s alter v type varchar(40)`, `alter table %[1]s alter v set default 'x'`,
		`insert into %[1]s values (30, 30, 30, 'told'), (31, null, 31, 'told')`, `update %[1]s set n = n + 1 where id < 3`, `delete from %[1]s where id = 4`}},
	"packed": {rows: parted, does: []string{`create table %[1]s_3 partition of %[1]s for values from (30) to (40)`, `insert into %[1]s values (30, 30, 'told')`, `vacuum full %[1]s_3`, `cluster %[1]s_3 using %[1]s_3_pkey`,
		`create table %[1]s_4 partition of %[1]s for values from (40) to (50)`, `insert into %[1]s values (40, 40, 'told')`, `truncate %[1]s`, `insert into %[1]s values (41, 41, 'told')`}},
	"attached": {rows: parted, does: []string{`create table %[1]s_3 (like %[1]s including all)`, `alter table %[1]s attach partition %[1]s_3 for values from (30) to (40)`,
		`begin; create table %[1]s_4 (like %[1]s including all); alter table %[1]s attach partition %[1]s_4 for values from (40) to (50); insert into %[1]s values (40, 40, 'told'), (41, 41, 'told'); commit`}},
	"kept": {rows: parted, does: []string{`create index on %[1]s (v)`, `create index concurrently on %[1]s_1 (v)`, `grant select on %[1]s, %[1]s_1 to public`, `alter table %[1]s add w int`,
		`alter table %[1]s add x int default 3`, `analyze %[1]s`, `vacuum freeze pg_class, pg_inherits, pg_attribute, pg_publication, pg_publication_rel`, `vacuum full pg_publication_rel`, `vacuum freeze %[1]s_1`, `vacuum full %[1]s_1`, `cluster %[1]s_2 using %[1]s_2_pkey`, `reindex table concurrently %[1]s_1`,
		`alter table %[1]s_2 set (fillfactor = 80)`, `alter table %[1]s_1 add check (d >= 0)`, `insert into %[1]s values (102, 1, 'told')`}},
	"emptied": {rows: parted, does: []string{`truncate %[1]s`, `insert into %[1]s values (102, 1, 'told')`}},
	"rekeyed": {rows: flat, does: []string{`alter table %[1]s drop constraint %[1]s_pkey, add primary key (id)`, `update %[1]s set v = 'told' where id = 1`}},
	"retyped": {rows: numbered, does: []string{`alter table %[1]s alter m type bigint`, `insert into %[1]s values (30, 30, 30, 'told')`, `vacuum full %[1]s`}},
	"plain": {rows: flat, does: []string{`create index concurrently on %[1]s (v)`, `grant select on %[1]s to public`, `alter table %[1]s add w int default 3`, `truncate %[1]s`,
		`insert into %[1]s values (102, 'told')`, `vacuum full %[1]s`, `vacuum freeze %[1]s`, `reindex table concurrently %[1]s`,
		`alter table %[1]s replica identity full`, `alter table %[1]s replica identity default`, `update %[1]s set v = 'told'`}},
}

// copiedAnew are the tables that leat has said it copies again.
func copiedAnew(stderr string, tables []string) (which []string) {
	for _, name := range tables {
		if strings.Contains(stderr, "copied anew") && slices.ContainsFunc(strings.Split(stderr, "\n"), func(line string) bool {
			return strings.Contains(line, "copied anew") && strings.Contains(line, "table=public."+name+" ")
		}) {
			which = append(which, name)
		}
	}
	return which
}

// meddle has a server of its own, because a transaction of another test that is open makes leat less sure. It makes tables, lets leat copy them, lets happen what happens to them, with leat at work or away, and compares the lake with the source.
func meddle(t *testing.T, major int, running bool, all map[string]meddling, again bool, events string) {
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{Major: major}), dir: t.TempDir(), more: []string{"--set", "run.publication=shop", "--set", "run.ddl_events=" + events}}
	var tables, want []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := all[name]
		if m.from > major {
			continue
		}
		tables = append(tables, name)
		b.db.Exec(strings.ReplaceAll(m.rows, "%[1]s", name))
		if again && !m.other {
			want = append(want, name)
		}
	}
	b.mustCatchUp()
	var p *testlab.Process
	if running {
		p = b.start()
		b.until("the log is followed", func() bool { return b.active() != "" })
	}
	for _, name := range tables {
		for _, sql := range all[name].does {
			b.execAll(strings.ReplaceAll(sql, "%[1]s", name))
		}
	}
	stderr := ""
	if running {
		for _, name := range tables {
			if slices.Contains(want, name) || all[name].other {
				p.WaitFor("copied table=public." + name + " ")
			}
		}
		b.until("the tables are followed", func() bool {
			return !slices.ContainsFunc(tables, func(name string) bool { return b.phase(name) != "streaming" })
		})
		for _, name := range tables {
			b.db.Exec(fmt.Sprintf("update %s set v = 'last' where id = 5", name))
		}
		b.flushed(p)
		p.Signal(syscall.SIGTERM)
		stderr = p.Wait().Stderr
		b.judge(tables...)
	}
	stderr += b.mustCatchUp().Stderr
	_, saved := b.state()
	for _, name := range tables {
		if facts, known := stateOf(saved, "public."+name)["facts"].(string); !known || strings.HasPrefix(facts, "- ") {
			t.Errorf("%s: nothing is known that the next look could compare: %q", name, facts)
		}
	}
	b.judge(tables...)
	if got := slices.DeleteFunc(copiedAnew(stderr, tables), func(name string) bool { return all[name].other }); !slices.Equal(got, want) {
		t.Errorf("copied again are %v, want %v:\n%s", got, want, stderr)
	}
	if !running {
		for _, name := range want {
			if n := strings.Count(stderr, `msg="the table is copied anew" table=public.`+name+" "); n != 1 {
				t.Errorf("%d reasons are found to copy %s:\n%s", n, name, stderr)
			}
		}
	}
	if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied") {
		t.Errorf("a table is copied again though nothing has happened:\n%s", r.Stderr)
	}
}

// execAll runs statements one after the other, each by itself unless they make a transaction of their own.
func (b *bed) execAll(sql string) {
	b.t.Helper()
	conn := b.db.Connect()
	for statement := range strings.SplitSeq(sql, ";") {
		if _, err := conn.Exec(b.t.Context(), statement); err != nil {
			b.t.Fatalf("%s: %v", statement, err)
		}
	}
	_ = conn.Close(b.t.Context())
}

func TestWhatTheWALDoesNotTellIsCopiedAgain(t *testing.T) {
	t.Parallel()
	type server struct {
		major   int
		running bool
		events  string
	}
	servers := []server{{13, false, "auto"}, {15, true, "off"}, {18, false, "off"}} // a superuser has events by auto
	if long() {
		servers = append(servers, server{17, false, "on"})
	}
	for _, c := range servers {
		t.Run(fmt.Sprint("PostgreSQL ", c.major, ", running: ", c.running, ", DDL events: ", c.events), func(t *testing.T) {
			t.Parallel()
			meddle(t, c.major, c.running, meddlings, true, c.events)
		})
	}
}

func TestHarmlessChangesMakeNoCopy(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		major   int
		running bool
	}{{13, false}, {15, true}, {18, false}} {
		t.Run(fmt.Sprint("PostgreSQL ", c.major, ", running: ", c.running), func(t *testing.T) {
			t.Parallel()
			meddle(t, c.major, c.running, harmless, false, "auto")
		})
	}
}

func TestATableThatLosesItsKeyIsLeftOutUntilItHasOne(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ running, alone bool }{{false, false}, {true, false}, {true, true}} {
		t.Run(fmt.Sprintf("running: %t, alone: %t", c.running, c.alone), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 15, "--set", "run.max_retry_delay=1s")
			b.db.Exec("create table k (id int primary key, v text); insert into k values (1, 'one')")
			if !c.alone {
				b.db.Exec("create table other (id int primary key, v text)")
			}
			b.mustCatchUp()
			var p *testlab.Process
			if c.running {
				p = b.start()
				b.until("the log is followed", func() bool { return b.active() != "" })
			}
			b.db.Exec("alter table k drop constraint k_pkey")
			if !c.running {
				p = b.start()
			}
			p.WaitFor("tables are left out: the log cannot tell")
			b.db.Exec("insert into k values (1, 'twin'), (1, 'triplet')")
			if c.alone {
				p.WaitFor("no table is left to follow")
			} else { // it is not published, so the application may update it
				b.until("the log is followed", func() bool { return b.active() != "" })
				b.db.Exec("update k set v = 'changed' where v = 'one'; insert into other values (1, 'goes on')")
				b.flushed(p)
			}
			b.db.Exec("alter table k add primary key (v)")
			p.WaitFor("copied table=public.k ")
			b.until("the table is followed", func() bool { return b.phase("public.k") == "streaming" })
			b.db.Exec("insert into k values (2, 'last')")
			b.flushed(p)
			p.Signal(syscall.SIGTERM)
			p.Wait()
			b.judge("k")
			if !c.alone {
				b.judge("other")
			}
		})
	}
}

// The lake keeps the rows of a partition that was detached. What happens to them until it is attached again is not told.
func TestAPartitionThatComesBackIsNotTakenForANewOne(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprint("running: ", running), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 15)
			b.db.Exec(strings.ReplaceAll(parted, "%[1]s", "ev"))
			b.mustCatchUp()
			wait := func(string) { b.mustCatchUp() }
			if running {
				p := b.start()
				b.until("the log is followed", func() bool { return b.active() != "" })
				wait = p.WaitFor
			}
			b.db.Exec("alter table ev detach partition ev_1")
			wait("partitions were detached or dropped")
			b.db.Exec("delete from ev_1; alter table ev attach partition ev_1 for values from (0) to (10)")
			wait("is attached again")
			b.until("the table is followed", func() bool { return b.phase("public.ev") == "streaming" })
			b.until("the lake has it", func() bool { return len(b.inLake("ev")["ev"].Rows) == 10 })
			b.judge("ev")
		})
	}
}

// What happens after a run has looked, and before it says that it has caught up, counts too.
func TestARunThatEndsLooksOnceMore(t *testing.T) {
	t.Parallel()
	b := newBed(t, 15)
	b.db.Exec(strings.ReplaceAll(parted, "%[1]s", "ev") + "; create table whole (id int, v text); alter table whole replica identity full; insert into whole values (1, 'first')")
	b.mustCatchUp()
	b.ask("resync", "--table", "public.whole")
	end := b.openTransaction("insert into whole values (2, 'early')")
	p := testlab.Leat(t).Start(b.db.Env(), b.args("--until-caught-up")...)
	p.WaitFor("the copy waits for transactions that are open") // it looks again five seconds after it began, and ends before that
	b.db.Exec(`begin; create table ev_3 (like ev including all); insert into ev_3 values (30, 30, 'untold');
alter table ev attach partition ev_3 for values from (30) to (40); commit`)
	end("commit")
	if r := p.Wait(); r.Exit != 0 {
		t.Fatalf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	b.judge("ev", "whole")
}

// An unlogged partition, and a foreign one, are left out as such tables are, and come in when they can be followed.
func TestPartitionsThatTheWALDoesNotTellAreLeftOut(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	b.db.Exec(`create table ev (id int, d int, v text, primary key (id, d)) partition by range (d); create table ev_1 partition of ev for values from (0) to (10);
create unlogged table ev_2 partition of ev for values from (10) to (20); insert into ev values (1, 1, 'told'), (11, 11, 'untold');
create table far (id int, d int not null, v text) partition by range (d); create table far_1 partition of far for values from (0) to (10); insert into far values (1, 1, 'told');
create extension file_fdw; create server files foreign data wrapper file_fdw;
create foreign table far_2 partition of far for values from (10) to (20) server files options (program 'echo 11,11,untold', format 'csv');
alter table far replica identity full; alter table far_1 replica identity full`)
	holds := func(table, where string) {
		t.Helper()
		var want []string
		for _, r := range b.db.Query("select concat_ws('|', id, d, v) from " + table + " where " + where + " order by 1") {
			want = append(want, r[0])
		}
		if got := b.inLake(table)[table].chosen([]string{"id", "d", "v"}); !slices.Equal(got, want) {
			t.Errorf("%s: the lake has %v, the source %v", table, got, want)
		}
	}
	if r := testlab.Leat(t).Run(b.db.Env(), b.args("--until-caught-up", "--set", "run.partitions_without_wal=refuse")...); r.Exit != 3 || !strings.Contains(r.Stderr, "public.ev_2") {
		t.Errorf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	r := b.mustCatchUp()
	for _, leaf := range []string{"ev_2", "far_2"} {
		if !strings.Contains(r.Stderr, "partition=public."+leaf) {
			t.Errorf("nothing is said of %s: %s", leaf, r.Stderr)
		}
	}
	b.db.Exec("insert into ev values (2, 2, 'told'), (12, 12, 'untold'); update far set v = 'told again' where d < 10")
	b.mustCatchUp()
	holds("ev", "d < 10")
	holds("far", "d < 10")
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("alter table ev_2 set logged")
	p.WaitFor("copied anew")
	b.until("the table is followed", func() bool { return b.phase("public.ev") == "streaming" })
	b.db.Exec("update ev set v = 'told by now'; alter table ev_1 set unlogged")
	p.WaitFor("partition=public.ev_1")
	b.until("the table is followed", func() bool { return b.phase("public.ev") == "streaming" })
	b.db.Exec("insert into ev values (3, 3, 'untold'), (13, 13, 'told')")
	b.flushed(p)
	p.Signal(syscall.SIGTERM)
	p.Wait()
	holds("ev", "d >= 10")
	b.db.Exec("alter table ev_1 set logged")
	b.mustCatchUp()
	holds("ev", "true")
	if r := testlab.Leat(t).Run(b.db.Env(), b.args("--until-caught-up", "--set", "run.partitions_without_wal=copy")...); r.Exit != 0 {
		t.Errorf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	holds("far", "true")
}

// What others do to the publication itself concerns all of its tables. The server's own word for a publication that was away, a
// warning since 18, may be turned off for the role.
func TestAPublicationThatWasAnotherOneForATimeIsNotBelieved(t *testing.T) {
	t.Parallel()
	const told = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
	for name, c := range map[string]struct {
		major int
		more  []string
		setUp string
		does  string
	}{
		"it publishes inserts only":               {15, nil, "", "alter publication shop set (publish = 'insert')"},
		"it published inserts only":               {13, nil, "", "alter publication shop set (publish = 'insert'); %s; alter publication shop set (publish = 'insert, update, delete, truncate')"},
		"partitions were published as themselves": {15, nil, "", "alter publication shop set (publish_via_partition_root = false); %s; alter publication shop set (publish_via_partition_root = true)"},
		"all tables": {15, []string{"--set", "run.own_publication=false"}, "create publication shop for all tables with (" + told + ")",
			"alter table one set unlogged; %s; alter table one set logged; alter publication shop set (publish = 'truncate'); %s; alter publication shop set (" + told + ")"},
		"tables in a schema": {15, []string{"--set", "run.own_publication=false"}, "create publication shop for tables in schema public with (" + told + ")",
			"alter publication shop drop tables in schema public; %s; alter publication shop add tables in schema public"},
		"a table in another schema": {18, []string{"--set", "run.own_publication=false"}, "create schema s; create publication shop for tables in schema public with (" + told + ")",
			"begin; alter table one set schema s; set search_path = public, s; %s; alter table one set schema public; commit; alter publication shop drop tables in schema public; %s; alter publication shop add tables in schema public"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, c.major, append(c.more, "--set", "run.publication=shop")...)
			b.db.Exec(c.setUp + `; create table one (id int primary key, v text); insert into one values (1, 'first'), (2, 'first');
create table ev (id int, d int, v text, primary key (id, d)) partition by range (d); create table ev_1 partition of ev default; insert into ev values (1, 1, 'first')`)
			b.mustCatchUp()
			b.execAll(strings.ReplaceAll(c.does, "%s", "update one set v = v || '!' where id = 1; delete from one where id = 2; update ev set v = v || '!'; insert into ev values ((random() * 1e9)::int, 1, 'untold')"))
			r := b.mustCatchUp()
			b.judge("one", "ev")
			if strings.HasPrefix(name, "partitions") && !strings.Contains(r.Stderr, "the WAL tells of a relation that is not followed") {
				t.Errorf("nothing is said of a relation that is not followed:\n%s", r.Stderr)
			}
			if got := copiedAnew(r.Stderr, []string{"ev", "one"}); len(got) != 2 {
				t.Errorf("copied again are %v:\n%s", got, r.Stderr)
			}
			b.untold([]string{"one", "ev"})
		})
	}
}

func TestATableOfAllThatWasUnloggedIsCopiedAgain(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{}), dir: t.TempDir(), more: []string{"--set", "run.own_publication=false", "--set", "run.publication=everything"}}
	b.db.Exec(`create publication everything for all tables with (publish_via_partition_root = true);
create table bulk (id int primary key, v text); create table emptied (id int primary key, v text); insert into emptied values (1, 'first');
create table full_up (id int primary key, v text); insert into full_up values (1, 'first')`)
	b.mustCatchUp()
	b.db.Exec("begin; alter table bulk set unlogged; insert into bulk select i, 'untold' from generate_series(1, 5) i; alter table bulk set logged; commit")
	b.db.Exec("update bulk set v = 'told' where id = 2; truncate emptied; insert into emptied values (2, 'told')")
	b.execAll("vacuum full full_up")
	r := b.mustCatchUp()
	b.judge("bulk", "emptied", "full_up")
	if got := copiedAnew(r.Stderr, []string{"bulk", "emptied", "full_up"}); !slices.Equal(got, []string{"bulk"}) {
		t.Errorf("copied again are %v:\n%s", got, r.Stderr)
	}
}

// Others change a publication after leat has looked at it, and leat puts it right itself: what it finds then is not what it has seen.
func TestAPublicationThatOthersChangeWhileLeatDoesIsNotBelieved(t *testing.T) {
	t.Parallel()
	for name, does := range map[string]string{
		"taken out":         "alter publication shop_inserts drop table loose; insert into loose values (2, 'untold')",
		"taken out and in":  "alter publication shop_inserts drop table loose; insert into loose values (2, 'untold'); alter publication shop_inserts add table loose",
		"without inserts":   "alter publication shop_inserts set (publish = 'truncate'); insert into loose values (2, 'untold')",
		"dropped":           "drop publication shop_inserts; insert into loose values (2, 'untold')",
		"dropped and again": "drop publication shop_inserts; insert into loose values (2, 'untold'); create publication shop_inserts for table loose with (publish = 'truncate')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16, "--keep", "history", "--set", "run.without_identity=inserts", "--set", "run.publication=shop", "--set", "run.ddl_events=off")
			b.db.Exec(`create table keyed (id int primary key, v text); insert into keyed values (1, 'first'); create table calm (id int, v text); insert into calm values (1, 'first');
create table loose (id int, v text); insert into loose values (1, 'first')`)
			b.mustCatchUp()
			b.db.Exec("create table fresh (id int primary key)")
			end := b.openTransaction("lock table fresh in share update exclusive mode") // ALTER PUBLICATION shop ADD TABLE waits for it
			p := testlab.Leat(t).Start(b.db.Env(), b.args("--until-caught-up")...)
			b.until("leat changes the first publication", func() bool {
				return b.db.One("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%alter publication \"shop\" add%' and datname = current_database()") == "1"
			})
			b.execAll(does)
			end("commit")
			r := p.Wait()
			if strings.HasPrefix(name, "dropped") { // what was written while it was away cannot be decoded
				if r.Exit == 0 && len(copiedAnew(r.Stderr, []string{"loose"})) == 0 {
					t.Errorf("leat run says nothing: %s", r.Stderr)
				}
				return
			}
			if r.Exit != 0 {
				t.Fatalf("leat run ends with %d: %s", r.Exit, r.Stderr)
			}
			want := []string{"loose"}
			if name == "without inserts" { // it concerns all tables of the publication
				want = []string{"calm", "loose"}
			}
			if got := copiedAnew(r.Stderr, []string{"calm", "fresh", "keyed", "loose"}); !slices.Equal(got, want) {
				t.Errorf("copied again are %v, want %v:\n%s", got, want, r.Stderr)
			}
			if rows := b.inLake("loose_history")["loose_history"].chosen([]string{"id", "v"}); !slices.Contains(rows, "2|untold") {
				t.Errorf("the history has %v", rows)
			}
			if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied anew") {
				t.Errorf("a table is copied again though nothing has happened:\n%s", r.Stderr)
			}
		})
	}
}

// The WAL has told rows of a partition that no look has seen.
func TestAPartitionThatCameAndWentBetweenTwoLooksIsToldOf(t *testing.T) {
	t.Parallel()
	b := newBed(t, 15, "--set", "run.ddl_events=off")
	b.db.Exec(strings.ReplaceAll(parted, "%[1]s", "ev") + "; create table other (id int primary key)")
	b.mustCatchUp()
	const gone = "a partition came and went between two looks"
	b.db.Exec("create table ev_3 partition of ev for values from (30) to (40); insert into ev values (30, 30, 'told'); insert into other values (1); create table ev_4 partition of ev for values from (40) to (50); insert into ev values (40, 40, 'told'); insert into other values (2)")
	b.db.Exec("drop table ev_3")
	r := b.mustCatchUp()
	if n := strings.Count(r.Stderr, gone); n != 1 || !strings.Contains(r.Stderr, "partition=public.ev_3") {
		t.Errorf("a partition that is gone is told of %d times:\n%s", n, r.Stderr)
	}
	b.db.Exec("insert into ev values (41, 41, 'told')") // the WAL tells of it, and the copy has no row of it
	b.db.Exec("drop table ev_4")
	b.ask("resync", "--table", "public.ev")
	if r := b.mustCatchUp(); strings.Contains(r.Stderr, gone) {
		t.Errorf("a partition is told of whose rows the copy does not have:\n%s", r.Stderr)
	}
	p := b.start()
	b.until("the table is followed", func() bool { return b.phase("public.ev") == "streaming" && b.active() != "" })
	b.execAll("create table ev_5 (like ev including all); alter table ev attach partition ev_5 for values from (50) to (60); insert into ev values (50, 50, 'told'); alter table ev detach partition ev_5")
	p.WaitFor("partition=public.ev_5")
	b.db.Exec("create table ev_6 partition of ev for values from (60) to (70); insert into ev values (60, 60, 'told'); truncate other, ev; insert into ev values (61, 61, 'told')")
	b.flushed(p)
	p.Signal(syscall.SIGTERM)
	p.Wait()
	if r := b.mustCatchUp(); strings.Contains(p.Stderr()+r.Stderr, "public.ev_6") || strings.Contains(r.Stderr, gone) {
		t.Errorf("a partition that is there is told of:\n%s%s", p.Stderr(), r.Stderr)
	}
	b.judge("ev", "other")
}
