package postgres

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Computing collects the rows of a table as ChangesBuilder does, and beside them what the generated columns that the log does not
// have are computed from: the values as they came, whatever becomes of them in their own columns.
type Computing struct {
	*ChangesBuilder
	x      *Expressions
	full   *Plan // of all columns
	schema *arrow.Schema
	gen    []int    // the computed columns, by their place in x.List
	at     []int    // and in the plan
	logged []int    // where the log's columns are in the plan
	inputs []int16  // attnums of all that they use
	of     []int    // where those are in the log
	uses   []uint64 // the computed columns that use each, a bit for each

	rows  []inputRow
	cells []inputCell // of each row, one for each input
	data  []byte
	most  int // rows that are computed by one query
}

// inputRow is a row, or the earlier image of one, with the computed columns that it is to have, a bit for each.
type inputRow struct {
	row, old int32  // of the batch; old is -1 for the row itself
	want     uint64 // computed from its cells
	lost     uint64 // computed when a value is found that the log left out
}

type inputCell struct {
	kind     byte // 'n' null, 'u' left out, cellText or cellBinary
	from, to int
}

// NewComputing makes a builder for rows of the relation. The plan has the relation's columns, in any places, and the computed ones, which
// are marked so and are all in x. logged is the plan of the relation's columns alone, for NewChangesBuilder.
func NewComputing(full, logged *Plan, rel *Relation, x *Expressions) (*Computing, error) {
	b, err := NewChangesBuilder(logged, rel)
	if err != nil {
		return nil, err
	}
	c := &Computing{ChangesBuilder: b, x: x, full: full, most: firstComputed}
	fields := slices.Clone(full.Schema.Fields())
	place := func(t *change.Table, attnum int16) int {
		return slices.IndexFunc(t.Columns, func(col change.Column) bool { return col.Attnum == attnum })
	}
	for i, col := range full.Table.Columns {
		fields[i].Nullable = true
		if !col.Computed {
			continue
		}
		g := slices.IndexFunc(x.List, func(g Generated) bool { return g.Column.Attnum == col.Attnum && g.Why == "" })
		if g < 0 {
			return nil, fault.New(fault.Internal, full.Table.String()+"."+col.Name, "nobody knows how the column is computed")
		}
		for _, in := range x.List[g].Inputs {
			k := slices.Index(c.inputs, in)
			if k < 0 {
				k = len(c.inputs)
				c.inputs, c.uses, c.of = append(c.inputs, in), append(c.uses, 0), append(c.of, place(logged.Table, in))
			}
			if c.of[k] < 0 {
				return nil, fault.New(fault.Internal, full.Table.String()+"."+col.Name, "the log lacks a column that it is computed from")
			}
			c.uses[k] |= 1 << len(c.gen)
		}
		c.gen, c.at = append(c.gen, g), append(c.at, i)
	}
	for _, col := range logged.Table.Columns {
		c.logged = append(c.logged, place(full.Table, col.Attnum))
	}
	c.schema = arrow.NewSchema(fields, nil)
	return c, nil
}

// firstComputed is how many rows the first query computes: how large the values are that it gives nobody knows yet.
const firstComputed = 256

// mostComputed bounds the bytes of the values that one query gives for more than one row.
const mostComputed = 8 << 20

// Append adds a row, as ChangesBuilder.Append does.
func (c *Computing) Append(e *Event) error {
	if c.taken {
		c.forget()
	}
	if err := c.ChangesBuilder.Append(e); err != nil {
		return err
	}
	row := int32(len(c.out.Ops) - 1)
	if e.Kind == EventUpdate && e.OldKind == 'O' {
		c.take(row, int32(c.oldRows-1), &e.Old, nil)
	}
	switch {
	case e.Kind == EventInsert:
		c.take(row, -1, &e.New, nil)
	case e.Kind == EventUpdate:
		c.take(row, -1, &e.New, &e.Old)
	case e.Kind == EventDelete && e.OldKind == 'O':
		c.take(row, -1, &e.Old, nil)
	}
	return nil
}

// take keeps a row's inputs. What is left out of it may be in the earlier one.
func (c *Computing) take(row, old int32, t, earlier *Tuple) {
	r := inputRow{row: row, old: old, want: 1<<len(c.gen) - 1}
	for k, i := range c.of {
		from := t
		if t.Kind(i) == 'u' && earlier != nil && i < earlier.Len() {
			from = earlier
		}
		cell := inputCell{kind: from.Kind(i), from: len(c.data)}
		switch cell.kind {
		case cellText, cellBinary:
			c.data = append(c.data, from.Bytes(i)...)
		case 'u':
			r.lost |= c.uses[k]
		default:
			cell.kind = 'n'
			if from == earlier { // it does not tell
				cell.kind = 'u'
				r.lost |= c.uses[k]
			}
		}
		cell.to = len(c.data)
		c.cells = append(c.cells, cell)
	}
	r.want &^= r.lost
	c.rows = append(c.rows, r)
}

func (c *Computing) forget() {
	c.rows, c.cells, c.data = c.rows[:0], c.cells[:0], kept(c.data)[:0]
}

// Release gives up large buffers after the rows of the last Take have been used.
func (c *Computing) Release() {
	if c.taken {
		c.forget()
	}
	c.ChangesBuilder.Release()
}

// cell is the k-th input of the i-th row.
func (c *Computing) cell(i, k int) inputCell { return c.cells[i*len(c.inputs)+k] }

// computed are the values of some rows: of each the computed columns, nil for NULL.
type computed [][][]byte

// asked is a row of which columns are wanted, and its inputs.
type askedRow struct {
	want   uint64
	values []wireValue // of kind 'n' for NULL
}

// evaluate asks for all rows that have the same columns and forms of values by one query.
func (c *Computing) evaluate(ctx context.Context, e *Evaluator, rows []askedRow, limit int64) (computed, error) {
	type group struct {
		want  uint64
		forms []byte
		rows  []int
	}
	var groups []*group
	fits := func(g *group, r askedRow) bool {
		if g.want != r.want {
			return false
		}
		for k, v := range r.values {
			if c.uses[k]&r.want != 0 && v.kind != 'n' && g.forms[k] != 0 && g.forms[k] != v.kind {
				return false
			}
		}
		return true
	}
	for i, r := range rows {
		if r.want == 0 {
			continue
		}
		at := slices.IndexFunc(groups, func(g *group) bool { return fits(g, r) })
		if at < 0 {
			at = len(groups)
			groups = append(groups, &group{want: r.want, forms: make([]byte, len(c.inputs))})
		}
		g := groups[at]
		g.rows = append(g.rows, i)
		for k, v := range r.values {
			if v.kind != 'n' {
				g.forms[k] = v.kind
			}
		}
	}
	out := make(computed, len(rows))
	for _, g := range groups {
		if err := c.evaluateSome(ctx, e, rows, g.rows, g.want, out, &limit); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (c *Computing) evaluateSome(ctx context.Context, e *Evaluator, rows []askedRow, some []int, want uint64, out computed, limit *int64) error {
	var inputs []int16
	var exprs []string
	var params []rowValues
	var places []int
	tableoid := false
	for k := range c.inputs {
		if c.uses[k]&want == 0 {
			continue
		}
		p := rowValues{values: make([][]byte, len(some))}
		for n, i := range some {
			if v := rows[i].values[k]; v.kind != 'n' {
				p.binary = v.kind == cellBinary
				p.values[n] = v.bytes
			}
		}
		if p.binary && c.x.inputs[c.inputs[k]].array == 0 {
			if err := c.asText(k, p.values); err != nil {
				return err
			}
			p.binary = false
		}
		inputs, params = append(inputs, c.inputs[k]), append(params, p)
	}
	for k, g := range c.gen {
		if want&(1<<k) == 0 {
			continue
		}
		exprs = append(exprs, c.full.carry[c.at[k]].asked("("+c.x.List[g].sql+")"))
		places, tableoid = append(places, k), tableoid || c.x.List[g].tableoid
	}
	got, err := e.do(ctx, c.x.query(inputs, exprs, tableoid), params, len(some), *limit)
	if err != nil {
		return err
	}
	for n, i := range some {
		out[i] = make([][]byte, len(c.gen))
		for at, k := range places {
			out[i][k] = got[n][at]
			*limit -= int64(len(got[n][at]))
		}
	}
	return nil
}

// asText turns an input's values into text.
func (c *Computing) asText(k int, values [][]byte) error {
	col := newColumn(c.plan.carry[c.of[k]])
	for i, v := range values {
		if v == nil {
			continue
		}
		text, ok := col.textOf([]byte{}, v)
		if !ok {
			return c.x.blame(c.plan, c.of[k], malformed("a value of %d bytes that its type cannot have", len(v)))
		}
		values[i] = text
	}
	return nil
}

// Complete computes the generated columns of some changes that Take gave, from a row on: of as many rows as can be held at one time. The
// records of what it returns are the caller's to release. A value that must wait for what the log left out is marked as left out itself.
func (c *Computing) Complete(ctx context.Context, e *Evaluator, ch *change.Changes, from int) (*change.Changes, error) {
	n := min(ch.Len()-from, c.most)
	for {
		limit := int64(mostComputed)
		if n == 1 {
			limit = math.MaxInt64
		}
		lo := sort.Search(len(c.rows), func(i int) bool { return int(c.rows[i].row) >= from })
		hi := sort.Search(len(c.rows), func(i int) bool { return int(c.rows[i].row) >= from+n })
		asked := make([]askedRow, hi-lo)
		for i := range asked {
			asked[i] = askedRow{want: c.rows[lo+i].want, values: make([]wireValue, len(c.inputs))}
			for k := range c.inputs {
				asked[i].values[k] = c.value(lo+i, k)
			}
		}
		values, err := c.evaluate(ctx, e, asked, limit)
		if errors.Is(err, errComputedTooMuch) {
			n = max(1, n/2)
			c.most = n
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == c.most {
			c.most = min(4*n, math.MaxInt32)
		}
		return c.complete(ch, from, from+n, c.rows[lo:hi], values)
	}
}

// value is an input as it came; what was left out is NULL to expressions that do not use it.
func (c *Computing) value(i, k int) wireValue {
	cell := c.cell(i, k)
	if cell.kind == 'u' {
		cell.kind = 'n'
	}
	return wireValue{cell.kind, c.data[cell.from:cell.to:cell.to]}
}

// complete puts the computed columns into their places among the others.
func (c *Computing) complete(ch *change.Changes, from, to int, rows []inputRow, values computed) (*change.Changes, error) {
	part := ch.Between(from, to)
	defer part.Rows.Release()
	out := *part
	out.Table, out.Unchanged = c.full.Table, nil
	if part.Unchanged != nil {
		out.Unchanged = make([]change.Bitmap, len(c.full.carry))
		for j, at := range c.logged {
			out.Unchanged[at] = part.Unchanged[j]
		}
	}
	main, earlier := make([][][]byte, to-from), map[int32][][]byte{}
	for i, r := range rows {
		if r.old >= 0 {
			earlier[r.old] = values[i]
			continue
		}
		main[int(r.row)-from] = values[i]
		for k := range c.gen {
			if r.lost&(1<<k) == 0 {
				continue
			}
			if out.Unchanged == nil {
				out.Unchanged = make([]change.Bitmap, len(c.full.carry))
			}
			out.Unchanged[c.at[k]] = out.Unchanged[c.at[k]].Set(int(r.row) - from)
		}
	}
	var err error
	if out.Rows, err = c.merge(part.Rows, func(i int) [][]byte { return main[i] }); err != nil {
		return nil, err
	}
	if part.Old != nil {
		if out.Old, err = c.merge(part.Old, func(i int) [][]byte { return earlier[int32(i)] }); err != nil {
			out.Rows.Release()
			return nil, err
		}
	}
	return &out, nil
}

// merge adds the computed columns to a record of the others.
func (c *Computing) merge(rec arrow.RecordBatch, of func(row int) [][]byte) (arrow.RecordBatch, error) {
	n := int(rec.NumRows())
	side := sideEntries(change.SpecialOf(rec, len(c.logged)))
	columns, err := c.columns(n, of, &side)
	if err != nil {
		return nil, err
	}
	arrays := make([]arrow.Array, len(c.full.carry), len(c.full.carry)+1)
	for j, at := range c.logged {
		arrays[at] = rec.Column(j)
	}
	for k, at := range c.at {
		arrays[at] = columns[k]
		defer columns[k].Release()
	}
	schema := c.schema
	if len(side.entries) > 0 {
		special := side.array(n)
		defer special.Release()
		schema, arrays = withSpecial(schema), append(arrays, special)
	}
	return array.NewRecordBatch(schema, arrays, int64(n)), nil
}

// columns decodes computed values, of rows that have none NULL, and adds those that go aside.
func (c *Computing) columns(rows int, of func(row int) [][]byte, side *specials) ([]arrow.Array, error) {
	columns := make([]*column, len(c.gen))
	for k, at := range c.at {
		columns[k] = newColumn(c.full.carry[at])
	}
	for i := range rows {
		values := of(i)
		for k, col := range columns {
			if values == nil || values[k] == nil {
				col.null()
				continue
			}
			err := col.append(values[k])
			if err != nil {
				err = side.aside(col, i, c.full.Table.Columns[c.at[k]].Name, wireValue{cellBinary, values[k]}, c.full.rescue, err)
			}
			if err != nil {
				return nil, c.x.blame(c.full, c.at[k], err)
			}
		}
	}
	slices.SortStableFunc(side.entries, func(a, b special) int { return cmp.Compare(a.row, b.row) })
	arrays := make([]arrow.Array, len(columns))
	for k, col := range columns {
		arrays[k] = col.array()
	}
	return arrays, nil
}

// blame names the column that a value's error belongs to.
func (*Expressions) blame(p *Plan, i int, err error) error {
	if f := fault.Of(err); f != nil && f.Where == "" {
		f.Where = p.Table.String() + "." + p.Table.Columns[i].Name
	}
	return err
}

// sideEntries are the special values of a record, in the order of its rows.
func sideEntries(m *array.Map) (s specials) {
	if m == nil {
		return s
	}
	names, texts := m.Keys().(*array.String), m.Items().(*array.String)
	for row := range m.Len() {
		if m.IsNull(row) {
			continue
		}
		from, to := m.ValueOffsets(row)
		for i := int(from); i < int(to); i++ {
			s.entries = append(s.entries, special{row: row, column: names.Value(i), text: texts.Value(i)})
		}
	}
	return s
}
