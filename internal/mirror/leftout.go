package mirror

import (
	"context"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// marker says whether an object stands for a folder, as consoles and sync tools make them.
func marker(o bucket.Object) bool { return o.Size == 0 && strings.HasSuffix(o.Key, "/") }

// leaveMarker leaves out a marker that the target cannot have: only S3 has such keys.
func (r *run) leaveMarker(key string) {
	r.tally.leftOut(key, fault.New(fault.ObjectMarker, r.where(key), "it stands for a folder, which the target has without it"))
}

// stray is told what lies at the source and is no object. What holds no bytes of its own is left out; what may hold some, and was not
// read, fails.
func (r *run) stray(s bucket.Stray) {
	matches := func(g Glob) bool { return g.Match(strings.TrimSuffix(s.Key, "/")) || g.Match(s.Key) }
	folder := strings.HasSuffix(s.Key, "/") // of which nothing is known: what it holds may pass
	switch {
	case ours(s.Key), slices.ContainsFunc(r.o.Filter.Exclude, matches), !folder && !r.o.Filter.names(s.Key):
	case fault.Is(s.Why, fault.ObjectLink), fault.Is(s.Why, fault.ObjectSpecial):
		r.tally.leftOut(s.Key, s.Why)
	default:
		r.tally.setAside(s.Key, s.Why)
	}
}

// archived decides about an object that must be restored before it can be read.
func (r *run) archived(ctx context.Context, j job, err error) error {
	switch {
	case r.o.Archived == ArchivedSkip && !j.needed && !j.exact:
		r.tally.leftOut(j.object.Key, err)
		return nil
	case r.o.Archived != ArchivedRestore:
		return err
	case r.from.carrier == nil:
		return fault.Wrap(err, fault.ObjectArchived, r.where(j.object.Key), "leat cannot ask this kind of source to restore objects")
	}
	if err := r.from.carrier.Restore(ctx, j.object.Key, r.o.RestoreDays, r.o.RestoreTier); err != nil {
		return err
	}
	return fault.New(fault.ObjectRestoring, r.where(j.object.Key), "it was asked for from the archive; a later run carries it")
}
