package lake

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/scratch"
)

// LargeValues gives Arrow its memory so that large buffers do not count as the process's. A context carries it to where values may be
// large; whoever works under such a context releases what it makes.
type LargeValues struct{}

// largeRow is the mean size in bytes from which rows of a file are worth reading so.
const largeRow = 64 << 10

// Allocate gives a buffer.
func (LargeValues) Allocate(size int) []byte {
	if size < scratch.Large {
		return memory.DefaultAllocator.Allocate(size)
	}
	return scratch.Make(size)
}

// Reallocate makes a buffer larger or smaller; the one that was given is not used any more.
func (l LargeValues) Reallocate(size int, b []byte) []byte {
	if size <= cap(b) {
		return b[:size]
	}
	fresh := l.Allocate(size)
	scratch.Copy(fresh, b)
	scratch.Free(b)
	return fresh
}

// Free takes a buffer back.
func (LargeValues) Free(b []byte) { scratch.Free(b) }

// joined puts arrays behind one another. The result is the caller's to release.
func joined(ctx context.Context, parts []arrow.Array) (arrow.Array, error) {
	if len(parts) == 1 {
		parts[0].Retain()
		return parts[0], nil
	}
	return array.Concatenate(parts, compute.GetAllocator(ctx))
}

// nthOf finds a row of arrays that lie behind one another, as the bounds of a slice.
func nthOf(parts []arrow.Array, row uint32) (part arrow.Array, from, to int64) {
	at := int64(row)
	for _, p := range parts {
		if n := int64(p.Len()); at >= n {
			at -= n
			continue
		}
		return p, at, at + 1
	}
	return parts[0], 0, 0 // there is no such row
}

// bytesOfRows is about how much the picked rows take of arrays that lie behind one another.
func bytesOfRows(parts []arrow.Array, rows []uint32) (n int64) {
	for _, row := range rows {
		at := int(row)
		for _, p := range parts {
			if at < p.Len() {
				n += bytesOfValue(p, at)
				break
			}
			at -= p.Len()
		}
	}
	return n
}

// bytesOfValue is what a value of variable length takes; any other is little.
func bytesOfValue(a arrow.Array, row int) int64 {
	switch a := storage(a).(type) {
	case array.BinaryLike:
		return int64(a.ValueLen(row))
	case array.ListLike:
		from, to := a.ValueOffsets(row)
		sum := int64(0)
		for i := from; i < to; i++ {
			sum += bytesOfValue(a.ListValues(), int(i))
		}
		return sum + to - from
	}
	return 16
}
