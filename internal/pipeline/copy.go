package pipeline

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// copyJob is the copy of one table.
type copyJob struct {
	table    *table
	source   *change.Table
	plan     *postgres.Plan
	copy     lake.Copy
	chunks   []postgres.Chunk
	ids      []string
	left     atomic.Int64
	total    int
	finished bool // by an earlier process
	rows     atomic.Int64
	began    time.Time
	upper    change.LSN // nothing from here on is in the snapshot
	chunkAt  change.LSN // the stamp of the chunks that are read now
	stamp    change.LSN // the smallest of all chunks
}

// copyAll copies the tables that want it. What the log tells of them meanwhile goes to the spool: they were diverted
// before a snapshot is taken, so nothing falls between.
//
// Tables with a key take any snapshot: the changes that are applied again afterwards bring each row to its latest state.
// Those without need to know exactly which changes their snapshot holds, and so do those whose definition has changed in
// a way that only a copy can follow; that snapshot waits for running transactions.
//
// Tables that came late wait beside it, and are copied by another attempt.
func (r *run) copyAll(ctx context.Context) error {
	var keyed, exact, late []*table
	for _, t := range r.tables {
		switch {
		case t.mode != checkpoint.Copying:
		case t.late:
			late = append(late, t)
		case (len(t.source.Identity()) > 0 || t.recopied) && !t.exact: // a recopied one has nothing in the log that could come twice
			keyed = append(keyed, t)
		default:
			exact = append(exact, t)
		}
	}
	r.copying.Store(int32(len(keyed) + len(exact)))
	g, ctx := errgroup.WithContext(ctx)
	g.Go(fault.Catching(r.o.Log, "", func() error { return r.outwait(ctx, late) }))
	g.Go(fault.Catching(r.o.Log, "", func() error { return r.copyThese(ctx, keyed, exact) }))
	return g.Wait()
}

// copyThese copies the keyed tables first. Those that other sessions hold wait, and the others are copied.
func (r *run) copyThese(ctx context.Context, keyed, exact []*table) error {
	held, first, err := r.copyFree(ctx, keyed, r.snapshotNow)
	if err != nil {
		return err
	}
	indivisibly := func(ctx context.Context, tables []*table) (_ []*table, why, err error) {
		r.indivisible.Store(len(tables) > 0)
		defer r.indivisible.Store(false)
		return r.copyFree(ctx, tables, r.exactSnapshot)
	}
	if r.o.UntilCaughtUp { // who started it hears of it
		_, second, err := indivisibly(ctx, exact)
		return cmp.Or(err, first, second)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(fault.Catching(r.o.Log, "", func() error {
		return r.copyLocked(ctx, held, func(ctx context.Context, tables []*table) ([]*table, error, error) {
			return r.copyFree(ctx, tables, r.snapshotNow)
		})
	}))
	g.Go(fault.Catching(r.o.Log, "", func() error {
		held, _, err := indivisibly(ctx, exact)
		if err != nil {
			return err
		}
		return r.copyLocked(ctx, held, indivisibly)
	}))
	return g.Wait()
}

// copyLocked copies tables that other sessions hold, when they do not any more.
func (r *run) copyLocked(ctx context.Context, tables []*table, copies func(context.Context, []*table) ([]*table, error, error)) (err error) {
	for len(tables) > 0 {
		select {
		case <-time.After(lockedAgain):
		case <-ctx.Done():
			return ctx.Err()
		}
		if tables, _, err = copies(ctx, tables); err != nil {
			return err
		}
	}
	return nil
}

// lockedAgain is how long tables wait that another session holds.
const lockedAgain = 10 * time.Second

// copyFree copies the tables that no other session holds for longer than the lock timeout. It returns those that one does hold, and why.
func (r *run) copyFree(ctx context.Context, tables []*table, snapshot func(context.Context, []*table) (*postgres.Snapshot, error)) (held []*table, why, err error) {
	for len(tables) > 0 {
		snap, err := snapshot(ctx, tables)
		if err == nil {
			return held, why, r.copyTables(ctx, snap, tables)
		}
		var locked *postgres.Locked
		if !errors.As(err, &locked) {
			return nil, nil, err
		}
		var free []*table
		for _, t := range tables {
			by, is := locked.Tables[postgres.Name{Schema: t.source.Schema, Name: t.source.Name}]
			if !is {
				free = append(free, t)
				continue
			}
			r.o.Log.Warn("the table is locked; its copy waits, and the other tables go on", "table", t.name, "by", by, "again in", lockedAgain)
			held, why = append(held, t), err
		}
		tables = free
	}
	return held, why, nil
}

// snapshotNow takes a snapshot that holds everything before the saved position, and says so when it has to wait for that.
func (r *run) snapshotNow(ctx context.Context, tables []*table) (*postgres.Snapshot, error) {
	return r.source.SnapshotNow(ctx, postgres.NowOptions{
		Selection: r.only(tables), At: change.LSN(r.seen.Load()), Delivered: r.delivered.since(time.Now().Add(-visibleWithin)),
		Waiting: func(what string) { r.o.Log.Warn("the copy waits", "for", what) },
	})
}

// visibleWithin is how long a transaction may wait for a synchronous standby. Numbers of transactions come again, and no server gets
// through half of them in that time.
const visibleWithin = 24 * time.Hour

// exactSnapshot takes the snapshot of a temporary slot. The slot waits for transactions that run, and one of those may want
// to TRUNCATE a table: so no table is locked before the slot is there, or both would wait for ever.
func (r *run) exactSnapshot(ctx context.Context, tables []*table) (*postgres.Snapshot, error) {
	slot, err := r.waitingSlot(ctx)
	if err != nil {
		return nil, err
	}
	defer slot.Close()
	return r.source.SnapshotAt(ctx, slot.Snapshot, slot.LSN, r.only(tables))
}

// waitingSlot is there when all transactions have ended that run now: they committed before its LSN, or never.
func (r *run) waitingSlot(ctx context.Context) (*postgres.CreatedSlot, error) {
	return r.source.CreateSlot(ctx, postgres.SlotOptions{
		Name: fmt.Sprintf("leat_copy_%d_%d", os.Getpid(), time.Now().UnixNano()), Temporary: true,
		Waiting: func(who string) { r.o.Log.Warn("the copy waits for transactions that are open", "who", who) },
	})
}

// outwait waits until the transactions have ended that ran when tables came into the publication, and tells the loop from where on
// the log is whole. What such a transaction wrote before is decoded as the publication was then, and is not sent. And older
// servers go on with that after it (before 13.21, 14.18, 15.13, 16.9 and 17.5) until the log is opened anew: so it is.
func (r *run) outwait(ctx context.Context, late []*table) error {
	if len(late) == 0 {
		return nil
	}
	slot, err := r.waitingSlot(ctx)
	for ; err != nil; slot, err = r.waitingSlot(ctx) {
		if ctx.Err() != nil || r.o.UntilCaughtUp {
			return err
		}
		r.o.Log.Warn("new tables cannot be copied yet: that needs a replication slot for a moment. The others go on", "error", err, "again in", lateAgain)
		select {
		case <-time.After(lateAgain):
		case <-ctx.Done():
			return err
		}
	}
	slot.Close()
	r.outwaited.Store(uint64(slot.LSN))
	return r.nudge(ctx)
}

// lateAgain is how long tables that came late wait for a slot that was not to be had.
const lateAgain = 30 * time.Second

// nudge writes to the log, which the loop wants to come past a place; on a quiet server nothing else would bring it there.
func (r *run) nudge(ctx context.Context) error {
	if _, err := r.source.Heartbeat(ctx, heartbeatPrefix); err != nil && !fault.Is(err, fault.SourceRights) {
		return err
	}
	return nil
}

// copyTables reads the tables in one snapshot, chunk by chunk.
func (r *run) copyTables(ctx context.Context, snap *postgres.Snapshot, tables []*table) error {
	defer snap.Close()
	jobs, err := r.planCopies(ctx, snap, tables)
	if err != nil {
		return err
	}
	if err := r.runCopies(ctx, snap, jobs); err != nil {
		return err
	}
	return r.nudge(ctx) // past the snapshot
}

// only selects the tables by name.
func (r *run) only(tables []*table) postgres.Selection {
	want := map[postgres.Name]bool{}
	for _, t := range tables {
		want[postgres.Name{Schema: t.source.Schema, Name: t.source.Name}] = true
	}
	return postgres.Selection{PartitionRoots: r.o.Selection.PartitionRoots, Choose: func(all []postgres.Name, _ []string) (chosen []int, err error) {
		for i, n := range all {
			if want[n] {
				chosen = append(chosen, i)
			}
		}
		return chosen, nil
	}}
}

// planCopies opens the tables' places in the lake, several at once: for small tables that is most of a copy.
func (r *run) planCopies(ctx context.Context, snap *postgres.Snapshot, tables []*table) ([]*copyJob, error) {
	byOID := map[uint32]*table{}
	for _, t := range tables {
		byOID[t.source.OID] = t
	}
	chunkBytes := snap.ChunkBytes(r.o.CopyParallel, r.o.CopyChunk)
	jobs := make([]*copyJob, len(snap.Tables))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.o.CopyParallel)
	for i, source := range snap.Tables {
		t := byOID[source.OID]
		if t == nil {
			continue // dropped and made again since: the next look finds it
		}
		g.Go(func() error {
			err := r.aside(t, func() (err error) { jobs[i], err = r.planCopy(gctx, snap, t, source, chunkBytes); return err })
			return fault.Wrap(err, codeOf(err), t.name, "cannot begin the copy")
		})
	}
	err := g.Wait()
	return slices.DeleteFunc(jobs, func(j *copyJob) bool { return j == nil }), err
}

func (r *run) planCopy(ctx context.Context, snap *postgres.Snapshot, t *table, source *change.Table, chunkBytes int64) (*copyJob, error) {
	source = r.published(source)
	plan, err := snap.Plan(source, r.o.Policies)
	if err != nil {
		return nil, err
	}
	plan.RowFilter = t.copied(r.gives[postgres.Name{Schema: source.Schema, Name: source.Name}].RowFilter)
	if err := r.open(ctx, t, plan); err != nil { // the loop never touches a diverted table
		return nil, err
	}
	job := &copyJob{table: t, source: source, plan: plan, began: time.Now(), chunkAt: snap.LSN, upper: snap.LSNUpper}
	if keyed := len(source.Identity()) > 0; keyed && !t.exact {
		// A row with a key bears being changed once more by what the spool has of the time before the snapshot. So the copy stands
		// where the history ended, which the spool reaches back to: there is no gap between.
		job.chunkAt = max(t.since, min(held(t), snap.LSN))
	}
	job.stamp = job.chunkAt
	if job.copy, err = t.lake.Copy(ctx, plan.Table, plan.Schema); err != nil {
		return nil, err
	}
	shape := shapeOf(source, plan)
	if len(source.Identity()) == 0 || t.exact { // chunks of two snapshots cannot be told apart by a key: all or nothing
		shape += snap.LSN.String()
	}
	if job.copy.Finished() && !t.anew && usable(job.copy.Done(), "", t.since) { // by a process that ended before it could say so
		job.finished = true
		return job, nil
	}
	if job.copy.Finished() || !usable(job.copy.Done(), shape, t.since) {
		r.o.Log.Info("a copy that was broken off cannot be gone on with; it begins again", "table", t.name)
		if err := job.copy.Abandon(ctx); err != nil {
			return nil, err
		}
		if job.copy, err = t.lake.Copy(ctx, plan.Table, plan.Schema); err != nil {
			return nil, err
		}
	}
	job.cut(snap, shape, chunkBytes)
	return job, nil
}

// copied is the condition of the rows that a copy takes: those that the publication gives, without partitions that are left out.
func (t *table) copied(filter string) string {
	if len(t.skipped) == 0 {
		return filter
	}
	oids := make([]string, len(t.skipped))
	for i, oid := range t.skipped {
		oids[i] = strconv.FormatUint(uint64(oid), 10)
	}
	skip := "tableoid not in (" + strings.Join(oids, ", ") + ")"
	if filter == "" {
		return skip
	}
	return "(" + filter + ") and " + skip
}

// held is where the table in the lake stands: in the log that is followed, nowhere if that has begun anew since.
func held(t *table) change.LSN {
	if t.renumbered {
		return 0
	}
	return t.lake.Position()
}

// shapeOf names what must stay as it is for chunks of two snapshots to belong together: the columns and how they are carried, which
// rows are read, and the file whose pages the chunks are. (A rewrite moves rows between pages without a word in the log.)
func shapeOf(t *change.Table, plan *postgres.Plan) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d/%d", t.OID, t.Filenode)
	for _, c := range t.Columns {
		fmt.Fprintf(h, "/%d:%q:%d:%d", c.Attnum, c.Name, c.TypeOID, c.Typmod)
	}
	for _, f := range plan.Schema.Fields() {
		fmt.Fprintf(h, "/%q:%s", f.Name, f.Type)
	}
	h.Write([]byte(plan.RowFilter))
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// A chunk's id is <shape>.<pages a chunk>.<first page>; the last chunk of a table reaches to its end, whatever that is.
func chunkID(shape string, step, from int64, open bool) string {
	end := ""
	if open {
		end = "+"
	}
	return fmt.Sprintf("%s.%d.%d%s", shape, step, from, end)
}

// usable says whether the chunks that are done belong to the table as it is now, and to a time that the spool reaches back to.
func usable(done map[string]change.LSN, shape string, since change.LSN) bool {
	for id, stamp := range done {
		if shape != "" && !strings.HasPrefix(id, shape+".") || stamp < since {
			return false
		}
	}
	return true
}

// cut divides the table into chunks and leaves out those that an earlier attempt has finished. Its step is theirs.
func (j *copyJob) cut(snap *postgres.Snapshot, shape string, bytes int64) {
	first := snap.Chunks(j.source, bytes)
	step := j.source.Pages
	if len(first) > 1 {
		step = first[0].To - first[0].From
	}
	openFrom := int64(-1)
	for id, stamp := range j.copy.Done() {
		j.stamp = min(j.stamp, stamp)
		parts := strings.Split(strings.TrimSuffix(id, "+"), ".")
		step, _ = strconv.ParseInt(parts[1], 10, 64)
		if strings.HasSuffix(id, "+") {
			openFrom, _ = strconv.ParseInt(parts[2], 10, 64)
		}
	}
	step = max(step, 1)
	whole := len(first) == 1 && first[0].Whole()
	for from := int64(0); ; from += step {
		if openFrom >= 0 && from >= openFrom {
			break // an earlier attempt has read to the end
		}
		open := whole || from+step >= j.source.Pages
		chunk := postgres.Chunk{From: from, To: from + step}
		if open {
			chunk.To = 0
		}
		j.add(chunk, chunkID(shape, step, from, open))
		if open {
			break
		}
	}
	j.left.Store(int64(len(j.chunks)))
}

func (j *copyJob) add(chunk postgres.Chunk, id string) {
	j.total++
	if _, done := j.copy.Done()[id]; done {
		return
	}
	j.chunks = append(j.chunks, chunk)
	j.ids = append(j.ids, id)
}

// runCopies lets several connections take chunk after chunk, the largest tables first.
func (r *run) runCopies(ctx context.Context, snap *postgres.Snapshot, jobs []*copyJob) error {
	slices.SortStableFunc(jobs, func(a, b *copyJob) int { return len(b.chunks) - len(a.chunks) })
	type unit struct {
		job *copyJob
		i   int
	}
	units := make(chan unit)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(fault.Catching(r.o.Log, "", func() error {
		defer close(units)
		for _, j := range jobs {
			if len(j.chunks) == 0 {
				if err := r.finishCopy(gctx, j); err != nil {
					return err
				}
			}
			for i := range j.chunks {
				select {
				case units <- unit{j, i}:
				case <-gctx.Done():
					return gctx.Err()
				}
			}
		}
		return nil
	}))
	shared := postgres.Shared{Huge: make(chan struct{}, 1)}
	for range r.o.CopyParallel {
		g.Go(fault.Catching(r.o.Log, "", func() error {
			var reader *postgres.Reader
			defer func() {
				if reader != nil {
					reader.Close()
				}
			}()
			for u := range units {
				if reader == nil { // tables may be fewer than connections
					var err error
					if reader, err = snap.Reader(gctx, shared); err != nil {
						return err
					}
				}
				if err := r.aside(u.job.table, func() error { return r.copyChunk(gctx, snap, reader, u.job, u.i) }); err != nil {
					return fault.Wrap(err, codeOf(err), u.job.table.name, "cannot copy the table")
				}
				if u.job.left.Add(-1) == 0 {
					if err := r.finishCopy(gctx, u.job); err != nil {
						return err
					}
				}
			}
			return nil
		}))
	}
	return g.Wait()
}

func (r *run) copyChunk(ctx context.Context, snap *postgres.Snapshot, reader *postgres.Reader, j *copyJob, i int) error {
	w, err := j.copy.Chunk(ctx, j.ids[i], j.chunkAt)
	if err != nil {
		return err
	}
	defer w.Abort()
	_, applied, err := reader.Batches(ctx, j.plan, j.chunks[i], func(b change.Batch) error {
		j.rows.Add(b.Record.NumRows())
		return w.Write(b)
	})
	if err != nil {
		return err
	}
	// The locks live as long as the snapshot's own session. Without them the table may have been rewritten before it was read, and then
	// the snapshot sees none of its rows.
	if err := snap.Alive(ctx); err != nil {
		return err
	}
	if err := w.Commit(ctx); err != nil {
		return err
	}
	j.table.copiedAside(r.o.Watch, j.plan, applied)
	r.o.Watch.Copying(j.table.name, j.total-int(j.left.Load())+1, j.total, j.rows.Load())
	return nil
}

// finishCopy puts the copy in the table's place, in one commit, and hands the table to the loop.
func (r *run) finishCopy(ctx context.Context, j *copyJob) error {
	if err := r.store.Confirm(ctx); err != nil {
		return err
	}
	if !j.finished {
		if err := r.aside(j.table, func() error { return j.copy.Finish(ctx, j.stamp) }); err != nil {
			return fault.Wrap(err, codeOf(err), j.table.name, "cannot put the copy in its place")
		}
	}
	j.table.upper = max(j.upper, j.table.upper) // read by the loop only after put, as is lower
	if !j.finished {
		j.table.lower = j.stamp
	}
	if j.table.recopied {
		j.table.copiedAt = j.began
	}
	j.source, j.plan, j.copy = nil, nil, nil // the other jobs may take hours
	r.o.Log.Info("copied", "table", j.table.name, "rows", j.rows.Load(), "lsn", j.stamp)
	r.copied.put(j.table)
	r.copying.Add(-1)
	return nil
}

// mailbox hands tables from the copiers to the loop.
type mailbox struct {
	mu     sync.Mutex
	tables []*table
}

func (m *mailbox) put(t *table) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tables = append(m.tables, t)
}

func (m *mailbox) take() []*table {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.tables
	m.tables = nil
	return all
}

func (m *mailbox) all() []*table {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.tables)
}

// recent remembers the transactions that the log delivered last.
type recent struct {
	mu   sync.Mutex
	ring [1 << 14]struct {
		xid       uint32
		committed int64 // microseconds since 1970
	}
	next int
}

func (r *recent) put(xid uint32, committed int64) {
	r.mu.Lock()
	r.ring[r.next].xid, r.ring[r.next].committed = xid, committed
	r.next = (r.next + 1) % len(r.ring)
	r.mu.Unlock()
}

// since are those that committed after a moment, by the server's clock.
func (r *recent) since(at time.Time) (xids []uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, tx := range r.ring {
		if tx.committed > at.UnixMicro() {
			xids = append(xids, tx.xid)
		}
	}
	slices.Sort(xids)
	return slices.Compact(xids)
}
