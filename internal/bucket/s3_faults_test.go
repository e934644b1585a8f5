package bucket_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/bucket/buckettest"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// impatient are options with which failures come soon.
func impatient() bucket.Options {
	return bucket.Options{
		PartSize: buckettest.PartSize, MaxRetries: 3, Backoff: 2 * time.Millisecond,
		Stall: 20 * time.Second, Grace: 10 * time.Second,
	}
}

// The requests of an upload.
func isPut(r *http.Request) bool {
	return r.Method == http.MethodPut && !r.URL.Query().Has("uploadId") && !isProbe(r)
}
func isPart(r *http.Request) bool {
	return r.Method == http.MethodPut && r.URL.Query().Has("uploadId") && !isProbe(r)
}
func isBegin(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploads") && !isProbe(r)
}
func isComplete(r *http.Request) bool {
	return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") && !isProbe(r)
}
func isProbe(r *http.Request) bool { return strings.Contains(r.URL.Path, ".leat-probe-") }
func isGet(r *http.Request) bool {
	return r.Method == http.MethodGet && !r.URL.Query().Has("list-type")
}

func isHead(r *http.Request) bool { return r.Method == http.MethodHead && !isProbe(r) }

// both lets the first script that has an answer decide.
func both(scripts ...testlab.Script) testlab.Script {
	return func(r *http.Request) testlab.Answer {
		for _, s := range scripts {
			if answer := s(r); answer != nil {
				return answer
			}
		}
		return nil
	}
}

// errorInside answers 200 and puts an error into the body, as S3 may when it has already begun to
// answer (docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html).
func errorInside(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	_, _ = io.WriteString(w, `<?xml version="1.0"?><Error><Code>InternalError</Code><Message>We failed.</Message></Error>`)
}

// flipByte changes the body on its way.
func flipByte(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
	data, err := io.ReadAll(r.Body)
	if err != nil || len(data) == 0 {
		panic(http.ErrAbortHandler)
	}
	data[len(data)/2] ^= 1
	r.Body = io.NopCloser(bytes.NewReader(data))
	upstream.ServeHTTP(w, r)
}

func TestAnUploadHealsOrSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	const small, large = 1000, 3*buckettest.PartSize + 1
	absent := bucket.WriteOptions{IfAbsent: true}
	for name, c := range map[string]struct {
		size   int
		opts   bucket.WriteOptions
		script testlab.Script
		want   fault.Code // "" for success
		tries  int        // of the request that fails; 0 for any number
	}{
		"500 for a moment":                        {small, bucket.WriteOptions{}, testlab.Times(3, isPut, testlab.Fail(500, "InternalError")), "", 4},
		"503 for a moment":                        {large, bucket.WriteOptions{}, testlab.Times(3, isPart, testlab.Fail(503, "SlowDown")), "", 0},
		"429 for a moment":                        {small, bucket.WriteOptions{}, testlab.Times(2, isPut, testlab.Fail(429, "TooManyRequests")), "", 3},
		"503 at the beginning":                    {large, bucket.WriteOptions{}, testlab.Times(2, isBegin, testlab.Fail(503, "SlowDown")), "", 0},
		"503 for ever":                            {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(503, "SlowDown")), fault.BucketBusy, 4},
		"503 for ever for parts":                  {large, bucket.WriteOptions{}, testlab.Always(isPart, testlab.Fail(503, "SlowDown")), fault.BucketBusy, 0},
		"403":                                     {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(403, "AccessDenied")), fault.BucketRights, 1},
		"403 for parts":                           {large, bucket.WriteOptions{}, testlab.Always(isPart, testlab.Fail(403, "AccessDenied")), fault.BucketRights, 0},
		"403 at the end":                          {large, bucket.WriteOptions{}, testlab.Always(isComplete, testlab.Fail(403, "AccessDenied")), fault.BucketRights, 1},
		"an expired token":                        {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(400, "ExpiredToken")), fault.BucketAuth, 1},
		"a token that expires between":            {large, bucket.WriteOptions{}, testlab.Always(isComplete, testlab.Fail(400, "ExpiredToken")), fault.BucketAuth, 1},
		"a wrong signature":                       {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(403, "SignatureDoesNotMatch")), fault.BucketAuth, 1},
		"no bucket":                               {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(404, "NoSuchBucket")), fault.BucketMissing, 1},
		"a full quota":                            {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(403, "QuotaExceeded")), fault.BucketFull, 1},
		"a full disk":                             {large, bucket.WriteOptions{}, testlab.Always(isPart, testlab.Fail(507, "InsufficientStorage")), fault.BucketFull, 0},
		"a request that is not known":             {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(501, "NotImplemented")), fault.BucketUnsupported, 0},
		"a request that is wrong":                 {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(400, "InvalidArgument")), fault.BucketFailed, 1},
		"a folder that vanishes for a moment":     {small, absent, testlab.Times(2, isPut, testlab.Fail(409, "ExistingObjectIsDirectory")), "", 3},
		"a reset connection":                      {small, bucket.WriteOptions{}, testlab.Times(2, isPut, testlab.Reset), "", 3},
		"a reset connection for parts":            {large, bucket.WriteOptions{}, testlab.Times(2, isPart, testlab.Reset), "", 0},
		"a connection that always breaks":         {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Reset), fault.BucketUnreachable, 4},
		"a lost answer":                           {small, bucket.WriteOptions{}, testlab.Times(1, isPut, testlab.LoseReply), "", 2},
		"a lost answer to a condition":            {small, absent, testlab.Times(1, isPut, testlab.LoseReply), "", 2},
		"answers that are always lost":            {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.LoseReply), "", 4},
		"a lost answer at the end":                {large, bucket.WriteOptions{}, testlab.Times(1, isComplete, testlab.LoseReply), "", 0},
		"a lost answer at the end to a condition": {large, absent, testlab.Times(1, isComplete, testlab.LoseReply), "", 0},
		"a condition that fails, and no look":     {small, absent, both(testlab.Always(isPut, testlab.Fail(412, "PreconditionFailed")), testlab.Always(isHead, testlab.Fail(503, "SlowDown"))), fault.BucketBusy, 1},
		"a condition that fails at the end, too":  {large, absent, both(testlab.Always(isComplete, testlab.Fail(412, "PreconditionFailed")), testlab.Always(isHead, testlab.Reset)), fault.BucketUnreachable, 1},
		"a condition that fails, and a look":      {small, absent, testlab.Always(isPut, testlab.Fail(412, "PreconditionFailed")), fault.ObjectExists, 1},
		"412 without a condition":                 {small, bucket.WriteOptions{}, testlab.Always(isPut, testlab.Fail(412, "PreconditionFailed")), fault.BucketFailed, 1},
		"404 without a condition":                 {large, bucket.WriteOptions{}, testlab.Always(isPart, testlab.Fail(404, "NoSuchUpload")), fault.BucketFailed, 0},
		"another write at the same moment":        {small, absent, testlab.Always(isPut, testlab.Fail(409, "UnknownConflict")), fault.BucketBusy, 1},
		"an error inside 200 for a moment":        {large, bucket.WriteOptions{}, testlab.Times(2, isComplete, errorInside), "", 3},
		"an error inside 200 for ever":            {large, bucket.WriteOptions{}, testlab.Always(isComplete, errorInside), fault.BucketBusy, 4},
		"a byte that changes":                     {small, bucket.WriteOptions{}, testlab.Times(1, isPut, flipByte), "", 2},
		"a byte that changes in a part":           {large, bucket.WriteOptions{}, testlab.Times(2, isPart, flipByte), "", 0},
		"bytes that always change":                {small, bucket.WriteOptions{}, testlab.Always(isPut, flipByte), fault.ChecksumMismatch, 4},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			store := testlab.S3(t)
			lab := testlab.FaultyS3(t, store, c.script)
			b := openS3(t, lab.Store, impatient())
			data := bytes.Repeat([]byte("0123456789abcdef"), c.size/16+1)[:c.size]
			_, err := bucket.WriteAll(t.Context(), b, "dir/k", data, c.opts)
			if tries := triesOf(lab.Requests(), c.size > small); c.tries > 0 && tries != c.tries {
				t.Errorf("%d tries, want %d: %q", tries, c.tries, lab.Requests())
			}
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if got, err := bucket.ReadAll(t.Context(), b, "dir/k", 64<<20); err != nil || !bytes.Equal(got, data) {
					t.Errorf("%d bytes came back, want %d (%v)", len(got), len(data), err)
				}
			} else {
				if !fault.Is(err, c.want) {
					t.Errorf("want the fault %s, got %v", c.want, err)
				}
				bare(t, store)
			}
			unfinished(t, store, 0)
		})
	}
}

// triesOf counts the requests that make the object visible.
func triesOf(requests []string, large bool) int {
	tries := 0
	for _, r := range requests {
		visible := strings.HasPrefix(r, "PUT ") && !large || strings.HasPrefix(r, "POST ") && strings.Contains(r, "uploadId=")
		if visible && !strings.Contains(r, ".leat-probe-") {
			tries++
		}
	}
	return tries
}

// bare checks, past the code under test, that the store holds no object.
func bare(t *testing.T, s testlab.Store) {
	t.Helper()
	out, err := s.Client().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &s.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Contents {
		t.Errorf("%s is visible", *o.Key)
	}
}

// unfinished checks how many uploads the store holds that nobody finished.
func unfinished(t *testing.T, s testlab.Store, want int) {
	t.Helper()
	out, err := s.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &s.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Uploads) != want {
		t.Errorf("%d uploads were left, want %d", len(out.Uploads), want)
	}
}

func TestAnUploadWhoseIdWasLostIsSwept(t *testing.T) {
	t.Parallel()
	store := testlab.S3(t)
	lab := testlab.FaultyS3(t, store, testlab.Times(1, isBegin, testlab.LoseReply))
	b := openS3(t, lab.Store, impatient())
	if _, err := bucket.WriteAll(t.Context(), b, "k", make([]byte, buckettest.PartSize+1), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	unfinished(t, store, 1)
	if n, err := b.Sweep(t.Context(), "", time.Now().Add(time.Hour)); n != 1 || err != nil {
		t.Errorf("swept %d, %v", n, err)
	}
	unfinished(t, store, 0)
}

func TestACancelledContextIsObeyedWhileTheServerHangs(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]func(*http.Request) bool{"put": isPut, "begin": isBegin, "part": isPart, "complete": isComplete} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			why := errors.New("enough")
			store := testlab.S3(t)
			lab := testlab.FaultyS3(t, store, func(r *http.Request) testlab.Answer {
				if !hangs(r) {
					return nil
				}
				return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
					cancel(why) // now the client is waiting
					testlab.Hang(w, r, upstream)
				}
			})
			opts := impatient()
			opts.Grace = 100 * time.Millisecond
			opts.Stall = time.Hour
			b := openS3(t, lab.Store, opts)
			size := 3 * buckettest.PartSize
			if name == "put" {
				size = 10
			}
			_, err := bucket.WriteAll(ctx, b, "k", make([]byte, size), bucket.WriteOptions{})
			if !fault.Is(err, fault.Interrupted) || !errors.Is(err, why) {
				t.Errorf("want the fault interrupted because of %q, got %v", why, err)
			}
			bare(t, store)
			unfinished(t, store, 0)
		})
	}
}

func TestAServerThatNeverAnswersIsGivenUp(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // nobody accepts; the kernel takes connections and bytes all the same
	opts := impatient()
	opts.Endpoint, opts.AccessKeyID, opts.SecretAccessKey = "http://"+silent.Addr().String(), "id", func() string { return "secret" }
	opts.Stall, opts.Grace, opts.MaxRetries = 50*time.Millisecond, 50*time.Millisecond, 1
	b := open(t, "s3://bucket", opts)
	_, err = b.Stat(t.Context(), "k")
	if !fault.Is(err, fault.BucketUnreachable) || !strings.Contains(err.Error(), "no progress") {
		t.Errorf("Stat: %v", err)
	}
	_, err = bucket.WriteAll(t.Context(), b, "k", make([]byte, 2*buckettest.PartSize), bucket.WriteOptions{})
	if !fault.Is(err, fault.BucketUnreachable) {
		t.Errorf("WriteAll: %v", err)
	}
}

func TestAnAnswerThatStopsInTheMiddleIsGivenUp(t *testing.T) {
	t.Parallel()
	store := testlab.S3(t)
	lab := testlab.FaultyS3(t, store, testlab.Always(isGet, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		size := 1000
		if from, ranged := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ranged {
			begin, _, _ := strings.Cut(from, "-")
			n, _ := strconv.Atoi(begin)
			size -= n
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
		w.Header().Set("ETag", `"e"`)
		if size < 1000 {
			w.WriteHeader(http.StatusPartialContent)
		} else {
			_, _ = w.Write(make([]byte, 10))
		}
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	opts := impatient()
	opts.Stall, opts.MaxRetries = 50*time.Millisecond, 1
	b := openS3(t, lab.Store, opts)
	_, err := bucket.ReadAll(t.Context(), b, "k", 1<<20)
	if !fault.Is(err, fault.BucketUnreachable) {
		t.Errorf("got %v", err)
	}
}

func TestARefusalNamesTheRight(t *testing.T) {
	t.Parallel()
	store := testlab.S3(t)
	lab := testlab.FaultyS3(t, store, testlab.Always(func(*http.Request) bool { return true }, testlab.Fail(403, "AccessDenied")))
	opts := impatient()
	opts.Endpoint, opts.Region = lab.Endpoint, lab.Region
	opts.AccessKeyID, opts.SecretAccessKey = lab.AccessKey, func() string { return lab.SecretKey }
	b := open(t, "s3://"+lab.Bucket+"/dump", opts)
	_, write := bucket.WriteAll(t.Context(), b, "k", nil, bucket.WriteOptions{})
	_, stat := b.Stat(t.Context(), "k")
	_, sweep := b.Sweep(t.Context(), "", time.Now())
	_, read := bucket.ReadAll(t.Context(), b, "k", 10)
	var list error
	for _, list = range b.List(t.Context(), "") {
	}
	for want, err := range map[string]error{
		"s3:PutObject on arn:aws:s3:::" + lab.Bucket + "/dump/*":            write,
		"s3:GetObject on arn:aws:s3:::" + lab.Bucket + "/dump/*":            read,
		"s3:ListBucket on arn:aws:s3:::" + lab.Bucket + ".":                 list,
		"s3:ListBucketMultipartUploads on arn:aws:s3:::" + lab.Bucket + ".": sweep,
		"s3:DeleteObject on arn:aws:s3:::" + lab.Bucket + "/dump/*":         b.Delete(t.Context(), "k"),
		"Allow s3:GetObject on arn:aws:s3:::" + lab.Bucket + "/dump/*":      stat,
	} {
		f := fault.Of(err)
		if f == nil || f.Code != fault.BucketRights || !strings.Contains(f.HowToMend(), want) {
			t.Errorf("want the mend %q, got %v: %q", want, err, f.HowToMend())
		}
		if f != nil && !strings.HasPrefix(f.Where, "s3://"+lab.Bucket+"/dump") {
			t.Errorf("where: %q", f.Where)
		}
	}
}

func TestARefusalByAWSNamesTheSettingForWhoPays(t *testing.T) {
	t.Parallel()
	aws := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		testlab.Fail(http.StatusForbidden, "AccessDenied")(w, r, nil)
	}))
	defer aws.Close()
	opts := impatient()
	opts.Endpoint, opts.Region, opts.Proxy, opts.AllowHTTP = "http://s3.eu-west-1.amazonaws.com", "eu-west-1", aws.URL, true
	opts.AccessKeyID, opts.SecretAccessKey = "id", func() string { return testlab.Secret("requester-pays-secret-1") }
	for _, opts.RequesterPays = range []bool{false, true} {
		for _, err := range open(t, "s3://theirs/app", opts).List(t.Context(), "") {
			f := fault.Of(err)
			if f == nil || f.Code != fault.BucketRights || strings.Contains(f.HowToMend(), "requester_pays: true") == opts.RequesterPays {
				t.Errorf("%v: %v", opts.RequesterPays, err)
			}
		}
	}
}

func TestABrokenReadGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]func(testing.TB) testlab.Store{"versity": testlab.S3, "ceph": testlab.Ceph} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := testlab.FaultyS3(t, store(t), testlab.Times(3, isGet, testlab.CutReply(70_000)))
			b := openS3(t, lab.Store, impatient())
			data := bytes.Repeat([]byte("0123456789abcde"), 20_000)
			if _, err := bucket.WriteAll(t.Context(), b, "k", data, bucket.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			r, err := b.Open(t.Context(), "k", 5, int64(len(data))-10)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, data[5:len(data)-5]) {
				t.Errorf("%d bytes came, want %d (%v)", len(got), len(data)-10, err)
			}
			if n := len(lab.Requests()); n != 1+4 {
				t.Errorf("%d requests, want the write and four reads: %q", n, lab.Requests())
			}
		})
	}
}

func TestABrokenReadNeverMixesTwoVersions(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]func(testing.TB) testlab.Store{"versity": testlab.S3, "ceph": testlab.Ceph} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := testlab.FaultyS3(t, store(t), testlab.Times(1, isGet, testlab.CutReply(1000)))
			b := openS3(t, lab.Store, impatient())
			if _, err := bucket.WriteAll(t.Context(), b, "k", bytes.Repeat([]byte("a"), 5000), bucket.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			r, err := b.Open(t.Context(), "k", 0, -1)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			if _, err := bucket.WriteAll(t.Context(), b, "k", bytes.Repeat([]byte("b"), 5000), bucket.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if !fault.Is(err, fault.BucketFailed) || bytes.Contains(got, []byte("b")) {
				t.Errorf("got %d bytes and %v; want an error and nothing of the new version", len(got), err)
			}
		})
	}
}

// slowParts is an S3 server that is still storing parts when their upload is aborted. What it stores after that is left.
type slowParts struct {
	store time.Duration // that a part takes; one that never comes to an end is stored when it is cut off

	arrived chan struct{}
	mu      sync.Mutex
	late    int // parts that were cut off, and are stored after the next answer
	left    bool
}

func (s *slowParts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("ETag", `"etag"`)
	switch {
	case isBegin(r):
		fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>`)
		s.set(true)
	case isPart(r):
		s.arrived <- struct{}{}
		select {
		case <-time.After(s.store):
		case <-r.Context().Done():
			s.mu.Lock()
			s.late++
			s.mu.Unlock()
		}
	case r.Method == http.MethodDelete:
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.left {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		s.left, s.late = s.late > 0, 0
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *slowParts) set(left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = left
}

func TestAPartThatIsStillBeingStoredDoesNotOutliveItsUpload(t *testing.T) {
	t.Parallel()
	for name, store := range map[string]time.Duration{"it ends soon": 50 * time.Millisecond, "it has to be cut off": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &slowParts{store: store, arrived: make(chan struct{}, 1)}
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			opts := impatient()
			opts.Endpoint, opts.AccessKeyID, opts.SecretAccessKey = server.URL, "id", func() string { return "secret" }
			opts.Stall = time.Hour
			b := open(t, "s3://bucket", opts)
			u, err := b.Create(t.Context(), "k", bucket.WriteOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := u.Write(make([]byte, buckettest.PartSize+1)); err != nil {
				t.Fatal(err)
			}
			<-s.arrived
			u.Abort()
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.left {
				t.Error("the upload is still there")
			}
		})
	}
}
