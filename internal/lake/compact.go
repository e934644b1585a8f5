package lake

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/fault"
)

// When a file is worth rewriting.
const (
	smallPart  = 4   // it has less than a quarter of the target size, and there are enough of them
	deadPart   = 5   // a fifth of its rows is dead
	leastFiles = 4   // so many small files are worth it
	busyFiles  = 8   // and so many beside an ingest: what up to seven connections copied of a small table is not written twice at once
	mostFiles  = 500 // of one rewrite
	// Where each row went is kept in memory for a table that is sorted: rows of one rewrite.
	mostSorted = 16 << 20
	// A table at rest: readers that look at each row of a file as soon as one of them is dead, as PyIceberg does, gain most from
	// files that have none. See decision 15.
	deadAtRest  = 100       // a hundredth of its rows is dead
	tidiedBytes = 512 << 20 // so much is rewritten for any dead row, if that was asked for
)

// care is how far a compaction goes.
type care int

const (
	inPassing care = iota // what is bad, beside a busy ingest
	atRest                // nothing has been committed for a while
	thorough              // somebody has asked for it
)

// worn says whether so many of a file's rows are dead that it is worth rewriting; bytes is what all files with dead rows have.
func (c care) worn(f *trackedFile, bytes int64) bool {
	dead := f.deadRows()
	return dead*deadPart > f.rows || c >= atRest && dead*deadAtRest >= f.rows && dead > 0 || c == thorough && dead > 0 && bytes <= tidiedBytes
}

// enough is how many small files of a partition are worth rewriting.
func (c care) enough() int {
	if c == inPassing {
		return busyFiles
	}
	return leastFiles
}

// input is a file to be rewritten and what of it is dead as it is read.
type input struct {
	number uint32 // in the current table
	file   iceberg.DataFile
	dead   *roaring.Bitmap
}

// output is what a rewrite has written.
type output struct {
	files []iceberg.DataFile
	rows  []int64      // live rows of each input
	runs  [][]movedRun // of each input; files by their index in files
	order map[uint32][]uint32
}

// number makes the indices of files the numbers from base on.
func (o *output) number(base uint32) {
	for _, runs := range o.runs {
		for k := range runs {
			runs[k].file += base
		}
	}
	order := make(map[uint32][]uint32, len(o.order))
	for i, of := range o.order {
		order[base+i] = of
	}
	o.order = order
}

// moved says where the rows of the i-th input went.
func (o *output) moved(i int, dead *roaring.Bitmap) *moved {
	return &moved{dead: dead, runs: o.runs[i], order: o.order}
}

// choose picks files to rewrite: those with many dead, and all small ones where there are enough. The partition that has waited
// longest comes first.
func choose(files []*trackedFile, target int64, how care) []*trackedFile {
	var dying int64
	for _, f := range files {
		if f != nil && !f.pending && f.moved == nil && f.deadRows() > 0 {
			dying += f.file.FileSizeBytes()
		}
	}
	bad, small := map[string][]*trackedFile{}, map[string][]*trackedFile{}
	for _, f := range files {
		if f == nil || f.pending || f.moved != nil {
			continue
		}
		switch {
		case how.worn(f, dying):
			bad[partitionOf(f.file)] = append(bad[partitionOf(f.file)], f)
		case f.file.FileSizeBytes()*smallPart < target:
			small[partitionOf(f.file)] = append(small[partitionOf(f.file)], f)
		}
	}
	for partition, few := range small { // files of two partitions never become one
		if len(few) >= how.enough() || len(bad[partition]) > 0 {
			bad[partition] = append(bad[partition], few...)
		}
	}
	// One partition after the other: only few have a file open at a time, and taking turns would give each input an output of its own.
	age := func(a, b *trackedFile) int { return cmp.Or(cmp.Compare(a.seq, b.seq), cmp.Compare(a.number, b.number)) }
	groups := slices.Collect(maps.Values(bad))
	for _, of := range groups {
		slices.SortFunc(of, age)
	}
	slices.SortFunc(groups, func(a, b []*trackedFile) int { return age(a[0], b[0]) })
	chosen := slices.Concat(groups...)
	return chosen[:min(len(chosen), mostFiles)]
}

// rewrite reads the live rows of the inputs and writes them to new files. Nothing is committed.
func (t *icebergTable) rewrite(ctx context.Context, inputs []input, schema *arrow.Schema, values fill) (*output, error) {
	set := t.newFileSet(ctx, schema)
	set.places = t.kind == kindCurrent
	out := &output{rows: make([]int64, len(inputs)), runs: make([][]movedRun, len(inputs))}
	for i, in := range inputs {
		if err := t.rewriteFile(ctx, in, schema, values, set, out, i); err != nil {
			set.Abort()
			return nil, err
		}
	}
	var err error
	out.files, err = set.Close(ctx)
	if err != nil {
		set.Abort()
		return nil, err
	}
	out.order = map[uint32][]uint32{}
	for i := range out.files {
		if order := set.Order(i); order != nil {
			out.order[uint32(i)] = order
		}
	}
	return out, nil
}

func (t *icebergTable) rewriteFile(ctx context.Context, in input, schema *arrow.Schema, values fill, set *fileSet, out *output, i int) error {
	row := uint32(0)
	live := make([]uint32, 0, scanRows)
	if in.file.FileSizeBytes() >= largeRow*in.file.Count() {
		ctx = compute.WithAllocator(ctx, LargeValues{})
	}
	err := t.scan(ctx, in.file, values.reading(schema), values.bytes(), func(rec arrow.RecordBatch) error {
		n := uint32(rec.NumRows())
		live = live[:0]
		for k := range n {
			if in.dead == nil || !in.dead.Contains(row+k) {
				live = append(live, k)
			}
		}
		row += n
		if len(live) == 0 {
			return nil
		}
		rec, err := shaped(ctx, rec, schema, values, live)
		if err != nil {
			return err
		}
		defer rec.Release()
		file, first, err := set.Write(rec)
		if err != nil {
			return err
		}
		out.runs[i] = append(out.runs[i], movedRun{rank: uint32(out.rows[i]), file: uint32(file), row: uint32(first)})
		out.rows[i] += rec.NumRows()
		return nil
	})
	if err == nil && int64(row) != in.file.Count() {
		err = fault.New(fault.LakeFailed, t.where(), "data file %s has %d rows and its entry says %d", in.file.FilePath(), row, in.file.Count())
	}
	return err
}

// shaped takes the live rows of a record, read by values.reading, as the schema has its columns: widened where a type was, filled
// where a column came later.
func shaped(ctx context.Context, rec arrow.RecordBatch, schema *arrow.Schema, values fill, live []uint32) (arrow.RecordBatch, error) {
	columns := make([]arrow.Array, schema.NumFields())
	defer func() {
		for _, a := range columns {
			if a != nil {
				a.Release()
			}
		}
	}()
	if int64(len(live)) < rec.NumRows() {
		taken, err := takeRows(ctx, rec, live)
		if err != nil {
			return nil, err
		}
		defer taken.Release()
		rec = taken
	}
	for i, f := range schema.Fields() {
		var a arrow.Array
		var err error
		if v, ok := values[fieldID(f)]; ok && v.value == nil {
			a, err = convert(rec.Column(fieldAt(rec.Schema().Fields(), fieldID(v.from))), f, v.cut)
		} else {
			a, err = fitted(ctx, rec.Column(i), f, v.value)
		}
		if err != nil {
			return nil, err
		}
		columns[i] = a
	}
	return array.NewRecordBatch(schema, columns, rec.NumRows()), nil
}

// fitted is a column in the type of its field. The array belongs to the caller.
func fitted(ctx context.Context, a arrow.Array, f arrow.Field, value arrow.Array) (arrow.Array, error) {
	if value != nil && a.NullN() == a.Len() {
		copies := make([]uint32, a.Len())
		rec := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{f}, nil), []arrow.Array{value}, 1)
		defer rec.Release()
		filled, err := takeRows(ctx, rec, copies)
		if err != nil {
			return nil, err
		}
		defer filled.Release()
		filled.Column(0).Retain()
		return filled.Column(0), nil
	}
	a = storage(a)
	if arrow.TypeEqual(a.DataType(), f.Type) {
		a.Retain()
		return a, nil
	}
	if _, nested := f.Type.(arrow.NestedType); nested {
		// The types differ in names of their parts at most: readers call a list's element as the file does.
		return array.MakeFromData(retyped(a.Data(), f.Type)), nil
	}
	out, err := compute.CastArray(ctx, a, compute.SafeCastOptions(f.Type))
	return out, fault.Wrap(err, fault.LakeFailed, f.Name, "a column's earlier values do not fit its type")
}

// retyped is the same data under another name of its type.
func retyped(d arrow.ArrayData, to arrow.DataType) arrow.ArrayData {
	children := make([]arrow.ArrayData, len(d.Children()))
	for i, c := range d.Children() {
		children[i] = c
		if n, ok := to.(arrow.NestedType); ok && i < len(n.Fields()) {
			children[i] = retyped(c, n.Fields()[i].Type)
		}
	}
	return array.NewData(to, d.Len(), d.Buffers(), children, d.NullN(), d.Offset())
}

// compact rewrites files that are small or full of dead rows, beside the ingest. It says how many files went and came.
func (c *currentTable) compact(ctx context.Context, how care) (before, after int, err error) {
	return inTurns(c.t.dataFiles(), func() (int, int, error) { return c.compactOnce(ctx, how) })
}

// inTurns goes on while there were as many files as one rewrite takes, until it has taken twice what was there at first: that makes
// the new ones few too, and there would be no end beside an ingest that brings as many meanwhile.
func inTurns(there int, once func() (before, after int, err error)) (before, after int, err error) {
	for {
		b, a, err := once()
		before, after = before+b, after+a
		if err != nil || b < mostFiles || before >= 2*there {
			return before, after, err
		}
	}
}

func (c *currentTable) compactOnce(ctx context.Context, how care) (before, after int, err error) {
	inputs, schema, err := c.planCompaction(how)
	if err != nil || len(inputs) == 0 {
		return 0, 0, err
	}
	out, err := c.t.rewrite(ctx, inputs, schema, nil)
	if err != nil {
		return 0, 0, err
	}
	stands, err := c.commitCompaction(ctx, inputs, out)
	if !stands {
		c.removeObjects(ctx, out.files)
	}
	if err != nil || !stands {
		return 0, 0, err
	}
	return len(inputs), len(out.files), nil
}

func (c *currentTable) planCompaction(how care) ([]input, *arrow.Schema, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, nil, c.broken
	}
	if c.truncated || c.refilled {
		return nil, nil, nil
	}
	var inputs []input
	var rows int64
	for _, f := range choose(c.files, c.t.lake.TargetFileSize, how) {
		if rows += f.rows; rows > mostSorted && len(inputs) > 0 && c.t.sorting(c.base) != nil {
			break
		}
		in := input{number: f.number, file: f.file}
		if f.dead != nil {
			in.dead = f.dead.Clone()
		}
		inputs = append(inputs, in)
	}
	return inputs, c.base, nil
}

// commitCompaction makes a rewrite visible between two commits of the ingest. Rows that a commit deleted since the
// plan are deleted in the new files by the same commit; what is only pending goes over to them as pending.
// False when the new files are certainly no part of the table: a truncate or a new definition has made the rewrite pointless, or an
// error came first.
func (c *currentTable) commitCompaction(ctx context.Context, inputs []input, out *output) (stands bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return false, c.broken
	}
	for _, in := range inputs {
		if f := c.fileOf(in.number); f == nil || f.file != in.file || f.moved != nil || c.truncated {
			return false, nil
		}
	}
	base := uint32(len(c.files))
	if c.open != nil {
		// Numbers from openFirst on belong to the files being written: end them, so that ours come behind.
		if err := c.seal(ctx); err != nil {
			return false, c.fail(err)
		}
		base = uint32(len(c.files))
	}
	p, outs := c.carryOver(inputs, out, base)
	d := delta{position: c.at, rewrite: true, add: out.files, remove: p.remove}
	deletes, err := c.writeDeletes(ctx, p.touched)
	if err != nil {
		return false, c.fail(err)
	}
	d.addDeletes = deletes.files()
	d.removeDeletes = c.obsoleteDeletes(&p.prepared, deletes)
	if err := c.t.commit(ctx, d); err != nil {
		// The catalog may have done it all the same, or still do it, and where somebody else was found to be first he may have built
		// on it. The files are left to Sweep.
		return true, c.fail(err)
	}
	for n, f := range outs {
		f.bury()
		f.fresh = p.pending[n]
		f.pending = false
	}
	c.adoptDeletes(p.gone, deletes)
	for i, in := range inputs {
		f := c.files[in.number]
		f.moved = out.moved(i, in.dead)
		f.dead, f.fresh, f.vector = nil, nil, nil
		c.walk.add(in.number)
	}
	return true, nil
}

func (c *currentTable) fileOf(n uint32) *trackedFile {
	if int(n) >= len(c.files) {
		return nil
	}
	return c.files[n]
}

// carried is what a rewrite's commit does to data files.
type carried struct {
	prepared
	pending [][]uint32 // rows of each new file that pending changes have deleted
}

// carryOver numbers the new files and finds in them the rows that have died since they were planned.
func (c *currentTable) carryOver(inputs []input, out *output, base uint32) (*carried, []*trackedFile) {
	p := &carried{prepared: prepared{gone: map[uint32]bool{}}, pending: make([][]uint32, len(out.files))}
	outs := make([]*trackedFile, len(out.files))
	for i, f := range out.files {
		outs[i] = &trackedFile{number: base + uint32(i), file: f, rows: f.Count(), seq: c.t.now().Metadata().LastSequenceNumber() + 1, pending: true}
	}
	c.files = append(c.files, outs...)
	out.number(base)
	for i, in := range inputs {
		f := c.files[in.number]
		p.remove = append(p.remove, f.file)
		p.gone[f.number] = true
		m := out.moved(i, in.dead)
		if f.dead != nil {
			since := f.dead.Clone()
			if in.dead != nil {
				since.AndNot(in.dead)
			}
			for it := since.Iterator(); it.HasNext(); {
				n, row := m.target(it.Next())
				outs[n-base].fresh = append(outs[n-base].fresh, row)
			}
		}
		for _, row := range f.fresh {
			n, row := m.target(row)
			p.pending[n-base] = append(p.pending[n-base], row)
		}
	}
	for _, f := range outs {
		if len(f.fresh) > 0 {
			p.touched = append(p.touched, f)
		}
	}
	return p, outs
}
