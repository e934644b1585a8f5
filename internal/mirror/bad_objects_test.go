package mirror_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// moved answers as servers do that want the request elsewhere.
func moved(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	http.Error(w, "elsewhere", http.StatusMovedPermanently)
}

// neverRight are ways in which a server can refuse one object for ever, and the code that each comes to.
var neverRight = map[string]struct {
	answer testlab.Answer
	code   fault.Code
}{
	"rights":     {testlab.Fail(403, "AccessDenied"), fault.BucketRights},
	"signature":  {testlab.Fail(403, "SignatureDoesNotMatch"), fault.BucketAuth},
	"token":      {testlab.Fail(400, "ExpiredToken"), fault.BucketAuth},
	"no-login":   {testlab.Fail(401, "Unauthorized"), fault.BucketAuth},
	"no-bucket":  {testlab.Fail(404, "NoSuchBucket"), fault.BucketMissing},
	"no-key":     {testlab.Fail(404, "NoSuchKey"), fault.BucketBusy},
	"stranger":   {proxys404, fault.BucketBusy},
	"bad":        {testlab.Fail(400, "InvalidArgument"), fault.BucketFailed},
	"method":     {testlab.Fail(405, "MethodNotAllowed"), fault.BucketUnsupported},
	"quota":      {testlab.Fail(403, "QuotaExceeded"), fault.BucketFull},
	"full":       {testlab.Fail(507, "InsufficientStorage"), fault.BucketFull},
	"broken":     {testlab.Fail(500, "InternalError"), fault.BucketBusy},
	"cut":        {testlab.Reset, fault.BucketUnreachable},
	"silent":     {testlab.Hang, fault.BucketUnreachable},
	"redirected": {moved, fault.BucketFailed},
}

func TestAnObjectThatIsRefusedForEverFailsByItself(t *testing.T) {
	t.Parallel()
	for _, method := range []string{http.MethodGet, http.MethodPut} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.S3(t), testlab.Ceph(t)
			for name := range neverRight {
				text(t, near, "app/bad/"+name, name)
			}
			for i := range 30 {
				text(t, near, fmt.Sprintf("app/good/%02d", i), strconv.Itoa(i))
			}
			from, to := near, far
			refuses := func(s testlab.Store) testlab.Store {
				return testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
					if _, name, ok := strings.Cut(r.URL.Path, "/app/bad/"); ok && r.Method == method && !r.URL.Query().Has("list-type") {
						return neverRight[name].answer
					}
					return nil
				}).Store
			}
			if method == http.MethodGet {
				from = refuses(near)
			} else {
				to = refuses(far)
			}
			quick := func(o *bucket.Options) { o.Stall = 500 * time.Millisecond }
			r, w, err := run(t, open(t, from, "app", quick), open(t, to, "app", quick), func(o *mirror.Options) { o.Attempts = 3 })
			if !fault.Is(err, fault.MirrorIncomplete) || len(w.carried) != 30 || r.Failed != int64(len(neverRight)) {
				t.Fatalf("%v; %d carried, %d failed", err, len(w.carried), r.Failed)
			}
			want, got := map[string]fault.Code{}, map[string]fault.Code{}
			counts := map[fault.Code]int64{}
			for name, c := range neverRight {
				want["bad/"+name] = c.code
				counts[c.code]++
			}
			for _, dead := range r.SetAside {
				got[dead.Key] = dead.Code
			}
			if !maps.Equal(got, want) || !maps.Equal(r.FailedBy, counts) {
				t.Errorf("failed: %v, counted %v", got, r.FailedBy)
			}
		})
	}
}

func TestManyBadObjectsInARowStallNothing(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for i := range 250 {
		text(t, near, fmt.Sprintf("app/2020/%03d", i), "old")
	}
	for i := range 20 {
		text(t, near, fmt.Sprintf("app/2026/%03d", i), "new")
	}
	old := testlab.FaultyS3(t, near, testlab.Always(of(http.MethodGet, "/2020/"), testlab.Fail(403, "AccessDenied")))
	r, w, err := run(t, open(t, old.Store, "app"), open(t, far, "app"), nil)
	if !fault.Is(err, fault.MirrorIncomplete) || len(w.carried) != 20 || r.FailedBy[fault.BucketRights] != 250 {
		t.Errorf("%v; %d carried, failed by %v", err, len(w.carried), r.FailedBy)
	}
}

func TestASideThatRefusesEverythingEndsTheRun(t *testing.T) {
	t.Parallel()
	near := testlab.S3(t)
	for i := range 900 {
		text(t, near, fmt.Sprintf("app/%03d", i), "x")
	}
	for name, c := range map[string]struct {
		answer testlab.Answer
		code   fault.Code
		most   int // objects that are tried before it is known
	}{
		"without room":   {testlab.Fail(403, "QuotaExceeded"), fault.BucketFull, 100},
		"without rights": {testlab.Fail(403, "AccessDenied"), fault.BucketRights, 800},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			far := testlab.Ceph(t)
			writes := testlab.Always(func(r *http.Request) bool { return r.Method == http.MethodPut }, c.answer)
			r, _, err := run(t, open(t, near, "app"), open(t, testlab.FaultyS3(t, far, writes).Store, "app"), nil)
			if fault.Of(err) == nil || fault.Of(err).Code != c.code || int(r.Failed) > c.most {
				t.Errorf("%v, after %d objects", err, r.Failed)
			}
		})
	}
}

func TestATableThatCannotBeLookedAtIsOneTablesMatter(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for _, key := range []string{"t/data/a.parquet", "t/metadata/v1.metadata.json", "z/other", "z/z"} {
		text(t, near, "app/"+key, key)
	}
	text(t, far, "app/t/data/old.parquet", "old")
	blocked := testlab.FaultyS3(t, near, testlab.Always(func(r *http.Request) bool {
		return strings.HasPrefix(r.URL.Query().Get("prefix"), "app/t/metadata")
	}, testlab.Fail(403, "AccessDenied")))
	from, to := open(t, blocked.Store, "app"), open(t, far, "app")
	r, w, err := run(t, from, to, func(o *mirror.Options) { o.Tables, o.Delete = &tables{from: from, to: to}, true })
	slices.Sort(w.carried)
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.BucketRights] != 2 || !slices.Equal(w.carried, []string{"z/other", "z/z"}) || r.Deleted != 0 {
		t.Errorf("%v: failed by %v, carried %q, deleted %d", err, r.FailedBy, w.carried, r.Deleted)
	}
}

// looking has the lake decide what a table is, and carries none.
type looking struct{ from bucket.Bucket }

func (l looking) Is(ctx context.Context, root string) (bool, error) {
	return lake.IsTable(ctx, l.from, root)
}

func (l looking) Brought(context.Context, string) (func(string) bool, error) { return nil, nil }

func (l looking) Relocate(_ context.Context, root string, _ mirror.Files) (bool, error) {
	return false, fault.New(fault.LakeFailed, root, "there is no table")
}

func TestAFolderThatIsOnlyCalledMetadataIsCarriedAsItIs(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for i := range 3 {
		text(t, near, fmt.Sprintf("app/trip/data/img%d.jpg", i), strconv.Itoa(i))
		text(t, near, fmt.Sprintf("app/trip/metadata/img%d.metadata.json", i), `{"camera":"x"}`)
	}
	for key, data := range map[string]string{
		"trip/metadata/v1.metadata.json":           `{"location":{"lat":1,"lon":2},"format-version":"1"}`,
		"trip/metadata/index.avro":                 "no Avro",
		"trip/metadata/version-hint.text":          "1",
		"list/metadata/v1.metadata.json":           `[{"format-version":2,"location":"s3://x"}]`,
		"list/data/a.parquet":                      "a",
		"broken/metadata/00001-a.metadata.json":    `{"format-version":2,`,
		"broken/data/a.parquet":                    "a",
		"packed/metadata/00001-a.gz.metadata.json": "\x1f\x8bno gzip",
	} {
		put(t, near, s3.PutObjectInput{Key: aws.String("app/" + key)}, []byte(data))
	}
	from := open(t, near, "app")
	_, _, err := run(t, from, open(t, far, "app"), func(o *mirror.Options) { o.Tables = looking{from} })
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
}

func folderOf(t *testing.T, path string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), path, bucket.Options{})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func TestMarkersOfFoldersAreInNobodysWay(t *testing.T) {
	t.Parallel()
	near, far := testlab.Ceph(t), testlab.CephTLS(t)
	for i := range 120 {
		put(t, near, s3.PutObjectInput{Key: aws.String(fmt.Sprintf("app/a%03d/", i))}, nil)
	}
	put(t, near, s3.PutObjectInput{Key: aws.String("app/reports/"), ContentType: aws.String("application/x-directory")}, nil)
	text(t, near, "app/reports/a.csv", "a")
	text(t, near, "app/reports/b.csv", "b")
	from := open(t, near, "app")
	dir := t.TempDir()
	_, _, err := run(t, from, folderOf(t, dir), nil)
	must(t, err)
	remove(t, near, "app/reports/b.csv")
	r, w, err := run(t, from, folderOf(t, dir), func(o *mirror.Options) { o.Delete = true })
	must(t, err)
	if r.Deleted != 1 || r.LeftOut[fault.ObjectMarker] != 121 || len(w.carried) != 0 || r.Failed != 0 {
		t.Errorf("a folder that cannot have them: %d deleted, left out %v, carried %q, %d failed", r.Deleted, r.LeftOut, w.carried, r.Failed)
	}
	r, _, err = run(t, from, open(t, far, "app"), nil)
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
	if r.Carried.Objects != 122 || len(r.LeftOut) != 0 {
		t.Errorf("a bucket that can: %d carried, left out %v", r.Carried.Objects, r.LeftOut)
	}
	put(t, near, s3.PutObjectInput{Key: aws.String("app/data/")}, []byte("bytes"))
	if r, _, err = run(t, from, folderOf(t, dir), nil); !fault.Is(err, fault.MirrorIncomplete) || r.Failed != 1 {
		t.Errorf("an object with bytes under such a key: %v", err)
	}
}

func TestLinksAndPipesInAFolderStallNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"f1", "sub/f2", "z/f3"} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644))
	}
	for name, to := range map[string]string{
		"out": "/etc/hostname", "out-folder": "/etc", "climbs": "../" + filepath.Base(t.TempDir()), "self": "self", "a-loop": "b-loop", "b-loop": "a-loop",
		"nowhere": "no-such-file", "to-folder": "sub", "to-file": "f1", "skipped-out": "/etc/hostname",
	} {
		must(t, os.Symlink(to, filepath.Join(dir, name)))
	}
	must(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644))
	socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
	must(t, err)
	defer socket.Close()
	skip, err := mirror.ParseGlob("skipped-*")
	must(t, err)
	far := t.TempDir()
	must(t, os.Symlink("/etc", filepath.Join(far, "a-link-at-the-target")))
	r, w, err := run(t, folderOf(t, dir), folderOf(t, far), func(o *mirror.Options) { o.Filter.Exclude = []mirror.Glob{skip} })
	slices.Sort(w.carried)
	if !fault.Is(err, fault.MirrorIncomplete) || !slices.Equal(w.carried, []string{"f1", "sub/f2", "to-file", "z/f3"}) {
		t.Fatalf("%v; carried %q", err, w.carried)
	}
	if want := map[fault.Code]int64{fault.ObjectOutside: 3}; !maps.Equal(r.FailedBy, want) {
		t.Errorf("failed by %v: %v", r.FailedBy, r.SetAside)
	}
	if want := map[fault.Code]int64{fault.ObjectLink: 5, fault.ObjectSpecial: 2}; !maps.Equal(r.LeftOut, want) {
		t.Errorf("left out %v", r.LeftOut)
	}
	from := folderOf(t, dir)
	for key, code := range map[string]fault.Code{"pipe": fault.ObjectMissing, "out": fault.ObjectOutside, "nowhere": fault.ObjectMissing, "self": fault.ObjectLink} {
		if _, err := from.Open(t.Context(), key, 0, -1); !fault.Is(err, code) {
			t.Errorf("%s is read: %v", key, err)
		}
	}
	for o, err := range from.List(t.Context(), "") {
		must(t, err)
		if strings.Contains(o.Key, "out") || strings.Contains(o.Key, "loop") {
			t.Errorf("%s is listed", o.Key)
		}
	}
}

func TestWhatLiesInAnArchiveIsToldAndRestoredByChoice(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for i := range 120 {
		text(t, near, fmt.Sprintf("app/2020/%03d", i), "old")
	}
	multipart(t, near, "app/2020/large", noise(1, 17<<20), 8<<20)
	text(t, near, "app/2026/a", "new")
	var mu sync.Mutex
	asked, restored := map[string]bool{}, false
	archive := testlab.FaultyS3(t, near, func(r *http.Request) testlab.Answer {
		_, old, is := strings.Cut(r.URL.Path, "/app/2020/")
		mu.Lock()
		defer mu.Unlock()
		switch {
		case !is || r.URL.Query().Has("tagging"):
		case r.URL.Query().Has("restore"):
			asked[old] = true
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				_, _ = io.Copy(io.Discard, r.Body)
				w.WriteHeader(http.StatusAccepted)
			}
		case r.Method == http.MethodGet && !restored:
			return testlab.Fail(403, "InvalidObjectState")
		}
		return nil
	})
	from, to := open(t, archive.Store, "app"), open(t, far, "app")
	how := func(a mirror.Archived) func(*mirror.Options) {
		return func(o *mirror.Options) { o.Archived, o.RestoreDays, o.RestoreTier = a, 3, "Bulk" }
	}
	r, w, err := run(t, from, to, how(mirror.ArchivedFail))
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.ObjectArchived] != 121 || !slices.Equal(w.carried, []string{"2026/a"}) {
		t.Errorf("to fail: %v, failed by %v, carried %q", err, r.FailedBy, w.carried)
	}
	begun, err := far.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &far.Bucket})
	must(t, err)
	if len(begun.Uploads) != 0 || len(asked) != 0 {
		t.Errorf("%d uploads were begun in vain, %d objects asked for", len(begun.Uploads), len(asked))
	}
	text(t, far, "app/gone", "gone")
	r, _, err = run(t, from, to, func(o *mirror.Options) { how(mirror.ArchivedSkip)(o); o.Delete = true })
	if must(t, err); r.LeftOut[fault.ObjectArchived] != 121 || r.Deleted != 1 {
		t.Errorf("to skip: left out %v, %d deleted", r.LeftOut, r.Deleted)
	}
	r, _, err = run(t, from, to, how(mirror.ArchivedRestore))
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.ObjectRestoring] != 121 || len(asked) != 121 {
		t.Errorf("to restore: %v, failed by %v, %d asked for", err, r.FailedBy, len(asked))
	}
	mu.Lock()
	restored = true
	mu.Unlock()
	_, _, err = run(t, from, to, how(mirror.ArchivedRestore))
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
}

// partScript fails PUTs of a part: fails(number, n) says whether the nth of that number does. It counts those that were passed on.
func partScript(fails func(number, n int) bool) (script testlab.Script, sent func() map[int]int) {
	var mu sync.Mutex
	tries, done := map[int]int{}, map[int]int{}
	script = func(r *http.Request) testlab.Answer {
		number, err := strconv.Atoi(r.URL.Query().Get("partNumber"))
		if r.Method != http.MethodPut || err != nil {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if tries[number]++; fails(number, tries[number]) {
			return testlab.Fail(503, "SlowDown")
		}
		done[number]++
		return nil
	}
	return script, func() map[int]int { mu.Lock(); defer mu.Unlock(); return maps.Clone(done) }
}

func TestAnUploadWhoseCompletionIsNotToldIsNotSentAgain(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	multipart(t, near, "app/large", noise(1, 20<<20), 5<<20)
	want := content(t, near, "app")
	completes := func(r *http.Request) bool { return r.Method == http.MethodPost && r.URL.Query().Has("uploadId") }
	for name, c := range map[string]struct {
		answer   testlab.Answer
		attempts int
		before   []byte // of an earlier object, with other metadata
	}{
		"done, and the answer is lost":             {testlab.LoseReply, 1, nil},
		"done, and it says that there is none":     {gone, 1, nil},
		"not done":                                 {testlab.Fail(404, "NoSuchUpload"), 2, nil},
		"not done, and the earlier object is like": {testlab.Fail(404, "NoSuchUpload"), 2, noise(1, 20<<20)},
		"not done, and there is another object":    {testlab.Fail(404, "NoSuchUpload"), 2, noise(2, 20<<20)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := strings.ReplaceAll(name, " ", "-")
			if c.before != nil {
				multipart(t, far, path+"/large", c.before, 5<<20)
			}
			parts, sent := partScript(func(int, int) bool { return false })
			once := testlab.Times(1, completes, c.answer)
			faulty := testlab.FaultyS3(t, far, func(r *http.Request) testlab.Answer {
				if answer := once(r); answer != nil {
					return answer
				}
				if c.before != nil && r.Method == http.MethodGet && r.URL.Query().Has("list-type") { // so that it is carried at all
					return altered(func(_ http.Header, b []byte) []byte {
						return bytes.ReplaceAll(b, []byte("<Size>20971520<"), []byte("<Size>1<"))
					})
				}
				return parts(r)
			})
			r, _, err := run(t, open(t, near, "app"), open(t, faulty.Store, path), func(o *mirror.Options) { o.Attempts = c.attempts })
			must(t, err)
			sameContent(t, want, content(t, far, path))
			for number, n := range sent() {
				if n != 1 {
					t.Errorf("part %d was sent %d times", number, n)
				}
			}
			if r.Carried.Objects != 1 {
				t.Errorf("%d objects were carried", r.Carried.Objects)
			}
			got, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: aws.String(path + "/large")})
			must(t, err)
			if got.Metadata["leat-origin"] == "" {
				t.Error("the object is not the one that was sent")
			}
		})
	}
}

// gone does what is asked, and says that there is no such upload.
func gone(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
	upstream.ServeHTTP(httptest.NewRecorder(), r)
	testlab.Fail(404, "NoSuchUpload")(w, r, upstream)
}

func TestAPartThatFailsCostsNoOther(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	multipart(t, near, "app/large", noise(1, 40<<20), 5<<20)
	want := content(t, near, "app")
	for name, c := range map[string]struct {
		fails    func(number, n int) bool
		attempts int
		carried  bool
	}{
		"every part twice":                 {func(_, n int) bool { return n <= 2 }, 3, true},
		"one more often than one run has":  {func(number, n int) bool { return number == 7 && n <= 3 }, 2, true},
		"one for ever":                     {func(number, _ int) bool { return number == 8 }, 3, false},
		"all for ever":                     {func(int, int) bool { return true }, 3, false},
		"a third of them, again and again": {func(number, n int) bool { return (number+n)%3 == 0 }, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script, sent := partScript(c.fails)
			path := strings.ReplaceAll(name, " ", "-")
			r, w, err := run(t, open(t, near, "app"), open(t, testlab.FaultyS3(t, far, script).Store, path), func(o *mirror.Options) { o.Attempts = c.attempts })
			for number, n := range sent() {
				if n > 1 {
					t.Errorf("part %d was sent %d times", number, n)
				}
			}
			if !c.carried {
				if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.BucketBusy] != 1 || w.again > mostAgain {
					t.Errorf("%v, failed by %v, tried again %d times", err, r.FailedBy, w.again)
				}
				return
			}
			must(t, err)
			sameContent(t, want, content(t, far, path))
		})
	}
}

// mostAgain bounds the attempts at an object that never gets on: four parts at once that are tried three times each.
const mostAgain = 8
