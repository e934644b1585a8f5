package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
)

// lineitemPlan is the plan of the table that bench/lineitem.sql makes.
func lineitemPlan(tb testing.TB) *Plan {
	tb.Helper()
	const money = 15<<16 | 2 + 4
	t := &change.Table{Schema: "public", Name: "lineitem"}
	types := typeTable{}
	for i, c := range []struct {
		name   string
		oid    uint32
		typmod int32
	}{
		{"l_orderkey", 20, -1}, {"l_partkey", 23, -1}, {"l_suppkey", 23, -1}, {"l_linenumber", 23, -1},
		{"l_quantity", oidNumeric, money}, {"l_extendedprice", oidNumeric, money}, {"l_discount", oidNumeric, money}, {"l_tax", oidNumeric, money},
		{"l_returnflag", 1042, 1 + 4}, {"l_linestatus", 1042, 1 + 4}, {"l_shipdate", 1082, -1}, {"l_commitdate", 1082, -1}, {"l_receiptdate", 1082, -1},
		{"l_shipinstruct", 1042, 25 + 4}, {"l_shipmode", 1042, 10 + 4}, {"l_comment", 1043, 44 + 4},
	} {
		types[c.oid] = typeInfo{oid: c.oid, kind: 'b'}
		t.Columns = append(t.Columns, change.Column{Name: c.name, Attnum: int16(i + 1), TypeOID: c.oid, Typmod: c.typmod, NotNull: true})
	}
	p, err := carriers{types: types, version: 180000}.plan(t, Policies{})
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// sentNumeric is v hundredths as numeric_send writes them.
func sentNumeric(v uint64) []byte {
	groups := []uint16{uint16(v % 100 * 100)}
	for v /= 100; v > 0; v /= 10000 {
		groups = append([]uint16{uint16(v % 10000)}, groups...)
	}
	weight := len(groups) - 2
	for len(groups) > 0 && groups[len(groups)-1] == 0 {
		groups = groups[:len(groups)-1]
	}
	out := binary.BigEndian.AppendUint16(nil, uint16(len(groups)))
	out = binary.BigEndian.AppendUint16(out, uint16(weight))
	out = binary.BigEndian.AppendUint32(out, 2)
	for _, g := range groups {
		out = binary.BigEndian.AppendUint16(out, g)
	}
	return out
}

// lineitemRow is row i as binary COPY has it, with values like those of bench/lineitem.sql.
func lineitemRow(i int, rng *rand.Rand) []byte {
	words := strings.Fields("furiously carefully quickly slyly bold final pending regular express ironic deposits accounts requests packages theodolites foxes")
	row := binary.BigEndian.AppendUint16(nil, 16)
	field := func(b []byte) {
		row = binary.BigEndian.AppendUint32(row, uint32(len(b)))
		row = append(row, b...)
	}
	i32 := func(v int) { field(binary.BigEndian.AppendUint32(nil, uint32(v))) }
	text := func(v string) { field([]byte(v)) }
	part, quantity := 1+rng.IntN(200000), uint64(1+rng.IntN(50))
	ordered := -2922 + rng.IntN(2406)
	shipped := ordered + 1 + rng.IntN(121)
	field(binary.BigEndian.AppendUint64(nil, uint64(i/32*32+i/4%8+1)))
	i32(part)
	i32(1 + (part+rng.IntN(4)*2501)%10000)
	i32(i%4 + 1)
	field(sentNumeric(quantity * 100))
	field(sentNumeric(quantity * uint64(90000+part/10%20001+100*(part%1000))))
	field(sentNumeric(uint64(rng.IntN(11))))
	field(sentNumeric(uint64(rng.IntN(9))))
	text([]string{"N", "R", "A"}[rng.IntN(3)])
	text([]string{"O", "F"}[rng.IntN(2)])
	i32(shipped)
	i32(ordered + 30 + rng.IntN(61))
	i32(shipped + 1 + rng.IntN(30))
	text([]string{"DELIVER IN PERSON        ", "COLLECT COD              ", "NONE                     ", "TAKE BACK RETURN         "}[rng.IntN(4)])
	text([]string{"REG AIR   ", "AIR       ", "RAIL      ", "SHIP      ", "TRUCK     ", "MAIL      ", "FOB       "}[rng.IntN(7)])
	var comment []string
	for range 6 {
		comment = append(comment, words[rng.IntN(len(words))])
	}
	joined := strings.Join(comment, " ")
	text(joined[:min(len(joined), 10+rng.IntN(34))])
	return row
}

// sentLineitem is the server's answer to a binary COPY of the rows, each in a message of its own.
func sentLineitem(rows int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	sent := message('H', make([]byte, 35))
	sent = append(sent, message('d', append(bytes.Clone(copySignature), make([]byte, 8)...))...)
	for i := range rows {
		sent = append(sent, message('d', lineitemRow(i, rng))...)
	}
	sent = append(sent, message('d', []byte{0xff, 0xff})...)
	sent = append(sent, message('c', nil)...)
	sent = append(sent, message('C', fmt.Appendf(nil, "COPY %d\x00", rows))...)
	return append(sent, message('Z', []byte{'T'})...)
}

// pieces gives at most so many bytes a read, as a socket does.
type pieces struct {
	wire
	most int
}

func (p pieces) Read(b []byte) (int, error) { return p.wire.Read(b[:min(len(b), p.most)]) }

// benchmarkCopy reads COPYs of lineitem rows, one an iteration; take gets each batch.
func benchmarkCopy(b *testing.B, take func(arrow.RecordBatch) error, end func() error) {
	const rows = 500_000
	p, sent := lineitemPlan(b), sentLineitem(rows)
	b.ReportAllocs()
	before, n := cpuTime(b), 0
	for b.Loop() {
		r := &Reader{snap: &Snapshot{source: &Source{}}, stream: newCopyStream(pieces{wire{bytes.NewReader(sent)}, 64 << 10}, nil)}
		d := newDecoder(p)
		got := 0
		err := r.decodeAll(context.Background(), d, func() error {
			got += d.rows
			rec := d.record()
			defer rec.Release()
			err := take(rec)
			d.reset()
			return err
		})
		if err != nil || got != rows {
			b.Fatal(got, err)
		}
		n += rows
	}
	if err := end(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(n), "cpu-ns/row")
}

// BenchmarkCopyLineitem is what decoding costs.
func BenchmarkCopyLineitem(b *testing.B) {
	benchmarkCopy(b, func(arrow.RecordBatch) error { return nil }, func() error { return nil })
}

// BenchmarkCopyLineitemToParquet is what a dump does between the socket and the bucket.
func BenchmarkCopyLineitemToParquet(b *testing.B) {
	for _, c := range []format.Compression{format.CodecSnappy, format.CodecZstd} {
		b.Run(string(c), func(b *testing.B) {
			w, err := format.NewParquet(io.Discard, lineitemPlan(b).Schema, format.ParquetOptions{Compression: c})
			if err != nil {
				b.Fatal(err)
			}
			benchmarkCopy(b, w.Write, w.Close)
			b.ReportMetric(float64(w.Size()), "B")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
