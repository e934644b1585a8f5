package pipeline

import (
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

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
	lake    lake.Table
	builder *postgres.ChangesBuilder
	version uint64 // of the relation the builder is for
	dirty   bool
	counts  [256]int64
}

// diverted says whether what the log tells of the table goes to the spool.
func (t *table) diverted() bool { return t.mode != checkpoint.Streaming }

// flush hands the builder's rows to the lake.
func (t *table) flush(ctx context.Context, watch Watcher) error {
	if t.builder == nil || t.builder.Rows() == 0 {
		return nil
	}
	changes := t.builder.Take()
	for _, op := range changes.Ops {
		t.counts[op]++
	}
	for _, op := range []change.Op{change.OpInsert, change.OpUpdate, change.OpDelete, change.OpTrunc} {
		if n := t.counts[op]; n > 0 {
			watch.Followed(t.name, op, n)
			t.counts[op] = 0
		}
	}
	if err := t.lake.Write(ctx, changes); err != nil {
		return fault.Wrap(err, codeOf(err), t.name, "cannot write changes up to the transaction at %s", changes.LSN[changes.Len()-1])
	}
	return nil
}

// open makes sure that the table's place in the lake is open, in the shape the lake holds or, for a new one, in the
// source's shape of now.
func (r *run) open(ctx context.Context, t *table, plan *postgres.Plan) error {
	if t.lake != nil {
		return nil
	}
	place, err := r.lake.Table(ctx, r.spec(t, plan))
	if err != nil {
		return err
	}
	t.lake = place
	r.live.put(t)
	return nil
}

func (r *run) spec(t *table, plan *postgres.Plan) lake.Spec {
	s := lake.Spec{
		Table: plan.Table, Schema: plan.Schema, Current: t.keep.Current, History: t.keep.History,
		Partition: r.o.PartitionBy(t.source.Schema, t.source.Name), Sort: r.o.SortBy(t.source.Schema, t.source.Name),
		Reread: func(ctx context.Context, keys arrow.RecordBatch) (arrow.RecordBatch, error) {
			return r.source.ReadKeys(ctx, plan, keys)
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
	s.WholeRowKey = len(s.Key) == 0 && plan.Table.ReplicaIdentity == 'f'
	return s
}

// relation takes the definition of a table as the log tells it. Rows of before it have the shape of before, so the builder
// is only changed at the next row.
func (r *run) relation(ev *postgres.Event) {
	if t := r.byOID[ev.Relation.OID]; t != nil {
		r.spool.Define(t.key, ev.Raw)
	}
}

// reshape follows a table's definition: the relation's columns get their attnums, the lake's table evolves, and a new
// builder is made for rows of that shape.
func (r *run) reshape(ctx context.Context, t *table, rel *postgres.Relation) error {
	if err := t.flush(ctx, r.o.Watch); err != nil {
		return err
	}
	now, catalog, err := r.tableNow(ctx, rel.OID)
	if err != nil {
		return err
	}
	if t.lake == nil {
		shape := now
		if shape == nil {
			shape = t.source
		}
		plan, err := catalog.Plan(shape, r.o.Policies)
		if err != nil {
			return err
		}
		if err := r.open(ctx, t, plan); err != nil {
			return err
		}
	}
	shape, err := postgres.Align(known(t), now, rel)
	if err != nil {
		return err
	}
	plan, err := catalog.Plan(shape, r.o.Policies)
	if err != nil {
		return err
	}
	if r.binary && !plan.CanBinary() {
		return r.restartAsText(t)
	}
	if err := r.evolve(ctx, t, shape, plan); err != nil {
		return err
	}
	if t.builder, err = postgres.NewChangesBuilder(plan, rel); err != nil {
		return err
	}
	t.version = rel.Version
	return nil
}

// known is the table as the lake holds it.
func known(t *table) *change.Table {
	columns := t.lake.Columns()
	if columns == nil {
		return nil
	}
	k := *t.source
	k.Columns = columns
	return &k
}

// tableNow reads a table's definition of now, which may be ahead of the log; nil when it is gone.
func (r *run) tableNow(ctx context.Context, oid uint32) (*change.Table, *postgres.Catalog, error) {
	catalog, err := r.source.Catalog(ctx)
	if err != nil {
		return nil, nil, err
	}
	now, err := catalog.Table(ctx, oid)
	if fault.Is(err, fault.SourceMissing) {
		return nil, catalog, nil
	}
	return now, catalog, err
}

// evolve brings the lake's table to the shape of the rows that come now.
func (r *run) evolve(ctx context.Context, t *table, shape *change.Table, plan *postgres.Plan) error {
	before := known(t)
	if before == nil {
		return nil
	}
	steps := postgres.Diff(before, shape)
	if len(steps) == 0 {
		return nil
	}
	for _, s := range steps {
		r.o.Log.Info("the table's definition has changed", "table", t.name, "change", stepText(s))
		if s.Kind != postgres.StepAdded {
			continue
		}
		d, err := r.source.AddedDefault(ctx, t.source.OID, s.To.Attnum)
		if err != nil {
			return err
		}
		if d.Kind == postgres.DefaultDiffers {
			return r.anew(t, "a column was added whose values differ from row to row: "+s.To.Name)
		}
	}
	err := t.lake.Evolve(ctx, shape, plan.Schema)
	if fault.Is(err, fault.SchemaUnfollowable) && r.o.CopyOnChange {
		return r.anew(t, err.Error())
	}
	return err
}

// anew ends this attempt; the next one copies the table again.
func (r *run) anew(t *table, why string) error {
	r.o.Log.Warn("the table is copied anew", "table", t.name, "because", why)
	return &again{tables: []string{t.name}}
}

// again is not a failure: the attempt ends so that the next one begins with other modes of tables.
type again struct {
	tables []string // to be copied anew
	all    bool     // all of them are
	text   bool     // values come as text
	guard  bool     // the log goes to the spool
}

func (*again) Error() string { return "the run begins again" }

// restartAsText begins again with values as text: a column's binary form cannot be turned into what a copy gives.
func (r *run) restartAsText(t *table) error {
	r.o.Log.Info("values of the log are taken as text: a column's type has no exact binary form", "table", t.name)
	return &again{text: true}
}

// published is the table as the log will tell it: without columns that the publication leaves out.
func (r *run) published(source *change.Table) *change.Table {
	t := *source
	only := r.o.ColumnList(source.Schema, source.Name)
	t.Columns = slices.DeleteFunc(slices.Clone(source.Columns), func(c change.Column) bool {
		if len(only) > 0 {
			return !slices.Contains(only, c.Name)
		}
		return c.Generated != 0 && (c.Generated != 's' || r.source.Version < 180000)
	})
	return &t
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
