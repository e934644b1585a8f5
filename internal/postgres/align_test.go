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

func TestStepsBetweenTwoDefinitionsComeInTheOrderInWhichTheyAreFollowed(t *testing.T) {
	t.Parallel()
	var said []any
	for _, s := range Diff(tableOf("1 a int,2 b int,3 c int!"), tableOf("2 x big,3 c int,4 d int")) {
		said = append(said, int(s.Kind))
	}
	if got := fmt.Sprint(said); got != "[0 1 2 3 4]" {
		t.Errorf("the steps are %s", got)
	}
	if none := Diff(tableOf("1 a int"), tableOf("1 a int")); len(none) > 0 {
		t.Errorf("equal definitions differ in %v", none)
	}
}

func TestAConversionIsExactOnlyWhereTheTypesAloneDecide(t *testing.T) {
	t.Parallel()
	numeric := func(p, s int32) int32 { return p<<16 | s + 4 }
	types := typeTable{
		5001: {oid: 5001, kind: 'e', name: "mood"}, 5002: {oid: 5002, kind: 'e', name: "temper"}, 5003: {oid: 5003, kind: 'd', base: 23, typmod: -1, name: "posint"},
		5004: {oid: 5004, kind: 'd', base: 1700, typmod: numeric(9, 2), name: "price"}, 1007: {oid: 1007, kind: 'b', element: 23}, 5005: {oid: 5005, kind: 'b', element: 5001},
	}
	none, exact, cut, unknown := ConversionNone, ConversionExact, ConversionCut, ConversionUnknown
	for _, c := range []struct {
		name             string
		from, to         uint32
		fromMod, toMod   int32
		fromDims, toDims int
		want             Conversion
	}{
		{"int2 to int8", 21, 20, -1, -1, 0, 0, none},
		{"int8 to int4", 20, 23, -1, -1, 0, 0, none},
		{"int4 to text", 23, 25, -1, -1, 0, 0, exact},
		{"int4 to varchar(9)", 23, 1043, -1, 13, 0, 0, exact},
		{"int4 to character(9)", 23, 1042, -1, 13, 0, 0, unknown},
		{"int8 to numeric(20,2)", 20, 1700, -1, numeric(20, 2), 0, 0, exact},
		{"int4 to numeric", 23, 1700, -1, -1, 0, 0, unknown},
		{"int4 to float8", 23, 701, -1, -1, 0, 0, exact},
		{"int8 to float8", 20, 701, -1, -1, 0, 0, unknown},
		{"float4 to float8", 700, 701, -1, -1, 0, 0, exact},
		{"float8 to float4", 701, 700, -1, -1, 0, 0, unknown},
		{"float8 to numeric", 701, 1700, -1, -1, 0, 0, unknown},
		{"longer varchar", 1043, 1043, 14, 24, 0, 0, none},
		{"varchar without end", 1043, 1043, 14, -1, 0, 0, none},
		{"varchar to text", 1043, 25, 14, -1, 0, 0, none},
		{"text to varchar", 25, 1043, -1, -1, 0, 0, none},
		{"shorter varchar", 1043, 1043, 24, 14, 0, 0, cut},
		{"text to varchar(10)", 25, 1043, -1, 14, 0, 0, cut},
		{"longer char", 1042, 1042, 14, 24, 0, 0, unknown},
		{"char to text", 1042, 25, 14, -1, 0, 0, unknown},
		{"text to int4", 25, 23, -1, -1, 0, 0, unknown},
		{"more digits", 1700, 1700, numeric(9, 2), numeric(12, 2), 0, 0, none},
		{"fewer digits", 1700, 1700, numeric(9, 2), numeric(8, 2), 0, 0, none},
		{"more decimals", 1700, 1700, numeric(9, 2), numeric(12, 4), 0, 0, exact},
		{"fewer decimals", 1700, 1700, numeric(9, 2), numeric(12, 1), 0, 0, unknown},
		{"numeric without end", 1700, 1700, numeric(9, 2), -1, 0, 0, unknown},
		{"date to timestamp", 1082, 1114, -1, -1, 0, 0, exact},
		{"date to timestamptz", 1082, 1184, -1, -1, 0, 0, unknown},
		{"timestamp to timestamptz", 1114, 1184, -1, -1, 0, 0, unknown},
		{"timestamptz to timestamp", 1184, 1114, -1, -1, 0, 0, unknown},
		{"timestamp(3) to timestamp", 1114, 1114, 3, -1, 0, 0, none},
		{"timestamp to timestamp(0)", 1114, 1114, -1, 0, 0, 0, unknown},
		{"json to jsonb", 114, 3802, -1, -1, 0, 0, unknown},
		{"inet to text", 869, 25, -1, -1, 0, 0, unknown},
		{"int4[] to int8[]", 1007, 1016, -1, -1, 1, 1, none},
		{"int4[] to text[]", 1007, 1009, -1, -1, 1, 1, exact},
		{"int4[] to int4", 1007, 23, -1, -1, 1, 0, unknown},
		{"a domain to its base", 5003, 23, -1, -1, 0, 0, none},
		{"int8 to a domain over int4", 20, 5003, -1, -1, 0, 0, none},
		{"a domain over numeric(9,2) to numeric(12,4)", 5004, 1700, -1, numeric(12, 4), 0, 0, exact},
		{"an enum to another", 5001, 5002, -1, -1, 0, 0, none},
		{"an enum to text", 5001, 25, -1, -1, 0, 0, none},
		{"text to an enum", 25, 5001, -1, -1, 0, 0, none},
		{"an enum to varchar(3)", 5001, 1043, -1, 7, 0, 0, cut},
		{"an enum to character(3)", 5001, 1042, -1, 7, 0, 0, unknown},
		{"an enum[] to text[]", 5005, 1009, -1, -1, 1, 1, none},
	} {
		got := types.conversion(change.Column{TypeOID: c.from, Typmod: c.fromMod, Dims: c.fromDims}, change.Column{TypeOID: c.to, Typmod: c.toMod, Dims: c.toDims})
		if got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
}
