package lake

import (
	"context"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// evolution is the way from an Iceberg table's columns to the source's new ones. Fields keep their ids, so that data
// files written before stay readable.
type evolution struct {
	table   *icebergTable
	version bool // Options.OnTypeChange: keep the old column under another name
	key     []string
	before  *iceberg.Schema
	old     map[int16]column
	last    int // highest field id so far

	fields  []iceberg.NestedField
	aside   []iceberg.NestedField // columns of the source that were kept under another name
	columns []column
}

// Evolve follows the source's new definition: columns are added, dropped, renamed, widened and made optional in place.
func (t *lakeTable) Evolve(ctx context.Context, to *change.Table, schema *arrow.Schema) error {
	if rows, _ := t.Pending(); rows > 0 {
		return fault.New(fault.Internal, to.String(), "the table is to change while rows of its old definition are pending")
	}
	key, err := t.keyOf(to)
	if err != nil {
		return err
	}
	for _, k := range t.kept {
		if err := t.evolveOne(ctx, k.ice, to, schema, key); err != nil {
			return err
		}
	}
	t.spec.Table, t.spec.Schema, t.spec.Key = to, schema, key
	if t.history != nil {
		if err := t.history.evolved(t.spec); err != nil {
			return err
		}
	}
	if t.current != nil {
		return t.evolveCurrent()
	}
	return nil
}

// keyOf gives the key's columns their new names.
func (t *lakeTable) keyOf(to *change.Table) ([]string, error) {
	key := slices.Clone(t.spec.Key)
	for i, name := range key {
		at := slices.IndexFunc(t.spec.Table.Columns, func(c change.Column) bool { return c.Name == name })
		if at < 0 {
			return nil, fault.New(fault.Internal, to.String(), "the key's column %q is not in the table", name)
		}
		now := slices.IndexFunc(to.Columns, func(c change.Column) bool { return c.Attnum == t.spec.Table.Columns[at].Attnum })
		if now < 0 {
			return nil, fault.New(fault.SchemaUnfollowable, to.String(), "the key's column %q was dropped", name)
		}
		key[i] = to.Columns[now].Name
	}
	return key, nil
}

func (t *lakeTable) evolveOne(ctx context.Context, ice *icebergTable, to *change.Table, schema *arrow.Schema, key []string) error {
	columns, err := ice.columns()
	if err != nil {
		return err
	}
	e := &evolution{
		table: ice, version: t.lake.OnTypeChange == "version", key: key, before: ice.schema(),
		old: map[int16]column{}, last: ice.tbl.Metadata().LastColumnID(),
	}
	known := map[int]bool{}
	for _, c := range columns {
		e.old[c.Attnum], known[c.Field] = c, true
	}
	system := arrow.NewSchema(nil, nil)
	if ice.kind == kindHistory {
		e.key = nil
		s, err := profileColumns(t.lake.Profile)
		if err != nil {
			return err
		}
		system = arrow.NewSchema(s.fields(), nil)
		schema = arrow.NewSchema(nullable(schema), nil)
	}
	if err := checkNames(to, system); err != nil {
		return err
	}
	for _, f := range e.before.Fields() {
		if _, ok := system.FieldsByName(f.Name); ok {
			e.fields = append(e.fields, f)
		} else if !known[f.ID] {
			e.aside = append(e.aside, f)
		}
	}
	for i, c := range to.Columns {
		if err := e.follow(c, schema.Field(i)); err != nil {
			return err
		}
	}
	return e.commit(ctx, to)
}

// follow takes over one column.
func (e *evolution) follow(c change.Column, f arrow.Field) error {
	old, known := e.old[c.Attnum]
	if !known {
		return e.add(c, f)
	}
	was, ok := e.before.FindFieldByID(old.Field)
	if !ok {
		return fault.New(fault.LakeFailed, e.table.where(), "the column %s (field %d) is gone", old.Name, old.Field)
	}
	now, err := icebergType(f, e.next)
	if err != nil {
		return err
	}
	switch {
	case sameType(was.Type, now):
		now = was.Type // with the ids of what lies below
	case !widens(was.Type, now):
		if !e.version {
			return fault.New(fault.SchemaUnfollowable, e.table.where()+"."+c.Name, "the column was %s and is now %s, which the lake cannot widen to", was.Type, now)
		}
		was.Name, was.Required = fmt.Sprintf("%s__v%d", old.Name, was.ID), false
		e.aside = append(e.aside, was)
		return e.add(c, f)
	}
	e.fields = append(e.fields, iceberg.NestedField{ID: was.ID, Name: f.Name, Type: now, Required: was.Required && !f.Nullable, Doc: docOf(f),
		InitialDefault: was.InitialDefault, WriteDefault: was.WriteDefault})
	e.columns = append(e.columns, columnOf(c, was.ID))
	return nil
}

func (e *evolution) next() int {
	e.last++
	return e.last
}

// add adds a column. Rows that are there have no value for it, so it cannot be required.
func (e *evolution) add(c change.Column, f arrow.Field) error {
	field, err := icebergField(f, e.next)
	if err != nil {
		return err
	}
	field.Required = false
	e.fields = append(e.fields, field)
	e.columns = append(e.columns, columnOf(c, field.ID))
	return nil
}

func (e *evolution) commit(ctx context.Context, to *change.Table) error {
	fields := append(e.fields, e.aside...)
	schema := iceberg.NewSchema(0, fields...)
	schema = iceberg.NewSchemaWithIdentifiers(0, identifiers(schema, e.key), fields...)
	d := delta{props: iceberg.Properties{propColumns: encodeColumns(e.columns), propSource: to.String()}}
	if !schema.Equals(e.before) {
		d.updates = []table.Update{table.NewAddSchemaUpdate(schema), table.NewSetCurrentSchemaUpdate(-1)}
	} else if d.props[propColumns] == e.table.property(propColumns) && d.props[propSource] == e.table.property(propSource) {
		return nil
	}
	return e.table.commit(ctx, d)
}

// sameType compares types without the ids of what lies below.
func sameType(a, b iceberg.Type) bool {
	la, ok := a.(*iceberg.ListType)
	if !ok {
		return a.Equals(b)
	}
	lb, ok := b.(*iceberg.ListType)
	return ok && la.ElementRequired == lb.ElementRequired && sameType(la.Element, lb.Element)
}

// widens says whether Iceberg reads values of a as b: the promotions of format version 2.
func widens(a, b iceberg.Type) bool {
	switch was := a.(type) {
	case iceberg.Int32Type:
		_, ok := b.(iceberg.Int64Type)
		return ok
	case iceberg.Float32Type:
		_, ok := b.(iceberg.Float64Type)
		return ok
	case iceberg.DecimalType:
		now, ok := b.(iceberg.DecimalType)
		return ok && now.Scale() == was.Scale() && now.Precision() >= was.Precision()
	}
	return false
}
