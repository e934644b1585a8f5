package lake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// ownTable is a table of ours with rows and deletes, closed, of which another program changes files.
type ownTable struct {
	*currentBed
	t testing.TB
}

func newOwnTable(t testing.TB, version int) ownTable {
	b := newCurrentBed(t, version, false)
	b.write(t, event{op: change.OpInsert, id: 1, v: "a"}, event{op: change.OpInsert, id: 2, v: "b"}, event{op: change.OpInsert, id: 3, v: "c"})
	b.commit(t)
	b.write(t, event{op: change.OpUpdate, id: 1, v: "aa"})
	b.commit(t)
	if err := b.table.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.dir + "/work"); err != nil { // as on another machine: all is read from the files
		t.Fatal(err)
	}
	return ownTable{b, t}
}

// last is the newest file of a pattern below the table's folder.
func (o ownTable) last(pattern string) string {
	o.t.Helper()
	all, err := filepath.Glob(o.dir + "/lake/public/orders/" + pattern)
	if err != nil || len(all) == 0 {
		o.t.Fatalf("%s: %v %v", pattern, all, err)
	}
	return slices.MaxFunc(all, func(a, b string) int { return bytes.Compare(o.stamp(a), o.stamp(b)) })
}

func (o ownTable) stamp(path string) []byte {
	info, err := os.Stat(path)
	if err != nil {
		o.t.Fatal(err)
	}
	return binary.BigEndian.AppendUint64(nil, uint64(info.ModTime().UnixNano()))
}

func (o ownTable) put(path string, data []byte) {
	o.t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o ownTable) read(path string) []byte {
	o.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		o.t.Fatal(err)
	}
	return data
}

// edit changes the field of an id in all records of an Avro file, where it is.
func (o ownTable) edit(path string, id int, with func(avroValue) avroEdit) {
	o.t.Helper()
	f, err := openAvro(o.read(path))
	if err != nil {
		o.t.Fatal(err)
	}
	var out bytes.Buffer
	edited := 0
	err = f.records(o.t.Context(), avroFields{id: anyForm}, &out, func(all []avroValue) (edits []avroEdit, err error) {
		for _, v := range all {
			edits, edited = append(edits, with(v)), edited+1
		}
		return edits, nil
	})
	if err != nil || edited == 0 {
		o.t.Fatalf("%d records were changed: %v", edited, err)
	}
	o.put(path, out.Bytes())
}

// manifestOf is the newest manifest that names a file of this kind.
func (o ownTable) manifestOf(kind string) string {
	o.t.Helper()
	all, _ := filepath.Glob(o.dir + "/lake/public/orders/metadata/*-m*.avro")
	for _, path := range all {
		f, err := openAvro(o.read(path))
		if err != nil {
			o.t.Fatal(err)
		}
		found := false
		_ = f.records(o.t.Context(), avroFields{idFilePath: textForm}, nil, func(all []avroValue) ([]avroEdit, error) {
			found = found || strings.Contains(fieldsOf(all).text(idFilePath), kind)
			return nil, nil
		})
		if found {
			return path
		}
	}
	o.t.Fatalf("no manifest names %s", kind)
	return ""
}

// positions replaces the file of position deletes by one that tells this row of the same data file.
func (o ownTable) positions(row int64) {
	o.t.Helper()
	data, err := filepath.Glob(o.dir + "/lake/public/orders/data/*[0-9a-f].parquet")
	if err != nil || len(data) == 0 {
		o.t.Fatalf("%v %v", data, err)
	}
	slices.SortFunc(data, func(a, b string) int { return bytes.Compare(o.stamp(a), o.stamp(b)) })
	o.put(o.last("data/*-deletes.parquet"), positionsFile(o.t, "file://"+data[0], row))
}

// deadRow makes the newest deletion vector, of one row, tell of another one. A blob is its length, a magic number, the bitmap and their checksum.
func (o ownTable) deadRow(row uint16) {
	o.t.Helper()
	path := o.last("data/*.puffin")
	data := o.read(path)
	blob := data[len(puffinMagic):]
	body := blob[4 : 4+binary.BigEndian.Uint32(blob)]
	binary.LittleEndian.PutUint16(body[len(body)-2:], row)
	binary.BigEndian.PutUint32(blob[4+len(body):], crc32.ChecksumIEEE(body))
	o.put(path, data)
}

// work does what a run and its upkeep do with the table.
func (o ownTable) work(ctx context.Context) error {
	table, err := o.lake.Table(ctx, o.spec)
	if err != nil {
		return err
	}
	defer table.Close()
	if err := table.Write(ctx, o.changes([]event{{op: change.OpUpdate, id: 2, v: "bb"}})); err != nil {
		return err
	}
	if _, err := table.Commit(ctx, o.lsn+1, time.Unix(1, 0)); err != nil {
		return err
	}
	_, err = table.Maintain(ctx, MaintainOptions{Compact: true, Thorough: true, MergeDeletes: 1, MergeManifests: true, Snapshots: Retention{Keep: 1}})
	return err
}

func TestADamagedFileOfATableOfOursIsItsOwnError(t *testing.T) {
	t.Parallel()
	long := func(n int64) func(avroValue) avroEdit { return func(v avroValue) avroEdit { return v.withLong(n) } }
	const metadata, list, rowCount, contentOffset, contentSize = "metadata/v*.metadata.json", "metadata/snap-*.avro", 103, 144, 145
	parquet := func(footer uint32) []byte {
		return append(binary.LittleEndian.AppendUint32([]byte("PAR1"), footer), "PAR1"...)
	}
	for name, c := range map[string]struct {
		version int
		harm    func(o ownTable)
	}{
		"metadata that ends too early": {2, func(o ownTable) { o.put(o.last(metadata), []byte(`{"format-version":2,"table-uuid":`)) }},
		"metadata of snapshots of nothing": {2, func(o ownTable) {
			o.put(o.last(metadata), []byte(`{"format-version":2,"snapshots":[`+strings.Repeat("null,", 1<<20)+`null]}`))
		}},
		"metadata deeper than JSON may be": {2, func(o ownTable) { o.put(o.last(metadata), []byte(strings.Repeat(`{"a":`, 20_000))) }},
		"a list that is no Avro":           {2, func(o ownTable) { o.put(o.last(list), []byte("nothing")) }},
		"a list of records in records":     {2, func(o ownTable) { o.put(o.last(list), container(t, twice(60), "null", 1, []byte{0})) }},
		"a list with a negative count":     {2, func(o ownTable) { o.put(o.last(list), negativeCount(t)) }},
		"a list of others' fields": {3, func(o ownTable) {
			o.put(o.last(list), container(t, allOfAvro, "null", 1, oneOfAll("a", "b", 1, true, true)))
		}},
		"a manifest of records in records": {2, func(o ownTable) { o.put(o.manifestOf("data/"), container(t, twice(60), "null", 1<<40, []byte{0})) }},
		"a manifest that holds itself": {2, func(o ownTable) {
			o.put(o.manifestOf("data/"), container(t, `{"type":"record","name":"e","fields":[{"name":"a","type":["null","e"]},{"name":"b","type":"e"}]}`, "null", 1, make([]byte, 300)))
		}},
		"a manifest of others' fields": {2, func(o ownTable) {
			o.put(o.manifestOf("data/"), container(t, allOfAvro, "null", 1, oneOfAll("a", "b", 1, true, true)))
		}},
		"a data file of less than no rows":         {2, func(o ownTable) { o.edit(o.manifestOf("data/"), rowCount, long(-1)) }},
		"a data file of more rows than there are":  {2, func(o ownTable) { o.edit(o.manifestOf("data/"), rowCount, long(1<<40)) }},
		"a data file of less than no bytes":        {3, func(o ownTable) { o.edit(o.manifestOf("data/"), idFileSize, long(-1<<63)) }},
		"deletes of a row before the first":        {2, func(o ownTable) { o.positions(-1) }},
		"deletes of a row that wraps to the first": {2, func(o ownTable) { o.positions(1 << 32) }},
		"deletes of a row behind the last":         {2, func(o ownTable) { o.positions(3) }},
		"deletes that are no Parquet":              {2, func(o ownTable) { o.put(o.last("data/*-deletes.parquet"), []byte("PAR1")) }},
		"a Parquet footer longer than its file":    {2, func(o ownTable) { o.put(o.last("data/*-deletes.parquet"), parquet(1<<31-1)) }},
		"a Parquet footer of four GiB":             {2, func(o ownTable) { o.put(o.last("data/*-deletes.parquet"), parquet(1<<32-1)) }},
		"a vector longer than its file":            {3, func(o ownTable) { o.edit(o.manifestOf(".puffin"), contentSize, long(1<<28)) }},
		"a vector of less than no bytes":           {3, func(o ownTable) { o.edit(o.manifestOf(".puffin"), contentSize, long(-1)) }},
		"a vector before its file":                 {3, func(o ownTable) { o.edit(o.manifestOf(".puffin"), contentOffset, long(-1<<62)) }},
		"a vector of more rows than the file has":  {3, func(o ownTable) { o.edit(o.manifestOf(".puffin"), rowCount, long(1<<31)) }},
		"a vector of a file of no rows":            {3, func(o ownTable) { o.edit(o.manifestOf("data/"), rowCount, long(0)) }},
		"a vector of a row behind the last":        {3, func(o ownTable) { o.deadRow(3) }},
		"a Puffin footer of four GiB": {3, func(o ownTable) {
			o.put(o.last("data/*.puffin"), append(bytes.Repeat([]byte("PFA1"), 3), "\xff\xff\xff\xff\x00\x00\x00\x00PFA1"...))
		}},
		"a Puffin file of nothing": {3, func(o ownTable) { o.put(o.last("data/*.puffin"), nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newOwnTable(t, c.version)
			o.t = t
			c.harm(o)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := o.work(ctx); !fault.Is(err, fault.LakeUnreadable) {
				t.Errorf("got %v", err)
			}
			before := count(t, o.lake, "public/orders/")
			if _, _, err := o.lake.Sweep(ctx, -time.Hour); err != nil || count(t, o.lake, "public/orders/") > before {
				t.Errorf("the sweep of the others ends with %v", err)
			}
		})
	}
	for _, version := range []int{2, 3} { // what they are made from is right
		if err := newOwnTable(t, version).work(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// It measures memory, so no other test runs beside it.
func TestABombInATableOfOursIsRefusedInLittleMemory(t *testing.T) {
	const mib = 300
	for name, path := range map[string]func(o ownTable) string{
		"deflate":   func(o ownTable) string { return o.last("metadata/snap-*.avro") },
		"zstandard": func(o ownTable) string { return o.manifestOf("data/") },
		"snappy":    func(o ownTable) string { return o.manifestOf("-deletes") },
	} {
		o := newOwnTable(t, 2)
		o.put(path(o), bomb(t, listSchema, name, nil, mib))
		if used := memoryOf(func() {
			if err := o.work(t.Context()); !fault.Is(err, fault.LakeUnreadable) {
				t.Errorf("%s: %v", name, err)
			}
		}); used > 192 {
			t.Errorf("%s: a bomb of %d MiB took %d MiB of memory", name, mib, used)
		}
	}
	o := newOwnTable(t, 3)
	footer := `{"blobs":[` + strings.Repeat("null,", 3<<20) + `null]}`
	vectors := binary.LittleEndian.AppendUint32([]byte("PFA1PFA1"+footer), uint32(len(footer)))
	o.put(o.last("data/*.puffin"), append(vectors, "\x00\x00\x00\x00PFA1"...))
	if used := memoryOf(func() {
		if err := o.work(t.Context()); !fault.Is(err, fault.LakeUnreadable) {
			t.Errorf("blobs of nothing: %v", err)
		}
	}); used > 192 {
		t.Errorf("a footer of %d MiB took %d MiB of memory", len(footer)>>20, used)
	}
	packed := zeros(t, `{"format-version":2,"location":"`, mib, `"}`)
	if used := memoryOf(func() {
		for _, name := range []string{"00001-a.gz.metadata.json", "v1.metadata.json.gz"} {
			if err := checkMetadata(t.Context(), name, packed); !fault.Is(err, fault.LakeUnreadable) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}); used > 192 {
		t.Errorf("packed metadata of %d MiB took %d MiB of memory", mib, used)
	}
}

// memoryOf is how many MiB work makes room for.
func memoryOf(work func()) uint64 {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	work()
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) >> 20
}

// brokenReads is a bucket at whose n-th reading of data something happens.
type brokenReads struct {
	bucket.Bucket
	left   atomic.Int64
	happen func() error
}

func (b *brokenReads) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.Contains(key, "/data/") || strings.HasSuffix(key, ".avro") {
		if b.left.Add(-1) == 0 {
			if err := b.happen(); err != nil {
				return nil, err
			}
		}
	}
	return b.Bucket.Open(ctx, key, offset, length)
}

func TestAFileThatCannotBeFetchedIsNotTakenForADamagedOne(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		for n, failed := 1, true; failed; n++ {
			o := newOwnTable(t, version)
			ctx, cancel := context.WithCancel(t.Context())
			reads := &brokenReads{Bucket: o.lake.Bucket}
			reads.left.Store(int64(n))
			o.lake.Bucket = reads
			reads.happen = func() error {
				return errors.New("input/output error")
			}
			err := o.work(ctx)
			if failed = err != nil; failed && !fault.Is(err, fault.BucketFailed) {
				t.Errorf("version %d, reading %d: got %v", version, n, err)
			}
			reads.left.Store(int64(n))
			reads.happen = func() error { cancel(); return nil }
			if err := o.work(ctx); fault.Is(err, fault.LakeUnreadable) {
				t.Errorf("version %d, ended at reading %d: got %v", version, n, err)
			}
			cancel()
		}
	}
}

// worn is a bucket that fails on a kind of file as a bug of ours would.
type worn struct {
	bucket.Bucket
	on string
}

func (w *worn) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if w.on != "" && strings.Contains(key, w.on) {
		panic("a bug at " + w.on)
	}
	return w.Bucket.Open(ctx, key, offset, length)
}

func (w *worn) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if w.on != "" && strings.Contains(key, w.on) {
		panic("a bug at " + w.on)
	}
	return w.Bucket.Create(ctx, key, o)
}

func TestAPanicIsTheErrorOfOneTableWhichIsNotTrustedAfterIt(t *testing.T) {
	t.Parallel()
	for _, on := range []string{"metadata.json", "snap-", "-m0.avro", ".parquet", "-deletes"} {
		o := newOwnTable(t, 2)
		w := &worn{Bucket: o.lake.Bucket}
		o.lake.Bucket = w
		table, err := o.lake.Table(t.Context(), o.spec)
		if err != nil {
			t.Fatal(err)
		}
		w.on = on
		err = table.Write(t.Context(), o.changes([]event{{op: change.OpUpdate, id: 2, v: "bb"}}))
		if err == nil {
			_, err = table.Commit(t.Context(), o.lsn+1, time.Unix(1, 0))
		}
		if !fault.Panicked(err) {
			t.Errorf("a panic at %s became %v", on, err)
		}
		w.on = ""
		if _, again := table.Commit(t.Context(), o.lsn+1, time.Unix(1, 0)); again == nil {
			t.Errorf("%s: a table commits what a panic has left", on)
		}
		if err := table.Close(); err != nil {
			t.Error(err)
		}
		if marks, _ := filepath.Glob(o.dir + "/work/*.closed"); len(marks) > 0 {
			t.Errorf("%s: the key index of before the panic is trusted: %v", on, marks)
		}
		o.lsn-- // the same change is told again
		if err := o.work(t.Context()); err != nil {
			t.Errorf("%s: opened again: %v", on, err)
		}
		o.open(t)
		if got := o.rows(t); got["1|aa|"] != 1 || got["2|bb|"] != 1 || got["3|c|"] != 1 || len(got) != 3 {
			t.Errorf("%s: the table has %v", on, got)
		}
	}
}

func TestAKeyIndexIsNotTrustedAfterAPanicInUpkeep(t *testing.T) {
	t.Parallel()
	o := newOwnTable(t, 2)
	w := &worn{Bucket: o.lake.Bucket}
	o.lake.Bucket = w
	o.open(t)
	o.write(t, event{op: change.OpUpdate, id: 2, v: "bb"})
	o.commit(t)
	w.on = ".parquet"
	if _, err := o.table.Maintain(t.Context(), MaintainOptions{Compact: true, Thorough: true}); !fault.Panicked(err) {
		t.Fatalf("got %v", err)
	}
	w.on = ""
	if err := o.table.Close(); err != nil {
		t.Error(err)
	}
	if marks, _ := filepath.Glob(o.dir + "/work/*.closed"); len(marks) > 0 {
		t.Errorf("the key index is trusted: %v", marks)
	}
}
