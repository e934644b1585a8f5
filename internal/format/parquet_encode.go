package format

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// Shape of a DELTA_BINARY_PACKED block: what Parquet's Java and C++ writers use, so that
// every reader has met it.
const (
	deltaBlock = 128
	deltaMini  = 32
)

// appendDelta encodes v as DELTA_BINARY_PACKED
// (https://parquet.apache.org/docs/file-format/data-pages/encodings/#DELTAENC).
// Differences wrap in T, as the format demands, so no value is out of range.
func appendDelta[T int32 | int64](dst []byte, v []T) []byte {
	dst = binary.AppendUvarint(dst, deltaBlock)
	dst = binary.AppendUvarint(dst, deltaBlock/deltaMini)
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	if len(v) == 0 {
		return append(dst, 0)
	}
	dst = binary.AppendVarint(dst, int64(v[0]))
	for i := 1; i < len(v); i += deltaBlock {
		dst = appendDeltaBlock(dst, v[i-1:min(i+deltaBlock, len(v))])
	}
	return dst
}

// appendDeltaBlock encodes the differences inside v, one fewer than its values.
func appendDeltaBlock[T int32 | int64](dst []byte, v []T) []byte {
	var delta [deltaBlock]T
	n := len(v) - 1
	prev, least := v[0], v[1]-v[0]
	for i, x := range v[1:] {
		d := x - prev
		prev = x
		delta[i] = d
		least = min(least, d)
	}
	mask := ^uint64(0)
	if _, narrow := any(least).(int32); narrow {
		mask = 1<<32 - 1
	}
	var over [deltaBlock]uint64 // each difference above the least; zero past the last
	var widths [deltaBlock / deltaMini]byte
	for m := 0; m*deltaMini < n; m++ {
		all := uint64(0)
		lo, hi := m*deltaMini, min((m+1)*deltaMini, n)
		for i := lo; i < hi; i++ {
			o := uint64(delta[i]-least) & mask
			over[i] = o
			all |= o
		}
		widths[m] = byte(bits.Len64(all))
	}
	dst = binary.AppendVarint(dst, int64(least))
	dst = append(dst, widths[:]...)
	for m := 0; m*deltaMini < n; m++ {
		dst = appendPacked(dst, over[m*deltaMini:(m+1)*deltaMini], uint(widths[m]))
	}
	return dst
}

// appendPacked writes the low width bits of each of v one after another, least significant
// bit first, and fills the last byte with zeros.
func appendPacked[U uint32 | uint64](dst []byte, v []U, width uint) []byte {
	if width == 0 {
		return dst
	}
	size := (len(v)*int(width) + 7) / 8
	dst = slices.Grow(dst, size+8)
	out := dst[len(dst) : len(dst)+size+8]
	var acc uint64
	var have uint // bits in acc
	at := 0
	for _, x := range v {
		acc |= uint64(x) << have
		have += width
		if have >= 64 {
			binary.LittleEndian.PutUint64(out[at:], acc)
			at += 8
			have -= 64
			acc = uint64(x) >> (width - have) // a shift by 64 gives 0, which is right
		}
	}
	binary.LittleEndian.PutUint64(out[at:], acc)
	return dst[:len(dst)+size]
}

// appendHybrid encodes v in Parquet's RLE/bit-packing hybrid
// (https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE) with values of width bits:
// eight equal values in a group of eight, and those that follow, as a run; all else packed.
func appendHybrid(dst []byte, v []uint32, width uint) []byte {
	packed := 0 // where the values begin that wait to be packed
	for i := 0; i+8 <= len(v); {
		x := v[i]
		if v[i+1] != x || v[i+2] != x || v[i+3] != x || v[i+4] != x || v[i+5] != x || v[i+6] != x || v[i+7] != x {
			i += 8
			continue
		}
		end := i + 8
		for end < len(v) && v[end] == x {
			end++
		}
		dst = appendGroups(dst, v[packed:i], width)
		dst = appendRun(dst, x, end-i, width)
		packed, i = end, end
	}
	return appendGroups(dst, v[packed:], width)
}

func appendRun(dst []byte, x uint32, n int, width uint) []byte {
	dst = binary.AppendUvarint(dst, uint64(n)<<1)
	for ; width > 0; width -= min(width, 8) {
		dst = append(dst, byte(x))
		x >>= 8
	}
	return dst
}

func appendGroups(dst []byte, v []uint32, width uint) []byte {
	if len(v) == 0 {
		return dst
	}
	groups := (len(v) + 7) / 8
	dst = binary.AppendUvarint(dst, uint64(groups)<<1|1)
	end := len(dst) + groups*int(width)
	dst = appendPacked(dst, v, width)
	for len(dst) < end {
		dst = append(dst, 0)
	}
	return dst
}

// appendBits packs one byte per boolean into one bit per boolean: PLAIN for BOOLEAN.
func appendBits(dst, v []byte) []byte {
	for len(v) > 0 {
		var b byte
		n := min(8, len(v))
		for i, x := range v[:n] {
			b |= x << i
		}
		dst = append(dst, b)
		v = v[n:]
	}
	return dst
}

// levelRun is a repetition or definition level and how many times it comes in a row.
type levelRun struct {
	level uint8
	n     int
}

func pushLevel(runs []levelRun, level uint8, n int) []levelRun {
	if k := len(runs) - 1; k >= 0 && runs[k].level == level {
		runs[k].n += n
		return runs
	}
	return append(runs, levelRun{level, n})
}

// appendLevels encodes levels as a version 1 data page holds them: a length of four bytes,
// then the hybrid. The scratch space is returned for the next call.
func appendLevels(dst []byte, runs []levelRun, highest uint8, scratch []uint32) ([]byte, []uint32) {
	width := uint(bits.Len8(highest))
	at := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	if len(runs) == 1 {
		dst = appendRun(dst, uint32(runs[0].level), runs[0].n, width)
	} else {
		scratch = scratch[:0]
		for _, r := range runs {
			for range r.n {
				scratch = append(scratch, uint32(r.level))
			}
		}
		dst = appendHybrid(dst, scratch, width)
	}
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	return dst, scratch
}
