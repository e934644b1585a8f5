package mirror_test

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc64"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// silent is what a server says of objects whose ETags are no hashes of the content.
type silent struct {
	etag string            // "" leaves it as it is
	head map[string]string // headers of its answers
	sums bool              // it tells a checksum to who asks for it
	deaf bool              // it refuses to be asked for checksums
}

var silents = map[string]silent{
	"SSE-KMS":                         {etag: "0123456789abcdef0123456789abcdef", head: map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms"}},
	"SSE-C":                           {etag: "0123456789abcdef0123456789abcdef", head: map[string]string{"X-Amz-Server-Side-Encryption-Customer-Algorithm": "AES256"}},
	"ETags of its own":                {etag: "0x8DD1F0C5A3B2E11"},
	"SSE-KMS with checksums":          {etag: "0123456789abcdef0123456789abcdef", head: map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms"}, sums: true},
	"SSE-KMS with ETags of the bytes": {head: map[string]string{"X-Amz-Server-Side-Encryption": "aws:kms"}},
	"who refuses to tell checksums":   {etag: "0x8DD1F0C5A3B2E11", deaf: true},
}

func nvmeOf(data []byte) string {
	var sum [8]byte
	binary.BigEndian.PutUint64(sum[:], crc64.Checksum(data, crc64.MakeTable(0x9a6c9329ac4bc9b5)))
	return base64.StdEncoding.EncodeToString(sum[:])
}

var listedETag = regexp.MustCompile(`<ETag>[^<]*</ETag>`)

// before puts such a server in the place of a store; spoil changes the bytes of each reading, of which it is told the number.
func (s silent) before(t testing.TB, store *testlab.AnyKeyStore, spoil func(n int64, body []byte)) (at testlab.Store, reads *atomic.Int64) {
	reads = &atomic.Int64{}
	proxy := testlab.FaultyS3(t, store.Store, func(r *http.Request) testlab.Answer {
		object := strings.HasPrefix(r.URL.Path, "/any/app/") && !strings.Contains(r.URL.Path, "/.leat/") && (r.URL.RawQuery == "" || r.URL.Query().Has("x-id"))
		switch {
		case r.URL.Query().Has("list-type") && s.etag != "":
			return altered(func(_ http.Header, body []byte) []byte {
				return listedETag.ReplaceAll(body, []byte("<ETag>&quot;"+s.etag+"&quot;</ETag>"))
			})
		case !object || r.Method == http.MethodPut:
			return nil
		case s.deaf && r.Header.Get("X-Amz-Checksum-Mode") != "":
			return testlab.Fail(http.StatusNotImplemented, "NotImplemented")
		}
		asked := r.Header.Get("X-Amz-Checksum-Mode") != ""
		if s.etag != "" && r.Header.Get("If-Match") == `"`+s.etag+`"` {
			r.Header.Del("If-Match")
		}
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			reply := httptest.NewRecorder()
			upstream.ServeHTTP(reply, r)
			head, body := reply.Header().Clone(), reply.Body.Bytes()
			for name, value := range s.head {
				head.Set(name, value)
			}
			if s.etag != "" {
				head.Set("Etag", `"`+s.etag+`"`)
			}
			if s.sums && asked {
				head.Set("X-Amz-Checksum-Crc64nvme", nvmeOf(store.Data(strings.TrimPrefix(r.URL.Path, "/any/"))))
			}
			if r.Method == http.MethodGet {
				if n := reads.Add(1); spoil != nil && len(body) > 0 {
					spoil(n, body)
				}
			}
			for name, values := range head {
				w.Header()[name] = values
			}
			w.WriteHeader(reply.Code)
			_, _ = w.Write(body)
		}
	})
	return proxy.Store, reads
}

func TestSmallObjectsOfWhichNothingTellsAreReadTwice(t *testing.T) {
	t.Parallel()
	for name, s := range silents {
		twice := !s.sums && s.etag != ""
		for where, target := range map[string]func(*testing.T) bucket.Bucket{
			"a bucket": func(t *testing.T) bucket.Bucket { return open(t, testlab.AnyKey(t, 1000).Store, "app") },
			"a folder": func(t *testing.T) bucket.Bucket { return folderOf(t, t.TempDir()) },
		} {
			t.Run(name+" to "+where, func(t *testing.T) {
				t.Parallel()
				for how, c := range map[string]struct {
					spoil func(n int64, body []byte)
					right bool
				}{
					"as it is":                 {nil, true},
					"changed at first":         {func(n int64, b []byte) { b[0] ^= byte(1 >> (n - 1)) }, true},
					"changed otherwise always": {func(n int64, b []byte) { b[0] ^= byte(n) }, false},
				} {
					near := testlab.AnyKey(t, 1000)
					near.Put("app/a", []byte("small"))
					near.Put("app/empty", nil)
					at, reads := s.before(t, near, c.spoil)
					to := target(t)
					r, w, err := run(t, open(t, at, "app"), to, func(o *mirror.Options) { o.Attempts, o.Parallel = 3, 1 })
					data, missing := bucket.ReadAll(t.Context(), to, "a", 1<<10)
					if c.right && (err != nil || string(data) != "small") || !c.right && (!fault.Is(missing, fault.ObjectMissing) || r.FailedBy[fault.ChecksumMismatch] != 1) {
						t.Errorf("%s: %v, %q came (%v), failed by %v", how, err, data, missing, r.FailedBy)
					}
					want := int64(2) // both objects once
					if twice {
						want++
					}
					if how == "as it is" && (reads.Load() != want || w.again != 0) {
						t.Errorf("%d readings, want %d; %d more attempts", reads.Load(), want, w.again)
					}
				}
			})
		}
	}
}
