package keyindex

import (
	"github.com/leatdata/leat/internal/fault"
)

// MaxLocation is the first number that is too large to be a place.
const MaxLocation = 1<<62 - 1

// The two highest bits of a value; the rest is the place plus one, for 0 is a free slot.
const (
	more    = 1 << 63 // further places of this key follow (multisets)
	counter = 1 << 62 // the value counts those places and is none itself
	bitsOf  = counter - 1
)

// Index is one index. It belongs to one goroutine.
type Index struct {
	path    string
	pages   pages
	name    string   // of the pages' file
	dir     []uint32 // nil before there is a file
	depth   uint     // dir has 2^depth entries, chosen by the highest bits of Hi
	seed    seed
	multi   bool
	n       int64
	rebuild bool
	note    []byte
}

// NeedsRebuild says that the index was empty when it was opened, because there was none or none to be trusted.
func (x *Index) NeedsRebuild() bool { return x.rebuild }

// Note is what was handed to CloseAt, nil after a rebuild.
func (x *Index) Note() []byte { return x.note }

// Len is the number of places.
func (x *Index) Len() int64 { return x.n }

// Hash makes a key's hash. It may be called from several goroutines.
func (x *Index) Hash(key []byte) Hash { return x.seed.hash(key) }

// HashWord is Hash of the word's eight bytes, least significant first.
func (x *Index) HashWord(w uint64) Hash {
	h := x.seed.begin()
	h.word(w)
	return h.end(8 << 56)
}

func (x *Index) page(h Hash) *page { return x.pages.at(x.dir[h.Hi>>(64-x.depth)]) }

// value finds the value of a hash, 0 without one.
func (x *Index) value(h Hash) uint64 {
	if !x.made() {
		return 0
	}
	p := x.page(h)
	if i, ok := p.find(h); ok {
		return p.slot[i].value
	}
	return 0
}

// store sets the value of a hash and returns what it was, 0 for none.
func (x *Index) store(h Hash, value uint64) (uint64, error) {
	if !x.made() {
		if err := x.create(); err != nil {
			return 0, err
		}
	}
	for {
		p := x.page(h)
		i, ok := p.find(h)
		if ok {
			old := p.slot[i].value
			p.slot[i].value = value
			return old, nil
		}
		if p.entries() < fullAt {
			p.slot[i] = entry{hi: h.Hi, lo: h.Lo, value: value}
			p.head++
			return 0, nil
		}
		if err := x.split(h); err != nil {
			return 0, err
		}
	}
}

// drop removes a hash and returns its value, 0 for none.
func (x *Index) drop(h Hash) uint64 {
	p := x.page(h)
	i, ok := p.find(h)
	if !ok {
		return 0
	}
	old := p.slot[i].value
	p.remove(i)
	return old
}

// split divides the page of a hash in two by the next bit of Hi.
func (x *Index) split(h Hash) error {
	at := x.dir[h.Hi>>(64-x.depth)]
	depth := x.pages.at(at).depth()
	if depth >= 40 {
		return fault.New(fault.Internal, x.path, "the key index cannot tell keys apart")
	}
	n, right, err := x.pages.take()
	if err != nil {
		return fault.Wrap(err, fault.Internal, x.path, "the key index cannot grow")
	}
	if depth == x.depth {
		wide := make([]uint32, 2*len(x.dir))
		for i, v := range x.dir {
			wide[2*i], wide[2*i+1] = v, v
		}
		x.dir = wide
		x.depth++
	}
	left := x.pages.at(at)
	all := *left
	*left = page{}
	left.set(0, depth+1)
	right.set(0, depth+1)
	for i := range all.slot {
		switch e := all.slot[i]; {
		case e.value == 0:
		case e.hi>>(63-depth)&1 == 0:
			left.add(e)
		default:
			right.add(e)
		}
	}
	// The directory's entries of the old page are a run; its second half is the new page's.
	run := 1 << (x.depth - depth)
	first := int(h.Hi>>(64-depth)) * run
	for i := first + run/2; i < first+run; i++ {
		x.dir[i] = n
	}
	return nil
}

// Get finds the place of a key; of several the one that was put last.
func (x *Index) Get(h Hash) (uint64, bool) {
	v := x.value(h)
	if v&more != 0 {
		v = x.value(x.seed.derived(h, x.value(x.seed.derived(h, 0))&bitsOf))
	}
	return v&bitsOf - 1, v != 0
}

// Put sets the place of a key and returns the one it had. In a multiset it adds a place and never returns one.
func (x *Index) Put(h Hash, location uint64) (old uint64, had bool, err error) {
	if location >= MaxLocation {
		return 0, false, fault.New(fault.Internal, x.path, "the place %d is too large for the key index", location)
	}
	if x.multi {
		return 0, false, x.putMore(h, location+1)
	}
	was, err := x.store(h, location+1)
	if err != nil {
		return 0, false, err
	}
	if was == 0 {
		x.n++
		return 0, false, nil
	}
	return was - 1, true, nil
}

// putMore keeps the first place of a key under its own hash, the number of further ones under a hash derived from it,
// and each of these under a hash of its own: a thousand equal rows must not fill one page.
func (x *Index) putMore(h Hash, value uint64) error {
	x.n++
	first := x.value(h)
	if first == 0 {
		_, err := x.store(h, value)
		return err
	}
	counted := x.seed.derived(h, 0)
	n := x.value(counted)&bitsOf + 1
	if _, err := x.store(x.seed.derived(h, n), value); err != nil {
		return err
	}
	if _, err := x.store(counted, n|counter); err != nil {
		return err
	}
	_, err := x.store(h, first|more)
	return err
}

// Delete removes a key and returns the place it had; in a multiset one of its places.
func (x *Index) Delete(h Hash) (old uint64, had bool) {
	first := x.value(h)
	if first == 0 {
		return 0, false
	}
	x.n--
	if first&more == 0 {
		return x.drop(h)&bitsOf - 1, true
	}
	counted := x.seed.derived(h, 0)
	n := x.value(counted) & bitsOf
	last := x.drop(x.seed.derived(h, n))
	if n > 1 {
		// An entry that is there is changed in place: no error can come.
		_, _ = x.store(counted, (n-1)|counter)
	} else {
		x.drop(counted)
		_, _ = x.store(h, first&^more)
	}
	return last&bitsOf - 1, true
}

// Walk hands the places of some pages to a function that may move them: pages from the given one, at most n. It returns the
// page to go on from, and whether the walk is at its end. Places put meanwhile may be seen or not.
func (x *Index) Walk(from uint32, n int, move func(location uint64) uint64) (next uint32, done bool) {
	end := min(uint64(from)+uint64(n), uint64(x.pages.used))
	for at := uint64(from); at < end; at++ {
		p := x.pages.at(uint32(at))
		for i := range p.slot {
			s := &p.slot[i]
			if s.value == 0 || s.value&counter != 0 {
				continue
			}
			s.value = s.value&more | (move(s.value&bitsOf-1) + 1)
		}
	}
	return uint32(end), end == uint64(x.pages.used)
}
