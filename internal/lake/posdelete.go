package lake

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// The field ids that Iceberg reserves for files of position deletes.
const (
	deletePathID = 2147483546
	deletePosID  = 2147483545
)

var posDeleteSchema = arrow.NewSchema([]arrow.Field{
	{Name: "file_path", Type: arrow.BinaryTypes.String, Metadata: arrow.NewMetadata([]string{format.FieldIDKey}, []string{"2147483546"})},
	{Name: "pos", Type: arrow.PrimitiveTypes.Int64, Metadata: arrow.NewMetadata([]string{format.FieldIDKey}, []string{"2147483545"})},
}, nil)

// writtenDeletes are delete files that the next commit adds.
type writtenDeletes []*deleteFile

func (w writtenDeletes) files() []iceberg.DataFile {
	files := make([]iceberg.DataFile, len(w))
	for i, d := range w {
		files[i] = d.file
	}
	return files
}

// writeDeletes writes what deletes the fresh dead of some files: in v2 one file of position deletes a partition,
// in v3 a deletion vector a file, which takes the place of the one it has.
func (c *currentTable) writeDeletes(ctx context.Context, touched []*trackedFile) (writtenDeletes, error) {
	if len(touched) == 0 {
		return nil, nil
	}
	if c.t.v3() {
		return c.writeVectors(ctx, touched)
	}
	fresh := make(map[uint32]*roaring.Bitmap, len(touched))
	for _, f := range touched {
		fresh[f.number] = roaring.BitmapOf(f.fresh...)
	}
	return c.writePositions(ctx, byPartition(touched), fresh, "-deletes.parquet")
}

// byPartition parts files by their partitions, in the order of their paths: readers look for the deletes of a file among those of its
// partition, and want them sorted.
func byPartition(files []*trackedFile) [][]*trackedFile {
	groups := map[string]int{}
	var out [][]*trackedFile
	for _, f := range files {
		k := partitionOf(f.file)
		if _, ok := groups[k]; !ok {
			groups[k] = len(out)
			out = append(out, nil)
		}
		out[groups[k]] = append(out[groups[k]], f)
	}
	for _, of := range out {
		slices.SortFunc(of, func(a, b *trackedFile) int { return cmp.Compare(a.file.FilePath(), b.file.FilePath()) })
	}
	return out
}

const deletesAtOnce = 8

// writePositions writes a file of position deletes for each group of data files.
func (c *currentTable) writePositions(ctx context.Context, groups [][]*trackedFile, rows map[uint32]*roaring.Bitmap, suffix string) (writtenDeletes, error) {
	out := make(writtenDeletes, len(groups))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(deletesAtOnce)
	for i, of := range groups {
		g.Go(c.t.safely(func() (err error) {
			out[i], err = c.writePositionFile(ctx, of, rows, suffix)
			return err
		}))
	}
	return out, g.Wait()
}

// writePositionFile writes one file, sorted by path and position as readers want it.
func (c *currentTable) writePositionFile(ctx context.Context, files []*trackedFile, rows map[uint32]*roaring.Bitmap, suffix string) (*deleteFile, error) {
	key := c.t.dataKey(fresh() + suffix)
	up, err := c.t.lake.Bucket.Create(ctx, key, bucket.WriteOptions{ContentType: format.Parquet.ContentType(), Lazy: true})
	if err != nil {
		return nil, err
	}
	defer up.Abort()
	w, err := format.NewParquet(up, posDeleteSchema, format.ParquetOptions{Compression: c.t.lake.Compression})
	if err != nil {
		return nil, err
	}
	defer w.Discard()
	out := &deleteFile{}
	total := int64(0)
	for _, f := range files {
		n, err := writePositionsOf(w, f.file.FilePath(), rows[f.number])
		if err != nil {
			return nil, err
		}
		total += n
		out.of = append(out.of, f.number)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	o, err := up.Commit(ctx)
	if err != nil {
		return nil, err
	}
	out.file, err = c.describePositions(key, o.Size, total, files)
	return out, err
}

// writePositionsOf writes the deleted rows of one file.
func writePositionsOf(w format.Writer, path string, rows *roaring.Bitmap) (int64, error) {
	const step = 32 << 10
	paths := array.NewStringBuilder(memory.DefaultAllocator)
	defer paths.Release()
	positions := array.NewInt64Builder(memory.DefaultAllocator)
	defer positions.Release()
	total := int64(0)
	it := rows.ManyIterator()
	buf := make([]uint32, step)
	for n := it.NextMany(buf); n > 0; n = it.NextMany(buf) {
		for _, row := range buf[:n] {
			paths.Append(path)
			positions.Append(int64(row))
		}
		a, b := paths.NewArray(), positions.NewArray()
		rec := array.NewRecordBatch(posDeleteSchema, []arrow.Array{a, b}, int64(n))
		err := w.Write(rec)
		rec.Release()
		a.Release()
		b.Release()
		if err != nil {
			return 0, err
		}
		total += int64(n)
	}
	return total, nil
}

func (c *currentTable) describePositions(key string, size, rows int64, files []*trackedFile) (iceberg.DataFile, error) {
	first, last := files[0].file, files[len(files)-1].file
	spec := c.t.now().Metadata().PartitionSpecByID(int(first.SpecID()))
	if spec == nil {
		return nil, fault.New(fault.LakeFailed, c.t.where(), "a data file has a partitioning %d that the table does not know", first.SpecID())
	}
	b, err := iceberg.NewDataFileBuilder(*spec, iceberg.EntryContentPosDeletes, c.t.lake.url(key), iceberg.ParquetFile, first.Partition(), nil, nil, rows, size)
	if err != nil {
		return nil, fault.Wrap(err, fault.LakeFailed, c.t.where(), "a file of position deletes cannot be described")
	}
	// Whole paths as bounds: a reader may trust equal ones to mean that the file tells of this data file alone.
	b.LowerBoundValues(map[int][]byte{deletePathID: []byte(first.FilePath())}).UpperBoundValues(map[int][]byte{deletePathID: []byte(last.FilePath())})
	if len(files) == 1 {
		b.ReferencedDataFile(first.FilePath())
	}
	return b.Build(), nil
}

// obsoleteDeletes are the delete files of which nothing is left to tell after a commit.
func (c *currentTable) obsoleteDeletes(p *prepared, added writtenDeletes) []iceberg.DataFile {
	var out []iceberg.DataFile
	for _, f := range c.files {
		if f != nil && f.vector != nil && p.gone[f.number] {
			out = append(out, f.vector)
		}
	}
	if c.t.v3() {
		for _, d := range added {
			if v := c.files[d.of[0]].vector; v != nil {
				out = append(out, v)
			}
		}
	}
	for _, d := range c.deletes {
		if !slices.ContainsFunc(d.of, func(n uint32) bool { return c.files[n] != nil && c.files[n].moved == nil && !p.gone[n] }) {
			out = append(out, d.file)
		}
	}
	return out
}

// adoptDeletes brings the list of delete files to what a commit has made of it.
func (c *currentTable) adoptDeletes(gone map[uint32]bool, added writtenDeletes) {
	c.deletes = slices.DeleteFunc(c.deletes, func(d *deleteFile) bool {
		d.of = slices.DeleteFunc(d.of, func(n uint32) bool { return c.files[n] == nil || c.files[n].moved != nil || gone[n] })
		return len(d.of) == 0
	})
	for _, d := range added {
		if c.t.v3() {
			c.files[d.of[0]].vector = d.file
		} else {
			c.deletes = append(c.deletes, d)
		}
	}
}

// Merging of position deletes.
const (
	mergedSuffix  = "-merged-deletes.parquet"
	mergedGain    = 8       // what commits have written is an eighth of what was merged before
	mergedEasily  = 4 << 20 // so many rows in all are merged whatever the gain
	mostDeletes   = 512     // so many files are merged whatever the gain
	readersPasses = 1 << 20 // a reader such as PyIceberg goes through a file once for each data file it tells of
)

// ripe says whether the files of position deletes that commits have written are to be merged with all others.
func (c *currentTable) ripe(least int) bool {
	var files int
	var fresh, merged int64
	for _, d := range c.deletes {
		if strings.HasSuffix(d.file.FilePath(), mergedSuffix) {
			merged += d.file.Count()
		} else {
			files++
			fresh += d.file.Count()
		}
	}
	return files >= max(least, 1) && (fresh*mergedGain >= merged || fresh+merged <= mergedEasily || files >= mostDeletes)
}

// mergeDeletes writes the position deletes of many small files anew as few: where there are many rows a data file has its own, and
// where there are few some have one together.
func (c *currentTable) mergeDeletes(ctx context.Context, least int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil || c.t.v3() || c.truncated || c.refilled || !c.ripe(least) {
		return 0, c.broken
	}
	var files []*trackedFile
	rows := map[uint32]*roaring.Bitmap{}
	for _, d := range c.deletes {
		for _, n := range d.of {
			if f := c.fileOf(n); f != nil && f.moved == nil && f.dead != nil && rows[n] == nil {
				rows[n] = f.dead
				files = append(files, f)
			}
		}
	}
	if len(files) == 0 {
		return 0, nil
	}
	var groups [][]*trackedFile
	for _, of := range byPartition(files) {
		groups = append(groups, byPasses(of)...)
	}
	deletes, err := c.writePositions(ctx, groups, rows, mergedSuffix)
	if err != nil {
		return 0, err
	}
	d := delta{position: c.at, rewrite: true, addDeletes: deletes.files()}
	for _, old := range c.deletes {
		d.removeDeletes = append(d.removeDeletes, old.file)
	}
	if err := c.t.commit(ctx, d); err != nil {
		return 0, c.fail(err)
	}
	merged := len(c.deletes)
	c.deletes = deletes
	return merged, nil
}

// byPasses cuts a list of files so that those of a piece, times their dead rows, are few.
func byPasses(files []*trackedFile) [][]*trackedFile {
	var out [][]*trackedFile
	var rows int64
	for i, f := range files {
		if i == 0 || (rows+f.deadRows())*int64(len(out[len(out)-1])+1) > readersPasses {
			out, rows = append(out, nil), 0
		}
		out[len(out)-1] = append(out[len(out)-1], f)
		rows += f.deadRows()
	}
	return out
}
