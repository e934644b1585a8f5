package lake

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

func newSortedBed(t testing.TB, version int, by ...string) *currentBed {
	t.Helper()
	b := newCurrentBed(t, version, false)
	b.table.Close()
	b.spec.Sort = by
	b.open(t)
	return b
}

// sortedGroups has pyarrow look at each row group of the current files: the column's values must rise, or fall, with nulls first or last.
func sortedGroups(t *testing.T, dir, column string, falls bool) (groups int) {
	t.Helper()
	const script = `
import sys, glob, pyarrow.parquet as pq
column, falls = sys.argv[2], sys.argv[3] == "true"
n = 0
for f in glob.glob(sys.argv[1] + "/**/*.parquet", recursive=True):
    if "deletes" in f: continue
    p = pq.ParquetFile(f)
    if column not in p.schema_arrow.names: continue
    for g in range(p.num_row_groups):
        v = p.read_row_group(g, columns=[column]).column(0).to_pylist()
        keyed = [(x is not None, x) if x is not None else (False,) for x in v]
        assert keyed == sorted(keyed, reverse=falls), (f, g, v[:20])
        n += 1
print(n)`
	out, _ := testlab.RunPython(t, script, dir, column, fmt.Sprint(falls))
	if _, err := fmt.Sscan(out, &groups); err != nil {
		t.Fatal(err)
	}
	return groups
}

func TestASortedTableIsWhatTheLogSays(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			t.Parallel()
			b := newSortedBed(t, version, "v desc", "id")
			m := model{}
			r := rand.New(rand.NewPCG(uint64(version), 21))
			for round := range 30 {
				for range 1 + r.IntN(3) {
					b.write(t, m.workload(r, 1+r.IntN(400), 1500, round%2 == 1)...)
				}
				b.commit(t)
				if round%3 == 0 {
					if _, err := b.table.Maintain(context.Background(), MaintainOptions{Compact: r.IntN(3) > 0, MergeDeletes: r.IntN(4), Snapshots: Retention{Keep: 3}}); err != nil {
						t.Fatal(err)
					}
				}
				if round%8 == 7 {
					b.reopen(t, round%16 == 7)
				}
				same(t, fmt.Sprint("round ", round), b.rows(t), m.rows())
			}
			if n := sortedGroups(t, b.dir+"/lake/public/orders/data", "v", true); n == 0 {
				t.Error("there are no row groups")
			}
			if version == 2 {
				foreignReaders(t, b, m.rows())
			}
		})
	}
}

func TestACompactionOfASortedTableBesideTheIngestLosesAndRevivesNothing(t *testing.T) {
	t.Parallel()
	b := newSortedBed(t, 2, "big", "v")
	c, ctx := b.table.current, context.Background()
	m := model{}
	r := rand.New(rand.NewPCG(31, 12))
	for round := range 10 {
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
		if done {
			same(t, fmt.Sprint("compacted, round ", round), b.rows(t), committed)
		}
		b.write(t, m.workload(r, 100, 500, true)...)
		b.commit(t)
		same(t, fmt.Sprint("after, round ", round), b.rows(t), m.rows())
		if round%4 == 3 {
			b.reopen(t, round%2 == 0)
			c = b.table.current
		}
	}
	sortedGroups(t, b.dir+"/lake/public/orders/data", "big", false)
}

func TestACopyAndTheHistoryAreSorted(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	spec.Sort = []string{"name"}
	table := open(t, testLake(t, dir, nil), spec)
	c := begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x100, `[{"id":1,"name":"d"},{"id":2},{"id":3,"name":"a"},{"id":4,"name":"c"}]`)
	if err := c.Finish(t.Context(), 0x100); err != nil {
		t.Fatal(err)
	}
	write(t, table, changes(t, spec, 0x200, "cuc", `[{"id":5,"name":"z"},{"id":1,"name":"y"},{"id":6,"name":"x"}]`), 0x210)
	for _, of := range []string{"orders", "orders_history"} {
		if n := sortedGroups(t, dir+"/public/"+of+"/data", "name", false); n != 2 {
			t.Errorf("%d row groups of %s", n, of)
		}
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "y"`, `2 null`, `3 "a"`, `4 "c"`, `5 "z"`, `6 "x"`)
	data, _, err := table.current.t.live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range data {
		if id := f.File().SortOrderID(); id == nil || *id != table.current.t.now().Metadata().DefaultSortOrder() {
			t.Errorf("%s does not say that it is sorted", f.File().FilePath())
		}
	}
}

func TestMoreThanIsHeldBecomesSeveralSortedRowGroups(t *testing.T) {
	t.Parallel()
	b := newSortedBed(t, 2, "id")
	b.lake.TargetFileSize = 1 << 30
	set := b.table.current.t.newFileSet(t.Context(), b.table.current.schema)
	set.places = true
	r := rand.New(rand.NewPCG(8, 8))
	var ids []int64
	add := func(rows, width int) {
		bld := array.NewRecordBuilder(memory.DefaultAllocator, b.table.current.schema)
		defer bld.Release()
		for range rows {
			id := r.Int64()
			ids = append(ids, id)
			bld.Field(0).(*array.Int64Builder).Append(id)
			bld.Field(1).AppendNull()
			bld.Field(2).(*array.StringBuilder).Append(strings.Repeat("x", width))
		}
		rec := bld.NewRecordBatch()
		defer rec.Release()
		if _, _, err := set.Write(rec); err != nil {
			t.Fatal(err)
		}
		if set.held > 2*sortBytes {
			t.Fatalf("%d bytes are held", set.held)
		}
	}
	for range 80 {
		add(1000, 1000)
	}
	add(3, sortBytes/2) // large by itself
	files, err := set.Close(t.Context())
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if n := sortedGroups(t, b.dir+"/lake/public/orders/data", "id", false); n < 4 {
		t.Errorf("%d row groups", n)
	}
	order := set.Order(0)
	if err := b.table.current.t.scan(t.Context(), files[0], b.table.current.schema, 0, func() func(arrow.RecordBatch) error {
		came := make([]int64, len(ids))
		for row, at := range order {
			came[at] = ids[row]
		}
		return func(rec arrow.RecordBatch) error {
			got := rec.Column(0).(*array.Int64).Values()
			if !slices.Equal(got, came[:len(got)]) {
				return fault.New(fault.Internal, "", "the order does not tell where rows lie")
			}
			came = came[len(got):]
			return nil
		}
	}()); err != nil {
		t.Error(err)
	}
	if files[0].SortOrderID() != nil {
		t.Error("a file of several runs says that it is sorted")
	}
}

func TestEachTypeHasIcebergsOrder(t *testing.T) {
	t.Parallel()
	f := func(typ arrow.DataType, json string, want ...uint32) {
		t.Helper()
		a, _, err := array.FromJSON(memory.DefaultAllocator, typ, strings.NewReader(json))
		if err != nil {
			t.Fatal(err)
		}
		rec := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "a", Type: typ, Nullable: true}}, nil), []arrow.Array{a}, int64(a.Len()))
		if got := sortRows(rec, []sortColumn{{}}); !slices.Equal(got, want) {
			t.Errorf("%s %s: %v, want %v", typ, json, got, want)
		}
		slices.Reverse(want)
		if got := sortRows(rec, []sortColumn{{falls: true, nullsLast: true}}); !slices.Equal(got, want) {
			t.Errorf("%s %s falling: %v, want %v", typ, json, got, want)
		}
	}
	f(arrow.PrimitiveTypes.Int64, `[3,null,-9223372036854775808]`, 1, 2, 0)
	f(arrow.PrimitiveTypes.Int32, `[3,-1]`, 1, 0)
	f(arrow.FixedWidthTypes.Boolean, `[true,null,false]`, 1, 2, 0)
	f(arrow.BinaryTypes.String, `["b","ä","B",""]`, 3, 2, 0, 1)
	f(arrow.BinaryTypes.Binary, `["/w==","AA=="]`, 1, 0)
	f(&arrow.FixedSizeBinaryType{ByteWidth: 2}, `["//8=","AAA="]`, 1, 0)
	f(&arrow.Decimal128Type{Precision: 10, Scale: 2}, `["1.50","-7.25",null]`, 2, 1, 0)
	f(arrow.FixedWidthTypes.Timestamp_us, `[1600000000000000,1]`, 1, 0)
	f(arrow.FixedWidthTypes.Date32, `["2026-01-01","1969-01-01"]`, 1, 0)
	f(arrow.FixedWidthTypes.Time64us, `["13:00:00","12:00:00"]`, 1, 0)
	for _, c := range [][3]float64{{math.NaN(), 1, 1}, {1, math.Inf(1), -1}, {math.Inf(-1), 0, -1}, {math.NaN(), math.NaN(), 0}, {math.Inf(1), math.NaN(), -1}} {
		if got := compareFloats(c[0], c[1]); got != int(c[2]) {
			t.Errorf("%v against %v: %d", c[0], c[1], got)
		}
	}
}

func TestASortOrderThatIsSetLaterHoldsFromThen(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "ccc", `[{"id":1,"name":"c"},{"id":2,"name":"b"},{"id":3,"name":"a"}]`), 0x110)
	table.Close()
	spec.Sort = []string{"name"}
	for range 2 {
		table = open(t, testLake(t, dir, nil), spec)
	}
	if n := table.history.ice.now().Metadata().DefaultSortOrder(); n != 1 {
		t.Errorf("the sort order is %d: it is made once", n)
	}
	write(t, table, changes(t, spec, 0x200, "cc", `[{"id":4,"name":"z"},{"id":5,"name":"y"}]`), 0x210)
	write(t, table, changes(t, spec, 0x300, "cc", `[{"id":6,"name":"x"},{"id":7,"name":"w"}]`), 0x310)
	write(t, table, changes(t, spec, 0x400, "c", `[{"id":8,"name":"v"}]`), 0x410)
	if done, err := table.Maintain(t.Context(), MaintainOptions{Compact: true}); err != nil || done.Compacted != 0 {
		t.Fatalf("four small files of a table at work: %+v, %v", done, err)
	}
	done, err := table.Maintain(t.Context(), MaintainOptions{Compact: true, Thorough: true, Snapshots: Retention{Keep: 1}})
	if err != nil || done.Compacted != 4 {
		t.Fatalf("%+v, %v", done, err)
	}
	if n := sortedGroups(t, dir+"/public/orders_history/data", "name", false); n != 1 {
		t.Errorf("%d row groups", n)
	}
	if n := len(readBack(t, dir+"/public/orders_history")); n != 8 {
		t.Errorf("%d rows", n)
	}
	if _, err := table.Commit(context.Background(), change.LSN(0x410), time.Now()); err != nil {
		t.Error(err)
	}
}

func TestAColumnThatATableIsSortedByMayBeDropped(t *testing.T) {
	t.Parallel()
	for by, left := range map[string]int{"name desc": 0, "name, id": 1, "id, name": 1} {
		dir, spec := t.TempDir(), bothSpec()
		spec.Sort = strings.Split(by, ", ")
		table := open(t, testLake(t, dir, nil), spec)
		write(t, table, changes(t, spec, 0x100, "ccc", `[{"id":2,"name":"c"},{"id":3,"name":"a"},{"id":1,"name":"b"}]`), 0x110)
		narrow := altered(spec, func(s *change.Table, f []arrow.Field) []arrow.Field {
			s.Columns = slices.Delete(s.Columns, 1, 2)
			return slices.Delete(slices.Clone(f), 1, 2)
		})
		evolve(t, table, narrow)
		write(t, table, changes(t, narrow, 0x200, "cu", `[{"id":5},{"id":4}]`), 0x210)
		table.Close()
		table = open(t, testLake(t, dir, nil), narrow) // the setting still names the column
		write(t, table, changes(t, narrow, 0x300, "cc", `[{"id":7},{"id":6}]`), 0x310)
		for _, k := range table.kept {
			if order := k.ice.now().SortOrder(); order.Len() != left {
				t.Errorf("%s, sorted by %s before, has the order %s", k.ice.kind, by, order)
			}
		}
		expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 null`, `2 null`, `3 null`, `4 null`, `5 null`, `6 null`, `7 null`)
		back := withNote(spec)
		evolve(t, table, back) // where the column comes back it is another one
		write(t, table, changes(t, back, 0x400, "c", `[{"id":8,"name":"h"}]`), 0x410)
		table.Close()
		table = open(t, testLake(t, dir, nil), back)
		if order := table.current.t.now().SortOrder(); order.Len() != len(spec.Sort) {
			t.Errorf("the setting is %s, the order %s", by, order)
		}
	}
}
