package format

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/bits"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/decimal256"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// avroAppender appends the value at index i of the array it was made for.
type avroAppender func(b []byte, i int) []byte

// avroEncoder makes the appender of an array. Which encoder a column has is decided once, by
// its type; what is left for each value is a call.
type avroEncoder func(arr arrow.Array) avroAppender

// avroArrayAs is arr by its own type. A Write looks at all types before it encodes.
func avroArrayAs[A arrow.Array](arr arrow.Array) A {
	typed, _ := arr.(A)
	return typed
}

// avroNullable encodes the union of null and a type: the branch, 0 or 1, then the value.
func avroNullable(inner avroEncoder) avroEncoder {
	return func(arr arrow.Array) avroAppender {
		value := inner(arr)
		if arr.NullN() == 0 {
			return func(b []byte, i int) []byte { return value(append(b, 2), i) }
		}
		validity, offset := arr.NullBitmapBytes(), arr.Data().Offset()
		return func(b []byte, i int) []byte {
			if bitutil.BitIsNotSet(validity, offset+i) {
				return append(b, 0)
			}
			return value(append(b, 2), i)
		}
	}
}

// avroRequired encodes a plain type and reports a NULL, which has no form in it. NULLs are
// looked for value by value, because an array inside a NULL parent may hold some that nobody sees.
func avroRequired(inner avroEncoder, path string, report *error) avroEncoder {
	return func(arr arrow.Array) avroAppender {
		value := inner(arr)
		if arr.NullN() == 0 {
			return value
		}
		validity, offset := arr.NullBitmapBytes(), arr.Data().Offset()
		return func(b []byte, i int) []byte {
			if bitutil.BitIsNotSet(validity, offset+i) {
				*report = fault.New(fault.NullUnexpected, path, "a NULL in a column that is declared NOT NULL")
				return b
			}
			return value(b, i)
		}
	}
}

func avroNull(arrow.Array) avroAppender {
	return func(b []byte, _ int) []byte { return b }
}

func avroBool(arr arrow.Array) avroAppender {
	values := avroArrayAs[*array.Boolean](arr)
	return func(b []byte, i int) []byte {
		if values.Value(i) {
			return append(b, 1)
		}
		return append(b, 0)
	}
}

// avroInts serves int and long alike: both are zig-zag variable-length integers.
func avroInts[T int8 | int16 | int32 | int64 | uint8 | uint16 | uint32](arr arrow.Array) avroAppender {
	values := arrow.GetValues[T](arr.Data(), 1)
	return func(b []byte, i int) []byte { return binary.AppendVarint(b, int64(values[i])) }
}

func avroFloat32(arr arrow.Array) avroAppender {
	values := arrow.GetValues[float32](arr.Data(), 1)
	return func(b []byte, i int) []byte {
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(values[i]))
	}
}

func avroFloat64(arr arrow.Array) avroAppender {
	values := arrow.GetValues[float64](arr.Data(), 1)
	return func(b []byte, i int) []byte {
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(values[i]))
	}
}

// avroBytes serves strings and bytes, whose Arrow arrays lie alike and whose Avro form is
// the same: a length and the bytes.
func avroBytes[O int32 | int64](arr arrow.Array) avroAppender {
	if arr.Len() == 0 {
		return nil // an array without values may lack its buffers
	}
	var values []byte
	offsets := arrow.GetOffsets[O](arr.Data(), 1)
	if buffer := arr.Data().Buffers()[2]; buffer != nil {
		values = buffer.Bytes()
	}
	return func(b []byte, i int) []byte { return appendAvroBytes(b, values[offsets[i]:offsets[i+1]]) }
}

func appendAvroBytes[B []byte | string](b []byte, value B) []byte {
	b = binary.AppendVarint(b, int64(len(value)))
	if len(value) < scratch.Large {
		return append(b, value...)
	}
	return scratch.Append(b, []byte(value)) // bytes stay what they are, and no name is that long
}

// avroRoom is as many bytes as the values [from, to) take at most.
func avroRoom(arr arrow.Array, from, to int64) int {
	if from >= to {
		return 0
	}
	const head = 1 + binary.MaxVarintLen64 + 1 // the branch of a union, a length or a count, the end of an array
	n := int(to - from)
	switch a := arr.(type) {
	case array.ExtensionArray:
		return avroRoom(a.Storage(), from, to)
	case array.BinaryLike:
		last := int(to) - 1
		return n*head + int(a.ValueOffset64(last)-a.ValueOffset64(int(from))) + a.ValueLen(last)
	case *array.ListView, *array.LargeListView: // whose rows lie anywhere
		views, sum := a.(array.ListLike), n*head
		for row := from; row < to; row++ {
			first, end := views.ValueOffsets(int(row))
			sum += avroRoom(views.ListValues(), first, end)
		}
		return sum
	case array.ListLike:
		first, _ := a.ValueOffsets(int(from))
		_, end := a.ValueOffsets(int(to) - 1)
		return n*head + avroRoom(a.ListValues(), first, end)
	case *array.Struct:
		sum := n
		for i := range a.NumField() {
			sum += avroRoom(a.Field(i), from, to)
		}
		return sum
	case *array.Boolean:
		return n * 2
	}
	switch dt := arr.DataType().(type) {
	case *arrow.FixedSizeBinaryType: // a UUID of 16 bytes has 36 digits and hyphens
		return n * (head + dt.ByteWidth*5/2)
	case arrow.FixedWidthDataType: // a varint takes a byte for 7 bits
		return n * (3 + dt.Bytes()*5/4)
	}
	return n * head
}

func avroFixed(arr arrow.Array) avroAppender {
	values := avroArrayAs[*array.FixedSizeBinary](arr)
	return func(b []byte, i int) []byte { return appendAvroBytes(b, values.Value(i)) }
}

func avroUUID(arr arrow.Array) avroAppender {
	values := avroArrayAs[*array.FixedSizeBinary](arr)
	return func(b []byte, i int) []byte {
		v := values.Value(i)
		b = binary.AppendVarint(b, 36)
		b = append(hex.AppendEncode(b, v[0:4]), '-')
		b = append(hex.AppendEncode(b, v[4:6]), '-')
		b = append(hex.AppendEncode(b, v[6:8]), '-')
		b = append(hex.AppendEncode(b, v[8:10]), '-')
		return hex.AppendEncode(b, v[10:16])
	}
}

func avroDecimal128(arr arrow.Array) avroAppender {
	values := arrow.GetValues[decimal128.Num](arr.Data(), 1)
	return func(b []byte, i int) []byte {
		return appendAvroDecimal(b, []uint64{values[i].LowBits(), uint64(values[i].HighBits())})
	}
}

func avroDecimal256(arr arrow.Array) avroAppender {
	values := arrow.GetValues[decimal256.Num](arr.Data(), 1)
	return func(b []byte, i int) []byte {
		words := values[i].Array()
		return appendAvroDecimal(b, words[:])
	}
}

// appendAvroDecimal appends a two's complement number, given as words with the lowest
// first, as big-endian bytes, as few as keep its sign: what Java's BigInteger makes too.
func appendAvroDecimal(b []byte, words []uint64) []byte {
	top := len(words) - 1
	for top > 0 && int64(words[top]) == int64(words[top-1])>>63 {
		top--
	}
	high := int64(words[top])
	n := (bits.Len64(uint64(high^high>>63)) + 8) / 8 // its bits and one for the sign
	b = binary.AppendVarint(b, int64(n+8*top))
	for n--; n >= 0; n-- {
		b = append(b, byte(high>>(8*n)))
	}
	for top--; top >= 0; top-- {
		b = binary.BigEndian.AppendUint64(b, words[top])
	}
	return b
}

// avroArray encodes a list as one block of items and the empty block that ends it.
func avroArray(item avroEncoder) avroEncoder {
	return func(arr arrow.Array) avroAppender {
		list := avroArrayAs[array.ListLike](arr)
		value := item(list.ListValues())
		return func(b []byte, i int) []byte {
			from, to := list.ValueOffsets(i)
			if from < to {
				b = binary.AppendVarint(b, to-from)
			}
			for ; from < to; from++ {
				b = value(b, int(from))
			}
			return append(b, 0)
		}
	}
}

func avroMap(item avroEncoder) avroEncoder {
	return func(arr arrow.Array) avroAppender {
		m := avroArrayAs[*array.Map](arr)
		key, value := avroBytes[int32](m.Keys()), item(m.Items())
		return func(b []byte, i int) []byte {
			from, to := m.ValueOffsets(i)
			if from < to {
				b = binary.AppendVarint(b, to-from)
			}
			for ; from < to; from++ {
				b = value(key(b, int(from)), int(from))
			}
			return append(b, 0)
		}
	}
}

// avroStruct encodes a record: its fields one after another and nothing else.
func avroStruct(encoders []avroEncoder) avroEncoder {
	return func(arr arrow.Array) avroAppender {
		s := avroArrayAs[*array.Struct](arr)
		fields := make([]avroAppender, len(encoders))
		for i, encoder := range encoders {
			fields[i] = encoder(s.Field(i))
		}
		return func(b []byte, i int) []byte {
			for _, field := range fields {
				b = field(b, i)
			}
			return b
		}
	}
}
