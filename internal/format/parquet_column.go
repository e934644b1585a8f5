package format

import (
	"fmt"
	"math"
	"math/bits"
	"sort"
	"strings"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/cespare/xxhash/v2"

	"github.com/leatdata/leat/internal/fault"
)

// Encodings by their numbers in parquet.thrift.
const (
	encPlain = 0
	encRLE   = 3
	encDelta = 5
	encDict  = 8
)

// page is what is known of a data page once it is compressed.
type page struct {
	rows     int
	levels   int // values and nulls
	nulls    int
	nans     int
	raw      int // bytes before compression
	packed   int // and after
	crc      uint32
	encoding int32
	bounds
}

// column writes one leaf: it stages values until a page is full, then encodes and compresses
// the page and keeps only that.
type column struct {
	*leaf
	shop *shop

	// The open page.
	staged
	def, rep []levelRun
	rows     int
	levels   int
	weight   int64

	// The open chunk.
	pages []page
	held  chain
	bloom bloom

	// A dictionary is tried with each chunk's first page and given up for the chunk when it
	// does not pay or is full, and for the file when it served less than half a chunk.
	dict     bool // still in use
	dictRows int  // rows of pages encoded by it
	noDict   bool
	ints     intDict[int32]
	longs    intDict[int64]
	strings  byteDict

	// The values of an open page that the chunk's dictionary takes are not staged: found are their indexes.
	found    []uint32
	distinct int // entries of the dictionary before the page

	// A page that does not shrink is a sign that those after it will not: as many as left are stored as they are.
	stored stored
}

// stored says which pages are not compressed.
type stored struct {
	encoding int32 // of the pages
	left     int
	step     int // how many were left after the last page that did not shrink
}

// shop is what the columns of one writer share: sizes, and space that only one needs at a time.
type shop struct {
	codec     *codec
	pageBytes int64
	body      []byte
	indexes   []uint32
	spread    []uint32
	used      []bool
	parts     [][]byte
}

func newColumn(l *leaf, s *shop) *column {
	c := &column{leaf: l, shop: s, held: chain{pool: &s.codec.pool}}
	c.bigSize = int(s.pageBytes)
	c.strings.width = l.width
	c.begin()
	return c
}

func (c *column) name() string { return strings.Join(c.path, ".") }

// begin readies the column for a new chunk.
func (c *column) begin() {
	c.pages = c.pages[:0]
	c.held.release()
	c.dict = !c.noDict && c.order != orderNone && c.phys != physBool
	c.dictRows = 0
	c.ints.reset()
	c.longs.reset()
	c.strings.reset()
	if c.leaf.bloom {
		c.bloom.reset()
	}
}

// add carries rows lo to hi of the record's array into pages.
func (c *column) add(arr arrow.Array, lo, hi int) error {
	for lo < hi {
		n, weight := c.fit(arr, lo, hi)
		if n == 0 {
			if err := c.cut(); err != nil {
				return err
			}
			continue
		}
		if err := c.walk(0, arr, lo, lo+n, 0, 0); err != nil {
			return err
		}
		c.rows += n
		c.weight += weight
		lo += n
	}
	if c.weight >= c.shop.pageBytes { // large values must not outlive the record
		return c.cut()
	}
	return nil
}

// fit says how many rows from lo on the open page can take, and what they weigh. A row larger than a
// page has one to itself.
func (c *column) fit(arr arrow.Array, lo, hi int) (int, int64) {
	n := min(hi-lo, pageRows-c.rows)
	room := c.shop.pageBytes - c.weight
	if n <= 0 || room <= 0 {
		return 0, 0
	}
	weight := c.weigh(0, arr, lo, lo+n)
	if weight <= room {
		return n, weight
	}
	n = sort.Search(n, func(i int) bool { return c.weigh(0, arr, lo, lo+i+1) > room })
	if n == 0 && c.rows == 0 {
		n = 1
	}
	return n, c.weigh(0, arr, lo, lo+n)
}

// cut ends the open page, if it has any rows.
func (c *column) cut() error {
	if c.rows == 0 {
		return nil
	}
	s := c.shop
	p := page{rows: c.rows, levels: c.levels, nulls: c.levels - c.n, encoding: encPlain}
	s.body = s.body[:0]
	if c.maxRep > 0 {
		s.body, s.spread = appendLevels(s.body, c.rep, c.maxRep, s.spread)
	}
	if c.maxDef > 0 {
		s.body, s.spread = appendLevels(s.body, c.def, c.maxDef, s.spread)
	}
	s.parts = append(s.parts[:0], nil) // the body's place: it still grows and moves
	c.encode(&p)
	s.parts[0] = s.body
	for _, b := range s.parts {
		p.raw += len(b)
	}
	// Nothing can be done about it in a version 1 page: its header counts in 32 bits.
	if p.raw > math.MaxInt32-1<<20 {
		return fault.New(fault.ValueUncarriable, c.name(), "a row of %d bytes is longer than a Parquet page can be", p.raw)
	}
	if err := c.pack(&p); err != nil {
		return err
	}
	c.pages = append(c.pages, p)
	clear(s.parts)
	s.body = reusable(s.body)
	c.reset()
	if c.found = c.found[:0]; 4*cap(c.found) > maxKept {
		c.found = nil
	}
	c.def, c.rep = c.def[:0], c.rep[:0]
	c.rows, c.levels, c.weight = 0, 0, 0
	return nil
}

// mostStored is how many pages are stored after one that did not shrink before another is tried.
const mostStored = 7

// pack compresses the page in the shop's parts, or stores it where those before it say that it would not shrink. One is tried again
// after one page, then after three, then after seven, so that what begins to shrink is found soon.
func (c *column) pack(p *page) error {
	s, k := c.shop, &c.stored
	store := k.left > 0 && k.encoding == p.encoding && s.codec.stores(p.raw)
	put := s.codec.pack
	if store {
		put = s.codec.store
	}
	if err := put(s.parts, p.raw, &c.held); err != nil {
		return fmt.Errorf("compressing a Parquet page: %w", err)
	}
	p.packed, p.crc = int(c.held.since()), c.held.crc
	switch {
	case store:
		k.left--
	case 50*p.packed <= 49*p.raw:
		*k = stored{}
	default:
		if k.encoding != p.encoding {
			*k = stored{encoding: p.encoding}
		}
		k.step = min(2*k.step+1, mostStored)
		k.left = k.step
	}
	return nil
}

// encode writes the staged values to the shop's body and parts, and their bounds and encoding to p.
func (c *column) encode(p *page) {
	switch {
	case c.n == 0:
		return
	case c.phys == physBool:
		c.shop.body = appendBits(c.shop.body, c.buf)
		p.bounds = boolBounds(c.buf)
	case c.phys == physInt32 || c.phys == physFloat:
		if c.phys == physFloat {
			p.bounds, p.nans = floatBounds(c.i32, float32Of, plainFloat32)
		} else {
			p.bounds = intBounds(c.i32, c.order == orderUnsigned)
		}
		if !encodeInts(c, &c.ints, c.i32, p) {
			observeNumbers(c, c.i32)
		}
	case c.phys == physInt64 || c.phys == physDouble:
		if c.phys == physDouble {
			p.bounds, p.nans = floatBounds(c.i64, float64Of, plainFloat64)
		} else {
			p.bounds = intBounds(c.i64, c.order == orderUnsigned)
		}
		if !encodeInts(c, &c.longs, c.i64, p) {
			observeNumbers(c, c.i64)
		}
	default:
		c.encodeBytes(p)
	}
}

func boolBounds(v []byte) bounds {
	lo, hi := v[0], v[0]
	for _, b := range v {
		lo, hi = lo&b, hi|b
	}
	return bounds{bound{[]byte{lo}, true}, bound{[]byte{hi}, true}, true}
}

// encodeInts encodes v by the dictionary where that pays and says whether it did.
func encodeInts[T int32 | int64](c *column, d *intDict[T], v []T, p *page) bool {
	s := c.shop
	var size = len(v) * int(unsafe.Sizeof(v[0]))
	start := len(s.body)
	delta := false
	if c.delta && (!c.dict || c.dictRows == 0) {
		s.body = appendDelta(s.body, v)
		size = len(s.body) - start
		delta = true
	}
	if c.dict {
		before := len(d.entries)
		var ok bool
		if s.indexes, ok = d.index(v, s.indexes[:0]); ok {
			ok = c.pays(len(d.entries), len(d.entries)*int(unsafe.Sizeof(v[0])), size)
		}
		if ok {
			s.body = s.body[:start]
			c.encodeIndexes(s.indexes, len(d.entries), p)
			return true
		}
		d.entries = d.entries[:before]
		c.dict = false
	}
	switch {
	case !c.delta:
		s.body = append(s.body, unsafe.Slice((*byte)(unsafe.Pointer(&v[0])), size)...)
		return false
	case !delta:
		s.body = appendDelta(s.body, v)
	}
	p.encoding = encDelta
	return false
}

// pays compares, on a chunk's first page, the bytes of a dictionary and its indexes with those
// of the other encoding. Later pages stay with what the first one chose.
func (c *column) pays(entries, dictBytes, other int) bool {
	if c.dictRows > 0 {
		return true
	}
	indexes := c.n * bits.Len(uint(entries-1)) / 8
	return 10*(dictBytes+indexes) <= 9*other
}

func (c *column) encodeIndexes(indexes []uint32, entries int, p *page) {
	width := max(1, bits.Len(uint(entries-1)))
	c.shop.body = append(c.shop.body, byte(width))
	c.shop.body = appendHybrid(c.shop.body, indexes, uint(width))
	p.encoding = encDict
	c.dictRows += p.rows
}

func (c *column) encodeBytes(p *page) {
	e := byteExtremes{order: c.order}
	s := c.shop
	if len(c.found) > 0 {
		c.encodeFound(c.found, p, &e)
		return
	}
	if c.dict && len(c.large) == 0 {
		d := &c.strings
		before := len(d.entries)
		var ok bool
		if s.indexes, ok = d.index(c.buf, s.indexes[:0]); ok && c.pays(len(d.entries), len(d.arena), len(c.buf)) {
			c.encodeFound(s.indexes, p, &e)
			return
		}
		d.truncate(before)
	}
	c.dict = false
	at := 0
	for _, l := range c.large {
		c.plainValues(c.buf[at:l.at-4], &e)
		c.observe(l.value, &e)
		s.parts = append(s.parts, c.buf[at:l.at], l.value)
		at = l.at
	}
	c.plainValues(c.buf[at:], &e)
	s.parts = append(s.parts, c.buf[at:])
	p.bounds = e.bounds(c.phys == physBytes)
}

// encodeFound writes a page of indexes of the dictionary of byte strings.
func (c *column) encodeFound(indexes []uint32, p *page, e *byteExtremes) {
	c.encodeIndexes(indexes, len(c.strings.entries), p)
	c.usedExtremes(indexes, e)
	p.bounds = e.bounds(c.phys == physBytes)
}

// usedExtremes looks at each dictionary entry that the page uses once.
func (c *column) usedExtremes(indexes []uint32, e *byteExtremes) {
	s, n := c.shop, len(c.strings.entries)
	if cap(s.used) < n {
		s.used = make([]bool, n, 2*n)
	}
	s.used = s.used[:n]
	clear(s.used)
	for _, i := range indexes {
		s.used[i] = true
	}
	for i, used := range s.used {
		if used {
			e.add(c.strings.value(i))
		}
	}
}

// plainValues shows the values in PLAIN bytes to the statistics and the Bloom filter.
func (c *column) plainValues(plain []byte, e *byteExtremes) {
	for len(plain) > 0 {
		var v []byte
		v, plain = nextPlain(plain, c.width)
		c.observe(v, e)
	}
}

func (c *column) observe(v []byte, e *byteExtremes) {
	e.add(v)
	if c.leaf.bloom {
		c.bloom.insert(xxhash.Sum64(v))
	}
}

// dictionary returns the dictionary page's body and its number of entries, and shows the entries
// to the Bloom filter: pages encoded by the dictionary were not.
func (c *column) dictionary() ([]byte, int) {
	if c.dictRows == 0 {
		return nil, 0
	}
	s := c.shop
	switch c.phys {
	case physInt32, physFloat:
		entries := dictionaryOf(c, c.ints.entries)
		s.body = append(s.body[:0], arrow.Int32Traits.CastToBytes(entries)...)
		return s.body, len(entries)
	case physInt64, physDouble:
		entries := dictionaryOf(c, c.longs.entries)
		s.body = append(s.body[:0], arrow.Int64Traits.CastToBytes(entries)...)
		return s.body, len(entries)
	}
	if c.leaf.bloom {
		for i := range c.strings.entries {
			c.bloom.insert(xxhash.Sum64(c.strings.value(i)))
		}
	}
	return c.strings.arena, len(c.strings.entries)
}

// dictionaryOf is the dictionary of numbers: the distinct values and, where only one zero of a float is among them, the
// other, which no page uses.
func dictionaryOf[T int32 | int64](c *column, entries []T) []T {
	observeNumbers(c, entries)
	if c.order == orderFloat {
		return append(entries, otherZeros(entries)...)
	}
	return entries
}

// observeNumbers shows numbers to the Bloom filter.
func observeNumbers[T int32 | int64](c *column, v []T) {
	if !c.leaf.bloom {
		return
	}
	insertNumbers(&c.bloom, v)
	if c.order == orderFloat {
		insertNumbers(&c.bloom, otherZeros(v))
	}
}

// heldBack is the bytes of the open chunk: compressed pages, and what is staged.
func (c *column) heldBack() int64 { return c.held.bytes + c.weight }
