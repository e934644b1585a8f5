package lake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// filesCopy writes files to their final places, which ledgers name; Finish names them in a manifest.
type filesCopy struct {
	*copyLedgers
	table *filesTable

	mu   sync.Mutex // guards what follows: chunks that are written at once may find special values
	spec Spec       // with the definition of the copy's rows
	form *filesForm
}

// fileLedger tells the files of a finished chunk.
type fileLedger struct {
	Chunk string      `json:"chunk"`
	Stamp change.LSN  `json:"stamp"`
	Files []fileEntry `json:"files"`
	// Special says that some of its rows have special values.
	Special bool `json:"special,omitempty"`
}

func (t *filesTable) copyFolder() string {
	return path.Join(t.lake.Root, ".leat", "copy", lakeName(t.lake.Pipeline), path.Base(t.folder))
}

// Copy takes up the copy that was begun, or begins one.
func (t *filesTable) Copy(ctx context.Context, source *change.Table, schema *arrow.Schema) (Copy, error) {
	spec := t.specOf(source, schema)
	form, err := t.formOf(spec)
	if err != nil {
		return nil, err
	}
	ledgers, err := openCopyLedgers(ctx, t.lake.Bucket, t.copyFolder(), copyLayouts{})
	return &filesCopy{copyLedgers: ledgers, table: t, spec: spec, form: form}, err
}

func (c *filesCopy) Chunk(_ context.Context, id string, stamp change.LSN) (ChunkWriter, error) {
	spec, form, err := c.admit(false)
	return &filesChunk{copy: c, id: id, stamp: stamp, at: time.Now().UnixMicro(), spec: spec, form: form, batch: c.table.batch(form)}, err
}

// admit gives the copy a place for special values where there are any.
func (c *filesCopy) admit(special bool) (Spec, *filesForm, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !special || c.spec.hasSpecial() {
		return c.spec, c.form, nil
	}
	spec := c.spec.withSpecial()
	form, err := c.table.formOf(spec)
	if err == nil {
		c.spec, c.form = spec, form
	}
	return c.spec, c.form, err
}

type filesChunk struct {
	copy  *filesCopy
	id    string
	stamp change.LSN
	at    int64 // when it was begun, microseconds: the time of its rows
	batch *fileBatch

	spec    Spec // of the copy when the chunk was begun, or when it got special values
	form    *filesForm
	special bool
}

func (w *filesChunk) Write(b change.Batch) error {
	if b.Record.NumRows() == 0 {
		return nil
	}
	if special := len(specialNames(b.Record, w.spec.columns())) > 0; special {
		if err := w.admit(); err != nil {
			return err
		}
	}
	rows := w.spec.withRoom(b.Record)
	defer rows.Release()
	if !w.form.fits(rows.Schema()) {
		return fault.New(fault.Internal, w.copy.table.folder, "a copy's rows have another definition than it was begun with")
	}
	record := w.form.rows.compose(rows.Columns(), snapshotRows(rows, change.OpRead, w.stamp, 0, w.at), nil)
	defer record.Release()
	return w.batch.write(w.copy.table.uploads, record)
}

// admit goes on in files that have a place for special values.
func (w *filesChunk) admit() (err error) {
	w.special = true
	if w.spec.hasSpecial() {
		return nil
	}
	if w.spec, w.form, err = w.copy.admit(true); err != nil {
		return err
	}
	return w.batch.shape(w.form)
}

func (w *filesChunk) Abort() { w.batch.discard() }

// stem names the files of a chunk: each chunk of each copy has names of its own.
func (c *filesCopy) stem(chunk string, stamp change.LSN) string {
	sum := sha256.Sum256([]byte(c.id + "/" + chunk))
	return stampHex(0) + "-" + stampHex(stamp) + "-" + hex.EncodeToString(sum[:8])
}

// Commit uploads the chunk's files and notes them: from then on the chunk is done.
func (w *filesChunk) Commit(ctx context.Context) error {
	c := w.copy
	files, err := w.batch.upload(ctx, c.table.folder, c.stem(w.id, w.stamp))
	if err != nil {
		return err
	}
	return c.add(ctx, w.id, w.stamp, fileLedger{Chunk: w.id, Stamp: w.stamp, Files: files, Special: w.special})
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
	ledgers, err := readLedgers[fileLedger](ctx, c.copyLedgers)
	if err != nil {
		return err
	}
	for _, l := range ledgers { // also of chunks that an earlier process has written
		if _, _, err := c.admit(l.Special); err != nil {
			return err
		}
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
	record := form.rows.cutRow(position)
	defer record.Release()
	batch := c.table.batch(form)
	if err := batch.write(ctx, record); err != nil {
		batch.discard()
		return nil, err
	}
	return batch.upload(ctx, c.table.folder, c.stem("", position))
}

// Abandon removes what was copied, unless it is part of the table by now.
func (c *filesCopy) Abandon(ctx context.Context) error {
	ledgers, err := readLedgers[fileLedger](ctx, c.copyLedgers)
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
