package dump_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

var oddNames = []string{
	"UPPER", "a b", "a.b", "a/b", "a%2Fb", "..", `quo"te`, "it's", "new\nline", "select", "-", "ü日本",
	strings.Repeat("ä", 30), strings.Repeat("n", 63), "{}", `back\slash`,
}

// oddSchemas are relations of every kind and shape that rows can be read from.
func oddSchemas(db *testlab.DB) {
	for i, name := range oddNames {
		column := oddNames[(i+1)%len(oddNames)]
		db.Exec(fmt.Sprintf("create table %s (id integer primary key, %s text not null, %s integer); insert into %[1]s values (1, 'x', 2), (2, '', NULL)",
			ident("names", name), ident(column), ident("t")))
	}
	db.Exec(`
create table shapes.nothing (id integer, v text);
create table shapes.no_columns (); insert into shapes.no_columns default values; insert into shapes.no_columns default values;
create table shapes.no_key (a text); insert into shapes.no_key values ('x'), ('x'), (NULL), ('');
create table shapes.dropped (a integer, b text, c integer not null); insert into shapes.dropped values (1, 'gone', 3);
alter table shapes.dropped drop column b; alter table shapes.dropped add column d text default 'later';
create table shapes.generated (a integer, b integer generated always as (a * 2) stored, c text); insert into shapes.generated values (1, default, 'x');
create table shapes.only_generated (b integer generated always as (7) stored); insert into shapes.only_generated default values;
create unlogged table shapes.unlogged (id integer primary key); insert into shapes.unlogged values (1);
create table shapes.parent (a integer); insert into shapes.parent values (1);
create table shapes.child (b text) inherits (shapes.parent); insert into shapes.child values (2, 'x');
create table shapes.row_named_t (t shapes.no_key, line integer); insert into shapes.row_named_t values (row('in t'), 1);
create view shapes.a_view as select a, b, a is null as c from shapes.generated;
create materialized view shapes.a_matview as select a from shapes.parent;
create view shapes.array_view as select '{1,2}'::integer[] as v;
create table twin_a.same (v integer); insert into twin_a.same values (1);
create table twin_b.same (v integer); insert into twin_b.same values (2), (3);
create table tree.root (id integer, region text, day date) partition by list (region);
create table tree.eu partition of tree.root for values in ('eu') partition by range (day);
create table tree.eu_old partition of tree.eu for values from (minvalue) to ('2020-01-01');
create table tree.eu_new partition of tree.eu for values from ('2020-01-01') to (maxvalue);
create table tree.rest partition of tree.root default;
insert into tree.root values (1, 'eu', '2019-01-01'), (2, 'eu', '2021-01-01'), (3, 'us', '2020-06-01'), (4, NULL, NULL);`)
	columns, values := make([]string, 1600), make([]string, 1600)
	for i := range columns {
		columns[i], values[i] = fmt.Sprintf("c%d integer", i), fmt.Sprint(i)
	}
	db.Exec("create table shapes.wide (" + strings.Join(columns, ", ") + "); insert into shapes.wide values (" + strings.Join(values, ", ") + "); insert into shapes.wide default values")
}

var oddSchemaNames = []string{"names", "shapes", "twin_a", "twin_b", "tree"}

func oddDatabase(t *testing.T) *testlab.DB {
	t.Helper()
	db := testlab.Postgres(t)
	for _, s := range oddSchemaNames {
		db.Exec("create schema " + s)
	}
	oddSchemas(db)
	return db
}

func TestTablesOfEveryShapeComeBackInEveryFormat(t *testing.T) {
	t.Parallel()
	db := oddDatabase(t)
	source := connect(t, db)
	// The relations that stand for themselves: a partitioned one stands for its leaves.
	want := db.One("select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('" + strings.Join(oddSchemaNames, "','") + "') and relkind in ('r','v','m')")
	for _, kind := range format.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			d := take(t, source, dump.Options{Format: kind, Selection: in(oddSchemaNames...)})
			if fmt.Sprint(len(d.Tables)) != want {
				t.Errorf("%d relations were dumped, there are %s", len(d.Tables), want)
			}
			j := newJudge(t, db)
			for _, table := range d.Tables {
				j.same(d, table)
			}
		})
	}
}

func TestAPartitionTreeOfThreeLevelsIsOneTableFromItsRoot(t *testing.T) {
	t.Parallel()
	db := oddDatabase(t)
	source := connect(t, db)
	for _, kind := range []format.Kind{format.Parquet, format.CSV, format.JSONL} {
		selection := in("tree")
		selection.PartitionRoots = true
		d := take(t, source, dump.Options{Format: kind, Selection: selection})
		if len(d.Tables) != 1 || d.Tables[0].Kind != change.KindPartitioned.String() || d.Tables[0].Rows != 4 {
			t.Fatalf("%s: the manifest has %+v", kind, d.Tables)
		}
		newJudge(t, db).same(d, d.Tables[0])
	}
}

func TestForeignTablesAreReadAndTheirNotNullIsNotBelieved(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	if db.One("select count(*) from pg_available_extensions where name = 'file_fdw'") == "0" {
		t.Skip("file_fdw is not installed here")
	}
	path := db.Server.Socket + "/" + db.Name + ".csv" // where the server may write
	db.Exec("create extension file_fdw; create server files foreign data wrapper file_fdw; create schema far; copy (values (1, 'x'), (2, NULL)) to '" + path + "' (format csv);" +
		"create foreign table far.plain (id integer not null, v text not null) server files options (filename '" + path + "', format 'csv');" +
		"create table far.root (id integer not null, v text not null) partition by list (id);" +
		"create foreign table far.leaf partition of far.root default server files options (filename '" + path + "', format 'csv')")
	source := connect(t, db)
	for _, roots := range []bool{false, true} {
		for _, kind := range format.Kinds {
			selection := in("far")
			selection.PartitionRoots = roots
			d := take(t, source, dump.Options{Format: kind, Selection: selection})
			j := newJudge(t, db)
			for _, table := range d.Tables {
				if j.same(d, table); table.Rows != 2 {
					t.Errorf("%s as %s has %d rows", table.Name, kind, table.Rows)
				}
			}
		}
	}
}

// PostgreSQL 18 can declare NOT NULL without looking at the rows that are there.
func TestANotNullThatWasNotValidatedIsNotBelieved(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 18)
	db.Exec("create schema late; create table late.t (v integer); insert into late.t values (1), (NULL); alter table late.t add constraint n not null v not valid")
	for _, kind := range []format.Kind{format.Parquet, format.Avro} {
		d := take(t, connect(t, db), dump.Options{Format: kind, Selection: in("late")})
		newJudge(t, db).same(d, d.Tables[0])
	}
}

func TestVirtualGeneratedColumnsComeBack(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 18)
	db.Exec("create schema virt; create table virt.t (a integer, b integer generated always as (a * 2) virtual); insert into virt.t values (1), (NULL)")
	for _, kind := range format.Kinds {
		d := take(t, connect(t, db), dump.Options{Format: kind, Selection: in("virt")})
		newJudge(t, db).same(d, d.Tables[0])
	}
}

func TestTextThatIsNotUTF8IsRefusedExceptByCSVWhichKeepsIt(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	for i, v := range []string{`E'\xff'::text`, `array[E'\xff'::text]`} {
		ascii := &testlab.DB{Name: fmt.Sprintf("%s_%d", db.Name, i)}
		db.Exec("create database " + ascii.Name + " encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'")
		t.Cleanup(func() { db.Exec("drop database " + ascii.Name + " with (force)") })
		ascii.URL = strings.Replace(db.URL, "/"+db.Name, "/"+ascii.Name, 1)
		ascii.Bare = strings.Replace(db.Bare, "/"+db.Name, "/"+ascii.Name, 1)
		execAt(t, ascii.URL, "create schema s; create table s.t as select "+v+" as v")
		source := connect(t, ascii)
		for _, kind := range []format.Kind{format.Parquet, format.Avro, format.JSONL} {
			_, err := dump.Run(t.Context(), source, memory(t), dump.Options{Format: kind, Selection: in("s"), LSN: postgres.LSNApproximate})
			if f := fault.Of(err); !fault.Is(err, fault.ValueUncarriable) || f.Where != "s.t" && f.Where != "s.t.v" {
				t.Errorf("%s as %s: the dump ended with %v", v, kind, err)
			}
		}
		d := take(t, source, dump.Options{Format: format.CSV, Selection: in("s")})
		if got := d.file(t, d.Tables[0].Files[0].Key); !strings.Contains(string(got), "\xff") {
			t.Errorf("%s as csv is %q", v, got)
		}
	}
}

// Servers before 15 send such a "char" as a byte that is no UTF-8; newer ones write it as an escape.
func TestACharAbove127IsTextWhateverTheServer(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 14, 15} {
		db := testlab.Postgres(t, major)
		db.Exec(`create schema s; create table s.t as select 'é'::"char" as v union all select 'x' union all select NULL`)
		for _, kind := range []format.Kind{format.Parquet, format.Avro, format.JSONL} {
			d := take(t, connect(t, db), dump.Options{Format: kind, Selection: in("s")})
			if kind.JSON() {
				if got := d.file(t, d.Tables[0].Files[0].Key); !strings.Contains(string(got), `{"v":"\\303"}`) {
					t.Errorf("PostgreSQL %d as %s: %q", major, kind, got)
				}
				continue
			}
			back := newJudge(t, db).load(d, d.Tables[0])
			if got := db.Query("select c0 from " + back + " order by 1"); len(got) != 3 || got[0][0] != `\303` || got[1][0] != "x" || got[2][0] != testlab.Null {
				t.Errorf("PostgreSQL %d as %s: %q", major, kind, got)
			}
		}
	}
}

func execAt(t *testing.T, address, sql string) {
	t.Helper()
	conn, err := pgconn.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if _, err := conn.Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}
