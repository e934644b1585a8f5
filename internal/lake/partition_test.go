package lake

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// visits is a table with columns for each kind of partition.
func visits(partition ...string) Spec {
	columns := []change.Column{{Name: "id", Attnum: 1, TypeOID: 20, NotNull: true}, {Name: "at", Attnum: 2, TypeOID: 1184}, {Name: "region", Attnum: 3, TypeOID: 25},
		{Name: "amount", Attnum: 4, TypeOID: 1700}, {Name: "who", Attnum: 5, TypeOID: 2950}}
	return Spec{
		Table: &change.Table{OID: 9, Schema: "public", Name: "visits", Key: []int16{1}, ReplicaIdentity: 'd', Columns: columns},
		Schema: arrow.NewSchema([]arrow.Field{{Name: "id", Type: arrow.PrimitiveTypes.Int64},
			{Name: "at", Type: &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}, Nullable: true},
			{Name: "region", Type: arrow.BinaryTypes.String, Nullable: true},
			{Name: "amount", Type: &arrow.Decimal128Type{Precision: 12, Scale: 2}, Nullable: true},
			{Name: "who", Type: &arrow.FixedSizeBinaryType{ByteWidth: 16}, Nullable: true, Metadata: arrow.MetadataFrom(map[string]string{change.LogicalKey: change.LogicalUUID})},
		}, nil),
		Key: []string{"id"}, Current: true, History: true, Partition: partition,
	}
}

func visitRows(from, to, turn int) string {
	var rows []string
	for i := from; i < to; i++ {
		region := fmt.Sprintf("%q", []string{"eu", "us/east", "ü"}[(i+turn)%3])
		if i%11 == 0 {
			region = "null"
		}
		rows = append(rows, fmt.Sprintf(`{"id":%d,"at":"2026-0%d-0%dT0%d:00:00Z","region":%s,"amount":"%d.25","who":"MDEyMzQ1Njc4OWFiY2Rl%s"}`,
			i, 1+i%4, 1+i%2, i%2, region, i%9*7-20, []string{"Zg==", "Zw=="}[i%2]))
	}
	return "[" + strings.Join(rows, ",") + "]"
}

// prunedReader reads a table whole and then by conditions, which must give the rows that the whole table has for them, and tells
// for which of them it needed fewer files.
const prunedReader = `
import sys, json, datetime
from pyiceberg.table import StaticTable
dir = sys.argv[1]
n = open(dir + "/metadata/version-hint.text").read().strip()
t = StaticTable.from_metadata(f"{dir}/metadata/v{n}.metadata.json")
whole = t.scan().to_arrow().to_pylist()
files = len(list(t.scan().plan_files()))
for cond, f in [("region = 'eu'", lambda r: r["region"] == "eu"), ("region is null", lambda r: r["region"] is None), ("id = 7", lambda r: r["id"] == 7),
        ("at >= '2026-03-01T00:00:00+00:00'", lambda r: r["at"] and r["at"] >= datetime.datetime(2026,3,1,tzinfo=datetime.timezone.utc)),
        ("amount < -10", lambda r: r["amount"] is not None and r["amount"] < -10)]:
    got = sorted(r["id"] for r in t.scan(row_filter=cond).to_arrow().to_pylist())
    want = sorted(r["id"] for r in whole if f(r))
    assert got == want, (cond, got, want)
    print(cond, len(list(t.scan(row_filter=cond).plan_files())) < files, file=sys.stderr)
print(json.dumps(sorted([r["id"], r["region"], str(r["amount"])] for r in whole)))
print(t.spec().fields, t.sort_order().fields, file=sys.stderr)
`

func readPruned(t *testing.T, dir string) (rows [][]any, told string) {
	t.Helper()
	out, told := testlab.RunPython(t, prunedReader, dir)
	if err := json.Unmarshal([]byte(out), &rows); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return rows, told
}

func TestPartitionedTablesAreKeptAndReadAsOthersAre(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format    int
		partition []string
		pruned    []string
	}{
		{2, []string{"bucket(4, id)", "region"}, []string{"id = 7", "region = 'eu'", "region is null"}},
		{2, []string{"day(at)", "truncate(1000, amount)", "day(_leat_committed_at)"}, []string{"at >= ", "amount < -10"}},
		{3, []string{"bucket(3, who)", "truncate(1, region)", "hour(at)"}, []string{"region = 'eu'"}},
	} {
		t.Run(strings.Join(c.partition, " "), func(t *testing.T) {
			t.Parallel()
			dir, spec := t.TempDir(), visits(c.partition...)
			spec.Sort = []string{"at desc", "id"}
			v := func(o *Options) { o.Format = c.format }
			table := open(t, testLake(t, dir, v), spec)
			cp := begin(t, table, spec)
			copyChunk(t, cp, spec, "all", 0x50, visitRows(0, 60, 0))
			if err := cp.Finish(t.Context(), 0x50); err != nil {
				t.Fatal(err)
			}
			write(t, table, changes(t, spec, 0x100, strings.Repeat("c", 20), visitRows(60, 80, 0)), 0x110)
			// Rows move from one partition to another; some go.
			write(t, table, changes(t, spec, 0x200, strings.Repeat("u", 30), visitRows(20, 50, 1)), 0x210)
			write(t, table, changes(t, spec, 0x300, "ddd", `[{"id":3},{"id":25},{"id":70}]`), 0x310)
			rows, told := readPruned(t, dir+"/public/visits")
			for _, cond := range c.pruned {
				if !slices.ContainsFunc(strings.Split(told, "\n"), func(line string) bool { return strings.HasPrefix(line, cond) && strings.HasSuffix(line, "True") }) {
					t.Errorf("%s reads all files:\n%s", cond, told)
				}
			}
			checkVisits(t, rows)
			for turn := range 5 {
				write(t, table, changes(t, spec, lsn(0x400+turn*16), strings.Repeat("u", 12), visitRows(80, 92, turn)), lsn(0x401+turn*16))
			}
			want, _ := readPruned(t, dir+"/public/visits")
			m, err := table.Maintain(t.Context(), MaintainOptions{Compact: true, MergeDeletes: 2})
			if err != nil || m.Compacted == 0 || m.Written >= m.Compacted {
				t.Errorf("%+v, %v", m, err)
			}
			if after, _ := readPruned(t, dir+"/public/visits"); fmt.Sprint(after) != fmt.Sprint(want) {
				t.Errorf("compaction made\n%s\nof\n%s", after, want)
			}
			if m, err = table.Maintain(t.Context(), MaintainOptions{Compact: true}); err != nil || m.Written > 0 && m.Written >= m.Compacted {
				t.Errorf("compaction goes on without a gain: %+v, %v", m, err)
			}
			// An index that is built anew finds the same rows.
			table.Close()
			table = open(t, testLake(t, dir, v), spec)
			write(t, table, changes(t, spec, 0x500, "dd", `[{"id":79},{"id":81}]`), 0x510)
			if after, _ := readPruned(t, dir+"/public/visits"); len(after)+2 != len(want) {
				t.Errorf("after two deletes %d rows are left of %d", len(after), len(want))
			}
			if rows := readBack(t, dir+"/public/visits_history"); len(rows) != 60+20+30+3+60+2 {
				t.Errorf("the history has %d rows", len(rows))
			}
		})
	}
}

func checkVisits(t *testing.T, rows [][]any) {
	t.Helper()
	if len(rows) != 77 {
		t.Errorf("%d rows", len(rows))
	}
	for _, r := range rows {
		id, turn := int(r[0].(float64)), 0
		if id >= 20 && id < 50 {
			turn = 1
		}
		want := any([]string{"eu", "us/east", "ü"}[(id+turn)%3])
		if id%11 == 0 {
			want = nil
		}
		if r[1] != want {
			t.Errorf("row %v, want region %v", r, want)
		}
	}
}

func TestAPartitionThatCannotBeIsRefusedWithTheMend(t *testing.T) {
	t.Parallel()
	f := func(sort []string, partition ...string) {
		t.Helper()
		spec := visits(partition...)
		spec.Sort = sort
		_, err := testLake(t, t.TempDir(), nil).Table(t.Context(), spec)
		if !fault.Is(err, fault.ConfigInvalid) || fault.Of(err).Mend == "" {
			t.Errorf("%q: %v", partition, err)
		}
	}
	for _, text := range []string{"nothing", "day(region)", "bucket(id)", "bucket(0, id)", "day(2, at)", "week(at)", "truncate(3, at)", ""} {
		f(nil, text)
	}
	f(nil, "region", "identity(region)")
	f([]string{"nothing"})
}

func TestPartitionExpressionsAreReadAsIcebergWritesThem(t *testing.T) {
	t.Parallel()
	f := func(text, name, column, transform string) {
		t.Helper()
		got, ok := partitionExpression(text)
		if !ok || got.name != name || got.column != column || got.transform.String() != transform {
			t.Errorf("%s: %+v, %v", text, got, ok)
		}
	}
	f("region", "region", "region", "identity")
	f(`"Odd, Name"`, "Odd_x2C_x20Name", "Odd, Name", "identity")
	f(`"Key.a"`, "Key_x2Ea", "Key.a", "identity")
	f(`year("1 größe")`, "_1_x20gr_xF6_xDFe_year", "1 größe", "year")
	f(`"𝔘"`, "_xD835_xDD18", "𝔘", "identity")
	f("bucket(16, id)", "id_bucket", "id", "bucket[16]")
	f("TRUNCATE( 4,name )", "name_trunc", "name", "truncate[4]")
	f(`day("created at")`, "created_x20at_day", "created at", "day")
}

func TestFoldersOfLongPartitionsAreShortAndTheirOwn(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	for _, of := range [][2]string{{"a", "1"}, {"a", strings.Repeat("v", 5000)}, {"a", strings.Repeat("v", 5001)}, {"a", strings.Repeat("%C3%A4", 900)}, {strings.Repeat("n", 250), "1"}, {strings.Repeat("n", 250), "2"}} {
		folder := folderName(of[0], of[1])
		if len(folder) > mostFolder || !strings.Contains(folder, "=") || seen[folder] != "" {
			t.Errorf("%.20s=%.20s lies in %q, as does %.40s", of[0], of[1], folder, seen[folder])
		}
		if value, err := url.PathUnescape(folder); err != nil || !utf8.ValidString(value) && !strings.Contains(folder, "~") {
			t.Errorf("%q: %v", folder, err)
		}
		seen[folder] = of[0] + "=" + of[1]
	}
}

func TestASettingThatIsNotTheTablesPartitionIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := open(t, testLake(t, dir, nil), visits("region"))
	write(t, first, changes(t, visits(), 0x100, "c", visitRows(0, 1, 0)), 0x108)
	first.Close()
	for _, other := range []Spec{visits("day(at)"), visits(), visits("region", "day(at)")} {
		if _, err := testLake(t, dir, nil).Table(t.Context(), other); !fault.Is(err, fault.ConfigInvalid) {
			t.Errorf("got %v", err)
		}
	}
	open(t, testLake(t, dir, nil), visits("region"))
}

func TestAColumnThatATableIsPartitionedByMayBeDropped(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"region", "day(at)"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			dir, spec := t.TempDir(), visits(by)
			table := open(t, testLake(t, dir, nil), spec)
			write(t, table, changes(t, spec, 0x100, strings.Repeat("c", 20), visitRows(0, 20, 0)), 0x110)
			narrow := altered(spec, func(s *change.Table, f []arrow.Field) []arrow.Field { // without both
				s.Columns = slices.Delete(s.Columns, 1, 3)
				return slices.Delete(slices.Clone(f), 1, 3)
			})
			evolve(t, table, narrow)
			write(t, table, changes(t, narrow, 0x200, "cud", `[{"id":20,"amount":"1.00"},{"id":1,"amount":"2.00"},{"id":2}]`), 0x210)
			table.Close()
			table = open(t, testLake(t, dir, nil), narrow) // the setting is what it was
			evolve(t, table, narrow)
			for i := range change.LSN(4) {
				write(t, table, changes(t, narrow, 0x300+0x10*i, "u", fmt.Sprintf(`[{"id":%d,"amount":"3.00"}]`, i+3)), 0x308+0x10*i)
			}
			if m, err := table.Maintain(t.Context(), MaintainOptions{Compact: true, Snapshots: Retention{Keep: 1}}); err != nil || m.Compacted == 0 {
				t.Errorf("%+v, %v", m, err)
			}
			rows := readBack(t, dir+"/public/visits")
			column, kept := strings.TrimSuffix(strings.TrimPrefix(by, "day("), ")"), 0
			for _, r := range rows {
				if r[column] != nil {
					kept++
				}
			}
			// Of 20 rows one went and five were written anew; two of the rest have no region.
			if want := map[string]int{"region": 12, "at": 14}[column]; len(rows) != 20 || kept != want {
				t.Errorf("%d rows, of which %d have a value of before and not %d", len(rows), kept, want)
			}
			// A copy has the column no more either; and one of its name is another column.
			back := altered(spec, func(s *change.Table, f []arrow.Field) []arrow.Field {
				s.Columns[1].Attnum, s.Columns[2].Attnum = 11, 12
				return f
			})
			c := begin(t, table, back)
			copyChunk(t, c, back, "all", 0x400, visitRows(0, 10, 0))
			if err := c.Finish(t.Context(), 0x400); err != nil {
				t.Fatal(err)
			}
			ice := table.current.t.now()
			p := ice.Spec()
			name, _ := ice.Schema().FindColumnName(p.Field(0).SourceID())
			if !strings.HasPrefix(name, column+"__v") || len(readBack(t, dir+"/public/visits")) != 10 {
				t.Errorf("the table is partitioned by %s", name)
			}
		})
	}
}
