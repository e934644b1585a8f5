package pipeline_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// exactly compares a current table of the lake with the source: each value stands in its column, or its exact text in _leat_special of
// the same row.
func (b *bed) exactly(when string, tables ...string) {
	b.t.Helper()
	lake := b.inLake(tables...)
	for _, name := range tables {
		var columns, texts []string
		for _, r := range b.db.Query("select attname, format('(select case when t is null then ''NULL'' when length(t) > 100 then left(t, 20) || length(t) else t end from (select case when %1$I::text ~ ''[^ -~]'' then ''\\x'' || encode(convert_to(%1$I::text, ''SQL_ASCII''), ''hex'') else %1$I::text end) as x(t))', attname)" +
			" from pg_attribute where attrelid = 'public." + name + "'::regclass and attnum > 0 and not attisdropped order by attnum") {
			columns, texts = append(columns, r[0]), append(texts, r[1])
		}
		want := []string{}
		for _, r := range b.db.Query("select concat_ws('|', " + strings.Join(texts, ", ") + ") from public." + name) {
			want = append(want, r[0])
		}
		slices.Sort(want)
		if got := lake[name].withSpecials(b.t, columns); !slices.Equal(got, want) {
			b.t.Errorf("%s: %s: the lake has\n%s\nthe source has\n%s", when, name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// withSpecials are all rows as text, sorted: where a row has a special value of a column, its column must be null.
func (l lakeTable) withSpecials(t *testing.T, columns []string) []string {
	t.Helper()
	side := slices.Index(l.Columns, "_leat_special")
	out := []string{}
	for _, row := range l.Rows {
		special := map[string]string{}
		if side >= 0 && row[side] != nil {
			var pairs [][2]string
			if err := json.Unmarshal([]byte(*row[side]), &pairs); err != nil {
				t.Fatalf("%s: %v", *row[side], err)
			}
			for _, p := range pairs {
				special[p[0]] = p[1]
			}
		}
		var values []string
		for _, name := range columns {
			value := row[slices.Index(l.Columns, name)]
			text, is := special[name]
			if len(text) > 100 {
				text = fmt.Sprint(text[:20], len(text))
			}
			delete(special, name)
			switch {
			case is && value != nil:
				values = append(values, "both "+*value+" and "+text)
			case is:
				values = append(values, text)
			case value == nil:
				values = append(values, "NULL")
			case strings.HasPrefix(*value, "["): // a list
				values = append(values, "{"+strings.NewReplacer(" ", "", "\"", "", "null", "NULL").Replace(strings.Trim(*value, "[]"))+"}")
			case len(*value) > 100:
				values = append(values, fmt.Sprint((*value)[:20], len(*value)))
			default:
				values = append(values, *value)
			}
		}
		for name := range special {
			values = append(values, "a special value of no column: "+name)
		}
		out = append(out, strings.Join(values, "|"))
	}
	slices.Sort(out)
	return out
}

// bytes is SQL for text of the given bytes, in hexadecimal.
func raw(hex string) string { return "convert_from('\\x" + hex + "'::bytea, 'SQL_ASCII')" }

const specialTables = `
create table calm (id int primary key, d date not null, v text);
create table odd (id int primary key, d date not null, ts timestamp, tz timestamptz, n numeric(10,2), t time, a int[], da date[], w text[], v text, big text, plain int);
create table copied (id int primary key, d date not null, v text);
create table dated (d date primary key, v text);
create table pair (n numeric(6,1), v text, c int, primary key (n, v));
create table whole (d date, v text, c int);
alter table odd alter big set storage external;
alter table whole replica identity full;
insert into calm select i, '2024-01-01', 'v' from generate_series(1, 3) i;
insert into odd select i, '2024-01-01', '2024-01-01', '2024-01-01', 1.5, '12:00', '{1,2}', '{2024-01-01}', '{a,b}', 'v', repeat('x', 5000), i from generate_series(1, 4) i;
insert into dated values ('2024-01-01', 'plain')`

// TestValuesThatNoColumnCanCarryGoAside follows special values of every kind through copy, log, TOAST, compaction, a lost key index and a
// new copy, as binary values and as text.
func TestValuesThatNoColumnCanCarryGoAside(t *testing.T) {
	t.Parallel()
	for how, more := range map[string]string{"binary": "", "text": "; alter table calm add p point"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			b := &bed{t: t, db: testlab.ASCIIPostgres(t), dir: t.TempDir()}
			b.db.Exec(specialTables + more)
			b.db.Exec("insert into copied select i, case when i % 2 = 0 then 'infinity' else '2024-01-01'::date end, " + raw("6261ff") + " || i from generate_series(1, 5) i")
			all := []string{"calm", "odd", "copied", "dated", "pair", "whole"}
			b.mustCatchUp()
			b.exactly("after the first copy", "odd", "copied", "dated")
			for name, l := range b.inLake("calm", "odd", "copied", "copied_history") {
				if has := slices.Contains(l.Columns, "_leat_special"); has != strings.HasPrefix(name, "copied") {
					t.Errorf("%s has columns %v", name, l.Columns)
				}
			}

			b.db.Exec(fmt.Sprintf(`
insert into odd values (11, 'infinity', '-infinity', 'infinity', 'NaN', '24:00', '[0:1]={1,2}', '{-infinity,2024-01-01,NULL}', array['plain', %[1]s, 'a "b"', 'NULL', '']::text[], %[1]s, %[1]s || repeat('y', 5000), 1),
 (12, '-infinity', '294276-12-31 23:59:59.5', '294276-12-31 23:59:59.5+00', 1, '12:00', '{{1,2},{3,4}}', '{{2024-01-01},{infinity}}', '{a}', 'v', repeat('z', 5000), 2);
update odd set d = 'infinity' where id = 1;
update odd set n = 'NaN', v = %[1]s where id = 2;
update odd set d = '2024-02-02' where id = 1;
update calm set v = 'w' where id = 1;
insert into dated values ('infinity', 'late'), ('-infinity', 'early');
insert into pair values ('NaN', %[1]s, 1), ('NaN', %[2]s, 2), (1, %[1]s, 3), ('NaN', 'plain', 4), (1, 'plain', 5);
insert into whole values ('infinity', %[1]s, 1), ('infinity', %[1]s, 1), ('-infinity', %[1]s, 1), (null, null, 1)`, raw("62ff"), raw("62fe")))
			b.mustCatchUp()
			b.exactly("after the log", all...)

			b.db.Exec(fmt.Sprintf(`
update odd set plain = plain + 100;
update dated set v = 'later' where d = 'infinity';
delete from pair where n = 'NaN' and v = %[2]s;
update pair set c = c + 10 where n = 'NaN' and v = %[1]s;
update pair set n = 2 where n = 1 and v = %[1]s;
update whole set c = 2 where ctid = (select min(ctid) from whole where d = 'infinity');
delete from whole where d = '-infinity'`, raw("62ff"), raw("62fe")))
			b.mustCatchUp()
			b.exactly("after changes that did not carry them", all...)

			if err := os.RemoveAll(b.dir + "/work"); err != nil {
				t.Fatal(err)
			}
			if r := testlab.Leat(t).Run(b.db.Env(), "lake", "maintain", "--to", b.dir+"/lake"); r.Exit != 0 {
				t.Fatal(r.Stderr)
			}
			b.db.Exec("update dated set d = '-infinity', v = 'swapped' where false; delete from dated where d = '-infinity'; update dated set d = '-infinity' where d = 'infinity'; delete from whole where c = 1 and d = 'infinity'; update odd set plain = 0, d = '2025-01-01' where id = 11")
			b.mustCatchUp()
			b.exactly("with an index that was built anew", all...)
			if h := b.inLake("dated_history")["dated_history"].withSpecials(t, []string{"_leat_op", "d", "v"}); !slices.Contains(h, "d|infinity|NULL") || !slices.Contains(h, "u|-infinity|later") {
				t.Errorf("the history of a key that moved is\n%s", strings.Join(h, "\n"))
			}

			b.ask("resync", "--table", "public.odd", "--table", "public.pair")
			b.mustCatchUp()
			b.exactly("after a new copy", all...)
			if r := testlab.Leat(t).Run(b.db.Env(), "status", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot()); !strings.Contains(r.Stdout, "special values in _leat_special") {
				t.Errorf("the status tells nothing of them: %s", r.Stdout)
			}
		})
	}
}
