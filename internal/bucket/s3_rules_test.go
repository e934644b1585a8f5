package bucket_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// amazon answers as AWS is documented to, where no server at hand does: a request's method and first query field find the answer.
type amazon struct {
	*httptest.Server
	mu      sync.Mutex
	answers map[string]string // "GET lifecycle" to "status, a line break, body"
	got     map[string]string // the last body of each kind of request
}

func newAmazon(t *testing.T, answers map[string]string) *amazon {
	a := &amazon{answers: answers, got: map[string]string{}}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	what, _, _ := strings.Cut(r.URL.RawQuery, "&")
	what, _, _ = strings.Cut(what, "=")
	kind := strings.TrimSpace(r.Method + " " + what)
	a.mu.Lock()
	a.got[kind] = string(body)
	answer, known := a.answers[kind]
	a.mu.Unlock()
	if !known {
		answer = "200\n"
	}
	head, rest, _ := strings.Cut(answer, "\n")
	status := 0
	fmt.Sscan(head, &status)
	if code, found := strings.CutPrefix(rest, "code "); found {
		rest = "<Error><Code>" + code + "</Code><Message>said so</Message></Error>"
	}
	w.WriteHeader(status)
	io.WriteString(w, rest)
}

func (a *amazon) asked(kind string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.got[kind]
}

func (a *amazon) keeper(t *testing.T) bucket.Keeper {
	b := open(t, "s3://egress/app", bucket.Options{
		Endpoint: a.URL, Region: "eu-west-1", AccessKeyID: "x", SecretAccessKey: func() string { return testlab.Secret("amazon-secret-1") }, MaxRetries: -1,
	})
	k, ok := bucket.KeeperOf(b)
	if !ok {
		t.Fatal("it is no keeper")
	}
	return k
}

func TestASettingThatNobodyMadeIsNoError(t *testing.T) {
	t.Parallel()
	k := newAmazon(t, map[string]string{
		"GET encryption":        "404\ncode ServerSideEncryptionConfigurationNotFoundError",
		"GET lifecycle":         "404\ncode NoSuchLifecycleConfiguration",
		"GET publicAccessBlock": "404\ncode NoSuchPublicAccessBlockConfiguration",
		"GET policy":            "404\ncode NoSuchBucketPolicy",
		"GET versioning":        "200\n<VersioningConfiguration/>",
	}).keeper(t)
	ctx := t.Context()
	if e, err := k.Encryption(ctx); err != nil || e != (bucket.Encryption{}) {
		t.Errorf("encryption: %+v, %v", e, err)
	}
	if e, err := k.Expiries(ctx); err != nil || len(e) != 0 {
		t.Errorf("lifecycle: %+v, %v", e, err)
	}
	if p, err := k.PublicBlock(ctx); err != nil || p != (bucket.PublicBlock{}) {
		t.Errorf("block: %+v, %v", p, err)
	}
	if p, err := k.Policy(ctx); err != nil || p != "" {
		t.Errorf("policy: %q, %v", p, err)
	}
	if v, err := k.Versioning(ctx); err != nil || v != "" {
		t.Errorf("versioning: %q, %v", v, err)
	}
	if done, err := k.Restate(ctx); err != nil || len(done) != 0 {
		t.Errorf("what is not there was written once more: %+v, %v", done, err)
	}
}

func TestARuleOfTheLifecycleIsReadForWhatItRemoves(t *testing.T) {
	t.Parallel()
	const rule = `<Rule><ID>%s</ID><Status>%s</Status>%s</Rule>`
	rules := `<LifecycleConfiguration>` +
		fmt.Sprintf(rule, "old form", "Enabled", `<Prefix>app/</Prefix><Expiration><Days>3</Days></Expiration>`) +
		fmt.Sprintf(rule, "tagged", "Enabled", `<Filter><And><Prefix>a</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter><Expiration><Days>4</Days></Expiration>`) +
		fmt.Sprintf(rule, "sized", "Enabled", `<Filter><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></Filter><Expiration><Days>5</Days></Expiration>`) +
		fmt.Sprintf(rule, "off", "Disabled", `<Filter/><Expiration><Days>6</Days></Expiration>`) +
		fmt.Sprintf(rule, "some versions stay", "Enabled", `<Filter/><NoncurrentVersionExpiration><NoncurrentDays>7</NoncurrentDays><NewerNoncurrentVersions>2</NewerNoncurrentVersions></NoncurrentVersionExpiration><AbortIncompleteMultipartUpload><DaysAfterInitiation>8</DaysAfterInitiation></AbortIncompleteMultipartUpload>`) +
		fmt.Sprintf(rule, "only moves", "Enabled", `<Filter/><Transition><Days>9</Days><StorageClass>GLACIER</StorageClass></Transition>`) +
		`</LifecycleConfiguration>`
	a := newAmazon(t, map[string]string{"GET lifecycle": "200\n" + rules})
	got, err := a.keeper(t).Expiries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []bucket.Expiry{
		{ID: "old form", Enabled: true, Prefix: "app/", Days: 3},
		{ID: "tagged", Enabled: true, Prefix: "a", Narrow: true, Days: 4},
		{ID: "sized", Enabled: true, Narrow: true, Days: 5},
		{ID: "off", Days: 6},
		{ID: "some versions stay", Enabled: true, AbortDays: 8},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}

	if err := a.keeper(t).SetExpiry(t.Context(), bucket.Expiry{ID: "leat", Prefix: "app/", Days: 14}); err != nil {
		t.Fatal(err)
	}
	sent := a.asked("PUT lifecycle")
	for _, part := range []string{"<StorageClass>GLACIER</StorageClass>", "<NewerNoncurrentVersions>2<", "<Filter><Prefix>app/</Prefix></Filter><ID>old form", "<Days>14</Days>"} {
		if !strings.Contains(sent, part) {
			t.Errorf("%s is not in what was written:\n%s", part, sent)
		}
	}
}

func TestAServersWordsForWhatItLacksAreUnderstood(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"not implemented": "501\ncode NotImplemented", "method not allowed": "405\ncode MethodNotAllowed", "a list of objects": "200\n<ListBucketResult/>",
	} {
		k := newAmazon(t, map[string]string{"GET encryption": answer}).keeper(t)
		if _, err := k.Encryption(t.Context()); !fault.Is(err, fault.BucketUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	k := newAmazon(t, map[string]string{"PUT encryption": "403\ncode AccessDenied"}).keeper(t)
	err := k.SetEncryption(t.Context(), bucket.Encryption{Algorithm: "AES256"})
	if !fault.Is(err, fault.BucketRights) || fault.Of(err).Mend != "Allow s3:PutEncryptionConfiguration on arn:aws:s3:::egress." {
		t.Errorf("got %v (%s)", err, fault.Of(err).HowToMend())
	}
}

func TestWhoseABucketIsIsFoundOut(t *testing.T) {
	t.Parallel()
	f := func(name string, made bool, want fault.Code, answers map[string]string) {
		t.Helper()
		got, err := newAmazon(t, answers).keeper(t).Make(t.Context())
		if got != made || want == "" && err != nil || want != "" && !fault.Is(err, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	const list = "200\n<ListAllMyBucketsResult><Buckets>%s</Buckets></ListAllMyBucketsResult>"
	f("it is new", true, "", map[string]string{"HEAD": "404\n"})
	f("it is in our list", false, "", map[string]string{"GET x-id": fmt.Sprintf(list, "<Bucket><Name>egress</Name></Bucket>"), "PUT": "409\ncode BucketAlreadyExists"})
	f("it is open to us and not ours", false, fault.BucketForeign, map[string]string{"GET x-id": fmt.Sprintf(list, ""), "PUT": "409\ncode BucketAlreadyExists"})
	f("the list is closed, and it is ours", false, "", map[string]string{"GET x-id": "403\ncode AccessDenied", "PUT": "409\ncode BucketAlreadyOwnedByYou"})
	f("it is closed to us", false, fault.BucketForeign, map[string]string{"HEAD": "403\n", "PUT": "409\ncode BucketAlreadyExists"})
	f("we may not make any", false, fault.BucketRights, map[string]string{"HEAD": "404\n", "PUT": "403\ncode AccessDenied"})
}

func TestAServerIsKnownByItsRequestIDs(t *testing.T) {
	t.Parallel()
	for want, s := range map[bucket.Server]testlab.Store{bucket.ServerCeph: testlab.Ceph(t), bucket.ServerOther: testlab.S3(t)} {
		k, _ := bucket.KeeperOf(openS3(t, s, bucket.Options{}))
		if got, err := k.Server(t.Context()); err != nil || got != want {
			t.Errorf("%s is taken for %q, %v", want, got, err)
		}
	}
	b := open(t, "s3://egress", bucket.Options{Region: "eu-west-1", AccessKeyID: "x", SecretAccessKey: func() string { return "y" }})
	k, _ := bucket.KeeperOf(b)
	if got, err := k.Server(t.Context()); err != nil || got != bucket.ServerAWS {
		t.Errorf("AWS is taken for %q, %v", got, err)
	}
}

func TestABucketInAnotherRegionIsAskedThere(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "/us-west-2/s3/") {
			w.Header().Set("X-Amz-Bucket-Region", "us-west-2")
			w.WriteHeader(http.StatusMovedPermanently)
			return
		}
		io.WriteString(w, "<ListBucketResult/>")
	}))
	t.Cleanup(server.Close)
	k := (&amazon{Server: server}).keeper(t)
	if yes, err := k.Lists(t.Context(), "theirs"); err != nil || !yes {
		t.Errorf("%v, %v", yes, err)
	}
}

func TestWhoMayNotWriteIsToldSoBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	for _, s := range []testlab.Store{testlab.Ceph(t), testlab.S3(t)} {
		k, _ := bucket.KeeperOf(openS3(t, s, bucket.Options{}))
		if yes, err := k.Writes(t.Context(), s.Bucket); err != nil || !yes {
			t.Errorf("the owner: %v, %v", yes, err)
		}
		if yes, err := k.Writes(t.Context(), s.Bucket+"-none"); err != nil || yes {
			t.Errorf("a bucket that is not there: %v, %v", yes, err)
		}
	}
	s := testlab.Ceph(t)
	k, _ := bucket.KeeperOf(openS3(t, s.As(s.Stranger), bucket.Options{}))
	if yes, err := k.Writes(t.Context(), s.Bucket); err != nil || yes {
		t.Errorf("a stranger: %v, %v", yes, err)
	}
}

func TestARequestWithoutKeysIsNotSigned(t *testing.T) {
	t.Parallel()
	s := testlab.FaultyS3(t, testlab.Ceph(t), func(r *http.Request) testlab.Answer {
		if r.Header.Get("Authorization") != "" || strings.Contains(r.URL.RawQuery, "Signature") {
			return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusTeapot) }
		}
		return nil
	})
	k, _ := bucket.KeeperOf(openS3(t, s.Store, bucket.Options{}))
	for _, key := range []string{"", "a b/ü"} {
		if status, err := k.Anonymous(t.Context(), http.MethodGet, key); err != nil || status != http.StatusForbidden {
			t.Errorf("%q: %d, %v", key, status, err)
		}
	}
}

func TestTheTimeAnObjectGoesIsRead(t *testing.T) {
	t.Parallel()
	store := testlab.Ceph(t)
	k, _ := bucket.KeeperOf(openS3(t, store, bucket.Options{}))
	if err := k.Put(t.Context(), "k", false); err != nil {
		t.Fatal(err)
	}
	if s, err := k.Look(t.Context(), "k"); err != nil || !s.Expires.IsZero() {
		t.Errorf("without a lifecycle: %+v, %v", s, err)
	}
	_, root := k.Place()
	if err := k.SetExpiry(t.Context(), bucket.Expiry{ID: "leat", Prefix: root, Days: 3}); err != nil {
		t.Fatal(err)
	}
	s, err := k.Look(t.Context(), "k")
	if in := time.Until(s.Expires); err != nil || in < 2*24*time.Hour || in > 4*24*time.Hour {
		t.Errorf("it goes in %s, %v", in, err)
	}
}
