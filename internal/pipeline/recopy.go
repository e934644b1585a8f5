package pipeline

import (
	"time"

	"github.com/leatdata/leat/internal/checkpoint"
)

// Recopied is the mode of a table that is copied again on a schedule, between two copies.
const Recopied = "recopied"

// recopy makes a table one that is kept right by copying it again: what changes between two copies the log does not tell. Of such a table
// there is a latest state and no history.
func (t *table) recopy() error {
	if !t.keep.Current {
		return withoutIdentity(t.name, identitySQL(t.source.Schema, t.source.Name))
	}
	t.recopied, t.keep.History = true, false
	return nil
}

// restoreRecopied decides whether a table without an identity is copied now.
func (r *run) restoreRecopied(t *table, known, wanted bool) {
	if !known {
		t.copiedAt = time.Time{}
	}
	t.late, t.exact = false, false
	if wanted || r.old(t) || t.mode != checkpoint.Streaming {
		t.mode, t.since, t.anew = checkpoint.Copying, r.state.Position, true
	}
	r.setMode(t, t.mode)
}

// old says whether the copy of a table has come to the age at which it is made again.
func (r *run) old(t *table) bool { return time.Since(t.copiedAt) >= r.o.RecopyEvery }

// recopyDue says whether a table without an identity is to be copied again. A run that is to end has done so when it began.
func (r *run) recopyDue() bool {
	if r.o.UntilCaughtUp || r.o.Identityless != "recopy" || r.copying.Load() > 0 {
		return false
	}
	for _, t := range r.tables {
		if t.recopied && t.mode == checkpoint.Streaming && r.old(t) {
			return true
		}
	}
	return false
}

// tellOfRecopied names the tables that are kept so.
func (r *run) tellOfRecopied(next *again) {
	var names []string
	for _, t := range r.tables {
		if t.recopied {
			names = append(names, t.name)
		}
	}
	if len(names) == 0 || next.toldRecopied {
		return
	}
	next.toldRecopied = true
	r.o.Log.Info("tables without an identity are copied again on a schedule", "tables", len(names), "every", r.o.RecopyEvery)
}
