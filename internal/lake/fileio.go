package lake

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	iceio "github.com/apache/iceberg-go/io"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// fileIO lets the Iceberg library read and write through our bucket. Names are URLs below the lake's location, in any
// of its spellings; a name elsewhere is refused, so that foreign metadata cannot make us touch other places.
type fileIO struct {
	ctx    context.Context // the library's interface has no context of its own
	bucket bucket.Bucket
	places places
}

var (
	_ iceio.ReadFileIO  = fileIO{}
	_ iceio.WriteFileIO = fileIO{}
)

func (f fileIO) key(name string) (string, error) {
	if _, key, ok := f.places.root(name); ok && key != "" {
		return key, nil
	}
	return "", fault.New(fault.LakeForeign, name, "lies outside the lake %s", f.places.from[0]).
		WithMend("Another program has written files of the table elsewhere. Drop the table in its catalog and run leat resync --table; have others write below the table's location.")
}

// pathError keeps our fault and says what the library asks for with errors.Is. What a disk says is made a fault here: a file that
// cannot be fetched is not a file that cannot be understood.
func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	switch {
	case fault.Of(err) != nil || errors.Is(err, fs.ErrInvalid):
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		err = fault.Wrap(err, fault.Interrupted, name, "stopped")
	default:
		err = fault.Wrap(err, fault.BucketFailed, name, "cannot %s it", op)
	}
	if fault.Is(err, fault.ObjectMissing) {
		err = errors.Join(fs.ErrNotExist, err)
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// Open finds the object's size and reads nothing yet.
func (f fileIO) Open(name string) (iceio.File, error) {
	file := &openFile{fileIO: f, name: name}
	err := f.found(name, func(key string) (err error) {
		file.key = key
		file.object, err = f.bucket.Stat(f.ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return file, nil
}

// smallFile is the size up to which a data file or a file of deletes is read whole, by one request. A reader of ranges
// makes some six of them, each of which takes longer than a mebibyte on its way, and no more than a few such files are
// open at once: one for each core.
const smallFile = 1 << 20

// openSized opens an object that metadata says to have so many bytes: a small one is read whole. What the store has
// counts, and not what is said of it.
func (f fileIO) openSized(name string, size int64) (iceio.File, error) {
	if size < 0 || size > smallFile {
		return f.Open(name)
	}
	var o bucket.Object
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	err := f.found(name, func(key string) error {
		o = bucket.Object{Key: key}
		r, err := f.bucket.Open(f.ctx, key, 0, -1)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.Copy(data, io.LimitReader(r, smallFile+1))
		return err
	})
	if err != nil {
		return nil, err
	}
	if o.Size = int64(data.Len()); o.Size > smallFile {
		return f.Open(name)
	}
	return wholeFile{bytes.NewReader(data.Bytes()), o}, nil
}

// found does something with the object of a name; where there is none, with that of what the name says if it is escaped.
func (f fileIO) found(name string, do func(key string) error) error {
	key, err := f.key(name)
	if err == nil {
		err = do(key)
	}
	if plain, ok := unescaped(key); ok && fault.Is(err, fault.ObjectMissing) {
		err = do(plain)
	}
	return pathError("open", name, err)
}

// unescaped is what a key says if it is escaped: some programs write names in metadata as a URL has them.
func unescaped(key string) (string, bool) {
	plain, err := url.PathUnescape(key)
	return plain, err == nil && plain != key
}

// ReadFile reads a whole object. The Iceberg library asks for a table's metadata so, and for nothing else.
func (f fileIO) ReadFile(name string) ([]byte, error) {
	data, err := f.whole(name, maxMetadata)
	if err != nil {
		return nil, err
	}
	return data, pathError("open", name, checkMetadata(f.ctx, name, data))
}

func (f fileIO) whole(name string, most int64) (data []byte, err error) {
	err = f.found(name, func(key string) (err error) {
		data, err = bucket.ReadAll(f.ctx, f.bucket, key, most)
		return err
	})
	return data, err
}

// maxMetadata is the largest metadata object we are willing to hold in memory.
const maxMetadata = 256 << 20

// Remove deletes an object; one that is not there is no error.
func (f fileIO) Remove(name string) error {
	key, err := f.key(name)
	if err == nil {
		err = f.bucket.Delete(f.ctx, key)
	}
	return pathError("remove", name, err)
}

// removeAll deletes objects by the names that metadata has for them, many in one request where the store can, and says how many. A name
// outside the lake is refused with a warning, and so is one of leat's own objects, or one that no object can have.
func (l *Lake) removeAll(ctx context.Context, names ...string) (int, error) {
	files, keys := l.files(ctx), make([]string, 0, len(names))
	for _, name := range names {
		key, err := files.key(name)
		if err == nil && slices.Contains(strings.Split(key, "/"), ".leat") {
			err = fault.New(fault.LakeForeign, name, "is leat's own and no table's")
		}
		if err != nil {
			l.Log.Warn("a file that is not a table's is not removed", "file", name, "error", err)
			continue
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return 0, nil
	}
	err := l.Bucket.Delete(ctx, keys...)
	if noKey(err) { // one such key must not keep the others
		return l.removeEach(ctx, keys)
	}
	if err != nil {
		return 0, err
	}
	return len(keys), nil
}

// noKey says that the bucket cannot have an object of that key.
func noKey(err error) bool {
	return fault.Is(err, fault.UsageInvalid) || fault.Is(err, fault.BucketUnsupported) || fault.Is(err, fault.KeyRefused)
}

func (l *Lake) removeEach(ctx context.Context, keys []string) (n int, err error) {
	for _, key := range keys {
		err := l.Bucket.Delete(ctx, key)
		switch {
		case err == nil:
			n++
		case noKey(err):
			l.Log.Warn("a name in a table's metadata is no object's", "file", key, "error", err)
		default:
			return n, err
		}
	}
	return n, nil
}

// Create begins an object, which appears when it is closed.
func (f fileIO) Create(name string) (iceio.FileWriter, error) {
	key, err := f.key(name)
	if err != nil {
		return nil, pathError("create", name, err)
	}
	u, err := f.bucket.Create(f.ctx, key, bucket.WriteOptions{})
	if err != nil {
		return nil, pathError("create", name, err)
	}
	return &newFile{Upload: u, ctx: f.ctx, name: name}, nil
}

// WriteFile writes an object.
func (f fileIO) WriteFile(name string, p []byte) error {
	key, err := f.key(name)
	if err == nil {
		_, err = bucket.WriteAll(f.ctx, f.bucket, key, p, bucket.WriteOptions{})
	}
	return pathError("write", name, err)
}

// newFile is an upload with the shape of a file.
type newFile struct {
	bucket.Upload
	ctx  context.Context
	name string
	over bool
}

func (w *newFile) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{w.Upload}, r)
}

func (w *newFile) Close() error {
	if w.over {
		return nil
	}
	w.over = true
	_, err := w.Commit(w.ctx)
	return pathError("write", w.name, err)
}

// openFile reads an object: in one stream from where it stands, or at given offsets.
type openFile struct {
	fileIO
	name, key string
	object    bucket.Object
	at        int64
	stream    io.ReadCloser // at `at`; nil when nothing is open
}

func (f *openFile) Read(p []byte) (int, error) {
	if f.at >= f.object.Size {
		return 0, io.EOF
	}
	if f.stream == nil {
		r, err := f.bucket.Open(f.ctx, f.key, f.at, -1)
		if err != nil {
			return 0, pathError("read", f.name, err)
		}
		f.stream = r
	}
	n, err := f.stream.Read(p)
	f.at += int64(n)
	return n, f.readError(err)
}

// readError is the error of reading; the end of the file is none.
func (f *openFile) readError(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return pathError("read", f.name, err)
}

// ReadAt asks for one range; the library's readers ask for large ones.
func (f *openFile) ReadAt(p []byte, off int64) (int, error) {
	if off >= f.object.Size {
		return 0, io.EOF
	}
	r, err := f.bucket.Open(f.ctx, f.key, off, int64(len(p)))
	if err != nil {
		return 0, pathError("read", f.name, err)
	}
	defer r.Close()
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.ErrUnexpectedEOF) && off+int64(n) >= f.object.Size {
		err = io.EOF
	}
	return n, f.readError(err)
}

func (f *openFile) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.at
	case io.SeekEnd:
		offset += f.object.Size
	}
	if offset < 0 {
		return 0, pathError("seek", f.name, fs.ErrInvalid)
	}
	if offset != f.at {
		f.closeStream()
	}
	f.at = offset
	return offset, nil
}

func (f *openFile) closeStream() {
	if f.stream != nil {
		f.stream.Close()
		f.stream = nil
	}
}

func (f *openFile) Close() error {
	f.closeStream()
	return nil
}

// Stat and the methods below make the file its own fs.FileInfo.
func (f *openFile) Stat() (fs.FileInfo, error) { return fileInfo{f.object}, nil }

type fileInfo struct{ o bucket.Object }

func (i fileInfo) Name() string       { return path.Base(i.o.Key) }
func (i fileInfo) Size() int64        { return i.o.Size }
func (i fileInfo) Mode() fs.FileMode  { return 0o444 }
func (i fileInfo) ModTime() time.Time { return i.o.Modified }
func (i fileInfo) IsDir() bool        { return false }
func (i fileInfo) Sys() any           { return nil }
