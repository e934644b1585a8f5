package mirror_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

func text(t testing.TB, s testlab.Store, key, content string) {
	t.Helper()
	put(t, s, s3.PutObjectInput{Key: &key}, []byte(content))
}

func remove(t testing.TB, s testlab.Store, key string) {
	t.Helper()
	_, err := s.Client().DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: &s.Bucket, Key: &key})
	must(t, err)
}

// has says what an object holds; "" when it is not there.
func has(t testing.TB, s testlab.Store, key string) string {
	t.Helper()
	got, err := s.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &s.Bucket, Key: &key})
	if err != nil {
		return ""
	}
	data, err := io.ReadAll(got.Body)
	must(t, err)
	return string(data)
}

// dumpOf is the manifest of a dump in the folder app/day, of files and what they hold.
func dumpOf(id string, files map[string]string) string {
	var list []string
	for name, data := range files {
		list = append(list, fmt.Sprintf(`{"key":"day/%s","bytes":%d,"sha256":"%x"}`, name, len(data), sha256.Sum256([]byte(data))))
	}
	slices.Sort(list)
	return fmt.Sprintf(`{"format_version":1,"id":%q,"folder":"day","tables":[{"name":"t","files":[%s]}]}`, id, strings.Join(list, ","))
}

func of(method, part string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		return r.Method == method && strings.Contains(r.URL.Path, part) && !strings.Contains(r.URL.Path, ".leat") && !r.URL.Query().Has("list-type") && !r.URL.Query().Has("tagging")
	}
}

// proxys404 is what something before the server answers while the server is being replaced.
func proxys404(w http.ResponseWriter, r *http.Request, _ http.Handler) {
	_, _ = io.Copy(io.Discard, r.Body)
	http.Error(w, "404 page not found", http.StatusNotFound)
}

func TestWhatIsNotFoundOnTheWayIsNotTakenForDeleted(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for i := range 10 {
		text(t, near, fmt.Sprintf("app/%d", i), "x")
	}
	want := content(t, near, "app")
	blocked := testlab.FaultyS3(t, far, testlab.Always(of(http.MethodPut, "app/"), proxys404))
	r, _, err := run(t, open(t, near, "app"), open(t, blocked.Store, "app"), nil)
	if !fault.Is(err, fault.MirrorIncomplete) || r.Failed != 10 || r.Gone != 0 {
		t.Errorf("a far side that is not found: %v; %d set aside, %d gone", err, r.Failed, r.Gone)
	}
	carrier, _ := bucket.CarrierOf(open(t, blocked.Store, "app"))
	if _, _, err := carrier.Deliver(t.Context(), bucket.Cargo{Object: bucket.Object{Key: "x"}}, []byte("x"), sha256.Sum256([]byte("x"))); !fault.Is(err, fault.BucketBusy) {
		t.Errorf("a 404 that is no answer of S3: %v", err)
	}
	late := testlab.FaultyS3(t, far, testlab.Times(7, of(http.MethodPut, "app/"), proxys404))
	hidden := testlab.FaultyS3(t, near, testlab.Times(5, of(http.MethodGet, "app/"), testlab.Fail(http.StatusNotFound, "NoSuchKey")))
	_, _, err = run(t, open(t, hidden.Store, "app"), open(t, late.Store, "app"), nil)
	must(t, err)
	sameContent(t, want, content(t, far, "app"))

	text(t, near, "app/late", "y")
	gone := testlab.FaultyS3(t, near, testlab.Times(1, of(http.MethodGet, "app/late"), func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		remove(t, near, "app/late")
		upstream.ServeHTTP(w, r)
	}))
	r, _, err = run(t, open(t, gone.Store, "app"), open(t, far, "app"), nil)
	if must(t, err); r.Gone != 1 {
		t.Errorf("%d objects are gone, of one", r.Gone)
	}
}

func TestAnUploadThatSomebodyEndsIsBegunAnew(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	multipart(t, near, "app/large", noise(1, 20<<20), 8<<20)
	ends := testlab.FaultyS3(t, far, testlab.Times(1, func(r *http.Request) bool { return r.URL.Query().Get("partNumber") == "2" }, func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		id := r.URL.Query().Get("uploadId")
		_, err := far.Client().AbortMultipartUpload(context.WithoutCancel(r.Context()), &s3.AbortMultipartUploadInput{Bucket: &far.Bucket, Key: aws.String("app/large"), UploadId: &id})
		if err != nil {
			t.Error(err)
		}
		upstream.ServeHTTP(w, r)
	}))
	_, w, err := run(t, open(t, near, "app"), open(t, ends.Store, "app"), nil)
	if must(t, err); w.again == 0 {
		t.Error("it was not ended")
	}
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
	carrier, _ := bucket.CarrierOf(open(t, far, "app"))
	id, err := carrier.Begin(t.Context(), bucket.Cargo{Object: bucket.Object{Key: "x"}})
	must(t, err)
	must(t, carrier.Cancel(t.Context(), "x", id))
	if _, err := carrier.Send(t.Context(), "x", id, 1, []byte("x")); !fault.Is(err, fault.ObjectMissing) {
		t.Errorf("a part of an upload that was ended: %v", err)
	}
}

func TestNothingIsDeletedWhileSomethingIsSetAside(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	text(t, near, "app/new", "new")
	text(t, near, "app/t/metadata/1.metadata.json", "{}")
	text(t, far, "app/old", "old")
	text(t, far, "app/t/metadata/0.metadata.json", "{}")
	from, to := open(t, near, "app"), open(t, far, "app")
	lake := &tables{from: from, to: to, fails: fault.New(fault.BucketRights, "t", "refused")}
	with := func(o *mirror.Options) { o.Tables, o.Delete = lake, true }
	r, _, err := run(t, from, to, with)
	if !fault.Is(err, fault.MirrorIncomplete) || r.Deleted != 0 || r.Withheld != 2 {
		t.Errorf("%v; %d deleted, %d withheld", err, r.Deleted, r.Withheld)
	}
	if has(t, far, "app/old") == "" || has(t, far, "app/t/metadata/0.metadata.json") == "" {
		t.Error("something was deleted")
	}
	lake.fails = nil
	if r, _, err = run(t, from, to, with); err != nil || r.Deleted != 2 || r.Withheld != 0 {
		t.Errorf("then: %v; %d deleted, %d withheld", err, r.Deleted, r.Withheld)
	}
}

func TestADumpOfTheSameDayTakesTheEarlierOnesPlaceAsAWhole(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	first, second := map[string]string{"a.csv": "a1", "b.csv": "b1", "c.csv": "c"}, map[string]string{"a.csv": "a2", "b.csv": "b2", "c.csv": "c"}
	for name, data := range first {
		text(t, near, "app/day/"+name, data)
	}
	text(t, near, "app/day/manifest.json", dumpOf("1", first))
	to := open(t, far, "app")
	r, _, err := run(t, open(t, near, "app"), to, nil)
	if must(t, err); r.Dumps != 1 {
		t.Fatalf("%d dumps", r.Dumps)
	}

	remove(t, near, "app/day/manifest.json") // the second dump is at work
	text(t, near, "app/day/a.csv", "a2")
	seen := make(chan string, 100)
	watched := testlab.FaultyS3(t, far, func(r *http.Request) testlab.Answer {
		if of(http.MethodPut, "a.csv")(r) {
			seen <- has(t, far, "app/day/manifest.json")
		}
		return nil
	})
	_, _, err = run(t, open(t, near, "app"), open(t, watched.Store, "app"), nil)
	must(t, err)
	if close(seen); <-seen != "" || has(t, far, "app/day/manifest.json") != "" {
		t.Error("the first dump's manifest is there while its files are replaced")
	}

	text(t, near, "app/day/b.csv", "b2")
	text(t, near, "app/day/manifest.json", dumpOf("2", second))
	later := dumpOf("3", second)
	var once sync.Once
	changes := testlab.FaultyS3(t, near, func(r *http.Request) testlab.Answer {
		if !of(http.MethodGet, "manifest.json")(r) || r.Header.Get("If-Match") == "" {
			return nil
		}
		once.Do(func() { text(t, near, "app/day/manifest.json", later) }) // a third one has come to its end
		return nil
	})
	if _, _, err = run(t, open(t, changes.Store, "app"), to, nil); !fault.Is(err, fault.MirrorIncomplete) || has(t, far, "app/day/manifest.json") != "" {
		t.Errorf("a manifest that nobody proved: %v", err)
	}
	_, _, err = run(t, open(t, near, "app"), to, nil)
	if must(t, err); has(t, far, "app/day/manifest.json") != later {
		t.Error("the last dump is not there")
	}
}

func TestFilesOfDumpsAreComparedByTheirManifests(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		far     string // what the far side's manifest says that its file holds
		last    string // of the far side, what is written last; all of it later than the source
		by      int64  // how many are compared by a manifest
		carried bool
	}{
		{"the same", "near", "manifest.json", 1, false},
		{"of another dump", "else", "manifest.json", 1, true},
		{"written behind its manifest", "near", "a.csv", 0, false}, // by time then
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.S3(t), testlab.Ceph(t)
			write := map[string]func(){
				"manifest.json": func() { text(t, far, "app/day/manifest.json", dumpOf("1", map[string]string{"a.csv": c.far})) },
				"a.csv":         func() { multipart(t, far, "app/day/a.csv", []byte("near"), 4) }, // by another program, so that its ETag says nothing
			}
			text(t, near, "app/day/a.csv", "near")
			text(t, near, "app/day/manifest.json", dumpOf("1", map[string]string{"a.csv": "near"}))
			for name := range write {
				if name != c.last {
					write[name]()
				}
			}
			write[c.last]()
			r, w, err := run(t, open(t, near, "app"), open(t, far, "app"), nil)
			must(t, err)
			byManifest := int64(r.Reasons[mirror.ReasonManifest]) + r.Same[mirror.WayManifest]
			if carried := slices.Contains(w.carried, "day/a.csv"); byManifest != c.by || byManifest == 1 && carried != c.carried {
				t.Errorf("carried: %v, same by %v, carried for %v", carried, r.Same, r.Reasons)
			}
		})
	}
}

func TestAFileThatAManifestTellsToBeAnotherIsCarriedAlsoWhereTheFirstAttemptFails(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	text(t, near, "app/day/a.csv", "near")
	text(t, near, "app/day/manifest.json", dumpOf("2", map[string]string{"a.csv": "near"}))
	multipart(t, far, "app/day/a.csv", []byte("else"), 4) // by another program, and later
	text(t, far, "app/day/manifest.json", dumpOf("1", map[string]string{"a.csv": "else"}))
	var failed sync.Once
	failing := testlab.FaultyS3(t, far, func(r *http.Request) (answer testlab.Answer) {
		if of(http.MethodPut, "a.csv")(r) {
			failed.Do(func() { answer = testlab.Fail(http.StatusServiceUnavailable, "SlowDown") })
		}
		return answer
	})
	_, _, err := run(t, open(t, near, "app"), open(t, failing.Store, "app"), nil)
	must(t, err)
	if has(t, far, "app/day/a.csv") != "near" || has(t, far, "app/day/manifest.json") != has(t, near, "app/day/manifest.json") {
		t.Errorf("the far side has %q under %s", has(t, far, "app/day/a.csv"), has(t, far, "app/day/manifest.json"))
	}
}

// inParts writes an object in parts of the given sizes.
func inParts(t testing.TB, s testlab.Store, key string, sizes ...int) {
	t.Helper()
	c := s.Client()
	up, err := c.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &s.Bucket, Key: &key})
	must(t, err)
	var parts []types.CompletedPart
	for i, size := range sizes {
		p, err := c.UploadPart(t.Context(), &s3.UploadPartInput{
			Bucket: &s.Bucket, Key: &key, UploadId: up.UploadId, PartNumber: aws.Int32(int32(i + 1)), Body: strings.NewReader(string(noise(uint64(i), size))),
		})
		must(t, err)
		parts = append(parts, types.CompletedPart{ETag: p.ETag, PartNumber: aws.Int32(int32(i + 1))})
	}
	_, err = c.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: &s.Bucket, Key: &key, UploadId: up.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	must(t, err)
}

// passedOn has the store answer, and gives the answer's headers to change before they are sent.
func passedOn(w http.ResponseWriter, r *http.Request, upstream http.Handler, change func(http.Header)) (status int, body []byte) {
	answer := httptest.NewRecorder()
	upstream.ServeHTTP(answer, r)
	maps.Copy(w.Header(), answer.Header())
	change(w.Header())
	return answer.Code, answer.Body.Bytes()
}

// firstPart answers questions for the first part, as AWS does, of an object in parts of which the first has so many bytes.
func firstPart(bytes int) testlab.Answer {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		passedOn(w, r, upstream, func(h http.Header) { h.Set("Content-Length", fmt.Sprint(bytes)) })
		w.WriteHeader(http.StatusPartialContent)
	}
}

func TestObjectsInUnequalPartsAndOfNoneAreCarried(t *testing.T) {
	t.Parallel()
	near, far := testlab.Ceph(t), testlab.S3(t)
	inParts(t, near, "app/unequal", 10<<20, 9<<20, 8<<20)
	inParts(t, near, "app/nothing", 0)
	tells := testlab.FaultyS3(t, near, func(r *http.Request) testlab.Answer {
		if r.URL.Query().Get("partNumber") == "1" && strings.HasSuffix(r.URL.Path, "unequal") {
			return firstPart(10 << 20)
		}
		return nil
	})
	from, to := open(t, tells.Store, "app"), open(t, far, "app")
	_, w, err := run(t, from, to, nil)
	if must(t, err); w.again != 0 {
		t.Errorf("tried again %d times", w.again)
	}
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
	r, w, err := run(t, from, to, nil)
	if must(t, err); len(w.carried) != 0 {
		t.Errorf("then %q is carried, the same: %v", w.carried, r.Same)
	}
}

func TestPlacesThatLieInOneAnotherAreRefused(t *testing.T) {
	t.Parallel()
	s := testlab.S3(t)
	text(t, s, "app/x", "x")
	for _, paths := range [][2]string{{"", "app"}, {"app", ""}, {"app", "app"}, {"app/", "app/copy"}} {
		from, to := open(t, s, paths[0]), open(t, s, paths[1])
		if _, _, err := run(t, from, to, func(o *mirror.Options) { o.Delete = true }); !fault.Is(err, fault.MirrorRefused) {
			t.Errorf("%q to %q: %v", paths[0], paths[1], err)
		}
	}
	_, _, err := run(t, open(t, s, "app"), open(t, s, "application"), nil)
	must(t, err)
}

// veiled is a server whose encryption makes ETags that say nothing.
func veiled(t testing.TB, s testlab.Store) testlab.Store {
	return testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		if r.URL.Query().Has("list-type") || strings.Contains(r.URL.Path, ".leat") || r.Method != http.MethodPut && r.Method != http.MethodHead {
			return nil
		}
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			status, body := passedOn(w, r, upstream, func(h http.Header) {
				h.Set("Etag", `"00000000000000000000000000000000"`)
				h.Set("X-Amz-Server-Side-Encryption", "aws:kms")
			})
			w.WriteHeader(status)
			_, _ = w.Write(body) // the client went away
		}
	}).Store
}

func TestWhatAFarSideEncryptsKeepsANoteOfItsOrigin(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for i := range 20 {
		put(t, near, s3.PutObjectInput{Key: aws.String(fmt.Sprintf("app/%02d", i)), Metadata: map[string]string{"leat-origin": "of a mirror before", "a": "b"}}, noise(uint64(i), 10))
	}
	_, _, err := run(t, open(t, near, "app"), open(t, veiled(t, far), "app"), nil)
	must(t, err)
	for i := range 20 {
		key := fmt.Sprintf("app/%02d", i)
		here, err := near.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &near.Bucket, Key: &key})
		must(t, err)
		there, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: &key})
		must(t, err)
		if got := there.Metadata["leat-origin"]; got != strings.Trim(*here.ETag, `"`) || there.Metadata["a"] != "b" {
			t.Errorf("%s: the note says %q, its source's ETag is %s", key, got, *here.ETag)
		}
	}
}

func TestANoteOfItsOriginIsNotHandedOn(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	put(t, near, s3.PutObjectInput{Key: aws.String("app/x"), Metadata: map[string]string{"leat-origin": "of a mirror before"}}, []byte("x"))
	_, _, err := run(t, open(t, near, "app"), open(t, far, "app"), nil)
	must(t, err)
	there, err := far.Client().HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: &far.Bucket, Key: aws.String("app/x")})
	if must(t, err); len(there.Metadata) != 0 {
		t.Errorf("the far side notes %v", there.Metadata)
	}
}

func TestAnObjectThatGrowsMeanwhileIsCarriedAsItIsThen(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	text(t, near, "app/grows", "small")
	grows := testlab.FaultyS3(t, near, testlab.Times(1, of(http.MethodGet, "app/grows"), func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		put(t, near, s3.PutObjectInput{Key: aws.String("app/grows")}, noise(1, 17<<20))
		upstream.ServeHTTP(w, r)
	}))
	_, _, err := run(t, open(t, grows.Store, "app"), open(t, far, "app"), nil)
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
}

func TestFilesOfATableBesideItsDataFolderAreLeftToIt(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	text(t, near, "app/t/deletes/d.parquet", "with the source's paths")
	text(t, near, "app/t/metadata/1.metadata.json", "{}")
	text(t, far, "app/t/deletes/d.parquet", "with the far side's paths")
	text(t, near, "app/other/d.parquet", "new")
	text(t, far, "app/other/d.parquet", "old")
	from, to := open(t, near, "app"), open(t, far, "app")
	_, _, err := run(t, from, to, func(o *mirror.Options) { o.Tables = &tables{from: from, to: to} })
	must(t, err)
	if got := has(t, far, "app/t/deletes/d.parquet"); got != "with the far side's paths" {
		t.Errorf("the table's file is replaced: %q", got)
	}
	if got := has(t, far, "app/other/d.parquet"); got != "new" {
		t.Errorf("a file of no table: %q", got)
	}
}

func TestWhatIsOnlyCalledLikeAPointerIsAnObjectLikeAnyOther(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	for _, key := range []string{"version-hint.text", "x/version-hint.text", "metadata/my-version-hint.text", "x/_manifests", "_manifests/latest"} {
		text(t, near, "app/"+key, key)
	}
	from, to := open(t, near, "app"), open(t, far, "app")
	_, _, err := run(t, from, to, func(o *mirror.Options) { o.Tables = &tables{from: from, to: to} })
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
}

func TestAFilterThatLeavesOutATablesMetadataTakesItsFiles(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	text(t, near, "app/t/data/a.parquet", "a")
	text(t, near, "app/t/metadata/1.metadata.json", "{}")
	glob, err := mirror.ParseGlob("*.parquet")
	must(t, err)
	from, to := open(t, near, "app"), open(t, far, "app")
	_, w, err := run(t, from, to, func(o *mirror.Options) {
		o.Tables, o.Filter.Include = &tables{from: from, to: to}, []mirror.Glob{glob}
	})
	if must(t, err); !slices.Equal(w.carried, []string{"t/data/a.parquet"}) {
		t.Errorf("%q is carried", w.carried)
	}
}

func TestACommitOfChangeFilesComesAfterItsFiles(t *testing.T) {
	t.Parallel()
	near, far := testlab.S3(t), testlab.Ceph(t)
	commit := func(number int, files ...string) {
		var list []string
		for _, f := range files {
			text(t, near, "app/lake/public.t/"+f, "rows of "+f)
			list = append(list, fmt.Sprintf(`{"key":"public.t/%s","bytes":%d}`, f, len("rows of "+f)))
		}
		text(t, near, fmt.Sprintf("app/lake/public.t/_manifests/%012d.json", number), `{"format_version":1,"files":[`+strings.Join(list, ",")+`]}`)
	}
	commit(1, "00-1.csv", "00-2.csv")
	commit(2, "00-3.csv")
	text(t, near, "app/lake/public.t/_manifests/latest", "2")
	to := open(t, far, "app")
	blocked := testlab.FaultyS3(t, near, testlab.Always(of(http.MethodGet, "00-2.csv"), testlab.Fail(http.StatusForbidden, "AccessDenied")))
	_, _, err := run(t, open(t, blocked.Store, "app"), to, nil)
	if !fault.Is(err, fault.MirrorIncomplete) {
		t.Error(err)
	}
	manifest := func(n int) string { return has(t, far, fmt.Sprintf("app/lake/public.t/_manifests/%012d.json", n)) }
	if manifest(1) != "" || manifest(2) == "" {
		t.Error("a commit is there without its file, or one with its files is not")
	}

	var once sync.Once
	behind := testlab.FaultyS3(t, near, func(r *http.Request) testlab.Answer {
		if of(http.MethodGet, "00-2.csv")(r) { // the listing has come to its end
			once.Do(func() {
				commit(3, "00-0.csv")
				commit(2, "00-0.csv", "00-3.csv")
			})
		}
		return nil
	})
	_, _, err = run(t, open(t, behind.Store, "app"), to, nil)
	must(t, err)
	_, _, err = run(t, open(t, near, "app"), to, nil)
	must(t, err)
	sameContent(t, content(t, near, "app"), content(t, far, "app"))
}
