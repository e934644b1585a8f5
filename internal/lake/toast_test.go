package lake

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

func TestValuesThatTheLogLeftOutAreFoundAgain(t *testing.T) {
	t.Parallel()
	foundAgain(t, 0)
}

// What is found for a record is bounded: with a bound of a few bytes, it is row for row.
func TestValuesThatTheLogLeftOutAreFoundAFewAtATime(t *testing.T) {
	t.Parallel()
	for _, limit := range []int64{1, 200} {
		foundAgain(t, limit)
	}
}

// A page of one value may be far longer than readers expect.
func TestAValueLongerThanAnyPageIsFoundAgain(t *testing.T) {
	t.Parallel()
	block := make([]byte, 16<<20) // more than a codec looks back, so that what follows does not compress either
	r := rand.New(rand.NewPCG(1, 1))
	for i := range block {
		block[i] = '!' + byte(r.Uint32()%90)
	}
	noise := bytes.Repeat(block, 5)[:70<<20]
	b := newCurrentBed(t, 2, false)
	b.write(t, event{op: change.OpInsert, id: 1, v: "a", big: string(noise)}, event{op: change.OpInsert, id: 2, v: "a", big: string(noise[1:])})
	b.commit(t)
	b.write(t, event{op: change.OpUpdate, id: 1, v: "b", keep: true}, event{op: change.OpUpdate, id: 2, v: "c", keep: true}, event{op: change.OpUpdate, id: 2, v: "d", keep: true})
	b.commit(t)
	again := time.NewTicker(10 * time.Millisecond) // tests beside it may hold some for a moment
	defer again.Stop()
	for end := time.Now().Add(time.Minute); scratch.Held() > 0; <-again.C {
		if time.Now().After(end) {
			t.Fatalf("%d large buffers were not given back", scratch.Held())
		}
	}
	found := map[string]string{} // read by ourselves: the Iceberg library takes no page of more than 64 MiB
	data, _, err := b.table.current.t.live(t.Context())
	for _, f := range data {
		if err == nil {
			err = b.table.current.t.scan(t.Context(), f.File(), b.table.current.schema, 0, func(rec arrow.RecordBatch) error {
				for i := range int(rec.NumRows()) {
					found[rec.Column(0).ValueStr(i)+rec.Column(1).ValueStr(i)] = strings.Clone(rec.Column(2).ValueStr(i))
				}
				return nil
			})
		}
	}
	if err != nil || found["1b"] != string(noise) || found["2d"] != string(noise[1:]) {
		t.Errorf("%v: the lake has %d rows, the values have %d and %d bytes", err, len(found), len(found["1b"]), len(found["2d"]))
	}
}

func foundAgain(t *testing.T, limit int64) {
	t.Helper()
	b := newCurrentBed(t, 2, false)
	b.limit = limit
	b.reopen(t, false)
	m := model{}
	r := rand.New(rand.NewPCG(5, 5))
	rounds, most := 15, 200
	if limit > 0 { // each row may be a file of its own
		rounds, most = 5, 40
	}
	for round := range rounds {
		for range 1 + r.IntN(3) {
			b.write(t, m.workload(r, 1+r.IntN(most), 300, true)...)
		}
		b.commit(t)
		if round%4 == 1 {
			if _, err := b.table.Maintain(context.Background(), MaintainOptions{Compact: true}); err != nil {
				t.Fatal(err)
			}
		}
		if round == 9 {
			b.reopen(t, true)
		}
		same(t, fmt.Sprint("round ", round), b.rows(t), m.rows())
	}
}

// Of the earlier row the log tells its key or, when that stayed, nothing, also under a root of identity full, whose partition it is.
func TestAnUpdateInTheBatchOfItsInsertKeepsTheLargeValue(t *testing.T) {
	t.Parallel()
	one := int64(1)
	f := func(name string, identity byte, update event, want string) {
		t.Helper()
		b := newCurrentBed(t, 2, false)
		b.spec.Table.ReplicaIdentity = identity
		for _, split := range []bool{false, true} {
			insert := event{op: change.OpInsert, id: 1, v: "a", big: "large"}
			if split {
				b.write(t, insert)
				b.commit(t)
				b.write(t, update)
			} else {
				b.write(t, insert, update)
			}
			b.commit(t)
			same(t, fmt.Sprintf("%s, in two commits %v", name, split), b.rows(t), map[string]int{want: 1})
			b.write(t, event{op: change.OpTrunc})
			b.commit(t)
		}
	}
	f("the key stayed", 'd', event{op: change.OpUpdate, id: 1, v: "b", keep: true}, "1|b|large")
	f("the key changed, default", 'd', event{op: change.OpUpdate, id: 2, v: "b", keep: true, old: &one}, "2|b|large")
	f("the key changed, index", 'i', event{op: change.OpUpdate, id: 2, v: "b", keep: true, old: &one}, "2|b|large")
	f("a partition of a root that is full", 'f', event{op: change.OpUpdate, id: 2, v: "b", keep: true, old: &one}, "2|b|large")
}

func TestTheSourceIsAskedForWhatNobodyHereHas(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	unknown := event{op: change.OpUpdate, id: 7, v: "b", keep: true}
	if err := b.table.Write(context.Background(), b.changes([]event{unknown})); !fault.Is(err, fault.ValueUncarriable) {
		t.Fatalf("without anybody to ask: %v", err)
	}
	asked := int64(0)
	b.spec.Reread = func(_ context.Context, keys arrow.RecordBatch) (arrow.RecordBatch, error) {
		asked += keys.NumRows()
		rows := array.NewRecordBuilder(memory.DefaultAllocator, bedSchema)
		rows.Field(0).(*array.Int64Builder).Append(7)
		rows.Field(1).(*array.StringBuilder).Append("now")
		rows.Field(2).(*array.StringBuilder).Append("from the source")
		return rows.NewRecordBatch(), nil
	}
	b.reopen(t, false)
	c := b.changes([]event{unknown, {op: change.OpUpdate, id: 8, v: "gone", keep: true}})
	resolved, err := b.table.current.resolve(context.Background(), c, 0)
	if err != nil {
		t.Fatal(err)
	}
	if resolved.IsUnchanged(2, 0) || !resolved.IsUnchanged(2, 1) {
		t.Error("the mark must go from the value that was found and stay at the one that nobody has")
	}
	if err := b.table.Write(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	b.commit(t)
	same(t, "rows", b.rows(t), map[string]int{"7|b|from the source": 1, "8|gone|(null)": 1})
	if asked != 5 { // two for each resolve, and once more the one that nobody had
		t.Errorf("the source was asked for %d rows", asked)
	}
}

// A copy's snapshot may be later than the log that follows: then the log tells of moves to keys that the row has left already.
func TestALargeValueOutlivesMovesThatTheCopyHasSeen(t *testing.T) {
	t.Parallel()
	nobody := func(context.Context, arrow.RecordBatch) (arrow.RecordBatch, error) {
		return array.NewRecordBuilder(memory.DefaultAllocator, bedSchema).NewRecordBatch(), nil
	}
	one, two := int64(1), int64(2)
	moves := []event{
		{op: change.OpUpdate, id: 1, v: "a", keep: true},
		{op: change.OpUpdate, id: 2, v: "b", keep: true, old: &one},
		{op: change.OpUpdate, id: 2, v: "c", keep: true},
		{op: change.OpUpdate, id: 3, v: "d", keep: true, old: &two},
	}
	for split := range len(moves) {
		b := newCurrentBed(t, 2, false)
		b.spec.Reread = nobody
		b.reopen(t, false)
		b.write(t, event{op: change.OpInsert, id: 3, v: "copied", big: "large"})
		b.commit(t)
		b.write(t, moves[:split]...)
		b.commit(t)
		b.write(t, moves[split:]...)
		b.commit(t)
		same(t, fmt.Sprint("after ", split), b.rows(t), map[string]int{"3|d|large": 1})
	}
}
