package dump

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
)

// tableWork is one table: its units and what has come of them.
type tableWork struct {
	run      *run
	table    *change.Table
	name     string         // the segment in object keys
	plan     *postgres.Plan // typed formats
	bloom    []string       // columns that get a Bloom filter
	columns  []ColumnManifest
	chunks   []postgres.Chunk
	joined   *joined // all units make one object
	progress *Progress

	mu      sync.Mutex
	files   []FileManifest
	applied []int64
	left    int // units that are not done
	rows    int64
}

// unit is what one COPY reads.
type unit struct {
	table *tableWork
	index int
}

// How much of the heap one unit reads.
const (
	// joinedChunk: text that is joined needs small units, because those ahead of their turn wait in memory.
	joinedChunk = 32 << 20
	// heapPerFile is about how much heap makes one byte of a file: typed columns and gzip are smaller than the heap.
	heapPerFile = 2
)

func (r *run) planTable(t *change.Table, chunkBytes int64) (*tableWork, error) {
	w := &tableWork{run: r, table: t, name: t.KeyName(), progress: &Progress{Table: t}}
	if r.opts.Layout == LayoutDate && r.opts.Name != nil {
		w.name = r.opts.Name(t.Schema, t.Name)
	}
	kind := r.opts.Format
	switch {
	case kind.Typed():
		plan, err := r.snap.Plan(t, r.opts.Policies)
		if err != nil {
			return nil, err
		}
		w.plan, w.columns = plan, typedColumns(plan)
		w.chooseBloom()
		w.chunks = []postgres.Chunk{{}}
		if r.opts.Layout == LayoutRun {
			w.chunks = r.snap.Chunks(t, chunkBytes)
		}
	case r.opts.Layout == LayoutDate:
		w.columns = textColumns(t, kind.JSON() || r.opts.Generated)
		w.chunks = r.snap.Chunks(t, joinedChunk)
	default:
		w.columns = textColumns(t, kind.JSON() || r.opts.Generated)
		w.chunks = r.snap.Chunks(t, chunkBytes)
	}
	w.left, w.progress.Units = len(w.chunks), len(w.chunks)
	w.applied = make([]int64, len(w.columns))
	return w, nil
}

// key names a file of the table. Chunk and file are numbered so that names sort as they were read.
func (t *tableWork) key(chunk, file int) string {
	ext := t.run.opts.Format.Ext()
	if t.run.opts.Layout == LayoutDate {
		return t.run.manifest.Folder + "/" + t.name + ext
	}
	return fmt.Sprintf("%s/%s/%05d-%02d%s", t.run.manifest.Folder, t.name, chunk, file, ext)
}

func (t *tableWork) manifest() TableManifest {
	m := newTableManifest(t.table, slices.Clone(t.columns))
	for i, n := range t.applied {
		m.Columns[i].Applied = n
	}
	m.Files = append(m.Files, t.files...)
	slices.SortFunc(m.Files, func(a, b FileManifest) int { return strings.Compare(a.Key, b.Key) })
	return m
}

// worker is one connection inside the snapshot, made when it is first needed and again after it was cut.
type worker struct {
	run    *run
	reader *postgres.Reader
}

func (w *worker) close() {
	if w.reader != nil {
		w.reader.Close()
		w.reader = nil
	}
}

// do reads a unit, again when the connection was cut and the snapshot still stands.
func (w *worker) do(ctx context.Context, u unit) error {
	t := u.table
	if t.progress.began.CompareAndSwap(0, w.run.opts.Now().UnixNano()) {
		w.run.opts.Watch.Started(t.progress)
	}
	for attempt := 1; ; attempt++ {
		err := w.try(ctx, u)
		if err == nil {
			return w.done(ctx, u)
		}
		w.close() // whatever state it is in, it is not used again
		if ctx.Err() != nil || !cut(err) || attempt >= w.run.opts.Attempts {
			return err
		}
		if alive := w.run.snap.Alive(ctx); alive != nil {
			return alive
		}
		w.run.opts.Log.Warn("reading again after the connection was cut", "table", t.table.String(), "chunk", u.index, "attempt", attempt, "error", err)
		if err := pause(ctx, backoff(attempt)); err != nil {
			return err
		}
	}
}

// cut says whether a new connection can help. That one may be refused for a moment too.
func cut(err error) bool {
	return (fault.Is(err, fault.SourceCut) || fault.Is(err, fault.SourceUnreachable)) && !fault.Is(err, fault.SnapshotLost)
}

func (w *worker) try(ctx context.Context, u unit) (err error) {
	if w.reader == nil {
		if w.reader, err = w.run.snap.Reader(ctx, w.run.shared); err != nil {
			return err
		}
	}
	switch {
	case u.table.plan != nil:
		return w.typed(ctx, u)
	case w.run.opts.Layout == LayoutDate:
		return w.joinedText(ctx, u)
	}
	return w.text(ctx, u)
}

// typed reads a unit into files of its own, a new one whenever FileSize is reached. The files
// become visible when the whole unit has been read, so a unit that fails leaves none.
func (w *worker) typed(ctx context.Context, u unit) error {
	t := u.table
	fs := &typedFiles{worker: w, unit: u}
	defer fs.abort()
	counted := w.reader.Bytes()
	rows, applied, err := w.reader.Batches(ctx, t.plan, t.chunks[u.index], func(b change.Batch) error {
		now := w.reader.Bytes()
		t.progress.Bytes.Add(now - counted)
		t.progress.Rows.Add(b.Record.NumRows())
		counted = now
		return fs.write(ctx, b)
	})
	if err != nil {
		return err
	}
	if rows == 0 && u.index == 0 { // an empty table still is a table
		if err := fs.open(ctx); err != nil {
			return err
		}
	}
	files, err := fs.commit(ctx)
	t.add(files, applied)
	return err
}

func (t *tableWork) add(files []FileManifest, applied []int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.files = append(t.files, files...)
	for i, n := range applied {
		t.applied[i] += n
	}
	for _, f := range files {
		t.progress.Stored.Add(f.Bytes)
	}
}

// textInto copies the server's text through the format's compression.
func (w *worker) textInto(ctx context.Context, u unit, dst io.Writer) (int64, error) {
	form := postgres.CSV
	if w.run.opts.Format.JSON() {
		form = postgres.JSON
	}
	count := countingWriter{dst, &u.table.progress.Bytes}
	if w.run.opts.Generated && form == postgres.CSV {
		form = postgres.CSVGenerated
	}
	if !w.run.opts.Format.Gzipped() {
		return w.reader.Text(ctx, u.table.table, form, u.table.chunks[u.index], count)
	}
	gz := format.NewGzip(dst, w.run.opts.GzipLevel, 1)
	count.w = gz
	rows, err := w.reader.Text(ctx, u.table.table, form, u.table.chunks[u.index], count)
	if err != nil {
		return 0, err // without Close, which would write the half that was read
	}
	return rows, gz.Close()
}

type countingWriter struct {
	w io.Writer
	n interface{ Add(int64) int64 }
}

func (c countingWriter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.w.Write(p)
}

func (w *worker) text(ctx context.Context, u unit) error {
	s, err := w.run.newSink(ctx, u.table.key(u.index, 0))
	if err != nil {
		return err
	}
	defer s.abort()
	rows, err := w.textInto(ctx, u, s)
	if err != nil {
		return err
	}
	u.table.progress.Rows.Add(rows)
	if rows == 0 && u.index > 0 {
		return nil
	}
	file, err := s.commit(ctx, w.run)
	if err != nil {
		return err
	}
	file.Rows, file.Chunks = rows, spans(u.table.chunks[u.index])
	u.table.add([]FileManifest{file}, nil)
	return nil
}

// joinedText reads a unit into its place of the table's one object.
func (w *worker) joinedText(ctx context.Context, u unit) error {
	t := u.table
	j, err := t.join(ctx)
	if err != nil {
		return err
	}
	part := j.writer(ctx, u.index)
	rows, err := w.textInto(ctx, u, part)
	if err == nil {
		err = part.end()
	}
	if err != nil {
		if !part.retract() && cut(err) {
			// Bytes of this unit are in the object already: only the whole dump can be begun again.
			return fault.Wrap(err, fault.SnapshotLost, t.table.String(), "cut in the middle of an object")
		}
		return err
	}
	t.progress.Rows.Add(rows)
	t.mu.Lock()
	t.rows += rows
	t.mu.Unlock()
	return nil
}

// join opens the table's one object when its first unit begins.
func (t *tableWork) join(ctx context.Context) (*joined, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.joined != nil {
		return t.joined, nil
	}
	s, err := t.run.newSink(ctx, t.key(0, 0))
	if err != nil {
		return nil, err
	}
	t.joined = newJoined(s)
	return t.joined, nil
}

// done counts a unit; the last one of a table commits what was joined and tells the watcher.
func (w *worker) done(ctx context.Context, u unit) error {
	t := u.table
	t.progress.UnitsDone.Add(1)
	t.mu.Lock()
	t.left--
	last := t.left == 0
	t.mu.Unlock()
	if !last {
		return nil
	}
	if t.joined != nil {
		file, err := t.joined.sink.commit(ctx, w.run)
		if err != nil {
			return err
		}
		file.Rows, file.Chunks = t.rows, spans(t.chunks...)
		t.add([]FileManifest{file}, nil)
	}
	t.progress.ended.Store(w.run.opts.Now().UnixNano())
	w.run.opts.Watch.Finished(t.progress)
	return nil
}

func spans(chunks ...postgres.Chunk) []PageSpan {
	out := make([]PageSpan, len(chunks))
	for i, c := range chunks {
		out[i] = PageSpan{From: c.From, To: c.To}
	}
	return out
}

// limiter makes one bound of bytes a second for all connections.
func limiter(bytesPerSecond int64) func(context.Context, int) error {
	if bytesPerSecond <= 0 {
		return nil
	}
	const most = 1 << 20 // one read at the most
	l := rate.NewLimiter(rate.Limit(bytesPerSecond), most)
	return func(ctx context.Context, n int) error {
		for n > 0 {
			step := min(n, most)
			if err := l.WaitN(ctx, step); err != nil {
				return err
			}
			n -= step
		}
		return nil
	}
}
