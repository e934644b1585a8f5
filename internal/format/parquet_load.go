package format

import (
	"encoding/binary"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"
)

// staged holds the values of a column's open page, nulls left out.
type staged struct {
	n   int     // values, however they are held
	i32 []int32 // INT32, and the bits of FLOAT
	i64 []int64 // INT64, and the bits of DOUBLE
	buf []byte  // BYTE_ARRAY and FIXED_LEN_BYTE_ARRAY in PLAIN form; BOOLEAN, one byte each

	// Values of bigSize bytes and more are not copied: large holds them, in order, as they
	// lie in Arrow's buffers, and the page ends before the record is given back.
	large   []largeValue
	bigSize int
}

// largeValue is a value left where it is. Its bytes belong at offset at of staged.buf, which
// holds its length before that.
type largeValue struct {
	at    int
	value []byte
}

func (s *staged) reset() {
	s.n, s.i32, s.i64 = 0, s.i32[:0], s.i64[:0]
	s.buf = reusable(s.buf)
	clear(s.large)
	s.large = s.large[:0]
}

// reusable empties a buffer for its next use, or lets it go where one page needed far more
// than pages do.
func reusable(b []byte) []byte {
	if cap(b) > maxKept {
		return nil
	}
	return b[:0]
}

// loader stages n slots of an array from off on; none of them is null.
type loader func(s *staged, arr arrow.Array, off, n int)

func loadNothing(*staged, arrow.Array, int, int) {}

func loadBool(s *staged, arr arrow.Array, off, n int) {
	s.n += n
	data := arr.Data()
	bits, from := data.Buffers()[1].Bytes(), data.Offset()+off
	for i := from; i < from+n; i++ {
		var b byte
		if bitutil.BitIsSet(bits, i) {
			b = 1
		}
		s.buf = append(s.buf, b)
	}
}

// loadInt32 takes any array of 32-bit values by their bits.
func loadInt32(s *staged, arr arrow.Array, off, n int) {
	s.n += n
	data := arr.Data()
	off += data.Offset()
	s.i32 = append(s.i32, arrow.Int32Traits.CastFromBytes(data.Buffers()[1].Bytes())[off:off+n]...)
}

// loadInt64 takes any array of 64-bit values by their bits.
func loadInt64(s *staged, arr arrow.Array, off, n int) {
	s.n += n
	data := arr.Data()
	off += data.Offset()
	s.i64 = append(s.i64, arrow.Int64Traits.CastFromBytes(data.Buffers()[1].Bytes())[off:off+n]...)
}

// widen is the loader of integers narrower than 32 bits.
func widen[T int8 | int16 | uint8 | uint16](values func(arrow.Array) []T) loader {
	return func(s *staged, arr arrow.Array, off, n int) {
		s.n += n
		for _, v := range values(arr)[off : off+n] {
			s.i32 = append(s.i32, int32(v))
		}
	}
}

func loaderOfInt(dt arrow.DataType) loader {
	switch dt.ID() {
	case arrow.INT8:
		return widen(func(a arrow.Array) []int8 { return a.(*array.Int8).Int8Values() })
	case arrow.UINT8:
		return widen(func(a arrow.Array) []uint8 { return a.(*array.Uint8).Uint8Values() })
	case arrow.INT16:
		return widen(func(a arrow.Array) []int16 { return a.(*array.Int16).Int16Values() })
	case arrow.UINT16:
		return widen(func(a arrow.Array) []uint16 { return a.(*array.Uint16).Uint16Values() })
	case arrow.INT32, arrow.UINT32:
		return loadInt32
	}
	return loadInt64
}

func loadDecimal32(s *staged, arr arrow.Array, off, n int) {
	s.n += n
	for _, v := range arr.(*array.Decimal128).Values()[off : off+n] {
		s.i32 = append(s.i32, int32(v.LowBits()))
	}
}

func loadDecimal64(s *staged, arr arrow.Array, off, n int) {
	s.n += n
	at := len(s.i64)
	s.i64 = slices.Grow(s.i64, n)[:at+n]
	out := s.i64[at:]
	for i, v := range arr.(*array.Decimal128).Values()[off : off+n] {
		out[i] = int64(v.LowBits())
	}
}

// decimalLoader writes decimals as big-endian two's complement of width bytes. What it cuts
// off in front repeats the sign, because a decimal is no longer than its precision.
func decimalLoader(dt arrow.DecimalType, width int) loader {
	if dt.ID() == arrow.DECIMAL128 {
		return func(s *staged, arr arrow.Array, off, n int) {
			s.n += n
			var be [16]byte
			for _, v := range arr.(*array.Decimal128).Values()[off : off+n] {
				binary.BigEndian.PutUint64(be[:], uint64(v.HighBits()))
				binary.BigEndian.PutUint64(be[8:], v.LowBits())
				s.buf = append(s.buf, be[16-width:]...)
			}
		}
	}
	return func(s *staged, arr arrow.Array, off, n int) {
		s.n += n
		var be [32]byte
		for _, v := range arr.(*array.Decimal256).Values()[off : off+n] {
			for i, word := range v.Array() { // least significant first
				binary.BigEndian.PutUint64(be[24-8*i:], word)
			}
			s.buf = append(s.buf, be[32-width:]...)
		}
	}
}

func loadFixed(s *staged, arr arrow.Array, off, n int) {
	s.n += n
	data := arr.Data()
	w := data.DataType().(*arrow.FixedSizeBinaryType).ByteWidth
	off += data.Offset()
	s.buf = append(s.buf, data.Buffers()[1].Bytes()[off*w:(off+n)*w]...)
}

// loadBytes takes strings and binaries, with offsets of 32 or 64 bits.
func loadBytes(s *staged, arr arrow.Array, off, n int) {
	s.n += n
	if short, long, bytes := byteValues(arr, off, n); long != nil {
		stageBytes(s, long, bytes)
	} else {
		stageBytes(s, short, bytes)
	}
}

// byteValues are the offsets of n strings or binaries from off on, of 32 or of 64 bits, and what they point into.
func byteValues(arr arrow.Array, off, n int) (short []int32, long []int64, bytes []byte) {
	data := arr.Data()
	off += data.Offset()
	if b := data.Buffers()[2]; b != nil {
		bytes = b.Bytes()
	}
	offsets := data.Buffers()[1].Bytes()
	if id := data.DataType().ID(); id == arrow.LARGE_STRING || id == arrow.LARGE_BINARY {
		return nil, arrow.Int64Traits.CastFromBytes(offsets)[off : off+n+1], bytes
	}
	return arrow.Int32Traits.CastFromBytes(offsets)[off : off+n+1], nil, bytes
}

// find takes n strings or binaries into the open page by the chunk's dictionary, where its earlier pages are in it, and returns how many.
// They are fewer where the dictionary is full: then the whole page goes in PLAIN form.
func (c *column) find(arr arrow.Array, off, n int) int {
	if !c.dict || c.dictRows == 0 || c.phys != physBytes {
		return 0
	}
	if len(c.found) == 0 {
		c.distinct = len(c.strings.entries)
	}
	before := len(c.found)
	if short, long, bytes := byteValues(arr, off, n); long != nil {
		findBytes(c, long, bytes)
	} else {
		findBytes(c, short, bytes)
	}
	took := len(c.found) - before
	c.n += took
	if took < n {
		c.buf = c.strings.plain(c.buf, c.found)
		c.strings.truncate(c.distinct)
		c.dict, c.found = false, c.found[:0]
	}
	return took
}

// findBytes appends indexes to found until a value is large or has no room.
func findBytes[O int32 | int64](c *column, offsets []O, bytes []byte) {
	found, from := c.found, offsets[0]
	for _, to := range offsets[1:] {
		v := bytes[from:to]
		if len(v) >= c.bigSize {
			break
		}
		at := c.strings.enter(v)
		if at == 0 {
			break
		}
		found = append(found, at-1)
		from = to
	}
	c.found = found
}

func stageBytes[O int32 | int64](s *staged, offsets []O, bytes []byte) {
	n := len(offsets) - 1
	total := int(offsets[n] - offsets[0])
	if total >= s.bigSize {
		for i := range n {
			s.stageOne(bytes[offsets[i]:offsets[i+1]])
		}
		return
	}
	at := len(s.buf)
	s.buf = slices.Grow(s.buf, total+4*n)[:at+total+4*n]
	out := s.buf[at:]
	from := offsets[0]
	for _, to := range offsets[1:] {
		v := bytes[from:to]
		binary.LittleEndian.PutUint32(out, uint32(len(v)))
		out = out[4+copy(out[4:], v):]
		from = to
	}
}

func (s *staged) stageOne(v []byte) {
	s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(len(v)))
	if len(v) >= s.bigSize {
		s.large = append(s.large, largeValue{len(s.buf), v})
		return
	}
	s.buf = append(s.buf, v...)
}
