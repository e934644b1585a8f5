package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/fault"
)

// decoder turns the rows of binary COPY into columns.
type decoder struct {
	plan    *Plan
	columns []*column
	aside   specials
	rows    int
	wire    int    // bytes of the rows so far
	scratch []byte // a value that stands in no buffer whole
}

func newDecoder(p *Plan) *decoder {
	d := &decoder{plan: p}
	for _, c := range p.carry {
		d.columns = append(d.columns, newColumn(c))
	}
	return d
}

// decoder is that of the last chunk, whose buffers are there, or a new one.
func (r *Reader) decoder(p *Plan) *decoder {
	d := r.used
	r.used = nil
	if d == nil || d.plan != p {
		return newDecoder(p)
	}
	for _, c := range d.columns {
		for ; c != nil; c = c.child {
			c.applied = 0
		}
	}
	return d
}

func (d *decoder) reset() {
	d.rows, d.wire = 0, 0
	d.scratch = kept(d.scratch)
	d.aside.reset()
	for _, c := range d.columns {
		c.reset()
	}
}

func (d *decoder) full() bool { return d.rows >= batchRows || d.wire >= batchBytes }

// applied is how often each column's policy was used, elements of lists included.
func (d *decoder) applied() []int64 {
	n := make([]int64, len(d.columns))
	for i, c := range d.columns {
		for ; c != nil; c = c.child {
			n[i] += c.applied
		}
	}
	return n
}

func (d *decoder) record() arrow.RecordBatch {
	if len(d.aside.entries) > 0 {
		return record(withSpecial(d.plan.Schema), d.columns, d.rows, d.aside.array(d.rows))
	}
	return record(d.plan.Schema, d.columns, d.rows)
}

// copyHeader opens binary COPY: signature, flags, length of the extension
// (https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format").
var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

func readHeader(s *copyStream) error {
	head := make([]byte, len(copySignature)+8)
	if err := s.payload(head); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(head[len(copySignature):])
	extension := binary.BigEndian.Uint32(head[len(copySignature)+4:])
	if !bytes.HasPrefix(head, copySignature) || flags != 0 || extension != 0 {
		return malformed("a COPY header that is not known")
	}
	return nil
}

// decodeAll reads a whole COPY, calling flush whenever a batch is full and at the end.
func (r *Reader) decodeAll(ctx context.Context, d *decoder, flush func() error) error {
	if err := readHeader(r.stream); err != nil {
		return err
	}
	for {
		more, err := r.decodeSome(ctx, d, flush)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	if err := flush(); err != nil {
		return err
	}
	return r.drain()
}

// drain reads what follows the trailer, which must be nothing but the end.
func (r *Reader) drain() error {
	more, err := r.stream.next()
	if err == nil && more {
		err = malformed("bytes after the end of COPY")
	}
	return err
}

// decodeSome decodes the rows of one message, or one row that is larger than the buffer. It
// returns false after the trailer.
func (r *Reader) decodeSome(ctx context.Context, d *decoder, flush func() error) (bool, error) {
	window := r.stream.whole()
	if window == nil {
		ok, err := r.stream.next()
		if err != nil {
			return false, err
		}
		if !ok {
			return false, io.ErrUnexpectedEOF // the trailer is missing
		}
		if window, err = r.stream.window(); err != nil {
			return false, err
		}
	}
	for len(window) >= 2 {
		fields := int(int16(binary.BigEndian.Uint16(window)))
		if fields == -1 {
			r.stream.advance(2)
			return false, nil
		}
		if fields != len(d.columns) {
			return false, malformed("a row of %d columns where %d were due", fields, len(d.columns))
		}
		used, column, err := d.row(window)
		r.stream.advance(used)
		if err != nil {
			return false, err
		}
		if column < len(d.columns) { // the row goes on in the next message
			return true, r.finishRow(ctx, d, column, flush)
		}
		window = window[used:]
		if d.full() {
			if err := flush(); err != nil {
				return false, err
			}
		}
	}
	if window == nil || len(window) == 1 {
		return r.slowRow(ctx, d, flush)
	}
	return true, nil
}

// slowRow decodes a row piece by piece.
func (r *Reader) slowRow(ctx context.Context, d *decoder, flush func() error) (bool, error) {
	var head [2]byte
	if err := r.stream.payload(head[:]); err != nil {
		return false, err
	}
	fields := int(int16(binary.BigEndian.Uint16(head[:])))
	if fields == -1 {
		return false, nil
	}
	if fields != len(d.columns) {
		return false, malformed("a row of %d columns where %d were due", fields, len(d.columns))
	}
	return true, r.finishRow(ctx, d, 0, flush)
}

// row decodes columns for as long as their bytes stand in b, which begins with a row and lies in a buffer of this goroutine alone. It
// returns the bytes used and the first column that was not decoded.
func (d *decoder) row(b []byte) (used, column int, err error) {
	pos := 2
	for i, c := range d.columns {
		if len(b)-pos < 4 {
			return pos, i, nil
		}
		n := int(int32(binary.BigEndian.Uint32(b[pos:])))
		if n < 0 {
			if n != -1 {
				return pos, i, malformed("a value of length %d", n)
			}
			pos += 4
			c.null()
			continue
		}
		if n > len(b)-pos-4 {
			return pos, i, nil
		}
		value := b[pos+4 : pos+4+n]
		pos += 4 + n
		switch c.op { // what most columns are, in short: append knows them all
		case opInt32:
			if n == 4 {
				binary.LittleEndian.PutUint32(c.place(4), binary.BigEndian.Uint32(value))
				c.n++
				continue
			}
		case opInt64:
			if n == 8 {
				binary.LittleEndian.PutUint64(c.place(8), binary.BigEndian.Uint64(value))
				c.n++
				continue
			}
		case opBytes:
			if c.undecoded == "" {
				c.stringNear(value)
				continue
			}
		}
		if err := c.append(value); err != nil {
			if err = d.special(i, value, err); err != nil {
				return pos - n, i, err
			}
		}
	}
	d.rows++
	d.wire += pos
	return pos, len(d.columns), nil
}

// finishRow decodes a row from the given column on, each value straight into its place.
func (r *Reader) finishRow(ctx context.Context, d *decoder, from int, flush func() error) error {
	for i := from; i < len(d.columns); i++ {
		var head [4]byte
		if err := r.stream.payload(head[:]); err != nil {
			return err
		}
		n := int(int32(binary.BigEndian.Uint32(head[:])))
		if n == -1 {
			d.columns[i].null()
			continue
		}
		if n < 0 || n > maxValue {
			return malformed("a value of length %d", n)
		}
		if n >= hugeValue {
			if err := r.takeHuge(ctx); err != nil {
				return err
			}
		}
		if err := r.value(d, i, n); err != nil {
			return err
		}
		d.wire += n
	}
	d.rows++
	if d.full() || r.huge {
		return flush()
	}
	return nil
}

func (r *Reader) takeHuge(ctx context.Context) error {
	if r.shared.Huge == nil || r.huge {
		return nil
	}
	select {
	case r.shared.Huge <- struct{}{}:
		r.huge = true
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// value reads n bytes of column i. Bytes and text go where they stay; everything else is small, or
// an array, and is decoded from a copy.
func (r *Reader) value(d *decoder, i, n int) (err error) {
	c := d.columns[i]
	if c.op == opBytes {
		at := len(c.data)
		if c.data, err = r.stream.appendPayload(c.data, n); err != nil {
			return err
		}
		if c.undecoded == "" || utf8.Valid(c.data[at:]) {
			c.string(nil)
			return nil
		}
		value := bytes.Clone(c.data[at:])
		c.cut(c.n)
		return d.special(i, value, c.undecodable())
	}
	if d.scratch, err = r.stream.appendPayload(d.scratch[:0], n); err != nil {
		return err
	}
	return d.special(i, d.scratch, c.append(d.scratch))
}

// special keeps the text of a value that goes aside; of any other error it names the column.
func (d *decoder) special(i int, value []byte, err error) error {
	if err == nil {
		return nil
	}
	return d.blame(i, d.aside.aside(d.columns[i], d.rows, d.plan.Table.Columns[i].Name, wireValue{cellBinary, value}, false, err))
}

// blame names the column a value's error belongs to.
func (d *decoder) blame(i int, err error) error {
	if f := fault.Of(err); f != nil && f.Where == "" {
		f.Where = d.plan.Table.String() + "." + d.plan.Table.Columns[i].Name
	}
	return err
}

// jsonLines copies the single json column of each row to w, a line a row. json keeps the line breaks it was written
// with, between its tokens only (inside strings they are escaped), so a space says the same.
func (r *Reader) jsonLines(w io.Writer) error {
	s := r.stream
	if err := readHeader(s); err != nil {
		return err
	}
	var head [6]byte
	for {
		if err := s.payload(head[:2]); err != nil {
			return err
		}
		fields := int16(binary.BigEndian.Uint16(head[:2]))
		if fields == -1 {
			return r.drain()
		}
		if err := s.payload(head[2:]); err != nil {
			return err
		}
		left := int(int32(binary.BigEndian.Uint32(head[2:])))
		if fields != 1 || left < 0 {
			return malformed("a JSON row of %d columns and %d bytes", fields, left)
		}
		if err := s.jsonLine(w, left); err != nil {
			return err
		}
	}
}

func (s *copyStream) jsonLine(w io.Writer, left int) error {
	for left > 0 {
		if ok, err := s.next(); err != nil || !ok {
			return orUnexpected(err)
		}
		if err := s.fill(1); err != nil {
			return err
		}
		piece := s.buf[s.r : s.r+min(left, s.left, s.w-s.r)]
		for i, b := range piece {
			if b == '\n' || b == '\r' {
				piece[i] = ' '
			}
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
		s.advance(len(piece))
		left -= len(piece)
	}
	_, err := w.Write([]byte{'\n'})
	return err
}

func orUnexpected(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}
