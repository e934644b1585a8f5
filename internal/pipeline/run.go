package pipeline

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"errors"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/spool"
)

// run is one attempt: from taking the lease to the first failure.
type run struct {
	o      Options
	source *postgres.Source
	store  *checkpoint.Store
	state  checkpoint.State
	lake   Lake
	log    *postgres.Log
	spool  *spool.Spool
	binary bool

	tables       map[string]*table // by key
	byOID        map[uint32]*table
	publications []string
	gives        map[postgres.Name]postgres.PublishedTable // what they give of each table
	expressions  map[uint32]*postgres.Expressions          // of the generated columns that the log does not have, by the table's OID
	evaluator    *postgres.Evaluator                       // computes them
	messages     *table                                    // where logical messages are kept; nil where they are not

	// What follows belongs to the loop.
	position      change.LSN // the end of the last whole transaction
	at            int64      // when it committed, microseconds since 1970
	saved         change.LSN
	savedAt       time.Time
	target        change.LSN // where a run until caught up ends
	inTransaction bool
	spooling      bool            // the transaction has an event in the spool
	spooled       bool            // the spool has events that are not durable
	begin         []byte          // the Begin of the transaction
	delivered     *recent         // also by earlier attempts
	tick          context.Context // ends when the loop must look around
	endTick       context.CancelFunc
	dirty         []*table
	since         time.Time // of the oldest change that is not committed
	pacedAt       time.Time // when it was last seen which tables are to be committed
	rows, bytes   int64     // of what is not committed
	transactions  int       // read since the watcher was told
	read          int64     // bytes of the log, likewise
	now           time.Time
	lookedAt      time.Time
	drainedAt     time.Time
	warnedAt      time.Time
	drainable     []*table
	pending       map[uint32]pendingDoubt // by the table's OID
	strangers     map[uint32]bool         // relations of the WAL that are not followed, and that were told of
	above         *table                  // whose definition was told last
	toldLeaves    map[uint32]toldLeaf     // partitions that the WAL has told of, and no look yet
	ddl           string                  // the prefix of the messages of DDL events, "" where none are listened to
	heard         bool                    // the transaction has such a message
	ended         bool                    // the loop has ended with everything committed and saved

	// What follows is shared with the goroutines beside it.
	stopping *atomic.Bool
	copied   mailbox
	live     mailbox // tables that are open and follow the log
	tended   mailbox // tables whose upkeep was done, which is not saved yet
	copying  atomic.Int32
	// indivisible: a copy is under way that another attempt would have to begin again.
	indivisible atomic.Bool
	outwaited   atomic.Uint64 // where the transactions have ended that tables which came late wait for
	retained    atomic.Int64
	lost        atomic.Bool
	changed     atomic.Bool            // the database has other tables than chosen, or other partitions, or the WAL may not have told all
	urgent      atomic.Bool            // of that: rows may have been missed
	chosen      map[postgres.Seen]bool // all that the selection gave
	roots       []uint32               // of them, those that are followed as one although they have partitions
	leaves      []postgres.Leaf        // theirs
	locked      []*change.Table        // tables that are left out until no other session holds them
	watched     watched
	sighted     atomic.Pointer[sighted] // what the last look found, until the loop takes it
	lookNow     chan struct{}
	lookSoon    chan struct{}
	seen        atomic.Uint64 // the position that is saved
	seenAt      atomic.Int64  // when its newest transaction committed, microseconds since 1970; 0 for none yet
	asked       chan struct{}
	unhinted    atomic.Pointer[[]change.Table] // tables whose version hints an earlier process may have left behind, nil for none

	// What follows belongs to tend.
	whole  time.Time  // everything from before it is in the lake or the spool, or nobody knows
	marked time.Time  // when the server's log ended at mark
	mark   change.LSN // the saved position has not come to it yet, or 0
}

// Run follows the log until the context ends, until it has caught up when that was asked for, or until a failure that
// no further attempt can heal. When the context ends it finishes the transaction at hand and commits it.
func Run(ctx context.Context, source *postgres.Source, o Options) error {
	next, delivered, self := &again{}, &recent{}, cryptorand.Text()+"-"
	for failures := 0; ; {
		began := time.Now()
		err := attempt(ctx, source, o, next, delivered, self)
		if time.Since(began) > time.Minute {
			failures = 0
		}
		if more := new(again); errors.As(err, &more) {
			next.also(more)
			continue
		}
		if err == nil && o.UntilCaughtUp {
			return next.broken()
		}
		if err == nil || ctx.Err() != nil || !heals(err) || fault.Is(err, fault.PipelineBusy) || o.UntilCaughtUp && failures >= attemptsToCatchUp {
			return err
		}
		failures++
		wait := backoff(failures, o.MaxRetryDelay)
		o.Log.Warn("the run failed and is tried again", "error", err, "code", codeOf(err), "in", wait.Round(time.Millisecond))
		o.Watch.Failed(err, wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the run was ended")
		}
	}
}

// heals says whether another attempt may succeed. While nobody ends the run, what was interrupted came to the end of a time of our own.
func heals(err error) bool { return fault.Retryable(err) || codeOf(err) == fault.Interrupted }

// attemptsToCatchUp is how often a run that is to end tries in a row: whoever started it hears of the failure then.
const attemptsToCatchUp = 12

// backoff doubles from half a second, with jitter so that many pipelines do not come back in step.
func backoff(failures int, most time.Duration) time.Duration {
	d := min(500*time.Millisecond<<min(failures-1, 16), most)
	return d/2 + rand.N(d/2+1)
}

// attempt is the order of the steps; see docs/INVARIANTS.md before changing it.
func attempt(ctx context.Context, source *postgres.Source, o Options, next *again, delivered *recent, self string) (err error) {
	r := &run{
		o: o, source: source, evaluator: source.Evaluator(), delivered: delivered, tables: map[string]*table{}, byOID: map[uint32]*table{}, pending: map[uint32]pendingDoubt{}, strangers: map[uint32]bool{}, toldLeaves: map[uint32]toldLeaf{},
		asked: make(chan struct{}, 1), lookNow: make(chan struct{}, 1), lookSoon: make(chan struct{}, 1), stopping: new(atomic.Bool),
	}
	defer r.evaluator.Close()
	if err := r.takeLease(ctx, self); err != nil {
		return err
	}
	defer r.store.Close(context.WithoutCancel(ctx))
	caller := ctx
	ctx, done := r.store.WhileOurs(ctx) // what waits below waits no more once the pipeline is another's
	defer done()
	defer func() { err = r.unlessFenced(caller, err) }()
	defer r.close()
	if err := r.prepare(ctx, next); err != nil {
		return err
	}
	if r.state.Control.Paused && r.o.UntilCaughtUp {
		return fault.New(fault.PipelineBusy, r.o.Name, "the pipeline is paused, so it cannot catch up").WithMend("leat resume lets it go on.")
	}
	if r.state.Control.Paused {
		return r.waitPaused(ctx)
	}
	if err := r.startLog(ctx, next); err != nil {
		return err
	}
	if err := r.openMessages(ctx); err != nil {
		return err
	}
	r.findHints(next)
	defer r.endHints(ctx, next)
	if r.guarded() {
		r.lookAtSlot(ctx) // the danger is not over because another attempt begins
	}
	r.resumeDrains()
	r.o.Watch.Working(true)
	defer r.o.Watch.Working(false)
	if err := r.work(ctx); err != nil {
		return r.noteUnreadable(ctx, err)
	}
	return r.tendAtEnd(ctx, tendWithin)
}

// unlessFenced names the cause of a failure where that is another owner: what an attempt meets once the pipeline is another's, as
// objects that are gone, says nothing about the pipeline.
func (r *run) unlessFenced(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	return cmp.Or(r.store.Lost(ctx), err)
}

// noteUnreadable saves that the log has a time in which the publication was not there: whoever asks for a new copy then gets a new slot.
func (r *run) noteUnreadable(ctx context.Context, err error) error {
	if !fault.Is(err, fault.PublicationUnusable) {
		return err
	}
	r.state.Unreadable = true
	if e := r.store.Save(context.WithoutCancel(ctx), r.state); e != nil {
		r.o.Log.Warn("what a new copy must know is not saved; the failure will show it again", "error", e)
	}
	return err
}

// resumeDrains hands over tables whose copy had ended before the attempt began.
func (r *run) resumeDrains() {
	for _, t := range r.tables {
		if t.mode == checkpoint.Spooling {
			r.copied.put(t)
		}
	}
}

func (r *run) takeLease(ctx context.Context, self string) (err error) {
	host, _ := os.Hostname()
	r.store, err = checkpoint.Open(ctx, r.o.State, StatePrefix(r.o.Name), checkpoint.Options{Host: host, Self: self, TTL: r.o.LeaseTTL, Patience: r.o.LeaseTTL * 3 / 2, Log: r.o.Log})
	if err == nil {
		r.state = r.store.State()
		r.o.Watch.Leased(r.store.Epoch())
	}
	return err
}

// prepare brings source, saved state and lake together before the log is opened.
func (r *run) prepare(ctx context.Context, next *again) (err error) {
	if err := r.takeRequests(ctx, next); err != nil {
		return err
	}
	if r.lake, err = r.o.Lake(ctx, r.store.Epoch()); err != nil {
		return err
	}
	if err := r.atServer(ctx, next); err != nil {
		return err
	}
	next.tables, next.all, next.exact, next.locked = nil, false, false, nil // the saved state has them now
	r.spool, err = spool.Open(ctx, r.o.State, StatePrefix(r.o.Name)+"/spool", spool.Options{From: r.state.Spooled, Epoch: r.store.Epoch()})
	return err
}

// atServer chooses the tables and makes publication and slot. A first start that is refused leaves none of what it has made.
func (r *run) atServer(ctx context.Context, next *again) error {
	first := r.state.Position == 0 && r.o.OwnPublication && !r.source.InRecovery
	var made []string
	for _, name := range []string{r.o.Publication, r.o.Publication + insertsSuffix} {
		if !first {
			break
		}
		there, err := r.source.HasPublication(ctx, name)
		if err != nil {
			return err
		}
		if !there {
			made = append(made, name)
		}
	}
	err := r.chooseTables(ctx, next)
	events := false
	if err == nil {
		events, err = r.prepareDDLEvents(ctx, next)
	}
	if err == nil {
		err = r.prepareSlot(ctx, next)
	}
	if err == nil || heals(err) || r.state.Position > 0 {
		return err
	}
	if events {
		if _, e := r.source.DropDDLEvents(ctx, r.ddlEvents()); e != nil {
			r.o.Log.Warn("event triggers that this start has made stay", "slot", r.o.Slot, "error", e)
		}
	}
	for _, name := range made {
		if e := r.source.DropPublication(ctx, name); e != nil {
			r.o.Log.Warn("a publication that this start has made stays", "publication", name, "error", e)
		}
	}
	return err
}

func (r *run) close() {
	if r.endTick != nil {
		r.endTick()
	}
	if r.log != nil {
		r.log.Close()
	}
	for _, t := range r.tables {
		if t.lake != nil {
			_ = t.lake.Close() // what it had not committed is not missed
		}
	}
	if r.messages != nil {
		_ = r.messages.lake.Close()
	}
	if r.lake != nil {
		_ = r.lake.Close()
	}
}

// work runs the loop and what goes on beside it until the first of them ends.
func (r *run) work(ctx context.Context) error {
	// The loop outlives the caller's context by a little, to end between two transactions with all committed.
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() {
		r.stopping.Store(true)
		within := stopWithin
		if fault.Is(context.Cause(ctx), fault.PipelineFenced) { // nothing of ours can be committed any more
			within = 0
		}
		time.AfterFunc(within, func() { cancel(context.Cause(ctx)) })
	})()
	g, gctx := errgroup.WithContext(inner)
	side, endSide := context.WithCancel(gctx)
	g.Go(fault.Catching(r.o.Log, "", func() error { defer endSide(); return r.follow(gctx) }))
	for _, beside := range []func(context.Context) error{r.tend, r.lookAll, r.copyAll, r.maintainAll, r.keepHints} {
		g.Go(fault.Catching(r.o.Log, "", func() error { return unlessEnded(side, beside(side)) }))
	}
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || inner.Err() != nil) {
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the run was ended")
	}
	return err
}

// stopWithin is how long the loop may take to come to the end of a transaction and commit after it was asked to stop.
const stopWithin = 15 * time.Second

// unlessEnded drops the error of a side that was told to end.
func unlessEnded(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// startLog opens the log where the saved state ends.
func (r *run) startLog(ctx context.Context, next *again) (err error) {
	r.position, r.saved, r.savedAt = r.state.Position, r.state.Position, time.Now()
	r.seen.Store(uint64(r.position))
	r.whole = r.savedAt
	r.binary = !next.text && r.source.Version >= 140000
	if r.o.UntilCaughtUp {
		if r.target, err = r.source.LogEnd(ctx); err != nil {
			return err
		}
		// A message behind it lets the log come past the end also where nothing else is written; a role that may not
		// write one waits for the server's own records.
		if _, err := r.source.Heartbeat(ctx, heartbeatPrefix); err != nil && !fault.Is(err, fault.SourceRights) {
			return err
		}
	}
	r.log, err = r.source.Log(ctx, postgres.LogOptions{
		Slot: r.o.Slot, Publications: r.publications, From: r.state.Position,
		Binary: r.binary, Streaming: r.source.Version >= 140000, Messages: r.o.Messages || r.ddl != "", SpillDir: r.o.WorkDir + "/transactions",
	})
	return err
}

// waitPaused holds the lease and nothing else until somebody resumes.
func (r *run) waitPaused(ctx context.Context) error {
	r.o.Log.Info("paused; the server keeps its log meanwhile. leat resume goes on")
	for {
		select {
		case <-ctx.Done():
			return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the run was ended while paused")
		case <-time.After(askEvery):
		}
		if err := r.store.Confirm(ctx); err != nil { // the machine may have slept
			return err
		}
		r.asked <- struct{}{}
		if err := r.heed(ctx); err != nil {
			return err
		}
	}
}
