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
	return c.sample(ctx, arrow.NewSchema(before, nil), func(rec arrow.RecordBatch) error {
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

// sample tells some columns of live rows: all rows of a small table, of a larger one some from files and places that lie apart.
func (c *currentTable) sample(ctx context.Context, schema *arrow.Schema, tell func(arrow.RecordBatch) error) error {
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
	if rows > checkedRows && len(files) > checkedFiles {
		few := make([]*trackedFile, checkedFiles)
		rows = 0
		for i := range few {
			few[i] = files[i*len(files)/checkedFiles]
			rows += few[i].rows
		}
		files = few
	}
	step := uint32(max(1, (rows+checkedRows-1)/checkedRows))
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
	return c.t.scan(ctx, f.file, schema, func(rec arrow.RecordBatch) error {
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
