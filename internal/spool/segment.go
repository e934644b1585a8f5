package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

const (
	magic  = "LEATSPL1"
	suffix = ".spool"
	// blockBytes is how much is compressed together; a longer record is a block of its own.
	blockBytes = 256 << 10
	// pieceBytes is the most of a message that one record has; a longer one comes in pieces.
	pieceBytes = 4 << 20
	// mostBlock is more than a block has when it is unpacked: a block ends with the record that fills it.
	mostBlock = 64 << 20
)

// castagnoli is CRC-32C, which processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// The kinds of records in a segment.
const (
	markBegin  = 'B' // LSN, XID, committed, raw
	markTable  = 'T' // number, name: rows name their table by number
	markDefine = 'D' // raw, of the table that the number names, or of none (0)
	markPiece  = 'P' // the length of the whole message, a piece of it: more follow in order, and a row with the last
	markRow    = 'R' // number, sequence, raw
	markCommit = 'C' // end LSN, raw
)

// segment is what a name says of an object.
type segment struct {
	key        string
	first, end change.LSN
	epoch      int64
	part       int
	size       int64
}

func (s segment) name() string {
	return fmt.Sprintf("%016X-%016X-%08X-%06d%s", uint64(s.first), uint64(s.end), s.epoch, s.part, suffix)
}

// unfinished says whether the transaction goes on in another part.
func (s segment) unfinished() bool { return s.end == s.first }

func parseSegment(name string) (segment, bool) {
	var first, end uint64
	var s segment
	if len(name) != 16+1+16+1+8+1+6+len(suffix) || !strings.HasSuffix(name, suffix) {
		return s, false
	}
	if _, err := fmt.Sscanf(name, "%16X-%16X-%8X-%6d"+suffix, &first, &end, &s.epoch, &s.part); err != nil {
		return s, false
	}
	s.first, s.end = change.LSN(first), change.LSN(end)
	return s, s.name() == name
}

// appendBlock compresses a block and puts it behind dst.
func appendBlock(dst []byte, enc *zstd.Encoder, raw []byte) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, 8)...)
	dst = enc.EncodeAll(raw, dst)
	body := dst[at+8:]
	binary.LittleEndian.PutUint32(dst[at:], uint32(len(body)))
	binary.LittleEndian.PutUint32(dst[at+4:], crc32.Checksum(body, castagnoli))
	return dst
}

// blocks reads a segment block by block; a block is valid until the next.
type blocks struct {
	where string
	r     io.Reader
	dec   *zstd.Decoder
	left  int64 // bytes of the object that have not been read
	body  []byte
	raw   []byte
}

func (b *blocks) open() error {
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(b.r, head); err != nil {
		return b.broken(err, "it cannot be read")
	}
	b.left -= int64(len(head))
	if string(head) != magic {
		return b.broken(nil, "it is not a segment of this version")
	}
	return nil
}

// next returns a block, or io.EOF after the last.
func (b *blocks) next() ([]byte, error) {
	if b.left == 0 {
		return nil, io.EOF
	}
	var head [8]byte
	if _, err := io.ReadFull(b.r, head[:]); err != nil {
		return nil, b.broken(err, "it cannot be read")
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	b.left -= 8 + n
	if b.left < 0 {
		return nil, b.broken(nil, "a block is longer than the object")
	}
	if int64(cap(b.body)) < n {
		b.body = make([]byte, n)
	}
	b.body = b.body[:n]
	if _, err := io.ReadFull(b.r, b.body); err != nil {
		return nil, b.broken(err, "it cannot be read")
	}
	if crc32.Checksum(b.body, castagnoli) != binary.LittleEndian.Uint32(head[4:]) {
		return nil, fault.New(fault.ChecksumMismatch, b.where, "a block of the spool is not what was written")
	}
	var err error
	if b.raw, err = b.dec.DecodeAll(b.body, b.raw[:0]); err != nil {
		return nil, b.broken(err, "a block cannot be decompressed")
	}
	return b.raw, nil
}

// broken is state-unusable, unless the store has said what is the matter.
func (b *blocks) broken(err error, what string) error {
	if fault.Of(err) != nil {
		return err
	}
	return fault.New(fault.StateUnusable, b.where, "%s", what).Because(err)
}

// fields reads the parts of a record.
type fields struct {
	data []byte
	bad  bool
}

func (f *fields) number() uint64 {
	v, n := binary.Uvarint(f.data)
	if n <= 0 {
		f.bad, f.data = true, nil
		return 0
	}
	f.data = f.data[n:]
	return v
}

func (f *fields) bytes() []byte {
	n := f.number()
	if n > uint64(len(f.data)) {
		f.bad, f.data = true, nil
		return nil
	}
	out := f.data[:n:n]
	f.data = f.data[n:]
	return out
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}
