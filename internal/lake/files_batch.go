package lake

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"path"

	"github.com/apache/arrow-go/v18/arrow"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// fileEntry is a file as a manifest names it.
type fileEntry struct {
	Key       string            `json:"key"` // in the bucket
	Rows      int64             `json:"rows"`
	Bytes     int64             `json:"bytes"`
	SHA256    string            `json:"sha256"` // hexadecimal
	Partition map[string]string `json:"partition,omitempty"`
}

// fileBatch takes the rows of one commit, or of one chunk of a copy. Only its end tells the names of its files, so they
// are made on the local disk and then uploaded. A batch is used by one goroutine.
type fileBatch struct {
	lake   *Files
	name   string // of the table, in files that keep one
	schema *arrow.Schema
	parts  *partitioner

	open  map[string]*madeFile // by partition
	files []*madeFile          // in the order in which they were begun
	turn  int64
	rows  int64
	bytes int64 // of files that have ended
}

// madeFile is a file in the making.
type madeFile struct {
	partition string // folders, each with a '/'
	values    map[string]string
	path      string
	out       *os.File // nil when it has ended
	buffered  *bufio.Writer
	sum       hash.Hash
	writer    format.Writer
	rows      int64
	size      int64
	used      int64 // turn of the last write
}

// shape goes on in another definition; what was written stays in files of its own.
func (b *fileBatch) shape(f *filesForm) error {
	for key := range b.open {
		if err := b.end(key); err != nil {
			return err
		}
	}
	b.schema, b.parts = f.rows.schema, f.parts
	return nil
}

// mostOpen is how many partitions have an open file at a time.
const mostOpen = 32

func (b *fileBatch) write(ctx context.Context, rec arrow.RecordBatch) error {
	for _, p := range b.parts.split(rec) {
		if err := b.writePortion(ctx, p, rec); err != nil {
			return err
		}
	}
	b.rows += rec.NumRows()
	return nil
}

func (b *fileBatch) writePortion(ctx context.Context, p portion, rec arrow.RecordBatch) error {
	if p.rows != nil {
		taken, err := takeRows(ctx, rec, p.rows)
		if err != nil {
			return err
		}
		defer taken.Release()
		rec = taken
	}
	f := b.open[p.key]
	if f == nil {
		var err error
		if f, err = b.begin(p); err != nil {
			return err
		}
	}
	b.turn++
	f.used, f.rows = b.turn, f.rows+rec.NumRows()
	if err := f.writer.Write(rec); err != nil {
		return localFault(err, b.lake.local)
	}
	if f.writer.Size() >= b.lake.TargetFileSize {
		return b.end(p.key)
	}
	return nil
}

// begin opens a partition's file; where too many are open, it ends the one that was not written to for longest.
func (b *fileBatch) begin(p portion) (*madeFile, error) {
	if len(b.open) >= mostOpen {
		oldest, key := int64(-1), ""
		for k, f := range b.open {
			if oldest < 0 || f.used < oldest {
				oldest, key = f.used, k
			}
		}
		if err := b.end(key); err != nil {
			return nil, err
		}
	}
	f := &madeFile{sum: sha256.New()}
	if len(b.parts.fields) > 0 {
		f.partition, f.values = b.parts.hivePath(p.values), map[string]string{}
		for i, field := range b.parts.fields {
			if p.values[i] != nil {
				f.values[field.name] = field.human(p.values[i])
			}
		}
	}
	var err error
	if f.out, err = b.lake.localFile(); err != nil {
		return nil, err
	}
	f.path = f.out.Name()
	b.files = append(b.files, f)
	f.buffered = bufio.NewWriterSize(io.MultiWriter(f.out, f.sum), 64<<10)
	if f.writer, err = b.lake.newWriter(f.buffered, b.schema, b.name); err != nil {
		return nil, err
	}
	b.open[p.key] = f
	return f, nil
}

func (l *Files) newWriter(w io.Writer, schema *arrow.Schema, name string) (format.Writer, error) {
	if l.Format.Typed() {
		return format.NewTyped(l.Format, w, schema, format.TypedOptions{Compression: l.Compression, Name: name})
	}
	return format.NewText(l.Format, w, schema, format.TextOptions{Parallel: 2})
}

func (b *fileBatch) end(key string) error {
	f := b.open[key]
	delete(b.open, key)
	err := f.writer.Close()
	if err == nil {
		err = f.buffered.Flush()
	}
	if err == nil {
		f.size, err = f.out.Seek(0, io.SeekCurrent)
	}
	if shut := f.out.Close(); err == nil {
		err = shut
	}
	f.out, f.writer, f.buffered = nil, nil, nil
	b.bytes += f.size
	return localFault(err, b.lake.local)
}

// size is about how many bytes the batch takes.
func (b *fileBatch) size() int64 {
	n := b.bytes
	for _, f := range b.open {
		n += f.writer.Size()
	}
	return n
}

const uploadsAtOnce = 4

// upload ends the batch and brings its files to the bucket, below folder, called <stem>-NNN.<ext>. Nobody sees them
// before a manifest names them.
func (b *fileBatch) upload(ctx context.Context, folder, stem string) ([]fileEntry, error) {
	defer b.discard()
	for key := range b.open {
		if err := b.end(key); err != nil {
			return nil, err
		}
	}
	entries := make([]fileEntry, len(b.files))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(uploadsAtOnce)
	for i, f := range b.files {
		key := path.Join(folder, f.partition+fmt.Sprintf("%s-%03d%s", stem, i, b.lake.Format.Ext()))
		entries[i] = fileEntry{Key: key, Rows: f.rows, Bytes: f.size, SHA256: hex.EncodeToString(f.sum.Sum(nil)), Partition: f.values}
		g.Go(func() error { return b.lake.upload(gctx, f.path, entries[i]) })
	}
	return entries, g.Wait()
}

func (l *Files) upload(ctx context.Context, local string, e fileEntry) error {
	f, err := os.Open(local)
	if err != nil {
		return localFault(err, local)
	}
	defer f.Close()
	u, err := l.Bucket.Create(ctx, e.Key, bucket.WriteOptions{ContentType: l.Format.ContentType(), Lazy: true, IfAbsent: l.guardedData})
	if err != nil {
		return err
	}
	defer u.Abort()
	if _, err := io.Copy(u, f); err != nil {
		return err
	}
	o, err := u.Commit(ctx)
	if fault.Is(err, fault.ObjectExists) {
		return fault.New(fault.LakeConflict, e.Key, "somebody else has written the file of this commit").Because(err)
	}
	if err == nil && o.Size != e.Bytes {
		err = fault.New(fault.ChecksumMismatch, e.Key, "the file has %d bytes and %d were sent", o.Size, e.Bytes)
	}
	return err
}

// discard removes the local files.
func (b *fileBatch) discard() {
	for _, f := range b.files {
		if f.out != nil {
			if f.writer != nil {
				f.writer.Discard()
			}
			f.out.Close()
		}
		if err := os.Remove(f.path); err != nil {
			b.lake.Log.Warn("a local file could not be removed", "file", f.path, "error", err)
		}
	}
	b.files, b.open = nil, map[string]*madeFile{}
}
