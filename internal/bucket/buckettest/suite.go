package buckettest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// PartSize is the size in bytes of the parts that the suite's buckets begin with.
const PartSize = 5 << 20

// Opener opens an empty place that nobody else writes to; it ends with the test. The options are
// the suite's: the opener adds how to reach the server.
type Opener func(t testing.TB, opts bucket.Options) bucket.Bucket

// Run holds a kind of bucket to the contract.
func Run(t *testing.T, open Opener) {
	for name, check := range map[string]func(*testing.T, bucket.Bucket){
		"what is written is what is read":            sizes,
		"nothing is visible before Commit":           invisible,
		"Abort leaves nothing":                       aborted,
		"a cancelled context ends an upload":         cancelled,
		"a finished upload takes no more":            finished,
		"a second write replaces the first":          replaced,
		"any sensible key comes back as it was":      keys,
		"keys that climb are refused":                climbing,
		"a listing is in byte order":                 ordered,
		"a listing can be left early":                leftEarly,
		"a listing and a deletion go past 1000 keys": many,
		"a range holds its bytes and no others":      ranges,
		"what is missing is object-missing":          missing,
		"metadata comes back":                        metadata,
		"IfAbsent never replaces":                    ifAbsent,
		"IfMatch replaces one version only":          ifMatch,
		"one of many writers with IfAbsent wins":     race,
		"conditions hold for large objects too":      largeConditions,
		"an interrupted condition says what is true": interruptedConditions,
		"Sweep removes what was begun and left":      sweep,
		"ReadAll keeps its limit":                    limit,
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			check(t, open(t, bucket.Options{PartSize: PartSize}))
		})
	}
}

func write(t *testing.T, b bucket.Bucket, key string, data []byte, opts bucket.WriteOptions) bucket.Object {
	t.Helper()
	o, err := bucket.WriteAll(t.Context(), b, key, data, opts)
	if err != nil {
		t.Fatalf("write %q: %v", key, err)
	}
	return o
}

func read(t *testing.T, b bucket.Bucket, key string) []byte {
	t.Helper()
	data, err := bucket.ReadAll(t.Context(), b, key, 64<<20)
	if err != nil {
		t.Fatalf("read %q: %v", key, err)
	}
	return data
}

func want(t *testing.T, what string, err error, code fault.Code) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Errorf("%s: want the fault %s, got %v", what, code, err)
	}
}

// absent checks that nobody sees the key, in any way there is to look.
func absent(t *testing.T, b bucket.Bucket, key string) {
	t.Helper()
	_, err := b.Stat(t.Context(), key)
	want(t, "Stat of "+key, err, fault.ObjectMissing)
	_, err = b.Open(t.Context(), key, 0, -1)
	want(t, "Open of "+key, err, fault.ObjectMissing)
	if found := list(t, b, ""); slices.Contains(found, key) {
		t.Errorf("the listing shows %s: %q", key, found)
	}
}

func list(t *testing.T, b bucket.Bucket, prefix string) []string {
	t.Helper()
	var keys []string
	for o, err := range b.List(t.Context(), prefix) {
		if err != nil {
			t.Fatalf("list %q: %v", prefix, err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

// noise is n bytes that cannot be guessed or compressed, the same for the same seed.
func noise(n int, seed byte) []byte {
	data := make([]byte, n)
	var key [32]byte
	key[0] = seed
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return data
}

func sizes(t *testing.T, b bucket.Bucket) {
	for _, n := range []int{0, 1, 100_000, PartSize - 1, PartSize, PartSize + 1, 2 * PartSize, 20 << 20} {
		key, data := fmt.Sprintf("size/%d", n), noise(n, 1)
		u, err := b.Create(t.Context(), key, bucket.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		// Pieces of odd sizes, so that parts and writes do not end together.
		for piece := range slices.Chunk(data, 777_777) {
			if _, err := u.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		done, err := u.Commit(t.Context())
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		u.Abort() // does nothing after Commit
		seen, err := b.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		for what, o := range map[string]bucket.Object{"Commit": done, "Stat": seen} {
			if o.Key != key || o.Size != int64(n) || o.ETag == "" {
				t.Errorf("%d bytes: %s says %+v", n, what, o)
			}
		}
		if done.ETag != seen.ETag || seen.Modified.IsZero() {
			t.Errorf("%d bytes: Commit says %+v, Stat says %+v", n, done, seen)
		}
		if !bytes.Equal(read(t, b, key), data) {
			t.Errorf("%d bytes came back changed", n)
		}
	}
}

func invisible(t *testing.T, b bucket.Bucket) {
	for key, n := range map[string]int{"small": 10, "large": 3*PartSize + 1} {
		u, err := b.Create(t.Context(), key, bucket.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write(noise(n, 2)); err != nil {
			t.Fatal(err)
		}
		absent(t, b, key)
		if _, err := u.Commit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := read(t, b, key); len(got) != n {
			t.Errorf("%s has %d bytes, want %d", key, len(got), n)
		}
	}
}

func aborted(t *testing.T, b bucket.Bucket) {
	for key, n := range map[string]int{"nothing": 0, "small": 10, "large": 3*PartSize + 1} {
		u, err := b.Create(t.Context(), key, bucket.WriteOptions{Metadata: map[string]string{"a": "b"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write(noise(n, 3)); err != nil {
			t.Fatal(err)
		}
		u.Abort()
		u.Abort()
		absent(t, b, key)
		if _, err := u.Commit(t.Context()); err == nil {
			t.Errorf("%s: Commit after Abort is no error", key)
		}
		absent(t, b, key)
	}
	nothingLeft(t, b)
}

// nothingLeft checks that no upload waits for Sweep.
func nothingLeft(t *testing.T, b bucket.Bucket) {
	t.Helper()
	n, err := b.Sweep(t.Context(), "", tomorrow())
	if err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Errorf("%d uploads were left", n)
	}
}

func cancelled(t *testing.T, b bucket.Bucket) {
	for key, n := range map[string]int{"small": 10, "large": 3*PartSize + 1} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		u, err := b.Create(ctx, key, bucket.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write(noise(n, 4)); err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = u.Commit(t.Context())
		want(t, "Commit of "+key, err, fault.Interrupted)
		absent(t, b, key)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	u, err := b.Create(t.Context(), "commit", bucket.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = u.Commit(over)
	want(t, "Commit with a context that has ended", err, fault.Interrupted)
	absent(t, b, "commit")
	nothingLeft(t, b)
}

func finished(t *testing.T, b bucket.Bucket) {
	u, err := b.Create(t.Context(), "k", bucket.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write([]byte("late")); err == nil {
		t.Error("Write after Commit is no error")
	}
	if _, err := u.Commit(t.Context()); err == nil {
		t.Error("a second Commit is no error")
	}
	if got := read(t, b, "k"); len(got) != 0 {
		t.Errorf("the object is now %q", got)
	}
}

func replaced(t *testing.T, b bucket.Bucket) {
	first := write(t, b, "a/b", []byte("first"), bucket.WriteOptions{Metadata: map[string]string{"n": "1"}})
	second := write(t, b, "a/b", []byte("second"), bucket.WriteOptions{})
	if first.ETag == second.ETag {
		t.Errorf("both versions have the ETag %s", first.ETag)
	}
	if got := read(t, b, "a/b"); string(got) != "second" {
		t.Errorf("got %q", got)
	}
	o, err := b.Stat(t.Context(), "a/b")
	if err != nil || len(o.Metadata) != 0 {
		t.Errorf("the first version's metadata is still there: %v %v", o.Metadata, err)
	}
}

func limit(t *testing.T, b bucket.Bucket) {
	write(t, b, "k", []byte("12345"), bucket.WriteOptions{})
	if got, err := bucket.ReadAll(t.Context(), b, "k", 5); err != nil || string(got) != "12345" {
		t.Errorf("got %q, %v", got, err)
	}
	_, err := bucket.ReadAll(t.Context(), b, "k", 4)
	want(t, "ReadAll with a limit below the size", err, fault.BucketFailed)
}

func ranges(t *testing.T, b bucket.Bucket) {
	data := noise(100_000, 5)
	write(t, b, "k", data, bucket.WriteOptions{})
	write(t, b, "empty", nil, bucket.WriteOptions{})
	for _, c := range []struct {
		key            string
		offset, length int64
		want           []byte
	}{
		{"k", 0, -1, data},
		{"k", 0, 10, data[:10]},
		{"k", 99_990, 10, data[99_990:]},
		{"k", 99_990, 11, data[99_990:]},
		{"k", 50_000, -1, data[50_000:]},
		{"k", 12_345, 54_321, data[12_345 : 12_345+54_321]},
		{"k", 7, 0, nil},
		{"k", 100_000, -1, nil},
		{"k", 200_000, 5, nil},
		{"empty", 0, -1, nil},
		{"empty", 0, 1, nil},
	} {
		r, err := b.Open(t.Context(), c.key, c.offset, c.length)
		if err != nil {
			t.Errorf("%s from %d, %d bytes: %v", c.key, c.offset, c.length, err)
			continue
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s from %d, %d bytes: got %d bytes, want %d (%v)", c.key, c.offset, c.length, len(got), len(c.want), err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err := b.Open(t.Context(), "k", -1, 5)
	want(t, "a range from below zero", err, fault.UsageInvalid)
}

func missing(t *testing.T, b bucket.Bucket) {
	write(t, b, "folder/k", nil, bucket.WriteOptions{})
	for _, key := range []string{"nobody", "folder", "folder/other", "folder/k/below"} {
		absent(t, b, key)
		if _, err := b.Open(t.Context(), key, 0, 0); !fault.Is(err, fault.ObjectMissing) {
			t.Errorf("Open of nothing at all of %s: %v", key, err)
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Errorf("Delete of %s, which is not there: %v", key, err)
		}
	}
	if err := b.Delete(t.Context()); err != nil {
		t.Errorf("Delete of no keys: %v", err)
	}
	read(t, b, "folder/k")
}

func metadata(t *testing.T, b bucket.Bucket) {
	data := map[string]string{"sha256": "0a1b", "made-by": "leat, with spaces = and %20"}
	for key, n := range map[string]int{"small": 10, "large": PartSize + 1} {
		write(t, b, key, noise(n, 6), bucket.WriteOptions{Metadata: data, ContentType: "text/csv"})
		o, err := b.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(o.Metadata) != fmt.Sprint(data) {
			t.Errorf("%s: want the metadata %q, got %q", key, data, o.Metadata)
		}
	}
	for _, bad := range []map[string]string{{"Upper": "x"}, {"": "x"}, {"a": "ü"}, {"a": "line\nbreak"}, {"a": " x"}} {
		_, err := b.Create(t.Context(), "k", bucket.WriteOptions{Metadata: bad})
		want(t, fmt.Sprintf("metadata %q", bad), err, fault.UsageInvalid)
	}
}

// each runs f for 0 to n-1, some at once.
func each(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(16)
	for i := range n {
		group.Go(func() error { return f(i) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
}
