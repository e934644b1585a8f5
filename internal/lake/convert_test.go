package lake

import (
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/fault"
)

func TestValuesAreConvertedAsPostgreSQLCastsThem(t *testing.T) {
	t.Parallel()
	decimal := func(p, s int32) arrow.DataType { return &arrow.Decimal128Type{Precision: p, Scale: s} }
	i16, i32, i64, f32, f64 := arrow.PrimitiveTypes.Int16, arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int64, arrow.PrimitiveTypes.Float32, arrow.PrimitiveTypes.Float64
	text, date, at := arrow.BinaryTypes.String, arrow.FixedWidthTypes.Date32, &arrow.TimestampType{Unit: arrow.Microsecond}
	for name, c := range map[string]struct {
		from, to arrow.DataType
		cut      int
		values   string
		want     string // "" where they do not fit
	}{
		"more decimals":                   {decimal(14, 2), decimal(14, 4), 0, `["1.50","-0.01",null]`, `["1.5000","-0.0100",null]`},
		"too many digits":                 {decimal(14, 2), decimal(5, 4), 0, `["12.50"]`, ""},
		"38 digits":                       {decimal(36, 0), decimal(38, 2), 0, `["123456789012345678901234567890123456"]`, `["123456789012345678901234567890123456.00"]`},
		"whole numbers to decimals":       {i32, decimal(12, 2), 0, `[2147483647,-2147483648,null]`, `["2147483647.00","-2147483648.00",null]`},
		"whole numbers too large":         {i64, decimal(4, 2), 0, `[100]`, ""},
		"whole numbers to text":           {i64, text, 0, `[9223372036854775807,-9223372036854775808,0]`, `["9223372036854775807","-9223372036854775808","0"]`},
		"small numbers to text":           {i16, text, 0, `[-32768,null]`, `["-32768",null]`},
		"whole numbers to doubles":        {i32, f64, 0, `[-5,2147483647]`, `[-5,2147483647]`},
		"reals to doubles":                {f32, f64, 0, `[0.1]`, `[0.10000000149011612]`},
		"days to their midnight":          {date, at, 0, `["1969-12-31","2024-02-29",null]`, `["1969-12-31 00:00:00","2024-02-29 00:00:00",null]`},
		"texts are cut by characters":     {text, text, 3, `["ab   ","äöü ","a",""]`, `["ab ","äöü","a",""]`},
		"lists":                           {arrow.ListOf(i32), arrow.ListOf(i64), 0, `[[1,null],null,[],[-3]]`, `[[1,null],null,[],[-3]]`},
		"lists of decimals":               {arrow.ListOf(decimal(9, 2)), arrow.ListOf(decimal(12, 4)), 0, `[["1.50"],null]`, `[["1.5000"],null]`},
		"lists of lists to text":          {arrow.ListOf(arrow.ListOf(i16)), arrow.ListOf(arrow.ListOf(text)), 0, `[[[1,2],[3]],[]]`, `[[["1","2"],["3"]],[]]`},
		"nothing but nulls, of any types": {text, decimal(9, 2), 0, `[null,null]`, `[null,null]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			read := func(dt arrow.DataType, text string) arrow.Array {
				a, _, err := array.FromJSON(memory.DefaultAllocator, dt, strings.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				return a
			}
			whole := read(c.from, c.values)
			got, err := convert(whole, arrow.Field{Name: "v", Type: c.to, Nullable: true}, c.cut)
			if c.want == "" {
				if !fault.Is(err, fault.LakeFailed) {
					t.Fatalf("got %v, %v", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := read(c.to, c.want)
			if !array.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			part, err := convert(array.NewSlice(whole, 1, int64(whole.Len())), arrow.Field{Name: "v", Type: c.to, Nullable: true}, c.cut)
			if err != nil || !array.Equal(part, array.NewSlice(want, 1, int64(want.Len()))) {
				t.Errorf("of a slice: got %v, %v", part, err)
			}
		})
	}
	for _, c := range []pair{{arrow.STRING, arrow.INT32}, {arrow.FLOAT64, arrow.FLOAT32}, {arrow.DECIMAL128, arrow.STRING}, {arrow.BOOL, arrow.STRING}} {
		types := map[arrow.Type]arrow.DataType{arrow.STRING: text, arrow.INT32: i32, arrow.FLOAT64: f64, arrow.FLOAT32: f32, arrow.DECIMAL128: decimal(9, 2), arrow.BOOL: arrow.FixedWidthTypes.Boolean}
		if convertible(types[c.from], types[c.to]) || convertible(arrow.ListOf(types[c.from]), arrow.ListOf(types[c.to])) {
			t.Errorf("%s is converted to %s", c.from, c.to)
		}
	}
}
