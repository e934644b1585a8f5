package lake

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// testFiles opens a lake of plain files in a folder.
func testFiles(t *testing.T, dir string, change func(*FilesOptions)) *Files {
	t.Helper()
	b, err := bucket.Open(t.Context(), "file://"+dir, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	o := FilesOptions{Bucket: b, Format: format.JSONL, Pipeline: "shop", Epoch: 1, WorkDir: t.TempDir()}
	if change != nil {
		change(&o)
	}
	l, err := OpenFiles(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func openFiles(t *testing.T, l *Files, spec Spec) *filesTable {
	t.Helper()
	table, err := l.Table(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table.(*filesTable)
}

// filesReader reads the files that the manifests of a table name, with programs that are not ours, and prints rows as JSON.
const filesReader = `
import sys, json, glob, gzip, hashlib, datetime, decimal
import fastavro, pyarrow.csv, pyarrow.parquet
root, table = sys.argv[1], sys.argv[2]
def plain(v):
    if isinstance(v, (datetime.datetime, datetime.date, datetime.time, decimal.Decimal)): return str(v)
    if isinstance(v, bytes): return v.hex()
    return v
def read(path):
    if path.endswith(".avro"): return list(fastavro.reader(open(path, "rb")))
    if path.endswith(".parquet"): return pyarrow.parquet.read_table(path, partitioning=None).to_pylist()
    data = gzip.open(path) if path.endswith(".gz") else open(path, "rb")
    if ".jsonl" in path: return [json.loads(line) for line in data]
    return pyarrow.csv.read_csv(data, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False, null_values=[""])).to_pylist()
for m in sorted(glob.glob(f"{root}/{table}/_manifests/*.json")):
    for f in json.load(open(m))["files"]:
        path = root + "/" + f["key"]
        data = open(path, "rb").read()
        assert hashlib.sha256(data).hexdigest() == f["sha256"] and len(data) == f["bytes"], path
        rows = read(path)
        assert len(rows) == f["rows"], (path, len(rows))
        for r in rows: print(json.dumps({k: plain(v) for k, v in r.items() if v is not None}))
`

func readFiles(t *testing.T, dir, table string) []map[string]any {
	t.Helper()
	out, _ := testlab.RunPython(t, filesReader, dir, table)
	var rows []map[string]any
	for line := range strings.Lines(out) {
		row := map[string]any{}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		rows = append(rows, row)
	}
	return rows
}

// dataKeys are the files below a table's folder that are not manifests.
func dataKeys(t *testing.T, l *Files) []string {
	t.Helper()
	var keys []string
	for o, err := range l.Bucket.List(t.Context(), "public.orders/") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(o.Key, "/_manifests/") {
			keys = append(keys, strings.TrimPrefix(o.Key, "public.orders/"))
		}
	}
	return keys
}

func expectKeys(t *testing.T, l *Files, want ...string) {
	t.Helper()
	if got := dataKeys(t, l); !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

func TestChangeFilesOfEveryFormatAreReadByOthers(t *testing.T) {
	t.Parallel()
	for _, kind := range format.Kinds {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			dir, spec := t.TempDir(), historySpec()
			table := openFiles(t, testFiles(t, dir, func(o *FilesOptions) { o.Format = kind }), spec)
			if table.Position() != 0 {
				t.Errorf("a new table stands at %s", table.Position())
			}
			write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1,"name":"a \"b\", c","price":"1.50"},{"id":2,"name":"","price":"-0.05"}]`), 0x110)
			done := write(t, table, changes(t, spec, 0x200, "ud", `[{"id":1,"name":"zwei\nZeilen","price":"12345678.25"},{"id":2}]`), 0x210)
			if done.Rows != 2 || done.Files != 1 || done.Bytes == 0 || done.Position != 0x210 {
				t.Errorf("%+v", done)
			}
			rows := readFiles(t, dir, "public.orders")
			price := func(text, number string) string {
				if kind.Typed() {
					return `"` + text + `"`
				}
				return number
			}
			empty := `""`
			expect(t, rows, []string{"_leat_op", "_leat_lsn", "_leat_seq", "id", "name", "price"},
				`"c" 256 2 1 "a \"b\", c" `+price("1.50", "1.5"), `"c" 256 4 2 `+empty+` `+price("-0.05", "-0.05"),
				`"u" 512 2 1 "zwei\nZeilen" `+price("12345678.25", "12345678.25"), `"d" 512 4 2 null null`)
		})
	}
}

func TestChangeFilesHaveNamesThatTellTheirPlaceInTheLog(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	l := testFiles(t, dir, nil)
	table := openFiles(t, l, spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	write(t, table, changes(t, spec, 0x1_00000000, "c", `[{"id":2}]`), 0x1_00000010)
	expectKeys(t, l, "0000000000000000-0000000000000110-000.jsonl", "0000000000000110-0000000100000010-000.jsonl")
	again := openFiles(t, testFiles(t, dir, nil), spec)
	if again.Position() != 0x1_00000010 {
		t.Errorf("opened again it stands at %s", again.Position())
	}
}

func TestWhatACrashLeftOfChangeFilesIsSweptAndNothingElse(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	l := testFiles(t, dir, nil)
	table := openFiles(t, l, spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	for _, name := range []string{
		"0000000000000110-0000000000000200-000.jsonl", "0000000000000110-0000000000000200-001.parquet",
		"0000000000000000-0000000000000100-0123456789abcdef-000.jsonl", "readme.txt", "x/0000000000000110-0000000000000200-000.jsonl",
	} {
		if _, err := bucket.WriteAll(t.Context(), l.Bucket, "public.orders/"+name, []byte("lost"), bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	table = openFiles(t, testFiles(t, dir, nil), spec)
	expectKeys(t, l, "0000000000000000-0000000000000110-000.jsonl", "readme.txt", "x/0000000000000110-0000000000000200-000.jsonl")
	write(t, table, changes(t, spec, 0x150, "c", `[{"id":2}]`), 0x200)
	expect(t, readFiles(t, dir, "public.orders"), []string{"id"}, "1", "2")
}

func TestReplayedChangesAreNotWrittenTwice(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	table := openFiles(t, testFiles(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	table = openFiles(t, testFiles(t, dir, nil), spec)
	both := changes(t, spec, 0x100, "cc", `[{"id":1},{"id":2}]`)
	both.LSN[1] = 0x110 // a position holds what is before it
	write(t, table, both, 0x200)
	if done := write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x200); done.Files != 0 {
		t.Errorf("%+v", done)
	}
	expect(t, readFiles(t, dir, "public.orders"), []string{"id"}, "1", "2")
}

func TestOfTwoWritersOfChangeFilesOneFindsAConflict(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	first, second := openFiles(t, testFiles(t, dir, nil), spec), openFiles(t, testFiles(t, dir, nil), spec)
	write(t, first, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	for _, to := range []change.LSN{0x110, 0x120} { // the same file, and the same manifest
		if err := second.Write(t.Context(), changes(t, spec, 0x100, "c", `[{"id":7}]`)); err != nil {
			t.Fatal(err)
		}
		if _, err := second.Commit(t.Context(), to, time.Now()); !fault.Is(err, fault.LakeConflict) {
			t.Errorf("the second writer got %v", err)
		}
		if err := second.Write(t.Context(), changes(t, spec, 0x100, "c", `[{"id":7}]`)); err == nil {
			t.Error("the second writer goes on")
		}
		second.broken = nil
	}
	expect(t, readFiles(t, dir, "public.orders"), []string{"id"}, "1")
}

func TestChangeFilesOfSomebodyElseAreRefused(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	openFiles(t, testFiles(t, dir, nil), spec)
	f := func(code fault.Code, o func(*FilesOptions), s Spec) {
		t.Helper()
		if _, err := testFiles(t, dir, o).Table(t.Context(), s); !fault.Is(err, code) {
			t.Errorf("want %s, got %v", code, err)
		}
	}
	f(fault.LakeForeign, func(o *FilesOptions) { o.Pipeline = "other" }, spec)
	f(fault.PipelineFenced, func(o *FilesOptions) { o.Epoch = 0 }, spec)
	f(fault.ConfigInvalid, nil, bothSpec())
}

func TestACopyIntoChangeFilesGoesOnWhereItWasBrokenOff(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	l := testFiles(t, dir, nil)
	table := openFiles(t, l, spec)
	copyChunk(t, begin(t, table, spec), spec, "0..5", 0x100, `[{"id":1,"name":"a"}]`)
	table.Close() // nothing is finished

	table = openFiles(t, testFiles(t, dir, nil), spec)
	c := begin(t, table, spec)
	if got := c.Done(); len(got) != 1 || got["0..5"] != 0x100 {
		t.Fatalf("done: %v", got)
	}
	copyChunk(t, c, spec, "5../ü", 0x200, `[{"id":2,"name":"b"}]`)
	if table.Position() != 0 || len(readFiles(t, dir, "public.orders")) != 0 {
		t.Errorf("before the end it stands at %s", table.Position())
	}
	if err := c.Finish(t.Context(), 0x100); err != nil {
		t.Fatal(err)
	}
	write(t, table, changes(t, spec, 0x300, "u", `[{"id":1,"name":"c"}]`), 0x310)
	table = openFiles(t, testFiles(t, dir, nil), spec)
	if table.Position() != 0x310 {
		t.Errorf("it stands at %s", table.Position())
	}
	expect(t, readFiles(t, dir, "public.orders"), []string{"_leat_op", "_leat_lsn", "id", "name"}, `"r" 256 1 "a"`, `"r" 512 2 "b"`, `"u" 768 1 "c"`)
	if err := table.ForgetCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, &Lake{Options: Options{Bucket: l.Bucket}}, ".leat/"); n != 0 {
		t.Errorf("%d ledgers are left", n)
	}

	c = begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x310, `[{"id":2}]`)
	if err := c.Finish(t.Context(), 0x310); err != nil {
		t.Fatal(err)
	}
	table = openFiles(t, testFiles(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x400, "c", `[{"id":3}]`), 0x410)
	expect(t, readFiles(t, dir, "public.orders"), []string{"_leat_op", "_leat_lsn", "_leat_seq", "id"},
		`"r" 256 0 1`, `"r" 512 0 2`, `"u" 768 2 1`, `"t" 784 -1 null`, `"r" 784 0 2`, `"c" 1024 2 3`)
}

func TestAnAbandonedCopyLeavesNoFiles(t *testing.T) {
	t.Parallel()
	spec := historySpec()
	l := testFiles(t, t.TempDir(), nil)
	table := openFiles(t, l, spec)
	c := begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x100, `[{"id":1}]`)
	w, err := c.Chunk(t.Context(), "more", 0x100)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(change.Batch{Record: record(t, spec.Schema, `[{"id":2}]`)}); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	if err := c.Abandon(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectKeys(t, l)
	if left, _ := os.ReadDir(l.local); len(left) != 0 {
		t.Errorf("%d local files are left", len(left))
	}
}

func TestChangeFilesAreKeptByPartition(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	spec.Partition = []string{"day(_leat_committed_at)", "name"}
	l := testFiles(t, dir, func(o *FilesOptions) { o.Format = format.Parquet })
	table := openFiles(t, l, spec)
	c := changes(t, spec, 0x100, "cccc", `[{"id":1,"name":"a/b ü"},{"id":2,"name":"x"},{"id":3},{"id":4,"name":"x"}]`)
	c.Committed[3] += 86_400_000_000
	write(t, table, c, 0x110)
	stem := "0000000000000000-0000000000000110-"
	expectKeys(t, l, "_leat_committed_at_day=2023-11-14/name=__HIVE_DEFAULT_PARTITION__/"+stem+"002.parquet",
		"_leat_committed_at_day=2023-11-14/name=a%2Fb%20%C3%BC/"+stem+"000.parquet",
		"_leat_committed_at_day=2023-11-14/name=x/"+stem+"001.parquet", "_leat_committed_at_day=2023-11-15/name=x/"+stem+"003.parquet")
	const hive = `
import sys, duckdb
print(duckdb.connect().execute("SELECT id, CAST(_leat_committed_at_day AS VARCHAR) FROM read_parquet('" + sys.argv[1] + "/public.orders/*/*/*.parquet', hive_partitioning=true) WHERE name = 'x' ORDER BY id").fetchall())`
	out, _ := testlab.RunPython(t, hive, dir)
	if want := "[(2, '2023-11-14'), (4, '2023-11-15')]\n"; out != want {
		t.Errorf("DuckDB finds %s", out)
	}
	// A lost file of a partition is swept too.
	lost := filepath.Join(dir, "public.orders", "_leat_committed_at_day=2023-11-15", "name=x", "0000000000000110-0000000000000111-000.parquet")
	if err := os.WriteFile(lost, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	openFiles(t, testFiles(t, dir, nil), spec)
	if _, err := os.Stat(lost); !os.IsNotExist(err) {
		t.Errorf("the lost file is still there: %v", err)
	}
}

func TestManyPartitionsOfChangeFilesNeedFewOpenFiles(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	spec.Partition = []string{"id"}
	table := openFiles(t, testFiles(t, dir, nil), spec)
	var rows []string
	for i := range 3 * mostOpen {
		rows = append(rows, fmt.Sprintf(`{"id":%d}`, i))
	}
	if err := table.Write(t.Context(), changes(t, spec, 0x100, strings.Repeat("c", len(rows)), "["+strings.Join(rows, ",")+"]")); err != nil {
		t.Fatal(err)
	}
	if n := len(table.pending.open); n > mostOpen {
		t.Errorf("%d files are open", n)
	}
	if _, err := table.Commit(t.Context(), 0x110, time.Now()); err != nil {
		t.Fatal(err)
	}
	if table.last.Rows != int64(len(rows)) {
		t.Errorf("%d rows of %d", table.last.Rows, len(rows))
	}
}

func TestANewDefinitionBeginsNewChangeFiles(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	table := openFiles(t, testFiles(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1,"name":"a"}]`), 0x110)
	to := *spec.Table
	to.Columns = []change.Column{spec.Table.Columns[0], spec.Table.Columns[1], {Name: "note", Attnum: 4, TypeOID: 25, Typmod: -1, Type: "text"}}
	to.Columns[0].Name, to.Columns[0].NotNull = "number", true
	spec.Table = &to
	spec.Schema = arrow.NewSchema([]arrow.Field{{Name: "number", Type: arrow.PrimitiveTypes.Int64}, spec.Schema.Field(1),
		{Name: "note", Type: arrow.BinaryTypes.String, Nullable: true}}, nil)
	if err := table.Evolve(t.Context(), Definition{Table: &to, Schema: spec.Schema, From: 0x200}); err != nil {
		t.Fatal(err)
	}
	write(t, table, changes(t, spec, 0x200, "c", `[{"number":2,"note":"n"}]`), 0x210)
	expect(t, readFiles(t, dir, "public.orders"), []string{"id", "number", "name", "note"}, `1 null "a" null`, `null 2 null "n"`)
	again := openFiles(t, testFiles(t, dir, nil), spec)
	if c := again.Columns(); len(c) != 3 || c[0].Name != "number" || c[0].Attnum != 1 || c[2].Attnum != 4 {
		t.Errorf("%+v", c)
	}
}

func TestManyManifestsAreFoundWithAndWithoutTheHint(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	l := testFiles(t, dir, nil)
	table := openFiles(t, l, spec)
	for i := 1; i <= 2*hintEvery+3; i++ {
		write(t, table, changes(t, spec, change.LSN(i*16), "c", `[{"id":1}]`), change.LSN(i*16+1))
	}
	want := table.Position()
	for _, hint := range []string{"", "1", "16", "99", "nonsense"} {
		key := "public.orders/_manifests/latest"
		if hint == "" {
			if err := l.Bucket.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		} else if _, err := bucket.WriteAll(t.Context(), l.Bucket, key, []byte(hint), bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		if again := openFiles(t, testFiles(t, dir, nil), spec); again.Position() != want {
			t.Errorf("with hint %q the table stands at %s, not %s", hint, again.Position(), want)
		}
	}
}

func TestSweepOfChangeFilesTakesOldOnesThatNobodyNames(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	spec.Partition = []string{"name"}
	l := testFiles(t, dir, nil)
	table := openFiles(t, l, spec)
	c := begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x100, `[{"id":1,"name":"a"}]`)
	if err := c.Finish(t.Context(), 0x100); err != nil {
		t.Fatal(err)
	}
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1,"name":"b"}]`), 0x110)
	copyChunk(t, begin(t, table, spec), spec, "all", 0x200, `[{"id":1,"name":"a"}]`)
	kept := dataKeys(t, l)
	lost := "public.orders/name=c/0000000000000110-0000000000000200-000.jsonl"
	if _, err := bucket.WriteAll(t.Context(), l.Bucket, lost, []byte("lost"), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, _, err := l.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("young files were swept: %d, %v", n, err)
	}
	old := time.Now().Add(-2 * time.Hour)
	if err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, old, old)
	}); err != nil {
		t.Fatal(err)
	}
	if n, size, err := l.Sweep(t.Context(), time.Hour); n != 1 || size != 4 || err != nil {
		t.Errorf("%d files of %d bytes, %v", n, size, err)
	}
	expectKeys(t, l, kept...)
}

func TestChangeFilesInS3OutliveACrash(t *testing.T) {
	t.Parallel()
	store, spec := testlab.S3(t), historySpec()
	lake := func() *Files {
		b, err := bucket.Open(t.Context(), "s3://"+store.Bucket+"/shop", bucket.Options{Endpoint: store.Endpoint, Region: store.Region,
			AccessKeyID: store.AccessKey, SecretAccessKey: func() string { return store.SecretKey }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return testFiles(t, t.TempDir(), func(o *FilesOptions) { o.Bucket = b })
	}
	l := lake()
	table := openFiles(t, l, spec)
	c := begin(t, table, spec)
	copyChunk(t, c, spec, "0..5", 0x100, `[{"id":1}]`)
	table.Close() // a crash in the middle of a copy: the chunk is done

	table = openFiles(t, lake(), spec)
	c = begin(t, table, spec)
	if len(c.Done()) != 1 {
		t.Fatalf("done: %v", c.Done())
	}
	copyChunk(t, c, spec, "5..9", 0x100, `[{"id":2}]`)
	if err := c.Finish(t.Context(), 0x100); err != nil {
		t.Fatal(err)
	}
	copied := dataKeys(t, l)
	first, second := openFiles(t, lake(), spec), openFiles(t, lake(), spec)
	write(t, first, changes(t, spec, 0x100, "c", `[{"id":3}]`), 0x110)
	if err := second.Write(t.Context(), changes(t, spec, 0x100, "c", `[{"id":3}]`)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Commit(t.Context(), 0x110, time.Now()); !fault.Is(err, fault.LakeConflict) {
		t.Errorf("the second writer got %v", err)
	}
	for _, name := range []string{"0000000000000110-0000000000000200-000.jsonl", "0000000000000000-0000000000000100-0123456789abcdef-000.jsonl", "readme.txt"} {
		if _, err := bucket.WriteAll(t.Context(), l.Bucket, "public.orders/"+name, []byte("lost"), bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	table = openFiles(t, lake(), spec)
	expectKeys(t, l, append(copied, "0000000000000100-0000000000000110-000.jsonl", "readme.txt")...)
	write(t, table, changes(t, spec, 0x150, "u", `[{"id":3,"name":"z"}]`), 0x200)
	var rows []string
	for _, key := range dataKeys(t, l) {
		object, err := store.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &store.Bucket, Key: new("shop/public.orders/" + key)})
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(object.Body)
		if err != nil {
			t.Fatal(err)
		}
		if key != "readme.txt" {
			rows = append(rows, strings.Split(strings.TrimSpace(string(data)), "\n")...)
		}
	}
	if len(rows) != 4 || !strings.Contains(rows[3], `"name":"z"`) {
		t.Errorf("the change files hold %q", rows)
	}
}
