package lake

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
)

// checkedFile hands out a column chunk when its pages have been looked at, as far as it is read. Arrow reads a chunk from its beginning to its
// end, in one piece or in several.
type checkedFile struct {
	readable
	chunks []*pageWalk // in the order of their bytes
	most   parquetLimits
	rows   int64         // of a record that is read; 0: what they take is not counted
	row    int64         // about how many bytes a row of it has, of the pages seen
	leaves map[int]int64 // the same of each leaf
	wide   bool          // such a record would have more than scanBytes: nothing is handed out any more
}

// errWide says that a record of so many rows would take too much memory.
var errWide = errors.New("the rows of its pages take too much memory together")

// recordsOf starts over, for records of so many rows; each takes some bytes beside what is read.
func (f *checkedFile) recordsOf(rows, beside int64) {
	f.rows, f.row, f.leaves, f.wide = rows, beside, map[int]int64{}, false
}

func (f *checkedFile) ReadAt(p []byte, off int64) (int, error) {
	if f.wide {
		return 0, errWide
	}
	n, err := f.readable.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) || n == 0 {
		return n, err
	}
	i := sort.Search(len(f.chunks), func(i int) bool { return f.chunks[i].start > off }) - 1
	if i < 0 || off >= f.chunks[i].start+f.chunks[i].length {
		return n, err
	}
	c := f.chunks[i]
	if err := c.look(off-c.start, p[:n], f.most, f.room()); err != nil {
		return 0, err
	}
	if f.rows > 0 && c.widest*c.each > f.leaves[c.column] {
		f.row += c.widest*c.each - f.leaves[c.column]
		f.leaves[c.column] = c.widest * c.each
		if f.wide = f.rows > 1 && f.row > f.room(); f.wide {
			return 0, errWide
		}
	}
	return n, err
}

// room is how many bytes a row may have.
func (f *checkedFile) room() int64 { return scanBytes / max(1, f.rows) }

// Fields of parquet.thrift's PageHeader. Those of the structures in it have the number of values as their first field.
const (
	pageKind         = 1
	pageUnpacked     = 2
	pagePacked       = 3
	pageData         = 5
	pageDictionary   = 7
	pageData2        = 8
	pageFieldValues  = 1
	pageFieldCoding  = 2 // of pageData
	pageFieldRows    = 3 // of pageData2
	pageFieldCoding2 = 4 // the same
)

// Kinds of pages.
const (
	kindData       = 0
	kindDictionary = 2
	kindData2      = 3
)

// pageHead is what the head of a page says.
type pageHead struct {
	kind, unpacked, packed int64
	values                 [pageData2 + 1]int64 // by the field of the structure that says so
	rows                   int64
	coding                 [pageData2 + 1]int64 // of values, the same way
}

func (h *pageHead) see(path []int, kind byte, n int64) {
	if kind != compactI32 { // Thrift skips it
		return
	}
	switch {
	case len(path) == 1:
		switch path[0] {
		case pageKind:
			h.kind = n
		case pageUnpacked:
			h.unpacked = n
		case pagePacked:
			h.packed = n
		}
	case len(path) != 2 || path[0] < 0 || path[0] > pageData2:
	case path[1] == pageFieldValues:
		h.values[path[0]] = n
	case path[0] == pageData && path[1] == pageFieldCoding || path[0] == pageData2 && path[1] == pageFieldCoding2:
		h.coding[path[0]] = n
	case path[0] == pageData2 && path[1] == pageFieldRows:
		h.rows = n
	}
}

// pageWalk looks at the pages of a column chunk as it is read.
type pageWalk struct {
	chunkFacts
	read    int64  // so much of it has been read
	next    int64  // where the next head begins
	seen    int64  // values of the pages so far, as Arrow counts
	carried []byte // what has been read from next on
	entry   int64  // how many bytes the longest value of the dictionary may have
	widest  int64  // the same for any value so far, on the mean of its page
}

const (
	mostHead   = 16 << 20 // bytes of a head, which Arrow reads
	mostLooked = 8 << 20  // bytes of a dictionary, packed or not, whose values are looked at
)

// look takes the next bytes of the chunk. room is how many bytes a row may have, as far as that matters.
func (w *pageWalk) look(off int64, data []byte, most parquetLimits, room int64) error {
	if off == 0 {
		*w = pageWalk{chunkFacts: w.chunkFacts}
	}
	if off != w.read {
		return nil
	}
	w.read += int64(len(data))
	if w.next >= w.read || w.seen >= w.values {
		return nil
	}
	if len(w.carried) > 0 {
		data = append(w.carried, data...)
	} else {
		data = data[w.next-off:]
	}
	whole := w.read >= w.length
	for w.seen < w.values && len(data) > 0 {
		var h pageHead
		walk := compactWalk{data: data, left: compactItems, see: h.see}
		if err := walk.structure(); err != nil {
			if whole || len(data) > mostHead {
				return err
			}
			break // the piece ends here
		}
		if err := h.check(w.chunkFacts, most); err != nil {
			return err
		}
		body := data[walk.at:]
		short := h.packed > int64(len(body))
		if short && whole {
			return errPage
		}
		if short && h.kind == kindDictionary && h.packed <= mostLooked { // Arrow needs the next piece first, too
			break
		}
		w.note(&h, body[:min(h.packed, int64(len(body)))], room)
		w.next += int64(walk.at) + h.packed
		data = body[min(h.packed, int64(len(body))):]
	}
	w.carried = nil
	if w.seen < w.values {
		w.carried = slices.Clone(data)
	}
	return nil
}

// note takes over what a page says of the values.
func (w *pageWalk) note(h *pageHead, body []byte, room int64) {
	values, coding := h.values[pageData], h.coding[pageData]
	switch h.kind {
	case kindDictionary:
		w.entry = w.longest(h, body, room)
		return
	case kindData:
		w.seen += values
	case kindData2:
		w.seen += h.rows
		values, coding = h.values[pageData2], h.coding[pageData2]
	}
	width := int64(w.width)
	if !w.fixed {
		switch parquet.Encoding(coding) {
		case parquet.Encodings.PlainDict, parquet.Encodings.RLEDict:
			width = w.entry
		case parquet.Encodings.DeltaByteArray: // each value may have all that those before it have
			width = h.unpacked
		default:
			width = (h.unpacked + max(1, values) - 1) / max(1, values)
		}
	}
	w.widest = max(w.widest, width)
}

// longest is how many bytes a value of the dictionary has at most. What its head says is enough where that is little.
func (w *pageWalk) longest(h *pageHead, body []byte, room int64) int64 {
	most := max(0, h.unpacked-4*h.values[pageDictionary])
	if w.fixed || most <= room || h.unpacked > mostLooked || int64(len(body)) < h.packed {
		return most
	}
	if w.codec != compress.Codecs.Uncompressed {
		codec, err := compress.GetCodec(w.codec)
		if err != nil {
			return most
		}
		if body, err = compress.Decode(codec, make([]byte, h.unpacked), body); err != nil {
			return most // Arrow says so
		}
	}
	longest := int64(0)
	for len(body) >= 4 {
		n := int64(binary.LittleEndian.Uint32(body))
		longest = max(longest, n)
		body = body[min(4+n, int64(len(body))):]
	}
	return min(longest, most)
}

func (h *pageHead) check(c chunkFacts, most parquetLimits) error {
	size, values := most.page, h.values[pageData]
	switch h.kind {
	case kindData:
	case kindData2:
		values = h.values[pageData2]
	case kindDictionary:
		size, values = most.dictionary, 0
		if n := h.values[pageDictionary]; n < 0 || n*int64(c.width) > h.unpacked {
			return errPageValues
		}
	default: // Arrow would take its body for pages
		return errPage
	}
	if h.packed < 0 || h.unpacked < 0 || h.packed > most.page || h.unpacked > min(size, mostUnpackedOf(c.codec, h.packed)) {
		return errPage
	}
	if values < 0 || h.rows < 0 || h.rows > values || values > min(c.values, mostPageValues) {
		return errPageValues
	}
	return nil
}

// mostUnpackedOf is to how much so many bytes can be unpacked; a little is never looked at.
func mostUnpackedOf(codec compress.Compression, packed int64) int64 {
	times := int64(1 << 16)
	switch codec {
	case compress.Codecs.Uncompressed:
		times = 1
	case compress.Codecs.Snappy:
		times = 32
	case compress.Codecs.Gzip:
		times = 1100
	case compress.Codecs.Lz4Raw, compress.Codecs.Lz4:
		times = 256
	}
	return max(1<<20, times*packed)
}
