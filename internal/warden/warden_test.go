package warden_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/warden"
)

func TestMain(m *testing.M) { testlab.Main(m) }

// usual are the rules without a word on the command line.
var usual = warden.Rules{Encryption: bucket.Encryption{Algorithm: "AES256"}, ExpireDays: 14, AbortDays: 1}

func keep(t testing.TB, s testlab.Store, path string, opts bucket.Options) bucket.Keeper {
	t.Helper()
	opts.Endpoint, opts.Region, opts.CAFile = s.Endpoint, s.Region, s.CA
	opts.AccessKeyID, opts.SecretAccessKey = s.AccessKey, func() string { return s.SecretKey }
	b, err := bucket.Open(t.Context(), "s3://"+s.Bucket+path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	k, ok := bucket.KeeperOf(b)
	if !ok {
		t.Fatal("an S3 bucket is no keeper")
	}
	return k
}

func create(t testing.TB, k bucket.Keeper, rules warden.Rules) warden.Report {
	t.Helper()
	r, err := warden.Create(t.Context(), k, rules, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func audit(t testing.TB, k bucket.Keeper, opts warden.Options) []fault.Finding {
	t.Helper()
	if opts.Rules == (warden.Rules{}) {
		opts.Rules = usual
	}
	opts.Now = time.Now
	found, err := warden.Audit(t.Context(), k, opts)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// broken are the codes of the findings that count, sorted.
func broken(found []fault.Finding) string {
	var codes []string
	for _, f := range found {
		if f.Severity != fault.SeverityOK && f.Severity != fault.SeverityInfo {
			codes = append(codes, f.Code)
		}
	}
	slices.Sort(codes)
	return strings.Join(slices.Compact(codes), " ")
}

func expectBroken(t testing.TB, found []fault.Finding, want string) {
	t.Helper()
	if got := broken(found); got != want {
		t.Errorf("found %q, want %q", got, want)
		for _, f := range found {
			t.Logf("%-8s %s: %s", f.Severity, f.Code, f.What)
		}
	}
}

func expectFinding(t testing.TB, found []fault.Finding, code string, severity fault.Severity, says string) {
	t.Helper()
	for _, f := range found {
		if f.Code == code && f.Severity == severity && strings.Contains(f.What, says) {
			return
		}
	}
	t.Errorf("no finding %s (%s) says %q:", code, severity, says)
	for _, f := range found {
		t.Logf("%-8s %s: %s", f.Severity, f.Code, f.What)
	}
}

func outcomes(steps []warden.Step) string {
	var all []string
	for _, s := range steps {
		all = append(all, s.Rule+"="+string(s.Did))
	}
	return strings.Join(all, " ")
}

// fresh is a store with the name of a bucket that does not exist.
func fresh(s testlab.Store) testlab.Store {
	s.Bucket += "-new"
	return s
}

// scratchLeft fails the test if a scratch object is still there.
func scratchLeft(t testing.TB, s testlab.Store) {
	t.Helper()
	out, err := s.Client().ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: &s.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Contents {
		if strings.Contains(*o.Key, ".leat/audit-") {
			t.Errorf("%s is left behind", *o.Key)
		}
	}
}

func TestABucketOnCephIsMadeAndTheEncryptionItLacksIsSaid(t *testing.T) {
	t.Parallel()
	for name, lab := range map[string]func(testing.TB) testlab.Store{"http": testlab.Ceph, "tls": testlab.CephTLS} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := fresh(lab(t))
			k := keep(t, s, "/app", bucket.Options{})
			r := create(t, k, usual)
			if got, want := outcomes(r.Steps), "bucket=made encryption=impossible lifecycle=set public-block=set"; got != want {
				t.Errorf("the first time: %s, want %s", got, want)
			}
			expectBroken(t, r.Findings, "encryption-missing")
			expectFinding(t, r.Findings, warden.LifecycleMissing, fault.SeverityOK, "after 14 days, and the server says that one of today goes on 2")
			expectFinding(t, r.Findings, warden.PublicRead, fault.SeverityOK, "nobody")
			expectFinding(t, r.Findings, warden.BucketShared, fault.SeverityOK, "")
			scratchLeft(t, s)

			again := create(t, k, usual)
			if got, want := outcomes(again.Steps), "bucket=kept encryption=impossible lifecycle=kept public-block=kept"; got != want {
				t.Errorf("the second time: %s, want %s", got, want)
			}
			rules, err := k.Expiries(t.Context())
			if err != nil || len(rules) != 1 || rules[0].Prefix != "app/" {
				t.Errorf("the lifecycle is %+v, %v", rules, err)
			}
		})
	}
}

func TestEncryptionThatLeatAsksForMakesUpForTheBuckets(t *testing.T) {
	t.Parallel()
	k := keep(t, testlab.Ceph(t), "", bucket.Options{SSE: "aws:kms", KMSKeyID: "testkey-1"})
	create(t, k, usual)
	found := audit(t, k, warden.Options{For: warden.Owner})
	expectBroken(t, found, "")
	expectFinding(t, found, warden.NotToBeProved, fault.SeverityInfo, "leat asks for aws:kms")

	// This one is taken and ignored.
	k = keep(t, testlab.Ceph(t), "", bucket.Options{SSE: "AES256"})
	create(t, k, usual)
	expectBroken(t, audit(t, k, warden.Options{For: warden.Owner}), "encryption-missing")
}

func TestWhatVersityLacksIsSaidAndNeverTakenForDone(t *testing.T) {
	t.Parallel()
	s := fresh(testlab.S3(t))
	k := keep(t, s, "", bucket.Options{})
	rules := usual
	rules.Versioning = true
	want := "bucket=made encryption=impossible versioning=impossible lifecycle=impossible public-block=impossible"
	r := create(t, k, rules)
	if got := outcomes(r.Steps); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	expectBroken(t, r.Findings, "encryption-missing lifecycle-missing public-not-blocked uploads-not-aborted versioning-missing")
	expectFinding(t, r.Findings, warden.PublicList, fault.SeverityOK, "403")
	scratchLeft(t, s)
	if got, want := outcomes(create(t, k, rules).Steps), strings.Replace(want, "made", "kept", 1); got != want {
		t.Errorf("the second time: %s, want %s", got, want)
	}
}

func TestABucketOfSomebodyElseIsRefused(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	_, err := warden.Create(t.Context(), keep(t, s.As(s.Stranger), "", bucket.Options{}), usual, nil, time.Now)
	if !fault.Is(err, fault.BucketForeign) {
		t.Errorf("a closed bucket: %v", err)
	}
	// Nor is one taken that is open to us.
	everything := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/stranger"]},"Action":["s3:*"],"Resource":["arn:aws:s3:::` + s.Bucket + `","arn:aws:s3:::` + s.Bucket + `/*"]}]}`
	if err := keep(t, s, "", bucket.Options{}).SetPolicy(t.Context(), everything); err != nil {
		t.Fatal(err)
	}
	_, err = warden.Create(t.Context(), keep(t, s.As(s.Stranger), "", bucket.Options{}), usual, nil, time.Now)
	if !fault.Is(err, fault.BucketForeign) {
		t.Errorf("an open bucket: %v", err)
	}
}

func TestTheLifecyclesOtherRulesStay(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	theirs := types.LifecycleRule{
		ID: aws.String("theirs"), Status: types.ExpirationStatusEnabled, Filter: &types.LifecycleRuleFilter{Prefix: aws.String("")},
		Expiration: &types.LifecycleExpiration{Days: aws.Int32(90)},
	}
	if _, err := s.Client().PutBucketLifecycleConfiguration(t.Context(), &s3.PutBucketLifecycleConfigurationInput{
		Bucket: &s.Bucket, LifecycleConfiguration: &types.BucketLifecycleConfiguration{Rules: []types.LifecycleRule{theirs}},
	}); err != nil {
		t.Fatal(err)
	}
	k := keep(t, s, "/a", bucket.Options{})
	found := audit(t, k, warden.Options{For: warden.Owner})
	expectFinding(t, found, warden.LifecycleMissing, fault.SeverityHigh, "later than in 14 days")
	if got := outcomes(create(t, k, usual).Steps); !strings.Contains(got, "lifecycle=withheld") {
		t.Errorf("without a word: %s", got)
	}
	for _, path := range []string{"/a", "/b"} {
		if _, err := warden.Create(t.Context(), keep(t, s, path, bucket.Options{}), usual, warden.Consent{"lifecycle"}, time.Now); err != nil {
			t.Fatal(err)
		}
	}
	rules, err := k.Expiries(t.Context())
	var got []string
	for _, r := range rules {
		got = append(got, r.Prefix+":"+time.Duration(r.Days*int(time.Hour)).String())
	}
	slices.Sort(got)
	if want := ":90h0m0s a/:14h0m0s b/:14h0m0s"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%v, %v", got, err)
	}
}

func TestABucketWithVersionsLosesThemToo(t *testing.T) {
	t.Parallel()
	k := keep(t, testlab.Ceph(t), "", bucket.Options{})
	create(t, k, usual)
	if err := k.SetVersioning(t.Context()); err != nil {
		t.Fatal(err)
	}
	expectFinding(t, audit(t, k, warden.Options{For: warden.Owner}), warden.LifecycleMissing, fault.SeverityHigh, "only hidden")
	rules := usual
	rules.Versioning = true
	if got, want := outcomes(create(t, k, rules).Steps), "bucket=kept encryption=impossible versioning=kept lifecycle=set public-block=kept"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	expectBroken(t, audit(t, k, warden.Options{Rules: rules, For: warden.Owner}), "encryption-missing")
}

func TestAPublicBucketIsFoundByTryingAndMended(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	k := keep(t, s, "", bucket.Options{})
	if _, err := s.Client().PutBucketAcl(t.Context(), &s3.PutBucketAclInput{Bucket: &s.Bucket, ACL: types.BucketCannedACLPublicReadWrite}); err != nil {
		t.Fatal(err)
	}
	everybody := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":["s3:GetObject"],"Resource":["arn:aws:s3:::` + s.Bucket + `/*"]}]}`
	if err := k.SetPolicy(t.Context(), everybody); err != nil {
		t.Fatal(err)
	}
	found := audit(t, k, warden.Options{For: warden.Owner})
	expectBroken(t, found, "encryption-missing lifecycle-missing public-list public-not-blocked public-read public-write uploads-not-aborted")
	expectFinding(t, found, warden.PublicRead, fault.SeverityCritical, "anybody")
	if got, want := outcomes(warden.Fix(t.Context(), k, warden.Options{Rules: usual, Now: time.Now}, nil, found)), "encryption=impossible lifecycle=set public-block=set"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Ceph's block lets a policy stand that was there before.
	found = audit(t, k, warden.Options{For: warden.Owner})
	expectBroken(t, found, "encryption-missing public-read")
	for _, f := range found {
		if f.Code == warden.PublicRead && !strings.Contains(f.Mend, "bucket's policy") {
			t.Errorf("the mend is %q", f.Mend)
		}
	}
	if _, err := s.Client().DeleteBucketPolicy(t.Context(), &s3.DeleteBucketPolicyInput{Bucket: &s.Bucket}); err != nil {
		t.Fatal(err)
	}
	expectBroken(t, audit(t, k, warden.Options{For: warden.Owner}), "encryption-missing")
}

func TestAnObjectThatIsPublicByItselfIsFound(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	if _, err := s.Client().PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.Bucket, Key: aws.String("a"), Body: strings.NewReader("x"), ACL: types.ObjectCannedACLPublicRead}); err != nil {
		t.Fatal(err)
	}
	expectFinding(t, audit(t, keep(t, s, "", bucket.Options{}), warden.Options{For: warden.Owner}), warden.PublicRead, fault.SeverityCritical, "anybody can read a")
}

func TestABlockThatRefusesEveryWriteIsFoundAndMended(t *testing.T) {
	t.Parallel()
	k := keep(t, testlab.Ceph(t), "", bucket.Options{})
	create(t, k, usual)
	if err := k.SetPublicBlock(t.Context(), bucket.PublicBlock{RefuseACLs: true, IgnoreACLs: true, RefusePolicy: true, RestrictToOwn: true}); err != nil {
		t.Fatal(err)
	}
	found := audit(t, k, warden.Options{For: warden.Owner})
	expectFinding(t, found, warden.WritesRefused, fault.SeverityHigh, "refuses every write")
	warden.Fix(t.Context(), k, warden.Options{Rules: usual, Now: time.Now}, nil, found)
	expectBroken(t, audit(t, k, warden.Options{For: warden.Owner}), "encryption-missing")
}

func TestKeysOfAJobPassAndKeysOfTheOwnerDoNot(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	owner := keep(t, s, "/app", bucket.Options{})
	create(t, owner, usual)
	apply(t, owner, warden.Dump)
	job := keep(t, s.As(s.Stranger), "/app", bucket.Options{})
	found := audit(t, job, warden.Options{For: warden.Dump})
	expectBroken(t, found, "encryption-missing")
	expectFinding(t, found, warden.LifecycleMissing, fault.SeverityOK, "the server says that an object of today goes on")
	expectFinding(t, found, warden.NotToBeProved, fault.SeverityInfo, "may not even read the bucket's rules")
	expectFinding(t, found, warden.NotToBeProved, fault.SeverityInfo, "see nothing beside the path")
	scratchLeft(t, s)
	if err := owner.Put(t.Context(), "x", false); err != nil {
		t.Fatal(err)
	}
	if err := keep(t, s.As(s.Stranger), "/other", bucket.Options{}).Delete(t.Context(), "x"); !fault.Is(err, fault.BucketRights) {
		t.Errorf("an object beside the path was deleted: %v", err)
	}

	// The owner's keys, taken for a job's, reach the owner's other bucket and change the rules.
	testlab.Ceph(t)
	found = audit(t, owner, warden.Options{})
	expectBroken(t, found, "encryption-missing keys-too-strong keys-too-wide")
	expectFinding(t, found, warden.KeysTooStrong, fault.SeverityMedium, "lifecycle")
	rules, err := owner.Expiries(t.Context())
	if err != nil || len(rules) != 1 || rules[0].Days != 14 || !rules[0].Enabled {
		t.Errorf("after the try the lifecycle is %+v, %v", rules, err)
	}
}

func TestKeysThatReachANamedBucketAreTooWide(t *testing.T) {
	t.Parallel()
	s, other := testlab.Ceph(t), testlab.Ceph(t)
	for _, b := range []testlab.Store{s, other} {
		apply(t, keep(t, b, "", bucket.Options{}), warden.Sync)
	}
	job := keep(t, s.As(s.Stranger), "", bucket.Options{})
	found := audit(t, job, warden.Options{For: warden.Sync, Others: []string{other.Bucket}})
	expectFinding(t, found, warden.KeysTooWide, fault.SeverityHigh, other.Bucket)
	// Keys that write need not list.
	into := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["arn:aws:iam:::user/stranger"]},"Action":["s3:PutObject"],"Resource":["arn:aws:s3:::` + other.Bucket + `/*"]}]}`
	if err := keep(t, other, "", bucket.Options{}).SetPolicy(t.Context(), into); err != nil {
		t.Fatal(err)
	}
	found = audit(t, job, warden.Options{For: warden.Sync, Others: []string{other.Bucket}})
	expectFinding(t, found, warden.KeysTooWide, fault.SeverityHigh, other.Bucket+" (they write into it)")
	for _, store := range []testlab.Store{other, s} {
		out, err := store.Client().ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &store.Bucket})
		if err != nil || len(out.Uploads) > 0 {
			t.Errorf("the try left %d uploads, %v", len(out.Uploads), err)
		}
	}
	found = audit(t, job, warden.Options{For: warden.Sync, Others: []string{"no-such-bucket-" + other.Bucket}})
	expectFinding(t, found, warden.KeysTooWide, fault.SeverityOK, "none of 1 other")
}

func TestKeysThatWriteBesideThePathAreTooWide(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	for path, want := range map[string]string{"/app": "encryption-missing", "": "encryption-missing keys-too-wide"} {
		owner := keep(t, s, "/app", bucket.Options{})
		create(t, owner, usual)
		apply(t, keep(t, s, path, bucket.Options{}), warden.Run)
		expectBroken(t, audit(t, keep(t, s.As(s.Stranger), "/app", bucket.Options{}), warden.Options{For: warden.Run}), want)
		if _, err := s.Client().DeleteBucketPolicy(t.Context(), &s3.DeleteBucketPolicyInput{Bucket: &s.Bucket}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKeysThatOnlyReadAreJudgedByAnObjectThatIsThere(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	owner := keep(t, s, "/app", bucket.Options{})
	create(t, owner, usual)
	apply(t, owner, warden.Sync)
	job := keep(t, s.As(s.Stranger), "/app", bucket.Options{})
	expectFinding(t, audit(t, job, warden.Options{For: warden.Sync}), warden.NotToBeProved, fault.SeverityInfo, "there is no object")
	if err := owner.Put(t.Context(), "2026-01-01/t.csv.gz", false); err != nil {
		t.Fatal(err)
	}
	found := audit(t, job, warden.Options{For: warden.Sync})
	expectBroken(t, found, "encryption-missing")
	expectFinding(t, found, warden.EncryptionMissing, fault.SeverityHigh, "2026-01-01/t.csv.gz")
	expectFinding(t, found, warden.LifecycleMissing, fault.SeverityOK, "goes on")

	apply(t, owner, warden.Target)
	expectFinding(t, audit(t, job, warden.Options{For: warden.Sync}), warden.KeysTooStrong, fault.SeverityMedium, "these keys write")
}

func TestThingsBesideThePathAreFound(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	for _, key := range []string{"a/b/ours", "a/theirs/1", "top"} {
		if _, err := s.Client().PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.Bucket, Key: &key, Body: strings.NewReader("x")}); err != nil {
			t.Fatal(err)
		}
	}
	found := audit(t, keep(t, s, "/a/b", bucket.Options{}), warden.Options{For: warden.Owner})
	expectFinding(t, found, warden.BucketShared, fault.SeverityMedium, "top, a/theirs/")
}

func TestAMissingBucketIsAnError(t *testing.T) {
	t.Parallel()
	for name, lab := range map[string]func(testing.TB) testlab.Store{"ceph": testlab.Ceph, "versity": testlab.S3} {
		_, err := warden.Audit(t.Context(), keep(t, fresh(lab(t)), "", bucket.Options{}), warden.Options{Rules: usual, Now: time.Now})
		if !fault.Is(err, fault.BucketMissing) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// apply lets the lab's second user do a job.
func apply(t testing.TB, k bucket.Keeper, job warden.Job) []warden.Step {
	t.Helper()
	name, root := k.Place()
	steps, err := warden.Apply(t.Context(), k, warden.DraftOptions{Job: job, Server: bucket.ServerCeph, Name: name, Root: root, Principal: "stranger"})
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

// store writes an object as another program would.
func store(t testing.TB, s testlab.Store, key, text string) {
	t.Helper()
	if _, err := s.Client().PutObject(t.Context(), &s3.PutObjectInput{Bucket: &s.Bucket, Key: &key, Body: strings.NewReader(text)}); err != nil {
		t.Fatal(err)
	}
}

// dumped is the manifest of a dump that names files of its folder.
func dumped(tool, folder string, files ...string) string {
	m := dump.Manifest{FormatVersion: dump.ManifestVersion, Tool: dump.Tool{Name: tool}, Folder: folder, Tables: make([]dump.TableManifest, 1)}
	for _, file := range files {
		m.Tables[0].Files = append(m.Tables[0].Files, dump.FileManifest{Key: folder + "/" + file, Bytes: 1})
	}
	text, _ := json.Marshal(m) // it holds nothing that JSON cannot say
	return string(text)
}

func TestABucketWithOtherPeoplesObjectsIsNotChangedWithoutAWord(t *testing.T) {
	t.Parallel()
	const at, today = "2026-11-21T094500Z", "2026-01-01"
	typed := dumped("leat", at, "public.t/00000-00.parquet")
	for name, c := range map[string]struct {
		objects map[string]string
		held    bool
	}{
		"invoices":                    {map[string]string{"invoices/1.pdf": "x", "invoices/2.pdf": "x"}, true},
		"one beside dumps":            {map[string]string{at + "/manifest.json": typed, at + "/public.t/00000-00.parquet": "x", "readme.txt": "x"}, true},
		"one in a dump's folder":      {map[string]string{at + "/manifest.json": typed, at + "/public.u/00000-00.parquet": "x"}, true},
		"a folder of dates":           {map[string]string{today + "/report.csv": "x"}, true},
		"another program's manifest":  {map[string]string{today + "/manifest.json": `{"of":"another program"}`, today + "/users.csv": "x"}, true},
		"a manifest that is no JSON":  {map[string]string{today + "/manifest.json": "x", today + "/users.csv": "x"}, true},
		"another tool's dump":         {map[string]string{today + "/manifest.json": dumped("other", today, "users.csv"), today + "/users.csv": "x"}, true},
		"a lake":                      {map[string]string{"public/t/metadata/v1.metadata.json": "x", "public/t/data/a.parquet": "x"}, true},
		"a dump's name further below": {map[string]string{"x/" + at + "/manifest.json": typed}, true},
		"leat's name further below":   {map[string]string{"users/.leat/notes": "x"}, true},
		"dumps of leat": {map[string]string{
			at + "/manifest.json": typed, at + "/public.t/00000-00.parquet": "x", today + "/a.csv.gz": "x",
			today + "/manifest.json": dumped("leat", today, "a.csv.gz", "z.jsonl"), today + "/z.jsonl": "x", ".leat/running/x.json": "x",
		}, false},
		"nothing": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testlab.Ceph(t)
			for key, text := range c.objects {
				store(t, s, key, text)
			}
			k := keep(t, s, "", bucket.Options{})
			r := create(t, k, warden.Rules{ExpireDays: 14, AbortDays: 1})
			fixed := warden.Fix(t.Context(), k, warden.Options{Rules: warden.Rules{ExpireDays: 14, AbortDays: 1}, Now: time.Now}, nil, r.Findings)
			rules, err := k.Expiries(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := outcomes(r.Steps); strings.Contains(got, "lifecycle=withheld") != c.held || strings.Contains(got, "public-block=withheld") != c.held || (len(rules) == 0) != c.held {
				t.Fatalf("%s; the lifecycle is %v", got, rules)
			}
			if !c.held {
				return
			}
			if got := outcomes(fixed); !strings.Contains(got, "lifecycle=withheld") {
				t.Errorf("mending: %s", got)
			}
			for _, step := range r.Steps {
				if step.Rule == "lifecycle" && (!strings.Contains(step.What, "objects go after 14 days") || !strings.Contains(step.What, "the first goes on") || !strings.Contains(step.Mend, "--allow lifecycle")) {
					t.Errorf("it says %q, %q", step.What, step.Mend)
				}
			}
			if _, err := warden.Create(t.Context(), k, warden.Rules{ExpireDays: 14, AbortDays: 1}, warden.Consent{"lifecycle"}, time.Now); err != nil {
				t.Fatal(err)
			}
			if rules, err = k.Expiries(t.Context()); err != nil || len(rules) != 1 {
				t.Errorf("with a word: %v, %v", rules, err)
			}
		})
	}
}

func TestVersionsOfOtherPeoplesObjectsAreNotRemovedWithoutAWord(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	k := keep(t, s, "/app", bucket.Options{})
	if err := k.SetVersioning(t.Context()); err != nil {
		t.Fatal(err)
	}
	store(t, s, "app/odd\x01 key+%.txt", "1")
	store(t, s, "app/odd\x01 key+%.txt", "2")
	store(t, s, "beside/x", "1")
	if err := k.Delete(t.Context(), "odd\x01 key+%.txt"); err != nil {
		t.Fatal(err)
	}
	r := create(t, k, warden.Rules{ExpireDays: 14, AbortDays: 1})
	for _, step := range r.Steps {
		if step.Rule == "lifecycle" && (step.Did != warden.Withheld || !strings.Contains(step.What, `2 objects that leat did not write, such as "odd\x01 key+%.txt"`) ||
			!strings.Contains(step.What, "2 replaced or deleted versions go after 1 day")) {
			t.Errorf("%s: %s", step.Did, step.What)
		}
	}
	if rules, err := k.Expiries(t.Context()); err != nil || len(rules) > 0 {
		t.Errorf("the lifecycle is %v (%v)", rules, err)
	}
}
