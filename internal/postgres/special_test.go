package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

var allAside = postgres.Policies{
	Numeric: postgres.Aside, Date: postgres.Aside, Time: postgres.Aside, Timestamp: postgres.Aside, Timestamptz: postgres.Aside,
	Array: postgres.Aside, Text: postgres.Aside,
}

// ofEachType are values of each type, as SQL has them.
var ofEachType = map[string][]string{
	"bool":        {"true", "false", "null"},
	"int2":        {"-32768", "32767"},
	"int4":        {"-2147483648", "0"},
	"int8":        {"-9223372036854775808", "9223372036854775807"},
	"oid":         {"4294967295", "0"},
	"float4":      {"'NaN'", "'-Infinity'", "-0.0::float4", "1e-45", "3.4028235e38", "999999", "1e6", "0.0001", "0.00001", "16777216", "0.1", "1234567"},
	"float8":      {"'NaN'", "'Infinity'", "-0.0::float8", "5e-324", "1.7976931348623157e308", "999999999999999", "1e15", "1e22", "0.0001", "0.00001", "0.1", "0.30000000000000004", "9007199254740993", "-1.5e-7"},
	"numeric":     {"'NaN'", "1.50", "-0.000", "12345678901234567890.123456789"},
	"money":       {"'0.05'", "'-1234567.89'"},
	"text":        {"''", "'NULL'", "'null'", "'a b'", "'a,b'", "'{}'", `E'\\ " \n\t\x0b'`, "'ä漢'", "'plain'", "' '"},
	"varchar":     {"'x'"},
	"bytea":       {`'\x00ff'`, `''`},
	"jsonb":       {`'{"a": [1, "b"]}'`, "'null'"},
	"json":        {`'{"a" : 1}'`},
	"uuid":        {"'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'"},
	"date":        {"'infinity'", "'-infinity'", "'4713-01-01 BC'", "'0001-01-01'", "'0001-12-31 BC'", "'5874897-12-31'", "'2000-02-29'", "'1999-12-31'", "'1900-03-01'"},
	"time":        {"'24:00'", "'00:00:00.000001'", "'12:34:56.5'"},
	"timestamp":   {"'infinity'", "'-infinity'", "'4713-01-01 00:00:00.000001 BC'", "'294276-12-31 23:59:59.999999'", "'1999-12-31 23:59:59.9'", "'2000-01-01'", "'0001-01-01 00:00:00'"},
	"timestamptz": {"'infinity'", "'294276-12-31 23:59:59.999999+00'", "'0044-03-15 11:00:00+00 BC'", "'2024-06-01 12:00:00+02'"},
	"interval":    {"'1 mon -2 days 03:04:05.6'"},
	"inet":        {"'10.0.0.0/8'", "'::1'"},
	"box":         {"'(1,1),(0,0)'"},
}

// TestTheTextOfASpecialValueIsTheServersOwn has values of each type in arrays that no list can carry, which come in their binary form.
func TestTheTextOfASpecialValueIsTheServersOwn(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	columns, values := []string{"id int primary key"}, []string{"1"}
	for name, of := range ofEachType {
		columns = append(columns, name+"s "+name+"[]", "bare_"+name+" "+name)
		values = append(values, "('[0:"+fmt.Sprint(len(of)-1)+"]='||array["+strings.Join(of, ",")+"]::"+name+"[]::text)::"+name+"[]", of[0])
	}
	columns = append(columns, "deep int[]", "n numeric(10,2)", "past timestamp")
	values = append(values, "'[1:2][0:1]={{1,NULL},{3,4}}'", "'NaN'", "'294276-12-31 23:59:59.999999'")
	db.Exec("create table leat_t (" + strings.Join(columns, ", ") + "); insert into leat_t values (" + strings.Join(values, ", ") + ")")
	source := sourceOf(t, db)
	table := tablesOf(t, source, "leat")["leat_t"]
	catalog := source.Catalog()
	plan, err := catalog.Plan(t.Context(), table, allAside)
	must(t, err)
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int32}}, nil))
	defer b.Release()
	b.Field(0).(*array.Int32Builder).Append(1)
	keys := b.NewRecordBatch()
	defer keys.Release()
	rows, err := source.ReadKeys(t.Context(), plan, keys)
	must(t, err)
	defer rows.Release()
	special := change.SpecialOf(rows, len(table.Columns))
	if special == nil {
		t.Fatal("no value went aside")
	}
	for i, c := range table.Columns {
		want := db.One("select " + c.Name + "::text from (select set_config('timezone', 'UTC', false), set_config('lc_monetary', 'C', false)) s, leat_t")
		got, is := change.SpecialText(special, 0, c.Name)
		if c.Name == "moneys" {
			want = strings.ReplaceAll(strings.NewReplacer("$", "", `"`, "").Replace(want), "1,234,567", "1234567")
		}
		switch wantsAside := strings.HasPrefix(want, "[") || c.Name == "n" || c.Name == "past" || strings.HasSuffix(want, "infinity") || want == "24:00:00"; {
		case wantsAside && (!is || got != want):
			t.Errorf("%s: aside stands %q, the server writes %q", c.Name, got, want)
		case wantsAside && !rows.Column(i).IsNull(0):
			t.Errorf("%s: the column has a value beside %q", c.Name, got)
		case !wantsAside && is:
			t.Errorf("%s: %q went aside", c.Name, got)
		}
	}
}
