package lake

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCurrent: changes to a table of 5,000,000 rows, half of them updates, a quarter inserts and deletes each.
func BenchmarkCurrent(b *testing.B) {
	bed := newCurrentBed(b, 2, false)
	bed.lake.TargetFileSize = 128 << 20
	ctx := context.Background()
	const rows, batch = 5_000_000, 20_000
	r := rand.New(rand.NewPCG(1, 1))
	make1 := func(n int, pick func(i int) (change.Op, int64)) *change.Changes {
		bld := array.NewRecordBuilder(memory.DefaultAllocator, bedSchema)
		c := &change.Changes{Table: bed.spec.Table}
		for i := range n {
			bed.lsn++
			op, id := pick(i)
			c.Ops, c.LSN, c.Seq = append(c.Ops, op), append(c.LSN, bed.lsn), append(c.Seq, 1)
			bld.Field(0).(*array.Int64Builder).Append(id)
			bld.Field(1).(*array.StringBuilder).Append(fmt.Sprint("value ", id))
			bld.Field(2).(*array.StringBuilder).Append(fmt.Sprint("another, longer value of ", id*7))
		}
		c.Rows = bld.NewRecordBatch()
		return c
	}
	for at := 0; at < rows; at += 50_000 {
		if err := bed.table.Write(ctx, make1(50_000, func(i int) (change.Op, int64) { return change.OpInsert, int64(at + i) })); err != nil {
			b.Fatal(err)
		}
	}
	bed.commit(b)
	var list []*change.Changes
	for range 25 {
		list = append(list, make1(batch, func(int) (change.Op, int64) {
			switch id := r.Int64N(rows); r.IntN(4) {
			case 0:
				return change.OpDelete, id
			case 1:
				return change.OpInsert, rows + r.Int64N(rows)
			default:
				return change.OpUpdate, id
			}
		}))
	}
	before := cpu()
	n := 0
	b.ResetTimer()
	for b.Loop() {
		for _, c := range list {
			for i := range c.LSN {
				bed.lsn++
				c.LSN[i] = bed.lsn
			}
			if err := bed.table.Write(ctx, c); err != nil {
				b.Fatal(err)
			}
			n += c.Len()
		}
		bed.commit(b)
	}
	b.ReportMetric((cpu()-before).Seconds()/float64(n)*1e6, "cpu-s/M")
	b.StopTimer()
	at := time.Now()
	bed.reopen(b, true)
	b.ReportMetric(time.Since(at).Seconds(), "s-rebuild")
}
