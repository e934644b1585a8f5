package main_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

func TestABucketIsCreatedAuditedAndGivenToAJobThatThenDumpsIntoIt(t *testing.T) {
	t.Parallel()
	db, s, leat := shop(t), testlab.CephTLS(t), testlab.Leat(t)
	s.Bucket += "-new"
	url, job := "s3://"+s.Bucket+"/app", s.As(s.Stranger)
	f := func(env []string, exit int, says string, args ...string) testlab.Result {
		t.Helper()
		r := leat.Run(env, append([]string{"bucket"}, args...)...)
		if r.Exit != exit || !strings.Contains(r.Stdout+r.Stderr, says) {
			t.Errorf("leat bucket %v: exit %d, want %d and %q:\n%s%s", args, r.Exit, exit, says, r.Stdout, r.Stderr)
		}
		return r
	}
	f(s.Env(), 6, "made        bucket: the bucket was made\n", "create", url)
	f(s.Env(), 6, "rules are not kept: 1 high", "create", url)
	f(s.Env(), 0, "Every rule that was tried is kept.", "create", url, "--encryption", "none")
	f(job.Env(), 4, "belongs to somebody else", "create", url)
	f(s.Env(), 6, "(encryption-missing)", "audit", url, "--for", "owner")
	f(s.Env(), 0, "(accepted)", "audit", url, "--for", "owner", "--accept", "encryption-missing")
	f(s.Env(), 6, "keys-too-strong", "audit", url, "--accept", "encryption-missing")

	dump := []string{"dump", "--to", url, "--table", "public.*", "--keep", "1"}
	if r := leat.Run(append(db.Env(), job.Env()...), dump...); r.Exit != int(fault.ExitTarget) {
		t.Errorf("without any rights a dump ends with %d:\n%s", r.Exit, r.Stderr)
	}
	f(s.Env(), 0, "set         policy: stranger may do what dump needs below "+url, "policy", url, "--for", "dump", "--principal", "stranger", "--apply")
	f(job.Env(), 0, "Every rule", "audit", url, "--for", "dump", "--accept", "encryption-missing")
	for range 2 { // the second one removes the first
		if r := leat.Run(append(db.Env(), job.Env()...), dump...); r.Exit != 0 {
			t.Errorf("exit %d\n%s", r.Exit, r.Stderr)
		}
	}
	if r := leat.Run(append(db.Env(), job.Env()...), "dump", "--to", url+"2", "--table", "public.*"); r.Exit != int(fault.ExitTarget) {
		t.Errorf("a dump beside the path ends with %d", r.Exit)
	}
	if r := leat.Run(append(db.Env(), job.Env()...), "check", "--to", url); r.Exit != 0 {
		t.Errorf("exit %d\n%s%s", r.Exit, r.Stdout, r.Stderr)
	}
}

func TestWhatWasDoneToABucketIsToldAsJSON(t *testing.T) {
	t.Parallel()
	s, leat := testlab.S3(t), testlab.Leat(t)
	r := leat.Run(s.Env(), "bucket", "create", "s3://"+s.Bucket, "--json")
	var done struct {
		Bucket   string
		Steps    []struct{ Rule, Did, What string }
		Findings []fault.Finding
	}
	first, rest, _ := strings.Cut(r.Stdout, "\n")
	if err := json.Unmarshal([]byte(first), &done); err != nil || r.Exit != 6 {
		t.Fatalf("exit %d, %v:\n%s", r.Exit, err, r.Stdout)
	}
	if done.Bucket != "s3://"+s.Bucket || len(done.Steps) != 4 || done.Steps[1].Did != "impossible" || len(done.Findings) < 5 {
		t.Errorf("got %+v", done)
	}
	if !strings.Contains(rest, `"code":"rules-broken"`) {
		t.Errorf("the last line is %s", rest)
	}
	r = leat.Run(s.Env(), "bucket", "audit", "s3://"+s.Bucket, "--json", "--fix")
	for line := range strings.Lines(r.Stdout) {
		if !json.Valid([]byte(line)) {
			t.Errorf("no JSON: %s", line)
		}
	}
	if r.Exit != 6 || !strings.Contains(r.Stdout, `"code":"lifecycle-missing","severity":"high"`) {
		t.Errorf("exit %d:\n%s", r.Exit, r.Stdout)
	}
	accepted := "encryption-missing,lifecycle-missing,uploads-not-aborted,public-not-blocked"
	if r = leat.Run(s.Env(), "bucket", "audit", "s3://"+s.Bucket, "--for", "owner", "--accept", accepted, "-q"); r.Exit != 0 || r.Stdout != "" {
		t.Errorf("exit %d:\n%s", r.Exit, r.Stdout)
	}
}

func TestAPolicyIsPrintedWithoutAskingAnybody(t *testing.T) {
	t.Parallel()
	leat := testlab.Leat(t)
	f := func(exit int, says string, args ...string) {
		t.Helper()
		r := leat.Run(nil, append([]string{"bucket"}, args...)...)
		if r.Exit != exit || !strings.Contains(r.Stdout+r.Stderr, says) {
			t.Errorf("leat bucket %v: exit %d, want %d and %q:\n%s%s", args, r.Exit, exit, says, r.Stdout, r.Stderr)
		}
		if exit == 0 && !json.Valid([]byte(r.Stdout)) {
			t.Errorf("leat bucket %v prints no JSON:\n%s", args, r.Stdout)
		}
	}
	f(0, "arn:aws:s3:::egress/app/*", "policy", "s3://egress/app", "--for", "dump", "--server", "aws")
	f(0, "arn:aws:iam:::user/sync", "policy", "s3://egress", "--for", "sync", "--server", "ceph", "--principal", "sync")
	f(0, "s3:GetObjectLegalHold", "policy", "s3://egress", "--for", "sync", "--server", "aws", "--set", "mirror.object_lock=follow")
	f(0, "s3:PutObjectRetention", "policy", "s3://egress", "--for", "target", "--server", "aws", "--set", "mirror.object_lock=keep")
	f(0, "s3:GetObjectAcl", "policy", "s3://egress", "--for", "sync", "--server", "aws", "--set", "mirror.acl=count")
	f(0, "s3:PutObjectAcl", "policy", "s3://egress", "--for", "target", "--server", "aws", "--set", "mirror.to.acl=bucket-owner-full-control")
	f(2, "must say whom it is for", "policy", "s3://egress", "--for", "sync", "--server", "ceph")
	f(2, "a policy for everybody", "policy", "s3://egress", "--for", "sync", "--server", "aws", "--principal", "*")
	f(2, "no job is named", "policy", "s3://egress")
	f(2, "neither aws nor ceph", "policy", "s3://egress", "--for", "dump", "--server", "minio")
	f(2, "there is no such job", "policy", "s3://egress", "--for", "mirror", "--server", "aws")
	f(2, "no bucket is named", "audit")
	f(4, "only buckets of S3 servers", "audit", "./folder")
	f(2, "no finding has the code", "audit", "s3://egress", "--accept", "all")
	f(2, "is none of owner", "audit", "s3://egress", "--for", "me")
	f(2, "--encryption aws:kms", "create", "s3://egress", "--kms-key-id", "k")
	f(2, "is not between", "create", "s3://egress", "--expire-days", "-1")
}
