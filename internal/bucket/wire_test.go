package bucket_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// sink is an S3 server that takes uploads, forgets the bytes and remembers the headers.
type sink struct {
	*httptest.Server

	mu       sync.Mutex
	requests []http.Header
	sums     []string // of the bodies, beside requests
	bytes    int64
}

func newSink(t *testing.T, start func(http.Handler) *httptest.Server) *sink {
	s := &sink{}
	s.Server = start(s)
	t.Cleanup(s.Close)
	return s
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.mu.Lock()
	s.requests, s.sums = append(s.requests, r.Header.Clone()), append(s.sums, hex.EncodeToString(sum.Sum(nil)))
	s.bytes += n
	s.mu.Unlock()
	w.Header().Set("ETag", `"etag"`)
	switch q := r.URL.Query(); {
	case r.Method == http.MethodPost && q.Has("uploads"):
		fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == http.MethodPost:
		fmt.Fprint(w, `<CompleteMultipartUploadResult><ETag>"etag"</ETag></CompleteMultipartUploadResult>`)
	}
}

func (s *sink) open(t *testing.T, opts bucket.Options) bucket.Bucket {
	opts.Endpoint, opts.AccessKeyID, opts.SecretAccessKey = s.URL, "id", func() string { return "secret" }
	return open(t, "s3://bucket", opts)
}

func TestALargeUploadHoldsFewBuffers(t *testing.T) {
	t.Parallel()
	const parallel, size = 3, 100 << 20
	s := newSink(t, httptest.NewServer)
	b := s.open(t, bucket.Options{PartParallel: parallel})
	u, err := b.Create(t.Context(), "k", bucket.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 1<<20)
	for range size / len(piece) {
		if _, err := u.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := u.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	held, peak := bucket.PartBuffers(b)
	if peak > parallel+1 || peak < 2 || held != 0 {
		t.Errorf("at most %d part buffers were in use, want %d at most; %d are still", peak, parallel+1, held)
	}
	if s.bytes < size {
		t.Errorf("the server got %d bytes, want %d", s.bytes, size)
	}
}

func TestAFailedUploadGivesItsBuffersBack(t *testing.T) {
	t.Parallel()
	lab := testlab.FaultyS3(t, testlab.S3(t), testlab.Always(isPart, testlab.Fail(403, "AccessDenied")))
	b := openS3(t, lab.Store, impatient())
	if _, err := bucket.WriteAll(t.Context(), b, "k", make([]byte, 40<<20), bucket.WriteOptions{}); !fault.Is(err, fault.BucketRights) {
		t.Errorf("got %v", err)
	}
	if held, _ := bucket.PartBuffers(b); held != 0 {
		t.Errorf("%d part buffers are still in use", held)
	}
}

func TestSmallObjectsTakeNoPartBuffer(t *testing.T) {
	t.Parallel()
	b := newSink(t, httptest.NewServer).open(t, bucket.Options{})
	for range 100 {
		u, err := b.Create(t.Context(), "k", bucket.WriteOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer u.Abort()
		if _, err := u.Write(make([]byte, 2<<10)); err != nil {
			t.Fatal(err)
		}
	}
	if _, peak := bucket.PartBuffers(b); peak != 0 {
		t.Errorf("100 objects of 2 KiB took %d part buffers", peak)
	}
}

func TestPartsGrowToTheLargestObject(t *testing.T) {
	t.Parallel()
	for _, first := range []int64{8 << 20, 10 << 20} {
		total, largest := int64(0), 0
		for _, size := range bucket.PartSizes(first) {
			total, largest = total+int64(size), max(largest, size)
		}
		if total < 5<<40 || int64(largest) > 5<<30 {
			t.Errorf("parts that begin with %d bytes carry %d in all; the largest has %d", first, total, largest)
		}
	}
	for _, size := range bucket.PartSizes(8 << 20)[:1000] {
		if size != 8<<20 {
			t.Fatalf("among the first 8 GB is a part of %d bytes", size)
		}
	}
}

func TestEveryPayloadIsCoveredByAChecksum(t *testing.T) {
	t.Parallel()
	s := newSink(t, httptest.NewTLSServer)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, checksums := range []string{"auto", "off", "required"} {
		b := s.open(t, bucket.Options{CAFile: ca, Checksums: checksums, PartSize: buckettest.PartSize})
		s.requests, s.sums = nil, nil
		for key, n := range map[string]int{"small": 1000, "large": buckettest.PartSize + 1} {
			if _, err := bucket.WriteAll(t.Context(), b, key, bytes.Repeat([]byte("x"), n), bucket.WriteOptions{}); err != nil {
				t.Fatalf("%s: %v", checksums, err)
			}
		}
		for i, head := range s.requests {
			signed := head.Get("X-Amz-Content-Sha256") == s.sums[i]
			trailer := head.Get("X-Amz-Trailer") == "x-amz-checksum-crc32"
			empty := head.Get("Content-Length") == "0"
			if checksums != "required" && (!signed || trailer) || checksums == "required" && !signed && !trailer && !empty {
				t.Errorf("%s: the payload of request %d is not covered: %q", checksums, i, head)
			}
		}
		if len(s.requests) != 5 {
			t.Errorf("%s: %d requests, want 5", checksums, len(s.requests))
		}
	}
}

func TestAnUnknownAuthorityIsNamed(t *testing.T) {
	t.Parallel()
	s := newSink(t, func(h http.Handler) *httptest.Server {
		server := httptest.NewUnstartedServer(h)
		server.Config.ErrorLog = quiet()
		server.StartTLS()
		return server
	})
	b := s.open(t, impatient())
	_, err := b.Stat(t.Context(), "k")
	if !fault.Is(err, fault.BucketUnreachable) || !strings.Contains(fault.Of(err).HowToMend(), "CA file") {
		t.Errorf("got %v, mend %q", err, fault.Of(err).HowToMend())
	}
}

func TestEncryptionIsAskedForOrRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		store    func(testing.TB) testlab.Store
		sse, key string
		want     fault.Code
	}{
		{"Ceph knows SSE-KMS", testlab.Ceph, "aws:kms", "testkey-1", ""},
		{"Ceph 16 ignores SSE-S3", testlab.Ceph, "AES256", "", fault.BucketUnsupported},
		{"versitygw ignores both", testlab.S3, "AES256", "", fault.BucketUnsupported},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			opts := impatient()
			opts.SSE, opts.KMSKeyID = c.sse, c.key
			store := c.store(t)
			b := openS3(t, store, opts)
			for key, n := range map[string]int{"small": 10, "large": buckettest.PartSize + 1} {
				_, err := bucket.WriteAll(t.Context(), b, key, make([]byte, n), bucket.WriteOptions{})
				if c.want != "" {
					if !fault.Is(err, c.want) {
						t.Errorf("%s: want the fault %s, got %v", key, c.want, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if o, err := b.Stat(t.Context(), key); err != nil || o.Encryption != c.sse {
					t.Errorf("%s: Stat says %+v, %v", key, o, err)
				}
			}
			if c.want != "" {
				bare(t, store)
			}
			unfinished(t, store, 0)
		})
	}
}

func TestProbeFindsOutWhatAServerCanDo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		store          func(testing.TB) testlab.Store
		put, multipart bucket.Support
	}{
		{"versitygw", testlab.S3, bucket.Supported, bucket.Supported},
		{"Ceph 16", testlab.Ceph, bucket.Supported, bucket.Unsupported},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			store := c.store(t)
			b := openS3(t, store, impatient())
			if p := b.Properties(); p.ConditionalPut != bucket.Unknown || p.ConditionalMultipart != bucket.Unknown {
				t.Errorf("before anybody tried: %+v", p)
			}
			p, err := bucket.Probe(t.Context(), b)
			if err != nil || p.ConditionalPut != c.put || p.ConditionalMultipart != c.multipart {
				t.Errorf("got %+v, %v", p, err)
			}
			bare(t, store)
			unfinished(t, store, 0)
		})
	}
}

func TestTheRateIsKept(t *testing.T) {
	t.Parallel()
	// A byte a second after the first burst would take longer than any deadline: that is known
	// without waiting.
	b := open(t, "mem://", bucket.Options{MaxRate: 1})
	if _, err := bucket.WriteAll(t.Context(), b, "fits", make([]byte, 60<<10), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithHour(t)
	defer cancel()
	_, err := bucket.WriteAll(ctx, b, "k", make([]byte, 60<<10), bucket.WriteOptions{})
	if !fault.Is(err, fault.Interrupted) {
		t.Errorf("writing: %v", err)
	}
	_, err = bucket.ReadAll(ctx, b, "fits", 1<<20)
	if !fault.Is(err, fault.Interrupted) {
		t.Errorf("reading: %v", err)
	}
}
