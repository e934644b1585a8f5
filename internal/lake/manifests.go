package lake

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"golang.org/x/sync/errgroup"
)

// Manifests are merged by size, so that an entry is written anew a few times in its life however many commits there are.
const (
	leastManifest   = 16 << 10 // bytes up to which manifests are of the smallest class; each class has four times those before
	fullManifest    = 4 << 20  // of this size they are left alone
	mergedBytes     = 8 << 20  // of what becomes one manifest
	leastManifests  = 16       // of one class are worth it
	classesAtCommit = 2        // of these smallest classes a commit merges itself; maintenance does the others
	manifestsAtOnce = 16
)

// mergedManifest is a manifest that is written and takes the place of others.
type mergedManifest struct {
	file iceberg.ManifestFile
	of   map[string]bool // their paths
}

// manifestClass is of what manifests may become one.
type manifestClass struct {
	content iceberg.ManifestContent
	size    int
}

// classesOf parts the manifests that may be merged: those of one content, size class and partition spec. Others' specs are left alone.
func classesOf(all []iceberg.ManifestFile, spec int) map[manifestClass][]iceberg.ManifestFile {
	classes := map[manifestClass][]iceberg.ManifestFile{}
	for _, m := range all {
		if m.Length() >= fullManifest || int(m.PartitionSpecID()) != spec {
			continue
		}
		k := manifestClass{content: m.ManifestContent()}
		for size := int64(leastManifest); m.Length() >= size; size *= 4 {
			k.size++
		}
		classes[k] = append(classes[k], m)
	}
	return classes
}

// manifestGroups picks manifests to be merged.
func manifestGroups(all []iceberg.ManifestFile, spec int) [][]iceberg.ManifestFile {
	var groups [][]iceberg.ManifestFile
	for _, of := range classesOf(all, spec) {
		if len(of) >= leastManifests {
			groups = append(groups, bySize(of, iceberg.ManifestFile.Length)...)
		}
	}
	return slices.DeleteFunc(groups, func(g []iceberg.ManifestFile) bool { return len(g) < 2 })
}

// smallestGroup picks what a commit itself merges: the smallest class that has enough of them, data before deletes.
func smallestGroup(all []iceberg.ManifestFile, spec int) []iceberg.ManifestFile {
	classes := classesOf(all, spec)
	for size := range classesAtCommit {
		for _, content := range []iceberg.ManifestContent{iceberg.ManifestContentData, iceberg.ManifestContentDeletes} {
			if of := classes[manifestClass{content, size}]; len(of) >= leastManifests {
				return of
			}
		}
	}
	return nil
}

// bySize cuts a list in pieces of mergedBytes.
func bySize[T any](list []T, size func(T) int64) [][]T {
	var out [][]T
	var sum int64
	for i, of := range list {
		if n := size(of); i == 0 || sum+n > mergedBytes {
			out, sum = append(out, nil), 0
		}
		out[len(out)-1] = append(out[len(out)-1], of)
		sum += size(of)
	}
	return out
}

// planManifests writes merged manifests beside the ingest. They belong to the snapshot of the given id.
func (t *icebergTable) planManifests(ctx context.Context) (id int64, merged []mergedManifest, err error) {
	w := &snapshotWriter{table: t, meta: t.now().Metadata(), id: snapshotID(), name: fresh()}
	spec := t.now().Spec()
	for _, group := range manifestGroups(t.manifestsNow(), spec.ID()) {
		m, err := w.mergeGroup(ctx, group)
		if err != nil {
			t.dropManifests(ctx, merged)
			return 0, nil, err
		}
		merged = append(merged, m)
	}
	return w.id, merged, nil
}

func (t *icebergTable) manifestsNow() []iceberg.ManifestFile {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.manifests
}

// mergeGroup writes one manifest of the live entries of several, the oldest first. Each entry keeps its snapshot and its sequence numbers.
func (w *snapshotWriter) mergeGroup(ctx context.Context, group []iceberg.ManifestFile) (mergedManifest, error) {
	files := make([][]liveFile, len(group))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(manifestsAtOnce)
	for i, m := range group {
		g.Go(w.table.safely(func() (err error) {
			if data, ours := w.table.lake.recent.get(m.FilePath()); ours {
				files[i], err = w.table.filesIn(gctx, m, bytes.NewReader(data))
			} else {
				files[i], err = w.table.readManifest(gctx, m)
			}
			return err
		}))
	}
	if err := g.Wait(); err != nil {
		return mergedManifest{}, err
	}
	merged := mergedManifest{of: map[string]bool{}}
	for _, m := range group {
		merged.of[m.FilePath()] = true
	}
	slices.Reverse(files)
	var err error
	merged.file, err = w.manifest(ctx, group[0].ManifestContent(), func(out *manifestWriter) error {
		for _, f := range slices.Concat(files...) {
			if err := out.existing(f.entry); err != nil {
				return err
			}
		}
		return nil
	})
	return merged, err
}

// commitManifests puts merged manifests in the place of those they were made of. Where a commit of the ingest has written one of
// these anew meanwhile, the merged one is given up. It says how many went.
func (t *icebergTable) commitManifests(ctx context.Context, id int64, merged []mergedManifest) (before int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return 0, t.broken
	}
	have := make(map[string]bool, len(t.manifests))
	for _, m := range t.manifests {
		have[m.FilePath()] = true
	}
	var late []mergedManifest
	merged = slices.DeleteFunc(slices.Clone(merged), func(m mergedManifest) bool {
		for path := range m.of {
			if !have[path] {
				late = append(late, m)
				return true
			}
		}
		before += len(m.of)
		return false
	})
	t.dropManifests(ctx, late)
	if len(merged) == 0 {
		return 0, nil
	}
	d := delta{rewrite: true, id: id, merged: merged, summary: iceberg.Properties{
		"manifests-created":  strconv.Itoa(len(merged)),
		"manifests-replaced": strconv.Itoa(before),
		"manifests-kept":     strconv.Itoa(len(t.manifests) - before),
	}}
	t.broken = t.safely(func() error { return t.commitLocked(ctx, d) })()
	return before, t.broken
}

// dropManifests removes merged manifests that no snapshot has. What cannot be removed is left to Sweep.
func (t *icebergTable) dropManifests(ctx context.Context, merged []mergedManifest) {
	names := make([]string, len(merged))
	for i, m := range merged {
		names[i] = m.file.FilePath()
	}
	if _, err := t.lake.removeAll(ctx, names...); err != nil {
		t.lake.Log.Warn("manifests that are not needed could not be removed", "table", t.where(), "error", err)
	}
}
