package warden

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// The codes of an audit's findings. They are stable.
const (
	EncryptionMissing = "encryption-missing"
	LifecycleMissing  = "lifecycle-missing"
	LifecycleIdle     = "lifecycle-idle"
	UploadsNotAborted = "uploads-not-aborted"
	PublicRead        = "public-read"
	PublicList        = "public-list"
	PublicWrite       = "public-write"
	PublicNotBlocked  = "public-not-blocked"
	VersioningMissing = "versioning-missing"
	WritesRefused     = "writes-refused"
	KeysTooWide       = "keys-too-wide"
	KeysTooStrong     = "keys-too-strong"
	BucketShared      = "bucket-shared"
	NotToBeProved     = "not-to-be-proved"
)

// Codes are all of them, in the order of the proof.
var Codes = []string{
	EncryptionMissing, LifecycleMissing, LifecycleIdle, UploadsNotAborted, PublicRead, PublicList, PublicWrite, PublicNotBlocked,
	VersioningMissing, WritesRefused, KeysTooWide, KeysTooStrong, BucketShared, NotToBeProved,
}

// Options say what an audit demands.
type Options struct {
	Rules  Rules
	For    Job      // whose keys the audit is run with; "" for a job's that is not named
	Others []string // buckets that these keys must not reach, besides those that the server names
	Now    func() time.Time
}

// manyBuckets is how many other buckets are tried.
const manyBuckets = 100

// manyObjects is how many objects are looked through for old ones.
const manyObjects = 1000

// auditor collects what is found.
type auditor struct {
	ctx    context.Context
	k      bucket.Keeper
	opts   Options
	server bucket.Server
	where  string

	key      string       // the object that things are tried on; "" if there is none
	scratch  bool         // it is ours
	sight    bucket.Sight // how it is kept
	present  string       // an object that was there before; "" if none is to be seen
	findings []fault.Finding
}

// Audit proves the rules by trying them on a scratch object, which it removes again. What keeps it from looking at all, such as a missing
// bucket, is an error.
func Audit(ctx context.Context, k bucket.Keeper, opts Options) ([]fault.Finding, error) {
	a := &auditor{ctx: ctx, k: k, opts: opts, where: k.Properties().URL}
	var err error
	if a.server, err = k.Server(ctx); err != nil {
		return nil, err
	}
	for _, prove := range []func() error{a.old, a.object, a.encryption, a.lifecycle, a.versioning, a.public, a.block, a.reach, a.strength, a.shared} {
		if err = prove(); err != nil {
			break
		}
	}
	if a.scratch {
		a.remove()
	}
	if ctx.Err() != nil {
		return a.findings, fault.Wrap(context.Cause(ctx), fault.Interrupted, a.where, "the audit was ended")
	}
	return a.findings, err
}

func (a *auditor) add(code string, severity fault.Severity, mend, format string, args ...any) {
	a.findings = append(a.findings, fault.Finding{Code: code, Severity: severity, Where: a.where, What: fmt.Sprintf(format, args...), Mend: mend})
}

func (a *auditor) ok(code, format string, args ...any) {
	a.add(code, fault.SeverityOK, "", format, args...)
}

// open says that something was not proved, and why.
func (a *auditor) open(mend, format string, args ...any) {
	a.add(NotToBeProved, fault.SeverityInfo, mend, format, args...)
}

// refused tells the answers that are of use from errors that end the audit.
func refused(err error) bool {
	return fault.Is(err, fault.BucketRights) || fault.Is(err, fault.BucketUnsupported)
}

const byOwner = "Run the audit also with the owner's keys and --for owner."

// old looks through the objects for some that should be gone.
func (a *auditor) old() error {
	limit := a.opts.Now().AddDate(0, 0, -a.opts.Rules.ExpireDays-2) // lifecycles act once a day, and begin to count at midnight
	seen, late, first := 0, 0, ""
	for o, err := range a.k.List(a.ctx, "") {
		if refused(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if a.present == "" {
			a.present = o.Key
		}
		if a.opts.Rules.ExpireDays > 0 && o.Modified.Before(limit) {
			if late++; first == "" {
				first = o.Key
			}
		}
		if seen++; seen == manyObjects {
			break
		}
	}
	if late > 0 {
		a.add(LifecycleIdle, fault.SeverityMedium, "If the rule is older than two days, look whether the server carries out lifecycles at all (on Ceph: radosgw-admin lc list).",
			"%d of the first %d objects are older than %s and still there, such as %s", late, seen, days(a.opts.Rules.ExpireDays), first)
	}
	return nil
}

// object writes the object to try things on, or takes one that is there.
func (a *auditor) object() error {
	key := scratchKey()
	err := a.k.Put(a.ctx, key, false)
	switch {
	case err == nil:
		a.key, a.scratch = key, true
		if a.opts.For == Sync {
			a.add(KeysTooStrong, fault.SeverityMedium, "Give the job keys of its own: leat bucket policy --for sync.", "these keys write objects, which a job that only reads need not")
		}
	case !fault.Is(err, fault.BucketRights):
		return err
	default:
		if b, blockErr := a.k.PublicBlock(a.ctx); blockErr == nil && b.RefuseACLs {
			a.add(WritesRefused, fault.SeverityHigh, "leat bucket audit --fix sets the block without it: lists of grants are then ignored instead of refused.",
				"objects cannot be written, and the block of public access refuses lists of grants: on Ceph 16 that refuses every write")
		}
		a.key = a.present
	}
	if a.key == "" {
		a.open("Run the audit with keys that may write, or when there are objects.", "there is no object to try things on: these keys cannot write one and see none")
		return nil
	}
	if a.sight, err = a.k.Look(a.ctx, a.key); err != nil && !refused(err) {
		return err
	} else if err != nil {
		a.open(byOwner, "these keys may not look at objects: how they are kept is not told")
		if !a.scratch {
			a.key = ""
		}
	}
	return nil
}

func (a *auditor) encryption() error {
	want := a.opts.Rules.Encryption.Algorithm
	if a.key == "" || want == "" {
		return nil
	}
	what := "an object that was written without asking for it"
	if !a.scratch {
		what = "the object " + a.key
	}
	switch got := a.sight.Encryption; {
	case got == "":
		return a.unencrypted(what)
	case want == "aws:kms" && !strings.HasPrefix(got, want):
		a.add(EncryptionMissing, fault.SeverityMedium, "leat bucket audit --fix --encryption aws:kms sets it.", "%s is encrypted by %s, and %s is asked for", what, got, want)
	default:
		a.ok(EncryptionMissing, "%s is encrypted (%s)", what, got)
	}
	return nil
}

// unencrypted finds out whether the bucket or only the server is to blame, and whether leat's own settings make up for it.
func (a *auditor) unencrypted(what string) error {
	asked := a.k.Properties().Encryption
	if a.scratch && asked != "" {
		if err := a.k.Put(a.ctx, a.key, true); err != nil && !refused(err) && !fault.Is(err, fault.BucketFailed) {
			return err
		} else if sight, err := a.k.Look(a.ctx, a.key); err == nil && sight.Encryption == asked {
			a.open("", "the bucket has no default encryption, but leat asks for %s with each object (to.encryption), and a try was stored so", asked)
			return nil
		}
	}
	have, err := a.k.Encryption(a.ctx)
	mend := "leat bucket audit --fix sets it."
	switch {
	case fault.Is(err, fault.BucketUnsupported):
		what += ", and the server knows no default encryption of a bucket"
		mend = "Set to.encryption to aws:kms with to.kms_key_id, if the server has a key service, so that leat asks with each object; or encrypt the server's disks and accept this finding (--accept)."
	case err == nil && have.Algorithm != "":
		what += ", although the server says that its default is " + have.Algorithm
		mend = "Ask those who run the server; do not rely on it."
	}
	a.add(EncryptionMissing, fault.SeverityHigh, mend, "not encrypted: %s", what)
	return nil
}

func (a *auditor) public() error {
	if a.scratch {
		if err := a.anonymous(PublicWrite, http.MethodPut, a.key, "anybody can write objects", "nobody without keys writes an object"); err != nil {
			return err
		}
	}
	if a.key != "" {
		if err := a.anonymous(PublicRead, http.MethodGet, a.key, "anybody can read objects", "nobody without keys reads an object"); err != nil {
			return err
		}
	}
	// An object can be public by itself.
	if a.present != "" && a.present != a.key {
		if err := a.anonymous(PublicRead, http.MethodGet, a.present, "anybody can read "+a.present, ""); err != nil {
			return err
		}
	}
	return a.anonymous(PublicList, http.MethodGet, "", "anybody can list the bucket", "nobody without keys lists the bucket")
}

// anonymous tries a request without keys.
func (a *auditor) anonymous(code, method, key, bad, good string) error {
	status, err := a.k.Anonymous(a.ctx, method, key)
	switch {
	case err != nil:
		return err
	case status < 300:
		mend := "leat bucket audit --fix sets the block of public access."
		if have, err := a.k.PublicBlock(a.ctx); err != nil || within(blockFor(a.server), have) {
			mend = "Remove what lets everybody in from the bucket's policy and its lists of grants: this server's block of public access does not keep them out."
		}
		a.add(code, fault.SeverityCritical, mend, "%s", bad)
	case status >= 500:
		a.open("Run the audit again.", "%s was tried without keys, and the server failed (HTTP status %d)", method, status)
	case good != "":
		a.ok(code, "%s (HTTP status %d)", good, status)
	}
	return nil
}

func (a *auditor) block() error {
	have, err := a.k.PublicBlock(a.ctx)
	switch {
	case fault.Is(err, fault.BucketUnsupported):
		a.add(PublicNotBlocked, fault.SeverityMedium, "Keep policies and lists of grants narrow by hand, run this audit on a schedule, and accept this finding (--accept).", "the server has no block of public access")
	case fault.Is(err, fault.BucketRights):
		a.open(byOwner, "these keys may not read the block of public access")
	case err != nil:
		return err
	case !within(blockFor(a.server), have):
		a.add(PublicNotBlocked, fault.SeverityMedium, "leat bucket audit --fix sets it.", "the block of public access is not on")
	default:
		a.ok(PublicNotBlocked, "the block of public access is on")
	}
	return nil
}

// reach tries these keys on other buckets.
func (a *auditor) reach() error {
	if a.opts.For == Owner {
		a.open("Run the audit also with the keys of each job.", "the owner's keys may do everything: they were not judged")
		return nil
	}
	names, err := a.k.Buckets(a.ctx)
	told := err == nil
	if err != nil && !refused(err) {
		return err
	}
	own, root := a.k.Place()
	if root != "" {
		if beside, err := a.k.Writes(a.ctx, own); err == nil && beside {
			a.add(KeysTooWide, fault.SeverityHigh, "Make keys for this path only: leat bucket policy prints what they need.", "these keys write beside the path (tried by a part of an upload that nobody began)")
		}
	}
	names = slices.DeleteFunc(slices.Concat(a.opts.Others, names), func(n string) bool { return n == own })
	var reached []string
	for i, name := range names {
		if i == manyBuckets || a.ctx.Err() != nil {
			break
		}
		// One that cannot be asked for, because it lies in another region or is just going, tells nothing against the keys.
		if yes, err := a.k.Lists(a.ctx, name); err == nil && yes {
			reached = append(reached, name+" (they list it)")
		} else if yes, err := a.k.Writes(a.ctx, name); err == nil && yes {
			reached = append(reached, name+" (they write into it)")
		}
	}
	switch {
	case len(reached) > 0:
		a.add(KeysTooWide, fault.SeverityHigh, "Make keys for this bucket only: leat bucket policy prints what they need.",
			"these keys reach other buckets: %s", some(reached))
	case !told && len(a.opts.Others) == 0:
		a.open("Name buckets that they must not reach: --other NAME.", "the server does not tell these keys the names of other buckets, so none was tried")
	case len(names) == 0:
		a.ok(KeysTooWide, "the server names no other bucket to these keys")
	default:
		a.ok(KeysTooWide, "these keys reach none of %d other buckets", min(len(names), manyBuckets))
	}
	return nil
}

// some is a few of many names.
func some(names []string) string {
	const few = 3
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// strength writes settings once more as they are, which tells whether these keys could change them.
func (a *auditor) strength() error {
	if a.opts.For == Owner {
		return nil
	}
	done, err := a.k.Restate(a.ctx)
	if err != nil && !refused(err) {
		return err
	}
	var could, tried []string
	for _, r := range done {
		tried = append(tried, r.Setting)
		if r.Err == nil {
			could = append(could, r.Setting)
		} else if !refused(r.Err) {
			return r.Err
		}
	}
	switch {
	case len(could) > 0:
		a.add(KeysTooStrong, fault.SeverityMedium, "Give the job keys of its own, and keep these for the owner: leat bucket policy prints what a job needs.",
			"these keys change the bucket's %s (tried by writing it once more as it is)", strings.Join(could, ", "))
	case len(tried) > 0:
		a.ok(KeysTooStrong, "these keys cannot change the bucket's %s (tried by writing it once more as it is)", strings.Join(tried, ", "))
	case err != nil:
		a.open("", "these keys may not even read the bucket's rules; whether they could change them was not tried, because that might change them")
	default:
		a.open("", "the bucket has no policy, lifecycle or versioning that could be written once more as it is")
	}
	return nil
}

func (a *auditor) shared() error {
	_, root := a.k.Place()
	if root == "" {
		a.open("", "the path is the whole bucket: all that is in it is taken for leat's")
		return nil
	}
	found, err := a.k.Beside(a.ctx)
	switch {
	case len(found) > 0:
		a.add(BucketShared, fault.SeverityMedium, "Use a bucket for this purpose only, or run the audit on each path.", "the bucket holds other things than those below the path: %s", some(found))
	case fault.Is(err, fault.BucketRights):
		a.open(byOwner, "these keys see nothing beside the path, as it should be; whether the bucket is shared they cannot tell")
	case err != nil:
		return err
	default:
		a.ok(BucketShared, "the bucket holds nothing beside the path")
	}
	return nil
}

func (a *auditor) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), 10*time.Second)
	defer cancel()
	if err := a.k.Delete(ctx, a.key); err != nil {
		a.open("Delete it by other keys; the lifecycle will otherwise.", "the scratch object %s is left behind: these keys may not delete it", a.key)
	}
}
