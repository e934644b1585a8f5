package bucket

import "sync"

// smallest is the first buffer of an upload, in bytes.
const smallest = 4 << 10

// buffers hands out the buffers in which uploads collect their parts. A small object stays in a
// small slice of its own; one that grows past a quarter of a part takes a whole part buffer, and
// those are used again.
type buffers struct {
	mu   sync.Mutex
	idle [][]byte
	keep int // how many idle ones are worth keeping
	held int // part buffers in use
	peak int // the most that ever were
}

// grow returns buf with room for need bytes, of at most size, the size of the part.
func (b *buffers) grow(buf []byte, need, size int) []byte {
	if need <= cap(buf) {
		return buf
	}
	room := max(need, 2*cap(buf), smallest)
	if room <= size/4 {
		return append(make([]byte, 0, room), buf...)
	}
	return append(b.take(size), buf...)
}

func (b *buffers) take(size int) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held++
	b.peak = max(b.peak, b.held)
	for i := len(b.idle) - 1; i >= 0; i-- {
		if cap(b.idle[i]) == size {
			buf := b.idle[i]
			b.idle = append(b.idle[:i], b.idle[i+1:]...)
			return buf[:0]
		}
	}
	return make([]byte, 0, size)
}

// put gives a buffer back. size is the one it was grown with: it tells a part buffer from a
// small slice, which is left to the garbage collector.
func (b *buffers) put(buf []byte, size int) {
	if cap(buf) != size {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held--
	if len(b.idle) < b.keep {
		b.idle = append(b.idle, buf)
	}
}
