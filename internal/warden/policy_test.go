package warden_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/warden"
)

func draft(t testing.TB, o warden.DraftOptions) string {
	t.Helper()
	d, err := warden.Draft(o)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAPolicyForAttachingNamesNobody(t *testing.T) {
	t.Parallel()
	got := draft(t, warden.DraftOptions{Job: warden.Dump, Server: bucket.ServerAWS, Name: "egress", Root: "app/", KMSKeyID: "arn:aws:kms:eu-west-1:123456789012:key/k"})
	want := `{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "LeatDumpObjectsID",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject",
        "s3:GetObject",
        "s3:DeleteObject",
        "s3:AbortMultipartUpload"
      ],
      "Resource": [
        "arn:aws:s3:::egress/app/*"
      ]
    },
    {
      "Sid": "LeatDumpListID",
      "Effect": "Allow",
      "Action": [
        "s3:ListBucket"
      ],
      "Resource": [
        "arn:aws:s3:::egress"
      ],
      "Condition": {
        "StringLike": {
          "s3:prefix": [
            "app/*",
            "app"
          ]
        }
      }
    },
    {
      "Sid": "LeatDumpBucketID",
      "Effect": "Allow",
      "Action": [
        "s3:ListBucketMultipartUploads"
      ],
      "Resource": [
        "arn:aws:s3:::egress"
      ]
    },
    {
      "Sid": "LeatDumpKeyID",
      "Effect": "Allow",
      "Action": [
        "kms:Decrypt",
        "kms:GenerateDataKey"
      ],
      "Resource": [
        "arn:aws:kms:eu-west-1:123456789012:key/k"
      ]
    }
  ]
}`
	id := strings.SplitN(got, `LeatDumpObjects`, 2)[1][:8]
	if got = strings.ReplaceAll(got, id, "ID"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestAPrincipalIsWrittenAsTheServerKnowsIt(t *testing.T) {
	t.Parallel()
	f := func(server bucket.Server, principal, want string) {
		t.Helper()
		d, err := warden.Draft(warden.DraftOptions{Job: warden.Dump, Server: server, Name: "b", Principal: principal})
		switch {
		case want == "" && !fault.Is(err, fault.UsageInvalid):
			t.Errorf("%s, %q: got %v, %v", server, principal, d, err)
		case want != "" && (err != nil || !slices.Equal(d.Statement[0].Principal["AWS"], []string{want})):
			t.Errorf("%s, %q: got %v, %v", server, principal, d, err)
		}
	}
	f(bucket.ServerCeph, "dump", "arn:aws:iam:::user/dump")
	f(bucket.ServerCeph, "acme$dump", "arn:aws:iam::acme:user/dump")
	f(bucket.ServerCeph, "arn:aws:iam:::user/x", "arn:aws:iam:::user/x")
	f(bucket.ServerCeph, "", "")
	f(bucket.ServerCeph, "*", "")
	f(bucket.ServerCeph, "a:b", "")
	f(bucket.ServerAWS, "123456789012", "arn:aws:iam::123456789012:root")
	f(bucket.ServerAWS, "arn:aws-cn:iam::123456789012:role/r", "arn:aws-cn:iam::123456789012:role/r")
	f(bucket.ServerAWS, "dump", "")
	f(bucket.ServerAWS, "arn:aws:iam::123456789012:*", "")
	if _, err := warden.Draft(warden.DraftOptions{Job: "mirror", Server: bucket.ServerAWS, Name: "b"}); !fault.Is(err, fault.UsageInvalid) {
		t.Errorf("an unknown job: %v", err)
	}
	if got := draft(t, warden.DraftOptions{Job: warden.Dump, Server: bucket.ServerAWS, Name: "b", Principal: "arn:aws-cn:iam::123456789012:role/r"}); !strings.Contains(got, `"arn:aws-cn:s3:::b/*"`) {
		t.Errorf("the partition of the principal is not the bucket's:\n%s", got)
	}
	got := draft(t, warden.DraftOptions{Job: warden.Dump, Server: bucket.ServerCeph, Name: "acme:b", Principal: "dump", Grants: true})
	if !strings.Contains(got, `"arn:aws:s3::acme:b/*"`) || !strings.Contains(got, `"s3:PutObjectAcl"`) {
		t.Errorf("the tenant or the right to give grants is not in it:\n%s", got)
	}
	for server, asks := range map[bucket.Server]bool{bucket.ServerAWS: true, bucket.ServerCeph: false} {
		got := draft(t, warden.DraftOptions{Job: warden.Sync, Server: server, Name: "b", Principal: "arn:aws:iam:::user/x", ACLLook: true})
		if strings.Contains(got, "s3:GetBucketOwnershipControls") != asks {
			t.Errorf("%s knows no such right, or it is missing:\n%s", server, got)
		}
	}
	if got := draft(t, warden.DraftOptions{Job: warden.Sync, Server: bucket.ServerAWS, Name: "b", Grants: true}); strings.Contains(got, "Acl") {
		t.Errorf("who only reads may give grants:\n%s", got)
	}
}

func TestApplyingKeepsWhatThePolicySaysAlready(t *testing.T) {
	t.Parallel()
	s := testlab.Ceph(t)
	k := keep(t, s, "/app", bucket.Options{})
	theirs := `{"Version":"2012-10-17","Id":"acme","Statement":{"Sid":"theirs","Effect":"Allow","Principal":{"AWS":"arn:aws:iam:::user/auditor"},"Action":"s3:GetBucketPolicy","Resource":"arn:aws:s3:::` + s.Bucket + `"}}`
	if err := k.SetPolicy(t.Context(), theirs); err != nil {
		t.Fatal(err)
	}
	for _, job := range []warden.Job{warden.Dump, warden.Sync, warden.Dump} {
		apply(t, k, job)
	}
	policy, err := k.Policy(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for part, times := range map[string]int{`"theirs"`: 1, `"acme"`: 1, "LeatDumpObjects": 1, "LeatSyncObjects": 1} {
		if got := strings.Count(policy, part); got != times {
			t.Errorf("%s stands there %d times:\n%s", part, got, policy)
		}
	}
	if got := outcomes(apply(t, k, warden.Dump)); got != "policy=kept" {
		t.Errorf("a policy that is there already: %s", got)
	}
}

func TestWhereEveryPolicyIsTakenForPublicTheBlockIsLiftedForAMoment(t *testing.T) {
	t.Parallel()
	k := keep(t, testlab.Ceph(t), "", bucket.Options{})
	create(t, k, usual)
	before, err := k.PublicBlock(t.Context())
	if err != nil || !before.RefusePolicy {
		t.Fatalf("the block is %+v, %v", before, err)
	}
	if got, want := outcomes(apply(t, k, warden.Run)), "public-block=kept policy=set"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if after, err := k.PublicBlock(context.Background()); err != nil || after != before {
		t.Errorf("the block was %+v and is %+v, %v", before, after, err)
	}
}

func TestAPolicyHoldsForItsPathAndForNoOther(t *testing.T) {
	t.Parallel()
	for root, want := range map[string]string{
		"a*b/":    "arn:aws:s3:::egress/a${*}b/*",
		"a?/":     "arn:aws:s3:::egress/a${?}/*",
		"${aws}/": "arn:aws:s3:::egress/${$}{aws}/*",
		"a$b/":    "arn:aws:s3:::egress/a$b/*",
		`q"\/`:    `arn:aws:s3:::egress/q"\/*`,
	} {
		d, err := warden.Draft(warden.DraftOptions{Job: warden.Dump, Server: bucket.ServerAWS, Name: "egress", Root: root})
		if err != nil || d.Statement[0].Resource[0] != want {
			t.Errorf("%s: %v, %v", root, d.Statement, err)
			continue
		}
		prefixes := d.Statement[1].Condition["StringLike"].(map[string][]string)["s3:prefix"]
		if below := strings.TrimPrefix(want, "arn:aws:s3:::egress/"); !slices.Equal(prefixes, []string{below, strings.TrimSuffix(below, "/*")}) {
			t.Errorf("%s: listings of %q", root, prefixes)
		}
		for _, server := range []bucket.Server{bucket.ServerCeph, bucket.ServerOther} {
			_, err := warden.Draft(warden.DraftOptions{Job: warden.Run, Server: server, Name: "egress", Root: root, Principal: "arn:aws:iam:::user/u"})
			if plain := !strings.Contains(want, "${"); plain != (err == nil) || err != nil && !fault.Is(err, fault.UsageInvalid) {
				t.Errorf("%s on %s: %v", root, server, err)
			}
		}
	}
}
