package warden

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Rules are what a bucket must keep.
type Rules struct {
	Encryption bucket.Encryption // that objects get without asking; the zero value demands none
	ExpireDays int               // after which every object is gone; 0 keeps them
	AbortDays  int               // after which unfinished uploads are gone
	Versioning bool              // replaced and deleted objects stay for a day; without it versioning is left as it is
}

// Outcome is how a step ended.
type Outcome string

// The outcomes.
const (
	Made       Outcome = "made"       // it was not there before
	Set        Outcome = "set"        // it was otherwise before
	Kept       Outcome = "kept"       // it was so already
	Impossible Outcome = "impossible" // the server lacks it
	Failed     Outcome = "failed"
	Withheld   Outcome = "withheld" // it may be made, and needs a word: the bucket holds what is not leat's
)

// Step is something that was done to a bucket, or could not be.
type Step struct {
	Rule string  `json:"rule"` // "bucket", "encryption", "versioning", "lifecycle", "public-block", "policy"
	Did  Outcome `json:"did"`
	What string  `json:"what"`
	Mend string  `json:"mend,omitempty"`
}

// Report is what became of a bucket.
type Report struct {
	Bucket   string          `json:"bucket"`
	Steps    []Step          `json:"steps"`
	Findings []fault.Finding `json:"findings"` // of the proof that followed
}

// Create makes the bucket, or takes one that is ours, brings it to the rules and proves them. An error is a bucket that cannot be had;
// a rule that cannot be kept is a finding. One that holds what leat did not write is changed by consent only.
func Create(ctx context.Context, k bucket.Keeper, rules Rules, consent Consent, now func() time.Time) (Report, error) {
	r := Report{Bucket: k.Properties().URL}
	made, err := k.Make(ctx)
	if err != nil {
		return r, err
	}
	s := Step{Rule: "bucket", Did: Kept, What: "the bucket was there already, and is ours"}
	if made {
		s = Step{Rule: "bucket", Did: Made, What: "the bucket was made"}
	}
	b := builder{ctx: ctx, k: k, rules: rules, consent: consent, now: now}
	r.Steps = append(r.Steps, s)
	if rules.Encryption.Algorithm != "" {
		r.Steps = append(r.Steps, b.encryption())
	}
	if rules.Versioning {
		r.Steps = append(r.Steps, b.versioning())
	}
	r.Steps = append(r.Steps, b.lifecycle(), b.block())
	r.Findings, err = Audit(ctx, k, Options{Rules: rules, For: Owner, Now: now})
	return r, err
}

// Fix mends what an audit found, as far as the server, these keys and, where the bucket holds what is not leat's, the consent let it.
func Fix(ctx context.Context, k bucket.Keeper, o Options, consent Consent, findings []fault.Finding) []Step {
	b := builder{ctx: ctx, k: k, rules: o.Rules, consent: consent, now: o.Now}
	broken := map[string]bool{}
	for _, f := range findings {
		broken[f.Code] = broken[f.Code] || f.Severity != fault.SeverityOK
	}
	var steps []Step
	if broken[EncryptionMissing] {
		steps = append(steps, b.encryption())
	}
	if broken[LifecycleMissing] || broken[UploadsNotAborted] {
		steps = append(steps, b.lifecycle())
	}
	if broken[WritesRefused] || broken[PublicNotBlocked] || broken[PublicRead] || broken[PublicList] || broken[PublicWrite] {
		steps = append(steps, b.block())
	}
	return steps
}

// builder brings settings to the rules, one by one.
type builder struct {
	ctx     context.Context
	k       bucket.Keeper
	rules   Rules
	consent Consent
	now     func() time.Time
	seen    *tenants // nil before the first look
}

// step says how a setting ended: err is of writing it, holds is what reading it again says.
func step(rule, what string, err error, holds bool) Step {
	s := Step{Rule: rule, Did: Set, What: what}
	switch f := fault.Of(err); {
	case fault.Is(err, fault.BucketUnsupported):
		s.Did, s.What = Impossible, f.What
	case err != nil:
		s.Did, s.What = Failed, err.Error()
		if f != nil {
			s.Mend = f.HowToMend()
		}
	case !holds:
		s.Did, s.What = Impossible, "the server took the request and did nothing"
	}
	return s
}

func (b *builder) encryption() Step {
	want := b.rules.Encryption
	holds := func() bool {
		have, err := b.k.Encryption(b.ctx)
		return err == nil && have.Algorithm == want.Algorithm && (want.KeyID == "" || have.KeyID == want.KeyID)
	}
	what := "objects are encrypted by " + want.Algorithm
	if holds() {
		return Step{Rule: "encryption", Did: Kept, What: what}
	}
	if s, held := b.withheld("encryption", what); held {
		return s
	}
	if have, err := b.k.Encryption(b.ctx); err == nil && have.Algorithm != "" && !slices.Contains(b.consent, "encryption") {
		return Step{
			Rule: "encryption", Did: Withheld, What: "not set, because the bucket has another default: " + have.Algorithm,
			Mend: "If it is meant, add --allow encryption; else ask for the one that it has.",
		}
	}
	err := b.k.SetEncryption(b.ctx, want)
	return step("encryption", what, err, err == nil && holds())
}

func (b *builder) versioning() Step {
	holds := func() bool {
		have, err := b.k.Versioning(b.ctx)
		return err == nil && have == "Enabled"
	}
	what := "replaced and deleted objects stay as versions"
	if holds() {
		return Step{Rule: "versioning", Did: Kept, What: what}
	}
	if s, held := b.withheld("versioning", what); held {
		return s
	}
	err := b.k.SetVersioning(b.ctx)
	return step("versioning", what, err, err == nil && holds())
}

// ruleID is the name of leat's rule for a path.
func ruleID(root string) string {
	if root == "" {
		return "leat"
	}
	return "leat-" + shortHash(root)
}

func shortHash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:4])
}

func (b *builder) lifecycle() Step {
	_, root := b.k.Place()
	want := bucket.Expiry{ID: ruleID(root), Enabled: true, Prefix: root, Days: b.rules.ExpireDays, AbortDays: b.rules.AbortDays}
	// Without it an object that expires in a versioned bucket only hides.
	if status, err := b.k.Versioning(b.ctx); err == nil && status != "" && want.Days > 0 {
		want.NoncurrentDays = 1
	}
	holds := func() bool {
		rules, err := b.k.Expiries(b.ctx)
		for _, have := range rules {
			if err == nil && have == want {
				return true
			}
		}
		return false
	}
	what := fmt.Sprintf("unfinished uploads go after %s", days(want.AbortDays))
	if want.Days > 0 {
		what = fmt.Sprintf("objects go after %s, %s", days(want.Days), what)
	}
	if want.NoncurrentDays > 0 {
		what += fmt.Sprintf(", replaced versions after %s", days(want.NoncurrentDays))
	}
	if holds() {
		return Step{Rule: "lifecycle", Did: Kept, What: what}
	}
	what += b.losses(want.Days)
	if s, held := b.withheld("lifecycle", what); held {
		return s
	}
	err := b.k.SetExpiry(b.ctx, want)
	return step("lifecycle", what, err, err == nil && holds())
}

func days(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}

// blockFor is the block that a server can be trusted with. Ceph 16 takes RefuseACLs and then refuses every write of an object, the owner's
// too; lists of grants that are ignored need not be refused, so nobody but AWS is asked to.
func blockFor(s bucket.Server) bucket.PublicBlock {
	return bucket.PublicBlock{RefuseACLs: s == bucket.ServerAWS, IgnoreACLs: true, RefusePolicy: true, RestrictToOwn: true}
}

// within says whether all that want blocks is blocked.
func within(want, have bucket.PublicBlock) bool {
	return (have.RefuseACLs || !want.RefuseACLs) && (have.IgnoreACLs || !want.IgnoreACLs) &&
		(have.RefusePolicy || !want.RefusePolicy) && (have.RestrictToOwn || !want.RestrictToOwn)
}

// block sets the block of public access and takes it back if objects cannot be written any more.
func (b *builder) block() Step {
	server, err := b.k.Server(b.ctx)
	if err != nil {
		return step("public-block", "", err, false)
	}
	before, err := b.k.PublicBlock(b.ctx)
	if err != nil {
		return step("public-block", "", err, false)
	}
	want := blockFor(server)
	what := "nobody can make objects or the bucket public"
	if within(want, before) && b.writable() == nil {
		return Step{Rule: "public-block", Did: Kept, What: what}
	}
	if s, held := b.withheld("public-block", what); held {
		return s
	}
	if err := b.k.SetPublicBlock(b.ctx, want); err != nil {
		return step("public-block", what, err, false)
	}
	if err := b.writable(); fault.Is(err, fault.BucketRights) && !before.RefuseACLs {
		back := b.k.SetPublicBlock(context.WithoutCancel(b.ctx), before)
		if back != nil {
			return step("public-block", "", back, false)
		}
		return Step{Rule: "public-block", Did: Impossible, What: "with its block of public access the server refuses to write objects: it was taken back"}
	}
	after, err := b.k.PublicBlock(b.ctx)
	return step("public-block", what, err, within(want, after))
}

// writable tries whether an object can be written.
func (b *builder) writable() error {
	key := scratchKey()
	err := b.k.Put(b.ctx, key, false)
	if err == nil {
		_ = b.k.Delete(context.WithoutCancel(b.ctx), key) // without the right it stays: a few bytes that say what they are
	}
	return err
}

// scratchKey is the key of an object to try things on.
func scratchKey() string { return ".leat/audit-" + strings.ToLower(rand.Text()[:16]) }
