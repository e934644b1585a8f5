package format

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// blockBytes is the size of the pieces that compressed pages are held in. A table of 1,600
// columns has one partly filled piece a column.
const blockBytes = 32 << 10

// pool hands out blocks and takes them back, up to what one row group holds. A page of one huge value may be far more: blocks beyond
// scratch.Large are pieces of buffers that do not count as memory.
type pool struct {
	free  [][]byte
	out   int      // blocks that are in use
	slabs [][]byte // what blocks are cut from
	slab  []byte   // the part of the last that is not in use
}

func (p *pool) take() []byte {
	p.out++
	if p.out > (heldBytes+maxKept)/blockBytes {
		return p.cutSlab()
	}
	if n := len(p.free) - 1; n >= 0 {
		b := p.free[n]
		p.free[n] = nil
		p.free = p.free[:n]
		return b
	}
	return make([]byte, 0, blockBytes)
}

func (p *pool) cutSlab() []byte {
	if len(p.slab) == 0 {
		p.slab = scratch.Make(scratch.Large)
		p.slabs = append(p.slabs, p.slab)
	}
	b := p.slab[:0:blockBytes]
	p.slab = p.slab[blockBytes:]
	return b
}

func (p *pool) give(blocks [][]byte) {
	p.out -= len(blocks)
	for i, b := range blocks {
		if len(p.free) < heldBytes/blockBytes && len(p.slabs) == 0 {
			p.free = append(p.free, b[:0])
		}
		blocks[i] = nil
	}
	if p.out == 0 {
		p.freeSlabs()
	}
}

func (p *pool) freeSlabs() {
	for _, s := range p.slabs {
		scratch.Free(s)
	}
	p.slabs, p.slab = nil, nil
}

// trim keeps a few blocks for the next file, which is small more often than not.
func (p *pool) trim() {
	const kept = maxKept / blockBytes
	if len(p.free) > kept {
		clear(p.free[kept:])
		p.free = p.free[:kept]
	}
}

// chain holds a column's compressed pages, one after another, until the row group is written.
type chain struct {
	pool   *pool
	blocks [][]byte
	bytes  int64
	crc    uint32 // of what came since the last mark
	mark   int64
}

func (c *chain) Write(b []byte) (int, error) {
	n := len(b)
	c.bytes += int64(n)
	c.crc = crc32.Update(c.crc, crc32.IEEETable, b)
	for len(b) > 0 {
		k := len(c.blocks) - 1
		if k < 0 || len(c.blocks[k]) == blockBytes {
			c.blocks = append(c.blocks, c.pool.take())
			k++
		}
		fits := min(len(b), blockBytes-len(c.blocks[k]))
		c.blocks[k] = append(c.blocks[k], b[:fits]...)
		b = b[fits:]
	}
	return n, nil
}

// page begins a page; since says how long it has become.
func (c *chain) page() { c.crc, c.mark = 0, c.bytes }

func (c *chain) since() int64 { return c.bytes - c.mark }

// release gives all blocks back.
func (c *chain) release() {
	c.pool.give(c.blocks)
	c.blocks, c.bytes = c.blocks[:0], 0
}

// chainReader reads a chain from its beginning, page by page.
type chainReader struct {
	blocks [][]byte
	at     int // in the first block
}

// next passes the next n bytes to write.
func (r *chainReader) next(n int64, write func([]byte) error) error {
	for n > 0 {
		part := r.blocks[0][r.at:]
		if int64(len(part)) > n {
			part = part[:n]
		}
		if err := write(part); err != nil {
			return err
		}
		n -= int64(len(part))
		if r.at += len(part); r.at == len(r.blocks[0]) {
			r.blocks, r.at = r.blocks[1:], 0
		}
	}
	return nil
}

// codecIDs are the numbers of parquet.thrift's CompressionCodec.
var codecIDs = map[Compression]int32{CodecNone: 0, CodecSnappy: 1, CodecGzip: 2, CodecZstd: 6}

// codec compresses the pages of one file at a time, with buffers it keeps. It serves one file after
// another: a dump of thousands of small tables would otherwise make an encoder for each.
type codec struct {
	id   int32
	zstd *zstd.Encoder
	gzip *gzip.Writer
	flat *gzip.Writer // beside gzip: compresses nothing
	join []byte       // a page put together
	out  []byte       // a page compressed
	pool pool         // of blocks for what is compressed
	home *sync.Pool
}

// codecHome is where codecs of one kind wait for the next file.
type codecHome struct {
	compression Compression
	level       int
}

var codecHomes sync.Map // codecHome to *sync.Pool

// takeCodec gives a codec, used or new; giveBack returns it when its file is whole.
func takeCodec(c Compression, level int) (*codec, error) {
	home, _ := codecHomes.LoadOrStore(codecHome{c, level}, new(sync.Pool))
	waiting := home.(*sync.Pool)
	if k, ok := waiting.Get().(*codec); ok {
		return k, nil
	}
	k, err := newCodec(c, level)
	if err != nil {
		return nil, err
	}
	k.home = waiting
	return k, nil
}

func (k *codec) giveBack() {
	k.pool.trim()
	k.home.Put(k)
}

func newCodec(c Compression, level int) (*codec, error) {
	id, ok := codecIDs[c]
	if !ok {
		return nil, fault.New(fault.FormatUnusable, "", "Parquet cannot be compressed with %q", string(c)).
			WithMend("Choose none, snappy, zstd or gzip.")
	}
	k := &codec{id: id}
	var err error
	switch c {
	case CodecZstd:
		l := zstd.SpeedFastest
		if level > 0 {
			l = zstd.EncoderLevelFromZstd(level)
		}
		k.zstd, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderConcurrency(1),
			zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false)) // the page has a checksum of its own
	case CodecGzip:
		if level == 0 {
			level = gzip.DefaultCompression
		}
		if k.gzip, err = gzip.NewWriterLevel(nil, level); err == nil {
			k.flat, err = gzip.NewWriterLevel(nil, gzip.NoCompression)
		}
	}
	if err != nil {
		return nil, fault.New(fault.FormatUnusable, "", "%s has no level %d", c, level).Because(err)
	}
	return k, nil
}

// pack compresses a page of so many bytes, given in parts, into the chain.
func (k *codec) pack(parts [][]byte, size int, to *chain) error {
	to.page()
	if k.gzip == nil && k.id != codecIDs[CodecNone] && size <= maxKept {
		k.packWhole(parts, to)
		return nil
	}
	return k.packParts(parts, size, to)
}

func (k *codec) packWhole(parts [][]byte, to *chain) {
	if len(parts) == 2 && len(parts[0]) == 0 {
		parts = parts[1:]
	}
	src := parts[0]
	if len(parts) > 1 {
		k.join = k.join[:0]
		for _, p := range parts {
			k.join = append(k.join, p...)
		}
		src = k.join
	}
	if k.zstd != nil {
		k.out = k.zstd.EncodeAll(src, k.out[:0])
	} else {
		k.out = s2.EncodeSnappy(k.out[:cap(k.out)], src)
	}
	to.Write(k.out) // a chain takes everything
}

// stores says whether a page of so many bytes may be stored instead of compressed. Snappy passes over what does not shrink as fast as it is copied.
func (k *codec) stores(size int) bool {
	return (k.zstd != nil || k.gzip != nil) && size > 0 && size <= maxKept
}

// rawBlock is the most bytes that a block of a zstd frame has (RFC 8878, section 3.1.1.2).
const rawBlock = 128 << 10

// store puts a page into the chain as its codec does with bytes that it cannot compress: all readers know that.
func (k *codec) store(parts [][]byte, size int, to *chain) error {
	to.page()
	if k.gzip != nil {
		k.flat.Reset(to)
		return feed(k.flat, parts)
	}
	// A frame of one segment whose length is told in four bytes, and after it raw blocks (RFC 8878, sections 3.1.1.1 and 3.1.1.2).
	head := binary.LittleEndian.AppendUint32([]byte{0x28, 0xb5, 0x2f, 0xfd, 0xa0}, uint32(size))
	to.Write(head)
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), rawBlock)
			size -= n
			block := uint32(n) << 3
			if size == 0 {
				block |= 1 // the last
			}
			to.Write([]byte{byte(block), byte(block >> 8), byte(block >> 16)})
			to.Write(p[:n])
			p = p[n:]
		}
	}
	return nil
}

// packParts compresses what is too large to be put together first, or has a codec that streams anyway.
func (k *codec) packParts(parts [][]byte, size int, to *chain) error {
	var w io.Writer = to
	switch {
	case k.zstd != nil:
		k.zstd.Reset(to)
		w = k.zstd
	case k.gzip != nil:
		k.gzip.Reset(to)
		w = k.gzip
	case k.id == codecIDs[CodecSnappy]:
		to.Write(binary.AppendUvarint(nil, uint64(size)))
		w = snappyPieces{k, to}
	}
	return feed(w, parts)
}

// feed writes the parts of a page and ends it.
func feed(w io.Writer, parts [][]byte) error {
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	if c, ok := w.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// snappyPieces writes the elements of one Snappy block piece by piece: they refer back no
// further than their own piece, so they can stand after those of another.
type snappyPieces struct {
	k  *codec
	to *chain
}

func (s snappyPieces) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		piece := b[:min(len(b), 1<<20)]
		b = b[len(piece):]
		s.k.out = s2.EncodeSnappy(s.k.out[:cap(s.k.out)], piece)
		_, head := binary.Uvarint(s.k.out) // the piece's own length
		s.to.Write(s.k.out[head:])
	}
	return n, nil
}
