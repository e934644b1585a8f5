package crash_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// alterSQL alters tables and writes down what has become of them. What is written travels through the log with the change, in
// its place and only if it commits: so the judge knows what a column's name meant at any row.
//
// Columns come and go under few names, xa to xh. Those with a default are never set to null.
const alterSQL = `
create schema back;
create table back.definitions (of text, columns text, filled text);
create function back.define(t regclass, filled jsonb) returns void language sql as $$
	insert into back.definitions select n.nspname || '.' || c.relname, (select jsonb_object_agg(attname, attnum) from pg_attribute where attrelid = t and attnum > 0 and not attisdropped), filled
	from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = t
$$;
create function back.extra(t regclass, dice int, out name text, out kind text, out filled boolean, out required boolean) language sql as $$
	select attname, format_type(atttypid, atttypmod), atthasdef, attnotnull from pg_attribute
	where attrelid = t and attname ~ '^x[a-h]$' and not attisdropped order by (attnum * 7919 + dice) % 101 limit 1
$$;
create function back.alter(t regclass, what text, dice int) returns void language plpgsql as $$
declare
	x record;
	fresh text;
	fill text;
begin
	perform set_config('lock_timeout', '700ms', true); -- customers that wait for the one that waits would be idle
	execute format('lock table %s in access exclusive mode', t);
	select * into x from back.extra(t, dice);
	select 'x' || letter into fresh from unnest(string_to_array('a,b,c,d,e,f,g,h', ',')) letter
	where not exists (select from pg_attribute where attrelid = t and attname = 'x' || letter) order by (ascii(letter) * 31 + dice) % 97 limit 1;
	case
	when what = 'add' and (select count(*) < 4 from pg_attribute where attrelid = t and attname ~ '^x[a-h]$') then
		case dice % 5
		when 0 then execute format('alter table %s add %I int', t, fresh);
		when 1 then execute format('alter table %s add %I text', t, fresh);
		when 2 then fill := dice::text; execute format('alter table %s add %I int not null default %s', t, fresh, fill);
		when 3 then fill := 'none of ' || dice; execute format('alter table %s add %I varchar(20) default %L', t, fresh, fill);
		when 4 then fill := dice || '.50'; execute format('alter table %s add %I numeric(10,2) not null default %s', t, fresh, fill);
		end case;
	when what = 'required' and t::text in ('accounts', 'docs', 'lines') then
		execute format('alter table %s alter %I set not null', t, case t::text when 'accounts' then 'name' when 'docs' then 'title' else 'qty' end);
	when what = 'optional' and t::text in ('accounts', 'docs', 'lines') then
		execute format('alter table %s alter %I drop not null', t, case t::text when 'accounts' then 'name' when 'docs' then 'title' else 'qty' end);
	when x.name is null then
		return;
	when what = 'drop' then
		execute format('alter table %s drop %I', t, x.name);
	when what = 'rename' then
		execute format('alter table %s rename %I to %I', t, x.name, fresh);
	when what = 'widen' and x.kind = 'integer' then
		execute format('alter table %s alter %I type bigint', t, x.name);
	when what = 'widen' and x.kind = 'numeric(10,2)' then
		execute format('alter table %s alter %I type numeric(14,2)', t, x.name);
	when what = 'widen' and x.kind = 'character varying(20)' then
		execute format('alter table %s alter %I type text', t, x.name);
	when what = 'toggle' and x.filled then
		execute format('alter table %s alter %I %s not null', t, x.name, case when x.required then 'drop' else 'set' end);
	else
		return;
	end case;
	perform back.define(t, (select jsonb_build_object(attnum, fill) from pg_attribute where fill is not null and attrelid = t and attname = fresh));
end $$;
create function back.set(t regclass, dice int) returns void language plpgsql as $$
declare
	x record;
begin
	select * into x from back.extra(t, dice);
	if x.name is not null then
		execute format('update %1$s set %2$I = %3$s where ctid in (select ctid from %1$s order by ctid limit 3 offset %4$s)', t, x.name, dice, dice % 50);
	end if;
end $$`

// alterations are the words that back.alter knows; a table gets about as many columns as it loses.
var alterations = []string{"add", "add", "add", "drop", "rename", "widen", "widen", "toggle", "required", "optional"}

// altered is a step that changes a table's definition, or writes to a column that another has brought.
func (s *shop) altered(dice *rand.Rand) string {
	table := s.tables[dice.IntN(len(s.tables))].name
	if dice.IntN(3) > 0 {
		return fmt.Sprintf("select back.set('%s', %d)", table, dice.IntN(1000))
	}
	return fmt.Sprintf("select back.alter('%s', '%s', %d)", table, alterations[dice.IntN(len(alterations))], dice.IntN(1000))
}

// told lets every table have a row more: the log tells of a definition with the next row only.
func (s *shop) told() {
	s.t.Helper()
	for _, f := range s.tables {
		s.db.Exec(strings.ReplaceAll(map[string]string{
			"public.accounts": "insert into accounts values (%, 'last', 1, true, now(), null)",
			"public.docs":     "insert into docs values (%, 0, 'last', 'short')",
			"public.lines":    "insert into lines values (%, 1, 'last', 1)",
			"public.loose":    "insert into loose values (%, 'last')",
			"public.codes":    "insert into codes values (1, 'code ' || %, null, 'short')",
			"public.bulk":     "insert into bulk values (-%, 'last')",
			"side.accounts":   "insert into side.accounts values (%, 'last')",
		}[f.name], "%", fmt.Sprint(s.serial.Add(1))))
	}
}

// definition is what the columns of a table are called, by their attnum.
type definition struct {
	columns map[string]int
	filled  map[int]string // what the rows of before had in columns that were added, all of them so far
}

// defined takes the note that an alteration has left in the log.
func (h *truth) defined(t testing.TB, note tuple) {
	t.Helper()
	d := &definition{columns: map[string]int{}, filled: map[int]string{}}
	if was := h.definitions[*note["of"]]; was != nil {
		d.filled = was.filled
	}
	if err := json.Unmarshal([]byte(*note["columns"]), &d.columns); err != nil {
		t.Fatal(err)
	}
	if filled := note["filled"]; filled != nil {
		if err := json.Unmarshal([]byte(*filled), &d.filled); err != nil {
			t.Fatal(err)
		}
	}
	h.definitions[*note["of"]] = d
	h.alterations++
}

// nameNow is what a column of an earlier definition is called now; empty when it is gone.
func (h *truth) nameNow(table string, then *definition, column string) string {
	if then == nil { // a snapshot's columns of a table that was never altered
		return column
	}
	for name, attnum := range h.definitions[table].columns {
		if attnum == then.columns[column] {
			return name
		}
	}
	return ""
}

// fills are the values, by the names of now, that rows have which the history tells as null because their column came later.
func (h *truth) fills(table string) map[string]*string {
	out := map[string]*string{}
	d := h.definitions[table]
	for name, attnum := range d.columns {
		if v, ok := d.filled[attnum]; ok {
			out[name] = &v
		}
	}
	return out
}
