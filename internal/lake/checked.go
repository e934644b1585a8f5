package lake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net/http"
	"strings"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// What other programs may have written is looked at before the Iceberg library gets it: the library neither ends its reading with a context
// nor counts what it makes room for.

// unreadable is the error of a file that is damaged or was made to do harm. Faults of the bucket stay what they are, and so does the end of
// the work that reads.
func unreadable(ctx context.Context, name string, err error, what string, args ...any) error {
	if err == nil || fault.Of(err) != nil || ctx.Err() != nil {
		return err
	}
	return fault.Wrap(err, fault.LakeUnreadable, name, what, args...)
}

// parseMetadata reads a version of a table's metadata.
func parseMetadata(ctx context.Context, name string, data []byte) (table.Metadata, error) {
	err := new(bucket.JSONBudget).Add(data)
	var meta table.Metadata
	if err == nil {
		meta, err = table.ParseMetadataBytes(data)
	}
	return meta, unreadable(ctx, name, err, "the metadata of the table cannot be understood")
}

// checkMetadata says why metadata is not read. By the endings of these names the library knows that it is packed.
func checkMetadata(ctx context.Context, name string, data []byte) (err error) {
	switch {
	case strings.HasSuffix(name, ".gz.metadata.json"), strings.HasSuffix(name, "metadata.json.gz"):
		data, err = format.UnpackGzip(data)
	case strings.HasSuffix(name, ".zstd.metadata.json"), strings.HasSuffix(name, "metadata.json.zstd"):
		data, err = format.UnpackAvro("zstandard", data)
	}
	if err == nil {
		_, err = parseMetadata(ctx, name, data)
	}
	return unreadable(ctx, name, err, "the metadata of the table cannot be unpacked")
}

// avroFiles reads lists of manifests and manifests.
type avroFiles struct{ fileIO }

func (l *Lake) avroFiles(ctx context.Context) avroFiles { return avroFiles{l.files(ctx)} }

// Open reads the whole file: it is walked through before anything is made of it.
func (f avroFiles) Open(name string) (iceio.File, error) {
	data, err := f.whole(name, format.MostUnpacked)
	if err == nil {
		err = pathError("open", name, unreadable(f.ctx, name, checkAvro(f.ctx, data), "a file of the table's metadata cannot be understood"))
	}
	if err != nil {
		return nil, err
	}
	return wholeFile{bytes.NewReader(data), bucket.Object{Key: name, Size: int64(len(data))}}, nil
}

// wholeFile is a file that is in memory.
type wholeFile struct {
	*bytes.Reader
	object bucket.Object
}

func (wholeFile) Close() error                 { return nil }
func (f wholeFile) Stat() (fs.FileInfo, error) { return fileInfo{f.object}, nil }

var errAvroTotal = fmt.Errorf("it has more than %d bytes when it is unpacked", maxMetadata)

// checkAvro walks through a file by its own schema: what it unpacks to and the steps that it takes are bounded.
func checkAvro(ctx context.Context, data []byte) error {
	f, err := openAvro(data)
	if err != nil {
		return err
	}
	total := 0
	return f.each(ctx, func(block []byte, count int64) error {
		if total += len(block); total > maxMetadata {
			return errAvroTotal
		}
		w := newAvroWalk(ctx, block, nil)
		for ; count > 0; count-- {
			start := w.at
			if w.walk(f.schema, 0); w.err != nil {
				return w.err
			}
			if w.at == start { // a record without any bytes is not Iceberg's
				return errAvroBlock
			}
		}
		if w.at != len(block) {
			return errAvroBlock
		}
		return nil
	})
}

var errEntry = errors.New("it names a file of less than no bytes or rows, or of more rows than a file can have")

// checkEntry looks at what a manifest says of a file.
func checkEntry(e iceberg.ManifestEntry) error {
	f := e.DataFile()
	if f == nil || f.FileSizeBytes() < 0 || f.Count() < 0 || f.Count() > math.MaxUint32 {
		return errEntry
	}
	return nil
}

// vectorFiles lets the Iceberg library read deletion vectors. One file has many of them: a small one is read once for
// all.
type vectorFiles struct {
	fileIO
	name  string
	small *wholeFile // of that name; nil where it is not small
}

// take makes the file of a deletion vector the one to be read, if its footer can be right.
func (f *vectorFiles) take(of iceberg.DataFile) error {
	if f.small != nil && f.name == of.FilePath() {
		return nil
	}
	f.name, f.small = of.FilePath(), nil
	in, err := f.openSized(f.name, of.FileSizeBytes())
	if err != nil {
		return err
	}
	defer in.Close()
	if err := checkPuffin(in); err != nil {
		return err
	}
	if whole, ok := in.(wholeFile); ok {
		f.small = &whole
	}
	return nil
}

// Open gives what was taken without another request.
func (f *vectorFiles) Open(name string) (iceio.File, error) {
	if f.small == nil || f.name != name {
		return f.fileIO.Open(name)
	}
	_, err := f.small.Seek(0, io.SeekStart)
	return *f.small, err
}

// checkPuffin looks at the footer of a file of deletion vectors.
func checkPuffin(in iceio.File) error {
	end, err := in.Seek(-int64(puffinTail), io.SeekEnd)
	if err != nil {
		return errShort
	}
	var tail [puffinTail]byte
	if _, err := in.ReadAt(tail[:], end); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	length := int64(tail[0]) | int64(tail[1])<<8 | int64(tail[2])<<16 | int64(tail[3])<<24
	if length > mostFooter {
		return errFooter
	}
	footer := make([]byte, min(length, end))
	if _, err := in.ReadAt(footer, end-int64(len(footer))); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return new(bucket.JSONBudget).Add(footer)
}

var errShort = errors.New("it is shorter than its format needs")

// boundedBody is the answer of a catalog's server: more than it may have, in bytes or in what they hold, is an error.
type boundedBody struct {
	io.ReadCloser
	left   int64
	budget bucket.JSONBudget
}

func bounded(reply *http.Response) *http.Response {
	reply.Body = &boundedBody{ReadCloser: reply.Body, left: maxMetadata}
	return reply
}

var errAnswer = fmt.Errorf("the catalog's answer has more than %d bytes", maxMetadata)

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fault.Wrap(errAnswer, fault.LakeFailed, "", "the catalog's answer is not read")
	}
	if over := b.budget.Add(p[:n]); over != nil {
		return 0, fault.Wrap(over, fault.LakeFailed, "", "the catalog's answer is not read")
	}
	return n, err
}
