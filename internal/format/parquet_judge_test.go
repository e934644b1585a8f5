package format_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
)

// judge lets pyarrow and DuckDB read a Parquet file beside the same rows in an Arrow file.
func judge(t *testing.T, verb string, parquet []byte, other any) {
	t.Helper()
	python := os.Getenv("LEAT_TEST_PYTHON")
	if python == "" {
		t.Skip("LEAT_TEST_PYTHON does not name a python with pyarrow and duckdb: the judges that are not ours stay away")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file.parquet")
	if err := os.WriteFile(file, parquet, 0o600); err != nil {
		t.Fatal(err)
	}
	arg := fmt.Sprint(other)
	if recs, ok := other.([]arrow.RecordBatch); ok {
		arg = filepath.Join(dir, "file.arrow")
		writeIPC(t, arg, recs)
	}
	out, err := exec.CommandContext(t.Context(), python, "testdata/judge.py", verb, file, arg).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("judged (%v):\n%.8000s", err, out)
	}
}

func writeIPC(t *testing.T, name string, recs []arrow.RecordBatch) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(recs[0].Schema()))
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
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestOthersReadEveryType(t *testing.T) {
	t.Parallel()
	for name, spread := range spreads {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fields []arrow.Field
			for typeName, dt := range leafTypes() {
				if dt.ID() == arrow.TIME32 || dt.ID() == arrow.STRUCT {
					continue
				}
				fields = append(fields, field(typeName, dt, true, ""), field("list_"+typeName, arrow.ListOf(arrow.ListOf(dt)), true, ""))
			}
			fields = append(fields, field("map", arrow.MapOf(arrow.PrimitiveTypes.Int64, arrow.BinaryTypes.String), true, ""),
				field("struct", leafTypes()["nested"], true, ""), field("structs", arrow.ListOf(leafTypes()["nested"]), true, ""))
			schema := arrow.NewSchema(fields, nil)
			rng := rand.New(rand.NewPCG(11, uint64(len(name))))
			p := func(int) *pattern { q := spread; q.rng = rng; return &q }
			recs := []arrow.RecordBatch{randomRecord(schema, 900, p), randomRecord(schema, 300, p)}
			judge(t, "types", writeParquet(t, schema, format.ParquetOptions{PageBytes: 3000, RowGroupBytes: 500_000}, recs...), recs)
		})
	}
}

// shop is a table such as people have: orders that grow, prices, names, moments, with nulls here and there.
func shop(rows, seed int) arrow.RecordBatch {
	schema := arrow.NewSchema([]arrow.Field{
		field("id", arrow.PrimitiveTypes.Int64, false, ""),
		field("bloom_part", arrow.PrimitiveTypes.Int32, true, ""),
		field("bloom_name", arrow.BinaryTypes.String, true, ""),
		field("price", &arrow.Decimal128Type{Precision: 9, Scale: 2}, true, ""),
		field("total", &arrow.Decimal128Type{Precision: 15, Scale: 2}, true, ""),
		field("big", &arrow.Decimal128Type{Precision: 30, Scale: 6}, true, ""),
		field("day", arrow.FixedWidthTypes.Date32, true, ""),
		field("at", &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, true, ""),
		field("local", &arrow.TimestampType{Unit: arrow.Microsecond}, true, ""),
		field("clock", arrow.FixedWidthTypes.Time64us, true, ""),
		field("ratio", arrow.PrimitiveTypes.Float64, true, ""),
		field("single", arrow.PrimitiveTypes.Float32, true, ""),
		field("flag", arrow.FixedWidthTypes.Boolean, true, ""),
		field("status", arrow.BinaryTypes.String, true, change.LogicalEnum),
		field("comment", arrow.BinaryTypes.String, true, ""),
		field("long", arrow.BinaryTypes.String, true, ""),
		field("small", arrow.PrimitiveTypes.Int16, true, ""),
		field("u32", arrow.PrimitiveTypes.Uint32, true, ""),
		field("u64", arrow.PrimitiveTypes.Uint64, true, ""),
		field("tags", arrow.ListOf(arrow.BinaryTypes.String), true, ""),
	}, nil)
	rng := rand.New(rand.NewPCG(21, uint64(seed)))
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i := range rows {
		id := seed*rows + i
		appendShopRow(b, rng, id)
	}
	return b.NewRecordBatch()
}

func appendShopRow(b *array.RecordBuilder, rng *rand.Rand, id int) {
	for c := range b.Fields() {
		if c > 0 && rng.IntN(17) == 0 {
			b.Field(c).AppendNull()
			continue
		}
		switch f := b.Field(c).(type) {
		case *array.Int64Builder:
			f.Append(int64(id))
		case *array.Int32Builder:
			f.Append(int32(rng.IntN(5000)))
		case *array.Int16Builder:
			f.Append(int16(rng.IntN(600) - 300))
		case *array.Uint32Builder:
			f.Append(rng.Uint32())
		case *array.Uint64Builder:
			f.Append(rng.Uint64())
		case *array.Decimal128Builder:
			n := decimal128.FromI64(rng.Int64N(2e8) - 1e8)
			if f.Type().(*arrow.Decimal128Type).Precision == 30 {
				n = n.Mul(decimal128.FromI64(rng.Int64N(1e18)))
			}
			f.Append(n)
		case *array.Date32Builder:
			f.Append(arrow.Date32(19000 + id/100 - rng.IntN(9)))
		case *array.TimestampBuilder:
			f.Append(arrow.Timestamp(1.7e15 + float64(id)*1e6 - float64(rng.IntN(1e8))))
		case *array.Time64Builder:
			f.Append(arrow.Time64(rng.Int64N(86_400_000_000)))
		case *array.Float64Builder:
			f.Append([]float64{rng.NormFloat64(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), math.NaN()}[max(0, rng.IntN(40)-34)])
		case *array.Float32Builder:
			f.Append(float32(rng.NormFloat64()))
		case *array.BooleanBuilder:
			f.Append(rng.IntN(2) == 0)
		case *array.StringBuilder:
			if b.Schema().Field(c).Name == "long" { // no bound is whole
				f.Append(fmt.Sprintf("%0*d", 65+rng.IntN(20), rng.IntN(1e9)))
				continue
			}
			f.Append([]string{"new", "paid", "value " + strings.Repeat("x", rng.IntN(90)), fmt.Sprintf("caſe %d", rng.IntN(1e6))}[rng.IntN(4)])
		case *array.ListBuilder:
			f.Append(true)
			for range rng.IntN(3) {
				f.ValueBuilder().(*array.StringBuilder).Append(text(rng.Uint64() % 12))
			}
		default:
			panic(fmt.Sprintf("no value for %T", f))
		}
	}
}

func TestOthersFindTheSameRowsBySkippingPages(t *testing.T) {
	t.Parallel()
	for _, c := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecZstd, format.CodecGzip} {
		t.Run(string(c), func(t *testing.T) {
			t.Parallel()
			recs := []arrow.RecordBatch{shop(6000, 0), shop(6000, 1), shop(6000, 2)}
			opts := format.ParquetOptions{Compression: c, PageBytes: 10_000, RowGroupBytes: 900_000, Bloom: []string{"bloom_part", "bloom_name"}}
			verb := "types"
			if c == format.CodecZstd || os.Getenv("LEAT_TEST_LONG") != "" { // what is skipped does not depend on the codec
				verb = "shop"
			}
			judge(t, verb, writeParquet(t, recs[0].Schema(), opts, recs...), recs)
		})
	}
}

func TestOthersReadFilesWithoutRowsOrColumns(t *testing.T) {
	t.Parallel()
	one := arrow.NewSchema([]arrow.Field{field("a", arrow.PrimitiveTypes.Int32, true, "")}, nil)
	none := arrow.NewSchema(nil, nil)
	for name, c := range map[string]struct {
		schema *arrow.Schema
		rows   int64
	}{
		"no rows":                 {one, 0},
		"no columns":              {none, 7},
		"neither":                 {none, 0},
		"no columns, many groups": {none, 3 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var recs []arrow.RecordBatch
			if c.rows > 0 {
				recs = append(recs, array.NewRecordBatch(c.schema, nil, c.rows))
			}
			data := writeParquet(t, c.schema, format.ParquetOptions{}, recs...)
			if n := openParquet(t, data).NumRows(); n != c.rows {
				t.Errorf("arrow-go counts %d rows, not %d", n, c.rows)
			}
			judge(t, "bare", data, c.rows)
		})
	}
}
