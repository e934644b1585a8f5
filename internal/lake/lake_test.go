package lake

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

// testLake opens a lake in a folder.
func testLake(t *testing.T, dir string, change func(*Options)) *Lake {
	t.Helper()
	b, err := bucket.Open(t.Context(), "file://"+dir, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	o := Options{Bucket: b, Location: "file://" + dir, Pipeline: "shop", Epoch: 1, WorkDir: t.TempDir()}
	if change != nil {
		change(&o)
	}
	l, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// orders is a table of three columns.
func orders() (*change.Table, *arrow.Schema) {
	table := &change.Table{OID: 7, Schema: "public", Name: "orders", Kind: change.KindTable, Key: []int16{1}, ReplicaIdentity: 'd', Columns: []change.Column{
		{Name: "id", Attnum: 1, TypeOID: 20, Typmod: -1, Type: "bigint", NotNull: true},
		{Name: "name", Attnum: 2, TypeOID: 25, Typmod: -1, Type: "text"},
		{Name: "price", Attnum: 3, TypeOID: 1700, Typmod: 655366, Type: "numeric(10,2)"},
	}}
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "id", Type: arrow.PrimitiveTypes.Int64},
		{Name: "name", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "price", Type: &arrow.Decimal128Type{Precision: 10, Scale: 2}, Nullable: true},
	}, nil)
	return table, schema
}

func historySpec() Spec {
	table, schema := orders()
	return Spec{Table: table, Schema: schema, Key: []string{"id"}, History: true}
}

// record reads rows from JSON.
func record(t *testing.T, schema *arrow.Schema, rows string) arrow.RecordBatch {
	t.Helper()
	fields := schema.Fields()
	for i := range fields {
		fields[i].Nullable = true
	}
	rec, _, err := array.RecordFromJSON(memory.DefaultAllocator, arrow.NewSchema(fields, nil), strings.NewReader(rows))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// changes makes changes of one transaction at lsn: an operation and a row each.
func changes(t *testing.T, spec Spec, lsn change.LSN, ops string, rows string) *change.Changes {
	t.Helper()
	c := &change.Changes{Table: spec.Table, Rows: record(t, spec.Schema, rows)}
	for i, o := range []byte(ops) {
		c.Ops = append(c.Ops, change.Op(o))
		c.LSN = append(c.LSN, lsn)
		c.Seq = append(c.Seq, uint64(i+1))
		c.Committed = append(c.Committed, 1_700_000_000_000_000)
		c.XID = append(c.XID, 42)
	}
	return c
}

func open(t *testing.T, l *Lake, spec Spec) *lakeTable {
	t.Helper()
	table, err := l.Table(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table.(*lakeTable)
}

func write(t *testing.T, table Table, c *change.Changes, to change.LSN) Committed {
	t.Helper()
	if err := table.Write(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	done, err := table.Commit(t.Context(), to, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// reader reads an Iceberg table with programs that are not ours, and returns rows as JSON, one a line, sorted.
const reader = `
import sys, json, glob, os, datetime, decimal, uuid
dir, how = sys.argv[1], sys.argv[2]
n = open(dir + "/metadata/version-hint.text").read().strip()
meta = f"{dir}/metadata/v{n}.metadata.json"
if how == "pyiceberg":
    from pyiceberg.table import StaticTable
    rows = StaticTable.from_metadata(meta).scan().to_arrow().to_pylist()
else:
    import duckdb
    c = duckdb.connect()
    c.execute("LOAD iceberg")
    cur = c.execute(f"SELECT * FROM iceberg_scan('{meta}')")
    names = [d[0] for d in cur.description]
    rows = [dict(zip(names, r)) for r in cur.fetchall()]
def plain(v):
    if isinstance(v, (datetime.datetime, datetime.date, datetime.time, decimal.Decimal, uuid.UUID)): return str(v)
    if isinstance(v, bytes): return v.hex()
    return v
print("\n".join(sorted(json.dumps({k: plain(v) for k, v in r.items() if v is not None}, sort_keys=True) for r in rows)))
`

func readBack(t *testing.T, dir string) []map[string]any {
	t.Helper()
	out, _ := testlab.RunPython(t, reader, dir, "pyiceberg")
	var rows []map[string]any
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		row := map[string]any{}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows = append(rows, row)
	}
	return rows
}

func expect(t *testing.T, rows []map[string]any, columns []string, want ...string) {
	t.Helper()
	var got []string
	for _, r := range rows {
		var values []string
		for _, c := range columns {
			v, _ := json.Marshal(r[c])
			values = append(values, string(v))
		}
		got = append(got, strings.Join(values, " "))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestAHistoryIsReadByOthersAsItWasWritten(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	table := open(t, testLake(t, dir, nil), spec)
	if table.Position() != 0 {
		t.Errorf("a new table stands at %s", table.Position())
	}
	write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1,"name":"ä","price":"1.50"},{"id":2}]`), 0x110)
	done := write(t, table, changes(t, spec, 0x200, "ud", `[{"id":1,"name":"b","price":"-7.25"},{"id":2}]`), 0x210)
	if done.Rows != 2 || done.Files != 1 || done.Position != 0x210 || len(done.Snapshots) != 1 {
		t.Errorf("%+v", done)
	}
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"_leat_op", "_leat_lsn", "_leat_seq", "_leat_txid", "id", "name", "price"},
		`"c" 256 2 42 1 "ä" "1.50"`, `"c" 256 4 42 2 null null`, `"d" 512 4 42 2 null null`, `"u" 512 2 42 1 "b" "-7.25"`)
	again := open(t, testLake(t, dir, nil), spec)
	if again.Position() != 0x210 {
		t.Errorf("opened again it stands at %s", again.Position())
	}
}

func TestWhatTheTableHoldsIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	table = open(t, testLake(t, dir, nil), spec)
	both := changes(t, spec, 0x100, "cc", `[{"id":1},{"id":2}]`)
	both.LSN[1] = 0x110 // a position holds what is before it
	write(t, table, both, 0x200)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"id"}, "1", "2")
}

func TestOfTwoWritersOneFindsAConflict(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	first, second := open(t, testLake(t, dir, nil), spec), open(t, testLake(t, dir, nil), spec)
	write(t, first, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	if err := second.Write(t.Context(), changes(t, spec, 0x100, "c", `[{"id":1}]`)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Commit(t.Context(), 0x110, time.Now()); !fault.Is(err, fault.LakeConflict) {
		t.Errorf("the second writer got %v", err)
	}
	if _, err := second.Commit(context.Background(), 0x110, time.Now()); err != nil {
		t.Errorf("nothing is pending any more: %v", err)
	}
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"id"}, "1")
}

func TestATableOfSomebodyElseIsRefused(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	write(t, open(t, testLake(t, dir, nil), spec), changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x108)
	f := func(code fault.Code, o func(*Options)) {
		t.Helper()
		if _, err := testLake(t, dir, o).Table(t.Context(), spec); !fault.Is(err, code) {
			t.Errorf("want %s, got %v", code, err)
		}
	}
	f(fault.LakeForeign, func(o *Options) { o.Pipeline = "other" })
	f(fault.PipelineFenced, func(o *Options) { o.Epoch = 0 })
}

func lsn(n int) change.LSN { return change.LSN(n) }

// count counts the objects below a prefix.
func count(t *testing.T, l *Lake, prefix string) int {
	t.Helper()
	n := 0
	for _, err := range l.Bucket.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}
