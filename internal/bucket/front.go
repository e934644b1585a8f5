package bucket

import (
	"context"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/leatdata/leat/internal/fault"
)

// front stands before every kind: it refuses what no kind may see and keeps the rate.
type front struct {
	Bucket
	at   place
	rate *rate.Limiter // nil for no limit
}

func newFront(b Bucket, at place, maxRate int64) *front {
	f := &front{Bucket: b, at: at}
	if maxRate > 0 {
		// A burst of a second at most, and never so small that it makes tiny requests.
		f.rate = rate.NewLimiter(rate.Limit(maxRate), int(max(64<<10, min(maxRate, 4<<20))))
	}
	return f
}

// check refuses a key that no kind may see, or that this one would take for another.
func (f *front) check(key string) error {
	err := checkKey(f.at.String(), key)
	if k, ok := f.Bucket.(interface{ checkKey(key string) error }); ok && err == nil {
		err = k.checkKey(key)
	}
	return err
}

func (f *front) Create(ctx context.Context, key string, opts WriteOptions) (Upload, error) {
	if err := f.check(key); err != nil {
		return nil, err
	}
	if opts.IfAbsent && opts.IfMatch != "" {
		return nil, fault.New(fault.UsageInvalid, f.at.object(key), "IfAbsent and IfMatch cannot both hold")
	}
	if err := checkMetadata(f.at.object(key), opts.Metadata); err != nil {
		return nil, err
	}
	u, err := f.Bucket.Create(ctx, key, opts)
	if err != nil || f.rate == nil {
		return u, err
	}
	return &pacedUpload{Upload: u, pace: pace{ctx, f.rate, f.at.object(key)}}, nil
}

func (f *front) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := f.check(key); err != nil {
		return nil, err
	}
	if offset < 0 {
		return nil, fault.New(fault.UsageInvalid, f.at.object(key), "offset %d is below zero", offset)
	}
	r, err := f.Bucket.Open(ctx, key, offset, length)
	if err != nil || f.rate == nil {
		return r, err
	}
	return &pacedReader{ReadCloser: r, pace: pace{ctx, f.rate, f.at.object(key)}}, nil
}

func (f *front) Stat(ctx context.Context, key string) (Object, error) {
	if err := f.check(key); err != nil {
		return Object{}, err
	}
	return f.Bucket.Stat(ctx, key)
}

func (f *front) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := f.check(key); err != nil {
			return err
		}
	}
	return f.Bucket.Delete(ctx, keys...)
}

func (f *front) probe(ctx context.Context) error {
	if p, ok := f.Bucket.(interface{ probe(context.Context) error }); ok {
		return p.probe(ctx)
	}
	return nil
}

// maxKey is the longest key in bytes that S3, GCS and Azure take.
const maxKey = 1024

// checkKey refuses keys that climb, that some kind cannot hold, or that a folder would read in
// another way than a bucket does.
func checkKey(where, key string) error {
	bad := func(why string) error {
		return fault.New(fault.UsageInvalid, where, "the key %q %s", key, why).WithMend("Choose another key.")
	}
	switch {
	case key == "":
		return bad("is empty")
	case len(key) > maxKey:
		return bad("has more than 1024 bytes")
	case !utf8.ValidString(key):
		return bad("is not valid UTF-8")
	case strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return bad("has a control character")
	}
	for segment := range strings.SplitSeq(key, "/") {
		switch segment {
		case "":
			return bad("has an empty segment")
		case ".", "..":
			return bad("has a segment . or ..")
		case tempDir, metaDir:
			return bad("has the segment " + segment + ", which is ours")
		}
	}
	return nil
}

func checkMetadata(where string, metadata map[string]string) error {
	for k, v := range metadata {
		if !Keepable(k, v) {
			return fault.New(fault.UsageInvalid, where, "the metadata %q cannot be kept by every kind of bucket", k)
		}
	}
	return nil
}

// Keepable says whether every kind of bucket can keep a piece of metadata; see [WriteOptions.Metadata].
func Keepable(name, value string) bool {
	plain := name != "" && name != writeMark && name[0] >= 'a'
	for _, c := range []byte(name) {
		plain = plain && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	for _, c := range []byte(value) {
		plain = plain && c >= 0x20 && c < 0x7f
	}
	return plain && strings.TrimSpace(value) == value
}

// pace makes a stream of bytes keep to a rate.
type pace struct {
	ctx   context.Context
	rate  *rate.Limiter
	where string
}

func (p pace) wait(n int) error {
	if err := p.rate.WaitN(p.ctx, n); err != nil {
		return interrupted(p.ctx, p.where)
	}
	return nil
}

type pacedUpload struct {
	Upload
	pace pace
}

func (u *pacedUpload) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), u.pace.rate.Burst())
		if err := u.pace.wait(n); err != nil {
			return written, err
		}
		w, err := u.Upload.Write(p[:n])
		written += w
		if err != nil {
			return written, err
		}
		p = p[n:]
	}
	return written, nil
}

type pacedReader struct {
	io.ReadCloser
	pace pace
}

func (r *pacedReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), r.pace.rate.Burst())])
	if n > 0 {
		if late := r.pace.wait(n); late != nil {
			return n, late
		}
	}
	return n, err
}
