package warden_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
	"github.com/leatdata/leat/internal/warden"
)

// labour is what a job asks of a bucket; "old" is an object that is there.
var labour = map[warden.Job]func(context.Context, bucket.Carrier) error{
	warden.Dump: write,
	warden.Run: func(ctx context.Context, b bucket.Carrier) error {
		return errors.Join(absent(ctx, b), write(ctx, b))
	},
	warden.Sync: func(ctx context.Context, b bucket.Carrier) error {
		_, err := b.Tags(ctx, "old")
		return errors.Join(err, absent(ctx, b), read(ctx, b))
	},
	warden.Target: func(ctx context.Context, b bucket.Carrier) error {
		_, _, err := b.Deliver(ctx, bucket.Cargo{Object: bucket.Object{Key: "tagged"}, Tags: "a=b"}, []byte("x"), sha256.Sum256([]byte("x")))
		_, tagsErr := b.Tags(ctx, "tagged")
		id, beginErr := b.Begin(ctx, bucket.Cargo{Object: bucket.Object{Key: "parts"}})
		_, partsErr := b.Unfinished(ctx, "parts")
		return errors.Join(absent(ctx, b), err, tagsErr, beginErr, partsErr, b.Cancel(ctx, "parts", id), write(ctx, b))
	},
}

// absent asks for an object that is not there: the answer must say so.
func absent(ctx context.Context, b bucket.Carrier) error {
	if _, err := b.Stat(ctx, "none"); !fault.Is(err, fault.ObjectMissing) {
		return err
	}
	return nil
}

func read(ctx context.Context, b bucket.Carrier) error {
	var failed []error
	for _, err := range b.List(ctx, "") {
		failed = append(failed, err)
	}
	_, body, err := b.Fetch(ctx, "old", "")
	if err == nil {
		_, err = io.Copy(io.Discard, body)
		failed = append(failed, body.Close())
	}
	return errors.Join(append(failed, err)...)
}

func write(ctx context.Context, b bucket.Carrier) error {
	_, err := bucket.WriteAll(ctx, b, "new", []byte("x"), bucket.WriteOptions{})
	id, beginErr := b.Begin(ctx, bucket.Cargo{Object: bucket.Object{Key: "large"}})
	cancelErr := b.Cancel(ctx, "large", id)
	_, sweepErr := b.Sweep(ctx, "", time.Now().Add(-time.Hour))
	return errors.Join(err, beginErr, cancelErr, sweepErr, b.Delete(ctx, "new"), read(ctx, b))
}

// spared are rights that this server does not ask a job for where others do.
var spared = map[string]warden.Job{
	"s3:PutObjectTagging":         warden.Target, // AWS does with the tags of a new object
	"s3:GetObjectTagging":         warden.Target, // whoever wrote an object may read its tags
	"s3:ListMultipartUploadParts": warden.Target, // whoever began an upload may; after a change of keys that is somebody else
}

func TestAJobsPolicyIsEnoughAndNoneOfItsRightsCanBeSpared(t *testing.T) {
	t.Parallel()
	for job, work := range labour {
		t.Run(string(job), func(t *testing.T) {
			t.Parallel()
			s := testlab.Ceph(t)
			owner := keep(t, s, "/app", bucket.Options{})
			if err := owner.Put(t.Context(), "old", false); err != nil {
				t.Fatal(err)
			}
			its, ok := keep(t, s.As(s.Stranger), "/app", bucket.Options{MaxRetries: -1}).(bucket.Carrier)
			if !ok {
				t.Fatal("a keeper is no carrier")
			}
			with := func(d warden.Document) error {
				data, err := json.Marshal(d)
				if err == nil {
					err = owner.SetPolicy(t.Context(), string(data))
				}
				if err != nil {
					t.Fatal(err)
				}
				return work(t.Context(), its)
			}
			d, err := warden.Draft(warden.DraftOptions{Job: job, Server: bucket.ServerCeph, Name: s.Bucket, Root: "app/", Principal: "stranger"})
			if err != nil {
				t.Fatal(err)
			}
			if err := with(d); err != nil {
				t.Errorf("the policy is not enough: %v", err)
			}
			for i, statement := range d.Statement {
				for j, action := range statement.Action {
					if spared[action] == job {
						continue
					}
					less := d
					less.Statement = slices.Clone(d.Statement)
					less.Statement[i].Action = slices.Delete(slices.Clone(statement.Action), j, j+1)
					if len(less.Statement[i].Action) == 0 {
						less.Statement = slices.Delete(less.Statement, i, i+1)
					}
					if err := with(less); !fault.Is(err, fault.BucketRights) {
						t.Errorf("%s can be spared: %v", action, err)
					}
				}
			}
		})
	}
}
