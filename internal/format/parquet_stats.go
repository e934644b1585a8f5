package format

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"unicode/utf8"
)

// boundBytes is the longest minimum or maximum that is kept of a byte string.
const boundBytes = 64

// bound is a minimum or maximum in PLAIN form, without the length of byte strings.
type bound struct {
	value []byte
	exact bool // false when value was cut: then it lies outside, never inside
}

// bounds are the least and the greatest of some values. known is false when there is
// nothing to say: no values, a NaN among them, or no short value above the greatest.
type bounds struct {
	min, max bound
	known    bool
}

// intBounds compares integers, or the bits of unsigned ones.
func intBounds[T int32 | int64](v []T, unsigned bool) bounds {
	if len(v) == 0 {
		return bounds{}
	}
	// Flipping the sign bit turns the unsigned order into the signed one.
	var flip T
	if unsigned {
		flip = signBit[T]()
	}
	lo, hi := v[0]^flip, v[0]^flip
	for _, x := range v {
		x ^= flip
		lo, hi = min(lo, x), max(hi, x)
	}
	return bounds{bound{plainInt(lo ^ flip), true}, bound{plainInt(hi ^ flip), true}, true}
}

func signBit[T int32 | int64]() T {
	var one T = 1
	for one > 0 {
		one <<= 1
	}
	return one
}

func plainInt[T int32 | int64](x T) []byte {
	if v, ok := any(x).(int32); ok {
		return binary.LittleEndian.AppendUint32(nil, uint32(v))
	}
	return binary.LittleEndian.AppendUint64(nil, uint64(x))
}

// floatBounds counts the NaN and widens a zero bound to the zero of either sign, as parquet.thrift asks under
// ColumnOrder. Values with a NaN have no bounds: readers place NaN above all numbers and skip by a maximum without it.
func floatBounds[T int32 | int64](v []T, value func(T) float64, plain func(float64) []byte) (bounds, int) {
	lo, hi := math.Inf(1), math.Inf(-1)
	nans := 0
	for _, b := range v {
		x := value(b)
		if x != x {
			nans++
			continue
		}
		lo, hi = min(lo, x), max(hi, x)
	}
	if len(v) == 0 || nans > 0 {
		return bounds{}, nans
	}
	if lo == 0 {
		lo = math.Copysign(0, -1)
	}
	if hi == 0 {
		hi = 0
	}
	return bounds{bound{plain(lo), true}, bound{plain(hi), true}, true}, 0
}

// otherZeros are the zeros of the other sign that a list of distinct values lacks. Both signs are one number, but
// readers look for a number in a dictionary or a Bloom filter by its bits.
func otherZeros[T int32 | int64](entries []T) []T {
	minus := signBit[T]()
	plain, negative := slices.Contains(entries, 0), slices.Contains(entries, minus)
	switch {
	case plain && !negative:
		return []T{minus}
	case negative && !plain:
		return []T{0}
	}
	return nil
}

func float32Of(b int32) float64 { return float64(math.Float32frombits(uint32(b))) }
func float64Of(b int64) float64 { return math.Float64frombits(uint64(b)) }

func plainFloat32(x float64) []byte { return plainInt(int32(math.Float32bits(float32(x)))) }
func plainFloat64(x float64) []byte { return plainInt(int64(math.Float64bits(x))) }

// byteExtremes finds the least and the greatest of byte strings, which it refers to and does
// not copy. Most comparisons are settled by the first eight bytes, held as an integer.
type byteExtremes struct {
	order          order
	seen           bool
	min, max       []byte
	minKey, maxKey uint64
}

func (e *byteExtremes) add(v []byte) {
	k := key8(v)
	if e.order == orderBig {
		k ^= 1 << 63
	}
	if !e.seen {
		e.seen, e.min, e.max, e.minKey, e.maxKey = true, v, v, k, k
		return
	}
	// Where the keys are equal the signs are too, so the bytes compare as they are.
	if k < e.minKey || k == e.minKey && bytes.Compare(v, e.min) < 0 {
		e.min, e.minKey = v, k
	}
	if k > e.maxKey || k == e.maxKey && bytes.Compare(v, e.max) > 0 {
		e.max, e.maxKey = v, k
	}
}

// key8 is the first eight bytes as a number, with zeros for what a shorter value lacks.
func key8(v []byte) uint64 {
	if len(v) >= 8 {
		return binary.BigEndian.Uint64(v)
	}
	var k uint64
	for i, b := range v {
		k |= uint64(b) << (56 - 8*i)
	}
	return k
}

// bounds copies what was found; strings of any length are cut to boundBytes, fixed ones are not.
func (e *byteExtremes) bounds(cut bool) bounds {
	if !e.seen || e.order == orderNone {
		return bounds{}
	}
	if !cut {
		return bounds{bound{bytes.Clone(e.min), true}, bound{bytes.Clone(e.max), true}, true}
	}
	text := e.order == orderText
	hi, ok := cutAbove(e.max, text)
	return bounds{cutBelow(e.min, text), hi, ok}
}

// cutBelow shortens a minimum to a prefix, which is never greater.
func cutBelow(v []byte, text bool) bound {
	if len(v) <= boundBytes {
		return bound{append([]byte{}, v...), true}
	}
	return bound{append([]byte{}, prefix(v, text)...), false}
}

// cutAbove shortens a maximum to a prefix made just greater. It reports false when no
// prefix can be: all its bytes are 0xff.
func cutAbove(v []byte, text bool) (bound, bool) {
	if len(v) <= boundBytes {
		return bound{append([]byte{}, v...), true}, true
	}
	p := append([]byte{}, prefix(v, text)...)
	if text && utf8.Valid(p) {
		p = nextText(p)
	} else {
		p = nextBytes(p)
	}
	return bound{p, false}, len(p) > 0
}

// prefix is the first boundBytes of v, and of text no half character at the end.
func prefix(v []byte, text bool) []byte {
	n := boundBytes
	if text {
		for back := 1; back < utf8.UTFMax && !utf8.RuneStart(v[n]); back++ {
			n--
		}
	}
	return v[:n]
}

// nextText replaces the last character that can grow by the next one and drops those after it,
// so that readers that check statistics for UTF-8 are content.
func nextText(p []byte) []byte {
	for len(p) > 0 {
		r, size := utf8.DecodeLastRune(p)
		p = p[:len(p)-size]
		switch {
		case r == utf8.MaxRune:
			continue
		case r+1 == 0xD800: // the surrogates are no characters
			return utf8.AppendRune(p, 0xE000)
		}
		return utf8.AppendRune(p, r+1)
	}
	return nil
}

func nextBytes(p []byte) []byte {
	for len(p) > 0 {
		last := len(p) - 1
		if p[last] != 0xff {
			p[last]++
			return p
		}
		p = p[:last]
	}
	return nil
}

// compareBounds compares two bounds in PLAIN form.
func (k *storage) compareBounds(a, b []byte) int {
	switch {
	case k.order == orderBytes || k.order == orderText:
		return bytes.Compare(a, b)
	case k.order == orderBig:
		if (a[0] ^ b[0]) > 0x7f {
			return -bytes.Compare(a, b)
		}
		return bytes.Compare(a, b)
	case k.phys == physBool:
		return cmp.Compare(a[0], b[0])
	case k.phys == physFloat:
		return cmp.Compare(float32Of(int32(binary.LittleEndian.Uint32(a))), float32Of(int32(binary.LittleEndian.Uint32(b))))
	case k.phys == physDouble:
		return cmp.Compare(float64Of(int64(binary.LittleEndian.Uint64(a))), float64Of(int64(binary.LittleEndian.Uint64(b))))
	}
	x, y := wideInt(a), wideInt(b)
	if k.order == orderUnsigned {
		return cmp.Compare(uint64(x), uint64(y)) // sign extension keeps the unsigned order of 32 bits
	}
	return cmp.Compare(x, y)
}

func wideInt(b []byte) int64 {
	if len(b) == 4 {
		return int64(int32(binary.LittleEndian.Uint32(b)))
	}
	return int64(binary.LittleEndian.Uint64(b))
}

// merge widens the bounds of a chunk by those of a page. Of two equal bounds the exact one
// holds: the cut one stands for values inside it.
func (k *storage) merge(into *bounds, page bounds) {
	if !into.known {
		*into = page
		return
	}
	if c := k.compareBounds(page.min.value, into.min.value); c < 0 || c == 0 && page.min.exact {
		into.min = page.min
	}
	if c := k.compareBounds(page.max.value, into.max.value); c > 0 || c == 0 && page.max.exact {
		into.max = page.max
	}
}
