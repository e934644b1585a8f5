package dump_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

// world is a database with a table for each type: what every format carries stands in the schema src, and each
// value that typed formats have no place for in a table of its own in the schema odd.
type world struct {
	db     *testlab.DB
	source *postgres.Source
	cases  []typeCase
	odd    []oddValue
	seen   *observed
}

// oddValue is one special value with a class, alone in its table.
type oddValue struct {
	special
	typeCase
	table string
}

func newWorld(t *testing.T, db *testlab.DB) *world {
	t.Helper()
	w := &world{db: db, seen: newObserved()}
	db.Exec("create schema src; create schema odd; create schema src_decimal; create schema odd_decimal; set datestyle = 'ISO, YMD'; set timezone = 'UTC'")
	for _, c := range typeCases {
		if c.since > db.Server.Major {
			continue
		}
		if c.needs != "" {
			if db.One("select count(*) from pg_available_extensions where name = '"+c.needs+"'") == "0" {
				t.Logf("PostgreSQL %d here has no extension %s: %s is left out", db.Server.Major, c.needs, c.name)
				continue
			}
			db.Exec("create extension if not exists " + c.needs + " schema public")
		}
		if c.setup != "" {
			db.Exec(c.setup)
		}
		w.add(c)
	}
	w.source = connect(t, db)
	return w
}

func (c typeCase) schema(kind string) string {
	if c.unbounded != "" {
		return kind + "_decimal"
	}
	return kind
}

// add makes the tables of a type. A row's id is its place in the case.
func (w *world) add(c typeCase) {
	table := fmt.Sprintf("%s.t%d", c.schema("src"), len(w.cases))
	w.db.Exec("create table " + table + " (id integer primary key, v " + c.pg() + ")")
	put := func(id int, sql string) {
		w.db.Exec(fmt.Sprintf("insert into %s values (%d, %s)", table, id, sql))
	}
	put(-1, "NULL")
	for i, sql := range c.ordinary {
		put(i, sql)
	}
	for i, s := range c.special {
		switch {
		case s.since > w.db.Server.Major:
		case s.class == "":
			put(len(c.ordinary)+i, s.sql)
		default:
			o := oddValue{special: s, typeCase: c, table: fmt.Sprintf("o%d", len(w.odd))}
			w.db.Exec("create table " + c.schema("odd") + "." + o.table + " (id integer, v " + c.pg() + " not null); insert into " + c.schema("odd") + "." + o.table + " values (1, " + s.sql + ")")
			w.odd = append(w.odd, o)
		}
	}
	w.cases = append(w.cases, c)
}

var unboundeds = []string{"", "decimal(38,10)"}

func schemaFor(kind, unbounded string) string { return typeCase{unbounded: unbounded}.schema(kind) }

// exact dumps every type and lets the server judge each value that came back.
func (w *world) exact(t *testing.T, kind format.Kind) {
	for _, unbounded := range unboundeds {
		schema := schemaFor("src", unbounded)
		d := take(t, w.source, dump.Options{Format: kind, Selection: in(schema), Policies: postgres.Policies{UnboundedNumeric: unbounded}})
		j := newJudge(t, w.db)
		for i, c := range w.cases {
			if c.unbounded == unbounded {
				w.exactType(t, j, d, i, c)
			}
		}
	}
}

func (w *world) exactType(t *testing.T, j *judge, d taken, i int, c typeCase) {
	table := d.table(t, c.schema("src"), fmt.Sprintf("t%d", i))
	back := j.load(d, table)
	w.seen.carried(t, j, d, c, table, back)
	want, got := printed("s.v"), printed("b.c1::"+c.pg())
	switch {
	case c.exact && strings.HasSuffix(c.pg(), "[]"): // its elements; which of them are quoted says nothing
		want, got = "("+want+")::text[]::text", "b.c1::text[]::text"
	case c.exact:
		got = "b.c1"
	}
	rows := w.db.Query("select coalesce(s.id, b.c0::integer), " + got + " is not distinct from " + want + ", left(" + want + ", 120), left(b.c1, 120) from " +
		c.schema("src") + "." + table.Name + " s full join " + back + " b on b.c0::integer = s.id order by 1")
	for _, r := range rows {
		s, ok, what := c.at(r[0]), r[1] == "t", "exact"
		if want := s.inJSON; want != "" && format.Kind(d.Format).JSON() {
			ok, what = r[3] == want || want == "NULL" && r[3] == testlab.Null, "`"+want+"`"
		}
		switch {
		case !ok:
			t.Errorf("%s: %q came back as %q", c.name, r[2], r[3])
		case s.label != "":
			w.seen.special(c, s, d.Format, what)
		}
	}
	for _, col := range table.Columns {
		if col.Applied != 0 {
			t.Errorf("%s: the manifest says that a policy was used on %d values of %s", c.name, col.Applied, col.Name)
		}
	}
}

// at is the special value whose row has the id; the zero one for ordinary values.
func (c typeCase) at(id string) special {
	n, err := strconv.Atoi(id)
	if err != nil || n < len(c.ordinary) || n >= len(c.ordinary)+len(c.special) {
		return special{}
	}
	return c.special[n-len(c.ordinary)]
}

// oddAsText: formats of text carry the odd values as they are.
func (w *world) oddAsText(t *testing.T, kind format.Kind) {
	d := take(t, w.source, dump.Options{Format: kind, Selection: in("odd", "odd_decimal")})
	j := newJudge(t, w.db)
	for _, o := range w.odd {
		if j.same(d, d.table(t, o.schema("odd"), o.table)) {
			w.seen.special(o.typeCase, o.special, d.Format, "exact")
		}
	}
}

// refused: without a policy a dump of the value fails, names the column and the setting, and leaves nothing.
func (w *world) refused(t *testing.T, kind format.Kind) {
	for _, o := range w.odd {
		b := memory(t)
		_, err := dump.Run(t.Context(), w.source, b, dump.Options{
			Format: kind, Compression: format.CodecSnappy, LSN: postgres.LSNApproximate, Policies: postgres.Policies{UnboundedNumeric: o.unbounded},
			Selection: choose(func(n postgres.Name) bool { return n.Schema == o.schema("odd") && n.Name == o.table }),
		})
		f := fault.Of(err)
		if !fault.Is(err, fault.ValueUncarriable) {
			t.Errorf("%s, %s: the dump ended with %v", o.name, o.label, err)
			continue
		}
		if where := o.schema("odd") + "." + o.table + ".v"; f.Where != where || !strings.Contains(f.HowToMend(), "dump.types."+o.class) {
			t.Errorf("%s, %s: the error is at %q and says %q", o.name, o.label, f.Where, f.HowToMend())
		}
		for obj, err := range b.List(t.Context(), "") {
			t.Errorf("%s, %s: %s is left behind (%v)", o.name, o.label, obj.Key, err)
		}
		w.seen.special(o.typeCase, o.special, string(kind), "`"+o.class+"`:")
	}
}

func allPolicies(p postgres.Policy, unbounded string) postgres.Policies {
	return postgres.Policies{Numeric: p, Date: p, Time: p, Timestamp: p, Timestamptz: p, Array: p, UnboundedNumeric: unbounded}
}

// ruled: under a policy the value becomes what the policy says, and is counted.
func (w *world) ruled(t *testing.T, kind format.Kind, policy postgres.Policy) {
	for _, unbounded := range unboundeds {
		applies := func(o oddValue) bool {
			return o.unbounded == unbounded && (policy != postgres.Clamp || o.class != "array")
		}
		schema := schemaFor("odd", unbounded)
		d := take(t, w.source, dump.Options{Format: kind, Policies: allPolicies(policy, unbounded), Selection: choose(func(n postgres.Name) bool {
			return n.Schema == schema && slices.ContainsFunc(w.odd, func(o oddValue) bool { return o.table == n.Name && applies(o) })
		})})
		j := newJudge(t, w.db)
		for _, o := range w.odd {
			if applies(o) {
				w.ruledValue(t, j, d, o, policy)
			}
		}
	}
}

func (w *world) ruledValue(t *testing.T, j *judge, d taken, o oddValue, policy postgres.Policy) {
	table := d.table(t, o.schema("odd"), o.table)
	back := j.load(d, table)
	got := w.db.One("select " + printed("c1::"+o.pg()) + " from " + back)
	want, applied, word := testlab.Null, int64(1), "NULL"
	switch policy {
	case postgres.Null:
		if o.null != "" {
			want, word = o.null, "NULL element"
		}
	case postgres.Clamp:
		if o.clamp != "" {
			want, word = o.clamp, "`"+o.clamp+"`"
		}
	case postgres.Text:
		want, applied, word = w.db.One("select "+printed("v")+" from "+o.schema("odd")+"."+o.table), 0, "exact"
	}
	column := table.Columns[1]
	if got != want || column.Applied != applied || column.Policy == "" {
		t.Errorf("%s, %s, under %s: became %q, not %q; the manifest says %q, applied %d times, not %d", o.name, o.label, policy, got, want, column.Policy, column.Applied, applied)
		return
	}
	w.seen.special(o.typeCase, o.special, d.Format, string(policy)+" "+word)
}

func TestTypesComeBackExactlyOrByPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testlab.Postgres(t))
	for _, kind := range format.Kinds {
		t.Run("exact in "+string(kind), func(t *testing.T) { w.exact(t, kind) })
		if !kind.Typed() {
			t.Run("odd values in "+string(kind), func(t *testing.T) { w.oddAsText(t, kind) })
			continue
		}
		t.Run("refused in "+string(kind), func(t *testing.T) { w.refused(t, kind) })
		for _, policy := range []postgres.Policy{postgres.Null, postgres.Clamp, postgres.Text} {
			t.Run(string(policy)+" in "+string(kind), func(t *testing.T) { w.ruled(t, kind, policy) })
		}
	}
	t.Run("and docs/types.md says so", func(t *testing.T) { w.seen.compare(t, w) })
}

// kindsOn are the formats that a major is tried with: all on the oldest and the newest, and with LEAT_TEST_LONG=1 on each; between them
// one that is typed and one that is text, in turn.
func kindsOn(major int) []format.Kind {
	typed, text := []format.Kind{format.Parquet, format.Avro}, []format.Kind{format.CSV, format.JSONL}
	i := slices.Index(testlab.Majors, major)
	if i == 0 || i == len(testlab.Majors)-1 || os.Getenv("LEAT_TEST_LONG") != "" {
		return slices.Concat(typed, text)
	}
	return []format.Kind{typed[i%2], text[i/2%2]}
}

func TestTypesComeBackExactlyOnEveryMajor(t *testing.T) {
	t.Parallel()
	for _, major := range testlab.Majors {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			db := testlab.Postgres(t, major)
			w := newWorld(t, db)
			kinds := kindsOn(major)
			for _, kind := range kinds {
				t.Run(string(kind), func(t *testing.T) { w.exact(t, kind) })
			}
			if len(kinds) == 2 {
				t.Run("null", func(t *testing.T) { w.ruled(t, kinds[0], postgres.Null) })
				return
			}
			t.Run("refused", func(t *testing.T) { w.refused(t, format.Parquet) })
			t.Run("clamp", func(t *testing.T) { w.ruled(t, format.Parquet, postgres.Clamp) })
			t.Run("jsonl", func(t *testing.T) { w.oddAsText(t, format.JSONL) })
		})
	}
}
