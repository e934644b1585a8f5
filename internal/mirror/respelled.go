package mirror

import (
	"context"
	"errors"
	"strings"
	"sync"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// respelled are what the target has under another spelling than the source: its file system takes the two names for one. What stands there
// belongs to an object that the source still has, and is deleted under its old name only where nothing else stands in the new name's way.
type respelled struct {
	mu    sync.Mutex
	paths map[string]*spelled // of files and folders at the target
	full  bool
	over  bool // what is refused now fails
}

// spelled is a file or a folder at the target.
type spelled struct {
	failed int64 // tables and dumps that it is in the way of
	has    int64 // objects of the target that are it, or lie in it, and what else does
	goes   int64 // of those, what is to be deleted
}

// mostRespelled bounds what is remembered. With more nothing is deleted.
const mostRespelled = 100_000

// note remembers why an object was refused, and says whether that is a spelling.
func (r *respelled) note(err error) (*spelled, bool) {
	var other *bucket.OtherSpelling
	if !errors.As(err, &other) {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil {
		r.paths = map[string]*spelled{}
	}
	of := r.paths[other.As]
	switch {
	case of != nil:
	case len(r.paths) < mostRespelled:
		of = &spelled{}
		r.paths[other.As] = of
	default:
		r.full = true
	}
	return of, true
}

// each calls do for those that a key is, or lies in.
func (r *respelled) each(key string, do func(*spelled)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.paths) == 0 {
		return
	}
	for at := key; at != ""; at = folderOf(at) {
		if of := r.paths[at]; of != nil {
			do(of)
		}
	}
}

// stays says whether a key is one that stays at the target, or lies in a folder that does.
func (r *respelled) stays(key string) bool {
	stays := r.full
	r.each(key, func(of *spelled) { stays = stays || !of.vanishes() })
	return stays
}

// vanishes says whether all of it is to be deleted.
func (s *spelled) vanishes() bool { return s.goes == s.has && s.has > 0 }

// freed counts the tables and dumps that failed only because of what is to be deleted.
func (r *respelled) freed() (n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, of := range r.paths {
		if of.vanishes() && !r.full {
			n += of.failed
		}
	}
	return n
}

// waits keeps a plain object for the end of the run, when what the target has in its place under another spelling may be deleted.
func (r *run) waits(j job, err error) bool {
	_, is := r.respelled.note(err)
	if !is || !r.o.Delete || classify(j.object.Key) != classData {
		return false
	}
	r.respelled.mu.Lock()
	defer r.respelled.mu.Unlock()
	return !r.respelled.over && r.later.respelled.put(entry{Object: j.object, Far: j.far}) == nil
}

// setAside is for what holds up deletions. Where its own key is what the target has under another spelling, that may be deleted all the same: what the
// target shows of it is under the old spelling too.
func (r *run) setAside(ctx context.Context, key string, err error) {
	if of, is := r.respelled.note(r.held(ctx, key)); is && of != nil {
		r.respelled.mu.Lock()
		of.failed++
		r.respelled.mu.Unlock()
	} else {
		r.respelled.note(err)
	}
	r.tally.setAside(key, err)
}

// judgeRespelled looks which of them go as a whole: the source has nothing left under that spelling.
func (r *run) judgeRespelled(ctx context.Context) error {
	if len(r.respelled.paths) == 0 {
		return nil
	}
	for _, q := range r.later.deletions.all() {
		for e, err := range q.all() {
			if err != nil {
				return err
			}
			if !r.isForeign(e.Key) {
				r.respelled.each(e.Key, func(of *spelled) { of.goes++ })
			}
		}
	}
	stays := func(key string) { r.respelled.each(key, func(of *spelled) { of.has++ }) }
	for o, err := range bucket.ListAll(ctx, r.to.bucket, "", func(s bucket.Stray) { stays(strings.TrimSuffix(s.Key, "/")) }) {
		if err != nil {
			return err
		}
		stays(o.Key)
	}
	return nil
}

// keepRespelled leaves out what would be deleted although the source has it under another spelling, which could not be carried after it.
func (r *run) keepRespelled(key string) bool {
	if !r.respelled.stays(key) {
		return false
	}
	r.tally.leftOut(key, fault.New(fault.KeyRefused, r.to.bucket.Properties().URL+"/"+key,
		"the source has it under another spelling, which the target's file system takes for the same name, and not all of what is there is gone from the source: it is not deleted").
		WithMend("Rename it at the target as the source has it now, or delete it there by hand."))
	return true
}

// carryRespelled carries what has waited for the deletion of other spellings. What is still in its way fails.
func (r *run) carryRespelled(ctx context.Context) error {
	r.respelled.mu.Lock()
	r.respelled.over = true
	r.respelled.mu.Unlock()
	return r.carryEach(ctx, r.later.respelled.all(), func(ctx context.Context, j job) error {
		var other *bucket.OtherSpelling
		if r.o.DryRun && errors.As(r.held(ctx, j.object.Key), &other) && !r.respelled.stays(other.As) {
			r.tally.compared(j.object, Verdict{Differ: ReasonMissing})
			return nil
		}
		return r.carry(ctx, j)
	})
}

// refuseRespelled is for a run that deletes nothing, because it ends: what has waited fails.
func (r *run) refuseRespelled(ctx context.Context) {
	if r.respelled.over {
		return
	}
	for e, err := range r.later.respelled.all() {
		if err != nil {
			return
		}
		if err := r.held(ctx, e.Key); err != nil {
			r.tally.setUnheld(e.Key, err)
		}
	}
}
