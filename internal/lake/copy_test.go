package lake

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

func bothSpec() Spec {
	spec := historySpec()
	spec.Current = true
	return spec
}

func copyChunk(t *testing.T, c Copy, spec Spec, id string, stamp change.LSN, rows string) {
	t.Helper()
	w, err := c.Chunk(t.Context(), id, stamp)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Write(change.Batch{Table: spec.Table, Op: change.OpRead, Record: record(t, spec.Schema, rows)}); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func begin(t *testing.T, table Table, spec Spec) Copy {
	t.Helper()
	c, err := table.Copy(t.Context(), spec.Table, spec.Schema)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestACopyGoesOnWhereItWasBrokenOff(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	copyChunk(t, begin(t, table, spec), spec, "0..5", 0x100, `[{"id":1,"name":"a"}]`)
	table.Close() // nothing is finished

	table = open(t, testLake(t, dir, nil), spec)
	c := begin(t, table, spec)
	if got := c.Done(); !maps.Equal(got, map[string]change.LSN{"0..5": 0x100}) {
		t.Fatalf("done: %v", got)
	}
	copyChunk(t, c, spec, "5../ü", 0x200, `[{"id":2,"name":"b"}]`)
	if table.Position() != 0 {
		t.Errorf("before the end it stands at %s", table.Position())
	}
	if err := c.Finish(t.Context(), 0x100); err != nil {
		t.Fatal(err)
	}
	if table.Position() != 0x100 {
		t.Errorf("it stands at %s", table.Position())
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "a"`, `2 "b"`)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"_leat_op", "_leat_lsn", "_leat_seq", "id"}, `"r" 256 0 1`, `"r" 512 0 2`)
	if err := table.ForgetCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := count(t, table.lake, ".leat/"); n != 0 {
		t.Errorf("%d ledgers are left", n)
	}
	write(t, table, changes(t, spec, 0x300, "ud", `[{"id":1,"name":"c"},{"id":2}]`), 0x310)
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "c"`)
}

// oneCommit lets one table be committed and refuses the next.
type oneCommit struct {
	bucket.Bucket
	commits int
}

func (b *oneCommit) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if strings.HasSuffix(key, ".metadata.json") {
		if b.commits++; b.commits == 2 {
			return nil, fault.New(fault.BucketUnreachable, key, "the store is gone")
		}
	}
	return b.Bucket.Create(ctx, key, o)
}

func TestACopyThatEndsBetweenItsTwoTablesLeavesNoGapInTheHistory(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	store := &oneCommit{commits: -100}
	l := testLake(t, dir, func(o *Options) { store.Bucket = o.Bucket; o.Bucket = store })
	table := open(t, l, spec)
	c := begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x100, `[{"id":1,"name":"a"}]`)
	store.commits = 0
	if err := c.Finish(t.Context(), 0x100); !fault.Is(err, fault.BucketUnreachable) {
		t.Fatalf("the second commit was to fail: %v", err)
	}
	table.Close()

	table = open(t, testLake(t, dir, nil), spec)
	c = begin(t, table, spec)
	if c.Finished() {
		t.Error("half a copy counts as finished")
	}
	if err := c.Abandon(t.Context()); err != nil { // its rows have no key: those of a later snapshot cannot be told from them
		t.Fatal(err)
	}
	c = begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x200, `[{"id":1,"name":"b"}]`)
	if err := c.Finish(t.Context(), 0x200); err != nil {
		t.Fatal(err)
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "b"`)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"_leat_op", "_leat_lsn", "name"}, `"r" 512 "b"`)
}

// A commit that was broken off has brought the history further than the current table, from which a copy goes on.
func TestACopyDoesNotLetTheHistoryBeToldTwice(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	c := begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x100, `[{"id":1,"name":"a"}]`)
	if err := c.Finish(t.Context(), 0x100); err != nil {
		t.Fatal(err)
	}
	if err := table.ForgetCopy(t.Context()); err != nil {
		t.Fatal(err)
	}
	table.Close()
	told := func(name string) *change.Changes { return changes(t, spec, 0x180, "c", `[{"id":2,"name":"`+name+`"}]`) }
	half := open(t, testLake(t, dir, nil), historySpec())
	write(t, half, told("b"), 0x200)
	half.Close()

	for _, renumbered := range []bool{false, true} {
		spec.Renumbered = renumbered
		table = open(t, testLake(t, dir, nil), spec)
		c = begin(t, table, spec)
		copyChunk(t, c, spec, "again", 0x120, `[{"id":1,"name":"a"}]`)
		if err := c.Finish(t.Context(), 0x120); err != nil {
			t.Fatal(err)
		}
		if err := table.ForgetCopy(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, table, told("b"), 0x200)
		table.Close()
		created := 0
		for _, row := range readBack(t, dir+"/public/orders_history") {
			if row["_leat_op"] == "c" {
				created++
			}
		}
		if want := map[bool]int{false: 1, true: 2}[renumbered]; created != want { // of another log it is another row
			t.Errorf("renumbered: %t: the history tells %d times of the row, not %d times", renumbered, created, want)
		}
		expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "a"`, `2 "b"`)
	}
}

func TestAnotherCopyReplacesTheStateAndEndsWhatTheHistoryToldBefore(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1},{"id":2}]`), 0x110)
	c := begin(t, table, spec)
	copyChunk(t, c, spec, "all", 0x200, `[{"id":2},{"id":3}]`)
	if err := c.Finish(t.Context(), 0x200); err != nil {
		t.Fatal(err)
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id"}, "2", "3")
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"_leat_op", "_leat_lsn", "_leat_seq", "id"},
		`"c" 256 2 1`, `"c" 256 4 2`, `"r" 512 0 2`, `"r" 512 0 3`, `"t" 512 -1 null`)
}

func TestSweepTakesWhatNobodyMentionsAndNothingElse(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	l := testLake(t, dir, nil)
	table := open(t, l, spec)
	write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1,"name":"a"},{"id":2}]`), 0x110)
	write(t, table, changes(t, spec, 0x200, "d", `[{"id":2}]`), 0x210)
	copyChunk(t, begin(t, table, spec), spec, "all", 0x300, `[{"id":2}]`)
	before := count(t, l, "")
	for _, key := range []string{"public/orders/data/lost.parquet", "public/orders_history/metadata/lost.avro", "public/orders/metadata/v7.tmp"} {
		if _, err := bucket.WriteAll(t.Context(), l.Bucket, key, []byte("x"), bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := bucket.WriteAll(t.Context(), l.Bucket, "public/foreign/data/x", []byte("x"), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if n, _, err := l.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
		t.Errorf("young objects were swept: %d, %v", n, err)
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
	if n, size, err := l.Sweep(t.Context(), time.Hour); n != 3 || size != 3 || err != nil {
		t.Errorf("%d objects of %d bytes, %v", n, size, err)
	}
	if after := count(t, l, ""); after != before+1 {
		t.Errorf("%d objects became %d", before, after)
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "a"`)
}
