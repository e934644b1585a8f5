package bucket

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/fault"
)

// gcsBucket speaks to Google Cloud Storage. The ETag of its objects is GCS's generation: conditions
// are on generations there.
type gcsBucket struct {
	at      place
	client  *http.Client // it logs in by itself
	wire    *watchdog    // below client
	base    string       // the server's URL, without a slash at its end
	opts    Options
	known   Properties
	buffers buffers
}

func (b *gcsBucket) Stat(ctx context.Context, key string) (Object, error) {
	o, _, err := b.look(ctx, key)
	return o, err
}

// look is Stat with the mark of the write.
func (b *gcsBucket) look(ctx context.Context, key string) (Object, string, error) {
	var said gcsObject
	if _, err := b.ask(ctx, gcsCall{method: http.MethodGet, url: b.object(key, nil)}, &said); err != nil {
		return Object{}, "", b.fault(ctx, err, "storage.objects.get", key)
	}
	o, mark := said.describe(key)
	o.ContentType = said.ContentType
	o.Sums = sumsTold(map[string]string{"crc32c": said.CRC32C, "md5": said.MD5})
	return o, mark, nil
}

func (said *gcsObject) describe(key string) (Object, string) {
	o := Object{Key: key, Size: said.Size, ETag: strconv.FormatInt(said.Generation, 10), Modified: said.Updated}
	switch {
	case said.KMSKeyName != "":
		o.Encryption = "kms"
	default:
		o.Encryption = "AES256" // always (cloud.google.com/storage/docs/encryption/default-keys)
	}
	metadata, mark := splitMark(said.Metadata)
	o.Metadata = metadata
	return o, mark
}

func (b *gcsBucket) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return openResuming(ctx, remote{
		bucket: b, key: key, where: b.at.object(key), opts: b.opts, open: b.read,
		judge: func(err error) error { return b.fault(ctx, err, "storage.objects.get", key) },
	}, offset, length)
}

// read goes by the XML API, whose downloads are the ones that Google's own clients use.
func (b *gcsBucket) read(ctx context.Context, key string, offset, length int64, etag string) (io.ReadCloser, int64, string, error) {
	c := gcsCall{
		method: http.MethodGet, url: b.base + "/" + b.at.name + "/" + url.PathEscape(b.at.root+key),
		// Without it GCS unpacks gzip on its own when the content encoding says so.
		header: http.Header{"Accept-Encoding": {"gzip"}},
	}
	if etag != "" {
		c.url += "?generation=" + url.QueryEscape(etag)
	}
	if span := rangeHeader(offset, length); span != nil {
		c.header.Set("Range", *span)
	}
	var resp *http.Response
	err := b.again(ctx, func() (err error) {
		resp, err = b.open(ctx, c) //nolint:bodyclose // whoever reads closes it
		return err
	})
	var answer *gcsError
	if errors.As(err, &answer) && answer.status == http.StatusRequestedRangeNotSatisfiable {
		return io.NopCloser(strings.NewReader("")), 0, "", nil // it begins at or past the end
	}
	if err == nil && (resp.ContentLength < 0 || offset > 0 && resp.StatusCode != http.StatusPartialContent) {
		err = errors.New("the answer holds other bytes than the ones that were asked for")
		_ = resp.Body.Close()
	}
	if err != nil {
		return nil, 0, "", b.fault(ctx, err, "storage.objects.get", key)
	}
	return summed(resp), resp.ContentLength, resp.Header.Get("X-Goog-Generation"), nil
}

// errChecksum says that the bytes of an answer are not those of the object.
var errChecksum = errors.New("the CRC32C of the bytes is not the object's")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeCRC32C writes a sum as GCS does.
func encodeCRC32C(sum uint32) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

// summed is the body of an answer; if it is a whole object, its end is an error unless the bytes have the object's CRC32C.
func summed(resp *http.Response) io.ReadCloser {
	for _, hashes := range resp.Header.Values("X-Goog-Hash") {
		for hash := range strings.SplitSeq(hashes, ",") {
			if want, ok := strings.CutPrefix(strings.TrimSpace(hash), "crc32c="); ok && resp.StatusCode == http.StatusOK {
				return &summedBody{ReadCloser: resp.Body, want: want}
			}
		}
	}
	return resp.Body
}

type summedBody struct {
	io.ReadCloser
	sum  uint32
	want string
}

func (b *summedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sum = crc32.Update(b.sum, castagnoli, p[:n])
	if errors.Is(err, io.EOF) && encodeCRC32C(b.sum) != b.want {
		return n, errChecksum
	}
	return n, err
}

func (b *gcsBucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		query := url.Values{
			"prefix": {b.at.root + prefix}, "projection": {"noAcl"}, "prettyPrint": {"false"},
			"fields": {"nextPageToken,items(name,size,generation,updated)"},
		}
		var passed tokens
		for {
			var page struct {
				Items         []gcsObject `json:"items"`
				NextPageToken string      `json:"nextPageToken"`
			}
			if _, err := b.ask(ctx, gcsCall{method: http.MethodGet, url: b.inBucket("", "", query)}, &page); err != nil {
				yield(Object{}, b.fault(ctx, err, "storage.objects.list", prefix))
				return
			}
			for _, item := range page.Items {
				if !strings.HasPrefix(item.Name, b.at.root+prefix) {
					yield(Object{}, b.newFault(fault.BucketFailed, b.at.object(prefix), "the listing has a key that was not asked for", "", nil))
					return
				}
				o, _ := item.describe(strings.TrimPrefix(item.Name, b.at.root))
				o.Encryption = ""
				if o.Key != "" && !yield(o, nil) {
					return
				}
			}
			if page.NextPageToken == "" {
				return
			}
			if passed.again(page.NextPageToken) {
				yield(Object{}, b.newFault(fault.BucketFailed, b.at.object(prefix), "the listing goes on where it was before", "", nil))
				return
			}
			query.Set("pageToken", page.NextPageToken)
		}
	}
}

func (b *gcsBucket) Delete(ctx context.Context, keys ...string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(deleteParallel)
	for _, key := range keys {
		group.Go(func() (err error) {
			defer fault.Catch(&err, nil, b.at.object(key))
			_, err = b.ask(ctx, gcsCall{method: http.MethodDelete, url: b.object(key, nil)}, nil)
			var answer *gcsError
			if errors.As(err, &answer) && answer.status == http.StatusNotFound {
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
	b.wire.CloseIdleConnections()
	return nil
}
