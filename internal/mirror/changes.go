package mirror

import (
	"context"
	"crypto/sha256"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// changesFolder is where a table of change files has its manifests, one a commit. docs/FORMAT.md describes them.
const changesFolder = "_manifests"

// changesManifest is what a mirror reads of one.
type changesManifest struct {
	Files []struct {
		Key   string `json:"key"`
		Bytes int64  `json:"bytes"`
	} `json:"files"`
}

// plausible says whether it can be one of ours: other programs may name their files so.
func (m *changesManifest) plausible() bool {
	for _, f := range m.Files {
		if f.Key == "" || f.Bytes < 0 {
			return false
		}
	}
	return true
}

// carryChanges makes commits of change files visible, each after its files; what points to manifests comes after all of them. Readers take
// manifests by their numbers and end at the first that is missing, so their order among themselves is free.
func (r *run) carryChanges(ctx context.Context) error {
	if err := r.carryEach(ctx, r.later.changes.all(), r.carryCommit); err != nil {
		return err
	}
	return r.carryEach(ctx, r.later.pointers.all(), r.carry)
}

// carryCommit carries a manifest that the far side lacks, and before it what it names and this run has not brought: a pipeline at work
// writes files behind the place that the listing has come to.
func (r *run) carryCommit(ctx context.Context, j job) error {
	if !r.o.DryRun && (j.far == nil || !sameETag(j.object, *j.far)) {
		if err := r.bringNamed(ctx, j.object.Key); err != nil {
			return err
		}
	}
	return r.carry(ctx, j)
}

func (r *run) bringNamed(ctx context.Context, manifest string) error {
	data, err := bucket.ReadAll(ctx, r.from.bucket, manifest, maxChanges)
	if fault.Is(err, fault.ObjectMissing) {
		return nil // carry finds out what that means
	}
	if err != nil {
		return err
	}
	var m changesManifest
	if bucket.DecodeJSON(data, &m) != nil || !m.plausible() {
		return nil //nolint:nilerr // another program's, under the same name
	}
	below := strings.TrimSuffix(folderOf(manifest), changesFolder)
	sums, sizes := map[string]*[sha256.Size]byte{}, map[string]int64{}
	for _, f := range m.Files {
		_, inTable, _ := strings.Cut(f.Key, "/") // the manifest names keys below the root that it was written to
		sums[below+inTable], sizes[below+inTable] = nil, f.Bytes
	}
	if err := r.sums.find(sums); err != nil {
		return err
	}
	for key, brought := range sums {
		if brought != nil {
			continue
		}
		if there, err := r.named(ctx, key, sizes[key], manifest); err != nil {
			return err
		} else if there {
			continue
		}
		j, err := r.fileJob(ctx, bucket.Object{Key: key, Size: sizes[key]}, true)
		if err == nil {
			err = r.carry(ctx, j)
		}
		if err != nil {
			return fault.Wrap(err, codeOf(err), r.where(key), "a file that %s names cannot be carried", manifest)
		}
	}
	return nil
}

// maxChanges bounds what is read of an object that says it is a manifest.
const maxChanges = 64 << 20
