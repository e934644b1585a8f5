package lake

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync/atomic"
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
	// Columns are the source's columns as the lake knows them: of a table that was there, in its own definition and not
	// in the one it was opened with, until Evolve.
	Columns() []change.Column
	// Evolve follows the source's new definition from here on; what was written before stays as it is. It becomes visible with
	// the next Commit. Call it before the first Write of each definition, whether it is another one or not.
	// fault.SchemaUnfollowable if that cannot be done in place; the table must then be opened again.
	Evolve(ctx context.Context, d Definition) error
}

// Sink takes changes.
type Sink interface {
	// Write takes changes and skips what the table holds already. Nothing is visible before Commit.
	Write(ctx context.Context, c *change.Changes) error
	// Commit makes what was written visible, with the definition it was written in and the position `to`; at is the source's
	// time of it. Without anything pending nothing is written. After an error the table must be opened again.
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
	// Copy begins a copy of the whole table, or takes up one that was broken off. The rows have the given definition; it
	// becomes the table's with Finish, whatever the table had before.
	Copy(ctx context.Context, source *change.Table, schema *arrow.Schema) (Copy, error)
	// ForgetCopy is called when the caller has noted, where it outlasts a crash, that a copy was finished.
	ForgetCopy(ctx context.Context) error
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
	name    string // of the source table when it was opened
	spec    Spec
	history *historyTable // nil unless kept
	current *currentTable // nil unless kept
	kept    []*keptTable  // history before current: see commit
	cancel  context.CancelFunc
	lost    atomic.Pointer[error] // what a panic became; nil for none
	// Of the latest definition, for kept tables that are behind.
	latest Definition
}

// keptTable is a part with its Iceberg table and position.
type keptTable struct {
	part
	ice      *icebergTable
	position change.LSN
	behind   bool // it takes the latest definition when rows of it come that it does not hold
}

// Table opens the tables of a source table, and makes those that are not there yet. fault.LakeForeign if one of that
// name is not this pipeline's.
func (l *Lake) Table(ctx context.Context, spec Spec) (Table, error) {
	// Uploads live from one call to a later one, so they have a context of their own.
	uploads, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t := &lakeTable{lake: l, name: spec.Table.String(), spec: spec, cancel: cancel}
	if err := fault.Catching(l.Log, t.name, func() error { return t.open(ctx, uploads) })(); err != nil {
		_ = t.Close() // the error that counts is there
		return nil, err
	}
	return t, nil
}

func (t *lakeTable) open(ctx, uploads context.Context) error {
	if t.spec.History {
		if err := t.openHistory(ctx, uploads); err != nil {
			return err
		}
	}
	if t.spec.Current {
		if err := t.openCurrent(ctx, uploads); err != nil {
			return err
		}
	}
	if err := t.readPositions(); err != nil {
		return err
	}
	spec, err := t.held(t.least().ice)
	if err != nil {
		return err
	}
	t.spec = spec
	for _, k := range t.kept { // the least may not have come to it yet
		if has, err := k.ice.hasSpecial(); err != nil {
			return err
		} else if has {
			t.spec = t.spec.withSpecial()
		}
	}
	return nil
}

// openHistory opens the part that keeps every change.
func (t *lakeTable) openHistory(ctx, uploads context.Context) error {
	ice, err := t.openKept(ctx, kindHistory)
	if err != nil {
		return err
	}
	spec, err := t.held(ice)
	if err != nil {
		return err
	}
	if t.history, err = openHistory(uploads, ice, spec); err != nil {
		return err
	}
	t.kept = append(t.kept, &keptTable{part: t.history, ice: ice})
	return nil
}

// openCurrent opens the part that keeps the latest rows.
func (t *lakeTable) openCurrent(ctx, uploads context.Context) error {
	ice, err := t.openKept(ctx, kindCurrent)
	if err != nil {
		return err
	}
	spec, err := t.held(ice)
	if err != nil {
		return err
	}
	schema, err := withFieldIDs(spec.Schema, ice.schema())
	if err != nil {
		return err
	}
	if t.current, err = openCurrent(uploads, ice, spec, schema); err != nil {
		return err
	}
	t.kept = append(t.kept, &keptTable{part: t.current, ice: ice})
	return nil
}

// held is the spec in the definition that the Iceberg table has. The log may be behind the source's definition of now, and goes
// on in the one in which it was left.
func (t *lakeTable) held(ice *icebergTable) (Spec, error) {
	columns, err := ice.columnsHeld()
	if err != nil {
		return t.spec, err
	}
	wanted := t.spec
	if has, err := ice.hasSpecial(); err != nil {
		return t.spec, err
	} else if has {
		wanted = wanted.withSpecial()
	}
	if wanted.fits(ice, columns) {
		return wanted, nil
	}
	fields, err := arrowFields(ice.now().Schema())
	if err != nil {
		return t.spec, ice.failed(err, "its definition has no Arrow form")
	}
	spec, source := t.spec, *t.spec.Table
	source.Columns = nil
	var of []arrow.Field
	for _, c := range columns {
		source.Columns = append(source.Columns, c.source())
		of = append(of, fields[c.Field])
	}
	spec.Table, spec.Schema, spec.Key = &source, arrow.NewSchema(of, nil), keyOfColumns(columns)
	spec.WholeRowKey = len(spec.Key) == 0 && (spec.WholeRowKey || spec.Current)
	return spec, nil
}

// fits says whether the Iceberg table has the spec's columns as they are.
func (s *Spec) fits(ice *icebergTable, columns []column) bool {
	if len(columns) != len(s.Table.Columns) || !slices.Equal(keyOfColumns(columns), s.Key) {
		return false
	}
	for i, c := range columns {
		f, ok := ice.now().Schema().FindFieldByID(c.Field)
		want := s.Table.Columns[i]
		if !ok || c.Attnum != want.Attnum || c.Name != want.Name || c.TypeOID != want.TypeOID || c.Typmod != want.Typmod || c.Dims != want.Dims || c.Computed != want.Computed {
			return false
		}
		now, err := icebergType(s.Schema.Field(i), func() int { return 0 })
		if err != nil || !sameType(f.Type, now) {
			return false
		}
	}
	return true
}

// least is the kept table that holds the least of the log.
func (t *lakeTable) least() *keptTable {
	return slices.MinFunc(t.kept, func(a, b *keptTable) int { return cmp.Compare(a.position, b.position) })
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
	ice, found, err := t.lake.openIceberg(ctx, t.lake.identifier(t.spec.Table, t.lake.suffix(kind)), kind)
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
	if err := t.settle(ctx, ice); err != nil {
		return nil, err
	}
	if err := t.checkAltered(ctx, ice); err != nil {
		return nil, err
	}
	if err := t.checkLayout(ice); err != nil {
		return nil, err
	}
	if err := t.checkFields(ctx, ice); err != nil {
		return nil, err
	}
	return ice, t.followSort(ctx, ice)
}

// checkOwner refuses tables that another pipeline writes, or nobody we know.
func (t *lakeTable) checkOwner(ice *icebergTable) error {
	p := ice.now().Properties()
	switch {
	case p[propPipeline] != t.lake.Pipeline:
		return fault.New(fault.LakeForeign, ice.where(), "the table belongs to pipeline %q, not to %q", p[propPipeline], t.lake.Pipeline)
	case p[propSource] != t.spec.Table.String() || p[propKind] != ice.kind:
		return fault.New(fault.LakeForeign, ice.where(), "the table holds the %s of %s", p[propKind], p[propSource])
	}
	if later := fenced(t.lake, ice.now()); later != nil {
		return later
	}
	return nil
}

// settle tells other writers to put the table's files into our folder. Some REST catalogs choose another location, whatever they are
// asked for, and we read nothing outside the lake.
func (t *lakeTable) settle(ctx context.Context, ice *icebergTable) error {
	if _, _, ours := t.lake.places.root(asFolder(ice.now().Location())); ours {
		return nil
	}
	folder := t.lake.url(ice.folder())
	paths := iceberg.Properties{table.WriteDataPathKey: folder + "/data", table.WriteMetadataPathKey: folder + "/metadata"}
	for key, want := range paths {
		if ice.property(key) != want {
			return ice.commit(ctx, delta{props: paths})
		}
	}
	return nil
}

// create begins the Iceberg table. Another process that makes it at the same moment is found by checkOwner, or by the
// first commit.
func (t *lakeTable) create(ctx context.Context, ice *icebergTable) error {
	form, err := t.newForm(ice.kind)
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
		propColumns:                               encodeColumns(form.columns),
	}
	maps.Copy(props, t.lake.Snapshots.properties())
	tbl, err := t.lake.catalog.NewTable(ctx, ice.ident, form.schema, append(form.layout, catalog.WithLocation(t.lake.url(ice.folder())), catalog.WithProperties(props))...)
	if err != nil {
		return ice.failed(err, "it cannot be made")
	}
	return ice.failed(ice.take(ctx, tbl), "it cannot be opened")
}

// checkFields sets the columns' fields right where the catalog gave a new table other ids than we expected. A table with
// data is past that.
func (t *lakeTable) checkFields(ctx context.Context, ice *icebergTable) error {
	if same, err := ice.holds(t.spec.Table); err != nil || !same || ice.now().CurrentSnapshot() != nil {
		return err
	}
	columns, err := columnsOf(t.spec.Table, t.spec.Key, ice.schema())
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

// Columns are the source's columns of the latest definition.
func (t *lakeTable) Columns() []change.Column { return slices.Clone(t.spec.Table.Columns) }

// write gives the changes to each kept table that does not hold them yet. Where both are kept, values that the log
// left out are filled in from the current state before the history gets them.
func (t *lakeTable) write(ctx context.Context, c *change.Changes) error {
	if c.Len() == 0 {
		return nil
	}
	columns := t.spec.columns()
	if err := t.admit(ctx, append(specialNames(c.Rows, columns), specialNames(c.Old, columns)...)); err != nil {
		return err
	}
	c, done := t.spec.changesWithRoom(c)
	defer done()
	for _, k := range t.kept {
		if k.behind && c.LSN[c.Len()-1] >= k.position {
			if err := t.evolveKept(ctx, k); err != nil {
				return err
			}
		}
	}
	if t.current == nil || c.Unchanged == nil {
		return t.take(ctx, c)
	}
	from := 0
	if held := before(c, t.kept[len(t.kept)-1].position); held > 0 { // they would be resolved by newer values
		part := c.Between(0, held)
		err := t.take(ctx, part)
		part.Rows.Release()
		if err != nil {
			return err
		}
		from = held
	}
	for from < c.Len() {
		part, err := t.current.resolve(ctx, c, from)
		if needs := (*needsSpecial)(nil); errors.As(err, &needs) {
			return t.writeRest(ctx, c, from, needs.columns)
		}
		if err != nil {
			return err
		}
		from += part.Len()
		err = t.take(ctx, part)
		part.Rows.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// writeRest writes the changes from a row on, after the table got a place for special values, which the source has told beside.
func (t *lakeTable) writeRest(ctx context.Context, c *change.Changes, from int, special []string) error {
	rest := c.Between(from, c.Len())
	defer rest.Rows.Release()
	if err := t.admit(ctx, special); err != nil {
		return err
	}
	return t.write(ctx, rest)
}

func (t *lakeTable) take(ctx context.Context, c *change.Changes) error {
	for _, k := range t.kept {
		fresh := since(c, k.position)
		var err error
		if fresh.Len() > 0 {
			err = k.take(ctx, fresh)
		}
		if fresh != c {
			fresh.Rows.Release()
		}
		if err != nil {
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

// commit commits the history first: should the process end before the other commit, the current state is the one
// behind, and can still tell the history's values apart.
func (t *lakeTable) commit(ctx context.Context, to change.LSN, at time.Time) (Committed, error) {
	sum := Committed{Position: to}
	for _, k := range t.kept {
		if rows, _ := k.pendingSize(); rows == 0 && k.ice.staged == nil {
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

// maintain keeps the tables readable fast. See MaintainOptions.
func (t *lakeTable) maintain(ctx context.Context, o MaintainOptions) (Maintained, error) {
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
