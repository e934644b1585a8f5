package pipeline

import (
	"context"
	"slices"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// wentAside counts the values of changes that went aside.
func (t *table) wentAside(watch Watcher, c *change.Changes) {
	if m := change.SpecialOf(c.Rows, len(c.Table.Columns)); m != nil {
		t.countSpecial(watch, int64(m.Keys().Len()))
	}
}

// copiedAside counts the values of a chunk that went aside; applied is how often each column's policy was used.
func (t *table) copiedAside(watch Watcher, plan *postgres.Plan, applied []int64) {
	n := int64(0)
	for i, times := range applied {
		if plan.GoesAside(i) {
			n += times
		}
	}
	t.countSpecial(watch, n)
}

func (t *table) countSpecial(watch Watcher, n int64) {
	if n > 0 {
		t.special.Add(n)
		watch.Special(t.name, n)
	}
}

// keepsSpecials copies a table again whose special values would go by the name of another column, or of none. The history keeps
// them under the name that the column had.
func (r *run) keepsSpecials(t *table, s postgres.SchemaStep) error {
	if !t.keep.Current || s.From.Attnum == 0 || s.Kind == postgres.StepNullability {
		return nil
	}
	if !slices.ContainsFunc(t.lake.Columns(), func(c change.Column) bool { return c.Attnum == change.SpecialAttnum }) {
		return nil
	}
	return r.anew(t, "a column of a table with special values has changed: "+stepText(s))
}

// uncarried decides about a change whose values cannot be understood. Text that cannot be read goes aside; of a binary form that text is
// asked for. What the spool has in its binary form is not there as text: then the table is copied, and the change is not needed.
func (r *run) uncarried(ctx context.Context, t *table, ev *postgres.Event, err error) error {
	where := fault.Wrap(err, codeOf(err), t.name, "cannot carry a change of the transaction at %s", ev.Tx.LSN)
	switch {
	case fault.Is(err, fault.SourceProtocol) && r.binary && t.mode == checkpoint.Streaming:
		return r.restartAsText(t)
	case fault.Is(err, fault.SourceProtocol) && t.mode != checkpoint.Streaming:
		r.o.Log.Warn("the table is copied anew", "table", t.name, "because", err.Error())
		return &again{tables: []string{t.name}, exact: true, text: true}
	case fault.Is(err, fault.ValueUncarriable):
		// A new copy that an operator asks for must not need the change again.
		s := r.state.Tables[t.key]
		s.Exact = true
		r.state.Tables[t.key] = s
		if saved := r.store.Save(context.WithoutCancel(ctx), r.state); saved != nil {
			r.o.Log.Warn("what a new copy would need could not be noted", "table", t.name, "error", saved)
		}
	}
	return where
}
