package lake

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// Relocation carries one Iceberg table from one bucket to another and rewrites its metadata there, so that it can be read with the
// first one gone, at every snapshot that its present metadata names. It never deletes, and what a run that was ended leaves is invisible
// or a whole version.
type Relocation struct {
	From, To bucket.Bucket // keys are relative to their roots
	// FromURL is what paths in the metadata begin with for keys of From, ToURL what they are to begin with: s3://lake/app.
	FromURL, ToURL string
	// Root is the table's folder below both roots, without a slash at its end; "" is the root itself.
	Root string
	// Read reads a file of From that is to be written with changes, verified. One of more than most bytes is bucket-failed. Where most is more than
	// format.MostUnpacked the bytes are given to scratch.Free. nil reads without comparing.
	Read func(ctx context.Context, key string, most int64) ([]byte, error)
	// Carry makes sure that a file is at the far side under the same key, unchanged and verified. size is what the metadata says, in
	// bytes. It is called for data files, files of equality deletes and statistics, before anything that names them is written, from up to four
	// goroutines at once, and not again for what the far side is known to have.
	Carry func(ctx context.Context, key string, size int64) error
	Log   *slog.Logger // nil for none
}

// Relocated counts what a run has carried or written; what was there already is not counted.
type Relocated struct {
	Metadata      int // versions of the table's metadata: 1 or 0
	ManifestLists int
	Manifests     int
	DeleteFiles   int // of any kind
	DataFiles     int
	Statistics    int // files
	Version       int // of the table that the far side has now: N of vN.metadata.json or of 0000N-….metadata.json
}

// Nothing says whether the far side had all.
func (r Relocated) Nothing() bool {
	r.Version = 0
	return r == Relocated{}
}

// relocationWorkers is how many manifest lists, how many manifests and how many other files are in memory at once.
const relocationWorkers = 4

// relocationTries is how often a run begins anew because the table has lost files that its version named.
const relocationTries = 3

// mover is a relocation that runs.
type mover struct {
	Relocation
	places  places
	arrived *arrivals
	// Slots of work. Whoever waits for one of manifests holds none of files, nor one of its own kind.
	manifests, files chan struct{}

	metadataFiles, manifestLists, manifestFiles, deleteFiles, dataFiles, statistics atomic.Int64
}

// Run carries the table as the source has it now. Beside faults of the buckets and of Carry: lake-missing when there is no table,
// lake-foreign when it names a file outside FromURL or the far side holds a newer version, lake-failed when a file cannot be understood.
// After an error the far side has the version that it had before, or the new one.
func (r *Relocation) Run(ctx context.Context) (_ Relocated, err error) {
	defer fault.Catch(&err, r.Log, r.where())
	m := &mover{Relocation: *r, places: newPlaces(r.FromURL, r.ToURL),
		manifests: make(chan struct{}, relocationWorkers), files: make(chan struct{}, relocationWorkers)}
	if m.Log == nil {
		m.Log = slog.New(slog.DiscardHandler)
	}
	v, err := m.current(ctx)
	for try := 1; err == nil; try++ {
		err = m.relocate(ctx, v)
		if !fault.Is(err, fault.ObjectMissing) || try == relocationTries {
			break
		}
		// Snapshots may have expired while we read: then there is a newer version, which does not name what is gone.
		now, again := m.current(ctx)
		if again != nil || now.name == v.name {
			break
		}
		m.Log.Info("the table has changed while it was read; its new version is taken", "table", m.where(), "before", v.name, "now", now.name)
		v, err = now, nil
	}
	return Relocated{
		Metadata: int(m.metadataFiles.Load()), ManifestLists: int(m.manifestLists.Load()), Manifests: int(m.manifestFiles.Load()),
		DeleteFiles: int(m.deleteFiles.Load()), DataFiles: int(m.dataFiles.Load()), Statistics: int(m.statistics.Load()), Version: v.number,
	}, err
}

// relocate is the order of the steps: what names a file is written after it, and the pointer last.
func (m *mover) relocate(ctx context.Context, v metadataVersion) error {
	data, err := m.read(ctx, m.metadataKey(v.name), format.MostUnpacked)
	if err != nil {
		return err
	}
	meta, err := m.readMetadata(v.name, data)
	if err != nil {
		return err
	}
	there, err := m.farSide(ctx, v)
	if err != nil {
		return err
	}
	if err := m.loadArrivals(ctx, v.name, there); err != nil {
		return err
	}
	if err := m.snapshots(ctx, meta.lists); err != nil {
		return err
	}
	for _, f := range meta.statistics {
		if err := m.carryStatistics(ctx, f); err != nil {
			return err
		}
	}
	if err := m.saveArrivals(ctx); err != nil {
		return err
	}
	return m.publish(ctx, v, meta.moved, there)
}

// publish makes the version visible: its metadata, then the pointer. Both are left alone where they are right.
func (m *mover) publish(ctx context.Context, v metadataVersion, data []byte, there map[uint64]int64) error {
	key := m.metadataKey(v.name)
	has, err := m.holds(ctx, key, data, there)
	if err != nil {
		return err
	}
	if !has {
		if err := m.put(ctx, key, data, bucket.WriteOptions{ContentType: "application/json"}); err != nil {
			return err
		}
		m.metadataFiles.Add(1)
	}
	pointer := []byte(v.pointer())
	key = m.metadataKey(hintName)
	if has, err = m.holds(ctx, key, pointer, there); err != nil || has {
		return err
	}
	return m.put(ctx, key, pointer, bucket.WriteOptions{ContentType: "text/plain"})
}

// holds says whether the far side has just these bytes.
func (m *mover) holds(ctx context.Context, key string, data []byte, there map[uint64]int64) (bool, error) {
	if size, ok := there[keyHash(key)]; !ok || size != int64(len(data)) {
		return false, nil
	}
	old, err := bucket.ReadAll(ctx, m.To, key, maxMetadata)
	if fault.Is(err, fault.ObjectMissing) {
		return false, nil
	}
	return bytes.Equal(old, data), err
}

const hintName = "version-hint.text"

// metadataVersion is a version of the table by the name of its file.
type metadataVersion struct {
	name   string
	number int
	plain  bool // vN, which readers find by counting; else a catalog knows which one is current
}

var versionNames = regexp.MustCompile(`^(v?)(\d{1,9})(-[^/]*)?(\.gz)?\.metadata\.json(\.gz)?$`)

func parseVersion(name string) (metadataVersion, bool) {
	part := versionNames.FindStringSubmatch(name)
	if part == nil || (part[1] == "v") != (part[3] == "") {
		return metadataVersion{}, false
	}
	n, err := strconv.Atoi(part[2])
	return metadataVersion{name: name, number: n, plain: part[1] == "v"}, err == nil
}

// pointer is what version-hint.text says. Readers put a word that is not a number before .metadata.json.
func (v metadataVersion) pointer() string {
	if v.plain {
		return strconv.Itoa(v.number)
	}
	return strings.TrimSuffix(v.name, ".metadata.json")
}

// current finds the version that the source has now.
func (m *mover) current(ctx context.Context) (metadataVersion, error) {
	data, err := m.read(ctx, m.metadataKey(hintName), 1<<10)
	if err != nil && !fault.Is(err, fault.ObjectMissing) {
		return metadataVersion{}, err
	}
	hint := strings.TrimSpace(string(data))
	if n, notNumber := strconv.Atoi(hint); notNumber == nil {
		v, err := m.counted(ctx, n)
		if err != nil || v.name != "" {
			return v, err
		}
	}
	for _, name := range []string{hint, hint + ".metadata.json"} {
		if v, ok := parseVersion(name); ok && !v.plain {
			return v, nil
		}
	}
	return m.highest(ctx)
}

// counted goes on from the hint, which may lag behind, to the last version that is there; none if the hint leads nowhere.
func (m *mover) counted(ctx context.Context, n int) (v metadataVersion, err error) {
	for n = max(n, 1); ; n++ {
		name, err := m.numbered(ctx, n)
		if err != nil || name == "" {
			return v, err
		}
		v = metadataVersion{name: name, number: n, plain: true}
	}
}

// numbered is the file of a version that readers find by counting, which may be packed; "" without one.
func (m *mover) numbered(ctx context.Context, n int) (string, error) {
	for _, ending := range []string{".metadata.json", ".gz.metadata.json", ".metadata.json.gz"} {
		name := "v" + strconv.Itoa(n) + ending
		switch _, err := m.From.Stat(ctx, m.metadataKey(name)); {
		case err == nil:
			return name, nil
		case !fault.Is(err, fault.ObjectMissing):
			return "", err
		}
	}
	return "", nil
}

// highest lists all versions. A catalog may have refused one of two with the same number: the later one is taken, and told.
// Where a table was dropped and made again in its folder, the numbers of the one that is gone may be higher: the file that was
// written last says so.
func (m *mover) highest(ctx context.Context) (best metadataVersion, err error) {
	var found, newest bucket.Object
	var last metadataVersion
	prefix := m.metadataKey("")
	for o, err := range m.From.List(ctx, prefix) {
		if err != nil {
			return best, err
		}
		v, ok := parseVersion(o.Key[len(prefix):])
		if ok && (last.name == "" || !o.Modified.Before(newest.Modified)) {
			last, newest = v, o
		}
		if !ok || best.name != "" && (v.number < best.number || v.number == best.number && o.Modified.Before(found.Modified)) {
			continue
		}
		if v.number == best.number && best.name != "" {
			m.Log.Warn("two versions of a table have the same number; the later one is taken", "table", m.where(), "taken", v.name, "left", best.name)
		}
		best, found = v, o
	}
	if last.name != best.name {
		if replaced, err := m.replaced(ctx, best, last); err != nil || replaced {
			return last, err
		}
	}
	if best.name == "" {
		return best, fault.New(fault.LakeMissing, m.where(), "there is no metadata of an Iceberg table here").
			WithMend("Check the table's folder; it must hold metadata/v1.metadata.json or the like.")
	}
	return best, nil
}

// replaced says whether the version that was written last is of another table than the one with the highest number, and newer.
// What cannot be read as metadata says nothing.
func (m *mover) replaced(ctx context.Context, highest, last metadataVersion) (bool, error) {
	var tables [2]struct {
		UUID    string `json:"table-uuid"`
		Updated int64  `json:"last-updated-ms"`
	}
	for i, v := range []metadataVersion{highest, last} {
		data, err := m.read(ctx, m.metadataKey(v.name), format.MostUnpacked)
		if err != nil {
			return false, err
		}
		if bytes.HasPrefix(data, []byte{0x1f, 0x8b}) {
			data, _ = format.UnpackGzip(data) // what cannot be unpacked is no JSON either
		}
		if understood := bucket.DecodeJSON(data, &tables[i]) == nil; !understood || tables[i].UUID == "" {
			return false, nil
		}
	}
	if tables[0].UUID == tables[1].UUID || tables[1].Updated <= tables[0].Updated {
		return false, nil
	}
	m.Log.Warn("the folder has metadata of two tables; the one that was written to last is taken", "table", m.where(), "taken", last.name, "left", highest.name)
	return true, nil
}

// farSide lists what the far side has of the table: sizes by the hashes of keys.
func (m *mover) farSide(ctx context.Context, v metadataVersion) (map[uint64]int64, error) {
	there := map[uint64]int64{}
	versions := m.metadataKey("")
	for o, err := range m.To.List(ctx, m.prefix()) {
		if err != nil {
			return nil, err
		}
		there[keyHash(o.Key)] = o.Size
		name, ok := strings.CutPrefix(o.Key, versions)
		if !ok {
			continue
		}
		// Readers who count would go past our version to that one.
		if far, ok := parseVersion(name); ok && far.plain && v.plain && far.number > v.number {
			return nil, fault.New(fault.LakeForeign, m.places.to+o.Key, "the far side holds a newer version of the table than the source, which stands at %d", v.number).
				WithMend("The source's table was made anew or set back, or somebody writes at the far side. Remove the table at the far side, or only its metadata folder, and mirror again.")
		}
	}
	return there, nil
}

// prefix is what keys of the table begin with.
func (m *mover) prefix() string {
	if m.Root == "" {
		return ""
	}
	return m.Root + "/"
}

func (m *mover) metadataKey(name string) string { return m.prefix() + "metadata/" + name }

// where names the table in errors.
func (r *Relocation) where() string { return strings.TrimSuffix(asFolder(r.FromURL)+r.Root, "/") }

// failed judges an error about a file. Faults stay what they are.
func (m *mover) failed(err error, key, what string) error {
	if err == nil || fault.Of(err) != nil {
		return err
	}
	return fault.Wrap(err, fault.LakeFailed, asFolder(m.FromURL)+key, "%s", what)
}

// read reads a file of the source.
func (m *mover) read(ctx context.Context, key string, most int64) ([]byte, error) {
	if m.Read == nil {
		return bucket.ReadAll(ctx, m.From, key, most)
	}
	return m.Read(ctx, key, most)
}

// put writes a file to the far side, which must keep it under its very key.
func (m *mover) put(ctx context.Context, key string, data []byte, o bucket.WriteOptions) error {
	if err := bucket.Holds(ctx, m.To, key); err != nil {
		return err
	}
	_, err := bucket.WriteAll(ctx, m.To, key, data, o)
	return err
}

// take waits for a slot of work.
func take(ctx context.Context, slots chan struct{}) (release func(), err error) {
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
