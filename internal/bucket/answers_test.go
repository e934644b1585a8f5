package bucket_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/testlab/gcslab"
)

// withoutEnd answers with bytes until the client goes away.
func withoutEnd(status int, head string) testlab.Answer {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, err := io.WriteString(w, head)
		for chunk := bytes.Repeat([]byte("x"), 1<<20); err == nil; {
			_, err = w.Write(chunk)
		}
	}
}

// remotes are buckets of each kind, by way of a proxy that answers by a script.
func remotes(t *testing.T, script testlab.Script) map[string]bucket.Bucket {
	t.Helper()
	via := func(endpoint string) string {
		return testlab.FaultyS3(t, testlab.Store{Endpoint: endpoint}, script).Endpoint
	}
	s, g, a := testlab.AnyKey(t, 2), gcslab.Start(t), testlab.Azurite(t)
	once := func() bucket.Options { return bucket.Options{MaxRetries: 1, Backoff: time.Millisecond} }
	store, google, azure := once(), once(), once()
	store.Endpoint, store.Region = via(s.Endpoint), s.Region
	store.AccessKeyID, store.SecretAccessKey = s.AccessKey, func() string { return s.SecretKey }
	google.Endpoint = via(g.Endpoint)
	azure.Endpoint = via(strings.TrimSuffix(a.Endpoint, "/"+a.Account)) + "/" + a.Account
	azure.AccessKeyID, azure.SecretAccessKey = a.Account, func() string { return a.Key }
	return map[string]bucket.Bucket{
		"S3":    open(t, "s3://"+s.Bucket, store),
		"GCS":   open(t, "gs://"+g.Bucket, google),
		"Azure": open(t, "azblob://"+a.Container, azure),
	}
}

func TestAnAnswerWithoutAnEndIsAnErrorInLittleMemory(t *testing.T) {
	t.Parallel()
	isList := func(r *http.Request) bool {
		q := r.URL.Query()
		return q.Has("list-type") || q.Get("comp") == "list" || strings.HasSuffix(r.URL.Path, "/o")
	}
	for name, script := range map[string]testlab.Script{
		"of a list":     testlab.Always(isList, withoutEnd(200, "<ListBucketResult><Name>")),
		"of an error":   func(*http.Request) testlab.Answer { return withoutEnd(400, "<Error><Code>Bad</Code><Message>") },
		"that says yes": func(*http.Request) testlab.Answer { return withoutEnd(200, "<a>") },
	} {
		for kind, b := range remotes(t, script) {
			t.Run(kind+" "+name, func(t *testing.T) {
				t.Parallel()
				errs := map[string]error{"a deletion": b.Delete(t.Context(), "a", "b")}
				for _, err := range b.List(t.Context(), "") {
					errs["a listing"] = err
				}
				_, errs["a sweep"] = b.Sweep(t.Context(), "", time.Now())
				if errs["a listing"] == nil || name == "of an error" && errs["a deletion"] == nil {
					t.Errorf("it is taken for an answer: %v", errs)
				}
			})
		}
	}
}

func TestAPanicInTheMiddleOfARequestIsItsError(t *testing.T) {
	t.Parallel()
	for kind, b := range remotes(t, func(*http.Request) testlab.Answer { return nil }) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			bucket.Break(b, func(r *http.Request) bool {
				q := r.URL.Query()
				comp := q.Get("comp")
				list := q.Has("continuation-token") || comp == "list" || strings.HasSuffix(r.URL.Path, "/o") && q.Has("prefix")
				piece := strings.HasSuffix(r.Header.Get("Content-Range"), "/*")
				gone := r.Method == http.MethodDelete && !q.Has("upload_id") && !q.Has("uploadId")
				return list || gone || piece || comp == "block" || q.Get("partNumber") == "2"
			})
			for i := range 5 {
				_, err := bucket.WriteAll(t.Context(), b, fmt.Sprint(i), nil, bucket.WriteOptions{})
				if err != nil {
					t.Fatal(err)
				}
			}
			var list error
			for _, err := range b.List(t.Context(), "") {
				list = err
			}
			_, write := bucket.WriteAll(t.Context(), b, "large", make([]byte, 20<<20), bucket.WriteOptions{})
			errs := []error{list, write, nil}
			if kind == "S3" { // what XML cannot say goes by itself
				c, _ := bucket.CarrierOf(b)
				errs[2] = c.Delete(t.Context(), "\x7f")
				if _, err := bucket.WriteAll(t.Context(), b, "parts", []byte("abc"), bucket.WriteOptions{}); err != nil {
					t.Fatal(err)
				}
				_, parts := c.PartSizes(t.Context(), bucket.Object{Key: "parts", Size: 9}, 3)
				errs = append(errs, parts)
			} else {
				errs[2] = b.Delete(t.Context(), "1", "2")
			}
			for i, err := range errs {
				if !fault.Is(err, fault.Internal) {
					t.Errorf("%d ends with %v", i, err)
				}
			}
		})
	}
}

func TestAReadThatGoesOnTakesNoOtherBytes(t *testing.T) {
	t.Parallel()
	s := testlab.AnyKey(t, 1000)
	whole := noise(1 << 20)
	s.Put("a", whole)
	gets := 0
	cut := testlab.FaultyS3(t, s.Store, func(r *http.Request) testlab.Answer {
		if r.Method != http.MethodGet || r.URL.Query().Has("list-type") {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			if gets++; gets == 1 {
				w.Header().Set("Etag", `"x"`)
				w.Header().Set("Content-Length", strconv.Itoa(len(whole)))
				_, _ = w.Write(whole[:len(whole)/2])
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Etag", `"x"`)
			_, _ = w.Write(whole[:len(whole)/2]) // of the right length, and from the beginning
		}
	}).Store
	b := open(t, "s3://"+cut.Bucket, bucket.Options{
		Endpoint: cut.Endpoint, AccessKeyID: cut.AccessKey, SecretAccessKey: func() string { return cut.SecretKey }, MaxRetries: 2, Backoff: time.Millisecond,
	})
	if got, err := bucket.ReadAll(t.Context(), b, "a", 2<<20); !fault.Is(err, fault.BucketUnsupported) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
