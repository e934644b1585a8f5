package lake

import (
	"context"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// historyTable appends every change as a row: system columns, then the table's. The latest state before a position X is,
// for each key, its last row by (lsn, seq) with lsn < X behind the last 't', unless that row is a 'd'. For this an update
// that moves a key has a 'd' row of the old key before it; sequence numbers are doubled to make room for it.
type historyTable struct {
	ice    *icebergTable
	ctx    context.Context // of uploads
	spec   Spec
	system systemColumns
	schema *arrow.Schema // of data files, with field ids
	fields []arrow.Field // the table's columns, nullable
	key    []int         // columns of the key in the record; all of them without a key
	files  *fileSet      // nil when nothing is being written
	sealed []*fileSet    // finished, in the definitions of before, and not committed
}

// historySchema is the schema of a history: a deleted row tells only its key, so no column of the table is required.
func historySchema(profile string, spec Spec) (*arrow.Schema, error) {
	system, err := profileColumns(profile)
	if err != nil {
		return nil, err
	}
	if err := checkNames(spec.Table, arrow.NewSchema(system.fields(), nil)); err != nil {
		return nil, err
	}
	return arrow.NewSchema(append(system.fields(), nullable(spec.Schema)...), nil), nil
}

func nullable(schema *arrow.Schema) []arrow.Field {
	fields := slices.Clone(schema.Fields())
	for i := range fields {
		fields[i].Nullable = true
	}
	return fields
}

func openHistory(uploads context.Context, ice *icebergTable, spec Spec) (*historyTable, error) {
	system, err := profileColumns(ice.lake.Profile)
	if err != nil {
		return nil, err
	}
	h := &historyTable{ice: ice, ctx: uploads, system: system}
	return h, h.shape(uploads, spec, ice.schema())
}

// shape takes over a definition of the source, which the given Iceberg schema has too. What was written before stays in
// files of its own.
func (h *historyTable) shape(ctx context.Context, spec Spec, ice *iceberg.Schema) error {
	plain, err := historySchema(h.ice.lake.Profile, spec)
	if err != nil {
		return err
	}
	schema, err := withFieldIDs(plain, ice)
	if err != nil {
		return err
	}
	if h.files != nil && !schema.Equal(h.schema) {
		if _, err := h.files.Close(ctx); err != nil {
			return err
		}
		h.sealed, h.files = append(h.sealed, h.files), nil
	}
	h.spec, h.schema, h.fields, h.key = spec, schema, plain.Fields()[len(h.system):], nil
	for i, f := range spec.Schema.Fields() {
		if spec.WholeRowKey || slices.Contains(spec.Key, f.Name) {
			h.key = append(h.key, i)
		}
	}
	return nil
}

// holds says whether the Iceberg table has the columns of t under their names.
func (t *icebergTable) holds(of *change.Table) (bool, error) {
	columns, err := t.columns()
	if err != nil || len(columns) != len(of.Columns) {
		return false, err
	}
	for i, c := range columns {
		if c.Attnum != of.Columns[i].Attnum || c.Name != of.Columns[i].Name {
			return false, nil
		}
	}
	return true, nil
}

func (h *historyTable) take(_ context.Context, c *change.Changes) error {
	if c.Len() == 0 {
		return nil
	}
	record, err := h.of(c)
	if err != nil {
		return err
	}
	defer record.Release()
	return h.append(record)
}

// of makes the history's rows of some changes.
func (h *historyTable) of(c *change.Changes) (arrow.RecordBatch, error) {
	rows := historyRows{Changes: c, seq: make([]int64, c.Len()), ops: c.Ops}
	for i, s := range c.Seq {
		rows.seq[i] = int64(2 * s)
	}
	return h.withMoves(rows)
}

// historyRows are changes with what the history says of each.
type historyRows struct {
	*change.Changes
	ops []change.Op
	seq []int64
}

// withMoves composes the record of some changes. Where an update moves a key, the old key's 'd' goes before it.
func (h *historyTable) withMoves(r historyRows) (arrow.RecordBatch, error) {
	moves := h.moves(r.Changes)
	if len(moves) == 0 {
		return h.compose(r.Rows.Columns(), r, nil), nil
	}
	n, old := r.Len(), int(r.Old.NumRows())
	pick := array.NewInt64Builder(memory.DefaultAllocator)
	defer pick.Release()
	var source []int // row of the changes that each row of the history comes from
	at := 0
	for i := range n {
		if at < len(moves) && moves[at] == i {
			pick.Append(int64(n) + int64(r.OldRow[i]))
			source = append(source, i)
			at++
		}
		pick.Append(int64(i))
		source = append(source, i)
	}
	indices := pick.NewInt64Array()
	defer indices.Release()
	columns := make([]arrow.Array, r.Rows.NumCols())
	defer func() { release(columns) }()
	for i := range columns {
		var err error
		if columns[i], err = pickOf(r.Rows.Column(i), r.Old.Column(i), indices); err != nil {
			return nil, fault.Wrap(err, fault.Internal, h.spec.Table.String(), "rows of %d and %d cannot be put together", n, old)
		}
	}
	return h.compose(columns, r.spread(source, moves), source), nil
}

// pickOf takes rows of a, and behind its end of b.
func pickOf(a, b arrow.Array, indices arrow.Array) (arrow.Array, error) {
	both, err := array.Concatenate([]arrow.Array{a, b}, LargeValues{})
	if err != nil {
		return nil, err
	}
	defer both.Release()
	return compute.TakeArray(compute.WithAllocator(context.Background(), LargeValues{}), both, indices)
}

// spread gives each row of the history its operation and number: where a change has two rows, the first is the 'd'.
func (r historyRows) spread(source, moves []int) historyRows {
	out := historyRows{Changes: r.Changes, ops: make([]change.Op, len(source)), seq: make([]int64, len(source))}
	for i, s := range source {
		out.ops[i], out.seq[i] = r.ops[s], r.seq[s]
		if _, moved := slices.BinarySearch(moves, s); moved && i+1 < len(source) && source[i+1] == s {
			out.ops[i], out.seq[i] = change.OpDelete, r.seq[s]-1
		}
	}
	return out
}

// moves lists the updates whose key before differs from their key now.
func (h *historyTable) moves(c *change.Changes) []int {
	if c.Old == nil || len(h.key) == 0 {
		return nil
	}
	var out []int
	for i, old := range c.OldRow {
		if old >= 0 && c.Ops[i] == change.OpUpdate && h.moved(c, i, int(old)) {
			out = append(out, i)
		}
	}
	return out
}

func (h *historyTable) moved(c *change.Changes, row, old int) bool {
	for _, k := range h.key {
		if c.IsUnchanged(k, row) {
			continue // a value in TOAST that did not change
		}
		if !array.SliceEqual(c.Rows.Column(k), int64(row), int64(row+1), c.Old.Column(k), int64(old), int64(old+1)) {
			return true
		}
	}
	if at := h.spec.special(); at >= 0 && !h.spec.WholeRowKey {
		now, was := asMap(c.Rows.Column(at)), asMap(c.Old.Column(at))
		for _, k := range h.key {
			text, is := change.SpecialText(now, row, h.fields[k].Name)
			before, had := change.SpecialText(was, old, h.fields[k].Name)
			if !c.IsUnchanged(k, row) && (is != had || text != before) {
				return true
			}
		}
	}
	return false
}

// compose puts system columns before the table's. source tells for each row which change it comes from; nil is each its own.
func (h *historyTable) compose(columns []arrow.Array, r historyRows, source []int) arrow.RecordBatch {
	n := len(r.ops)
	all := make([]arrow.Array, 0, len(h.system)+len(columns))
	for _, s := range h.system {
		all = append(all, s.fill(r, source, h.fields))
	}
	system := all[:len(h.system):len(h.system)]
	all = append(all, columns...)
	record := array.NewRecordBatch(h.schema, all, int64(n))
	release(system)
	return record
}

func release(arrays []arrow.Array) {
	for _, a := range arrays {
		if a != nil {
			a.Release()
		}
	}
}

func (h *historyTable) append(record arrow.RecordBatch) error {
	if h.files == nil {
		h.files = h.ice.newFileSet(h.ctx, h.schema)
	}
	_, err := h.files.Spread(record)
	return err
}

// sets are all that is pending.
func (h *historyTable) sets() []*fileSet {
	if h.files == nil {
		return h.sealed
	}
	return append(slices.Clone(h.sealed), h.files)
}

func (h *historyTable) pendingSize() (rows, bytes int64) {
	for _, s := range h.sets() {
		rows, bytes = rows+s.Rows(), bytes+s.Bytes()
	}
	return rows, bytes
}

func (h *historyTable) commit(ctx context.Context, to change.LSN, at time.Time) (Committed, error) {
	rows, _ := h.pendingSize()
	var files []iceberg.DataFile
	for _, s := range h.sets() {
		done, err := s.Close(ctx)
		if err != nil {
			h.abandon()
			return Committed{}, err
		}
		files = append(files, done...)
	}
	h.files, h.sealed = nil, nil
	// From here on the files may be part of the table, whatever the commit answers: they are not removed.
	if err := h.ice.commit(ctx, delta{add: files, position: to, at: at, staged: h.ice.staged}); err != nil {
		return Committed{}, err
	}
	h.ice.staged = nil
	return committed(h.ice, rows, files, to), nil
}

func committed(ice *icebergTable, rows int64, files []iceberg.DataFile, to change.LSN) Committed {
	c := Committed{Rows: int(rows), Files: len(files), Position: to}
	for _, f := range files {
		c.Bytes += f.FileSizeBytes()
	}
	if s := ice.now().CurrentSnapshot(); s != nil {
		c.Snapshots = []int64{s.SnapshotID}
	}
	return c
}

func (h *historyTable) abandon() {
	for _, s := range h.sets() {
		s.Abort()
	}
	h.files, h.sealed, h.ice.staged = nil, nil, nil
}

func (h *historyTable) close() error { return nil }
