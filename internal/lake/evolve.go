package lake

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Definition is a table at the source as the log tells its rows from some transaction on.
type Definition struct {
	Table  *change.Table
	Schema *arrow.Schema // the columns as the plan carries them
	// From is the LSN of that transaction. A kept table that holds it already has this definition or a later one.
	From change.LSN
	// Fill gives, by attnum, what the rows of before have in a column that was added: an array of one. The history
	// tells what the log told and is not filled.
	Fill map[int16]arrow.Array
	// Rewritten are the attnums of columns whose values the source has computed again, in a way that is not known here.
	Rewritten []int16
	// Converted are the columns whose values the source has converted exactly: by attnum, how many characters of a text it has
	// kept, 0 for all.
	Converted map[int16]int
	// Retyped are the attnums of columns of another type whose values go on, as they were or converted. Check is told some rows with
	// them, and the key; it returns an error where the source has other values. Nil: nothing is checked.
	Retyped []int16
	Check   func(ctx context.Context, rows arrow.RecordBatch) error
}

// staged is a definition that comes with the next commit of data: schema and position move together, so that after a
// crash the log goes on in the definition that the table has.
type staged struct {
	// schemas lead to the last one. All of them are added, so that no field id is ever given to two columns.
	schemas []*iceberg.Schema
	columns []column
	source  string
	from    map[int]int // columns whose values are converted: the field ids of which, by those of the new ones
}

func (s *staged) schema() *iceberg.Schema { return s.schemas[len(s.schemas)-1] }

func (s *staged) props() iceberg.Properties {
	return iceberg.Properties{propColumns: encodeColumns(s.columns), propSource: s.source}
}

// updates lead from base to the definition. A schema that the table has had goes by its id: servers that are built on Iceberg's
// own library refuse to take "the last one that was added" when none of what was added is new.
func (s *staged) updates(base table.Metadata) ([]table.Update, error) {
	last := s.schema()
	order, err := orderLeft(base.SortOrder(), last)
	if err != nil {
		return nil, err
	}
	out := sortUpdates(base, order) // first: no schema may lack what the table is sorted by
	highest := base.LastColumnID()
	for _, schema := range s.schemas {
		highest = max(highest, schema.HighestFieldID())
		if _, known := knownSchema(base, schema); !known && !sameSchema(schema, last) {
			out = append(out, addSchema(schema, highest))
		}
	}
	id, known := knownSchema(base, last)
	if !known {
		return append(out, addSchema(last, highest), table.NewSetCurrentSchemaUpdate(-1)), nil
	}
	if id != base.CurrentSchema().ID {
		out = append(out, table.NewSetCurrentSchemaUpdate(id))
	}
	return out, nil
}

// schemaAdded is the library's update with the highest field id so far, which some servers cannot do without (Nessie).
type schemaAdded struct {
	table.Update
	schema *iceberg.Schema
	last   int
}

func addSchema(schema *iceberg.Schema, last int) schemaAdded {
	return schemaAdded{table.NewAddSchemaUpdate(schema), schema, last}
}

func (u schemaAdded) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Action string          `json:"action"`
		Schema *iceberg.Schema `json:"schema"`
		Last   int             `json:"last-column-id"`
	}{u.Action(), u.schema, u.last})
}

// knownSchema is the id under which the table has a schema.
func knownSchema(base table.Metadata, of *iceberg.Schema) (id int, known bool) {
	for _, s := range base.Schemas() {
		if sameSchema(s, of) {
			return s.ID, true
		}
	}
	return 0, false
}

// sameSchema compares schemas as servers do: their ids do not matter, nor does the order of the key's columns.
func sameSchema(a, b *iceberg.Schema) bool {
	return slices.EqualFunc(a.Fields(), b.Fields(), func(a, b iceberg.NestedField) bool { return a.Equals(b) }) &&
		slices.Equal(slices.Sorted(slices.Values(a.IdentifierFieldIDs)), slices.Sorted(slices.Values(b.IdentifierFieldIDs)))
}

// What becomes of a column whose type cannot be widened.
type mismatch int

const (
	mismatchStops   mismatch = iota
	mismatchAside            // the old one stays under another name
	mismatchReplace          // the old one goes: all rows are replaced
)

// evolution is the way from an Iceberg table's columns to the source's new ones. Fields keep their ids, so that data
// files written before stay readable.
type evolution struct {
	table     *icebergTable
	otherwise mismatch
	rewritten []int16
	converted map[int16]int
	from      map[int]int // see staged
	key       []string
	before    *iceberg.Schema
	old       map[int16]column
	last      int // highest field id so far

	fields  []iceberg.NestedField
	aside   []iceberg.NestedField // columns of the source that were kept under another name
	columns []column
}

// evolve stages the new definition for each kept table that does not hold it yet.
func (t *lakeTable) evolve(ctx context.Context, d Definition) error {
	spec, err := t.specOf(d, false)
	if err != nil {
		return err
	}
	if d.Check != nil && t.current != nil {
		if err := t.checkRetyped(ctx, d); err != nil {
			return err
		}
	}
	t.spec, t.latest = spec, d
	for _, k := range t.kept {
		k.behind = d.From < k.position
		if k.behind {
			continue
		}
		if err := t.evolveKept(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// evolveKept brings one kept table to the table's latest definition.
func (t *lakeTable) evolveKept(ctx context.Context, k *keptTable) error {
	k.behind = false
	return t.followKept(ctx, k, t.latest)
}

// followKept brings a kept table to the spec. The definition tells of values in what it has not followed yet.
func (t *lakeTable) followKept(ctx context.Context, k *keptTable, d Definition) error {
	otherwise := mismatchStops
	if t.lake.OnTypeChange == "version" {
		otherwise = mismatchAside
	}
	next, err := k.ice.evolve(t.spec, d, otherwise)
	if err != nil {
		return err
	}
	added := fill{}
	if next != nil {
		if added, err = fillings(d, k.ice.schema(), next); err != nil {
			return err
		}
		k.ice.staged = next
	}
	if t.history != nil && k.ice == t.history.ice {
		return t.history.shape(ctx, t.spec, k.ice.schema())
	}
	schema, err := withFieldIDs(t.spec.Schema, k.ice.schema())
	if err != nil {
		return err
	}
	return t.current.evolve(ctx, schema, t.spec, added)
}

// fillings are those of the columns that a definition adds to before or converts.
func fillings(d Definition, before *iceberg.Schema, next *staged) (fill, error) {
	was, err := arrowFields(before)
	if err != nil {
		return nil, err
	}
	out := fill{}
	for _, c := range next.columns {
		from, converted := next.from[c.Field]
		switch {
		case converted:
			out[c.Field] = filling{from: was[from], cut: d.Converted[c.Attnum]}
		case d.Fill[c.Attnum] != nil:
			if _, known := was[c.Field]; !known {
				out[c.Field] = filling{value: d.Fill[c.Attnum]}
			}
		}
	}
	return out, nil
}

// specOf is what is wanted of the table in its new definition. The key is what the log tells rows by. A copy is fresh: it
// owes nothing to the key of before.
func (t *lakeTable) specOf(d Definition, fresh bool) (Spec, error) {
	s := t.spec
	s.Table, s.Schema = d.Table, d.Schema
	if t.spec.hasSpecial() {
		s = s.withSpecial()
	}
	full := d.Table.ReplicaIdentity == 'f'
	if !fresh && s.WholeRowKey && full {
		return s, nil // a key that was added since may not hold for the rows that come first
	}
	key, ok := namesOf(d.Table, d.Table.Identity())
	if ok && len(key) > 0 {
		s.Key, s.WholeRowKey = key, false
		return s, nil
	}
	if full || s.WholeRowKey {
		s.Key, s.WholeRowKey = nil, true
		return s, nil
	}
	s.Key = nil
	for _, name := range t.spec.Key {
		attnums := attnumsOf(t.spec.Table, name)
		now, ok := namesOf(d.Table, attnums)
		if !ok || len(now) == 0 {
			return s, fault.New(fault.SchemaUnfollowable, d.Table.String(), "the key's column %q was dropped, and the log tells no other key", name)
		}
		s.Key = append(s.Key, now...)
	}
	return s, nil
}

func namesOf(t *change.Table, attnums []int16) ([]string, bool) {
	var names []string
	for _, n := range attnums {
		i := slices.IndexFunc(t.Columns, func(c change.Column) bool { return c.Attnum == n })
		if i < 0 {
			return nil, false
		}
		names = append(names, t.Columns[i].Name)
	}
	return names, true
}

func attnumsOf(t *change.Table, name string) []int16 {
	for _, c := range t.Columns {
		if c.Name == name {
			return []int16{c.Attnum}
		}
	}
	return nil
}

// evolve finds the way to a new definition and changes nothing yet; nil when the table has it.
func (t *icebergTable) evolve(spec Spec, d Definition, otherwise mismatch) (*staged, error) {
	columns, err := t.columns()
	if err != nil {
		return nil, err
	}
	e := &evolution{
		table: t, otherwise: otherwise, rewritten: d.Rewritten, converted: d.Converted, from: map[int]int{}, key: spec.Key, before: t.schema(),
		old: map[int16]column{}, last: t.now().Metadata().LastColumnID(),
	}
	known := map[int]bool{}
	for _, c := range columns {
		e.old[c.Attnum], known[c.Field] = c, true
	}
	system, schema := arrow.NewSchema(nil, nil), spec.Schema
	if t.kind == kindHistory {
		e.key = nil
		s, err := profileColumns(t.lake.Profile)
		if err != nil {
			return nil, err
		}
		system = arrow.NewSchema(s.fields(), nil)
		schema = arrow.NewSchema(nullable(schema), nil)
	}
	if t.staged != nil {
		for _, s := range t.staged.schemas {
			e.last = max(e.last, s.HighestFieldID())
		}
	}
	if err := checkNames(spec.Table, system); err != nil {
		return nil, err
	}
	for _, f := range e.before.Fields() {
		if _, ok := system.FieldsByName(f.Name); ok {
			e.fields = append(e.fields, f)
		} else if !known[f.ID] {
			e.aside = append(e.aside, f)
		}
	}
	for i, c := range spec.Table.Columns {
		if err := e.follow(c, schema.Field(i)); err != nil {
			return nil, err
		}
		e.columns[i].Key = slices.Index(spec.Key, c.Name) + 1
	}
	e.keepPartitions()
	return e.staged(spec.Table), nil
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
	probe := 0 // ids that are only given when the column is a new one
	now, err := icebergType(f, func() int { probe++; return probe })
	if err != nil {
		return err
	}
	cut, converted := e.converted[c.Attnum]
	text := was.Type.Equals(iceberg.PrimitiveTypes.String) && was.Type.Equals(now)
	fits := !slices.Contains(e.rewritten, c.Attnum) && (!converted || cut != 0 || !text) // what is carried as text may have another one
	switch {
	case fits && sameType(was.Type, now):
		now = was.Type // with the ids of what lies below
	case fits && widens(was.Type, now):
	case fits && widens(now, was.Type):
		now = was.Type // the rows of before may need it, and values of the narrower type are read as the wider
	default:
		return e.replace(c, f, old, was, now)
	}
	if cut > 0 && e.table.kind == kindCurrent && e.otherwise != mismatchReplace {
		e.from[was.ID] = was.ID // cut where it stands
	}
	e.fields = append(e.fields, iceberg.NestedField{ID: was.ID, Name: f.Name, Type: now, Required: was.Required && !f.Nullable, Doc: docOf(f),
		InitialDefault: was.InitialDefault, WriteDefault: was.WriteDefault})
	e.columns = append(e.columns, columnOf(c, was.ID))
	return nil
}

// replace begins another column where values cannot go on in the old one. The current rows are the latest state: they have it only
// when their values can be converted.
func (e *evolution) replace(c change.Column, f arrow.Field, old column, was iceberg.NestedField, now iceberg.Type) error {
	current := e.table.kind == kindCurrent
	isKey := len(e.key) == 0 || slices.Contains(e.key, c.Name)
	_, converted := e.converted[c.Attnum]
	switch {
	case e.otherwise == mismatchAside && current && converted && !isKey && e.convertible(was, f):
		e.from[e.last+1] = was.ID
	case e.otherwise == mismatchReplace && current:
	case e.otherwise == mismatchStops:
		return fault.New(fault.SchemaUnfollowable, e.table.where()+"."+c.Name, "the column was %s (%s) and is now %s (%s), which the lake's rows cannot follow", was.Type, old.Type, now, c.Type).
			WithMend("Copy the table again (leat resync), or choose run.on_schema_change: version or copy.")
	case current:
		return fault.New(fault.SchemaUnfollowable, e.table.where()+"."+c.Name,
			"the column was %s (%s) and is now %s (%s), and what the rows have in it now is not known from what they had", was.Type, old.Type, now, c.Type).
			WithMend("Copy the table again: leat resync.")
	default:
		was.Name, was.Required = versionName(old.Name, was.ID), false
		e.aside = append(e.aside, was)
	}
	return e.add(c, f)
}

// convertible says whether the values of a field can be converted to what the column is now.
func (e *evolution) convertible(was iceberg.NestedField, f arrow.Field) bool {
	fields, err := arrowFields(e.before)
	return err == nil && !was.Type.Equals(iceberg.PrimitiveTypes.String) && convertible(fields[was.ID].Type, f.Type)
}

// keepPartitions keeps columns that are gone and by which the table is partitioned, since no file can be told a partition of
// without: rows of then on have no value there.
func (e *evolution) keepPartitions() {
	spec := e.table.now().Spec()
	for _, p := range spec.Fields() {
		is := func(f iceberg.NestedField) bool { return f.ID == p.SourceID() }
		f, there := e.before.FindFieldByID(p.SourceID())
		if !there || slices.ContainsFunc(e.fields, is) || slices.ContainsFunc(e.aside, is) {
			continue
		}
		f.Required = false
		e.aside = append(e.aside, f)
		e.table.lake.Log.Warn("a column is gone by which the table is partitioned; the lake keeps it, and new rows are in the partition of null",
			"table", e.table.where(), "column", f.Name)
	}
}

// versionName is what a column is called that was kept when another one took its place.
func versionName(name string, field int) string { return fmt.Sprintf("%s__v%d", name, field) }

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

// staged puts the way that was found behind what is staged already.
func (e *evolution) staged(to *change.Table) *staged {
	for i, f := range e.aside {
		if slices.ContainsFunc(e.fields, func(o iceberg.NestedField) bool { return o.Name == f.Name }) {
			e.aside[i].Name = versionName(f.Name, f.ID) // the source has given its name to another column
		}
	}
	fields := append(e.fields, e.aside...)
	schema := iceberg.NewSchema(0, fields...)
	schema = iceberg.NewSchemaWithIdentifiers(0, identifiers(schema, e.key), fields...)
	out := &staged{columns: e.columns, source: to.String(), from: e.from}
	t := e.table
	if t.staged != nil {
		out.schemas = slices.Clone(t.staged.schemas)
	}
	props := out.props()
	if sameSchema(schema, e.before) {
		held := iceberg.Properties{propColumns: t.property(propColumns), propSource: t.property(propSource)}
		if t.staged != nil {
			held = t.staged.props()
		}
		if held[propColumns] == props[propColumns] && held[propSource] == props[propSource] {
			return nil
		}
		schema = e.before
	}
	out.schemas = append(out.schemas, schema)
	return out
}

// sameType compares types without the ids of what lies below.
func sameType(a, b iceberg.Type) bool {
	if _, ok := a.(*iceberg.MapType); ok { // of special values; there is no other
		_, ok = b.(*iceberg.MapType)
		return ok
	}
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
