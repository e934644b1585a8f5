package mirror_test

import (
	"cmp"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/testlab/gcslab"
)

func googleOf(t *testing.T, g gcslab.Store) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "gs://"+g.Bucket+"/app", bucket.Options{Endpoint: g.Endpoint})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func azureOf(t *testing.T, a testlab.Azure) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "azblob://"+a.Container+"/app", bucket.Options{
		Endpoint: a.Endpoint, AccessKeyID: a.Account, SecretAccessKey: func() string { return a.Key },
	})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// targets are one of each kind.
var targets = map[string]func(*testing.T) bucket.Bucket{
	"a bucket": func(t *testing.T) bucket.Bucket { return open(t, testlab.AnyKey(t, 1000).Store, "app") },
	"a folder": func(t *testing.T) bucket.Bucket { return folderOf(t, t.TempDir()) },
	"GCS":      func(t *testing.T) bucket.Bucket { return googleOf(t, gcslab.Start(t)) },
	"Azure":    func(t *testing.T) bucket.Bucket { return azureOf(t, testlab.Azurite(t)) },
}

// flips changes a byte of each answer in the same way, as a broken gateway does.
var flips = altered(func(_ http.Header, body []byte) []byte {
	if len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	return body
})

func TestObjectsInPartsAreComparedWithTheirETagOnTheWayToEveryKind(t *testing.T) {
	t.Parallel()
	near := testlab.AnyKey(t, 1000)
	inParts(t, near.Store, "app/uneven", 5<<20+1, 6<<20, 7)
	inParts(t, near.Store, "app/even", 5<<20, 5<<20, 1)
	inParts(t, near.Store, "app/pair", 12<<20, 6<<20)
	inParts(t, near.Store, "app/single", 9<<20)
	asked := func(r *http.Request) bool { return r.URL.Query().Has("partNumber") }
	sources := map[string]struct {
		script testlab.Script
		right  bool
	}{
		"as they are":                     {func(*http.Request) testlab.Answer { return nil }, true},
		"from who does not tell of parts": {testlab.Always(asked, testlab.Fail(501, "NotImplemented")), true},
		"changed on their way": {func(r *http.Request) testlab.Answer {
			object := strings.HasPrefix(r.URL.Path, "/any/app/") && !r.URL.Query().Has("tagging")
			if r.Method == http.MethodGet && object {
				return flips
			}
			return nil
		}, false},
	}
	for from, source := range sources {
		for to, target := range targets {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				far := target(t)
				by := testlab.FaultyS3(t, near.Store, source.script)
				r, w, err := run(t, open(t, by.Store, "app"), far, func(o *mirror.Options) { o.Attempts = 2 })
				if source.right {
					must(t, err)
				} else if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.ChecksumMismatch] != 4 {
					t.Errorf("it ends with %v, and failed by %v", err, r.FailedBy)
				}
				if source.right && w.again != 0 {
					t.Errorf("%d attempts were too many", w.again)
				}
				for _, key := range []string{"uneven", "even", "pair", "single"} {
					data, err := bucket.ReadAll(t.Context(), far, key, 32<<20)
					switch {
					case source.right && (err != nil || string(data) != string(near.Data("app/"+key))):
						t.Errorf("%s came otherwise than it is: %v", key, err)
					case !source.right && !fault.Is(err, fault.ObjectMissing):
						t.Errorf("%s came, changed on its way", key)
					}
				}
			})
		}
	}
}

func TestBytesFromEveryKindAreComparedWithTheSumsThatItKeeps(t *testing.T) {
	t.Parallel()
	g, a := gcslab.Start(t), testlab.Azurite(t)
	content := func(r *http.Request) bool {
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		bytes := r.Method == http.MethodGet && !strings.HasPrefix(r.URL.Path, "/storage/v1/")
		return bytes && (name == "changed" || name == "cut")
	}
	spoilt := func(r *http.Request) testlab.Answer {
		from := cmp.Or(r.Header.Get("Range"), r.Header.Get("X-Ms-Range"), "bytes=0-")
		if !strings.Contains(r.URL.Path, "/"+a.Account+"/") {
			r.Host = strings.TrimPrefix(g.Endpoint, "http://") // it serves no other
		}
		switch {
		case !content(r):
			return nil
		case strings.HasSuffix(r.URL.Path, "/changed"), !strings.HasPrefix(from, "bytes=0-"):
			return flips
		}
		return testlab.CutReply(1 << 20) // the rest is asked for, and comes changed
	}
	gp, ap := g, a
	by := func(endpoint string) string {
		return testlab.FaultyS3(t, testlab.Store{Endpoint: endpoint}, spoilt).Endpoint
	}
	gp.Endpoint = by(g.Endpoint)
	ap.Endpoint = by(strings.TrimSuffix(a.Endpoint, "/"+a.Account)) + "/" + a.Account
	for name, sides := range map[string][2]bucket.Bucket{
		"GCS":   {googleOf(t, g), googleOf(t, gp)},
		"Azure": {azureOf(t, a), azureOf(t, ap)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, key := range []string{"changed", "cut", "right"} {
				_, err := bucket.WriteAll(t.Context(), sides[0], key, noise(7, 3<<20), bucket.WriteOptions{})
				must(t, err)
			}
			far := folderOf(t, t.TempDir())
			r, _, err := run(t, sides[1], far, func(o *mirror.Options) { o.Attempts = 2 })
			wrong := r.FailedBy[fault.ChecksumMismatch]
			if !fault.Is(err, fault.MirrorIncomplete) || wrong != 2 || r.Carried.Objects != 1 {
				t.Errorf("it ends with %v, and %d came: %v", err, r.Carried.Objects, r.SetAside)
			}
		})
	}
}

func TestAFileThatIsWrittenWhileItIsReadIsReadAgain(t *testing.T) {
	t.Parallel()
	dir, store := t.TempDir(), testlab.AnyKey(t, 1000)
	before, after := noise(1, 48<<20), noise(2, 48<<20)
	must(t, os.WriteFile(filepath.Join(dir, "a"), before, 0o600))
	written := func(w http.ResponseWriter, r *http.Request, up http.Handler) {
		file, err := os.OpenFile(filepath.Join(dir, "a"), os.O_WRONLY, 0) // no more than a few parts have been read
		if err == nil {
			_, err = file.Write(after)
			err = errors.Join(err, file.Close())
		}
		if err != nil {
			t.Error(err)
		}
		up.ServeHTTP(w, r)
	}
	far := testlab.FaultyS3(t, store.Store, testlab.Times(1, of(http.MethodPut, "/app/a"), written))
	_, w, err := run(t, folderOf(t, dir), open(t, far.Store, "app"), nil)
	if must(t, err); w.again != 1 || string(store.Data("app/a")) != string(after) {
		t.Errorf("after %d more attempts it has %d bytes, and not those of the file", w.again, len(store.Data("app/a")))
	}
}

func TestBucketsOfATenantAreMirrored(t *testing.T) {
	t.Parallel()
	near := testlab.CephTenant(t)
	put(t, near, s3.PutObjectInput{Key: aws.String("app/a b/ü:%+"), Tagging: aws.String("a=b")}, []byte("x"))
	multipart(t, near, "app/large", noise(1, 17<<20), 8<<20)
	for name, far := range map[string]testlab.Store{
		"of the same server": testlab.CephTenant(t), "of no tenant": testlab.Ceph(t), "elsewhere": testlab.S3(t),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text(t, far, "copy/gone", "gone")
			for range 2 {
				_, _, err := run(t, open(t, near, "app"), open(t, far, "copy"), func(o *mirror.Options) { o.Delete = true })
				must(t, err)
			}
			sameContent(t, content(t, near, "app"), content(t, far, "copy"))
		})
	}
}
