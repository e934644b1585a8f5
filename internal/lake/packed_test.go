package lake

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
)

// peakOf is how many MiB of the heap are in use at most while work runs.
func peakOf(work func()) uint64 {
	runtime.GC()
	var peak atomic.Uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			var now runtime.MemStats
			runtime.ReadMemStats(&now)
			peak.Store(max(peak.Load(), now.HeapInuse))
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	}()
	work()
	close(done)
	<-ended
	return peak.Load() >> 20
}

// A default of 8 KB in 50,000 rows are a few pages of indexes, and 400 MB in Arrow's layout. It measures memory, so no other test runs
// beside it.
func TestAnEqualValueInAllRowsIsFilledCompactedAndFoundInLittleMemory(t *testing.T) {
	const rows, most = 50_000, 288
	b := newCurrentBed(t, 2, false)
	b.lake.TargetFileSize = 1 << 30
	for from := 0; from < rows; from += rows / 4 {
		var events []event
		for id := from; id < from+rows/4; id++ {
			events = append(events, event{op: change.OpInsert, id: int64(id), v: "a", big: "b"})
		}
		b.write(t, events...)
		b.commit(t)
	}
	def := strings.Repeat("default ", 1<<10)
	wide := altered(b.spec, func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns = append(s.Columns, change.Column{Name: "more", Attnum: 4, TypeOID: 25, Typmod: -1, Type: "text"})
		return append(f, arrow.Field{Name: "more", Type: arrow.BinaryTypes.String, Nullable: true})
	})
	text := array.NewStringBuilder(memory.DefaultAllocator)
	text.Append(def)
	d := Definition{Table: wide.Table, Schema: wide.Schema, From: b.table.Position(), Fill: map[int16]arrow.Array{4: text.NewArray()}}
	check := func(what string, work func() error) {
		t.Helper()
		began := time.Now()
		var err error
		if used := peakOf(func() { err = work() }); used > most {
			t.Errorf("%s took %d MiB", what, used)
		} else {
			t.Logf("%s took %d MiB, %s", what, used, time.Since(began))
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	check("the default", func() error { return b.table.Evolve(t.Context(), d) })
	for _, f := range b.table.current.files {
		if f != nil && f.moved != nil && int(f.rows)*len(def)/len(f.moved.runs) > scanBytes { // what is large is not in memory, but on a disk
			t.Errorf("the default came to %d rows in %d records", f.rows, len(f.moved.runs))
		}
	}
	check("compaction", func() error {
		inputs, schema := []input{}, b.table.current.schema
		for _, f := range b.table.current.files {
			if f != nil && f.moved == nil {
				inputs = append(inputs, input{number: f.number, file: f.file})
			}
		}
		out, err := b.table.current.t.rewrite(t.Context(), inputs, schema, nil)
		if err == nil && out.files[0].Count() != rows {
			err = fmt.Errorf("%d rows are in the file", out.files[0].Count())
		}
		return err
	})
	check("looking for a value", func() error {
		c := b.table.current
		schema := arrow.NewSchema([]arrow.Field{c.schema.Field(0), c.schema.Field(3)}, nil)
		parts, left := make([][]arrow.Array, 2), int64(1<<30)
		for _, f := range c.files {
			if f == nil || f.moved != nil {
				continue
			}
			if err := c.t.readRows(t.Context(), f.file, schema, []uint32{0, 49_999}, parts, &left); err != nil {
				return err
			}
		}
		if n := len(parts[0]); n != 2 || parts[0][1].ValueStr(0) != "49999" || parts[1][1].ValueStr(0) != def {
			return fmt.Errorf("%d parts", n)
		}
		return nil
	})
}

func packedField(name, id string, dt arrow.DataType) arrow.Field {
	return arrow.Field{Name: name, Type: dt, Nullable: true, Metadata: arrow.NewMetadata([]string{format.FieldIDKey}, []string{id})}
}

// filesOfPackedRows are files of three row groups: many short rows, few long ones, many short ones. id counts all rows.
func filesOfPackedRows(t *testing.T) map[string][]byte {
	t.Helper()
	const short, long = 40_000, 1_000
	value := strings.Repeat("0123456789", 10<<10)
	files := map[string][]byte{}
	write := func(name string, dt arrow.DataType, add func(b array.Builder, i int, long bool), opts ...parquet.WriterProperty) {
		schema := arrow.NewSchema([]arrow.Field{packedField("id", "1", arrow.PrimitiveTypes.Int64), packedField("v", "2", dt)}, nil)
		var out bytes.Buffer
		w, err := pqarrow.NewFileWriter(schema, &out, parquet.NewWriterProperties(opts...), pqarrow.DefaultWriterProps())
		if err != nil {
			t.Fatal(err)
		}
		id := int64(0)
		for _, n := range []int{short, long, short} {
			b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			for i := range n {
				b.Field(0).(*array.Int64Builder).Append(id)
				add(b.Field(1), i, n == long)
				id++
			}
			rec := b.NewRecordBatch()
			if err := w.Write(rec); err != nil {
				t.Fatal(err)
			}
			rec.Release()
			b.Release()
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		files[name] = out.Bytes()
	}
	text := func(b array.Builder, i int, long bool) {
		if s := b.(*array.StringBuilder); long {
			s.Append(value)
		} else {
			s.Append(value[:i%9])
		}
	}
	zstd := parquet.WithCompression(compress.Codecs.Zstd)
	write("a packed dictionary", arrow.BinaryTypes.String, text, parquet.WithDictionaryDefault(true), zstd)
	write("what the value before has", arrow.BinaryTypes.String, text, parquet.WithDictionaryDefault(false), parquet.WithEncodingFor("v", parquet.Encodings.DeltaByteArray), zstd)
	write("lists", arrow.ListOf(arrow.BinaryTypes.String), func(b array.Builder, i int, long bool) {
		list := b.(*array.ListBuilder)
		list.Append(true)
		for range 10 {
			if s := list.ValueBuilder().(*array.StringBuilder); long {
				s.Append(value[:10<<10])
			} else {
				s.Append("a")
			}
		}
	}, parquet.WithDictionaryDefault(true))
	return files
}

// However rows are packed, a record that is read has a bounded size, and each row comes once.
func TestRecordsOfPackedRowsAreBounded(t *testing.T) {
	ice, b := fuzzTable(t)
	for name, data := range filesOfPackedRows(t) {
		putIn(t, b, "d.parquet", data)
		ice.widths.Clear()
		d, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentData, "mem://d.parquet", iceberg.ParquetFile, nil, nil, nil, 81_000, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		schema := arrow.NewSchema([]arrow.Field{packedField("id", "1", arrow.PrimitiveTypes.Int64), packedField("v", "2", arrow.BinaryTypes.String)}, nil)
		next, largest, records := int64(0), int64(0), 0
		err = ice.scan(t.Context(), d.Build(), schema, 0, func(rec arrow.RecordBatch) error {
			for _, id := range rec.Column(0).(*array.Int64).Int64Values() {
				if id != next {
					return fmt.Errorf("row %d comes as the %d-th", id, next)
				}
				next++
			}
			largest = max(largest, bytesOf(rec))
			records++
			return nil
		})
		if err != nil || next != 81_000 {
			t.Errorf("%s: %d rows, %v", name, next, err)
		}
		began := errors.New("the next file begins")
		err = ice.scan(t.Context(), d.Build(), schema, 0, func(rec arrow.RecordBatch) error {
			if rec.NumRows() > 1<<10 {
				t.Errorf("%s: a record of the next file has %d rows: it is begun again too", name, rec.NumRows())
			}
			return began
		})
		if !errors.Is(err, began) {
			t.Error(err)
		}
		if largest > scanBytes*5/4 {
			t.Errorf("%s: a record has %d MiB", name, largest>>20)
		}
		t.Logf("%s: %d KiB, %d records, the largest of %d MiB", name, len(data)>>10, records, largest>>20)
	}
}
