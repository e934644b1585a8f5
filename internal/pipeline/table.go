package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// table is one table on its way.
type table struct {
	name    string // schema.name at the source when it was first seen: its name in the saved state
	key     string // its name in the spool
	source  *change.Table
	keep    Keep
	mode    checkpoint.Phase
	since   change.LSN // where its spool begins
	anew    bool       // a copy that is finished is not the one that is wanted
	upper   change.LSN // nothing from here on was in the snapshot of its copy
	lake    lake.Table
	builder builder
	version uint64 // of the relation the builder is for; 0: the definition is to be looked at again
	last    uint32 // the transaction of the last row that was taken; 0 for none
	// readable is the relation's version of which the spool's binary values can be read.
	readable uint64
	exact    bool // to be copied in a snapshot of which it is known what of the log it holds
	// See checkpoint.TableState.
	late, renumbered bool
	published        string
	leaves, former   []uint32
	skipped          []uint32 // of the leaves, those that are left out
	facts            postgres.Facts
	truncated        []uint32
	claim            *checkpoint.Claim // see checkpoint.TableState
	lower            change.LSN        // see checkpoint.TableState
	// leafSeen is where the look was that found a partition first, 0 for one that the saved state had.
	leafSeen map[uint32]change.LSN
	// retyped are the types of columns of which DDL events have told, where the lake does not have them yet.
	retyped   map[int16]columnType
	emptiedBy uint32 // the transaction of the last TRUNCATE that was told, until it has told rows behind it; 0 for none
	// nullable: NOT NULL is believed of the key's columns only.
	nullable bool
	// recopied: the log does not tell of it, and it is kept right by a copy that is made again. copiedAt is when the last one began.
	recopied bool
	copiedAt time.Time
	leftOut  []int16      // attnums; see checkpoint.TableState
	special  atomic.Int64 // see checkpoint.TableState
	tended   atomic.Int64 // see checkpoint.TableState; milliseconds since 1970, 0 when nobody knows
	dirty    bool
	pace     pace
}

// builder collects changes until they are handed to the lake.
type builder interface {
	Append(ev *postgres.Event) error
	Rows() int
	Bytes() int64
	Take() *change.Changes
	Release()
}

// diverted says whether what the log tells of the table goes to the spool.
func (t *table) diverted() bool { return t.mode != checkpoint.Streaming }

// flush hands the builder's rows to the lake.
func (t *table) flush(ctx context.Context, watch Watcher, e *postgres.Evaluator) error {
	if t.builder == nil || t.builder.Rows() == 0 {
		return nil
	}
	changes := t.builder.Take()
	defer t.builder.Release()
	var counts [256]int64
	for _, op := range changes.Ops {
		counts[op]++
	}
	for _, op := range []change.Op{change.OpInsert, change.OpUpdate, change.OpDelete, change.OpTrunc} {
		if n := counts[op]; n > 0 {
			watch.Followed(t.name, op, n)
		}
	}
	if err := t.write(ctx, changes, watch, e); err != nil {
		return t.unwritten(err, "cannot write changes up to the transaction at %s", changes.LSN[changes.Len()-1])
	}
	return nil
}

// unwritten is the error of changes that the lake did not take. A NULL in a column that is NOT NULL begins again
// without believing NOT NULL: the WAL does not tell it, and what the catalog says of now need not have held when the
// row was written.
func (t *table) unwritten(err error, format string, args ...any) error {
	if fault.Is(err, fault.NullUnexpected) && !t.nullable {
		return &again{nullable: []string{t.name}}
	}
	return fault.Wrap(err, codeOf(err), t.name, format, args...)
}

func (r *run) flush(ctx context.Context, t *table) error {
	return r.aside(t, func() error { return t.flush(ctx, r.o.Watch, r.evaluator) })
}

// open makes sure that the table's place in the lake is open, in the shape the lake holds or, for a new one, in the
// source's shape of now.
func (r *run) open(ctx context.Context, t *table, plan *postgres.Plan) error {
	if t.lake != nil {
		return nil
	}
	var place lake.Table
	err := r.safely(t.name, func() (err error) { place, err = r.lake.Table(ctx, r.spec(t, plan)); return err })
	if err != nil {
		return r.alone(t, err)
	}
	t.lake = place
	if t.key != "" && t.tended.CompareAndSwap(0, time.Now().UnixMilli()) { // of logical messages nothing is saved: they are due at once
		r.tended.put(t)
	}
	r.live.put(t)
	return nil
}

func (r *run) spec(t *table, plan *postgres.Plan) lake.Spec {
	s := lake.Spec{
		Table: plan.Table, Schema: plan.Schema, Current: t.keep.Current, History: t.keep.History,
		Partition: r.o.PartitionBy(t.source.Schema, t.source.Name), Sort: r.o.SortBy(t.source.Schema, t.source.Name),
		Renumbered: t.renumbered, Repair: t.anew,
		Reread: func(ctx context.Context, keys arrow.RecordBatch) (arrow.RecordBatch, error) {
			return r.reread(ctx, t, keys)
		},
		Compute: func(ctx context.Context, c *change.Changes) (*change.Changes, []string, error) {
			return r.computeRest(ctx, t, c)
		},
	}
	for _, attnum := range plan.Table.Identity() {
		i := slices.IndexFunc(plan.Table.Columns, func(c change.Column) bool { return c.Attnum == attnum })
		if i < 0 {
			s.Key = nil
			break
		}
		s.Key = append(s.Key, plan.Table.Columns[i].Name)
	}
	s.WholeRowKey = len(s.Key) == 0 && (plan.Table.ReplicaIdentity == 'f' || t.recopied)
	return s
}

// reread reads rows as they are now. Their columns are those of the lake's definition that the source still has, by their
// names there. A table that is altered between the look at its definition and the reading is looked at again. One that another session holds is
// waited for; in a while the attempt begins again, which looks after what an operator asks for and after the slot.
func (r *run) reread(ctx context.Context, t *table, keys arrow.RecordBatch) (arrow.RecordBatch, error) {
	for held := 0; ; {
		rows, err := r.rereadOnce(ctx, t, keys)
		wait, locked := lookEvery, (*postgres.Locked)(nil)
		switch {
		case errors.As(err, &locked) && held < heldTries && !r.o.UntilCaughtUp:
			held++
			wait = lockedAgain
			r.o.Log.Warn("the table is locked, and a value that only the source has must be read from it; the run waits", "table", t.name,
				"by", locked.Tables[postgres.Name{Schema: t.source.Schema, Name: t.source.Name}], "again in", wait)
		case !errors.Is(err, postgres.ErrAltered):
			return rows, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// heldTries is how often a table is tried again that another session holds, before the attempt begins again.
const heldTries = 5

func (r *run) rereadOnce(ctx context.Context, t *table, keys arrow.RecordBatch) (arrow.RecordBatch, error) {
	now, err := r.definedNow(ctx, t.source.OID)
	if err != nil {
		return nil, err
	}
	if now.table == nil {
		return nil, fault.New(fault.SourceMissing, t.name, "values that the log left out cannot be read: the table is gone")
	}
	return r.readRows(ctx, now.catalog, now.table, known(t).Columns, keys, postgres.Writers{})
}

// readRows reads rows as they are now, of some transactions or all: those of the columns that the table still has, by their names of then.
func (r *run) readRows(ctx context.Context, catalog *postgres.Catalog, now *change.Table, columns []change.Column, keys arrow.RecordBatch, by postgres.Writers) (arrow.RecordBatch, error) {
	nameOf := map[string]string{} // of then, of the names of now
	only := *now
	only.Columns = nil
	for _, c := range now.Columns {
		if i := slices.IndexFunc(columns, func(w change.Column) bool { return w.Attnum == c.Attnum }); i >= 0 {
			only.Columns = append(only.Columns, c)
			nameOf[c.Name] = columns[i].Name
		}
	}
	plan, err := catalog.Plan(ctx, &only, r.o.Policies)
	if err != nil {
		return nil, err
	}
	asked := renamed(keys, func(name string) string {
		for now, then := range nameOf {
			if then == name {
				return now
			}
		}
		return name
	})
	defer asked.Release()
	rows, err := r.source.ReadKeysBy(ctx, plan, asked, by)
	if err != nil {
		return nil, err
	}
	defer rows.Release()
	return renamed(rows, func(name string) string {
		if name == change.SpecialName {
			return name
		}
		return nameOf[name]
	}), nil
}

// renamed is the same record with other names of its columns.
func renamed(rec arrow.RecordBatch, name func(string) string) arrow.RecordBatch {
	fields := slices.Clone(rec.Schema().Fields())
	for i := range fields {
		fields[i].Name = name(fields[i].Name)
	}
	return array.NewRecordBatch(arrow.NewSchema(fields, nil), rec.Columns(), rec.NumRows())
}

// relation takes the definition of a table as the log tells it. Rows of before it have the shape of before, so the builder
// is only changed at the next row.
func (r *run) relation(ev *postgres.Event) {
	if t := r.byOID[ev.Relation.OID]; t != nil {
		r.spool.Define(t.key, ev.Raw)
		t.version = 0 // it may look as before and yet have other columns: one that was dropped and made again under its name
		r.above = t
		return
	}
	if r.above != nil && r.above.source.Kind == change.KindPartitioned && r.o.OwnPublication { // behind its root's definition comes a partition's own
		r.noteToldLeaf(r.above, ev)
	}
	r.above = nil
}

// reshape follows a table's definition: the relation's columns get their attnums, the lake's table evolves, and a new
// builder is made for rows of that shape. d is the table's definition as it was read after the relation had come; none has it read now.
func (r *run) reshape(ctx context.Context, t *table, rel *postgres.Relation, from change.LSN, xid uint32, d definition) error {
	if err := r.flush(ctx, t); err != nil {
		return err
	}
	if d.catalog == nil || rel.OID != t.source.OID {
		var err error
		if d, err = r.definedNow(ctx, rel.OID); err != nil {
			return err
		}
	}
	now, catalog := d.table, d.catalog
	aligned, err := postgres.AlignAt(logged(known(t)), now, rel, postgres.Moment{XID: xid, Behind: from < t.upper})
	if err != nil {
		return err
	}
	shape, x, err := r.computedOf(ctx, t, aligned, now, catalog)
	if err != nil {
		return err
	}
	if t.keep.Current && shape.ReplicaIdentity != 'f' && len(shape.Identity()) == 0 {
		return r.anew(t, "rows were written while it had no key, and by the key of before nobody can tell them apart")
	}
	plan, err := r.redefine(ctx, t, shape, now, catalog, from)
	if err != nil {
		return err
	}
	if t.builder, err = r.newBuilder(ctx, plan, aligned, rel, catalog, x); err != nil {
		return err
	}
	t.version = rel.Version
	return nil
}

// redefine brings the table's place in the lake to a definition, which rows have from some position on. now is the catalog's of now, nil
// for a table that is gone.
func (r *run) redefine(ctx context.Context, t *table, shape, now *change.Table, catalog *postgres.Catalog, from change.LSN) (*postgres.Plan, error) {
	shape = t.named(shape)
	if now != nil {
		for _, c := range generated(now) {
			if !slices.ContainsFunc(shape.Columns, func(s change.Column) bool { return s.Attnum == c.Attnum }) {
				t.leaveOut(c.Attnum) // for as long as it is not in the lake
			}
		}
	}
	for i, c := range shape.Columns {
		if t.nullable && !slices.Contains(shape.Identity(), c.Attnum) {
			shape.Columns[i].NotNull = false
		}
	}
	plan, err := catalog.Plan(ctx, shape, r.o.Policies)
	if fault.Is(err, fault.TypeUncarriable) {
		return nil, r.anew(t, err.Error())
	}
	if err != nil {
		return nil, err
	}
	if r.binary && !plan.CanBinary() {
		return nil, r.restartAsText(t)
	}
	if r.o.Judge != nil { // what the lake cannot hold it is asked again, with the definition of now, when tables are chosen
		if _, err := r.o.Judge(shapeOnly(r.spec(t, plan))); err != nil {
			return nil, r.anew(t, err.Error())
		}
	}
	return plan, r.evolve(ctx, t, now, catalog, plan, from)
}

// readable begins again with values as text before one goes to the spool that could not be read there in its binary form.
func (r *run) readable(ctx context.Context, t *table, rel *postgres.Relation, xid uint32) error {
	if !r.binary || t.readable == rel.Version {
		return nil
	}
	now, err := r.definedNow(ctx, rel.OID)
	if err != nil {
		return err
	}
	shape, err := postgres.AlignAt(t.source, now.table, rel, postgres.Moment{XID: xid, Behind: true})
	if err != nil {
		return err
	}
	plan, err := now.catalog.Plan(ctx, shape, r.o.Policies)
	if err != nil {
		return err
	}
	if !plan.CanBinary() {
		return r.restartAsText(t)
	}
	t.readable = rel.Version
	return nil
}

// named is the table under the name that it was chosen by: one that was renamed keeps its place until that is noticed.
func (t *table) named(now *change.Table) *change.Table {
	n := *now
	n.Schema, n.Name = t.source.Schema, t.source.Name
	return &n
}

// known is the table as the lake holds it.
func known(t *table) *change.Table {
	k := *t.source
	k.Columns = slices.DeleteFunc(t.lake.Columns(), func(c change.Column) bool { return c.Attnum == change.SpecialAttnum })
	return &k
}

// place opens the table's place in the lake. A place that is there already keeps its own definition, in which the log goes
// on; the source's of now counts for a new one only.
func (r *run) place(ctx context.Context, t *table) error {
	if t.lake != nil {
		return nil
	}
	d, err := r.definedNow(ctx, t.source.OID)
	if err != nil {
		return err
	}
	return r.placeAs(ctx, t, d)
}

// placeAs is place with a definition of now that was just read.
func (r *run) placeAs(ctx context.Context, t *table, d definition) error {
	now := d.table
	if now == nil {
		now = t.source
	}
	plan, err := d.catalog.Plan(ctx, r.published(t.named(now)), r.o.Policies)
	if err != nil {
		return err
	}
	return r.open(ctx, t, plan)
}

// hasContent makes sure that the lake still holds what a finished copy and the WAL brought: the table may be kept in another form or
// place since, or another program has dropped it or rolled it back. To go on would lose rows without a word.
func (r *run) hasContent(t *table) error {
	if t.lake.Position() == 0 {
		r.o.Log.Warn("the table is copied anew", "table", t.name, "because", "the lake has no content of it, or not in every form that is to be kept")
		return &again{tables: []string{t.name}}
	}
	f := lake.ForeignTo(t.lake)
	if f.RolledBack {
		r.o.Log.Warn("the table is copied anew", "table", t.name,
			"because", "another program has set the lake table to a snapshot that does not follow from leat's last one")
		return &again{tables: []string{t.name}}
	}
	state := r.state.Tables[t.key]
	state.Foreign = f.TotalRows
	r.state.Tables[t.key] = state
	if f.Rows == 0 {
		return nil
	}
	if r.o.ForeignWrites == ForeignStop {
		why := fmt.Sprintf("another program has added or removed %d rows of the lake table in %d snapshots", f.Rows, f.Snapshots)
		return &again{left: map[string]error{t.name: heldBack(t.name, why)}, held: []string{t.name}}
	}
	level := slog.LevelWarn
	if r.o.ForeignWrites == ForeignAllow {
		level = slog.LevelInfo
	}
	r.o.Log.Log(context.Background(), level, "another program has written to the lake table; it may differ from the source", "table", t.name,
		"rows", f.Rows, "snapshots", f.Snapshots)
	return nil
}

// evolve brings the lake's table to the shape of the rows that come now, which the plan is for; the log is at from.
func (r *run) evolve(ctx context.Context, t *table, now *change.Table, catalog *postgres.Catalog, plan *postgres.Plan, from change.LSN) error {
	d := lake.Definition{Table: plan.Table, Schema: plan.Schema, From: from, Fill: map[int16]arrow.Array{}, Converted: map[int16]int{}}
	known := known(t)
	if from < t.upper && older(known, plan.Table, now) {
		return r.anew(t, "the log tells of its definition before the copy, whose snapshot may have been of a later moment")
	}
	if c := tooLate(postgres.Remade(known, plan.Table), now, t.last); c != "" {
		return r.anew(t, "a column was dropped and made again under its name, unseen in the spool, and rows were taken since: "+c)
	}
	rewrites := false
	for _, s := range postgres.Diff(known, plan.Table) {
		r.o.Log.Info("the table's definition has changed", "table", t.name, "change", stepText(s))
		if err := cmp.Or(r.keepsSpecials(t, s), r.wasComputed(t, s)); err != nil {
			return err
		}
		switch s.Kind {
		case postgres.StepRetyped:
			wrote, err := retype(ctx, &d, catalog, s)
			if err != nil {
				return err
			}
			rewrites = wrote || rewrites
		case postgres.StepAdded:
			if err := r.fill(ctx, t, plan, s.To.Attnum, d.Fill); err != nil {
				return err
			}
		}
	}
	if len(d.Retyped) > 0 && t.keep.Current {
		if len(plan.Table.Identity()) == 0 {
			return r.anew(t, "a column has another type, and without a key its values cannot be compared with the source's")
		}
		d.Check = func(ctx context.Context, rows arrow.RecordBatch) error {
			return r.checkValues(ctx, t, plan.Table, now, rewrites, rows)
		}
	}
	err := t.lake.Evolve(ctx, d)
	if fault.Is(err, fault.SchemaUnfollowable) && r.o.CopyOnChange {
		return r.anew(t, err.Error())
	}
	return err
}

// fill finds out what the rows that are there have in a column that was added.
func (r *run) fill(ctx context.Context, t *table, plan *postgres.Plan, attnum int16, fill map[int16]arrow.Array) error {
	i := slices.IndexFunc(plan.Table.Columns, func(c change.Column) bool { return c.Attnum == attnum })
	d, err := r.source.AddedDefault(ctx, t.source.OID, attnum)
	if err != nil {
		return err
	}
	if whole := len(plan.Table.Identity()) == 0 && plan.Table.ReplicaIdentity == 'f'; whole && t.keep.Current && !d.Sure {
		return r.anew(t, "without a key its rows are known by all their values, and nobody can tell what they had in an added column: "+plan.Table.Columns[i].Name)
	}
	switch d.Kind {
	case postgres.DefaultDiffers:
		return r.anew(t, "a column was added whose values differ from row to row: "+plan.Table.Columns[i].Name)
	case postgres.DefaultMissing:
		fill[attnum], err = plan.Value(i, d.Text)
	}
	if errors.Is(err, postgres.ErrAside) {
		return r.anew(t, "a column was added whose value in all rows is a special one: "+plan.Table.Columns[i].Name)
	}
	return err
}

// older says whether the log lacks a column, or the type of one, that the lake has and the source still has: then the lake
// was copied from a snapshot that came after what the log tells.
func older(known, told, now *change.Table) bool {
	if now == nil {
		return false
	}
	for _, k := range known.Columns {
		same := func(c change.Column) bool { return c.Attnum == k.Attnum }
		is := slices.IndexFunc(now.Columns, same)
		if is < 0 || now.Columns[is].TypeOID != k.TypeOID || now.Columns[is].Typmod != k.Typmod {
			continue
		}
		was := slices.IndexFunc(told.Columns, same)
		if was < 0 || told.Columns[was].TypeOID != k.TypeOID || told.Columns[was].Typmod != k.Typmod {
			return true
		}
	}
	return false
}

// tooLate names a column of which rows were taken for the earlier one of its name after that was dropped.
func tooLate(remade []change.Column, now *change.Table, last uint32) string {
	for _, c := range remade {
		if last != 0 && now != nil && slices.ContainsFunc(now.Traces, func(t change.Trace) bool { return t.Attnum == c.Attnum && t.By != last && !t.After(last) }) {
			return c.Name
		}
	}
	return ""
}

// anew ends this attempt; the next one copies the table again.
func (r *run) anew(t *table, why string) error {
	r.o.Log.Warn("the table is copied anew", "table", t.name, "because", why)
	return &again{tables: []string{t.name}, exact: true}
}

// again is not a failure: the attempt ends so that the next one begins with other modes of tables.
type again struct {
	tables []string // to be copied anew
	all    bool     // all of them are
	exact  bool     // in a snapshot of which it is known what of the log it holds
	// nullable are tables of which NOT NULL is not believed.
	nullable []string
	text     bool // values come as text
	// left are tables that are left out because of what the lake has of them, until they are copied again on request; told is what was
	// said of tables that are left out.
	left         map[string]error
	held         []string // of left: they stay as they are in the lake
	told         map[string]string
	locked       map[string]error // tables that cannot come into a publication now
	toldRecopied bool
	toldDDL      bool
	hinted       bool // the last attempt has left no version hint behind
	// uncomputed are tables whose generated columns the server refused to compute, and why; toldGenerated what was said of such columns.
	uncomputed    map[string]string
	toldGenerated []string
}

// broken is the error of a table that was left out because it is broken; nil for none.
func (a *again) broken() error {
	for _, name := range slices.Sorted(maps.Keys(a.left)) {
		if isBroken(a.left[name]) {
			return a.left[name]
		}
	}
	return nil
}

func (*again) Error() string { return "the run begins again" }

// also adds what another attempt has found out. What was not taken into the saved state yet is not forgotten.
func (a *again) also(more *again) {
	a.tables, a.nullable = append(a.tables, more.tables...), append(a.nullable, more.nullable...)
	for name, why := range more.left {
		if a.left == nil {
			a.left = map[string]error{}
		}
		a.left[name] = why
	}
	for name, why := range more.uncomputed {
		if a.uncomputed == nil {
			a.uncomputed = map[string]string{}
		}
		a.uncomputed[name] = why
	}
	a.held = append(a.held, more.held...)
	if more.locked != nil {
		a.locked = more.locked
	}
	a.all, a.exact, a.text = a.all || more.all, a.exact || more.exact, a.text || more.text
}

// restartAsText begins again with values as text: a column's binary form cannot be turned into what a copy gives.
func (r *run) restartAsText(t *table) error {
	r.o.Log.Info("values of the log are taken as text: a column's type has no exact binary form", "table", t.name)
	return &again{text: true}
}

// stepText tells a step to people.
func stepText(s postgres.SchemaStep) string {
	switch s.Kind {
	case postgres.StepDropped:
		return "column " + s.From.Name + " was dropped"
	case postgres.StepRenamed:
		return "column " + s.From.Name + " is now called " + s.To.Name
	case postgres.StepRetyped:
		return "column " + s.To.Name + " was " + s.From.Type + " and is " + s.To.Type
	case postgres.StepNullability:
		return "column " + s.To.Name + " changed whether it may be null"
	}
	return "column " + s.To.Name + " " + s.To.Type + " was added"
}
