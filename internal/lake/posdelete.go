package lake

import (
	"cmp"
	"context"
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/iceberg-go"

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
	return c.writePositions(ctx, touched, fresh)
}

// writePositions writes files of position deletes for rows of some files, one a partition: readers look for the
// deletes of a file among those of its partition.
func (c *currentTable) writePositions(ctx context.Context, files []*trackedFile, rows map[uint32]*roaring.Bitmap) (writtenDeletes, error) {
	groups := map[string][]*trackedFile{}
	var order []string
	for _, f := range files {
		k := partitionOf(f.file)
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], f)
	}
	var out writtenDeletes
	for _, k := range order {
		group := groups[k]
		slices.SortFunc(group, func(a, b *trackedFile) int { return cmp.Compare(a.file.FilePath(), b.file.FilePath()) })
		d, err := c.writePositionFile(ctx, group, rows)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// writePositionFile writes one file, sorted by path and position as readers want it.
func (c *currentTable) writePositionFile(ctx context.Context, files []*trackedFile, rows map[uint32]*roaring.Bitmap) (*deleteFile, error) {
	key := c.t.dataKey(fresh() + "-deletes.parquet")
	up, err := c.t.lake.Bucket.Create(ctx, key, bucket.WriteOptions{ContentType: format.Parquet.ContentType(), Lazy: true})
	if err != nil {
		return nil, err
	}
	defer up.Abort()
	w, err := format.NewParquet(up, posDeleteSchema, format.ParquetOptions{Compression: c.t.lake.Compression})
	if err != nil {
		return nil, err
	}
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
	spec := c.t.tbl.Metadata().PartitionSpecByID(int(first.SpecID()))
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
