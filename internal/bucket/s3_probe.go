package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/fault"
)

// ability is something that a server can do or cannot; nobody knows before it was tried.
type ability struct {
	trying sync.Mutex
	mu     sync.Mutex
	known  Support
}

func (a *ability) set(s Support) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = s
}

func (a *ability) answer() Support {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known
}

// find returns what is known, or tries. An error of trying is no answer: the next one tries again.
func (a *ability) find(ctx context.Context, try func(context.Context) (Support, error)) (Support, error) {
	a.trying.Lock()
	defer a.trying.Unlock()
	if s := a.answer(); s != Unknown {
		return s, nil
	}
	s, err := try(ctx)
	if err != nil {
		return Unknown, err
	}
	a.set(s)
	return s, nil
}

// able refuses a write whose condition or encryption this server would silently ignore.
func (b *s3Bucket) able(ctx context.Context, opts WriteOptions, conditions *ability, probe func(context.Context) (Support, error)) error {
	if b.opts.SSE != "" {
		if s, err := b.sse.find(ctx, b.probeSSE); err != nil {
			return err
		} else if s == Unsupported {
			return fault.New(fault.BucketUnsupported, b.at.String(), "the server takes the request for %s encryption and ignores it", b.opts.SSE).
				WithMend("Use aws:kms with a key that the server knows, or drop the option.")
		}
	}
	if !opts.conditional() {
		return nil
	}
	if s, err := conditions.find(ctx, probe); err != nil {
		return err
	} else if s == Unsupported {
		return fault.New(fault.BucketUnsupported, b.at.String(), "the server ignores conditions on writes: the object could be overwritten").
			WithMend("Use a server with conditional writes; some have them for objects of up to one part only.")
	}
	return nil
}

// probe tries all that is not known yet.
func (b *s3Bucket) probe(ctx context.Context) error {
	_, err := b.put.find(ctx, b.probePut)
	if err == nil {
		_, err = b.multi.find(ctx, b.probeMultipart)
	}
	if err == nil && b.opts.SSE != "" {
		_, err = b.sse.find(ctx, b.probeSSE)
	}
	return err
}

// noSuchETag is well-formed and belongs to no object.
const noSuchETag = `"00000000000000000000000000000000"`

// scratch is an object to try things on.
type scratch struct {
	bucket *s3Bucket
	key    string
}

// withScratch writes an object, runs try on it and removes it.
func (b *s3Bucket) withScratch(ctx context.Context, try func(s scratch, etag string) (Support, error)) (Support, error) {
	s := scratch{b, ".leat-probe-" + rand.Text()}
	out, err := s.put(ctx, s3.PutObjectInput{})
	if err != nil {
		return Unknown, err
	}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.opts.Grace)
		defer cancel()
		// Without the right to delete it stays: a few bytes under a name that explains itself.
		_, _ = b.client.DeleteObject(late, &s3.DeleteObjectInput{Bucket: &b.at.name, Key: b.key(s.key)})
	}()
	return try(s, aws.ToString(out.ETag))
}

func (s scratch) put(ctx context.Context, in s3.PutObjectInput) (*s3.PutObjectOutput, error) {
	b := s.bucket
	in.Bucket, in.Key = &b.at.name, b.key(s.key)
	in.ServerSideEncryption, in.SSEKMSKeyId = types.ServerSideEncryption(b.opts.SSE), optional(b.opts.KMSKeyID)
	var out *s3.PutObjectOutput
	err := b.digested(func(opts ...func(*s3.Options)) (err error) {
		in.Body = bytes.NewReader([]byte("leat tries what this server can do\n"))
		out, err = b.client.PutObject(ctx, &in, opts...)
		return err
	})
	if err != nil {
		return nil, b.fault(ctx, err, "s3:PutObject", s.key)
	}
	b.seen.Store(true)
	return out, nil
}

// refused turns the outcome of a write whose condition cannot hold into an answer.
func refused(err error) (Support, error) {
	switch {
	case err == nil, fault.Is(err, fault.BucketUnsupported):
		return Unsupported, nil
	case fault.Is(err, fault.ObjectExists):
		return Supported, nil
	case statusOf(err) == http.StatusBadRequest:
		return Unsupported, nil // some servers answer so to a header they do not know
	}
	return Unknown, err
}

func (b *s3Bucket) probePut(ctx context.Context) (Support, error) {
	return b.withScratch(ctx, func(s scratch, etag string) (Support, error) {
		for _, in := range []s3.PutObjectInput{{IfNoneMatch: aws.String("*")}, {IfMatch: aws.String(noSuchETag)}} {
			_, err := s.put(ctx, in)
			if answer, err := refused(err); answer != Supported {
				return answer, err
			}
		}
		// Ceph compares the header with the bare ETag, so that a quoted one never matches.
		_, err := s.put(ctx, s3.PutObjectInput{IfMatch: &etag})
		if fault.Is(err, fault.ObjectExists) {
			b.bare.Store(true)
			_, err = s.put(ctx, s3.PutObjectInput{IfMatch: b.ifMatch(etag)})
		}
		if fault.Is(err, fault.ObjectExists) {
			b.bare.Store(false)
			return Unsupported, nil
		}
		return Supported, err
	})
}

func (b *s3Bucket) probeMultipart(ctx context.Context) (Support, error) {
	// The spelling of ETags is found out there.
	if s, err := b.put.find(ctx, b.probePut); err != nil || s == Unsupported {
		return s, err
	}
	return b.withScratch(ctx, func(s scratch, _ string) (Support, error) {
		for _, opts := range []WriteOptions{{IfAbsent: true}, {IfMatch: noSuchETag}} {
			answer, err := refused(s.multipart(ctx, opts))
			if answer != Supported {
				return answer, err
			}
		}
		return Supported, nil
	})
}

// multipart replaces the scratch object in one part, if the condition lets it.
func (s scratch) multipart(ctx context.Context, opts WriteOptions) error {
	b := s.bucket
	w := &s3Write{bucket: b, key: s.key, mark: rand.Text(), trial: true, parts: map[int]types.CompletedPart{}}
	begun, err := w.begin(ctx)
	if err != nil {
		return err
	}
	w.opts = opts
	err = begun.put(ctx, 1, []byte("leat tries what this server can do\n"))
	if err == nil {
		_, err = begun.complete(ctx)
	}
	if err != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.opts.Grace)
		defer cancel()
		err = errors.Join(err, begun.abort(late))
	}
	return err
}

// probeSSE looks whether the server says that it encrypted: some take the header and ignore it.
func (b *s3Bucket) probeSSE(ctx context.Context) (Support, error) {
	answer := Supported
	_, err := b.withScratch(ctx, func(s scratch, _ string) (Support, error) {
		out, err := s.put(ctx, s3.PutObjectInput{})
		if err == nil && string(out.ServerSideEncryption) != b.opts.SSE {
			answer = Unsupported
		}
		return answer, err
	})
	return answer, err
}
