package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// oddTypes are types and values of them that are easily read wrongly, as SQL.
var oddTypes = []struct {
	name   string
	since  int
	binary bool // the log's binary form is understood
	values []string
}{
	{"boolean", 0, true, []string{"true", "false"}},
	{"smallint", 0, true, []string{"0", "-32768", "32767"}},
	{"integer", 0, true, []string{"0", "-2147483648", "2147483647"}},
	{"bigint", 0, true, []string{"0", "-9223372036854775808", "9223372036854775807"}},
	{"oid", 0, true, []string{"0", "'4294967295'"}},
	{"real", 0, true, []string{"0.1", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'1e-45'", "'3.4028235e38'", "16777217"}},
	{"double precision", 0, true, []string{"0.1::float8+0.2::float8", "'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'5e-324'", "'1.7976931348623157e308'", "1e300"}},
	{"numeric(9,2)", 0, true, []string{"0", "-0.01", "9999999.99", "-9999999.99", "10000", "0.1", "'NaN'"}},
	{"numeric(18,6)", 0, true, []string{"-0.000001", "999999999999.999999", "100000000"}},
	{"numeric(38,10)", 0, true, []string{"0.0000000001", "9999999999999999999999999999.9999999999", "-9999999999999999999999999999.9999999999", "1e20", "12345678901234567890.5"}},
	{"numeric(38,0)", 0, true, []string{"99999999999999999999999999999999999999", "-1", "18446744073709551616", "1000000000000000000"}},
	{"numeric(38,38)", 0, true, []string{"0.99999999999999999999999999999999999999", "-0.00000000000000000000000000000000000001"}},
	{"numeric(39,2)", 0, true, []string{"9999999999999999999999999999999999999.99", "0", "'NaN'", "-12345.6"}},
	{"numeric(5,-2)", 15, true, []string{"1234567", "-100", "0", "9999900"}},
	{"numeric(3,5)", 15, true, []string{"0.00999", "-0.00001", "0"}},
	{"numeric", 0, true, []string{"0", "0.00", "-1.50", "1e-20", "10000", "10000.0001", "123456789.000", "1e28", "-1.00000000005", "0.99999999995", "9999999999999999999999999999.99999999995",
		"(repeat('7', 100) || '.' || repeat('3', 100))::numeric", "1e131071::numeric", "'NaN'", "1.5000000000000000", "0.000000000049", "-100000000000000000000"}},
	{"money", 0, true, []string{"0", "'-0.01'", "'92233720368547758.07'", "'-92233720368547758.08'", "'1234567.89'"}},
	{"date", 0, true, []string{"'2026-11-21'", "'1970-01-01'", "'1969-12-31'", "'2000-02-29'", "'1900-02-28'", "'infinity'", "'-infinity'", "'4714-11-24 BC'", "'0001-12-31 BC'", "'0005-02-29 BC'", "'0001-01-01'", "'5874897-12-31'", "'10000-01-01'"}},
	{"time", 0, true, []string{"'00:00'", "'12:34:56.789012'", "'23:59:59.999999'", "'24:00:00'", "'01:02:03.5'", "'01:02:03.12345'"}},
	{"time with time zone", 0, true, []string{"'12:34:56.789012+05:30'", "'00:00-15:59'", "'24:00:00+00'", "'01:02:03.5-07:52:58'", "'10:00+03:00:01'"}},
	{"timestamp", 0, true, []string{"'2026-11-21 09:45:00.000001'", "'1969-12-31 23:59:59.999999'", "'infinity'", "'-infinity'", "'294276-12-31 23:59:59.999999'", "'294246-12-31 23:59:59.999999'", "'294247-01-10 04:00:54.775807'", "'294247-01-10 04:00:54.775808'",
		"'4714-11-24 00:00:00 BC'", "'0001-12-31 23:59:59.5 BC'", "'0001-01-01 00:00:00'"}},
	{"timestamp with time zone", 0, true, []string{"'2026-11-21 09:45:00.000001+01'", "'1883-11-18 12:00:00 America/New_York'", "'infinity'", "'-infinity'", "'294276-12-31 23:59:59.999999+00'", "'2026-11-21 09:45:00.5+00'", "'2026-11-21 09:45:00.12+00'", "'2026-11-21 09:45:00.123+00'", "'2026-11-21 09:45:00.1234+00'", "'2026-11-21 09:45:00.12345+00'", "'4714-11-24 00:00:00+00 BC'", "'0044-03-15 12:00+02 BC'"}},
	{"timestamp(3)", 0, true, []string{"'2026-11-21 09:45:00.123'", "'2026-11-21 09:45:00.1'"}},
	{"interval", 0, true, []string{"'0'", "'1 year 2 months 3 days 04:05:06.789012'", "'-1 year -2 days -00:00:00.000001'", "'1 month -1 day 00:00:01'", "'-1 month 1 day'", "'-1 day 00:00:01'", "'178000000 years'", "'-1 year'", "'1 day'", "'1000000:00:00.5'", "'-11 months'"}},
	{"text", 0, true, []string{"'plain'", "'NULL'", "' '", "''", "'ä日本'", `E'a "quoted" \\''text\\'', back\\\\slash, \\\\N, tab\\t\\n \\x01\\x7f'`, "repeat('xyz\"', 262144)"}},
	{"character varying(200)", 0, true, []string{"'plain'", "''"}},
	{"character(8)", 0, true, []string{"'12345678'", "'abc'", "''"}},
	{`"char"`, 0, true, []string{"'x'", "'\"'", "''", "'é'"}},
	{"name", 0, true, []string{"'plain'", "''"}},
	{"bytea", 0, true, []string{`'\xdeadbeef'`, "''", `'\x000100'`, "decode(repeat('00ff', 52428), 'hex')"}},
	{"json", 0, true, []string{`'{"a": [1, 2, {"b": null}]}'`, `'{ "a" :   [ ] }'`, "'null'", `E'{\n"a":\r\n1}'`}},
	{"jsonb", 0, true, []string{`'{"a": [1, 2, {"b": null}]}'`, "'null'", `'[123456789012345678901234567890.123456789, 1e40]'`}},
	{"xml", 0, false, []string{`'<a b="c">d &amp; e</a>'`, "'no element'", `'<?xml version="1.0"?><a/>'`, `'<?xml version="1.0" encoding="UTF-8" standalone="yes"?><a/>'`}},
	{"jsonpath", 0, false, []string{`'$.a[*] ? (@ > 1)'`}},
	{"tsvector", 0, false, []string{`'fat:2A cat:1B,3 ''o''''clock'''`, "''"}},
	{"uuid", 0, true, []string{"'00000000-0000-0000-0000-000000000000'", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"}},
	{"bit(5)", 0, true, []string{"B'10100'"}},
	{"bit varying", 0, true, []string{"B'1'", "B''", "B'0000000000000000000000000000000000000000000000000000000000000000001'"}},
	{"inet", 0, true, []string{"'10.0.0.1'", "'10.0.0.1/8'", "'::1'", "'fe80::1/64'", "'::'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'::1.2.3.4/120'", "'1:0:0:2::3'", "'1::2:0:0:0:0'", "'2001:db8:0:1:1:1:1:1'", "'0:0:0:0:0:0:1:2'", "'::ffff:0:0'", "'1::'", "'0:1::'"}},
	{"cidr", 0, true, []string{"'10.0.0.0/8'", "'10.0.0.1/32'", "'2001:db8::/32'", "'::/0'", "'::1/128'"}},
	{"macaddr", 0, true, []string{"'08:00:2b:01:02:03'"}},
	{"macaddr8", 0, true, []string{"'08:00:2b:01:02:03:04:05'"}},
	{"pg_lsn", 0, false, []string{"'16/B374D848'"}},
	{"xid", 0, true, []string{"'4294967295'", "'0'"}},
	{"xid8", 13, true, []string{"'18446744073709551615'"}},
	{"cid", 0, true, []string{"'4294967295'"}},
	{"tid", 0, false, []string{"'(4294967295,65535)'"}},
	{"regclass", 0, false, []string{"'pg_catalog.pg_class'", "'public.other'", "0"}},
	{"regtype", 0, false, []string{"'double precision'", "'integer[]'"}},
	{"int2vector", 0, false, []string{"'1 -2 3'", "''"}},
	{"point", 0, false, []string{"'(0.1,-2e300)'", "'(NaN,Infinity)'"}},
	{"box", 0, false, []string{"'(1,1),(0,0.1)'"}},
	{"tstzrange", 0, false, []string{"'[0044-03-15 12:00+02 BC,2026-01-01 12:00+02)'", "'empty'", "'(,)'"}},
	{"integer[]", 0, true, []string{"'{1,-2,NULL,3}'", "'{}'", "'{NULL}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'", "'[1:2][3:4]={{1,2},{3,4}}'"}},
	{"integer[][]", 0, true, []string{"'{{1,NULL},{3,4}}'", "'{}'", "'{1,2}'", "'[1:1][-2:-1]={{1,2}}'"}},
	{"integer[][][]", 0, true, []string{"'{{{1,2},{3,4}},{{5,6},{NULL,8}}}'"}},
	{"boolean[]", 0, true, []string{"'{t,f,NULL}'"}},
	{"real[]", 0, true, []string{"'{0.1,NaN,-Infinity,-0}'"}},
	{"numeric(10,2)[]", 0, true, []string{"'{1.50,NULL,-99999999.99}'", "'{1.50,NaN}'"}},
	{"numeric[]", 0, false, []string{"'{1.50,NaN,1e-30}'"}},
	{"money[]", 0, true, []string{"array[1.5::money, NULL, '-1234567.1'::money]"}},
	{"text[]", 0, true, []string{`array['a "b" \ {c},d', '', NULL, 'NULL', E'\n\t', ' x ', 'null']`, "'{{a,b},{c,d}}'", "'[5:5]={a}'"}},
	{"text[][]", 0, true, []string{`array[['{"a"}', NULL], ['', 'd']]`}},
	{"character(3)[]", 0, true, []string{"'{a,abc}'"}},
	{"bytea[]", 0, true, []string{`array['\x00ff'::bytea, '', NULL]`}},
	{"date[]", 0, true, []string{"'{2026-01-01,NULL,0044-03-15 BC}'", "'{infinity,2026-01-01}'"}},
	{"timestamp with time zone[]", 0, true, []string{"'{2026-01-01 12:00+01,NULL}'", "'{-infinity}'"}},
	{"time[]", 0, true, []string{"'{12:00,NULL,24:00}'"}},
	{"interval[]", 0, false, []string{"'{1 day,-00:00:01,NULL}'"}},
	{"uuid[]", 0, true, []string{"'{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}'"}},
	{"jsonb[]", 0, true, []string{`array['{"a": [1]}'::jsonb, NULL]`}},
	{"xml[]", 0, false, []string{`array['<?xml version="1.0"?><a b="c"/>'::xml, NULL]`}},
	{"inet[]", 0, false, []string{"'{10.0.0.1,10.0.0.1/8,NULL}'::inet[]"}},
	{"box[]", 0, false, []string{"'{(1,1),(0,0);(2,2),(0.1,0)}'", "'{}'"}},
	{"int4range[]", 0, false, []string{`'{"[1,2)",empty}'`}},
	{"public.mood", 0, true, []string{"'sad'", `'it''s "ok", {fine}'`, "'ä'"}},
	{"public.mood[]", 0, true, []string{`array['sad', 'it''s "ok", {fine}', NULL]::public.mood[]`}},
	{"public.d_num2", 0, true, []string{"1.5", "-99999999.9999", "'NaN'"}},
	{"public.d_ints", 0, true, []string{"'{1,NULL}'", "'{{1}}'", "'[0:0]={1}'"}},
	{"public.d_grid", 0, true, []string{"'{{1,2},{NULL,4}}'"}},
	{"public.d_num[]", 0, true, []string{"'{1.5000,NULL}'"}},
	{"public.d_ints[]", 0, true, []string{`'{"{1,2}","{3}"}'`}},
	{"public.d_inets[]", 0, false, []string{`'{"{10.0.0.1}"}'`}},
	{"public.pair", 0, false, []string{"row(1, 'x')", `row(NULL, 'a "b", (c) \ ')`, "row(NULL, NULL)"}},
	{"public.pair[]", 0, false, []string{`array[row(1, 'a "b", {c}')::public.pair, row(NULL, NULL)::public.pair, NULL]`}},
	{"public.cased", 0, false, []string{"row(1, 'Own cast')"}},
	{"citext", 0, true, []string{"'MiXeD'", "''"}},
	{"hstore", 0, false, []string{`'a=>1, "b c"=>"d\"e", n=>NULL'`, "''"}},
	{"geometry", 0, true, []string{"'POINT(1 2)'", "'SRID=4326;LINESTRING(0.1234567890123456 1, 2 3)'", "'POINT EMPTY'"}},
	{"geography", 0, true, []string{"'POINT(-71.0123456789012345 42)'"}},
	{"geometry[]", 0, true, []string{"array['POINT(0.1234567890123456 2)'::geometry, NULL]"}},
}

const oddSetup = `
create type public.mood as enum ('sad', 'it''s "ok", {fine}', 'ä');
create domain public.d_num as numeric(12,4); create domain public.d_num2 as public.d_num default 1;
create domain public.d_ints as integer[]; create domain public.d_grid as integer[][]; create domain public.d_inets as inet[];
create type public.pair as (a integer, b text);
create type public.cased as (a integer, b text);
create function public.shout(public.cased) returns text language sql immutable as $$ select upper($1.b) $$;
create cast (public.cased as text) with function public.shout(public.cased);
create table public.other (id integer)`

// follower reads a slot into builders, one for each table and set of policies.
type follower struct {
	t        *testing.T
	catalog  *postgres.Catalog
	policies []postgres.Policies
	builders map[string][]*postgres.ChangesBuilder
	plans    map[string][]*postgres.Plan
}

func (f *follower) build(e *postgres.Event, skip func(*postgres.Plan) bool) {
	f.t.Helper()
	name := e.Relation.Name
	if f.builders[name] == nil {
		now, err := f.catalog.Table(f.t.Context(), e.Relation.OID)
		if err != nil {
			f.t.Fatal(err)
		}
		table, err := postgres.AlignAt(nil, now, e.Relation, postgres.Moment{})
		if err != nil {
			f.t.Fatal(err)
		}
		for _, p := range f.policies {
			plan, err := f.catalog.Plan(f.t.Context(), table, p)
			if err != nil {
				f.t.Fatal(err)
			}
			b, err := postgres.NewChangesBuilder(plan, e.Relation)
			if err != nil {
				f.t.Fatal(err)
			}
			f.plans[name] = append(f.plans[name], plan)
			f.builders[name] = append(f.builders[name], b)
		}
	}
	for i, b := range f.builders[name] {
		if skip(f.plans[name][i]) {
			continue
		}
		if err := b.Append(e); err != nil {
			f.t.Errorf("%s: %v", name, err)
		}
	}
}

// events hands on what a slot has up to the position at which the log ends now.
func events(t *testing.T, db *testlab.DB, source *postgres.Source, o postgres.LogOptions, each func(*postgres.Event)) {
	t.Helper()
	end, err := change.ParseLSN(db.One("select pg_current_wal_insert_lsn()"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), logPatience)
	defer cancel()
	log, err := source.Log(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for {
		e, err := log.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		each(e)
		if (e.Kind == postgres.EventCommit || e.Kind == postgres.EventIdle) && e.Position >= end {
			return
		}
	}
}

func sourceOf(t testing.TB, db *testlab.DB) *postgres.Source {
	t.Helper()
	s, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: db.URL})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tablesLike(prefix string) postgres.Selection {
	return postgres.Selection{Choose: func(all []postgres.Name, _ []string) (picked []int, _ error) {
		for i, n := range all {
			if strings.HasPrefix(n.Name, prefix) {
				picked = append(picked, i)
			}
		}
		return picked, nil
	}}
}

// valuesOf renders column 1 of all rows, and its type.
func valuesOf(rec arrow.RecordBatch) (values []string) {
	c := rec.Column(1)
	for i := range c.Len() {
		v := "NULL"
		if !c.IsNull(i) {
			v = fmt.Sprintf("%s %q", c.DataType(), c.ValueStr(i))
		}
		values = append(values, v)
	}
	return values
}

func TestTheLogGivesTheSameValuesAsASnapshot(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			sameInLogAndSnapshot(t, testlab.Postgres(t, major), major)
		})
	}
}

func sameInLogAndSnapshot(t *testing.T, db *testlab.DB, major int) {
	clamp := postgres.Policies{Numeric: postgres.Clamp, Date: postgres.Clamp, Time: postgres.Clamp, Timestamp: postgres.Clamp, Timestamptz: postgres.Clamp, Array: postgres.Null, UnboundedNumeric: "decimal(38,10)"}
	null := postgres.Policies{Numeric: postgres.Null, Date: postgres.Null, Time: postgres.Null, Timestamp: postgres.Null, Timestamptz: postgres.Null, Array: postgres.Null}
	text := postgres.Policies{Numeric: postgres.Text, Date: postgres.Text, Time: postgres.Text, Timestamp: postgres.Text, Timestamptz: postgres.Text, UUID: postgres.Text, Array: postgres.Text}
	policies := []postgres.Policies{clamp, null, text}
	db.Exec(oddSetup)
	for _, e := range []string{"citext", "hstore", "postgis"} {
		if db.One("select count(*) from pg_available_extensions where name = '"+e+"'") == "1" {
			db.Exec("create extension " + e)
		}
	}
	names := map[string]int{}
	for i, o := range oddTypes {
		if o.since > major || db.One("select to_regtype('"+o.name+"') is null") == "t" {
			continue
		}
		table := fmt.Sprintf("odd_%d", i)
		names[table] = i
		db.Exec(fmt.Sprintf("create table %s (id integer primary key, v %s); alter table %[1]s replica identity full", table, o.name))
	}
	db.Exec("create publication leat for all tables")
	for _, slot := range []string{"_t", "_b"} {
		db.Exec("select pg_create_logical_replication_slot('" + db.Name + slot + "', 'pgoutput')")
	}
	for table, i := range names {
		for n, v := range append(slices.Clone(oddTypes[i].values), "NULL") {
			db.Exec(fmt.Sprintf("insert into %s values (%d, %s)", table, n, v))
		}
	}
	source := sourceOf(t, db)
	catalog := source.Catalog()
	snap, err := source.Snapshot(t.Context(), postgres.SnapshotOptions{Selection: tablesLike("odd_"), LSN: postgres.LSNApproximate, Typed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	reader, err := snap.Reader(t.Context(), postgres.Shared{})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	want := map[string][][]string{}
	for _, table := range snap.Tables {
		for _, p := range policies {
			plan, err := snap.Plan(table, p)
			if err != nil {
				t.Fatal(err)
			}
			var values []string
			if _, _, err := reader.Batches(t.Context(), plan, postgres.Chunk{}, func(b change.Batch) error {
				values = append(values, valuesOf(b.Record)...)
				return nil
			}); err != nil {
				t.Fatalf("%s: %v", oddTypes[names[table.Name]].name, err)
			}
			want[table.Name] = append(want[table.Name], values)
		}
	}
	for _, binary := range []bool{false, true} {
		if binary && major < 14 {
			continue
		}
		f := &follower{t: t, catalog: catalog, policies: policies, builders: map[string][]*postgres.ChangesBuilder{}, plans: map[string][]*postgres.Plan{}}
		o := postgres.LogOptions{Slot: db.Name + "_t", Publications: []string{"leat"}, Binary: binary}
		skip := func(*postgres.Plan) bool { return false }
		if binary {
			o.Slot = db.Name + "_b"
			skip = func(p *postgres.Plan) bool { return !p.CanBinary() }
		}
		events(t, db, source, o, func(e *postgres.Event) {
			if e.Kind == postgres.EventInsert {
				f.build(e, skip)
			}
		})
		for table, i := range names {
			if len(f.builders[table]) != len(policies) || len(want[table]) != len(policies) || len(want[table][0]) != len(oddTypes[i].values)+1 {
				t.Fatalf("%s was not read", oddTypes[i].name)
			}
			if got := f.plans[table][1].CanBinary(); got != oddTypes[i].binary {
				t.Errorf("%s: CanBinary is %v", oddTypes[i].name, got)
			}
			for p, b := range f.builders[table] {
				if skip(f.plans[table][p]) {
					continue
				}
				got := valuesOf(b.Take().Rows)
				for n, w := range want[table][p] {
					if n >= len(got) || got[n] != w {
						t.Errorf("%s, binary %v, policies %d: %s is in the log\n%.200s, in the snapshot\n%.200s", oddTypes[i].name, binary, p, append(oddTypes[i].values, "NULL")[n], got[min(n, len(got)-1)], w)
					}
				}
			}
		}
	}
}
