package lake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/codec"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Copy puts the whole content of a table into the lake, chunk by chunk. Chunks that are finished stay finished when the
// process ends; the rest is read in a later snapshot.
type Copy interface {
	// Done tells the chunks that are finished, each with the LSN of the snapshot it was read in.
	Done() map[string]change.LSN
	// Chunk begins a chunk that is read in the snapshot of the given LSN. Several chunks may be written at once.
	Chunk(ctx context.Context, id string, stamp change.LSN) (ChunkWriter, error)
	CopyEnd
}

// CopyEnd ends a copy.
type CopyEnd interface {
	// Finish makes the finished chunks the content of the current table and adds them to the history, at the given
	// position: the least stamp of the chunks. One commit a kept table; a Finish that was broken off is taken up by the next one.
	Finish(ctx context.Context, position change.LSN) error
	// Finished says whether Finish has come to its end, also in an earlier process, and Upkeep.ForgetCopy was not called
	// since.
	Finished() bool
	// Abandon removes what was copied.
	Abandon(ctx context.Context) error
}

// ChunkWriter takes the rows of one chunk.
type ChunkWriter interface {
	Write(b change.Batch) error
	Commit(ctx context.Context) error // the chunk will not be read again
	Abort()
}

// lakeCopy writes data files to their final places, so that Finish moves nothing; ledgers name them until then.
type lakeCopy struct {
	*copyLedgers
	table *lakeTable

	mu    sync.Mutex // guards what follows: chunks that are written at once may find special values
	spec  Spec       // with the definition of the copy's rows
	parts []copyPart
}

// copyPart is what a copy brings to one kept table.
type copyPart struct {
	*keptTable
	staged  *staged // nil when the table has the definition
	schema  *arrow.Schema
	history *historyTable // composes the rows of a history
}

// iceSchema is the Iceberg schema of the copy's files.
func (p *copyPart) iceSchema() *iceberg.Schema {
	if p.staged != nil {
		return p.staged.schema()
	}
	return p.ice.schema()
}

// ledger tells the data files of a finished chunk: in the form of a manifest, for each kept table.
type ledger struct {
	Chunk   string              `json:"chunk"`
	Stamp   change.LSN          `json:"stamp"`
	Files   map[string][][]byte `json:"files"`
	URLs    []string            `json:"urls"`              // of the same files: what Sweep must not take
	Special []string            `json:"special,omitempty"` // columns of which they have special values
}

// Copy takes up the copy that was begun, or begins one.
func (t *lakeTable) Copy(ctx context.Context, source *change.Table, schema *arrow.Schema) (Copy, error) {
	spec, err := t.specOf(Definition{Table: source, Schema: schema}, true)
	if err != nil {
		return nil, err
	}
	c := &lakeCopy{table: t, spec: spec}
	if err := c.shape(ctx); err != nil {
		return nil, err
	}
	layouts := copyLayouts{Layouts: map[string]string{}, copies: map[string]string{}}
	for _, k := range t.kept {
		if layouts.Layouts[k.ice.kind], err = k.ice.layout(); err != nil {
			return nil, err
		}
		if k.ice.drafted() {
			layouts.Drafts = append(layouts.Drafts, k.ice.kind)
		}
		layouts.copies[k.ice.kind] = k.ice.property(propCopy)
	}
	c.copyLedgers, err = openCopyLedgers(ctx, t.lake.Bucket, t.copyFolder(), layouts)
	return c, err
}

// layout is a hash of what makes files fit the table: fields by their ids, partitions, the sort order, the format, the
// place.
func (t *icebergTable) layout() (string, error) {
	meta := t.now().Metadata()
	data, err := json.Marshal(struct {
		Version   int
		Location  string
		Schema    *iceberg.Schema
		Partition iceberg.PartitionSpec
		Sort      table.SortOrder
	}{meta.Version(), meta.Location(), meta.CurrentSchema(), meta.PartitionSpec(), meta.SortOrder()})
	if err != nil {
		return "", t.failed(err, "its definition has no JSON form")
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}

// shape finds the way of each kept table to the copy's definition. The history keeps what it told before under another name
// where the definition has no place for it; the current rows are all replaced.
func (c *lakeCopy) shape(ctx context.Context) error {
	c.parts = nil
	for _, k := range c.table.kept {
		if k.ice.staged != nil {
			return fault.New(fault.Internal, k.ice.where(), "a copy begins while a definition is pending")
		}
		p := copyPart{keptTable: k}
		var err error
		if k.ice.kind == kindHistory {
			if p.staged, err = k.ice.evolve(c.spec, Definition{}, mismatchAside); err != nil {
				return err
			}
			p.history = &historyTable{ice: k.ice, ctx: ctx, system: c.table.history.system}
			if err = p.history.shape(ctx, c.spec, p.iceSchema()); err != nil {
				return err
			}
			p.schema = p.history.schema
		} else {
			if p.staged, err = k.ice.evolve(c.spec, Definition{}, mismatchReplace); err != nil {
				return err
			}
			if p.schema, err = withFieldIDs(c.spec.Schema, p.iceSchema()); err != nil {
				return err
			}
		}
		c.parts = append(c.parts, p)
	}
	return nil
}

// admit gives the copy a place for special values of the named columns. Columns keep their fields' ids, so that files of chunks
// that were written before still fit.
func (c *lakeCopy) admit(ctx context.Context, names []string) (Spec, []copyPart, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.spec.admits(names) {
		return c.spec, c.parts, nil
	}
	c.spec = c.spec.withSpecial().relaxed(names)
	err := c.shape(ctx)
	return c.spec, c.parts, err
}

const copyPrefix = "copy-"

// copyStamp is the stamp in the name of a file that a copy wrote.
func copyStamp(url string) (string, bool) {
	name, ok := strings.CutPrefix(url[strings.LastIndexByte(url, '/')+1:], copyPrefix)
	stamp, _, found := strings.Cut(name, "-")
	return stamp, ok && found
}

func stampHex(stamp change.LSN) string {
	text := strconv.FormatUint(uint64(stamp), 16)
	return strings.Repeat("0", 16-len(text)) + text
}

func (c *lakeCopy) Chunk(ctx context.Context, id string, stamp change.LSN) (ChunkWriter, error) {
	w := &chunkWriter{ctx: ctx, copy: c, id: id, stamp: stamp, at: time.Now().UnixMicro()}
	var err error
	w.spec, w.parts, err = c.admit(ctx, nil)
	w.begin()
	return w, err
}

// chunkWriter writes a chunk's rows, in the copy's definition of when it was begun until rows have special values.
type chunkWriter struct {
	ctx     context.Context
	copy    *lakeCopy
	id      string
	stamp   change.LSN
	at      int64 // when it was begun, microseconds: the time of the history's rows
	spec    Spec
	parts   []copyPart
	sets    []*fileSet // of each part
	ended   []*fileSet // of earlier definitions, part after part
	special []string
}

func (w *chunkWriter) begin() {
	w.sets = nil
	for _, p := range w.parts {
		set := p.ice.newFileSet(w.ctx, p.schema)
		set.prefix = copyPrefix + stampHex(w.stamp) + "-"
		set.metadata = map[string]string{"leat.stamp": w.stamp.String()}
		w.sets = append(w.sets, set)
	}
}

// admit goes on in files that have a place for special values of the named columns.
func (w *chunkWriter) admit(names []string) error {
	for _, name := range names {
		if !slices.Contains(w.special, name) {
			w.special = append(w.special, name)
		}
	}
	if w.spec.admits(names) {
		return nil
	}
	for _, set := range w.sets {
		if _, err := set.Close(w.ctx); err != nil {
			return err
		}
	}
	w.ended = append(w.ended, w.sets...)
	var err error
	w.spec, w.parts, err = w.copy.admit(w.ctx, names)
	w.begin()
	return err
}

func (w *chunkWriter) Write(b change.Batch) error {
	n := int(b.Record.NumRows())
	if n == 0 {
		return nil
	}
	if err := w.admit(specialNames(b.Record, w.spec.columns())); err != nil {
		return err
	}
	rows := w.spec.withRoom(b.Record)
	defer rows.Release()
	for i, p := range w.parts {
		if p.history == nil {
			if _, err := w.sets[i].Spread(rows); err != nil {
				return err
			}
			continue
		}
		record := p.history.compose(rows.Columns(), snapshotRows(rows, change.OpRead, w.stamp, 0, w.at), nil)
		_, err := w.sets[i].Spread(record)
		record.Release()
		if err != nil {
			return err
		}
	}
	return nil
}

// snapshotRows are rows that no transaction of the log has written.
func snapshotRows(rec arrow.RecordBatch, op change.Op, lsn change.LSN, seq, at int64) historyRows {
	n := int(rec.NumRows())
	return historyRows{
		Changes: &change.Changes{Rows: rec, LSN: slices.Repeat([]change.LSN{lsn}, n), Committed: slices.Repeat([]int64{at}, n), XID: make([]uint32, n)},
		ops:     slices.Repeat([]change.Op{op}, n),
		seq:     slices.Repeat([]int64{seq}, n),
	}
}

func (w *chunkWriter) Abort() {
	for _, s := range append(w.ended, w.sets...) {
		s.Abort()
	}
}

// Commit notes the chunk's files: from then on the chunk is done.
func (w *chunkWriter) Commit(ctx context.Context) error {
	c := w.copy
	l := ledger{Chunk: w.id, Stamp: w.stamp, Files: map[string][][]byte{}, Special: w.special}
	for i, set := range append(w.ended, w.sets...) {
		p := w.parts[i%len(w.parts)]
		files, err := set.Close(ctx)
		if err != nil {
			return err
		}
		for _, f := range files {
			data, err := codec.EncodeDataFile(f, avroSpec(p.ice.now().Spec()), p.iceSchema(), p.ice.now().Metadata().Version())
			if err != nil {
				return p.ice.failed(err, "a data file cannot be noted")
			}
			l.Files[p.ice.kind] = append(l.Files[p.ice.kind], data)
			l.URLs = append(l.URLs, f.FilePath())
		}
	}
	// The answer to the write may be lost: from here on the files may be named, so Abort must leave them. What nobody
	// names is swept.
	w.sets, w.ended = nil, nil
	return c.add(ctx, w.id, w.stamp, l)
}

func (p *copyPart) filesOf(ledgers []ledger) ([]iceberg.DataFile, error) {
	ice := p.ice
	var out []iceberg.DataFile
	for _, l := range ledgers {
		for _, data := range l.Files[ice.kind] {
			f, err := codec.DecodeDataFile(data, avroSpec(ice.now().Spec()), p.iceSchema(), ice.now().Metadata().Version())
			if err != nil {
				return nil, ice.failed(err, "the ledger of chunk %s cannot be understood", l.Chunk)
			}
			out = append(out, f)
		}
	}
	return out, nil
}

func (c *lakeCopy) finish(ctx context.Context, position change.LSN) error {
	ledgers, err := readLedgers[ledger](ctx, c.copyLedgers)
	if err != nil {
		return err
	}
	for _, l := range ledgers { // also of chunks that an earlier process has written
		if _, _, err := c.admit(ctx, l.Special); err != nil {
			return err
		}
	}
	// The history comes last: if this ends in between and the copy is made anew in a later snapshot, the current table is
	// replaced again, but a history that had the first copy would lack what happened between the two.
	for i := len(c.parts) - 1; i >= 0; i-- {
		p := &c.parts[i]
		if p.ice.property(propCopy) != c.id {
			if err := c.finishOne(ctx, p, ledgers, position); err != nil {
				return err
			}
		}
	}
	return c.adopt(ctx)
}

func (c *lakeCopy) Finished() bool {
	return !slices.ContainsFunc(c.parts, func(p copyPart) bool { return p.ice.property(propCopy) != c.id })
}

// ForgetCopy removes the note of a copy that was finished, and its ledgers.
func (t *lakeTable) ForgetCopy(ctx context.Context) error {
	return forgetCopy(ctx, t.lake.Bucket, t.copyFolder())
}

func (t *lakeTable) copyFolder() string {
	return t.lake.key(".leat", "copy", lakeName(t.lake.Pipeline), lakeName(t.spec.Table.Schema), lakeName(t.spec.Table.Name))
}

// adopt makes the copy's definition the table's.
func (c *lakeCopy) adopt(ctx context.Context) error {
	t := c.table
	t.spec, t.latest = c.spec, Definition{}
	if err := t.readPositions(); err != nil {
		return err
	}
	for _, p := range c.parts {
		p.behind = false
		if p.history != nil {
			if err := t.history.shape(ctx, c.spec, p.ice.schema()); err != nil {
				return err
			}
		} else if err := t.current.reset(ctx, p.schema, c.spec); err != nil {
			return err
		}
	}
	return nil
}

func (c *lakeCopy) finishOne(ctx context.Context, p *copyPart, ledgers []ledger, position change.LSN) error {
	files, err := p.filesOf(ledgers)
	if err != nil {
		return err
	}
	ice := p.ice
	had := ice.now().CurrentSnapshot() != nil
	d := delta{add: files, position: position, at: time.Now(), replaceAll: had && ice.kind == kindCurrent, staged: p.staged, props: iceberg.Properties{propCopy: c.id}}
	if p.history != nil && had {
		cut, err := p.cut(ctx, position)
		if err != nil {
			return err
		}
		d.add = append(cut, files...)
		// A commit that was broken off may have brought the history further than the current table, from whose position the copy
		// goes on: what it was told already must not be told to it again.
		if !c.spec.Renumbered {
			d.position = max(position, p.position)
		}
	}
	return ice.commit(ctx, d)
}

// cut writes the row that ends what the history told before the copy: keys that the copy does not bring are gone.
func (p *copyPart) cut(ctx context.Context, position change.LSN) ([]iceberg.DataFile, error) {
	h := p.history
	record := h.cutRow(position)
	defer record.Release()
	set := p.ice.newFileSet(ctx, h.schema)
	if _, _, err := set.Write(record); err != nil {
		set.Abort()
		return nil, err
	}
	return set.Close(ctx)
}

func (c *lakeCopy) Abandon(ctx context.Context) error {
	ledgers, err := readLedgers[ledger](ctx, c.copyLedgers)
	if err != nil {
		return err
	}
	for i := range c.parts {
		p := &c.parts[i]
		files, err := p.filesOf(ledgers)
		if err != nil {
			return err
		}
		if p.ice.property(propCopy) == c.id {
			continue // they are part of the table by now
		}
		if _, err := c.table.lake.removeAll(ctx, pathsOf(files)...); err != nil {
			return err
		}
	}
	return c.remove(ctx)
}
