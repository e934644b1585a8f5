package checkpoint

import (
	"cmp"
	"context"
	"crypto/rand"
	"os"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// take waits for the lease and takes it, or is pipeline-busy.
func (s *Store) take(ctx context.Context) error {
	began := time.Now()
	var watched Lease
	var since time.Time
	for lost := 0; ; {
		held, err := readLease(ctx, s.bucket, s.prefix)
		if err != nil {
			return err
		}
		if held.etag != watched.etag {
			if watched.etag != "" && held.Owner == watched.Owner && !held.Released && !s.isFormer(held) {
				return busy(s.prefix, held) // it has just been renewed: its owner lives
			}
			watched, since = held, time.Now()
		}
		free, err := s.isFree(ctx, held, time.Since(since))
		if err != nil {
			return err
		}
		if free {
			if got, err := s.seize(ctx, held); got || err != nil {
				return err
			}
			if lost++; lost == mostAttempts {
				return fault.New(fault.BucketBusy, s.prefix+leaseKey, "the lease was another one at each of %d attempts to take it", lost)
			}
			if err := pauseBefore(ctx, lost, s.prefix+leaseKey); err != nil {
				return err
			}
			continue
		}
		if time.Since(began) >= s.o.Patience {
			return busy(s.prefix, held)
		}
		if err := pause(ctx, min(held.TTL/8, time.Second, s.o.Patience), s.prefix+leaseKey); err != nil {
			return err
		}
	}
}

func busy(prefix string, l Lease) error {
	return fault.New(fault.PipelineBusy, prefix+leaseKey, "process %d on %s runs this pipeline", l.PID, l.Host).
		WithMend("End it, or wait for %s: if it is dead, its lease runs out by then.", l.TTL)
}

func takenBy(prefix string, l Lease) error {
	return fault.New(fault.PipelineFenced, prefix+leaseKey, "process %d on %s has taken the pipeline over", l.PID, l.Host)
}

// isFree says whether nobody can believe any more that the lease is theirs. Seen is how long it has lain unchanged before
// our eyes: an owner stops believing in it after less than its TTL without a renewal.
func (s *Store) isFree(ctx context.Context, held Lease, seen time.Duration) (bool, error) {
	if held.etag == "" || held.Released || s.isFormer(held) || held.Process.surelyDead() || seen > held.TTL+held.TTL/8 {
		return true, nil
	}
	// A folder's clock is this machine's, which may be set: who has the patience to watch does without.
	kind := s.bucket.Properties().Kind
	if s.o.Patience > 0 && (kind == bucket.KindFolder || kind == bucket.KindMemory) {
		return false, nil
	}
	now, err := s.storesTime(ctx)
	return err == nil && now.Sub(held.Modified) > held.TTL+held.TTL/8, err
}

// isFormer says whether a lease is of an earlier owner in this process, which has ended.
func (s *Store) isFormer(held Lease) bool {
	return s.o.Self != "" && strings.HasPrefix(held.Owner, s.o.Self)
}

// storesTime asks for the store's time by writing an object.
func (s *Store) storesTime(ctx context.Context) (time.Time, error) {
	key := s.prefix + "clock-" + rand.Text()
	_, failed := bucket.WriteAll(ctx, s.bucket, key, []byte("what is the time?\n"), bucket.WriteOptions{ContentType: "text/plain", Lazy: true})
	o, err := s.bucket.Stat(ctx, key)
	if err != nil {
		return time.Time{}, cmp.Or(failed, err)
	}
	return o.Modified, s.bucket.Delete(ctx, key)
}

// seize writes a lease of ours over the one that is free; false when somebody else was faster.
func (s *Store) seize(ctx context.Context, held Lease) (bool, error) {
	state, _, err := readHead(ctx, s.bucket, s.prefix)
	if err != nil {
		return false, err
	}
	start := time.Now()
	mine := Lease{
		Version: Version, Epoch: max(held.Epoch, state.Epoch) + 1, Owner: s.o.Owner, Host: s.o.Host, PID: os.Getpid(),
		Process: thisProcess(), TTL: s.o.TTL, Renewed: start.UTC(),
	}
	o := only(held.etag)
	if !s.fenced {
		o = bucket.WriteOptions{}
	}
	_, failed := write(ctx, s.bucket, s.prefix+leaseKey, mine, o)
	if !s.fenced && failed == nil {
		if err := pause(ctx, s.o.Settle, s.prefix+leaseKey); err != nil {
			return false, err
		}
	}
	now, err := readLease(ctx, s.bucket, s.prefix)
	switch {
	case err != nil:
		return false, err
	case now.Owner == mine.Owner && now.Epoch == mine.Epoch: // also when the answer was lost
		s.mu.Lock()
		s.lease, s.renewed = now, start
		s.mu.Unlock()
		return true, nil
	case now.etag != held.etag:
		return false, nil
	}
	return false, refused(failed, s.prefix+leaseKey)
}

// refused judges a write that the store refused because of what is there, although what is there is what the write named. Nothing was
// taken over: the store is asked again later.
func refused(failed error, where string) error {
	if fault.Is(failed, fault.ObjectExists) || fault.Is(failed, fault.ObjectMissing) {
		return fault.New(fault.BucketBusy, where, "the object store refused a write on a condition that holds").Because(failed)
	}
	return failed
}

// renewOn renews the lease until it is lost or ctx ends.
func (s *Store) renewOn(ctx context.Context) {
	wait := s.o.TTL / 3
	for pause(ctx, wait, s.prefix+leaseKey) == nil {
		wait = s.o.TTL / 3
		err := s.renew(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		if fault.Is(err, fault.PipelineFenced) {
			s.o.Log.Error("the pipeline's lease is lost", "error", err)
			return
		}
		s.o.Log.Warn("cannot renew the pipeline's lease; trying again", "key", s.prefix+leaseKey, "error", err)
		wait = s.o.TTL / 12
	}
}

// renew writes the lease again. A store that does not answer within the lease's time is bucket-unreachable.
func (s *Store) renew(ctx context.Context) error {
	s.renewing.Lock()
	defer s.renewing.Unlock()
	within, cancel := context.WithTimeout(ctx, s.o.TTL)
	defer cancel()
	err := s.renewNow(within)
	if fault.Is(err, fault.Interrupted) && ctx.Err() == nil { // by nobody but our own clock
		return fault.New(fault.BucketUnreachable, s.prefix+leaseKey, "the object store does not answer within %s", s.o.TTL).Because(within.Err())
	}
	return err
}

// renewNow renews once. An answer that was lost is resolved by looking.
func (s *Store) renewNow(ctx context.Context) error {
	s.mu.Lock()
	lease, lost := s.lease, s.lost
	s.mu.Unlock()
	if lost != nil {
		return lost
	}
	start := time.Now()
	lease.Renewed = start.UTC()
	o := only(lease.etag)
	if !s.fenced {
		held, err := readLease(ctx, s.bucket, s.prefix)
		if err != nil {
			return err
		}
		if held.Owner != lease.Owner {
			return s.isFenced(takenBy(s.prefix, held))
		}
		o = bucket.WriteOptions{}
	}
	etag, failed := write(ctx, s.bucket, s.prefix+leaseKey, lease, o)
	if failed != nil || etag == "" {
		held, err := readLease(ctx, s.bucket, s.prefix)
		switch {
		case err != nil:
			return err
		case held.etag != "" && (held.Owner != lease.Owner || held.Epoch != lease.Epoch):
			return s.isFenced(takenBy(s.prefix, held))
		case held.Renewed.Equal(lease.Renewed):
			etag = held.etag
		default: // an earlier renewal of ours, or somebody removed the object: the next attempt starts from there
			s.mu.Lock()
			s.lease.etag = held.etag
			s.mu.Unlock()
			return refused(failed, s.prefix+leaseKey)
		}
	}
	lease.etag = etag
	s.mu.Lock()
	s.lease, s.renewed = lease, start
	s.mu.Unlock()
	return nil
}

// isFenced notes that somebody else is the owner: nothing that we do from now on counts.
func (s *Store) isFenced(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost == nil {
		s.lost = err
		s.fence(err)
	}
	return err
}

// Valid says, without asking the store, whether nobody else can have the lease: pipeline-fenced when somebody has, or when it
// has not been renewed for so long that somebody might.
//
// The time that has passed is the longer of what the monotonic clock and the wall clock say: the first does not run while a
// machine is suspended, the second can be set.
func (s *Store) Valid() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil {
		return s.lost
	}
	now := time.Now()
	passed := max(now.Sub(s.renewed), now.Round(0).Sub(s.renewed.Round(0)))
	if passed >= s.o.TTL-s.o.TTL/8 {
		return fault.New(fault.PipelineFenced, s.prefix+leaseKey, "the lease could not be renewed for %s, so another process may have it", passed.Round(time.Second))
	}
	return nil
}

// Confirm is Valid, but renews a lease that has run out if it has not been taken: so a store that was away for a while, or a machine
// that slept, need not end the pipeline.
func (s *Store) Confirm(ctx context.Context) error {
	if s.Valid() == nil {
		return nil
	}
	// A second renewal, where an earlier one of ours came late and was in the way, or the first ran out before its answer came.
	for attempt := range mostRenewals {
		if err := pauseBefore(ctx, attempt, s.prefix+leaseKey); err != nil {
			return err
		}
		err := s.renew(ctx)
		if err != nil && !fault.Is(err, fault.BucketBusy) {
			return err
		}
		if lost := s.taken(); lost != nil || s.Valid() == nil {
			return lost
		}
		if err != nil && attempt == mostRenewals-1 {
			return err
		}
	}
	return fault.New(fault.BucketUnreachable, s.prefix+leaseKey, "the object store takes longer to answer than a lease lasts (%s)", s.o.TTL).
		WithMend("It is tried again. If it recurs, raise run.lease_ttl.")
}

// mostRenewals is how often a lease that has run out is renewed in a row.
const mostRenewals = 3

// taken is pipeline-fenced once another is known to be the owner.
func (s *Store) taken() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// Lost is pipeline-fenced when another is known to be the owner, and nil else: a lease that has run out is renewed, if it can be.
func (s *Store) Lost(ctx context.Context) error {
	_ = s.Confirm(ctx) // only what it finds out counts
	return s.taken()
}

// WhileOurs is a context that ends as ctx does, and as soon as another is known to be the owner, with pipeline-fenced as its cause:
// what waits for anything else then waits no more.
func (s *Store) WhileOurs(ctx context.Context) (ours context.Context, done context.CancelFunc) {
	ours, end := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.fencing, func() { end(context.Cause(s.fencing)) })
	return ours, func() { stop(); end(nil) }
}

// release marks the lease as given back. That it fails is no harm: it runs out.
func (s *Store) release(ctx context.Context) {
	s.mu.Lock()
	lease, lost := s.lease, s.lost
	s.mu.Unlock()
	if lost != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.TTL/2)
	defer cancel()
	lease.Released = true
	o := only(lease.etag)
	if !s.fenced {
		held, err := readLease(ctx, s.bucket, s.prefix)
		if err != nil || held.Owner != lease.Owner {
			return
		}
		o = bucket.WriteOptions{}
	}
	if _, err := write(ctx, s.bucket, s.prefix+leaseKey, lease, o); err != nil && !fault.Is(err, fault.ObjectExists) {
		s.o.Log.Warn("cannot give the pipeline's lease back; it runs out", "key", s.prefix+leaseKey, "error", err)
	}
	_ = s.isFenced(fault.New(fault.PipelineFenced, s.prefix+leaseKey, "the lease has been given back"))
}

func pause(ctx context.Context, d time.Duration, where string) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, where, "stopped waiting")
	case <-timer.C:
		return nil
	}
}
