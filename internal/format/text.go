package format

import (
	"errors"
	"io"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/fault"
)

// TextOptions are the settings of a text file that is written from records.
type TextOptions struct {
	// Parallel is how many blocks of a gzipped kind are compressed at once.
	Parallel int
}

const textFlush = 64 << 10 // bytes that are held back before they are written

var errTextClosed = errors.New("write to a closed text file")

// textWriter writes records as CSV with a line of names, or as JSON lines. Values have the forms that PostgreSQL gives
// them, as the text files of a dump have: COPY's CSV and row_to_json.
type textWriter struct {
	out     io.Writer
	gzip    *Gzip // nil unless the kind is compressed
	schema  *arrow.Schema
	columns []textForm
	names   []string // JSON: what stands before each value
	fields  []textAppender
	large   []largeText // nil where no value of the record is
	json    bool
	buf     []byte
	written int64
	err     error
	closed  bool
}

// NewText begins a file of a text kind on w. A column without a text form here is fault.TypeUncarriable.
func NewText(k Kind, w io.Writer, schema *arrow.Schema, opts TextOptions) (Writer, error) {
	if !k.Known() || k.Typed() {
		return nil, fault.New(fault.FormatUnusable, string(k), "is not a text format")
	}
	t := &textWriter{schema: schema, json: k.JSON()}
	t.out = writerFunc(func(p []byte) (int, error) {
		n, err := w.Write(p)
		t.written += int64(n)
		return n, err
	})
	if k.Gzipped() {
		t.gzip = NewGzip(t.out, 0, opts.Parallel)
		t.out = t.gzip
	}
	separator := byte('{')
	for i, f := range schema.Fields() {
		form, err := textFormOf(f, t.json)
		if err != nil {
			return nil, err
		}
		t.columns = append(t.columns, form)
		if t.json {
			t.names = append(t.names, string(append(appendJSONString([]byte{separator}, f.Name), ':')))
			separator = ','
			continue
		}
		if i > 0 {
			t.buf = append(t.buf, ',')
		}
		t.buf = appendCSV(t.buf, f.Name)
	}
	if !t.json {
		t.buf = append(t.buf, '\n')
	}
	return t, nil
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Write appends a record's rows.
func (t *textWriter) Write(rec arrow.RecordBatch) error {
	if t.closed {
		return errTextClosed
	}
	if t.err == nil {
		t.err = t.write(rec)
	}
	return t.err
}

func (t *textWriter) write(rec arrow.RecordBatch) error {
	if int(rec.NumCols()) != len(t.columns) {
		return fault.New(fault.Internal, "", "a record of %d columns came to a text file of %d", rec.NumCols(), len(t.columns))
	}
	t.fields, t.large = t.fields[:0], t.large[:0]
	defer func() { clear(t.fields); clear(t.large) }() // they hold the record's buffers
	for i, form := range t.columns {
		if got, want := rec.Column(i).DataType(), t.schema.Field(i).Type; !arrow.TypeEqual(got, want) {
			return fault.New(fault.Internal, t.schema.Field(i).Name, "a column of Arrow type %s came to a text column of %s", got, want)
		}
		t.fields, t.large = append(t.fields, form(rec.Column(i))), append(t.large, largeTextOf(rec.Column(i)))
	}
	appendRow := t.appendLine
	if t.json {
		appendRow = t.appendObject
	}
	for row := range int(rec.NumRows()) {
		if err := appendRow(row); err != nil {
			return err
		}
		if len(t.buf) >= textFlush {
			if err := t.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *textWriter) appendObject(row int) error {
	if len(t.fields) == 0 {
		t.buf = append(t.buf, '{')
	}
	for i := range t.fields {
		t.buf = append(t.buf, t.names[i]...)
		if err := t.appendField(i, row); err != nil {
			return err
		}
	}
	t.buf = append(t.buf, '}', '\n')
	return nil
}

func (t *textWriter) appendLine(row int) error {
	for i := range t.fields {
		if i > 0 {
			t.buf = append(t.buf, ',')
		}
		if err := t.appendField(i, row); err != nil {
			return err
		}
	}
	t.buf = append(t.buf, '\n')
	return nil
}

func (t *textWriter) appendField(i, row int) error {
	if large := t.large[i]; large != nil {
		if v, is := large(row); is {
			return t.writeLarge(t.schema.Field(i), v)
		}
	}
	t.buf = t.fields[i](t.buf, row)
	return nil
}

func (t *textWriter) flush() error {
	_, err := t.out.Write(t.buf)
	if cap(t.buf) > 8*textPiece {
		t.buf = nil // a large array has blown it up
	}
	t.buf = t.buf[:0]
	return err
}

// Size counts what is held back as if it would not shrink.
func (t *textWriter) Size() int64 { return t.written + int64(len(t.buf)) }

// Discard gives up what is held back.
func (t *textWriter) Discard() {
	t.closed = true
	t.buf, t.fields, t.large = nil, nil, nil
}

// Close writes what is left. It can be called again and returns the same.
func (t *textWriter) Close() error {
	if t.closed {
		return t.err
	}
	t.closed = true
	if t.err == nil {
		t.err = t.flush()
	}
	if t.gzip != nil && t.err == nil {
		t.err = t.gzip.Close()
	}
	t.buf, t.fields, t.large = nil, nil, nil
	return t.err
}
