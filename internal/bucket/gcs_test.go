package bucket_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/fault"
)

// google answers uploads and downloads as the documentation of GCS says
// (cloud.google.com/storage/docs/performing-resumable-uploads), more strictly than the fake server does, for one object.
type google struct {
	*httptest.Server
	// before is asked first; it answers itself if it returns true.
	before func(g *google, w http.ResponseWriter, r *http.Request) bool
	take   int64 // bytes of a piece that are kept; all if 0

	mu       sync.Mutex
	content  []byte // of the upload, or of the object
	done     bool
	requests []*http.Request
}

func newGoogle(t *testing.T, before func(*google, http.ResponseWriter, *http.Request) bool) *google {
	g := &google{before: before}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *google) open(t *testing.T) bucket.Bucket {
	opts := impatient()
	opts.Endpoint = g.URL
	return open(t, "gs://bucket/root", opts)
}

// noise is bytes that differ from place to place.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.Read(data) // never fails, says crypto/rand
	return data
}

func crc32c(data []byte) string {
	sum := crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, sum))
}

func (g *google) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.requests = append(g.requests, r)
	if g.before != nil && g.before(g, w, r) {
		return
	}
	switch body, err := io.ReadAll(r.Body); {
	case err != nil:
		panic(http.ErrAbortHandler)
	case r.URL.Query().Get("uploadType") == "resumable":
		w.Header().Set("Location", g.URL+"/session?upload_id=1")
	case r.URL.Path == "/session":
		g.piece(w, r, body)
	case r.URL.Query().Get("uploadType") == "multipart":
		g.whole(w, r, body)
	case strings.HasPrefix(r.URL.Path, "/bucket/root/"):
		g.download(w, r)
	default:
		g.describe(w)
	}
}

func (g *google) describe(w http.ResponseWriter) {
	if !g.done {
		http.Error(w, `{"error":{"message":"No such object"}}`, http.StatusNotFound)
		return
	}
	fmt.Fprintf(w, `{"name":"root/k","size":"%d","generation":"7","updated":"2026-01-02T03:04:05Z"}`, len(g.content))
}

// piece takes the bytes of an upload from where it stands, and ignores those that it has.
func (g *google) piece(w http.ResponseWriter, r *http.Request, body []byte) {
	var from, to, size int64
	header := r.Header.Get("Content-Range")
	last := strings.Contains(header, "/") && !strings.HasSuffix(header, "/*")
	switch n, _ := fmt.Sscanf(header, "bytes %d-%d/%d", &from, &to, &size); {
	case n < 2 && last:
		from = int64(len(g.content))
	case n < 2, from > int64(len(g.content)), to-from+1 != int64(len(body)), !last && len(body)%(256<<10) != 0:
		http.Error(w, `{"error":{"message":"Invalid request"}}`, http.StatusBadRequest)
		return
	}
	if g.take > 0 && !last {
		body = body[:min(g.take, int64(len(body)))]
	}
	g.content = append(g.content[:from], body...)
	switch {
	case !last:
		w.Header().Set("Range", fmt.Sprintf("bytes=0-%d", len(g.content)-1))
		w.WriteHeader(http.StatusPermanentRedirect)
	case r.Header.Get("X-Goog-Hash") != "crc32c="+crc32c(g.content):
		http.Error(w, `{"error":{"message":"Provided CRC32C does not match"}}`, http.StatusBadRequest)
	default:
		g.done = true
		g.describe(w)
	}
}

func (g *google) whole(w http.ResponseWriter, r *http.Request, body []byte) {
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		panic(err)
	}
	parts := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	var about struct{ CRC32C string }
	part, err := parts.NextPart()
	if err == nil {
		err = json.NewDecoder(part).Decode(&about)
	}
	if err == nil {
		part, err = parts.NextPart()
	}
	if err != nil {
		panic(err)
	}
	g.content, _ = io.ReadAll(part)
	if about.CRC32C != crc32c(g.content) {
		http.Error(w, `{"error":{"message":"Provided CRC32C does not match"}}`, http.StatusBadRequest)
		return
	}
	g.done = true
	g.describe(w)
}

func (g *google) download(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Goog-Generation", "7")
	w.Header().Add("X-Goog-Hash", "crc32c="+crc32c(g.content))
	w.Header().Add("X-Goog-Hash", "md5=1B2M2Y8AsgTpgAmY7PhCfg==")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(g.content))
}

func TestAGCSUploadGoesOnWhereTheServerStands(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, nil)
	g.take = 768 << 10
	data := noise(2*buckettest.PartSize + 12345)
	o, err := bucket.WriteAll(t.Context(), g.open(t), "k", data, bucket.WriteOptions{})
	if err != nil || o.Size != int64(len(data)) || o.ETag != "7" {
		t.Fatalf("got %+v, %v", o, err)
	}
	if !bytes.Equal(g.content, data) {
		t.Error("other bytes arrived")
	}
}

func TestAGCSUploadHasNothingVisibleBeforeItsEnd(t *testing.T) {
	t.Parallel()
	g := newGoogle(t, nil)
	u, err := g.open(t).Create(t.Context(), "k", bucket.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Write(noise(2*buckettest.PartSize + 1)); err != nil {
		t.Fatal(err)
	}
	u.Abort()
	if last := g.requests[len(g.requests)-1]; g.done || last.Method != http.MethodDelete || last.URL.Path != "/session" {
		t.Errorf("the upload was not given up: %s %s", last.Method, last.URL)
	}
}

func TestAGCSUploadIsTriedAsOftenAsAllowed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		size  int
		fails func(*http.Request) bool
		times int
		want  fault.Code
		tries int
	}{
		{"small heals", 1000, func(r *http.Request) bool { return r.URL.Query().Get("uploadType") == "multipart" }, 3, "", 4},
		{"small does not", 1000, func(r *http.Request) bool { return r.URL.Query().Get("uploadType") == "multipart" }, 1000, fault.BucketBusy, 4},
		{"begin heals", buckettest.PartSize + 1, func(r *http.Request) bool { return r.URL.Query().Get("uploadType") == "resumable" }, 2, "", 3},
		{"piece heals", buckettest.PartSize + 1, func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.Header.Get("Content-Range"), "/*")
		}, 3, "", 4},
		{"piece does not", buckettest.PartSize + 1, func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.HasSuffix(r.Header.Get("Content-Range"), "/*")
		}, 1000, fault.BucketBusy, 4},
		{"end heals", buckettest.PartSize + 1, func(r *http.Request) bool {
			return r.Method == http.MethodPut && !strings.HasSuffix(r.Header.Get("Content-Range"), "/*")
		}, 3, "", 4},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			tries := 0
			g := newGoogle(t, func(_ *google, w http.ResponseWriter, r *http.Request) bool {
				if !c.fails(r) {
					return false
				}
				if tries++; tries > c.times {
					return false
				}
				_, _ = io.Copy(io.Discard, r.Body)
				http.Error(w, `{"error":{"message":"Backend Error"}}`, http.StatusServiceUnavailable)
				return true
			})
			data := noise(c.size)
			_, err := bucket.WriteAll(t.Context(), g.open(t), "k", data, bucket.WriteOptions{})
			switch {
			case c.want != "" && (!fault.Is(err, c.want) || !strings.Contains(err.Error(), "Backend Error")):
				t.Errorf("want the fault %s, got %v", c.want, err)
			case c.want == "" && (err != nil || !bytes.Equal(g.content, data)):
				t.Errorf("it did not arrive: %v", err)
			}
			if tries != c.tries {
				t.Errorf("%d tries, want %d", tries, c.tries)
			}
		})
	}
}

func TestAGCSObjectIsReadAsItIsStoredAndHeldAgainstItsSum(t *testing.T) {
	t.Parallel()
	wrong := false
	g := newGoogle(t, func(_ *google, w http.ResponseWriter, r *http.Request) bool {
		if wrong && r.Method == http.MethodGet {
			w.Header().Set("X-Goog-Hash", "crc32c=AAAAAA==")
		}
		return false
	})
	b, data := g.open(t), noise(100_000)
	if _, err := bucket.WriteAll(t.Context(), b, "k", data, bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := bucket.ReadAll(t.Context(), b, "k", 1<<20)
	if err != nil || !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	if how := g.requests[len(g.requests)-1].Header["Accept-Encoding"]; !slices.Equal(how, []string{"gzip"}) {
		t.Errorf("GCS may unpack it: Accept-Encoding is %q", how)
	}
	wrong = true
	if _, err := bucket.ReadAll(t.Context(), b, "k", 1<<20); !fault.Is(err, fault.ChecksumMismatch) {
		t.Errorf("with a wrong sum: %v", err)
	}
	r, err := b.Open(t.Context(), "k", 10, 50)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data[10:60]) { // a range has no sum
		t.Errorf("a range: %d bytes, %v", len(got), err)
	}
}

// loginFile writes a service account's key file whose tokens come from a server.
func loginFile(t *testing.T, tokens string) string {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "leat@example.com", "private_key_id": "1", "token_uri": tokens,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "quota_project_id": "payer",
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "login.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGoogleCredentialsAreUsed(t *testing.T) {
	refuse := false
	tokens := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refuse {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"the-token","token_type":"Bearer","expires_in":3600}`)
	}))
	defer tokens.Close()
	var asked []http.Header
	store := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Header)
		fmt.Fprint(w, `{"name":"k","size":"1","generation":"1","updated":"2026-01-02T03:04:05Z"}`)
	}))
	defer store.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	var text []byte
	for _, s := range []*httptest.Server{tokens, store} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})...)
	}
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", loginFile(t, tokens.URL))
	opts := impatient()
	opts.Endpoint, opts.CAFile = store.URL, ca
	for range 2 {
		if _, err := open(t, "gs://bucket", opts).Stat(t.Context(), "k"); err != nil && !refuse {
			t.Fatal(err)
		} else if refuse && !fault.Is(err, fault.BucketAuth) {
			t.Errorf("a login that fails: %v", err)
		}
		refuse = true
	}
	if len(asked) != 1 || asked[0].Get("Authorization") != "Bearer the-token" || asked[0].Get("X-Goog-User-Project") != "payer" {
		t.Errorf("got the requests %q", asked)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nobody/login.json")
	if _, err := bucket.Open(t.Context(), "gs://bucket", opts); !fault.Is(err, fault.BucketAuth) {
		t.Errorf("without a key file: %v", err)
	}
}
