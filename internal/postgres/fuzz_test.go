package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// wire is a connection whose other end has said all it will say.
type wire struct{ *bytes.Reader }

func (wire) Write(p []byte) (int, error)      { return len(p), nil }
func (wire) Close() error                     { return nil }
func (wire) LocalAddr() net.Addr              { return nil }
func (wire) RemoteAddr() net.Addr             { return nil }
func (wire) SetDeadline(time.Time) error      { return nil }
func (wire) SetReadDeadline(time.Time) error  { return nil }
func (wire) SetWriteDeadline(time.Time) error { return nil }

// message frames a body as the server does.
func message(kind byte, body []byte) []byte {
	out := []byte{kind}
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)+4))
	return append(out, body...)
}

// everyOp is a plan with a column for each way to decode.
func everyOp() *Plan {
	decimal := carrier{op: opDecimal, arrow: &arrow.Decimal128Type{Precision: 12, Scale: 3}, precision: 12, scale: 3, policy: Null, class: "numeric"}
	p := &Plan{Table: &change.Table{Schema: "s", Name: "t"}}
	p.carry = []carrier{
		fixed[16], fixed[17], fixed[20], fixed[21], fixed[23], fixed[25], fixed[26], fixed[700], fixed[701], fixed[2950], fixed[3802],
		bounded[1082](Policies{Date: Clamp}), bounded[1083](Policies{Time: Null}), bounded[1114](Policies{Timestamp: Clamp}),
		decimal, {op: opMoney, arrow: &arrow.Decimal128Type{Precision: 19, Scale: 2}},
		{op: opList, arrow: arrow.ListOf(arrow.PrimitiveTypes.Int32), elem: new(fixed[23]), dims: 1, policy: Null, delim: ','},
		{op: opList, arrow: arrow.ListOf(arrow.ListOf(decimal.arrow)), elem: &decimal, dims: 2, policy: Null, delim: ','},
	}
	var fields []arrow.Field
	for range p.carry {
		p.Table.Columns = append(p.Table.Columns, change.Column{Name: "c"})
	}
	for _, c := range p.carry {
		fields = append(fields, arrow.Field{Name: "c", Type: c.arrow, Nullable: true})
	}
	p.Schema = arrow.NewSchema(fields, nil)
	return p
}

// decode runs a COPY answer, cut into messages of the given size, through the decoder.
func decode(p *Plan, payload []byte, size int) (rows int64, err error) {
	var sent bytes.Buffer
	sent.Write(message('H', []byte{1, 0, 0}))
	for rest := payload; len(rest) > 0; {
		n := min(size, len(rest))
		sent.Write(message('d', rest[:n]))
		rest = rest[n:]
	}
	sent.Write(message('c', nil))
	sent.Write(message('C', []byte("COPY 0\x00")))
	sent.Write(message('Z', []byte{'T'}))
	r := &Reader{snap: &Snapshot{source: &Source{}}, stream: newCopyStream(wire{bytes.NewReader(sent.Bytes())}, nil)}
	d := newDecoder(p)
	err = r.decodeAll(context.Background(), d, func() error {
		rec := d.record()
		defer rec.Release()
		rows += rec.NumRows()
		for _, column := range rec.Columns() {
			if column.Len() > 0 {
				_ = column.ValueStr(column.Len() - 1) // reads the buffers' ends
			}
		}
		d.reset()
		return nil
	})
	return rows, err
}

// A COPY answer of any bytes, cut anywhere, is rows or an error, and the cuts make no difference.
func FuzzCopyBinary(f *testing.F) {
	head := append(bytes.Clone(copySignature), make([]byte, 8)...)
	row := binary.BigEndian.AppendUint16(nil, 18)
	for range 18 {
		row = append(row, 0xff, 0xff, 0xff, 0xff)
	}
	f.Add(append(append(bytes.Clone(head), row...), 0xff, 0xff), 7)
	f.Add(append(bytes.Clone(head), 0xff, 0xff), 1)
	f.Add(sampleRows(head), 64)
	f.Fuzz(func(t *testing.T, payload []byte, size int) {
		size = max(1, min(size&0xffff, 1<<16))
		rows, err := decode(everyOp(), payload, size)
		again, errAgain := decode(everyOp(), payload, 1<<20)
		if rows != again && err == nil {
			t.Fatalf("cut into messages of %d bytes it has %d rows, in one %d", size, rows, again)
		}
		if (err == nil) != (errAgain == nil) {
			t.Fatalf("cut into messages of %d bytes: %v; in one: %v", size, err, errAgain)
		}
		if err != nil && fault.Of(err) == nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("an error nobody has judged: %v", err)
		}
	})
}

// sampleRows is a COPY answer with one value of every kind.
func sampleRows(head []byte) []byte {
	out := append(bytes.Clone(head), 0, 18)
	field := func(b ...byte) {
		out = binary.BigEndian.AppendUint32(out, uint32(len(b)))
		out = append(out, b...)
	}
	eight := []byte{0, 0, 0, 1, 2, 3, 4, 5}
	numeric := []byte{0, 2, 0, 0, 0, 0, 0, 2, 0, 12, 13, 128} // 12.3456 has one decimal too many
	field(1)
	field([]byte("bytes")...)
	field(eight...)
	field(0, 7)
	field(0, 0, 0, 7)
	field([]byte("text")...)
	field(0, 0, 4, 0)
	field(0x7f, 0xc0, 0, 0)
	field(0x7f, 0xf8, 0, 0, 0, 0, 0, 1)
	field(append(eight, eight...)...)
	field(append([]byte{1}, `{"a":1}`...)...)
	field(0x7f, 0xff, 0xff, 0xff)
	field(0, 0, 0, 0x14, 0x1d, 0xd7, 0x60, 0)
	field(0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	field(numeric...)
	field(eight...)
	field(0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 9, 0xff, 0xff, 0xff, 0xff)
	field(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 164)
	return append(out, 0xff, 0xff)
}

func TestEveryKindOfValueIsDecodedWhereverTheMessagesAreCut(t *testing.T) {
	t.Parallel()
	payload := sampleRows(append(bytes.Clone(copySignature), make([]byte, 8)...))
	for size := 1; size <= len(payload); size++ {
		rows, err := decode(everyOp(), payload, size)
		if err != nil || rows != 1 {
			t.Fatalf("messages of %d bytes: %d rows, %v", size, rows, err)
		}
	}
}

func TestACopyThatEndsEarlyIsAnError(t *testing.T) {
	t.Parallel()
	payload := sampleRows(append(bytes.Clone(copySignature), make([]byte, 8)...))
	for n := range len(payload) - 1 {
		if rows, err := decode(everyOp(), payload[:n], 50); err == nil {
			t.Fatalf("%d of %d bytes gave %d rows and no error", n, len(payload), rows)
		}
	}
}

// Any text is a value or an error, for every way to decode, and an error leaves the column as it was.
func FuzzLogText(f *testing.F) {
	for _, s := range []string{"", "t", `\x00ff`, "-12.345", "2026-11-21", "24:00:00", "0044-03-15 12:00:00.5+05:30 BC", "infinity", "{1,NULL}", "{{1.5},{NaN}}", "[0:1]={1,2}", `{"a\"b"}`,
		"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "($1,234.56)", "-9223372036854775808", "\x00\x02\x00\x00\x00\x00\x00\x02\x00\x0c\x0d\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		carriers := everyOp().carry
		for form := range wireWriters {
			carriers = append(carriers, carrier{op: opBytes, arrow: arrow.BinaryTypes.String, expr: "%s::text", wire: wireForm(form)})
		}
		for _, c := range carriers {
			for _, read := range []func(*column, []byte) error{(*column).appendText, (*column).appendWire} {
				column := newColumn(c)
				column.null()
				err := read(column, b)
				if err != nil {
					column.cut(1)
					column.null()
				}
				if err != nil && fault.Of(err) == nil {
					t.Fatalf("an error nobody has judged: %v", err)
				}
				array := column.array()
				if array.Len() != 2 || !array.IsNull(0) || err != nil && array.NullN() != 2 {
					t.Fatalf("%q as %s gave %v, %v", b, c.arrow, array, err)
				}
				_ = array.ValueStr(1)
			}
		}
	})
}
