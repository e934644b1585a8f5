package bucket

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

const (
	// maxParts is how many parts S3 allows
	// (docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html).
	maxParts = 10_000
	// partsPerSize is after how many parts the size of a part doubles: parts of 8 MiB at first
	// then carry 8 GB in 8 MiB parts, and 10,000 parts carry more than S3's 5 TiB an object.
	partsPerSize = 1000
	// endPart is how long a part that is being sent may take to end when its upload is aborted.
	endPart = time.Second
)

// writeMark is the metadata key under which every write leaves a random value; see the package's
// comment.
const writeMark = "leat-write"

// parts is an upload in pieces that the server has begun. put is called for numbers 1, 2, 3, …,
// several at once; again with the same number never.
type parts interface {
	put(ctx context.Context, number int, data []byte) error
	complete(ctx context.Context) (Object, error)
	abort(ctx context.Context) error
}

// sending is how one object is to be sent: in one request if it fits one part, else in parts.
type sending struct {
	where    string // the object's URL, for errors
	whole    func(ctx context.Context, data []byte) (Object, error)
	begin    func(ctx context.Context) (parts, error)
	partSize int64
	parallel int
	grace    time.Duration
	buffers  *buffers
}

// partUpload is an [Upload] that collects bytes into parts and sends up to `parallel` of them at
// once. It holds one part being filled and those being sent, no more: Write blocks instead.
type partUpload struct {
	sending
	ctx    context.Context
	cancel context.CancelCauseFunc

	buf    []byte
	number int // of the last part that was sent
	begun  parts
	over   bool // Commit or Abort has been called

	slots  chan struct{}
	flying sync.WaitGroup
	mu     sync.Mutex
	failed error // of the first part that failed
}

func newPartUpload(ctx context.Context, s sending) *partUpload {
	u := &partUpload{sending: s, slots: make(chan struct{}, s.parallel)}
	u.ctx, u.cancel = context.WithCancelCause(ctx)
	return u
}

// size is how many bytes the part that is being filled may have.
func (u *partUpload) size() int { return int(u.partSize << (u.number / partsPerSize)) }

func (u *partUpload) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if err := u.failure(); err != nil {
			return written, err
		}
		// A full part is sent when more comes, not before: an object of exactly one part
		// is still one request.
		if len(u.buf) == u.size() {
			if err := u.send(); err != nil {
				return written, err
			}
		}
		n := min(u.size()-len(u.buf), len(p))
		u.buf = u.buffers.grow(u.buf, len(u.buf)+n, u.size())
		u.buf = append(u.buf, p[:n]...)
		p = p[n:]
		written += n
	}
	return written, u.failure()
}

// send gives the filled part to a goroutine of its own, as soon as there is a free slot. All
// such goroutines end before Commit or Abort returns.
func (u *partUpload) send() error {
	if u.number == maxParts {
		return fault.New(fault.BucketUnsupported, u.where, "the object needs more than %d parts", maxParts).
			WithMend("Choose a larger part size, or smaller files.")
	}
	if u.begun == nil {
		begun, err := u.begin(u.ctx)
		if err != nil {
			return err
		}
		u.begun = begun
	}
	select {
	case u.slots <- struct{}{}:
	case <-u.ctx.Done():
		return u.failure()
	}
	data, size := u.buf, u.size()
	u.buf = nil
	u.number++
	number := u.number
	u.flying.Go(func() {
		// A part that is cut off while the server stores it can appear after the upload was aborted.
		late, cancel := linger(u.ctx, min(u.grace, endPart))
		defer cancel()
		if err := u.putPart(late, number, data); err != nil {
			u.fail(err)
		}
		u.buffers.put(data, size)
		<-u.slots
	})
	return nil
}

func (u *partUpload) putPart(ctx context.Context, number int, data []byte) (err error) {
	defer fault.Catch(&err, nil, u.where)
	return u.begun.put(ctx, number, data)
}

// fail remembers the first error and stops the other parts.
func (u *partUpload) fail(err error) {
	u.mu.Lock()
	if u.failed == nil {
		u.failed = err
	}
	u.mu.Unlock()
	u.cancel(err)
}

func (u *partUpload) failure() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.failed != nil:
		return u.failed
	case u.over:
		return errOver(u.where)
	case u.ctx.Err() != nil:
		return interrupted(u.ctx, u.where)
	}
	return nil
}

func (u *partUpload) Commit(ctx context.Context) (Object, error) {
	if u.over {
		return Object{}, errOver(u.where)
	}
	stop := context.AfterFunc(ctx, func() { u.cancel(context.Cause(ctx)) })
	defer stop()
	if ctx.Err() != nil {
		u.Abort()
		return Object{}, interrupted(ctx, u.where)
	}
	done, err := u.finish()
	if err != nil {
		u.Abort()
		return Object{}, err
	}
	u.end()
	return done, nil
}

func (u *partUpload) finish() (Object, error) {
	if err := u.failure(); err != nil {
		return Object{}, err
	}
	if u.begun == nil {
		return u.whole(u.ctx, u.buf)
	}
	if err := u.send(); err != nil {
		return Object{}, err
	}
	u.flying.Wait()
	if err := u.failure(); err != nil {
		return Object{}, err
	}
	return u.begun.complete(u.ctx)
}

func (u *partUpload) Abort() {
	if u.over {
		return
	}
	u.cancel(errAborted)
	u.flying.Wait()
	if u.begun != nil {
		// The context may have ended; what was begun must go all the same. If even this
		// fails, Sweep will find it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), u.grace)
		_ = u.begun.abort(ctx)
		cancel()
	}
	u.end()
}

// end lets go of the buffer and the context.
func (u *partUpload) end() {
	u.over = true
	u.buffers.put(u.buf, u.size())
	u.buf = nil
	u.cancel(errAborted)
}

var errAborted = errors.New("the upload was aborted")

func errOver(where string) error {
	return fault.New(fault.Internal, where, "the upload has been committed or aborted already")
}

// settle asks whether a write that seems to have failed was done all the same: its answer may have
// been lost, and a repeated conditional write finds itself in the way. The mark tells. A refusal that speaks of what is there counts only
// when it could be looked at: else the write itself may be what is in its way.
func settle(ctx context.Context, grace time.Duration, failed error, mark string,
	look func(context.Context) (Object, string, error),
) (Object, error) {
	switch fault.Of(failed).Code {
	case fault.BucketRights, fault.BucketAuth, fault.BucketMissing:
		return Object{}, failed // refused before anything happened
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	o, found, err := look(late)
	switch {
	case err == nil && found == mark:
		return o, nil
	case err == nil, fault.Is(err, fault.ObjectMissing):
		return Object{}, failed
	case fault.Is(failed, fault.ObjectExists), fault.Is(failed, fault.ObjectMissing):
		return Object{}, unsettled(ctx, err, failed)
	}
	return Object{}, failed
}

// unsettled is the error of a conditional write whose outcome is unknown; look is why it could not be looked at.
func unsettled(ctx context.Context, look, failed error) error {
	f := fault.Of(look)
	code := f.Code
	switch {
	case ctx.Err() != nil:
		code = fault.Interrupted
	case code == fault.Interrupted: // by our own clock
		code = fault.BucketUnreachable
	case code == fault.ObjectExists: // a look has no condition that could fail
		code = fault.BucketFailed
	}
	return fault.New(code, f.Where, "the write on condition was refused, and what is there cannot be looked at: it may be this very write, sent before").
		WithMend("%s", f.HowToMend()).Because(errors.Join(look, failed))
}

// marked is a caller's metadata and the mark by which this write can be told from others.
func marked(metadata map[string]string, mark string) map[string]string {
	m := maps.Clone(metadata)
	if m == nil {
		m = map[string]string{}
	}
	m[writeMark] = mark
	return m
}

// splitMark takes the mark out of an object's metadata again.
func splitMark(metadata map[string]string) (rest map[string]string, mark string) {
	for k, v := range metadata {
		if k = strings.ToLower(k); k == writeMark {
			mark = v
			continue
		}
		if rest == nil {
			rest = map[string]string{}
		}
		rest[k] = v
	}
	return rest, mark
}

// linger returns a context that outlives ctx by grace: for requests whose answer is needed even
// when the work is being stopped, because only the answer says what to clean up.
func linger(ctx context.Context, grace time.Duration) (context.Context, context.CancelFunc) {
	late, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	var timer *time.Timer
	var mu sync.Mutex
	stop := context.AfterFunc(ctx, func() {
		mu.Lock()
		defer mu.Unlock()
		timer = time.AfterFunc(grace, func() { cancel(context.Cause(ctx)) })
	})
	return late, func() {
		stop()
		mu.Lock()
		defer mu.Unlock()
		if timer != nil {
			timer.Stop()
		}
		cancel(context.Canceled)
	}
}
