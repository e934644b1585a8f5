package pipeline

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/spool"
)

// divert keeps a change for later: its table is being copied. Of a TRUNCATE of several tables, raw and seq are this table's.
func (r *run) divert(ctx context.Context, t *table, ev *postgres.Event, seq uint64, raw []byte) error {
	if t.late { // its spool begins later
		return nil
	}
	if !r.spooling {
		if err := r.spool.Begin(spool.Tx{LSN: ev.Tx.LSN, XID: ev.Tx.XID, Committed: ev.Tx.Committed}, r.begin); err != nil {
			return err
		}
		r.spooling = true
	}
	return r.spool.Add(ctx, t.key, seq, raw)
}

func (r *run) spoolCommit(ctx context.Context, ev *postgres.Event) error {
	r.spooling = false
	r.spooled = true
	return r.spool.Commit(ctx, ev.Position, ev.Raw)
}

// flushSpool makes the spool durable up to the position that is about to be saved.
func (r *run) flushSpool(ctx context.Context) error {
	if !r.spooled {
		return nil
	}
	to, err := r.spool.Flush(ctx)
	if err != nil {
		return err
	}
	r.spooled, r.state.Spooled = false, to
	r.o.Watch.Spool(r.spool.Size())
	return nil
}

// drain applies what the spool holds for tables whose copy is in the lake, and lets them follow the log from then on. It
// runs between two transactions, so the spool ends where the log goes on.
func (r *run) drain(ctx context.Context, tables []*table) error {
	if err := r.commit(ctx); err != nil { // whatever was diverted is durable now
		return err
	}
	byKey := map[string]*table{}
	from := r.position
	for _, t := range tables {
		if err := r.place(ctx, t); err != nil { // its copy had ended before this attempt began
			return err
		}
		if err := r.hasContent(t); err != nil {
			return err
		}
		r.setMode(t, checkpoint.Spooling)
		byKey[t.key] = t
		from = min(from, t.lake.Position())
	}
	if err := r.save(ctx); err != nil {
		return err
	}
	if err := r.applySpool(ctx, byKey, from); err != nil {
		return fault.Wrap(err, codeOf(err), "", "cannot apply what happened to tables while they were copied")
	}
	if _, err := r.commitTables(ctx, tables, r.position); err != nil {
		return err
	}
	for _, t := range tables {
		r.setMode(t, checkpoint.Streaming)
		t.version = 0 // the spool keeps no definition that looks like the one before
	}
	r.committed(tables) // a table must not be listed twice: it would be committed by two goroutines at once
	if err := r.save(ctx); err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.o.CopyParallel)
	for _, t := range tables {
		g.Go(fault.Catching(r.o.Log, t.name, func() error { return t.lake.ForgetCopy(gctx) }))
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return r.trimSpool(ctx)
}

func (r *run) applySpool(ctx context.Context, byKey map[string]*table, from change.LSN) error {
	events := postgres.NewEventReader()
	// Below it the copy's snapshot may be ahead of what has been applied: no state that the source never had is committed.
	upper := change.LSN(0)
	for _, t := range byKey {
		upper = max(upper, t.upper)
	}
	var pending int64
	for rec, err := range r.spool.Read(ctx, from, func(key string) bool { return byKey[key] != nil }) {
		if err != nil {
			return err
		}
		ev, err := events.Event(rec.Raw)
		if err != nil {
			return err
		}
		ev.Seq = rec.Seq // counted over all tables, of which the spool has some
		n, err := r.applySpooled(ctx, byKey[rec.Table], ev)
		if err != nil {
			return err
		}
		pending += n
		if ev.Kind == postgres.EventCommit && pending >= r.o.CommitRows && ev.Position >= upper {
			if err := r.commitDrained(ctx, byKey, ev.Position); err != nil {
				return err
			}
			pending = 0
		}
	}
	return nil
}

func (r *run) applySpooled(ctx context.Context, t *table, ev *postgres.Event) (rows int64, err error) {
	switch ev.Kind {
	case postgres.EventInsert, postgres.EventUpdate, postgres.EventDelete:
		return 1, r.append(ctx, t, ev.Relation, ev)
	case postgres.EventTruncate:
		for _, rel := range ev.Truncated {
			if rel.OID == t.source.OID {
				return 1, r.append(ctx, t, rel, ev)
			}
		}
	}
	return 0, nil
}

func (r *run) commitDrained(ctx context.Context, byKey map[string]*table, to change.LSN) error {
	if err := r.store.Confirm(ctx); err != nil {
		return err
	}
	var tables []*table
	for _, t := range byKey {
		tables = append(tables, t)
	}
	_, err := r.commitTables(ctx, tables, to)
	return err
}

// trimSpool removes what no table waits for.
func (r *run) trimSpool(ctx context.Context) error {
	for _, t := range r.tables {
		if t.diverted() {
			return nil
		}
	}
	err := r.spool.Delete(ctx, r.saved)
	r.o.Watch.Spool(r.spool.Size())
	return err
}

// full says whether the spool has as much as it may have.
func (r *run) full() bool { return r.o.SpoolLimit > 0 && r.spool.Size() >= r.o.SpoolLimit }

// waits says whether nothing but copies can give the spool room. Until the log has come past what a finished one holds, and past
// what tables that came late wait for, it must be read: the spool takes more than it may rather than stay full for ever.
func (r *run) waits() bool {
	return r.full() && !r.settled() && !r.stopping.Load() && r.past(r.drainable) && uint64(r.position) >= r.outwaited.Load()
}

// waitForRoom stops reading while the spool is full: the server keeps its log, until copies end and the spool is drained.
func (r *run) waitForRoom(ctx context.Context) error {
	if !r.waits() {
		return nil
	}
	r.o.Log.Warn("the spool is full; the log waits at the server until a copy has ended", "bytes", r.spool.Size())
	for r.waits() {
		select {
		case <-ctx.Done():
			return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the run was ended")
		case <-time.After(lookEvery):
		}
		r.now = time.Now()
		if err := r.lookAround(ctx); err != nil {
			return err
		}
	}
	return nil
}
