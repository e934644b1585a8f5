package lake

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/compute"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table/dv"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/keyindex"
)

// stampKey is in the Parquet metadata of files that a copy wrote: the LSN of the snapshot they were read from. Of two
// rows of one key that a resumed copy read twice, the one with the later stamp is right.
const stampKey = "leat.stamp"

// loadDeletes reads which rows of the files are deleted.
func (c *currentTable) loadDeletes(ctx context.Context, deletes []liveFile, numbers map[string]uint32) error {
	c.deletes = nil
	vectors := &vectorFiles{fileIO: c.t.lake.files(ctx)}
	for _, d := range deletes {
		var err error
		switch f := d.File(); {
		case f.FileFormat() == iceberg.PuffinFile:
			err = c.loadVector(ctx, vectors, f, numbers)
		case f.ContentType() == iceberg.EntryContentPosDeletes:
			err = c.loadPositions(ctx, f, numbers)
		default:
			err = fault.New(fault.LakeForeign, c.t.where(), "somebody has put equality deletes into the table")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *currentTable) loadVector(ctx context.Context, files *vectorFiles, f iceberg.DataFile, numbers map[string]uint32) error {
	ref := f.ReferencedDataFile()
	if ref == nil {
		return fault.New(fault.LakeUnreadable, f.FilePath(), "a deletion vector does not say of which file it is")
	}
	n, ok := numbers[c.t.lake.canonical(*ref)]
	if !ok {
		return nil
	}
	t := c.files[n]
	var bits *dv.RoaringPositionBitmap
	err := files.take(f)
	if err == nil {
		bits, err = dv.ReadDV(files, f)
	}
	if err != nil {
		return unreadable(ctx, f.FilePath(), err, "a deletion vector cannot be read")
	}
	t.vector, t.dead = f, roaring.New()
	for p := range bits.Positions() {
		if p >= uint64(t.rows) {
			return unreadable(ctx, f.FilePath(), errPosition, "a deletion vector cannot be right")
		}
		t.dead.Add(uint32(p))
	}
	return nil
}

var errPosition = errors.New("it deletes rows that its data file does not have")

func (c *currentTable) loadPositions(ctx context.Context, f iceberg.DataFile, numbers map[string]uint32) error {
	d := &deleteFile{file: f}
	var t *trackedFile
	var last []byte
	err := c.t.positions(ctx, f, func(paths []parquet.ByteArray, rows []int64) error {
		for i, row := range rows {
			if p := paths[i]; last == nil || !bytes.Equal(p, last) {
				last, t = bytes.Clone(p), nil
				n, known := numbers[c.t.lake.canonical(string(p))]
				if !known {
					continue
				}
				t = c.files[n]
				if !slices.Contains(d.of, n) {
					d.of = append(d.of, n)
				}
				if t.dead == nil {
					t.dead = roaring.New()
				}
			}
			if t == nil {
				continue
			}
			if row < 0 || row >= t.rows { // the rest of it would be another row
				return unreadable(ctx, f.FilePath(), errPosition, "a file of position deletes cannot be right")
			}
			t.dead.Add(uint32(row))
		}
		return nil
	})
	c.deletes = append(c.deletes, d)
	return err
}

// scan reads columns of a data file, found by their field ids, and hands out record after record. A column that the file
// does not have is null; an integer or float that was widened since is handed out as the file has it.
func (t *icebergTable) scan(ctx context.Context, f iceberg.DataFile, schema *arrow.Schema, beside int64, each func(arrow.RecordBatch) error) error {
	r, err := t.openParquet(ctx, f, anyPage)
	if err != nil {
		return err
	}
	defer r.Close()
	return t.scanOpen(ctx, r, schema, nil, beside, each)
}

// parquetFile is a data file that is open.
type parquetFile struct {
	*file.Reader
	pages *checkedFile
	name  string
}

func (f *parquetFile) unreadable(ctx context.Context, err error) error {
	return unreadable(ctx, f.name, err, "a data file cannot be read")
}

// anyPage is how many bytes a page of values may have: it may have one as large as PostgreSQL has them.
const anyPage = math.MaxInt32

// keyPage is the same for pages of keys: an index holds none of more than some hundred kilobytes, a page a few of them.
func (c *currentTable) keyPage() int64 {
	if c.whole || c.special >= 0 {
		return anyPage
	}
	return 4 * format.MostUnpacked
}

// openParquet opens a data file or a file of deletes, whose pages unpack to so many bytes at most.
func (t *icebergTable) openParquet(ctx context.Context, f iceberg.DataFile, page int64) (*parquetFile, error) {
	in, err := t.lake.files(ctx).openSized(f.FilePath(), f.FileSizeBytes())
	if err != nil {
		return nil, err
	}
	out := &parquetFile{name: f.FilePath()}
	props := parquet.NewReaderProperties(compute.GetAllocator(ctx))
	if _, large := compute.GetAllocator(ctx).(LargeValues); large { // else a column's chunk is read whole, into memory of its own
		props.BufferedStreamEnabled, props.BufferSize = true, 4<<20
	}
	most := parquetLimits{footer: format.MostUnpacked, page: page, dictionary: page, rows: f.Count()}
	if f.ContentType() != iceberg.EntryContentData {
		most.footer, most.dictionary = mostFooter, mostDictionary
	}
	if out.Reader, out.pages, err = openChecked(in, most, props); err != nil {
		_ = in.Close() // the error that counts is there
		return nil, out.unreadable(ctx, err)
	}
	return out, nil
}

// A record that is read has so many rows at most, and its values about so many bytes, but one row in any case: a few bytes of a file may stand
// for gigabytes of equal values.
const (
	scanRows  = 32 << 10
	scanBytes = 64 << 20
)

// scanOpen is scan of a file that is open, and of some of its row groups, nil for all. beside is what each row takes in the caller's hands
// beside what is read.
func (t *icebergTable) scanOpen(ctx context.Context, r *parquetFile, schema *arrow.Schema, groups []int, beside int64, each func(arrow.RecordBatch) error) error {
	withoutArrowSchema(r.MetaData())
	fr, err := pqarrow.NewFileReader(r.Reader, pqarrow.ArrowReadProperties{}, compute.GetAllocator(ctx))
	if err != nil {
		return r.unreadable(ctx, err)
	}
	leaves, at := leavesOf(fr, schema)
	if len(leaves) == 0 {
		return fault.New(fault.LakeFailed, t.where(), "a data file has none of the columns that are looked for")
	}
	arrange := func(rec arrow.RecordBatch) error {
		rec = arranged(rec, schema, at)
		defer rec.Release()
		return each(rec)
	}
	rows, done := r.recordRows(leaves, groups, beside), int64(0)
	fields := fieldIDs(schema)
	if wide, known := t.widths.Load(fields); known { // the next file has such values too, most likely, and is read once
		rows = min(rows, fewer(wide.(int64)))
	}
	for {
		r.pages.recordsOf(rows, beside)
		fr.Props.BatchSize = rows
		if done, err = r.records(ctx, fr, leaves, groups, done, arrange); !errors.Is(err, errWide) {
			return err
		}
		t.widths.Store(fields, r.pages.row)
		rows = min(rows/2, fewer(r.pages.row)) // a power of two: no record of before ends inside of one of these
	}
}

// fieldIDs are those of a schema, in one word.
func fieldIDs(schema *arrow.Schema) string {
	var b strings.Builder
	for _, f := range schema.Fields() {
		b.WriteString(strconv.Itoa(fieldID(f)))
		b.WriteByte(' ')
	}
	return b.String()
}

// records reads records and hands out those from a row on. It says how many rows of the groups have been handed out.
func (f *parquetFile) records(ctx context.Context, fr *pqarrow.FileReader, leaves, groups []int, from int64, each func(arrow.RecordBatch) error) (done int64, err error) {
	failed := func(err error) error {
		if f.pages.wide {
			return errWide
		}
		return f.unreadable(ctx, err)
	}
	rr, err := fr.GetRecordReader(ctx, leaves, groups)
	if err != nil {
		return from, failed(err)
	}
	defer rr.Release()
	for rr.Next() {
		rec := rr.RecordBatch()
		if done += rec.NumRows(); done <= from {
			continue
		}
		if err := each(rec); err != nil {
			return done, err
		}
		if err := ctx.Err(); err != nil {
			return done, err
		}
	}
	return max(done, from), failed(rr.Err())
}

// recordRows is how many rows a record may have by what the footer says. The pages say more.
func (f *parquetFile) recordRows(leaves, groups []int, beside int64) int64 {
	if groups == nil {
		groups = make([]int, f.NumRowGroups())
		for g := range groups {
			groups[g] = g
		}
	}
	widest := int64(0)
	for _, g := range groups {
		group, row := f.MetaData().RowGroup(g), beside
		for _, l := range leaves {
			if chunk, err := group.ColumnChunk(l); err == nil {
				row += max(0, chunk.TotalUncompressedSize()/max(1, group.NumRows()))
			}
		}
		widest = max(widest, row)
	}
	return min(scanRows, fewer(widest))
}

// fewer is how many rows of so many bytes a record may have: a power of two.
func fewer(row int64) int64 {
	rows := int64(scanRows)
	for rows > 1 && row > scanBytes/rows {
		rows /= 2
	}
	return rows
}

// leavesOf finds the Parquet leaves of the schema's fields, and for each field the column of the records read, -1 for none.
func leavesOf(fr *pqarrow.FileReader, schema *arrow.Schema) (leaves, at []int) {
	byID := map[int]int{}
	for i, f := range fr.Manifest.Fields {
		if id := fieldID(*f.Field); id > 0 {
			byID[id] = i
		}
	}
	top := make([]int, schema.NumFields())
	var used []int
	for i, f := range schema.Fields() {
		n, ok := byID[fieldID(f)]
		if !ok {
			top[i] = -1
			continue
		}
		top[i] = n
		used = append(used, n)
		leaves = appendLeaves(leaves, &fr.Manifest.Fields[n])
	}
	slices.Sort(used)
	slices.Sort(leaves)
	at = make([]int, len(top))
	for i, n := range top {
		at[i] = -1
		if n >= 0 {
			at[i], _ = slices.BinarySearch(used, n)
		}
	}
	return leaves, at
}

func appendLeaves(leaves []int, f *pqarrow.SchemaField) []int {
	if f.IsLeaf() {
		return append(leaves, f.ColIndex)
	}
	for i := range f.Children {
		leaves = appendLeaves(leaves, &f.Children[i])
	}
	return leaves
}

// arranged puts the columns read in the schema's order, null where there is none.
func arranged(rec arrow.RecordBatch, schema *arrow.Schema, at []int) arrow.RecordBatch {
	fields := make([]arrow.Field, len(at))
	columns := make([]arrow.Array, len(at))
	for i, n := range at {
		fields[i] = schema.Field(i)
		if n >= 0 {
			columns[i] = rec.Column(n)
			columns[i].Retain()
		} else {
			columns[i] = array.MakeArrayOfNull(memory.DefaultAllocator, fields[i].Type, int(rec.NumRows()))
			fields[i].Nullable = true
		}
		fields[i].Type = columns[i].DataType()
	}
	out := array.NewRecordBatch(arrow.NewSchema(fields, nil), columns, rec.NumRows())
	for _, a := range columns {
		a.Release()
	}
	return out
}

// keyRows are the keys of some rows of one file.
type keyRows struct {
	file   *trackedFile
	first  uint32
	hashes []keyindex.Hash
}

// readFiles fills the index if that has not been done yet.
func (c *currentTable) readFiles(ctx context.Context) error {
	if !c.unread {
		return nil
	}
	c.unread = false
	return c.rebuild(ctx)
}

// rebuild fills the empty index with the live rows of all files, several files at once.
func (c *currentTable) rebuild(ctx context.Context) error {
	fields := make([]arrow.Field, len(c.key))
	for i, k := range c.key {
		fields[i] = c.schema.Field(k)
	}
	if c.special >= 0 {
		fields = append(fields, c.schema.Field(c.special))
	}
	keys := arrow.NewSchema(fields, nil)
	rows := make(chan keyRows, 8)
	stamps := make([]change.LSN, len(c.files)) // each written before the file's first rows are sent
	g, gctx := errgroup.WithContext(ctx)
	todo := make(chan *trackedFile)
	g.Go(c.t.safely(func() error {
		defer close(todo)
		for _, f := range c.files {
			if f == nil || f.moved != nil || c.truncated && !f.pending {
				continue
			}
			select {
			case todo <- f:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	}))
	readers, rctx := errgroup.WithContext(gctx)
	for range runtime.GOMAXPROCS(0) {
		readers.Go(c.t.safely(func() error {
			for f := range todo {
				if err := c.readKeys(rctx, f, keys, stamps, rows); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	g.Go(func() error {
		defer close(rows)
		return readers.Wait()
	})
	var putErr error
	for batch := range rows {
		if putErr == nil {
			putErr = c.putKeys(batch, stamps)
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return putErr
}

func (c *currentTable) readKeys(ctx context.Context, f *trackedFile, keys *arrow.Schema, stamps []change.LSN, to chan<- keyRows) error {
	r, err := c.t.openParquet(ctx, f.file, c.keyPage())
	if err != nil {
		return err
	}
	defer r.Close()
	if v := r.MetaData().KeyValueMetadata().FindValue(stampKey); v != nil {
		n, err := change.ParseLSN(*v)
		if err != nil {
			return fault.Wrap(err, fault.LakeFailed, c.t.where(), "data file %s has a stamp that is none", f.file.FilePath())
		}
		stamps[f.number] = n
	}
	first := uint32(0)
	return c.t.scanOpen(ctx, r, keys, nil, 0, func(rec arrow.RecordBatch) error {
		n := int(rec.NumRows())
		of := rowKeys{columns: rec.Columns()[:len(c.key)], whole: c.whole, names: c.names}
		if c.special >= 0 {
			of.special = asMap(rec.Column(len(c.key)))
		}
		batch := keyRows{file: f, first: first, hashes: of.hashes(c.index, n, make([]keyindex.Hash, 0, n))}
		first += uint32(n)
		select {
		case to <- batch:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// putKeys takes over the live rows of a batch. Where a key is there twice, the row of the later commit or stamp stays, and the
// other is deleted with the next commit.
func (c *currentTable) putKeys(b keyRows, stamps []change.LSN) error {
	gone := b.file.gone()
	for i, h := range b.hashes {
		row := b.first + uint32(i)
		if gone != nil && gone.Contains(row) {
			continue
		}
		at := place(b.file.number, row)
		old, had, err := c.index.Put(h, at)
		if err != nil {
			return err
		}
		if !had {
			continue
		}
		if c.later(old, at, stamps) {
			if _, _, err := c.index.Put(h, old); err != nil {
				return err
			}
			old = at
		}
		c.kill(old)
		c.size.rows++
	}
	return nil
}

// later says whether the row at place a came into the table after the one at b.
func (c *currentTable) later(a, b uint64, stamps []change.LSN) bool {
	f, g := c.files[a>>32], c.files[b>>32]
	return cmp.Or(cmp.Compare(f.age(), g.age()), cmp.Compare(stamps[f.number], stamps[g.number]), cmp.Compare(a, b)) > 0
}

// age orders files by the commits they came with; what is pending comes last.
func (f *trackedFile) age() int64 {
	if f.pending {
		return math.MaxInt64
	}
	return f.seq
}
