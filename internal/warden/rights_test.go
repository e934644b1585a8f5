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

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

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

// lockedUntil is when the objects of these tests may be deleted.
var lockedUntil = time.Now().UTC().Add(time.Hour).Truncate(time.Second)

// choices are what the settings of a mirror ask of a bucket beside its job; "theirs" is an object of another owner.
var choices = map[string]struct {
	draft warden.DraftOptions
	work  func(context.Context, bucket.Carrier) error
}{
	"the locks of a source": {warden.DraftOptions{Job: warden.Sync, Locks: true}, seesLock},
	"the locks of a target": {warden.DraftOptions{Job: warden.Target, Locks: true}, func(ctx context.Context, b bucket.Carrier) error {
		_, err := b.Locks(ctx)
		for _, l := range []bucket.Lock{{Mode: "GOVERNANCE", Until: lockedUntil}, {Hold: true}} {
			err = errors.Join(err, b.Lock(ctx, "old", l))
		}
		return errors.Join(err, seesLock(ctx, b))
	}},
	"the grants of a source": {warden.DraftOptions{Job: warden.Sync, ACLLook: true}, func(ctx context.Context, b bucket.Carrier) error {
		_, err := b.Private(ctx, "old")
		if private, failed := b.Private(ctx, "theirs"); private || failed != nil {
			err = errors.Join(err, failed, fault.New(fault.BucketRights, "theirs", "an object of another owner counts as the bucket owner's"))
		}
		return err
	}},
}

// seesLock says that a right is missing where an object's lock is not told.
func seesLock(ctx context.Context, b bucket.Carrier) error {
	c, err := b.Describe(ctx, "old")
	if err == nil && (c.Lock.Mode == "" || !c.Lock.Hold) {
		err = fault.New(fault.BucketRights, "old", "its lock is not told: %+v", c.Lock)
	}
	return err
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
			takesAll(t, testlab.Ceph(t), warden.DraftOptions{Job: job}, nil, work)
		})
	}
}

func TestWhatAMirrorsSettingsAskForIsInThePolicy(t *testing.T) {
	t.Parallel()
	for name, c := range choices {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, err := warden.Draft(warden.DraftOptions{Job: c.draft.Job, Server: bucket.ServerCeph, Name: "b", Principal: "stranger"})
			if err != nil {
				t.Fatal(err)
			}
			var usual []string
			for _, s := range plain.Statement {
				usual = append(usual, s.Action...)
			}
			s := testlab.Ceph(t)
			s.Bucket += "-lock"
			if _, err := s.Client().CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &s.Bucket, ObjectLockEnabledForBucket: aws.Bool(true)}); err != nil {
				t.Fatal(err)
			}
			takesAll(t, s, c.draft, usual, c.work)
		})
	}
}

// takesAll has a stranger do the work of a job by its policy, and by the policy without each of its rights, but for those that are left out.
func takesAll(t *testing.T, s testlab.Store, o warden.DraftOptions, without []string, work func(context.Context, bucket.Carrier) error) {
	t.Helper()
	o.Server, o.Name, o.Root, o.Principal = bucket.ServerCeph, s.Bucket, "app/", "stranger"
	d, err := warden.Draft(o)
	if err != nil {
		t.Fatal(err)
	}
	owner := keep(t, s, "/app", bucket.Options{})
	allow := func(d warden.Document) {
		data, err := json.Marshal(d)
		if err == nil {
			err = owner.SetPolicy(t.Context(), string(data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(owner.Put(t.Context(), "old", false))
	if o.Job == warden.Sync && o.Locks {
		must(owner.(bucket.Carrier).Lock(t.Context(), "old", bucket.Lock{Mode: "GOVERNANCE", Until: lockedUntil, Hold: true}))
	}
	its := func() bucket.Carrier { // a new one each time: it remembers what a server lets it do
		c, ok := keep(t, s.As(s.Stranger), "/app", bucket.Options{MaxRetries: -1}).(bucket.Carrier)
		if !ok {
			t.Fatal("a keeper is no carrier")
		}
		return c
	}
	if o.ACLLook {
		writes, err := warden.Draft(warden.DraftOptions{Job: warden.Dump, Server: o.Server, Name: o.Name, Root: o.Root, Principal: o.Principal})
		must(err)
		allow(writes)
		_, err = bucket.WriteAll(t.Context(), its(), "theirs", []byte("x"), bucket.WriteOptions{})
		must(err)
	}
	allow(d)
	if err := work(t.Context(), its()); err != nil {
		t.Errorf("the policy is not enough: %v", err)
	}
	for i, statement := range d.Statement {
		for j, action := range statement.Action {
			if spared[action] == o.Job || slices.Contains(without, action) {
				continue
			}
			less := d
			less.Statement = slices.Clone(d.Statement)
			less.Statement[i].Action = slices.Delete(slices.Clone(statement.Action), j, j+1)
			if len(less.Statement[i].Action) == 0 {
				less.Statement = slices.Delete(less.Statement, i, i+1)
			}
			allow(less)
			if err := work(t.Context(), its()); !fault.Is(err, fault.BucketRights) {
				t.Errorf("%s can be spared: %v", action, err)
			}
		}
	}
}
