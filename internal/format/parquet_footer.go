package format

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
)

// rowGroup is what the footer says of a row group.
type rowGroup struct {
	rows   int64
	at     int64 // where its first byte is
	raw    int64
	packed int64
	chunks []chunk
}

// chunk is what the footer says of one column in a row group.
type chunk struct {
	levels    int64
	nulls     int64
	nans      int64
	raw       int64 // with page headers, as the format counts
	packed    int64
	encodings []int32 // of data pages, each once
	counts    []int32 // how many data pages have it
	dictAt    int64   // 0 without a dictionary
	dataAt    int64
	bloomAt   int64 // 0 without a Bloom filter
	bloomLen  int32
	bounds
	unbounded          bool
	offsets, index     []byte // the page index, encoded; index may be absent
	offsetsAt, indexAt int64
}

// endGroup writes the held pages of all columns, one column after another.
func (w *parquetWriter) endGroup() error {
	g := rowGroup{rows: w.rows, at: w.at, chunks: make([]chunk, len(w.columns))}
	for i, c := range w.columns {
		if err := w.endChunk(c, &g.chunks[i]); err != nil {
			return err
		}
		g.raw += g.chunks[i].raw
		g.packed += g.chunks[i].packed
	}
	for i, c := range w.columns {
		if c.leaf.bloom {
			if err := w.writeBloom(c, &g.chunks[i]); err != nil {
				return err
			}
		}
		c.noDict = c.noDict || !c.dict && 2*int64(c.dictRows) < w.rows
		c.begin()
	}
	w.groups = append(w.groups, g)
	w.rows, w.raw = 0, 0
	return nil
}

func (w *parquetWriter) endChunk(c *column, k *chunk) error {
	if err := c.cut(); err != nil {
		return err
	}
	if body, n := c.dictionary(); n > 0 {
		if err := w.writeDictionary(k, body, n); err != nil {
			return err
		}
	}
	k.dataAt = w.at
	offsets := thrift{}
	offsets.open()
	offsets.list(1, thriftStruct, len(c.pages))
	held := chainReader{blocks: c.held.blocks}
	row := int64(0)
	for i := range c.pages {
		p := &c.pages[i]
		at := w.at
		if err := w.write(dataHeader(p)); err != nil {
			return err
		}
		k.raw += w.at - at + int64(p.raw)
		if err := held.next(int64(p.packed), w.write); err != nil {
			return err
		}
		offsets.open()
		offsets.i64(1, at)
		offsets.i32(2, int32(w.at-at))
		offsets.i64(3, row)
		offsets.end()
		row += int64(p.rows)
		k.note(&c.storage, p)
	}
	k.packed += w.at - k.dataAt
	offsets.end()
	k.offsets = offsets.b
	k.index = columnIndex(&c.storage, c.pages)
	return nil
}

// note adds a page to the sums of its chunk. One page with values that have no bounds leaves
// the chunk without.
func (k *chunk) note(s *storage, p *page) {
	k.levels += int64(p.levels)
	k.nulls += int64(p.nulls)
	k.nans += int64(p.nans)
	if i := slices.Index(k.encodings, p.encoding); i >= 0 {
		k.counts[i]++
	} else {
		k.encodings = append(k.encodings, p.encoding)
		k.counts = append(k.counts, 1)
	}
	switch {
	case p.known && !k.unbounded:
		s.merge(&k.bounds, p.bounds)
	case !p.known && p.nulls < p.levels:
		k.unbounded, k.bounds = true, bounds{}
	}
}

func (w *parquetWriter) writeDictionary(k *chunk, body []byte, n int) error {
	k.dictAt = w.at
	s := w.shop
	held := chain{pool: &s.codec.pool}
	if err := s.codec.pack([][]byte{body}, len(body), &held); err != nil {
		return fmt.Errorf("compressing a Parquet page: %w", err)
	}
	t := thrift{}
	t.open()
	t.i32(1, 2)
	t.i32(2, int32(len(body)))
	t.i32(3, int32(held.bytes))
	t.i32(4, int32(held.crc))
	t.begin(7)
	t.i32(1, int32(n))
	t.i32(2, encPlain)
	t.end()
	t.end()
	if err := w.write(t.b); err != nil {
		return err
	}
	k.raw += int64(len(t.b) + len(body))
	reader := chainReader{blocks: held.blocks}
	if err := reader.next(held.bytes, w.write); err != nil {
		return err
	}
	held.release()
	k.packed += w.at - k.dictAt
	return nil
}

func dataHeader(p *page) []byte {
	t := thrift{}
	t.open()
	t.i32(1, 0)
	t.i32(2, int32(p.raw))
	t.i32(3, int32(p.packed))
	t.i32(4, int32(p.crc))
	t.begin(5)
	t.i32(1, int32(p.levels))
	t.i32(2, p.encoding)
	t.i32(3, encRLE)
	t.i32(4, encRLE)
	t.end()
	t.end()
	return t.b
}

func (w *parquetWriter) writeBloom(c *column, k *chunk) error {
	c.bloom.fold()
	b := c.bloom.appendTo(nil)
	k.bloomAt, k.bloomLen = w.at, int32(len(b))
	return w.write(b)
}

// columnIndex encodes the bounds of a chunk's pages. It must name those of every page that holds
// values, so one page without leaves the chunk without an index.
func columnIndex(k *storage, pages []page) []byte {
	var last *page
	up, down := true, true
	for i := range pages {
		p := &pages[i]
		if !p.known {
			if p.nulls < p.levels {
				return nil
			}
			continue
		}
		if last != nil {
			lo, hi := k.compareBounds(last.min.value, p.min.value), k.compareBounds(last.max.value, p.max.value)
			up, down = up && lo <= 0 && hi <= 0, down && lo >= 0 && hi >= 0
		}
		last = p
	}
	t := thrift{}
	t.open()
	t.list(1, thriftTrue, len(pages))
	for i := range pages {
		t.elementBool(!pages[i].known)
	}
	t.list(2, thriftBinary, len(pages))
	for i := range pages {
		t.element(pages[i].min.value)
	}
	t.list(3, thriftBinary, len(pages))
	for i := range pages {
		t.element(pages[i].max.value)
	}
	boundary := int32(0)
	if up {
		boundary = 1
	} else if down {
		boundary = 2
	}
	t.i32(4, boundary)
	t.list(5, thriftI64, len(pages))
	for i := range pages {
		t.elementInt(int64(pages[i].nulls))
	}
	t.end()
	return t.b
}

// writeIndexes writes the page index: all column indexes, then all offset indexes, so that
// a reader can fetch each kind in one piece.
func (w *parquetWriter) writeIndexes() error {
	for _, pick := range []func(*chunk) (*int64, []byte){
		func(k *chunk) (*int64, []byte) { return &k.indexAt, k.index },
		func(k *chunk) (*int64, []byte) { return &k.offsetsAt, k.offsets },
	} {
		for g := range w.groups {
			for i := range w.groups[g].chunks {
				at, b := pick(&w.groups[g].chunks[i])
				*at = w.at
				if err := w.write(b); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *parquetWriter) writeFooter() error {
	t := thrift{}
	t.open()
	t.i32(1, 2)
	t.list(2, thriftStruct, w.elements.elements)
	t.b = append(t.b, w.elements.t.b...)
	var rows int64
	for _, g := range w.groups {
		rows += g.rows
	}
	t.i64(3, rows)
	t.list(4, thriftStruct, len(w.groups))
	for i := range w.groups {
		w.groupFooter(&t, i)
	}
	if len(w.opts.Metadata) > 0 {
		t.list(5, thriftStruct, len(w.opts.Metadata))
		for _, key := range sortedKeys(w.opts.Metadata) {
			t.open()
			t.str(1, key)
			t.str(2, w.opts.Metadata[key])
			t.end()
		}
	}
	t.str(6, w.opts.CreatedBy)
	t.list(7, thriftStruct, len(w.columns))
	for range w.columns {
		t.open()
		t.empty(1) // TYPE_ORDER: the order each type defines
		t.end()
	}
	t.end()
	t.b = binary.LittleEndian.AppendUint32(t.b, uint32(len(t.b)))
	return w.write(append(t.b, "PAR1"...))
}

func (w *parquetWriter) groupFooter(t *thrift, i int) {
	g := &w.groups[i]
	t.open()
	t.list(1, thriftStruct, len(g.chunks))
	for j := range g.chunks {
		w.chunkFooter(t, w.columns[j].leaf, &g.chunks[j])
	}
	t.i64(2, g.raw)
	t.i64(3, g.rows)
	t.i64(5, g.at)
	t.i64(6, g.packed)
	if i <= math.MaxInt16 {
		t.i16(7, int16(i))
	}
	t.end()
}

func (w *parquetWriter) chunkFooter(t *thrift, l *leaf, k *chunk) {
	t.open()
	t.i64(2, 0) // file_offset: deprecated, zero by the format's advice
	t.begin(3)
	t.i32(1, int32(l.phys))
	encodings := append([]int32{encRLE}, k.encodings...)
	if k.dictAt > 0 && !slices.Contains(encodings, encPlain) {
		encodings = append(encodings, encPlain)
	}
	t.list(2, thriftI32, len(encodings))
	for _, e := range encodings {
		t.elementInt(int64(e))
	}
	t.list(3, thriftBinary, len(l.path))
	for _, name := range l.path {
		t.elementStr(name)
	}
	t.i32(4, w.shop.codec.id)
	t.i64(5, k.levels)
	t.i64(6, k.raw)
	t.i64(7, k.packed)
	t.i64(9, k.dataAt)
	if k.dictAt > 0 {
		t.i64(11, k.dictAt)
	}
	t.begin(12)
	t.i64(3, k.nulls)
	if k.known {
		t.bytes(5, k.max.value)
		t.bytes(6, k.min.value)
		t.boolean(7, k.max.exact)
		t.boolean(8, k.min.exact)
	}
	t.end()
	k.encodingStats(t)
	if k.bloomAt > 0 {
		t.i64(14, k.bloomAt)
		t.i32(15, k.bloomLen)
	}
	t.end()
	t.i64(4, k.offsetsAt)
	t.i32(5, int32(len(k.offsets)))
	if k.index != nil {
		t.i64(6, k.indexAt)
		t.i32(7, int32(len(k.index)))
	}
	t.end()
}

// encodingStats tells readers whether a chunk is in its dictionary as a whole, so that the
// dictionary alone can answer a filter.
func (k *chunk) encodingStats(t *thrift) {
	n := len(k.encodings)
	if k.dictAt > 0 {
		n++
	}
	t.list(13, thriftStruct, n)
	stat := func(pageType, encoding, count int32) {
		t.open()
		t.i32(1, pageType)
		t.i32(2, encoding)
		t.i32(3, count)
		t.end()
	}
	if k.dictAt > 0 {
		stat(2, encPlain, 1)
	}
	for i, e := range k.encodings {
		stat(0, e, k.counts[i])
	}
}
