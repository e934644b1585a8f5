package lake

import (
	"cmp"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/keyindex"
)

// currentTable keeps the latest row of each key. The key index says where that row lies; when a later row takes its
// place, or none does, the old row is deleted by its position. So readers never have to compare keys.
//
// The index runs ahead of the lake by what is pending. It is closed, and so trusted later, only when nothing is.
type currentTable struct {
	t       *icebergTable
	uploads context.Context // of files being written, which outlast one call
	schema  *arrow.Schema   // of data files, with field ids: of the latest definition
	base    *arrow.Schema   // of files that are rewritten: of the definition that the lake has, with columns kept aside
	key     []int           // columns of the key, in its order; all columns without one
	names   []string        // of those columns
	special int             // the column of special values, -1 without one
	whole   bool            // there is no key: equal rows are told apart by nothing, and a delete takes any one of them
	reread  func(ctx context.Context, keys arrow.RecordBatch) (arrow.RecordBatch, error)
	compute func(ctx context.Context, c *change.Changes) (*change.Changes, []string, error)

	// mu guards what follows. Ingest holds it while it writes and commits, maintenance while it plans and commits.
	mu           sync.Mutex
	index        *keyindex.Index
	unread       bool           // the index is empty, and the files' keys are read when the first change needs them
	files        []*trackedFile // by number, nil where the file is gone
	deletes      []*deleteFile
	at           change.LSN                  // transactions before are in the lake
	open         *fileSet                    // nil when nothing is being written
	openFirst    uint32                      // number of its first file
	size         struct{ rows, bytes int64 } // of what is pending
	truncated    bool                        // all that is committed goes with the next commit
	walk         walk
	refilled     bool // files of the lake were written anew and go with the next commit
	broken       error
	commits      int                        // of the ingest, since the table was opened
	moved        time.Time                  // when the last of them was, or the table was opened
	seen         int                        // how many there were when upkeep last looked
	resolveBytes int64                      // see the constant
	resolvable   int                        // rows of which the values that were left out could be held at one time; 0 unknown
	hollow       map[keyindex.Hash]struct{} // keys whose rows lack values that nobody had when they were written

	// Buffers that serve one record after another.
	last         lastRows
	hashes, olds []keyindex.Hash
	effects      []effect
	chosen       []uint32
}

// trackedFile is a data file that holds live rows, or is about to.
type trackedFile struct {
	number  uint32
	file    iceberg.DataFile // nil until it is closed
	pending bool             // not committed yet
	rows    int64
	seq     int64
	dead    *roaring.Bitmap  // rows deleted by what is committed; nil for none
	fresh   []uint32         // rows deleted since
	vector  iceberg.DataFile // its deletion vector in the lake, nil for none
	moved   *moved           // where its rows went when it was rewritten
	leaves  bool             // it was rewritten and is part of the lake until the next commit
}

// gone are the rows that are deleted, or will be with the next commit; nil for none.
func (f *trackedFile) gone() *roaring.Bitmap {
	var all *roaring.Bitmap
	if f.dead != nil {
		all = f.dead.Clone()
	}
	if len(f.fresh) > 0 {
		if all == nil {
			all = roaring.New()
		}
		all.AddMany(f.fresh)
	}
	return all
}

func (f *trackedFile) deadRows() int64 {
	if f.dead == nil {
		return 0
	}
	return int64(f.dead.GetCardinality())
}

// deleteFile is a file of position deletes and the data files it tells of.
type deleteFile struct {
	file iceberg.DataFile
	of   []uint32
}

// place packs a file's number and a row into what the index holds.
func place(file, row uint32) uint64 { return uint64(file)<<32 | uint64(row) }

// openCurrent opens what keeps t current. The context is that of all its uploads; the schema is that of data files.
func openCurrent(ctx context.Context, t *icebergTable, spec Spec, schema *arrow.Schema) (*currentTable, error) {
	if err := os.MkdirAll(t.lake.WorkDir, 0o700); err != nil {
		return nil, fault.Wrap(err, fault.StateUnusable, t.lake.WorkDir, "the folder for key indexes cannot be made")
	}
	c := &currentTable{t: t, uploads: ctx, reread: spec.Reread, compute: spec.Compute, moved: time.Now(), seen: -1, resolveBytes: resolveBytes}
	err := c.reset(ctx, schema, spec)
	if err != nil {
		c.drop()
		return nil, err
	}
	return c, nil
}

// reset takes over what the lake holds now, after a copy has replaced the rows. Nothing may be pending.
func (c *currentTable) reset(ctx context.Context, schema *arrow.Schema, spec Spec) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index != nil {
		c.drop() // it is of what the table held before, and must not be taken for the index of what it holds now
	}
	err := c.setSchema(schema, spec)
	if err == nil {
		c.base, err = withAside(schema, c.t.now().Schema())
	}
	if err == nil {
		err = c.load(ctx)
	}
	return c.fail(err)
}

func (c *currentTable) load(ctx context.Context) (err error) {
	c.files, c.deletes, c.truncated, c.refilled, c.walk, c.broken = nil, nil, false, false, walk{}, nil
	c.size.rows, c.size.bytes, c.hollow = 0, 0, nil
	if c.at, err = c.t.position(); err != nil {
		return err
	}
	return c.loadIndex(ctx)
}

// setSchema takes over the schema of data files.
func (c *currentTable) setSchema(schema *arrow.Schema, spec Spec) error {
	var key []int
	for i := range spec.columns() {
		if spec.WholeRowKey && !spec.Table.Columns[i].Computed { // the others decide what it is
			key = append(key, i)
		}
	}
	for _, name := range spec.Key {
		at := schema.FieldIndices(name)
		if len(at) != 1 {
			return fault.New(fault.KeyMissing, c.t.where(), "the table has no column %q of the key", name)
		}
		key = append(key, at[0])
	}
	if len(key) == 0 {
		return fault.New(fault.KeyMissing, c.t.where(), "the current rows of a table cannot be kept without a key")
	}
	c.schema, c.key, c.whole, c.special = schema, key, spec.WholeRowKey, spec.special()
	c.names = make([]string, len(key))
	for i, k := range key {
		c.names[i] = schema.Field(k).Name
	}
	return nil
}

// keyed are the field ids of what the index was made of; a whole row is told apart from a key of the same columns.
func (c *currentTable) keyed() []int {
	ids := make([]int, 0, len(c.key)+1)
	if c.whole {
		ids = append(ids, 0)
	}
	for _, k := range c.key {
		ids = append(ids, fieldID(c.schema.Field(k)))
	}
	return ids
}

func (c *currentTable) indexPath() string {
	return filepath.Join(c.t.lake.WorkDir, change.EncodeName(c.t.lake.Pipeline)+"."+change.EncodeName(c.t.where())+"."+c.t.now().Metadata().TableUUID().String())
}

func (c *currentTable) snapshotID() int64 {
	if id := currentID(c.t.now().Metadata()); id != nil {
		return *id
	}
	return 0
}

// loadIndex opens the index and lists the files. Where there is no index to be trusted it is built when it is needed: a table
// that never changes never pays for one.
func (c *currentTable) loadIndex(ctx context.Context) error {
	x, err := keyindex.Open(c.indexPath(), keyindex.Options{Multi: c.whole, Snapshot: c.snapshotID()})
	if err != nil {
		return err
	}
	c.index = x
	data, deletes, err := c.t.live(ctx)
	if err != nil {
		return err
	}
	numbers, ok := c.readNote(x.Note())
	if ok = ok && !x.NeedsRebuild(); ok {
		for _, f := range data {
			_, known := numbers[c.t.lake.canonical(f.File().FilePath())]
			ok = ok && known
		}
	}
	if !ok {
		numbers = map[string]uint32{}
		slices.SortStableFunc(data, func(a, b liveFile) int { return cmp.Compare(a.Seq(), b.Seq()) })
		for i, f := range data {
			numbers[c.t.lake.canonical(f.File().FilePath())] = uint32(i)
		}
		if !x.NeedsRebuild() {
			if err := x.Clear(); err != nil {
				return err
			}
		}
	}
	c.track(data, numbers)
	if err := c.loadDeletes(ctx, deletes, numbers); err != nil {
		return err
	}
	c.unread = !ok
	if copiedInParts(data) {
		return c.readFiles(ctx)
	}
	return nil
}

// copiedInParts says whether files are of one copy that was read in more than one snapshot: such files may hold two rows of
// one key, of which one has to go.
func copiedInParts(data []liveFile) bool {
	first := ""
	for _, f := range data {
		stamp, ok := copyStamp(f.File().FilePath())
		if ok && first != "" && stamp != first {
			return true
		}
		if ok {
			first = stamp
		}
	}
	return false
}

// track lists the files by their numbers.
func (c *currentTable) track(data []liveFile, numbers map[string]uint32) {
	c.files = c.files[:0]
	for _, f := range data {
		n := numbers[c.t.lake.canonical(f.File().FilePath())]
		for len(c.files) <= int(n) {
			c.files = append(c.files, nil)
		}
		c.files[n] = &trackedFile{number: n, file: f.File(), rows: f.File().Count(), seq: f.Seq()}
	}
}

// indexNote is kept with the index: the files of its numbers, and what it was made of.
type indexNote struct {
	Files map[string]uint32 `json:"files"`
	Keyed []int             `json:"keyed"`
}

// mostFileNumber bounds the list of files that a note asks for; an index that has given out more numbers is built from the table.
const mostFileNumber = 1 << 24

func (c *currentTable) readNote(note []byte) (map[string]uint32, bool) {
	var n indexNote
	err := json.Unmarshal(note, &n)
	for _, number := range n.Files {
		if number > mostFileNumber {
			return nil, false
		}
	}
	return n.Files, err == nil && slices.Equal(n.Keyed, c.keyed())
}

func (c *currentTable) note() []byte {
	n := indexNote{Files: map[string]uint32{}, Keyed: c.keyed()}
	for _, f := range c.files {
		if f != nil && f.moved == nil {
			n.Files[c.t.lake.canonical(f.file.FilePath())] = f.number
		}
	}
	note, _ := json.Marshal(n) // of strings and numbers: there is no error
	return note
}

// close ends the use of the table. Where something is pending, or an error has left memory and lake apart, the
// index is given up and built anew next time.
func (c *currentTable) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.index == nil {
		return nil
	}
	if c.broken != nil || c.unread || c.isPending() {
		c.drop()
		return nil
	}
	for c.walk.busy() {
		c.walkOn(1 << 20)
	}
	err := c.index.CloseAt(c.snapshotID(), c.note())
	c.index = nil
	return err
}

func (c *currentTable) drop() {
	if c.open != nil {
		c.open.Abort()
		c.open = nil
	}
	if c.index != nil {
		c.index.Drop()
		c.index = nil
	}
	if c.broken == nil {
		c.broken = fault.New(fault.Internal, c.t.where(), "the table must be opened again")
	}
}

// abandon forgets what is pending. Where there is something, the index has run ahead and the table must be opened again.
func (c *currentTable) abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isPending() {
		c.drop()
		c.t.staged = nil
	}
}

func (c *currentTable) isPending() bool {
	if c.open != nil || c.truncated || c.refilled || c.t.staged != nil {
		return true
	}
	for _, f := range c.files {
		if f != nil && (f.pending || len(f.fresh) > 0) {
			return true
		}
	}
	return false
}

// pendingSize says what the next commit would carry.
func (c *currentTable) pendingSize() (rows, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.size.rows, c.size.bytes
}

// fail marks the table as unusable until it is opened again.
func (c *currentTable) fail(err error) error {
	if err != nil && c.broken == nil {
		c.broken = err
	}
	return err
}

// kill deletes the row at a place of the index.
func (c *currentTable) kill(at uint64) {
	file, row := c.settle(at)
	if f := c.files[file]; f != nil {
		f.fresh = append(f.fresh, row)
	}
}

// newNumber gives a new file its number.
func (c *currentTable) newNumber() uint32 {
	n := uint32(len(c.files))
	c.files = append(c.files, &trackedFile{number: n, pending: true})
	return n
}

// append writes a record to the open files and returns where its rows lie.
func (c *currentTable) append(rec arrow.RecordBatch) (landed, error) {
	if c.open == nil {
		c.open = c.t.newFileSet(c.uploads, c.schema)
		c.open.places = true
		c.openFirst = uint32(len(c.files))
	}
	to, err := c.open.Spread(rec)
	if err != nil {
		return landed{}, err
	}
	var out landed
	if len(to) > 1 {
		out.each = make([]uint64, rec.NumRows())
	}
	for _, l := range to {
		for uint32(len(c.files)) <= c.openFirst+uint32(l.file) {
			c.newNumber()
		}
		f := c.files[c.openFirst+uint32(l.file)]
		out.first = place(f.number, uint32(l.row))
		if l.rows == nil {
			f.rows = l.row + rec.NumRows()
			continue
		}
		f.rows = l.row + int64(len(l.rows))
		for i, row := range l.rows {
			out.each[row] = out.first + uint64(i)
		}
	}
	return out, nil
}

// landed are the places of a record's rows: one behind the other, or each its own.
type landed struct {
	first uint64
	each  []uint64
}

func (l landed) at(i int) uint64 {
	if l.each != nil {
		return l.each[i]
	}
	return l.first + uint64(i)
}

// seal ends the files being written: they can be read from then on.
func (c *currentTable) seal(ctx context.Context) error {
	if c.open == nil {
		return nil
	}
	set := c.open
	files, err := set.Close(ctx)
	c.open = nil
	if err != nil {
		return err
	}
	for i, f := range files {
		c.files[c.openFirst+uint32(i)].file = f
	}
	for i := range files {
		if order := set.Order(i); order != nil {
			c.sorted(c.openFirst+uint32(i), order)
		}
	}
	return nil
}

// sorted gives a file another number in which its rows lie as they were sorted: the index knows them as they came.
func (c *currentTable) sorted(n uint32, order []uint32) {
	f := c.files[n]
	to := uint32(len(c.files))
	as := &trackedFile{number: to, file: f.file, pending: true, rows: f.rows}
	for _, row := range f.fresh {
		as.fresh = append(as.fresh, order[row])
	}
	c.files = append(c.files, as)
	f.moved = &moved{runs: []movedRun{{file: to}}, order: map[uint32][]uint32{to: order}}
	f.file, f.pending, f.fresh = nil, false, nil
	c.walk.add(n)
}

// commit makes what is pending visible, with the position, as one snapshot.
func (c *currentTable) commit(ctx context.Context, to change.LSN, at time.Time) (Committed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return Committed{}, c.broken
	}
	if !c.isPending() {
		return Committed{Position: c.at}, nil
	}
	done, err := c.commitLocked(ctx, to, at)
	return done, c.fail(err)
}

func (c *currentTable) commitLocked(ctx context.Context, to change.LSN, at time.Time) (Committed, error) {
	if err := c.seal(ctx); err != nil {
		return Committed{}, err
	}
	p := c.prepare()
	d := delta{position: to, at: at, add: p.add, remove: p.remove, staged: c.t.staged}
	deletes, err := c.writeDeletes(ctx, p.touched)
	if err != nil {
		return Committed{}, err
	}
	d.addDeletes = deletes.files()
	d.removeDeletes = c.obsoleteDeletes(p, deletes)
	base, err := withAside(c.schema, c.t.schema())
	if err != nil {
		return Committed{}, err
	}
	if err := c.t.commit(ctx, d); err != nil {
		return Committed{}, err
	}
	c.base, c.t.staged = base, nil
	done := Committed{Files: len(d.add), Deletes: p.deleted, Position: to}
	if d.hasFiles() {
		done.Snapshots = []int64{c.snapshotID()}
	}
	for _, f := range d.add {
		done.Rows, done.Bytes = done.Rows+int(f.Count()), done.Bytes+f.FileSizeBytes()
	}
	c.settleCommit(p, deletes)
	c.at = max(c.at, to)
	c.commits, c.moved = c.commits+1, time.Now()
	c.removeObjects(ctx, p.unborn)
	c.walkOn(walkPages)
	return done, nil
}

// prepared is what a commit does to data files.
type prepared struct {
	add, remove []iceberg.DataFile
	unborn      []iceberg.DataFile // written and wholly dead before anybody could see them
	gone        map[uint32]bool    // numbers of files that are no more
	touched     []*trackedFile     // files that stay and have lost rows
	deleted     int                // rows
}

func (c *currentTable) prepare() *prepared {
	p := &prepared{gone: map[uint32]bool{}}
	for _, f := range c.files {
		if f != nil && f.leaves {
			p.remove = append(p.remove, f.file)
			p.gone[f.number] = true
		}
		if f == nil || f.moved != nil {
			continue
		}
		all := f.deadRows()+int64(len(f.fresh)) >= f.rows
		if !f.pending {
			p.deleted += len(f.fresh)
		}
		switch {
		case f.pending && all: // also a file without rows
			p.unborn = append(p.unborn, f.file)
			p.gone[f.number] = true
		case f.pending:
			p.add = append(p.add, f.file)
		case all || c.truncated && !f.pending:
			p.remove = append(p.remove, f.file)
			p.gone[f.number] = true
		}
		if len(f.fresh) > 0 && !p.gone[f.number] {
			p.touched = append(p.touched, f)
		}
	}
	return p
}

// settleCommit brings memory to what the lake now holds.
func (c *currentTable) settleCommit(p *prepared, w writtenDeletes) {
	for i, f := range c.files {
		switch {
		case f == nil:
		case f.moved != nil:
			if f.leaves {
				f.leaves, f.vector, f.dead = false, nil, nil
			}
		case p.gone[uint32(i)]:
			c.files[i] = nil
		default:
			f.bury()
			f.pending = false
		}
	}
	c.adoptDeletes(p.gone, w)
	c.truncated, c.refilled = false, false
	c.size.rows, c.size.bytes = 0, 0
}

// bury makes the fresh dead part of the dead.
func (f *trackedFile) bury() {
	if len(f.fresh) == 0 {
		return
	}
	if f.dead == nil {
		f.dead = roaring.New()
	}
	f.dead.AddMany(f.fresh)
	f.dead.RunOptimize()
	f.fresh = nil
}
