package lake

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/keyindex"
)

// effect is what a record does to one key in the end: the row that holds it, or -1 when none does.
type effect struct {
	hash keyindex.Hash
	row  int32
}

// take brings changes into the table, in their order. Transactions that the table holds already are left out.
func (c *currentTable) take(ctx context.Context, ch *change.Changes) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	from := 0
	for from < ch.Len() && ch.LSN[from] < c.at {
		from++
	}
	if ch.Unchanged == nil {
		return c.fail(c.applyFrom(ctx, ch, from))
	}
	for from < ch.Len() {
		part, err := c.resolveSome(ctx, ch, from)
		if err != nil {
			return c.fail(err)
		}
		from += part.Len()
		err = c.applyFrom(ctx, part, 0)
		part.Rows.Release()
		if err != nil {
			return c.fail(err)
		}
	}
	return nil
}

func (c *currentTable) applyFrom(ctx context.Context, ch *change.Changes, from int) error {
	if err := c.hashRows(ctx, ch); err != nil {
		return err
	}
	c.noteHollow(ch, from)
	for i := from; i <= ch.Len(); i++ {
		if i < ch.Len() && ch.Ops[i] != change.OpTrunc {
			continue
		}
		if err := c.applyRows(ctx, ch, from, i); err != nil {
			return err
		}
		if i < ch.Len() {
			if err := c.truncate(ctx); err != nil {
				return err
			}
		}
		from = i + 1
	}
	return nil
}

// hashRows fills hashes, of each row, and olds, of each earlier image: what the index is asked for next.
func (c *currentTable) hashRows(ctx context.Context, ch *change.Changes) error {
	if err := c.readFiles(ctx); err != nil {
		return err
	}
	keys, err := c.rowKeys(ch.Rows)
	if err != nil {
		return err
	}
	c.hashes = keys.hashes(c.index, ch.Len(), c.hashes[:0])
	c.olds = c.olds[:0]
	if ch.Old == nil {
		return nil
	}
	if keys, err = c.rowKeys(ch.Old); err == nil {
		c.olds = keys.hashes(c.index, int(ch.Old.NumRows()), c.olds)
	}
	return err
}

func (c *currentTable) rowKeys(rec arrow.RecordBatch) (*rowKeys, error) {
	if int(rec.NumCols()) != c.schema.NumFields() {
		return nil, fault.New(fault.Internal, c.t.where(), "a record has %d columns and the table %d", rec.NumCols(), c.schema.NumFields())
	}
	keys := &rowKeys{columns: make([]arrow.Array, len(c.key)), whole: c.whole, names: c.names}
	for i, k := range c.key {
		keys.columns[i] = rec.Column(k)
	}
	if c.special >= 0 {
		keys.special = asMap(rec.Column(c.special))
	}
	return keys, nil
}

// oldKey is the key that an update takes from its row, and whether the log told an earlier image.
func (c *currentTable) oldKey(ch *change.Changes, row int) (keyindex.Hash, bool) {
	if ch.OldRow == nil || ch.OldRow[row] < 0 {
		return keyindex.Hash{}, false
	}
	return c.olds[ch.OldRow[row]], true
}

// applyRows applies rows without a truncate among them.
func (c *currentTable) applyRows(ctx context.Context, ch *change.Changes, from, to int) error {
	if from >= to {
		return nil
	}
	c.size.rows += int64(to - from)
	if c.whole {
		return c.applyWhole(ctx, ch, from, to)
	}
	// From the end, so that the first effect on a key is the one that stays.
	c.last.reset(2 * (to - from))
	c.effects = c.effects[:0]
	for i := to - 1; i >= from; i-- {
		h := c.hashes[i]
		row := int32(i)
		if ch.Ops[i] == change.OpDelete {
			row = -1
		}
		if c.last.add(h, row) {
			c.effects = append(c.effects, effect{h, row})
		}
		if old, ok := c.oldKey(ch, i); ok && old != h && c.last.add(old, -1) {
			c.effects = append(c.effects, effect{old, -1})
		}
	}
	c.chosen = c.chosen[:0]
	for i := len(c.effects) - 1; i >= 0; i-- {
		if row := c.effects[i].row; row >= 0 {
			c.chosen = append(c.chosen, uint32(row))
		}
	}
	lies, err := c.writeChosen(ctx, ch.Rows)
	if err != nil {
		return err
	}
	written := 0
	for i := len(c.effects) - 1; i >= 0; i-- {
		e := &c.effects[i]
		if e.row < 0 {
			if at, had := c.index.Delete(e.hash); had {
				c.kill(at)
			}
			continue
		}
		at, had, err := c.index.Put(e.hash, lies.at(written))
		if err != nil {
			return err
		}
		if had {
			c.kill(at)
		}
		written++
	}
	return nil
}

// applyWhole applies rows of a table without a key. An update takes one equal to its earlier image away and adds
// the new row; rows of this record are taken first.
func (c *currentTable) applyWhole(ctx context.Context, ch *change.Changes, from, to int) error {
	taken := make([]bool, to-from) // rows that a later one of this record took away
	before := make([]int32, to-from)
	c.last.reset(to - from) // the latest row of each hash that nothing took; before it comes before[row]
	take := func(h keyindex.Hash) {
		if row, ok := c.last.get(h); ok && row >= 0 {
			taken[int(row)-from] = true
			c.last.set(h, before[int(row)-from])
			return
		}
		if at, had := c.index.Delete(h); had {
			c.kill(at)
		}
	}
	for i := from; i < to; i++ {
		h := c.hashes[i]
		switch ch.Ops[i] {
		case change.OpDelete:
			take(h)
			continue
		case change.OpUpdate:
			old, ok := c.oldKey(ch, i)
			if !ok {
				return fault.New(fault.KeyMissing, c.t.where(), "an update of a table without a key does not tell the earlier row")
			}
			take(old)
		}
		before[i-from] = -1
		if row, ok := c.last.get(h); ok {
			before[i-from] = row
		}
		c.last.set(h, int32(i))
	}
	c.chosen = c.chosen[:0]
	for i := from; i < to; i++ {
		if ch.Ops[i] != change.OpDelete && !taken[i-from] {
			c.chosen = append(c.chosen, uint32(i))
		}
	}
	lies, err := c.writeChosen(ctx, ch.Rows)
	if err != nil {
		return err
	}
	for i, row := range c.chosen {
		if _, _, err := c.index.Put(c.hashes[row], lies.at(i)); err != nil {
			return err
		}
	}
	return nil
}

// writeChosen writes the chosen rows, which are in order.
func (c *currentTable) writeChosen(ctx context.Context, rows arrow.RecordBatch) (landed, error) {
	n := len(c.chosen)
	if n == 0 {
		return landed{}, nil
	}
	start, end := int64(c.chosen[0]), int64(c.chosen[n-1])+1
	var rec arrow.RecordBatch
	if end-start == int64(n) {
		rec = rows.NewSlice(start, end)
	} else {
		var err error
		if rec, err = takeRows(ctx, rows, c.chosen); err != nil {
			return landed{}, err
		}
	}
	defer rec.Release()
	before := c.openBytes()
	to, err := c.append(rec)
	c.size.bytes += max(0, c.openBytes()-before)
	return to, err
}

func (c *currentTable) openBytes() int64 {
	if c.open == nil {
		return 0
	}
	return c.open.Bytes()
}

// takeRows makes a record of some rows of another.
func takeRows(ctx context.Context, rec arrow.RecordBatch, rows []uint32) (arrow.RecordBatch, error) {
	ctx = compute.WithAllocator(ctx, LargeValues{})
	b := array.NewUint32Builder(compute.GetAllocator(ctx))
	defer b.Release()
	b.AppendValues(rows, nil)
	at := b.NewArray()
	defer at.Release()
	columns := make([]arrow.Array, rec.NumCols())
	defer func() {
		for _, a := range columns {
			if a != nil {
				a.Release()
			}
		}
	}()
	for i := range columns {
		a, err := compute.TakeArrayOpts(ctx, rec.Column(i), at, compute.TakeOptions{BoundsCheck: false})
		if err != nil {
			return nil, fault.Wrap(err, fault.Internal, rec.ColumnName(i), "rows cannot be chosen from a record")
		}
		columns[i] = a
	}
	return array.NewRecordBatch(rec.Schema(), columns, int64(len(rows))), nil
}

// truncate empties the table: what is pending at once, what is committed with the next commit.
func (c *currentTable) truncate(ctx context.Context) error {
	if err := c.seal(ctx); err != nil {
		return err
	}
	for _, f := range c.files {
		if f == nil || !f.pending {
			continue
		}
		f.fresh = f.fresh[:0]
		for row := range f.rows {
			f.fresh = append(f.fresh, uint32(row))
		}
	}
	c.truncated = true
	c.walk.stop()
	c.size.rows++
	return c.index.Clear()
}
