package format_test

import (
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/format"
)

// lineitemSchema is the table of TPC-H that the product's speed is measured with.
func lineitemSchema() *arrow.Schema {
	money := &arrow.Decimal128Type{Precision: 15, Scale: 2}
	i32, str, date := arrow.PrimitiveTypes.Int32, arrow.BinaryTypes.String, arrow.FixedWidthTypes.Date32
	var fields []arrow.Field
	for _, f := range []struct {
		name string
		dt   arrow.DataType
	}{
		{"l_orderkey", arrow.PrimitiveTypes.Int64}, {"l_partkey", i32}, {"l_suppkey", i32}, {"l_linenumber", i32},
		{"l_quantity", money}, {"l_extendedprice", money}, {"l_discount", money}, {"l_tax", money},
		{"l_returnflag", str}, {"l_linestatus", str}, {"l_shipdate", date}, {"l_commitdate", date}, {"l_receiptdate", date},
		{"l_shipinstruct", str}, {"l_shipmode", str}, {"l_comment", str},
	} {
		fields = append(fields, field(f.name, f.dt, true, ""))
	}
	return arrow.NewSchema(fields, nil)
}

// lineitem makes a record of n rows that begins at the given order.
func lineitem(n, order int) arrow.RecordBatch {
	words := strings.Fields(`furiously sly carefully blithely quickly fluffily slowly quietly ruthlessly thinly closely
		doggedly daringly bold final ironic pending regular express special unusual even silent packages deposits accounts
		requests instructions foxes ideas theodolites pinto beans sleep wake are cajole haggle nag use boost affix detect integrate`)
	modes := []string{"REG AIR   ", "AIR       ", "RAIL      ", "SHIP      ", "TRUCK     ", "MAIL      ", "FOB       "}
	instructs := []string{"DELIVER IN PERSON        ", "COLLECT COD              ", "NONE                     ", "TAKE BACK RETURN         "}
	b := array.NewRecordBuilder(memory.DefaultAllocator, lineitemSchema())
	defer b.Release()
	i32 := func(c int, v int) { b.Field(c).(*array.Int32Builder).Append(int32(v)) }
	dec := func(c int, v int) { b.Field(c).(*array.Decimal128Builder).Append(decimal128.FromI64(int64(v))) }
	str := func(c int, v string) { b.Field(c).(*array.StringBuilder).Append(v) }
	date := func(c int, v int) { b.Field(c).(*array.Date32Builder).Append(arrow.Date32(v)) }
	rng := rand.New(rand.NewPCG(1, uint64(order)))
	line := 0
	for range n {
		if line++; line > 1+rng.IntN(7) {
			order, line = order+1+rng.IntN(2)*24, 1
		}
		b.Field(0).(*array.Int64Builder).Append(int64(order))
		i32(1, 1+rng.IntN(200_000))
		i32(2, 1+rng.IntN(10_000))
		i32(3, line)
		quantity := 1 + rng.IntN(50)
		dec(4, quantity*100)
		dec(5, quantity*(90_000+rng.IntN(110_000)))
		dec(6, rng.IntN(11))
		dec(7, rng.IntN(9))
		str(8, []string{"N", "A", "R"}[rng.IntN(3)])
		str(9, []string{"O", "F"}[rng.IntN(2)])
		ship := 8036 + rng.IntN(2526)
		date(10, ship)
		date(11, ship-30+rng.IntN(90))
		date(12, ship+1+rng.IntN(30))
		str(13, instructs[rng.IntN(4)])
		str(14, modes[rng.IntN(7)])
		comment := ""
		for want := 10 + rng.IntN(34); len(comment) < want; {
			comment += words[rng.IntN(len(words))] + " "
		}
		str(15, comment[:min(len(comment), 43)])
	}
	return b.NewRecordBatch()
}

// cpuSeconds is what the process has used: on a busy machine the clock says little.
func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func BenchmarkParquetLineitem(b *testing.B) {
	const rows = 32 << 10
	var recs []arrow.RecordBatch
	for i := range 16 {
		recs = append(recs, lineitem(rows, i*rows))
	}
	for _, c := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecZstd} {
		b.Run(string(c), func(b *testing.B) {
			b.ReportAllocs()
			w, err := format.NewParquet(io.Discard, lineitemSchema(), format.ParquetOptions{Compression: c})
			if err != nil {
				b.Fatal(err)
			}
			n, before := 0, cpuSeconds(b)
			for b.Loop() {
				if err := w.Write(recs[n%len(recs)]); err != nil {
					b.Fatal(err)
				}
				n++
			}
			if err := w.Close(); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(n*rows)/b.Elapsed().Seconds(), "rows/s")
			b.ReportMetric((cpuSeconds(b)-before)/float64(n*rows)*1e6, "cpu-s/Mrow")
			b.ReportMetric(float64(w.Size())/float64(n*rows), "B/row")
		})
	}
}
