package lake

import (
	"context"
	"time"

	"github.com/apache/iceberg-go/table"
)

// expire forgets old snapshots and deletes what only they needed.
func (t *icebergTable) expire(ctx context.Context, o MaintainOptions) (snapshots, objects int, err error) {
	t.mu.Lock()
	all := t.now().Metadata().Snapshots()
	t.mu.Unlock()
	keep, gone := expired(all, o, time.Now())
	if len(gone) == 0 {
		return 0, 0, nil
	}
	files := t.lake.files(ctx)
	ids := make([]int64, len(gone))
	needed := map[string]bool{}
	for i := range gone {
		ids[i] = gone[i].SnapshotID
	}
	if err := t.reach(ctx, keep, needed, true); err != nil {
		return 0, 0, err
	}
	unneeded := map[string]bool{}
	if err := t.reach(ctx, gone, unneeded, false); err != nil {
		return 0, 0, err
	}
	if err := t.commit(ctx, delta{updates: []table.Update{table.NewRemoveSnapshotsUpdate(ids, false)}}); err != nil {
		return 0, 0, err
	}
	for path := range unneeded {
		if needed[path] || ctx.Err() != nil { // when the run ends the rest is left to Sweep
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

// expired parts the snapshots, oldest first, in those that stay and those that go. The last one stays.
func expired(all []table.Snapshot, o MaintainOptions, now time.Time) (keep, gone []table.Snapshot) {
	for i, s := range all {
		old := o.KeepFor == 0 || now.Sub(time.UnixMilli(s.TimestampMs)) > o.KeepFor
		if old && len(all)-i > max(1, o.KeepSnapshots) {
			gone = append(gone, s)
		} else {
			keep = append(keep, s)
		}
	}
	return keep, gone
}

// reach lists all objects that snapshots need: with live, of data and delete files only those that are part of them; else those
// that they removed too.
func (t *icebergTable) reach(ctx context.Context, snapshots []table.Snapshot, to map[string]bool, live bool) error {
	files := t.lake.files(ctx)
	for _, s := range snapshots {
		to[s.ManifestList] = true
		manifests, err := s.Manifests(files)
		if err != nil {
			return t.failed(err, "the manifests of a snapshot cannot be listed")
		}
		for _, m := range manifests {
			if to[m.FilePath()] {
				continue
			}
			to[m.FilePath()] = true
			for e, err := range m.Entries(files, live) {
				if err != nil {
					return t.failed(err, "a manifest cannot be read")
				}
				to[e.DataFile().FilePath()] = true
			}
		}
	}
	return nil
}
