package mirror_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a path of a store's bucket.
func open(t testing.TB, s testlab.Store, path string, more ...func(*bucket.Options)) bucket.Bucket {
	t.Helper()
	o := bucket.Options{
		Endpoint: s.Endpoint, Region: s.Region, CAFile: s.CA, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey },
		MaxRetries: -1, Stall: time.Minute, // the machine may be busy
	}
	for _, m := range more {
		m(&o)
	}
	b, err := bucket.Open(t.Context(), "s3://"+s.Bucket+"/"+path, o)
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

// watcher remembers what it is told.
type watcher struct {
	mu      sync.Mutex
	carried []string
	again   int
}

func (w *watcher) Seen(bucket.Object, mirror.Verdict)         {}
func (w *watcher) Moved(int64)                                {}
func (w *watcher) Deleted(string)                             {}
func (w *watcher) SetAside(string, error)                     {}
func (w *watcher) LeftOut(string, error)                      {}
func (w *watcher) Again(key string, _ error, _ time.Duration) { w.mu.Lock(); w.again++; w.mu.Unlock() }
func (w *watcher) Carried(key string, _ int64, _ string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.carried = append(w.carried, key)
}

func options(w *watcher) mirror.Options {
	return mirror.Options{Name: "test", Parallel: 8, Attempts: 5, Backoff: time.Millisecond, MaxDelete: 100, MaxDeleteShare: 25, Watch: w, Now: time.Now}
}

func run(t testing.TB, from, to bucket.Bucket, change func(*mirror.Options)) (mirror.Report, *watcher, error) {
	t.Helper()
	w := &watcher{}
	o := options(w)
	o.WorkDir = t.TempDir()
	if change != nil {
		change(&o)
	}
	r, err := mirror.Run(t.Context(), from, to, o)
	return r, w, err
}

// put writes objects by the SDK alone, as somebody else would.
func put(t testing.TB, s testlab.Store, in s3.PutObjectInput, data []byte) {
	t.Helper()
	in.Bucket, in.Body = &s.Bucket, bytes.NewReader(data)
	_, err := s.Client().PutObject(t.Context(), &in)
	must(t, err)
}

func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	dice := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = dice.Read(data) // it never fails
	return data
}

// content reads everything below a path, without our own records.
func content(t testing.TB, s testlab.Store, path string) map[string]string {
	t.Helper()
	out := map[string]string{}
	pages := s3.NewListObjectsV2Paginator(s.Client(), &s3.ListObjectsV2Input{Bucket: &s.Bucket, Prefix: aws.String(path + "/")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(t.Context())
		must(t, err)
		for _, o := range page.Contents {
			key := strings.TrimPrefix(*o.Key, path+"/")
			if strings.HasPrefix(key, ".leat/") {
				continue
			}
			got, err := s.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.Bucket, Key: o.Key})
			must(t, err)
			data, err := io.ReadAll(got.Body)
			must(t, err)
			out[key] = fmt.Sprintf("%d %x", len(data), md5.Sum(data))
		}
	}
	return out
}

func sameContent(t testing.TB, want, got map[string]string) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got[key] != want[key] {
			t.Errorf("%q: there is %q, the source has %q", key, got[key], want[key])
		}
	}
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%q is at the far side only", key)
		}
	}
}

// multipart writes an object in parts of a size.
func multipart(t testing.TB, s testlab.Store, key string, data []byte, size int) {
	t.Helper()
	c := s.Client()
	up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.Bucket, Key: &key, ContentType: aws.String("text/large")})
	must(t, err)
	var parts []types.CompletedPart
	for i := 0; i*size < len(data); i++ {
		p, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
			Bucket: &s.Bucket, Key: &key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: bytes.NewReader(data[i*size : min((i+1)*size, len(data))]),
		})
		must(t, err)
		parts = append(parts, types.CompletedPart{ETag: p.ETag, PartNumber: aws.Int32(int32(i + 1))})
	}
	_, err = c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &s.Bucket, Key: &key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	must(t, err)
	_, err = c.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{
		Bucket: &s.Bucket, Key: &key, Tagging: &types.Tagging{TagSet: []types.Tag{{Key: aws.String("size"), Value: aws.String("large")}}},
	})
	must(t, err)
}

// fill makes a source of odd keys and sizes; on a folder not all of them can be.
func fill(t testing.TB, s testlab.Store, path string, folder bool) {
	t.Helper()
	for i, key := range []string{"a", "a b/ü+&?=%41.txt", "a/b", "a/b/c", "a//double", "dir/", "z'\"<>|*", "emoji/🦆", "tab\there", strings.Repeat("long/", 150) + "x"} {
		if folder && slices.Contains([]string{"a", "a/b", "tab\there", "a//double", "dir/"}, key) {
			continue
		}
		put(t, s, s3.PutObjectInput{Key: aws.String(path + "/" + key)}, noise(uint64(i), i*1000))
	}
	put(t, s, s3.PutObjectInput{Key: aws.String(path + "/empty")}, nil)
	put(t, s, s3.PutObjectInput{
		Key: aws.String(path + "/typed"), ContentType: aws.String("text/csv"), CacheControl: aws.String("max-age=60"), ContentEncoding: aws.String("gzip"),
		ContentDisposition: aws.String("attachment"), ContentLanguage: aws.String("de"), Metadata: map[string]string{"owner": "data team"}, Tagging: aws.String("class=gold&year=2026"),
	}, []byte("typed"))
	multipart(t, s, path+"/large/eight", noise(100, 20<<20), 8<<20)
	multipart(t, s, path+"/large/odd", noise(101, 18<<20+7), 5<<20+123)
	put(t, s, s3.PutObjectInput{Key: aws.String(path + "/large/whole")}, noise(102, 17<<20))
}

func TestAMirrorHasAllThatItsSourceHas(t *testing.T) {
	t.Parallel()
	for name, ends := range map[string]func(t *testing.T) (from, to testlab.Store){
		"to Ceph":           func(t *testing.T) (_, _ testlab.Store) { return testlab.S3(t), testlab.Ceph(t) },
		"from Ceph":         func(t *testing.T) (_, _ testlab.Store) { return testlab.CephTLS(t), testlab.S3(t) },
		"from Ceph to Ceph": func(t *testing.T) (_, _ testlab.Store) { return testlab.Ceph(t), testlab.CephTLS(t) },
		"on one server":     func(t *testing.T) (_, _ testlab.Store) { s := testlab.Ceph(t); return s, s },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := ends(t)
			fill(t, near, "app", strings.Contains(name, "from Ceph") && name != "from Ceph to Ceph" || name == "to Ceph")
			from, to := open(t, near, "app"), open(t, far, "copy")
			r, w, err := run(t, from, to, nil)
			must(t, err)
			want := content(t, near, "app")
			sameContent(t, want, content(t, far, "copy"))
			if int(r.Carried.Objects+r.Copied.Objects) != len(want) || len(w.carried) != len(want) || r.Failed != 0 {
				t.Errorf("%d objects, and the report says %+v", len(want), r)
			}
			if one := name == "on one server"; one != (r.Copied.Objects > 0) || one != (r.Carried.Objects == 0) {
				t.Errorf("the server copied %d objects and we %d", r.Copied.Objects, r.Carried.Objects)
			}
			typed, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: aws.String("copy/typed")})
			must(t, err)
			got := []string{*typed.ContentType, aws.ToString(typed.CacheControl), aws.ToString(typed.ContentEncoding), aws.ToString(typed.ContentDisposition), aws.ToString(typed.ContentLanguage), typed.Metadata["owner"]}
			if wanted := []string{"text/csv", "max-age=60", "gzip", "attachment", "de", "data team"}; !slices.Equal(got, wanted) {
				t.Errorf("kept beside the bytes: %q", got)
			}
			tags, err := far.Client().GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: &far.Bucket, Key: aws.String("copy/typed")})
			must(t, err)
			if len(tags.TagSet) != 2 {
				t.Errorf("%d tags", len(tags.TagSet))
			}
			large, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: aws.String("copy/large/odd")})
			must(t, err)
			tags, err = far.Client().GetObjectTagging(t.Context(), &s3.GetObjectTaggingInput{Bucket: &far.Bucket, Key: aws.String("copy/large/odd")})
			must(t, err)
			if *large.ContentType != "text/large" || len(tags.TagSet) != 1 {
				t.Errorf("of a large object there are the type %s and %d tags", *large.ContentType, len(tags.TagSet))
			}

			r, w, err = run(t, from, to, nil)
			must(t, err)
			if len(w.carried) != 0 || r.Same[mirror.WayTime] != 0 {
				t.Errorf("a second run carries %q and compares %v", w.carried, r.Same)
			}
		})
	}
}

func TestLargeObjectsKeepTheETagOfTheirSource(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	multipart(t, near, "app/eight", noise(1, 30<<20), 8<<20)
	multipart(t, near, "app/five", noise(2, 6<<20), 5<<20)
	_, _, err := run(t, open(t, near, "app"), open(t, far, "app"), nil)
	must(t, err)
	for _, key := range []string{"app/eight", "app/five"} {
		a, err := near.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &near.Bucket, Key: &key})
		must(t, err)
		b, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: &key})
		must(t, err)
		if *a.ETag != *b.ETag {
			t.Errorf("%s: %s became %s", key, *a.ETag, *b.ETag)
		}
	}
}

func TestWhatDiffersIsCarriedAgain(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for _, key := range []string{"same", "other", "shorter"} {
		put(t, near, s3.PutObjectInput{Key: aws.String("app/" + key)}, []byte("as it is"))
	}
	from, to := open(t, near, "app"), open(t, far, "app")
	_, _, err := run(t, from, to, nil)
	must(t, err)
	put(t, far, s3.PutObjectInput{Key: aws.String("app/other")}, []byte("as it as"))
	put(t, far, s3.PutObjectInput{Key: aws.String("app/shorter")}, []byte("as"))
	put(t, far, s3.PutObjectInput{Key: aws.String("app/extra")}, []byte("ours"))
	r, w, err := run(t, from, to, func(o *mirror.Options) { o.DryRun = true })
	must(t, err)
	if r.Reasons[mirror.ReasonETag] != 1 || r.Reasons[mirror.ReasonSize] != 1 || len(w.carried) != 0 {
		t.Errorf("the plan is %v, carried %q", r.Reasons, w.carried)
	}
	_, w, err = run(t, from, to, nil)
	must(t, err)
	slices.Sort(w.carried)
	if !slices.Equal(w.carried, []string{"other", "shorter"}) {
		t.Errorf("carried %q", w.carried)
	}
	if got := content(t, far, "app"); len(got) != 4 || got["other"] != got["same"] {
		t.Errorf("the far side has %v", got)
	}
}

func TestOnlyWhatTheFilterLetsPassTakesPart(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for _, key := range []string{"2026-01-01/a.csv", "2026-01-02/a.csv", "2026-01-02/b.gz", "2026-01-03T000000Z/deep/a.csv", "plain.csv", ".leat/running/x", "_leat/p/state.json"} {
		put(t, near, s3.PutObjectInput{Key: aws.String("app/" + key)}, []byte(key))
	}
	glob := func(text string) []mirror.Glob {
		g, err := mirror.ParseGlob(text)
		must(t, err)
		return []mirror.Glob{g}
	}
	for name, c := range map[string]struct {
		filter mirror.Filter
		want   []string
	}{
		"all":     {mirror.Filter{}, []string{"2026-01-01/a.csv", "2026-01-02/a.csv", "2026-01-02/b.gz", "2026-01-03T000000Z/deep/a.csv", "plain.csv"}},
		"by name": {mirror.Filter{Include: glob("*.csv"), Exclude: glob("**/deep/*")}, []string{"2026-01-01/a.csv", "2026-01-02/a.csv", "plain.csv"}},
		"by date": {mirror.Filter{FirstDate: "2026-01-02"}, []string{"2026-01-02/a.csv", "2026-01-02/b.gz", "2026-01-03T000000Z/deep/a.csv"}},
		"by age":  {mirror.Filter{OlderThan: time.Now().Add(-time.Hour)}, nil},
		"young":   {mirror.Filter{NewerThan: time.Now().Add(-time.Hour), LastDate: "2026-01-01"}, []string{"2026-01-01/a.csv"}},
	} {
		_, w, err := run(t, open(t, near, "app"), open(t, far, name), func(o *mirror.Options) { o.Filter = c.filter })
		must(t, err)
		slices.Sort(w.carried)
		if !slices.Equal(w.carried, c.want) {
			t.Errorf("%s: %q", name, w.carried)
		}
	}
}

func TestNothingIsDeletedThatWasNotAskedFor(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	put(t, near, s3.PutObjectInput{Key: aws.String("app/kept")}, []byte("kept"))
	for i := range 5 {
		put(t, far, s3.PutObjectInput{Key: aws.String(fmt.Sprintf("app/gone/%d", i))}, []byte("gone"))
	}
	put(t, far, s3.PutObjectInput{Key: aws.String("app/.leat/mirror/other.json")}, []byte("{}"))
	from, to := open(t, near, "app"), open(t, far, "app")
	_, _, err := run(t, from, to, nil)
	must(t, err)
	if n := len(content(t, far, "app")); n != 6 {
		t.Fatalf("%d objects", n)
	}
	_, _, err = run(t, from, to, func(o *mirror.Options) { o.Delete, o.MaxDelete = true, 4 })
	if !fault.Is(err, fault.MirrorRefused) || len(content(t, far, "app")) != 6 {
		t.Errorf("more than the ceiling: %v", err)
	}
	_, _, err = run(t, open(t, near, "nothing"), to, func(o *mirror.Options) { o.Delete = true })
	if !fault.Is(err, fault.MirrorRefused) || len(content(t, far, "app")) != 6 {
		t.Errorf("an empty source: %v", err)
	}
	broken := testlab.FaultyS3(t, near, testlab.Always(func(r *http.Request) bool { return r.URL.Query().Has("list-type") }, testlab.Fail(http.StatusServiceUnavailable, "SlowDown")))
	_, _, err = run(t, open(t, broken.Store, "app"), to, func(o *mirror.Options) { o.Delete = true })
	if !fault.Is(err, fault.BucketBusy) || len(content(t, far, "app")) != 6 {
		t.Errorf("a listing that fails: %v", err)
	}
	r, _, err := run(t, from, to, func(o *mirror.Options) { o.Delete = true })
	must(t, err)
	if got := content(t, far, "app"); len(got) != 1 || r.Deleted != 5 {
		t.Errorf("deleted %d, there are %v", r.Deleted, got)
	}
	if _, err := to.Stat(t.Context(), ".leat/mirror/other.json"); err != nil {
		t.Errorf("our own records: %v", err)
	}
}

func TestOneBadObjectIsSetAsideAndTheOthersGoOn(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for i := range 50 {
		put(t, near, s3.PutObjectInput{Key: aws.String(fmt.Sprintf("app/%02d", i))}, noise(uint64(i), 100))
	}
	get := func(name string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, name) }
	}
	faulty := testlab.FaultyS3(t, near, func(r *http.Request) testlab.Answer {
		switch {
		case get("/07")(r):
			return testlab.Fail(http.StatusForbidden, "AccessDenied")
		case get("/11")(r):
			return testlab.Fail(http.StatusServiceUnavailable, "SlowDown")
		}
		return nil
	})
	from, to := open(t, faulty.Store, "app"), open(t, far, "app")
	r, w, err := run(t, from, to, nil)
	if !fault.Is(err, fault.MirrorIncomplete) || r.Failed != 2 || len(w.carried) != 48 {
		t.Fatalf("%v; %d failed, %d carried", err, r.Failed, len(w.carried))
	}
	slices.SortFunc(r.SetAside, func(a, b mirror.Dead) int { return strings.Compare(a.Key, b.Key) })
	if r.SetAside[0].Code != fault.BucketRights || r.SetAside[1].Code != fault.BucketBusy || w.again != 4 {
		t.Errorf("set aside: %+v, tried again %d times", r.SetAside, w.again)
	}
	_, w, err = run(t, open(t, near, "app"), to, nil)
	if must(t, err); len(w.carried) != 2 {
		t.Errorf("then %q is carried", w.carried)
	}
}

func TestWrongKeysEndTheRunAtOnce(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for i := range 30 {
		put(t, near, s3.PutObjectInput{Key: aws.String(fmt.Sprintf("app/%02d", i))}, []byte("x"))
	}
	far.SecretKey = "not-the-secret"
	_, w, err := run(t, open(t, near, "app"), open(t, far, "app"), nil)
	if !fault.Is(err, fault.BucketAuth) || w.again != 0 {
		t.Errorf("%v, tried again %d times", err, w.again)
	}
}

// flip changes one bit of an answer's body, or of a request's, once for each object.
func flip(t testing.TB, s testlab.Store, method string) *testlab.Faulty {
	var seen sync.Map
	return testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		if r.Method != method || r.URL.Query().Has("list-type") || r.URL.Query().Has("tagging") || strings.Contains(r.URL.Path, ".leat") {
			return nil
		}
		if _, again := seen.LoadOrStore(r.URL.Path+r.URL.Query().Get("partNumber")+r.Header.Get("Range"), true); again {
			return nil
		}
		return testlab.FlipBit
	})
}

func TestABitThatFlipsOnTheWayIsFound(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.S3(t), testlab.Ceph(t)
			for i := range 10 {
				put(t, near, s3.PutObjectInput{Key: aws.String(fmt.Sprintf("app/%d", i))}, noise(uint64(i), 5000))
			}
			multipart(t, near, "app/large/eight", noise(1, 20<<20), 8<<20)
			put(t, near, s3.PutObjectInput{Key: aws.String("app/large/whole")}, noise(2, 17<<20))
			want := content(t, near, "app")
			a, b := near, far
			if method == http.MethodGet {
				a = flip(t, near, method).Store
			} else {
				b = flip(t, far, method).Store
			}
			_, w, err := run(t, open(t, a, "app"), open(t, b, "app"), nil)
			must(t, err)
			if w.again < 12 {
				t.Errorf("only %d attempts were found wrong", w.again)
			}
			sameContent(t, want, content(t, far, "app"))
		})
	}
}

func TestALargeObjectGoesOnWhereAKilledRunHasEnded(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	multipart(t, near, "app/known", noise(1, 40<<20), 8<<20)
	put(t, near, s3.PutObjectInput{Key: aws.String("app/whole")}, noise(2, 64<<20))
	want := content(t, near, "app")
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	var sent sync.Map
	part := func(r *http.Request) bool { return r.Method == http.MethodPut && r.URL.Query().Has("partNumber") }
	n := 0
	var mu sync.Mutex
	slow := testlab.FaultyS3(t, far, func(r *http.Request) testlab.Answer {
		if !part(r) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 5 {
			kill()
		}
		return nil
	})
	o := options(&watcher{})
	o.Parallel, o.WorkDir = 1, t.TempDir()
	if _, err := mirror.Run(ctx, open(t, near, "app"), open(t, slow.Store, "app"), o); err == nil {
		t.Fatal("it was to be killed")
	}
	if got := content(t, far, "app"); len(got) > 1 {
		t.Errorf("half an object is visible: %v", got)
	}
	again := testlab.FaultyS3(t, far, func(r *http.Request) testlab.Answer {
		if part(r) {
			sent.Store(r.URL.Path+r.URL.Query().Get("partNumber"), true)
		}
		return nil
	})
	_, _, err := run(t, open(t, near, "app"), open(t, again.Store, "app"), nil)
	must(t, err)
	sameContent(t, want, content(t, far, "app"))
	parts := 0
	sent.Range(func(any, any) bool { parts++; return true })
	if parts == 0 || parts >= 9 {
		t.Errorf("%d parts were sent again, of 9", parts)
	}
}

func TestAPlainFolderIsASideLikeAnyOther(t *testing.T) {
	t.Parallel()
	near := testlab.S3(t)
	put(t, near, s3.PutObjectInput{Key: aws.String("app/a/b"), ContentType: aws.String("text/csv"), Metadata: map[string]string{"k": "v"}}, noise(1, 1000))
	multipart(t, near, "app/large", noise(2, 20<<20), 8<<20)
	folder, err := bucket.Open(t.Context(), t.TempDir(), bucket.Options{})
	must(t, err)
	defer folder.Close()
	for range 2 {
		_, _, err = run(t, open(t, near, "app"), folder, nil)
		must(t, err)
	}
	back := testlab.Ceph(t)
	_, _, err = run(t, folder, open(t, back, "app"), nil)
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, back, "app"))
	r, w, err := run(t, folder, open(t, back, "app"), nil)
	if must(t, err); len(w.carried) != 0 {
		t.Errorf("the second run carries %q (%v)", w.carried, r.Reasons)
	}
}

// tables stands in for the lake: it brings the data and writes a pointer.
type tables struct {
	from  bucket.Bucket
	to    bucket.Bucket
	roots []string
	files []string
	fails error

	unknown bool  // nothing tells what it has brought
	blind   error // of the look at that
}

// Is takes a folder for a table that has a file with the name of its metadata and anything in it.
func (t *tables) Is(ctx context.Context, root string) (bool, error) {
	for o, err := range t.from.List(ctx, strings.TrimPrefix(root+"/metadata/", "/")) {
		if err != nil || strings.HasSuffix(o.Key, ".metadata.json") {
			return err == nil, err
		}
	}
	return false, nil
}

func (t *tables) Relocate(ctx context.Context, root string, files mirror.Files) (bool, error) {
	t.roots = append(t.roots, root)
	if t.fails != nil {
		return false, t.fails
	}
	for _, f := range t.files {
		if err := files.Carry(ctx, root+"/"+f, 1); err != nil {
			return false, err
		}
	}
	_, err := bucket.WriteAll(ctx, t.to, root+"/metadata/version-hint.text", []byte("1"), bucket.WriteOptions{})
	return true, err
}

func (t *tables) Brought(_ context.Context, root string) (func(string) bool, error) {
	if t.unknown || t.blind != nil {
		return nil, t.blind
	}
	return func(key string) bool { return slices.Contains(t.files, strings.TrimPrefix(key, root+"/")) }, nil
}

func TestTheFilesOfATableComeWithTheTable(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for _, key := range []string{"t/data/a.parquet", "t/data/unnamed.parquet", "t/metadata/00001-x.metadata.json", "t/metadata/x.avro", "t2/data/a.parquet", "t2/metadata/00001-x.metadata.json", "no/data/b.parquet", "no/metadata/b.avro"} {
		put(t, near, s3.PutObjectInput{Key: aws.String("app/" + key)}, []byte(key))
	}
	from, to := open(t, near, "app"), open(t, far, "app")
	lake := &tables{from: from, to: to, files: []string{"data/a.parquet"}}
	with := func(o *mirror.Options) { o.Tables, o.Delete = lake, true }
	r, _, err := run(t, from, to, func(o *mirror.Options) { with(o); o.DryRun = true })
	if must(t, err); len(r.LeftOut) != 0 {
		t.Errorf("of what is not carried yet is left out: %v", r.LeftOut)
	}
	for range 2 {
		r, _, err := run(t, from, to, with)
		must(t, err)
		if r.Tables != 2 || r.Deleted != 0 || r.LeftOut[fault.ObjectOrphan] != 1 {
			t.Errorf("%d tables, %d objects deleted, left out %v", r.Tables, r.Deleted, r.LeftOut)
		}
	}
	want := []string{"no/data/b.parquet", "no/metadata/b.avro", "t/data/a.parquet", "t/metadata/version-hint.text", "t2/data/a.parquet", "t2/metadata/version-hint.text"}
	if got := slices.Sorted(maps.Keys(content(t, far, "app"))); !slices.Equal(got, want) || !slices.Equal(lake.roots, []string{"t", "t2", "t", "t2"}) {
		t.Errorf("the far side has %q, tables %q", got, lake.roots)
	}
	lake.unknown = true
	if r, _, err := run(t, from, to, with); err != nil || len(r.LeftOut) != 0 {
		t.Errorf("of tables of which nothing is known is left out: %v (%v)", r.LeftOut, err)
	}
	lake.blind = fault.New(fault.LakeFailed, "t", "it cannot be understood")
	if r, _, err := run(t, from, to, with); !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.LakeFailed] == 0 || len(r.LeftOut) != 0 {
		t.Errorf("tables that cannot be looked at: %v, failed by %v, left out %v", err, r.FailedBy, r.LeftOut)
	}
	lake.unknown, lake.blind = false, nil
	lake.files = []string{"data/a.parquet", "data/gone.parquet"}
	if r, _, err := run(t, from, to, with); !fault.Is(err, fault.MirrorIncomplete) || r.Failed != 2 || r.LeftOut[fault.ObjectOrphan] != 0 {
		t.Errorf("a table whose file is gone: %v", err)
	}
}
