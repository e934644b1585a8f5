package mirror_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

func folder(t testing.TB, objects map[string]string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), t.TempDir(), bucket.Options{})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	for key, data := range objects {
		_, err := bucket.WriteAll(t.Context(), b, key, []byte(data), bucket.WriteOptions{Lazy: true})
		must(t, err)
	}
	return b
}

// worn is a bucket that fails on some keys as a fault of ours would.
type worn struct{ bucket.Bucket }

func (w worn) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if strings.Contains(key, "broken") {
		var none []int
		_ = none[len(key)]
	}
	return w.Bucket.Open(ctx, key, offset, length)
}

// List fails in the middle when there is a key for it.
func (w worn) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for o, err := range w.Bucket.List(ctx, prefix) {
			if strings.HasPrefix(o.Key, "list-broken") {
				panic("a listing of others")
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func TestAPanicInAListingEndsTheMirrorAndNotTheProcess(t *testing.T) {
	t.Parallel()
	good := folder(t, map[string]string{"a": "a"})
	bad := worn{folder(t, map[string]string{"a": "a", "list-broken": "b"})}
	for name, sides := range map[string][2]bucket.Bucket{"source": {bad, good}, "target": {good, bad}} {
		_, _, err := run(t, sides[0], sides[1], func(o *mirror.Options) { o.Delete = true })
		if !fault.Is(err, fault.Internal) {
			t.Errorf("%s: it ends with %v", name, err)
		}
	}
}

type wornTables struct{ tables }

func (w *wornTables) Relocate(ctx context.Context, root string, files mirror.Files) (bool, error) {
	if root == "bad" {
		panic("a table of others")
	}
	return w.tables.Relocate(ctx, root, files)
}

func TestAPanicIsTheErrorOfOneObject(t *testing.T) {
	t.Parallel()
	const commit, dump = `{"files":[{"key":"x/broken","bytes":1}]}`, `{"format_version":1,"folder":"d","tables":[{"files":[{"key":"d/broken","bytes":1}]}]}`
	from := folder(t, map[string]string{
		"a": "a", "broken": "b", "c": "c", "t/metadata/v1.metadata.json": "{}", "bad/metadata/v1.metadata.json": "{}",
		"x/_manifests/000000000001.json": commit, "d/manifest.json": dump, "z/_manifests/000000000001.json": "{}",
	})
	to := folder(t, nil)
	var log bytes.Buffer
	lake := &wornTables{tables{from: from, to: to}}
	r, w, err := run(t, worn{from}, to, func(o *mirror.Options) {
		o.Tables, o.Parallel = lake, 1
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	if !fault.Is(err, fault.MirrorIncomplete) {
		t.Fatal(err)
	}
	var broken []string
	for _, d := range r.SetAside {
		if d.Code == fault.Internal {
			broken = append(broken, d.Key)
		}
	}
	if slices.Sort(broken); !slices.Equal(broken, []string{"bad/metadata", "broken"}) {
		t.Errorf("failed: %+v", r.SetAside)
	}
	if slices.Sort(w.carried); !slices.Equal(w.carried, []string{"a", "c", "z/_manifests/000000000001.json"}) || r.Tables != 1 {
		t.Errorf("carried: %q, tables %d", w.carried, r.Tables)
	}
	if !strings.Contains(log.String(), "hostile_test.go") {
		t.Error("the debug log has no stack")
	}
}

func TestSizesThatAFileNamesAreNotBelieved(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	hostile := map[string]string{
		"app/_manifests/1.json":   `{"files":[{"key":"app/part-1","bytes":-1}]}`,
		"app/_manifests/2.json":   `{"files":[{"key":"","bytes":1}]}`,
		"app/_manifests/3.json":   `{"files":[{"key":"app/part-1","bytes":9223372036854775807},{"key":"app/part-2","bytes":0}]}`,
		"app/_manifests/4.json":   `{"files":[` + strings.Repeat("{},", 200_000) + `{}]}`,
		"app/part-1":              "one",
		"app/part-2":              "two",
		"dump/manifest.json":      `{"format_version":1,"folder":"dump","tables":[{"files":[{"key":"dump/a","bytes":-5}]}]}`,
		"dump/a":                  "a",
		"other/manifest.json":     strings.Repeat("[", 1<<16),
		"t/metadata/1.other.json": "{}",
	}
	for key, data := range hostile {
		put(t, near, s3.PutObjectInput{Key: aws.String("src/" + key)}, []byte(data))
	}
	r, _, err := run(t, open(t, near, "src"), open(t, far, "dst"), nil)
	must(t, err)
	got := content(t, far, "dst")
	for key := range hostile {
		if _, ok := got[key]; !ok {
			t.Errorf("%s is not there", key)
		}
	}
	if r.Failed != 0 {
		t.Errorf("failed: %+v", r.SetAside)
	}
}

// oversized has a server say of every object that it has so many bytes and was sent in three parts.
func oversized(t testing.TB, s testlab.Store, size string) testlab.Store {
	t.Helper()
	const etag = "0123456789abcdef0123456789abcdef-3"
	said := regexp.MustCompile(`<Size>\d+</Size>`)
	tag := regexp.MustCompile(`<ETag>[^<]*</ETag>`)
	return testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		switch {
		case r.URL.Query().Has("list-type"):
			return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
				page := httptest.NewRecorder()
				upstream.ServeHTTP(page, r)
				text := said.ReplaceAllString(page.Body.String(), "<Size>"+size+"</Size>")
				_, _ = io.WriteString(w, tag.ReplaceAllString(text, "<ETag>&quot;"+etag+"&quot;</ETag>"))
			}
		case r.Method == http.MethodHead:
			return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("Etag", `"`+etag+`"`)
				w.Header().Set("Content-Length", size)
			}
		}
		return nil
	}).Store
}

func TestSizesThatNoObjectCanHaveAreErrors(t *testing.T) {
	t.Parallel()
	for _, size := range []string{"9223372036854775807", "9223372036854775000", "60000000000000000", "53687091200001"} {
		near, far := testlab.S3(t), testlab.S3(t)
		text(t, near, "app/a", "x")
		r, _, err := run(t, open(t, oversized(t, near, size), "app"), open(t, far, "app"), nil)
		if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.BucketFailed] != 1 {
			t.Errorf("%s bytes: %v, failed by %v", size, err, r.FailedBy)
		}
	}
}
