package bucket

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// ranged opens bytes of one object from an offset; a length below zero reads to the end. With an
// ETag it opens that version or fails. It returns how many bytes are to come.
type ranged func(ctx context.Context, key string, offset, length int64, etag string) (body io.ReadCloser, size int64, version string, err error)

// resuming reads an object and, when the connection breaks, goes on where it stopped. It never
// mixes two versions of an object: the ETag of the first answer is asked for again.
type resuming struct {
	ctx     context.Context
	key     string
	where   string // the object's URL, for errors
	open    ranged
	judge   func(error) error // makes a fault of what a body's Read returned
	backoff time.Duration
	most    int // retries in a row
	retries int // left of them

	body   io.ReadCloser
	etag   string
	offset int64
	left   int64 // bytes to come
}

// remote is what openResuming needs of a kind of bucket.
type remote struct {
	bucket Bucket
	key    string
	where  string // the object's URL, for errors
	opts   Options
	open   ranged
	judge  func(error) error
}

// openResuming opens the first range; its errors are those of open.
func openResuming(ctx context.Context, o remote, offset, length int64) (io.ReadCloser, error) {
	if length == 0 {
		// No range says "nothing"; the object must be there all the same.
		if _, err := o.bucket.Stat(ctx, o.key); err != nil {
			return nil, err
		}
		return io.NopCloser(strings.NewReader("")), nil
	}
	r := resuming{key: o.key, where: o.where, open: o.open, judge: o.judge, backoff: o.opts.Backoff, most: o.opts.MaxRetries, retries: o.opts.MaxRetries}
	body, size, etag, err := r.open(ctx, r.key, offset, length, "")
	if err != nil {
		return nil, err
	}
	r.ctx, r.body, r.etag, r.offset, r.left = ctx, body, etag, offset, size
	return &r, nil
}

func (r *resuming) Read(p []byte) (int, error) {
	for {
		if r.left == 0 {
			return 0, r.end()
		}
		n, err := r.body.Read(p)
		r.offset += int64(n)
		r.left -= int64(n)
		if n > 0 {
			r.retries = r.most // it got on
		}
		if n > 0 || err == nil {
			return n, nil // an error comes again with the next Read, if it matters
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err := r.again(r.judge(err)); err != nil {
			return 0, err
		}
	}
}

// end reads what comes after the last byte: a body that is held against a checksum says there whether it is right.
func (r *resuming) end() error {
	var more [1]byte
	switch n, err := r.body.Read(more[:]); {
	case n > 0:
		return fault.New(fault.BucketFailed, r.where, "the object store sent more bytes than it said")
	case err == nil || errors.Is(err, io.EOF) || networkReason(err) != "":
		return io.EOF
	default:
		return r.judge(err)
	}
}

// again opens the rest, unless why cannot heal or was too often.
func (r *resuming) again(why error) error {
	for {
		if r.retries == 0 || !fault.Retryable(why) {
			return why
		}
		r.retries--
		r.body.Close()
		if err := pause(r.ctx, min(r.backoff, time.Second)); err != nil {
			return r.judge(err)
		}
		body, size, _, err := r.open(r.ctx, r.key, r.offset, r.left, r.etag)
		switch {
		case err == nil && size == r.left:
			r.body = body
			return nil
		case err == nil:
			body.Close()
			r.body = io.NopCloser(nil)
			return fault.New(fault.BucketFailed, r.where, "%d bytes were left of the object, and the object store's answer has %d", r.left, size)
		}
		r.body, why = io.NopCloser(nil), err
		if fault.Is(err, fault.ObjectExists) || fault.Is(err, fault.ObjectMissing) {
			return fault.New(fault.BucketFailed, r.where, "the object was replaced while it was being read").
				Because(err).WithMend("Start again.")
		}
	}
}

func (r *resuming) Close() error { return r.body.Close() }

// pause waits up to a time, at random: those who failed together shall not come back together.
func pause(ctx context.Context, longest time.Duration) error {
	return sleep(ctx, time.Duration(rand.Int64N(int64(longest)+1)))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
