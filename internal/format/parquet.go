package format

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/fault"
)

// Compression names a codec.
type Compression string

// The codecs of Parquet pages.
const (
	CodecNone   Compression = "none"
	CodecSnappy Compression = "snappy"
	CodecZstd   Compression = "zstd"
	CodecGzip   Compression = "gzip"
)

// Sizes of a Parquet file. Columns lie one after another in a row group, so all its compressed
// pages are held until it ends: heldBytes, not the row group's length, is what a writer costs in
// memory. The values of open pages come on top, openBytes of them at most, and what a single row
// larger than that needs.
const (
	heldBytes     = 32 << 20  // compressed pages of a row group
	rowGroupBytes = 128 << 20 // its values before encoding; ParquetOptions.RowGroupBytes
	rowGroupRows  = 1 << 20
	pageBytes     = 1 << 20 // values of a page before encoding; ParquetOptions.PageBytes
	pageRows      = 32 << 10
	leastPage     = 8 << 10  // pages of very wide tables are made smaller, but no smaller than this
	openBytes     = 32 << 20 // open pages of all columns
	sliceBytes    = 16 << 20 // rows of one record that are carried before sizes are looked at
	maxKept       = 4 << 20  // larger buffers are not kept for another page
)

// ParquetOptions chooses how a Parquet file is written. The zero value is usable.
type ParquetOptions struct {
	Compression Compression // "" is Snappy
	// Level is the codec's own; 0 is zstd's 1 and gzip's default. Snappy has none.
	Level int
	// RowGroupBytes ends a row group when its values take so many bytes before encoding; 0 is
	// 128 MiB. It ends earlier at 1,048,576 rows or 32 MiB of compressed pages.
	RowGroupBytes int64
	// PageBytes ends a page when its values take so many bytes before encoding; 0 is 1 MiB. It
	// ends earlier at 32,768 rows, and with more than 32 columns so that open pages take 32 MiB together.
	PageBytes int64
	// Bloom names the columns that get a Bloom filter: by name for all that is in a column, or a
	// leaf by its path in Parquet's schema with dots between.
	Bloom []string
	// Metadata is written to the file's key-value metadata.
	Metadata map[string]string
	// CreatedBy should have the form "leat version 1.2.3 (build abcdef)": readers parse it.
	CreatedBy string
}

// parquetWriter is the Writer of Parquet files.
type parquetWriter struct {
	out      *bufio.Writer
	at       int64 // bytes given to out
	schema   *arrow.Schema
	opts     ParquetOptions
	elements *schemaBuilder
	shop     *shop
	columns  []*column
	rows     int64 // of the open row group
	raw      int64
	groups   []rowGroup
	err      error // the first failure: the file can no longer become whole
	closed   bool
}

// NewParquet starts a Parquet file on w, format version 2 with version 1 data pages, which all
// readers know. Types that Parquet has no place for end in fault.TypeUncarriable, options that
// do not fit in fault.FormatUnusable.
//
// A schema without columns makes a file of row counts alone: Arrow's libraries read it, DuckDB
// (2.0) refuses it.
func NewParquet(w io.Writer, schema *arrow.Schema, opts ParquetOptions) (Writer, error) {
	if opts.Compression == "" {
		opts.Compression = CodecSnappy
	}
	if opts.RowGroupBytes <= 0 {
		opts.RowGroupBytes = rowGroupBytes
	}
	if opts.PageBytes <= 0 {
		opts.PageBytes = pageBytes
	}
	if opts.CreatedBy == "" {
		opts.CreatedBy = "leat version 0.0.0 (build unknown)"
	}
	elements, err := buildSchema(schema)
	if err != nil {
		return nil, err
	}
	if err := markBloom(elements.leaves, opts.Bloom); err != nil {
		return nil, err
	}
	codec, err := takeCodec(opts.Compression, opts.Level)
	if err != nil {
		return nil, err
	}
	page := min(opts.PageBytes, max(leastPage, openBytes/int64(max(1, len(elements.leaves)))))
	p := &parquetWriter{
		out: bufio.NewWriterSize(w, 8<<10), schema: schema, opts: opts, elements: elements,
		shop: &shop{codec: codec, pageBytes: page},
	}
	for _, l := range elements.leaves {
		p.columns = append(p.columns, newColumn(l, p.shop))
	}
	p.err = p.write([]byte("PAR1"))
	return p, nil
}

// markBloom finds the leaves that are to have a Bloom filter.
func markBloom(leaves []*leaf, names []string) error {
	for _, name := range names {
		found := false
		for _, l := range leaves {
			if l.path[0] != name && strings.Join(l.path, ".") != name {
				continue
			}
			if !l.bloomable() {
				return fault.New(fault.FormatUnusable, name, "a Bloom filter says nothing about a column of this type")
			}
			l.bloom, found = true, true
		}
		if !found {
			return fault.New(fault.FormatUnusable, name, "a Bloom filter is asked for on a column that is not there")
		}
	}
	return nil
}

func (l *leaf) bloomable() bool { return l.phys != physBool && l.order != orderNone }

// Bloomable says whether a column of this type can have a Bloom filter in Parquet.
func Bloomable(f arrow.Field) bool {
	elements, err := buildSchema(arrow.NewSchema([]arrow.Field{f}, nil))
	return err == nil && !slices.ContainsFunc(elements.leaves, func(l *leaf) bool { return !l.bloomable() })
}

// write passes bytes on and counts them: every offset in the file comes from here.
func (w *parquetWriter) write(b []byte) error {
	n, err := w.out.Write(b)
	w.at += int64(n)
	if err != nil {
		return fmt.Errorf("writing Parquet: %w", err)
	}
	return nil
}

// Write carries a record's rows into pages, and ends a row group as often as one is full.
func (w *parquetWriter) Write(rec arrow.RecordBatch) error {
	if w.closed {
		return fault.New(fault.Internal, "", "a record came after the Parquet file was closed")
	}
	if w.err == nil {
		w.err = w.carry(rec)
	}
	return w.err
}

// Discard frees what large values have left; the codec is not used again.
func (w *parquetWriter) Discard() {
	w.closed = true
	if w.shop != nil {
		w.shop.codec.pool.freeSlabs()
	}
	w.shop, w.columns = nil, nil
}

func (w *parquetWriter) carry(rec arrow.RecordBatch) error {
	if err := w.fits(rec); err != nil {
		return err
	}
	rows := int(rec.NumRows())
	for lo := 0; lo < rows; {
		hi, weight := w.slice(rec, lo, rows)
		for _, c := range w.columns {
			if err := c.add(rec.Column(c.top), lo, hi); err != nil {
				return err
			}
		}
		w.rows += int64(hi - lo)
		w.raw += weight
		lo = hi
		if w.full() {
			if err := w.endGroup(); err != nil {
				return err
			}
		}
	}
	return nil
}

// fits holds a record against the schema the file was started with.
func (w *parquetWriter) fits(rec arrow.RecordBatch) error {
	if int(rec.NumCols()) != w.schema.NumFields() {
		return fault.New(fault.Internal, "", "a record of %d columns came to a Parquet file of %d", rec.NumCols(), w.schema.NumFields())
	}
	for i, f := range w.schema.Fields() {
		if got := rec.Column(i).DataType(); !arrow.TypeEqual(got, f.Type) {
			return fault.New(fault.Internal, f.Name, "a column of Arrow type %s came to a Parquet column of %s", got, f.Type)
		}
	}
	return nil
}

// slice takes rows from lo on that weigh sliceBytes at most, or one row, so that a record of large
// values is not held whole in compressed form.
func (w *parquetWriter) slice(rec arrow.RecordBatch, lo, rows int) (hi int, weight int64) {
	hi = min(rows, lo+int(rowGroupRows-w.rows))
	for {
		weight = 0
		for _, c := range w.columns {
			weight += c.weigh(0, rec.Column(c.top), lo, hi)
		}
		if weight <= sliceBytes || hi-lo == 1 {
			return hi, weight
		}
		hi = lo + (hi-lo)/2
	}
}

func (w *parquetWriter) full() bool {
	if w.rows >= rowGroupRows || w.raw >= w.opts.RowGroupBytes {
		return true
	}
	var held int64
	for _, c := range w.columns {
		held += c.held.bytes
	}
	return held >= heldBytes
}

// Size counts what is written and what is held back: compressed pages as they are, open
// pages as they came.
func (w *parquetWriter) Size() int64 {
	n := w.at
	for _, c := range w.columns {
		n += c.heldBack()
	}
	return n
}

// Close writes the last row group, the page index and the footer. A second Close does nothing.
func (w *parquetWriter) Close() error {
	if w.err != nil || w.closed {
		return w.err
	}
	w.closed = true
	w.err = w.end()
	w.columns = nil
	return w.err
}

func (w *parquetWriter) end() error {
	if w.rows > 0 {
		if err := w.endGroup(); err != nil {
			return err
		}
	}
	if err := w.writeIndexes(); err != nil {
		return err
	}
	if err := w.writeFooter(); err != nil {
		return err
	}
	if err := w.out.Flush(); err != nil {
		return fmt.Errorf("writing Parquet: %w", err)
	}
	w.shop.codec.giveBack()
	w.shop = nil
	return nil
}

// sortedKeys makes files of equal content equal.
func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
