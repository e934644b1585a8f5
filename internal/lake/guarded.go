package lake

import (
	"context"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// guarded does work of the table. After a panic nobody knows how far memory agrees with the lake: nothing more is committed, and the key
// index is not trusted again. Libraries have no word for the end of the work: it is an interruption.
func (t *lakeTable) guarded(ctx context.Context, work func() error) error {
	if lost := t.lost.Load(); lost != nil {
		return *lost
	}
	err := fault.Catching(t.lake.Log, t.name, work)()
	if fault.Panicked(err) {
		t.give(err)
	}
	if err != nil && ctx.Err() != nil && fault.Of(err) == nil {
		return fault.Wrap(err, fault.Interrupted, t.name, "the work on the table was interrupted")
	}
	return err
}

// give gives the table up: it must be opened again.
func (t *lakeTable) give(err error) {
	t.lost.Store(&err)
	if t.current != nil {
		t.current.mu.Lock()
		_ = t.current.fail(err)
		t.current.mu.Unlock()
	}
	for _, k := range t.kept {
		k.ice.mu.Lock()
		k.ice.broken = err
		k.ice.mu.Unlock()
	}
}

func (t *lakeTable) Write(ctx context.Context, c *change.Changes) error {
	return t.guarded(ctx, func() error { return t.write(ctx, c) })
}

func (t *lakeTable) Commit(ctx context.Context, to change.LSN, at time.Time) (done Committed, err error) {
	err = t.guarded(ctx, func() (err error) { done, err = t.commit(ctx, to, at); return err })
	return done, err
}

func (t *lakeTable) Evolve(ctx context.Context, d Definition) error {
	return t.guarded(ctx, func() error { return t.evolve(ctx, d) })
}

func (t *lakeTable) Maintain(ctx context.Context, o MaintainOptions) (done Maintained, err error) {
	err = t.guarded(ctx, func() (err error) { done, err = t.maintain(ctx, o); return err })
	return done, err
}

func (c *lakeCopy) Finish(ctx context.Context, position change.LSN) error {
	return c.table.guarded(ctx, func() error { return c.finish(ctx, position) })
}
