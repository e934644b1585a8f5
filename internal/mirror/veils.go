package mirror

import (
	"context"
	"sync"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
)

// veils keeps dumps of which files are being replaced out of sight: a second dump of one day writes over the files of the first one. What
// the far side's manifest says of them would be wrong, so the manifest goes first, as it does at the source, and comes back when all is there.
type veils struct {
	mu    sync.Mutex
	named map[string]map[string]bool // by folder, the files that its far manifest names; nil where there is none
	gone  map[string]bool            // manifests that were taken away
}

// lift takes away what names an object at the far side that is about to be replaced.
func (v *veils) lift(ctx context.Context, far bucket.Bucket, key string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for folder := folderOf(key); ; folder = folderOf(folder) {
		named, err := v.namedBy(ctx, far, folder)
		if err != nil {
			return err
		}
		if named[key] {
			manifest := dump.ManifestKey(folder)
			if err := far.Delete(ctx, manifest); err != nil {
				return err
			}
			v.named[folder], v.gone[manifest] = nil, true
		}
		if folder == "" {
			return nil
		}
	}
}

// namedBy reads what the manifest of a folder names, once.
func (v *veils) namedBy(ctx context.Context, far bucket.Bucket, folder string) (map[string]bool, error) {
	if named, known := v.named[folder]; known {
		return named, nil
	}
	if v.named == nil || len(v.named) >= mostRemembered {
		v.named = map[string]map[string]bool{}
	}
	if v.gone == nil {
		v.gone = map[string]bool{}
	}
	m, err := dump.ReadManifest(ctx, far, folder)
	switch {
	case fault.Is(err, fault.ObjectMissing), fault.Is(err, fault.BucketFailed), fault.Is(err, fault.BucketUnsupported):
		v.named[folder] = nil // or it is another program's
		return nil, nil
	case err != nil:
		return nil, err
	}
	named := map[string]bool{}
	for _, f := range filesOf(m, folder) {
		named[f.Key] = true
	}
	v.named[folder] = named
	return named, nil
}

// lifted says whether a manifest was taken away.
func (v *veils) lifted(manifest string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gone[manifest]
}
