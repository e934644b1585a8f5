package lake

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// sides are two buckets with a relocation between them whose Carry copies and counts.
type sides struct {
	Relocation
	mu      sync.Mutex
	carried map[string]int64
}

func folderSides(t *testing.T, root string) *sides {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	return newSides(t, "file://"+from, openFolder(t, from), "file://"+to, openFolder(t, to), root)
}

func openFolder(t *testing.T, dir string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "file://"+dir, bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func newSides(t *testing.T, fromURL string, from bucket.Bucket, toURL string, to bucket.Bucket, root string) *sides {
	t.Helper()
	s := &sides{Relocation: Relocation{From: from, To: to, FromURL: fromURL, ToURL: toURL, Root: root}, carried: map[string]int64{}}
	s.Carry = func(ctx context.Context, key string, size int64) error {
		data, err := bucket.ReadAll(ctx, s.From, key, 1<<30)
		if err != nil {
			return err
		}
		if int64(len(data)) != size {
			return fmt.Errorf("%s has %d bytes, and the metadata says %d", key, len(data), size)
		}
		s.mu.Lock()
		s.carried[key]++
		s.mu.Unlock()
		_, err = bucket.WriteAll(ctx, s.To, key, data, bucket.WriteOptions{Lazy: true})
		return err
	}
	return s
}

func (s *sides) run(t *testing.T) Relocated {
	t.Helper()
	done, err := s.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func (s *sides) dir(url string) string { return strings.TrimPrefix(url, "file://") }

// snapshotReader has PyIceberg read all snapshots of a table, found by its pointer, and print them: rows by snapshot, the current one under
// "now". A further argument is a file of settings.
const snapshotReader = `
import sys, json
from pyiceberg.table import StaticTable
settings = json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
t = StaticTable.from_metadata(sys.argv[1], settings)
def rows(scan):
    return sorted(json.dumps(r, sort_keys=True, default=str) for r in scan.to_arrow().to_pylist())
out = {str(s.snapshot_id): rows(t.scan(snapshot_id=s.snapshot_id)) for s in t.metadata.snapshots}
out["now"] = rows(t.scan())
for s in t.metadata.snapshots:
    for m in s.manifests(t.io):
        assert m.manifest_path.startswith(t.location() + "/"), m
        for e in m.fetch_manifest_entry(t.io, discard_deleted=False):
            assert e.data_file.file_path.startswith(t.location() + "/"), e
print("ROWS" + json.dumps(out))
`

// rowsBySnapshot reads the table of a folder at each of its snapshots.
func rowsBySnapshot(t *testing.T, folder string, settings ...string) map[string][]string {
	t.Helper()
	out, _ := testlab.RunPython(t, snapshotReader, append([]string{folder}, settings...)...)
	_, text, _ := strings.Cut(out, "ROWS")
	rows := map[string][]string{}
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return rows
}

// libraryRows reads a table through the Iceberg library at its pointer's version, at each snapshot; nil when there is no pointer.
func libraryRows(t *testing.T, b bucket.Bucket, url, root string) map[string][]string {
	t.Helper()
	ctx := context.Background()
	hint, err := bucket.ReadAll(ctx, b, root+"/metadata/version-hint.text", 100)
	if fault.Is(err, fault.ObjectMissing) {
		for o, err := range b.List(ctx, root+"/metadata/") {
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(o.Key, ".metadata.json") {
				return libraryRowsOf(t, b, url, o.Key) // found by counting: it must be whole
			}
		}
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return libraryRowsOf(t, b, url, root+"/metadata/v"+string(hint)+".metadata.json")
}

func libraryRowsOf(t *testing.T, b bucket.Bucket, url, key string) map[string][]string {
	t.Helper()
	data, err := bucket.ReadAll(context.Background(), b, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	meta, err := table.ParseMetadataBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	tbl := table.New(table.Identifier{"t"}, meta, url+"/"+key, func(ctx context.Context) (iceio.IO, error) { return fileIO{ctx, b, newPlaces(url, url)}, nil }, nil)
	rows := map[string][]string{}
	read := func(name string, o ...table.ScanOption) {
		_, records, err := tbl.Scan(o...).ToArrowRecords(context.Background())
		if err != nil {
			t.Fatalf("%s at %s: %v", key, name, err)
		}
		list := []string{}
		for rec, err := range records {
			if err != nil {
				t.Fatalf("%s at %s: %v", key, name, err)
			}
			for i := range int(rec.NumRows()) {
				var line []string
				for _, c := range rec.Columns() {
					line = append(line, c.ValueStr(i))
				}
				list = append(list, strings.Join(line, "|"))
			}
			rec.Release()
		}
		rows[name] = slices.Sorted(slices.Values(list))
	}
	read("now")
	for _, s := range meta.Snapshots() {
		read(fmt.Sprint(s.SnapshotID), table.WithSnapshotID(s.SnapshotID))
	}
	return rows
}

// lived is a partitioned table with many snapshots: deletes, moves between partitions, a compaction, another definition.
func lived(t *testing.T, l *Lake) (*lakeTable, Spec) {
	t.Helper()
	spec := visits("bucket(2, id)")
	spec.History = false
	tbl := open(t, l, spec)
	write(t, tbl, changes(t, spec, 0x100, strings.Repeat("c", 40), visitRows(0, 40, 0)), 0x110)
	write(t, tbl, changes(t, spec, 0x200, strings.Repeat("u", 20), visitRows(10, 30, 1)), 0x210)
	write(t, tbl, changes(t, spec, 0x300, "ddd", `[{"id":3},{"id":25},{"id":11}]`), 0x310)
	if m, err := tbl.Maintain(t.Context(), MaintainOptions{Compact: true, MergeDeletes: 2}); err != nil || m.Compacted == 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	spec = altered(spec, func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns = append(s.Columns, change.Column{Name: "note", Attnum: 6, TypeOID: 25})
		return append(f, arrow.Field{Name: "note", Type: arrow.BinaryTypes.String, Nullable: true})
	})
	evolve(t, tbl, spec)
	more(t, tbl, spec, 0x400)
	return tbl, spec
}

// more changes rows in both partitions.
func more(t *testing.T, tbl *lakeTable, spec Spec, at int) {
	t.Helper()
	rows := strings.ReplaceAll(visitRows(30, 45, 2), `,"region"`, `,"note":"<&>","region"`)
	write(t, tbl, changes(t, spec, lsn(at), strings.Repeat("u", 10)+strings.Repeat("c", 5), rows), lsn(at+8))
	write(t, tbl, changes(t, spec, lsn(at+16), "dd", fmt.Sprintf(`[{"id":%d},{"id":%d}]`, at>>8&15, 40+at>>8&3)), lsn(at+24))
}

func sameRows(t *testing.T, what string, got, want map[string][]string) {
	t.Helper()
	if len(want) < 2 {
		t.Fatalf("%s: nothing to compare", what)
	}
	for snapshot, rows := range want {
		if !slices.Equal(got[snapshot], rows) {
			t.Fatalf("%s: at snapshot %s there are %d rows, want %d:\n%s\nwant\n%s", what, snapshot, len(got[snapshot]), len(rows),
				strings.Join(got[snapshot], "\n"), strings.Join(rows, "\n"))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%s: %d snapshots, want %d", what, len(got)-1, len(want)-1)
	}
}

func TestARelocatedTableIsReadAtEachSnapshotWithItsSourceGone(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			t.Parallel()
			s := folderSides(t, "public/visits")
			lived(t, testLake(t, s.dir(s.FromURL), func(o *Options) { o.Format = version }))
			want, wantLibrary := rowsBySnapshot(t, s.FromURL+"/public/visits"), libraryRows(t, s.From, s.FromURL, s.Root)
			if len(want) < 7 {
				t.Fatalf("only %d snapshots", len(want)-1)
			}
			done := s.run(t)
			if done.Metadata != 1 || done.ManifestLists != len(want)-1 || done.DataFiles != len(s.carried) || done.DeleteFiles < 3 || done.Version < 6 {
				t.Errorf("%+v of %d snapshots, %d carried", done, len(want)-1, len(s.carried))
			}
			for key, n := range s.carried {
				if n != 1 {
					t.Errorf("%s was carried %d times", key, n)
				}
			}
			sameParquet(t, s)
			if err := os.RemoveAll(s.dir(s.FromURL)); err != nil {
				t.Fatal(err)
			}
			sameRows(t, "PyIceberg", rowsBySnapshot(t, s.ToURL+"/public/visits"), want)
			sameRows(t, "iceberg-go", libraryRows(t, s.To, s.ToURL, s.Root), wantLibrary)
			holdsNot(t, s, s.dir(s.FromURL))
		})
	}
}

// holdsNot looks for a text in all files at the far side that are not data.
func holdsNot(t *testing.T, s *sides, text string) {
	t.Helper()
	for o, err := range s.To.List(t.Context(), s.Root) {
		if err != nil {
			t.Fatal(err)
		}
		data, err := bucket.ReadAll(t.Context(), s.To, o.Key, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(o.Key, ".avro") {
			f, err := openAvro(data)
			if err == nil {
				err = f.each(t.Context(), func(block []byte, _ int64) error { data = append(data, block...); return nil })
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if bytes.Contains(data, []byte(text)) {
			t.Errorf("%s names %s", o.Key, text)
		}
	}
}

// sameParquet compares the files of position deletes of both sides, row by row, and asks whether their bounds fit.
func sameParquet(t *testing.T, s *sides) {
	t.Helper()
	const script = `
import sys, glob, os, re, pyarrow.parquet as pq
a, b = sys.argv[1:]
n = 0
for f in glob.glob(a + "/**/*-deletes.parquet", recursive=True):
    x, y = pq.ParquetFile(f), pq.ParquetFile(b + f[len(a):])
    assert x.schema_arrow.equals(y.schema_arrow, check_metadata=True), (x.schema_arrow, y.schema_arrow)
    assert x.num_row_groups == y.num_row_groups
    for i in range(x.metadata.num_columns):
        assert x.metadata.row_group(0).column(i).compression == y.metadata.row_group(0).column(i).compression
    x, y = x.read().to_pydict(), y.read().to_pydict()
    assert [p.replace(a, b, 1) for p in x["file_path"]] == y["file_path"]
    assert x["pos"] == y["pos"] and len(x["pos"]) > 0
    n += 1
print(n)

# All else that lists and manifests say is as it was.
import pyiceberg.table as t
from pyiceberg.manifest import DataFileContent
def entries(root):
    table = t.StaticTable.from_metadata(root)
    for s in table.metadata.snapshots:
        for m in s.manifests(table.io):
            yield re.sub("[.]avro, [0-9]+", ".avro", repr(m)).replace(root, "")
            for e in m.fetch_manifest_entry(table.io, discard_deleted=False):
                if e.data_file.content != DataFileContent.DATA:
                    e.data_file[5], e.data_file[13] = 0, None  # size, split offsets
                for i, v in enumerate(e.data_file._data):
                    e.data_file[i] = sorted(v.items()) if hasattr(v, "items") else v
                yield repr(e).replace(root, "").replace(repr(root.encode())[2:-1], "")
x, y = [list(entries("file://" + d + "/public/visits")) for d in (a, b)]
assert x == y, next(p for p in zip(x, y) if p[0] != p[1])
assert len(x) > 20
`
	testlab.RunPython(t, script, s.dir(s.FromURL), s.dir(s.ToURL))
	ctx := t.Context()
	for o := range s.To.List(ctx, s.Root+"/metadata/snap-") {
		data, _ := bucket.ReadAll(ctx, s.To, o.Key, 1<<30)
		manifests, err := iceberg.ReadManifestList(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range manifests {
			if info, err := s.To.Stat(ctx, strings.TrimPrefix(m.FilePath(), s.ToURL+"/")); err != nil || info.Size != m.Length() {
				t.Errorf("%s has %d bytes, and its list says %d (%v)", m.FilePath(), info.Size, m.Length(), err)
			}
			for e, err := range m.Entries(fileIO{ctx, s.To, newPlaces(s.ToURL, s.ToURL)}, true) {
				if err != nil {
					t.Fatal(err)
				}
				f := e.DataFile()
				if info, err := s.To.Stat(ctx, strings.TrimPrefix(f.FilePath(), s.ToURL+"/")); err != nil || info.Size != f.FileSizeBytes() {
					t.Errorf("%s has %d bytes, and its manifest says %d (%v)", f.FilePath(), info.Size, f.FileSizeBytes(), err)
				}
				if low := string(f.LowerBoundValues()[deletePathID]); low != "" && !strings.HasPrefix(low, s.ToURL) {
					t.Errorf("%s begins at %s", f.FilePath(), low)
				}
			}
		}
	}
}

// counted counts what a bucket is asked, by kind.
type countedBucket struct {
	bucket.Bucket
	mu   sync.Mutex
	asks map[string]int
}

func (c *countedBucket) ask(kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.asks == nil {
		c.asks = map[string]int{}
	}
	c.asks[kind]++
}

func (c *countedBucket) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	c.ask("create")
	return c.Bucket.Create(ctx, key, o)
}

func (c *countedBucket) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	c.ask("open")
	return c.Bucket.Open(ctx, key, offset, length)
}

func (c *countedBucket) Stat(ctx context.Context, key string) (bucket.Object, error) {
	c.ask("stat")
	return c.Bucket.Stat(ctx, key)
}

func TestASecondRelocationCopiesOnlyWhatIsNew(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "public/visits")
	tbl, spec := lived(t, testLake(t, s.dir(s.FromURL), nil))
	first := s.run(t)
	from, to := &countedBucket{Bucket: s.From}, &countedBucket{Bucket: s.To}
	s.From, s.To = from, to
	clear(s.carried)
	if done := s.run(t); !done.Nothing() || len(s.carried) > 0 || to.asks["create"] > 0 || done.Version != first.Version {
		t.Errorf("the second run did %+v, carried %v, asked %v", done, s.carried, to.asks)
	}
	if n := from.asks["open"] + from.asks["stat"] + to.asks["open"] + to.asks["stat"]; n > 10 {
		t.Errorf("a run with nothing new asks %v and %v", from.asks, to.asks)
	}
	more(t, tbl, spec, 0x500)
	want := libraryRows(t, s.From, s.FromURL, s.Root)
	done := s.run(t)
	if done.ManifestLists != 2 || done.DataFiles == 0 || done.DataFiles != len(s.carried) || done.DataFiles > 4 || done.Manifests > first.Manifests/2 || done.Version <= first.Version {
		t.Errorf("two commits brought %+v after %+v", done, first)
	}
	sameRows(t, "iceberg-go", libraryRows(t, s.To, s.ToURL, s.Root), want)
}

func TestWhatIsLostOrSpoiltAtTheFarSideIsCarriedAgain(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		s := folderSides(t, "public/visits")
		lived(t, testLake(t, s.dir(s.FromURL), func(o *Options) { o.Format = version }))
		s.run(t)
		want := libraryRows(t, s.To, s.ToURL, s.Root)
		var keys []string
		for o, err := range s.To.List(t.Context(), s.Root+"/") {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, o.Key)
		}
		for i, key := range keys {
			if i%2 == 0 {
				if err := s.To.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			} else if _, err := bucket.WriteAll(t.Context(), s.To, key, []byte("x"), bucket.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			if done := s.run(t); done.Nothing() && !strings.HasSuffix(key, hintName) {
				t.Errorf("without %s nothing was done", key)
			}
		}
		sameRows(t, "mended", libraryRows(t, s.To, s.ToURL, s.Root), want)
	}
}

func TestMetadataThatSomebodyCopiedAsItWasIsWrittenAnew(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "public/visits")
	lived(t, testLake(t, s.dir(s.FromURL), nil))
	if err := os.CopyFS(s.dir(s.ToURL), os.DirFS(s.dir(s.FromURL))); err != nil {
		t.Fatal(err)
	}
	want := rowsBySnapshot(t, s.FromURL+"/public/visits")
	s.run(t)
	if err := os.RemoveAll(s.dir(s.FromURL)); err != nil {
		t.Fatal(err)
	}
	sameRows(t, "PyIceberg", rowsBySnapshot(t, s.ToURL+"/public/visits"), want)
}

// empty removes all that is in a folder, which itself stays.
func empty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATableThatNamesAFileOutsideIsRefused(t *testing.T) {
	t.Parallel()
	dir, far := t.TempDir(), t.TempDir()
	spec := visits()
	spec.History = false
	tbl := open(t, testLake(t, dir, nil), spec)
	write(t, tbl, changes(t, spec, 0x100, strings.Repeat("c", 5), visitRows(0, 5, 0)), 0x110)
	// The root is taken to be a folder beside the table: all that it names lies outside.
	from := filepath.Join(dir, "public", "visits")
	s := newSides(t, "file://"+filepath.Join(dir, "public", "vis"), openFolder(t, from), "file://"+far, openFolder(t, far), "")
	_, err := s.Run(t.Context())
	if !fault.Is(err, fault.LakeForeign) || !strings.Contains(err.Error(), "file://"+from) {
		t.Errorf("got %v", err)
	}
	for o := range s.To.List(t.Context(), "") {
		t.Errorf("%s is at the far side", o.Key)
	}
}

func TestANewerTableAtTheFarSideIsNotSetBack(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "public/visits")
	tbl, spec := lived(t, testLake(t, s.dir(s.FromURL), nil))
	s.run(t)
	want := libraryRows(t, s.To, s.ToURL, s.Root)
	tbl.Close()
	empty(t, s.dir(s.FromURL))
	tbl = open(t, testLake(t, s.dir(s.FromURL), nil), spec)
	write(t, tbl, changes(t, spec, 0x100, "c", visitRows(0, 1, 0)), 0x110)
	if _, err := s.Run(t.Context()); !fault.Is(err, fault.LakeForeign) || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("got %v", err)
	}
	sameRows(t, "untouched", libraryRows(t, s.To, s.ToURL, s.Root), want)
}

func TestAFolderWithoutATableIsMissing(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "public/visits")
	if _, err := s.Run(t.Context()); !fault.Is(err, fault.LakeMissing) {
		t.Errorf("got %v", err)
	}
}

func TestATableThatExpiresWhileItIsReadIsTakenAsItIsThen(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "public/visits")
	tbl, _ := lived(t, testLake(t, s.dir(s.FromURL), nil))
	var once sync.Once
	carry := s.Carry
	s.Carry = func(ctx context.Context, key string, size int64) (err error) {
		once.Do(func() {
			var m Maintained
			if m, err = tbl.Maintain(ctx, MaintainOptions{Compact: true, Snapshots: Retention{Keep: 1}}); err == nil && m.Removed == 0 {
				err = fmt.Errorf("nothing was removed: %+v", m)
			}
		})
		if err != nil {
			return err
		}
		return carry(ctx, key, size)
	}
	before := libraryRows(t, s.From, s.FromURL, s.Root)
	s.run(t)
	got := libraryRows(t, s.To, s.ToURL, s.Root)
	if len(got) != 2 || !slices.Equal(got["now"], before["now"]) {
		t.Errorf("%d snapshots, %d rows, want 1 and %d", len(got)-1, len(got["now"]), len(before["now"]))
	}
}
