package lake

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// Field ids of manifest lists and of manifests, as Iceberg's specification gives them.
const (
	idManifestPath    = 500
	idManifestLength  = 501
	idManifestContent = 517
	idStatus          = 0
	idContent         = 134
	idFilePath        = 100
	idFileFormat      = 101
	idRowCount        = 103
	idFileSize        = 104
	idSplitOffsets    = 132
	idLowKey          = 126
	idLowValue        = 127
	idHighKey         = 129
	idHighValue       = 130
	idReferenced      = 143
)

var (
	listIDs  = avroFields{idManifestPath: textForm, idManifestLength: numberForm, idManifestContent: numberForm}
	entryIDs = avroFields{idStatus: numberForm, idContent: numberForm, idFilePath: textForm, idFileFormat: textForm, idRowCount: numberForm,
		idFileSize:     numberForm,
		idSplitOffsets: anyForm, idLowKey: numberForm, idLowValue: textForm, idHighKey: numberForm, idHighValue: textForm, idReferenced: textForm}
)

// snapshots carries all that snapshots need, and their manifest lists.
func (m *mover) snapshots(ctx context.Context, lists []listedSnapshot) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(relocationWorkers)
	for _, s := range lists {
		g.Go(m.safely(m.where(), func() error {
			if s.list == "" {
				var named []namedManifest
				for _, path := range s.manifests {
					named = append(named, namedManifest{path: path})
				}
				return m.carryManifests(ctx, named)
			}
			return m.carryList(ctx, s.list)
		}))
	}
	return g.Wait()
}

// namedManifest is a manifest as a list names it.
type namedManifest struct {
	path    string
	deletes bool
}

// carryList carries all that a manifest list names, and then writes it.
func (m *mover) carryList(ctx context.Context, path string) error {
	key, err := m.places.key(path)
	if err != nil {
		return err
	}
	_, err = m.arrived.once(ctx, key, asList, func() (int64, error) {
		old, has := m.arrived.earlier(key)
		if has && m.arrived.whole {
			return old, nil
		}
		file, err := m.readAvroFile(ctx, key)
		if err != nil {
			return 0, err
		}
		var named []namedManifest
		err = file.records(ctx, listIDs, nil, func(r []avroValue) ([]avroEdit, error) {
			f := fieldsOf(r)
			named = append(named, namedManifest{path: f.text(idManifestPath), deletes: f.long(idManifestContent) == 1})
			return nil, nil
		})
		if err != nil {
			return 0, m.failed(err, key, "the list of manifests cannot be understood")
		}
		if err := m.carryManifests(ctx, named); err != nil {
			return 0, err
		}
		if has && !slices.ContainsFunc(named, func(n namedManifest) bool { return m.differs(n.path) }) {
			return old, nil
		}
		m.manifestLists.Add(1)
		return m.writeAvroFile(ctx, key, file, listIDs, func(r []avroValue) ([]avroEdit, error) { return m.moveListed(fieldsOf(r)) })
	})
	return err
}

// differs says whether a file has another size than it had when it arrived first. What names it tells the old one and must be written too:
// another version of leat may pack the same otherwise.
func (m *mover) differs(path string) bool {
	key, err := m.places.key(path)
	if err != nil {
		return true
	}
	old, has := m.arrived.recorded(key)
	now, _ := m.arrived.arrivedSize(key)
	return has && old != now
}

// moveListed changes a manifest's entry in a list.
func (m *mover) moveListed(f fields) ([]avroEdit, error) {
	key, err := m.places.key(f.text(idManifestPath))
	if err != nil {
		return nil, err
	}
	size, ok := m.arrived.arrivedSize(key)
	if !ok {
		return nil, fault.New(fault.Internal, key, "a manifest was not carried before its list")
	}
	edits := []avroEdit{f[idManifestPath].withBytes([]byte(m.places.to + key))}
	if length, ok := f[idManifestLength]; ok {
		edits = append(edits, length.withLong(size))
	}
	return sorted(edits), nil
}

// carryManifests carries manifests of data first, because files of deletes name data files.
func (m *mover) carryManifests(ctx context.Context, named []namedManifest) error {
	for _, deletes := range []bool{false, true} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(relocationWorkers)
		for _, n := range named {
			if n.deletes == deletes {
				g.Go(m.safely(n.path, func() error { return m.carryManifest(ctx, n.path) }))
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

// carryManifest carries all that a manifest names, and then writes it.
func (m *mover) carryManifest(ctx context.Context, path string) error {
	key, err := m.places.key(path)
	if err != nil {
		return err
	}
	_, err = m.arrived.once(ctx, key, asManifest, func() (int64, error) {
		old, has := m.arrived.earlier(key)
		if has && m.arrived.whole {
			return old, nil
		}
		release, err := take(ctx, m.manifests)
		if err != nil {
			return 0, err
		}
		defer release()
		file, err := m.readAvroFile(ctx, key)
		if err != nil {
			return 0, err
		}
		sizes, err := m.carryFiles(ctx, key, file)
		if err != nil || has && !slices.ContainsFunc(slices.Collect(maps.Keys(sizes)), m.differs) {
			return old, err
		}
		m.manifestFiles.Add(1)
		return m.writeAvroFile(ctx, key, file, entryIDs, func(r []avroValue) ([]avroEdit, error) { return m.moveEntry(fieldsOf(r), r, sizes) })
	})
	return err
}

// Kinds of content that an entry of a manifest tells.
const (
	contentData      = 0
	contentPositions = 1
	contentEquality  = 2
	statusDeleted    = 2
)

// carryFiles carries the files that a manifest names as being part of the table, and returns the new sizes of those that are written anew,
// by path.
func (m *mover) carryFiles(ctx context.Context, manifest string, file *avroFile) (map[string]*atomic.Int64, error) {
	sizes := map[string]*atomic.Int64{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(relocationWorkers)
	err := file.records(ctx, entryIDs, nil, func(r []avroValue) ([]avroEdit, error) {
		f := fieldsOf(r)
		path, size := f.text(idFilePath), f.long(idFileSize)
		if path == "" {
			return nil, fault.New(fault.LakeFailed, asFolder(m.FromURL)+manifest, "the manifest has an entry without a path")
		}
		if size < 0 {
			return nil, fault.Wrap(errNegativeSize, fault.LakeFailed, path, "the manifest %s cannot be right", manifest)
		}
		if f.long(idStatus) == statusDeleted { // may be gone for good
			return nil, nil
		}
		switch content := f.long(idContent); content {
		case contentData:
			g.Go(m.safely(path, func() error { return m.carry(gctx, path, size, &m.dataFiles) }))
		case contentEquality:
			g.Go(m.safely(path, func() error { return m.carry(gctx, path, size, &m.deleteFiles) }))
		case contentPositions:
			if sizes[path] != nil { // one file holds the vectors of many
				return nil, nil
			}
			moved, kind, rows := new(atomic.Int64), strings.ToLower(f.text(idFileFormat)), int64(-1)
			if f.has(idRowCount) {
				rows = max(0, f.long(idRowCount))
			}
			sizes[path] = moved
			g.Go(m.safely(path, func() error {
				n, err := m.carryPositions(gctx, path, kind, size, rows)
				moved.Store(n)
				return err
			}))
		default:
			return nil, fault.New(fault.LakeFailed, asFolder(m.FromURL)+manifest, "the manifest names a file of a kind that is not known here: %d", content)
		}
		return nil, gctx.Err()
	})
	if failed := g.Wait(); failed != nil {
		return nil, failed
	}
	return sizes, m.failed(err, manifest, "the manifest cannot be understood")
}

// carry has a file carried as it is.
func (m *mover) carry(ctx context.Context, path string, size int64, count *atomic.Int64) error {
	key, err := m.places.key(path)
	if err != nil {
		return err
	}
	_, err = m.arrived.once(ctx, key, asPlain, func() (int64, error) {
		if old, has := m.arrived.earlier(key); has {
			return old, nil
		}
		release, err := take(ctx, m.files)
		if err != nil {
			return 0, err
		}
		defer release()
		if err := m.Carry(ctx, key, size); err != nil {
			return 0, err
		}
		count.Add(1)
		return size, nil
	})
	return err
}

// moveEntry changes the entry of a file in a manifest.
func (m *mover) moveEntry(f fields, all []avroValue, sizes map[string]*atomic.Int64) ([]avroEdit, error) {
	path := f.text(idFilePath)
	moved, err := m.places.moved(path)
	if err != nil {
		return nil, err
	}
	edits := []avroEdit{f[idFilePath].withBytes([]byte(moved))}
	if f.has(idReferenced) {
		moved, err := m.places.moved(f.text(idReferenced))
		if err != nil {
			return nil, err
		}
		edits = append(edits, f[idReferenced].withBytes([]byte(moved)))
	}
	if f.long(idContent) != contentPositions {
		return sorted(edits), nil
	}
	if size := sizes[path]; size != nil {
		if f.has(idFileSize) {
			edits = append(edits, f[idFileSize].withLong(size.Load()))
		}
		// The file was written anew: its row groups lie elsewhere.
		if f.has(idSplitOffsets) {
			if e, ok := f[idSplitOffsets].withNull(); ok {
				edits = append(edits, e)
			}
		}
	}
	return sorted(append(edits, m.moveBounds(all)...)), nil
}

// moveBounds changes the least and greatest path that a file of position deletes holds.
func (m *mover) moveBounds(all []avroValue) []avroEdit {
	find := func(idKey, idValue int) (avroValue, []byte) {
		for i := range all {
			if all[i].id == idKey && all[i].long() == deletePathID && i+1 < len(all) && all[i+1].id == idValue {
				return all[i+1], all[i+1].bytes()
			}
		}
		return avroValue{}, nil
	}
	low, oldLow := find(idLowKey, idLowValue)
	high, oldHigh := find(idHighKey, idHighValue)
	newLow, newHigh := m.places.movedBounds(oldLow, oldHigh)
	var edits []avroEdit
	if newLow != nil {
		edits = append(edits, low.withBytes(newLow))
	}
	if newHigh != nil {
		edits = append(edits, high.withBytes(newHigh))
	}
	return edits
}

// fields are a record's values by field id; those inside maps are not meant.
type fields map[int]avroValue

func fieldsOf(values []avroValue) fields {
	f := make(fields, len(values))
	for _, v := range values {
		f[v.id] = v
	}
	return f
}

// has says whether a field is there and not null.
func (f fields) has(id int) bool {
	v, ok := f[id]
	return ok && v.kind != "null"
}

func (f fields) long(id int) int64 {
	if !f.has(id) {
		return 0
	}
	return f[id].long()
}

func (f fields) text(id int) string {
	if !f.has(id) {
		return ""
	}
	return string(f[id].bytes())
}

func sorted(edits []avroEdit) []avroEdit {
	slices.SortFunc(edits, func(a, b avroEdit) int { return cmp.Compare(a.start, b.start) })
	return edits
}

// safely is for goroutines: a panic in one would end the process.
func (m *mover) safely(where string, work func() error) func() error {
	return fault.Catching(m.Log, where, work)
}

func (m *mover) readAvroFile(ctx context.Context, key string) (*avroFile, error) {
	data, err := m.read(ctx, key, format.MostUnpacked)
	if err != nil {
		return nil, err
	}
	f, err := openAvro(data)
	return f, m.failed(err, key, "it cannot be read as Avro")
}

// writeAvroFile writes a file with changes to the far side and returns its size there.
func (m *mover) writeAvroFile(ctx context.Context, key string, file *avroFile, want avroFields, change func([]avroValue) ([]avroEdit, error)) (int64, error) {
	var out bytes.Buffer
	if err := file.records(ctx, want, &out, change); err != nil {
		return 0, m.failed(err, key, "it cannot be written with its new paths")
	}
	return int64(out.Len()), m.put(ctx, key, out.Bytes(), bucket.WriteOptions{ContentType: "application/octet-stream", Lazy: true})
}
