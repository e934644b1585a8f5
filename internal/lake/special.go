package lake

import (
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
)

// A table gets the column change.SpecialName with the first row that has a special value, and keeps it from then on. Here it is the
// last column of a Spec's table, with the attnum change.SpecialAttnum; the source does not have it.

// hasSpecial says whether the spec has the column of special values.
func (s *Spec) hasSpecial() bool { return s.special() >= 0 }

// special is the place of the column of special values, -1 where there is none.
func (s *Spec) special() int {
	if last := len(s.Table.Columns) - 1; last >= 0 && s.Table.Columns[last].Attnum == change.SpecialAttnum {
		return last
	}
	return -1
}

// columns is the number of columns that are the source's.
func (s *Spec) columns() int {
	if s.hasSpecial() {
		return len(s.Table.Columns) - 1
	}
	return len(s.Table.Columns)
}

// withSpecial adds the column of special values. Its name is longer where the source has given that name to a column of its own.
func (s Spec) withSpecial() Spec {
	if s.hasSpecial() {
		return s
	}
	f := change.SpecialField
	for slices.ContainsFunc(s.Table.Columns, func(c change.Column) bool { return c.Name == f.Name }) {
		f.Name += "_"
	}
	source := *s.Table
	source.Columns = append(slices.Clone(s.Table.Columns), change.Column{Name: f.Name, Attnum: change.SpecialAttnum, Typmod: -1, Type: "map"})
	s.Table, s.Schema = &source, arrow.NewSchema(append(slices.Clone(s.Schema.Fields()), f), nil)
	return s
}

// relaxed lets columns be null whose values may go aside.
func (s Spec) relaxed(names []string) Spec {
	fields := slices.Clone(s.Schema.Fields())
	for i, f := range fields {
		fields[i].Nullable = f.Nullable || slices.Contains(names, f.Name)
	}
	s.Schema = arrow.NewSchema(fields, nil)
	return s
}

// admits says whether rows in which values of the named columns are special have their place in the spec.
func (s *Spec) admits(names []string) bool {
	return len(names) == 0 || s.hasSpecial() && !slices.ContainsFunc(names, func(name string) bool {
		at := s.Schema.FieldIndices(name)
		return len(at) == 1 && !s.Schema.Field(at[0]).Nullable
	})
}

// specialNames are the columns of which a record, whose table has the given number of columns, has special values.
func specialNames(rec arrow.RecordBatch, columns int) (names []string) {
	if rec == nil {
		return nil
	}
	m := change.SpecialOf(rec, columns)
	if m == nil {
		return nil
	}
	of := m.Keys().(*array.String)
	for row := range m.Len() {
		from, to := m.ValueOffsets(row)
		for i := int(from); i < int(to) && m.IsValid(row); i++ {
			if !slices.Contains(names, of.Value(i)) {
				names = append(names, of.Value(i))
			}
		}
	}
	return names
}

// withRoom gives a record the column of special values where the spec has one and the record has none. The record is the caller's
// to release.
func (s *Spec) withRoom(rec arrow.RecordBatch) arrow.RecordBatch {
	if rec == nil || !s.hasSpecial() || int(rec.NumCols()) == len(s.Table.Columns) {
		if rec != nil {
			rec.Retain()
		}
		return rec
	}
	none := array.MakeArrayOfNull(memory.DefaultAllocator, change.SpecialType, int(rec.NumRows()))
	defer none.Release()
	schema := arrow.NewSchema(append(slices.Clone(rec.Schema().Fields()), change.SpecialField), nil)
	return array.NewRecordBatch(schema, append(slices.Clone(rec.Columns()), none), rec.NumRows())
}

// changesWithRoom is withRoom for changes.
func (s *Spec) changesWithRoom(c *change.Changes) (out *change.Changes, release func()) {
	if !s.hasSpecial() {
		return c, func() {}
	}
	own := *c
	own.Rows, own.Old = s.withRoom(c.Rows), s.withRoom(c.Old)
	if c.Unchanged != nil && len(c.Unchanged) < len(s.Table.Columns) {
		own.Unchanged = append(slices.Clone(c.Unchanged), nil)
	}
	return &own, func() {
		own.Rows.Release()
		if own.Old != nil {
			own.Old.Release()
		}
	}
}

// needsSpecial says that rows have special values, of the named columns, which the table has no place for yet.
type needsSpecial struct{ columns []string }

func (*needsSpecial) Error() string {
	return "rows have special values, which the table has no column for"
}

// admit gives the kept tables a place for special values of the named columns, with the next commit.
func (t *lakeTable) admit(ctx context.Context, names []string) error {
	if t.spec.admits(names) {
		return nil
	}
	t.spec = t.spec.withSpecial().relaxed(names)
	for _, k := range t.kept {
		if k.behind {
			continue // it takes the definition over when rows come that it does not hold
		}
		if err := t.followKept(ctx, k, Definition{}); err != nil {
			return err
		}
	}
	return nil
}

// sideOf are the special values of one row, by column.
func sideOf(m *array.Map, row int) map[string]string {
	if m == nil || m.IsNull(row) {
		return nil
	}
	names, texts := m.Keys().(*array.String), m.Items().(*array.String)
	from, to := m.ValueOffsets(row)
	out := map[string]string{}
	for i := int(from); i < int(to); i++ {
		out[names.Value(i)] = texts.Value(i)
	}
	return out
}

// sideColumn makes the column of special values of some rows, the entries of each in the order of the columns.
func sideColumn(rows []map[string]string, columns []arrow.Field) arrow.Array {
	b := array.NewMapBuilderWithType(memory.DefaultAllocator, change.SpecialType)
	defer b.Release()
	names, texts := b.KeyBuilder().(*array.StringBuilder), b.ItemBuilder().(*array.StringBuilder)
	for _, row := range rows {
		if len(row) == 0 {
			b.AppendNull()
			continue
		}
		b.Append(true)
		for _, f := range columns {
			if text, ok := row[f.Name]; ok {
				names.Append(f.Name)
				texts.Append(text)
			}
		}
	}
	return b.NewArray()
}

// asMap is a column of special values as it was read from anywhere; nil where there is none.
func asMap(a arrow.Array) *array.Map {
	if a == nil {
		return nil
	}
	m, _ := storage(a).(*array.Map)
	return m
}

// composeSpecial makes the column of special values of rows whose values that the log left out have been found: where such a value
// is special, its text comes from the row that the value came from.
func (c *currentTable) composeSpecial(ch *change.Changes, w *wanted, held, asked foundColumn) arrow.Array {
	own := asMap(ch.Rows.Column(c.special))
	heldOf, askedOf := asMap(held.values), asMap(asked.values)
	if nothing(own) && nothing(heldOf) && nothing(askedOf) {
		own.Retain()
		return own
	}
	rows := make([]map[string]string, ch.Len())
	for i := range rows {
		rows[i] = sideOf(own, i)
		if !w.marked[i] {
			continue
		}
		var from map[string]string
		switch o := w.origins[i]; o.kind {
		case fromRecord:
			from = rows[o.row]
		case fromLake:
			from = sideOf(heldOf, int(held.at[o.row]))
		case fromSource:
			if askedOf != nil && asked.at[o.row] >= 0 {
				from = sideOf(askedOf, int(asked.at[o.row]))
			} else if asked.at == nil || asked.at[o.row] < 0 {
				if o.before >= 0 {
					from = rows[o.before]
				}
			}
		}
		for _, col := range w.columns {
			name := c.schema.Field(col).Name
			if text, ok := from[name]; ok && ch.IsUnchanged(col, i) {
				if rows[i] == nil {
					rows[i] = map[string]string{}
				}
				rows[i][name] = text
			}
		}
	}
	return sideColumn(rows, c.schema.Fields())
}

// nothing says whether a column has no special value at all.
func nothing(m *array.Map) bool { return m == nil || m.NullN() == m.Len() }
