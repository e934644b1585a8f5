package lake

import (
	"context"
	"fmt"
	"maps"
	"math"
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
	x := r.expiryOf(meta)
	t.room = len(x.keep) + r.slack()
	if len(x.gone) < r.slack() {
		return
	}
	if _, _, err := t.expireLocked(ctx, x); err != nil && ctx.Err() == nil {
		t.room *= 2
		t.lake.Log.Warn("old snapshots of a table could not be expired", "table", t.where(), "error", err)
	}
}

// expire forgets old snapshots and deletes what only they needed: few of them only once in a while, or when the upkeep is thorough.
func (t *icebergTable) expire(ctx context.Context, o MaintainOptions) (snapshots, objects int, err error) {
	t.expiring.Lock()
	defer t.expiring.Unlock()
	x := o.Snapshots.expiryOf(t.now().Metadata())
	if len(x.gone) >= o.Snapshots.slack() || o.Thorough || time.Since(t.expiredAt) >= longRest {
		if snapshots, objects, err = t.expireLocked(ctx, x); err != nil {
			return snapshots, objects, err
		}
	}
	if err := t.learnNotes(ctx, anyNote); err != nil {
		return snapshots, objects, err
	}
	if t.due(x.grace) {
		if err := t.refresh(ctx); err != nil {
			return snapshots, objects, err
		}
		objects += t.followNotes(ctx, x.grace, math.MaxInt)
	}
	return snapshots, objects, nil
}

// expiry is which snapshots of a table stay and which go, and how that was decided.
type expiry struct {
	split      func(table.Metadata) (keep, gone []table.Snapshot)
	keep, gone []table.Snapshot
	sequence   int64         // the table's last one
	grace      time.Duration // how long the files of those that go stay
}

func (r Retention) expiryOf(meta table.Metadata) expiry {
	x := expiry{split: r.split, sequence: meta.LastSequenceNumber(), grace: r.Grace}
	x.keep, x.gone = x.split(meta)
	return x
}

// expireLocked holds t.expiring. The objects of the snapshots go when the grace is over: see notes.go.
func (t *icebergTable) expireLocked(ctx context.Context, x expiry) (snapshots, objects int, err error) {
	t.expiredAt = time.Now()
	if len(x.gone) == 0 {
		return 0, 0, nil
	}
	unneeded, props, err := t.unneeded(ctx, x.keep, x.gone)
	if err != nil {
		return 0, 0, err
	}
	if err := t.refresh(ctx); err != nil {
		return 0, 0, err
	}
	ids := map[int64]bool{}
	for _, s := range x.gone {
		ids[s.SnapshotID] = true
	}
	// What another program has named since we last saw the table stays: the next upkeep knows of it.
	if keep, _ := x.split(t.now().Metadata()); slices.ContainsFunc(keep, func(s table.Snapshot) bool { return ids[s.SnapshotID] }) {
		return 0, 0, nil
	}
	if err := t.learnNotes(ctx, anyNote); err != nil {
		return 0, 0, err
	}
	t.notesKnown = false // what is written until the commit may have to be looked for
	notes, err := t.writeNotes(ctx, x, unneeded)
	if err != nil {
		return 0, 0, err
	}
	if len(notes) > 0 {
		props[propExpired] = notes[len(notes)-1].name
	}
	updates := []table.Update{table.NewRemoveSnapshotsUpdate(slices.Collect(maps.Keys(ids)), false)}
	if err := t.commitOnce(ctx, delta{updates: updates, props: props}); err != nil {
		return 0, 0, err
	}
	for _, n := range notes {
		n.at = time.Now().UnixMilli()
		t.notes = append(t.notes, n)
	}
	t.notesKnown = true
	objects = t.followNotes(ctx, x.grace, notesAtOnce)
	return len(x.gone), objects, t.dropUnused(ctx)
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
	addStatistics(meta, gone, to)
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
