package pipeline

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// watched is what the looks at the source share: which facts are known, and that only one look runs.
type watched struct {
	looking sync.Mutex
	last    *postgres.Sight // of the latest look that left nothing open; nil where there is none
	mu      sync.Mutex      // guards options
	options postgres.LookOptions
}

func (w *watched) now() postgres.LookOptions {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.options
	o.Known, o.Claims = maps.Clone(o.Known), maps.Clone(o.Claims)
	return o
}

func (w *watched) learn(facts map[uint32]postgres.Facts, horizon uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.Copy(w.options.Known, facts)
	if horizon > 0 {
		w.options.Horizon = horizon
	}
}

// sighted is what a look has found.
type sighted struct {
	facts   map[uint32]postgres.Facts // of tables without a doubt
	at      change.LSN
	judged  map[uint32]postgres.Claim // those without ground
	pending map[uint32]pendingDoubt
	horizon uint64 // 0 while there are doubts
	visible string // see postgres.Sight
}

// pendingDoubt is one that ends if the WAL has told of the TRUNCATEs, or of the definition, by the time it has come to
// a position.
type pendingDoubt struct {
	postgres.Doubt
	at      change.LSN
	facts   postgres.Facts
	visible string    // see postgres.Sight
	after   time.Time // it is not decided before
}

// publishWatched brings the publications to the tables, between two looks at all that decides whether the WAL tells
// everything. What has moved since the saved look, and what other transactions than ours have moved meanwhile,
// makes a table be copied again.
//
// A process that dies between the publications' change and the saved state finds its own change at the next start
// and takes it for another's: tables are copied needlessly then, and nothing is lost.
func (r *run) publishWatched(ctx context.Context, full, inserts []*change.Table, next *again) error {
	o := r.lookOptions()
	maps.DeleteFunc(o.Claims, func(oid uint32, _ postgres.Claim) bool { // an exact copy settles them
		return next.exact && (next.all || slices.Contains(next.tables, r.byOID[oid].name) || slices.Contains(next.tables, r.byOID[oid].key))
	})
	before, err := r.source.Look(ctx, o)
	if err != nil {
		return err
	}
	r.takeLeaves()
	unpublished := r.doubt(before, next)
	r.dropGroundless(before)
	if err := r.forgetUnpublished(ctx, unpublished); err != nil {
		return err
	}
	// What our own changes of the publications leave is what is expected from then on, of all else what was before.
	o.Known, o.Leaves, o.Claims = before.Facts, nil, nil
	if err := r.publish(ctx, full, inserts, o); err != nil {
		return err
	}
	for oid := range o.Former {
		o.Former[oid] = formerLeaves(r.state.Tables[r.byOID[oid].key], r.byOID[oid])
	}
	after, err := r.source.Look(ctx, o)
	if err != nil {
		return err
	}
	for _, oid := range r.doubt(after, next) {
		r.forget(r.byOID[oid])
	}
	o.Known = map[uint32]postgres.Facts{}
	for oid, t := range r.byOID {
		t.leafSeen = map[uint32]change.LSN{}
		if known, ok := postgres.ParseFacts(r.state.Tables[t.key].Facts); ok {
			t.noteLeaves(known, after.Facts[oid], after.At)
		}
		p, waits := r.pending[oid]
		copied := next.all || slices.Contains(next.tables, t.name) || slices.Contains(next.tables, t.key)
		if known, ok := postgres.ParseFacts(r.state.Tables[t.key].Facts); waits && ok && !copied {
			p.facts = after.Facts[oid]
			r.pending[oid], t.facts = p, known
		} else {
			t.facts = after.Facts[oid]
			delete(r.pending, oid)
		}
		o.Known[oid] = t.facts
	}
	if len(r.pending) == 0 {
		r.state.Horizon = after.Horizon
	}
	o.Horizon = r.state.Horizon
	r.watched.options = o
	return nil
}

// republish judges a change of a publication by ourselves: what it has found is not what a look saw before, where others have changed
// it too. What it leaves is known from now on.
func (r *run) republish(changed *postgres.Republished, known map[uint32]postgres.Facts) {
	for oid, found := range changed.Before {
		t := r.byOID[oid]
		was, there := known[oid]
		if !there { // it was made after the look, under a number that has come again
			continue
		}
		if _, followed := r.state.Tables[t.key]; followed && !found.PublishedAs(was) {
			r.o.Log.Warn("the table is copied anew", "table", t.name, "because", postgres.Republication)
			r.forget(t)
		}
		was.Publication, was.Member = changed.After[oid].Publication, changed.After[oid].Member
		known[oid] = was
	}
}

// lookOptions are those of the first look: what the saved state knows is what is compared.
func (r *run) lookOptions() postgres.LookOptions {
	o := postgres.LookOptions{
		Selection: r.o.Selection, Publications: []string{r.o.Publication, r.o.Publication + insertsSuffix},
		Roots: r.roots, Known: map[uint32]postgres.Facts{}, Leaves: map[uint32][]uint32{}, Former: map[uint32][]uint32{}, Horizon: r.state.Horizon,
	}
	o.Selection.Missing = func(error) bool { return true } // chooseTables tells
	for oid, t := range r.byOID {
		o.Tables = append(o.Tables, oid)
		was, known := r.state.Tables[t.key]
		if !known || was.OID != oid {
			continue
		}
		if facts, ok := postgres.ParseFacts(was.Facts); ok {
			o.Known[oid] = facts
		} else if was.Leaves != nil {
			o.Leaves[oid] = was.Leaves
		}
		o.Former[oid] = was.Former
	}
	o.Claims = r.savedClaims()
	o.Generated, o.Computed = r.o.Generated == GeneratedCompute, r.computedColumns()
	return o
}

// doubt lets tables be copied again of which the WAL may not have told everything. Those that were not published
// come later: they are returned. A TRUNCATE that the WAL has told is no reason, and it may be yet to come.
func (r *run) doubt(sight postgres.Sight, next *again) (unpublished []uint32) {
	for _, d := range sight.Doubts {
		t := r.byOID[d.Table]
		switch {
		case d.Published:
			r.o.Log.Warn("the table is copied anew", "table", t.name, "because", d.Because)
			unpublished = append(unpublished, d.Table)
		case !d.Certain():
			if was, twice := r.pending[d.Table]; twice {
				d.Truncated, d.Columns = append(d.Truncated, was.Truncated...), append(d.Columns, was.Columns...)
				d.Redefined = d.Redefined || was.Redefined || d.Altered != was.Altered // beside another doubt the catalog alone does not do
				d.Altered = d.Altered && was.Altered
			}
			r.pending[d.Table] = pendingDoubt{Doubt: d, at: sight.At, visible: sight.Visible}
		default:
			r.o.Log.Warn("the table is copied anew", "table", t.name, "because", d.Because)
			next.tables, next.exact = append(next.tables, t.name), true
		}
	}
	return unpublished
}

// forgetUnpublished forgets tables that are not in the publications, or were not for a time: what happened to them
// meanwhile is never told. Like those that come late they are copied when they are in again, which is saved before
// they are.
func (r *run) forgetUnpublished(ctx context.Context, unpublished []uint32) error {
	if r.state.Position == 0 {
		return nil
	}
	given, err := r.source.Published(ctx, []string{r.o.Publication, r.o.Publication + insertsSuffix})
	if err != nil {
		return err
	}
	forgotten, gives := false, byName(given)
	for oid, t := range r.byOID {
		_, in := gives[postgres.Name{Schema: t.source.Schema, Name: t.source.Name}]
		_, known := r.state.Tables[t.key]
		doubted := slices.Contains(unpublished, oid)
		if !known || in && !doubted {
			continue
		}
		if !doubted {
			r.o.Log.Warn("the table is copied anew", "table", t.name, "because", "it was not in the publication any more")
		}
		r.forget(t)
		forgotten = true
	}
	if !forgotten {
		return nil
	}
	saved := r.store.State() // what an operator asks for is saved with what follows from it, and not before
	saved.Tables = r.state.Tables
	return r.store.Save(ctx, saved)
}

// forget gives a table the state of one that has come late.
func (r *run) forget(t *table) {
	was := r.state.Tables[t.key]
	r.state.Tables[t.key] = checkpoint.TableState{
		Schema: t.source.Schema, Table: t.source.Name,
		Phase: checkpoint.Copying, OID: was.OID, Since: r.state.Position, Anew: true, Late: true,
		Renumbered: was.Renumbered, Published: was.Published, Tended: was.Tended, Untended: was.Untended,
	}
}

// takeLeaves notes the partitions of tables that are followed as one. Of one that was detached or dropped the lake keeps
// the rows, as it does of a table.
func (r *run) takeLeaves() {
	for _, t := range r.byOID {
		if t.source.Kind == change.KindPartitioned {
			t.leaves = []uint32{}
		}
	}
	for _, l := range r.leaves {
		t := r.byOID[l.Root]
		if t == nil { // it is left out, or copied again on a schedule
			continue
		}
		t.leaves = append(t.leaves, l.OID)
		if !l.Logged {
			r.skipLeaf(t, l)
		}
	}
	r.tellOfLostLeaves()
}

// skipLeaf leaves out a partition whose changes the WAL does not tell, or takes its rows with the copies of its table.
func (r *run) skipLeaf(t *table, l postgres.Leaf) {
	name := l.Schema + "." + l.Name
	if r.o.WithoutWAL == "copy" {
		r.o.Log.Warn("a partition's rows are copied with its table and not followed: the WAL does not tell of unlogged and foreign tables",
			"table", t.name, "partition", name)
		return
	}
	t.skipped = append(t.skipped, l.OID)
	r.o.Log.Warn("a partition is left out: the WAL does not tell of unlogged and foreign tables", "table", t.name, "partition", name)
}

// unloggedLeaf is the error of a partition whose changes the WAL does not tell, where that is refused.
func unloggedLeaf(l postgres.Leaf) error {
	return fault.New(fault.PublicationUnusable, l.Schema+"."+l.Name, "the partition is unlogged or a foreign table: the WAL does not tell its changes").
		WithMend("Run: alter table %s set logged; or detach it, or choose run.partitions_without_wal: skip or copy.", postgres.QuoteTable(l.Schema, l.Name))
}

func (r *run) tellOfLostLeaves() {
	for key, t := range r.tables {
		was := r.state.Tables[key]
		lost := slices.DeleteFunc(slices.Clone(was.Leaves), func(oid uint32) bool { return slices.Contains(t.leaves, oid) })
		if was.OID == t.source.OID && len(lost) > 0 {
			r.o.Log.Warn("partitions were detached or dropped; the lake keeps their rows until the table is copied again",
				"table", t.name, "partitions", len(lost), "hint", "leat resync --table "+fault.Shell(t.name))
		}
	}
}

// toldLeaf is a partition of which the WAL has told rows under its root's name.
type toldLeaf struct {
	root *table
	name string
	by   uint32 // the transaction
}

// noteToldLeaf notes a partition that no look has seen below its root.
func (r *run) noteToldLeaf(root *table, ev *postgres.Event) {
	_, known := root.facts.Relations[ev.Relation.OID]
	known = known || root.diverted() || slices.Contains(root.former, ev.Relation.OID) // a copy has no rows of it, or it was told of
	if !known && ev.Tx.XID != 0 {
		r.toldLeaves[ev.Relation.OID] = toldLeaf{root: root, name: ev.Relation.Schema + "." + ev.Relation.Name, by: ev.Tx.XID}
	}
}

// tellOfGoneLeaves tells of partitions that were made, filled and dropped or detached again between two looks: the lake has their rows.
func (r *run) tellOfGoneLeaves(s *sighted) {
	for oid, l := range r.toldLeaves {
		facts := l.root.facts
		if p, waits := s.pending[l.root.source.OID]; waits {
			facts = p.facts
		}
		_, known := facts.Relations[oid]
		if !known && !postgres.Sees(s.visible, l.by) { // the look was before it
			continue
		}
		if delete(r.toldLeaves, oid); !known {
			r.o.Log.Warn("a partition came and went between two looks; the lake keeps its rows until the table is copied again",
				"table", l.root.name, "partition", l.name, "hint", "leat resync --table "+fault.Shell(l.root.name))
		}
	}
}

// formerLeaves are the partitions that a table had once and has no more.
func formerLeaves(was checkpoint.TableState, t *table) []uint32 {
	former := slices.Compact(slices.Sorted(slices.Values(append(slices.Clone(was.Former), was.Leaves...))))
	return slices.DeleteFunc(former, func(oid uint32) bool { return slices.Contains(t.leaves, oid) })
}

// look notices what has happened at the source since the attempt began: tables that were made, dropped, made again
// or renamed, partitions that came or went, and whatever else can keep changes out of the WAL. It runs beside the
// loop.
func (r *run) look(ctx context.Context) error {
	r.watched.looking.Lock()
	defer r.watched.looking.Unlock()
	o := r.watched.now()
	sight, err := r.sightNow(ctx, o)
	if err != nil {
		return err
	}
	found := &sighted{facts: maps.Clone(sight.Facts), pending: map[uint32]pendingDoubt{}, at: sight.At, judged: groundless(o, sight), visible: sight.Visible}
	certain := false
	for _, d := range sight.Doubts {
		if delete(found.facts, d.Table); d.Certain() {
			certain = true
			continue
		}
		found.pending[d.Table] = pendingDoubt{Doubt: d, at: sight.At, facts: sight.Facts[d.Table], visible: sight.Visible}
	}
	if len(sight.Doubts) == 0 {
		found.horizon = sight.Horizon
	}
	r.watched.learn(found.facts, found.horizon)
	r.watched.judged(found.judged)
	r.show(found)
	seen := 0
	for _, s := range sight.Seen {
		if r.chosen[s] {
			seen++
		}
	}
	if certain {
		r.urgent.Store(true)
	}
	if certain || seen != len(sight.Seen) || seen != len(r.chosen) || !slices.Equal(sight.Leaves, r.leaves) {
		r.o.Log.Info("tables, partitions or publications were made, changed or dropped; the run looks at them")
		r.changed.Store(true)
	}
	if len(r.locked) > 0 {
		free, err := r.source.Publishable(ctx, r.locked)
		if free {
			r.changed.Store(true)
		}
		return cmp.Or(sight.Locked, err)
	}
	return sight.Locked
}

// sightNow looks, unless the last look would be repeated: it left nothing open, so all depends on what the catalog has.
func (r *run) sightNow(ctx context.Context, o postgres.LookOptions) (postgres.Sight, error) {
	if last := r.watched.last; last != nil && len(o.Claims) == 0 {
		if still, err := r.source.Still(ctx, last); still || err != nil {
			return *last, err
		}
	}
	r.watched.last = nil
	sight, err := r.source.Look(ctx, o)
	if err == nil && len(o.Claims)+len(sight.Doubts) == 0 && sight.Locked == nil {
		r.watched.last = &sight
	}
	return sight, err
}

// show has the loop take what a look has found. What one of before has found and the loop has not taken yet is found again, but for
// the claims that it judged: no later look judges those.
func (r *run) show(found *sighted) {
	for {
		was, now := r.sighted.Load(), *found
		if was != nil {
			now.judged = maps.Clone(was.judged)
			maps.Copy(now.judged, found.judged)
		}
		if r.sighted.CompareAndSwap(was, &now) {
			return
		}
	}
}

// takeSight takes what the last look has found into the state, which is saved with the next commit, and decides
// doubts whose time has come. moved says that there is something to save.
func (r *run) takeSight(ctx context.Context) (moved bool, err error) {
	if s := r.sighted.Swap(nil); s != nil {
		for oid, f := range s.facts {
			delete(r.pending, oid)
			if t := r.byOID[oid]; t != nil && !t.facts.Equal(f) {
				t.noteLeaves(t.facts, f, s.at)
				r.noteFacts(t, f)
				moved = true
			}
		}
		for oid, p := range s.pending {
			if old, ok := r.pending[oid]; ok && old.facts.Equal(p.facts) { // else rows were written since that the log has not told yet
				p.at, p.visible = old.at, old.visible
			}
			r.pending[oid] = p
		}
		if s.horizon > 0 {
			r.state.Horizon = s.horizon
		}
		moved = r.dropJudged(s.judged) || moved
		r.tellOfGoneLeaves(s)
	}
	for oid, p := range r.pending {
		t := r.byOID[oid]
		if r.position < p.at || r.now.Before(p.after) {
			continue
		}
		told, err := r.told(ctx, t, p)
		if err != nil {
			return false, err
		}
		if !told && p.Altered { // it is being altered, or copied
			p.after = r.now.Add(definedEvery)
			r.pending[oid] = p
			continue
		}
		if !told {
			if err := r.commit(ctx); err != nil {
				return false, err
			}
			return false, r.anew(t, p.Because)
		}
		r.watched.learn(map[uint32]postgres.Facts{oid: p.facts}, 0)
		r.noteFacts(t, p.facts)
		delete(r.pending, oid)
		moved = true
	}
	return moved, nil
}

// definedEvery is how often the source is asked again for a definition that could not be taken from it.
const definedEvery = time.Second

// told says whether the WAL has told what a doubt is about.
func (r *run) told(ctx context.Context, t *table, p pendingDoubt) (bool, error) {
	if p.Altered {
		return r.defined(ctx, t, p)
	}
	if slices.ContainsFunc(p.Truncated, func(x uint32) bool { return !slices.Contains(t.truncated, x) }) {
		return false, nil
	}
	if !p.Redefined && len(p.Columns) == 0 {
		return true, nil
	}
	d, err := r.definedNow(ctx, t.source.OID)
	if err != nil || d.table == nil { // a table that is gone has no rows
		return d.table == nil, err
	}
	now, catalog := d.table, d.catalog
	if err := r.place(ctx, t); err != nil {
		return false, err
	}
	if p.Redefined {
		if told, err := r.toldGenerated(ctx, t, now, catalog); err != nil || !told {
			return false, err
		}
	}
	lake := known(t).Columns
	untold := slices.ContainsFunc(r.published(now).Columns, func(c change.Column) bool {
		return !slices.ContainsFunc(lake, func(k change.Column) bool {
			return k.Attnum == c.Attnum && k.TypeOID == c.TypeOID && k.Typmod == c.Typmod
		})
	})
	if p.Redefined && untold || len(p.Columns) == 0 {
		return !untold, nil
	}
	return r.sameValues(ctx, t, now, p)
}

// noteTruncated notes that the WAL has told of a TRUNCATE. It is saved with the position, behind which it is not
// told again.
func (r *run) noteTruncated(t *table, xid uint32) {
	const most = 32
	if t.source.Kind != change.KindPartitioned && t.facts.Named {
		return
	}
	t.emptiedBy = xid
	r.saveTruncated(t, append(slices.Clone(t.truncated[max(0, len(t.truncated)-most+1):]), xid))
}

// noteRefilled notes that a transaction has told rows after its TRUNCATE of a partitioned table. That TRUNCATE does not say any more
// what has become of a partition: another one, of the partition alone, may have followed the rows, and is not told.
func (r *run) noteRefilled(t *table) {
	by := t.emptiedBy
	t.emptiedBy = 0
	if t.source.Kind == change.KindPartitioned {
		r.saveTruncated(t, slices.DeleteFunc(slices.Clone(t.truncated), func(xid uint32) bool { return xid == by }))
	}
}

func (r *run) saveTruncated(t *table, by []uint32) {
	t.truncated = by
	state := r.state.Tables[t.key]
	state.Truncated = by
	r.state.Tables[t.key] = state
}

func (r *run) noteFacts(t *table, f postgres.Facts) {
	t.facts = f
	state := r.state.Tables[t.key]
	state.Facts = f.String()
	r.state.Tables[t.key] = state
}

// nothingMissed looks once more before a run says that it has caught up: what was changed since the last look
// counts too.
func (r *run) nothingMissed(ctx context.Context) (bool, error) {
	if len(r.pending) == 0 {
		if err := r.look(ctx); err != nil {
			return false, err
		}
	}
	moved, err := r.takeSight(ctx)
	if err != nil {
		return false, err
	}
	if moved || r.changed.Load() {
		if err := r.commit(ctx); err != nil {
			return false, err
		}
	}
	switch {
	case r.changed.Load():
		return false, &again{}
	case r.claims(): // a transaction is not visible yet
		return false, nil
	case len(r.pending) > 0: // the WAL has to come past the look
		return false, r.nudge(ctx)
	}
	return true, nil
}

// stranger hears that the WAL tells of a relation that is not followed. A given publication may have tables that
// were not chosen; any other one is looked for at once: what is told under its name may belong to a table that is
// followed.
func (r *run) stranger(rel *postgres.Relation) {
	if r.strangers[rel.OID] {
		return
	}
	r.strangers[rel.OID] = true
	known := false
	for s := range r.chosen { // chosen, and left out with a word
		known = known || s.OID == rel.OID
	}
	leaf := slices.ContainsFunc(r.leaves, func(l postgres.Leaf) bool { return l.OID == rel.OID })
	if known && !leaf {
		return
	}
	if !r.o.OwnPublication && !leaf {
		if chosen, _ := r.o.Selection.Choose([]postgres.Name{{Schema: rel.Schema, Name: rel.Name}}, nil); len(chosen) == 0 {
			return
		}
	}
	r.o.Log.Warn("the WAL tells of a relation that is not followed; its changes are not taken, and the tables are looked at now", "oid", rel.OID, "relation", rel.Schema+"."+rel.Name)
	signal(r.lookNow)
}
