package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// selection is what is to be followed. A table that was named and is gone does not end a pipeline that is at work: the lake keeps what
// it has of it.
func (r *run) selection() postgres.Selection {
	sel := r.o.Selection
	if len(r.state.Tables) > 0 {
		sel.Missing = func(err error) bool {
			r.o.Log.Warn("a table that is named cannot be followed; the lake keeps what it has", "error", err)
			return true
		}
	}
	return sel
}

// sameServer refuses to go on with the positions of another server, or of a log that this one does not have: after a restore, a
// failover to a standby that lagged, or with the address of another database, they mean nothing.
func (r *run) sameServer(ctx context.Context, next *again) error {
	id, err := r.source.Identify(ctx)
	if err != nil {
		return err
	}
	switch {
	case r.state.SystemID == "":
	case r.state.SystemID != id.SystemID:
		err = fault.New(fault.SlotLost, r.source.Name, "this is another server (system identifier %s) than the one this pipeline follows (%s)", id.SystemID, r.state.SystemID).
			WithMend("Correct --from, or, if the database was moved, restored or upgraded by pg_upgrade, copy all tables again: leat resync --all.")
	default:
		err = id.Has(r.state.Position, r.state.Timeline)
	}
	if next.all && fault.Is(err, fault.SlotLost) {
		r.startOver()
		next.exact = true // what an earlier copy has read is of the other log
		err = nil
	}
	if err != nil {
		return err
	}
	r.state.SystemID, r.state.Timeline = id.SystemID, id.Timeline
	if id.Standby { // when it is promoted, its log goes on in another timeline while we read
		r.state.Timeline = 0
	}
	return nil
}

// startOver forgets all positions: they are of another log.
func (r *run) startOver() {
	r.state.Position, r.state.Spooled, r.state.Horizon = 0, 0, 0
	for key, t := range r.state.Tables {
		t.Since, t.Upper, t.Lower, t.Facts, t.Leaves, t.Former, t.Truncated, t.Claim = 0, 0, 0, "", nil, nil, nil, nil // of the other server's catalog
		r.state.Tables[key] = t
	}
}

// restoreModes gives each table the mode it had, unless it is to be copied anew.
func (r *run) restoreModes(next *again) {
	if r.state.Tables == nil {
		r.state.Tables = map[string]checkpoint.TableState{}
	}
	for key, t := range r.tables {
		was, known := r.state.Tables[key]
		anew := next.all || slices.ContainsFunc(next.tables, func(name string) bool { return name == t.name || name == key })
		if known && was.OID == t.source.OID && !was.Tended.IsZero() {
			t.tended.Store(was.Tended.UnixMilli())
		}
		t.mode, t.since, t.upper, t.anew = was.Phase, was.Since, was.Upper, was.Anew || anew
		// Of a partition that was emptied, detached or dropped the log may tell rows again, and never that they went.
		parted := t.source.Kind == change.KindPartitioned
		t.exact, t.late, t.nullable = was.Exact || anew && (next.exact || parted), was.Late, slices.Contains(next.nullable, t.name)
		t.published, t.renumbered, t.copiedAt = r.givenOf(t), was.Renumbered, was.Recopied
		t.special.Store(was.Special)
		if t.recopied {
			r.restoreRecopied(t, known && was.OID == t.source.OID, anew)
			continue
		}
		t.truncated = was.Truncated
		if known && was.OID == t.source.OID {
			t.lower, t.claim = was.Lower, was.Claim
		}
		if anew && next.exact { // the copy's snapshot is behind everything that was told
			t.claim = nil
		}
		if r.takesIn(t) && known && was.OID == t.source.OID {
			r.o.Log.Warn("the table is copied anew", "table", t.name, "because", "generated columns of it are followed that were left out before")
			t.exact, t.anew, anew = true, true, true
		}
		if known && was.OID == t.source.OID && !anew {
			t.former = formerLeaves(was, t)
		}
		if known && was.OID == t.source.OID && was.Published != t.published {
			t.former = nil
			// What the log told by the old rules stands in it yet, so the copy must know what of it the snapshot holds.
			r.o.Log.Warn("the table is copied anew", "table", t.name, "because", "other rows, columns or partitions of it are followed than before")
			t.published, t.exact, t.anew, anew = was.Published, true, true, true
		}
		switch {
		case !known || was.OID != t.source.OID:
			t.mode, t.since, t.upper = checkpoint.Copying, r.state.Position, 0
			t.late = r.publishedLate(t)
		case anew && was.Phase == checkpoint.Streaming:
			t.mode, t.since = checkpoint.Copying, r.state.Position
		case anew: // its spool goes on from where it began
			t.mode = checkpoint.Copying
		}
		if r.guarded() && t.mode == checkpoint.Streaming {
			t.mode, t.since = checkpoint.Spooling, r.state.Position
		}
		r.setMode(t, t.mode)
	}
	for key, was := range r.state.Tables {
		if r.tables[key] == nil {
			r.o.Log.Warn("no longer followed: it is gone at the source or no longer chosen; the lake keeps what it has", "table", was.Name(key))
			delete(r.state.Tables, key)
		}
	}
}

// publishedLate says whether a table that is not known yet came into a publication after the log had begun. It goes by what is
// saved: a process may have died just after it had changed the publication.
func (r *run) publishedLate(t *table) bool {
	return r.state.Position > 0 && !r.gives[postgres.Name{Schema: t.source.Schema, Name: t.source.Name}].AllTables
}

func (r *run) setMode(t *table, mode checkpoint.Phase) {
	copying := mode == checkpoint.Copying
	t.mode, t.anew, t.exact, t.late, t.renumbered = mode, t.anew && copying, t.exact && copying, t.late && copying, t.renumbered && copying
	if !copying {
		t.published = r.givenOf(t)
	}
	r.state.Tables[t.key] = checkpoint.TableState{
		Schema: t.source.Schema, Table: t.source.Name,
		Phase: mode, OID: t.source.OID, Since: t.since, Upper: t.upper, Anew: t.anew, Exact: t.exact, Late: t.late,
		Renumbered: t.renumbered, Published: t.published, Leaves: t.leaves, Former: t.former, Facts: t.facts.String(), Truncated: t.truncated,
		Claim: t.claim, Lower: t.lower,
		Tended: t.tendedAt(), Untended: r.state.Tables[t.key].Untended, Foreign: r.state.Tables[t.key].Foreign, Recopied: t.copiedAt,
		Special: t.special.Load(), LeftOut: t.leftOut,
	}
	if t.recopied && mode == checkpoint.Streaming { // nothing tells of its changes
		r.o.Watch.Mode(t.name, Recopied)
		return
	}
	r.o.Watch.Mode(t.name, string(mode))
}

// publish brings the publications to the tables that are followed. Tables without a replica identity never get into one
// that publishes updates: the server would refuse the application's own UPDATE.
func (r *run) publish(ctx context.Context, full, inserts []*change.Table, o postgres.LookOptions) error {
	for _, p := range r.o.publications(full, inserts) {
		p.Followed, p.Beside = o.Tables, o.Publications
		changed, err := r.source.EnsurePublication(ctx, p)
		if err != nil {
			return r.unlessLocked(err)
		}
		if changed != nil {
			r.republish(changed, o.Known)
			r.o.Log.Info("the publication was brought up to date", "publication", p.Name, "tables", len(p.Tables))
		}
		r.publications = append(r.publications, p.Name)
	}
	given, err := r.source.Published(ctx, r.publications)
	r.gives = byName(given)
	return err
}

// unlessLocked leaves tables out that come into a publication and that another session holds, until it does not any more.
func (r *run) unlessLocked(err error) error {
	var locked *postgres.Locked
	if !errors.As(err, &locked) || len(locked.Tables) == 0 || r.o.UntilCaughtUp {
		return err
	}
	next := &again{locked: map[string]error{}}
	for name, by := range locked.Tables {
		t := name.Schema + "." + name.Name
		next.locked[t] = fault.New(fault.SourceTimeout, t, "it cannot come into the publication yet: %s holds a lock on it", by).
			WithMend("Let that session end; the table is taken up then.").Because(err)
	}
	return next
}

func byName(given []postgres.PublishedTable) map[postgres.Name]postgres.PublishedTable {
	gives := map[postgres.Name]postgres.PublishedTable{}
	for _, t := range given {
		gives[postgres.Name{Schema: t.Schema, Name: t.Name}] = t
	}
	return gives
}

// publications are those that the tables need: one for those of which the log can tell all, one of inserts for the others. The log
// cannot be read without one: where no table needs any, because all are copied again on a schedule, the first is there without tables.
func (o *Options) publications(full, inserts []*change.Table) (all []postgres.PublicationOptions) {
	for _, p := range []postgres.PublicationOptions{{Name: o.Publication, Tables: full}, {Name: o.Publication + insertsSuffix, Tables: inserts, InsertsOnly: true}} {
		if len(p.Tables) == 0 && (p.InsertsOnly || len(inserts) > 0) {
			continue
		}
		p.ViaRoot, p.Given, p.By = o.Selection.PartitionRoots, !o.OwnPublication, o.Slot
		p.RowFilters, p.Columns = map[string]string{}, map[string][]string{}
		for _, t := range p.Tables {
			if f := o.RowFilter(t.Schema, t.Name); f != "" {
				p.RowFilters[t.String()] = f
			}
			if c := o.ColumnList(t.Schema, t.Name); len(c) > 0 {
				p.Columns[t.String()] = c
			}
		}
		all = append(all, p)
	}
	return all
}

// givenOf is what is followed of a table, in one word to compare it by: "" is all of it.
func (r *run) givenOf(t *table) string {
	g := r.gives[postgres.Name{Schema: t.source.Schema, Name: t.source.Name}]
	computed := slices.ContainsFunc(t.source.Columns, func(c change.Column) bool { return c.Generated == 's' })
	given := ""
	switch {
	case g.Columns == nil && computed && g.Generated:
		given = "generated columns too where " + g.RowFilter
	case g.Columns != nil || g.RowFilter != "":
		given = fmt.Sprintf("%q where %s", g.Columns, g.RowFilter)
	}
	if len(t.skipped) > 0 {
		given += fmt.Sprintf(" without partitions %d", t.skipped)
	}
	return given
}

const insertsSuffix = "_inserts"

// prepareSlot finds or makes the slot. What the slot no longer holds cannot be read: then only a new copy is exact.
func (r *run) prepareSlot(ctx context.Context, next *again) error {
	if r.state.Guard == checkpoint.GuardDropping {
		if err := r.dropSlot(ctx); err != nil {
			return err
		}
	}
	slot, err := r.source.Slot(ctx, r.o.Slot)
	if err != nil {
		return err
	}
	if next.all && slot.Exists && (r.state.Unreadable || fault.Is(slot.Usable(r.state.Position), fault.SlotLost)) {
		if err := r.source.DropSlot(ctx, r.o.Slot); err != nil {
			return err
		}
		slot = postgres.Slot{}
	}
	if next.all && !slot.Exists {
		r.state.Position, r.state.Unreadable = 0, false
	}
	switch {
	case r.state.Position > 0:
		if err := slot.Usable(r.state.Position); err != nil {
			return err
		}
		return r.store.Save(ctx, r.state)
	case slot.Exists: // made by hand, or by an attempt that ended before it could save: nothing was copied yet
		if err := slot.Usable(slot.ConfirmedFlush); err != nil {
			return err
		}
		r.began(slot.ConfirmedFlush, true) // nobody knows what was published when it was made
	default:
		if err := r.createSlot(ctx); err != nil {
			return err
		}
	}
	r.state.Slot = r.o.Slot
	r.state.Publication = r.o.Publication
	return r.store.Save(ctx, r.state)
}

func (r *run) createSlot(ctx context.Context) error {
	r.o.Log.Info("making the replication slot", "slot", r.o.Slot)
	created, err := r.source.CreateSlot(ctx, postgres.SlotOptions{
		Name: r.o.Slot, Failover: r.o.Failover,
		Waiting: func(who string) {
			r.o.Log.Warn("making the slot waits for transactions that are open", "who", who)
		},
	})
	if err != nil {
		return err
	}
	created.Close() // the copy takes snapshots of its own, after the tables are locked
	r.began(created.LSN, false)
	return nil
}

// began notes where the log begins: every table that is copied has its spool from there. Positions of before may be those of another
// server. late: see checkpoint.TableState.
func (r *run) began(at change.LSN, late bool) {
	r.state.Position, r.state.Spooled = at, 0
	for _, t := range r.tables {
		t.since, t.upper, t.late, t.renumbered, t.claim, t.lower = at, 0, late && !t.recopied, true, nil, 0
		r.setMode(t, checkpoint.Copying)
	}
}
