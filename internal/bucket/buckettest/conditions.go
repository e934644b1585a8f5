package buckettest

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// tomorrow is later than the beginning of any upload, whatever the server's clock says.
func tomorrow() time.Time { return time.Now().Add(24 * time.Hour) }

// conditional says whether conditions of this size can be tried here. Where they cannot, a write
// must say so instead of ignoring them: that is checked then.
func conditional(t *testing.T, b bucket.Bucket, large bool) bool {
	t.Helper()
	p, err := bucket.Probe(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	support, n := p.ConditionalPut, 10
	if large {
		support, n = p.ConditionalMultipart, PartSize+1
	}
	switch support {
	case bucket.Supported:
		return true
	case bucket.Unsupported:
		write(t, b, "k", []byte("first"), bucket.WriteOptions{})
		_, err = bucket.WriteAll(t.Context(), b, "k", noise(n, 7), bucket.WriteOptions{IfAbsent: true})
		want(t, "a condition that the server does not know", err, fault.BucketUnsupported)
		if got := read(t, b, "k"); string(got) != "first" {
			t.Error("the object was replaced")
		}
		nothingLeft(t, b)
	default:
		t.Errorf("after Probe nothing is known: %+v", p)
	}
	return false
}

func ifAbsent(t *testing.T, b bucket.Bucket) {
	if !conditional(t, b, false) {
		return
	}
	only := bucket.WriteOptions{IfAbsent: true}
	write(t, b, "dir/k", []byte("first"), only)
	_, err := bucket.WriteAll(t.Context(), b, "dir/k", []byte("second"), only)
	want(t, "the second IfAbsent", err, fault.ObjectExists)
	if got := read(t, b, "dir/k"); string(got) != "first" {
		t.Errorf("the object is now %q", got)
	}
	if err := b.Delete(t.Context(), "dir/k"); err != nil {
		t.Fatal(err)
	}
	write(t, b, "dir/k", []byte("third"), only)
	_, err = b.Create(t.Context(), "k", bucket.WriteOptions{IfAbsent: true, IfMatch: "x"})
	want(t, "both conditions at once", err, fault.UsageInvalid)
}

func ifMatch(t *testing.T, b bucket.Bucket) {
	if !conditional(t, b, false) {
		return
	}
	first := write(t, b, "k", []byte("first"), bucket.WriteOptions{})
	second := write(t, b, "k", []byte("second"), bucket.WriteOptions{IfMatch: first.ETag})
	_, err := bucket.WriteAll(t.Context(), b, "k", []byte("third"), bucket.WriteOptions{IfMatch: first.ETag})
	want(t, "IfMatch with the ETag of an older version", err, fault.ObjectExists)
	if got := read(t, b, "k"); string(got) != "second" {
		t.Errorf("the object is now %q", got)
	}
	seen, err := b.Stat(t.Context(), "k")
	if err != nil || seen.ETag != second.ETag {
		t.Errorf("Stat says %+v, %v; Commit said %+v", seen, err, second)
	}
	write(t, b, "k", []byte("third"), bucket.WriteOptions{IfMatch: seen.ETag})
	for o, err := range b.List(t.Context(), "k") {
		if err != nil {
			t.Fatal(err)
		}
		write(t, b, "k", []byte("fourth"), bucket.WriteOptions{IfMatch: o.ETag})
	}
	if got := read(t, b, "k"); string(got) != "fourth" {
		t.Errorf("the object is now %q", got)
	}
	_, err = bucket.WriteAll(t.Context(), b, "nobody", nil, bucket.WriteOptions{IfMatch: seen.ETag})
	if !fault.Is(err, fault.ObjectExists) && !fault.Is(err, fault.ObjectMissing) {
		t.Errorf("IfMatch of an object that is not there: %v", err)
	}
	absent(t, b, "nobody")
}

func race(t *testing.T, b bucket.Bucket) {
	if !conditional(t, b, false) {
		return
	}
	for round := range 5 {
		key := fmt.Sprintf("race/%d", round)
		var winner atomic.Int64
		var winners atomic.Int64
		each(t, 12, func(i int) error {
			content := fmt.Appendf(nil, "writer %d", i)
			_, err := bucket.WriteAll(t.Context(), b, key, content, bucket.WriteOptions{IfAbsent: true})
			switch {
			case err == nil:
				winners.Add(1)
				winner.Store(int64(i))
			case !fault.Is(err, fault.ObjectExists):
				return err
			}
			return nil
		})
		if winners.Load() != 1 {
			t.Errorf("%s has %d winners", key, winners.Load())
		}
		if got, ours := read(t, b, key), fmt.Sprintf("writer %d", winner.Load()); string(got) != ours {
			t.Errorf("%s holds %q, the winner wrote %q", key, got, ours)
		}
	}
}

func largeConditions(t *testing.T, b bucket.Bucket) {
	if !conditional(t, b, true) {
		return
	}
	first, second := noise(PartSize+1, 8), noise(PartSize+1, 9)
	o := write(t, b, "k", first, bucket.WriteOptions{IfAbsent: true})
	_, err := bucket.WriteAll(t.Context(), b, "k", second, bucket.WriteOptions{IfAbsent: true})
	want(t, "the second IfAbsent", err, fault.ObjectExists)
	if !bytes.Equal(read(t, b, "k"), first) {
		t.Error("the object was replaced")
	}
	write(t, b, "k", second, bucket.WriteOptions{IfMatch: o.ETag})
	_, err = bucket.WriteAll(t.Context(), b, "k", first, bucket.WriteOptions{IfMatch: o.ETag})
	want(t, "IfMatch with the ETag of an older version", err, fault.ObjectExists)
	if !bytes.Equal(read(t, b, "k"), second) {
		t.Error("the object was replaced")
	}
	nothingLeft(t, b)
}

func sweep(t *testing.T, b bucket.Bucket) {
	data := noise(2*PartSize+1, 10)
	begin := func(key string) bucket.Upload {
		u, err := b.Create(t.Context(), key, bucket.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write(data); err != nil {
			t.Fatal(err)
		}
		return u
	}
	running, left := begin("keep/running %"), begin("left/behind %")
	defer left.Abort()
	for _, c := range []struct {
		prefix string
		before time.Time
	}{{"", time.Now().Add(-24 * time.Hour)}, {"other/", tomorrow()}, {"left/behind %25", tomorrow()}} {
		if n, err := b.Sweep(t.Context(), c.prefix, c.before); n != 0 || err != nil {
			t.Errorf("Sweep of %q before %s: %d, %v; want none", c.prefix, c.before, n, err)
		}
	}
	n, err := b.Sweep(t.Context(), "left/b", tomorrow())
	if err != nil {
		t.Fatal(err)
	}
	expected := map[bucket.Kind]int{bucket.KindS3: 1, bucket.KindFolder: 1}[b.Properties().Kind]
	if n != expected {
		t.Errorf("%d uploads were swept, want %d", n, expected)
	}
	// No Commit here: parts that are still on their way when an upload is swept may arrive after
	// it (docs.aws.amazon.com/AmazonS3/latest/API/API_AbortMultipartUpload.html). Sweep is for
	// uploads whose process is gone; the time it is given keeps it from others.
	left.Abort()
	absent(t, b, "left/behind %")
	if _, err := running.Commit(t.Context()); err != nil {
		t.Errorf("the upload under another prefix: %v", err)
	}
	if !bytes.Equal(read(t, b, "keep/running %"), data) {
		t.Error("the upload under another prefix came out changed")
	}
	nothingLeft(t, b)
}
