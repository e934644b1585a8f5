package pipeline_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// alterer alters a table again and again, with changes of its rows between, and remembers its columns beside the key.
type alterer struct {
	b       *bed
	dice    *rand.Rand
	table   string
	columns []string
	types   map[string]string
	serial  int
}

func newAlterer(b *bed, table string, seed uint64) *alterer {
	b.db.Exec(fmt.Sprintf("create table %[1]s (id int primary key, a int, b varchar(9)); insert into %[1]s select i, i, 'v' || i from generate_series(1, 50) i", table))
	return &alterer{b: b, dice: rand.New(rand.NewPCG(seed, 1)), table: table, columns: []string{"a", "b"}, types: map[string]string{"a": "int", "b": "varchar(9)"}}
}

// alter makes one alteration: add, drop, rename, widen. None of them makes a copy necessary.
func (a *alterer) alter() {
	a.serial++
	fresh := fmt.Sprint("c", a.serial)
	pick := ""
	if len(a.columns) > 0 {
		pick = a.columns[a.dice.IntN(len(a.columns))]
	}
	what := a.dice.IntN(6)
	if pick == "" || len(a.columns) < 2 {
		what = 0
	}
	switch what {
	case 0, 1:
		a.types[fresh] = []string{"int", "varchar(9)", "text", "numeric(8,2)"}[a.dice.IntN(4)]
		fill := []string{"", " default '7'"}[a.dice.IntN(2)]
		a.b.db.Exec("alter table " + a.table + " add " + fresh + " " + a.types[fresh] + fill)
		a.columns = append(a.columns, fresh)
	case 2:
		a.b.db.Exec("alter table " + a.table + " drop " + pick)
		a.columns = slices.DeleteFunc(a.columns, func(c string) bool { return c == pick })
	case 3, 4:
		a.b.db.Exec("alter table " + a.table + " rename " + pick + " to " + fresh)
		a.columns[slices.Index(a.columns, pick)], a.types[fresh] = fresh, a.types[pick]
	default:
		wider := map[string]string{"int": "bigint", "varchar(9)": "varchar(20)", "varchar(20)": "text", "numeric(8,2)": "numeric(12,2)"}[a.types[pick]]
		if wider != "" {
			a.b.db.Exec("alter table " + a.table + " alter " + pick + " type " + wider)
			a.types[pick] = wider
		}
	}
}

// change writes to some rows.
func (a *alterer) change() {
	for range a.dice.IntN(3) {
		id := 1 + a.dice.IntN(50)
		if len(a.columns) > 0 && a.dice.IntN(2) == 0 {
			a.b.db.Exec(fmt.Sprintf("update %s set %s = '%d' where id = %d", a.table, a.columns[a.dice.IntN(len(a.columns))], a.serial, id))
		} else {
			a.b.db.Exec(fmt.Sprintf("delete from %[1]s where id = %[2]d; insert into %[1]s (id) values (%[2]d)", a.table, id))
		}
	}
}

func anew(r testlab.Result) (lines []string) {
	for line := range strings.SplitSeq(r.Stderr, "\n") {
		if strings.Contains(line, "copied anew") {
			lines = append(lines, line)
		}
	}
	return lines
}

// Many alterations stand between what the lake knows and what the catalog says. A copy is needed for two reasons alone, both of a table
// that another alteration has rewritten: a column whose values were changed since came with a default, which the catalog forgets
// then, or it got another type, of which it is not to be seen any more whether values were computed for it.
func TestTablesThatAreAlteredFastAreNotCopiedAnew(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	var all []*alterer
	var names []string
	for i := range uint64(10) {
		names = append(names, fmt.Sprint("t", i))
		all = append(all, newAlterer(b, names[i], i))
	}
	b.mustCatchUp()
	for range 2 {
		for range 15 {
			for _, a := range all {
				a.alter()
				a.change()
			}
		}
		for _, a := range all { // the log tells of a definition with the next row
			b.db.Exec("update " + a.table + " set id = id where id = 1")
		}
		for _, line := range anew(b.mustCatchUp()) {
			reasons := []string{"whose values differ from row to row", "computed other values in a column's new type"}
			if !slices.ContainsFunc(reasons, func(reason string) bool { return strings.Contains(line, reason) }) {
				t.Errorf("%s", line)
			}
		}
		b.judge(names...)
	}
}

func TestWhatTheLogTellsIsFollowedWithoutACopy(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	tables := map[string][]string{
		"back":    {"alter table back alter v type varchar(20)", "insert into back values (5, 'longer than nine')", "delete from back where id = 5", "alter table back alter v type varchar(9)"},
		"filled":  {"insert into filled values (6, 'f')", "alter table filled add c int default 7", "insert into filled values (7, 'g')", "alter table filled alter id type bigint"},
		"flagged": {"alter table flagged add c smallint not null default 1, add d date default '2024-01-02', add e jsonb default '{\"a\": 1}', add f timestamptz default '2024-01-02 03:04:05+00'", "alter table flagged alter id type bigint"},
		"emptied": {"alter table emptied add c int default 7", "delete from emptied", "alter table emptied alter id type bigint"},
		"later":   {"alter table later add c int", "alter table later alter c set default 7", "alter table later alter id type bigint"},
	}
	for name := range tables {
		b.db.Exec(fmt.Sprintf("create table %[1]s (id int primary key, v varchar(9)); insert into %[1]s select i, chr(96 + i) from generate_series(1, 4) i", name))
	}
	b.mustCatchUp()
	for name, steps := range tables {
		for _, sql := range append(steps, "update "+name+" set v = 'x' where id = 1") {
			b.db.Exec(sql)
		}
	}
	for _, line := range anew(b.mustCatchUp()) {
		t.Error(line)
	}
	b.judge(slices.Sorted(maps.Keys(tables))...)
	// Of values that differ nobody can tell which were there when the column came, nor of one that is not the default.
	b.db.Exec("alter table filled add d int default 7; update filled set d = 8 where id = 2; alter table filled alter c type bigint; update filled set v = 'y' where id = 1")
	b.db.Exec("alter table back add d int default 7; alter table back alter d set default 8; alter table back alter id type bigint; update back set v = 'y' where id = 1")
	if lines := anew(b.mustCatchUp()); len(lines) != 2 {
		t.Errorf("copied anew: %v", lines)
	}
	b.judge("filled", "back")
}

// The log shows the same columns before and after: it says no more than that something has changed.
func TestAColumnThatIsMadeAgainUnderItsNameHasItsNewValues(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	for _, name := range []string{"away", "running"} {
		b.db.Exec(fmt.Sprintf("create table %[1]s (id int primary key, v text); insert into %[1]s select i, 'old' from generate_series(1, 4) i", name))
	}
	again := func(name string) {
		b.db.Exec("update " + name + " set v = 'older' where id = 1")
		b.db.Exec("alter table " + name + " drop v")
		b.db.Exec("alter table " + name + " add v text default 'new'")
		b.db.Exec("update " + name + " set v = 'newer' where id = 2")
	}
	b.mustCatchUp()
	again("away")
	b.mustCatchUp()
	p := b.start()
	b.db.Exec("insert into running values (5, 'old')")
	b.flushed(p)
	again("running")
	b.flushed(p)
	p.Signal(syscall.SIGTERM)
	p.Wait()
	for _, line := range anew(b.mustCatchUp()) {
		t.Error(line)
	}
	b.judge("away", "running")
}

// Without a key a row is found by all its values, also those of a column that has come and gone before leat saw it.
func TestRowsWithoutAKeyAreFoundThoughAColumnOfTheirsIsGone(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	b.db.Exec("create table loose (v text); alter table loose replica identity full; insert into loose select 'v' || i from generate_series(1, 5) i")
	b.mustCatchUp()
	b.db.Exec("alter table loose add c numeric(10,2) default 7; update loose set v = 'x' where v = 'v1'; delete from loose where v = 'v2'")
	b.db.Exec("update loose set c = 8 where v = 'v3'")
	b.db.Exec("alter table loose drop c; delete from loose where v = 'v4'")
	if lines := anew(b.mustCatchUp()); len(lines) != 1 {
		t.Errorf("copied anew: %v", lines)
	}
	b.judge("loose")
}
