package lake

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

// currentBed is a lake in a folder with one table: id bigint primary key, v text, big text.
type currentBed struct {
	dir   string
	lake  *Lake
	table *lakeTable
	spec  Spec
	lsn   change.LSN
	twice []iceberg.DataFile
	limit int64 // resolveBytes, where it is not 0
}

var bedSchema = arrow.NewSchema([]arrow.Field{
	{Name: "id", Type: arrow.PrimitiveTypes.Int64},
	{Name: "v", Type: arrow.BinaryTypes.String, Nullable: true},
	{Name: "big", Type: arrow.BinaryTypes.String, Nullable: true},
}, nil)

func newCurrentBed(t testing.TB, formatVersion int, whole bool) *currentBed {
	t.Helper()
	b := &currentBed{dir: t.TempDir()}
	b.spec = Spec{
		Table: &change.Table{OID: 1, Schema: "public", Name: "orders", Columns: []change.Column{
			{Name: "id", Attnum: 1, TypeOID: 20, NotNull: true}, {Name: "v", Attnum: 2, TypeOID: 25}, {Name: "big", Attnum: 3, TypeOID: 25}}},
		Schema: bedSchema, Key: []string{"id"}, Current: true,
	}
	if whole {
		b.spec.Key, b.spec.WholeRowKey = nil, true
	}
	store, err := bucket.Open(context.Background(), "file://"+b.dir+"/lake", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b.lake, err = Open(context.Background(), Options{Bucket: store, Location: "file://" + b.dir + "/lake", Format: formatVersion,
		WorkDir: b.dir + "/work", Pipeline: "p", TargetFileSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	b.open(t)
	t.Cleanup(func() { b.table.Close(); b.lake.Close(); store.Close() })
	return b
}

func (b *currentBed) open(t testing.TB) {
	t.Helper()
	table, err := b.lake.Table(context.Background(), b.spec)
	if err != nil {
		t.Fatal(err)
	}
	b.table = table.(*lakeTable)
	if b.limit > 0 {
		b.table.current.resolveBytes = b.limit
	}
}

// reopen closes the table and opens it again; dirty leaves the index as a crash does.
func (b *currentBed) reopen(t testing.TB, dirty bool) {
	t.Helper()
	if !dirty {
		if err := b.table.Close(); err != nil {
			t.Fatal(err)
		}
	}
	b.open(t)
}

// event is one change of the log, as a test writes it.
type event struct {
	op     change.Op
	id     int64
	v      string
	big    string
	keep   bool // big is in TOAST and did not change
	old    *int64
	oldRow []string // the whole row before: v, big
}

// changes makes a record of events, each one a transaction of its own.
func (b *currentBed) changes(events []event) *change.Changes {
	mem := memory.DefaultAllocator
	rows := array.NewRecordBuilder(mem, bedSchema)
	defer rows.Release()
	old := array.NewRecordBuilder(mem, bedSchema)
	defer old.Release()
	c := &change.Changes{Table: b.spec.Table}
	text := func(r *array.RecordBuilder, i int, s string) {
		r.Field(i).(*array.StringBuilder).Append(s)
	}
	n := int32(0)
	for i, e := range events {
		b.lsn++
		c.Ops, c.LSN, c.Seq = append(c.Ops, e.op), append(c.LSN, b.lsn), append(c.Seq, 1)
		c.Committed, c.XID = append(c.Committed, 0), append(c.XID, uint32(i))
		whole := b.spec.WholeRowKey
		switch {
		case e.op == change.OpTrunc:
			for _, f := range rows.Fields() {
				f.AppendNull()
			}
		case e.op == change.OpDelete && !whole:
			rows.Field(0).(*array.Int64Builder).Append(e.id)
			rows.Field(1).AppendNull()
			rows.Field(2).AppendNull()
		default:
			rows.Field(0).(*array.Int64Builder).Append(e.id)
			text(rows, 1, e.v)
			if e.keep {
				rows.Field(2).AppendNull()
				if c.Unchanged == nil {
					c.Unchanged = make([]change.Bitmap, 3)
				}
				c.Unchanged[2] = c.Unchanged[2].Set(i)
			} else {
				text(rows, 2, e.big)
			}
		}
		if e.old == nil {
			c.OldRow = append(c.OldRow, -1)
			continue
		}
		c.OldRow = append(c.OldRow, n)
		n++
		old.Field(0).(*array.Int64Builder).Append(*e.old)
		if e.oldRow != nil {
			text(old, 1, e.oldRow[0])
			text(old, 2, e.oldRow[1])
		} else {
			old.Field(1).AppendNull()
			old.Field(2).AppendNull()
		}
	}
	c.Rows = rows.NewRecordBatch()
	if n > 0 {
		c.Old = old.NewRecordBatch()
	} else {
		c.OldRow = nil
	}
	return c
}

func (b *currentBed) write(t testing.TB, events ...event) {
	t.Helper()
	if err := b.table.Write(context.Background(), b.changes(events)); err != nil {
		t.Fatal(err)
	}
}

func (b *currentBed) commit(t testing.TB) Committed {
	t.Helper()
	done, err := b.table.Commit(context.Background(), b.lsn+1, time.Unix(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// rows reads the table through the Iceberg library.
func (b *currentBed) rows(t testing.TB) map[string]int {
	t.Helper()
	ctx := context.Background()
	out := map[string]int{}
	_, records, err := b.table.current.t.now().Scan().ToArrowRecords(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range records {
		if err != nil {
			t.Fatal(err)
		}
		for i := range int(rec.NumRows()) {
			out[fmt.Sprintf("%s|%s|%s", rec.Column(0).ValueStr(i), rec.Column(1).ValueStr(i), rec.Column(2).ValueStr(i))]++
		}
		rec.Release()
	}
	return out
}

func (b *currentBed) metadata() string {
	return strings.TrimPrefix(b.table.current.t.now().MetadataLocation(), "file://")
}

func same(t testing.TB, what string, got, want map[string]int) {
	t.Helper()
	bad := 0
	for k, n := range want {
		if got[k] != n {
			if bad++; bad < 5 {
				t.Errorf("%s: row %s is there %d times, want %d", what, k, got[k], n)
			}
		}
	}
	for k, n := range got {
		if want[k] == 0 {
			if bad++; bad < 5 {
				t.Errorf("%s: row %s is there %d times, want none", what, k, n)
			}
		}
	}
	if bad > 0 {
		t.Fatalf("%s: %d rows are wrong of %d", what, bad, len(want))
	}
}

// model is the table as it should be.
type model map[int64][2]string

func (m model) rows() map[string]int {
	out := map[string]int{}
	for id, v := range m {
		out[fmt.Sprintf("%d|%s|%s", id, v[0], v[1])]++
	}
	return out
}

// workload makes random events and applies them to the model.
func (m model) workload(r *rand.Rand, n int, keys int64, toast bool) []event {
	var out []event
	for range n {
		id := r.Int64N(keys)
		v, big := fmt.Sprint("v", r.IntN(1000)), fmt.Sprint("big", r.IntN(1_000_000), strings.Repeat("x", 30))
		now, there := m[id]
		switch p := r.IntN(100); {
		case p == 0 && r.IntN(20) == 0:
			clear(m)
			out = append(out, event{op: change.OpTrunc})
		case !there:
			m[id] = [2]string{v, big}
			out = append(out, event{op: change.OpInsert, id: id, v: v, big: big})
		case p < 25:
			delete(m, id)
			out = append(out, event{op: change.OpDelete, id: id})
		default:
			e := event{op: change.OpUpdate, id: id, v: v, big: big}
			if toast && p < 60 {
				e.keep, big, e.big = true, now[1], ""
			}
			if to := r.Int64N(keys); p > 90 && m[to] == ([2]string{}) {
				from := id
				e.old, e.id = &from, to
				delete(m, id)
				id = to
			}
			m[id] = [2]string{v, big}
			out = append(out, e)
		}
	}
	return out
}

func TestTheCurrentTableIsWhatTheLogSays(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			t.Parallel()
			b := newCurrentBed(t, version, false)
			m := model{}
			r := rand.New(rand.NewPCG(uint64(version), 7))
			for round := range 40 {
				for range 1 + r.IntN(3) {
					b.write(t, m.workload(r, 1+r.IntN(400), 1500, false)...)
				}
				b.commit(t)
				if round%3 == 0 {
					if _, err := b.table.Maintain(context.Background(), MaintainOptions{Compact: r.IntN(2) == 0, MergeDeletes: r.IntN(4), Snapshots: Retention{Keep: 3}}); err != nil {
						t.Fatal(err)
					}
				}
				if round%8 == 7 {
					b.reopen(t, round%16 == 7)
				}
				same(t, fmt.Sprint("round ", round), b.rows(t), m.rows())
			}
			foreignReaders(t, b, m.rows())
		})
	}
}

// foreignReaders has PyIceberg read the table.
func foreignReaders(t *testing.T, b *currentBed, want map[string]int) {
	t.Helper()
	const script = `
import sys, json
from pyiceberg.table import StaticTable
out = {}
for r in StaticTable.from_metadata(sys.argv[1]).scan().to_arrow().to_pylist():
    k = "%d|%s|%s" % (r["id"], r["v"], r["big"])
    out[k] = out.get(k, 0) + 1
print(json.dumps(out))
`
	out, _ := testlab.RunPython(t, script, b.metadata())
	var got map[string]int
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	same(t, "PyIceberg", got, want)
}

func TestATableWithoutAKeyKeepsEqualRowsApart(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, true)
	want := map[string]int{}
	r := rand.New(rand.NewPCG(1, 9))
	var live [][2]any
	row := func() (int64, string) { return r.Int64N(6), fmt.Sprint("v", r.IntN(3)) }
	text := func(id int64, v string) string { return fmt.Sprintf("%d|%s|b", id, v) }
	for round := range 20 {
		var events []event
		for range 60 {
			id, v := row()
			pick := -1
			if len(live) > 0 && r.IntN(2) == 0 {
				pick = r.IntN(len(live))
			}
			if pick < 0 {
				events = append(events, event{op: change.OpInsert, id: id, v: v, big: "b"})
				live = append(live, [2]any{id, v})
				want[text(id, v)]++
				continue
			}
			oid, ov := live[pick][0].(int64), live[pick][1].(string)
			want[text(oid, ov)]--
			if r.IntN(2) == 0 {
				events = append(events, event{op: change.OpDelete, id: oid, v: ov, big: "b"})
				live = append(live[:pick], live[pick+1:]...)
				continue
			}
			events = append(events, event{op: change.OpUpdate, id: id, v: v, big: "b", old: &oid, oldRow: []string{ov, "b"}})
			live[pick] = [2]any{id, v}
			want[text(id, v)]++
		}
		b.write(t, events...)
		b.commit(t)
		if round%5 == 2 {
			if _, err := b.table.Maintain(context.Background(), MaintainOptions{Compact: true}); err != nil {
				t.Fatal(err)
			}
		}
		if round%7 == 6 {
			b.reopen(t, round%2 == 0)
		}
		same(t, fmt.Sprint("round ", round), b.rows(t), want)
	}
}

func TestACompactionBesideTheIngestLosesAndRevivesNothing(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		b := newCurrentBed(t, version, false)
		c := b.table.current
		ctx := context.Background()
		m := model{}
		r := rand.New(rand.NewPCG(11, 12))
		for round := range 12 {
			b.write(t, m.workload(r, 300, 500, false)...)
			b.commit(t)
			inputs, schema, err := c.planCompaction(inPassing)
			if err != nil {
				t.Fatal(err)
			}
			if len(inputs) == 0 {
				continue
			}
			out, err := c.t.rewrite(ctx, inputs, schema, nil)
			if err != nil {
				t.Fatal(err)
			}
			b.write(t, m.workload(r, 100, 500, false)...)
			b.commit(t)
			committed := m.rows()
			b.write(t, m.workload(r, 100, 500, false)...)
			done, err := c.commitCompaction(ctx, inputs, out)
			if err != nil {
				t.Fatal(err)
			}
			if done { // what is only pending must not show
				same(t, fmt.Sprint("compacted, round ", round), b.rows(t), committed)
			}
			b.write(t, m.workload(r, 100, 500, false)...)
			b.commit(t)
			same(t, fmt.Sprint("after, round ", round), b.rows(t), m.rows())
			if round%5 == 4 {
				b.reopen(t, round%2 == 0)
				c = b.table.current
			}
		}
	}
}

func TestEquallyManyKeysTwiceInACopyLeaveTheLaterRow(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	ctx := context.Background()
	ice := b.table.current.t
	add := func(stamp string, id int64, v string) {
		set := ice.newFileSet(ctx, b.table.current.schema)
		set.metadata = map[string]string{stampKey: stamp}
		if _, _, err := set.Write(b.changes([]event{{op: change.OpInsert, id: id, v: v, big: "b"}}).Rows); err != nil {
			t.Fatal(err)
		}
		files, err := set.Close(ctx)
		if err != nil {
			t.Fatal(err)
		}
		b.twice = append(b.twice, files...)
	}
	add("0/20", 1, "late")
	add("0/10", 1, "early")
	add("0/10", 2, "only")
	if err := ice.commit(ctx, delta{add: b.twice, position: 1, replaceAll: true}); err != nil {
		t.Fatal(err)
	}
	b.reopen(t, true)
	b.lsn = 100
	b.write(t, event{op: change.OpInsert, id: 3, v: "x", big: "b"})
	b.commit(t)
	same(t, "rows", b.rows(t), map[string]int{"1|late|b": 1, "2|only|b": 1, "3|x|b": 1})
}
