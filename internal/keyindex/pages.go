package keyindex

import (
	"fmt"
	"math/bits"
	"os"
	"unsafe"
)

const (
	pageSize  = 4096
	slots     = 170 // 3 words each, and one word before them
	fullAt    = 150 // a page with so many entries splits before it takes another
	firstRun  = 16  // pages of the first segment
	segmented = 4096
)

// page is a header word (entries | depth<<32) and its slots. A slot whose value is 0 is free.
type page struct {
	head uint64
	slot [slots]entry
	_    uint64
}

type entry struct{ hi, lo, value uint64 }

var _ [pageSize]byte = [unsafe.Sizeof(page{})]byte{}

func (p *page) entries() int { return int(uint32(p.head)) }
func (p *page) depth() uint  { return uint(p.head >> 32) }

func (p *page) set(entries int, depth uint) { p.head = uint64(depth)<<32 | uint64(entries) }

// home is where the search for a hash begins. The directory uses Hi, so Lo is free for this.
func home(lo uint64) int {
	h, _ := bits.Mul64(lo, slots)
	return int(h)
}

// find returns the slot of a hash, or the free slot where it belongs and false. A page is never full; one that is was damaged on its disk.
func (p *page) find(h Hash) (int, bool) {
	for i, turns := home(h.Lo), 0; ; {
		s := &p.slot[i]
		if s.value == 0 {
			return i, false
		}
		if s.lo == h.Lo && s.hi == h.Hi {
			return i, true
		}
		if i++; i == slots {
			if turns++; turns > 1 {
				panic(damaged)
			}
			i = 0
		}
	}
}

// damaged is a panic: the caller has no error to expect of a page in memory, and the table that the index is of takes it as its own.
const damaged = "a page of the key index is not what was written"

func (p *page) add(e entry) {
	i, _ := p.find(Hash{Hi: e.hi, Lo: e.lo})
	p.slot[i] = e
	p.head++
}

// remove frees a slot and moves the entries behind it up, so that no search ends early.
func (p *page) remove(i int) {
	from := i
	for j := i; ; {
		if j++; j == slots {
			j = 0
		}
		if j == from {
			panic(damaged)
		}
		s := &p.slot[j]
		if s.value == 0 {
			break
		}
		// The entry may move to i unless its home lies cyclically in (i, j].
		h := home(s.lo)
		if i <= j && (i < h && h <= j) || i > j && (i < h || h <= j) {
			continue
		}
		p.slot[i] = *s
		i = j
	}
	p.slot[i] = entry{}
	p.head--
}

// pages is the file: pages in segments that are mapped one by one and never move. The first ones are small, so
// that the index of a small table is.
type pages struct {
	f        *os.File
	segments [][]byte
	used     uint32 // pages in use
	have     uint32 // pages that the segments hold
}

// segmentOf says in which segment a page lies, and where there.
func segmentOf(n uint32) (segment int, at uint32) {
	if n >= segmented {
		return 9 + int((n-segmented)/segmented), (n - segmented) % segmented
	}
	if n < firstRun {
		return 0, n
	}
	s := bits.Len32(n / firstRun)
	return s, n - firstRun<<(s-1)
}

// segmentPages is the size of a segment: 16, 16, 32, 64 … 2048, then 4096 for ever.
func segmentPages(segment int) uint32 {
	switch {
	case segment == 0:
		return firstRun
	case segment < 9:
		return firstRun << (segment - 1)
	}
	return segmented
}

func (p *pages) at(n uint32) *page {
	s, at := segmentOf(n)
	return (*page)(unsafe.Pointer(&p.segments[s][int(at)*pageSize]))
}

// grow adds one segment. Its bytes are written, not left sparse: a full disk must be an error here and not a
// signal at some later store into mapped memory.
func (p *pages) grow() error {
	n := segmentPages(len(p.segments))
	zeros := make([]byte, min(int(n)*pageSize, 1<<20))
	for at := int64(0); at < int64(n)*pageSize; at += int64(len(zeros)) {
		if _, err := p.f.WriteAt(zeros, int64(p.have)*pageSize+at); err != nil {
			return fmt.Errorf("grow the key index: %w", err)
		}
	}
	return p.attach(n)
}

// attach maps the n pages that follow what is mapped.
func (p *pages) attach(n uint32) error {
	m, err := mapFile(p.f, int64(p.have)*pageSize, int(n)*pageSize)
	if err != nil {
		return fmt.Errorf("map the key index: %w", err)
	}
	p.segments = append(p.segments, m)
	p.have += n
	return nil
}

// take gives a fresh page, all zero.
func (p *pages) take() (uint32, *page, error) {
	if p.used == p.have {
		if err := p.grow(); err != nil {
			return 0, nil, err
		}
	}
	n := p.used
	p.used++
	pg := p.at(n)
	*pg = page{}
	return n, pg, nil
}

// close lets go of the mapping; with keep, everything is on the disk afterwards.
func (p *pages) close(keep bool) error {
	var first error
	at := int64(0)
	for _, s := range p.segments {
		if err := unmapFile(p.f, at, s, keep); err != nil && first == nil {
			first = err
		}
		at += int64(len(s))
	}
	p.segments = nil
	if keep && first == nil {
		first = p.f.Sync()
	}
	if err := p.f.Close(); err != nil && first == nil {
		first = err
	}
	return first
}
