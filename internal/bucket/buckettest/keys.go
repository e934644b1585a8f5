package buckettest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// nasty are keys that some layer between us and the disk likes to change.
var nasty = []string{
	"plain", "with space", "two  spaces", "percent%20", "100%", "plus+plus", "ümlaut", "u\u0308mlaut", "日本語/表.csv", "🚰",
	"quote\"double", "quote'single", "amp&amp;", "equals=sign", "a?b=c", "hash#tag", "at@sign", "semi;colon",
	"comma,comma", "dollar$", "star*", "brackets[1]", "braces{2}", "paren(3)", "caret^", "back`tick", "tilde~", "pipe|",
	"less<more>", "colon:colon", "back\\slash", "trailing.dot.", ".hidden", "...", "date=2026-11-21/public.orders/part-0.csv.gz",
	"-dash", "_under", " lead", "trail ", "]]>", "&#x1;", "%2F", "nel\u0085", "line\u2028", "replaced\uFFFD", "bom\uFEFF", "\\u0001", "UPPER", "upper", strings.Repeat("long/", 40) + strings.Repeat("x", 200),
}

func keys(t *testing.T, b bucket.Bucket) {
	var usable []string
	for _, key := range nasty {
		// Azure takes a backslash for a slash, and drops a dot at a segment's end
		// (learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata):
		// better an error than another name.
		if b.Properties().Kind == bucket.KindAzure && (strings.Contains(key, `\`) || strings.HasSuffix(key, ".")) {
			_, err := b.Create(t.Context(), key, bucket.WriteOptions{})
			want(t, fmt.Sprintf("Create of %q", key), err, fault.BucketUnsupported)
			_, err = b.Open(t.Context(), key, 0, -1)
			want(t, fmt.Sprintf("Open of %q", key), err, fault.BucketUnsupported)
			_, err = b.Stat(t.Context(), key)
			want(t, fmt.Sprintf("Stat of %q", key), err, fault.BucketUnsupported)
			want(t, fmt.Sprintf("Delete of %q", key), b.Delete(t.Context(), key), fault.BucketUnsupported)
			continue
		}
		usable = append(usable, key)
	}
	each(t, len(usable), func(i int) error {
		_, err := bucket.WriteAll(t.Context(), b, usable[i], []byte(usable[i]), bucket.WriteOptions{})
		if err != nil {
			return fmt.Errorf("write %q: %w", usable[i], err)
		}
		return nil
	})
	for _, key := range usable {
		if got := read(t, b, key); string(got) != key {
			t.Errorf("%q holds %q", key, got)
		}
		if o, err := b.Stat(t.Context(), key); err != nil || o.Key != key {
			t.Errorf("Stat of %q: %+v, %v", key, o, err)
		}
		if found := list(t, b, key); !slices.Contains(found, key) {
			t.Errorf("the listing of %q shows %q", key, found)
		}
	}
	slices.Sort(usable)
	if found := list(t, b, ""); !slices.Equal(found, usable) {
		t.Errorf("the listing shows\n%q\nwant\n%q", found, usable)
	}
	if err := b.Delete(t.Context(), usable...); err != nil {
		t.Fatal(err)
	}
	if left := list(t, b, ""); len(left) > 0 {
		t.Errorf("after the deletion there is still %q", left)
	}
}

func climbing(t *testing.T, b bucket.Bucket) {
	for _, key := range []string{
		"", "/", "/etc/passwd", "..", "../up", "a/../../up", "a/..", ".", "a/./b", "a//b", "a/", "nul\x00", "line\nbreak", "bad\xffutf8",
		strings.Repeat("x", 1025), ".leat-tmp/x", ".leat-meta/x",
	} {
		_, err := b.Create(t.Context(), key, bucket.WriteOptions{})
		want(t, fmt.Sprintf("Create of %q", key), err, fault.UsageInvalid)
		_, err = b.Open(t.Context(), key, 0, -1)
		want(t, fmt.Sprintf("Open of %q", key), err, fault.UsageInvalid)
		_, err = b.Stat(t.Context(), key)
		want(t, fmt.Sprintf("Stat of %q", key), err, fault.UsageInvalid)
		want(t, fmt.Sprintf("Delete of %q", key), b.Delete(t.Context(), key), fault.UsageInvalid)
	}
}

func ordered(t *testing.T, b bucket.Bucket) {
	// '-' and '.' sort before '/', '0' after it: a walk through folders gets this wrong easily.
	all := []string{
		"a", "a-b", "a.b", "a/b", "a/b/c", "a/b-", "a/b0", "a0", "a00/x", "aa", "b/1", "b/10", "b/2", "B", "ä", "z/y/x/w",
	}
	each(t, len(all), func(i int) error {
		key := all[i]
		if key == "a" || key == "a/b" {
			key += ".file" // a folder cannot hold a file and a folder of one name
			all[i] = key
		}
		_, err := bucket.WriteAll(t.Context(), b, key, []byte(key), bucket.WriteOptions{})
		return err
	})
	slices.Sort(all)
	for _, prefix := range []string{"", "a", "a/", "a/b", "a/b/", "b/1", "B", "nobody", "z/y/", "z/y/x/w", "ä", "a00/"} {
		expected := slices.DeleteFunc(slices.Clone(all), func(key string) bool { return !strings.HasPrefix(key, prefix) })
		if found := list(t, b, prefix); !slices.Equal(found, expected) {
			t.Errorf("the listing of %q shows\n%q\nwant\n%q", prefix, found, expected)
		}
	}
	for o, err := range b.List(t.Context(), "b/1") {
		if err != nil || o.Size != int64(len(o.Key)) || o.ETag == "" || o.Modified.IsZero() {
			t.Errorf("the listing says %+v, %v", o, err)
		}
	}
}

func leftEarly(t *testing.T, b bucket.Bucket) {
	for _, key := range []string{"x/1", "x/2", "y/3"} {
		write(t, b, key, nil, bucket.WriteOptions{})
	}
	seen := 0
	for _, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Error(err)
		}
		seen++
		break
	}
	if seen != 1 {
		t.Errorf("saw %d objects", seen)
	}
}

func many(t *testing.T, b bucket.Bucket) {
	const n = 1003
	all := make([]string, n)
	each(t, n, func(i int) error {
		all[i] = fmt.Sprintf("many/%d/%04d", i%3, i)
		_, err := bucket.WriteAll(t.Context(), b, all[i], []byte("x"), bucket.WriteOptions{})
		return err
	})
	write(t, b, "other", nil, bucket.WriteOptions{})
	slices.Sort(all)
	if found := list(t, b, "many/"); !slices.Equal(found, all) {
		t.Errorf("%d objects were listed, or in another order; want %d", len(found), n)
	}
	if err := b.Delete(t.Context(), append(all, "many/nobody")...); err != nil {
		t.Fatal(err)
	}
	if left := list(t, b, ""); !slices.Equal(left, []string{"other"}) {
		t.Errorf("after the deletion there is %q", left)
	}
}
