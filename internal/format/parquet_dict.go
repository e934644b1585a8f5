package format

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// A dictionary takes no more than so many distinct values and bytes; past either, it no
// longer pays.
const (
	dictEntries = 1 << 15
	dictBytes   = 1 << 20
	// dictProbes bounds a search in the hash table: values made to collide end the
	// dictionary, not the writer.
	dictProbes = 128
)

// slot is one place of a hash table: an entry's index plus one, 0 when free, and half of its hash.
type slot struct {
	tag   uint32
	index uint32
}

// slots is an open-addressing hash table from values, which its owner keeps, to indexes. The
// tag alone finds a place, so the table grows without hashing again.
type slots struct {
	table []slot
	shift uint
	used  int
}

func (s *slots) reset() {
	clear(s.table)
	s.used = 0
}

// place puts the tag at a free place and returns the new index plus one. The table stays at
// most half full.
func (s *slots) place(tag, at uint32) uint32 {
	s.used++
	s.table[at] = slot{tag, uint32(s.used)}
	if 2*s.used > len(s.table) {
		s.grow()
	}
	return uint32(s.used)
}

func (s *slots) grow() {
	old := s.table
	s.table = make([]slot, max(64, 2*len(old)))
	s.shift = 32 - uint(bits.TrailingZeros(uint(len(s.table))))
	for _, o := range old {
		if o.index == 0 {
			continue
		}
		at := o.tag >> s.shift
		for s.table[at].index != 0 {
			at = s.after(at)
		}
		s.table[at] = o
	}
}

func (s *slots) after(at uint32) uint32 { return (at + 1) & uint32(len(s.table)-1) }

// intDict holds the distinct integers of a column chunk in the order in which they came.
type intDict[T int32 | int64] struct {
	slots
	entries []T
}

func (d *intDict[T]) reset() {
	d.slots.reset()
	d.entries = d.entries[:0]
}

// index appends the indexes of v and enters what is new; false means that the dictionary is full.
func (d *intDict[T]) index(v []T, out []uint32) ([]uint32, bool) {
	if len(d.table) == 0 {
		d.grow()
	}
	var prev T
	var at uint32 // index of prev, plus one; 0 before the first value
	for _, x := range v {
		if x != prev || at == 0 {
			if at = d.find(x); at == 0 {
				return out, false
			}
			prev = x
		}
		out = append(out, at-1)
	}
	return out, true
}

// find returns x's index plus one, or 0 when it is new and there is no room.
func (d *intDict[T]) find(x T) uint32 {
	tag := uint32((uint64(x) * 0x9E3779B97F4A7C15) >> 32)
	at := tag >> d.shift
	for range dictProbes {
		s := d.table[at]
		if s.index == 0 {
			if len(d.entries) == dictEntries {
				return 0
			}
			d.entries = append(d.entries, x)
			return d.place(tag, at)
		}
		if s.tag == tag && d.entries[s.index-1] == x {
			return s.index
		}
		at = d.after(at)
	}
	return 0
}

// byteDict is intDict for byte strings. arena holds them in PLAIN form, which is the
// dictionary page's body.
type byteDict struct {
	slots
	width   int // bytes of every value; 0 when each carries its length
	arena   []byte
	entries []span
	single  [256]uint32 // indexes plus one of values of one byte
}

// span is where a value stands in arena.
type span struct{ from, to uint32 }

func (d *byteDict) reset() {
	d.slots.reset()
	d.arena, d.entries = d.arena[:0], d.entries[:0]
	d.single = [256]uint32{}
}

// truncate forgets the entries from n on; the table still names them, so no search may follow.
func (d *byteDict) truncate(n int) {
	d.entries = d.entries[:n]
	end := uint32(0)
	if n > 0 {
		end = d.entries[n-1].to
	}
	d.arena = d.arena[:end]
}

func (d *byteDict) value(i int) []byte {
	e := d.entries[i]
	return d.arena[e.from:e.to]
}

// index is intDict.index for the values that plain holds in PLAIN form.
func (d *byteDict) index(plain []byte, out []uint32) ([]uint32, bool) {
	for len(plain) > 0 {
		var v []byte
		v, plain = nextPlain(plain, d.width)
		at := d.enter(v)
		if at == 0 {
			return out, false
		}
		out = append(out, at-1)
	}
	return out, true
}

// enter returns v's index plus one, or 0 when it is new and there is no room. It looks at the
// likely place itself: find is for the rest.
func (d *byteDict) enter(v []byte) uint32 {
	if len(v) == 1 && d.single[v[0]] != 0 {
		return d.single[v[0]]
	}
	if len(d.table) == 0 {
		d.grow()
	}
	tag := hashBytes(v)
	s := d.table[tag>>d.shift]
	if s.tag != tag || s.index == 0 || string(d.value(int(s.index-1))) != string(v) {
		s.index = d.find(v, tag)
	}
	if len(v) == 1 {
		d.single[v[0]] = s.index
	}
	return s.index
}

func (d *byteDict) find(v []byte, tag uint32) uint32 {
	at := tag >> d.shift
	for range dictProbes {
		s := d.table[at]
		if s.index == 0 {
			return d.add(v, tag, at)
		}
		if s.tag == tag && bytes.Equal(d.value(int(s.index-1)), v) {
			return s.index
		}
		at = d.after(at)
	}
	return 0
}

func (d *byteDict) add(v []byte, tag, at uint32) uint32 {
	if len(d.entries) == dictEntries || len(d.arena)+4+len(v) > dictBytes {
		return 0
	}
	if d.width == 0 {
		d.arena = binary.LittleEndian.AppendUint32(d.arena, uint32(len(v)))
	}
	from := uint32(len(d.arena))
	d.arena = append(d.arena, v...)
	d.entries = append(d.entries, span{from, from + uint32(len(v))})
	return d.place(tag, at)
}

// plain appends the values of the given indexes in PLAIN form.
func (d *byteDict) plain(dst []byte, indexes []uint32) []byte {
	for _, i := range indexes {
		e := d.entries[i]
		if d.width == 0 {
			e.from -= 4 // the length
		}
		dst = append(dst, d.arena[e.from:e.to]...)
	}
	return dst
}

// nextPlain cuts the first value off PLAIN bytes.
func nextPlain(b []byte, width int) (value, rest []byte) {
	if width > 0 {
		return b[:width], b[width:]
	}
	n := 4 + int(binary.LittleEndian.Uint32(b))
	return b[4:n], b[n:]
}

// hashBytes mixes short values by multiplication and leaves long ones to xxHash.
func hashBytes(v []byte) uint32 {
	const a, b, c = 0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
	var x, y uint64
	switch n := len(v); {
	case n > 32:
		return uint32(xxhash.Sum64(v) >> 32)
	case n > 16:
		hi, lo := bits.Mul64(binary.LittleEndian.Uint64(v)^a, binary.LittleEndian.Uint64(v[8:])^c)
		x, y = binary.LittleEndian.Uint64(v[n-16:])^hi^lo, binary.LittleEndian.Uint64(v[n-8:])
	case n >= 8:
		x, y = binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[n-8:])
	case n >= 4:
		x, y = uint64(binary.LittleEndian.Uint32(v)), uint64(binary.LittleEndian.Uint32(v[n-4:]))
	case n > 0:
		x, y = uint64(v[0])|uint64(v[n/2])<<8, uint64(v[n-1])
	}
	hi, lo := bits.Mul64(x^a, y^b^uint64(len(v)))
	return uint32(((hi ^ lo) * a) >> 32)
}
