package lake

import (
	"encoding/binary"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/keyindex"
)

// rowKeys are the columns of rows' keys, in the key's order.
type rowKeys struct {
	columns []arrow.Array
	whole   bool       // they are all columns of a table without a key
	names   []string   // of the columns
	special *array.Map // special values, by name; nil where there are none
}

// hashes appends the hash of each row's key to dst. A key's bytes depend on its values and not on the width of their types,
// so that they are the same before and after a column was widened, and as the source or a Parquet file tells them. A special value
// counts by its text: the column has null for all of them.
func (k *rowKeys) hashes(x *keyindex.Index, n int, dst []keyindex.Hash) []keyindex.Hash {
	columns, whole := k.columns, k.whole
	if len(columns) == 1 && !whole && columns[0].NullN() == 0 {
		switch a := storage(columns[0]).(type) {
		case *array.Int64:
			for _, v := range a.Int64Values() {
				dst = append(dst, x.HashWord(uint64(v)))
			}
			return dst
		case *array.Int32:
			for _, v := range a.Int32Values() {
				dst = append(dst, x.HashWord(uint64(int64(v))))
			}
			return dst
		}
	}
	var buf []byte
	stored := make([]arrow.Array, len(columns))
	for i, c := range columns {
		stored[i] = storage(c)
	}
	for row := range n {
		buf = buf[:0]
		if len(stored) == 1 && !whole {
			if text, ok := k.specialText(stored[0], row, 0); ok {
				buf = append(append(buf, specialMark...), text...)
			} else {
				buf = appendValue(buf, stored[0], row)
			}
		} else {
			for i, a := range stored {
				if text, ok := k.specialText(a, row, i); ok {
					buf = binary.LittleEndian.AppendUint32(append(buf, 2), uint32(len(text)))
					buf = append(buf, text...)
				} else {
					buf = appendPart(buf, a, row)
				}
			}
		}
		dst = append(dst, x.Hash(buf))
	}
	return dst
}

// specialMark stands before a special value's text in a key of one column. No text begins so, and no value of a fixed width that can
// be special is as long.
const specialMark = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"

// specialText is the text of a special value of the i-th column.
func (k *rowKeys) specialText(a arrow.Array, row, i int) (string, bool) {
	if k.special == nil || !a.IsNull(row) {
		return "", false
	}
	return change.SpecialText(k.special, row, k.names[i])
}

// storage is the array without the name of an extension type.
func storage(a arrow.Array) arrow.Array {
	for {
		e, ok := a.(array.ExtensionArray)
		if !ok {
			return a
		}
		a = e.Storage()
	}
}

// appendPart appends one value of several so that no two rows give the same bytes.
func appendPart(buf []byte, a arrow.Array, row int) []byte {
	if a.IsNull(row) {
		return append(buf, 0)
	}
	at := len(buf)
	buf = append(buf, 1, 0, 0, 0, 0)
	buf = appendValue(buf, a, row)
	binary.LittleEndian.PutUint32(buf[at+1:], uint32(len(buf)-at-5))
	return buf
}

func appendWord(buf []byte, v int64) []byte { return binary.LittleEndian.AppendUint64(buf, uint64(v)) }

func appendValue(buf []byte, a arrow.Array, row int) []byte {
	switch a := a.(type) {
	case *array.Int64:
		return appendWord(buf, a.Value(row))
	case *array.Int32:
		return appendWord(buf, int64(a.Value(row)))
	case *array.Int16:
		return appendWord(buf, int64(a.Value(row)))
	case *array.Int8:
		return appendWord(buf, int64(a.Value(row)))
	case *array.Date32:
		return appendWord(buf, int64(a.Value(row)))
	case *array.Time64:
		return appendWord(buf, int64(a.Value(row)))
	case *array.Timestamp:
		return appendWord(buf, int64(a.Value(row)))
	case *array.Float32:
		return appendWord(buf, int64(math.Float64bits(float64(a.Value(row)))))
	case *array.Float64:
		return appendWord(buf, int64(math.Float64bits(a.Value(row))))
	case *array.Boolean:
		if a.Value(row) {
			return append(buf, 1)
		}
		return append(buf, 0)
	case *array.Decimal128:
		v := a.Value(row)
		return appendWord(appendWord(buf, int64(v.LowBits())), v.HighBits())
	case *array.String:
		return append(buf, a.Value(row)...)
	case *array.LargeString:
		return append(buf, a.Value(row)...)
	case *array.Binary:
		return append(buf, a.Value(row)...)
	case *array.LargeBinary:
		return append(buf, a.Value(row)...)
	case *array.FixedSizeBinary:
		return append(buf, a.Value(row)...)
	case array.ListLike:
		from, to := a.ValueOffsets(row)
		items := storage(a.ListValues())
		for i := from; i < to; i++ {
			buf = appendPart(buf, items, int(i))
		}
		return buf
	case *array.Struct:
		for i := range a.NumField() {
			buf = appendPart(buf, storage(a.Field(i)), row)
		}
		return buf
	}
	return append(buf, a.ValueStr(row)...)
}

// lastRows remembers for some keys a row each. It serves one record after another without allocating.
type lastRows struct {
	slots []uint32 // index in keys plus one, 0 is free
	keys  []keyindex.Hash
	rows  []int32
}

// reset empties it and makes room for n keys.
func (l *lastRows) reset(n int) {
	size := 16
	for size < 2*n {
		size *= 2
	}
	if cap(l.slots) < size {
		l.slots = make([]uint32, size)
	}
	l.slots = l.slots[:size]
	clear(l.slots)
	l.keys, l.rows = l.keys[:0], l.rows[:0]
}

// slot finds a key's slot, or the free one where it belongs.
func (l *lastRows) slot(h keyindex.Hash) *uint32 {
	mask := uint64(len(l.slots) - 1)
	for i := h.Lo & mask; ; i = (i + 1) & mask {
		s := &l.slots[i]
		if *s == 0 || l.keys[*s-1] == h {
			return s
		}
	}
}

// add remembers a key's row unless it knows one.
func (l *lastRows) add(h keyindex.Hash, row int32) bool {
	s := l.slot(h)
	if *s != 0 {
		return false
	}
	l.keys, l.rows = append(l.keys, h), append(l.rows, row)
	*s = uint32(len(l.keys))
	return true
}

// set remembers a key's row, the new one if it knows one.
func (l *lastRows) set(h keyindex.Hash, row int32) {
	if !l.add(h, row) {
		l.rows[*l.slot(h)-1] = row
	}
}

// get is the row of a key, and whether it is known.
func (l *lastRows) get(h keyindex.Hash) (int32, bool) {
	s := *l.slot(h)
	if s == 0 {
		return 0, false
	}
	return l.rows[s-1], true
}
