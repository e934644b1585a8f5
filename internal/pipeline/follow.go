package pipeline

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// follow is the loop over the log. It ends with nil when the run has caught up or was asked to stop, always between two
// transactions with everything before it committed.
func (r *run) follow(ctx context.Context) error {
	for {
		ev, err := r.next(ctx)
		if err != nil {
			return err
		}
		if ev != nil {
			r.read += int64(len(ev.Raw))
			if err := r.apply(ctx, ev); err != nil {
				return err
			}
		}
		if r.inTransaction {
			continue
		}
		if stop, err := r.between(ctx); stop || err != nil {
			r.ended = err == nil
			return err
		}
	}
}

// next waits for an event, but not for longer than lookEvery: nil says that none came. The deadline is made anew only
// when it has passed, so it costs a busy log nothing.
func (r *run) next(ctx context.Context) (*postgres.Event, error) {
	if r.tick == nil || r.tick.Err() != nil {
		if r.endTick != nil {
			r.endTick()
		}
		r.tick, r.endTick = context.WithTimeout(ctx, lookEvery)
	}
	ev, err := r.log.Next(r.tick)
	if err != nil && r.tick.Err() != nil && ctx.Err() == nil && fault.Is(err, fault.Interrupted) {
		return nil, nil
	}
	return ev, err
}

// apply takes one event of the log.
func (r *run) apply(ctx context.Context, ev *postgres.Event) error {
	switch ev.Kind {
	case postgres.EventBegin:
		r.inTransaction, r.spooling = true, false
		r.begin = append(r.begin[:0], ev.Raw...)
		r.delivered.put(ev.Tx.XID, ev.Tx.Committed)
	case postgres.EventCommit:
		r.inTransaction = false
		r.transactions++
		if r.heard {
			r.heard = false
			signal(r.lookSoon)
		}
		r.position, r.at = max(r.position, ev.Position), max(r.at, ev.Tx.Committed)
		if r.spooling {
			return r.spoolCommit(ctx, ev)
		}
	case postgres.EventIdle:
		if !r.inTransaction {
			r.position = max(r.position, ev.Position)
		}
	case postgres.EventRelation:
		r.relation(ev)
	case postgres.EventType:
		r.spool.DefineType(string(ev.Raw[1:min(5, len(ev.Raw))]), ev.Raw) // by its OID
	case postgres.EventInsert, postgres.EventUpdate, postgres.EventDelete:
		if t := r.byOID[ev.Relation.OID]; t != nil {
			return r.change(ctx, t, ev)
		}
		r.stranger(ev.Relation)
	case postgres.EventTruncate:
		return r.truncate(ctx, ev)
	case postgres.EventMessage:
		return r.message(ctx, ev)
	}
	return nil
}

// change takes a row's change to its table, or to the spool while the table is not there yet.
func (r *run) change(ctx context.Context, t *table, ev *postgres.Event) error {
	if t.emptiedBy != 0 && t.emptiedBy == ev.Tx.XID {
		r.noteRefilled(t)
	}
	if !t.diverted() {
		return r.append(ctx, t, ev.Relation, ev)
	}
	if err := r.readable(ctx, t, ev.Relation, ev.Tx.XID); err != nil {
		return err
	}
	return r.divert(ctx, t, ev, ev.Seq, ev.Raw)
}

func (r *run) append(ctx context.Context, t *table, rel *postgres.Relation, ev *postgres.Event) error {
	var now definition // read once where both need it
	if t.lake == nil {
		var err error
		if now, err = r.definedNow(ctx, t.source.OID); err != nil {
			return err
		}
		if err := r.placeAs(ctx, t, now); err != nil {
			return err
		}
		if err := r.hasContent(t); err != nil {
			return err
		}
	}
	if ev.Tx.LSN < t.lake.Position() {
		return nil // told again after a crash; the lake may have the definition of later rows
	}
	if t.builder == nil || t.version != rel.Version {
		if err := r.aside(t, func() error { return r.reshape(ctx, t, rel, ev.Tx.LSN, ev.Tx.XID, now) }); err != nil {
			return err
		}
	}
	if len(ev.Raw) >= batchBytes && t.builder.Rows() > 0 { // a huge row goes alone: nothing then copies it to choose among rows
		if err := r.flush(ctx, t); err != nil {
			return err
		}
	}
	before := t.builder.Bytes()
	if err := t.builder.Append(ev); err != nil {
		return r.uncarried(ctx, t, ev, err)
	}
	t.last = ev.Tx.XID
	held := t.builder.Bytes()
	r.touch(t, held-before)
	if t.builder.Rows() >= batchRows || held >= batchBytes {
		return r.flush(ctx, t)
	}
	return nil
}

// A batch is handed to the lake when it has so many rows or so many bytes of values.
const (
	batchRows  = 32 << 10
	batchBytes = 8 << 20
)

func (r *run) truncate(ctx context.Context, ev *postgres.Event) error {
	for i, rel := range ev.Truncated {
		t := r.byOID[rel.OID]
		if t == nil {
			continue
		}
		r.noteTruncated(t, ev.Tx.XID)
		var err error
		if t.diverted() {
			err = r.divert(ctx, t, ev, ev.Seq+uint64(i), ev.TruncateOf(i))
		} else {
			err = r.append(ctx, t, rel, ev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// touch notes that a table has a change of so many bytes that is not committed yet.
func (r *run) touch(t *table, bytes int64) {
	r.toCommit(t)
	r.rows, r.bytes = r.rows+1, r.bytes+bytes
	t.pace.rows, t.pace.bytes = t.pace.rows+1, t.pace.bytes+bytes
}

// toCommit has the next commit include a table.
func (r *run) toCommit(t *table) {
	if !t.dirty {
		t.dirty = true
		r.dirty = append(r.dirty, t)
		t.pace.begins(r.position, r.at, time.Now())
	}
	if r.since.IsZero() {
		r.since = t.pace.since
	}
}

// between runs after each transaction and each idle moment: is a commit due, is there something to do for the tables,
// has the operator asked for something, is this the end.
func (r *run) between(ctx context.Context) (stop bool, err error) {
	r.now = time.Now()
	ending := r.stopping.Load()
	switch {
	case ending || r.caughtUp() && r.position > r.saved:
		err = r.commit(ctx)
	case r.due():
		err = r.commitDue(ctx)
	}
	if err != nil {
		return false, err
	}
	if ending {
		return true, nil
	}
	if err := r.waitForRoom(ctx); err != nil {
		return false, err
	}
	if r.now.Sub(r.lookedAt) < lookEvery {
		return false, nil
	}
	r.lookedAt = r.now
	if err := r.lookAround(ctx); err != nil {
		return false, err
	}
	if !r.caughtUp() || r.saved < r.target || !r.settled() {
		return false, nil
	}
	return r.nothingMissed(ctx)
}

// lookEvery is how often the loop looks for finished copies and requests.
const lookEvery = 100 * time.Millisecond

// due says whether what is pending must be committed now.
func (r *run) due() bool {
	if r.since.IsZero() { // nothing but the position has moved
		wait := idleSave
		if r.spooled {
			wait = spoolSave
		}
		return r.position > r.saved && r.now.Sub(r.savedAt) >= wait
	}
	return r.holdsMuch() || r.now.Sub(r.since) >= r.o.CommitInterval && r.now.Sub(r.pacedAt) >= r.o.CommitInterval
}

// spoolSave is how often what was spooled is made durable, so that the server can let it go.
const spoolSave = time.Second

// idleSave is how often the position is saved while no followed table changes.
const idleSave = 10 * time.Second

func (r *run) caughtUp() bool { return r.o.UntilCaughtUp && r.position >= r.target }

// commit makes everything up to the end of the last transaction durable, in the one order that is right: the tables
// (data and position together, Invariant 1), the spool, the saved position, the source (Invariant 2).
func (r *run) commit(ctx context.Context) error { return r.commitOf(ctx, r.dirty) }

// commitDue commits the tables whose time has come. Where that is none, the others are looked at again an interval
// later.
func (r *run) commitDue(ctx context.Context) error {
	due := r.toBeCommitted()
	if len(due) == 0 && len(r.dirty) > 0 {
		r.pacedAt = r.now
		return nil
	}
	return r.commitOf(ctx, due)
}

// commitOf commits some of the tables that have changes. The others go on holding theirs, and the position that is
// saved is theirs.
func (r *run) commitOf(ctx context.Context, of []*table) error {
	began := time.Now()
	if err := r.store.Confirm(ctx); err != nil {
		return err
	}
	total, err := r.commitTables(ctx, of, r.position)
	if err != nil {
		return err
	}
	tables, changes := len(of), int64(0)
	for _, t := range of {
		changes += t.pace.rows
	}
	r.committed(of)
	if err := r.flushSpool(ctx); err != nil {
		return err
	}
	if err := r.save(ctx); err != nil {
		return err
	}
	r.log.Ack(r.saved)
	r.o.Watch.Read(r.transactions, r.read)
	r.transactions, r.read = 0, 0
	if tables > 0 {
		total.Position, total.Committed, total.Tables, total.Changes, total.Took = r.saved, time.UnixMicro(r.seenAt.Load()), tables, changes, time.Since(began)
		r.o.Watch.Committed(total)
	}
	return nil
}

// commitTables commits the tables, several at once: each carries its own position, so their order is free.
func (r *run) commitTables(ctx context.Context, tables []*table, to change.LSN) (Commit, error) {
	var sum Commit
	done := make([]Commit, len(tables))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(commitsAtOnce)
	for i, t := range tables {
		g.Go(func() error {
			return r.aside(t, func() (err error) { done[i], err = r.commitTable(gctx, t, to); return err })
		})
	}
	err := g.Wait()
	for _, c := range done {
		sum.Rows, sum.Files, sum.Deletes, sum.Bytes = sum.Rows+c.Rows, sum.Files+c.Files, sum.Deletes+c.Deletes, sum.Bytes+c.Bytes
	}
	return sum, err
}

const commitsAtOnce = 4

func (r *run) commitTable(ctx context.Context, t *table, to change.LSN) (Commit, error) {
	if t.lake == nil {
		return Commit{}, nil
	}
	if err := t.flush(ctx, r.o.Watch, r.evaluator); err != nil {
		return Commit{}, err
	}
	c, err := t.lake.Commit(ctx, to, time.UnixMicro(r.at))
	if err != nil {
		return Commit{}, t.unwritten(err, "cannot commit up to %s", to)
	}
	r.o.Watch.TableCommitted(t.name, Commit{Position: to, Files: c.Files, Deletes: c.Deletes, Bytes: c.Bytes})
	return Commit{Rows: int64(c.Rows), Files: c.Files, Deletes: c.Deletes, Bytes: c.Bytes}, nil
}

// save writes the pipeline's position where another process would look for it.
func (r *run) save(ctx context.Context) error {
	to, at := r.wholeUpTo()
	r.state.Position = to
	r.noteTended()
	r.noteTables()
	r.noteHints()
	if err := r.store.Save(ctx, r.state); err != nil {
		return err
	}
	r.saved, r.savedAt = to, time.Now()
	r.seen.Store(uint64(to))
	r.seenAt.Store(at)
	return nil
}

func codeOf(err error) fault.Code {
	if f := fault.Of(err); f != nil {
		return f.Code
	}
	return fault.Internal
}
