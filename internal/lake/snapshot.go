package lake

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// newSnapshot is a snapshot whose files are written and that no catalog knows yet.
type newSnapshot struct {
	table.Snapshot
	manifests []iceberg.ManifestFile
	removes   bool // files of the snapshot before are not part of it
}

// snapshotWriter writes the manifests of one snapshot. We write them ourselves because the library's transactions
// cannot add and remove data files and delete files in one snapshot, and try a lost race again by themselves.
type snapshotWriter struct {
	table  *icebergTable
	meta   table.Metadata // with the schema of this commit
	id     int64
	name   string // of its files
	copies bool   // it puts a copy in the table's place
	count  int
	totals totals
	list   []iceberg.ManifestFile
}

// totals are what a snapshot's summary counts.
type totals struct {
	addedFiles, addedRows, addedBytes                 int64
	removedFiles, removedRows, removedBytes           int64
	addedDeletes, addedPositions, addedDeleteBytes    int64
	removedDeletes, removedPositions, removedDelBytes int64
}

// snapshot writes manifests and their list for d on top of the current snapshot.
func (t *icebergTable) snapshot(ctx context.Context, meta table.Metadata, d delta, own iceberg.Properties) (*newSnapshot, error) {
	w := &snapshotWriter{table: t, meta: meta, id: d.id, name: fresh(), copies: d.props[propCopy] != ""}
	if w.id == 0 {
		w.id = snapshotID()
	}
	if err := w.addFiles(ctx, d.add, iceberg.ManifestContentData); err != nil {
		return nil, err
	}
	if err := w.addFiles(ctx, d.addDeletes, iceberg.ManifestContentDeletes); err != nil {
		return nil, err
	}
	if err := w.keep(ctx, d); err != nil {
		return nil, err
	}
	parent := currentID(t.now().Metadata())
	seq := t.now().Metadata().LastSequenceNumber() + 1
	s := &newSnapshot{Snapshot: table.Snapshot{
		SnapshotID: w.id, ParentSnapshotID: parent, SequenceNumber: seq,
		// A clock that went back must not make the table unwritable.
		TimestampMs: max(time.Now().UnixMilli(), t.now().Metadata().LastUpdatedMillis()),
		SchemaID:    new(meta.CurrentSchema().ID),
		Summary:     w.summary(d, own),
	}}
	s.removes = w.totals.removedFiles+w.totals.removedDeletes > 0
	first := t.now().Metadata().NextRowID()
	list := &manifestList{meta: meta, snapshot: w.id, parent: parent, seq: seq, firstRow: first}
	data, manifests, rows, err := list.write(w.list)
	if err != nil {
		return nil, t.failed(err, "the list of manifests cannot be written")
	}
	if t.v3() {
		s.FirstRowID, s.AddedRows = &first, &rows
	}
	key := t.metadataKey(fmt.Sprintf("snap-%d.avro", w.id)) // an id is drawn for each attempt
	if err := t.put(ctx, key, data); err != nil {
		return nil, err
	}
	s.ManifestList, s.manifests = t.lake.url(key), manifests
	return s, nil
}

// snapshotID is a random positive number, as the format advises.
func snapshotID() int64 {
	var b [8]byte
	for {
		rand.Read(b[:])
		if id := int64(binary.LittleEndian.Uint64(b[:]) & math.MaxInt64); id != 0 {
			return id
		}
	}
}

func (t *icebergTable) folder() string { return t.lake.key(t.ident...) }

func (t *icebergTable) metadataKey(name string) string { return t.folder() + "/metadata/" + name }

func (t *icebergTable) dataKey(name string) string { return t.folder() + "/data/" + name }

// put writes a metadata object that the commit, which is not lazy, brings to the disk.
func (t *icebergTable) put(ctx context.Context, key string, data []byte) error {
	_, err := bucket.WriteAll(ctx, t.lake.Bucket, key, data, bucket.WriteOptions{Lazy: true})
	return err
}

// addFiles writes a manifest of new files.
func (w *snapshotWriter) addFiles(ctx context.Context, files []iceberg.DataFile, content iceberg.ManifestContent) error {
	if len(files) == 0 {
		return nil
	}
	m, err := w.manifest(ctx, content, func(out *manifestWriter) error {
		for _, f := range files {
			if err := out.added(f); err != nil {
				return err
			}
			w.totals.add(f)
		}
		return nil
	})
	if err == nil {
		w.list = append(w.list, m)
	}
	return err
}

// manifest writes one manifest.
func (w *snapshotWriter) manifest(ctx context.Context, content iceberg.ManifestContent, fill func(*manifestWriter) error) (iceberg.ManifestFile, error) {
	t := w.table
	mw, err := newManifestWriter(w.meta.Version(), avroSpec(w.meta.PartitionSpec()), w.meta.CurrentSchema(), content, w.id)
	if err == nil {
		err = fill(mw)
	}
	var data []byte
	if err == nil {
		data, err = mw.close()
	}
	if err != nil {
		return nil, t.failed(err, "a manifest cannot be written")
	}
	key := t.metadataKey(fmt.Sprintf("%s-m%d.avro", w.name, w.count))
	w.count++
	if err := t.put(ctx, key, data); err != nil {
		return nil, err
	}
	if len(data) < leastManifest && !w.copies { // those of many tables' copies would take the room of what is merged soon
		t.lake.recent.put(t.lake.url(key), bytes.Clone(data))
	}
	m, err := mw.listed(t.lake.url(key), len(data))
	return m, t.failed(err, "a manifest cannot be written")
}

// fileKey is what a file to remove is found by.
type fileKey struct{ path, refers string }

func keyOf(f iceberg.DataFile) fileKey {
	k := fileKey{path: f.FilePath()}
	if f.FileFormat() == iceberg.PuffinFile {
		if ref := f.ReferencedDataFile(); ref != nil {
			k.refers = *ref
		}
	}
	return k
}

// keep takes over the manifests of the current snapshot. Those of which a file goes become few, and so do those that were merged, and
// small ones where they have become many.
func (w *snapshotWriter) keep(ctx context.Context, d delta) error {
	gone := make(map[fileKey]bool, len(d.remove)+len(d.removeDeletes))
	for _, list := range [][]iceberg.DataFile{d.remove, d.removeDeletes} {
		for _, f := range list {
			gone[keyOf(f)] = true
		}
	}
	goes := func(f liveFile) bool { return d.replaceAll || gone[keyOf(f.File())] }
	left := len(gone)
	merged := map[string]bool{}
	for _, m := range d.merged {
		w.list = append(w.list, m.file)
		maps.Copy(merged, m.of)
	}
	var whole, worn []iceberg.ManifestFile
	for _, m := range w.table.manifests {
		if merged[m.FilePath()] || !m.HasAddedFiles() && !m.HasExistingFiles() {
			continue
		}
		found, err := w.leaving(ctx, m, goes, len(gone) > 0 || d.replaceAll)
		if err != nil {
			return err
		}
		if found == 0 {
			whole = append(whole, m)
			continue
		}
		worn = append(worn, m)
		left -= found
	}
	if left > 0 && !d.replaceAll {
		return fault.New(fault.LakeConflict, w.table.where(), "%d files that were to be replaced are no longer part of the table", left)
	}
	if err := w.keepWhole(ctx, whole); err != nil {
		return err
	}
	return w.rewriteManifests(ctx, worn, goes)
}

// keepWhole takes over manifests as they are, but for the smallest ones when there are many: one takes their place, so that the list
// which each commit writes stays short however long maintenance takes.
func (w *snapshotWriter) keepWhole(ctx context.Context, whole []iceberg.ManifestFile) error {
	group := smallestGroup(whole, w.meta.DefaultPartitionSpec())
	if len(group) == 0 {
		w.list = append(w.list, whole...)
		return nil
	}
	m, err := w.mergeGroup(ctx, group)
	if err != nil {
		return err
	}
	for _, of := range whole {
		if of.FilePath() == group[0].FilePath() {
			w.list = append(w.list, m.file) // where the newest was
		}
		if !m.of[of.FilePath()] {
			w.list = append(w.list, of)
		}
	}
	return nil
}

// leaving says how many files of a manifest go.
func (w *snapshotWriter) leaving(ctx context.Context, m iceberg.ManifestFile, goes func(liveFile) bool, some bool) (n int, err error) {
	if !some {
		return 0, nil
	}
	files, err := w.table.read(ctx, m)
	for _, f := range files {
		if goes(f) {
			n++
		}
	}
	return n, err
}

// rewriteManifests writes the entries of manifests anew in few, without the files that go: a compaction's inputs have a manifest
// each, and writing as many again would hold up the ingest.
func (w *snapshotWriter) rewriteManifests(ctx context.Context, worn []iceberg.ManifestFile, goes func(liveFile) bool) error {
	slices.Reverse(worn) // the oldest first
	for _, content := range []iceberg.ManifestContent{iceberg.ManifestContentData, iceberg.ManifestContentDeletes} {
		of := slices.DeleteFunc(slices.Clone(worn), func(m iceberg.ManifestFile) bool { return m.ManifestContent() != content })
		for _, group := range bySize(of, iceberg.ManifestFile.Length) {
			m, err := w.manifest(ctx, content, func(out *manifestWriter) error {
				for _, m := range group {
					if err := w.without(ctx, m, goes, out); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
			w.list = append(w.list, m)
		}
	}
	return nil
}

// without writes the entries of a manifest, and of the files that go that they went.
func (w *snapshotWriter) without(ctx context.Context, m iceberg.ManifestFile, goes func(liveFile) bool, out *manifestWriter) error {
	files, err := w.table.read(ctx, m)
	if err != nil {
		return err
	}
	for _, f := range files {
		if !goes(f) {
			if err := out.existing(f.entry); err != nil {
				return err
			}
			continue
		}
		w.totals.remove(f.File())
		if err := out.deleted(f.entry); err != nil {
			return err
		}
	}
	return nil
}

func (n *totals) add(f iceberg.DataFile) {
	if f.ContentType() == iceberg.EntryContentData {
		n.addedFiles, n.addedRows, n.addedBytes = n.addedFiles+1, n.addedRows+f.Count(), n.addedBytes+f.FileSizeBytes()
		return
	}
	n.addedDeletes, n.addedPositions, n.addedDeleteBytes = n.addedDeletes+1, n.addedPositions+f.Count(), n.addedDeleteBytes+sizeOf(f)
}

func (n *totals) remove(f iceberg.DataFile) {
	if f.ContentType() == iceberg.EntryContentData {
		n.removedFiles, n.removedRows, n.removedBytes = n.removedFiles+1, n.removedRows+f.Count(), n.removedBytes+f.FileSizeBytes()
		return
	}
	n.removedDeletes, n.removedPositions, n.removedDelBytes = n.removedDeletes+1, n.removedPositions+f.Count(), n.removedDelBytes+sizeOf(f)
}

// sizeOf counts of a deletion vector only its own part of the file.
func sizeOf(f iceberg.DataFile) int64 {
	if n := f.ContentSizeInBytes(); n != nil {
		return *n
	}
	return f.FileSizeBytes()
}

// summary counts what the snapshot changes and what the table then holds.
func (w *snapshotWriter) summary(d delta, own iceberg.Properties) *table.Summary {
	n := &w.totals
	p := maps.Clone(own)
	maps.Copy(p, d.summary)
	before := iceberg.Properties{}
	if s := w.table.now().CurrentSnapshot(); s != nil && s.Summary != nil {
		before = s.Summary.Properties
	}
	count := func(key string, v int64) {
		if v != 0 {
			p[key] = strconv.FormatInt(v, 10)
		}
	}
	count("added-data-files", n.addedFiles)
	count("added-records", n.addedRows)
	count("added-files-size", n.addedBytes+n.addedDeleteBytes)
	count("deleted-data-files", n.removedFiles)
	count("deleted-records", n.removedRows)
	count("removed-files-size", n.removedBytes+n.removedDelBytes)
	count("added-delete-files", n.addedDeletes)
	count("added-position-deletes", n.addedPositions)
	count("removed-delete-files", n.removedDeletes)
	count("removed-position-deletes", n.removedPositions)
	if w.table.v3() {
		count("added-dvs", n.addedDeletes)
		count("removed-dvs", n.removedDeletes)
	} else {
		count("added-position-delete-files", n.addedDeletes)
		count("removed-position-delete-files", n.removedDeletes)
	}
	total := func(key string, more int64) {
		old, _ := strconv.ParseInt(before[key], 10, 64)
		p[key] = strconv.FormatInt(max(0, old+more), 10)
	}
	total("total-data-files", n.addedFiles-n.removedFiles)
	total("total-records", n.addedRows-n.removedRows)
	total("total-files-size", n.addedBytes+n.addedDeleteBytes-n.removedBytes-n.removedDelBytes)
	total("total-delete-files", n.addedDeletes-n.removedDeletes)
	total("total-position-deletes", n.addedPositions-n.removedPositions)
	total("total-equality-deletes", 0)
	return &table.Summary{Operation: w.operation(d), Properties: p}
}

func (w *snapshotWriter) operation(d delta) table.Operation {
	switch n := &w.totals; {
	case d.rewrite:
		return table.OpReplace
	case n.removedFiles+n.addedDeletes+n.removedDeletes == 0:
		return table.OpAppend
	case n.addedFiles == 0:
		return table.OpDelete
	}
	return table.OpOverwrite
}
