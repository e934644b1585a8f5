package lake

import (
	"context"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table/dv"

	"github.com/leatdata/leat/internal/fault"
)

// writeVectors writes one Puffin file with a deletion vector for each file: all its dead, those before and the fresh.
// The format allows a data file one vector; the commit removes the one before.
func (c *currentTable) writeVectors(ctx context.Context, touched []*trackedFile) (writtenDeletes, error) {
	specs := func(id int32) *iceberg.PartitionSpec { return c.t.now().Metadata().PartitionSpecByID(int(id)) }
	w := dv.NewDVWriter(c.t.lake.files(ctx), specs)
	numbers := make(map[string]uint32, len(touched))
	for _, f := range touched {
		all := roaring.BitmapOf(f.fresh...)
		if f.dead != nil {
			all.Or(f.dead)
		}
		numbers[f.file.FilePath()] = f.number
		it := all.Iterator()
		for it.HasNext() {
			if err := w.AddPosition(f.file.FilePath(), int64(it.Next()), f.file.SpecID(), f.file.Partition()); err != nil {
				return nil, c.t.failed(err, "a deletion vector cannot be made")
			}
		}
	}
	files, err := w.Flush(ctx, c.t.lake.url(c.t.dataKey(fresh()+"-deletes.puffin")))
	if err != nil {
		return nil, c.t.failed(err, "deletion vectors cannot be written")
	}
	out := make(writtenDeletes, len(files))
	for i, f := range files {
		ref := f.ReferencedDataFile()
		if ref == nil {
			return nil, fault.New(fault.Internal, c.t.where(), "a deletion vector does not say of which file it is")
		}
		out[i] = &deleteFile{file: f, of: []uint32{numbers[*ref]}}
	}
	return out, nil
}
