package warden_test

import (
	"context"
	"iter"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/warden"
)

// noon is when the tests below happen.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// paper is a bucket on AWS as these tests describe it. What they do not use is missing and would panic.
type paper struct {
	bucket.Keeper
	server  bucket.Server
	sight   bucket.Sight
	rules   []bucket.Expiry
	block   bucket.PublicBlock
	old     []bucket.Object
	breaks  bool  // a block that is on refuses writes
	closed  error // of reading any setting
	changed []bucket.PublicBlock
}

func (p *paper) Properties() bucket.Properties            { return bucket.Properties{URL: "s3://paper/app"} }
func (p *paper) Place() (string, string)                  { return "paper", "app/" }
func (p *paper) Beside(context.Context) ([]string, error) { return nil, p.closed }
func (p *paper) OldVersions(context.Context) iter.Seq2[bucket.Object, error] {
	return func(func(bucket.Object, error) bool) {}
}
func (p *paper) Server(context.Context) (bucket.Server, error) { return p.server, nil }
func (p *paper) Make(context.Context) (bool, error)            { return true, nil }
func (p *paper) Encryption(context.Context) (bucket.Encryption, error) {
	return bucket.Encryption{Algorithm: "AES256"}, p.closed
}
func (p *paper) Expiries(context.Context) ([]bucket.Expiry, error) { return p.rules, p.closed }
func (p *paper) SetExpiry(_ context.Context, e bucket.Expiry) error {
	p.rules = append(p.rules, e)
	return p.closed
}
func (p *paper) PublicBlock(context.Context) (bucket.PublicBlock, error) { return p.block, p.closed }
func (p *paper) SetPublicBlock(_ context.Context, b bucket.PublicBlock) error {
	p.block, p.changed = b, append(p.changed, b)
	return p.closed
}
func (p *paper) Versioning(context.Context) (string, error) { return "", p.closed }
func (p *paper) Put(context.Context, string, bool) error {
	if p.breaks && p.block != (bucket.PublicBlock{}) {
		return fault.New(fault.BucketRights, "", "refused")
	}
	return nil
}
func (p *paper) Look(context.Context, string) (bucket.Sight, error)     { return p.sight, nil }
func (p *paper) Anonymous(context.Context, string, string) (int, error) { return 403, nil }
func (p *paper) Delete(context.Context, ...string) error                { return nil }
func (p *paper) Buckets(context.Context) ([]string, error)              { return nil, p.closed }
func (p *paper) Restate(context.Context) ([]bucket.Restated, error)     { return nil, p.closed }
func (p *paper) List(context.Context, string) iter.Seq2[bucket.Object, error] {
	return func(yield func(bucket.Object, error) bool) {
		for _, o := range p.old {
			if !yield(o, nil) {
				return
			}
		}
	}
}

var everyBlock = bucket.PublicBlock{RefuseACLs: true, IgnoreACLs: true, RefusePolicy: true, RestrictToOwn: true}

func TestTheLifecycleIsJudgedByWhatItRemovesAndWhen(t *testing.T) {
	t.Parallel()
	good := bucket.Expiry{ID: "leat", Enabled: true, Prefix: "app/", Days: 14, AbortDays: 1}
	soon := noon.AddDate(0, 0, 14)
	f := func(name, want string, p paper) {
		t.Helper()
		p.server, p.block = bucket.ServerAWS, everyBlock
		p.sight.Encryption = "AES256"
		found, err := warden.Audit(t.Context(), &p, warden.Options{Rules: usual, For: warden.Owner, Now: func() time.Time { return noon }})
		if got := broken(found); err != nil || got != want {
			t.Errorf("%s: found %q, %v, want %q", name, got, err, want)
		}
	}
	with := func(change func(*bucket.Expiry)) []bucket.Expiry {
		e := good
		change(&e)
		return []bucket.Expiry{e}
	}
	f("as it should be", "", paper{rules: []bucket.Expiry{good}, sight: bucket.Sight{Expires: soon}})
	f("of the whole bucket", "", paper{rules: with(func(e *bucket.Expiry) { e.Prefix = "" }), sight: bucket.Sight{Expires: soon}})
	f("the server tells nothing", "", paper{rules: []bucket.Expiry{good}})
	f("the server says later", "lifecycle-missing", paper{rules: []bucket.Expiry{good}, sight: bucket.Sight{Expires: soon.AddDate(0, 0, 3)}})
	f("later", "lifecycle-missing", paper{rules: with(func(e *bucket.Expiry) { e.Days = 15 })})
	f("switched off", "lifecycle-missing uploads-not-aborted", paper{rules: with(func(e *bucket.Expiry) { e.Enabled = false })})
	f("for some objects", "lifecycle-missing uploads-not-aborted", paper{rules: with(func(e *bucket.Expiry) { e.Narrow = true })})
	f("of another path", "lifecycle-missing uploads-not-aborted", paper{rules: with(func(e *bucket.Expiry) { e.Prefix = "app/x/" })})
	f("uploads only", "lifecycle-missing", paper{rules: with(func(e *bucket.Expiry) { e.Days = 0 })})
	f("two rules", "", paper{rules: []bucket.Expiry{{ID: "a", Enabled: true, Days: 7}, {ID: "b", Enabled: true, AbortDays: 2}}})
	f("not carried out", "lifecycle-idle", paper{rules: []bucket.Expiry{good}, old: []bucket.Object{{Key: "late", Modified: noon.AddDate(0, 0, -17)}}})
	f("just in time", "", paper{rules: []bucket.Expiry{good}, old: []bucket.Object{{Key: "not late", Modified: noon.AddDate(0, 0, -15)}}})
	closed := fault.New(fault.BucketRights, "", "closed")
	f("a job's keys see when objects go", "", paper{closed: closed, sight: bucket.Sight{Expires: soon}})
	f("a job's keys see that they do not go", "lifecycle-missing", paper{closed: closed})
}

func TestABlockUnderWhichNothingCanBeWrittenIsTakenBack(t *testing.T) {
	t.Parallel()
	p := &paper{server: bucket.ServerOther, breaks: true}
	r, err := warden.Create(t.Context(), p, warden.Rules{AbortDays: 1}, nil, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	if got, want := outcomes(r.Steps), "bucket=made lifecycle=set public-block=impossible"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if p.block != (bucket.PublicBlock{}) || len(p.changed) != 2 || p.changed[0].RefuseACLs {
		t.Errorf("the block was set to %+v and is %+v", p.changed, p.block)
	}
	expectBroken(t, r.Findings, "public-not-blocked")
}

func TestOnAWSTheWholeBlockIsSet(t *testing.T) {
	t.Parallel()
	p := &paper{server: bucket.ServerAWS}
	if _, err := warden.Create(t.Context(), p, usual, nil, func() time.Time { return noon }); err != nil || p.block != everyBlock {
		t.Errorf("the block is %+v, %v", p.block, err)
	}
}
