package format_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/format"
)

// Of a page that does not shrink the next is stored as it is, later three, then seven; what shrinks is compressed again.
func TestPagesThatDoNotShrinkAreStored(t *testing.T) {
	t.Parallel()
	const perPage = 9 // values of 1,000 bytes in a page of 10,000
	schema := arrow.NewSchema([]arrow.Field{field("b", arrow.BinaryTypes.Binary, true, ""), field("id", arrow.PrimitiveTypes.Int32, false, "")}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	rng := rand.New(rand.NewPCG(8, 8))
	id := int32(0)
	pages := func(n int, noisy bool) {
		for range n * perPage {
			value := []byte(strings.Repeat("a", 1000))
			for i := range value {
				if noisy {
					value[i] = byte(rng.Uint32())
				}
			}
			b.Field(0).(*array.BinaryBuilder).Append(value)
			b.Field(1).(*array.Int32Builder).Append(id)
			id++
		}
	}
	pages(1, true)
	pages(3, false)
	pages(40, true)
	pages(20, false)
	rec := b.NewRecordBatch()
	for codec, stores := range map[format.Compression]bool{format.CodecZstd: true, format.CodecGzip: true, format.CodecSnappy: false} {
		t.Run(string(codec), func(t *testing.T) {
			t.Parallel()
			data := writeParquet(t, schema, format.ParquetOptions{Compression: codec, PageBytes: 10_000}, rec)
			holdsRecords(t, data, rec)
			judge(t, "types", data, []arrow.RecordBatch{rec})
			_, offsets := pageIndex(t, data, 0)
			sizes := offsets.GetPageLocations()
			if len(sizes) != 64 {
				t.Fatalf("there are %d pages", len(sizes))
			}
			shrunk := func(from, to int) (n int) {
				for _, p := range sizes[from:to] {
					if p.CompressedPageSize < 5000 {
						n++
					}
				}
				return n
			}
			if got := shrunk(1, 2); got == 1 == stores {
				t.Error("the page after one that does not shrink: shrunk pages", got)
			}
			if got := shrunk(2, 4); got != 2 {
				t.Errorf("%d of the next two shrank", got)
			}
			if got := shrunk(44, 64); got < 13 || !stores && got < 20 {
				t.Errorf("%d of 20 shrank after many that did not", got)
			}
		})
	}
}

// A page that the dictionary cannot take goes in PLAIN form and leaves nothing of itself in the dictionary; so does one with a large value.
func TestADictionaryHoldsWhatItsPagesUse(t *testing.T) {
	t.Parallel()
	schema := arrow.NewSchema([]arrow.Field{field("s", arrow.BinaryTypes.String, true, "")}, nil)
	for name, c := range map[string]struct {
		page  int64
		most  int64 // bytes of the dictionary
		value func(i int) string
	}{
		"many values": {0, 700_000, func(i int) string { // ten, then some on the second page, then more than a dictionary takes
			if i < 33_000 {
				return fmt.Sprintf("%040d", i%10)
			}
			return fmt.Sprintf("%040d", i)
		}},
		"a large value": {10_000, 1000, func(i int) string {
			if i == 50_000 {
				return strings.Repeat("large", 10_000)
			}
			return fmt.Sprintf("%040d", i%10)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
			for i := range 80_000 {
				b.Field(0).(*array.StringBuilder).Append(c.value(i))
			}
			rec := b.NewRecordBatch()
			data := writeParquet(t, schema, format.ParquetOptions{Compression: format.CodecNone, PageBytes: c.page}, rec)
			holdsRecords(t, data, rec)
			chunk, err := openParquet(t, data).MetaData().RowGroup(0).ColumnChunk(0)
			if err != nil {
				t.Fatal(err)
			}
			if size := chunk.DataPageOffset() - chunk.DictionaryPageOffset(); !chunk.HasDictionaryPage() || size > c.most {
				t.Errorf("the dictionary has %d bytes", size)
			}
			var encodings []string
			for _, s := range chunk.EncodingStats() {
				if s.PageType == 0 {
					encodings = append(encodings, s.Encoding.String())
				}
			}
			if len(encodings) != 2 {
				t.Errorf("the pages are encoded as %v", encodings)
			}
		})
	}
}
