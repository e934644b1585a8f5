package lake

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

// entries tells of each live file what its entry says of how it came.
func entries(t *testing.T, ice *icebergTable) map[string]string {
	t.Helper()
	data, deletes, err := ice.live(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range append(data, deletes...) {
		out[f.File().FilePath()] = fmt.Sprint(f.entry.SnapshotID(), " ", f.Seq(), " ", *f.entry.FileSequenceNum(), " ", f.File().Count())
	}
	return out
}

// small is how many manifests of data a commit could merge.
func small(ice *icebergTable) int {
	return len(classesOf(ice.manifests, ice.now().Metadata().DefaultPartitionSpec())[manifestClass{}])
}

func TestManyManifestsBecomeFewAndNothingElseChanges(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		b := newCurrentBed(t, version, false)
		ice := b.table.current.t
		m := model{}
		r := rand.New(rand.NewPCG(5, uint64(version)))
		const commits = 2*leastManifests + 3
		for n := 0; n < commits || small(ice) < leastManifests; n++ {
			held := entries(t, ice)
			for range 5 {
				id := int64(len(m))
				m[id] = [2]string{"v", fmt.Sprint(id)}
				b.write(t, event{op: change.OpInsert, id: id, v: "v", big: fmt.Sprint(id)})
			}
			if len(m) > 20 {
				id := r.Int64N(int64(len(m))/5) * 5 // one of each five, so that no file goes as a whole
				m[id] = [2]string{"w", "x"}
				b.write(t, event{op: change.OpUpdate, id: id, v: "w", big: "x"})
			}
			b.commit(t)
			if many := len(ice.manifests); many > 4*leastManifests {
				t.Fatalf("after %d commits there are %d manifests", n, many)
			}
			now := entries(t, ice)
			maps.DeleteFunc(now, func(path, _ string) bool { return held[path] == "" })
			maps.DeleteFunc(held, func(path, _ string) bool { return now[path] == "" && version == 3 }) // vectors are replaced
			if !maps.Equal(held, now) {
				t.Fatalf("commit %d: entries were\n%v\nand are\n%v", n, held, now)
			}
		}
		before, early := entries(t, ice), ice.now().Metadata().Snapshots()[10]
		many, position := len(ice.manifests), ice.property(propPosition)
		done, err := b.table.Maintain(t.Context(), MaintainOptions{MergeManifests: true})
		if err != nil || done.MergedManifests < leastManifests {
			t.Fatalf("%+v, %v", done, err)
		}
		if few := len(ice.manifests); few > many-leastManifests+2 || small(ice) > 1 {
			t.Errorf("%d manifests became %d", many, few)
		}
		if after := entries(t, ice); !maps.Equal(before, after) {
			t.Errorf("entries were\n%v\nand are\n%v", before, after)
		}
		s := ice.now().CurrentSnapshot()
		if p := s.Summary.Properties; s.Summary.Operation != table.OpReplace || p[propPosition] != position || p["total-records"] == "" || p[propCommit] == "" {
			t.Errorf("v%d: the snapshot says %+v", version, s.Summary)
		}
		same(t, "merged", b.rows(t), m.rows())
		b.write(t, event{op: change.OpDelete, id: 1})
		delete(m, 1)
		b.commit(t)
		b.reopen(t, true)
		b.write(t, event{op: change.OpDelete, id: 2})
		delete(m, 2)
		b.commit(t)
		same(t, "and on", b.rows(t), m.rows())
		if version == 2 { // PyIceberg reads no v3
			foreignReaders(t, b, m.rows())
			timeTravel(t, b.metadata(), early)
		}
	}
}

// timeTravel has PyIceberg count the rows of an earlier snapshot.
func timeTravel(t *testing.T, metadata string, s table.Snapshot) {
	t.Helper()
	const script = `
import sys
from pyiceberg.table import StaticTable
t = StaticTable.from_metadata(sys.argv[1])
print(t.scan(snapshot_id=int(sys.argv[2])).to_arrow().num_rows)`
	out, _ := testlab.RunPython(t, script, metadata, fmt.Sprint(s.SnapshotID))
	if want := "55"; strings.TrimSpace(out) != want {
		t.Errorf("PyIceberg finds %s rows in the eleventh snapshot, want %s", out, want)
	}
}

func TestManifestsThatTheIngestWritesAnewAreNotMerged(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	ctx, ice := context.Background(), b.table.current.t
	m := model{}
	for id := range int64(leastManifests) {
		m[id] = [2]string{"v", "b"}
		b.write(t, event{op: change.OpInsert, id: id, v: "v", big: "b"})
		b.commit(t)
	}
	id, merged, err := ice.planManifests(ctx)
	if err != nil || len(merged) != 1 {
		t.Fatalf("%d are merged, %v", len(merged), err)
	}
	b.write(t, event{op: change.OpDelete, id: 3}) // its file goes, and the manifest of it is written anew
	delete(m, 3)
	b.commit(t)
	objects := count(t, b.lake, "")
	if n, err := ice.commitManifests(ctx, id, merged); n != 0 || err != nil {
		t.Errorf("%d were merged, %v", n, err)
	}
	if n := count(t, b.lake, ""); n != objects-1 {
		t.Errorf("%d objects became %d: the merged manifest is nobody's", objects, n)
	}
	same(t, "given up", b.rows(t), m.rows())
	if _, err := b.table.Commit(ctx, b.lsn+1, time.Unix(1, 0)); err != nil {
		t.Error(err)
	}
}

func TestARewriteOfManyFilesLeavesOneManifest(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	held := open(t, testLake(t, dir, nil), spec)
	const commits = 12
	for i := range commits {
		write(t, held, changes(t, spec, lsn(0x100*i+0x100), "c", fmt.Sprintf(`[{"id":%d}]`, i)), lsn(0x100*i+0x110))
	}
	if done, err := held.Maintain(t.Context(), MaintainOptions{Compact: true}); err != nil || done.Compacted != commits || done.Written != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	ice := held.history.ice
	if n := len(ice.manifests); n != 2 { // of what came, and of what went
		t.Errorf("%d manifests are left", n)
	}
	if got := ice.now().CurrentSnapshot().Summary.Properties[propPosition]; got != lsn(0x100*commits+0x10).String() {
		t.Errorf("the snapshot of the rewrite stands at %s", got)
	}
	if n := len(readBack(t, dir+"/public/orders_history")); n != commits {
		t.Errorf("%d rows of %d are read", n, commits)
	}
}

func TestAFileOfManyDeadRowsHasItsOwnDeletes(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	m := model{}
	for file := range int64(3) {
		for id := file * 100; id < file*100+100; id++ {
			m[id] = [2]string{"v", "b"}
			b.write(t, event{op: change.OpInsert, id: id, v: "v", big: "b"})
		}
		b.commit(t)
	}
	for id := int64(7); id < 300; id += 50 {
		delete(m, id)
		b.write(t, event{op: change.OpDelete, id: id})
		b.commit(t)
	}
	c := b.table.current
	pieces := func(of [][]*trackedFile, want int) {
		t.Helper()
		if len(of) != want {
			t.Errorf("%d files of deletes, want %d", len(of), want)
		}
	}
	pieces(byPasses(c.files[:3]), 1)
	done, err := b.table.Maintain(t.Context(), MaintainOptions{MergeDeletes: 2})
	if err != nil || done.MergedDeletes != 6 || len(c.deletes) != 1 {
		t.Errorf("%+v, %v; %d are left", done, err, len(c.deletes))
	}
	same(t, "merged", b.rows(t), m.rows())
	for _, f := range c.files[:3] { // as if each had many
		f.dead.AddRange(0, readersPasses/2)
	}
	pieces(byPasses(c.files[:3]), 3)
}

func TestATableAtRestIsRidOfItsDeadRows(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	c := b.table.current
	m := model{}
	var events []event
	for id := range int64(2000) {
		m[id] = [2]string{"v", strings.Repeat(fmt.Sprint(id*7919), 4)}
		events = append(events, event{op: change.OpInsert, id: id, v: "v", big: m[id][1]})
	}
	b.write(t, events...)
	b.commit(t)
	kill := func(ids ...int64) {
		for _, id := range ids {
			delete(m, id)
			b.write(t, event{op: change.OpDelete, id: id})
		}
		b.commit(t)
	}
	maintain := func(thorough bool, want int64) {
		t.Helper()
		if _, err := b.table.Maintain(t.Context(), MaintainOptions{Compact: true, Thorough: thorough}); err != nil {
			t.Fatal(err)
		}
		dead := int64(0)
		for _, f := range c.files {
			if f != nil && f.moved == nil {
				dead += f.deadRows()
			}
		}
		if dead != want {
			t.Errorf("%d dead rows are left, want %d", dead, want)
		}
		same(t, "rows", b.rows(t), m.rows())
	}
	var forty []int64
	for id := range int64(40) {
		forty = append(forty, id*11)
	}
	kill(forty...)
	maintain(false, 40) // it has just moved
	maintain(false, 0)  // a fiftieth, and at rest
	kill(1500)
	maintain(false, 1)
	maintain(false, 1) // too few
	c.moved = c.moved.Add(-2 * longRest)
	maintain(false, 0)
	kill(1501)
	maintain(true, 0)
}
