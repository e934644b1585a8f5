package format_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/format"
)

// randomType nests the leaf types up to the given depth.
func randomType(rng *rand.Rand, depth int) arrow.DataType {
	types := leafTypes()
	names := slices.Sorted(maps.Keys(types))
	leaf := types[names[rng.IntN(len(names))]]
	if depth == 0 {
		return leaf
	}
	switch rng.IntN(6) {
	case 0:
		return arrow.ListOf(randomType(rng, depth-1))
	case 1:
		return arrow.LargeListOf(randomType(rng, depth-1))
	case 2:
		return arrow.StructOf(field("a", randomType(rng, depth-1), true, ""), field("b", randomType(rng, depth-1), true, ""))
	case 3:
		return arrow.MapOf(arrow.BinaryTypes.String, randomType(rng, depth-1))
	}
	return leaf
}

func FuzzParquetRoundTrip(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed, uint16(seed*97), uint16(1<<(seed%14)), uint32(1000<<seed%10), uint8(seed), uint8(seed*13), uint32(1)<<seed)
	}
	codecs := []format.Compression{format.CodecSnappy, format.CodecNone, format.CodecZstd, format.CodecGzip}
	f.Fuzz(func(t *testing.T, seed uint64, rows, pageBytes uint16, rowGroupBytes uint32, codec, nulls uint8, distinct uint32) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var fields []arrow.Field
		for i := range 1 + rng.IntN(4) {
			dt := randomType(rng, rng.IntN(4))
			fields = append(fields, field(fmt.Sprint("c", i), dt, dt == arrow.Null || rng.IntN(2) == 0, ""))
		}
		schema := arrow.NewSchema(fields, nil)
		p := func(int) *pattern {
			return &pattern{rng: rng, distinct: 1 + int(distinct), nulls: float64(nulls) / 255, repeat: rng.Float64()}
		}
		recs := []arrow.RecordBatch{randomRecord(schema, int(rows)%2000, p), randomRecord(schema, rng.IntN(500), p)}
		if n := recs[0].NumRows(); n > 0 {
			from := rng.Int64N(n)
			recs = append(recs, recs[0].NewSlice(from, from+rng.Int64N(n-from+1)))
		}
		opts := format.ParquetOptions{
			Compression: codecs[int(codec)%len(codecs)], PageBytes: int64(pageBytes), RowGroupBytes: max(2000, int64(rowGroupBytes)),
		}
		holdsRecords(t, writeParquet(t, schema, opts, recs...), recs...)
	})
}
