package keyindex

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unsafe"

	"github.com/leatdata/leat/internal/fault"
)

// Options say what an index is for.
type Options struct {
	Multi    bool  // a key may have several places
	Snapshot int64 // the snapshot that the index must have been closed at to be used
}

const magic = "leatkix1"

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// closed is what the mark of a clean end says. It names the file of pages: a process that was thought dead and wakes up
// describes with it a file that is gone, never the one of its successor.
type closed struct {
	Pages    string
	Order    string // of the machine's words: "little" or "big"
	Snapshot int64
	Multi    bool
	Seed     seed
	Len      int64
	Used     uint32
	Depth    uint
	Note     []byte
}

func order() string {
	w := uint16(1)
	if *(*byte)(unsafe.Pointer(&w)) == 1 {
		return "little"
	}
	return "big"
}

// Open opens the index at a path, a prefix of file names in a folder that is there. Where there is none that was closed cleanly
// at the snapshot asked for, it is empty and NeedsRebuild, and has no file before the first place is put.
func Open(path string, o Options) (*Index, error) {
	x, err := resume(path, o)
	if err != nil || x != nil {
		return x, err
	}
	removeOld(path)
	x = &Index{path: path, multi: o.Multi, rebuild: true}
	var secret [16]byte
	_, _ = rand.Read(secret[:])
	x.seed = seed{K0: binary.LittleEndian.Uint64(secret[:]), K1: binary.LittleEndian.Uint64(secret[8:])}
	return x, nil
}

func markOf(path string) string { return path + ".closed" }

// resume takes over a cleanly closed index; nil where there is none to be trusted. The mark is taken away first and by a
// rename, so that of two processes only one has it and a crash from here on leaves no mark.
func resume(path string, o Options) (*Index, error) {
	taken := markOf(path) + "." + random()
	if err := os.Rename(markOf(path), taken); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, fault.Wrap(err, fault.StateUnusable, path, "the key index's mark cannot be taken")
	}
	defer os.Remove(taken)
	if err := syncFolder(path); err != nil {
		return nil, fault.Wrap(err, fault.StateUnusable, path, "the key index's folder cannot be written")
	}
	data, err := os.ReadFile(taken)
	if err != nil {
		return nil, fault.Wrap(err, fault.StateUnusable, path, "the key index's mark cannot be read")
	}
	c, dir, ok := readMark(data)
	if !ok || c.Snapshot != o.Snapshot || c.Multi != o.Multi {
		return nil, nil
	}
	f, err := os.OpenFile(filepath.Join(filepath.Dir(path), c.Pages), os.O_RDWR, 0)
	if err != nil {
		return nil, nil //nolint:nilerr // an index without its pages is built anew
	}
	x := &Index{path: path, name: c.Pages, dir: dir, depth: c.Depth, seed: c.Seed, multi: c.Multi, n: c.Len, note: c.Note, pages: pages{f: f}}
	if !x.attachAll(c.Used) {
		_ = x.pages.close(false)
		return nil, nil
	}
	return x, nil
}

// attachAll maps the pages of a file that is to have so many; false when it is too short.
func (x *Index) attachAll(used uint32) bool {
	info, err := x.pages.f.Stat()
	if err != nil {
		return false
	}
	for x.pages.have < used {
		n := segmentPages(len(x.pages.segments))
		if info.Size() < int64(x.pages.have+n)*pageSize || x.pages.attach(n) != nil {
			return false
		}
	}
	x.pages.used = used
	return true
}

// create makes the file of an empty index.
func (x *Index) create() error {
	x.name = filepath.Base(x.path) + "." + random() + ".pages"
	f, err := os.OpenFile(filepath.Join(filepath.Dir(x.path), x.name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fault.Wrap(err, fault.StateUnusable, x.path, "the key index cannot be created")
	}
	x.pages = pages{f: f}
	dir := make([]uint32, 2)
	for i := range dir {
		n, p, err := x.pages.take()
		if err != nil {
			_ = x.pages.close(false)
			os.Remove(f.Name())
			return fault.Wrap(err, fault.StateUnusable, x.path, "the key index cannot be created")
		}
		p.set(0, 1)
		dir[i] = n
	}
	x.dir, x.depth = dir, 1
	return nil
}

// made says whether the index has a file.
func (x *Index) made() bool { return x.dir != nil }

var ours = regexp.MustCompile(`^\.(closed(\.[0-9a-f]{16})?|[0-9a-f]{16}\.pages)$`)

// removeOld removes the files of indexes at this path.
func removeOld(path string) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return
	}
	defer dir.Close()
	all, err := dir.Readdirnames(-1) // their order does not matter, and there may be many
	if err != nil {
		return
	}
	for _, name := range all {
		if rest, ok := strings.CutPrefix(name, filepath.Base(path)); ok && ours.MatchString(rest) {
			os.Remove(filepath.Join(filepath.Dir(path), name))
		}
	}
}

// Clear empties the index. Hashes of keys stay what they were.
func (x *Index) Clear() error {
	x.n, x.note = 0, nil
	if !x.made() {
		return nil
	}
	if err := x.pages.close(false); err != nil {
		return fault.Wrap(err, fault.StateUnusable, x.path, "the key index cannot be emptied")
	}
	os.Remove(filepath.Join(filepath.Dir(x.path), x.name))
	x.pages, x.dir, x.depth = pages{}, nil, 0
	return nil
}

// CloseAt ends the use of the index and marks it as true for a snapshot. The note is kept with it.
func (x *Index) CloseAt(snapshot int64, note []byte) error {
	if !x.made() {
		if err := x.create(); err != nil {
			return err
		}
	}
	used := x.pages.used
	if err := x.pages.close(true); err != nil {
		return fault.Wrap(err, fault.StateUnusable, x.path, "the key index cannot be written")
	}
	data := writeMark(closed{Pages: x.name, Order: order(), Snapshot: snapshot, Multi: x.multi, Seed: x.seed, Len: x.n, Used: used,
		Depth: x.depth, Note: note}, x.dir)
	if err := x.putMark(data); err != nil {
		return fault.Wrap(err, fault.StateUnusable, x.path, "the key index cannot be closed")
	}
	return nil
}

func (x *Index) putMark(data []byte) error {
	scratch := markOf(x.path) + "." + random()
	f, err := os.OpenFile(scratch, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(scratch, markOf(x.path))
	}
	if err != nil {
		os.Remove(scratch)
		return err
	}
	return syncFolder(x.path)
}

// Drop ends the use of the index and removes its files.
func (x *Index) Drop() {
	if !x.made() {
		return
	}
	_ = x.pages.close(false)
	os.Remove(filepath.Join(filepath.Dir(x.path), x.name))
}

func writeMark(c closed, dir []uint32) []byte {
	head, _ := json.Marshal(c) // of numbers and strings: there is no error
	b := append([]byte(magic), 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[len(magic):], uint32(len(head)))
	b = append(b, head...)
	for _, v := range dir {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
}

func readMark(b []byte) (c closed, dir []uint32, ok bool) {
	at := len(magic) + 4
	if len(b) < at+4 || string(b[:len(magic)]) != magic {
		return c, nil, false
	}
	body := b[:len(b)-4]
	if binary.LittleEndian.Uint32(b[len(b)-4:]) != crc32.Checksum(body, crcTable) {
		return c, nil, false
	}
	n := int(binary.LittleEndian.Uint32(b[len(magic):]))
	if n > len(body)-at || json.Unmarshal(body[at:at+n], &c) != nil {
		return c, nil, false
	}
	rest := body[at+n:]
	if c.Depth < 1 || c.Depth > 40 || len(rest) != 4<<c.Depth || c.Order != order() || filepath.Base(c.Pages) != c.Pages {
		return c, nil, false
	}
	dir = make([]uint32, 1<<c.Depth)
	for i := range dir {
		if dir[i] = binary.LittleEndian.Uint32(rest[4*i:]); dir[i] >= c.Used {
			return c, nil, false
		}
	}
	return c, dir, true
}

// random is a name that no other has.
func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// syncFolder makes the names in the index's folder outlast a power cut.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
