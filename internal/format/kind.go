package format

import (
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/fault"
)

// Kind is a file format, by the name it has in leat.yaml; the name is the files' extension too.
type Kind string

// The kinds. CSV and JSON lines are the server's own text, passed on; the others are encoded here.
const (
	CSV       Kind = "csv"
	CSVGzip   Kind = "csv.gz"
	JSONL     Kind = "jsonl"
	JSONLGzip Kind = "jsonl.gz"
	Parquet   Kind = "parquet"
	Avro      Kind = "avro"
)

// Kinds lists all kinds.
var Kinds = []Kind{Parquet, CSV, CSVGzip, JSONL, JSONLGzip, Avro}

// Known says whether k is a kind.
func (k Kind) Known() bool { return slices.Contains(Kinds, k) }

// Typed says whether the kind holds typed values, as against the server's text.
func (k Kind) Typed() bool { return k == Parquet || k == Avro }

// Gzipped says whether a text kind is compressed.
func (k Kind) Gzipped() bool { return k == CSVGzip || k == JSONLGzip }

// JSON says whether a text kind is JSON lines.
func (k Kind) JSON() bool { return k == JSONL || k == JSONLGzip }

// Ext is the extension of files of this kind, with its dot.
func (k Kind) Ext() string { return "." + string(k) }

// ContentType is the media type of files of this kind.
func (k Kind) ContentType() string {
	switch k {
	case CSV:
		return "text/csv; charset=utf-8"
	case JSONL:
		return "application/jsonl"
	case CSVGzip, JSONLGzip:
		return "application/gzip"
	case Parquet:
		return "application/vnd.apache.parquet"
	}
	return "application/vnd.apache.avro"
}

// TypedOptions are what the typed kinds share.
type TypedOptions struct {
	Compression Compression
	Bloom       []string          // columns with a bloom filter (Parquet)
	Metadata    map[string]string // kept in the file's own key-value metadata
	CreatedBy   string
	Name        string // the record's name (Avro)
}

// NewTyped opens a writer of a typed kind.
func NewTyped(k Kind, w io.Writer, schema *arrow.Schema, opts TypedOptions) (Writer, error) {
	switch k {
	case Parquet:
		return NewParquet(w, schema, ParquetOptions{Compression: opts.Compression, Bloom: opts.Bloom, Metadata: opts.Metadata, CreatedBy: opts.CreatedBy})
	case Avro:
		return NewAvro(w, schema, AvroOptions{Compression: opts.Compression, Metadata: opts.Metadata, Name: opts.Name})
	}
	return nil, fault.New(fault.FormatUnusable, string(k), "is not a typed format")
}
