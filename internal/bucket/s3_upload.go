package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

func (b *s3Bucket) Create(ctx context.Context, key string, opts WriteOptions) (Upload, error) {
	if ctx.Err() != nil {
		return nil, interrupted(ctx, b.at.object(key))
	}
	w := &s3Write{bucket: b, key: key, opts: opts, mark: rand.Text(), parts: map[int]types.CompletedPart{}}
	return newPartUpload(ctx, sending{
		where: b.at.object(key), whole: w.whole, begin: w.begin,
		partSize: b.opts.PartSize, parallel: b.opts.PartParallel, grace: b.opts.Grace, buffers: &b.buffers,
	}), nil
}

// s3Write is one object on its way.
type s3Write struct {
	bucket *s3Bucket
	key    string
	opts   WriteOptions
	mark   string
	id     string // of the multipart upload
	trial  bool   // what becomes of it does not matter, only how it is refused

	mu    sync.Mutex
	parts map[int]types.CompletedPart
	size  int64
	cut   bool // a part was cut off: the server may store it later
}

func (w *s3Write) whole(ctx context.Context, data []byte) (Object, error) {
	b := w.bucket
	if err := b.able(ctx, w.opts, &b.put, b.probePut); err != nil {
		return Object{}, err
	}
	in := &s3.PutObjectInput{
		Bucket: &b.at.name, Key: b.key(w.key), ContentLength: aws.Int64(int64(len(data))),
		ContentType: optional(w.opts.ContentType), Metadata: marked(w.opts.Metadata, w.mark),
		IfNoneMatch: ifAbsent(w.opts), IfMatch: w.ifMatch(),
		ServerSideEncryption: types.ServerSideEncryption(b.opts.SSE), SSEKMSKeyId: optional(b.opts.KMSKeyID),
	}
	var out *s3.PutObjectOutput
	err := b.digested(func(opts ...func(*s3.Options)) (err error) {
		in.Body = bytes.NewReader(data)
		out, err = b.client.PutObject(ctx, in, opts...)
		return err
	})
	if err != nil {
		return w.settle(ctx, w.judge(ctx, err))
	}
	b.seen.Store(true)
	return Object{
		Key: w.key, Size: int64(len(data)), ETag: aws.ToString(out.ETag),
		Encryption: string(out.ServerSideEncryption), Metadata: w.opts.Metadata,
	}, nil
}

func (w *s3Write) begin(ctx context.Context) (parts, error) {
	b := w.bucket
	if err := b.able(ctx, w.opts, &b.multi, b.probeMultipart); err != nil {
		return nil, err
	}
	in := &s3.CreateMultipartUploadInput{
		Bucket: &b.at.name, Key: b.key(w.key),
		ContentType: optional(w.opts.ContentType), Metadata: marked(w.opts.Metadata, w.mark),
		ServerSideEncryption: types.ServerSideEncryption(b.opts.SSE), SSEKMSKeyId: optional(b.opts.KMSKeyID),
	}
	if b.known.Checksums == "crc32" {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32
	}
	// Only the answer names the upload that must be aborted when we are being stopped.
	late, cancel := linger(ctx, b.opts.Grace)
	defer cancel()
	out, err := b.client.CreateMultipartUpload(late, in)
	if err != nil {
		return nil, w.judge(ctx, err)
	}
	b.seen.Store(true)
	w.id = aws.ToString(out.UploadId)
	return w, nil
}

func (w *s3Write) put(ctx context.Context, number int, data []byte) error {
	b := w.bucket
	in := &s3.UploadPartInput{
		Bucket: &b.at.name, Key: b.key(w.key), UploadId: &w.id, PartNumber: aws.Int32(int32(number)),
		ContentLength: aws.Int64(int64(len(data))),
	}
	if b.known.Checksums == "crc32" {
		in.ChecksumAlgorithm = types.ChecksumAlgorithmCrc32
	}
	var out *s3.UploadPartOutput
	err := b.digested(func(opts ...func(*s3.Options)) (err error) {
		in.Body = bytes.NewReader(data)
		out, err = b.client.UploadPart(ctx, in, opts...)
		return err
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.cut = w.cut || ctx.Err() != nil
		return w.judge(ctx, err)
	}
	w.size += int64(len(data))
	w.parts[number] = types.CompletedPart{PartNumber: in.PartNumber, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32}
	return nil
}

func (w *s3Write) complete(ctx context.Context) (Object, error) {
	b := w.bucket
	in := &s3.CompleteMultipartUploadInput{
		Bucket: &b.at.name, Key: b.key(w.key), UploadId: &w.id,
		IfNoneMatch: ifAbsent(w.opts), IfMatch: w.ifMatch(),
		MultipartUpload: &types.CompletedMultipartUpload{},
	}
	for _, number := range slices.Sorted(maps.Keys(w.parts)) {
		in.MultipartUpload.Parts = append(in.MultipartUpload.Parts, w.parts[number])
	}
	late, cancel := linger(ctx, b.opts.Grace)
	defer cancel()
	out, err := b.client.CompleteMultipartUpload(late, in)
	if err != nil {
		return w.settle(ctx, w.judge(ctx, err))
	}
	if aws.ToString(out.ETag) == "" {
		// Ceph's answer may hold none.
		o, _, err := w.look(late)
		return o, err
	}
	return Object{
		Key: w.key, Size: w.size, ETag: aws.ToString(out.ETag),
		Encryption: string(out.ServerSideEncryption), Metadata: w.opts.Metadata,
	}, nil
}

// abort ends the upload. After a part was cut off it asks again, for the server can have stored that part after
// its first answer (docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html).
func (w *s3Write) abort(ctx context.Context) error {
	gone, err := w.bucket.abortUpload(ctx, w.key, w.id)
	for try := 1; w.cut && !gone && err == nil && try < abortTries; try++ {
		select {
		case <-time.After(time.Duration(try) * abortPause):
		case <-ctx.Done():
			return nil
		}
		gone, err = w.bucket.abortUpload(ctx, w.key, w.id)
	}
	return err
}

const (
	abortTries = 3
	abortPause = 50 * time.Millisecond // times the number of the try
)

func (w *s3Write) settle(ctx context.Context, failed error) (Object, error) {
	if w.trial {
		return Object{}, failed
	}
	return settle(ctx, w.bucket.opts.Grace, failed, w.mark, w.look)
}

func (w *s3Write) look(ctx context.Context) (Object, string, error) { return w.bucket.look(ctx, w.key) }

func (w *s3Write) judge(ctx context.Context, err error) error {
	return writeFailed(w.bucket.fault(ctx, err, "s3:PutObject", w.key), w.bucket.at.object(w.key), w.opts)
}

func (w *s3Write) ifMatch() *string {
	if w.opts.IfMatch == "" {
		return nil
	}
	return w.bucket.ifMatch(w.opts.IfMatch)
}

func ifAbsent(opts WriteOptions) *string {
	if opts.IfAbsent {
		return aws.String("*")
	}
	return nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
