package buckettest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Dying is a context that ends when it is asked for the nth time: so an interruption comes at each step of the work.
type Dying struct {
	context.Context
	// End ends it at once.
	End  context.CancelFunc
	mu   sync.Mutex
	left int
}

// NewDying makes a context that ends when it is asked for the nth time.
func NewDying(ctx context.Context, n int) *Dying {
	d := &Dying{left: n}
	d.Context, d.End = context.WithCancel(ctx)
	return d
}

func (d *Dying) asked() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left--; d.left == 0 {
		d.End()
	}
}

// Ended says whether it came to its end by being asked.
func (d *Dying) Ended() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.left <= 0
}

// Done counts as one time.
func (d *Dying) Done() <-chan struct{} { d.asked(); return d.Context.Done() }

// Err counts as one time.
func (d *Dying) Err() error { d.asked(); return d.Context.Err() }

// interruptedConditions interrupts writes on condition at each step. What such a write says must be true: it is never told that an
// object is there, is not there, or was written, without a look.
func interruptedConditions(t *testing.T, b bucket.Bucket) {
	if !conditional(t, b, false) {
		return
	}
	const key = "dir/k"
	for _, c := range []struct {
		name    string
		there   bool // an object is there
		opts    func(etag string) bucket.WriteOptions
		holds   bool         // the condition does
		answers []fault.Code // besides interrupted, which are true
	}{
		{"IfAbsent, absent", false, func(string) bucket.WriteOptions { return bucket.WriteOptions{IfAbsent: true} }, true, nil},
		{"IfAbsent, there", true, func(string) bucket.WriteOptions { return bucket.WriteOptions{IfAbsent: true} }, false, []fault.Code{fault.ObjectExists}},
		{"IfMatch, that version", true, func(e string) bucket.WriteOptions { return bucket.WriteOptions{IfMatch: e} }, true, nil},
		{"IfMatch, another version", true, stale(t, b), false, []fault.Code{fault.ObjectExists}},
		{"IfMatch, absent", false, stale(t, b), false, []fault.Code{fault.ObjectExists, fault.ObjectMissing}},
	} {
		for n, over := 1, false; !over; n += 1 + n/16 { // the first steps one by one
			etag, before := "", ""
			if err := b.Delete(t.Context(), key); err != nil {
				t.Fatal(err)
			}
			if c.there {
				before = "before"
				etag = write(t, b, key, []byte(before), bucket.WriteOptions{}).ETag
			}
			ctx := NewDying(t.Context(), n)
			_, err := bucket.WriteAll(ctx, b, key, []byte("ours"), c.opts(etag))
			over = !ctx.Ended()
			ctx.End()
			is := now(t, b, key)
			switch {
			case err == nil && (!c.holds || is != "ours"):
				t.Errorf("%s, interrupted at step %d: it says that it has written, and the object holds %q", c.name, n, is)
			case err != nil && !fault.Is(err, fault.Interrupted) && !slices.ContainsFunc(c.answers, func(code fault.Code) bool { return fault.Is(err, code) }):
				t.Errorf("%s, interrupted at step %d: %v", c.name, n, err)
			case over && c.holds != (err == nil):
				t.Errorf("%s, not interrupted: %v", c.name, err)
			case is != before && (is != "ours" || !c.holds):
				t.Errorf("%s, interrupted at step %d: the object holds %q, and held %q", c.name, n, is, before)
			}
		}
	}
	nothingLeft(t, b)
}

// stale gives a condition that no version of the key under test meets.
func stale(t *testing.T, b bucket.Bucket) func(string) bucket.WriteOptions {
	t.Helper()
	other := write(t, b, "other", []byte("another object, which is longer"), bucket.WriteOptions{})
	return func(string) bucket.WriteOptions { return bucket.WriteOptions{IfMatch: other.ETag} }
}

// now is what an object holds, "" for none.
func now(t *testing.T, b bucket.Bucket, key string) string {
	t.Helper()
	data, err := bucket.ReadAll(t.Context(), b, key, 1<<10)
	if fault.Is(err, fault.ObjectMissing) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
