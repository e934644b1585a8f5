package format_test

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
)

// leafTypes are all Arrow types that the Parquet writer carries without nesting.
func leafTypes() map[string]arrow.DataType {
	return map[string]arrow.DataType{
		"bool": arrow.FixedWidthTypes.Boolean,
		"i8":   arrow.PrimitiveTypes.Int8, "i16": arrow.PrimitiveTypes.Int16,
		"i32": arrow.PrimitiveTypes.Int32, "i64": arrow.PrimitiveTypes.Int64,
		"u8": arrow.PrimitiveTypes.Uint8, "u16": arrow.PrimitiveTypes.Uint16,
		"u32": arrow.PrimitiveTypes.Uint32, "u64": arrow.PrimitiveTypes.Uint64,
		"f32": arrow.PrimitiveTypes.Float32, "f64": arrow.PrimitiveTypes.Float64,
		"dec1":   &arrow.Decimal128Type{Precision: 1, Scale: 0},
		"dec9":   &arrow.Decimal128Type{Precision: 9, Scale: 9},
		"dec10":  &arrow.Decimal128Type{Precision: 10, Scale: 2},
		"dec18":  &arrow.Decimal128Type{Precision: 18, Scale: 2},
		"dec19":  &arrow.Decimal128Type{Precision: 19, Scale: 3},
		"dec38":  &arrow.Decimal128Type{Precision: 38, Scale: 10},
		"dec76":  &arrow.Decimal256Type{Precision: 76, Scale: 5},
		"str":    arrow.BinaryTypes.String,
		"lstr":   arrow.BinaryTypes.LargeString,
		"bin":    arrow.BinaryTypes.Binary,
		"lbin":   arrow.BinaryTypes.LargeBinary,
		"fixed":  &arrow.FixedSizeBinaryType{ByteWidth: 5},
		"date":   arrow.FixedWidthTypes.Date32,
		"tms":    arrow.FixedWidthTypes.Time32ms,
		"tus":    arrow.FixedWidthTypes.Time64us,
		"ts":     &arrow.TimestampType{Unit: arrow.Microsecond},
		"tstz":   &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"},
		"tsms":   &arrow.TimestampType{Unit: arrow.Millisecond, TimeZone: "UTC"},
		"tsns":   &arrow.TimestampType{Unit: arrow.Nanosecond},
		"nil":    arrow.Null,
		"nested": arrow.StructOf(arrow.Field{Name: "a", Type: arrow.PrimitiveTypes.Int32}, arrow.Field{Name: "b", Type: arrow.BinaryTypes.String, Nullable: true}),
	}
}

// field is a column of the type, with the metadata that belongs to some.
func field(name string, dt arrow.DataType, nullable bool, logical string) arrow.Field {
	f := arrow.Field{Name: name, Type: dt, Nullable: nullable}
	if logical != "" {
		f.Metadata = arrow.NewMetadata([]string{change.LogicalKey}, []string{logical})
	}
	return f
}

// pattern says how a column's random values spread: it decides between dictionary, runs and plain.
type pattern struct {
	rng      *rand.Rand
	distinct int     // values are drawn from so many
	nulls    float64 // share of nulls
	repeat   float64 // chance that a value is the one before
	last     uint64
}

// draw returns the number that the next value is made from.
func (p *pattern) draw() uint64 {
	if p.rng.Float64() >= p.repeat {
		// Multiplying spreads few numbers over all 64 bits, extremes among them.
		p.last = uint64(p.rng.IntN(p.distinct)) * 0x9E3779B97F4A7C15
		if p.rng.IntN(50) == 0 {
			p.last = []uint64{0, 1, math.MaxInt64, 1 << 63, math.MaxUint64, math.MaxInt32, 1 << 31}[p.rng.IntN(7)]
		}
	}
	return p.last
}

// randomRecord fills a record of n rows.
func randomRecord(schema *arrow.Schema, n int, pattern func(column int) *pattern) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for i, f := range schema.Fields() {
		p := pattern(i)
		for range n {
			appendRandom(b.Field(i), f, p)
		}
	}
	return b.NewRecordBatch()
}

func appendRandom(b array.Builder, f arrow.Field, p *pattern) {
	if f.Nullable && p.rng.Float64() < p.nulls {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.StructBuilder:
		b.Append(true)
		for i, c := range f.Type.(*arrow.StructType).Fields() {
			appendRandom(b.FieldBuilder(i), c, p)
		}
	case *array.MapBuilder:
		b.Append(true)
		dt := f.Type.(*arrow.MapType)
		for range p.rng.IntN(4) {
			appendRandom(b.KeyBuilder(), arrow.Field{Type: dt.KeyType()}, p)
			appendRandom(b.ItemBuilder(), dt.ItemField(), p)
		}
	case *array.ListBuilder:
		b.Append(true)
		for range p.rng.IntN(4) {
			appendRandom(b.ValueBuilder(), f.Type.(*arrow.ListType).ElemField(), p)
		}
	case *array.LargeListBuilder:
		b.Append(true)
		for range p.rng.IntN(4) {
			appendRandom(b.ValueBuilder(), f.Type.(*arrow.LargeListType).ElemField(), p)
		}
	default:
		appendScalar(b, p.draw())
	}
}

func appendScalar(b array.Builder, v uint64) {
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(v>>63 == 1)
	case *array.Int8Builder:
		b.Append(int8(v))
	case *array.Int16Builder:
		b.Append(int16(v))
	case *array.Int32Builder:
		b.Append(int32(v))
	case *array.Int64Builder:
		b.Append(int64(v))
	case *array.Uint8Builder:
		b.Append(uint8(v))
	case *array.Uint16Builder:
		b.Append(uint16(v))
	case *array.Uint32Builder:
		b.Append(uint32(v))
	case *array.Uint64Builder:
		b.Append(v)
	case *array.Float32Builder:
		b.Append(math.Float32frombits(uint32(v)))
	case *array.Float64Builder:
		b.Append(math.Float64frombits(v))
	case *array.Date32Builder:
		b.Append(arrow.Date32(v))
	case *array.Time32Builder:
		b.Append(arrow.Time32(v % 86_400_000))
	case *array.Time64Builder:
		b.Append(arrow.Time64(v % 86_400_000_000))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v))
	case *array.StringBuilder:
		b.Append(text(v))
	case *array.LargeStringBuilder:
		b.Append(text(v))
	case *array.FixedSizeBinaryBuilder:
		out := make([]byte, b.Type().(*arrow.FixedSizeBinaryType).ByteWidth)
		for i := range out {
			out[i] = byte(v >> (8 * (i % 8)))
		}
		b.Append(out)
	case *array.Decimal128Builder:
		b.Append(decimal(v, b.Type().(*arrow.Decimal128Type).Precision))
	case *array.Decimal256Builder:
		d := decimal256.FromDecimal128(decimal(v, 38))
		b.Append(d.Mul(decimal256.FromDecimal128(decimal(v^1, 38))))
	case *array.BinaryBuilder: // LargeBinary has the same builder
		b.Append([]byte(text(v))[:int(v%5)*len(text(v))/4])
	case *array.NullBuilder:
		b.AppendNull()
	default:
		panic(fmt.Sprintf("no random value for %T", b))
	}
}

// decimal makes a number of either sign within the precision, often near its ends.
func decimal(v uint64, precision int32) decimal128.Num {
	n := decimal128.New(int64(v), v*31).Abs()
	limit := decimal128.GetScaleMultiplier(int(precision))
	_, n = n.Div(limit)
	n = n.Abs()
	if v%7 == 0 {
		n = limit.Sub(decimal128.FromI64(1))
	}
	if v&1 == 1 {
		n = n.Negate()
	}
	return n
}

// text is valid UTF-8 of zero to two hundred bytes with characters of one to four bytes.
func text(v uint64) string {
	const stock = "añ€𐍈z\x00\U0010FFFFäpfel und birnen, 日本語 "
	r := []rune(stock)
	out := make([]rune, v%64)
	for i := range out {
		out[i] = r[(v>>(i%32)+uint64(i))%uint64(len(r))]
	}
	return string(out)
}
