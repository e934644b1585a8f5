package mirror_test

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

var update = flag.Bool("update", false, "write the generated part of docs/mirror.md")

func TestThePageSaysWhatBecomesOfEachAttribute(t *testing.T) {
	t.Parallel()
	path := testlab.RepoFile(t, "docs/mirror.md")
	const begin, end = "<!-- Written by the tests of internal/mirror: make docs -->\n", "<!-- end -->\n"
	page, err := os.ReadFile(path)
	must(t, err)
	before, rest, ok := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("docs/mirror.md has no place for the table")
	}
	var table strings.Builder
	table.WriteString("\n| an object's | to S3 | to another kind of place | counted as | |\n| --- | --- | --- | --- | --- |\n")
	for _, a := range mirror.Attributes {
		name := "" // of the count
		if a.Counted != "" {
			name = "`" + string(a.Counted) + "`"
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s | %s |\n", a.What, a.S3, a.Other, name, a.Note)
	}
	want := before + begin + table.String() + "\n" + end + after
	if *update {
		must(t, os.WriteFile(path, []byte(want), 0o644))
		return
	}
	if string(page) != want {
		t.Error("the table in docs/mirror.md is not what a mirror does: make docs")
	}
}

// rich is an object with all that can be set.
func rich(key string) bucket.Cargo {
	return bucket.Cargo{
		Object: bucket.Object{Key: key, Metadata: map[string]string{
			"note": "", "plain": "a b", "with_underscore": "x", "umlaut": "Käse", "encoded": "=?UTF-8?Q?K=C3=A4se?=",
		}},
		ContentType: "text/csv; charset=utf-8", CacheControl: "max-age=60", ContentEncoding: "x-own", ContentDisposition: `attachment; filename="ä.csv"`,
		ContentLanguage: "de", Expires: "Thu, 01 Dec 2033 16:00:00 GMT", WebsiteRedirect: "/elsewhere",
		Tags: "a%2Bb=c%26d&cost%20centre=data%20platform&leer=&%C3%BCber=%C3%A4",
	}
}

// deliver writes an object with all that it has, large ones in parts.
func deliver(t *testing.T, b bucket.Bucket, c bucket.Cargo, data []byte) {
	t.Helper()
	carrier, _ := bucket.CarrierOf(b)
	if len(data) < 1<<20 {
		_, _, err := carrier.Deliver(t.Context(), c, data, sha256.Sum256(data))
		must(t, err)
		return
	}
	id, err := carrier.Begin(t.Context(), c)
	must(t, err)
	var parts []bucket.Part
	for i := 0; i*(8<<20) < len(data); i++ {
		etag, err := carrier.Send(t.Context(), c.Key, id, i+1, data[i*(8<<20):min((i+1)*(8<<20), len(data))])
		must(t, err)
		parts = append(parts, bucket.Part{Number: i + 1, ETag: etag})
	}
	_, err = carrier.Complete(t.Context(), c.Key, id, parts)
	must(t, err)
	must(t, carrier.Tag(t.Context(), c.Key, c.Tags))
}

func TestAnObjectHasAtTheTargetWhatTheTableSays(t *testing.T) {
	t.Parallel()
	near, other := testlab.Ceph(t), testlab.CephTLS(t)
	source := open(t, near, "app")
	deliver(t, source, rich("small"), []byte("small"))
	deliver(t, source, rich("large"), bytes.Repeat([]byte("large"), 4<<20))
	for name, far := range map[string]testlab.Store{"another server": other, "the same server": near} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := open(t, far, "copy")
			r, _, err := run(t, source, to, nil)
			must(t, err)
			if len(r.NotCarried) != 0 {
				t.Errorf("not carried: %v", r.NotCarried)
			}
			for _, key := range []string{"small", "large"} {
				a, _ := bucket.CarrierOf(source)
				b, _ := bucket.CarrierOf(to)
				want, err := a.Describe(t.Context(), key)
				must(t, err)
				got, err := b.Describe(t.Context(), key)
				must(t, err)
				delete(got.Metadata, "leat-origin")
				if !maps.Equal(want.Metadata, got.Metadata) || len(got.Metadata) != len(rich(key).Metadata) {
					t.Errorf("%s: the metadata %q became %q", key, want.Metadata, got.Metadata)
				}
				heads := func(c bucket.Cargo) []string {
					return []string{c.ContentType, c.CacheControl, c.ContentEncoding, c.ContentDisposition, c.ContentLanguage, c.Expires, c.WebsiteRedirect}
				}
				if fmt.Sprintf("%q", heads(want)) != fmt.Sprintf("%q", heads(got)) || got.WebsiteRedirect == "" || got.Expires == "" {
					t.Errorf("%s: the headers %q became %q", key, heads(want), heads(got))
				}
				tags, err := b.Tags(t.Context(), key)
				if must(t, err); tags != rich(key).Tags {
					t.Errorf("%s: the tags became %s", key, tags)
				}
			}
		})
	}
}

func TestWhatDoesNotComeIsCounted(t *testing.T) {
	t.Parallel()
	near, far := testlab.Ceph(t), testlab.CephTLS(t)
	source := open(t, near, "app")
	deliver(t, source, rich("small"), []byte("small"))
	deliver(t, source, rich("large"), bytes.Repeat([]byte("large"), 4<<20))
	deliver(t, source, bucket.Cargo{Object: bucket.Object{Key: "bare"}}, []byte("bare"))
	kept := testlab.FaultyS3(t, near, func(r *http.Request) testlab.Answer {
		if !strings.HasSuffix(r.URL.Path, "/small") && !strings.HasSuffix(r.URL.Path, "/large") || r.URL.Query().Has("tagging") {
			return nil
		}
		return altered(func(h http.Header, b []byte) []byte {
			h.Set("X-Amz-Storage-Class", "GLACIER_IR")
			h.Set("X-Amz-Object-Lock-Mode", "COMPLIANCE")
			h.Set("X-Amz-Missing-Meta", "1")
			return b
		})
	})
	everywhere := map[mirror.Attribute]int64{mirror.AttributeClass: 2, mirror.AttributeLock: 2, mirror.AttributeMetadata: 2}
	r, _, err := run(t, open(t, kept.Store, "app"), open(t, far, "app"), nil)
	if must(t, err); !maps.Equal(r.NotCarried, everywhere) {
		t.Errorf("to a bucket: %v", r.NotCarried)
	}
	r, _, err = run(t, open(t, kept.Store, "app"), folderOf(t, t.TempDir()), nil)
	must(t, err)
	for _, a := range mirror.Attributes {
		if want := a.Other == mirror.FateCounted; want != (a.Counted != "" && r.NotCarried[a.Counted] == 2) && a.Counted != mirror.AttributeMetadata {
			t.Errorf("to a folder: of %s are counted %d", a.What, r.NotCarried[a.Counted])
		}
	}
	if r.NotCarried[mirror.AttributeMetadata] != 2 {
		t.Errorf("metadata that a folder cannot keep: %d", r.NotCarried[mirror.AttributeMetadata])
	}
}
