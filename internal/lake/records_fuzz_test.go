package lake

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/codec"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// FuzzRecordsOfALake reads what a lake keeps beside its tables: ledgers, notes, manifests of change files, what a relocation has brought.
func FuzzRecordsOfALake(f *testing.F) {
	for _, text := range []string{
		`{"id":"c1"}`,
		`{"urls":["file:///a"],"rows":-1,"files":[{"key":"a","rows":-5}]}`,
		`{"format_version":1,"number":7,"kind":"changes","files":[{"key":"a","rows":1,"bytes":-2}],"copies":[null]}`,
		`{"version":1,"from":"mem://a","to":"mem://b","files":"AAAAAAAAAAAAAAAAAAAAAA=="}`,
		`{"files":{"a":1},"keyed":[1]}`, `[{"name":"a","attnum":1}]`, `3`, `00001-a`, `null`,
		`{"format-version":2,"location":"x"}`,
	} {
		f.Add([]byte(text))
	}
	ice, b := fuzzTable(f)
	schema := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true})
	noted, err := codec.EncodeDataFile(fakeData(f, 9), *iceberg.UnpartitionedSpec, schema, 2)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(noted)
	c := &currentTable{t: ice}
	files := &filesTable{lake: &Files{FilesOptions: FilesOptions{Bucket: b}}, folder: "f"}
	m := &mover{Relocation: Relocation{From: b, To: b, FromURL: "mem://a", ToURL: "mem://b", Root: "t", Log: slog.New(slog.DiscardHandler)}, places: newPlaces("mem://a", "mem://b")}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, key := range []string{"l.json", "c/" + copyNoteName, files.manifestKey(7), files.hintKey(), "t/metadata/version-hint.text", "t/metadata/00001-a.metadata.json"} {
			putIn(t, b, key, data)
		}
		inBounds(t, data, func(ctx context.Context) {
			_, e1 := readLedger[ledger](ctx, b, "l.json")
			_, e2 := readLedger[fileLedger](ctx, b, "l.json")
			_, e3 := openCopyLedgers(ctx, b, "c", copyLayouts{Drafts: []string{kindCurrent}})
			_, e4 := files.manifest(ctx, 7)
			_, e5 := files.hinted(ctx)
			_, e6 := IsTable(ctx, b, "t")
			_, e7 := m.current(ctx)
			for i, err := range []error{e1, e2, e3, e4, e5, e6, e7} {
				if err != nil && fault.Of(err) == nil {
					t.Errorf("%d: an error that is no fault: %v", i, err)
				}
			}
			_ = fault.Catching(nil, "", func() error { _, err := codec.DecodeDataFile(data, *iceberg.UnpartitionedSpec, schema, 2); return err })()
			c.readNote(data)
			m.understand(data)
			var columns []column
			_ = json.Unmarshal(data, &columns)
		})
	})
}

// dataSchema has a column of each kind that a table of ours has.
var dataSchema = func() *arrow.Schema {
	id := func(n string) arrow.Metadata { return arrow.NewMetadata([]string{format.FieldIDKey}, []string{n}) }
	item := arrow.Field{Name: "element", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: id("20")}
	return arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64, Metadata: id("1")},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: id("2")},
		{Name: "price", Type: &arrow.Decimal128Type{Precision: 20, Scale: 2}, Nullable: true, Metadata: id("3")},
		{Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true, Metadata: id("4")},
		{Name: "list", Type: arrow.ListOfField(item), Nullable: true, Metadata: id("5")},
		{Name: "yes", Type: arrow.FixedWidthTypes.Boolean, Nullable: true, Metadata: id("6")},
	}, nil)
}()

// dataFile is a data file of so many rows of that schema.
func dataFile(t testing.TB, rows int) []byte {
	t.Helper()
	b := array.NewRecordBuilder(memory.DefaultAllocator, dataSchema)
	for i := range rows {
		b.Field(0).(*array.Int64Builder).Append(int64(i))
		b.Field(1).(*array.StringBuilder).Append("name")
		for _, n := range []int{2, 3} {
			b.Field(n).AppendNull()
		}
		list := b.Field(4).(*array.ListBuilder)
		list.Append(true)
		list.ValueBuilder().(*array.StringBuilder).AppendValues([]string{"a", "b"}, nil)
		b.Field(5).(*array.BooleanBuilder).Append(i%2 == 0)
	}
	var out bytes.Buffer
	w, err := format.NewParquet(&out, dataSchema, format.ParquetOptions{})
	if err == nil {
		err = w.Write(b.NewRecordBatch())
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzParquetData(f *testing.F) {
	f.Add(dataFile(f, 3), uint16(3))
	f.Add(dataFile(f, 2000), uint16(2000))
	for _, hostile := range hostileDeletes() {
		f.Add(hostile.file, uint16(hostile.rows))
	}
	ice, b := fuzzTable(f)
	f.Fuzz(func(t *testing.T, data []byte, rows uint16) {
		putIn(t, b, "d.parquet", data)
		inBounds(t, data, func(ctx context.Context) {
			d := countedFile{fakeData(t, int64(len(data))), int64(rows)}
			seen := int64(0)
			err := fault.Catching(nil, "", func() error {
				return ice.scan(ctx, d, dataSchema, 0, func(rec arrow.RecordBatch) error { seen += rec.NumRows(); return nil })
			})()
			if err != nil && fault.Of(err) == nil {
				t.Errorf("an error that is no fault: %v", err)
			}
			if err == nil && seen > int64(rows) {
				t.Errorf("a file of %d rows has %d", rows, seen)
			}
		})
	})
}

func fakeData(t testing.TB, size int64) iceberg.DataFile {
	t.Helper()
	d, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentData, "mem://d.parquet", iceberg.ParquetFile, nil, nil, nil, 1, max(1, size))
	if err != nil {
		t.Fatal(err)
	}
	return d.Build()
}

// FuzzParquetFooter makes sure that what a walk lets pass takes Thrift little room.
func FuzzParquetFooter(f *testing.F) {
	for _, hostile := range hostileDeletes() {
		f.Add(hostile.file)
	}
	f.Add(dataFile(f, 3))
	f.Fuzz(func(t *testing.T, data []byte) {
		inBounds(t, data, func(context.Context) {
			meta, err := readFooter(bytes.NewReader(data), int64(len(data)), mostFooter)
			if err == nil {
				_ = fault.Catching(nil, "", func() error { _, err := chunksOf(meta, int64(len(data)), -1); return err })()
			}
			if checkFooter(data) == nil {
				_ = fault.Catching(nil, "", func() error { _, err := metadata.NewFileMetaData(data, nil); return err })()
			}
			w := pageWalk{chunkFacts: chunkFacts{length: int64(len(data)), values: 1 << 20, width: 1}}
			_ = w.look(0, data, parquetLimits{page: format.MostUnpacked, dictionary: mostDictionary}, 1)
		})
	})
}
