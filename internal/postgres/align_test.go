package postgres

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/change"
)

// tableOf reads "1 a int, 3 b text!, 4 c gen": attnum, name, type; ! is NOT NULL, gen a generated column.
func tableOf(spec string) *change.Table {
	if spec == "-" {
		return nil
	}
	t := &change.Table{Kind: change.KindTable}
	for _, item := range strings.FieldsFunc(spec, func(r rune) bool { return r == ',' }) {
		var c change.Column
		var typ string
		if _, err := fmt.Sscan(item, &c.Attnum, &c.Name, &typ); err != nil {
			panic(item)
		}
		typ, c.NotNull = strings.CutSuffix(typ, "!")
		c.TypeOID, c.Typmod, c.Type = typeOf(typ), -1, typ
		if typ == "gen" {
			c.Generated = 's'
		}
		t.Columns = append(t.Columns, c)
	}
	return t
}

func typeOf(name string) uint32 {
	return map[string]uint32{"int": 23, "gen": 23, "big": 20, "text": 25, "date": 1082}[name]
}

func relationOf(spec string) *Relation {
	rel := &Relation{OID: 1, Schema: "s", Name: "t", Identity: 'd'}
	for _, item := range strings.FieldsFunc(spec, func(r rune) bool { return r == ',' }) {
		name, typ, _ := strings.Cut(strings.TrimSpace(item), " ")
		rel.Columns = append(rel.Columns, RelationColumn{Name: name, TypeOID: typeOf(typ), Typmod: -1})
	}
	return rel
}

// histories are what was known, what the catalog says now, what the log says, and the attnums that its columns have.
var histories = []struct{ name, known, now, rel, want string }{
	{"nothing changed", "1 a int,2 b text", "1 a int,2 b text", "a int,b text", "1 2"},
	{"a new table", "-", "1 a int,2 b text", "a int,b text", "1 2"},
	{"a new table with a gap", "-", "1 a int,4 b text", "a int,b text", "1 4"},
	{"a new table with a column list", "-", "1 a int,2 b text,3 c int", "a int,c int", "1 3"},
	{"a new table, a column was added later", "-", "1 a int,2 b text,3 c int", "a int,b text", "1 2"},
	{"a new table, a column was renamed later", "-", "1 a int,2 x text", "a int,b text", "1 2"},
	{"added", "1 a int", "1 a int,2 b text", "a int,b text", "1 2"},
	{"added, the log is not there yet", "1 a int", "1 a int,2 b text", "a int", "1"},
	{"dropped", "1 a int,2 b text", "1 a int", "a int", "1"},
	{"dropped, the log is not there yet", "1 a int,2 b text", "1 a int", "a int,b text", "1 2"},
	{"renamed", "1 a int,2 b text", "1 a int,2 x text", "a int,x text", "1 2"},
	{"renamed, the log is not there yet", "1 a int,2 b text", "1 a int,2 x text", "a int,b text", "1 2"},
	{"renamed twice, the log is between", "1 a int,2 b text", "1 a int,2 y text", "a int,x text", "1 2"},
	{"dropped and another added", "1 a int,2 b text", "1 a int,3 x text", "a int,x text", "1 3"},
	{"dropped and one of the same name but another type", "1 a int,2 b text", "1 a int,3 b int", "a int,b int", "1 3"},
	{"the same, the log is not there yet", "1 a int,2 b text", "1 a int,3 b int", "a int,b text", "1 2"},
	{"the same name again, and another that shows it", "1 a int,2 b text", "1 a int,3 b text,4 c int", "a int,b text,c int", "1 3 4"},
	{"names swapped", "1 a int,2 b int", "1 b int,2 a int", "b int,a int", "1 2"},
	{"names swapped, the log is not there yet", "1 a int,2 b int", "1 b int,2 a int", "a int,b int", "1 2"},
	{"names swapped, the log is in the middle", "1 a int,2 b int", "1 b int,2 a int", "tmp int,b int", "1 2"},
	{"names rotated and one dropped", "1 a int,2 b int,3 c int", "1 b int,2 c int", "b int,c int", "1 2"},
	{"type changed", "1 a int,2 b int", "1 a int,2 b big", "a int,b big", "1 2"},
	{"type changed, the log is not there yet", "1 a int,2 b int", "1 a int,2 b big", "a int,b int", "1 2"},
	{"type and name changed", "1 a int,2 b int", "1 a int,2 c text", "a int,c text", "1 2"},
	{"type changed twice, the log is between", "1 a int,2 b int", "1 a int,2 b text", "a int,b big", "1 2"},
	{"came and went", "1 a int,2 b text", "1 a int,2 b text", "a int,b text,c date", "1 2 3"},
	{"came and went, another came after it", "1 a int", "1 a int,3 c int", "a int,b text", "1 2"},
	{"came and went, of the same type as the one after it", "1 a int", "1 a int,3 c int", "a int,b int", "1 2"},
	{"two came and went before one that stayed", "1 a int", "1 a int,4 d int", "a int,b int,c int,d int", "1 2 3 4"},
	{"the middle one dropped", "1 a int,2 b int,3 c int", "1 a int,3 c int", "a int,c int", "1 3"},
	{"the middle one dropped, the last renamed to its name", "1 a int,2 b int,3 c int", "1 a int,3 b int", "a int,b int", "1 3"},
	{"all dropped but one that came", "1 a int,2 b int", "3 z int", "z int", "3"},
	{"a generated column the log leaves out", "1 a int,3 c int", "1 a int,2 g gen,3 c int", "a int,c int", "1 3"},
	{"a generated column that came", "1 a int", "1 a int,2 g gen,3 c int", "a int,c int", "1 3"},
	{"a column list became narrower", "1 a int,2 b int,3 c int", "1 a int,2 b int,3 c int", "a int,c int", "1 3"},
	{"a column list became wider", "1 a int,3 c int", "1 a int,2 b int,3 c int", "a int,b int,c int", "1 2 3"},
	{"renamed under a column list", "1 a int,3 c int", "1 a int,2 b int,3 x int", "a int,x int", "1 3"},
	{"the table is gone", "1 a int,2 b int", "-", "a int,b int", "1 2"},
	{"the table is gone, after a column came", "1 a int,2 b int", "-", "a int,b int,c text", "1 2 3"},
	{"the table is gone, after a column was renamed", "1 a int,2 b int", "-", "a int,x int", "1 2"},
	{"no columns", "1 a int", "1 a int", "", ""},
}

func TestColumnsOfTheLogAreFoundByAttnumThroughEveryHistory(t *testing.T) {
	t.Parallel()
	for _, h := range histories {
		got, err := AlignAt(tableOf(h.known), tableOf(h.now), relationOf(h.rel), Moment{})
		if err != nil {
			t.Errorf("%s: %v", h.name, err)
			continue
		}
		var attnums []string
		for _, c := range got.Columns {
			attnums = append(attnums, fmt.Sprint(c.Attnum))
		}
		if s := strings.Join(attnums, " "); s != h.want {
			t.Errorf("%s: %s became %s, not %s", h.name, h.rel, s, h.want)
		}
	}
}

func TestATableOfSixteenHundredColumnsIsAlignedWhateverChanged(t *testing.T) {
	t.Parallel()
	known, now, rel := &change.Table{}, &change.Table{}, &Relation{}
	for i := range int16(1600) {
		known.Columns = append(known.Columns, change.Column{Attnum: i + 1, Name: fmt.Sprint("c", i), TypeOID: 23})
		now.Columns = append(now.Columns, change.Column{Attnum: i + 1, Name: fmt.Sprint("renamed", i), TypeOID: 23})
		rel.Columns = append(rel.Columns, RelationColumn{Name: fmt.Sprint("renamed", i), TypeOID: 23})
	}
	got, err := AlignAt(known, now, rel, Moment{})
	if err != nil || got.Columns[1599].Attnum != 1600 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestWhatTheLogDoesNotTellOfAColumnComesFromTheCatalog(t *testing.T) {
	t.Parallel()
	known, now := tableOf("1 a int!,2 b text!,3 c int"), tableOf("1 a int!,2 b text,3 c big!,4 d int!")
	known.Key, now.Key = []int16{2, 1}, []int16{1}
	rel := relationOf("a int,b text,c big,d int")
	rel.Columns[0].Key, rel.Columns[1].Key = true, true
	got, err := AlignAt(known, now, rel, Moment{})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, c := range got.Columns {
		said = append(said, fmt.Sprint(c.Name, " ", c.Type, " ", c.NotNull))
	}
	if !slices.Equal(said, []string{"a int true", "b text false", "c big false", "d int false"}) {
		t.Errorf("%v", said)
	}
	if !slices.Equal(got.Key, []int16{2, 1}) { // the log marks both: the key was not changed yet
		t.Errorf("the key is %v", got.Key)
	}
}

func TestAColumnThatWasMadeAgainUnderItsNameIsTold(t *testing.T) {
	t.Parallel()
	known := tableOf("1 a int,2 b text,3 c int")
	for now, want := range map[string]string{
		"1 a int,2 b text,3 c int": "", "1 a int,3 c int,4 b text": "b", "1 a int,3 c int": "", "1 a int,3 b int": "", "1 a int,3 c int,4 b int": "",
	} {
		var names []string
		for _, c := range Remade(known, tableOf(now)) {
			names = append(names, c.Name)
		}
		if strings.Join(names, " ") != want {
			t.Errorf("%s: %v, not %q", now, names, want)
		}
	}
}

func TestStepsBetweenTwoDefinitionsSayWhatCanBeFollowedInPlace(t *testing.T) {
	t.Parallel()
	column := func(oid uint32, typmod int32) *change.Table {
		return &change.Table{Columns: []change.Column{{Attnum: 1, Name: "v", TypeOID: oid, Typmod: typmod}}}
	}
	numeric := func(p, s int32) int32 { return p<<16 | s + 4 }
	for _, c := range []struct {
		name     string
		from, to *change.Table
		want     string
	}{
		{"nothing", column(23, -1), column(23, -1), "[]"},
		{"int2 to int8", column(21, -1), column(20, -1), "[2 true]"},
		{"int8 to int4", column(20, -1), column(23, -1), "[2 false]"},
		{"float4 to float8", column(700, -1), column(701, -1), "[2 true]"},
		{"longer varchar", column(1043, 14), column(1043, 24), "[2 true]"},
		{"varchar without end", column(1043, 14), column(1043, -1), "[2 true]"},
		{"varchar to text", column(1043, 14), column(25, -1), "[2 true]"},
		{"shorter varchar", column(1043, 24), column(1043, 14), "[2 false]"},
		{"longer char", column(1042, 14), column(1042, 24), "[2 false]"},
		{"more digits", column(1700, numeric(9, 2)), column(1700, numeric(12, 2)), "[2 true]"},
		{"more decimals", column(1700, numeric(9, 2)), column(1700, numeric(12, 4)), "[2 false]"},
		{"fewer digits", column(1700, numeric(9, 2)), column(1700, numeric(8, 2)), "[2 false]"},
		{"numeric without end", column(1700, numeric(9, 2)), column(1700, -1), "[2 false]"},
		{"date to timestamp", column(1082, -1), column(1114, -1), "[2 false]"},
		{"timestamp(3) to timestamp", column(1114, 3), column(1114, -1), "[2 true]"},
		{"all at once", tableOf("1 a int,2 b int,3 c int!"), tableOf("2 x big,3 c int,4 d int"), "[0 true 1 true 2 true 3 true 4 true]"},
	} {
		var said []any
		for _, s := range Diff(c.from, c.to) {
			said = append(said, int(s.Kind), s.InPlace)
		}
		if got := "[" + strings.TrimSpace(fmt.Sprintln(said...)) + "]"; got != c.want {
			t.Errorf("%s: %s, not %s", c.name, got, c.want)
		}
	}
}
