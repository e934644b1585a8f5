package pipeline

import (
	"context"
	"slices"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
)

// lookAround is what the loop does between transactions for others: finished copies, requests, new tables, the guard.
func (r *run) lookAround(ctx context.Context) error {
	if err := r.takeCopied(ctx); err != nil {
		return err
	}
	// Each drain reads the spool from the oldest copy on: tables that end at about the same time share one.
	if len(r.drainable) > 0 && (!r.inDanger() || r.full()) && r.past(r.drainable) && (r.copying.Load() == 0 || r.now.Sub(r.drainedAt) >= drainEvery) {
		tables := r.drainable
		r.drainable, r.drainedAt, r.state.Guard = nil, r.now, ""
		if err := r.drain(ctx, tables); err != nil {
			return err
		}
	}
	if err := r.heed(ctx); err != nil {
		return err
	}
	if at := change.LSN(r.outwaited.Load()); at > 0 && r.position >= at && !r.indivisible.Load() {
		return r.takeLate(ctx)
	}
	// What was found with it is taken first. A copy that would begin again is not broken off for what can wait for its end.
	changed := r.urgent.Load() || (r.changed.Load() || r.recopyDue()) && !r.indivisible.Load()
	if _, err := r.takeSight(ctx); err != nil {
		return err
	}
	if changed {
		if err := r.commit(ctx); err != nil {
			return err
		}
		return &again{}
	}
	return r.guard(ctx)
}

// takeLate lets tables that came late be copied by the next attempt, whose log is opened at this position: nothing is missing there.
func (r *run) takeLate(ctx context.Context) error {
	for _, t := range r.tables {
		if t.late {
			t.late, t.since, t.claim = false, r.position, nil
			r.setMode(t, checkpoint.Copying)
		}
	}
	if err := r.commit(ctx); err != nil {
		return err
	}
	return &again{}
}

// takeCopied notes which copies have ended, where another process would look for it: a copy that has ended is not made again.
func (r *run) takeCopied(ctx context.Context) error {
	done := r.copied.take()
	if len(done) == 0 {
		return nil
	}
	for _, t := range done {
		r.setMode(t, checkpoint.Spooling)
		r.watchClaim(t)
	}
	r.drainable = append(r.drainable, done...)
	return r.store.Save(ctx, r.state)
}

// past says whether the log has come past everything that the copies' snapshots hold.
func (r *run) past(tables []*table) bool {
	return !slices.ContainsFunc(tables, func(t *table) bool { return r.position < t.upper })
}

const drainEvery = 30 * time.Second

// inDanger says that the log is drained into the bucket because the server keeps too much of it: the lake waits until that
// has helped, or the spool is full and cannot help.
func (r *run) inDanger() bool {
	return r.guarded() && r.o.GuardSpool > 0 && r.retained.Load() >= r.o.GuardSpool/2
}

// guarded says that the guard has sent the log to the spool. It is saved, so neither a retry nor another process forgets it.
func (r *run) guarded() bool { return r.state.Guard == checkpoint.GuardSpooling }

// settled says whether every table follows the log.
func (r *run) settled() bool {
	for _, t := range r.tables {
		if t.diverted() {
			return false
		}
	}
	return true
}

// heed takes up what an operator asked for while the run goes on.
func (r *run) heed(ctx context.Context) error {
	select {
	case <-r.asked:
	default:
		return nil
	}
	requests, _, err := r.store.Requests(ctx)
	if err != nil || len(requests) == 0 {
		return err
	}
	if r.log != nil {
		if err := r.commit(ctx); err != nil {
			return err
		}
	}
	return &again{} // the next attempt begins with takeRequests
}

// takeRequests reads what an operator asked for: pause, resume, a new copy. It is saved together with what follows from it,
// so a request survives a crash and is heeded once.
func (r *run) takeRequests(ctx context.Context, next *again) error {
	requests, keep, err := r.store.Requests(ctx)
	if err != nil {
		return err
	}
	r.state.Control.Done = keep
	for _, q := range requests {
		r.o.Log.Info("an operator asks", "for", q.Action, "tables", q.Tables, "all", q.All, "by", q.By)
		switch q.Action {
		case checkpoint.Pause:
			r.state.Control.Paused = true
		case checkpoint.Resume:
			r.state.Control.Paused = false
		case checkpoint.Resync:
			next.tables = append(next.tables, q.Tables...)
			next.all = next.all || q.All
		}
		r.state.Control.Done = append(r.state.Control.Done, q.ID)
	}
	return nil
}

// lookAll looks at the source beside the loop. It may have to wait for a table's lock, which tend must not.
func (r *run) lookAll(ctx context.Context) error {
	tables := time.NewTicker(tablesEvery)
	defer tables.Stop()
	soon := time.NewTimer(time.Hour)
	defer soon.Stop()
	for failed := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tables.C:
		case <-r.lookNow:
		case <-r.lookSoon:
			soon.Reset(afterDDL)
			continue
		case <-soon.C:
		}
		switch err := r.look(ctx); {
		case ctx.Err() != nil:
			return nil
		case err == nil && failed >= failedLooks:
			r.o.Log.Info("the tables can be looked at again")
			failed = 0
		case err == nil:
			failed = 0
		default: // the loop's own connection tells of a server that is gone
			if failed++; failed == failedLooks {
				r.o.Log.Warn("the tables cannot be looked at: new tables, and what the log does not tell, are noticed later", "error", err, "hint", fault.Of(err).HowToMend())
			}
		}
	}
}

// failedLooks is how many looks fail in a row before a word is said of it.
const failedLooks = 4

// tend runs beside the loop: it keeps the log of a quiet database moving, watches the slot and looks for requests. It
// never touches what the loop owns.
func (r *run) tend(ctx context.Context) error {
	beat := newTicker(r.o.Heartbeat)
	look := time.NewTicker(slotEvery / 2) // then halfway between the looks at the tables, which leave their session to it
	ask := time.NewTicker(askEvery)
	defer beat.Stop()
	defer look.Stop()
	defer ask.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			if _, err := r.source.Heartbeat(ctx, heartbeatPrefix); err != nil && ctx.Err() == nil {
				r.o.Log.Warn("cannot write a heartbeat; the slot of a quiet database moves on only with other work", "error", err)
			}
		case <-look.C:
			look.Reset(slotEvery)
			r.lookAtSlot(ctx)
		case <-ask.C:
			select {
			case r.asked <- struct{}{}:
			default:
			}
		}
	}
}

const (
	slotEvery   = 5 * time.Second
	askEvery    = 3 * time.Second
	tablesEvery = 5 * time.Second
)

// newTicker never ticks when the interval is 0.
func newTicker(every time.Duration) *time.Ticker {
	if every > 0 {
		return time.NewTicker(every)
	}
	t := time.NewTicker(time.Hour)
	t.Stop()
	return t
}

// lookAtSlot measures the lag and how much log the server keeps for us.
func (r *run) lookAtSlot(ctx context.Context) {
	slot, err := r.source.Slot(ctx, r.o.Slot)
	if err != nil || !slot.Exists {
		return // the loop's own connection tells of a server or a slot that is gone
	}
	r.retained.Store(slot.Retained)
	r.lost.Store(slot.Lost() != "")
	position := change.LSN(r.seen.Load())
	r.o.Watch.Lag(Lag{Server: slot.End, Position: position, Retained: slot.Retained, SafeSize: slot.SafeWALSize, Age: r.age(slot.End, position, time.Now())})
}

// age is how old the oldest change can be that is not saved yet. The log tells when transactions committed; where it has nothing for
// us, the place that it had come to at a known time does.
func (r *run) age(end, position change.LSN, now time.Time) time.Duration {
	if position >= r.mark {
		if r.mark > 0 {
			r.whole = r.marked
		}
		r.mark, r.marked = end, now
	}
	if position >= end {
		r.whole = now
	}
	if at := time.UnixMicro(r.seenAt.Load()); at.After(r.whole) {
		r.whole = at
	}
	return max(0, now.Sub(r.whole))
}

// guard acts before the server's disk is full: it warns, then drains the log into the spool without waiting for the
// lake, then gives the slot up and plans a new copy.
func (r *run) guard(ctx context.Context) error {
	retained := r.retained.Load()
	if r.o.GuardWarn > 0 && retained >= r.o.GuardWarn && r.now.Sub(r.warnedAt) >= warnEvery {
		r.warnedAt = r.now
		r.o.Log.Warn("the server keeps much of its log for the slot", "slot", r.o.Slot, "bytes", retained, "from", r.o.GuardWarn)
	}
	if r.lost.Load() {
		return fault.New(fault.SlotLost, r.o.Slot, "the server has given the slot up")
	}
	if r.o.GuardSpool > 0 && retained >= r.o.GuardSpool && !r.guarded() {
		r.o.Log.Error("the log is drained into the bucket without committing tables, so that the server can let it go", "slot", r.o.Slot, "retained", retained)
		r.state.Guard = checkpoint.GuardSpooling
		if err := r.store.Save(ctx, r.state); err != nil {
			return err
		}
		return &again{}
	}
	if r.o.GuardDrop > 0 && retained >= r.o.GuardDrop {
		return r.giveUpSlot(ctx)
	}
	return nil
}

// giveUpSlot is the last resort, by the operator's policy: the database matters more than the lake. What the lake misses
// then is read by a new copy. That it is to be is saved first: dropSlot goes on with it after a crash.
func (r *run) giveUpSlot(ctx context.Context) error {
	r.o.Log.Error("the slot is dropped to save the server's disk; all tables are copied anew", "slot", r.o.Slot, "retained", r.retained.Load())
	r.restoreModes(&again{all: true})
	r.state.Guard = checkpoint.GuardDropping
	if err := r.store.Save(ctx, r.state); err != nil {
		return err
	}
	return &again{}
}

// dropSlot does what giveUpSlot has planned. The log begins anew where the next slot is made.
func (r *run) dropSlot(ctx context.Context) error {
	if err := r.source.DropSlot(ctx, r.o.Slot); err != nil {
		return err
	}
	r.state.Position, r.state.Slot, r.state.Guard = 0, "", ""
	return r.store.Save(ctx, r.state)
}

const warnEvery = 5 * time.Minute
