package checkpoint

import (
	"context"
	"crypto/rand"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Options say who wants to run the pipeline.
type Options struct {
	Host  string // for people; the machine's own name when empty
	Owner string // must be unlike any other process's; made up when empty
	// Self begins the names of all owners of this process that follow one another. A lease of an earlier one, which has been closed, is free
	// at once, also when it could not be given back, or when a renewal of it comes late.
	Self string
	TTL  time.Duration // how long a lease lasts without being renewed; 30 s when 0
	// Patience is how long Open waits for another's lease to run out. An owner that renews it is believed at once. With 0
	// only the store's clock is asked, and another's lease that lasts is pipeline-busy.
	Patience time.Duration
	// Settle is how long a store without conditional writes is left to itself after a write, before it is asked whose won; 2 s when 0.
	Settle time.Duration
	Log    *slog.Logger // may be nil
}

// Store is a pipeline's saved state, with the lease to write it. Its methods may be called from several goroutines.
type Store struct {
	bucket bucket.Bucket
	prefix string
	o      Options
	fenced bool // the store has conditional writes

	mu        sync.Mutex
	lease     Lease
	renewed   time.Time // when the last successful renewal was asked for
	lost      error     // set once another is the owner
	state     State
	stateETag string

	saving      sync.Mutex // one Save at a time; guards what follows
	base        baseState
	formerBases []string // keys of bases before it that are still there

	renewing sync.Mutex // one renewal at a time
	stop     context.CancelFunc
	done     sync.WaitGroup
	fencing  context.Context // ends when lost is set
	fence    context.CancelCauseFunc
}

// Open takes the lease and reads the state. It is pipeline-busy while another process has the lease, and state-unusable when
// a newer leat has written the state.
func Open(ctx context.Context, b bucket.Bucket, prefix string, o Options) (*Store, error) {
	if o.Host == "" {
		o.Host, _ = os.Hostname() // for people; nothing depends on it
	}
	if o.Owner == "" {
		o.Owner = o.Self + rand.Text()
	}
	if o.TTL == 0 {
		o.TTL = 30 * time.Second
	}
	if o.Settle == 0 {
		o.Settle = 2 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{bucket: b, prefix: folder(prefix), o: o}
	s.fencing, s.fence = context.WithCancelCause(context.Background())
	var err error
	if s.fenced, err = conditional(ctx, b, s.prefix); err != nil {
		return nil, err
	}
	if !s.fenced {
		o.Log.Warn("the store has no conditional writes: two processes that start a pipeline at the same moment are only noticed afterwards", "store", b.Properties().URL)
	}
	// A state of another version is found out before anything is written.
	if _, err := readState(ctx, b, s.prefix); err != nil {
		return nil, err
	}
	if err := s.take(ctx); err != nil {
		return nil, err
	}
	if err := s.adopt(ctx); err != nil {
		s.release(ctx)
		return nil, err
	}
	renew, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = cancel
	s.done.Go(func() { s.renewOn(renew) })
	return s, nil
}

// conditional asks whether the store can write on condition; where it is not known, it is tried. That it could not be tried is no answer.
func conditional(ctx context.Context, b bucket.Bucket, prefix string) (bool, error) {
	p := b.Properties()
	if p.ConditionalPut == bucket.Unknown {
		var err error
		if p, err = bucket.Probe(ctx, b); err != nil {
			return false, err
		}
	}
	if p.ConditionalPut != bucket.Unknown {
		return p.ConditionalPut == bucket.Supported, nil
	}
	key := prefix + "try-" + rand.Text()
	_, err := bucket.WriteAll(ctx, b, key, []byte("1\n"), bucket.WriteOptions{IfAbsent: true})
	if err == nil {
		_, err = bucket.WriteAll(ctx, b, key, []byte("2\n"), bucket.WriteOptions{IfAbsent: true})
		_ = b.Delete(ctx, key) // what stays is a few bytes under a name of its own
	}
	switch {
	case fault.Is(err, fault.ObjectExists):
		return true, nil
	case err == nil, fault.Is(err, fault.BucketUnsupported):
		return false, nil
	}
	return false, err
}

// adopt makes the state ours: it is written again under our epoch, so that the former owner's next Save fails.
func (s *Store) adopt(ctx context.Context) error {
	for attempt := range mostAttempts {
		if err := pauseBefore(ctx, attempt, s.prefix+stateKey); err != nil {
			return err
		}
		state, err := readState(ctx, s.bucket, s.prefix)
		if err != nil {
			return err
		}
		if state.Epoch > s.lease.Epoch {
			return s.isFenced(fault.New(fault.PipelineFenced, s.prefix+stateKey, "owner %s has taken the pipeline over", state.Owner))
		}
		s.saving.Lock()
		s.base, s.formerBases = state.base, nil
		s.saving.Unlock()
		s.mu.Lock()
		s.state, s.stateETag = state.State, state.etag
		s.mu.Unlock()
		if err = s.save(ctx, state.State); err == nil {
			s.sweepBases(ctx)
		}
		if !fault.Is(err, fault.ObjectExists) {
			return err
		}
	}
	return fault.New(fault.BucketBusy, s.prefix+stateKey, "the state was another one at each of %d attempts to take it over", mostAttempts)
}

// State is what was read or saved last.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Epoch is the number of this ownership: larger than any before.
func (s *Store) Epoch() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease.Epoch
}

// Save writes the state. It is pipeline-fenced when the lease is lost or has run out, or when another process has written the
// state: then nothing of ours has been written.
func (s *Store) Save(ctx context.Context, state State) error {
	if err := s.Confirm(ctx); err != nil {
		return err
	}
	err := s.save(ctx, state)
	if fault.Is(err, fault.ObjectExists) {
		return s.isFenced(fault.New(fault.PipelineFenced, s.prefix+stateKey, "another process has written the pipeline's state").Because(err))
	}
	return err
}

// save writes the state on condition that it is the one we know; object-exists when another owner's is there, which is read to say so. A
// write that failed may have happened nevertheless, and so may one that failed before: what lies there tells. Where that cannot be looked
// at, nothing is known of other owners.
func (s *Store) save(ctx context.Context, state State) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	etag, lease := s.stateETag, s.lease
	s.mu.Unlock()
	state.Version, state.Epoch, state.Owner = Version, lease.Epoch, lease.Owner
	state.Saved, state.Written = time.Now().UTC(), rand.Text()
	next, err := s.compose(ctx, state)
	if err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		now, failed := s.saveOnce(ctx, next, etag)
		if failed != nil || now == "" {
			have, found, err := readHead(ctx, s.bucket, s.prefix)
			ours := err == nil && have.Owner == lease.Owner && have.Epoch == lease.Epoch
			switch {
			case err != nil && (failed == nil || fault.Is(failed, fault.ObjectExists) || fault.Is(failed, fault.ObjectMissing)):
				return refused(err, s.prefix+stateKey)
			case err != nil:
				return failed
			case ours && have.Written == state.Written:
				now = found
			case ours && found != etag && attempt == 1:
				etag = found // an earlier write of ours whose answer was lost
				continue
			case found == "" && etag != "":
				return fault.New(fault.StateUnusable, s.prefix+stateKey, "the saved state was removed while the pipeline runs").Because(failed).
					WithMend("Restore it. Without it the next start copies all tables.")
			case found != etag && !ours:
				return fault.New(fault.ObjectExists, s.prefix+stateKey, "owner %s wrote it in epoch %d", have.Owner, have.Epoch).Because(failed)
			case failed == nil: // a store that answers without an ETag, and shows an earlier version yet
				return fault.New(fault.BucketBusy, s.prefix+stateKey, "the object store does not show what it has just written")
			default:
				return refused(failed, s.prefix+stateKey)
			}
		}
		s.mu.Lock()
		s.state, s.stateETag = state, now
		s.mu.Unlock()
		s.dropBases(ctx)
		return nil
	}
}

func (s *Store) saveOnce(ctx context.Context, state head, etag string) (string, error) {
	if s.fenced {
		return write(ctx, s.bucket, s.prefix+stateKey, state, only(etag))
	}
	held, err := readLease(ctx, s.bucket, s.prefix)
	if err != nil {
		return "", err
	}
	if held.Owner != state.Owner {
		return "", s.isFenced(takenBy(s.prefix, held))
	}
	return write(ctx, s.bucket, s.prefix+stateKey, state, bucket.WriteOptions{})
}

// Close gives the lease back, so that the next process need not wait.
func (s *Store) Close(ctx context.Context) {
	s.stop()
	s.done.Wait()
	s.release(ctx)
}
