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
	oldest := int64(-1)
	if g.before != nil {
		oldest = g.before.SequenceNumber
	}
	for _, s := range g.gone {
		to.add(s.ManifestList)
	}
	dead, known := t.dropped(g, oldest)
	if !known {
		var err error
		if dead, err = t.lostIn(ctx, g, oldest); err != nil {
			return err
		}
	}
	for _, m := range dead {
		to.add(m.FilePath())
	}
	if t.quiet(g) {
		return nil
	}
	files, err := t.liveIn(ctx, dead, oldest)
	if err != nil || len(files) == 0 {
		return err
	}
	return t.addDead(ctx, g, files, to)
}

// lostIn reads which manifests of a gap's snapshots neither of its neighbours has.
func (t *icebergTable) lostIn(ctx context.Context, g gap, oldest int64) (dead []iceberg.ManifestFile, err error) {
	beside := []table.Snapshot{g.after}
	if g.before != nil {
		beside = append(beside, *g.before)
	}
	seen := t.lake.noObjects()
	for _, s := range beside {
		list, err := t.manifestsOf(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			seen.add(m.FilePath())
		}
	}
	for _, s := range g.gone {
		list, err := t.manifestsOf(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if m.SequenceNum() > oldest && !seen.has(m.FilePath()) {
				seen.add(m.FilePath())
				dead = append(dead, m)
			}
		}
	}
	return dead, nil
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
func (t *icebergTable) addDead(ctx context.Context, g gap, files []liveFile, to objects) error {
	newest, err := t.manifestsOf(ctx, g.after)
	if err != nil {
		return err
	}
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

// mostRemovals is how many commits that removed files are remembered, and mostDrops how many manifests that went.
const (
	mostRemovals = 256
	mostDrops    = 512
)

// noteRemoval remembers that a snapshot removed files. t.mu is held.
func (t *icebergTable) noteRemoval(seq int64) {
	if len(t.removals) == mostRemovals {
		t.watched, t.removals = t.removals[0], t.removals[1:]
	}
	t.removals = append(t.removals, seq)
}

// drop is a manifest that the snapshot of a sequence number no longer has, and the one before had.
type drop struct {
	seq      int64
	manifest iceberg.ManifestFile
}

// noteDrops remembers which manifests a snapshot has dropped. t.mu is held.
func (t *icebergTable) noteDrops(seq int64, before, after []iceberg.ManifestFile) {
	has := make(map[string]bool, len(after))
	for _, m := range after {
		has[m.FilePath()] = true
	}
	for _, m := range before {
		if !has[m.FilePath()] {
			t.drops = append(t.drops, drop{seq, m})
		}
	}
	t.keepDrops(mostDrops)
}

// keepDrops forgets the oldest of too many. t.mu is held.
func (t *icebergTable) keepDrops(most int) {
	if over := len(t.drops) - most; over > 0 {
		t.dropsSince = t.drops[over-1].seq
		t.drops = slices.DeleteFunc(t.drops, func(d drop) bool { return d.seq <= t.dropsSince })
	}
}

// dropped is which manifests of a gap's snapshots neither of its neighbours has, if this process has seen them go.
func (t *icebergTable) dropped(g gap, oldest int64) (dead []iceberg.ManifestFile, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	to := g.after.SequenceNumber
	if g.gone[0].SequenceNumber < t.dropsSince {
		return nil, false
	}
	for _, d := range t.drops {
		had := func(s table.Snapshot) bool { // else an earlier expiry has taken all that had it
			return d.manifest.SequenceNum() <= s.SequenceNumber && s.SequenceNumber < d.seq
		}
		if d.seq <= to && d.manifest.SequenceNum() > oldest && slices.ContainsFunc(g.gone, had) {
			dead = append(dead, d.manifest)
		}
	}
	return dead, true
}
