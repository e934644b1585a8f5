package format_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// writeParquet writes records into one file.
func writeParquet(t testing.TB, schema *arrow.Schema, opts format.ParquetOptions, recs ...arrow.RecordBatch) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := format.NewParquet(&out, schema, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if w.Size() != int64(out.Len()) {
		t.Errorf("Size after Close is %d, the file has %d bytes", w.Size(), out.Len())
	}
	return out.Bytes()
}

// openParquet opens a file with Arrow's own reader.
func openParquet(t testing.TB, b []byte) *file.Reader {
	t.Helper()
	r, err := file.NewParquetReader(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("arrow-go cannot open the file: %v", err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// readParquet reads all rows back with Arrow's own reader.
func readParquet(t testing.TB, b []byte) arrow.Table {
	t.Helper()
	r, err := pqarrow.NewFileReader(openParquet(t, b), pqarrow.ArrowReadProperties{BatchSize: 1000}, memory.DefaultAllocator)
	if err != nil {
		t.Fatal(err)
	}
	table, err := r.ReadTable(context.Background())
	if err != nil {
		t.Fatalf("arrow-go cannot read the file: %v", err)
	}
	return table
}

// texts writes the values of a column one by one, in a form that does not depend on whether a
// type is the small or the large one.
func texts(arrs ...arrow.Array) []string {
	var out []string
	for _, a := range arrs {
		if e, ok := a.(array.ExtensionArray); ok {
			a = e.Storage()
		}
		for i := range a.Len() {
			out = append(out, fmt.Sprintf("%s", a.GetOneForMarshal(i)))
		}
	}
	return out
}

// holdsRecords compares a file with the records it was written from, value by value.
func holdsRecords(t testing.TB, b []byte, recs ...arrow.RecordBatch) {
	t.Helper()
	table := readParquet(t, b)
	rows := int64(0)
	for _, r := range recs {
		rows += r.NumRows()
	}
	if table.NumRows() != rows {
		t.Fatalf("%d rows were written and %d read", rows, table.NumRows())
	}
	for i := range int(table.NumCols()) {
		var want []string
		for _, r := range recs {
			want = append(want, texts(r.Column(i))...)
		}
		got := texts(table.Column(i).Data().Chunks()...)
		for row := range want {
			if want[row] != got[row] {
				t.Fatalf("column %s (%s), row %d: wrote %.200q, read %.200q", table.Column(i).Name(), recs[0].Column(i).DataType(), row, want[row], got[row])
			}
		}
	}
}

var spreads = map[string]pattern{
	"one value":             {distinct: 1},
	"few values":            {distinct: 7},
	"few values in runs":    {distinct: 7, repeat: 0.95},
	"many values":           {distinct: 1 << 40},
	"some nulls":            {distinct: 1 << 40, nulls: 0.3},
	"nearly all null":       {distinct: 9, nulls: 0.98},
	"only nulls":            {distinct: 9, nulls: 1},
	"more than a few, runs": {distinct: 900, repeat: 0.5, nulls: 0.02},
}

func TestEveryTypeComesBackFromParquet(t *testing.T) {
	t.Parallel()
	for typeName, dt := range leafTypes() {
		for spreadName, spread := range spreads {
			t.Run(typeName+"/"+spreadName, func(t *testing.T) {
				t.Parallel()
				fields := []arrow.Field{
					field("plain", dt, true, ""),
					field("list", arrow.ListOf(dt), true, ""),
					field("lists", arrow.LargeListOf(arrow.ListOf(dt)), true, ""),
					field("map", arrow.MapOf(arrow.PrimitiveTypes.Int32, dt), true, ""),
					field("in", arrow.StructOf(field("x", dt, true, ""), field("y", arrow.ListOf(dt), true, "")), true, ""),
				}
				if dt != arrow.Null {
					fields = append(fields, field("required", dt, false, ""), field("full", arrow.ListOfNonNullable(dt), false, ""))
				}
				schema := arrow.NewSchema(fields, nil)
				rng := rand.New(rand.NewPCG(1, uint64(len(typeName)*len(spreadName))))
				p := func(int) *pattern { q := spread; q.rng = rng; return &q }
				recs := []arrow.RecordBatch{randomRecord(schema, 220, p), randomRecord(schema, 1, p), randomRecord(schema, 90, p)}
				recs = append(recs, recs[0].NewSlice(33, 180), recs[0].NewSlice(9, 9))
				holdsRecords(t, writeParquet(t, schema, format.ParquetOptions{PageBytes: 700, RowGroupBytes: 30_000}, recs...), recs...)
			})
		}
	}
}

func TestLogicalTypesReachTheReader(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{
		field("u", &arrow.FixedSizeBinaryType{ByteWidth: 16}, true, change.LogicalUUID),
		field("j", arrow.BinaryTypes.String, true, change.LogicalJSON),
		field("e", arrow.BinaryTypes.String, true, change.LogicalEnum),
		field("tz", &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "Europe/Berlin"}, true, ""),
		field("local", &arrow.TimestampType{Unit: arrow.Microsecond}, true, ""),
		field("time", arrow.FixedWidthTypes.Time64us, true, ""),
		field("n", arrow.Null, true, ""),
		{Name: "id", Type: arrow.PrimitiveTypes.Int16, Metadata: arrow.NewMetadata([]string{format.FieldIDKey}, []string{"42"})},
		field("d", &arrow.Decimal128Type{Precision: 20, Scale: 4}, true, ""),
	}, nil)
	r := openParquet(t, writeParquet(t, schema, format.ParquetOptions{Metadata: map[string]string{"leat": "yes"}, CreatedBy: "leat version 1.2.3 (build abc)"}))
	want := []string{
		"optional fixed_len_byte_array field_id=-1 u (UUID)",
		"optional byte_array field_id=-1 j (JSON)",
		"optional byte_array field_id=-1 e (String)",
		"optional int64 field_id=-1 tz (Timestamp(isAdjustedToUTC=true, timeUnit=microseconds",
		"optional int64 field_id=-1 local (Timestamp(isAdjustedToUTC=false, timeUnit=microseconds",
		"optional int64 field_id=-1 time (Time(isAdjustedToUTC=false, timeUnit=microseconds",
		"optional int32 field_id=-1 n (Null)",
		"required int32 field_id=42 id (Int(bitWidth=16, isSigned=true))",
		"optional fixed_len_byte_array field_id=-1 d (Decimal(precision=20, scale=4))",
	}
	got := r.MetaData().Schema.String()
	for _, line := range want {
		if !strings.Contains(got, line) {
			t.Errorf("the schema lacks %q:\n%s", line, got)
		}
	}
	if v := r.MetaData().KeyValueMetadata().FindValue("leat"); v == nil || *v != "yes" {
		t.Errorf("key-value metadata is %v", r.MetaData().KeyValueMetadata())
	}
	if got := r.MetaData().GetCreatedBy(); got != "leat version 1.2.3 (build abc)" {
		t.Errorf("created_by is %q", got)
	}
	arrowSchema, err := pqarrow.FromParquet(r.MetaData().Schema, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if dt := arrowSchema.Field(0).Type; !arrow.TypeEqual(dt, extensions.NewUUIDType()) {
		t.Errorf("the UUID is read as %s", dt)
	}
}

func TestEveryCodecIsReadBack(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{field("s", arrow.BinaryTypes.String, true, ""), field("n", arrow.PrimitiveTypes.Int64, false, "")}, nil)
	rng := rand.New(rand.NewPCG(3, 3))
	rec := randomRecord(schema, 50_000, func(int) *pattern { return &pattern{rng: rng, distinct: 1 << 40, nulls: 0.1} })
	for _, c := range []format.Compression{"", format.CodecNone, format.CodecSnappy, format.CodecZstd, format.CodecGzip} {
		for _, level := range []int{0, 3} {
			t.Run(fmt.Sprintf("%s %d", c, level), func(t *testing.T) {
				t.Parallel()
				holdsRecords(t, writeParquet(t, schema, format.ParquetOptions{Compression: c, Level: level}, rec), rec)
			})
		}
	}
}

func TestEqualRecordsGiveEqualFiles(t *testing.T) {
	t.Parallel()
	rec := shop(3000, 5)
	for _, c := range []format.Compression{format.CodecSnappy, format.CodecZstd, format.CodecGzip} {
		opts := format.ParquetOptions{Compression: c, Bloom: []string{"comment"}, Metadata: map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}}
		if !bytes.Equal(writeParquet(t, rec.Schema(), opts, rec, rec), writeParquet(t, rec.Schema(), opts, rec, rec)) {
			t.Errorf("%s: two files of the same rows differ", c)
		}
	}
}

func TestLargeValuesAreReadBack(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{
		field("s", arrow.BinaryTypes.LargeString, true, ""),
		field("l", arrow.ListOf(arrow.BinaryTypes.String), true, ""),
		field("n", arrow.PrimitiveTypes.Int64, false, ""),
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	list := b.Field(1).(*array.ListBuilder)
	for i, size := range []int{3, 9 << 20, 0, 1 << 20, 1<<20 - 1, 70_000, 12 << 20, 1} {
		b.Field(0).(*array.LargeStringBuilder).Append(strings.Repeat(text(uint64(i+77)), size/90+1))
		list.Append(i != 2)
		for range i % 3 {
			list.ValueBuilder().(*array.StringBuilder).Append(strings.Repeat("xyz", size/5))
		}
		b.Field(2).(*array.Int64Builder).Append(int64(i))
	}
	rec := b.NewRecordBatch()
	for _, c := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecZstd, format.CodecGzip} {
		t.Run(string(c), func(t *testing.T) {
			t.Parallel()
			holdsRecords(t, writeParquet(t, schema, format.ParquetOptions{Compression: c}, rec, rec), rec, rec)
		})
	}
}

func TestADictionaryIsUsedWhereItPaysAndGivenUpWhereNot(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{
		field("few", arrow.BinaryTypes.String, false, ""),
		field("unique", arrow.BinaryTypes.String, false, ""),
		field("grows", arrow.BinaryTypes.String, false, ""),
		field("clustered", arrow.PrimitiveTypes.Int64, false, ""),
		field("float", arrow.PrimitiveTypes.Float64, false, ""),
	}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range 100_000 {
		b.Field(0).(*array.StringBuilder).Append([]string{"SHIP", "RAIL", "AIR"}[rng.IntN(3)])
		b.Field(1).(*array.StringBuilder).Append(fmt.Sprintf("%x", rng.Uint64()))
		value := rng.IntN(100)
		if i > 30_000 {
			value = rng.IntN(1 << 40)
		}
		b.Field(2).(*array.StringBuilder).Append(fmt.Sprintf("value number %d", value))
		b.Field(3).(*array.Int64Builder).Append(int64(rng.IntN(40)) * 1e15)
		b.Field(4).(*array.Float64Builder).Append(float64(rng.IntN(20)) / 7)
	}
	rec := b.NewRecordBatch()
	data := writeParquet(t, schema, format.ParquetOptions{}, rec, rec)
	holdsRecords(t, data, rec, rec)
	group := openParquet(t, data).MetaData().RowGroup(0)
	want := []string{"RLE RLE_DICTIONARY PLAIN", "RLE PLAIN", "RLE RLE_DICTIONARY PLAIN", "RLE RLE_DICTIONARY PLAIN", "RLE RLE_DICTIONARY PLAIN"}
	for i, w := range want {
		chunk, err := group.ColumnChunk(i)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range chunk.Encodings() {
			names = append(names, e.String())
		}
		if got := strings.Join(names, " "); got != w {
			t.Errorf("column %s is encoded as %s, want %s", schema.Field(i).Name, got, w)
		}
		plain := slices.ContainsFunc(chunk.EncodingStats(), func(s metadata.PageEncodingStats) bool { return s.Encoding.String() == "PLAIN" && s.PageType == 0 })
		if mixed := schema.Field(i).Name == "grows" || schema.Field(i).Name == "unique"; plain != mixed {
			t.Errorf("column %s: data pages in PLAIN: %v", schema.Field(i).Name, plain)
		}
	}
}

func TestARecordsBuffersAreFreeAfterWrite(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{field("s", arrow.BinaryTypes.Binary, false, ""), field("l", arrow.ListOf(arrow.BinaryTypes.Binary), false, "")}, nil)
	fresh := func() arrow.RecordBatch {
		b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
		for _, size := range []int{10, 3 << 20, 700, 20} {
			v := bytes.Repeat([]byte("some bytes"), size/10)
			b.Field(0).(*array.BinaryBuilder).Append(v)
			b.Field(1).(*array.ListBuilder).Append(true)
			for range 2 {
				b.Field(1).(*array.ListBuilder).ValueBuilder().(*array.BinaryBuilder).Append(v)
			}
		}
		return b.NewRecordBatch()
	}
	var out bytes.Buffer
	w, err := format.NewParquet(&out, schema, format.ParquetOptions{Compression: format.CodecNone})
	if err != nil {
		t.Fatal(err)
	}
	rec := fresh()
	if err := w.Write(rec); err != nil {
		t.Fatal(err)
	}
	clear(rec.Column(0).Data().Buffers()[2].Bytes())
	clear(rec.Column(1).(*array.List).ListValues().Data().Buffers()[2].Bytes())
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	holdsRecords(t, out.Bytes(), fresh())
}

// TestValuesMadeToCollideEndTheDictionary takes the hash's multiplier backwards: all these
// values have the same hash, and would make a search through all that came before of each.
func TestValuesMadeToCollideEndTheDictionary(t *testing.T) {
	t.Parallel()
	const multiplier = uint64(0x9E3779B97F4A7C15)
	inverse := multiplier // Newton's iteration doubles the correct bits: 3, 6, 12, 24, 48, 96
	for range 5 {
		inverse *= 2 - multiplier*inverse
	}
	for _, distinct := range []int{100, 1000} {
		rec := column(arrow.PrimitiveTypes.Int64, func(b array.Builder) {
			for i := range 30_000 {
				b.(*array.Int64Builder).Append(int64(inverse * uint64(i*7919%distinct+1)))
			}
		})
		data := writeParquet(t, rec.Schema(), format.ParquetOptions{}, rec)
		holdsRecords(t, data, rec)
		chunk, err := openParquet(t, data).MetaData().RowGroup(0).ColumnChunk(0)
		if err != nil {
			t.Fatal(err)
		}
		if has := chunk.HasDictionaryPage(); has != (distinct == 100) {
			t.Errorf("with %d values of one hash there is a dictionary: %v", distinct, has)
		}
	}
}

func TestUnusableSchemasAndOptionsAreRefused(t *testing.T) {
	t.Parallel()
	ok := arrow.NewSchema([]arrow.Field{field("a", arrow.PrimitiveTypes.Int32, true, ""), field("b", arrow.FixedWidthTypes.Boolean, true, "")}, nil)
	one := func(f arrow.Field) *arrow.Schema { return arrow.NewSchema([]arrow.Field{f}, nil) }
	for name, c := range map[string]struct {
		schema *arrow.Schema
		opts   format.ParquetOptions
		code   fault.Code
		where  string
	}{
		"a type without a place":     {one(field("i", arrow.FixedWidthTypes.MonthInterval, true, "")), format.ParquetOptions{}, fault.TypeUncarriable, "i"},
		"the same inside a list":     {one(field("l", arrow.ListOf(arrow.FixedWidthTypes.Duration_s), true, "")), format.ParquetOptions{}, fault.TypeUncarriable, "l"},
		"seconds":                    {one(field("s", arrow.FixedWidthTypes.Timestamp_s, true, "")), format.ParquetOptions{}, fault.TypeUncarriable, "s"},
		"a composite without fields": {one(field("c", arrow.StructOf(), true, "")), format.ParquetOptions{}, fault.TypeUncarriable, "c"},
		"a scale above precision":    {one(field("d", &arrow.Decimal128Type{Precision: 3, Scale: 5}, true, "")), format.ParquetOptions{}, fault.TypeUncarriable, "d"},
		"a negative scale":           {one(field("d", &arrow.Decimal128Type{Precision: 3, Scale: -2}, true, "")), format.ParquetOptions{}, fault.TypeUncarriable, "d"},
		"an unknown codec":           {ok, format.ParquetOptions{Compression: "rar"}, fault.FormatUnusable, ""},
		"a gzip level past nine":     {ok, format.ParquetOptions{Compression: format.CodecGzip, Level: 77}, fault.FormatUnusable, ""},
		"a bloom filter on nothing":  {ok, format.ParquetOptions{Bloom: []string{"zz"}}, fault.FormatUnusable, "zz"},
		"a bloom filter on booleans": {ok, format.ParquetOptions{Bloom: []string{"b"}}, fault.FormatUnusable, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := format.NewParquet(&bytes.Buffer{}, c.schema, c.opts)
			if f := fault.Of(err); f == nil || f.Code != c.code || f.Where != c.where {
				t.Errorf("got %v, want %s at %q", err, c.code, c.where)
			}
		})
	}
}

func TestAWriterRefusesWhatItsSchemaDoesNotSay(t *testing.T) {
	t.Parallel()
	strict := arrow.NewSchema([]arrow.Field{field("a", arrow.PrimitiveTypes.Int32, false, "")}, nil)
	loose := arrow.NewSchema([]arrow.Field{field("a", arrow.PrimitiveTypes.Int32, true, "")}, nil)
	other := arrow.NewSchema([]arrow.Field{field("a", arrow.PrimitiveTypes.Int64, false, "")}, nil)
	rng := rand.New(rand.NewPCG(7, 7))
	p := func(int) *pattern { return &pattern{rng: rng, distinct: 5, nulls: 0.5} }
	for name, c := range map[string]struct {
		rec  arrow.RecordBatch
		code fault.Code
	}{
		"a null where there is none": {randomRecord(loose, 50, p), fault.NullUnexpected},
		"another type":               {randomRecord(other, 50, p), fault.Internal},
	} {
		w, err := format.NewParquet(&bytes.Buffer{}, strict, format.ParquetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Write(c.rec); !fault.Is(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
		if err := w.Close(); !fault.Is(err, c.code) {
			t.Errorf("%s: Close after a failed Write gave %v: the file would look whole", name, err)
		}
	}
}

// disk is a writer that takes some bytes and then has no room.
type disk struct{ room int }

var errNoSpace = errors.New("no space left")

func (f *disk) Write(b []byte) (int, error) {
	if len(b) > f.room {
		return 0, errNoSpace
	}
	f.room -= len(b)
	return len(b), nil
}

func TestAFullDiskIsReported(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{field("a", arrow.PrimitiveTypes.Int64, false, "")}, nil)
	rng := rand.New(rand.NewPCG(8, 8))
	rec := randomRecord(schema, 30_000, func(int) *pattern { return &pattern{rng: rng, distinct: 1 << 40} })
	for _, room := range []int{0, 100_000, 400_000} {
		w, err := format.NewParquet(&disk{room}, schema, format.ParquetOptions{RowGroupBytes: 200_000})
		for range 3 {
			if err == nil {
				err = w.Write(rec)
			}
		}
		if err == nil {
			err = w.Close()
		}
		if !errors.Is(err, errNoSpace) {
			t.Errorf("with room for %d bytes the error is %v", room, err)
		}
	}
}
