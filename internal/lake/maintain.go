package lake

import (
	"context"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
)

// MaintainOptions say what upkeep is to do. The zero value does nothing.
type MaintainOptions struct {
	// Compact rewrites small files and files with many deleted rows.
	Compact bool
	// Thorough rewrites files with fewer deleted rows, and fewer small ones, too, which else waits until nothing is committed from one call of Maintain to
	// the next.
	Thorough bool
	// MergeDeletes makes one file of so many files of position deletes or more; 0 leaves them.
	MergeDeletes int
	// MergeManifests merges small manifests where there are many.
	MergeManifests bool
	// Snapshots says which snapshots stay.
	Snapshots Retention
}

// Maintained says what upkeep has done.
type Maintained struct {
	Compacted, Written int // data files before and after
	MergedDeletes      int // files of position deletes that became few
	MergedManifests    int // manifests that became few
	Snapshots          int // expired
	Removed            int // objects deleted with them
}

func (m *Maintained) add(o Maintained) {
	m.Compacted += o.Compacted
	m.Written += o.Written
	m.MergedDeletes += o.MergedDeletes
	m.MergedManifests += o.MergedManifests
	m.Snapshots += o.Snapshots
	m.Removed += o.Removed
}

// maintain keeps the current table fast to read. It may run beside the ingest: it waits for a commit and a commit
// waits for it, but only as long as a commit takes.
func (c *currentTable) maintain(ctx context.Context, o MaintainOptions) (m Maintained, err error) {
	if o.Compact {
		if m.Compacted, m.Written, err = c.compact(ctx, c.careOf(o)); err != nil {
			return m, err
		}
	}
	if o.MergeDeletes > 0 {
		if m.MergedDeletes, err = c.mergeDeletes(ctx, o.MergeDeletes); err != nil {
			return m, err
		}
	}
	if o.MergeManifests {
		if m.MergedManifests, err = c.mergeManifests(ctx); err != nil {
			return m, err
		}
	}
	if o.Snapshots.expires() {
		// Under the lock: the ingest's view of the snapshot must not change while it commits.
		c.mu.Lock()
		defer c.mu.Unlock()
		m.Snapshots, m.Removed, err = c.t.expire(ctx, o)
	}
	return m, err
}

// longRest is how long nothing was committed when files are rewritten for any dead row: at most one rewrite a rest, however the
// table is used.
const longRest = time.Hour

// careOf says how far a compaction goes now. The table is at rest when it has not moved since it was last asked.
func (c *currentTable) careOf(o MaintainOptions) care {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := c.seen
	c.seen = c.commits
	switch {
	case o.Thorough:
		return thorough
	case c.commits != seen || c.isPending():
		return inPassing
	case time.Since(c.moved) >= longRest:
		return thorough
	}
	return atRest
}

func (c *currentTable) mergeManifests(ctx context.Context) (int, error) {
	id, merged, err := c.t.planManifests(ctx)
	if err != nil || len(merged) == 0 {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return 0, c.broken
	}
	before, err := c.t.commitManifests(ctx, id, merged)
	return before, c.fail(err)
}

// maintain keeps an append-only table fast to read.
func (t *icebergTable) maintain(ctx context.Context, o MaintainOptions) (m Maintained, err error) {
	if o.Compact {
		how := inPassing
		if o.Thorough {
			how = thorough
		}
		if m.Compacted, m.Written, err = t.compact(ctx, how); err != nil {
			return m, err
		}
	}
	if o.MergeManifests {
		id, merged, err := t.planManifests(ctx)
		if err == nil {
			m.MergedManifests, err = t.commitManifests(ctx, id, merged)
		}
		if err != nil {
			return m, err
		}
	}
	if o.Snapshots.expires() {
		m.Snapshots, m.Removed, err = t.expire(ctx, o)
	}
	return m, err
}

// compact makes few files of many small ones, in the order in which they came.
func (t *icebergTable) compact(ctx context.Context, how care) (before, after int, err error) {
	return inTurns(t.dataFiles(), func() (int, int, error) { return t.compactOnce(ctx, how) })
}

// dataFiles is how many data files the table has.
func (t *icebergTable) dataFiles() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.manifests {
		if m.ManifestContent() == iceberg.ManifestContentData {
			n += int(m.AddedDataFiles() + m.ExistingDataFiles())
		}
	}
	return n
}

func (t *icebergTable) compactOnce(ctx context.Context, how care) (before, after int, err error) {
	data, deletes, err := t.live(ctx)
	if err != nil || len(deletes) > 0 {
		return 0, 0, err
	}
	files := make([]*trackedFile, len(data))
	for i, f := range data {
		files[i] = &trackedFile{number: uint32(i), file: f.File(), rows: f.File().Count(), seq: f.Seq()}
	}
	chosen := choose(files, t.lake.TargetFileSize, how)
	if len(chosen) == 0 {
		return 0, 0, nil
	}
	inputs := make([]input, len(chosen))
	d := delta{rewrite: true}
	for i, f := range chosen {
		inputs[i] = input{number: f.number, file: f.file}
		d.remove = append(d.remove, f.file)
	}
	schema, err := t.fileSchema()
	if err != nil {
		return 0, 0, err
	}
	out, err := t.rewrite(ctx, inputs, schema, nil)
	if err != nil {
		return 0, 0, err
	}
	d.add = out.files
	if err := t.commit(ctx, d); err != nil {
		return 0, 0, err
	}
	return len(inputs), len(out.files), nil
}

// fileSchema is the Arrow schema of data files in the definition that the table has, with field ids.
func (t *icebergTable) fileSchema() (*arrow.Schema, error) {
	ice := t.now().Schema()
	byID, err := arrowFields(ice)
	if err != nil {
		return nil, t.failed(err, "its definition has no Arrow form")
	}
	var fields []arrow.Field
	for _, f := range ice.Fields() {
		fields = append(fields, byID[f.ID])
	}
	return arrow.NewSchema(fields, nil), nil
}
