package format

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

const (
	avroBlockBytes = 1 << 20 // AvroOptions.BlockBytes

	// avroEmptyRows is how many rows that take no bytes (a table without columns) go into
	// one block. Careful readers refuse a block that claims many more rows than it has
	// bytes, because a hostile file could make them loop for ever.
	avroEmptyRows = 4096
)

var errAvroClosed = errors.New("write to a closed Avro file")

// AvroOptions are the settings of an Avro file. The zero value is usable.
type AvroOptions struct {
	// Compression is "none", "snappy", "zstd" or "deflate"; "gzip" is another word for
	// deflate, which is what Avro has of it. "" is snappy.
	Compression Compression
	BlockBytes  int    // of rows in a block before compression; 0 is 1 MiB. A block holds at least one row
	Name        string // the record's name, usually the table's; mapped by the rule of names. "" is "row"
	Namespace   string // names with dots between; may be empty
	// Metadata is kept in the file's header. Keys that begin with "avro." are Avro's own.
	Metadata map[string]string
}

// avroWriter writes an Avro Object Container File (specification 1.11, "Object Container
// Files"): a header with the schema, then blocks of rows, each ended by the sync marker.
type avroWriter struct {
	w          io.Writer
	schema     *arrow.Schema
	columns    []avroEncoder
	fields     []avroAppender // columns of the record being written; empty between Writes
	compress   avroCodec
	blockBytes int

	head    []byte // the header without its marker, until it is written
	sync    [sha256.Size]byte
	block   []byte // rows of the open block
	rows    int    // their number
	packed  []byte // room for a compressed block
	written int64

	null   error // set by a column that met a NULL it may not have
	err    error // the first failure; all later calls return it
	closed bool
}

// NewAvro begins an Avro file. A column that Avro cannot hold is a TypeUncarriable fault,
// an unusable option a FormatUnusable one. Nothing is written before the first block is
// full, or Close.
//
// The same records and options give the same bytes: see begin for the sync marker.
func NewAvro(w io.Writer, schema *arrow.Schema, opts AvroOptions) (Writer, error) {
	a := &avroWriter{w: w, schema: schema, blockBytes: opts.BlockBytes}
	if a.blockBytes <= 0 {
		a.blockBytes = avroBlockBytes
	}
	codec, compress, err := newAvroCodec(opts.Compression)
	if err != nil {
		return nil, err
	}
	a.compress = compress
	plan := avroPlan{null: &a.null}
	text, columns, err := plan.record(schema, opts.Name, opts.Namespace)
	if err != nil {
		return nil, err
	}
	a.columns = columns
	a.head, err = avroHeader(text, codec, opts.Metadata)
	return a, err
}

// avroHeader is the file's header without its marker: four magic bytes and a map of metadata.
func avroHeader(schema []byte, codec string, metadata map[string]string) ([]byte, error) {
	entries := map[string]string{"avro.schema": string(schema), "avro.codec": codec}
	for key, value := range metadata {
		if strings.HasPrefix(key, "avro.") {
			return nil, fault.New(fault.FormatUnusable, key, "metadata of Avro files whose key begins with avro. is Avro's own")
		}
		entries[key] = value
	}
	head := binary.AppendVarint([]byte("Obj\x01"), int64(len(entries)))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		head = appendAvroBytes(head, key)
		head = appendAvroBytes(head, entries[key])
	}
	return append(head, 0), nil
}

// Write encodes the record's rows. A NULL in a column declared NOT NULL is a
// NullUnexpected fault. Errors of the underlying writer come as they are. After an error
// the file is of no use.
func (a *avroWriter) Write(rec arrow.RecordBatch) error {
	if a.closed {
		return errAvroClosed
	}
	if a.err == nil {
		a.err = a.write(rec)
	}
	return a.err
}

func (a *avroWriter) write(rec arrow.RecordBatch) error {
	if err := a.fits(rec); err != nil {
		return err
	}
	size := len(a.block)
	for c, encoder := range a.columns {
		a.fields = append(a.fields, encoder(rec.Column(c)))
		size += avroRoom(rec.Column(c), 0, rec.NumRows())
	}
	defer func() {
		clear(a.fields) // they hold the record's buffers
		a.fields = a.fields[:0]
	}()
	for row := range int(rec.NumRows()) {
		block := a.block
		for c, field := range a.fields {
			if size >= scratch.Large {
				block = withRoom(block, avroRoom(rec.Column(c), int64(row), int64(row)+1))
			}
			block = field(block, row)
		}
		a.block = block
		if a.null != nil {
			return a.null
		}
		a.rows++
		if len(block) < a.blockBytes && a.rows < len(block)+avroEmptyRows {
			continue
		}
		if err := a.flush(); err != nil {
			return err
		}
	}
	return nil
}

// withRoom grows a block that is large, or becomes it: that is not left to append, which would move it into memory.
func withRoom(block []byte, room int) []byte {
	if len(block)+room < scratch.Large && cap(block) < scratch.Large {
		return block
	}
	return scratch.Grow(block, room)
}

// fits says whether the record has the columns that the encoders were chosen for.
func (a *avroWriter) fits(rec arrow.RecordBatch) error {
	if int(rec.NumCols()) != len(a.columns) {
		return fault.New(fault.Internal, "avro", "a record has %d columns, its file %d", rec.NumCols(), len(a.columns))
	}
	for c, field := range a.schema.Fields() {
		if got := rec.Column(c).DataType(); !arrow.TypeEqual(got, field.Type) {
			return fault.New(fault.Internal, field.Name, "a record has type %s, its file %s", got, field.Type)
		}
	}
	return nil
}

// Size counts the block that is being filled as if it would not shrink.
func (a *avroWriter) Size() int64 { return a.written + int64(len(a.head)) + int64(len(a.block)) }

// Close writes the rows that are left, and the header of a file that has none. It can be
// called again and returns the same.
func (a *avroWriter) Close() error {
	if a.closed {
		return a.err
	}
	a.closed = true
	if a.err == nil && a.rows > 0 {
		a.err = a.flush()
	}
	if a.err == nil {
		a.err = a.begin()
	}
	a.free()
	return a.err
}

// begin writes the header, once. The marker after it is what readers look for when they
// start in the middle of a file, so nobody may be able to put it into a value. It is made
// from the header and all rows of the first block: the same rows give the same file, and a
// value would have to know its own hash.
func (a *avroWriter) begin() error {
	if a.head == nil {
		return nil
	}
	hash := sha256.New()
	hash.Write(a.head)
	for piece := range slices.Chunk(a.block, avroPiece) {
		hash.Write(piece)
	}
	hash.Sum(a.sync[:0])
	head := a.head
	a.head = nil
	return a.put(append(head, a.marker()...))
}

// marker is the 16 bytes that end the header and each block.
func (a *avroWriter) marker() []byte { return a.sync[:16] }

// flush writes the open block: the number of rows, the number of bytes, the bytes, the marker.
func (a *avroWriter) flush() error {
	if err := a.begin(); err != nil {
		return err
	}
	room := a.packed[:0]
	a.packed = nil
	packed, err := a.compress(room, a.block)
	if err != nil {
		return fault.Wrap(err, fault.Internal, "avro", "a block of %d bytes cannot be compressed", len(a.block))
	}
	if unsafe.SliceData(packed) != unsafe.SliceData(a.block) { // without compression they are one
		a.packed = packed
	}
	var prefix [2 * binary.MaxVarintLen64]byte
	counts := binary.AppendVarint(prefix[:0], int64(a.rows))
	counts = binary.AppendVarint(counts, int64(len(packed)))
	for _, part := range [][]byte{counts, packed, a.marker()} {
		if err := a.put(part); err != nil {
			return err
		}
	}
	a.rows = 0
	if cap(a.block) > min(4*a.blockBytes, scratch.Large-1) { // a huge value has blown it up
		a.free()
	}
	a.block = a.block[:0]
	return nil
}

// Discard gives up the buffers.
func (a *avroWriter) Discard() {
	a.closed = true
	a.free()
}

func (a *avroWriter) free() {
	scratch.Free(a.packed)
	scratch.Free(a.block)
	a.block, a.packed = nil, nil
}

func (a *avroWriter) put(p []byte) error {
	for piece := range slices.Chunk(p, avroPiece) {
		n, err := a.w.Write(piece)
		a.written += int64(n)
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
	}
	return nil
}
