package lake

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/fault"
)

// expire forgets old snapshots and deletes what only they needed.
func (t *icebergTable) expire(ctx context.Context, o MaintainOptions) (snapshots, objects int, err error) {
	now := time.Now()
	keep, gone := expired(t.now().Metadata(), o, now)
	if len(gone) == 0 {
		return 0, 0, nil
	}
	needed, unneeded := t.lake.noObjects(), t.lake.noObjects()
	if err := t.reach(ctx, keep, needed, true); err != nil {
		return 0, 0, err
	}
	if err := t.reach(ctx, gone, unneeded, false); err != nil {
		return 0, 0, err
	}
	if err := t.refresh(ctx); err != nil {
		return 0, 0, err
	}
	ids := map[int64]bool{}
	for _, s := range gone {
		ids[s.SnapshotID] = true
	}
	// What somebody has named since we last saw the table stays: the next upkeep knows of it.
	if keep, _ := expired(t.now().Metadata(), o, now); slices.ContainsFunc(keep, func(s table.Snapshot) bool { return ids[s.SnapshotID] }) {
		return 0, 0, nil
	}
	if err := t.commit(ctx, delta{updates: []table.Update{table.NewRemoveSnapshotsUpdate(slices.Collect(maps.Keys(ids)), false)}}); err != nil {
		return 0, 0, err
	}
	files := t.lake.files(ctx)
	for path := range unneeded.names {
		if needed.has(path) || ctx.Err() != nil { // when the run ends the rest is left to Sweep
			continue
		}
		if err := files.Remove(path); err != nil {
			t.lake.Log.Warn("a file of an expired snapshot could not be removed", "file", path, "error", err)
			continue
		}
		objects++
	}
	return len(gone), objects, nil
}

// refresh takes over what others have done to the table beside us, as far as our writing does not build on it: tags, branches,
// properties. A catalog applies a commit to the table as it is by then, and forgets a tag with the snapshot that it names.
func (t *icebergTable) refresh(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return t.broken
	}
	tbl, err := t.lake.catalog.LoadTable(ctx, slices.Clone(t.ident))
	if err != nil {
		return t.failed(err, "it cannot be read again")
	}
	ground := func(m table.Metadata) string {
		main := int64(0)
		if id := currentID(m); id != nil {
			main = *id
		}
		return fmt.Sprint(m.TableUUID(), main, m.CurrentSchema().ID, m.DefaultPartitionSpec(), m.DefaultSortOrder(), m.Properties()[propCommit])
	}
	if ground(tbl.Metadata()) != ground(t.now().Metadata()) {
		t.broken = fault.New(fault.LakeConflict, t.where(), "somebody else has changed the table since we read it (%s)", writerOf(tbl))
		return t.broken
	}
	t.adopt(tbl.Metadata(), tbl.MetadataLocation())
	return nil
}

// expired parts the snapshots in those that stay and those that go. Tags and branches but main are made by others: we take none of
// them away, however old it is, and what they name stays.
func expired(meta table.Metadata, o MaintainOptions, now time.Time) (keep, gone []table.Snapshot) {
	named := map[int64]bool{}
	for name, ref := range meta.Refs() {
		least, age := retention(name, ref, o)
		id := &ref.SnapshotID
		for n := 0; id != nil; n++ {
			s := meta.SnapshotByID(*id)
			if s == nil || n > len(meta.Snapshots()) {
				break
			}
			if n < least || young(*s, age, now) {
				named[s.SnapshotID] = true
			}
			id = s.ParentSnapshotID
		}
	}
	for _, s := range meta.Snapshots() {
		if named[s.SnapshotID] || young(s, o.KeepFor.Milliseconds(), now) {
			keep = append(keep, s)
		} else {
			gone = append(gone, s)
		}
	}
	return keep, gone
}

// retention says how many snapshots of a tag or branch stay, and up to which age, in milliseconds, all do. A branch that says
// nothing of it keeps all; of what it leaves open it keeps as main does.
func retention(name string, ref table.SnapshotRef, o MaintainOptions) (least int, age int64) {
	least, age = max(1, o.KeepSnapshots), o.KeepFor.Milliseconds()
	switch {
	case name == table.MainBranch:
		return least, age
	case ref.SnapshotRefType == table.TagRef:
		return 1, 0
	case ref.MinSnapshotsToKeep == nil && ref.MaxSnapshotAgeMs == nil:
		return math.MaxInt, 0
	}
	if ref.MinSnapshotsToKeep != nil {
		least = *ref.MinSnapshotsToKeep
	}
	if ref.MaxSnapshotAgeMs != nil {
		age = *ref.MaxSnapshotAgeMs
	}
	return least, age
}

// young says that a snapshot is no older than age, in milliseconds; 0 is no age at all.
func young(s table.Snapshot, age int64, now time.Time) bool {
	return age > 0 && now.UnixMilli()-s.TimestampMs <= age
}

// reach lists all objects that snapshots need: with live, of data and delete files only those that are part of them; else those
// that they removed too.
func (t *icebergTable) reach(ctx context.Context, snapshots []table.Snapshot, to objects, live bool) error {
	files := t.lake.avroFiles(ctx)
	for _, s := range snapshots {
		to.add(s.ManifestList)
		manifests, err := s.Manifests(files)
		if err != nil {
			return unreadable(ctx, t.where(), err, "the manifests of a snapshot cannot be listed")
		}
		for _, m := range manifests {
			if !to.add(m.FilePath()) {
				continue
			}
			for e, err := range m.Entries(files, live) {
				if err != nil {
					return unreadable(ctx, t.where(), err, "the manifest %s cannot be understood", m.FilePath())
				}
				to.add(e.DataFile().FilePath())
			}
		}
	}
	return nil
}
