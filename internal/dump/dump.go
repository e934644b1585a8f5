package dump

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// run is one attempt at a dump.
type run struct {
	opts     Options
	source   *postgres.Source
	bucket   bucket.Bucket
	snap     *postgres.Snapshot
	shared   postgres.Shared
	manifest *Manifest
	nonce    string

	mark     mark
	markMu   sync.Mutex
	storeNow time.Time // the store's clock when the dump began
	keepMark bool      // something is left that a later dump must sweep
	// deadBefore are marks of dumps that died in our own folder.
	deadBefore []string

	oldManifest sync.Once
	oldErr      error

	tables []*tableWork
}

// Run dumps the selected tables and returns the manifest it wrote. When the source fails for a
// moment and takes the snapshot with it, the whole dump is begun again, with a new snapshot.
func Run(ctx context.Context, source *postgres.Source, b bucket.Bucket, opts Options) (*Manifest, error) {
	opts.fill()
	for attempt := 1; ; attempt++ {
		m, err := runOnce(ctx, source, b, opts)
		if err == nil || attempt >= opts.Attempts || !lostSource(err, attempt) {
			return m, err
		}
		opts.Log.Warn("the source failed; beginning again with a new snapshot", "attempt", attempt, "error", err)
		if err := pause(ctx, backoff(attempt)); err != nil {
			return nil, err
		}
	}
}

// lostSource says whether a new snapshot can help. A server that cannot be reached at first is down; one that was
// there before is starting again.
func lostSource(err error, attempt int) bool {
	return fault.Is(err, fault.SourceCut) || fault.Is(err, fault.SnapshotLost) || attempt > 1 && fault.Is(err, fault.SourceUnreachable)
}

// backoff is a second, then two, then four, so that a server that restarts can come back.
func backoff(attempt int) time.Duration { return time.Second << min(attempt-1, 5) }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the dump was ended")
	}
}

// runOnce is the order of the steps; see docs/INVARIANTS.md before changing it.
func runOnce(ctx context.Context, source *postgres.Source, b bucket.Bucket, opts Options) (_ *Manifest, err error) {
	r := newRun(source, b, opts)
	end, err := r.begin(ctx) // from here on others know that we run
	if err != nil {
		return nil, err
	}
	defer end()
	if err := r.takeSnapshot(ctx); err != nil {
		return nil, err
	}
	defer r.snap.Close()
	if err := r.sweep(ctx); err != nil {
		return nil, err
	}
	if err := r.plan(ctx); err != nil {
		return nil, err
	}
	if err := r.readAll(ctx); err != nil {
		return nil, r.cleanUp(ctx, err)
	}
	if err := r.finish(ctx); err != nil {
		return nil, r.cleanUp(ctx, err)
	}
	r.sweepOwn(ctx)
	if err := r.prune(ctx); err != nil {
		return nil, err
	}
	return r.manifest, nil
}

func newRun(source *postgres.Source, b bucket.Bucket, opts Options) *run {
	var nonce [4]byte
	_, _ = rand.Read(nonce[:]) // never fails, says crypto/rand
	r := &run{opts: opts, source: source, bucket: b, nonce: hex.EncodeToString(nonce[:])}
	r.shared = postgres.Shared{Limit: limiter(opts.MaxRate), Huge: make(chan struct{}, 1)}
	r.manifest = &Manifest{
		FormatVersion: ManifestVersion, Tool: Tool{Name: "leat", Version: opts.Version},
		Source: SourceInfo{Server: source.Name, Version: source.Version, Standby: source.InRecovery, Encoding: source.Encoding},
		Layout: opts.Layout, Format: string(opts.Format), Compression: string(opts.Compression), Tables: []TableManifest{},
	}
	return r
}

// name says when the dump began; its folder is called after that.
func (r *run) name(now time.Time) {
	r.manifest.ID, r.manifest.Started = now.Format(idFormat), now
	r.manifest.Folder = r.manifest.ID
	if r.opts.Layout == LayoutDate {
		r.manifest.Folder = now.Format(time.DateOnly)
	}
}

func (r *run) takeSnapshot(ctx context.Context) (err error) {
	csv := !r.opts.Format.Typed() && !r.opts.Format.JSON()
	r.snap, err = r.source.Snapshot(ctx, postgres.SnapshotOptions{
		Selection: r.opts.Selection, LSN: r.opts.LSN, SlotWait: r.opts.SlotWait,
		Typed: !csv, RoleForm: csv && r.opts.RoleForm,
		Told: func(s string) { r.opts.Log.Warn(s) },
	})
	if err != nil {
		return err
	}
	r.manifest.TextSettings = r.snap.Form
	if lossy := postgres.Lossy(r.snap.Form); len(lossy) > 0 {
		r.opts.Log.Warn("the role's settings make the text of some values inexact; dump.csv_form: exact does without them", "settings", strings.Join(lossy, "; "))
	}
	r.manifest.Snapshot = SnapshotInfo{
		LSN: r.snap.LSN, LSNUpper: r.snap.LSNUpper, LSNExact: r.snap.Exact, WhyNotExact: r.snap.WhyNotExact,
		Visibility: r.snap.Visibility, Time: r.snap.Time,
	}
	return nil
}

// plan makes the units and tells the watcher.
func (r *run) plan(ctx context.Context) error {
	names := map[string]*change.Table{}
	var progress []*Progress
	chunkBytes := r.snap.ChunkBytes(2*r.opts.Parallel, r.opts.FileSize*heapPerFile)
	var keys []string
	for _, t := range r.snap.Tables {
		w, err := r.planTable(t, chunkBytes)
		if err != nil {
			return err
		}
		if other := names[w.name]; other != nil {
			return fault.New(fault.ConfigInvalid, w.name, "%s and %s would be the same object", other, t).
				WithMend("Name the tables with their schema, or use layout: run.")
		}
		names[w.name] = t
		r.tables = append(r.tables, w)
		progress = append(progress, w.progress)
		keys = append(keys, w.key(0, 0))
	}
	if r.opts.Layout == LayoutDate { // so that a later dump knows what it may sweep
		r.markMu.Lock() // the mark is being renewed meanwhile
		r.mark.Keys = keys
		r.markMu.Unlock()
		if err := r.writeMark(ctx); err != nil {
			return err
		}
	}
	r.noteGenerated()
	r.opts.Watch.Planned(r.manifest, progress)
	return nil
}

// noteGenerated says which columns csv leaves out, as COPY does. The dump by the role's own settings stands in for a job that left them out.
func (r *run) noteGenerated() {
	if r.opts.Format.Typed() || r.opts.Format.JSON() || r.opts.Generated || r.opts.RoleForm {
		return
	}
	var left []string
	for _, t := range r.tables {
		for _, c := range t.table.Columns {
			if c.Generated != 0 {
				left = append(left, t.table.String()+"."+c.Name)
			}
		}
	}
	if len(left) > 0 {
		r.opts.Log.Info("csv leaves generated columns out, as COPY does; dump.csv_generated: true has them", "columns", strings.Join(left, ", "))
	}
}

// readAll reads all units with Parallel connections, the largest tables first, so that none is left over at
// the end. A table's units stay in their order.
func (r *run) readAll(ctx context.Context) error {
	queue := make(chan unit)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(queue)
		bySize := slices.Clone(r.tables)
		slices.SortStableFunc(bySize, func(a, b *tableWork) int { return int(min(max(b.table.Bytes-a.table.Bytes, -1), 1)) })
		for _, t := range bySize {
			for i := range t.chunks {
				select {
				case queue <- unit{table: t, index: i}:
				case <-ctx.Done():
					return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the dump was ended")
				}
			}
		}
		return nil
	})
	workers := min(r.opts.Parallel, r.units())
	for range workers {
		group.Go(func() error { return r.work(ctx, queue) })
	}
	return group.Wait()
}

func (r *run) units() int {
	n := 0
	for _, t := range r.tables {
		n += len(t.chunks)
	}
	return n
}

// work is one connection and what it reads.
func (r *run) work(ctx context.Context, queue <-chan unit) error {
	w := &worker{run: r}
	defer w.close()
	for u := range queue {
		if err := w.do(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// dropOldManifest removes, once, a manifest of the same folder before its objects are replaced.
func (r *run) dropOldManifest(ctx context.Context) error {
	if r.opts.Layout != LayoutDate {
		return nil
	}
	r.oldManifest.Do(func() { r.oldErr = r.bucket.Delete(ctx, r.manifest.Folder+"/"+ManifestName) })
	return r.oldErr
}

// finish writes the manifest, after everything it names.
func (r *run) finish(ctx context.Context) error {
	for _, t := range r.tables {
		r.manifest.Tables = append(r.manifest.Tables, t.manifest())
	}
	r.manifest.Finished = r.opts.Now().UTC()
	r.manifest.sum()
	// Without the leader its locks are gone too, and a table that was truncated since would have been read as empty.
	if err := r.snap.Alive(ctx); err != nil {
		return err
	}
	if err := r.checkMark(ctx); err != nil {
		return err
	}
	if err := r.dropOldManifest(ctx); err != nil {
		return err
	}
	return r.manifest.write(ctx, r.bucket)
}

// cleanUpTime is how long a dump that failed may take to clear away what it has left.
const cleanUpTime = 10 * time.Second

// cleanUp takes back what a failed dump has committed, as far as it still can; what remains is swept by the
// next. The manifest goes first: its write may have succeeded though the answer was lost.
func (r *run) cleanUp(ctx context.Context, cause error) error {
	var aborts sync.WaitGroup // each may wait for a store that hangs
	for _, t := range r.tables {
		if t.joined != nil {
			aborts.Go(t.joined.sink.abort)
		}
	}
	aborts.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if err := r.takeBack(ctx); err != nil {
		r.opts.Log.Warn("the objects of the failed dump could not be deleted; the next dump will sweep them", "error", err)
		r.keepMark = true
	}
	return cause
}

// takeBack deletes what is visible. A commit whose answer was lost may have succeeded: in a folder of our own
// the listing tells.
func (r *run) takeBack(ctx context.Context) error {
	var keys []string
	for _, t := range r.tables {
		for _, f := range t.files {
			keys = append(keys, f.Key)
		}
	}
	if r.opts.Layout == LayoutDate && len(keys) == 0 {
		return nil // nothing of ours is there, and an older manifest may stand
	}
	if err := r.bucket.Delete(ctx, r.manifest.Folder+"/"+ManifestName); err != nil {
		return err
	}
	if r.opts.Layout == LayoutRun {
		listed, err := r.ownObjects(ctx, r.manifest.Folder)
		if err != nil {
			return err
		}
		keys = listed
	}
	return r.bucket.Delete(ctx, keys...)
}
