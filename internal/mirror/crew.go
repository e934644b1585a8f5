package mirror

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// job is an object that may have to be carried.
type job struct {
	object   bucket.Object  // as the source lists it
	far      *bucket.Object // as the far side lists it, nil without one
	sure     bool           // it is to be carried, whatever lies there
	needed   bool           // a table names it
	exact    bool           // it counts only as it was listed
	lock     bool           // the target has it, and its lock alone is followed
	attempts int            // since the last one that got on
	parts    int            // most of a large one's that were at the target when an attempt failed
}

// crew carries objects, several at once. One that fails waits by itself and is tried again, while the others go on.
type crew struct {
	run    *run
	carry  func(context.Context, job) error
	ctx    context.Context
	cancel context.CancelCauseFunc
	jobs   chan job
	again  chan job
	hands  sync.WaitGroup // workers
	open   sync.WaitGroup // jobs

	mu      sync.Mutex
	waiting int // jobs that wait to be tried again
	room    *sync.Cond
	inARow  int   // objects that failed since one was carried, or since plain requests were tried
	broken  error // nobody goes on
}

const (
	// mostWaiting bounds the memory of jobs that wait: past it nothing new is begun.
	mostWaiting = 10_000
	// asideInARow is how many objects fail one after the other before plain requests tell whether it is the objects or a whole side.
	asideInARow = 100
)

// newCrew begins a crew that does with each job what carry does.
func (r *run) newCrew(ctx context.Context, carry func(context.Context, job) error) *crew {
	c := &crew{run: r, carry: carry, jobs: make(chan job), again: make(chan job)}
	c.room = sync.NewCond(&c.mu)
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	for range r.o.Parallel {
		c.hands.Go(c.work)
	}
	return c
}

// give hands a job to the crew; it waits while all are busy.
func (c *crew) give(ctx context.Context, j job) error {
	c.mu.Lock()
	for c.waiting >= mostWaiting && c.broken == nil && c.ctx.Err() == nil {
		c.room.Wait()
	}
	c.mu.Unlock()
	c.open.Add(1)
	select {
	case c.jobs <- j:
		return nil
	case <-c.ctx.Done():
		c.open.Done()
		return c.ended(ctx)
	}
}

func (c *crew) ended(ctx context.Context) error {
	if err := c.failed(); err != nil {
		return err
	}
	return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the mirror was ended")
}

// failed is what ended the crew, nil while it works.
func (c *crew) failed() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// end waits until all jobs are done or set aside.
func (c *crew) end() error {
	done := make(chan struct{})
	go func() { c.open.Wait(); close(done) }()
	select {
	case <-done:
	case <-c.ctx.Done():
	}
	err := c.failed()
	if err == nil && c.ctx.Err() != nil {
		err = fault.Wrap(context.Cause(c.ctx), fault.Interrupted, "", "the mirror was ended")
	}
	c.cancel(nil)
	c.hands.Wait()
	return err
}

// work takes new jobs before those that failed: objects that time out again and again hold up nothing that is new.
func (c *crew) work() {
	for {
		select {
		case j := <-c.jobs:
			c.do(j)
			continue
		default:
		}
		select {
		case j := <-c.jobs:
			c.do(j)
		case j := <-c.again:
			c.do(j)
		case <-c.ctx.Done():
			return
		}
	}
}

// do carries an object once, and decides what becomes of it.
func (c *crew) do(j job) {
	err := c.run.guarded(j.object.Key, func() error { return c.carry(c.ctx, j) })
	j.attempts++
	switch {
	case err == nil:
		c.mu.Lock()
		c.inARow = 0
		c.mu.Unlock()
		c.open.Done()
	case c.ctx.Err() != nil:
		c.open.Done()
	case c.run.ends(c.ctx, err):
		c.breakOff(err)
		c.open.Done()
	case !c.run.again(&j, err):
		c.setAside(j, err)
		c.open.Done()
	default:
		c.later(j, err)
	}
}

// again says whether an object is tried again. A large one that got on has its attempts back; a part of one has been tried often enough
// for the whole.
func (r *run) again(j *job, err error) bool {
	if !fault.Retryable(err) {
		return false
	}
	if p := (*partly)(nil); errors.As(err, &p) {
		on := p.parts > j.parts
		if on {
			j.parts, j.attempts = p.parts, 1
		}
		return on
	}
	return j.attempts < r.o.Attempts
}

// guarded works on an object or a table; a panic becomes its error, and the others go on.
func (r *run) guarded(key string, work func() error) (err error) {
	defer fault.Catch(&err, r.o.Log, r.where(key))
	return work()
}

func (c *crew) breakOff(err error) {
	c.mu.Lock()
	if c.broken == nil {
		c.broken = err
	}
	c.room.Broadcast()
	c.mu.Unlock()
	c.cancel(err)
}

func (c *crew) setAside(j job, err error) {
	if c.run.waits(j, err) {
		return
	}
	if classify(j.object.Key) == classData {
		c.run.tally.setUnheld(j.object.Key, err)
	} else {
		c.run.setAside(c.ctx, j.object.Key, err)
	}
	c.mu.Lock()
	c.inARow++
	many := c.inARow >= asideInARow
	if many {
		c.inARow = 0
	}
	c.mu.Unlock()
	if !many {
		return
	}
	if why := c.run.plainly(c.ctx, true); why != nil {
		c.breakOff(fault.Wrap(why, codeOf(why), c.run.to.bucket.Properties().URL, "%d objects in a row could not be carried, and a plain request fails too", asideInARow))
	}
}

// later tries a job again after a pause that grows with its attempts.
func (c *crew) later(j job, err error) {
	wait := c.run.backoff(j, err)
	c.mu.Lock()
	c.waiting++
	c.mu.Unlock()
	time.AfterFunc(wait, func() {
		select {
		case c.again <- j:
		case <-c.ctx.Done():
			c.open.Done()
		}
		c.mu.Lock()
		c.waiting--
		c.room.Signal()
		c.mu.Unlock()
	})
}

const mostBackoff = 30 * time.Second

// backoff is how long an object that failed waits: with jitter, so that many do not come back in step.
func (r *run) backoff(j job, err error) time.Duration {
	wait := min(r.o.Backoff<<min(j.attempts-1, 10), mostBackoff)
	wait = wait/2 + rand.N(wait/2+1)
	r.tally.again(j.object.Key, err, wait)
	return wait
}

// pause waits before the next attempt of one object.
func (r *run) pause(ctx context.Context, j job, err error) error {
	select {
	case <-time.After(r.backoff(j, err)):
		return nil
	case <-ctx.Done():
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, j.object.Key, "the mirror was ended")
	}
}
