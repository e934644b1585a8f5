package mirror

import (
	"context"
	"regexp"
	"sync"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Choices say what comes with an object beside its bytes where that is a matter of choice.
type Choices struct {
	// StorageClass is KeepClass for that of the source, another word for this one, and "" for the target's usual one.
	StorageClass string
	ObjectLock   bool // retention and legal hold are carried to a bucket with Object Lock
	FollowLocks  bool // and looked at again of each object that the target has already, at one or two requests each
	ACL          bool // each object that is carried is asked for its list of grants, at one request each
}

// KeepClass is the storage class that the source has.
const KeepClass = "keep"

// classNames are what servers call their storage classes.
var classNames = regexp.MustCompile(`\A[A-Z][A-Z0-9_-]{0,63}\z`)

// ParseClass reads the choice of a storage class.
func ParseClass(text string) (string, error) {
	if text == "" || text == KeepClass || classNames.MatchString(text) {
		return text, nil
	}
	return "", fault.New(fault.ConfigInvalid, "mirror.storage_class", "%q is not the name of a storage class", text).
		WithMend("Write %s, a name such as STANDARD_IA, or nothing.", KeepClass)
}

const usualClass = "STANDARD"

// classOf is the class that an answer tells; the usual one is not always named.
func classOf(c bucket.Cargo) string {
	if c.StorageClass == "" {
		return usualClass
	}
	return c.StorageClass
}

// refusals are the storage classes of the source that the target does not take.
type refusals struct {
	mu      sync.Mutex
	classes map[string]bool
}

func (r *refusals) has(class string) bool { r.mu.Lock(); defer r.mu.Unlock(); return r.classes[class] }

// mostClasses bounds the names that a source may come up with.
const mostClasses = 100

func (r *refusals) add(class string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.classes == nil {
		r.classes = map[string]bool{}
	}
	if len(r.classes) < mostClasses {
		r.classes[class] = true
	}
}

// fitted is an object as it is to be written: what only the source means is taken away, and what was chosen is put in.
func (r *run) fitted(ctx context.Context, c bucket.Cargo) (bucket.Cargo, error) {
	class := r.o.Beside.StorageClass
	if class == KeepClass {
		class = c.StorageClass
		if class == usualClass || !classNames.MatchString(class) || r.refused.has(class) {
			class = ""
		}
	}
	lock := c.Lock.At(r.o.Now())
	c.StorageClass, c.Lock = class, bucket.Lock{}
	if !r.o.Beside.ObjectLock || !lock.Holds(r.o.Now()) || !lock.Known() {
		return c, nil
	}
	locks, err := r.to.carrier.Locks(ctx)
	if locks {
		c.Lock = lock
	}
	return c, err
}

// withClass writes an object. Where the target refuses the class that the source has, which a server may have under no other name, the object is
// written once more without.
func (r *run) withClass(c bucket.Cargo, write func(bucket.Cargo) error) error {
	err := write(c)
	if c.StorageClass == "" || r.o.Beside.StorageClass != KeepClass || !fault.Is(err, fault.BucketFailed) && !fault.Is(err, fault.BucketUnsupported) {
		return err
	}
	class := c.StorageClass
	c.StorageClass = ""
	if failed := write(c); failed != nil {
		return err
	}
	r.refused.add(class)
	return nil
}

// settled looks at the target for what was asked for, and returns what the object has come without. A lock that its writing has not set is set by itself.
func (r *run) settled(ctx context.Context, source, asked bucket.Cargo) (missed []Attribute, err error) {
	missed = missedBy(source, r.o.Beside.StorageClass != "", r.o.Now())
	if asked.StorageClass == "" && r.o.Beside.StorageClass == KeepClass && classOf(source) != usualClass {
		missed = append(missed, AttributeClass)
	}
	wantsLock := asked.Lock != bucket.Lock{}
	if asked.StorageClass == "" && !wantsLock {
		return missed, nil
	}
	there, err := r.to.carrier.Describe(ctx, source.Key)
	if err != nil {
		return nil, err
	}
	if asked.StorageClass != "" && classOf(there) != asked.StorageClass {
		missed = append(missed, AttributeClass)
	}
	if wantsLock {
		if kept, err := r.lock(ctx, source.Key, there.Lock, asked.Lock); err != nil {
			return nil, err
		} else if kept {
			missed = without(missed, AttributeLock)
		}
	}
	return missed, nil
}

// lock has an object at the target keep what a lock asks for, and says whether it does then. What it has of its own is neither shortened nor lifted.
func (r *run) lock(ctx context.Context, key string, is, asked bucket.Lock) (kept bool, err error) {
	if more, _ := is.Raise(asked); more != (bucket.Lock{}) {
		if err := r.to.carrier.Lock(ctx, key, more); err != nil && !fault.Is(err, fault.BucketUnsupported) {
			return false, err
		}
		there, err := r.to.carrier.Describe(ctx, key)
		if err != nil {
			return false, err
		}
		is = there.Lock
	}
	more, whole := is.Raise(asked)
	return whole && more == bucket.Lock{}, nil
}

// follow brings the lock of an object that the target has already, by choice: the source's may be longer or stricter since.
func (r *run) follow(ctx context.Context, o bucket.Object) error {
	if !r.o.Beside.FollowLocks || r.o.DryRun || r.from.carrier == nil || r.to.carrier == nil {
		return nil
	}
	if locks, err := r.to.carrier.Locks(ctx); err != nil || !locks {
		return err
	}
	here, err := r.from.carrier.Describe(ctx, o.Key)
	switch {
	case err != nil:
		return err
	case here.ETag != "" && plainETag(here.ETag) != plainETag(o.ETag):
		return r.changed(o.Key)
	}
	asked := here.Lock.At(r.o.Now())
	if !asked.Holds(r.o.Now()) {
		return nil
	}
	there, err := r.to.carrier.Describe(ctx, o.Key)
	if err != nil {
		return err
	}
	kept, err := r.lock(ctx, o.Key, there.Lock.At(r.o.Now()), asked)
	if err == nil && !kept {
		r.tally.notCarried([]Attribute{AttributeLock})
	}
	return err
}

func without(all []Attribute, one Attribute) (rest []Attribute) {
	for _, a := range all {
		if a != one {
			rest = append(rest, a)
		}
	}
	return rest
}

// grants asks for the list of grants of an object of the source. Keys that may not ask are not believed that it is private.
func (r *run) grants(ctx context.Context, key string) ([]Attribute, error) {
	if !r.o.Beside.ACL || r.from.carrier == nil {
		return nil, nil
	}
	private, err := r.from.carrier.Private(ctx, key)
	switch {
	case fault.Is(err, fault.BucketRights), err == nil && !private:
		return []Attribute{AttributeACL}, nil
	case fault.Is(err, fault.ObjectMissing): // it went since it was read: the next run knows
		return nil, nil
	}
	return nil, err
}

// ended looks after an object that was written: source is what it was, and asked what was asked for.
func (r *run) ended(ctx context.Context, source, asked bucket.Cargo) error {
	if err := r.keepTags(ctx, asked); err != nil {
		return err
	}
	missed, err := r.settled(ctx, source, asked)
	if err != nil {
		return err
	}
	return r.came(ctx, source.Key, missed)
}

// came ends the carrying of an object: it counts what has not come with it.
func (r *run) came(ctx context.Context, key string, missed []Attribute) error {
	more, err := r.grants(ctx, key)
	if err != nil {
		return err
	}
	r.tally.notCarried(append(missed, more...))
	return nil
}
