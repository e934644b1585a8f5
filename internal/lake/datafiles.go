package lake

import (
	"context"
	"slices"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// fileSet writes the rows of one table into Parquet data files of about the target size, those of a partition into files of
// their own. Files are visible in the bucket when they are full or the set is closed; to the table they belong only once a commit
// adds them. A set is used by one goroutine.
type fileSet struct {
	table  *icebergTable
	ctx    context.Context // of the uploads, which outlast one call
	schema *arrow.Schema
	// prefix begins the files' names; metadata is kept in each file. Both may be set before the first Write.
	prefix   string
	metadata map[string]string
	sort     []sortColumn // nil for rows as they come
	places   bool         // the caller asks where rows lie: see Order

	held   int64                // bytes that wait to be sorted
	orders [][]uint32           // by index
	parts  *partitioner         // nil before the first Write
	open   map[string]*openData // by partition
	turn   int64
	urls   []string
	done   []iceberg.DataFile // by index, nil while the file is open
	rows   int64
	bytes  int64 // of finished files
}

// openData is a file that is being written.
type openData struct {
	upload bucket.Upload
	writer format.Writer
	index  int
	values []any // of the partition
	rows   int64
	used   int64 // turn of the last write
	unsorted
}

// landing says where rows of a record went: to one file of the set, from a row on, one behind the other. Where the set sorts, that
// is how they came, and Order tells where they lie in the end.
type landing struct {
	file int
	row  int64
	rows []uint32 // of the record; nil for all
}

// newFileSet begins a set. The schema carries field ids in its fields' metadata, as withFieldIDs gives them.
func (t *icebergTable) newFileSet(ctx context.Context, schema *arrow.Schema) *fileSet {
	return &fileSet{table: t, ctx: ctx, schema: schema, sort: t.sorting(schema), open: map[string]*openData{}}
}

// Write appends a record whose rows are all of one partition, and says in which file of the set its first row lies, and where
// in it. Such a record never spans two files.
func (s *fileSet) Write(rec arrow.RecordBatch) (file int, firstRow int64, err error) {
	landed, err := s.Spread(rec)
	if err != nil {
		return 0, 0, err
	}
	if len(landed) > 1 {
		return 0, 0, fault.New(fault.Internal, s.table.where(), "rows of %d partitions came as those of one", len(landed))
	}
	return landed[0].file, landed[0].row, nil
}

// Spread appends a record, each partition's rows to its own file, and says where they went.
func (s *fileSet) Spread(rec arrow.RecordBatch) ([]landing, error) {
	if s.parts == nil {
		var err error
		if s.parts, err = s.table.partitioner(s.schema); err != nil {
			return nil, err
		}
	}
	portions := s.parts.split(rec)
	landed := make([]landing, len(portions))
	for i, p := range portions {
		var err error
		if landed[i], err = s.writePortion(p, rec); err != nil {
			return nil, err
		}
	}
	s.rows += rec.NumRows()
	return landed, nil
}

func (s *fileSet) writePortion(p portion, rec arrow.RecordBatch) (landing, error) {
	if p.rows != nil {
		taken, err := takeRows(s.ctx, rec, p.rows)
		if err != nil {
			return landing{}, err
		}
		defer taken.Release()
		rec = taken
	}
	now := s.open[p.key]
	if now == nil {
		var err error
		if now, err = s.begin(p); err != nil {
			return landing{}, err
		}
	}
	at := landing{file: now.index, row: now.rows, rows: p.rows}
	s.turn++
	now.used = s.turn
	var err error
	if s.sort == nil {
		err = now.writer.Write(rec)
	} else {
		err = s.hold(now, rec)
	}
	if err != nil {
		return at, err
	}
	now.rows += rec.NumRows()
	if now.writer.Size()+now.bytes >= s.table.lake.TargetFileSize {
		return at, s.finish(p.key)
	}
	return at, nil
}

// Rows is how many rows the set has taken, Bytes about how many bytes they take.
func (s *fileSet) Rows() int64 { return s.rows }

// Bytes counts what is written and what is held back.
func (s *fileSet) Bytes() int64 {
	n := s.bytes + s.held
	for _, now := range s.open {
		n += now.writer.Size()
	}
	return n
}

// begin opens a partition's file; where too many are open, it ends the one that was not written to for longest.
func (s *fileSet) begin(p portion) (*openData, error) {
	if len(s.open) >= mostOpen {
		oldest := ""
		for key, o := range s.open {
			if was, ok := s.open[oldest]; !ok || o.used < was.used {
				oldest = key
			}
		}
		if err := s.finish(oldest); err != nil {
			return nil, err
		}
	}
	t := s.table
	key := t.dataKey(s.parts.hivePath(p.values) + s.prefix + fresh() + ".parquet")
	u, err := t.lake.Bucket.Create(s.ctx, key, bucket.WriteOptions{ContentType: format.Parquet.ContentType(), Lazy: true})
	if err != nil {
		return nil, err
	}
	w, err := format.NewParquet(u, s.schema, format.ParquetOptions{Compression: t.lake.Compression, Metadata: s.metadata})
	if err != nil {
		u.Abort()
		return nil, err
	}
	now := &openData{upload: u, writer: w, index: len(s.urls), values: p.values}
	s.open[p.key] = now
	s.urls = append(s.urls, t.lake.url(key))
	s.done, s.orders = append(s.done, nil), append(s.orders, nil)
	return now, nil
}

func (s *fileSet) finish(key string) error {
	now := s.open[key]
	delete(s.open, key)
	defer now.upload.Abort()
	defer now.writer.Discard()
	if err := s.sortHeld(now); err != nil {
		return err
	}
	if !inOrder(now.order) {
		s.orders[now.index] = now.order
	}
	if err := now.writer.Close(); err != nil {
		return err
	}
	o, err := now.upload.Commit(s.ctx)
	if err != nil {
		return err
	}
	f, err := s.table.dataFile(s.urls[now.index], o.Size, now.writer, s.parts.byID(now.values), now.runs == 1)
	if err != nil {
		return err
	}
	s.done[now.index] = f
	s.bytes += o.Size
	return nil
}

// Close finishes the last files and returns all files in their order: the indices of Write are theirs.
func (s *fileSet) Close(ctx context.Context) ([]iceberg.DataFile, error) {
	for key := range s.open {
		if err := s.finish(key); err != nil {
			return nil, err
		}
	}
	return s.done, ctx.Err()
}

// Order tells where the rows of a finished file lie, by the order in which they came; nil where that is the same.
func (s *fileSet) Order(file int) []uint32 { return s.orders[file] }

// Abort gives up what is not finished and removes what is. What cannot be removed is left to Sweep.
func (s *fileSet) Abort() {
	for _, now := range s.open {
		now.upload.Abort()
		now.writer.Discard()
		for _, r := range now.records {
			r.Release()
		}
	}
	clear(s.open)
	done := slices.DeleteFunc(s.done, func(f iceberg.DataFile) bool { return f == nil })
	if _, err := s.table.lake.removeAll(context.WithoutCancel(s.ctx), pathsOf(done)...); err != nil {
		s.table.lake.Log.Warn("data files that no commit needs could not be removed", "table", s.table.where(), "error", err)
	}
	s.done = nil
}

// dataFile tells the table what a Parquet file holds, and whether all of it is in the table's order. The writer must have been closed.
func (t *icebergTable) dataFile(url string, size int64, w format.Writer, partition map[int]any, sorted bool) (iceberg.DataFile, error) {
	sum, ok := format.SummaryOf(w)
	if !ok {
		return nil, fault.New(fault.Internal, url, "a data file was told of before it was closed")
	}
	b, err := iceberg.NewDataFileBuilder(t.now().Spec(), iceberg.EntryContentData, url, iceberg.ParquetFile, partition, nil, nil, sum.Rows, size)
	if err != nil {
		return nil, t.failed(err, "a data file cannot be added")
	}
	if sorted {
		order := t.now().SortOrder()
		b.SortOrderID(order.OrderID())
	}
	sizes, values, nulls, nans := map[int]int64{}, map[int]int64{}, map[int]int64{}, map[int]int64{}
	lower, upper := map[int][]byte{}, map[int][]byte{}
	for _, l := range sum.Leaves {
		if l.FieldID == 0 {
			continue
		}
		sizes[l.FieldID], values[l.FieldID], nulls[l.FieldID] = l.Bytes, l.Values, l.Nulls
		if l.Float && (l.NaNs == 0 || l.NaNs < l.Values) {
			nans[l.FieldID] = l.NaNs
		}
		if l.Min != nil {
			lower[l.FieldID] = l.Min
		}
		if l.Max != nil {
			upper[l.FieldID] = l.Max
		}
	}
	b.ColumnSizes(sizes).ValueCounts(values).NullValueCounts(nulls).NaNValueCounts(nans).LowerBoundValues(lower).UpperBoundValues(upper).SplitOffsets(sum.Groups)
	return b.Build(), nil
}

// removeObjects deletes files that nothing refers to. What cannot be deleted is left to Sweep.
func (c *currentTable) removeObjects(ctx context.Context, files []iceberg.DataFile) {
	if _, err := c.t.lake.removeAll(ctx, pathsOf(files)...); err != nil {
		c.t.lake.Log.Warn("files that are not needed could not be removed", "table", c.t.where(), "error", err)
	}
}

func pathsOf(files []iceberg.DataFile) []string {
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.FilePath()
	}
	return paths
}

// fieldID is the Iceberg id of a field of a data file's schema, 0 for none.
func fieldID(f arrow.Field) int {
	text, _ := f.Metadata.GetValue(format.FieldIDKey)
	id, _ := strconv.Atoi(text)
	return id
}
