package format_test

import (
	"encoding/hex"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
)

// asDecoded is the value that an Avro reader should give for one of Arrow's. It goes by
// Arrow's own accessors, not by buffers as the writer does.
func asDecoded(arr arrow.Array, i int, f arrow.Field) any {
	if arr.IsNull(i) {
		return nil
	}
	switch a := arr.(type) {
	case *array.Null:
		return nil
	case *array.Boolean:
		return a.Value(i)
	case *array.Int8:
		return int32(a.Value(i))
	case *array.Int16:
		return int32(a.Value(i))
	case *array.Int32:
		return a.Value(i)
	case *array.Int64:
		return a.Value(i)
	case *array.Uint8:
		return int32(a.Value(i))
	case *array.Uint16:
		return int32(a.Value(i))
	case *array.Uint32:
		return int64(a.Value(i))
	case *array.Float32:
		return a.Value(i)
	case *array.Float64:
		return a.Value(i)
	case *array.String:
		return a.Value(i)
	case *array.LargeString:
		return a.Value(i)
	case *array.Binary:
		return a.Value(i)
	case *array.LargeBinary:
		return a.Value(i)
	case *array.FixedSizeBinary:
		if text := hex.EncodeToString(a.Value(i)); change.Logical(f) == change.LogicalUUID {
			return text[:8] + "-" + text[8:12] + "-" + text[12:16] + "-" + text[16:20] + "-" + text[20:]
		}
		return a.Value(i)
	case *array.Date32:
		return time.Unix(int64(a.Value(i))*86400, 0).UTC()
	case *array.Time64:
		return time.Duration(a.Value(i)) * time.Microsecond
	case *array.Timestamp:
		return time.UnixMicro(int64(a.Value(i))).UTC()
	case *array.Decimal128:
		return rational(a.Value(i).BigInt(), f.Type.(*arrow.Decimal128Type).Scale)
	case *array.Decimal256:
		return rational(a.Value(i).BigInt(), f.Type.(*arrow.Decimal256Type).Scale)
	}
	return nestedAsDecoded(arr, i, f)
}

func nestedAsDecoded(arr arrow.Array, i int, f arrow.Field) any {
	switch a := arr.(type) {
	case *array.Struct:
		record := map[string]any{}
		for c, inner := range f.Type.(*arrow.StructType).Fields() {
			record[inner.Name] = asDecoded(a.Field(c), i, inner)
		}
		return record
	case *array.Map:
		entries := map[string]any{}
		for from, to := a.ValueOffsets(i); from < to; from++ {
			entries[a.Keys().(*array.String).Value(int(from))] = asDecoded(a.Items(), int(from), f.Type.(*arrow.MapType).ItemField())
		}
		return entries
	case array.ListLike:
		items := []any{}
		for from, to := a.ValueOffsets(i); from < to; from++ {
			items = append(items, asDecoded(a.ListValues(), int(from), f.Type.(arrow.ListLikeType).ElemField()))
		}
		return items
	}
	panic(fmt.Sprintf("no expectation for %T", arr))
}

func rational(n *big.Int, scale int32) *big.Rat {
	return new(big.Rat).SetFrac(n, new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(scale)), nil))
}

// avroLeaves are the types without nesting that both Avro and the random records have.
func avroLeaves() []arrow.Field {
	var fields []arrow.Field
	for name, dt := range leafTypes() {
		switch name {
		case "u64", "tms", "tsms", "tsns": // what Avro lacks
		default:
			fields = append(fields, arrow.Field{Name: name, Type: dt})
		}
	}
	fields = append(fields, field("uuid", &arrow.FixedSizeBinaryType{ByteWidth: 16}, false, change.LogicalUUID))
	slices.SortFunc(fields, func(a, b arrow.Field) int { return strings.Compare(a.Name, b.Name) })
	return fields
}

// randomAvroSchema draws up to a dozen columns, some of them nested.
func randomAvroSchema(rng *rand.Rand) *arrow.Schema {
	leaves := avroLeaves()
	var fields []arrow.Field
	for c := range rng.IntN(12) {
		f := leaves[rng.IntN(len(leaves))]
		for range rng.IntN(3) {
			f.Nullable = rng.IntN(3) > 0
			f.Name = "inner"
			switch rng.IntN(4) {
			case 0:
				f = arrow.Field{Type: arrow.ListOfField(f)}
			case 1:
				f = arrow.Field{Type: arrow.LargeListOfField(f)}
			case 2:
				f = arrow.Field{Type: arrow.StructOf(f, arrow.Field{Name: "other", Type: arrow.PrimitiveTypes.Int64, Nullable: true})}
			case 3:
				m := arrow.MapOf(arrow.BinaryTypes.String, f.Type)
				m.SetItemNullable(f.Nullable)
				if change.Logical(f) == "" { // Arrow's builder of maps keeps no metadata of items
					f = arrow.Field{Type: m}
				}
			}
		}
		f.Name, f.Nullable = fmt.Sprint("column", c), rng.IntN(3) > 0
		fields = append(fields, f)
	}
	return arrow.NewSchema(fields, nil)
}

func FuzzAvroRoundTrip(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(seed, uint16(seed*7), uint16(seed*100))
	}
	codecs := []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecDeflate, format.CodecZstd}
	f.Fuzz(func(t *testing.T, seed uint64, n, blockBytes uint16) {
		rng := rand.New(rand.NewPCG(seed, 7))
		schema := randomAvroSchema(rng)
		rec := randomRecord(schema, int(n%600), func(int) *pattern {
			return &pattern{rng: rng, distinct: 1 + rng.IntN(1000), nulls: rng.Float64() / 2}
		})
		cut := rng.Int64N(rec.NumRows() + 1)
		opts := format.AvroOptions{Compression: codecs[rng.IntN(len(codecs))], BlockBytes: int(blockBytes)}
		file := writeAvro(t, schema, opts, rec.NewSlice(0, cut), rec.NewSlice(cut, rec.NumRows()))
		rows := readAvro(t, file)
		if int64(len(rows)) != rec.NumRows() {
			t.Fatalf("%d rows read back, want %d", len(rows), rec.NumRows())
		}
		for i, row := range rows {
			for c, column := range schema.Fields() {
				got, want := shown(row[column.Name]), shown(asDecoded(rec.Column(c), i, column))
				if got != want {
					t.Fatalf("row %d of a column of type %s reads %s, want %s", i, column.Type, got, want)
				}
			}
		}
	})
}
