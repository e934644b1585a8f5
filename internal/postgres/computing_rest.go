package postgres

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Resume computes the generated columns that had to wait for values that the log left out, of changes in which those have been found. It
// returns the changes with a new record, or the same ones where there is nothing to do; special are the columns whose values went aside.
func (c *Computing) Resume(ctx context.Context, e *Evaluator, ch *change.Changes) (out *change.Changes, special []string, err error) {
	var asked []askedRow
	var at []int // their rows in ch
	marks := slices.Clone(ch.Unchanged)
	for i := range ch.Len() {
		r := c.find(ch.LSN[i], ch.Seq[i])
		if r < 0 || c.rows[r].lost == 0 {
			continue
		}
		a := askedRow{want: c.rows[r].lost, values: make([]wireValue, len(c.inputs))}
		for k := range c.inputs {
			if a.values[k] = c.value(r, k); c.cell(r, k).kind != 'u' {
				continue
			}
			text, found, err := c.foundText(ch, i, k)
			if err != nil {
				return nil, nil, err
			}
			if !found {
				a.want &^= c.uses[k]
			} else if text != nil {
				a.values[k] = wireValue{cellText, text}
			}
		}
		asked, at = append(asked, a), append(at, i)
		for k, col := range c.at {
			if c.rows[r].lost&(1<<k) == 0 {
				continue
			}
			marks = setMark(marks, len(c.full.carry), col, i, a.want&(1<<k) == 0)
		}
	}
	if len(asked) == 0 {
		return ch, nil, nil
	}
	values, err := c.evaluate(ctx, e, asked, math.MaxInt64)
	if err != nil {
		return nil, nil, err
	}
	return c.replaced(ch, marks, at, values)
}

// find is the place of a row in what was taken, -1 for one that has no inputs.
func (c *Computing) find(lsn change.LSN, seq uint64) int {
	row := sort.Search(len(c.out.LSN), func(i int) bool {
		return c.out.LSN[i] > lsn || c.out.LSN[i] == lsn && c.out.Seq[i] >= seq
	})
	if row == len(c.out.LSN) || c.out.LSN[row] != lsn || c.out.Seq[row] != seq {
		return -1
	}
	for i := sort.Search(len(c.rows), func(i int) bool { return int(c.rows[i].row) >= row }); i < len(c.rows) && int(c.rows[i].row) == row; i++ {
		if c.rows[i].old < 0 {
			return i
		}
	}
	return -1
}

// setMark sets or takes away the mark of a value in a copy of a column's marks.
func setMark(marks []change.Bitmap, columns, col, row int, set bool) []change.Bitmap {
	if !set && (marks == nil || !marks[col].Has(row)) {
		return marks
	}
	if marks == nil {
		marks = make([]change.Bitmap, columns)
	}
	own := bytes.Clone(marks[col])
	if set {
		own = change.Bitmap(own).Set(row)
	} else {
		own[row>>3] &^= 1 << (row & 7)
	}
	marks[col] = own
	return marks
}

// foundText is the text of an input that was found in a row of changes; nil is NULL.
func (c *Computing) foundText(ch *change.Changes, row, k int) (text []byte, found bool, err error) {
	col := slices.IndexFunc(c.full.Table.Columns, func(col change.Column) bool { return col.Attnum == c.inputs[k] })
	if ch.IsUnchanged(col, row) {
		return nil, false, nil
	}
	if side, is := change.SpecialText(change.SpecialOf(ch.Rows, len(c.full.carry)), row, c.full.Table.Columns[col].Name); is {
		return []byte(wholeText(side)), true, nil
	}
	a := ch.Rows.Column(col)
	if a.IsNull(row) {
		return nil, true, nil
	}
	text, ok := newColumn(c.full.carry[col]).valueText([]byte{}, a, row, c.full.Table.Columns[col].TypeOID)
	if !ok {
		return nil, false, fault.New(fault.Internal, c.full.Table.String()+"."+c.full.Table.Columns[col].Name, "a value of %s has no text", a.DataType())
	}
	return text, true, nil
}

// replaced puts computed values in the place of what some rows have.
func (c *Computing) replaced(ch *change.Changes, marks []change.Bitmap, at []int, values computed) (*change.Changes, []string, error) {
	var fresh specials
	columns, err := c.columns(len(at), func(i int) [][]byte { return values[i] }, &fresh)
	if err != nil {
		return nil, nil, err
	}
	arrays := slices.Clone(ch.Rows.Columns())
	replaces := func(k, i int) bool { return c.rowLost(ch, at[i])&(1<<k) != 0 }
	for k, col := range c.at {
		defer columns[k].Release()
		var pieces []arrow.Array
		from, old := 0, arrays[col]
		for i, row := range at {
			if !replaces(k, i) {
				continue
			}
			pieces = append(pieces, array.NewSlice(old, int64(from), int64(row)), array.NewSlice(columns[k], int64(i), int64(i+1)))
			from = row + 1
		}
		if from == 0 {
			continue
		}
		whole, err := array.Concatenate(append(pieces, array.NewSlice(old, int64(from), int64(old.Len()))), memory.DefaultAllocator)
		if err != nil {
			return nil, nil, fault.Wrap(err, fault.Internal, c.full.Table.String()+"."+c.full.Table.Columns[col].Name, "computed values cannot be put in their places")
		}
		defer whole.Release()
		arrays[col] = whole
	}
	side := sideEntries(change.SpecialOf(ch.Rows, len(c.full.carry)))
	side.entries = slices.DeleteFunc(side.entries, func(s special) bool { // of the row of before
		i := slices.Index(at, s.row)
		return i >= 0 && slices.ContainsFunc(c.at, func(col int) bool {
			return c.full.Table.Columns[col].Name == s.column && replaces(slices.Index(c.at, col), i)
		})
	})
	var names []string
	for _, s := range fresh.entries {
		names = append(names, s.column)
		side.entries = append(side.entries, special{row: at[s.row], column: s.column, text: s.text})
	}
	slices.SortStableFunc(side.entries, func(a, b special) int { return cmp.Compare(a.row, b.row) })
	if len(arrays) > len(c.full.carry) {
		special := side.array(ch.Len())
		defer special.Release()
		arrays[len(c.full.carry)] = special
	}
	out := *ch
	out.Unchanged = marks
	if !slices.ContainsFunc(marks, func(m change.Bitmap) bool { return slices.ContainsFunc(m, func(b byte) bool { return b != 0 }) }) {
		out.Unchanged = nil
	}
	out.Rows = array.NewRecordBatch(ch.Rows.Schema(), arrays, ch.Rows.NumRows())
	return &out, names, nil
}

// rowLost are the computed columns of a row that had to wait.
func (c *Computing) rowLost(ch *change.Changes, row int) uint64 {
	if r := c.find(ch.LSN[row], ch.Seq[row]); r >= 0 {
		return c.rows[r].lost
	}
	return 0
}
