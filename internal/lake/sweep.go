package lake

import (
	"context"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Sweep removes what dead processes and lost commits left in the folders of this pipeline's tables: objects that no
// snapshot, no version of the metadata, no copy and no note of expired snapshots mentions, and that are older than olderThan, which must be longer
// than any commit takes. It returns how many there were and their bytes. Tables of others are left alone.
func (l *Lake) Sweep(ctx context.Context, olderThan time.Duration) (n int, size int64, err error) {
	before := time.Now().Add(-olderThan)
	if err := l.sweepNotes(ctx, before); err != nil {
		return 0, 0, err
	}
	folders, err := l.folders(ctx)
	if err != nil {
		return 0, 0, err
	}
	copied, err := l.copiedFiles(ctx)
	if err != nil {
		return 0, 0, err
	}
	err = l.eachReadable(folders, func(ident table.Identifier) error {
		objects, bytes, err := l.sweepTable(ctx, ident, before, copied)
		n, size = n+objects, size+bytes
		return err
	})
	if err != nil {
		return n, size, err
	}
	unfinished, err := l.Bucket.Sweep(ctx, l.key(), before)
	return n + unfinished, size, err
}

// eachReadable does something with each table that can be read. Of others it is not known whose they are, and which objects they need.
func (l *Lake) eachReadable(tables []table.Identifier, do func(table.Identifier) error) error {
	for _, ident := range tables {
		name := strings.Join(ident, ".")
		err := fault.Catching(l.Log, name, func() error { return do(ident) })()
		if fault.Is(err, fault.LakeUnreadable) || fault.Panicked(err) {
			l.Log.Warn("nothing is swept in the folder of a table that cannot be read", "table", name, "error", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (l *Lake) sweepTable(ctx context.Context, ident table.Identifier, before time.Time, copied map[string]bool) (n int, size int64, err error) {
	t, found, err := l.openIceberg(ctx, ident, "")
	if err != nil || !found || t.property(propPipeline) != l.Pipeline {
		return 0, 0, err
	}
	return t.sweep(ctx, before, copied)
}

// folders finds what may be tables: folders of folders with metadata.
func (l *Lake) folders(ctx context.Context) ([]table.Identifier, error) {
	var out []table.Identifier
	prefix := ""
	if l.Root != "" {
		prefix = l.Root + "/"
	}
	last := ""
	for o, err := range l.Bucket.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		parts := strings.SplitN(o.Key[len(prefix):], "/", 4)
		if len(parts) < 4 || parts[2] != "metadata" || parts[0][0] == '.' {
			continue
		}
		if name := parts[0] + "/" + parts[1]; name != last {
			out, last = append(out, table.Identifier{parts[0], parts[1]}), name
		}
	}
	return out, nil
}

// copiedFiles are the data files of copies that are not finished.
func (l *Lake) copiedFiles(ctx context.Context) (map[string]bool, error) {
	out := map[string]bool{}
	for o, err := range l.Bucket.List(ctx, l.key(".leat", "copy", lakeName(l.Pipeline))+"/") {
		if err != nil {
			return nil, err
		}
		if strings.HasSuffix(o.Key, "/"+copyNoteName) {
			continue
		}
		book, err := readLedger[ledger](ctx, l.Bucket, o.Key)
		if fault.Is(err, fault.ObjectMissing) {
			continue // finished just now
		}
		if err != nil {
			return nil, err
		}
		for _, url := range book.URLs {
			out[url] = true
		}
	}
	return out, nil
}

func (t *icebergTable) sweep(ctx context.Context, before time.Time, copied map[string]bool) (n int, size int64, err error) {
	// The objects are listed before the table is read: what is committed meanwhile is then known, and what is written
	// meanwhile is not listed.
	var old []bucket.Object
	for o, err := range t.lake.Bucket.List(ctx, t.folder()+"/") {
		if err != nil {
			return 0, 0, err
		}
		if o.Modified.Before(before) && !strings.HasSuffix(o.Key, "/version-hint.text") && !copied[t.lake.url(o.Key)] {
			old = append(old, o)
		}
	}
	if len(old) == 0 {
		return 0, 0, nil
	}
	if err := t.load(ctx); err != nil {
		return 0, 0, t.failed(err, "it cannot be opened")
	}
	used, err := t.mentioned(ctx)
	if err == nil {
		err = t.addNoted(ctx, used) // after the table was read: what it no longer needed by then has a note
	}
	if err != nil {
		return 0, 0, err
	}
	var keys []string
	for _, o := range old {
		if !used.has(t.lake.url(o.Key)) {
			keys, size = append(keys, o.Key), size+o.Size
		}
	}
	return len(keys), size, t.lake.Bucket.Delete(ctx, keys...)
}

// mentioned is every object that the table's metadata names, in any of its snapshots, by its canonical name.
func (t *icebergTable) mentioned(ctx context.Context) (objects, error) {
	used := t.named()
	for _, s := range t.now().Metadata().Snapshots() {
		manifests, err := s.Manifests(t.lake.avroFiles(ctx))
		if err != nil {
			return used, unreadable(ctx, t.where(), err, "the manifests of snapshot %d cannot be read", s.SnapshotID)
		}
		for _, m := range manifests {
			if !used.add(m.FilePath()) {
				continue
			}
			files, err := t.read(ctx, m)
			if err != nil {
				return used, err
			}
			delete(t.inside, m.FilePath())
			for _, f := range files {
				used.add(f.File().FilePath())
			}
		}
	}
	return used, nil
}

// named is every object that the table's metadata names itself: versions, statistics, lists of manifests.
func (t *icebergTable) named() objects {
	meta := t.now().Metadata()
	used := t.lake.noObjects()
	used.add(t.now().MetadataLocation())
	for e := range meta.PreviousFiles() {
		used.add(e.MetadataFile)
	}
	for s := range meta.Statistics() {
		used.add(s.StatisticsPath)
	}
	for s := range meta.PartitionStatistics() {
		used.add(s.StatisticsPath)
	}
	for _, s := range meta.Snapshots() {
		used.add(s.ManifestList)
	}
	return used
}

// objects is a set of objects that metadata names, in any spelling.
type objects struct {
	of    *Lake
	names map[string]bool // canonical
	plain map[string]bool // what names say that may be escaped: in doubt such an object is in the set, too
}

func (l *Lake) noObjects() objects {
	return objects{of: l, names: map[string]bool{}, plain: map[string]bool{}}
}

// add reports false for a name that is there already.
func (o objects) add(name string) bool {
	name = o.of.canonical(name)
	if o.names[name] {
		return false
	}
	o.names[name] = true
	if plain, ok := unescaped(name); ok {
		o.plain[plain] = true
	}
	return true
}

func (o objects) has(name string) bool {
	name = o.of.canonical(name)
	return o.names[name] || o.plain[name]
}
