package lake

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
)

// objectsOf lists a table's objects but for versions of its metadata and their hint.
func objectsOf(t *testing.T, ice *icebergTable) (keys []string) {
	t.Helper()
	for o, err := range ice.lake.Bucket.List(t.Context(), ice.folder()+"/") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(o.Key, ".json") && !strings.HasSuffix(o.Key, ".text") {
			keys = append(keys, ice.lake.url(o.Key))
		}
	}
	slices.Sort(keys)
	return keys
}

// needs lists the objects that a table's snapshots need, found by reading all of them.
func needs(t *testing.T, ice *icebergTable) (keys []string) {
	t.Helper()
	used, err := ice.mentioned(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for key := range used.names {
		if !strings.HasSuffix(key, ".json") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// without lists what is in a and not in b.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// branch has another program put a snapshot on a branch that begins at one of ours, or take the branch away.
func branch(t *testing.T, ice *icebergTable, r *rand.Rand) {
	t.Helper()
	meta := ice.now().Metadata()
	at := meta.Snapshots()[r.IntN(len(meta.Snapshots()))]
	s := table.Snapshot{
		SnapshotID: r.Int64(), ParentSnapshotID: &at.SnapshotID, SequenceNumber: meta.LastSequenceNumber() + 1, TimestampMs: time.Now().UnixMilli() + 1,
		ManifestList: at.ManifestList, Summary: &table.Summary{Operation: table.OpReplace}, SchemaID: at.SchemaID,
	}
	if ice.v3() {
		s.FirstRowID, s.AddedRows = new(meta.NextRowID()), new(int64(0))
	}
	updates := []table.Update{table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate("trial", s.SnapshotID, table.BranchRef, 0, 0, 0)}
	for name := range meta.Refs() {
		if name == "trial" {
			updates = []table.Update{table.NewRemoveSnapshotRefUpdate("trial")}
		}
	}
	if _, err := ice.lake.catalog.LoadTable(t.Context(), ice.ident); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ice.lake.catalog.CommitTable(t.Context(), ice.ident, nil, updates); err != nil {
		t.Fatal(err)
	}
}

// tag has another program name a snapshot of ours.
func tag(t *testing.T, ice *icebergTable, r *rand.Rand) {
	t.Helper()
	all := ice.now().Metadata().Snapshots()
	name := fmt.Sprint("tag-", r.IntN(4)) // which it may have had
	_, _, err := ice.lake.catalog.CommitTable(t.Context(), ice.ident, nil, []table.Update{
		table.NewSetSnapshotRefUpdate(name, all[r.IntN(len(all))].SnapshotID, table.TagRef, 0, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
}

func TestExpiryRemovesWhatNoSnapshotNeedsAndNothingElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version      int
		branch, tags bool
	}{"v2": {2, false, false}, "v3": {3, false, true}, "v2 with a branch": {2, true, false}, "v3 with a branch": {3, true, true}} {
		seeds, rounds := uint64(1), 24
		if os.Getenv("LEAT_TEST_LONG") != "" {
			seeds, rounds = 8, 80
		}
		for seed := range seeds {
			t.Run(fmt.Sprint(name, " ", seed), func(t *testing.T) {
				t.Parallel()
				b := newCurrentBed(t, c.version, false)
				m, r, forgets := model{}, rand.New(rand.NewPCG(seed, uint64(c.version))), rand.New(rand.NewPCG(seed, 99))
				fast := 0
				for round := range rounds {
					for range 1 + r.IntN(3) {
						b.write(t, m.workload(r, 1+r.IntN(30), 200, false)...)
						b.commit(t)
					}
					if r.IntN(4) == 0 {
						if _, err := b.table.Maintain(t.Context(), MaintainOptions{Compact: r.IntN(2) == 0, MergeDeletes: r.IntN(4), MergeManifests: true}); err != nil {
							t.Fatal(err)
						}
					}
					if c.branch && r.IntN(6) == 0 {
						branch(t, b.table.current.t, r)
						b.reopen(t, false)
					}
					if c.tags && r.IntN(6) == 0 {
						tag(t, b.table.current.t, r)
						b.reopen(t, false)
					}
					if r.IntN(6) == 0 {
						b.reopen(t, false)
					}
					ice := b.table.current.t
					if forgets.IntN(3) == 0 { // as after so many commits that not all of them are remembered
						ice.mu.Lock()
						ice.keepDrops(forgets.IntN(1 + len(ice.drops)))
						ice.mu.Unlock()
					}
					if meta := ice.now().Metadata(); lineSince(meta) < meta.LastSequenceNumber() {
						fast++
					}
					expireSome(t, ice, r)
					have, want := objectsOf(t, ice), needs(t, ice)
					if left, lost := without(have, want), without(want, have); len(left)+len(lost) > 0 {
						t.Fatalf("round %d: no snapshot needs\n%s\nand snapshots miss\n%s", round, strings.Join(left, "\n"), strings.Join(lost, "\n"))
					}
				}
				if fast < rounds/5 || c.branch == (fast == rounds) {
					t.Errorf("%d of %d times the history had a part that is one line", fast, rounds)
				}
				same(t, "rows", b.rows(t), m.rows())
			})
		}
	}
}

// expireSome lets random snapshots go: many of the oldest, some of the others, none that a reference names.
func expireSome(t *testing.T, ice *icebergTable, r *rand.Rand) {
	t.Helper()
	goes := map[int64]bool{}
	meta := ice.now().Metadata()
	named := map[int64]bool{}
	for _, ref := range meta.Refs() {
		named[ref.SnapshotID] = true
	}
	for i, s := range meta.Snapshots() {
		if !named[s.SnapshotID] && r.IntN(2+i/3) == 0 {
			goes[s.SnapshotID] = true
		}
	}
	ice.expiring.Lock()
	defer ice.expiring.Unlock()
	x := expiry{split: func(meta table.Metadata) (keep, gone []table.Snapshot) {
		for _, s := range meta.Snapshots() {
			if goes[s.SnapshotID] {
				gone = append(gone, s)
			} else {
				keep = append(keep, s)
			}
		}
		return keep, gone
	}}
	x.keep, x.gone = x.split(meta)
	n, _, err := ice.expireLocked(t.Context(), x)
	if err != nil || n != len(goes) {
		t.Fatalf("%d of %d went: %v", n, len(goes), err)
	}
}

func TestSnapshotsStayFewHoweverManyCommitsThereAre(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.lake.Snapshots = Retention{Keep: 8}
	m, r := model{}, rand.New(rand.NewPCG(1, 2))
	ice := b.table.current.t
	for range 60 {
		b.write(t, m.workload(r, 3, 100, false)...)
		b.commit(t)
		if n := len(ice.now().Metadata().Snapshots()); n > 8+2 {
			t.Fatalf("there are %d snapshots", n)
		}
	}
	if left := without(objectsOf(t, ice), needs(t, ice)); len(left) > 0 {
		t.Errorf("no snapshot needs\n%s", strings.Join(left, "\n"))
	}
	same(t, "rows", b.rows(t), m.rows())
}

// fetches is a bucket that notes which objects are fetched.
type fetches struct {
	bucket.Bucket
	keys []string
}

func (f *fetches) Open(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	f.keys = append(f.keys, key)
	return f.Bucket.Open(ctx, key, off, length)
}

func TestCommitsThatOnlyAddRowsFetchNoManifests(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.lake.Snapshots = Retention{Keep: 8}
	store := &fetches{Bucket: b.lake.Bucket}
	b.lake.Bucket = store
	ice := b.table.current.t
	expired, merged := false, false
	for id := range int64(80) {
		b.write(t, event{op: change.OpInsert, id: id, v: "v", big: "b"})
		b.commit(t)
		expired = expired || int64(len(ice.now().Metadata().Snapshots())) < id
		merged = merged || int64(len(ice.manifests)) < id
	}
	if !expired || !merged {
		t.Errorf("snapshots went: %t, manifests were merged: %t", expired, merged)
	}
	if got := slices.DeleteFunc(store.keys, func(key string) bool { return !strings.HasSuffix(key, ".avro") }); len(got) > 0 {
		t.Errorf("%d were fetched: %q", len(got), got)
	}
	if left := without(objectsOf(t, ice), needs(t, ice)); len(left) > 0 {
		t.Errorf("no snapshot needs\n%s", strings.Join(left, "\n"))
	}
}

func TestSnapshotsAreThinnedWithAge(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 10, 12, 0, 30, 0, time.UTC)
	var ages []int // in seconds: each twenty seconds of ten minutes, and two of each hour before, the last of which is ten seconds before its end
	for hour := 50; hour > 0; hour-- {
		ages = append(ages, hour*3600+100, hour*3600+40)
	}
	for age := 600; age >= 0; age -= 20 {
		ages = append(ages, age)
	}
	meta := tenSnapshots(t, now.Add(-100*time.Hour), nil)
	var updates []table.Update
	for i, age := range ages {
		s := table.Snapshot{
			SnapshotID: int64(11 + i), ParentSnapshotID: new(int64(10 + i)), SequenceNumber: int64(11 + i),
			TimestampMs: now.Add(-time.Duration(age) * time.Second).UnixMilli(), Summary: &table.Summary{Operation: table.OpAppend},
		}
		updates = append(updates, table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate(table.MainBranch, s.SnapshotID, table.BranchRef, 0, 0, 0))
	}
	meta, err := updated(meta, updates, "")
	if err != nil {
		t.Fatal(err)
	}
	r := Retention{Keep: 5, All: time.Minute, Minutely: 4 * time.Minute, Hourly: 3 * time.Hour, Daily: 48 * time.Hour}
	// The newest five, all of one minute; the last ones of 11:58, 11:57 and 11:56, of 10 and 9 o'clock, of the days before.
	want := []int{0, 20, 40, 60, 80, 100, 160, 220, 3640, 7240, 12*3600 + 40, 36*3600 + 40}
	for _, when := range []string{"at once", "when others have gone"} {
		keep, gone := expired(meta, r, now)
		var got []int
		for _, s := range keep {
			got = append(got, int(now.UnixMilli()-s.TimestampMs)/1000)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s: the ages of what stays are %d, want %d", when, got, want)
		}
		var ids []int64
		for _, s := range gone {
			ids = append(ids, s.SnapshotID)
		}
		if meta, err = updated(meta, []table.Update{table.NewRemoveSnapshotsUpdate(ids, false)}, ""); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheHistoryIsALineAsFarAsItIsOurs(t *testing.T) {
	t.Parallel()
	now := time.Now()
	ours := func(id, parent int64) table.Snapshot {
		return table.Snapshot{
			SnapshotID: id, ParentSnapshotID: &parent, SequenceNumber: id, TimestampMs: now.UnixMilli(),
			Summary: &table.Summary{Operation: table.OpAppend, Properties: map[string]string{propCommit: "c"}},
		}
	}
	foreign := ours(12, 11)
	foreign.Summary.Properties = nil
	rolled := ours(13, 11)
	for name, c := range map[string]struct {
		props map[string]string
		more  []table.Snapshot
		also  []table.Update
		want  int64
	}{
		"nothing is known":          {nil, []table.Snapshot{ours(11, 10)}, nil, 11},
		"it is one":                 {map[string]string{propLine: "10"}, []table.Snapshot{ours(11, 10), ours(12, 11)}, nil, 10},
		"a parent has gone":         {map[string]string{propLine: "10"}, []table.Snapshot{ours(11, 10), ours(12, 11), ours(13, 12)}, []table.Update{table.NewRemoveSnapshotsUpdate([]int64{12}, false)}, 10},
		"another program wrote":     {map[string]string{propLine: "10"}, []table.Snapshot{ours(11, 10), foreign, ours(13, 12)}, nil, 13},
		"that is behind us":         {map[string]string{propLine: "12"}, []table.Snapshot{ours(11, 10), foreign, ours(13, 12)}, nil, 12},
		"it was rolled back":        {map[string]string{propLine: "10"}, []table.Snapshot{ours(11, 10), ours(12, 11), rolled}, nil, 13},
		"there is a tag":            {map[string]string{propLine: "10"}, []table.Snapshot{ours(11, 10)}, []table.Update{table.NewSetSnapshotRefUpdate("r", 4, table.TagRef, 1, 0, 0)}, 10},
		"there is a branch":         {map[string]string{propLine: "10"}, []table.Snapshot{ours(11, 10)}, []table.Update{table.NewSetSnapshotRefUpdate("r", 4, table.BranchRef, 1, 0, 0)}, 11},
		"the property is no number": {map[string]string{propLine: "x"}, []table.Snapshot{ours(11, 10)}, nil, 11},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			updates := []table.Update{table.NewSetPropertiesUpdate(c.props)}
			for _, s := range c.more {
				updates = append(updates, table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate(table.MainBranch, s.SnapshotID, table.BranchRef, 0, 0, 0))
			}
			meta, err := updated(tenSnapshots(t, now, nil), append(updates, c.also...), "")
			if err != nil {
				t.Fatal(err)
			}
			if got := lineSince(meta); got != c.want {
				t.Errorf("it is a line after %d, want %d", got, c.want)
			}
		})
	}
}

func TestWhatAnotherProgramWroteEndsTheLine(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	ice := b.table.current.t
	b.write(t, event{op: change.OpInsert, id: 1, v: "v", big: "b"})
	b.commit(t)
	if got := lineSince(ice.now().Metadata()); got != 0 {
		t.Errorf("a table of ours alone is a line after %d", got)
	}
	meta := ice.now().Metadata()
	s := *meta.CurrentSnapshot()
	s.SnapshotID, s.ParentSnapshotID, s.SequenceNumber, s.TimestampMs = 77, &meta.CurrentSnapshot().SnapshotID, meta.LastSequenceNumber()+1, s.TimestampMs+1
	s.Summary = &table.Summary{Operation: table.OpReplace}
	_, _, err := b.lake.catalog.CommitTable(t.Context(), ice.ident, nil, []table.Update{table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate(table.MainBranch, 77, table.BranchRef, 0, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	b.reopen(t, true)
	ice = b.table.current.t
	for id := range int64(2) {
		b.write(t, event{op: change.OpInsert, id: id + 2, v: "v", big: "b"})
		b.commit(t)
	}
	if got := ice.property(propLine); got != fmt.Sprint(s.SequenceNumber) || lineSince(ice.now().Metadata()) != s.SequenceNumber {
		t.Errorf("the line begins after %s, want after %d", got, s.SequenceNumber)
	}
}
