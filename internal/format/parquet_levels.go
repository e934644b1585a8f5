package format

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/bitutil"

	"github.com/leatdata/leat/internal/fault"
)

// walk carries the slots lo to hi of an array that stands at step s of the leaf's way into the
// open page: repetition and definition levels, and the values at the end. rep is the
// repetition level of the first slot and def the definition level reached so far.
func (c *column) walk(s int, arr arrow.Array, lo, hi int, rep, def uint8) error {
	st := &c.steps[s]
	if arr.NullN() == 0 {
		if st.nullable {
			def++
		}
		return c.descend(s, arr, lo, hi, rep, def)
	}
	if !st.nullable && anyNull(arr, lo, hi) {
		return fault.New(fault.NullUnexpected, c.name(), "a NULL in a column that is declared NOT NULL")
	}
	for lo < hi {
		valid, n := validRun(arr, lo, hi)
		switch {
		case !valid:
			c.emit(rep, st.again, def, n)
		case st.nullable:
			if err := c.descend(s, arr, lo, lo+n, rep, def+1); err != nil {
				return err
			}
		default:
			if err := c.descend(s, arr, lo, lo+n, rep, def); err != nil {
				return err
			}
		}
		lo += n
		rep = st.again
	}
	return nil
}

// descend goes one step down from slots that are not null.
func (c *column) descend(s int, arr arrow.Array, lo, hi int, rep, def uint8) error {
	st := &c.steps[s]
	switch st.kind {
	case stepStruct:
		return c.walk(s+1, arr.(*array.Struct).Field(st.child), lo, hi, rep, def)
	case stepList:
		list := arr.(array.ListLike)
		values := list.ListValues()
		for i := lo; i < hi; i++ {
			from, to := list.ValueOffsets(i)
			if from == to {
				c.emit(rep, rep, def, 1)
			} else if err := c.walk(s+1, values, int(from), int(to), rep, def+1); err != nil {
				return err
			}
			rep = st.again
		}
		return nil
	}
	if lo < hi {
		c.emit(rep, st.again, def, hi-lo)
		lo += c.find(arr, lo, hi-lo)
		c.load(&c.staged, arr, lo, hi-lo)
	}
	return nil
}

// emit notes n levels: the first repeats at rep, the others at again.
func (c *column) emit(rep, again, def uint8, n int) {
	c.levels += n
	if c.maxDef > 0 {
		c.def = pushLevel(c.def, def, n)
	}
	if c.maxRep == 0 {
		return
	}
	c.rep = pushLevel(c.rep, rep, 1)
	if n > 1 {
		c.rep = pushLevel(c.rep, again, n-1)
	}
}

func anyNull(arr arrow.Array, lo, hi int) bool {
	for lo < hi {
		valid, n := validRun(arr, lo, hi)
		if !valid {
			return true
		}
		lo += n
	}
	return false
}

// validRun says whether slot i is valid, and how many slots from it on, before end, are as it is.
func validRun(arr arrow.Array, i, end int) (valid bool, n int) {
	bits := arr.NullBitmapBytes()
	if bits == nil { // an array of type Null has no bitmap
		return arr.DataType().ID() != arrow.NULL, end - i
	}
	from := arr.Data().Offset()
	first, stop := i+from, end+from
	valid = bitutil.BitIsSet(bits, first)
	var whole byte
	if valid {
		whole = 0xff
	}
	at := first + 1
	for at < stop {
		if at&7 == 0 && at+8 <= stop && bits[at>>3] == whole {
			at += 8
			continue
		}
		if bitutil.BitIsSet(bits, at) != valid {
			break
		}
		at++
	}
	return valid, at - first
}

// weigh counts the bytes that slots lo to hi of an array at step s hold, nulls as if they
// were values: what a page or a row group fills up with.
func (l *leaf) weigh(s int, arr arrow.Array, lo, hi int) int64 {
	if lo >= hi {
		return 0
	}
	n := int64(hi - lo)
	st := &l.steps[s]
	switch st.kind {
	case stepStruct:
		return l.weigh(s+1, arr.(*array.Struct).Field(st.child), lo, hi)
	case stepList:
		list := arr.(array.ListLike)
		from, _ := list.ValueOffsets(lo)
		_, to := list.ValueOffsets(hi - 1)
		return n + l.weigh(s+1, list.ListValues(), int(from), int(to))
	}
	switch l.phys {
	case physInt64, physDouble:
		return 8 * n
	case physInt32, physFloat:
		return 4 * n
	case physFixed:
		return int64(l.width) * n
	case physBool:
		return n
	}
	return 4*n + byteSpan(arr, lo, hi)
}

// byteSpan is the bytes between the offsets of a string or binary array.
func byteSpan(arr arrow.Array, lo, hi int) int64 {
	data := arr.Data()
	lo, hi = lo+data.Offset(), hi+data.Offset()
	offsets := data.Buffers()[1].Bytes()
	if id := arr.DataType().ID(); id == arrow.LARGE_STRING || id == arrow.LARGE_BINARY {
		o := arrow.Int64Traits.CastFromBytes(offsets)
		return o[hi] - o[lo]
	}
	o := arrow.Int32Traits.CastFromBytes(offsets)
	return int64(o[hi] - o[lo])
}
