package dump

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"slices"
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
		if err == nil || attempt >= opts.Attempts || !lostSource(err) {
			return m, err
		}
		opts.Log.Warn("the source failed; beginning again with a new snapshot", "attempt", attempt, "error", err)
		if err := pause(ctx, attempt); err != nil {
			return nil, err
		}
	}
}

// lostSource says whether a new snapshot can help.
func lostSource(err error) bool {
	return fault.Is(err, fault.SourceCut) || fault.Is(err, fault.SnapshotLost)
}

// pause waits a second, then two, then four, so that a server that restarts can come back.
func pause(ctx context.Context, attempt int) error {
	select {
	case <-time.After(time.Second << min(attempt-1, 5)):
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
	if err := r.freeFolder(ctx); err != nil {
		return nil, err
	}
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
	if err := r.prune(ctx); err != nil {
		return nil, err
	}
	return r.manifest, nil
}

func newRun(source *postgres.Source, b bucket.Bucket, opts Options) *run {
	now := opts.Now().UTC()
	var nonce [4]byte
	_, _ = rand.Read(nonce[:]) // never fails, says crypto/rand
	r := &run{opts: opts, source: source, bucket: b, nonce: hex.EncodeToString(nonce[:])}
	r.shared = postgres.Shared{Limit: limiter(opts.MaxRate), Huge: make(chan struct{}, 1)}
	r.manifest = &Manifest{
		FormatVersion: ManifestVersion, ID: now.Format("2006-01-02T150405Z"), Folder: now.Format("2006-01-02T150405Z"),
		Tool: Tool{Name: "leat", Version: opts.Version}, Started: now,
		Source: SourceInfo{Server: source.Name, Version: source.Version, Standby: source.InRecovery, Encoding: source.Encoding},
		Layout: opts.Layout, Format: string(opts.Format), Compression: string(opts.Compression), Tables: []TableManifest{},
	}
	if opts.Layout == LayoutDate {
		r.manifest.Folder = now.Format(time.DateOnly)
	}
	return r
}

// freeFolder finds a folder nobody has: two dumps can begin in the same second.
func (r *run) freeFolder(ctx context.Context) error {
	if r.opts.Layout == LayoutDate {
		return nil
	}
	for obj, err := range r.bucket.List(ctx, r.manifest.Folder+"/") {
		if err != nil {
			return err
		}
		return fault.New(fault.ObjectExists, obj.Key, "another dump began in the same second in this folder").WithMend("Start again.")
	}
	return nil
}

func (r *run) takeSnapshot(ctx context.Context) (err error) {
	r.snap, err = r.source.Snapshot(ctx, postgres.SnapshotOptions{
		Selection: r.opts.Selection, LSN: r.opts.LSN, SlotWait: r.opts.SlotWait,
		Typed: r.opts.Format.Typed() || r.opts.Format.JSON(),
		Told:  func(s string) { r.opts.Log.Warn(s) },
	})
	if err != nil {
		return err
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
	chunkBytes := r.chunkBytes()
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
		if r.opts.Layout == LayoutDate {
			r.mark.Keys = append(r.mark.Keys, w.key(0, 0))
		}
	}
	if r.opts.Layout == LayoutDate { // so that a later dump knows what it may sweep
		if _, err := r.writeMark(ctx); err != nil {
			return err
		}
	}
	r.opts.Watch.Planned(r.manifest, progress)
	return nil
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
					return context.Cause(ctx)
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
	if _, err := r.bucket.Stat(ctx, r.markKey()); err != nil {
		// Whoever removed our mark took us for dead and swept our objects: a manifest would lie.
		return fault.Wrap(err, fault.BucketFailed, r.markKey(), "another dump took this one for dead and swept it")
	}
	if err := r.dropOldManifest(ctx); err != nil {
		return err
	}
	return r.manifest.write(ctx, r.bucket)
}

// cleanUp takes back what a failed dump has committed, as far as it still can; what remains is swept by the
// next. The manifest goes first: its write may have succeeded though the answer was lost.
func (r *run) cleanUp(ctx context.Context, cause error) error {
	var keys []string
	for _, t := range r.tables {
		if t.joined != nil {
			t.joined.sink.abort()
		}
		for _, f := range t.files {
			keys = append(keys, f.Key)
		}
	}
	if len(keys) == 0 {
		return cause
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := r.bucket.Delete(ctx, r.manifest.Folder+"/"+ManifestName)
	if err == nil {
		err = r.bucket.Delete(ctx, keys...)
	}
	if err != nil {
		r.opts.Log.Warn("the objects of the failed dump could not be deleted; the next dump will sweep them", "error", err)
		r.keepMark = true
	}
	return cause
}
