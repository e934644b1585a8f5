package bucket

import (
	"context"
	"crypto/rand"
	"hash/crc32"
	"strconv"
	"sync/atomic"
	"time"

	"cloud.google.com/go/storage"

	"github.com/leatdata/leat/internal/fault"
)

// gcsWrite is one object on its way. GCS takes parts in order only, so they are written one after
// the other into the SDK's resumable upload.
type gcsWrite struct {
	bucket *gcsBucket
	key    string
	opts   WriteOptions
	mark   string
	writer *storage.Writer
	cancel context.CancelFunc
	tries  atomic.Int64 // of the part that is being sent
}

// again bounds the attempts: in uploads the SDK heeds no number of attempts, only a time.
func (w *gcsWrite) again(err error) bool {
	return storage.ShouldRetry(err) && w.tries.Add(1) <= int64(w.bucket.opts.MaxRetries)
}

func (b *gcsBucket) Create(ctx context.Context, key string, opts WriteOptions) (Upload, error) {
	where := b.at.object(key)
	if ctx.Err() != nil {
		return nil, interrupted(ctx, where)
	}
	if _, err := gcsConditions(opts); err != nil {
		return nil, fault.New(fault.UsageInvalid, where, "%q is not an ETag that GCS objects have here", opts.IfMatch)
	}
	w := &gcsWrite{bucket: b, key: key, opts: opts, mark: rand.Text()}
	return newPartUpload(ctx, sending{
		where: where, whole: w.whole, begin: w.begin,
		partSize: b.opts.PartSize, parallel: 1, grace: b.opts.Grace, buffers: &b.buffers,
	}), nil
}

func gcsConditions(opts WriteOptions) (*storage.Conditions, error) {
	switch {
	case opts.IfAbsent:
		return &storage.Conditions{DoesNotExist: true}, nil
	case opts.IfMatch != "":
		generation, err := strconv.ParseInt(opts.IfMatch, 10, 64)
		return &storage.Conditions{GenerationMatch: generation}, err
	}
	return nil, nil
}

// open makes the SDK's writer. Ending ctx before Close gives the object up.
func (w *gcsWrite) open(ctx context.Context, chunk int) *storage.Writer {
	object := w.bucket.handle.Object(w.bucket.at.root + w.key)
	if c, _ := gcsConditions(w.opts); c != nil {
		object = object.If(*c)
	}
	out := object.Retryer(storage.WithErrorFunc(w.again)).NewWriter(ctx)
	out.ChunkSize = chunk
	out.ChunkRetryDeadline = 10 * time.Minute // again bounds it
	out.ContentType = w.opts.ContentType
	out.Metadata = marked(w.opts.Metadata, w.mark)
	return out
}

func (w *gcsWrite) whole(ctx context.Context, data []byte) (Object, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	out := w.open(ctx, max(len(data), 1))
	// Given beforehand, so that GCS refuses bytes that changed on their way; the SDK's own sum is
	// compared only when the object is visible already.
	out.CRC32C, out.SendCRC32C = crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)), true
	_, err := out.Write(data)
	if closeErr := out.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return w.settle(ctx, err)
	}
	return w.written(out), nil
}

func (w *gcsWrite) written(out *storage.Writer) Object {
	o, _ := w.bucket.describe(w.key, out.Attrs())
	o.Metadata = w.opts.Metadata
	return o
}

func (w *gcsWrite) begin(ctx context.Context) (parts, error) {
	ctx, w.cancel = context.WithCancel(ctx)
	w.writer = w.open(ctx, int(w.bucket.opts.PartSize))
	return w, nil
}

func (w *gcsWrite) put(ctx context.Context, _ int, data []byte) error {
	w.tries.Store(0)
	if _, err := w.writer.Write(data); err != nil {
		return w.judge(ctx, err)
	}
	return nil
}

func (w *gcsWrite) complete(ctx context.Context) (Object, error) {
	defer w.cancel()
	w.tries.Store(0)
	if err := w.writer.Close(); err != nil {
		return w.settle(ctx, err)
	}
	return w.written(w.writer), nil
}

// abort ends the SDK's goroutine. The session on the server is invisible and ends by itself.
func (w *gcsWrite) abort(context.Context) error {
	w.cancel()
	_ = w.writer.Close() // says that it was cancelled
	return nil
}

func (w *gcsWrite) judge(ctx context.Context, err error) error {
	failed := w.bucket.fault(ctx, err, "storage.objects.create", w.key)
	if fault.Is(failed, fault.ObjectExists) {
		return conditionFailed(w.bucket.at.object(w.key), w.opts).Because(fault.Of(failed).Err)
	}
	return failed
}

func (w *gcsWrite) settle(ctx context.Context, err error) (Object, error) {
	return settle(ctx, w.bucket.opts.Grace, w.judge(ctx, err), w.mark, func(ctx context.Context) (Object, string, error) {
		return w.bucket.look(ctx, w.key)
	})
}
