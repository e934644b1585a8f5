package lake

import (
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
)

// A type change may compute values (ALTER … TYPE … USING), and nothing tells so but the values. So many rows are compared, from so
// many files.
const (
	checkedRows  = 10_000
	checkedFiles = 20
)

// checkRetyped tells the definition's Check rows that are there, as they are to be after it.
func (t *lakeTable) checkRetyped(ctx context.Context, d Definition) error {
	c := t.current
	if t.kept[len(t.kept)-1].position > d.From || c.whole {
		return nil
	}
	held, err := c.t.columns()
	if err != nil {
		return err
	}
	var before, after []arrow.Field
	var attnums []int16
	for _, h := range held {
		i := slices.IndexFunc(d.Table.Columns, func(n change.Column) bool { return n.Attnum == h.Attnum })
		at := fieldAt(c.schema.Fields(), h.Field)
		if i >= 0 && at >= 0 && (slices.Contains(c.key, at) || slices.Contains(d.Retyped, h.Attnum)) {
			before, after, attnums = append(before, c.schema.Field(at)), append(after, d.Schema.Field(i)), append(attnums, h.Attnum)
		}
	}
	return c.tellRows(ctx, arrow.NewSchema(before, nil), someOf, func(rec arrow.RecordBatch) error {
		columns := make([]arrow.Array, len(after))
		defer release(columns)
		for i, f := range after {
			if cut, converted := d.Converted[attnums[i]]; converted && convertible(rec.Column(i).DataType(), f.Type) {
				columns[i], err = convert(rec.Column(i), f, cut)
			} else {
				columns[i], err = fitted(ctx, rec.Column(i), f, nil)
			}
			if err != nil {
				return err
			}
		}
		out := array.NewRecordBatch(arrow.NewSchema(after, nil), columns, rec.NumRows())
		defer out.Release()
		return d.Check(ctx, out)
	})
}

// Values tells the key and other columns of all rows of a table's latest state. It tells none, and all is false, where those are more
// than most or have no key, or where the latest state is not kept.
func Values(ctx context.Context, of Table, attnums []int16, most int64, tell func(arrow.RecordBatch) error) (all bool, err error) {
	t, is := of.(*lakeTable)
	if !is || t.current == nil || t.current.whole {
		return false, nil
	}
	err = t.guarded(ctx, func() error {
		held, err := t.current.t.columns()
		if err != nil {
			return err
		}
		var fields []arrow.Field
		for _, h := range held {
			at := fieldAt(t.current.schema.Fields(), h.Field)
			if at >= 0 && (slices.Contains(t.current.key, at) || slices.Contains(attnums, h.Attnum)) {
				fields = append(fields, t.current.schema.Field(at))
			}
		}
		allOf := func(files []*trackedFile, rows int64) ([]*trackedFile, uint32) {
			if all = rows <= most; !all {
				return nil, 1
			}
			return files, 1
		}
		return t.current.tellRows(ctx, arrow.NewSchema(fields, nil), allOf, tell)
	})
	return all, err
}

// someOf chooses files, and of how many rows one: all rows of a small table, of a larger one some that lie apart.
func someOf(files []*trackedFile, rows int64) ([]*trackedFile, uint32) {
	if rows > checkedRows && len(files) > checkedFiles {
		few := make([]*trackedFile, checkedFiles)
		rows = 0
		for i := range few {
			few[i] = files[i*len(files)/checkedFiles]
			rows += few[i].rows
		}
		files = few
	}
	return files, uint32(max(1, (rows+checkedRows-1)/checkedRows))
}

// tellRows tells some columns of live rows, of files that are chosen by how many rows all have.
func (c *currentTable) tellRows(ctx context.Context, schema *arrow.Schema, choose func([]*trackedFile, int64) ([]*trackedFile, uint32), tell func(arrow.RecordBatch) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	if err := c.seal(ctx); err != nil {
		return c.fail(err)
	}
	var files []*trackedFile
	for _, f := range c.files {
		if f != nil && f.file != nil && f.moved == nil && (!c.truncated || f.pending) {
			files = append(files, f)
		}
	}
	var rows int64
	for _, f := range files {
		rows += f.rows
	}
	files, step := choose(files, rows)
	for _, f := range files {
		if err := c.sampleFile(ctx, f, schema, step, tell); err != nil {
			return err
		}
	}
	return nil
}

func (c *currentTable) sampleFile(ctx context.Context, f *trackedFile, schema *arrow.Schema, step uint32, tell func(arrow.RecordBatch) error) error {
	dead, row := f.gone(), uint32(0)
	if dead == nil {
		dead = roaring.New()
	}
	return c.t.scan(ctx, f.file, schema, 0, func(rec arrow.RecordBatch) error {
		var picked []uint32
		for k := range uint32(rec.NumRows()) {
			if (row+k)%step == 0 && !dead.Contains(row+k) {
				picked = append(picked, k)
			}
		}
		row += uint32(rec.NumRows())
		if len(picked) == 0 {
			return nil
		}
		some, err := takeRows(ctx, rec, picked)
		if err != nil {
			return err
		}
		defer some.Release()
		return tell(some)
	})
}
