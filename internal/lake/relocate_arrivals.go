package lake

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// arrivals is what of a table is at the far side, by the hashes of keys, with sizes in bytes. A file of Iceberg never changes under one
// name, so what has arrived with its size stays good. The list is kept at the far side, because names alone do not tell whether a file was put
// there by us, with its new paths, or by somebody who copied it as it was.
type arrivals struct {
	mu     sync.Mutex
	inside string                   // prefix of the keys that a listing of the table tells
	now    map[uint64]int64         // arrived or found whole in this run
	beyond map[uint64]int64         // the same of keys elsewhere, which are not kept
	flying map[uint64]chan struct{} // being carried
	kinds  map[uint64]fileKind      // of those that name other files; all others are asPlain
	log    *slog.Logger
	before map[uint64]int64 // arrived in earlier runs and still there
	gone   map[uint64]int64 // arrived in earlier runs and not there any more, or with another size
	whole  bool             // all that arrived earlier is still there
	loaded int              // how many are on the list that is kept
}

// fileKind is what a file is to the table. Each kind waits only for the later ones, so a file that is named as two kinds is refused: a list
// that names itself as a manifest would wait for itself.
type fileKind string

const (
	asMetadata  fileKind = "the table's metadata"
	asList      fileKind = "a list of manifests"
	asManifest  fileKind = "a manifest"
	asPositions fileKind = "a file of position deletes"
	asPlain     fileKind = "a file that is carried as it is"
)

// arrivalList is arrivals as they are kept. It counts only for the same two places.
type arrivalList struct {
	Version int    `json:"version"`
	From    string `json:"from"`
	To      string `json:"to"`
	Files   []byte `json:"files"` // 16 bytes each: hash and size
}

func keyHash(key string) uint64 {
	sum := sha256.Sum256([]byte(key))
	return binary.BigEndian.Uint64(sum[:8])
}

func (m *mover) listKey() string {
	if m.Root == "" {
		return ".leat/relocated.json"
	}
	return ".leat/relocated/" + m.Root + ".json"
}

// loadArrivals compares the list that an earlier run left with what is there: sizes of the table's files at the far side, by hash.
func (m *mover) loadArrivals(ctx context.Context, version string, there map[uint64]int64) error {
	a := &arrivals{
		inside: m.prefix(), flying: map[uint64]chan struct{}{}, log: m.Log,
		kinds: map[uint64]fileKind{keyHash(m.metadataKey(version)): asMetadata, keyHash(m.metadataKey(hintName)): asMetadata},
		now:   map[uint64]int64{}, beyond: map[uint64]int64{}, before: map[uint64]int64{}, gone: map[uint64]int64{},
	}
	m.arrived = a
	data, err := bucket.ReadAll(ctx, m.To, m.listKey(), maxMetadata)
	if fault.Is(err, fault.ObjectMissing) {
		return nil
	}
	if err != nil {
		return err
	}
	list, ok := m.understand(data)
	if !ok {
		return nil // it tells nothing: all is carried as if for the first time
	}
	a.whole, a.loaded = true, len(list.Files)/16
	for f := list.Files; len(f) > 0; f = f[16:] {
		hash, size := binary.BigEndian.Uint64(f), int64(binary.BigEndian.Uint64(f[8:]))
		if now, ok := there[hash]; ok && now == size {
			a.before[hash] = size
		} else {
			a.gone[hash], a.whole = size, false
		}
	}
	return nil
}

// understand reads a list, if it is one of these two places.
func (m *mover) understand(data []byte) (list arrivalList, ok bool) {
	err := bucket.DecodeJSON(data, &list)
	return list, err == nil && list.Version == 1 && list.From == m.FromURL && list.To == m.ToURL && len(list.Files)%16 == 0
}

// Brought says of keys whether a relocation has brought them to the target, by the list that it has left there; nil without one.
func (r *Relocation) Brought(ctx context.Context) (has func(key string) bool, err error) {
	m := &mover{Relocation: *r}
	data, err := bucket.ReadAll(ctx, m.To, m.listKey(), maxMetadata)
	if fault.Is(err, fault.ObjectMissing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, ok := m.understand(data)
	if !ok {
		return nil, nil
	}
	all := make(map[uint64]bool, len(list.Files)/16)
	for f := list.Files; len(f) > 0; f = f[16:] {
		all[binary.BigEndian.Uint64(f)] = true
	}
	return func(key string) bool { return all[keyHash(key)] }, nil
}

// earlier says whether a file arrived in an earlier run and is there, with its size.
func (a *arrivals) earlier(key string) (size int64, ok bool) {
	size, ok = a.before[keyHash(key)]
	return size, ok
}

// recorded is the size with which a file arrived in an earlier run, whatever is there now.
func (a *arrivals) recorded(key string) (size int64, ok bool) {
	if size, ok = a.earlier(key); !ok {
		size, ok = a.gone[keyHash(key)]
	}
	return size, ok
}

// arrivedSize is the size of a file that arrived in this run or was found whole.
func (a *arrivals) arrivedSize(key string) (int64, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.size(keyHash(key))
}

// is notes of which kind a file is; an error when it has been named as another one. The lock must be held.
func (a *arrivals) is(hash uint64, key string, kind fileKind) error {
	was, known := a.kinds[hash]
	if !known {
		was = asPlain
		_, arrived := a.size(hash)
		_, flies := a.flying[hash]
		known = arrived || flies
	}
	if known && was != kind {
		return fault.New(fault.LakeFailed, key, "the table's metadata names it as %s and as %s", was, kind).
			WithMend("The table's metadata is damaged. Restore it at the source, or leave the table out.")
	}
	if kind != asPlain {
		a.kinds[hash] = kind
	}
	return nil
}

// once calls carry for a key once in this run, for all callers, and returns the file's size at the far side.
func (a *arrivals) once(ctx context.Context, key string, kind fileKind, carry func() (int64, error)) (int64, error) {
	hash := keyHash(key)
	for {
		a.mu.Lock()
		if err := a.is(hash, key, kind); err != nil {
			a.mu.Unlock()
			return 0, err
		}
		if size, ok := a.size(hash); ok {
			a.mu.Unlock()
			return size, nil
		}
		other, flies := a.flying[hash]
		if !flies {
			break
		}
		a.mu.Unlock()
		select {
		case <-other: // and look again: it may have failed
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	done := make(chan struct{})
	a.flying[hash] = done
	a.mu.Unlock()
	size, err := guarded(a.log, key, carry)
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flying, hash)
	close(done)
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(key, a.inside) {
		a.now[hash] = size
	} else {
		a.beyond[hash] = size
	}
	return size, nil
}

// guarded carries a file; a panic becomes its error.
func guarded(log *slog.Logger, key string, carry func() (int64, error)) (size int64, err error) {
	defer fault.Catch(&err, log, key)
	return carry()
}

func (a *arrivals) size(hash uint64) (int64, bool) {
	if size, ok := a.now[hash]; ok {
		return size, true
	}
	size, ok := a.beyond[hash]
	return size, ok
}

// saveArrivals keeps the list for the next run, if it has changed. It is called when all that the metadata names has arrived.
func (m *mover) saveArrivals(ctx context.Context) error {
	a := m.arrived
	all := a.now
	if a.whole { // what was not looked at is still needed
		all = maps.Clone(a.before)
		maps.Copy(all, a.now)
		if len(all) == a.loaded {
			return nil
		}
	}
	list := arrivalList{Version: 1, From: m.FromURL, To: m.ToURL, Files: make([]byte, 0, 16*len(all))}
	for _, hash := range slices.Sorted(maps.Keys(all)) {
		list.Files = binary.BigEndian.AppendUint64(list.Files, hash)
		list.Files = binary.BigEndian.AppendUint64(list.Files, uint64(all[hash]))
	}
	data, err := json.Marshal(list)
	if err != nil {
		return fault.Wrap(err, fault.Internal, m.where(), "the list of what has arrived cannot be written")
	}
	return m.put(ctx, m.listKey(), data, bucket.WriteOptions{ContentType: "application/json"})
}
