package lake

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
)

// dyingStore is a bucket of a process that dies at one of its writes and deletions: before it is done, or after.
type dyingStore struct {
	bucket.Bucket
	left  int
	after bool
	dead  bool
	at    string // where it died
}

func (m *dyingStore) step(what string, do func() error) error {
	if m.dead {
		return errDied
	}
	if m.left--; m.left != 0 {
		return do()
	}
	m.dead, m.at = true, what
	if m.after {
		_ = do() // the process is dead: its error reaches no one
	}
	return errDied
}

func (m *dyingStore) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if m.dead {
		return nil, errDied
	}
	u, err := m.Bucket.Create(ctx, key, o)
	return dyingUpload{u, m, key}, err
}

type dyingUpload struct {
	bucket.Upload
	of  *dyingStore
	key string
}

func (u dyingUpload) Commit(ctx context.Context) (o bucket.Object, err error) {
	err = u.of.step("write "+u.key, func() error { o, err = u.Upload.Commit(ctx); return err })
	return o, err
}

func (m *dyingStore) Delete(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	return m.step("delete "+keys[0], func() error { return m.Bucket.Delete(ctx, keys...) })
}

func (m *dyingStore) Stat(ctx context.Context, key string) (bucket.Object, error) {
	if m.dead {
		return bucket.Object{}, errDied
	}
	return m.Bucket.Stat(ctx, key)
}

// insert commits a row of each id by itself.
func (b *currentBed) insert(t *testing.T, ids ...int64) {
	t.Helper()
	for _, id := range ids {
		b.write(t, event{op: change.OpInsert, id: id, v: "v", big: "b"})
		b.commit(t)
	}
}

func (b *currentBed) maintain(t *testing.T, r Retention) Maintained {
	t.Helper()
	done, err := b.table.Maintain(t.Context(), MaintainOptions{Snapshots: r, Thorough: true})
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// noteFiles are the notes of expired snapshots; where they are given an age, they are of that.
func (b *currentBed) noteFiles(t *testing.T, age time.Duration) []string {
	t.Helper()
	found, err := filepath.Glob(b.dir + "/lake/.leat/expired/p/*/*/*")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-age)
	for _, f := range found {
		if age == 0 {
			break
		}
		if err := os.Chtimes(f, at, at); err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// clean fails unless the table's objects are those that its snapshots need.
func (b *currentBed) clean(t *testing.T) {
	t.Helper()
	ice := b.table.current.t
	have, want := objectsOf(t, ice), needs(t, ice)
	if left, lost := without(have, want), without(want, have); len(left)+len(lost) > 0 {
		t.Fatalf("no snapshot needs\n%s\nand snapshots miss\n%s", strings.Join(left, "\n"), strings.Join(lost, "\n"))
	}
}

func TestAProcessThatDiesWhileSnapshotsExpireLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	store, last := b.lake.Bucket, int64(0)
	where := map[string]bool{}
	kill := func(n int, after bool) {
		m := &dyingStore{Bucket: store, left: n, after: after}
		b.lake.Bucket = m
		_, err := b.table.Maintain(context.Background(), MaintainOptions{Snapshots: Retention{Keep: 1}, Thorough: true})
		b.lake.Bucket = store
		if !m.dead && err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"write .leat/expired/", ".metadata.json", "delete .leat/expired/", "delete public/orders/metadata/"} {
			if strings.Contains(m.at, part) {
				where[fmt.Sprint(part, after)] = true
			}
		}
		b.reopen(t, true)
	}
	const most = 6
	for n := range most * 6 { // each first step, and each second one in both ways
		b.insert(t, last+1, last+2)
		last += 2
		kill(1+n%most, n/most%2 == 0)
		kill(1+n/most, n%4 < 2)
		b.maintain(t, Retention{Keep: 1})
		if notes := b.noteFiles(t, 0); len(notes) > 0 {
			t.Fatalf("round %d: %q", n, notes)
		}
		b.clean(t)
	}
	if len(where) != 8 {
		t.Errorf("it died only at %q", slices.Sorted(maps.Keys(where)))
	}
	if got := len(b.rows(t)); got != int(last) {
		t.Errorf("%d rows of %d are left", got, last)
	}
}

func TestFilesOfExpiredSnapshotsOutlastTheGrace(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.insert(t, 1, 2, 3)
	b.write(t, event{op: change.OpTrunc})
	b.commit(t)
	b.insert(t, 4)
	reader := b.table.current.t.now()
	before, old := objectsOf(t, b.table.current.t), reader.Metadata().Snapshots()[2]
	later := Retention{Keep: 1, Grace: time.Hour}
	still := func(when string) {
		t.Helper()
		if lost := without(before, objectsOf(t, b.table.current.t)); len(lost) > 0 {
			t.Fatalf("%s: %q is gone", when, lost)
		}
		_, records, err := reader.Scan(table.WithSnapshotID(old.SnapshotID)).ToArrowRecords(t.Context())
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		rows := int64(0)
		for rec, err := range records {
			if err != nil {
				t.Fatalf("%s: %v", when, err)
			}
			rows += rec.NumRows()
			rec.Release()
		}
		if rows != 3 {
			t.Fatalf("%s: a reader reads %d rows", when, rows)
		}
	}
	if done := b.maintain(t, later); done.Snapshots != 4 || done.Removed != 0 {
		t.Errorf("%+v", done)
	}
	still("at once")
	b.lake.Snapshots = later
	if n, _, err := b.lake.Sweep(t.Context(), 0); n != 0 || err != nil {
		t.Errorf("a sweep removes %d: %v", n, err)
	}
	still("after a sweep")
	b.reopen(t, true)
	if done := b.maintain(t, later); done != (Maintained{}) {
		t.Errorf("the next process: %+v", done)
	}
	still("after a new start")
	b.noteFiles(t, 2*time.Hour)
	b.reopen(t, true)
	if done := b.maintain(t, later); done.Removed < 4+3 {
		t.Errorf("when its time has come: %+v", done)
	}
	b.clean(t)
	if notes := b.noteFiles(t, 0); len(notes) > 0 {
		t.Errorf("%q are left", notes)
	}
}

func TestCommitsFollowTheNotesThatAreDue(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.lake.Snapshots = Retention{Keep: 4, Grace: time.Hour}
	ice, most := b.table.current.t, 0
	for id := range int64(40) {
		b.insert(t, id)
		most = max(most, len(ice.notes))
		for i := range ice.notes { // half of them become due
			if ice.notes[i].at -= int64(i % 2); len(ice.notes) > 4 && i < 2 {
				ice.notes[i].at = 0
			}
		}
	}
	if most > 8 || len(b.noteFiles(t, 0)) != len(ice.notes) || len(ice.notes) == 0 {
		t.Errorf("there were up to %d notes; now %d, and %d files", most, len(ice.notes), len(b.noteFiles(t, 0)))
	}
}

// A note of a commit that never happened names snapshots that a later one removes: its age is not theirs.
func TestANoteWithoutItsCommitShortensNoGrace(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.insert(t, 1, 2, 3)
	store := b.lake.Bucket
	b.lake.Bucket = &dyingStore{Bucket: store, left: 2}
	if done, err := b.table.Maintain(t.Context(), MaintainOptions{Snapshots: Retention{Keep: 1}}); err == nil {
		t.Fatalf("%+v", done)
	}
	b.lake.Bucket = store
	stale := b.noteFiles(t, 2*time.Hour)
	b.reopen(t, true)
	before := objectsOf(t, b.table.current.t)
	for range 2 {
		b.maintain(t, Retention{Keep: 1, Grace: time.Hour})
		b.reopen(t, true)
	}
	if lost := without(before, objectsOf(t, b.table.current.t)); len(lost) > 0 {
		t.Errorf("%q is gone", lost)
	}
	if now := b.noteFiles(t, 0); len(stale) != 1 || len(now) != 1 || now[0] == stale[0] {
		t.Errorf("%q became %q", stale, now)
	}
}

// Another program puts the table back to an old version. What was expired since is of no past of it.
func TestNotesOfAPastThatWasTakenBackDeleteNothing(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	later := Retention{Keep: 1, Grace: time.Hour}
	b.insert(t, 1)
	versions := b.dir + "/lake/public/orders/metadata/"
	hint, err := os.ReadFile(versions + "version-hint.text")
	if err != nil {
		t.Fatal(err)
	}
	b.insert(t, 2)
	b.maintain(t, later) // the snapshot to which it is put back
	b.write(t, event{op: change.OpTrunc})
	b.commit(t)
	b.insert(t, 3)
	b.maintain(t, later) // and those after it, which had its files too
	newest, _ := filepath.Glob(versions + "v*.metadata.json")
	for _, f := range newest {
		if strings.Compare(filepath.Base(f), "v"+string(hint)+".metadata.json") > 0 {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.WriteFile(versions+"version-hint.text", hint, 0o600); err != nil {
		t.Fatal(err)
	}
	if notes := b.noteFiles(t, 2*time.Hour); len(notes) != 2 {
		t.Fatalf("%q", notes)
	}
	b.reopen(t, true)
	b.maintain(t, later)
	if notes := b.noteFiles(t, 0); len(notes) != 0 {
		t.Errorf("%q are left", notes)
	}
	same(t, "rows", b.rows(t), map[string]int{"1|v|b": 1})
}

// branching is a catalog in which another program commits to a branch right before snapshots are removed.
type branching struct {
	tables
	before func()
}

func (c *branching) CommitTable(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	if slices.ContainsFunc(updates, func(u table.Update) bool { return u.Action() == table.UpdateRemoveSnapshots }) && c.before != nil {
		c.before()
		c.before = nil
	}
	return c.tables.CommitTable(ctx, ident, reqs, updates)
}

func TestASnapshotThatBeginsAtOneThatGoesKeepsItsFiles(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.insert(t, 1, 2)
	b.write(t, event{op: change.OpTrunc})
	b.commit(t)
	b.insert(t, 3)
	ice := b.table.current.t
	meta := ice.now().Metadata()
	at := meta.Snapshots()[1]
	s := table.Snapshot{
		SnapshotID: 77, ParentSnapshotID: &at.SnapshotID, SequenceNumber: meta.LastSequenceNumber() + 1, TimestampMs: meta.LastUpdatedMillis() + 1,
		ManifestList: at.ManifestList, Summary: &table.Summary{Operation: table.OpReplace}, SchemaID: at.SchemaID,
	}
	inner := b.lake.catalog
	b.lake.catalog = &branching{inner, func() {
		_, _, err := inner.CommitTable(t.Context(), ice.ident, nil, []table.Update{table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate("trial", 77, table.BranchRef, 0, 0, 0)})
		if err != nil {
			t.Error(err)
		}
	}}
	if done := b.maintain(t, Retention{Keep: 1}); done.Snapshots != 3 || done.Removed == 0 {
		t.Errorf("%+v", done)
	}
	if _, there := maps.Collect(ice.now().Metadata().Refs())["trial"]; !there {
		t.Fatal("the branch is gone")
	}
	b.clean(t)
	if got := idsOf(t, ice, table.WithSnapshotID(77)); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("the branch has rows %d", got)
	}
}

func TestNotesThatNoOneFollowsAreSwept(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	b := newCurrentBed(t, 2, false)
	b.lake.Log = slog.New(slog.NewTextHandler(&said, nil))
	b.insert(t, 1, 2, 3)
	b.lake.Snapshots = Retention{Keep: 1, Grace: time.Hour}
	b.maintain(t, b.lake.Snapshots)
	note := b.noteFiles(t, 0)[0]
	if err := os.WriteFile(note, []byte(`{"objects":`), 0o600); err != nil {
		t.Fatal(err)
	}
	before := objectsOf(t, b.table.current.t)
	if n, _, err := b.lake.Sweep(t.Context(), 0); n != 0 || err != nil || !strings.Contains(said.String(), "nothing is swept") {
		t.Errorf("%d objects were swept beside a note that cannot be understood: %v\n%s", n, err, said.String())
	}
	b.noteFiles(t, 2*time.Hour)
	if n, _, err := b.lake.Sweep(t.Context(), 0); n != 2 || err != nil || len(b.noteFiles(t, 0)) != 0 {
		t.Errorf("%d of %d objects were swept: %v", n, len(before), err)
	}
	b.clean(t)
	b.insert(t, 4)
	b.maintain(t, b.lake.Snapshots)
	if err := os.RemoveAll(b.dir + "/lake/public"); err != nil {
		t.Fatal(err)
	}
	for _, age := range []time.Duration{time.Minute, 3 * time.Hour} {
		left := b.noteFiles(t, age)
		if _, _, err := b.lake.Sweep(t.Context(), 2*time.Hour); err != nil || len(left) != 1 || (len(b.noteFiles(t, 0)) == 0) != (age > time.Hour) {
			t.Errorf("of a table that is gone, after %s, %q are left: %v", age, b.noteFiles(t, 0), err)
		}
	}
}

func TestASweepLeavesANoteWhoseCommitMayBeUnderWay(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.insert(t, 1, 2, 3)
	b.lake.Snapshots = Retention{Keep: 1, Grace: time.Hour}
	ice := b.table.current.t
	x := b.lake.Snapshots.expiryOf(ice.now().Metadata())
	unneeded, _, err := ice.unneeded(t.Context(), x.keep, x.gone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ice.writeNotes(t.Context(), x, unneeded); err != nil {
		t.Fatal(err)
	}
	for _, age := range []time.Duration{time.Minute, 3 * time.Hour} {
		b.noteFiles(t, age)
		if _, _, err := b.lake.Sweep(t.Context(), 2*time.Hour); err != nil {
			t.Fatal(err)
		}
		if left := b.noteFiles(t, 0); (len(left) == 1) != (age < time.Hour) {
			t.Errorf("when the note is %s old, %q are left", age, left)
		}
	}
	b.clean(t)
}

func TestAHostileNoteDeletesNothingThatIsNeeded(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.insert(t, 1, 2, 3)
	b.maintain(t, Retention{Keep: 1, Grace: time.Hour})
	ice := b.table.current.t
	meta := ice.now().Metadata()
	if _, err := bucket.WriteAll(t.Context(), b.lake.Bucket, ".leat/copy/p/public/orders/copy.json", []byte("{}"), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	outside := b.dir + "/outside"
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	named := expiredNote{Table: meta.TableUUID().String(), Sequence: meta.LastSequenceNumber(), Snapshots: []int64{5}, Objects: []string{
		"file://" + outside, b.lake.url("../outside"), b.lake.url(".leat/copy/p/public/orders/copy.json"), "", "x", ice.now().MetadataLocation(),
		meta.CurrentSnapshot().ManifestList, ice.manifests[0].FilePath(), strings.Replace(meta.CurrentSnapshot().ManifestList, "file://", "file:", 1)}}
	forged, err := json.Marshal(named)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(b.noteFiles(t, 0)[0])
	for i, text := range []string{string(forged), "", "[]", `{"objects":{}}`, `{"table":1}`, strings.Repeat("[", 1<<20), `{"snapshots":[1e99]}`} {
		if err := os.WriteFile(fmt.Sprintf("%s/0000000%d-5.json", folder, i), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.noteFiles(t, 2*time.Hour)
	b.reopen(t, true)
	b.maintain(t, Retention{Keep: 1, Grace: time.Hour})
	if notes := b.noteFiles(t, 0); len(notes) > 0 {
		t.Errorf("%q are left", notes)
	}
	b.clean(t)
	if _, err := os.Stat(outside); err != nil {
		t.Error(err)
	}
	if n := count(t, b.lake, ".leat/copy/"); n != 1 {
		t.Errorf("%d objects of a copy are left", n)
	}
	b.reopen(t, true)
	if got := len(b.rows(t)); got != 3 {
		t.Errorf("%d rows", got)
	}
}
