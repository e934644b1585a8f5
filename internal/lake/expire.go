package lake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/fault"
)

// expireCrowded forgets old snapshots beside commits, when there are enough of them. A commit has happened before: what cannot be read
// or deleted only waits.
func (t *icebergTable) expireCrowded(ctx context.Context) {
	r := t.lake.Snapshots
	if !r.expires() || !t.expiring.TryLock() { // another goroutine is at it
		return
	}
	defer t.expiring.Unlock()
	meta := t.now().Metadata()
	if len(meta.Snapshots()) < t.room {
		return
	}
	keep, gone := r.split(meta)
	t.room = len(keep) + r.slack()
	if len(gone) < r.slack() {
		return
	}
	if _, _, err := t.expireLocked(ctx, r.split); err != nil && ctx.Err() == nil {
		t.room *= 2
		t.lake.Log.Warn("old snapshots of a table could not be expired", "table", t.where(), "error", err)
	}
}

// expire forgets old snapshots and deletes what only they needed: few of them only once in a while, or when the upkeep is thorough.
func (t *icebergTable) expire(ctx context.Context, o MaintainOptions) (snapshots, objects int, err error) {
	t.expiring.Lock()
	defer t.expiring.Unlock()
	_, gone := o.Snapshots.split(t.now().Metadata())
	if len(gone) < o.Snapshots.slack() && !o.Thorough && time.Since(t.expiredAt) < longRest {
		return 0, 0, nil
	}
	return t.expireLocked(ctx, o.Snapshots.split)
}

// splitter parts the snapshots of a table in those that stay and those that go.
type splitter func(table.Metadata) (keep, gone []table.Snapshot)

// expireLocked holds t.expiring.
func (t *icebergTable) expireLocked(ctx context.Context, split splitter) (snapshots, objects int, err error) {
	t.expiredAt = time.Now()
	keep, gone := split(t.now().Metadata())
	if len(gone) == 0 {
		return 0, 0, nil
	}
	unneeded, props, err := t.unneeded(ctx, keep, gone)
	if err != nil {
		return 0, 0, err
	}
	if err := t.refresh(ctx); err != nil {
		return 0, 0, err
	}
	ids := map[int64]bool{}
	for _, s := range gone {
		ids[s.SnapshotID] = true
	}
	// What another program has named since we last saw the table stays: the next upkeep knows of it.
	if keep, _ := split(t.now().Metadata()); slices.ContainsFunc(keep, func(s table.Snapshot) bool { return ids[s.SnapshotID] }) {
		return 0, 0, nil
	}
	updates := []table.Update{table.NewRemoveSnapshotsUpdate(slices.Collect(maps.Keys(ids)), false)}
	if err := t.commitOnce(ctx, delta{updates: updates, props: props}); err != nil {
		return 0, 0, err
	}
	files := t.lake.files(ctx)
	for path := range unneeded.names {
		if ctx.Err() != nil { // when the run ends the rest is left to Sweep
			break
		}
		switch err := files.Remove(path); {
		case err == nil:
			objects++
		case ctx.Err() == nil:
			t.lake.Log.Warn("a file of an expired snapshot could not be removed", "file", path, "error", err)
		}
	}
	return len(gone), objects, nil
}

// unneeded lists the objects that only the snapshots need which go. Where the table's history is one line, the neighbours of each gap
// tell. Else all snapshots that stay are asked, and the properties returned say up to where that was so.
func (t *icebergTable) unneeded(ctx context.Context, keep, gone []table.Snapshot) (objects, map[string]string, error) {
	meta := t.now().Metadata()
	to, since := t.lake.noObjects(), lineSince(meta)
	gaps, rest := gapsOf(meta, gone)
	for _, g := range gaps {
		if !g.onLine(since) {
			rest = append(rest, g.gone...)
		} else if err := t.unlink(ctx, g, to); err != nil {
			return objects{}, nil, err
		}
	}
	props := map[string]string{propLine: strconv.FormatInt(since, 10)}
	if len(rest) == 0 {
		return to, props, nil
	}
	needed, all := t.lake.noObjects(), t.lake.noObjects()
	if err := t.reach(ctx, keep, needed, true); err != nil {
		return objects{}, nil, err
	}
	if err := t.reach(ctx, rest, all, false); err != nil {
		return objects{}, nil, err
	}
	for path := range all.names {
		if !needed.has(path) {
			to.add(path)
		}
	}
	return to, props, nil
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
		t.broken = fault.New(fault.LakeConflict, t.where(), "another program has changed the table since we read it (%s)", writerOf(tbl))
		return t.broken
	}
	t.adopt(tbl.Metadata(), tbl.MetadataLocation())
	return nil
}

// reach lists all objects that snapshots need: with live, of data and delete files only those that are part of them; else those
// that they removed too.
func (t *icebergTable) reach(ctx context.Context, snapshots []table.Snapshot, to objects, live bool) error {
	files := t.lake.avroFiles(ctx)
	for _, s := range snapshots {
		to.add(s.ManifestList)
		manifests, err := t.manifestsOf(ctx, s)
		if err != nil {
			return err
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
