package bucket

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"iter"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/fault"
)

// azureBucket speaks to an Azure Blob Storage container.
type azureBucket struct {
	at      place
	client  *container.Client
	wire    *watchdog
	opts    Options
	known   Properties
	buffers buffers
}

func (b *azureBucket) Stat(ctx context.Context, key string) (Object, error) {
	o, _, err := b.look(ctx, key)
	return o, err
}

// look is Stat with the mark of the write.
func (b *azureBucket) look(ctx context.Context, key string) (Object, string, error) {
	out, err := b.client.NewBlobClient(b.at.root+key).GetProperties(ctx, nil)
	if err != nil {
		return Object{}, "", b.fault(ctx, err, key)
	}
	metadata, mark := splitMark(fromAzure(out.Metadata))
	return Object{
		Key: key, Size: value(out.ContentLength), ETag: quoted(out.ETag), Modified: value(out.LastModified),
		Encryption: encryption(out.IsServerEncrypted), ContentType: value(out.ContentType), Metadata: metadata,
		Sums: sumsTold(map[string]string{"md5": base64.StdEncoding.EncodeToString(out.ContentMD5)}),
	}, mark, nil
}

// sumsTold leaves out the sums that a server does not keep.
func sumsTold(sums map[string]string) map[string]string {
	maps.DeleteFunc(sums, func(_, sum string) bool { return sum == "" })
	return sums
}

func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// quoted is an ETag as headers write it: listings leave the quotes out.
func quoted(etag *azcore.ETag) string {
	s := string(value(etag))
	if s == "" || strings.HasPrefix(s, `"`) {
		return s
	}
	return `"` + s + `"`
}

func encryption(on *bool) string {
	if value(on) {
		return "AES256"
	}
	return ""
}

// toAzure writes metadata as Azure wants it: its keys must be C# identifiers, so '-' becomes '_'.
// Ours hold no '_'.
func toAzure(metadata map[string]string) map[string]*string {
	out := map[string]*string{}
	for k, v := range metadata {
		out[strings.ReplaceAll(k, "-", "_")] = &v
	}
	return out
}

func fromAzure(metadata map[string]*string) map[string]string {
	out := map[string]string{}
	for k, v := range metadata {
		out[strings.ReplaceAll(k, "_", "-")] = value(v)
	}
	return out
}

func (b *azureBucket) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return openResuming(ctx, remote{
		bucket: b, key: key, where: b.at.object(key), opts: b.opts, open: b.open,
		judge: func(err error) error { return b.fault(ctx, err, key) },
	}, offset, length)
}

func (b *azureBucket) open(ctx context.Context, key string, offset, length int64, etag string) (io.ReadCloser, int64, string, error) {
	in := &blob.DownloadStreamOptions{Range: blob.HTTPRange{Offset: offset, Count: max(length, 0)}}
	if etag != "" {
		in.AccessConditions = azureConditions(WriteOptions{IfMatch: etag})
	}
	out, err := b.client.NewBlobClient(b.at.root+key).DownloadStream(ctx, in)
	if bloberror.HasCode(err, bloberror.InvalidRange) {
		return io.NopCloser(strings.NewReader("")), 0, "", nil // it begins at or past the end
	}
	if err != nil {
		return nil, 0, "", b.fault(ctx, err, key)
	}
	return out.Body, value(out.ContentLength), quoted(out.ETag), nil
}

func azureConditions(opts WriteOptions) *blob.AccessConditions {
	c := &blob.ModifiedAccessConditions{}
	if opts.IfAbsent {
		nothing := azcore.ETagAny
		c.IfNoneMatch = &nothing
	}
	if opts.IfMatch != "" {
		etag := azcore.ETag(opts.IfMatch)
		c.IfMatch = &etag
	}
	return &blob.AccessConditions{ModifiedAccessConditions: c}
}

func (b *azureBucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		full := b.at.root + prefix
		bad := func(what string) {
			yield(Object{}, fault.New(fault.BucketFailed, b.at.object(prefix), "%s", whats[fault.BucketFailed]).Because(errors.New(what)))
		}
		var passed tokens
		pages := b.client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &full})
		for pages.More() {
			objects, next, err := b.page(ctx, pages, prefix)
			if err != nil {
				yield(Object{}, err)
				return
			}
			for _, o := range objects {
				if !strings.HasPrefix(o.Key, full) {
					bad("the listing has a key that was not asked for")
					return
				}
				if o.Key = strings.TrimPrefix(o.Key, b.at.root); o.Key != "" && !yield(o, nil) {
					return
				}
			}
			if next != "" && passed.again(next) {
				bad("the listing goes on where it was before")
				return
			}
		}
	}
}

// page gets the next page of a listing, whose objects have their whole names.
func (b *azureBucket) page(ctx context.Context, pages *azurePager, prefix string) (objects []Object, next string, err error) {
	defer fault.Catch(&err, nil, b.at.object(prefix))
	page, err := pages.NextPage(ctx)
	if err != nil {
		return nil, "", b.fault(ctx, err, prefix)
	}
	if page.Segment == nil {
		return nil, "", fault.New(fault.BucketFailed, b.at.object(prefix), "the listing has no list of objects")
	}
	for _, item := range page.Segment.BlobItems {
		o := Object{Key: value(item.Name)}
		if p := item.Properties; p != nil {
			o.Size, o.ETag, o.Modified = value(p.ContentLength), quoted(p.ETag), value(p.LastModified)
		}
		objects = append(objects, o)
	}
	return objects, value(page.NextMarker), nil
}

type azurePager = runtime.Pager[container.ListBlobsFlatResponse]

// deleteParallel is how many objects are deleted at once where there is no request for many.
const deleteParallel = 16

func (b *azureBucket) Delete(ctx context.Context, keys ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deleteParallel)
	for _, key := range keys {
		group.Go(func() (err error) {
			defer fault.Catch(&err, nil, b.at.object(key))
			_, err = b.client.NewBlobClient(b.at.root+key).Delete(ctx, nil)
			if bloberror.HasCode(err, bloberror.BlobNotFound) {
				return nil
			}
			return b.fault(ctx, err, key)
		})
	}
	return group.Wait()
}

// Sweep has nothing to do: blocks that were staged and not committed are invisible, there is no
// request to remove them, and Azure drops them after a week
// (learn.microsoft.com/rest/api/storageservices/put-block).
func (b *azureBucket) Sweep(context.Context, string, time.Time) (int, error) { return 0, nil }

func (b *azureBucket) Properties() Properties { return b.known }

func (b *azureBucket) Close() error {
	b.wire.CloseIdleConnections()
	return nil
}

// Do makes the watchdog a transport of the Azure SDK, which reads answers to their end.
func (w *watchdog) Do(req *http.Request) (*http.Response, error) {
	resp, err := w.RoundTrip(req)
	blob := req.Method == http.MethodGet && !req.URL.Query().Has("comp")
	if err == nil && (!blob || resp.StatusCode >= http.StatusMultipleChoices) {
		resp.Body = &bounded{ReadCloser: resp.Body, left: mostAnswer}
	}
	return resp, err
}
