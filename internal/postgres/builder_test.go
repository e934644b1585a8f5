package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// built is a table, its slot, and a builder that has taken in what happened to it.
type built struct {
	*testlab.DB
	t       *testing.T
	source  *postgres.Source
	catalog *postgres.Catalog
	builder *postgres.ChangesBuilder
	plan    *postgres.Plan
	columns []postgres.RelationColumn // that the builder was made for
}

func newBuilt(t *testing.T, ddl string) *built {
	t.Helper()
	b := &built{DB: testlab.Postgres(t), t: t}
	b.Exec(ddl)
	b.Exec("create publication leat for table t")
	b.Exec("select pg_create_logical_replication_slot('" + b.Name + "', 'pgoutput')")
	b.source = sourceOf(t, b.DB)
	b.catalog = b.source.Catalog()
	return b
}

// take appends what the log has and returns the errors that the builder gave.
func (b *built) take(policies postgres.Policies) (errs []error) {
	b.t.Helper()
	events(b.t, b.DB, b.source, postgres.LogOptions{Slot: b.Name, Publications: []string{"leat"}}, func(e *postgres.Event) {
		switch e.Kind {
		case postgres.EventRelation:
			if b.columns != nil && slices.Equal(b.columns, e.Relation.Columns) {
				return
			}
			b.columns = e.Relation.Columns
			now, err := b.catalog.Table(b.t.Context(), e.Relation.OID)
			if err != nil {
				b.t.Fatal(err)
			}
			table, err := postgres.AlignAt(nil, now, e.Relation, postgres.Moment{})
			if err != nil {
				b.t.Fatal(err)
			}
			if b.plan, err = b.catalog.Plan(b.t.Context(), table, policies); err != nil {
				b.t.Fatal(err)
			}
			if b.builder, err = postgres.NewChangesBuilder(b.plan, e.Relation); err != nil {
				b.t.Fatal(err)
			}
		case postgres.EventInsert, postgres.EventUpdate, postgres.EventDelete, postgres.EventTruncate:
			if err := b.builder.Append(e); err != nil {
				errs = append(errs, err)
			}
		}
	})
	return errs
}

// story writes each row as op, values, and what is known besides: "u 1 x (was 1 y) [v unchanged]".
func story(c *change.Changes) (lines []string) {
	for i := range c.Len() {
		line := c.Ops[i].String() + " " + rowOf(c.Rows, i)
		if c.Old != nil && c.OldRow[i] >= 0 {
			line += " (was " + rowOf(c.Old, int(c.OldRow[i])) + ")"
		}
		for j, col := range c.Table.Columns {
			if c.IsUnchanged(j, i) {
				line += " [" + col.Name + " unchanged]"
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func rowOf(rec arrow.RecordBatch, i int) string {
	var values []string
	for _, c := range rec.Columns() {
		v := "-"
		if !c.IsNull(i) {
			v = c.ValueStr(i)
		}
		if len(v) > 100 {
			v = fmt.Sprintf("%.3s…%d", v, len(v))
		}
		values = append(values, v)
	}
	return strings.Join(values, " ")
}

func (b *built) tells(want ...string) {
	b.t.Helper()
	c := b.builder.Take()
	if got := story(c); !slices.Equal(got, want) {
		b.t.Errorf("the changes are\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for i := range c.Len() {
		if c.LSN[i] == 0 || c.XID[i] == 0 || c.Committed[i] < 1700000000e6 || i > 0 && c.LSN[i] == c.LSN[i-1] && c.Seq[i] <= c.Seq[i-1] {
			b.t.Errorf("row %d is at %v %d of transaction %d, %d", i, c.LSN[i], c.Seq[i], c.XID[i], c.Committed[i])
		}
	}
}

const big = "(select string_agg(md5(i::text), '') from generate_series(1, 200) i)" // 6400 bytes that do not compress

func TestEachOperationIsToldWithWhatTheReplicaIdentityKnows(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, "create table t (id integer primary key, v text, n integer not null); create table u (id integer)")
	b.Exec("insert into t values (1, 'a', 7), (2, null, 8)")
	b.Exec("update t set n = 9 where id = 1; update t set id = 3 where id = 1; delete from t where id = 2; truncate u, t")
	if errs := b.take(postgres.Policies{}); errs != nil {
		t.Fatal(errs)
	}
	b.tells("c 1 a 7", "c 2 - 8", "u 1 a 9", "u 3 a 9 (was 1 - -)", "d 2 - -", "t - - -")
	if b.builder.Rows() != 0 || b.builder.Bytes() != 0 || b.builder.Take().Len() != 0 {
		t.Error("what was taken is still there")
	}
	b.Exec("insert into t values (5, 'z', 1)")
	b.take(postgres.Policies{}) // all again: nothing was acknowledged
	b.tells("c 1 a 7", "c 2 - 8", "u 1 a 9", "u 3 a 9 (was 1 - -)", "d 2 - -", "t - - -", "c 5 z 1")
}

func TestALeftOutValueIsMarkedOrTakenFromTheOldRow(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, "create table t (id integer primary key, v text, n integer); alter table t alter v set storage external")
	b.Exec("insert into t values (1, " + big + ", 1), (2, 'short', 1)")
	b.Exec("update t set n = 2; update t set v = null where id = 1")
	b.take(postgres.Policies{})
	b.tells("c 1 c4c…6400 1", "c 2 short 1", "u 1 - 2 [v unchanged]", "u 2 short 2", "u 1 - 2")
	b.Exec("update t set v = " + big + " where id = 1; alter table t replica identity full")
	b.Exec("update t set n = 3; delete from t where id = 1")
	b.take(postgres.Policies{})
	lines := story(b.builder.Take())
	if last := lines[len(lines)-3:]; !slices.Equal(last, []string{"u 2 short 3 (was 2 short 2)", "u 1 c4c…6400 3 (was 1 c4c…6400 2)", "d 1 c4c…6400 3"}) {
		t.Errorf("%q", last)
	}
}

func TestARowThatCannotBeCarriedLeavesTheBuilderAsItWas(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, `create table t (id integer primary key, a text, b boolean, l integer[], d date, e text); alter table t replica identity full`)
	for i := range 20 { // rows that fail stand at every place in the bitmaps
		b.Exec(fmt.Sprintf("insert into t values (%[1]d, 'x', %[2]v, '{1,NULL,%[1]d}', '2026-01-01', null), (%[3]d, null, true, '{7,NULL,8}', 'infinity', 'y')", 2*i, i%2 == 0, 2*i+1))
	}
	b.Exec("update t set d = '2026-02-02' where id = 3") // the old row is what fails
	errs := b.take(postgres.Policies{Date: postgres.Fail})
	if len(errs) != 21 {
		t.Fatalf("%d errors: %v", len(errs), errs)
	}
	for _, err := range errs {
		if f := fault.Of(err); !fault.Is(err, fault.ValueUncarriable) || f.Where != "public.t.d" || !strings.Contains(f.What, "transaction at ") {
			t.Errorf("the fault is %v", err)
		}
	}
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprintf("c %d x %v [1,null,%d] 2026-01-01 -", 2*i, i%2 == 0, 2*i))
	}
	b.tells(want...)
}

func TestTheFieldsOfChangesSayWhatTheyAreAndMayAllBeNull(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, "create table t (id uuid primary key, j jsonb not null)")
	b.Exec("insert into t values ('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{}')")
	b.take(postgres.Policies{})
	for i, f := range b.builder.Take().Rows.Schema().Fields() {
		if pg, _ := f.Metadata.GetValue(change.TypeKey); !f.Nullable || change.Logical(f) != []string{"uuid", "json"}[i] || pg != []string{"uuid", "jsonb"}[i] {
			t.Errorf("%v", f)
		}
	}
}

func TestOneNeverReadsRowsOfAnotherDefinition(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, "create table t (id integer primary key)")
	b.Exec("insert into t values (1)")
	b.take(postgres.Policies{})
	old := b.builder
	b.Exec("alter table t add v text; insert into t values (2, 'x')")
	events(t, b.DB, b.source, postgres.LogOptions{Slot: b.Name, Publications: []string{"leat"}}, func(e *postgres.Event) {
		if e.Kind == postgres.EventInsert && len(e.Relation.Columns) == 2 {
			if err := old.Append(e); !fault.Is(err, fault.Internal) {
				t.Errorf("it was taken: %v", err)
			}
		}
	})
	if _, err := postgres.NewChangesBuilder(b.plan, &postgres.Relation{OID: 1}); err == nil {
		t.Error("a plan of another definition was taken")
	}
}

func TestALogOfATableAndTypesThatAreGoneIsReadAsText(t *testing.T) {
	t.Parallel()
	b := newBuilt(t, "create type mood as enum ('sad'); create table t (id integer primary key, m mood, l mood[], n numeric(10,2), s varchar(7))")
	known, err := b.catalog.Tables(t.Context(), tablesLike("t"))
	if err != nil || len(known) != 1 || known[0].Columns[3].Type != "numeric(10,2)" {
		t.Fatalf("%v, %v", known, err)
	}
	b.Exec("insert into t values (1, 'sad', '{sad,NULL}', 1.5, 'x')")
	b.Exec("drop table t; drop type mood")
	if _, err := b.catalog.Table(t.Context(), known[0].OID); !fault.Is(err, fault.SourceMissing) {
		t.Errorf("the dropped table gives %v", err)
	}
	later := b.source.Catalog()
	events(t, b.DB, b.source, postgres.LogOptions{Slot: b.Name, Publications: []string{"leat"}}, func(e *postgres.Event) {
		if e.Kind != postgres.EventInsert {
			return
		}
		for i, from := range []*change.Table{known[0], nil} {
			catalog := []*postgres.Catalog{b.catalog, later}[i]
			table, err := postgres.AlignAt(from, nil, e.Relation, postgres.Moment{})
			if err != nil {
				t.Fatal(err)
			}
			plan, err := catalog.Plan(t.Context(), table, postgres.Policies{})
			if err != nil {
				t.Fatal(err)
			}
			builder, err := postgres.NewChangesBuilder(plan, e.Relation)
			if err != nil {
				t.Fatal(err)
			}
			if err := builder.Append(e); err != nil {
				t.Fatal(err)
			}
			want := []string{"c 1 sad [\"sad\",null] 1.5 x", "c 1 sad {sad,NULL} 1.5 x"}[i]
			if got := story(builder.Take()); got[0] != want {
				t.Errorf("%q, not %q", got, want)
			}
			if pg, _ := plan.Schema.Field(3).Metadata.GetValue(change.TypeKey); pg != "numeric(10,2)" {
				t.Errorf("the numeric is called %s", pg)
			}
			if pg, _ := plan.Schema.Field(4).Metadata.GetValue(change.TypeKey); pg != "character varying(7)" {
				t.Errorf("the varchar is called %s", pg)
			}
		}
	})
}

func TestWhatExistingRowsHaveInAnAddedColumnIsFound(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 18} {
		db := testlab.Postgres(t, major)
		db.Exec(`create table t (id integer primary key); insert into t values (1);
create domain with_default as integer default 5;
create table p (id integer, r text) partition by list (r); create table p1 partition of p default; insert into p values (1, 'x');
create table fresh (id integer); insert into fresh values (1); alter table fresh add v integer; alter table fresh alter v set default 7`)
		source := sourceOf(t, db)
		catalog := source.Catalog()
		for i, c := range []struct {
			table, added string
			kind         postgres.DefaultKind
			text, value  string
		}{
			{"t", "integer", postgres.DefaultNull, "", ""},
			{"t", "integer default 42", postgres.DefaultMissing, "42", "42"},
			{"t", `text not null default E'a "b", \\ {c} '`, postgres.DefaultMissing, `a "b", \ {c} `, `a "b", \ {c} `},
			{"t", "text default ''", postgres.DefaultMissing, "", ""},
			{"t", "text default 'NULL'", postgres.DefaultMissing, "NULL", "NULL"},
			{"t", "integer[] default '{1,NULL,3}'", postgres.DefaultMissing, "{1,NULL,3}", "[1,null,3]"},
			{"t", "timestamptz default now()", postgres.DefaultMissing, "", ""},
			{"t", "numeric(10,2) default 1.5", postgres.DefaultMissing, "1.50", "1.5"},
			{"t", "float8 default random()", postgres.DefaultDiffers, "", ""},
			{"t", "serial", postgres.DefaultDiffers, "", ""},
			{"t", "integer generated always as identity", postgres.DefaultDiffers, "", ""},
			{"t", "integer generated always as (id * 2) stored", postgres.DefaultDiffers, "", ""},
			{"t", "timestamptz default clock_timestamp()", postgres.DefaultDiffers, "", ""},
			{"p", "integer default 42", postgres.DefaultMissing, "42", "42"},
			{"p", "integer", postgres.DefaultNull, "", ""},
			{"fresh", "", postgres.DefaultNull, "", ""},
		} {
			column := "v"
			if c.added != "" {
				column = fmt.Sprint("v", i)
				db.Exec("alter table " + c.table + " add " + column + " " + c.added)
			}
			where := c.table + " " + c.added
			var oid uint32
			var attnum int16
			if _, err := fmt.Sscan(db.One("select attrelid || ' ' || attnum from pg_attribute where attrelid = '"+c.table+"'::regclass and attname = '"+column+"'"), &oid, &attnum); err != nil {
				t.Fatal(err)
			}
			got, err := source.AddedDefault(t.Context(), oid, attnum)
			if err != nil {
				t.Fatal(err)
			}
			if got.Kind != c.kind || c.text != "" && got.Text != c.text {
				t.Errorf("%d: %s: %+v", major, where, got)
			}
			if got.Kind != postgres.DefaultMissing || strings.Contains(c.added, "now()") {
				continue
			}
			table, err := catalog.Table(t.Context(), oid)
			if err != nil {
				t.Fatal(err)
			}
			plan, err := catalog.Plan(t.Context(), table, postgres.Policies{})
			if err != nil {
				t.Fatal(err)
			}
			value, err := plan.Value(len(table.Columns)-1, got.Text)
			if err != nil || value.Len() != 1 || value.IsNull(0) || value.ValueStr(0) != c.value {
				t.Errorf("%d: %s: %v, %v", major, where, value, err)
			}
		}
	}
}
