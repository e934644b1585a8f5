package bucket_test

import (
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/testlab/gcslab"
)

// cleaned puts something before a store that takes paths as file systems do.
func cleaned(t testing.TB, s testlab.Store) *testlab.Faulty {
	return testlab.FaultyS3(t, s, func(*http.Request) testlab.Answer {
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			r.URL.Path, r.URL.RawPath = path.Clean(strings.ReplaceAll(r.URL.Path, `\`, "/")), ""
			upstream.ServeHTTP(w, r)
		}
	})
}

func TestAServerIsAskedWhetherItKeepsOddKeys(t *testing.T) {
	t.Parallel()
	odd := []string{"../x", "a/../y", "..", "./z", "a/.", "//e", "a//b", "/lead", `back\slash`, `a\..\b`, "d//", "%2e%2E/x", "a%2Fb", "a%20b", "%C3%A9"}
	plain := []string{"a", "a/b", "...", "a/..b", ".hidden", "d/", "dots.", "a b", "100%", "%zz", "ümlaut\x01"}
	const all = `../x a/../y .. ./z a/. //e a//b /lead back\slash a\..\b d//`
	versity, ceph, behind := testlab.S3(t), testlab.Ceph(t), testlab.Ceph(t)
	for name, c := range map[string]struct {
		store   testlab.Store
		refused string
	}{
		"Ceph":                    {ceph, ""},
		"versitygw":               {versity, "../x a/../y .. ./z a/. //e a//b /lead a\\..\\b d//"},
		"any key":                 {testlab.AnyKey(t, 1000).Store, ""},
		"a proxy before Ceph":     {cleaned(t, behind).Store, all},
		"a proxy before any keys": {cleaned(t, testlab.AnyKey(t, 1000).Store).Store, all},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seen := testlab.FaultyS3(t, c.store, func(*http.Request) testlab.Answer { return nil })
			b := openAny(t, seen.Store, func(o *bucket.Options) { o.Grace, o.MaxRetries = time.Minute, 5 }) // a busy machine may take long
			for _, key := range odd {
				want := ""
				if strings.Contains(" "+c.refused+" ", " "+key+" ") {
					want = string(fault.KeyRefused)
				}
				if err := bucket.Holds(t.Context(), b, key); (want == "") != (err == nil) || err != nil && !fault.Is(err, fault.KeyRefused) {
					t.Errorf("%q: %v", key, err)
				}
			}
			asked := len(seen.Requests())
			for _, key := range append(odd, plain...) {
				err := bucket.Holds(t.Context(), b, key)
				if err != nil && !strings.Contains(" "+c.refused+" ", " "+key+" ") {
					t.Errorf("%q: %v", key, err)
				}
			}
			if again := len(seen.Requests()); again != asked {
				t.Errorf("%d requests more for keys of the same kinds", again-asked)
			}
			for o, err := range b.List(t.Context(), "") {
				t.Errorf("%q is left (%v)", o.Key, err)
			}
		})
	}
}

func TestKeysThatAProxyDecodesOnceTooOftenAreRefused(t *testing.T) {
	t.Parallel()
	decoding := testlab.FaultyS3(t, testlab.AnyKey(t, 1000).Store, func(*http.Request) testlab.Answer {
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			if once, err := url.PathUnescape(r.URL.Path); err == nil {
				r.URL.Path, r.URL.RawPath = once, ""
			}
			upstream.ServeHTTP(w, r)
		}
	})
	b := openAny(t, decoding.Store)
	for _, key := range []string{"k/a%20b", "%41", "x%c3%a9", "a%2Fb"} {
		if err := bucket.Holds(t.Context(), b, key); !fault.Is(err, fault.KeyRefused) {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{"k/a b", "100%", "%4", "%zz"} {
		if err := bucket.Holds(t.Context(), b, key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestAServerThatCannotBeAskedIsNoAnswer(t *testing.T) {
	t.Parallel()
	s := testlab.AnyKey(t, 1000)
	puts := func(r *http.Request) bool { return r.Method == http.MethodPut }
	b := openAny(t, testlab.FaultyS3(t, s.Store, testlab.Times(1, puts, testlab.Fail(503, "SlowDown"))).Store)
	if err := bucket.Holds(t.Context(), b, "a//b"); !fault.Is(err, fault.BucketBusy) {
		t.Errorf("a server that is busy: %v", err)
	}
	if err := bucket.Holds(t.Context(), b, "a//b"); err != nil {
		t.Errorf("the next time: %v", err)
	}
	b = openAny(t, testlab.FaultyS3(t, s.Store, testlab.Always(puts, testlab.Fail(403, "SignatureDoesNotMatch"))).Store)
	if err := bucket.Holds(t.Context(), b, "a//b"); !fault.Is(err, fault.KeyRefused) {
		t.Errorf("a signature that breaks: %v", err)
	}
}

func TestNoKindHoldsKeysThatItWouldTakeForOthers(t *testing.T) {
	t.Parallel()
	g := gcslab.Start(t)
	a := testlab.Azurite(t)
	azure := bucket.Options{Endpoint: a.Endpoint, AccessKeyID: a.Account, SecretAccessKey: func() string { return a.Key }}
	long := strings.Repeat("x", 256)
	for name, c := range map[string]struct {
		b    bucket.Bucket
		also []string
	}{
		"a folder": {open(t, t.TempDir(), bucket.Options{}), []string{long, "a/" + long + "/b"}},
		"memory":   {open(t, "mem://", bucket.Options{}), nil},
		"GCS":      {open(t, "gs://"+g.Bucket, bucket.Options{Endpoint: g.Endpoint}), nil},
		"Azure":    {open(t, "azblob://"+a.Container, azure), []string{`a\b`, "a./b", "a."}},
	} {
		for _, key := range append(c.also, "../x", "a/../y", "./z", "a//b", "/lead", "nul\x00", "\xff", strings.Repeat("y/", 600)) {
			if err := bucket.Holds(t.Context(), c.b, key); !fault.Is(err, fault.KeyRefused) {
				t.Errorf("%s, %.20q: %v", name, key, err)
			}
		}
		if err := bucket.Holds(t.Context(), c.b, "a/b c"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
