package lake

import (
	"context"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// fileSet writes the rows of one table into Parquet data files of about the target size. Files are visible in the
// bucket when they are full or the set is closed; to the table they belong only once a commit adds them. A set is
// used by one goroutine.
type fileSet struct {
	table  *icebergTable
	ctx    context.Context // of the uploads, which outlast one call
	schema *arrow.Schema
	// prefix begins the files' names; metadata is kept in each file. Both may be set before the first Write.
	prefix   string
	metadata map[string]string

	now   *openData
	urls  []string
	done  []iceberg.DataFile
	rows  int64
	bytes int64 // of finished files
}

// openData is the file that is being written.
type openData struct {
	upload bucket.Upload
	writer format.Writer
	rows   int64
}

// newFileSet begins a set. The schema carries field ids in its fields' metadata, as withFieldIDs gives them.
func (t *icebergTable) newFileSet(ctx context.Context, schema *arrow.Schema) *fileSet {
	return &fileSet{table: t, ctx: ctx, schema: schema}
}

// Write appends a record and says in which file of the set its first row lies, and where in it. A record never spans
// two files.
func (s *fileSet) Write(rec arrow.RecordBatch) (file int, firstRow int64, err error) {
	if s.now == nil {
		if err := s.begin(); err != nil {
			return 0, 0, err
		}
	}
	file, firstRow = len(s.urls)-1, s.now.rows
	if err := s.now.writer.Write(rec); err != nil {
		return 0, 0, err
	}
	s.now.rows += rec.NumRows()
	s.rows += rec.NumRows()
	if s.now.writer.Size() >= s.table.lake.TargetFileSize {
		err = s.finish()
	}
	return file, firstRow, err
}

// URL names a file of the set, as position deletes must.
func (s *fileSet) URL(file int) string { return s.urls[file] }

// Rows is how many rows the set has taken, Bytes about how many bytes they take.
func (s *fileSet) Rows() int64 { return s.rows }

// Bytes counts what is written and what is held back.
func (s *fileSet) Bytes() int64 {
	if s.now == nil {
		return s.bytes
	}
	return s.bytes + s.now.writer.Size()
}

func (s *fileSet) begin() error {
	t := s.table
	key := t.dataKey(s.prefix + fresh() + ".parquet")
	u, err := t.lake.Bucket.Create(s.ctx, key, bucket.WriteOptions{ContentType: format.Parquet.ContentType(), Lazy: true})
	if err != nil {
		return err
	}
	w, err := format.NewParquet(u, s.schema, format.ParquetOptions{Compression: t.lake.Compression, Metadata: s.metadata})
	if err != nil {
		u.Abort()
		return err
	}
	s.now = &openData{upload: u, writer: w}
	s.urls = append(s.urls, t.lake.url(key))
	return nil
}

func (s *fileSet) finish() error {
	now := s.now
	s.now = nil
	defer now.upload.Abort()
	if err := now.writer.Close(); err != nil {
		return err
	}
	o, err := now.upload.Commit(s.ctx)
	if err != nil {
		return err
	}
	f, err := s.table.dataFile(iceberg.EntryContentData, s.urls[len(s.urls)-1], o.Size, now.writer)
	if err != nil {
		return err
	}
	s.done = append(s.done, f)
	s.bytes += o.Size
	return nil
}

// Close finishes the last file and returns all files in their order: the indices of Write are theirs.
func (s *fileSet) Close(ctx context.Context) ([]iceberg.DataFile, error) {
	if s.now != nil {
		if err := s.finish(); err != nil {
			return nil, err
		}
	}
	return s.done, ctx.Err()
}

// Abort gives up what is not finished and removes what is. What cannot be removed is left to Sweep.
func (s *fileSet) Abort() {
	if s.now != nil {
		s.now.upload.Abort()
		s.now = nil
	}
	if len(s.done) == 0 {
		return
	}
	files := s.table.lake.files(context.WithoutCancel(s.ctx))
	for _, f := range s.done {
		if err := files.Remove(f.FilePath()); err != nil {
			s.table.lake.Log.Warn("a data file that no commit needs could not be removed", "file", f.FilePath(), "error", err)
			return
		}
	}
	s.done = nil
}

// dataFile tells the table what a Parquet file holds. The writer must have been closed. Position deletes go by the same
// way, with content EntryContentPosDeletes.
func (t *icebergTable) dataFile(content iceberg.ManifestEntryContent, url string, size int64, w format.Writer) (iceberg.DataFile, error) {
	sum, ok := format.SummaryOf(w)
	if !ok {
		return nil, fault.New(fault.Internal, url, "a data file was told of before it was closed")
	}
	b, err := iceberg.NewDataFileBuilder(t.tbl.Spec(), content, url, iceberg.ParquetFile, nil, nil, nil, sum.Rows, size)
	if err != nil {
		return nil, t.failed(err, "a data file cannot be added")
	}
	sizes, values, nulls := map[int]int64{}, map[int]int64{}, map[int]int64{}
	lower, upper := map[int][]byte{}, map[int][]byte{}
	for _, l := range sum.Leaves {
		if l.FieldID == 0 {
			continue
		}
		sizes[l.FieldID], values[l.FieldID], nulls[l.FieldID] = l.Bytes, l.Values, l.Nulls
		if l.Min != nil {
			lower[l.FieldID] = l.Min
		}
		if l.Max != nil {
			upper[l.FieldID] = l.Max
		}
	}
	b.ColumnSizes(sizes).ValueCounts(values).NullValueCounts(nulls).LowerBoundValues(lower).UpperBoundValues(upper).SplitOffsets(sum.Groups)
	return b.Build(), nil
}
