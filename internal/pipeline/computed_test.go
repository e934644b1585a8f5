package pipeline_test

import (
	"crypto/md5"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// cellSQL is a column's value as the lake is read: large ones by their hash.
const cellSQL = `case when atttypid = 'int[]'::regtype then format('(select case when length(x) > 100 then md5(x) else x end from replace(to_json(r.%1$I)::text, '','', '', '') x)', attname)
  else format('case when r.%1$I is null then null else (select case when length(x) > 100 then md5(x) else x end from format(''%%s'', r.%1$I) x) end', attname) end`

// audited writes every change of a table into another one, as the server saw it.
const audited = `
create table audit (n bigint generated always as identity primary key, of text, op text, cells text[]);
create function note() returns trigger language plpgsql as $$
declare cells text[]; changed record;
begin
  if TG_OP = 'DELETE' then changed := OLD; else changed := NEW; end if;
  execute (select format('select array[%s] from (select ($1::%s).*) r', string_agg(` + cellSQL + `, ',' order by a.place), TG_RELID::regclass)
    from pg_attribute, lateral (select attnum from pg_attribute root where root.attrelid = TG_ARGV[0]::regclass and root.attname = pg_attribute.attname) a(place)
    where attrelid = TG_RELID and attnum > 0 and not attisdropped) using changed into cells;
  insert into audit (of, op, cells) values (TG_ARGV[0], translate(left(TG_OP, 1), 'IUD', 'cud'), cells);
  return null;
end $$;`

// watch lets a table's changes be audited, those of a partition under its root's name.
func (b *bed) watch(table, root string) {
	b.db.Exec(fmt.Sprintf("create trigger note after insert or update or delete on %s for each row execute function note('%s')", table, root))
}

// sameAsAudited compares the whole history with what the server saw, and the current rows with what it has.
func (b *bed) sameAsAudited(table string) {
	b.t.Helper()
	lake := b.inLake(table, table+"_history")
	for _, l := range lake {
		for _, row := range l.Rows {
			for i, cell := range row {
				if cell != nil && len(*cell) > 100 {
					sum := fmt.Sprintf("%x", md5.Sum([]byte(*cell)))
					row[i] = &sum
				}
			}
		}
	}
	var columns, texts []string
	for _, r := range b.db.Query("select attname, " + cellSQL + " from pg_attribute where attrelid = 'public." + table + "'::regclass and attnum > 0 and not attisdropped order by attnum") {
		columns, texts = append(columns, r[0]), append(texts, r[1])
	}
	var want []string
	for _, r := range b.db.Query("select array_to_string(array[" + strings.Join(texts, ", ") + "], '|', 'NULL') from public." + table + " r") {
		want = append(want, r[0])
	}
	slices.Sort(want)
	if got := lake[table].chosen(columns); !slices.Equal(got, want) {
		b.t.Errorf("%s: the lake has\n%s\nthe source has\n%s", table, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var seen []string
	for _, r := range b.db.Query("select op || '|' || array_to_string(cells, '|', 'NULL') from audit where op <> 'd' and of = '" + table + "'") {
		seen = append(seen, r[0])
	}
	slices.Sort(seen)
	h := lake[table+"_history"]
	op := slices.Index(h.Columns, "_leat_op")
	if unchanged := slices.Index(h.Columns, "_leat_unchanged"); slices.ContainsFunc(h.Rows, func(r []*string) bool { return r[unchanged] != nil }) {
		b.t.Errorf("%s: values are missing in the history", table)
	}
	told := lakeTable{Columns: h.Columns}
	for _, r := range h.Rows {
		if *r[op] == "c" || *r[op] == "u" {
			told.Rows = append(told.Rows, r)
		}
	}
	got := told.chosen(append([]string{"_leat_op"}, columns...))
	if !slices.Equal(got, seen) {
		b.t.Errorf("%s: the history has\n%s\nthe server saw\n%s", table, strings.Join(got, "\n"), strings.Join(seen, "\n"))
	}
}

// everything has columns that are computed of all kinds of types, among the others, and of values that may lie in TOAST.
const everything = `
create type mood as enum ('sad', 'glad');
create type pair as (x int, y text);
create domain posint as int check (value > 0);
create schema "odd ""schema";
create function "odd ""schema".twice(int) returns int language sql immutable as 'select $1 * 2';
create table gen (
  id int primary key, twice int generated always as ("odd ""schema".twice(a)) stored, a int, b numeric(10,2),
  price numeric(12,4) generated always as (b * 1.19) stored, t text collate "C", "odd ""näme" varchar(20), j jsonb,
  "up ""per" text generated always as (upper(t) || coalesce("odd ""näme", '?')) stored, ts timestamp,
  k text generated always as (j ->> 'k') stored, tz timestamptz generated always as (ts at time zone 'UTC') stored,
  big text, len int generated always as (length(big)) stored, sum text generated always as (md5(big) || a::text) stored,
  huge text generated always as (repeat(md5(t), 2000)) stored, arr int[], arr2 int[] generated always as (arr || 7) stored,
  narrow int generated always as (b) stored, d date, next date generated always as (d + 1) stored, m mood,
  worse boolean generated always as (m < 'glad') stored, p pair, x int generated always as ((p).x) stored, c char(5),
  cc char(7) generated always as (c) stored, n posint, half double precision generated always as (n / 4.0::float8) stored,
  ordered boolean generated always as (t < 'b') stored, seven int generated always as (7) stored, u uuid, ut text generated always as (u::text) stored,
  by bytea, hex text generated always as (encode(by, 'hex')) stored, whole text generated always as (coalesce(t, '') || length(coalesce(big, '')) || coalesce(arr[1], 0)) stored);
alter table gen alter big set storage external, alter arr set storage external`

func row(id int, big string) string {
	return fmt.Sprintf(`insert into gen (id, a, b, t, "odd ""näme", j, ts, big, arr, d, m, p, c, n, u, by) values (%d, %[1]d * 3, %[1]d + 0.55, 'te"x{t\', 'o,d}d', '{"k": "v\"%[1]d"}', timestamp '2024-02-29 12:00:00.123456' + %[1]d * interval '1 day', %[2]s,
  array[%[1]d, null, 3], '2024-01-01', 'sad', row(%[1]d, 'y,"'), 'ab', 5, '00112233-4455-6677-8899-aabbccddeeff', '\x00ff')`, id, big)
}

const bigText = "(select string_agg(md5(i::text), '') from generate_series(1, 400) i)"

// followsEverything writes to the tables in all ways, and looks at the lake after each round.
func (b *bed) followsEverything(tables ...string) {
	b.t.Helper()
	for i, round := range []string{
		row(4, bigText) + "; insert into gen (id) values (5); update gen set a = 100 where id = 1; update gen set t = 'other', a = 7 where id = 4",
		"begin; update gen set a = 8 where id = 4; update gen set a = 9, big = 'short' where id = 4; update gen set b = -1.5, c = null where id = 4; update gen set big = " + bigText + " || 'x', arr = (select array_agg(i) from generate_series(1, 3000) i) where id = 4; update gen set n = 6 where id = 4; commit",
		"update gen set id = 40, a = 10 where id = 4; update gen set id = 41 where id = 40; update gen set m = 'glad', p = null, j = null where id = 2; delete from gen where id = 3; update gen set a = a + 1",
		"delete from gen where id = 2; truncate gen; " + row(1, bigText) + "; update gen set a = 2; begin; " + row(6, "null") + "; savepoint s; update gen set a = 3; rollback to s; update gen set t = null; commit",
	} {
		for _, table := range tables {
			b.execIn(strings.NewReplacer("into gen ", "into "+table+" ", "update gen ", "update "+table+" ", "from gen ", "from "+table+" ", "truncate gen", "truncate "+table).Replace(round))
		}
		b.mustCatchUp()
		for _, table := range tables {
			b.sameAsAudited(table)
		}
		if b.t.Failed() {
			b.t.Fatalf("after round %d: %s", i, round)
		}
	}
}

// execIn runs statements in one session, each by itself.
func (b *bed) execIn(sql string) {
	b.t.Helper()
	conn := b.db.Connect()
	defer conn.Close(b.t.Context())
	for statement := range strings.SplitSeq(sql, "; ") {
		if _, err := conn.Exec(b.t.Context(), statement); err != nil {
			b.t.Fatalf("%s: %v", statement, err)
		}
	}
}

func TestGeneratedColumnsAreComputedAsTheServerDid(t *testing.T) {
	t.Parallel()
	majors := []int{12, 17, 18}
	if long() {
		majors = append(majors, 15) // as 17
	}
	for _, major := range majors {
		t.Run(testlab.Postgres(t, major).Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, major)
			b.db.Exec(audited + everything)
			b.db.Exec(row(1, bigText) + ";" + row(2, "'short'") + ";" + row(3, "null"))
			b.watch("gen", "gen")
			tables := []string{"gen"}
			if major != 12 { // leaves of another order of columns, and a table that is known as a whole
				b.db.Exec(`create table other (gone int, like gen including all); alter table other drop gone;
create table parts (like gen including generated including constraints including storage) partition by range (id); alter table parts add primary key (id);
alter table parts attach partition other for values from (0) to (20); create table more partition of parts for values from (20) to (100)`)
				b.watch("other", "parts")
				b.watch("more", "parts")
				tables = append(tables, "parts")
			}
			if major == 18 { // a publication that does not give them
				b.db.Exec("create publication mine for table gen, parts, audit with (publish_via_partition_root = true)")
				b.more = append(b.more, "--set", "run.own_publication=false", "--set", "run.publication=mine", "--table", "public.gen", "--table", "public.parts", "--table", "public.audit")
			}
			r := b.mustCatchUp()
			if strings.Contains(r.Stderr, "left out") {
				t.Errorf("a column is left out: %s", r.Stderr)
			}
			b.followsEverything(tables...)
			// More than one query gives, of values that are large: of 64 KB each.
			b.db.Exec("insert into gen (id, t, a) select i, 'v' || i, i from generate_series(1000, 1300) i; update gen set t = 'w' where id % 2 = 0")
			if r := b.mustCatchUp(); warned(r.Stderr, "") > 0 {
				t.Errorf("it warns: %s", r.Stderr)
			}
			b.sameAsAudited("gen")
		})
	}
}

// Definitions change while leat is down and while it runs.
func TestGeneratedColumnsThatComeChangeAndGo(t *testing.T) {
	t.Parallel()
	const replaced = "create or replace function plus(int) returns int language sql immutable as 'select $1 + 100'"
	for _, major := range []int{13, 17} {
		t.Run(testlab.Postgres(t, major).Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, major, "--set", "run.ddl_events=off")
			b.db.Exec("create function plus(int) returns int language sql immutable as 'select $1 + 1'")
			b.db.Exec("create table calm (id int primary key, a int, g int generated always as (a * 2) stored); insert into calm values (1, 1)")
			steps := []string{
				"insert into moves values (2, 2); alter table moves add g int generated always as (a * 2) stored; insert into moves values (3, 3); update moves set a = 10 where id = 1",
				"update moves set a = 11 where id = 1; alter table moves rename a to b; alter table moves rename g to h; insert into moves values (4, 4)",
				"alter table moves add before int; insert into moves (id, b) values (5, 5); alter table moves add f int generated always as (plus(b)) stored; delete from moves where id = 2",
				"insert into moves (id, b) values (6, 6); grant execute on function plus(int) to public; insert into moves (id, b) values (7, 7)",
				"update moves set b = 12 where id = 1; alter table moves drop h; update moves set b = 13 where id = 1",
				"update moves set b = 14 where id = 1; alter table moves alter f drop expression; insert into moves (id, b, f) values (8, 8, 8); update moves set f = 0 where id = 3",
				"alter table moves drop f; alter table moves add f text generated always as (upper(b::text || 'x')) stored; update moves set b = 15 where id = 4",
				"alter table moves add quiet int generated always as (b - 1) stored",
				"alter table moves add p int generated always as (plus(b)) stored; insert into moves (id, b) values (20, 20)",
				"update moves set b = 18 where id = 4; " + replaced + "; update moves set b = b",
			}
			if major >= 17 {
				steps = append(steps, "update moves set b = 16 where id = 4; alter table moves alter quiet set expression as (b - 2); update moves set b = 17 where id = 5",
					"alter table moves alter f set expression as (lower(b::text || 'X'))")
			}
			for _, runs := range []bool{false, true} {
				if runs != (major >= 17) && !long() {
					continue // one of them is down, the other one runs
				}
				b.db.Exec("drop table if exists moves; create or replace function plus(int) returns int language sql immutable as 'select $1 + 1'; create table moves (id int primary key, a int); insert into moves values (1, 1)")
				b.mustCatchUp()
				for _, step := range steps {
					var p *testlab.Process
					if runs {
						p = b.start()
						b.until("the log is followed", func() bool { return b.active() != "" })
					}
					b.execIn(step)
					if runs {
						b.flushed(p)
						p.Kill()
					}
					r := b.mustCatchUp()
					if strings.Contains(r.Stderr, "table=public.calm because") {
						t.Errorf("a table that nothing has happened to is copied again: %s", r.Stderr)
					}
					// What the log tells of before is computed by the function of now: nothing but the function's version tells.
					if !runs && strings.Contains(step, replaced) && warned(r.Stderr, "or a function that it calls, was changed") != 1 {
						t.Errorf("the function was replaced, and the table is not copied again: %s", r.Stderr)
					}
					b.db.Exec("update moves set id = id where id = 1")
					b.mustCatchUp()
					if b.judge("moves", "calm"); t.Failed() {
						t.Fatalf("runs %v: after %s\n%s", runs, step, r.Stderr)
					}
				}
				if r := b.mustCatchUp(); warned(r.Stderr, "") > 0 {
					t.Errorf("nothing has changed, and it warns: %s", r.Stderr)
				}
			}
		})
	}
}

// A row is known by what the log tells of it.
func TestGeneratedColumnsInTheIdentity(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--table", "public.*", "--set", "lake.partition_by=public.derived = g", "--set", "lake.sort_by=public.told = g")
	for name, more := range map[string]string{
		"derived": "primary key (id, g)", "apart": "primary key (g)", "told": "primary key (g)", "loose": "check (true)",
		"partly": "primary key (id, g)", "wholly": "primary key (id, g)", // the rest of the key tells no row
	} {
		expression := "lower(v)"
		if name == "derived" {
			expression = "id::text"
		}
		b.db.Exec(fmt.Sprintf("create table %s (id int not null, v text, g text generated always as (%s) stored, big text, %s); insert into %[1]s values (1, 'A'), (2, 'B'), (3, 'C')", name, expression, more))
	}
	b.db.Exec("alter table told replica identity full; alter table loose replica identity full; alter table wholly replica identity full; insert into loose values (1, 'A'); insert into wholly values (1, 'E'); insert into partly values (1, 'E')")
	r := b.mustCatchUp()
	if warned(r.Stderr, "tables are left out") != 1 || !strings.Contains(r.Stderr, `tables="public.apart, public.partly"`) {
		t.Errorf("what is left out is told wrongly: %s", r.Stderr)
	}
	for _, table := range []string{"derived", "told", "loose", "wholly"} {
		b.execIn(strings.ReplaceAll("update t set v = 'X', big = repeat('b', 10000) where id = 1 and ctid = (select max(ctid) from t where id = 1); update t set v = 'Y' where id = 2; delete from t where id = 3; insert into t values (4, 'D'); update t set id = 5 where id = 4", " t ", " "+table+" "))
	}
	b.mustCatchUp()
	b.judge("derived", "told", "loose", "wholly")
	for _, table := range []string{"derived", "told", "loose", "wholly"} {
		b.execIn(strings.ReplaceAll("update t set v = 'Z' where id = 1 and big is not null; delete from t where id = 2", " t ", " "+table+" "))
	}
	b.mustCatchUp()
	b.judge("derived", "told", "loose", "wholly")
}

// What cannot be computed is left out by itself, with a word; what need not be is not computed.
func TestGeneratedColumnsThatCannotBeComputed(t *testing.T) {
	t.Parallel()
	b := newBed(t, 17)
	b.db.Exec("create function secret(int) returns int language sql immutable as 'select $1'; revoke execute on function secret(int) from public")
	b.db.Exec("create function picky(int) returns int language plpgsql immutable as 'begin if current_setting(''search_path'') not like ''%public%'' then raise ''not here''; end if; return $1; end'")
	b.db.Exec("create table hidden (id int primary key, a int, g int generated always as (secret(a)) stored, h int generated always as (a + 1) stored); insert into hidden values (1, 1)")
	b.db.Exec("create table moody (id int primary key, a int, g int generated always as (picky(a)) stored); insert into moody values (1, 1)")
	b.db.Exec(`create table roots (id int primary key, a int, g int generated always as (a * 2) stored, o oid generated always as (tableoid) stored) partition by range (id);
create table leaf partition of roots (g generated always as (a * 3) stored) for values from (0) to (10)`)
	b.db.Exec("create function plus(int) returns int language sql immutable as 'select $1 + 1'; create table calls (id int primary key, a int, g int generated always as (plus(a)) stored); insert into calls values (1, 1)")
	b.db.Exec("create table ones (id int primary key, a int, o boolean generated always as (tableoid > 1) stored, inf date generated always as ('infinity'::date) stored, nan numeric(5,2) generated always as (case when a = 9 then 'NaN' else a::numeric end) stored); insert into ones values (1, 1)")
	role := b.db.Role("replication")
	b.db.Exec("grant select on all tables in schema public to " + role.Name + "; grant create on database \"" + b.db.Name + "\" to " + role.Name)
	for _, table := range []string{"hidden", "moody", "roots", "leaf", "ones", "calls"} {
		b.db.Exec("alter table " + table + " owner to " + role.Name)
	}
	b.env = b.db.EnvOf(role)
	check := testlab.Leat(t).Run(b.env, "check", "--for", "run", "--to", b.dir+"/lake", "--json")
	r := b.mustCatchUp()
	for what, told := range map[string]string{"check": check.Stdout, "run": r.Stderr} {
		for _, words := range []string{"Grant EXECUTE", "partitions compute it by other expressions", "tableoid"} {
			if !strings.Contains(told, words) {
				t.Errorf("%s does not say %q: %s", what, words, told)
			}
		}
	}
	b.db.Exec("update hidden set a = 2; insert into moody values (2, 2); insert into roots values (1, 1); insert into ones values (2, 9), (3, 3)")
	r = b.mustCatchUp()
	if warned(r.Stderr, "not here") != 1 {
		t.Errorf("it does not say that the server refused: %s", r.Stderr)
	}
	for name, l := range b.inLake("hidden", "moody", "roots", "ones", "ones_history") {
		want := map[string]string{"hidden": "1|2|3", "moody": "1|1 2|2", "roots": "1|1", "ones": "1|1|t 2|9|t 3|3|t", "ones_history": "1|1|t 2|9|t 3|3|t"}[name]
		columns := map[string][]string{"hidden": {"id", "a", "h"}, "moody": {"id", "a"}, "roots": {"id", "a"}}[name]
		if columns == nil {
			columns = []string{"id", "a", "o"}
		} else if slices.Contains(l.Columns, "g") {
			t.Errorf("%s has columns %v", name, l.Columns)
		}
		if got := strings.Join(l.chosen(columns), " "); got != want {
			t.Errorf("%s has %s", name, got)
		}
		if special := strings.Join(l.chosen([]string{"_leat_special"}), " "); strings.HasPrefix(name, "ones") && (strings.Count(special, "infinity") != 3 || strings.Count(special, "NaN") != 1) {
			t.Errorf("%s has special values %s", name, special)
		}
	}
	b.db.Exec("create or replace function picky(int) returns int language sql immutable as 'select $1'; grant execute on function secret(int) to " + role.Name)
	b.mustCatchUp()
	b.judge("hidden", "moody")

	// What is stored stays as it is when a function is replaced, until all rows are computed again.
	b.db.Exec("update calls set a = 2; create or replace function plus(int) returns int language sql immutable as 'select $1 + 100'; update calls set id = 3; insert into calls values (4, 4)")
	if r := b.mustCatchUp(); warned(r.Stderr, "was changed after the column was made") != 1 {
		t.Errorf("it does not say why the column is left out: %s", r.Stderr)
	}
	if calls := b.inLake("calls")["calls"]; slices.Contains(calls.Columns, "g") || strings.Join(calls.chosen([]string{"id", "a"}), " ") != "3|2 4|4" {
		t.Errorf("the table has %v: %v", calls.Columns, calls.chosen([]string{"id", "a"}))
	}
	b.db.Exec("alter table calls alter g set expression as (plus(a)); update calls set a = 5 where id = 4")
	b.mustCatchUp()
	b.db.Exec("update calls set id = 6 where id = 3")
	b.mustCatchUp()
	b.judge("calls")
}

// Virtual columns are computed when they are read, by the server and by leat.
func TestVirtualColumnsAreComputed(t *testing.T) {
	t.Parallel()
	b := newBed(t, 18)
	b.db.Exec("create table sums (id int primary key, a int, g text generated always as ('v' || a::text), s int generated always as (a * 2) stored); insert into sums values (1, 1), (2, 2)")
	b.mustCatchUp()
	for _, step := range []string{
		"insert into sums values (3, 3); update sums set a = 5 where id = 1; delete from sums where id = 2",
		"alter table sums add later int generated always as (a + 1); insert into sums values (4, 4)",
		"update sums set a = 6 where id = 4; alter table sums drop g; alter table sums add g text generated always as ('w' || a::text); update sums set a = 8 where id = 4",
		"alter table sums add quiet int generated always as (a - 1)",
		"alter table sums drop g; update sums set a = 7 where id = 3",
	} {
		b.execIn(step)
		r := b.mustCatchUp()
		if b.judge("sums"); t.Failed() {
			t.Fatalf("after %s:\n%s", step, r.Stderr)
		}
	}
}
