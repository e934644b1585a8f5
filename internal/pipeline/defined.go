package pipeline

import (
	"context"
	"slices"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// definition is a table as the catalog has it, nil where it is gone, and the catalog that knows its types.
type definition struct {
	table   *change.Table
	catalog *postgres.Catalog
}

// definedNow reads a table's definition of now, which may be ahead of the log.
func (r *run) definedNow(ctx context.Context, oid uint32) (d definition, err error) {
	d.catalog = r.source.Catalog()
	d.table, err = d.catalog.Table(ctx, oid)
	if fault.Is(err, fault.SourceMissing) {
		return definition{catalog: d.catalog}, nil
	}
	return d, err
}

// defined says whether the lake has the definition that a look has found. The WAL tells an ALTER TABLE with the table's next row. Where
// none has come by the position of the look, the definition is taken from the catalog.
func (r *run) defined(ctx context.Context, t *table, p pendingDoubt) (bool, error) {
	if t.recopied { // the next copy brings it
		return true, nil
	}
	if t.diverted() || r.position < t.upper { // its copy may have it already
		return false, nil
	}
	d, err := r.definedNow(ctx, t.source.OID)
	if err != nil || d.table == nil { // a table that is gone has no definition
		return d.table == nil, err
	}
	now, catalog := d.table, d.catalog
	if err := r.place(ctx, t); err != nil {
		return false, err
	}
	shape, _, err := r.computedOf(ctx, t, r.published(now), now, catalog)
	if err != nil {
		return false, err
	}
	shape = t.named(shape)
	if !slices.ContainsFunc(postgres.Diff(known(t), shape), func(s postgres.SchemaStep) bool { return s.Kind != postgres.StepNullability }) {
		return true, nil
	}
	if t.keep.Current && shape.ReplicaIdentity != 'f' && len(shape.Identity()) == 0 { // judged when tables are chosen
		return true, nil
	}
	sight, err := r.source.Look(ctx, r.watched.now())
	if err != nil {
		return false, err
	}
	if f, ok := sight.Facts[t.source.OID]; !ok || !f.Equal(p.facts) { // altered again: the definition may be one of rows that are still to come
		return false, nil
	}
	if err := r.aside(t, func() error { return r.define(ctx, t, shape, now, catalog) }); err != nil {
		return false, err
	}
	return true, r.commit(ctx) // before the facts are saved, by which the next attempt would see nothing to do
}

// define has the next commit bring a definition that no row has told.
func (r *run) define(ctx context.Context, t *table, shape, now *change.Table, catalog *postgres.Catalog) error {
	if err := r.hasContent(t); err != nil {
		return err
	}
	if err := r.flush(ctx, t); err != nil {
		return err
	}
	if _, err := r.redefine(ctx, t, shape, now, catalog, r.position); err != nil {
		return err
	}
	t.version = 0 // the next row comes with a builder for this definition
	r.toCommit(t)
	return nil
}
