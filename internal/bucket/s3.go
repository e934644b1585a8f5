package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/leatdata/leat/internal/fault"
)

// s3Bucket speaks the S3 protocol.
type s3Bucket struct {
	at      place
	client  *s3.Client
	wire    *watchdog
	opts    Options
	known   Properties // what Properties returns, without what is probed
	put     ability    // conditions on small objects
	multi   ability    // conditions on objects in parts
	sse     ability    // the encryption that is asked for
	keeps   [oddKinds]ability
	locks   ability                // Object Lock
	grants  ability                // lists of grants
	owner   atomic.Pointer[string] // of the bucket, where it is known
	bare    atomic.Bool            // If-Match wants the ETag without its quotes
	seen    atomic.Bool            // the bucket exists: a 404 is the object's
	digests atomic.Bool            // the bucket wants a Content-MD5 with each upload
	sumless atomic.Bool            // the server refuses to be asked for the checksums that it keeps
	buffers buffers
	courier func() (*courier, error) // finds out where the bucket is, once
	keys    *keyring
}

func (b *s3Bucket) key(key string) *string { return aws.String(b.at.root + key) }

func (b *s3Bucket) Stat(ctx context.Context, key string) (Object, error) {
	o, _, err := b.look(ctx, key)
	return o, err
}

// look is Stat with the mark of the write.
func (b *s3Bucket) look(ctx context.Context, key string) (Object, string, error) {
	out, err := b.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &b.at.name, Key: b.key(key)})
	if err != nil {
		return Object{}, "", b.missing(ctx, b.fault(ctx, err, "s3:GetObject", key))
	}
	b.seen.Store(true)
	o := Object{
		Key: key, Size: aws.ToInt64(out.ContentLength), ETag: aws.ToString(out.ETag),
		Modified: aws.ToTime(out.LastModified), Encryption: string(out.ServerSideEncryption), ContentType: aws.ToString(out.ContentType),
	}
	metadata, mark := splitMark(out.Metadata)
	o.Metadata = metadata
	return o, mark, nil
}

// missing finds out what a 404 without a code means: HEAD says no more than "not found" when the
// bucket itself is missing.
func (b *s3Bucket) missing(ctx context.Context, err error) error {
	if !fault.Is(err, fault.ObjectMissing) || b.seen.Load() {
		return err
	}
	_, headErr := b.client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &b.at.name})
	if statusOf(headErr) == http.StatusNotFound {
		return b.newFault(fault.BucketMissing, headErr, "s3:ListBucket", "")
	}
	if headErr == nil {
		b.seen.Store(true)
	}
	return err
}

func (b *s3Bucket) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return openResuming(ctx, remote{
		bucket: b, key: key, where: b.at.object(key), opts: b.opts, open: b.open,
		judge: func(err error) error { return b.fault(ctx, err, "s3:GetObject", key) },
	}, offset, length)
}

func (b *s3Bucket) open(ctx context.Context, key string, offset, length int64, etag string) (io.ReadCloser, int64, string, error) {
	in := &s3.GetObjectInput{Bucket: &b.at.name, Key: b.key(key), Range: rangeHeader(offset, length)}
	if etag != "" {
		in.IfMatch = b.ifMatch(etag)
	}
	out, err := b.client.GetObject(ctx, in)
	if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
		return io.NopCloser(strings.NewReader("")), 0, "", nil // it begins at or past the end
	}
	if err != nil {
		return nil, 0, "", b.fault(ctx, err, "s3:GetObject", key)
	}
	b.seen.Store(true)
	size := aws.ToInt64(out.ContentLength)
	whole, _ := awsmiddleware.GetRawResponse(out.ResultMetadata).(*smithyhttp.Response)
	if offset > 0 && whole != nil && whole.StatusCode != http.StatusPartialContent || length >= 0 && size > length {
		out.Body.Close()
		return nil, 0, "", fault.New(fault.BucketUnsupported, b.at.object(key), "the server sends the whole object where a part was asked for")
	}
	return out.Body, size, aws.ToString(out.ETag), nil
}

func rangeHeader(offset, length int64) *string {
	switch {
	case length >= 0:
		return aws.String(fmt.Sprintf("bytes=%d-%d", offset, offset+length-1))
	case offset > 0:
		return aws.String(fmt.Sprintf("bytes=%d-", offset))
	}
	return nil
}

func (b *s3Bucket) Sweep(ctx context.Context, prefix string, begunBefore time.Time) (int, error) {
	swept := 0
	for u, err := range b.uploads(ctx, prefix) {
		if err != nil {
			return swept, err
		}
		if !u.begun.Before(begunBefore) {
			continue
		}
		if _, err := b.abortUpload(ctx, u.key, u.id); err != nil {
			return swept, err
		}
		swept++
	}
	return swept, nil
}

// abortUpload removes what an unfinished upload left. That the server does not know the upload (any more) is no error.
func (b *s3Bucket) abortUpload(ctx context.Context, key, id string) (gone bool, _ error) {
	_, err := b.client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: &b.at.name, Key: b.key(key), UploadId: &id})
	var unknown *types.NoSuchUpload
	switch {
	case err == nil:
		return false, nil
	case errors.As(err, &unknown), statusOf(err) == http.StatusNotFound:
		return true, nil
	}
	return false, b.fault(ctx, err, "s3:AbortMultipartUpload", key)
}

// ifMatch writes an ETag as this server wants it.
func (b *s3Bucket) ifMatch(etag string) *string {
	if b.bare.Load() {
		if plain, err := strconv.Unquote(etag); err == nil {
			return &plain
		}
	}
	return &etag
}

func (b *s3Bucket) Properties() Properties {
	p := b.known
	p.ConditionalPut, p.ConditionalMultipart = b.put.answer(), b.multi.answer()
	return p
}

func (b *s3Bucket) Close() error {
	b.wire.CloseIdleConnections()
	return nil
}
