package mirror

import (
	"context"
	"io/fs"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// named decides about an object that another object of the source names, by, and that no listing has brought here. Files of others name what they
// like: what leat keeps for itself is not followed, nor what lies outside of the source's path or the filter. It says whether the object needs no
// carrying, because the filter leaves it out and the target has it; size is below zero where it is not known.
func (r *run) named(ctx context.Context, key string, size int64, by string) (there bool, err error) {
	switch {
	case ours(key):
		return false, fault.New(fault.KeyRefused, r.where(key), "%s names this object, which leat keeps for its own work: it is not carried", by).
			WithMend("Look at who wrote %s, or leave it out with --exclude.", by)
	case !r.o.Filter.names(key):
		return r.leftToOthers(ctx, key, size, by)
	case fs.ValidPath(key) && !strings.ContainsAny(key, `\%`):
		return false, nil
	}
	// A server may take it for another one, outside of the path: only what the listing shows under it is below the path for sure.
	_, err = r.inListing(ctx, key)
	if fault.Is(err, fault.ObjectMissing) {
		err = fault.New(fault.KeyRefused, r.where(key), "%s names the key %q, which the source does not list: it may lie outside of the source's path", by, key).
			WithMend("Look at who wrote %s, or leave it out with --exclude.", by)
	}
	return false, err
}

// leftToOthers looks whether the target has a file that the filter leaves out and another one names.
func (r *run) leftToOthers(ctx context.Context, key string, size int64, by string) (there bool, err error) {
	if bucket.Holds(ctx, r.to.bucket, key) == nil {
		var far bucket.Object
		err = r.insist(ctx, key, func() (err error) { far, err = r.to.bucket.Stat(ctx, key); return err })
		if err == nil && (size < 0 || far.Size == size) {
			return true, nil
		}
		if err != nil && !fault.Is(err, fault.ObjectMissing) {
			return false, err
		}
	}
	return false, r.filteredOut(key, by)
}

func (r *run) filteredOut(key, by string) error {
	return fault.New(fault.MirrorIncomplete, r.where(key), "%s names this file, and the filter leaves it out", by).
		WithMend("Include the file too, or leave out %s as well.", by)
}
