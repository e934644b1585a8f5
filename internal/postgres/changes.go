package postgres

import (
	"math"
	"math/bits"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// ChangesBuilder collects the rows of one table, under one definition of it, as the log tells them.
type ChangesBuilder struct {
	plan     *Plan
	relation *Relation
	schema   *arrow.Schema // the plan's, with every field nullable: a delete knows its key only
	rows     []*column
	old      []*column // made at the first earlier image
	oldRows  int
	aside    specials // of rows
	asideOld specials
	out      change.Changes
	marks    []change.Bitmap // values that the log left out, by column; a column without any has none
	marked   bool
	bytes    int64
	taken    bool
}

// NewChangesBuilder makes a builder for rows of the relation. The plan's table has the relation's columns, in their
// order, as Align gives them.
func NewChangesBuilder(p *Plan, rel *Relation) (*ChangesBuilder, error) {
	if len(p.carry) != len(rel.Columns) {
		return nil, fault.New(fault.Internal, p.Table.String(), "%d columns are planned, the log has %d", len(p.carry), len(rel.Columns))
	}
	fields := slices.Clone(p.Schema.Fields())
	for i := range fields {
		if fields[i].Name != rel.Columns[i].Name {
			return nil, fault.New(fault.Internal, p.Table.String()+"."+fields[i].Name, "the log's column is %s", rel.Columns[i].Name)
		}
		fields[i].Nullable = true
	}
	b := &ChangesBuilder{plan: p, relation: rel, schema: arrow.NewSchema(fields, nil), marks: make([]change.Bitmap, len(fields))}
	b.rows = b.columns()
	b.out.Table = p.Table
	return b, nil
}

func (b *ChangesBuilder) columns() []*column {
	columns := make([]*column, len(b.plan.carry))
	for i, c := range b.plan.carry {
		columns[i] = newColumn(c)
	}
	return columns
}

// Rows is the number of rows since the last Take.
func (b *ChangesBuilder) Rows() int {
	if b.taken {
		return 0
	}
	return len(b.out.Ops)
}

// Bytes is what those rows took in the log. Whoever appends takes long before they are math.MaxInt32.
func (b *ChangesBuilder) Bytes() int64 {
	if b.taken {
		return 0
	}
	return b.bytes
}

// Append adds the row of an Insert, Update, Delete or Truncate of the relation. After an error the builder
// is as it was before; the fault names table, column and transaction.
func (b *ChangesBuilder) Append(e *Event) error {
	if b.taken {
		b.reset()
	}
	if e.Kind == EventTruncate {
		return b.truncate(e)
	}
	if err := b.check(e); err != nil {
		return err
	}
	op, row := change.OpInsert, &e.New
	switch e.Kind {
	case EventUpdate:
		op = change.OpUpdate
	case EventDelete:
		op, row = change.OpDelete, &e.Old
	}
	if err := b.row(e, row); err != nil {
		return err
	}
	hasOld := e.Kind == EventUpdate && e.OldKind != 0
	if hasOld {
		if err := b.earlier(e); err != nil {
			b.rollback()
			return err
		}
	}
	if hasOld || b.oldRows > 0 {
		b.point(hasOld)
	}
	b.note(op, e, e.Seq)
	return nil
}

// check refuses an event that is not of this builder's definition, and more than its buffers can address.
func (b *ChangesBuilder) check(e *Event) error {
	if e.Kind != EventInsert && e.Kind != EventUpdate && e.Kind != EventDelete {
		return fault.New(fault.Internal, b.plan.Table.String(), "an event of kind %d is no row", e.Kind)
	}
	if e.Relation != b.relation {
		if e.Relation == nil || e.Relation.OID != b.relation.OID || !slices.Equal(e.Relation.Columns, b.relation.Columns) {
			return fault.New(fault.Internal, b.plan.Table.String(), "a row of another definition of the table")
		}
		b.relation = e.Relation
	}
	if b.bytes+int64(len(e.Raw)) > math.MaxInt32 {
		return fault.New(fault.Internal, b.plan.Table.String(), "more than 2 GiB of changes in one batch")
	}
	return nil
}

// row appends the columns of the row itself. What an update left out is taken from the old row where that has it.
func (b *ChangesBuilder) row(e *Event, row *Tuple) error {
	if row.Len() != len(b.rows) {
		return malformed("a row of %d columns where %d were due", row.Len(), len(b.rows))
	}
	for i, c := range b.rows {
		var err error
		switch row.cells[i].kind {
		case cellText:
			err = c.appendText(row.Bytes(i))
		case cellBinary:
			err = c.appendWire(row.Bytes(i))
		case 'u':
			err = b.leftOut(i, e)
		default:
			c.null()
		}
		if err != nil {
			err = b.special(&b.aside, c, len(b.out.Ops), i, row, err)
		}
		if err != nil {
			b.rollback()
			return b.blame(i, e, err)
		}
	}
	return nil
}

func (b *ChangesBuilder) leftOut(i int, e *Event) error {
	c := b.rows[i]
	if e.Kind == EventUpdate && i < e.Old.Len() {
		var err error
		switch e.Old.Kind(i) {
		case cellText:
			err = c.appendText(e.Old.Bytes(i))
		case cellBinary:
			err = c.appendWire(e.Old.Bytes(i))
		default:
			return b.mark(i)
		}
		if err != nil {
			err = b.special(&b.aside, c, len(b.out.Ops), i, &e.Old, err)
		}
		return err
	}
	return b.mark(i)
}

// special keeps the text of the i-th value of a tuple, which would have been the n-th of its column, where that goes aside.
func (b *ChangesBuilder) special(to *specials, c *column, n, i int, from *Tuple, err error) error {
	return to.aside(c, n, b.plan.Table.Columns[i].Name, wireValue{from.Kind(i), from.Bytes(i)}, b.plan.rescue, err)
}

// mark notes that the log left a value out.
func (b *ChangesBuilder) mark(i int) error {
	c := b.rows[i]
	b.marks[i] = b.marks[i].Set(c.n)
	b.marked = true
	c.null()
	return nil
}

// earlier appends the row as it was before an update.
func (b *ChangesBuilder) earlier(e *Event) error {
	if e.Old.Len() != len(b.rows) {
		return malformed("an old row of %d columns where %d were due", e.Old.Len(), len(b.rows))
	}
	if b.old == nil {
		b.old = b.columns()
	}
	for i, c := range b.old {
		var err error
		switch e.Old.Kind(i) {
		case cellText:
			err = c.appendText(e.Old.Bytes(i))
		case cellBinary:
			err = c.appendWire(e.Old.Bytes(i))
		default:
			c.null()
		}
		if err != nil {
			err = b.special(&b.asideOld, c, b.oldRows, i, &e.Old, err)
		}
		if err != nil {
			return b.blame(i, e, err)
		}
	}
	return nil
}

// point says where the earlier image of the row is that note is about to count.
func (b *ChangesBuilder) point(hasOld bool) {
	for len(b.out.OldRow) < len(b.out.Ops) {
		b.out.OldRow = append(b.out.OldRow, -1)
	}
	if !hasOld {
		b.out.OldRow = append(b.out.OldRow, -1)
		return
	}
	b.out.OldRow = append(b.out.OldRow, int32(b.oldRows))
	b.oldRows++
}

func (b *ChangesBuilder) truncate(e *Event) error {
	for i, rel := range e.Truncated {
		if rel.OID != b.relation.OID {
			continue
		}
		for _, c := range b.rows {
			c.null()
		}
		if b.oldRows > 0 {
			b.point(false)
		}
		b.note(change.OpTrunc, e, e.Seq+uint64(i))
		return nil
	}
	return fault.New(fault.Internal, b.plan.Table.String(), "a TRUNCATE of other tables")
}

func (b *ChangesBuilder) note(op change.Op, e *Event, seq uint64) {
	o := &b.out
	o.Ops = append(o.Ops, op)
	o.LSN = append(o.LSN, e.Tx.LSN)
	o.Seq = append(o.Seq, seq)
	o.Committed = append(o.Committed, e.Tx.Committed)
	o.XID = append(o.XID, e.Tx.XID)
	b.bytes += int64(len(e.Raw))
}

// blame names the column and the transaction that a value's error belongs to.
func (b *ChangesBuilder) blame(i int, e *Event, err error) error {
	if f := fault.Of(err); f != nil && f.Where == "" {
		f.Where = b.plan.Table.String() + "." + b.plan.Table.Columns[i].Name
		f.What += " (transaction at " + e.Tx.LSN.String() + ")"
	}
	return err
}

// rollback forgets the row that was begun.
func (b *ChangesBuilder) rollback() {
	n := len(b.out.Ops)
	for i, c := range b.rows {
		c.cut(n)
		if b.marks[i].Has(n) {
			b.marks[i][n>>3] &^= 1 << (n & 7)
		}
	}
	for _, c := range b.old {
		c.cut(b.oldRows)
	}
	b.aside.cut(n)
	b.asideOld.cut(b.oldRows)
}

// Take returns the rows since the last Take. They are valid until the next Append, which begins anew.
func (b *ChangesBuilder) Take() *change.Changes {
	if b.taken {
		b.reset()
	}
	b.taken = true
	out := b.out
	schema, side, sideOld := b.schema, []arrow.Array(nil), []arrow.Array(nil)
	if len(b.aside.entries)+len(b.asideOld.entries) > 0 {
		schema, side = withSpecial(b.schema), []arrow.Array{b.aside.array(len(out.Ops))}
		sideOld = []arrow.Array{b.asideOld.array(b.oldRows)}
	}
	out.Rows = record(schema, b.rows, len(out.Ops), side...)
	if b.oldRows > 0 {
		out.Old = record(schema, b.old, b.oldRows, sideOld...)
	} else {
		out.OldRow = nil
	}
	for i, m := range b.marks {
		if b.marked && slices.ContainsFunc(m, func(bits byte) bool { return bits != 0 }) {
			if out.Unchanged == nil {
				out.Unchanged = make([]change.Bitmap, len(b.marks))
			}
			out.Unchanged[i] = m
		}
	}
	return &out
}

// Release gives up large buffers after the rows of the last Take have been used.
func (b *ChangesBuilder) Release() {
	if b.taken {
		b.reset()
	}
}

func (b *ChangesBuilder) reset() {
	for _, c := range b.rows {
		c.reset()
	}
	for _, c := range b.old {
		c.reset()
	}
	for i := range b.marks {
		b.marks[i] = b.marks[i][:0]
	}
	b.aside.reset()
	b.asideOld.reset()
	o := &b.out
	o.OldRow, o.Ops, o.LSN, o.Seq, o.Committed, o.XID = o.OldRow[:0], o.Ops[:0], o.LSN[:0], o.Seq[:0], o.Committed[:0], o.XID[:0]
	b.oldRows, b.marked, b.bytes, b.taken = 0, false, 0, false
}

// withSpecial is the schema of records some rows of which have special values.
func withSpecial(schema *arrow.Schema) *arrow.Schema {
	return arrow.NewSchema(append(slices.Clone(schema.Fields()), change.SpecialField), nil)
}

// record wraps columns, and behind them arrays, which it takes over.
func record(schema *arrow.Schema, columns []*column, rows int, more ...arrow.Array) arrow.RecordBatch {
	arrays := make([]arrow.Array, len(columns), len(columns)+len(more))
	for i, c := range columns {
		arrays[i] = c.array()
	}
	arrays = append(arrays, more...)
	defer func() {
		for _, a := range arrays {
			a.Release()
		}
	}()
	return array.NewRecordBatch(schema, arrays, int64(rows))
}

// cut forgets all values from the n-th on, also one that an error left half appended.
func (c *column) cut(n int) {
	c.n = min(c.n, n)
	n = c.n
	switch c.op {
	case opBytes, opJSONB:
		c.offsets = c.offsets[:n+1]
		c.data = c.data[:c.offsets[n]]
	case opList:
		c.offsets = c.offsets[:n+1]
		c.child.cut(int(c.offsets[n]))
	case opBool:
		c.data = c.data[:min(len(c.data), (n+7)/8)]
		if n&7 != 0 && len(c.data) > n>>3 {
			c.data[n>>3] &= 1<<(n&7) - 1
		}
	default:
		c.data = c.data[:n*width(c.op)]
	}
	c.valid = c.valid[:min(len(c.valid), (n+7)/8)]
	if n&7 != 0 && len(c.valid) > n>>3 {
		c.valid[n>>3] |= 0xff << (n & 7)
	}
	c.nulls = 0
	for _, v := range c.valid {
		c.nulls += bits.OnesCount8(^v)
	}
}
