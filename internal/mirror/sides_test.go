package mirror_test

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/testlab"
)

// viaProxy opens a side by way of an HTTP proxy of its own, which remembers the hosts and keys of the requests that it passes on.
func viaProxy(t *testing.T, s testlab.Store) (b bucket.Bucket, seen func() map[string]bool) {
	t.Helper()
	var mu sync.Mutex
	all := map[string]bool{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, credential, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
		key, _, _ := strings.Cut(credential, "/")
		mu.Lock()
		all[r.URL.Host+" "+key] = true
		mu.Unlock()
		r.RequestURI = ""
		answer, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer answer.Body.Close()
		maps.Copy(w.Header(), answer.Header)
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body) // the client went away
	}))
	t.Cleanup(proxy.Close)
	b = open(t, s, "app", func(o *bucket.Options) { o.Proxy = proxy.URL })
	return b, func() map[string]bool { mu.Lock(); defer mu.Unlock(); return maps.Clone(all) }
}

func TestEachSideGoesByItsOwnProxyWithItsOwnKeys(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	multipart(t, near, "app/large", noise(1, 17<<20), 8<<20)
	put(t, near, s3.PutObjectInput{Key: aws.String("app/small"), Tagging: aws.String("a=b")}, []byte("x"))
	from, nearSaw := viaProxy(t, near)
	to, farSaw := viaProxy(t, far)
	_, _, err := run(t, from, to, nil)
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
	for _, side := range []struct {
		of   testlab.Store
		seen map[string]bool
	}{{near, nearSaw()}, {far, farSaw()}} {
		at, err := url.Parse(side.of.Endpoint)
		must(t, err)
		if want := map[string]bool{at.Host + " " + side.of.AccessKey: true}; !maps.Equal(side.seen, want) {
			t.Errorf("a side's proxy saw %v, not %v", side.seen, want)
		}
	}
}
