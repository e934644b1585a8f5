package lake

import (
	"context"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// gap is a run of snapshots that go, between two that stay; before is nil where they are the oldest of all.
type gap struct {
	before *table.Snapshot
	gone   []table.Snapshot
	after  table.Snapshot
}

// gapsOf finds the gaps that expiry makes, and the snapshots behind which none stays.
func gapsOf(meta table.Metadata, gone []table.Snapshot) (gaps []gap, rest []table.Snapshot) {
	goes := make(map[int64]bool, len(gone))
	for _, s := range gone {
		goes[s.SnapshotID] = true
	}
	var g gap
	for _, s := range bySequence(meta) {
		if goes[s.SnapshotID] {
			g.gone = append(g.gone, s)
			continue
		}
		if g.after = s; len(g.gone) > 0 {
			gaps = append(gaps, g)
		}
		g = gap{before: &s}
	}
	return gaps, g.gone
}

// lineSince is the sequence number after which the table's history is one line: every later snapshot is ours and stands on the one
// before. Then what one of them has and a later one has not is in none after that. propLine says it, unless what other programs
// have made since says otherwise.
func lineSince(meta table.Metadata) int64 {
	last := meta.LastSequenceNumber()
	since, err := strconv.ParseInt(meta.Properties()[propLine], 10, 64)
	if err != nil {
		return last
	}
	for name, ref := range meta.Refs() {
		if name != table.MainBranch && ref.SnapshotRefType != table.TagRef {
			return last
		}
	}
	var before *table.Snapshot
	for _, s := range bySequence(meta) {
		if s.SequenceNumber > since {
			parent := s.ParentSnapshotID
			there := parent != nil && meta.SnapshotByID(*parent) != nil
			if s.Summary == nil || s.Summary.Properties[propCommit] == "" || there && (before == nil || *parent != before.SnapshotID) {
				return last
			}
		}
		before = &s
	}
	return since
}

// onLine says that a gap and what is beside it lie in the part of the history that is one line.
func (g gap) onLine(since int64) bool {
	return g.gone[0].SequenceNumber > since && (g.before == nil || g.before.SequenceNumber > since)
}

// unlink lists the objects that only the snapshots of a gap need, where the history is one line: what was added after before is in no
// older snapshot, and what after does not have is in no later one.
func (t *icebergTable) unlink(ctx context.Context, g gap, to objects) error {
	stay, newest, err := t.manifestsAround(ctx, g)
	if err != nil {
		return err
	}
	oldest := int64(-1)
	if g.before != nil {
		oldest = g.before.SequenceNumber
	}
	var dead []iceberg.ManifestFile
	for _, s := range g.gone {
		to.add(s.ManifestList)
		list, err := t.manifestsOf(ctx, s)
		if err != nil {
			return err
		}
		for _, m := range list {
			if !stay.has(m.FilePath()) && m.SequenceNum() > oldest && to.add(m.FilePath()) {
				dead = append(dead, m)
			}
		}
	}
	if t.quiet(g) {
		return nil
	}
	files, err := t.liveIn(ctx, dead, oldest)
	if err != nil || len(files) == 0 {
		return err
	}
	return t.addDead(ctx, g, files, newest, to)
}

// manifestsAround are the manifests of the two snapshots that stay, and those of the later one.
func (t *icebergTable) manifestsAround(ctx context.Context, g gap) (stay objects, newest []iceberg.ManifestFile, err error) {
	stay = t.lake.noObjects()
	if newest, err = t.manifestsOf(ctx, g.after); err != nil {
		return stay, nil, err
	}
	older := []iceberg.ManifestFile{}
	if g.before != nil {
		if older, err = t.manifestsOf(ctx, *g.before); err != nil {
			return stay, nil, err
		}
	}
	for _, m := range slices.Concat(older, newest) {
		stay.add(m.FilePath())
	}
	return stay, newest, nil
}

// manifestsOf reads a snapshot's list.
func (t *icebergTable) manifestsOf(ctx context.Context, s table.Snapshot) ([]iceberg.ManifestFile, error) {
	list, err := s.Manifests(t.lake.avroFiles(ctx))
	return list, unreadable(ctx, t.where(), err, "the manifests of a snapshot cannot be listed")
}

// liveIn reads the live files of manifests that were added after a sequence number.
func (t *icebergTable) liveIn(ctx context.Context, manifests []iceberg.ManifestFile, oldest int64) (files []liveFile, err error) {
	for _, m := range manifests {
		live, err := t.readManifest(ctx, m)
		if err != nil {
			return nil, err
		}
		for _, f := range live {
			if seq := f.entry.FileSequenceNum(); seq != nil && *seq > oldest {
				files = append(files, f)
			}
		}
	}
	return files, nil
}

// addDead adds the files that the snapshot after the gap no longer has. What it has, and a manifest that goes had too, is in a manifest that
// was written after the gap's first snapshot. Deletion vectors share files, of which each manifest may have a part.
func (t *icebergTable) addDead(ctx context.Context, g gap, files []liveFile, newest []iceberg.ManifestFile, to objects) error {
	shared := slices.ContainsFunc(files, func(f liveFile) bool { return f.File().FileFormat() == iceberg.PuffinFile })
	live := t.lake.noObjects()
	for _, m := range newest {
		later, part := m.SequenceNum() > g.gone[0].SequenceNumber, shared && m.ManifestContent() == iceberg.ManifestContentDeletes
		if !later && !part {
			continue
		}
		has, err := t.readManifest(ctx, m)
		if err != nil {
			return err
		}
		for _, f := range has {
			live.add(f.File().FilePath())
		}
	}
	for _, f := range files {
		if path := f.File().FilePath(); !live.has(path) {
			to.add(path)
		}
	}
	return nil
}

// quiet says that no file went from the table from the gap's first snapshot to the one after it, as far as this process has seen.
func (t *icebergTable) quiet(g gap) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	from, to := g.gone[0].SequenceNumber, g.after.SequenceNumber
	return from >= t.watched && !slices.ContainsFunc(t.removals, func(seq int64) bool { return from < seq && seq <= to })
}

// mostRemovals is how many commits that removed files are remembered.
const mostRemovals = 256

// noteRemoval remembers that a snapshot removed files. t.mu is held.
func (t *icebergTable) noteRemoval(seq int64) {
	if len(t.removals) == mostRemovals {
		t.watched, t.removals = t.removals[0], t.removals[1:]
	}
	t.removals = append(t.removals, seq)
}
