package postgres

import (
	"encoding/binary"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/scratch"
)

// column collects the values of one column in Arrow's own layout, so that a batch is made
// without copying. The buffers are used again for the next batch.
type column struct {
	carrier
	n       int
	nulls   int
	valid   []byte  // bitmap, least significant bit first; kept only once there is a null
	data    []byte  // fixed-width values, bits of booleans, or the bytes of strings
	offsets []int32 // strings and lists: n+1 of them
	child   *column
	scratch []byte // lists read from text: an element without its backslashes
	applied int64  // how often the policy was used since the reader began
}

func newColumn(c carrier) *column {
	col := &column{carrier: c}
	if c.op == opList {
		elem := *c.elem
		if c.dims > 1 { // each further dimension is a list of its own
			inner := c
			inner.dims--
			inner.arrow = c.arrow.(*arrow.ListType).Elem()
			elem = inner
		}
		col.child = newColumn(elem)
	}
	col.reset()
	return col
}

// keepBytes is the most a buffer may hold and still be kept for the next batch: one huge value must not
// occupy memory for the rest of a table.
const keepBytes = 4 << 20

// shortValue is the length from which a value is copied as scratch copies large ones.
const shortValue = 4 << 10

// kept is a buffer for the next batch, or nil where it has become too large.
func kept(b []byte) []byte {
	if cap(b) <= keepBytes {
		return b
	}
	scratch.Free(b)
	return nil
}

func (c *column) reset() {
	c.n, c.nulls = 0, 0
	c.valid = c.valid[:0]
	c.data, c.scratch = kept(c.data), kept(c.scratch)
	c.data = c.data[:0]
	if c.op == opBytes || c.op == opJSONB || c.op == opList {
		c.offsets = append(c.offsets[:0], 0)
	}
	if c.child != nil {
		c.child.reset()
	}
}

// null appends a NULL. The bitmap is only made at the first one: most columns have none.
func (c *column) null() {
	c.markNull()
	switch c.op {
	case opBytes, opJSONB:
		c.offsets = append(c.offsets, int32(len(c.data)))
	case opList:
		c.offsets = append(c.offsets, int32(c.child.n))
	case opBool:
		c.growBits()
	default:
		var zero [16]byte
		c.data = append(c.data, zero[:width(c.op)]...)
	}
	c.n++
}

func (c *column) markNull() {
	for len(c.valid) <= c.n>>3 {
		c.valid = append(c.valid, 0xff)
	}
	c.valid[c.n>>3] &^= 1 << (c.n & 7)
	c.nulls++
}

func (c *column) growBits() {
	for len(c.data) <= c.n>>3 {
		c.data = append(c.data, 0)
	}
}

func width(o op) int {
	switch o {
	case opInt16:
		return 2
	case opInt32, opFloat32, opDate:
		return 4
	case opDecimal, opMoney, opUUID:
		return 16
	}
	return 8
}

func (c *column) bool(v bool) {
	c.growBits()
	if v {
		c.data[c.n>>3] |= 1 << (c.n & 7)
	}
	c.n++
}

// place is room for a value of so many bytes behind the others.
func (c *column) place(n int) []byte {
	at := len(c.data)
	if n > cap(c.data)-at {
		c.grow()
	}
	c.data = c.data[:at+n]
	return c.data[at:]
}

// grow makes room for the largest value of a fixed width.
func (c *column) grow() { c.data = slices.Grow(c.data, 16) }

func (c *column) int32(v int32) {
	binary.LittleEndian.PutUint32(c.place(4), uint32(v))
	c.n++
}

func (c *column) int64(v int64) {
	binary.LittleEndian.PutUint64(c.place(8), uint64(v))
	c.n++
}

func (c *column) int128(hi int64, lo uint64) {
	b := c.place(16)
	binary.LittleEndian.PutUint64(b, lo)
	binary.LittleEndian.PutUint64(b[8:], uint64(hi))
	c.n++
}

func (c *column) string(b []byte) {
	at := len(c.data)
	if end := at + len(b); end <= cap(c.data) && len(b) < shortValue {
		c.data = c.data[:end]
		copy(c.data[at:], b)
	} else {
		c.data = scratch.Append(c.data, b)
	}
	c.offsets = append(c.offsets, int32(len(c.data)))
	c.n++
}

// near is how many bytes of a short value are copied at once, whether they belong to it or not.
const near = 32

// stringNear is string for bytes in a buffer that nothing writes to meanwhile: those behind the value may be read with it.
func (c *column) stringNear(b []byte) {
	at := len(c.data)
	if len(b) > near || cap(b) < near || cap(c.data)-at < near {
		c.string(b)
		return
	}
	*(*[near]byte)(c.data[at : at+near]) = *(*[near]byte)(b[:near])
	c.data = c.data[:at+len(b)]
	c.offsets = append(c.offsets, int32(len(c.data)))
	c.n++
}

// list ends a list whose elements have been appended to child.
func (c *column) list() {
	c.offsets = append(c.offsets, int32(c.child.n))
	c.n++
}

// array wraps the buffers, without copying them.
func (c *column) array() arrow.Array {
	d := c.arrayData()
	defer d.Release()
	return array.MakeFromData(d)
}

func (c *column) arrayData() *array.Data {
	var valid *memory.Buffer
	if c.nulls > 0 {
		for len(c.valid) < (c.n+7)/8 {
			c.valid = append(c.valid, 0xff)
		}
		valid = memory.NewBufferBytes(c.valid)
	}
	switch c.op {
	case opBytes, opJSONB:
		return array.NewData(c.arrow, c.n, []*memory.Buffer{valid, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.offsets)), memory.NewBufferBytes(c.data)}, nil, c.nulls, 0)
	case opList:
		child := c.child.arrayData()
		defer child.Release()
		return array.NewData(c.arrow, c.n, []*memory.Buffer{valid, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(c.offsets))}, []arrow.ArrayData{child}, c.nulls, 0)
	}
	return array.NewData(c.arrow, c.n, []*memory.Buffer{valid, memory.NewBufferBytes(c.data)}, nil, c.nulls, 0)
}
