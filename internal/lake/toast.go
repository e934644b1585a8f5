package lake

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/keyindex"
)

// Where a value that the log left out comes from. The places are tried in this order: an earlier row of the same key in the same
// record, the row that the table holds, the source. The row's earlier image in the log is none of them: what that has is in the row
// already. Of a partition the log tells as much of the earlier row as the partition's own replica identity says, under a relation
// whose identity is the root's.
type origin struct {
	kind   originKind
	row    int32
	before int32 // an earlier row of the record, -1 without
}

type originKind byte

const (
	fromRecord originKind = iota // an earlier row of the record
	fromLake                     // the row-th of those fetched from data files
	fromSource                   // the row-th of those asked of the source, or before when it does not know
)

// resolve fills in the values that the log left out of some changes from a row on, and returns those: as many as can be held at one
// time. A value that nobody has any more stays marked: its row has been deleted since, and the log will say so. The record is
// the caller's to release.
func (c *currentTable) resolve(ctx context.Context, ch *change.Changes, from int) (*change.Changes, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	out, err := c.resolveSome(ctx, ch, from)
	if needs := (*needsSpecial)(nil); errors.As(err, &needs) {
		return nil, err // nothing has changed yet
	}
	return out, c.fail(err)
}

// resolveBytes bounds the values that were left out and are found for one record. What the log told in a few bytes may stand for
// gigabytes of values that did not change.
const resolveBytes = 16 << 20

// errTooMuch says that the values of a record are more than resolveBytes.
var errTooMuch = errors.New("the values that were left out are too many to be held at one time")

// resolveSome tries with fewer and fewer rows, and remembers how many went; while all go, nothing bounds them.
func (c *currentTable) resolveSome(ctx context.Context, ch *change.Changes, from int) (*change.Changes, error) {
	ctx = compute.WithAllocator(ctx, LargeValues{})
	n := ch.Len() - from
	if c.resolvable > 0 {
		n = min(n, c.resolvable)
	}
	for {
		part := ch.Between(from, from+n)
		limit := c.resolveBytes
		if n == 1 {
			limit = math.MaxInt64
		}
		out, err := c.resolvePart(ctx, part, limit)
		if out != part {
			part.Rows.Release()
		}
		if errors.Is(err, errTooMuch) {
			n = max(1, n/2)
			c.resolvable = n
			continue
		}
		if err == nil && n == c.resolvable {
			c.resolvable = 2 * n
		}
		return out, err
	}
}

// wanted is what must be found out for one record.
type wanted struct {
	origins []origin // of each row; only those with marks count
	marked  []bool
	hollow  []bool   // of each row: what it had before may be unknown
	lake    []uint64 // places of rows in data files
	source  []int32  // rows of the record whose keys the source is asked for
	columns []int    // that have marks
	found   []int    // that are looked up: those, and the column of special values behind them
	limit   int64    // bytes of values that may be found
}

func (c *currentTable) resolvePart(ctx context.Context, ch *change.Changes, limit int64) (*change.Changes, error) {
	columns := markedColumns(ch)
	if len(columns) == 0 {
		return ch, nil
	}
	if err := c.hashRows(ctx, ch); err != nil {
		return nil, err
	}
	w := c.originsOf(ch, columns)
	w.limit, w.found = limit, columns
	if c.special >= 0 {
		w.found = append(slices.Clone(columns), c.special)
	}
	held, err := c.fetch(ctx, w)
	if err != nil {
		return nil, err
	}
	defer held.release()
	asked, err := c.ask(ctx, ch, w)
	if err != nil {
		return nil, err
	}
	defer asked.release()
	out := *ch
	arrays := slices.Clone(ch.Rows.Columns())
	out.Unchanged = nil
	for i, col := range columns {
		a, left, err := c.compose(ctx, ch, w, col, held.column(i), asked.column(i))
		if err != nil {
			return nil, err
		}
		defer a.Release()
		arrays[col] = a
		if left != nil {
			if out.Unchanged == nil {
				out.Unchanged = make([]change.Bitmap, len(arrays))
			}
			out.Unchanged[col] = left
		}
	}
	if c.special >= 0 {
		side := c.composeSpecial(ch, w, held.column(len(columns)), asked.column(len(columns)))
		defer side.Release()
		arrays[c.special] = side
	}
	out.Rows = array.NewRecordBatch(ch.Rows.Schema(), arrays, ch.Rows.NumRows())
	return c.computeRest(ctx, &out)
}

// computeRest computes what had to wait for values that have been found now. It takes over the record.
func (c *currentTable) computeRest(ctx context.Context, ch *change.Changes) (*change.Changes, error) {
	if c.compute == nil {
		return ch, nil
	}
	out, special, err := c.compute(ctx, ch)
	if out != ch {
		ch.Rows.Release()
	}
	if err == nil && len(special) > 0 && c.special < 0 {
		out.Rows.Release()
		return nil, &needsSpecial{special}
	}
	return out, err
}

func markedColumns(ch *change.Changes) []int {
	var out []int
	for col, bits := range ch.Unchanged {
		if slices.ContainsFunc(bits, func(b byte) bool { return b != 0 }) {
			out = append(out, col)
		}
	}
	return out
}

// originsOf decides for each row with marks where its values are.
func (c *currentTable) originsOf(ch *change.Changes, columns []int) *wanted {
	w := &wanted{origins: make([]origin, ch.Len()), marked: make([]bool, ch.Len()), hollow: make([]bool, ch.Len()), columns: columns}
	c.last.reset(2 * ch.Len())
	emptied := false
	for i := range ch.Len() {
		h := c.hashes[i]
		if ch.Ops[i] == change.OpTrunc {
			c.last.reset(2 * ch.Len())
			emptied = true
			continue
		}
		key := h // the last version is that of the key which the row had before
		old, told := c.oldKey(ch, i)
		if told {
			key = old
		}
		for _, col := range columns {
			w.marked[i] = w.marked[i] || ch.IsUnchanged(col, i)
		}
		if w.marked[i] {
			w.origins[i] = c.originOf(w, i, key, emptied)
		}
		if told && old != h {
			c.last.set(old, -1)
		}
		if ch.Ops[i] == change.OpDelete {
			c.last.set(h, -1)
		} else {
			c.last.set(h, int32(i))
		}
	}
	return w
}

func (c *currentTable) originOf(w *wanted, row int, key keyindex.Hash, emptied bool) origin {
	if c.whole { // the earlier row that the log told is not whole: nothing says which row it was, and ask refuses
		w.source = append(w.source, int32(row))
		return origin{fromSource, int32(len(w.source) - 1), -1}
	}
	earlier, known := c.last.get(key)
	_, lacking := c.hollow[key]
	switch {
	case known && earlier >= 0 && !w.hollow[earlier]:
		return origin{fromRecord, earlier, -1}
	case !known && !emptied && !lacking:
		if at, ok := c.index.Get(key); ok {
			w.lake = append(w.lake, at)
			return origin{fromLake, int32(len(w.lake) - 1), -1}
		}
	}
	return c.originBehind(w, row, key, emptied)
}

// originBehind is for a row whose earlier state is unknown. That happens only while the log tells again what a copy's snapshot
// has seen already: the snapshot may hold the row under the key that it moves to, or under one of a later move.
func (c *currentTable) originBehind(w *wanted, row int, key keyindex.Hash, emptied bool) origin {
	if h := c.hashes[row]; h != key && !emptied {
		_, lacking := c.hollow[h]
		if _, written := c.last.get(h); !written && !lacking {
			if at, ok := c.index.Get(h); ok {
				w.lake = append(w.lake, at)
				return origin{fromLake, int32(len(w.lake) - 1), -1}
			}
		}
	}
	w.hollow[row] = true
	before, known := c.last.get(key)
	if !known {
		before = -1
	}
	w.source = append(w.source, int32(row))
	return origin{fromSource, int32(len(w.source) - 1), before}
}

// noteHollow remembers which keys have rows that lack values, because nobody had them: a row that follows one of them must not
// take that for NULL.
func (c *currentTable) noteHollow(ch *change.Changes, from int) {
	columns := markedColumns(ch)
	if len(columns) == 0 && len(c.hollow) == 0 {
		return
	}
	if c.hollow == nil {
		c.hollow = map[keyindex.Hash]struct{}{}
	}
	for i := from; i < ch.Len(); i++ {
		if ch.Ops[i] == change.OpTrunc {
			clear(c.hollow)
			continue
		}
		if old, told := c.oldKey(ch, i); told {
			delete(c.hollow, old)
		}
		delete(c.hollow, c.hashes[i])
		if ch.Ops[i] != change.OpDelete && slices.ContainsFunc(columns, func(col int) bool { return ch.IsUnchanged(col, i) }) {
			c.hollow[c.hashes[i]] = struct{}{}
		}
	}
}

// found are rows that were looked up: the wanted columns, and for each row asked for its place in them, -1 for none.
type found struct {
	columns []arrow.Array
	at      []int32
}

// foundColumn is one column of them.
type foundColumn struct {
	values arrow.Array // nil when nothing was asked for
	at     []int32
}

func (f *found) release() {
	if f != nil {
		release(f.columns)
	}
}

func (f *found) column(i int) foundColumn {
	if f == nil {
		return foundColumn{}
	}
	return foundColumn{f.columns[i], f.at}
}

// fetch reads the wanted columns of rows from data files, each file once. Nil when none is wanted.
func (c *currentTable) fetch(ctx context.Context, w *wanted) (*found, error) {
	if len(w.lake) == 0 {
		return nil, nil
	}
	if slices.ContainsFunc(w.lake, func(at uint64) bool { f, _ := c.settle(at); return c.files[f] != nil && c.files[f].file == nil }) {
		if err := c.seal(ctx); err != nil {
			return nil, err
		}
	}
	byFile := map[uint32][]uint32{}
	for _, at := range w.lake {
		file, row := c.settle(at)
		byFile[file] = append(byFile[file], row)
	}
	fields := make([]arrow.Field, len(w.found))
	for i, col := range w.found {
		fields[i] = c.schema.Field(col)
	}
	first := map[uint32]int32{} // where the rows of a file begin in what is read
	parts := make([][]arrow.Array, len(fields))
	defer func() {
		for _, p := range parts {
			release(p)
		}
	}()
	n, left := int32(0), w.limit
	for file, rows := range byFile {
		slices.Sort(rows)
		rows = slices.Compact(rows)
		byFile[file], first[file] = rows, n
		n += int32(len(rows))
		f := c.fileOf(file)
		if f == nil || f.file == nil {
			return nil, fault.New(fault.Internal, c.t.where(), "the key index leads to a file that is gone")
		}
		if err := c.t.readRows(ctx, f.file, arrow.NewSchema(fields, nil), rows, parts, &left); err != nil {
			return nil, err
		}
	}
	out := &found{at: make([]int32, len(w.lake))}
	for _, p := range parts {
		a, err := joined(ctx, p)
		if err != nil {
			out.release()
			return nil, fault.Wrap(err, fault.LakeFailed, c.t.where(), "earlier values cannot be put together")
		}
		out.columns = append(out.columns, a)
	}
	for i, at := range w.lake {
		file, row := c.settle(at)
		k, _ := slices.BinarySearch(byFile[file], row)
		out.at[i] = first[file] + int32(k)
	}
	return out, nil
}

// readRows reads some rows of a data file, given in order and each once, from the row groups that hold them, and appends their
// columns to parts. It ends with errTooMuch when their values are more than the bytes that are left.
func (t *icebergTable) readRows(ctx context.Context, f iceberg.DataFile, schema *arrow.Schema, rows []uint32, parts [][]arrow.Array, bytes *int64) error {
	r, err := t.openParquet(ctx, f, anyPage)
	if err != nil {
		return err
	}
	defer r.Close()
	first, left := uint32(0), rows
	for g := range r.NumRowGroups() {
		n := uint32(r.MetaData().RowGroup(g).NumRows())
		if len(left) == 0 || left[0] >= first+n {
			first += n
			continue
		}
		err := t.scanOpen(ctx, r, schema, []int{g}, 0, func(rec arrow.RecordBatch) error {
			var picked []uint32
			for len(left) > 0 && left[0] < first+uint32(rec.NumRows()) {
				picked = append(picked, left[0]-first)
				left = left[1:]
			}
			first += uint32(rec.NumRows())
			if len(picked) == 0 {
				return nil
			}
			got, err := shaped(ctx, rec, schema, nil, picked)
			if err != nil {
				return err
			}
			for i := range parts {
				got.Column(i).Retain()
				parts[i] = append(parts[i], got.Column(i))
			}
			*bytes -= bytesOf(got)
			got.Release()
			if *bytes < 0 {
				return errTooMuch
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return fault.New(fault.LakeFailed, t.where(), "data file %s has no row %d", f.FilePath(), left[0])
	}
	return nil
}

// ask has the source tell the rows of keys that nobody here knows.
func (c *currentTable) ask(ctx context.Context, ch *change.Changes, w *wanted) (*found, error) {
	if len(w.source) == 0 {
		return nil, nil
	}
	if c.reread == nil || c.whole {
		return nil, fault.New(fault.ValueUncarriable, c.t.where(), "the log leaves out a value that did not change, and no earlier row of its key is known").
			WithMend("Copy the table anew, or set REPLICA IDENTITY FULL.")
	}
	if int64(len(w.source)) > max(1, w.limit/meanRow(ch.Table)) {
		return nil, errTooMuch
	}
	keys, err := c.keysOf(ctx, ch.Rows, w.source)
	if err != nil {
		return nil, err
	}
	defer keys.Release()
	rec, err := c.reread(ctx, keys)
	if err != nil {
		return nil, err
	}
	byName := func(col int) (arrow.Array, error) {
		at := rec.Schema().FieldIndices(c.schema.Field(col).Name)
		if len(at) == 0 && !slices.Contains(c.key, col) {
			return nil, nil // dropped since
		}
		if len(at) != 1 {
			return nil, fault.New(fault.Internal, c.t.where(), "rows read again lack column %q", c.schema.Field(col).Name)
		}
		return rec.Column(at[0]), nil
	}
	special := change.SpecialOf(rec, int(rec.NumCols())-1)
	if c.special < 0 && !nothing(special) {
		return nil, &needsSpecial{specialNames(rec, int(rec.NumCols())-1)}
	}
	keyed := rowKeys{columns: make([]arrow.Array, len(c.key)), names: c.names, special: special}
	for i, k := range c.key {
		if keyed.columns[i], err = byName(k); err != nil {
			return nil, err
		}
	}
	rows := map[keyindex.Hash]int32{}
	for i, h := range keyed.hashes(c.index, int(rec.NumRows()), nil) {
		rows[h] = int32(i)
	}
	out := &found{at: make([]int32, len(w.source))}
	for i, row := range w.source {
		out.at[i] = -1
		if at, ok := rows[c.hashes[row]]; ok {
			out.at[i] = at
		}
	}
	for _, col := range w.columns {
		a, err := byName(col)
		if err != nil {
			return nil, err
		}
		if a != nil {
			if a, err = fitted(ctx, a, c.schema.Field(col), nil); err != nil {
				return nil, err
			}
		}
		out.columns = append(out.columns, a)
	}
	if c.special >= 0 {
		if special != nil {
			special.Retain()
			out.columns = append(out.columns, special)
		} else {
			out.columns = append(out.columns, nil)
		}
	}
	return out, nil
}

// meanRow is what a row of the source takes on the mean, in bytes; a guess where the server has not counted its rows.
func meanRow(t *change.Table) int64 {
	if t.Rows <= 0 {
		return 128 << 10
	}
	return max(1, t.Bytes/t.Rows)
}

// keysOf takes the key columns of some rows.
func (c *currentTable) keysOf(ctx context.Context, rec arrow.RecordBatch, rows []int32) (arrow.RecordBatch, error) {
	fields := make([]arrow.Field, len(c.key))
	columns := make([]arrow.Array, len(c.key))
	for i, k := range c.key {
		fields[i], columns[i] = rec.Schema().Field(k), rec.Column(k)
	}
	if c.special >= 0 {
		fields, columns = append(fields, change.SpecialField), append(columns, rec.Column(c.special))
	}
	at := make([]uint32, len(rows))
	for i, row := range rows {
		at[i] = uint32(row)
	}
	keys := array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, rec.NumRows())
	defer keys.Release()
	return takeRows(ctx, keys, at)
}

// compose makes a column with the values that were left out in their places, and the marks of those that nobody knows.
func (c *currentTable) compose(ctx context.Context, ch *change.Changes, w *wanted, col int, held, asked foundColumn) (arrow.Array, change.Bitmap, error) {
	pieces := []arrow.Array{storage(ch.Rows.Column(col))}
	n := pieces[0].Len()
	place := func(a arrow.Array) (base int) {
		if a != nil {
			base = n
			n += a.Len()
			pieces = append(pieces, storage(a))
		}
		return base
	}
	heldAt, askedAt := place(held.values), place(asked.values)
	var left change.Bitmap
	from := make([]uint32, ch.Len())
	for i := range from {
		from[i] = uint32(i)
		if !ch.IsUnchanged(col, i) || !w.marked[i] {
			continue
		}
		switch o := w.origins[i]; o.kind {
		case fromRecord:
			from[i] = from[o.row]
			if left.Has(int(o.row)) {
				left = left.Set(i)
			}
		case fromLake:
			from[i] = uint32(heldAt + int(held.at[o.row]))
		case fromSource:
			if asked.values == nil || asked.at[o.row] < 0 {
				if o.before >= 0 {
					from[i] = from[o.before]
				}
				if o.before < 0 || left.Has(int(o.before)) {
					left = left.Set(i)
				}
				continue
			}
			from[i] = uint32(askedAt + int(asked.at[o.row]))
		}
	}
	if bytesOfRows(pieces, from) > w.limit {
		return nil, nil, errTooMuch
	}
	if len(from) == 1 { // a huge value is not copied once more
		return array.NewSlice(nthOf(pieces, from[0])), left, nil
	}
	all, err := joined(ctx, pieces)
	if err != nil {
		return nil, nil, fault.Wrap(err, fault.Internal, c.schema.Field(col).Name, "earlier values cannot be put together")
	}
	defer all.Release()
	one := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{{Name: "value", Type: all.DataType(), Nullable: true}}, nil), []arrow.Array{all}, int64(all.Len()))
	defer one.Release()
	taken, err := takeRows(ctx, one, from)
	if err != nil {
		return nil, nil, err
	}
	defer taken.Release()
	a := taken.Column(0)
	a.Retain()
	return a, left, nil
}
