package mirror

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// counted is how many objects of the source take part, how many the target had, and by how many of those the source has fewer.
type counted struct{ from, had, lost int64 }

// leastShrunk is how many objects must be missing before their share of all counts.
const leastShrunk = 20

// deleteAll removes what the source no longer has: first what names other objects, so that nothing visible leads to what is gone. Where
// something was set aside nothing is deleted: what the target still shows in its place may need what the source no longer has.
func (r *run) deleteAll(ctx context.Context) error {
	if err := r.leaveForeign(); err != nil {
		return err
	}
	n := 0
	for _, q := range r.later.deletions.all() {
		n += q.n
	}
	if n -= int(r.foreign.objects); n == 0 {
		return nil
	}
	if err := r.mayDelete(n); err != nil {
		return err
	}
	if err := r.judgeRespelled(ctx); err != nil {
		return err
	}
	if r.tally.holdsUp(r.respelled.freed()) {
		r.tally.add(func(report *Report) { report.Withheld = int64(n) })
		return nil
	}
	for _, q := range r.later.deletions.all() {
		var batch []bucket.Object
		for e, err := range q.all() {
			if err != nil {
				return err
			}
			if r.isForeign(e.Key) || r.keepRespelled(e.Key) {
				continue
			}
			if batch = append(batch, e.Object); len(batch) == deletedAtOnce {
				if err := r.deleteGone(ctx, batch); err != nil {
					return err
				}
				batch = batch[:0]
			}
		}
		if err := r.deleteGone(ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// mayDelete refuses to delete more than is allowed, and to believe a listing of the source that has lost much.
func (r *run) mayDelete(n int) error {
	l := &r.listed
	switch {
	case l.from == 0:
		return fault.New(fault.MirrorRefused, r.from.bucket.Properties().URL, "the source has no objects and %d at the target would be deleted: nothing is deleted", n).
			WithMend("If the source is meant to be empty, delete the objects at the target by hand.")
	case n > r.o.MaxDelete:
		return fault.New(fault.MirrorRefused, r.to.bucket.Properties().URL, "%d objects would be deleted, and at most %d may be: nothing is deleted", n, r.o.MaxDelete).
			WithMend("If it is meant, give --max-delete %d.", n)
	case l.lost > leastShrunk && l.lost*100 > int64(r.o.MaxDeleteShare)*l.had:
		share := min((l.lost*100+l.had-1)/l.had, 100)
		return fault.New(fault.MirrorRefused, r.from.bucket.Properties().URL,
			"the source lists %d objects fewer than the %d that the target has, which is %d %%, and at most %d %% may be missing: nothing is deleted",
			l.lost, l.had, share, r.o.MaxDeleteShare).
			WithMend("Look at the source. If so many objects are meant to be gone, give --max-delete-share %d.", share)
	}
	return nil
}

const deletedAtOnce = 1000

// deleteGone deletes those objects that the source does not have. Its listing alone is not believed: a server may end one too early and say that it
// is whole, so each object is asked for right before.
func (r *run) deleteGone(ctx context.Context, objects []bucket.Object) error {
	there, errs := make([]*bucket.Object, len(objects)), make([]error, len(objects))
	var asking errgroup.Group
	asking.SetLimit(r.o.Parallel)
	for i, o := range objects {
		asking.Go(func() error {
			errs[i] = r.guarded(o.Key, func() (err error) {
				if there[i], err = r.atSource(ctx, o.Key); err == nil && there[i] == nil {
					err = r.isBeside(ctx, o.Key)
				}
				return err
			})
			return nil
		})
	}
	_ = asking.Wait() // each error is one object's
	// By the source's clock, which tells when its objects were written, in whole seconds.
	since := r.began.Add(bucket.Ahead(r.from.bucket) - time.Second)
	var gone []string
	var missed *bucket.Object
	for i, o := range objects {
		switch here := there[i]; {
		case errs[i] != nil && r.ends(ctx, errs[i]):
			return errs[i]
		case errs[i] != nil:
			r.tally.setAside(o.Key, errs[i])
		case here == nil:
			gone = append(gone, o.Key)
		default:
			r.tally.add(func(report *Report) { report.Unlisted++ })
			// One that is new was written behind the place that the listing had come to.
			if sameETag(o, *here) || here.Modified.Before(since) {
				missed = here
			}
		}
	}
	if missed != nil {
		return fault.New(fault.MirrorRefused, r.where(missed.Key), "the source has this object and its listing left it out: the listing cannot be believed, and nothing more is deleted").
			WithMend("Look at the source's server: its listings are not whole.")
	}
	if len(gone) > 0 && !r.o.DryRun {
		return r.remove(ctx, gone)
	}
	for _, key := range gone {
		r.tally.deleted(key)
	}
	return nil
}

// remove deletes objects at once, or one by one where that fails: a target may refuse to delete one of them.
func (r *run) remove(ctx context.Context, keys []string) error {
	err := r.to.bucket.Delete(ctx, keys...)
	switch {
	case err != nil && r.ends(ctx, err):
		return err
	case err != nil && len(keys) > 1:
		for _, key := range keys {
			if err := r.remove(ctx, []string{key}); err != nil {
				return err
			}
		}
	case err != nil:
		r.tally.setAside(keys[0], err)
	default:
		for _, key := range keys {
			r.tally.deleted(key)
		}
	}
	return nil
}

// atSource looks whether the source has an object; nil without one. What the look itself cannot be made for is an error, and no answer.
func (r *run) atSource(ctx context.Context, key string) (*bucket.Object, error) {
	var o bucket.Object
	err := r.insist(ctx, key, func() (err error) { o, err = r.from.bucket.Stat(ctx, key); return err })
	switch {
	case fault.Is(err, fault.ObjectMissing):
		return nil, nil
	case fault.Is(err, fault.UsageInvalid): // its kind takes no such key in a request, and may list one
		return r.listedAtSource(ctx, key)
	case err == nil && r.from.bucket.Properties().Kind == bucket.KindFolder &&
		fault.Is(bucket.Holds(ctx, r.from.bucket, key), fault.KeyRefused):
		return nil, nil // a file that a link leads to: another key's
	}
	return &o, err
}

// insist tries again what may heal, as often as an object is tried.
func (r *run) insist(ctx context.Context, key string, try func() error) error {
	for n := 1; ; n++ {
		err := try()
		if err == nil || ctx.Err() != nil || !fault.Retryable(err) || n >= r.o.Attempts {
			return err
		}
		if err := r.pause(ctx, job{object: bucket.Object{Key: key}, attempts: n}, err); err != nil {
			return err
		}
	}
}

// listedAtSource asks for the listing of one key.
func (r *run) listedAtSource(ctx context.Context, key string) (*bucket.Object, error) {
	for o, err := range r.from.bucket.List(ctx, key) {
		if err != nil || o.Key == key {
			return &o, err
		}
		break // longer keys come behind it
	}
	return nil, nil
}
