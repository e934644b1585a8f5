package lake

import (
	"bytes"
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// sortBytes is how much a fileSet of a table with a sort order holds back, in Arrow's layout. What it holds of a file becomes a
// row group, or several, whose rows are sorted.
const sortBytes = 32 << 20

// sortColumn is a column of the table's sort order.
type sortColumn struct {
	at               int // in records
	falls, nullsLast bool
}

// sorting is the table's sort order in records of the given schema, as far as the columns are there; nil for none.
func (t *icebergTable) sorting(schema *arrow.Schema) []sortColumn {
	var out []sortColumn
	order := t.now().SortOrder()
	for _, f := range order.Fields() {
		at := slices.IndexFunc(schema.Fields(), func(c arrow.Field) bool { return fieldID(c) == f.SourceIDs[0] })
		if _, plain := f.Transform.(iceberg.IdentityTransform); at < 0 || !plain {
			break
		}
		out = append(out, sortColumn{at: at, falls: f.Direction == table.SortDESC, nullsLast: f.NullOrder == table.NullsLast})
	}
	return out
}

// unsorted are rows of a file that wait to be sorted.
type unsorted struct {
	records []arrow.RecordBatch
	bytes   int64
	runs    int      // sorted before
	order   []uint32 // where each row of the file lies, by the order in which rows came
}

// hold keeps a copy of a record, whose buffers serve the next one, until enough is there to be sorted. A record that is large by
// itself is not copied.
func (s *fileSet) hold(now *openData, rec arrow.RecordBatch) error {
	if bytesOf(rec) >= sortBytes {
		if err := s.sortHeld(now); err != nil {
			return err
		}
		return s.writeSorted(now, rec)
	}
	all := make([]uint32, rec.NumRows())
	for i := range all {
		all[i] = uint32(i)
	}
	kept, err := takeRows(s.ctx, rec, all)
	if err != nil {
		return err
	}
	n := bytesOf(kept)
	now.records, now.bytes, s.held = append(now.records, kept), now.bytes+n, s.held+n
	for s.held >= sortBytes {
		most := now
		for _, o := range s.open {
			if o.bytes > most.bytes {
				most = o
			}
		}
		if err := s.sortHeld(most); err != nil {
			return err
		}
	}
	return nil
}

// bytesOf is what a record's buffers have; those of a slice are counted whole.
func bytesOf(rec arrow.RecordBatch) (n int64) {
	for _, a := range rec.Columns() {
		n += bytesOfData(a.Data())
	}
	return n
}

func bytesOfData(d arrow.ArrayData) (n int64) {
	for _, b := range d.Buffers() {
		if b != nil {
			n += int64(b.Len())
		}
	}
	for _, c := range d.Children() {
		n += bytesOfData(c)
	}
	return n
}

// sortHeld writes what is held of a file.
func (s *fileSet) sortHeld(now *openData) error {
	if len(now.records) == 0 {
		return nil
	}
	records := now.records
	s.held -= now.bytes
	now.records, now.bytes = nil, 0
	defer func() {
		for _, r := range records {
			r.Release()
		}
	}()
	if len(records) == 1 {
		return s.writeSorted(now, records[0])
	}
	columns := make([]arrow.Array, records[0].NumCols())
	defer func() { release(columns) }()
	var rows int64
	for i := range columns {
		parts := make([]arrow.Array, len(records))
		for k, r := range records {
			parts[k] = r.Column(i)
		}
		var err error
		if columns[i], err = array.Concatenate(parts, memory.DefaultAllocator); err != nil {
			return fault.Wrap(err, fault.Internal, s.table.where(), "rows cannot be put together to be sorted")
		}
		rows = int64(columns[i].Len())
	}
	rec := array.NewRecordBatch(records[0].Schema(), columns, rows)
	defer rec.Release()
	return s.writeSorted(now, rec)
}

// writeSorted writes the rows of a record in the table's order, as row groups of their own.
func (s *fileSet) writeSorted(now *openData, rec arrow.RecordBatch) error {
	sorted := sortRows(rec, s.sort)
	if err := s.writeRows(now, rec, sorted); err != nil {
		return err
	}
	if s.places {
		first := len(now.order)
		now.order = append(now.order, make([]uint32, len(sorted))...)
		for at, row := range sorted {
			now.order[first+int(row)] = uint32(first + at)
		}
	}
	now.runs++
	return format.EndRowGroup(now.writer)
}

// writeRows writes rows of a record, copied only where they are not as they came: one of them may be large.
func (s *fileSet) writeRows(now *openData, rec arrow.RecordBatch, rows []uint32) error {
	if inOrder(rows) {
		return now.writer.Write(rec)
	}
	for lo := 0; lo < len(rows); lo += scanRows {
		part, err := takeRows(s.ctx, rec, rows[lo:min(len(rows), lo+scanRows)])
		if err != nil {
			return err
		}
		err = now.writer.Write(part)
		part.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// inOrder says whether rows lie in the order in which they came.
func inOrder(order []uint32) bool {
	for i, at := range order {
		if int(at) != i {
			return false
		}
	}
	return true
}

// sortRows gives the rows of a record in order; equal ones stay as they are.
func sortRows(rec arrow.RecordBatch, by []sortColumn) []uint32 {
	rows := make([]uint32, rec.NumRows())
	for i := range rows {
		rows[i] = uint32(i)
	}
	compare := make([]func(a, b int) int, len(by))
	for i, c := range by {
		compare[i] = c.comparing(storage(rec.Column(c.at)))
	}
	slices.SortStableFunc(rows, func(a, b uint32) int {
		for _, of := range compare {
			if n := of(int(a), int(b)); n != 0 {
				return n
			}
		}
		return 0
	})
	return rows
}

// comparing compares rows of a column, nulls and direction included.
func (c sortColumn) comparing(a arrow.Array) func(i, k int) int {
	values := valuesOf(a)
	return func(i, k int) int {
		switch ni, nk := a.IsNull(i), a.IsNull(k); {
		case ni && nk:
			return 0
		case ni != nk:
			if ni == c.nullsLast {
				return 1
			}
			return -1
		case c.falls:
			return values(k, i)
		}
		return values(i, k)
	}
}

// valuesOf compares values of a column. Text goes by its bytes, as Iceberg wants it.
func valuesOf(a arrow.Array) func(i, k int) int {
	switch a := a.(type) {
	case *array.Boolean:
		return func(i, k int) int { return cmp.Compare(bit(a.Value(i)), bit(a.Value(k))) }
	case *array.Int8:
		return ordered(a.Values())
	case *array.Int16:
		return ordered(a.Values())
	case *array.Int32:
		return ordered(a.Values())
	case *array.Int64:
		return ordered(a.Values())
	case *array.Date32:
		return ordered(a.Values())
	case *array.Time64:
		return ordered(a.Values())
	case *array.Timestamp:
		return ordered(a.Values())
	case *array.Float32:
		return func(i, k int) int { return compareFloats(float64(a.Value(i)), float64(a.Value(k))) }
	case *array.Float64:
		return func(i, k int) int { return compareFloats(a.Value(i), a.Value(k)) }
	case *array.String:
		return func(i, k int) int { return cmp.Compare(a.Value(i), a.Value(k)) }
	case *array.Binary:
		return func(i, k int) int { return bytes.Compare(a.Value(i), a.Value(k)) }
	case *array.FixedSizeBinary:
		return func(i, k int) int { return bytes.Compare(a.Value(i), a.Value(k)) }
	case *array.Decimal128:
		return func(i, k int) int { return a.Value(i).Cmp(a.Value(k)) }
	}
	return func(int, int) int { return 0 }
}

func ordered[T cmp.Ordered](values []T) func(i, k int) int {
	return func(i, k int) int { return cmp.Compare(values[i], values[k]) }
}

func bit(v bool) int {
	if v {
		return 1
	}
	return 0
}

// compareFloats has NaN behind all numbers.
func compareFloats(a, b float64) int {
	switch na, nb := math.IsNaN(a), math.IsNaN(b); {
	case na || nb:
		return cmp.Compare(bit(na), bit(nb))
	}
	return cmp.Compare(a, b)
}

// followSort gives a table the sort order of the setting. What was written before stays as it is, until it is rewritten.
func (t *lakeTable) followSort(ctx context.Context, ice *icebergTable) error {
	columns, err := profileColumns(t.lake.Profile)
	if err != nil || len(t.spec.Sort) == 0 {
		return err
	}
	schema, err := ice.fileSchema()
	if err != nil {
		return err
	}
	want, err := sortOrder(t.spec.Table.String(), ofTable(t.spec.Sort, schema, arrow.NewSchema(columns.fields(), nil)), ice.now().Schema())
	if err != nil {
		// A column may have another name by now: the order goes by its id.
		t.lake.Log.Warn("lake.sort_by names a column that the table does not have; its sort order stays", "table", ice.where(), "error", err)
		return nil
	}
	changes := sortUpdates(ice.now().Metadata(), want)
	if len(changes) == 0 {
		return nil
	}
	return ice.commit(ctx, delta{updates: changes})
}

// sortUpdates make a sort order the table's; none where it is that already. As with schemas, one that the table has had goes by
// its id.
func sortUpdates(base table.Metadata, want table.SortOrder) []table.Update {
	if sameOrder(base.SortOrder(), want) {
		return nil
	}
	for _, known := range base.SortOrders() {
		if sameOrder(known, want) {
			return []table.Update{table.NewSetDefaultSortOrderUpdate(known.OrderID())}
		}
	}
	return []table.Update{table.NewAddSortOrderUpdate(&want), table.NewSetDefaultSortOrderUpdate(-1)}
}

func sameOrder(a, b table.SortOrder) bool {
	return slices.EqualFunc(sortFields(a), sortFields(b), table.SortField.Equals)
}

// orderLeft is a sort order without the columns that a schema does not have: no table may be sorted by those.
func orderLeft(order table.SortOrder, schema *iceberg.Schema) (table.SortOrder, error) {
	left := slices.DeleteFunc(sortFields(order), func(f table.SortField) bool {
		_, there := schema.FindFieldByID(f.SourceIDs[0])
		return !there
	})
	if len(left) == 0 {
		return table.UnsortedSortOrder, nil
	}
	return table.NewSortOrder(1, left)
}

func sortFields(o table.SortOrder) (out []table.SortField) {
	for _, f := range o.Fields() {
		out = append(out, f)
	}
	return out
}
