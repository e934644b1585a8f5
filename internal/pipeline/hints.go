package pipeline

import (
	"context"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
)

// Where commits leave the hints of their tables' newest versions behind, the run brings them up to date beside the loop
// and at its end. That some lag is saved with the position, so that the process after one that died brings them up to
// date too.

// findHints lists the tables whose hints an earlier process may have left behind.
func (r *run) findHints(next *again) {
	if !r.state.HintsBehind || next.hinted {
		return
	}
	var all []change.Table
	for _, t := range r.tables {
		if t.mode != checkpoint.Copying {
			all = append(all, change.Table{Schema: t.source.Schema, Name: t.source.Name})
		}
	}
	r.unhinted.Store(&all)
}

// keepHints brings hints up to date until the context ends.
func (r *run) keepHints(ctx context.Context) error {
	r.findLeft(ctx)
	if r.o.HintEvery <= 0 {
		return nil
	}
	tick := time.NewTicker(r.o.HintEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !r.lake.HintsBehind() {
			continue
		}
		if err := r.store.Confirm(ctx); err != nil { // the hints of a later owner must not be set back
			return err
		}
		r.lake.WriteHints(ctx, false)
	}
}

// findLeft brings the hints up to date that an earlier process left behind, and says whether there are none any more.
func (r *run) findLeft(ctx context.Context) bool {
	left := r.unhinted.Load()
	if left == nil {
		return true
	}
	if !r.lake.FindHints(ctx, *left) {
		return false
	}
	r.unhinted.Store(nil)
	return true
}

// noteHints takes whether hints lag into the state that is about to be saved.
func (r *run) noteHints() {
	r.state.HintsBehind = r.unhinted.Load() != nil || r.o.HintEvery > 0 && r.lake.HintsBehind()
}

// endHints brings all hints up to date when an attempt ends, whichever way it does. A failure is made good by the next
// attempt.
func (r *run) endHints(ctx context.Context, next *again) {
	if !r.state.HintsBehind && !r.lake.HintsBehind() {
		return
	}
	next.hinted = false // what an earlier attempt wrote says nothing of this one's commits
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), hintsWithin)
	defer cancel()
	if err := r.store.Confirm(ctx); err != nil {
		return
	}
	next.hinted = r.lake.WriteHints(ctx, true) && r.findLeft(ctx)
	if !next.hinted || !r.ended || !r.state.HintsBehind {
		return
	}
	r.state.HintsBehind = false
	if err := r.store.Save(ctx, r.state); err != nil {
		r.o.Log.Warn("the end of the run is not saved; the next one looks at the version hints of all tables", "error", err)
	}
}

// hintsWithin is how long the end of an attempt waits for hints.
const hintsWithin = 10 * time.Second
