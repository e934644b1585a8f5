package format_test

import (
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/format"
)

// allocated is the bytes that f asks of the heap, whether they are given back or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// Not parallel, as its siblings below: other tests would count as well.
func TestALargeValueIsNotCopied(t *testing.T) {
	const size = 96 << 20
	b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(i * i >> 7)
	}
	b.Append(value)
	schema := arrow.NewSchema([]arrow.Field{field("v", arrow.BinaryTypes.Binary, true, "")}, nil)
	rec := array.NewRecordBatch(schema, []arrow.Array{b.NewArray()}, 1)
	// What is held until the row group ends is the compressed page; without compression, the value once.
	for _, c := range []struct {
		codec format.Compression
		most  uint64
	}{{format.CodecNone, size + size/4}, {format.CodecSnappy, size + size/4}, {format.CodecZstd, size + size/4}} {
		t.Run(string(c.codec), func(t *testing.T) {
			got := allocated(func() { writeTo(t, io.Discard, format.ParquetOptions{Compression: c.codec}, rec, 1) })
			if got > c.most {
				t.Errorf("a value of %d MiB made %d MiB of garbage, want %d at most", size>>20, got>>20, c.most>>20)
			}
		})
	}
}

func writeTo(t *testing.T, out io.Writer, opts format.ParquetOptions, rec arrow.RecordBatch, times int) {
	t.Helper()
	w, err := format.NewParquet(out, rec.Schema(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for range times {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestALongTableTakesNoMoreMemoryThanAShortOne(t *testing.T) {
	rec := lineitem(32<<10, 1)
	allocs := func(times int) uint64 {
		return allocated(func() { writeTo(t, io.Discard, format.ParquetOptions{RowGroupBytes: 32 << 20}, rec, times) })
	}
	one, two := allocs(8), allocs(2*8) // a row group has a little less than eight such records
	if two > one+one/3 {
		t.Errorf("one row group takes %d MiB, two take %d: buffers are not used again", one>>20, two>>20)
	}
	if one > 48<<20 {
		t.Errorf("one row group of lineitem takes %d MiB", one>>20)
	}
}

func TestNoValueIsAllocated(t *testing.T) {
	rec := lineitem(32<<10, 1)
	w, err := format.NewParquet(io.Discard, rec.Schema(), format.ParquetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := testing.AllocsPerRun(20, func() {
		if err := w.Write(rec); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1000 {
		t.Errorf("%v allocations for %d rows of 16 columns", n, rec.NumRows())
	}
}

func TestAWideTableKeepsItsOpenPagesSmall(t *testing.T) {
	var fields []arrow.Field
	for i := range 1600 {
		fields = append(fields, field(fmt.Sprint("c", i), arrow.BinaryTypes.String, true, ""))
	}
	schema := arrow.NewSchema(fields, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for i := range fields {
		for row := range 100 {
			b.Field(i).(*array.StringBuilder).Append(fmt.Sprintf("value %d of column %d and some more, so that it is not too short", row*i, i))
		}
	}
	rec := b.NewRecordBatch()
	if got := allocated(func() { writeTo(t, io.Discard, format.ParquetOptions{}, rec, 30) }); got > 400<<20 {
		t.Errorf("1,600 columns take %d MiB", got>>20)
	} else {
		t.Logf("1,600 columns take %d MiB", got>>20)
	}
}
