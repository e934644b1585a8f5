package lake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/catalog/hive"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Properties that we keep in a table's properties and, those of a commit, in its snapshot's summary too. The summary
// alone would not do: rewriting manifests and expiring snapshots lose it.
const (
	propPosition  = "leat.position"     // an LSN; absent until the table has been copied
	propCommitted = "leat.committed-at" // RFC 3339: what of the source's clock the position stands for
	propPipeline  = "leat.pipeline"     // who may write
	propEpoch     = "leat.epoch"        // of the pipeline's lease
	propCommit    = "leat.commit"       // names the last commit, to find out whether one whose reply was lost took place
	propColumns   = "leat.columns"      // the source's columns by attnum: see columns.go
	propSource    = "leat.source"       // schema.table of the source
	propKind      = "leat.kind"         // current or history
	propCopy      = "leat.copy"         // the last copy that was finished
	propSnapshot  = "leat.snapshot"     // the last snapshot that we made; not in its summary
	propForeign   = "leat.foreign-rows" // how many rows other programs have added or removed
	propExpired   = "leat.expired"      // the last note of expired snapshots: later ones are not of this table's past
	propLine      = "leat.line"         // the sequence number after which the history is one line: see lineSince
)

// icebergTable is one Iceberg table that is open for writing.
type icebergTable struct {
	lake  *Lake
	ident table.Identifier
	kind  string // current or history

	version atomic.Pointer[table.Table] // see now
	widths  sync.Map                    // by the fields that were read: how many bytes a row has, where records had to be begun again for it

	// mu guards what follows, and is held during a commit.
	mu         sync.Mutex
	staged     *staged                // of the one goroutine that writes: the definition that the next commit of data brings
	manifests  []iceberg.ManifestFile // of the current snapshot
	inside     map[string][]liveFile  // manifests read so far, by path
	foreign    Foreign                // what other programs had done when the table was loaded
	broken     error                  // set when memory no longer agrees with the lake: the table must be opened again
	watched    int64                  // the sequence number since which this process has seen every commit
	removals   []int64                // the sequence numbers of those after it that removed files
	drops      []drop                 // the manifests that went after dropsSince
	dropsSince int64

	expiring  sync.Mutex // of the one goroutine that expires snapshots
	room      int        // under expiring: with fewer snapshots than this many none is looked for that might go
	expiredAt time.Time  // under expiring
	// Under expiring: what is known of notes of expired snapshots, if it is.
	notes      []noteKey
	notesKnown bool
	specUsers  map[int]int64 // snapshots that were seen to need a partition spec which the current one does not
}

// liveFile is a data or delete file of the current snapshot.
type liveFile struct {
	entry iceberg.ManifestEntry
}

// File is the file itself, Seq its data sequence number: a position delete acts on data files whose number is not greater.
func (f liveFile) File() iceberg.DataFile { return f.entry.DataFile() }
func (f liveFile) Seq() int64             { return f.entry.SequenceNum() }

// delta is what one commit changes. Files to remove are named by their path; of deletion vectors, which may share one
// file, by the data file they refer to as well.
type delta struct {
	add, remove               []iceberg.DataFile
	addDeletes, removeDeletes []iceberg.DataFile
	replaceAll                bool // remove everything that is live before
	position                  change.LSN
	at                        time.Time // of the source, at position; zero leaves what is there
	props                     iceberg.Properties
	summary                   iceberg.Properties
	updates                   []table.Update // in the same commit
	staged                    *staged        // a new definition, in the same commit
	rewrite                   bool           // rows stay as they are: compaction
	merged                    []mergedManifest
	id                        int64 // of the snapshot, if it must be known before; 0 for any
}

func (d *delta) hasFiles() bool {
	return len(d.add)+len(d.remove)+len(d.addDeletes)+len(d.removeDeletes)+len(d.merged) > 0 || d.replaceAll
}

func (t *icebergTable) where() string { return strings.Join(t.ident, ".") }

// open loads the table, or reports false when there is none.
func (l *Lake) openIceberg(ctx context.Context, ident table.Identifier, kind string) (*icebergTable, bool, error) {
	t := &icebergTable{lake: l, ident: ident, kind: kind}
	if err := t.load(ctx); err != nil {
		if errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
			return t, false, nil
		}
		return nil, false, t.failed(err, "cannot be opened")
	}
	return t, true, nil
}

// load reads the table as the catalog has it now.
func (t *icebergTable) load(ctx context.Context) error {
	tbl, err := t.lake.catalog.LoadTable(ctx, t.ident)
	if err != nil {
		return err
	}
	return t.take(ctx, tbl)
}

// take makes a table that was loaded the one to go on from.
func (t *icebergTable) take(ctx context.Context, tbl *table.Table) (err error) {
	t.adopt(tbl.Metadata(), tbl.MetadataLocation())
	t.inside, t.manifests, t.broken, t.foreign = map[string][]liveFile{}, nil, nil, foreignTo(tbl.Metadata())
	t.watched, t.removals = tbl.Metadata().LastSequenceNumber(), nil
	t.dropsSince, t.drops = t.watched, nil
	if s := t.now().CurrentSnapshot(); s != nil {
		t.manifests, err = s.Manifests(t.lake.avroFiles(ctx))
	}
	return unreadable(ctx, t.where(), err, "its list of manifests cannot be understood")
}

// adopt makes a version the table's own, read and written through our bucket whatever the catalog would have taken.
func (t *icebergTable) adopt(meta table.Metadata, location string) {
	cat, _ := t.lake.catalog.(table.CatalogIO)
	t.version.Store(table.New(t.ident, meta, location, t.lake.fs, cat))
}

// drafted says that the first commit makes the table.
func (t *icebergTable) drafted() bool { return t.now().MetadataLocation() == "" }

// now is the table as the last commit has left it. Maintenance commits beside the goroutine that writes files.
func (t *icebergTable) now() *table.Table { return t.version.Load() }

// failed judges an error of the Iceberg library. Faults of the bucket stay what they are.
func (t *icebergTable) failed(err error, what string, args ...any) error {
	if err == nil {
		return nil
	}
	if fault.Of(err) != nil {
		return fmt.Errorf("%s: %w", t.where(), err)
	}
	return fault.Wrap(err, fault.LakeFailed, t.where(), what, args...)
}

// position is what the table holds by its own word.
func (t *icebergTable) position() (change.LSN, error) {
	text := t.property(propPosition)
	if text == "" {
		return 0, nil
	}
	p, err := change.ParseLSN(text)
	return p, fault.Wrap(err, fault.LakeFailed, t.where(), "its property %s cannot be understood", propPosition)
}

func (t *icebergTable) property(name string) string { return t.now().Properties()[name] }

// schema is what rows are written by: the staged one, where there is one.
func (t *icebergTable) schema() *iceberg.Schema {
	if t.staged != nil {
		return t.staged.schema()
	}
	return t.now().Schema()
}

func (t *icebergTable) v3() bool { return t.now().Metadata().Version() >= 3 }

// live lists the files of the current snapshot in the order in which they were added.
func (t *icebergTable) live(ctx context.Context) (data, deletes []liveFile, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range slices.Backward(t.manifests) { // new manifests are put first
		files, err := t.read(ctx, m)
		if err != nil {
			return nil, nil, err
		}
		if m.ManifestContent() == iceberg.ManifestContentDeletes {
			deletes = append(deletes, files...)
		} else {
			data = append(data, files...)
		}
	}
	return data, deletes, nil
}

// read gives the live files of a manifest.
func (t *icebergTable) read(ctx context.Context, m iceberg.ManifestFile) ([]liveFile, error) {
	if files, ok := t.inside[m.FilePath()]; ok {
		return files, nil
	}
	files, err := t.readManifest(ctx, m)
	if err == nil {
		t.inside[m.FilePath()] = files
	}
	return files, err
}

func (t *icebergTable) readManifest(ctx context.Context, m iceberg.ManifestFile) ([]liveFile, error) {
	f, err := t.lake.avroFiles(ctx).Open(m.FilePath())
	if err != nil {
		return nil, t.failed(err, "a manifest cannot be read")
	}
	defer f.Close()
	return t.filesIn(ctx, m, f)
}

// filesIn are the live files of a manifest that is read from in.
func (t *icebergTable) filesIn(ctx context.Context, m iceberg.ManifestFile, in io.Reader) ([]liveFile, error) {
	entries, err := iceberg.ReadManifest(m, in, true)
	if err != nil {
		return nil, unreadable(ctx, t.where(), err, "the manifest %s cannot be understood", m.FilePath())
	}
	files := make([]liveFile, len(entries))
	for i, e := range entries {
		if err := checkEntry(e); err != nil {
			return nil, unreadable(ctx, t.where(), err, "the manifest %s cannot be right", m.FilePath())
		}
		files[i] = liveFile{e}
	}
	return files, nil
}

// safely is work for a goroutine beside: its panic is an error of the table.
func (t *icebergTable) safely(work func() error) func() error {
	return fault.Catching(t.lake.Log, t.where(), work)
}

// commit makes one new version of the table. Whoever else has changed the table since it was loaded wins:
// fault.LakeConflict. After an error the table must be loaded again before the next commit.
func (t *icebergTable) commit(ctx context.Context, d delta) error {
	err := t.commitOnce(ctx, d)
	if err == nil && d.hasFiles() {
		t.expireCrowded(ctx)
	}
	return err
}

func (t *icebergTable) commitOnce(ctx context.Context, d delta) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return t.broken
	}
	t.broken = t.safely(func() error { return t.commitLocked(ctx, d) })()
	return t.broken
}

func (t *icebergTable) commitLocked(ctx context.Context, d delta) error {
	base := t.now().Metadata()
	mark := fresh()
	props := iceberg.Properties{propCommit: mark[strings.IndexByte(mark, '-')+1:]}
	if d.position > 0 {
		props[propPosition] = d.position.String()
	} else if held := t.property(propPosition); held != "" && d.rewrite {
		props[propPosition] = held // the same rows: the snapshot says so too
	}
	if !d.at.IsZero() {
		props[propCommitted] = d.at.UTC().Format(time.RFC3339Nano)
	}
	own := maps.Clone(props) // of the snapshot: each has one for as long as it stays, so it has no more than is asked for
	props[propCommit], props[propPipeline], props[propEpoch] = mark, t.lake.Pipeline, strconv.FormatInt(t.lake.Epoch, 10)
	maps.Copy(props, d.props)
	reqs := []table.Requirement{table.AssertTableUUID(base.TableUUID()), table.AssertRefSnapshotID(table.MainBranch, currentID(base))}
	evolves := slices.Clone(d.updates)
	if d.staged != nil {
		updates, err := d.staged.updates(base)
		if err != nil {
			return t.failed(err, "its new definition does not fit")
		}
		maps.Copy(props, d.staged.props())
		evolves = append(evolves, updates...)
		reqs = append(reqs, table.AssertCurrentSchemaID(base.CurrentSchema().ID), table.AssertLastAssignedFieldID(base.LastColumnID()))
	}
	s, err := t.nextSnapshot(ctx, d, evolves, own)
	if err != nil {
		return err
	}
	// What a rollback took is known until a copy brings it back.
	follows := s != nil && (!t.foreign.RolledBack || d.props[propCopy] != "")
	if follows {
		props[propSnapshot], props[propForeign] = strconv.FormatInt(s.SnapshotID, 10), strconv.FormatInt(t.foreign.TotalRows, 10)
	}
	if s != nil && (base.Properties()[propLine] == "" || t.foreign.Snapshots > 0 || t.foreign.RolledBack) {
		props[propLine] = strconv.FormatInt(base.LastSequenceNumber(), 10)
	}
	for key, want := range t.lake.Snapshots.properties() {
		if base.Properties()[key] != want {
			props[key] = want
		}
	}
	updates := append(slices.Clone(evolves), table.NewSetPropertiesUpdate(props))
	if s != nil {
		updates = append(updates, table.NewAddSnapshotUpdate(&s.Snapshot), table.NewSetSnapshotRefUpdate(table.MainBranch, s.SnapshotID, table.BranchRef, 0, 0, 0))
	}
	meta, location, err := t.lake.catalog.CommitTable(ctx, slices.Clone(t.ident), reqs, updates)
	if err != nil {
		return t.judge(ctx, mark, err)
	}
	t.adopt(meta, location)
	if s != nil {
		t.noteDrops(s.SequenceNumber, t.manifests, s.manifests)
		t.manifests = s.manifests
		t.forget()
		if s.removes {
			t.noteRemoval(s.SequenceNumber)
		}
	}
	if follows {
		t.foreign = Foreign{TotalRows: t.foreign.TotalRows}
	}
	t.removeOldVersions(ctx, base, meta)
	return nil
}

// nextSnapshot writes the snapshot that a commit adds; nil where the rows stay as they are.
func (t *icebergTable) nextSnapshot(ctx context.Context, d delta, evolves []table.Update, own iceberg.Properties) (*newSnapshot, error) {
	base := t.now().Metadata()
	if !d.hasFiles() && !t.wantsSnapshot(base) {
		return nil, nil
	}
	d.rewrite = d.rewrite || !d.hasFiles() // nothing came and nothing went
	shaped := base
	if len(evolves) > 0 {
		var err error
		if shaped, err = updated(base, evolves, ""); err != nil {
			return nil, t.failed(err, "its new definition does not fit")
		}
	}
	return t.snapshot(ctx, shaped, d, own)
}

func currentID(m table.Metadata) *int64 {
	if s := m.CurrentSnapshot(); s != nil {
		return &s.SnapshotID
	}
	return nil
}

// judge finds out what became of a commit that ended in an error: the reply may be lost and the commit done, another process
// may have been first, or nothing has happened. Of another process it speaks only when it has seen the table.
func (t *icebergTable) judge(ctx context.Context, mark string, err error) error {
	now, loadErr := t.lake.catalog.LoadTable(ctx, slices.Clone(t.ident))
	switch {
	case ctx.Err() != nil:
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, t.where(), "the commit was interrupted: %s", err)
	case errors.Is(loadErr, catalog.ErrNoSuchTable) && t.drafted(): // as before
		return t.failed(err, "the commit failed")
	case errors.Is(loadErr, catalog.ErrNoSuchTable):
		return fault.New(fault.LakeMissing, t.where(), "the table has been dropped").Because(err)
	case loadErr != nil:
		return t.unknown(err, loadErr)
	case now.Properties()[propCommit] == mark:
		return t.take(ctx, now)
	case changed(t.now(), now):
		if later := fenced(t.lake, now); later != nil {
			return later.Because(err)
		}
		return fault.New(fault.LakeConflict, t.where(), "another process has changed the table since we read it (%s)", writerOf(now)).Because(err)
	case fault.Of(err) != nil: // it could not be asked, and nothing has happened
		return t.failed(err, "the commit failed")
	case errors.Is(err, hive.ErrLockAcquisitionFailed):
		return fault.New(fault.LakeConflict, t.where(), "another process holds the metastore's lock of the table, or held it and died").Because(err)
	case errors.Is(err, table.ErrCommitFailed):
		return fault.New(fault.LakeConflict, t.where(), "the catalog refused the commit, and the table is still the one we read (%s)", writerOf(now)).Because(err)
	}
	return t.failed(err, "the commit failed")
}

// unknown is the error of a commit whose outcome is unknown, because the table cannot be looked at. Where one of the two
// errors says that it may be otherwise later, that counts.
func (t *icebergTable) unknown(commit, look error) error {
	code := fault.LakeFailed
	if f := fault.Of(look); f != nil {
		code = f.Code
	}
	if f := fault.Of(commit); f != nil && f.Retryable() {
		code = f.Code
	}
	return fault.Wrap(errors.Join(commit, look), code, t.where(), "whether the commit took place is unknown")
}

// changed says whether somebody has committed since. Where the metadata lies does not tell: servers exist that give it another
// place at each look.
func changed(before, now *table.Table) bool {
	is, was := currentID(now.Metadata()), currentID(before.Metadata())
	return now.Properties()[propCommit] != before.Properties()[propCommit] || (is == nil) != (was == nil) || is != nil && *is != *was
}

// fenced is what a table tells that a later owner of the pipeline has written, nil for any other.
func fenced(l *Lake, tbl *table.Table) *fault.Fault {
	epoch, _ := strconv.ParseInt(tbl.Properties()[propEpoch], 10, 64) // another program's table tells none
	if epoch <= l.Epoch {
		return nil
	}
	return fault.New(fault.PipelineFenced, strings.Join(tbl.Identifier(), "."), "a later process (epoch %d, ours is %d) has written the table", epoch, l.Epoch)
}

func writerOf(tbl *table.Table) string {
	p := tbl.Properties()
	if s := tbl.CurrentSnapshot(); s != nil && s.Summary != nil && s.Summary.Properties[propCommit] == "" {
		return "snapshot " + strconv.FormatInt(s.SnapshotID, 10) + " is not ours"
	}
	return "pipeline " + p[propPipeline] + ", epoch " + p[propEpoch]
}

// forget drops what is known of manifests that are no longer part of the table.
func (t *icebergTable) forget() {
	keep := make(map[string]bool, len(t.manifests))
	for _, m := range t.manifests {
		keep[m.FilePath()] = true
	}
	maps.DeleteFunc(t.inside, func(path string, _ []liveFile) bool { return !keep[path] })
}

// removeOldVersions deletes metadata files that the new version no longer mentions. The commit has happened: what
// cannot be deleted is left to Sweep.
func (t *icebergTable) removeOldVersions(ctx context.Context, before, after table.Metadata) {
	if !after.Properties().GetBool(table.MetadataDeleteAfterCommitEnabledKey, false) {
		return
	}
	kept := map[string]bool{}
	for e := range after.PreviousFiles() {
		kept[e.MetadataFile] = true
	}
	var old []string
	for e := range before.PreviousFiles() {
		if !kept[e.MetadataFile] {
			old = append(old, e.MetadataFile)
		}
	}
	if _, err := t.lake.removeAll(ctx, old...); err != nil {
		t.lake.Log.Warn("old versions of a table's metadata could not be removed", "table", t.where(), "error", err)
	}
}
