package mirror

import (
	"context"
	"sync"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
)

// veils keeps dumps of which files are being replaced out of sight: a second dump of one day writes over the files of the first one. What
// the far side's manifest says of them would be wrong, so the manifest goes first, as it does at the source, and comes back when all is there.
type veils struct {
	mu   sync.Mutex
	gone map[string]bool // manifests that were taken away
}

// lift takes away what names an object at the far side that is about to be replaced. A manifest that the filter leaves out would not come back: it stays,
// and so does the object.
func (v *veils) lift(ctx context.Context, far side, passes func(key string) bool, key string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	for folder := folderOf(key); ; folder = folderOf(folder) {
		named, err := far.dumps.of(ctx, folder)
		if err != nil {
			return err
		}
		if named.has(key) {
			manifest := dump.ManifestKey(folder)
			if !passes(manifest) {
				return fault.New(fault.MirrorIncomplete, far.bucket.Properties().URL+"/"+key, "the dump's manifest names this file, and the filter leaves the manifest out").
					WithMend("Include the manifest of the dump too: --include '**/%s'.", dump.ManifestName)
			}
			if err := far.bucket.Delete(ctx, manifest); err != nil {
				return err
			}
			far.dumps.forget(folder)
			if v.gone == nil {
				v.gone = map[string]bool{}
			}
			v.gone[manifest] = true
		}
		if folder == "" {
			return nil
		}
	}
}

// lifted says whether a manifest was taken away.
func (v *veils) lifted(manifest string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.gone[manifest]
}
