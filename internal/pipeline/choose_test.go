package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// warned counts lines of the log that warn in these words.
func warned(log, words string) (n int) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "WARN") && strings.Contains(line, words) {
			n++
		}
	}
	return n
}

const (
	cannotBeFollowed = "it cannot be followed as it is"
	noIdentity       = "the log cannot tell their updates and deletes"
)

func TestATableThatCannotBeFollowedIsLeftOutAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--table", "public.*")
	b.db.Exec(`create table orders (id int primary key, v text); insert into orders values (1, 'one'); create table notes (id int primary key, v text);
create table orders_history (id int primary key); create table zero (); alter table zero replica identity full;
create table odd (id int primary key, _leat_op text); insert into odd values (1, 'x');
create table loose (a int); create table bare (a int, b int)`)
	r := b.mustCatchUp()
	b.judge("orders", "notes")
	for _, c := range []struct{ table, hint string }{{"public.orders_history", "run.exclude"}, {"public.zero", "Add a column"}, {"public.odd", "Rename the column"}} {
		if warned(r.Stderr, "table="+c.table+" ") != 1 || !strings.Contains(r.Stderr, c.hint) {
			t.Errorf("%s is not left out with a hint:\n%s", c.table, r.Stderr)
		}
	}
	both := `ALTER TABLE \"public\".\"bare\" REPLICA IDENTITY FULL; ALTER TABLE \"public\".\"loose\" REPLICA IDENTITY FULL;`
	if warned(r.Stderr, noIdentity) != 1 || !strings.Contains(r.Stderr, both) {
		t.Errorf("tables without an identity are not named in one line, with the SQL for all:\n%s", r.Stderr)
	}
	status := testlab.Leat(t).Run(b.db.Env(), "status", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot())
	if !strings.Contains(status.Stdout, "public.zero") || !strings.Contains(status.Stdout, "left out") {
		t.Errorf("status does not tell what is left out:\n%s%s", status.Stdout, status.Stderr)
	}

	// While it runs: one that comes, and one that becomes so.
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec(`create table notes_history (id int primary key); alter table notes add _leat_op text; insert into notes values (1, 'one', 'i'); insert into orders values (2, 'two')`)
	p.WaitFor("table=public.notes ")
	b.db.Exec("insert into orders values (3, 'three')")
	b.flushed(p)
	p.Signal(syscall.SIGTERM)
	p.Wait()
	b.judge("orders")

	// The hints help, and what was left out is right from then on.
	b.db.Exec(`alter table notes drop column _leat_op; update notes set v = 'changed'; drop table notes_history, zero; alter table odd rename column _leat_op to op;
alter table loose replica identity full; insert into loose values (1), (1); drop table bare`)
	r = b.mustCatchUp()
	b.db.Exec("update odd set op = 'y'; insert into notes values (2, 'two'); delete from loose where ctid = '(0,1)'; insert into orders values (4, 'four')")
	r2 := b.mustCatchUp()
	b.judge("orders", "notes", "odd", "loose")
	if n := warned(r.Stderr+r2.Stderr, cannotBeFollowed); n != 2 { // orders_history, once a run
		t.Errorf("%d tables are left out:\n%s\n%s", n, r.Stderr, r2.Stderr)
	}
}

func TestAFirstStartThatIsRefusedLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tables []string
		more   []string
		exit   int
		says   string
	}{
		"no identity, named":         {[]string{"public.loose", "public.orders"}, nil, 3, "key-missing"},
		"no columns, named":          {[]string{"public.zero", "public.*"}, nil, 5, "schema-unfollowable"},
		"a name of another, named":   {[]string{"public.orders_history", "public.*"}, nil, 5, "schema-unfollowable"},
		"a layout that does not fit": {[]string{"public.*"}, []string{"--set", "lake.partition_by=public.orders = bucket(4, nothing)"}, 2, "config-invalid"},
		"nothing that can be":        {[]string{"public.lo*"}, nil, 3, "key-missing"},
		"a slot that cannot be had":  {[]string{"public.orders"}, []string{"--set", "run.slot=Not_A_Name"}, 3, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16, c.more...)
			for _, table := range c.tables {
				b.more = append(b.more, "--table", table)
			}
			b.db.Exec(`create table orders (id int primary key, v text); create table orders_history (id int primary key); create table zero (); alter table zero replica identity full; create table loose (a int)`)
			r := b.catchUp()
			if r.Exit != c.exit || !strings.Contains(r.Stderr, c.says) {
				t.Errorf("leat run ends with %d: %s", r.Exit, r.Stderr)
			}
			if n := b.db.One("select (select count(*) from pg_replication_slots where database = current_database()) + (select count(*) from pg_publication)"); n != "0" {
				t.Errorf("slots and publications that are left: %s", n)
			}
		})
	}
}

func TestATableOfAnotherPipelineIsLeftOutOrRefusedBeforeASlotIsMade(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--table", "public.notes")
	b.db.Exec("create table notes (id int primary key); create table others (id int primary key); insert into notes values (1); insert into others values (1)")
	b.mustCatchUp()
	second := &bed{t: t, db: b.db, dir: b.dir, more: []string{"--name", "second", "--set", "run.slot=" + b.slot() + "_2", "--table", "public.*"}}
	if r := second.mustCatchUp(); warned(r.Stderr, "belongs to pipeline") != 1 {
		t.Errorf("it does not say why the table is left out:\n%s", r.Stderr)
	}
	b.db.Exec("insert into notes values (2); insert into others values (2)")
	second.mustCatchUp()
	b.mustCatchUp()
	b.judge("notes", "others")
	third := &bed{t: t, db: b.db, dir: b.dir, more: []string{"--name", "third", "--set", "run.slot=" + b.slot() + "_3", "--table", "public.notes"}}
	if r := third.catchUp(); r.Exit != 4 || !strings.Contains(r.Stderr, "lake-foreign") {
		t.Errorf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	if n := b.db.One("select (select count(*) from pg_replication_slots where slot_name like '%\\_3') + (select count(*) from pg_publication where pubname = 'leat_third')"); n != "0" {
		t.Errorf("slots and publications that are left: %s", n)
	}
}

func TestATableWithoutAnIdentityIsKeptRightByCopyingItAgain(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--table", "public.*", "--set", "run.without_identity=recopy", "--set", "run.recopy_every=1h")
	b.db.Exec(`create table orders (id int primary key); create table loose (a int, v text); insert into loose select i, 'old' from generate_series(1, 10) i; insert into loose values (1, 'old')
; create table parts (id int, at int, primary key (id, at)) partition by range (at); create table parts_1 partition of parts for values from (0) to (10); alter table parts_1 replica identity nothing; insert into parts values (1, 1)`)
	first := b.mustCatchUp()
	if warned(first.Stderr, "left out") > 0 {
		t.Errorf("a table is left out:\n%s", first.Stderr)
	}
	if said := first.Stdout; !strings.Contains(said, "public.orders follows the log") || !strings.Contains(said, "public.loose is copied; the log does not tell of it") || strings.Contains(said, "public.loose follows") {
		t.Errorf("it says of the tables: %s", said)
	}
	same := func(when string) {
		t.Helper()
		for table, columns := range map[string][]string{"loose": {"a", "v"}, "parts": {"id", "at"}} {
			if got, want := b.inLake(table)[table].chosen(columns), b.inSource(table, columns); strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("%s, %s holds %q, want %q", when, table, got, want)
			}
		}
	}
	same("at first")
	if n := b.db.One("select count(*) from pg_publication_tables where tablename in ('loose', 'parts', 'parts_1')"); n != "0" {
		t.Errorf("%s tables without an identity are published", n) // the application could not update them any more
	}
	b.db.Exec("update loose set v = 'new' where a > 5; delete from loose where a = 1; update parts set id = 2; insert into orders values (1)")
	if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied table=") {
		t.Errorf("it is copied again before its time:\n%s", r.Stderr)
	}
	status := testlab.Leat(t).Run(b.db.Env(), "status", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot())
	if !strings.Contains(status.Stdout, "ago; the log does not tell of it") || !strings.Contains(status.Stdout, "recopied") {
		t.Errorf("status does not tell the age of the copy:\n%s%s", status.Stdout, status.Stderr)
	}

	b.more[len(b.more)-1] = "run.recopy_every=1s"
	p := b.start()
	p.WaitFor("copied table=public.loose")
	b.db.Exec("insert into loose values (99, 'while it runs'); insert into orders values (2)")
	b.until("the copy is made again", func() bool {
		return strings.Contains(strings.Join(b.inLake("loose")["loose"].chosen([]string{"a", "v"}), "\n"), "while it runs")
	})
	p.Signal(syscall.SIGTERM)
	p.Wait()
	same("copied while it runs")
	b.judge("orders")

	// With a key the log tells of it.
	b.more[len(b.more)-1] = "run.recopy_every=1h"
	b.db.Exec("alter table loose add primary key (a); alter table parts_1 replica identity default; insert into loose values (100, 'with a key')")
	b.mustCatchUp()
	b.db.Exec("update loose set v = 'followed'; update parts set id = 3")
	r := b.mustCatchUp()
	same("with a key")
	if strings.Contains(r.Stderr, "copied table=") {
		t.Errorf("a table that is followed is copied:\n%s", r.Stderr)
	}
	if status = testlab.Leat(t).Run(b.db.Env(), "status", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot()); strings.Contains(status.Stdout, "recopied") || strings.Contains(status.Stdout, "does not tell") {
		t.Errorf("status says that tables that are followed are copied:\n%s", status.Stdout)
	}
}

func TestAGivenPublicationNeedsRootsOnlyForPartitionedTables(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.own_publication=false", "--set", "run.publication=given", "--table", "public.*")
	b.db.Exec("create table orders (id int primary key); create publication given for all tables; insert into orders values (1)")
	b.mustCatchUp()
	b.db.Exec("create table parts (id int primary key) partition by range (id); create table parts_1 partition of parts for values from (0) to (10); insert into orders values (2)")
	if r := b.mustCatchUp(); warned(r.Stderr, "publish_via_partition_root") != 1 {
		t.Errorf("it does not say why the partitioned table is left out:\n%s", r.Stderr)
	}
	b.judge("orders")
}

func TestAColumnThatAnotherProgramRenamesConcernsThatTableAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	catalog := b.dir + "/catalog.db"
	b.more = []string{"--catalog", "sqlite", "--catalog-uri", catalog, "--set", "lake.catalog.name=lake", "--keep", "current"}
	b.db.Exec("create table orders (id int primary key, price int); create table notes (id int primary key, v text); insert into orders values (1, 10); insert into notes values (1, 'one')")
	b.mustCatchUp()
	testlab.RunPython(t, `import sys
from pyiceberg.catalog.sql import SqlCatalog
t = SqlCatalog("lake", uri="sqlite:///" + sys.argv[1]).load_table("public.orders")
with t.update_schema() as u:
    u.rename_column("price", "cost")`, catalog)
	b.db.Exec("insert into orders values (2, 20); insert into notes values (2, 'two')")
	r := b.mustCatchUp()
	if warned(r.Stderr, "column price is called cost") != 1 || !strings.Contains(r.Stderr, "leat resync --table public.orders") {
		t.Errorf("it does not say what has happened to the table:\n%s", r.Stderr)
	}
	inLake := func(table string) string {
		t.Helper()
		columns, rows := testlab.PyIcebergCatalog(t, map[string]string{"type": "sql", "uri": "sqlite:///" + catalog}, "public", table)
		var all []string
		for _, r := range rows {
			all = append(all, strings.Join(r, "|"))
		}
		slices.Sort(all)
		return strings.Join(columns, "|") + ": " + strings.Join(all, ", ")
	}
	if got, want := inLake("notes"), "id|v: 1|one, 2|two"; got != want {
		t.Errorf("the other table holds %s, want %s", got, want)
	}
	b.ask("resync", "--table", "public.orders")
	b.mustCatchUp()
	b.db.Exec("insert into orders values (3, 30); insert into notes values (3, 'three')")
	b.mustCatchUp()
	if got, want := inLake("notes"), "id|v: 1|one, 2|two, 3|three"; got != want {
		t.Errorf("the other table holds %s, want %s", got, want)
	}
	if got, want := inLake("orders"), "id|price: 1|10, 2|20, 3|30"; got != want {
		t.Errorf("after the resync the table holds %s, want %s", got, want)
	}
}

// With lake.foreign_writes: stop a table stays as another program has left it, also for a process that is started later.
func TestATableThatAnotherProgramWritesToStaysAsItIsUntilAResync(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	catalog := b.dir + "/catalog.db"
	b.more = []string{"--catalog", "sqlite", "--catalog-uri", catalog, "--set", "lake.catalog.name=lake", "--keep", "current", "--set", "lake.foreign_writes=stop"}
	b.db.Exec("create table notes (id int primary key, v text); create table others (id int primary key); insert into notes values (1, 'one')")
	b.mustCatchUp()
	testlab.RunPython(t, `import sys, pyarrow
from pyiceberg.catalog.sql import SqlCatalog
t = SqlCatalog("lake", uri="sqlite:///" + sys.argv[1]).load_table("public.notes")
t.append(pyarrow.Table.from_pylist([{"id": 99, "v": "of another"}], schema=t.schema().as_arrow()))`, catalog)
	ids := func() string {
		_, rows := testlab.PyIcebergCatalog(t, map[string]string{"type": "sql", "uri": "sqlite:///" + catalog}, "public", "notes")
		var all []string
		for _, r := range rows {
			all = append(all, r[0])
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	b.db.Exec("insert into notes values (2, 'two'); insert into others values (1)")
	for range 2 { // at once, and by a process that is started later
		if r := b.mustCatchUp(); warned(r.Stderr, "added or removed 1 rows") != 1 {
			t.Errorf("it does not say why the table is left out:\n%s", r.Stderr)
		}
		if got := ids(); got != "1 99" {
			t.Errorf("the table holds %s, and is to stay as it is", got)
		}
	}
	b.ask("resync", "--table", "public.notes")
	b.mustCatchUp()
	if got := ids(); got != "1 2" {
		t.Errorf("after the resync the table holds %s", got)
	}
}

// inSource are the named columns of all rows as text, sorted.
func (b *bed) inSource(table string, columns []string) (rows []string) {
	b.t.Helper()
	for _, r := range b.db.Query("select concat_ws('|', " + strings.Join(columns, ", ") + ") from " + table) {
		rows = append(rows, r[0])
	}
	slices.Sort(rows)
	return rows
}

func TestTablesOfWhichNoneHasAnIdentityAreCopiedAgainAllTheSame(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--table", "public.*", "--set", "run.without_identity=recopy", "--set", "run.recopy_every=1h")
	b.db.Exec("create table loose (a int, v text); insert into loose values (1, 'one')")
	b.mustCatchUp()
	b.db.Exec("insert into loose values (2, 'two')")
	b.more[len(b.more)-1] = "run.recopy_every=1ms"
	b.mustCatchUp()
	if got, want := b.inLake("loose")["loose"].chosen([]string{"a", "v"}), b.inSource("loose", []string{"a", "v"}); !slices.Equal(got, want) {
		t.Errorf("the lake has %q, want %q", got, want)
	}
	b.more[len(b.more)-1] = "run.recopy_every=1h"
	b.db.Exec("create table keyed (id int primary key); insert into keyed values (1)")
	b.mustCatchUp()
	b.db.Exec("insert into keyed values (2)")
	b.mustCatchUp()
	b.judge("keyed")
	b.db.Exec("alter table keyed drop constraint keyed_pkey; insert into keyed values (2)")
	b.mustCatchUp()
	if got, want := b.inLake("keyed")["keyed"].chosen([]string{"id"}), b.inSource("keyed", []string{"id"}); !slices.Equal(got, want) {
		t.Errorf("of the table that lost its key the lake has %q, want %q", got, want)
	}
}

// What happens to one table, or what the role may not read, leaves that table out: the other one goes on, and a table that can be
// followed again has what the source has.
func TestWhatHappensToOneTableConcernsItAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		settings   []string
		before     string // with the tables other and odd
		then, back string
		says       string
	}{
		"a column of its row filter is renamed": {
			settings: []string{"--set", "run.row_filters=public.odd=k > 5"},
			before:   "create table odd (id int, k int, primary key (id, k))", then: "alter table odd rename k to kk", back: "alter table odd rename kk to k",
			says: "its row filter or column list does not fit it",
		},
		"a column of its row filter leaves its key": {
			settings: []string{"--set", "run.row_filters=public.odd=k > 5"},
			before:   "create table odd (id int, k int, primary key (id, k))", then: "alter table odd drop constraint odd_pkey; alter table odd add primary key (id)",
			back: "alter table odd drop constraint odd_pkey; alter table odd add primary key (id, k)", says: "the row filter looks at a column that is not part of the replica identity",
		},
		"a column of its list is renamed": {
			settings: []string{"--set", "run.columns=public.odd=id, k"},
			before:   "create table odd (id int primary key, k int)", then: "alter table odd rename k to kk", back: "alter table odd rename kk to k",
			says: "its row filter or column list does not fit it",
		},
		"a given publication loses it": {
			settings: []string{"--set", "run.own_publication=false", "--set", "run.publication=given"},
			before:   "create table odd (id int primary key, k int); create publication given for table odd, other", then: "alter publication given drop table odd",
			back: "alter publication given add table odd", says: "the publication lacks it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16, append(c.settings, "--table", "public.*")...)
			b.db.Exec("create table other (id int primary key); insert into other values (1)")
			b.execAll(c.before)
			b.db.Exec("insert into odd values (1, 10)")
			b.mustCatchUp()
			b.execAll(c.then)
			b.db.Exec("insert into other values (2); insert into odd values (2, 20); create table late (id int primary key); insert into late values (1)")
			if c.settings[1] == "run.own_publication=false" {
				b.db.Exec("alter publication given add table late")
			}
			if r := b.mustCatchUp(); warned(r.Stderr, c.says) != 1 {
				t.Errorf("it does not say why the table is left out:\n%s", r.Stderr)
			}
			b.db.Exec("insert into other values (3); insert into late values (2); delete from odd where id = 1")
			b.mustCatchUp()
			b.judge("other", "late")
			b.execAll(c.back)
			b.db.Exec("insert into odd values (3, 30)")
			b.mustCatchUp()
			b.judge("other", "late", "odd")
		})
	}
}

// Row-level security that would hide rows from the role bars a table before anything is made at the server.
func TestATableWithRowsThatTheRoleMayNotSeeIsLeftOut(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.own_publication=false", "--set", "run.publication=everything", "--table", "public.*")
	role := b.db.Role("replication")
	b.env = b.db.EnvOf(role)
	b.db.Exec("create publication everything for all tables; create table other (id int primary key); insert into other values (1)")
	b.db.Exec("create table hidden (id int primary key); insert into hidden values (1); alter table hidden enable row level security; grant select on all tables in schema public to " + role.Name)
	if r := b.mustCatchUp(); warned(r.Stderr, "row-level security would hide rows") != 1 {
		t.Errorf("it does not say why the table is left out:\n%s", r.Stderr)
	}
	b.db.Exec("create table late (id int primary key); insert into late values (1); alter table late enable row level security; insert into other values (2); grant select on late to " + role.Name)
	if r := b.mustCatchUp(); warned(r.Stderr, "row-level security would hide rows") != 2 {
		t.Errorf("it does not say why the tables are left out:\n%s", r.Stderr)
	}
	b.judge("other")
	b.db.Exec("alter role " + role.Name + " bypassrls; insert into hidden values (2)")
	b.mustCatchUp()
	b.judge("other", "hidden", "late")
}

// A table may have thousands of partitions: a few are named, and one statement serves all.
func TestOfManyPartitionsWithoutAnIdentityAFewAreNamed(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--table", "public.*")
	b.db.Exec("create table keyed (id int primary key); create table many (id int, d int, primary key (id, d)) partition by list (d)")
	for i := range 12 {
		b.db.Exec(fmt.Sprintf(`create table "many '%[1]d" partition of many for values in (%[1]d); alter table "many '%[1]d" replica identity nothing; insert into many values (1, %[1]d)`, i))
	}
	r := b.mustCatchUp()
	status := testlab.Leat(t).Run(b.db.Env(), "status", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot())
	for what, text := range map[string]string{"run": r.Stderr, "status": status.Stdout} {
		if !strings.Contains(text, "and 7 more partitions") || strings.Count(text, "public.many '") > 2*5 {
			t.Errorf("%s tells of them so: %s", what, text)
		}
	}
	_, sql, found := strings.Cut(r.Stderr, "for the partitions of public.many: ")
	sql, _, ended := strings.Cut(sql, ` \\gexec`)
	if !found || !ended {
		t.Fatalf("there is no statement for all: %s", r.Stderr)
	}
	for _, row := range b.db.Query(sql) {
		b.db.Exec(row[0])
	}
	if r := b.mustCatchUp(); warned(r.Stderr, "left out") > 0 {
		t.Errorf("after it the table is left out: %s", r.Stderr)
	}
	b.judge("keyed", "many")
}
