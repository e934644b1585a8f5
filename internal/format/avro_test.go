package format_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/twmb/avro/ocf"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
)

// writeAvro returns the file that holds the records.
func writeAvro(t testing.TB, schema *arrow.Schema, opts format.AvroOptions, records ...arrow.RecordBatch) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := format.NewAvro(&file, schema, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range records {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := w.Size(); got != int64(file.Len()) {
		t.Errorf("Size is %d after Close, the file has %d bytes", got, file.Len())
	}
	return file.Bytes()
}

// openAvro opens a file with a reader that is not ours.
func openAvro(t testing.TB, file []byte) *ocf.Reader {
	t.Helper()
	r, err := ocf.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// readAvro returns all rows of a file.
func readAvro(t testing.TB, file []byte) []map[string]any {
	t.Helper()
	r := openAvro(t, file)
	var rows []map[string]any
	for {
		var row map[string]any
		err := r.Decode(&row)
		if errors.Is(err, io.EOF) {
			return rows
		}
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row)
	}
}

// shown writes a decoded value so that all that differs looks different.
func shown(v any) string {
	switch v := v.(type) {
	case nil:
		return "null"
	case *big.Rat:
		digits, _ := v.FloatPrec()
		return v.FloatString(digits)
	case time.Time:
		return v.Format(time.RFC3339Nano)
	case []byte:
		return "bytes " + hex.EncodeToString(v)
	case string:
		return strconv.Quote(v)
	case float32:
		return fmt.Sprintf("float %08x", math.Float32bits(v))
	case float64:
		return fmt.Sprintf("double %016x", math.Float64bits(v))
	case []any:
		items := make([]string, len(v))
		for i := range v {
			items[i] = shown(v[i])
		}
		return "[" + strings.Join(items, " ") + "]"
	case map[string]any:
		var entries []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			entries = append(entries, key+"="+shown(v[key]))
		}
		return "{" + strings.Join(entries, " ") + "}"
	}
	return fmt.Sprintf("%T %v", v, v)
}

// fieldTypes returns the JSON of each field's type, by name, from a file's header.
func fieldTypes(t testing.TB, file []byte) map[string]string {
	t.Helper()
	var schema struct {
		Fields []struct {
			Name string          `json:"name"`
			Type json.RawMessage `json:"type"`
		} `json:"fields"`
	}
	if err := json.Unmarshal(openAvro(t, file).Metadata()["avro.schema"], &schema); err != nil {
		t.Fatal(err)
	}
	types := map[string]string{}
	for _, f := range schema.Fields {
		types[f.Name] = string(f.Type)
	}
	return types
}

// oneColumn is a record with one column "v" made from a JSON array.
func oneColumn(t testing.TB, f arrow.Field, values string) arrow.RecordBatch {
	t.Helper()
	f.Name = "v"
	column, _, err := array.FromJSON(memory.DefaultAllocator, f.Type, strings.NewReader(values))
	if err != nil {
		t.Fatal(err)
	}
	return array.NewRecordBatch(arrow.NewSchema([]arrow.Field{f}, nil), []arrow.Array{column}, int64(column.Len()))
}

func nullable(dt arrow.DataType, logical ...string) arrow.Field {
	f := arrow.Field{Type: dt, Nullable: true}
	if len(logical) > 0 {
		f.Metadata = arrow.NewMetadata([]string{change.LogicalKey}, logical)
	}
	return f
}

func required(dt arrow.DataType) arrow.Field { return arrow.Field{Type: dt} }

var avroTypes = []struct {
	name   string
	field  arrow.Field
	values string
	schema string
	want   []string
}{
	{"boolean", nullable(arrow.FixedWidthTypes.Boolean), `[true,false,null]`, `["null","boolean"]`,
		[]string{"bool true", "bool false", "null"}},
	{"boolean not null", required(arrow.FixedWidthTypes.Boolean), `[true,false]`, `"boolean"`, []string{"bool true", "bool false"}},
	{"int8", nullable(arrow.PrimitiveTypes.Int8), `[-128,127,null]`, `["null","int"]`, []string{"int32 -128", "int32 127", "null"}},
	{"int16", nullable(arrow.PrimitiveTypes.Int16), `[-32768,32767,0]`, `["null","int"]`, []string{"int32 -32768", "int32 32767", "int32 0"}},
	{"int32", required(arrow.PrimitiveTypes.Int32), `[-2147483648,2147483647,-1]`, `"int"`,
		[]string{"int32 -2147483648", "int32 2147483647", "int32 -1"}},
	{"int64", required(arrow.PrimitiveTypes.Int64), `[-9223372036854775808,9223372036854775807]`, `"long"`,
		[]string{"int64 -9223372036854775808", "int64 9223372036854775807"}},
	{"uint8", required(arrow.PrimitiveTypes.Uint8), `[0,255]`, `"int"`, []string{"int32 0", "int32 255"}},
	{"uint16", required(arrow.PrimitiveTypes.Uint16), `[0,65535]`, `"int"`, []string{"int32 0", "int32 65535"}},
	{"uint32", required(arrow.PrimitiveTypes.Uint32), `[0,4294967295]`, `"long"`, []string{"int64 0", "int64 4294967295"}},
	{"float", nullable(arrow.PrimitiveTypes.Float32), `[1.5,null]`, `["null","float"]`, []string{"float 3fc00000", "null"}},
	{"double", nullable(arrow.PrimitiveTypes.Float64), `[-2.5,null]`, `["null","double"]`, []string{"double c004000000000000", "null"}},
	{"decimal(10,2)", nullable(&arrow.Decimal128Type{Precision: 10, Scale: 2}),
		`["0.00","0.01","-0.01","1.27","1.28","-1.28","-1.29","99999999.99","-99999999.99",null]`,
		`["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}]`,
		[]string{"0", "0.01", "-0.01", "1.27", "1.28", "-1.28", "-1.29", "99999999.99", "-99999999.99", "null"}},
	{"decimal(38,0)", required(&arrow.Decimal128Type{Precision: 38}),
		`["99999999999999999999999999999999999999","-99999999999999999999999999999999999999","9223372036854775807","9223372036854775808","-9223372036854775808","-9223372036854775809"]`,
		`{"type":"bytes","logicalType":"decimal","precision":38}`,
		[]string{"99999999999999999999999999999999999999", "-99999999999999999999999999999999999999",
			"9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"}},
	{"decimal(76,76)", required(&arrow.Decimal256Type{Precision: 76, Scale: 76}),
		`["0.` + strings.Repeat("9", 76) + `","-0.` + strings.Repeat("9", 76) + `"]`,
		`{"type":"bytes","logicalType":"decimal","precision":76,"scale":76}`,
		[]string{"0." + strings.Repeat("9", 76), "-0." + strings.Repeat("9", 76)}},
	{"string", nullable(arrow.BinaryTypes.String), `["","a","żółw 🐢","NULL",null]`, `["null","string"]`,
		[]string{`""`, `"a"`, `"żółw 🐢"`, `"NULL"`, "null"}},
	{"large string", required(arrow.BinaryTypes.LargeString), `["","ab"]`, `"string"`, []string{`""`, `"ab"`}},
	{"json", nullable(arrow.BinaryTypes.String, change.LogicalJSON), `["{\"a\":1}",null]`,
		`["null",{"type":"string","leat:logical":"json"}]`, []string{`"{\"a\":1}"`, "null"}},
	{"enum", nullable(arrow.BinaryTypes.String, change.LogicalEnum), `["not an Avro name!"]`,
		`["null",{"type":"string","leat:logical":"enum"}]`, []string{`"not an Avro name!"`}},
	{"bytes", nullable(arrow.BinaryTypes.Binary), `["","AP8=",null]`, `["null","bytes"]`, []string{"bytes ", "bytes 00ff", "null"}},
	{"large bytes", required(arrow.BinaryTypes.LargeBinary), `["","AP8="]`, `"bytes"`, []string{"bytes ", "bytes 00ff"}},
	{"fixed bytes", nullable(&arrow.FixedSizeBinaryType{ByteWidth: 3}), `["AAEC",null]`, `["null","bytes"]`, []string{"bytes 000102", "null"}},
	{"uuid", nullable(&arrow.FixedSizeBinaryType{ByteWidth: 16}, change.LogicalUUID), `["ABEiM0RVZneImaq7zN3u/w==",null]`,
		`["null",{"type":"string","logicalType":"uuid"}]`, []string{`"00112233-4455-6677-8899-aabbccddeeff"`, "null"}},
	{"sixteen bytes that are no uuid", required(&arrow.FixedSizeBinaryType{ByteWidth: 16}), `["ABEiM0RVZneImaq7zN3u/w=="]`,
		`"bytes"`, []string{"bytes 00112233445566778899aabbccddeeff"}},
	{"three bytes that cannot be a uuid", nullable(&arrow.FixedSizeBinaryType{ByteWidth: 3}, change.LogicalUUID), `["AAEC"]`,
		`["null","bytes"]`, []string{"bytes 000102"}},
	{"date", nullable(arrow.FixedWidthTypes.Date32), `["1970-01-01","0001-01-01","9999-12-31",null]`,
		`["null",{"type":"int","logicalType":"date"}]`,
		[]string{"1970-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z", "null"}},
	{"time", nullable(arrow.FixedWidthTypes.Time64us), `["00:00:00","23:59:59.999999",null]`,
		`["null",{"type":"long","logicalType":"time-micros"}]`, []string{"time.Duration 0s", "time.Duration 23h59m59.999999s", "null"}},
	{"timestamptz", nullable(&arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}),
		`["1970-01-01T00:00:00.000001Z","1969-12-31T23:59:59.999999Z",null]`, `["null",{"type":"long","logicalType":"timestamp-micros"}]`,
		[]string{"1970-01-01T00:00:00.000001Z", "1969-12-31T23:59:59.999999Z", "null"}},
	{"timestamp", required(&arrow.TimestampType{Unit: arrow.Microsecond}), `["2026-01-02T03:04:05.678901"]`,
		`{"type":"long","logicalType":"local-timestamp-micros"}`, []string{"2026-01-02T03:04:05.678901Z"}},
	{"null", nullable(arrow.Null), `[null,null]`, `"null"`, []string{"null", "null"}},
	{"array", nullable(arrow.ListOf(arrow.PrimitiveTypes.Int32)), `[[],[1],[1,null,3],null]`,
		`["null",{"type":"array","items":["null","int"]}]`, []string{"[]", "[int32 1]", "[int32 1 null int32 3]", "null"}},
	{"array of arrays", required(arrow.ListOf(arrow.ListOf(arrow.BinaryTypes.String))), `[[],[[],null,["a",null]]]`,
		`{"type":"array","items":["null",{"type":"array","items":["null","string"]}]}`, []string{"[]", `[[] null ["a" null]]`}},
	{"array of uuid", required(arrow.ListOf(&arrow.FixedSizeBinaryType{ByteWidth: 16})), `[["ABEiM0RVZneImaq7zN3u/w=="]]`,
		`{"type":"array","items":["null","bytes"]}`, []string{"[bytes 00112233445566778899aabbccddeeff]"}},
	{"array of uuid by its column", nullable(arrow.ListOf(&arrow.FixedSizeBinaryType{ByteWidth: 16}), change.LogicalUUID), `[["ABEiM0RVZneImaq7zN3u/w=="]]`,
		`["null",{"type":"array","items":["null",{"type":"string","logicalType":"uuid"}]}]`, []string{`["00112233-4455-6677-8899-aabbccddeeff"]`}},
	{"large array", required(arrow.LargeListOf(arrow.PrimitiveTypes.Int64)), `[[1,2]]`, `{"type":"array","items":["null","long"]}`,
		[]string{"[int64 1 int64 2]"}},
	{"array of fixed length", required(arrow.FixedSizeListOf(2, arrow.PrimitiveTypes.Int64)), `[[1,2],[3,null]]`,
		`{"type":"array","items":["null","long"]}`, []string{"[int64 1 int64 2]", "[int64 3 null]"}},
	{"record", nullable(arrow.StructOf(
		arrow.Field{Name: "no", Type: arrow.PrimitiveTypes.Int32},
		arrow.Field{Name: "street", Type: arrow.BinaryTypes.String, Nullable: true})),
		`[{"no":7,"street":"Elm"},{"no":8,"street":null},null]`,
		`["null",{"type":"record","name":"v","namespace":"row","fields":[{"name":"no","type":"int"},{"name":"street","type":["null","string"],"default":null}]}]`,
		[]string{`{no=int32 7 street="Elm"}`, `{no=int32 8 street=null}`, "null"}},
	{"array of records", required(arrow.ListOf(arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int32, Nullable: true}))),
		`[[{"a":1},null,{"a":null}]]`,
		`{"type":"array","items":["null",{"type":"record","name":"v","namespace":"row","fields":[{"name":"a","type":["null","int"],"default":null}]}]}`,
		[]string{`[{a=int32 1} null {a=null}]`}},
	{"map", nullable(arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String)),
		`[[],[{"key":"a","value":"1"},{"key":"","value":null}],null]`, `["null",{"type":"map","values":["null","string"]}]`,
		[]string{"{}", `{=null a="1"}`, "null"}},
}

func TestEveryTypeComesBackFromAvro(t *testing.T) {
	t.Parallel()
	for _, c := range avroTypes {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			rec := oneColumn(t, c.field, c.values)
			whole := writeAvro(t, rec.Schema(), format.AvroOptions{}, rec)
			if got := fieldTypes(t, whole)["v"]; got != c.schema {
				t.Errorf("schema\n %s, want\n %s", got, c.schema)
			}
			holdsAvro(t, whole, c.want)
			// A record that is a slice of another has offsets in all its arrays.
			for from := range c.want {
				part := writeAvro(t, rec.Schema(), format.AvroOptions{}, rec.NewSlice(int64(from), rec.NumRows()))
				holdsAvro(t, part, c.want[from:])
			}
		})
	}
}

func holdsAvro(t *testing.T, file []byte, want []string) {
	t.Helper()
	rows := readAvro(t, file)
	got := make([]string, len(rows))
	for i, row := range rows {
		got[i] = shown(row["v"])
	}
	if !slices.Equal(got, want) {
		t.Errorf("read back %q, want %q", got, want)
	}
}

func TestSpecialFloatsComeBackFromAvro(t *testing.T) {
	t.Parallel()
	doubles := []float64{math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 0, math.MaxFloat64, math.SmallestNonzeroFloat64}
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{
		{Name: "f", Type: arrow.PrimitiveTypes.Float32}, {Name: "d", Type: arrow.PrimitiveTypes.Float64, Nullable: true}}, nil))
	for _, d := range doubles {
		b.Field(0).(*array.Float32Builder).Append(float32(d))
		b.Field(1).(*array.Float64Builder).Append(d)
	}
	rec := b.NewRecordBatch()
	for i, row := range readAvro(t, writeAvro(t, rec.Schema(), format.AvroOptions{}, rec)) {
		if got, want := shown(row["d"]), shown(doubles[i]); got != want {
			t.Errorf("double %v came back as %s, want %s", doubles[i], got, want)
		}
		if got, want := shown(row["f"]), shown(float32(doubles[i])); got != want {
			t.Errorf("float %v came back as %s, want %s", doubles[i], got, want)
		}
	}
}

// Java's BigInteger and the specification want no more bytes than the sign needs, and at
// least one.
func TestAvroDecimalsTakeTheFewestBytes(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"0": "00", "-1": "ff", "127": "7f", "128": "0080", "-128": "80", "-129": "ff7f", "32768": "008000",
		"9223372036854775807": "7fffffffffffffff", "9223372036854775808": "008000000000000000",
		"-9223372036854775808": "8000000000000000", "-9223372036854775809": "ff7fffffffffffffff",
		"18446744073709551616": "010000000000000000", "-18446744073709551616": "ff0000000000000000",
	} {
		for _, dt := range []arrow.DataType{&arrow.Decimal128Type{Precision: 38}, &arrow.Decimal256Type{Precision: 76}} {
			rec := oneColumn(t, required(dt), `["`+value+`"]`)
			file := writeAvro(t, rec.Schema(), format.AvroOptions{Compression: format.CodecNone}, rec)
			// The block ends with the row, which is a length and the number, and the marker.
			number, _ := hex.DecodeString(want)
			row := append([]byte{byte(2 * len(number))}, number...)
			if !bytes.HasSuffix(file[:len(file)-16], row) {
				t.Errorf("%s of %s is not written as %s", value, dt, want)
			}
		}
	}
}
