package format_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// textOf writes one column's values and returns the file.
func textOf(t *testing.T, k format.Kind, f arrow.Field, column arrow.Array) string {
	t.Helper()
	schema := arrow.NewSchema([]arrow.Field{f}, nil)
	var file bytes.Buffer
	w, err := format.NewText(k, &file, schema, format.TextOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rec := array.NewRecordBatch(schema, []arrow.Array{column}, int64(column.Len()))
	defer rec.Release()
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Size() != int64(file.Len()) {
		t.Errorf("Size is %d after Close, the file has %d bytes", w.Size(), file.Len())
	}
	return file.String()
}

func TestTextFilesHaveTheFormsThatPostgreSQLGives(t *testing.T) {
	t.Parallel()
	mem := memory.DefaultAllocator
	f := func(field arrow.Field, fill func(array.Builder), csv, json []string) {
		t.Helper()
		field.Name, field.Nullable = "v", true
		b := array.NewBuilder(mem, field.Type)
		defer b.Release()
		fill(b)
		b.AppendNull()
		column := b.NewArray()
		defer column.Release()
		if got, want := textOf(t, format.CSV, field, column), "v\n"+strings.Join(csv, "\n")+"\n\n"; got != want {
			t.Errorf("%s as CSV:\n%swant\n%s", field.Type, got, want)
		}
		if got, want := textOf(t, format.JSONL, field, column), `{"v":`+strings.Join(json, "}\n{\"v\":")+"}\n{\"v\":null}\n"; got != want {
			t.Errorf("%s as JSON:\n%swant\n%s", field.Type, got, want)
		}
	}
	same := func(v ...string) ([]string, []string) { return v, v }
	csv, json := same("-32768", "7")
	f(arrow.Field{Type: arrow.PrimitiveTypes.Int16}, func(b array.Builder) { b.(*array.Int16Builder).AppendValues([]int16{-32768, 7}, nil) }, csv, json)
	f(arrow.Field{Type: arrow.FixedWidthTypes.Boolean}, func(b array.Builder) { b.(*array.BooleanBuilder).AppendValues([]bool{true, false}, nil) },
		[]string{"t", "f"}, []string{"true", "false"})
	f(arrow.Field{Type: arrow.PrimitiveTypes.Float64}, func(b array.Builder) {
		b.(*array.Float64Builder).AppendValues([]float64{0.1, 1e15, 123456789012345, 1e-7, -0.5, math.Copysign(0, -1), math.NaN(), math.Inf(1), math.Inf(-1)}, nil)
	}, []string{"0.1", "1e+15", "123456789012345", "1e-07", "-0.5", "-0", "NaN", "Infinity", "-Infinity"},
		[]string{"0.1", "1e+15", "123456789012345", "1e-07", "-0.5", "-0", `"NaN"`, `"Infinity"`, `"-Infinity"`})
	csv, json = same("3.4028235e+38", "0.1")
	f(arrow.Field{Type: arrow.PrimitiveTypes.Float32}, func(b array.Builder) { b.(*array.Float32Builder).AppendValues([]float32{math.MaxFloat32, 0.1}, nil) }, csv, json)
	huge, _ := decimal128.FromString("-99999999999999999999999999999999.999999", 38, 6)
	csv, json = same("0.000000", "-0.000001", "12.500000", "-99999999999999999999999999999999.999999", "18446744073709.551616")
	f(arrow.Field{Type: &arrow.Decimal128Type{Precision: 38, Scale: 6}}, func(b array.Builder) {
		b.(*array.Decimal128Builder).AppendValues([]decimal128.Num{decimal128.FromI64(0), decimal128.FromI64(-1), decimal128.FromI64(12_500_000), huge, decimal128.New(1, 0)}, nil)
	}, csv, json)
	csv, json = same("12", "-7")
	f(arrow.Field{Type: &arrow.Decimal128Type{Precision: 5}}, func(b array.Builder) {
		b.(*array.Decimal128Builder).AppendValues([]decimal128.Num{decimal128.FromI64(12), decimal128.FromI64(-7)}, nil)
	}, csv, json)
	f(arrow.Field{Type: arrow.BinaryTypes.String}, func(b array.Builder) {
		b.(*array.StringBuilder).AppendValues([]string{"plain", "", `say "x", y`, "a\nb", `\.`, "ü\x01\t\\"}, nil)
	}, []string{"plain", `""`, `"say ""x"", y"`, "\"a\nb\"", `"\."`, "ü\x01\t\\"},
		[]string{`"plain"`, `""`, `"say \"x\", y"`, `"a\nb"`, `"\\."`, `"ü\u0001\t\\"`})
	f(arrow.Field{Type: arrow.BinaryTypes.String, Metadata: arrow.MetadataFrom(map[string]string{change.LogicalKey: change.LogicalJSON})},
		func(b array.Builder) {
			b.(*array.StringBuilder).AppendValues([]string{`{"a": [1.50]}`, "[1,\n2]"}, nil)
		},
		[]string{`"{""a"": [1.50]}"`, "\"[1,\n2]\""}, []string{`{"a": [1.50]}`, `[1, 2]`})
	f(arrow.Field{Type: arrow.BinaryTypes.Binary}, func(b array.Builder) { b.(*array.BinaryBuilder).AppendValues([][]byte{{0, 255}, {}}, nil) },
		[]string{`\x00ff`, `\x`}, []string{`"\\x00ff"`, `"\\x"`})
	uuid := []byte("0123456789abcdef")
	f(arrow.Field{Type: &arrow.FixedSizeBinaryType{ByteWidth: 16}, Metadata: arrow.MetadataFrom(map[string]string{change.LogicalKey: change.LogicalUUID})},
		func(b array.Builder) { b.(*array.FixedSizeBinaryBuilder).Append(uuid) },
		[]string{"30313233-3435-3637-3839-616263646566"}, []string{`"30313233-3435-3637-3839-616263646566"`})
	f(arrow.Field{Type: arrow.FixedWidthTypes.Date32}, func(b array.Builder) {
		b.(*array.Date32Builder).AppendValues([]arrow.Date32{0, -719162, -719163, 2932897, 2145042905}, nil)
	}, []string{"1970-01-01", "0001-01-01", "0001-12-31 BC", "10000-01-01", "5874897-12-31"},
		[]string{`"1970-01-01"`, `"0001-01-01"`, `"0001-12-31 BC"`, `"10000-01-01"`, `"5874897-12-31"`})
	f(arrow.Field{Type: arrow.FixedWidthTypes.Time64us}, func(b array.Builder) { b.(*array.Time64Builder).AppendValues([]arrow.Time64{0, 45296000100}, nil) },
		[]string{"00:00:00", "12:34:56.0001"}, []string{`"00:00:00"`, `"12:34:56.0001"`})
	f(arrow.Field{Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}}, func(b array.Builder) {
		b.(*array.TimestampBuilder).AppendValues([]arrow.Timestamp{-1, 1_700_000_000_500_000, -62135596800000001}, nil)
	}, []string{"1969-12-31 23:59:59.999999+00", "2023-11-14 22:13:20.5+00", "0001-12-31 23:59:59.999999+00 BC"},
		[]string{`"1969-12-31T23:59:59.999999+00:00"`, `"2023-11-14T22:13:20.5+00:00"`, `"0001-12-31T23:59:59.999999+00:00 BC"`})
	f(arrow.Field{Type: &arrow.TimestampType{Unit: arrow.Microsecond}}, func(b array.Builder) { b.(*array.TimestampBuilder).Append(0) },
		[]string{"1970-01-01 00:00:00"}, []string{`"1970-01-01T00:00:00"`})
	f(arrow.Field{Type: arrow.ListOf(arrow.BinaryTypes.String)}, func(b array.Builder) {
		l := b.(*array.ListBuilder)
		l.Append(true)
		l.ValueBuilder().(*array.StringBuilder).AppendValues([]string{"a", "null", "", `x "y"\`, ""}, []bool{true, true, true, true, false})
		l.Append(true)
	}, []string{`"{a,""null"","""",""x \""y\""\\"",NULL}"`, `{}`}, []string{`["a","null","","x \"y\"\\",null]`, `[]`})
	f(arrow.Field{Type: arrow.ListOf(arrow.ListOf(arrow.PrimitiveTypes.Int32))}, func(b array.Builder) {
		l := b.(*array.ListBuilder)
		l.Append(true)
		in := l.ValueBuilder().(*array.ListBuilder)
		for i := range int32(2) {
			in.Append(true)
			in.ValueBuilder().(*array.Int32Builder).AppendValues([]int32{i, -i}, nil)
		}
	}, []string{`"{{0,0},{1,-1}}"`}, []string{`[[0,0],[1,-1]]`})
}

func TestASlicedRecordIsWrittenAsItsRowsAre(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{{Name: "n", Type: arrow.PrimitiveTypes.Int64}, {Name: "l", Type: arrow.ListOf(arrow.PrimitiveTypes.Int64)}}, nil)
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, schema, strings.NewReader(`[{"n":1,"l":[1]},{"n":2,"l":[2,3]},{"n":3,"l":[4]}]`))
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	w, err := format.NewText(format.CSVGzip, &file, schema, format.TextOptions{Parallel: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(rec.NewSlice(1, 3)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if want := "n,l\n2,\"{2,3}\"\n3,{4}\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	if err := w.Write(rec); err == nil {
		t.Error("a closed file took a record")
	}
}

func TestATextFileRefusesWhatItHasNoFormFor(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{{Name: "x", Type: arrow.PrimitiveTypes.Uint64}}, nil)
	if _, err := format.NewText(format.CSV, io.Discard, schema, format.TextOptions{}); !fault.Is(err, fault.TypeUncarriable) {
		t.Errorf("got %v", err)
	}
	if _, err := format.NewText(format.Parquet, io.Discard, schema, format.TextOptions{}); !fault.Is(err, fault.FormatUnusable) {
		t.Errorf("got %v", err)
	}
}
