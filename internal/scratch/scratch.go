package scratch

import (
	"slices"
	"sync"
	"time"
)

// Large is the size in bytes from which a buffer is kept in a file.
const Large = 32 << 20

// AtHand is how many bytes of what others wrote lie in ordinary memory at once: of a file, of a block of it when it is unpacked.
const AtHand = 64 << 20

// leaveEvery is how often pages that were touched are let go of. What passes at two gigabytes a second meanwhile is 20 MB.
const leaveEvery = 10 * time.Millisecond

// held are the buffers in files, by their first byte.
var held struct {
	sync.Mutex
	dir     string // "" for the system's folder
	maps    map[*byte][]byte
	leaving bool // leave runs
}

// In sets the folder of the files that are made from now on; "" is the system's for temporary files.
func In(dir string) {
	held.Lock()
	defer held.Unlock()
	held.dir = dir
}

// Make returns a buffer of n bytes, all zero. One of Large bytes and more must be given to Free, and never be used after that.
func Make(n int) []byte {
	if n < Large {
		return make([]byte, n)
	}
	held.Lock()
	dir := held.dir
	held.Unlock()
	m, err := mapUnnamed(dir, n)
	if err != nil {
		return make([]byte, n)
	}
	held.Lock()
	defer held.Unlock()
	if held.maps == nil {
		held.maps = map[*byte][]byte{}
	}
	held.maps[&m[0]] = m
	if !held.leaving {
		held.leaving = true
		go leave()
	}
	return m[:n]
}

// Free gives a buffer back, whatever its length now. What Make did not give, and nil, is left to the garbage collector.
func Free(b []byte) {
	if cap(b) < Large {
		return
	}
	first := &b[:1][0]
	held.Lock()
	m := held.maps[first]
	delete(held.maps, first)
	held.Unlock()
	if m != nil {
		unmap(m)
	}
}

// Grow makes room for n more bytes behind b, as slices.Grow does. Where b has to move it is freed.
func Grow(b []byte, n int) []byte {
	need := len(b) + n
	if need <= cap(b) {
		return b
	}
	if need < Large {
		return slices.Grow(b, n)
	}
	if cap(b) >= Large { // it grows step by step
		need = max(need, cap(b)+cap(b)/4)
	}
	fresh := Make(need)
	Copy(fresh, b)
	Free(b)
	return fresh[:len(b)]
}

// Append appends v to b, growing it as Grow does.
func Append(b, v []byte) []byte {
	b = Grow(b, len(v))
	at := len(b)
	b = b[:at+len(v)]
	Copy(b[at:], v)
	return b
}

// Copy copies as many bytes as both have. Large buffers are copied piece by piece: one long copy cannot be interrupted, and while the garbage
// collector waits for it nothing else runs, so all its pages would stay in memory.
func Copy(dst, src []byte) {
	for min(len(dst), len(src)) > Large {
		copy(dst[:Large], src)
		dst, src = dst[Large:], src[Large:]
		letGo()
	}
	copy(dst, src)
}

// Held is how many buffers are in files.
func Held() int {
	held.Lock()
	defer held.Unlock()
	return len(held.maps)
}

// leave takes the pages of all buffers out of the process, again and again, for as long as there are any. They stay what they are and come
// back when they are touched.
func leave() {
	tick := time.NewTicker(leaveEvery)
	defer tick.Stop()
	for range tick.C {
		letGo()
		held.Lock()
		held.leaving = len(held.maps) > 0
		goOn := held.leaving
		held.Unlock()
		if !goOn {
			return
		}
	}
}

func letGo() {
	held.Lock()
	defer held.Unlock()
	for _, m := range held.maps {
		dropPages(m)
	}
}
