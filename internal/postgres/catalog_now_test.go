package postgres

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

func catalogOf(t *testing.T, db *testlab.DB) *Source {
	t.Helper()
	s, err := Connect(t.Context(), Settings{ConnString: db.URL})
	if err != nil {
		t.Fatal(err)
	}
	s.idle.keep = time.Hour // however slow the machine is
	return s
}

func oidIn(db *testlab.DB, sql string) uint32 { return uint32(number([]byte(db.One(sql)))) }

func TestACatalogReadsNoOtherTypesThanItIsAskedFor(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create type mood as enum ('sad'); create type pair as (a int, m mood); create domain price as numeric(8,2); create type other as enum ('x')
; create type lost as enum ('y'); create table t (id bigint primary key, p pair[], price price, cash money); create table beside (o other)`)
	table, other := oidIn(db, "select 't'::regclass::oid"), oidIn(db, "select 'other'::regtype::oid")
	lost, s := oidIn(db, "select 'lost'::regtype::oid"), catalogOf(t, db)
	c := s.Catalog()
	now, err := c.Table(t.Context(), table)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, known := range c.carry.types {
		names = append(names, known.name)
	}
	slices.Sort(names)
	want := []string{"bigint", "integer", "money", "numeric", "public.mood", "public.pair", "public.pair[]", "public.price"}
	if !slices.Equal(names, want) || c.carry.money != 2 {
		t.Errorf("it knows %q and that money has %d decimals, not %q", names, c.carry.money, want)
	}
	// What the log tells may be of a type that the table has no more, or of one that is gone.
	db.Exec("drop type lost")
	told := *now
	told.Columns = append(slices.Clone(now.Columns), change.Column{Name: "o", Attnum: 8, TypeOID: other, Typmod: -1}, change.Column{Name: "l", Attnum: 9, TypeOID: lost, Typmod: -1})
	for range 2 {
		plan, err := c.Plan(t.Context(), &told, Policies{})
		if err != nil {
			t.Fatal(err)
		}
		was, gone := plan.Columns[4], plan.Columns[5]
		if logical, _ := was.Field.Metadata.GetValue(change.LogicalKey); logical != change.LogicalEnum || was.AsText || !gone.AsText {
			t.Errorf("the column of a type that the table has no more: %+v; that of one that is gone: %+v", was, gone)
		}
		db.Exec("create type lost as enum ('z')") // under another OID: what was looked for once is not looked for again
		db.Exec("drop type lost")
	}
	if conversion, err := s.Catalog().Conversion(t.Context(), told.Columns[4], change.Column{TypeOID: 25, Typmod: -1}); err != nil || conversion != ConversionNone {
		t.Errorf("an enum's values are the same as text; got %d, %v", conversion, err)
	}
	db.Exec("alter table t alter cash type other using null")
	if again, err := s.Catalog().Table(t.Context(), table); err != nil || again.Columns[3].TypeOID != other {
		t.Errorf("a catalog that is asked later tells of %+v, %v", again, err)
	}
}

func TestLooksAtOneTableAfterAnotherPlanTheirQueriesOnce(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			const tables = 8
			for i := range tables {
				db.Exec(fmt.Sprintf("create table t%d (id int primary key, c%[1]d text, m money)", i))
			}
			s := catalogOf(t, db)
			for i := range tables {
				table, err := s.Catalog().Table(t.Context(), oidIn(db, fmt.Sprintf("select 't%d'::regclass::oid", i)))
				if err != nil || table.Name != fmt.Sprintf("t%d", i) || table.Columns[1].Name != fmt.Sprintf("c%d", i) {
					t.Errorf("table %d: %+v, %v", i, table, err)
				}
			}
			c := s.idle.take(t.Context())
			if c == nil {
				t.Fatal("no session waits")
			}
			defer closeSession(c)
			plans := "'0', ''"
			if major >= 14 {
				plans = "sum(custom_plans), sum(generic_plans)"
			}
			rows, err := query(t.Context(), c, "select count(*), "+plans+" from pg_prepared_statements")
			if err != nil {
				t.Fatal(err)
			}
			statements, custom, generic := string(rows[0][0]), string(rows[0][1]), string(rows[0][2])
			if statements != "3" || custom != "0" || major >= 14 && generic != fmt.Sprint(3*tables) {
				t.Errorf("the session has %s statements, planned %s times for their parameters and run %s times by one plan", statements, custom, generic)
			}
		})
	}
}

func TestASessionInUseOutlivesTheTimeItMayWait(t *testing.T) {
	t.Parallel()
	b := newBackend(t, &backend{inSession: 'I'})
	p := &idleSessions{keep: time.Hour}
	c := b.session(t, p)
	leave(c)
	first := p.conns[0]
	if p.take(t.Context()) != c {
		t.Fatal("it is not taken")
	}
	leave(c)
	p.drop(first) // the time of its first wait is over
	if c.IsClosed() || p.take(t.Context()) != c {
		t.Error("a session ends though it was used since")
	}
}
