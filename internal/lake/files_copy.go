package lake

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

const copyNoteName = "copy.json"

// filesCopy keeps one object a finished chunk, its ledger. The files it names lie in their final places; Finish names them in a
// manifest.
type filesCopy struct {
	table *filesTable
	spec  Spec // with the definition of the copy's rows
	form  *filesForm
	id    string

	mu   sync.Mutex
	done map[string]ledgerKey
}

// fileLedger tells the files of a finished chunk.
type fileLedger struct {
	Chunk string      `json:"chunk"`
	Stamp change.LSN  `json:"stamp"`
	Files []fileEntry `json:"files"`
}

func (t *filesTable) copyFolder() string {
	return path.Join(t.lake.Root, ".leat", "copy", lakeName(t.lake.Pipeline), path.Base(t.folder))
}

func (t *filesTable) fileLedger(ctx context.Context, key string) (fileLedger, error) {
	var l fileLedger
	data, err := bucket.ReadAll(ctx, t.lake.Bucket, key, maxMetadata)
	if err != nil {
		return l, err
	}
	return l, fault.Wrap(json.Unmarshal(data, &l), fault.StateUnusable, key, "the ledger of a chunk cannot be understood")
}

// Copy takes up the copy that was begun, or begins one.
func (t *filesTable) Copy(ctx context.Context, source *change.Table, schema *arrow.Schema) (Copy, error) {
	c := &filesCopy{table: t, spec: t.specOf(source, schema), done: map[string]ledgerKey{}}
	var err error
	if c.form, err = t.formOf(c.spec); err != nil {
		return nil, err
	}
	var note copyNote
	data, err := bucket.ReadAll(ctx, t.lake.Bucket, c.note(), 4096)
	switch {
	case fault.Is(err, fault.ObjectMissing):
		note.ID = fresh()
		data, _ := json.Marshal(note) // of a string: there is no error
		if _, err := bucket.WriteAll(ctx, t.lake.Bucket, c.note(), data, bucket.WriteOptions{ContentType: "application/json"}); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(data, &note); err != nil || note.ID == "" {
			return nil, fault.New(fault.StateUnusable, c.note(), "the note of a copy cannot be understood")
		}
	}
	c.id = note.ID
	return c, c.list(ctx)
}

func (c *filesCopy) note() string { return c.table.copyFolder() + "/" + copyNoteName }

// list finds the finished chunks, and removes the ledgers of an earlier copy that was finished or abandoned.
func (c *filesCopy) list(ctx context.Context) error {
	b, folder := c.table.lake.Bucket, c.table.copyFolder()+"/"
	var old []string
	for o, err := range b.List(ctx, folder) {
		if err != nil {
			return err
		}
		id, name, ok := strings.Cut(strings.TrimPrefix(o.Key, folder), "/")
		switch {
		case !ok:
			continue
		case id != c.id:
			old = append(old, o.Key)
			continue
		}
		stamp, chunk, ok := strings.Cut(strings.TrimSuffix(name, ".json"), "-")
		lsn, err := strconv.ParseUint(stamp, 16, 64)
		if !ok || err != nil {
			return fault.New(fault.StateUnusable, o.Key, "is no ledger of a copied chunk")
		}
		c.done[unlakeName(chunk)] = ledgerKey{o.Key, change.LSN(lsn)}
	}
	return b.Delete(ctx, old...)
}

func (c *filesCopy) Done() map[string]change.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]change.LSN, len(c.done))
	for id, k := range c.done {
		out[id] = k.stamp
	}
	return out
}

func (c *filesCopy) Chunk(_ context.Context, id string, stamp change.LSN) (ChunkWriter, error) {
	return &filesChunk{copy: c, id: id, stamp: stamp, at: time.Now().UnixMicro(), batch: c.table.batch(c.form)}, nil
}

type filesChunk struct {
	copy  *filesCopy
	id    string
	stamp change.LSN
	at    int64 // when it was begun, microseconds: the time of its rows
	batch *fileBatch
}

func (w *filesChunk) Write(b change.Batch) error {
	if b.Record.NumRows() == 0 {
		return nil
	}
	if !w.copy.form.fits(b.Record.Schema()) {
		return fault.New(fault.Internal, w.copy.table.folder, "a copy's rows have another definition than it was begun with")
	}
	record := w.copy.form.rows.compose(b.Record.Columns(), snapshotRows(b.Record, change.OpRead, w.stamp, 0, w.at), nil)
	defer record.Release()
	return w.batch.write(w.copy.table.uploads, record)
}

func (w *filesChunk) Abort() { w.batch.discard() }

// stem names the files of a chunk: each chunk of each copy has names of its own.
func (c *filesCopy) stem(chunk string, stamp change.LSN) string {
	sum := sha256.Sum256([]byte(c.id + "/" + chunk))
	return stampHex(0) + "-" + stampHex(stamp) + "-" + hex.EncodeToString(sum[:8])
}

// Commit uploads the chunk's files and writes its ledger: from then on the chunk is done.
func (w *filesChunk) Commit(ctx context.Context) error {
	c := w.copy
	files, err := w.batch.upload(ctx, c.table.folder, c.stem(w.id, w.stamp))
	if err != nil {
		return err
	}
	data, err := json.Marshal(fileLedger{Chunk: w.id, Stamp: w.stamp, Files: files})
	if err != nil {
		return fault.Wrap(err, fault.Internal, w.id, "the ledger of a chunk cannot be written")
	}
	key := c.table.copyFolder() + "/" + c.id + "/" + stampHex(w.stamp) + "-" + lakeName(w.id) + ".json"
	if _, err := bucket.WriteAll(ctx, c.table.lake.Bucket, key, data, bucket.WriteOptions{ContentType: "application/json"}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[w.id] = ledgerKey{key, w.stamp}
	return nil
}

// ledgers reads the ledgers of all finished chunks, in the order of their stamps.
func (c *filesCopy) ledgers(ctx context.Context) ([]fileLedger, error) {
	c.mu.Lock()
	keys := slices.SortedFunc(maps.Values(c.done), func(a, b ledgerKey) int {
		return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.key, b.key))
	})
	c.mu.Unlock()
	out := make([]fileLedger, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(ledgersAtOnce)
	for i, k := range keys {
		g.Go(func() (err error) {
			out[i], err = c.table.fileLedger(ctx, k.key)
			return err
		})
	}
	return out, g.Wait()
}

// Finish names the files of all chunks in one manifest. A Finish that was broken off is taken up by the next one.
func (c *filesCopy) Finish(ctx context.Context, position change.LSN) error {
	t := c.table
	if !c.Finished() {
		if err := c.publish(ctx, position); err != nil {
			t.broken = err
			return err
		}
	}
	return nil
}

func (c *filesCopy) Finished() bool {
	return slices.ContainsFunc(c.table.last.Copies, func(f finishedCopy) bool { return f.ID == c.id })
}

func (t *filesTable) ForgetCopy(ctx context.Context) error {
	return forgetCopy(ctx, t.lake.Bucket, t.copyFolder())
}

func (c *filesCopy) publish(ctx context.Context, position change.LSN) error {
	t := c.table
	if position < t.last.Position {
		return fault.New(fault.StateUnusable, t.folder, "the copy stands at %s and the table at %s: the source's log has begun anew", position, t.last.Position).
			WithMend("Give the pipeline another folder.")
	}
	ledgers, err := c.ledgers(ctx)
	if err != nil {
		return err
	}
	m := &fileManifest{Kind: commitCopy, From: t.last.Position, Position: position, CommittedAt: time.Now().UTC(), Columns: c.form.columns,
		Copies: []finishedCopy{{ID: c.id, Number: t.last.Number + 1}}}
	if t.last.Position > 0 {
		if m.Files, err = c.cut(ctx, position); err != nil {
			return err
		}
	}
	for _, l := range ledgers {
		m.Files = append(m.Files, l.Files...)
	}
	if err := t.publish(ctx, m); err != nil {
		return err
	}
	t.spec, t.form, t.columns = c.spec, c.form, c.form.columns
	return nil
}

// cut writes the row that ends what the history told before the copy: keys that the copy does not bring are gone.
func (c *filesCopy) cut(ctx context.Context, position change.LSN) ([]fileEntry, error) {
	form := c.form
	columns := make([]arrow.Array, len(form.rows.fields))
	for i, f := range form.rows.fields {
		columns[i] = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, 1)
	}
	defer release(columns)
	row := array.NewRecordBatch(arrow.NewSchema(form.rows.fields, nil), columns, 1)
	defer row.Release()
	record := form.rows.compose(columns, snapshotRows(row, change.OpTrunc, position, -1, time.Now().UnixMicro()), nil)
	defer record.Release()
	batch := c.table.batch(form)
	if err := batch.write(ctx, record); err != nil {
		batch.discard()
		return nil, err
	}
	return batch.upload(ctx, c.table.folder, c.stem("", position))
}

// remove forgets the copy: what it knew of chunks is gone with its note.
func (c *filesCopy) remove(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := forgetCopy(ctx, c.table.lake.Bucket, c.table.copyFolder()); err != nil {
		return err
	}
	clear(c.done)
	return nil
}

// Abandon removes what was copied, unless it is part of the table by now.
func (c *filesCopy) Abandon(ctx context.Context) error {
	ledgers, err := c.ledgers(ctx)
	if err != nil {
		return err
	}
	if !c.Finished() {
		var keys []string
		for _, l := range ledgers {
			for _, f := range l.Files {
				keys = append(keys, f.Key)
			}
		}
		if err := c.table.lake.Bucket.Delete(ctx, keys...); err != nil {
			return err
		}
	}
	return c.remove(ctx)
}
