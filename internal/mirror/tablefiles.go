package mirror

import (
	"context"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// Files brings the files of one table, compared with all that the source says of them.
type Files interface {
	// Read reads a file of the source that is to be written with changes. One of more than most bytes is bucket-failed. Where most is more than
	// scratch.AtHand the bytes must be given to scratch.Free.
	Read(ctx context.Context, key string, most int64) ([]byte, error)
	// Carry brings a file over as it is.
	Carry(ctx context.Context, key string, size int64) error
}

// tableFiles are the files of a table: those of its metadata as they were listed, by key.
type tableFiles struct {
	run    *run
	root   string
	listed map[string]bucket.Object
}

func (r *run) tableFiles(root string, entries []entry) *tableFiles {
	t := &tableFiles{run: r, root: root, listed: make(map[string]bucket.Object, len(entries))}
	for _, e := range entries {
		t.listed[e.Key] = e.Object
	}
	return t
}

func (t *tableFiles) Carry(ctx context.Context, key string, size int64) error {
	r := t.run
	if there, err := r.named(ctx, key, size, metadataOf(t.root)); there || err != nil {
		return err
	}
	return r.guarded(key, func() error { return r.carryFile(ctx, bucket.Object{Key: key, Size: size}, r.arrived[t.root]) })
}

func (t *tableFiles) Read(ctx context.Context, key string, most int64) (data []byte, err error) {
	err = t.run.insist(ctx, key, func() (err error) {
		data, err = t.read(ctx, key, most)
		return err
	})
	return data, err
}

// read reads a file once. What is written from it has other bytes, so that nothing behind this could tell whether it came right.
func (t *tableFiles) read(ctx context.Context, key string, most int64) (data []byte, err error) {
	r := t.run
	o, known := t.listed[key]
	if !known {
		if there, err := r.named(ctx, key, -1, metadataOf(t.root)); err != nil {
			return nil, err
		} else if there { // and would be replaced
			return nil, r.filteredOut(key, metadataOf(t.root))
		}
		if o, err = r.listedNow(ctx, key); err != nil {
			return nil, err
		}
	}
	c, err := r.describe(ctx, key)
	if err != nil {
		return nil, err
	}
	if _, err = r.asListedNow(ctx, o, &c); err != nil {
		return nil, err
	}
	if c.Size > most {
		return nil, fault.New(fault.BucketFailed, r.where(key), "the object has more than the %d bytes it may have", most)
	}
	into := &filled{}
	if c.Size > scratch.AtHand {
		into.data = scratch.Make(int(c.Size))
	} else {
		into.data = make([]byte, c.Size)
	}
	if _, err := r.stream(ctx, c, into); err != nil {
		scratch.Free(into.data)
		return nil, err
	}
	return into.data, nil
}

// countOrphans counts what lies in the data folders of tables and has not come with them, because no snapshot names it.
func (r *run) countOrphans(ctx context.Context) error {
	table, known, has := "", false, (func(string) bool)(nil)
	for e, err := range r.later.inTables.all() {
		if err != nil {
			return err
		}
		if r.o.DryRun || r.failed[e.Table] { // nothing is known, or all of it fails
			continue
		}
		if !known || e.Table != table { // they come in the order of keys
			table, known = e.Table, true
			if has, err = r.brought(ctx, table); err != nil {
				return err
			}
		}
		if has != nil && !has(e.Key) {
			r.tally.leftOut(e.Key, fault.New(fault.ObjectOrphan, r.where(e.Key), "no snapshot of the table names it"))
		}
	}
	return nil
}

// brought asks what of a table is at the target. Where that cannot be known nothing is counted.
func (r *run) brought(ctx context.Context, table string) (has func(key string) bool, err error) {
	err = r.insist(ctx, metadataOf(table), func() error {
		return r.guarded(table, func() (err error) { has, err = r.o.Tables.Brought(ctx, table); return err })
	})
	if err != nil {
		return nil, r.unplanned(ctx, metadataOf(table), err)
	}
	return has, nil
}

// filled takes as many bytes as it has room for. That more came is found by their number.
type filled struct {
	data []byte
	n    int
}

func (f *filled) Write(p []byte) (int, error) {
	f.n += copy(f.data[f.n:], p)
	return len(p), nil
}
