package bucket

import (
	"context"
	"errors"
	"io"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/storage"
	"golang.org/x/sync/errgroup"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"

	"github.com/leatdata/leat/internal/fault"
)

// gcsBucket speaks to Google Cloud Storage. The ETag of its objects is GCS's generation: conditions
// are on generations there.
type gcsBucket struct {
	at      place
	client  *storage.Client
	handle  *storage.BucketHandle
	opts    Options
	known   Properties
	buffers buffers
}

// object is the handle of an object that is read as it is stored: without this, GCS unpacks gzip
// on its own when the content encoding says so.
func (b *gcsBucket) object(key string) *storage.ObjectHandle {
	return b.handle.Object(b.at.root + key).ReadCompressed(true)
}

func (b *gcsBucket) Stat(ctx context.Context, key string) (Object, error) {
	o, _, err := b.look(ctx, key)
	return o, err
}

// look is Stat with the mark of the write.
func (b *gcsBucket) look(ctx context.Context, key string) (Object, string, error) {
	attrs, err := b.object(key).Attrs(ctx)
	if err != nil {
		return Object{}, "", b.fault(ctx, err, "storage.objects.get", key)
	}
	o, mark := b.describe(key, attrs)
	o.ContentType = attrs.ContentType
	return o, mark, nil
}

func (b *gcsBucket) describe(key string, attrs *storage.ObjectAttrs) (Object, string) {
	o := Object{Key: key, Size: attrs.Size, ETag: strconv.FormatInt(attrs.Generation, 10), Modified: attrs.Updated}
	switch {
	case attrs.KMSKeyName != "":
		o.Encryption = "kms"
	default:
		o.Encryption = "AES256" // always (cloud.google.com/storage/docs/encryption/default-keys)
	}
	metadata, mark := splitMark(attrs.Metadata)
	o.Metadata = metadata
	return o, mark
}

func (b *gcsBucket) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return openResuming(ctx, remote{
		bucket: b, key: key, where: b.at.object(key), opts: b.opts, open: b.open,
		judge: func(err error) error { return b.fault(ctx, err, "storage.objects.get", key) },
	}, offset, length)
}

func (b *gcsBucket) open(ctx context.Context, key string, offset, length int64, etag string) (io.ReadCloser, int64, string, error) {
	object := b.object(key)
	if generation, err := strconv.ParseInt(etag, 10, 64); err == nil {
		object = object.Generation(generation)
	}
	r, err := object.NewRangeReader(ctx, offset, length)
	var answer *googleapi.Error
	if errors.As(err, &answer) && answer.Code == http.StatusRequestedRangeNotSatisfiable {
		return io.NopCloser(strings.NewReader("")), 0, "", nil // it begins at or past the end
	}
	if err != nil {
		return nil, 0, "", b.fault(ctx, err, "storage.objects.get", key)
	}
	return r, r.Remain(), strconv.FormatInt(r.Attrs.Generation, 10), nil
}

func (b *gcsBucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		query := &storage.Query{Prefix: b.at.root + prefix}
		if err := query.SetAttrSelection([]string{"Name", "Size", "Generation", "Updated"}); err != nil {
			yield(Object{}, fault.New(fault.Internal, b.at.String(), "the listing asks for an unknown attribute").Because(err))
			return
		}
		objects := b.handle.Objects(ctx, query)
		for {
			attrs, err := objects.Next()
			if errors.Is(err, iterator.Done) {
				return
			}
			if err != nil {
				yield(Object{}, b.fault(ctx, err, "storage.objects.list", prefix))
				return
			}
			o, _ := b.describe(strings.TrimPrefix(attrs.Name, b.at.root), attrs)
			o.Encryption = ""
			if o.Key != "" && !yield(o, nil) {
				return
			}
		}
	}
}

func (b *gcsBucket) Delete(ctx context.Context, keys ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deleteParallel)
	for _, key := range keys {
		group.Go(func() error {
			err := b.object(key).Delete(ctx)
			if errors.Is(err, storage.ErrObjectNotExist) {
				return nil
			}
			return b.fault(ctx, err, "storage.objects.delete", key)
		})
	}
	return group.Wait()
}

// Sweep has nothing to do: an upload that is not finished is invisible, and GCS drops its session
// after a week (cloud.google.com/storage/docs/resumable-uploads).
func (b *gcsBucket) Sweep(context.Context, string, time.Time) (int, error) { return 0, nil }

func (b *gcsBucket) Properties() Properties { return b.known }

func (b *gcsBucket) Close() error {
	if err := b.client.Close(); err != nil {
		return fault.New(fault.BucketFailed, b.at.String(), "the client cannot be closed").Because(err)
	}
	return nil
}
