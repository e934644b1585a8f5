package lake

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// kindsOf counts a table's objects by kind.
func kindsOf(t *testing.T, dir string) string {
	t.Helper()
	var kinds []string
	err := filepath.WalkDir(dir, func(at string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := path.Base(at)
		switch {
		case strings.HasPrefix(name, "snap-"):
			name = "list"
		case strings.HasSuffix(name, ".avro"):
			name = "manifest"
		case strings.HasSuffix(name, ".parquet"):
			name = "data"
		}
		kinds = append(kinds, name)
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	slices.Sort(kinds)
	return strings.Join(kinds, " ")
}

func TestATableIsMadeByItsFirstCommit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		format int
		rows   string
		kinds  string
	}{
		{2, `[{"id":1,"name":"a"}]`, "data list manifest v1.metadata.json version-hint.text"},
		{3, `[{"id":1,"name":"a"}]`, "data list manifest v1.metadata.json version-hint.text"},
		{2, `[]`, "v1.metadata.json version-hint.text"},
	} {
		dir, spec := t.TempDir(), bothSpec()
		spec.Sort = []string{"name"}
		l := testLake(t, dir, func(o *Options) { o.Format = c.format })
		table := open(t, l, spec)
		kept := begin(t, table, spec)
		copyChunk(t, kept, spec, "only", 0x100, c.rows)
		if has := kindsOf(t, dir+"/public/orders/metadata") + kindsOf(t, dir+"/public/orders_history/metadata"); has != "" || table.Position() != 0 {
			t.Errorf("before the first commit it stands at %s and has %s", table.Position(), has)
		}
		if n := count(t, l, ".leat/"); n != 2 { // its note, and the ledger of its chunk
			t.Errorf("the copy has %d objects of its own", n)
		}
		if done, err := table.Maintain(t.Context(), MaintainOptions{Compact: true, Thorough: true, MergeManifests: true, Snapshots: Retention{Keep: 1}}); err != nil || done != (Maintained{}) {
			t.Errorf("upkeep of what is not there: %+v, %v", done, err)
		}
		if n, _, err := l.Sweep(t.Context(), time.Hour); n != 0 || err != nil {
			t.Errorf("%d files of the copy were swept, %v", n, err)
		}
		if err := kept.Finish(t.Context(), 0x100); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"orders", "orders_history"} {
			if has := kindsOf(t, dir+"/public/"+name); has != c.kinds {
				t.Errorf("of %s %s has %s, not %s", c.rows, name, has, c.kinds)
			}
		}
		table.Close()
		table = open(t, testLake(t, dir, func(o *Options) { o.Format = c.format }), spec)
		if table.Position() != 0x100 || !begin(t, table, spec).Finished() {
			t.Errorf("it stands at %s", table.Position())
		}
		if err := table.ForgetCopy(t.Context()); err != nil {
			t.Fatal(err)
		}
		write(t, table, changes(t, spec, 0x200, "cu", `[{"id":2,"name":"b"},{"id":1,"name":"c"}]`), 0x210)
		if c.format == 2 { // PyIceberg reads no v3
			expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "c"`, `2 "b"`)
		}
		next := begin(t, table, spec)
		copyChunk(t, next, spec, "only", 0x300, `[]`)
		if err := next.Finish(t.Context(), 0x300); err != nil {
			t.Fatal(err)
		}
		if ids := idsOf(t, table.current.t); len(ids) != 0 {
			t.Errorf("a later copy without rows leaves %d", ids)
		}
	}
}

// A copy's files have the field ids, partitions and formats of tables that nothing but the copy's note tells of before
// they are made.
func TestACopyForATableThatWouldBeAnotherNowBeginsAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lake  func(*Options)
		table func(*Spec)
		keeps bool
	}{
		"nothing else":     {keeps: true},
		"another profile":  {lake: func(o *Options) { o.Profile = "debezium" }},
		"another format":   {lake: func(o *Options) { o.Format = 3 }},
		"other partitions": {table: func(s *Spec) { s.Partition = []string{"bucket(4, id)"} }},
		"another order":    {table: func(s *Spec) { s.Sort = []string{"name"} }},
		"a column of another name": {table: func(s *Spec) {
			f := slices.Clone(s.Schema.Fields())
			s.Table.Columns[1].Name, f[1].Name = "title", "title"
			s.Schema = arrow.NewSchema(f, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, spec := t.TempDir(), bothSpec()
			table := open(t, testLake(t, dir, nil), spec)
			copyChunk(t, begin(t, table, spec), spec, "0..5", 0x100, `[{"id":1,"price":"1.00"}]`)
			table.Close()
			if c.table != nil {
				c.table(&spec)
			}
			l := testLake(t, dir, c.lake)
			table = open(t, l, spec)
			kept := begin(t, table, spec)
			if done := len(kept.Done()) == 1; done != c.keeps {
				t.Fatalf("the chunk counts as done: %t", done)
			}
			copyChunk(t, kept, spec, "5..", 0x100, `[{"id":2,"price":"2.00"}]`)
			if err := kept.Finish(t.Context(), 0x100); err != nil {
				t.Fatal(err)
			}
			want := []int64{2}
			if c.keeps {
				want = []int64{1, 2}
			}
			if got := idsOf(t, table.current.t); !slices.Equal(got, want) {
				t.Errorf("the table has %d, not %d", got, want)
			}
			if err := table.ForgetCopy(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n, _, err := l.Sweep(t.Context(), -time.Hour); err != nil || (n == 0) != c.keeps {
				t.Errorf("%d files of the copy that was given up were swept, %v", n, err)
			}
			if n := count(t, l, ".leat/"); n != 0 {
				t.Errorf("%d ledgers are left", n)
			}
		})
	}
}

func TestOfTwoThatDraftATableOneMakesIt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		epoch   int64
		commits int // of the other one, before ours
		want    fault.Code
	}{{1, 1, fault.LakeConflict}, {2, 1, fault.PipelineFenced}, {2, 25, fault.PipelineFenced}} {
		dir, spec := t.TempDir(), historySpec()
		ours := open(t, testLake(t, dir, nil), spec)
		theirs := open(t, testLake(t, dir, func(o *Options) { o.Epoch = c.epoch }), spec)
		put(t, ours, changes(t, spec, 0x100, "c", `[{"id":1}]`))
		for i := range c.commits {
			at := lsn(0x100 + 0x10*i)
			write(t, theirs, changes(t, spec, at, "c", `[{"id":2}]`), at+8)
		}
		if _, err := ours.Commit(t.Context(), 0x108, time.Now()); !fault.Is(err, c.want) {
			t.Errorf("after %d commits of another: %v", c.commits, err)
		}
		again := open(t, testLake(t, dir, func(o *Options) { o.Epoch = c.epoch }), spec)
		if got := idsOf(t, again.history.ice); len(got) != c.commits || slices.Contains(got, 1) {
			t.Errorf("the table has %d", got)
		}
		write(t, again, changes(t, spec, 0x900, "c", `[{"id":3}]`), change.LSN(0x908))
	}
}

func TestAFirstCommitThatFailsDoesNotSayThatTheTableWasDropped(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	store := &oneCommit{commits: 1}
	table := open(t, testLake(t, dir, func(o *Options) { store.Bucket = o.Bucket; o.Bucket = store }), spec)
	put(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`))
	if _, err := table.Commit(t.Context(), 0x108, time.Now()); !fault.Is(err, fault.BucketUnreachable) {
		t.Errorf("got %v", err)
	}
	table.Close()
	again := open(t, testLake(t, dir, nil), spec)
	write(t, again, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x108)
	if got := idsOf(t, again.history.ice); !slices.Equal(got, []int64{1}) {
		t.Errorf("the table has %d", got)
	}
}

// The chunk and its stamp outlast the process: without the stamp nothing says whether a copy is older than the log that
// follows it.
func TestAnOnlyChunkIsFinishedByTheNextProcess(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	copyChunk(t, begin(t, table, spec), spec, "only", 0x100, `[{"id":1,"name":"a"}]`)
	table.Close()

	table = open(t, testLake(t, dir, nil), spec)
	kept := begin(t, table, spec)
	if done := kept.Done(); len(done) != 1 || done["only"] != 0x100 || kept.Finished() {
		t.Errorf("done: %v", done)
	}
	if err := kept.Finish(t.Context(), 0x100); err != nil {
		t.Fatal(err)
	}
	table.Close()

	table = open(t, testLake(t, dir, nil), spec)
	kept = begin(t, table, spec)
	if done := kept.Done(); len(done) != 1 || done["only"] != 0x100 || !kept.Finished() {
		t.Errorf("of the copy that is finished is done: %v", done)
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `1 "a"`)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"_leat_op", "_leat_lsn", "id"}, `"r" 256 1`)
}

func TestACopyForADraftThatAnotherOwnerMadeInItsOwnLayoutBeginsAgain(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	late := open(t, testLake(t, dir, nil), spec)
	put(t, late, changes(t, spec, 0x50, "c", `[{"id":1,"name":"late"}]`))

	next := func(o *Options) { o.Epoch, o.Format = 2, 3 }
	table := open(t, testLake(t, dir, next), spec)
	copyChunk(t, begin(t, table, spec), spec, "only", 0x100, `[{"id":1,"name":"a"}]`)
	if _, err := late.Commit(t.Context(), 0x58, time.Now()); err != nil {
		t.Fatal(err)
	}
	table.Close()

	table = open(t, testLake(t, dir, next), spec)
	kept := begin(t, table, spec)
	if done := kept.Done(); len(done) != 0 {
		t.Errorf("files of another layout count as done: %v", done)
	}
	copyChunk(t, kept, spec, "only", 0x200, `[{"id":2,"name":"b"}]`)
	if err := kept.Finish(t.Context(), 0x200); err != nil || !begin(t, table, spec).Finished() {
		t.Errorf("it does not end: %v", err)
	}
	if got := idsOf(t, table.current.t); !slices.Equal(got, []int64{2}) {
		t.Errorf("the table has %d", got)
	}
}
