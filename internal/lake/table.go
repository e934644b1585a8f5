package lake

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Table is one source table in the lake: as history, as current state, or both. It is used by one goroutine, but for
// Maintain, which may run beside it.
type Table interface {
	Shape
	Sink
	Upkeep
}

// Shape is what a table holds.
type Shape interface {
	// Position is up to where all kept tables hold the log; 0 if one of them was never copied.
	Position() change.LSN
	// Columns are the source's columns as the lake knows them.
	Columns() []change.Column
	// Evolve follows the source's new definition, with schema as the plan carries it. Nothing may be pending.
	// fault.SchemaUnfollowable if that cannot be done in place.
	Evolve(ctx context.Context, to *change.Table, schema *arrow.Schema) error
}

// Sink takes changes.
type Sink interface {
	// Write takes changes and skips what the table holds already. Nothing is visible before Commit.
	Write(ctx context.Context, c *change.Changes) error
	// Commit makes what was written visible, together with the position `to`; at is the source's time of it. Without
	// anything pending nothing is written. After an error the table must be opened again.
	Commit(ctx context.Context, to change.LSN, at time.Time) (Committed, error)
	Outset
}

// Outset is what is not yet committed.
type Outset interface {
	Pending() (rows, bytes int64)
	// Abandon forgets what is pending.
	Abandon()
	Close() error
}

// Upkeep is what happens now and then.
type Upkeep interface {
	// Copy begins a copy of the whole table, or takes up one that was broken off.
	Copy(ctx context.Context) (Copy, error)
	Maintain(ctx context.Context, o MaintainOptions) (Maintained, error)
}

// part is one kept form of a table: history or current. lakeTable cuts changes to what the part does not hold yet.
type part interface {
	take(ctx context.Context, c *change.Changes) error
	commit(ctx context.Context, to change.LSN, at time.Time) (Committed, error)
	partState
}

type partState interface {
	pendingSize() (rows, bytes int64)
	abandon()
	close() error
}

var (
	_ part = (*historyTable)(nil)
	_ part = (*currentTable)(nil)
)

// lakeTable is the Table of an Iceberg lake.
type lakeTable struct {
	lake    *Lake
	spec    Spec
	history *historyTable // nil unless kept
	current *currentTable // nil unless kept
	kept    []*keptTable  // history before current: see Commit
	cancel  context.CancelFunc
}

// keptTable is a part with its Iceberg table and position.
type keptTable struct {
	part
	ice      *icebergTable
	position change.LSN
}

// Table opens the tables of a source table, and makes those that are not there yet. fault.LakeForeign if one of that
// name is not this pipeline's.
func (l *Lake) Table(ctx context.Context, spec Spec) (Table, error) {
	// Uploads live from one call to a later one, so they have a context of their own.
	uploads, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &lakeTable{lake: l, spec: spec, cancel: cancel}
	if err := t.open(ctx, uploads); err != nil {
		t.Close()
		return nil, err
	}
	return t, nil
}

func (t *lakeTable) open(ctx, uploads context.Context) error {
	if t.spec.History {
		ice, err := t.openKept(ctx, kindHistory)
		if err != nil {
			return err
		}
		if t.history, err = openHistory(uploads, ice, t.spec); err != nil {
			return err
		}
		t.kept = append(t.kept, &keptTable{part: t.history, ice: ice})
	}
	if t.spec.Current {
		ice, err := t.openKept(ctx, kindCurrent)
		if err != nil {
			return err
		}
		if t.current, err = t.openCurrent(uploads, ice); err != nil {
			return err
		}
		t.kept = append(t.kept, &keptTable{part: t.current, ice: ice})
	}
	return t.readPositions()
}

func (t *lakeTable) readPositions() (err error) {
	for _, k := range t.kept {
		if k.position, err = k.ice.position(); err != nil {
			return err
		}
	}
	return nil
}

// The values of propKind.
const (
	kindHistory = "history"
	kindCurrent = "current"
)

// openKept opens or makes one Iceberg table.
func (t *lakeTable) openKept(ctx context.Context, kind string) (*icebergTable, error) {
	suffix := ""
	if kind == kindHistory {
		suffix = t.lake.HistorySuffix
	}
	ice, found, err := t.lake.openIceberg(ctx, t.lake.identifier(t.spec.Table, suffix), kind)
	if err != nil {
		return nil, err
	}
	if !found {
		if err := t.create(ctx, ice); err != nil {
			return nil, err
		}
	}
	if err := t.checkOwner(ice); err != nil {
		return nil, err
	}
	return ice, t.checkFields(ctx, ice)
}

// checkOwner refuses tables that another pipeline writes, or nobody we know.
func (t *lakeTable) checkOwner(ice *icebergTable) error {
	p := ice.tbl.Properties()
	switch {
	case p[propPipeline] != t.lake.Pipeline:
		return fault.New(fault.LakeForeign, ice.where(), "the table belongs to pipeline %q, not to %q", p[propPipeline], t.lake.Pipeline)
	case p[propSource] != t.spec.Table.String() || p[propKind] != ice.kind:
		return fault.New(fault.LakeForeign, ice.where(), "the table holds the %s of %s", p[propKind], p[propSource])
	}
	if epoch, err := strconv.ParseInt(p[propEpoch], 10, 64); err == nil && epoch > t.lake.Epoch {
		return fault.New(fault.PipelineFenced, ice.where(), "a later process (epoch %d, ours is %d) has written the table", epoch, t.lake.Epoch)
	}
	return nil
}

// create makes the Iceberg table. Whoever makes it at the same moment is found out by checkOwner.
func (t *lakeTable) create(ctx context.Context, ice *icebergTable) error {
	schema, key := t.spec.Schema, t.spec.Key
	if ice.kind == kindHistory {
		var err error
		if schema, err = historySchema(t.lake.Profile, t.spec); err != nil {
			return err
		}
		key = nil
	}
	icy, err := icebergSchema(schema, key)
	if err != nil {
		return err
	}
	columns, err := columnsOf(t.spec.Table, icy)
	if err != nil {
		return err
	}
	if create := t.lake.createNamespace; create != nil {
		if err := create(ctx, ice.ident[:1]); err != nil {
			return ice.failed(err, "its namespace cannot be made")
		}
	}
	props := iceberg.Properties{
		table.PropertyFormatVersion:               strconv.Itoa(t.lake.Format),
		table.MetadataDeleteAfterCommitEnabledKey: "true",
		table.MetadataPreviousVersionsMaxKey:      "20",
		table.WriteDeleteModeKey:                  "merge-on-read",
		"write.update.mode":                       "merge-on-read",
		"write.merge.mode":                        "merge-on-read",
		table.CommitNumRetriesKey:                 "0",
		table.ParquetCompressionKey:               string(t.lake.Compression),
		propPipeline:                              t.lake.Pipeline,
		propEpoch:                                 strconv.FormatInt(t.lake.Epoch, 10),
		propSource:                                t.spec.Table.String(),
		propKind:                                  ice.kind,
		propColumns:                               encodeColumns(columns),
	}
	_, err = t.lake.catalog.CreateTable(ctx, ice.ident, icy, catalog.WithLocation(t.lake.url(ice.folder())), catalog.WithProperties(props))
	if err != nil && !errors.Is(err, catalog.ErrTableAlreadyExists) {
		return ice.failed(err, "it cannot be made")
	}
	return ice.failed(ice.load(ctx), "it cannot be opened")
}

// checkFields sets the columns' fields right where the catalog gave a new table other ids than we expected. A table with
// data is past that.
func (t *lakeTable) checkFields(ctx context.Context, ice *icebergTable) error {
	if same, err := ice.holds(t.spec.Table); err != nil || !same || ice.tbl.CurrentSnapshot() != nil {
		return err
	}
	columns, err := columnsOf(t.spec.Table, ice.schema())
	if err != nil {
		return err
	}
	if text := encodeColumns(columns); text != ice.property(propColumns) {
		return ice.commit(ctx, delta{props: iceberg.Properties{propColumns: text}})
	}
	return nil
}

// Position is the least of the kept tables.
func (t *lakeTable) Position() change.LSN {
	least := ^change.LSN(0)
	for _, k := range t.kept {
		least = min(least, k.position)
	}
	return least
}

// Columns are the source's columns as of the last commit.
func (t *lakeTable) Columns() []change.Column {
	for _, k := range t.kept {
		if columns, err := k.ice.columns(); err == nil {
			out := make([]change.Column, len(columns))
			for i, c := range columns {
				out[i] = c.source()
			}
			return out
		}
	}
	return nil
}

// Write gives the changes to each kept table that does not hold them yet. Where both are kept, values that the log
// left out are filled in from the current state before the history gets them.
func (t *lakeTable) Write(ctx context.Context, c *change.Changes) error {
	resolved := c
	if t.current != nil && c.Unchanged != nil {
		from := t.kept[len(t.kept)-1].position
		if c.Len() > 0 && c.LSN[0] >= from { // rows it holds already would be resolved by newer values
			var err error
			if resolved, err = t.current.resolve(ctx, c); err != nil {
				return err
			}
		}
	}
	for _, k := range t.kept {
		if err := k.take(ctx, since(resolved, k.position)); err != nil {
			return err
		}
	}
	return nil
}

// Pending counts what the kept tables have not committed.
func (t *lakeTable) Pending() (rows, bytes int64) {
	for _, k := range t.kept {
		r, b := k.pendingSize()
		rows, bytes = rows+r, bytes+b
	}
	return rows, bytes
}

// Commit commits the history first: should the process end before the other commit, the current state is the one
// behind, and can still tell the history's values apart.
func (t *lakeTable) Commit(ctx context.Context, to change.LSN, at time.Time) (Committed, error) {
	sum := Committed{Position: to}
	for _, k := range t.kept {
		if rows, _ := k.pendingSize(); rows == 0 {
			continue
		}
		one, err := k.commit(ctx, to, at)
		if err != nil {
			return sum, err
		}
		k.position = to
		sum.add(one)
	}
	return sum, nil
}

func (c *Committed) add(o Committed) {
	c.Rows += o.Rows
	c.Files += o.Files
	c.Deletes += o.Deletes
	c.Bytes += o.Bytes
	c.Snapshots = append(c.Snapshots, o.Snapshots...)
}

func (t *lakeTable) Abandon() {
	for _, k := range t.kept {
		k.abandon()
	}
}

// Close abandons what is pending.
func (t *lakeTable) Close() error {
	var errs []error
	for _, k := range t.kept {
		k.abandon()
		errs = append(errs, k.close())
	}
	t.cancel()
	return errors.Join(errs...)
}

// Maintain keeps the tables readable fast. See MaintainOptions.
func (t *lakeTable) Maintain(ctx context.Context, o MaintainOptions) (Maintained, error) {
	var sum Maintained
	for _, k := range t.kept {
		var one Maintained
		var err error
		if k.part == part(t.current) {
			one, err = t.current.maintain(ctx, o)
		} else {
			one, err = k.ice.maintain(ctx, o)
		}
		sum.add(one)
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

// openCurrent opens the part that keeps the latest rows.
func (t *lakeTable) openCurrent(ctx context.Context, ice *icebergTable) (*currentTable, error) {
	schema, err := withFieldIDs(t.spec.Schema, ice.schema())
	if err != nil {
		return nil, err
	}
	return openCurrent(ctx, ice, t.spec, schema)
}

// evolveCurrent gives the current part the new definition.
func (t *lakeTable) evolveCurrent() error {
	schema, err := withFieldIDs(t.spec.Schema, t.kept[len(t.kept)-1].ice.schema())
	if err != nil {
		return err
	}
	t.current.mu.Lock()
	defer t.current.mu.Unlock()
	return t.current.setSchema(schema, t.spec.Key)
}
