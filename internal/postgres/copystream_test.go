package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
)

// offered notes how much room each read has, and gives a little of it.
type offered struct {
	wire
	most int
	room *[]int
}

func (o offered) Read(b []byte) (int, error) {
	*o.room = append(*o.room, len(b))
	return o.wire.Read(b[:min(len(b), o.most)])
}

func TestEveryReadIsOfferedHalfTheBuffer(t *testing.T) {
	t.Parallel()
	const message = 911
	sent := answer(1, make([]byte, 3<<20), message)
	for _, most := range []int{100, 5000, 64 << 10, 200 << 10, 1 << 20} {
		var room []int
		s := newCopyStream(offered{wire{bytes.NewReader(sent)}, most, &room}, nil)
		for {
			ok, err := s.next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			window, err := s.window()
			if err != nil {
				t.Fatal(err)
			}
			s.advance(len(window))
		}
		if least := slices.Min(room); least < streamBuffer/2-message {
			t.Errorf("a read of a server that sends %d bytes at once was offered %d", most, least)
		}
	}
}

// answer is what the server sends for a COPY of so many rows whose payload is cut into messages of the given size.
func answer(rows int, payload []byte, size int) []byte {
	sent := message('H', []byte{1, 0, 0})
	for rest := payload; len(rest) > 0; {
		n := min(size, len(rest))
		sent = append(sent, message('d', rest[:n])...)
		rest = rest[n:]
	}
	sent = append(sent, message('c', nil)...)
	sent = append(sent, message('C', fmt.Appendf(nil, "COPY %d\x00", rows))...)
	return append(sent, message('Z', []byte{'T'})...)
}

// One reader reads chunk after chunk into the same buffers: what it tells of one is not of another.
func TestAReaderTellsEachChunkByItself(t *testing.T) {
	t.Parallel()
	p := &Plan{Table: &change.Table{Schema: "s", Name: "t", Columns: []change.Column{{Name: "a"}, {Name: "b"}, {Name: "c"}}}}
	decimals := carrier{op: opDecimal, arrow: &arrow.Decimal128Type{Precision: 9, Scale: 2}, precision: 9, scale: 2, policy: Null, class: "numeric"}
	p.carry = []carrier{fixed[25], {op: opList, arrow: arrow.ListOf(decimals.arrow), elem: &decimals, dims: 1, policy: Null, delim: ','}, fixed[25]}
	p.Schema = arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.BinaryTypes.String, Nullable: true}, {Name: "b", Type: p.carry[1].arrow, Nullable: true}, {Name: "c", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	nan := sentGroups(numericNaN, 0)
	rng := rand.New(rand.NewPCG(4, 2))
	var sent []byte
	var want [][]string
	for chunk := range 40 {
		payload := append(bytes.Clone(copySignature), make([]byte, 8)...)
		field := func(b []byte) {
			payload = binary.BigEndian.AppendUint32(payload, uint32(len(b)))
			payload = append(payload, b...)
		}
		var texts []string
		for range chunk {
			payload = binary.BigEndian.AppendUint16(payload, 3)
			for range 2 {
				text := make([]byte, rng.IntN(70))
				for i := range text {
					text[i] = byte('a' + rng.IntN(26))
				}
				texts = append(texts, string(text))
				field(text)
				if len(texts)%2 == 1 {
					list := append([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 6, 164, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, byte(len(nan))}, nan...)
					field(list)
				}
			}
		}
		sent = append(sent, answer(chunk, append(payload, 0xff, 0xff), 1+rng.IntN(400))...)
		want = append(want, texts)
	}
	r := &Reader{snap: &Snapshot{source: &Source{}}, stream: newCopyStream(wire{bytes.NewReader(sent)}, nil)}
	for chunk, texts := range want {
		var got []string
		rows, applied, err := r.batches(t.Context(), p, "", func(b change.Batch) error {
			for row := range int(b.Record.NumRows()) {
				got = append(got, b.Record.Column(0).(*array.String).Value(row), b.Record.Column(2).(*array.String).Value(row))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if rows != int64(chunk) || !slices.Equal(got, texts) {
			t.Errorf("chunk %d has %d rows: %q, not %q", chunk, rows, got, texts)
		}
		if !slices.Equal(applied, []int64{0, int64(chunk), 0}) {
			t.Errorf("chunk %d of %d NaN: policies were applied %v times", chunk, chunk, applied)
		}
	}
}
