package mirror_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
	for i := range 300 {
		text(t, near, fmt.Sprintf("app/%03d", i), "x")
	}
	for name, c := range map[string]struct {
		answer testlab.Answer
		code   fault.Code
		most   int // objects that are tried before it is known
	}{
		"without room":   {testlab.Fail(403, "QuotaExceeded"), fault.BucketFull, 8},
		"without rights": {testlab.Fail(403, "AccessDenied"), fault.BucketRights, 200},
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

func (l looking) Relocate(_ context.Context, root string, _ func(context.Context, string, int64) error) (bool, error) {
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
