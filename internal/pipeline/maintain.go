package pipeline

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// maintainAll compacts and expires beside the loop, table after table.
func (r *run) maintainAll(ctx context.Context) error {
	if r.o.Maintain <= 0 {
		return nil
	}
	for wait := r.firstUpkeep(); ; wait = min(r.o.Maintain, dueEvery) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if err := r.maintainDue(ctx, r.isDue); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// firstUpkeep is how long after its beginning a run looks for upkeep. One that is to end may end soon, and tendAtEnd decides then.
func (r *run) firstUpkeep() time.Duration {
	if r.o.UntilCaughtUp {
		return r.o.Maintain
	}
	return min(r.o.Maintain, dueEvery)
}

// dueEvery is how often the run looks which tables are due for upkeep.
const dueEvery = 10 * time.Second

// isDue says whether the last upkeep of a table is long enough ago.
func (r *run) isDue(t *table) bool { return t.untendedFor(r.o.Maintain) }

// untendedFor says whether the last upkeep is so long ago. A clock that was set back must not put it off.
func (t *table) untendedFor(d time.Duration) bool {
	ago := time.Since(t.tendedAt())
	return ago < 0 || ago >= d
}

// maintainDue does the upkeep of the open tables that are due, the one first that has waited longest.
func (r *run) maintainDue(ctx context.Context, isDue func(*table) bool) error {
	due := slices.DeleteFunc(r.live.all(), func(t *table) bool { return !isDue(t) })
	slices.SortStableFunc(due, func(a, b *table) int { return a.tendedAt().Compare(b.tendedAt()) })
	for _, t := range due {
		err := r.safely(t.name, func() error { return r.maintainTable(ctx, t) })
		if isBroken(err) { // its next commit decides whether it can be followed
			r.tellBroken(t.name, err)
			t.tended.Store(time.Now().UnixMilli())
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tellBroken warns of a table whose upkeep is not possible, so that the others have theirs.
func (r *run) tellBroken(name string, err error) {
	r.o.Log.Warn("the upkeep of a table failed", "table", name, "error", err, "hint", fault.Of(err).HowToMend())
}

// tendAtEnd does the upkeep that is due when a run has caught up: runs that end sooner than upkeep comes round would never do
// any. Everything is committed and acknowledged by now, so what the time does not suffice for is left to the next run.
func (r *run) tendAtEnd(ctx context.Context, within time.Duration) error {
	always := r.o.MaintainAtEnd == AtEndAlways
	if !r.o.UntilCaughtUp || r.o.MaintainAtEnd == AtEndNever || r.o.Maintain <= 0 && !always {
		return nil
	}
	r.log.Close() // nobody reads from it any more
	r.log = nil
	for _, t := range r.live.all() {
		if s, known := r.state.Tables[t.key]; known {
			s.Untended++
			r.state.Tables[t.key] = s
		}
	}
	return r.tendDue(ctx, within)
}

// A rewrite at the end of a run pays where it serves what many runs have written: an hour of them, or as many as make a compaction due
// beside an ingest by their small files alone. See decision 49.
const (
	worthAfter = time.Hour
	worthRuns  = 8
)

// isDueAtEnd says whether a table that the run has written to gets its upkeep before the run ends.
func (r *run) isDueAtEnd(t *table) bool {
	if r.o.MaintainAtEnd == AtEndAlways {
		return true
	}
	return r.isDue(t) && (t.untendedFor(worthAfter) || r.state.Tables[t.key].Untended >= worthRuns)
}

// tendDue does the upkeep that is due, as far as it can be done. A table whose upkeep was broken off when the loop ended must be opened
// again, which the next run does.
func (r *run) tendDue(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := r.maintainDue(ctx, r.isDueAtEnd)
	switch {
	case ctx.Err() != nil, fault.Is(err, fault.Interrupted):
		r.o.Log.Info("upkeep is not at its end; the next run goes on with it")
	case err != nil:
		return err
	}
	return r.save(context.WithoutCancel(ctx))
}

// tendWithin bounds how much longer a run takes because of upkeep.
const tendWithin = 5 * time.Minute

// tendedAt is when the table's upkeep was done last, or when the table came into the lake; zero when nobody knows.
func (t *table) tendedAt() time.Time {
	if ms := t.tended.Load(); ms > 0 {
		return time.UnixMilli(ms).UTC()
	}
	return time.Time{}
}

// noteTables takes the counts of values that went aside, columns that are left out and the tables' intervals into the
// state that is about to be saved.
func (r *run) noteTables() {
	for _, t := range r.tables {
		every := r.everySeconds(t)
		if s, known := r.state.Tables[t.key]; known && (s.Special != t.special.Load() || len(s.LeftOut) != len(t.leftOut) || s.Every != every) {
			s.Special, s.LeftOut, s.Every = t.special.Load(), t.leftOut, every
			r.state.Tables[t.key] = s
		}
	}
}

// noteTended takes what the upkeep beside the loop has done into the state that is about to be saved.
func (r *run) noteTended() {
	for _, t := range r.tended.take() {
		if s, known := r.state.Tables[t.key]; known { // logical messages are in no state
			s.Tended, s.Untended = t.tendedAt(), 0
			r.state.Tables[t.key] = s
		}
	}
}

// maintainTable does the upkeep of one table, unless the lease is lost: whoever slept must not tend a table that is another's by now.
func (r *run) maintainTable(ctx context.Context, t *table) error {
	if err := r.store.Confirm(ctx); err != nil {
		return err
	}
	done, err := t.lake.Maintain(ctx, r.o.MaintainTo)
	if err != nil {
		return fault.Wrap(err, codeOf(err), t.name, "cannot maintain the table")
	}
	t.tended.Store(time.Now().UnixMilli())
	r.tended.put(t)
	if done != (lake.Maintained{}) {
		r.o.Log.Info("maintained", "table", t.name, "compacted", done.Compacted, "written", done.Written, "merged_deletes", done.MergedDeletes, "merged_manifests", done.MergedManifests,
			"expired", done.Snapshots, "removed", done.Removed)
	}
	return nil
}

// Swept is what Maintain has removed beside what it did table by table.
type Swept struct {
	Tables int   `json:"tables"`
	Files  int   `json:"files"`
	Bytes  int64 `json:"bytes"`
}

// Maintain does once what a run does in the background: it compacts and expires every table, and sweeps files that no
// table knows. It takes the pipeline's lease, so it is pipeline-busy beside a run. A table that is broken is told of, and does not keep the
// others from their upkeep; the first one's error is returned.
func Maintain(ctx context.Context, source *postgres.Source, o Options, orphansOlderThan time.Duration) (did Swept, err error) {
	o.MaintainTo.Thorough = true
	r := &run{o: o, source: source, tables: map[string]*table{}, byOID: map[uint32]*table{}, stopping: new(atomic.Bool)}
	if err := r.takeLease(ctx, ""); err != nil {
		return did, err
	}
	defer r.store.Close(context.WithoutCancel(ctx))
	if r.lake, err = o.Lake(ctx, r.store.Epoch()); err != nil {
		return did, err
	}
	defer r.close()
	catalog := source.Catalog()
	chosen, err := catalog.Tables(ctx, o.Selection)
	if err != nil {
		return did, err
	}
	var broken error
	for _, table := range chosen {
		tended := false
		err := r.safely(table.String(), func() (err error) { tended, err = r.maintainOnce(ctx, catalog, table); return err })
		if left := new(again); errors.As(err, &left) { // it cannot be opened
			err = left.left[table.String()]
		}
		if ofTable(err) {
			r.tellBroken(table.String(), err)
			broken, err = cmp.Or(broken, err), nil
		}
		if err != nil {
			return did, err
		}
		if tended {
			did.Tables++
		}
	}
	if did.Files, did.Bytes, err = r.lake.Sweep(ctx, orphansOlderThan); err != nil && !isBroken(err) {
		return did, err
	}
	return did, cmp.Or(broken, err)
}

// maintainOnce maintains a table that follows the log; others have no place in the lake yet, or one that a copy will replace.
func (r *run) maintainOnce(ctx context.Context, catalog *postgres.Catalog, source *change.Table) (bool, error) {
	if r.state.Tables[source.KeyName()].Phase != checkpoint.Streaming {
		return false, nil
	}
	t, _, err := r.newTable(source)
	if t == nil || err != nil {
		return false, err
	}
	plan, err := catalog.Plan(ctx, source, r.o.Policies)
	if err != nil {
		return false, err
	}
	if err := r.open(ctx, t, plan); err != nil {
		return false, err
	}
	r.tables[t.key] = t // closed with the run
	return true, r.maintainTable(ctx, t)
}
