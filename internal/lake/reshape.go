package lake

import (
	"context"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/keyindex"
)

// evolve takes over a new definition, which the next commit brings to the lake. Rows that are pending stay in files of the
// old one. values are of columns that were added.
func (c *currentTable) evolve(ctx context.Context, schema *arrow.Schema, spec Spec, values fill) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return c.broken
	}
	return c.fail(c.evolveLocked(ctx, schema, spec, values))
}

func (c *currentTable) evolveLocked(ctx context.Context, schema *arrow.Schema, spec Spec, values fill) error {
	c.reread = spec.Reread
	if len(values) == 0 && schema.Equal(c.schema) && spec.WholeRowKey == c.whole && slices.Equal(spec.Key, c.keyNames()) {
		return nil
	}
	if err := c.seal(ctx); err != nil {
		return err
	}
	before := c.keyed()
	if err := c.setSchema(schema, spec); err != nil {
		return err
	}
	if len(values) > 0 {
		if err := c.refill(ctx, values); err != nil {
			return err
		}
	}
	if slices.Equal(before, c.keyed()) {
		return nil
	}
	return c.reindex(ctx)
}

// keyNames names the columns of the key; none when the whole row stands for one.
func (c *currentTable) keyNames() []string {
	if c.whole {
		return nil
	}
	return c.names
}

// refill writes all rows anew that came before a column, with the column's value. What of them is in the lake goes with
// the next commit, which brings the column: readers see both or neither.
func (c *currentTable) refill(ctx context.Context, values fill) error {
	schema, err := withAside(c.schema, c.t.schema())
	if err != nil {
		return err
	}
	var inputs []input
	for _, f := range c.files {
		if f == nil || f.moved != nil || c.truncated && !f.pending {
			continue
		}
		inputs = append(inputs, input{number: f.number, file: f.file, dead: f.gone()})
	}
	if len(inputs) == 0 {
		return nil
	}
	out, err := c.t.rewrite(ctx, inputs, schema, values)
	if err != nil {
		return err
	}
	base := uint32(len(c.files))
	for i, f := range out.files {
		c.files = append(c.files, &trackedFile{number: base + uint32(i), file: f, rows: f.Count(), pending: true})
	}
	out.number(base)
	for i, in := range inputs {
		f := c.files[in.number]
		f.moved, f.leaves = out.moved(i, in.dead), !f.pending
		if f.pending {
			c.removeObjects(ctx, []iceberg.DataFile{f.file})
		}
		f.pending, f.fresh = false, nil
		c.walk.add(in.number)
	}
	c.refilled = true
	return nil
}

// reindex builds the index of another key.
func (c *currentTable) reindex(ctx context.Context) error {
	c.index.Drop()
	c.index = nil
	x, err := keyindex.Open(c.indexPath(), keyindex.Options{Multi: c.whole, Snapshot: c.snapshotID()})
	if err != nil {
		return err
	}
	c.index, c.walk, c.unread = x, walk{}, false
	for i, f := range c.files {
		if f != nil && f.moved != nil && !f.leaves {
			c.files[i] = nil // no place leads there any more
		}
	}
	return c.rebuild(ctx)
}

// withAside adds to the columns of a definition those that were kept under another name, so that a rewrite keeps them.
func withAside(schema *arrow.Schema, ice *iceberg.Schema) (*arrow.Schema, error) {
	known := map[int]bool{}
	for _, f := range schema.Fields() {
		known[fieldID(f)] = true
	}
	all, err := arrowFields(ice)
	if err != nil {
		return nil, err
	}
	fields := slices.Clone(schema.Fields())
	for _, f := range ice.Fields() {
		if !known[f.ID] {
			fields = append(fields, all[f.ID])
		}
	}
	return arrow.NewSchema(fields, nil), nil
}
