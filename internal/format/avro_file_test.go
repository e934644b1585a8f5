package format_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// numbers is a record with one string column that counts from a number up.
func numbers(from, n int) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator,
		arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String}}, nil))
	for i := range n {
		b.Field(0).(*array.StringBuilder).Append(fmt.Sprintf("row number %d", from+i))
	}
	return b.NewRecordBatch()
}

func holdsNumbers(t testing.TB, file []byte, n int) {
	t.Helper()
	rows := readAvro(t, file)
	if len(rows) != n {
		t.Fatalf("%d rows read back, want %d", len(rows), n)
	}
	for i, row := range rows {
		if want := fmt.Sprintf("row number %d", i); row["v"] != want {
			t.Fatalf("row %d reads %v", i, row["v"])
		}
	}
}

func TestEveryAvroCodecIsReadBack(t *testing.T) {
	t.Parallel()
	for codec, name := range map[format.Compression]string{
		format.CodecNone: "null", format.CodecSnappy: "snappy", "": "snappy", format.CodecZstd: "zstandard",
		format.CodecDeflate: "deflate", format.CodecGzip: "deflate",
	} {
		t.Run(string(codec), func(t *testing.T) {
			t.Parallel()
			for _, blockBytes := range []int{1, 100, 5000, 0} {
				a, b := numbers(0, 700), numbers(700, 300)
				file := writeAvro(t, a.Schema(), format.AvroOptions{Compression: codec, BlockBytes: blockBytes}, a, numbers(700, 0), b)
				holdsNumbers(t, file, 1000)
				if got := string(openAvro(t, file).Metadata()["avro.codec"]); got != name {
					t.Errorf("the header says codec %q, want %q", got, name)
				}
			}
		})
	}
}

func TestAvroBlocksAreAsLargeAsAsked(t *testing.T) {
	t.Parallel()
	count := func(blockBytes int) int {
		rec := numbers(0, 1000) // 14 to 16 bytes each
		file := writeAvro(t, rec.Schema(), format.AvroOptions{Compression: format.CodecNone, BlockBytes: blockBytes}, rec)
		return bytes.Count(file, file[len(file)-16:]) - 1 // the header has the marker too
	}
	for blockBytes, want := range map[int]int{1: 1000, 1 << 10: 15, 0: 1} {
		if got := count(blockBytes); got != want {
			t.Errorf("blocks of %d bytes: %d of them, want %d", blockBytes, got, want)
		}
	}
}

func TestAvroFileWithoutRows(t *testing.T) {
	t.Parallel()
	rec := numbers(0, 0)
	for _, records := range [][]arrow.RecordBatch{nil, {rec}} {
		file := writeAvro(t, rec.Schema(), format.AvroOptions{}, records...)
		if rows := readAvro(t, file); len(rows) != 0 {
			t.Errorf("%d rows in an empty file", len(rows))
		}
	}
}

func TestAvroFileWithoutColumnsKeepsItsRows(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema(nil, nil)
	for _, codec := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecDeflate, format.CodecZstd} {
		for _, n := range []int64{0, 1, 10_000} {
			file := writeAvro(t, schema, format.AvroOptions{Compression: codec}, array.NewRecordBatch(schema, nil, n))
			if rows := readAvro(t, file); int64(len(rows)) != n {
				t.Errorf("%s: %d rows read back, want %d", codec, len(rows), n)
			}
		}
	}
}

// original undoes the mapping of names as its description says.
func original(name string) string {
	if name == "_x_" {
		return ""
	}
	return regexp.MustCompile(`_x([0-9A-F]{4,6})_`).ReplaceAllStringFunc(name, func(escape string) string {
		code, _ := strconv.ParseInt(escape[2:len(escape)-1], 16, 32)
		return string(rune(code))
	})
}

func TestColumnNamesAreMappedToNamesThatAvroAllows(t *testing.T) {
	t.Parallel()
	want := map[string]string{
		"plain": "plain", "UPPER_case_9": "UPPER_case_9", "_": "_", "__": "__", "int": "int",
		"two words": "two_x0020_words", "two_x0020_words": "two_x005F_x0020_words", "_x_": "_x005F_x_",
		"9lives": "_x0039_lives", "l9": "l9", "": "_x_", "zażółć": "za_x017C__x00F3__x0142__x0107_", "🐢": "_x1F422_",
		"a.b": "a_x002E_b", "a-b": "a_x002D_b", "__x": "__x005F_x", "_X0020_": "_X0020_",
	}
	var fields []arrow.Field
	for name := range want {
		fields = append(fields, arrow.Field{Name: name, Type: arrow.PrimitiveTypes.Int32})
	}
	file := writeAvro(t, arrow.NewSchema(fields, nil), format.AvroOptions{})
	var schema struct {
		Fields []struct {
			Name     string `json:"name"`
			Original string `json:"leat:name"`
		} `json:"fields"`
	}
	if err := json.Unmarshal(openAvro(t, file).Metadata()["avro.schema"], &schema); err != nil {
		t.Fatal(err)
	}
	for i, f := range schema.Fields {
		name := fields[i].Name
		if f.Name != want[name] {
			t.Errorf("column %q became %q, want %q", name, f.Name, want[name])
		}
		if got := original(f.Name); got != name {
			t.Errorf("%q stands for %q, but reads back as %q", f.Name, name, got)
		}
		if f.Name != name && f.Original != name || f.Name == name && f.Original != "" {
			t.Errorf("field %q of column %q says leat:name %q", f.Name, name, f.Original)
		}
	}
}

func FuzzAvroNamesAreAllowedAndDistinct(f *testing.F) {
	f.Add("a b", "a_x0020_b")
	f.Add("_x", "_x005F_x")
	f.Add("", "_x_")
	f.Add("9", "_9")
	allowed := regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	f.Fuzz(func(t *testing.T, a, b string) {
		// PostgreSQL's names are valid UTF-8.
		a, b = strings.ToValidUTF8(a, ""), strings.ToValidUTF8(b, "")
		if a == b {
			b += "2"
		}
		schema := arrow.NewSchema([]arrow.Field{{Name: a, Type: arrow.Null}, {Name: b, Type: arrow.Null}}, nil)
		file := writeAvro(t, schema, format.AvroOptions{}, array.NewRecordBatch(schema, []arrow.Array{array.NewNull(1), array.NewNull(1)}, 1))
		names := fieldTypes(t, file)
		if len(names) != 2 {
			t.Fatalf("%q and %q became %v", a, b, names)
		}
		for name := range names {
			if got := original(name); !allowed.MatchString(name) || got != a && got != b {
				t.Errorf("%q and %q became %v", a, b, names)
			}
		}
	})
}

func TestAvroRecordsHaveNamesOfTheirOwn(t *testing.T) {
	t.Parallel()
	inner := arrow.StructOf(arrow.Field{Name: "b", Type: arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int32})})
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "a", Type: inner}, {Name: "b", Type: inner}, {Name: "string", Type: inner}, {Name: "Order Items", Type: inner},
	}, nil)
	for _, c := range []struct{ name, namespace, want, original string }{
		{"orders", "shop.public", "shop.public.orders", ""},
		{"orders", "", "orders", ""},
		{"", "", "row", ""},
		{"a", "", "a", ""}, // as the column
		{"Order Items", "my shop..x", "my_x0020_shop.x.Order_x0020_Items", "Order Items"},
		{"int", "", "_x0069_nt", "int"},
		{"record", "", "_x0072_ecord", "record"},
	} {
		// The reader refuses a name that is not allowed or is defined twice.
		root := openAvro(t, writeAvro(t, schema, format.AvroOptions{Name: c.name, Namespace: c.namespace})).Schema().Root()
		full := root.Name
		if root.Namespace != "" && !strings.Contains(full, ".") {
			full = root.Namespace + "." + full
		}
		if full != c.want {
			t.Errorf("%q in %q is called %q, want %q", c.name, c.namespace, full, c.want)
		}
		if got, _ := root.Props["leat:name"].(string); got != c.original {
			t.Errorf("%q has leat:name %q, want %q", c.name, got, c.original)
		}
	}
}

func TestAvroHeaderKeepsMetadataAndPostgresTypes(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String, Nullable: true,
		Metadata: arrow.NewMetadata([]string{change.TypeKey}, []string{"character varying(40)"})}}, nil)
	r := openAvro(t, writeAvro(t, schema, format.AvroOptions{Metadata: map[string]string{"leat.lsn": "0/16B3748", "a": ""}}))
	if got := string(r.Metadata()["leat.lsn"]); got != "0/16B3748" {
		t.Errorf("leat.lsn is %q", got)
	}
	if got, ok := r.Metadata()["a"]; !ok || len(got) != 0 {
		t.Errorf("a is %q, %v", got, ok)
	}
	want := `{"type":"record","name":"row","fields":[{"name":"v","type":["null","string"],"default":null,"leat:pgtype":"character varying(40)"}]}`
	if got := string(r.Metadata()["avro.schema"]); got != want {
		t.Errorf("schema\n %s, want\n %s", got, want)
	}
}

func TestTheSameRowsGiveTheSameAvroFileAndOthersAnotherMarker(t *testing.T) {
	t.Parallel()
	opts := format.AvroOptions{Metadata: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}}
	write := func(records ...arrow.RecordBatch) []byte { return writeAvro(t, records[0].Schema(), opts, records...) }
	whole := write(numbers(0, 1000))
	for cut := range 20 {
		if !bytes.Equal(whole, write(numbers(0, 40*cut), numbers(40*cut, 1000-40*cut))) {
			t.Fatal("the same rows in other batches give another file")
		}
	}
	other := write(numbers(1, 1000))
	if slices.Equal(whole[len(whole)-16:], other[len(other)-16:]) {
		t.Error("other rows have the same sync marker, so somebody could know it beforehand")
	}
}

func TestAvroRefusesWhatItCannotHold(t *testing.T) {
	t.Parallel()
	for name, dt := range map[string]arrow.DataType{
		"unsigned 64-bit": arrow.PrimitiveTypes.Uint64, "nanoseconds": arrow.FixedWidthTypes.Timestamp_ns,
		"milliseconds": arrow.FixedWidthTypes.Timestamp_ms, "time in nanoseconds": arrow.FixedWidthTypes.Time64ns,
		"half floats": arrow.FixedWidthTypes.Float16, "negative scale": &arrow.Decimal128Type{Precision: 5, Scale: -2},
		"scale above precision": &arrow.Decimal128Type{Precision: 2, Scale: 3},
		"map with number keys":  arrow.MapOf(arrow.PrimitiveTypes.Int32, arrow.PrimitiveTypes.Int32),
		"in an array":           arrow.ListOf(arrow.PrimitiveTypes.Uint64),
		"in a map":              arrow.MapOf(arrow.BinaryTypes.String, arrow.PrimitiveTypes.Uint64),
		"in a record":           arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Uint64}),
		"two fields of a name": arrow.StructOf(arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int32},
			arrow.Field{Name: "x", Type: arrow.PrimitiveTypes.Int32}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			schema := arrow.NewSchema([]arrow.Field{{Name: "price", Type: dt, Nullable: true}}, nil)
			_, err := format.NewAvro(io.Discard, schema, format.AvroOptions{})
			if !fault.Is(err, fault.TypeUncarriable) || !strings.Contains(err.Error(), "price") {
				t.Errorf("%v, want type-uncarriable that names the column", err)
			}
		})
	}
}

func TestAvroRefusesUnusableOptions(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]format.AvroOptions{
		"an unknown codec":       {Compression: "lzma"},
		"metadata that is taken": {Metadata: map[string]string{"avro.codec": "null"}},
	} {
		if _, err := format.NewAvro(io.Discard, numbers(0, 0).Schema(), opts); !fault.Is(err, fault.FormatUnusable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAvroReportsANullThatMayNotBe(t *testing.T) {
	t.Parallel()
	person := func(fields ...arrow.Field) arrow.Field {
		return arrow.Field{Name: "v", Type: arrow.StructOf(fields...), Nullable: true}
	}
	for name, c := range map[string]struct {
		field  arrow.Field
		values string
		where  string
	}{
		"in a column":   {arrow.Field{Name: "v", Type: arrow.PrimitiveTypes.Int32}, `[1,null]`, "v"},
		"in a record":   {person(arrow.Field{Name: "age", Type: arrow.PrimitiveTypes.Int32}), `[{"age":1},{"age":null}]`, "v.age"},
		"in an array":   {required(arrow.ListOfNonNullable(arrow.PrimitiveTypes.Int32)), `[[1,null]]`, "v"},
		"hidden by one": {person(arrow.Field{Name: "age", Type: arrow.PrimitiveTypes.Int32}), `[{"age":1},null]`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := oneColumn(t, c.field, c.values)
			w, err := format.NewAvro(io.Discard, rec.Schema(), format.AvroOptions{})
			if err != nil {
				t.Fatal(err)
			}
			err = w.Write(rec)
			if c.where == "" {
				if err != nil {
					t.Errorf("a NULL that nobody sees: %v", err)
				}
				return
			}
			if !fault.Is(err, fault.NullUnexpected) || fault.Of(err).Where != c.where {
				t.Errorf("%v, want null-unexpected at %s", err, c.where)
			}
			if again := w.Close(); !errors.Is(again, err) {
				t.Errorf("Close: %v", again)
			}
		})
	}
}

func TestAvroRefusesARecordOfAnotherSchema(t *testing.T) {
	t.Parallel()
	for _, other := range []arrow.RecordBatch{
		oneColumn(t, required(arrow.PrimitiveTypes.Int32), `[1]`),
		array.NewRecordBatch(arrow.NewSchema(nil, nil), nil, 1),
	} {
		w, err := format.NewAvro(io.Discard, numbers(0, 0).Schema(), format.AvroOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(other); !fault.Is(err, fault.Internal) {
			t.Errorf("record of %v: %v", other.Schema(), err)
		}
	}
}

func TestAvroReportsTheWritersError(t *testing.T) {
	t.Parallel()
	rec := numbers(0, 100)
	for _, short := range []bool{false, true} {
		want := map[bool]error{false: errFull, true: io.ErrShortWrite}[short]
		for room := 0; room < 600; room += 13 {
			sink := &narrowWriter{room: room, short: short}
			w, err := format.NewAvro(sink, rec.Schema(), format.AvroOptions{Compression: format.CodecNone, BlockBytes: 100})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := w.Write(rec); !errors.Is(err, want) {
					t.Fatalf("room for %d bytes: Write: %v, want %v", room, err, want)
				}
			}
			for range 2 {
				if err := w.Close(); !errors.Is(err, want) {
					t.Fatalf("room for %d bytes: Close: %v, want %v", room, err, want)
				}
			}
			if sink.calls != 1 {
				t.Fatalf("room for %d bytes: the writer was called %d times from its failure on", room, sink.calls)
			}
		}
	}
	w, err := format.NewAvro(&narrowWriter{}, rec.Schema(), format.AvroOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(rec); err != nil {
		t.Errorf("a Write that fills no block: %v", err)
	}
	if err := w.Close(); !errors.Is(err, errFull) {
		t.Errorf("Close of what nobody takes: %v", err)
	}
}

func TestAvroTakesNothingAfterClose(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	rec := numbers(0, 10)
	w, err := format.NewAvro(&file, rec.Schema(), format.AvroOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Write(rec); err == nil {
		t.Error("Write after Close gave no error")
	}
	holdsNumbers(t, file.Bytes(), 10)
}

func TestAvroSizeCountsWhatIsHeldBack(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	rec := numbers(0, 1000)
	w, err := format.NewAvro(&file, rec.Schema(), format.AvroOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := w.Size()
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	if file.Len() != 0 {
		t.Fatalf("%d bytes are written before the block is full", file.Len())
	}
	if got := w.Size() - before; got < 14_000 || got > 16_000 {
		t.Errorf("1000 rows of 14 to 16 bytes add %d to Size", got)
	}
}

func TestAvroCarriesAHugeValue(t *testing.T) {
	t.Parallel()
	huge := strings.Repeat("0123456789abcdef", 20<<16)
	b := array.NewRecordBuilder(memory.DefaultAllocator, numbers(0, 0).Schema())
	b.Field(0).(*array.StringBuilder).AppendValues([]string{"first", huge, "last"}, nil)
	rec := b.NewRecordBatch()
	for _, codec := range []format.Compression{format.CodecNone, format.CodecSnappy} {
		file := writeAvro(t, rec.Schema(), format.AvroOptions{Compression: codec}, rec)
		if rows := readAvro(t, file); len(rows) != 3 || rows[0]["v"] != "first" || rows[1]["v"] != huge || rows[2]["v"] != "last" {
			t.Errorf("%s: %d rows, or other text", codec, len(rows))
		}
	}
}

// Not parallel: it looks at the memory of the whole process.
func TestAvroLetsGoOfAHugeValuesMemory(t *testing.T) {
	const size = 64 << 20
	schema := numbers(0, 0).Schema()
	w, err := format.NewAvro(io.Discard, schema, format.AvroOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := liveHeap()
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	b.Field(0).(*array.StringBuilder).Append(strings.Repeat("x", size))
	if err := w.Write(b.NewRecordBatch()); err != nil {
		t.Fatal(err)
	}
	if grown := liveHeap() - before; grown > size/2 {
		t.Errorf("after a value of %d bytes the writer still holds %d", size, grown)
	}
	runtime.KeepAlive(w)
}

// liveHeap is how many bytes of the heap are in use.
func liveHeap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// Arrow lets an array without values have no buffers, and one whose values are all empty
// have no bytes.
func TestAvroTakesArraysThatLackBuffers(t *testing.T) {
	t.Parallel()
	offsets := memory.NewBufferBytes(make([]byte, 3*arrow.Int32SizeBytes))
	schema := numbers(0, 0).Schema()
	for _, data := range []*array.Data{
		array.NewData(arrow.BinaryTypes.String, 0, []*memory.Buffer{nil, nil, nil}, nil, 0, 0),
		array.NewData(arrow.BinaryTypes.String, 2, []*memory.Buffer{nil, offsets, nil}, nil, 0, 0),
	} {
		column := array.NewStringData(data)
		rec := array.NewRecordBatch(schema, []arrow.Array{column}, int64(column.Len()))
		rows := readAvro(t, writeAvro(t, schema, format.AvroOptions{}, rec))
		if len(rows) != column.Len() {
			t.Errorf("%d rows read back, want %d", len(rows), column.Len())
		}
		for _, row := range rows {
			if row["v"] != "" {
				t.Errorf("an empty string reads %v", row["v"])
			}
		}
	}
}

func BenchmarkAvroLineitem(b *testing.B) {
	rec := lineitem(32_768, 1)
	defer rec.Release()
	for _, codec := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecZstd, format.CodecDeflate} {
		b.Run(string(codec), func(b *testing.B) {
			w, err := format.NewAvro(io.Discard, rec.Schema(), format.AvroOptions{Compression: codec})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Write(rec); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(rec.NumRows())*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
