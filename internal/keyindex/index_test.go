package keyindex_test

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/leatdata/leat/internal/keyindex"
)

func open(t testing.TB, path string, o keyindex.Options) *keyindex.Index {
	t.Helper()
	x, err := keyindex.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func key(n uint64) []byte { return binary.LittleEndian.AppendUint64(nil, n) }

func TestTheIndexAgreesWithAMap(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "public.orders")
	x := open(t, path, keyindex.Options{})
	if !x.NeedsRebuild() {
		t.Error("a new index does not say that it is empty")
	}
	model := map[uint64]uint64{}
	r := rand.New(rand.NewPCG(1, 2))
	for step := range 600_000 {
		k := r.Uint64N(120_000)
		h := x.Hash(key(k))
		if h != x.HashWord(k) {
			t.Fatal("a word's hash is not that of its bytes")
		}
		want, there := model[k]
		var got uint64
		var had bool
		switch r.IntN(4) {
		case 0, 1:
			loc := r.Uint64N(keyindex.MaxLocation)
			var err error
			if got, had, err = x.Put(h, loc); err != nil {
				t.Fatal(err)
			}
			model[k] = loc
		case 2:
			got, had = x.Delete(h)
			delete(model, k)
		default:
			got, had = x.Get(h)
		}
		if had != there || had && got != want {
			t.Fatalf("step %d, key %d: got %d %v, want %d %v", step, k, got, had, want, there)
		}
		if step%150_000 == 149_999 {
			if err := x.CloseAt(int64(step), []byte("files")); err != nil {
				t.Fatal(err)
			}
			x = open(t, path, keyindex.Options{Snapshot: int64(step)})
			if x.NeedsRebuild() || string(x.Note()) != "files" {
				t.Fatal("a cleanly closed index was not taken over")
			}
		}
	}
	if x.Len() != int64(len(model)) {
		t.Errorf("%d entries, want %d", x.Len(), len(model))
	}
	before := x.HashWord(1)
	if err := x.Clear(); err != nil {
		t.Fatal(err)
	}
	if x.HashWord(1) != before {
		t.Error("a cleared index hashes keys in another way")
	}
	if _, had := x.Get(x.HashWord(1)); had || x.Len() != 0 {
		t.Error("a cleared index still finds a key")
	}
	x.Drop()
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("a dropped index left %v", left)
	}
}

func TestAMultisetKeepsEachPlaceOfAKey(t *testing.T) {
	t.Parallel()
	x := open(t, filepath.Join(t.TempDir(), "x"), keyindex.Options{Multi: true})
	defer x.Drop()
	model := map[uint64]map[uint64]bool{}
	r := rand.New(rand.NewPCG(3, 4))
	n := int64(0)
	for step := range 300_000 {
		k := r.Uint64N(1 + r.Uint64N(2000))
		h := x.HashWord(k)
		if model[k] == nil {
			model[k] = map[uint64]bool{}
		}
		if r.IntN(5) < 3 {
			if _, had, err := x.Put(h, uint64(step)); err != nil || had {
				t.Fatal(had, err)
			}
			model[k][uint64(step)] = true
			n++
			continue
		}
		loc, had := x.Delete(h)
		if had != (len(model[k]) > 0) || had && !model[k][loc] {
			t.Fatalf("step %d: key %d gave %d %v", step, k, loc, had)
		}
		if had {
			delete(model[k], loc)
			n--
		}
		if loc, had := x.Get(h); had != (len(model[k]) > 0) || had && !model[k][loc] {
			t.Fatalf("step %d: key %d is at %d %v", step, k, loc, had)
		}
	}
	if x.Len() != n {
		t.Errorf("%d places, want %d", x.Len(), n)
	}
	seen := int64(0)
	for from, done := uint32(0), false; !done; {
		from, done = x.Walk(from, 7, func(l uint64) uint64 { seen++; return l + 1 })
	}
	if seen != n {
		t.Errorf("the walk saw %d places of %d", seen, n)
	}
	for k, places := range model {
		for range len(places) {
			loc, had := x.Delete(x.HashWord(k))
			if !had || !places[loc-1] {
				t.Fatalf("key %d gave %d %v", k, loc, had)
			}
		}
	}
}

func TestAnIndexThatWasNotClosedIsBuiltAnew(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x")
	fill := func(x *keyindex.Index) {
		for k := range uint64(1000) {
			if _, _, err := x.Put(x.HashWord(k), k); err != nil {
				t.Fatal(err)
			}
		}
	}
	first := open(t, path, keyindex.Options{})
	fill(first)
	if err := first.CloseAt(7, nil); err != nil {
		t.Fatal(err)
	}
	// As after kill -9: it was taken over and never closed.
	dead := open(t, path, keyindex.Options{Snapshot: 7})
	if dead.NeedsRebuild() {
		t.Fatal("the clean index was not taken over")
	}
	next := open(t, path, keyindex.Options{Snapshot: 7})
	if !next.NeedsRebuild() || next.Len() != 0 {
		t.Error("an index that was not closed was trusted")
	}
	// The one thought dead wakes up: what it does must not reach its successor.
	fill(dead)
	if _, had := next.Get(next.HashWord(5)); had {
		t.Error("two processes share one index")
	}
	if err := dead.CloseAt(9, nil); err != nil {
		t.Fatal(err)
	}
	if again := open(t, path, keyindex.Options{Snapshot: 9}); !again.NeedsRebuild() {
		t.Error("the mark of a process thought dead was believed")
	}
}

func TestAnIndexIsTrustedOnlyAtItsSnapshotAndWhole(t *testing.T) {
	t.Parallel()
	f := func(name string, spoil func(dir string), o keyindex.Options) {
		t.Helper()
		dir := t.TempDir()
		x := open(t, filepath.Join(dir, "x"), keyindex.Options{})
		if _, _, err := x.Put(x.HashWord(1), 1); err != nil {
			t.Fatal(err)
		}
		if err := x.CloseAt(7, nil); err != nil {
			t.Fatal(err)
		}
		spoil(dir)
		if got := open(t, filepath.Join(dir, "x"), o); !got.NeedsRebuild() {
			t.Errorf("%s: the index was trusted", name)
		}
	}
	at := keyindex.Options{Snapshot: 7}
	f("another snapshot", func(string) {}, keyindex.Options{Snapshot: 8})
	f("another kind", func(string) {}, keyindex.Options{Snapshot: 7, Multi: true})
	f("torn mark", func(dir string) {
		b, _ := os.ReadFile(filepath.Join(dir, "x.closed"))
		b[20] ^= 1
		_ = os.WriteFile(filepath.Join(dir, "x.closed"), b, 0o600)
	}, at)
	for name, change := range map[string]func(head string, rest []byte) (string, []byte){
		"a mark of more depth than there is": func(head string, rest []byte) (string, []byte) {
			return depths.ReplaceAllString(head, `"Depth":62`), nil
		},
		"a mark of more depth than its directory": func(head string, rest []byte) (string, []byte) {
			return depths.ReplaceAllString(head, `"Depth":7`), rest
		},
		"a mark that names a page that is not used": func(head string, rest []byte) (string, []byte) {
			return head, append([]byte{0xff, 0xff}, rest[2:]...)
		},
		"a mark whose head is longer than all": func(head string, rest []byte) (string, []byte) { return "", nil },
	} {
		f(name, func(dir string) { remark(t, filepath.Join(dir, "x.closed"), change) }, at)
	}
	f("short pages", func(dir string) {
		all, _ := filepath.Glob(filepath.Join(dir, "*.pages"))
		_ = os.Truncate(all[0], 4096)
	}, at)
	f("no pages", func(dir string) {
		all, _ := filepath.Glob(filepath.Join(dir, "*.pages"))
		_ = os.Remove(all[0])
	}, at)
}

var depths = regexp.MustCompile(`"Depth":[0-9]+`)

// remark changes what a mark says, and gives it the checksum of that. A head of nothing is said to be long.
func remark(t *testing.T, path string, change func(head string, rest []byte) (string, []byte)) {
	t.Helper()
	const magic = 8
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := int(binary.LittleEndian.Uint32(b[magic:]))
	head, rest := change(string(b[magic+4:magic+4+n]), b[magic+4+n:len(b)-4])
	if n = len(head); n == 0 {
		n = 1 << 20
	}
	out := binary.LittleEndian.AppendUint32(slices.Clone(b[:magic]), uint32(n))
	out = append(append(out, head...), rest...)
	out = binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkFiveMillionKeys(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x")
	x := open(b, path, keyindex.Options{})
	const n = 5_000_000
	for k := range uint64(n) {
		if _, _, err := x.Put(x.HashWord(k), k); err != nil {
			b.Fatal(err)
		}
	}
	size := int64(0)
	all, _ := filepath.Glob(path + "*")
	for _, f := range all {
		info, _ := os.Stat(f)
		size += info.Size()
	}
	b.ReportMetric(float64(size)/1e6, "MB")
	r := rand.New(rand.NewPCG(1, 2))
	b.Run("put", func(b *testing.B) {
		for b.Loop() {
			if _, _, err := x.Put(x.HashWord(r.Uint64N(n)), 5); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get", func(b *testing.B) {
		for b.Loop() {
			if _, had := x.Get(x.HashWord(r.Uint64N(n))); !had {
				b.Fatal("lost")
			}
		}
	})
	x.Drop()
}

func TestAnIndexHasNoFileBeforeAPlaceIsPut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	files := func() int {
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	for _, multi := range []bool{false, true} {
		path := filepath.Join(dir, "x")
		x := open(t, path, keyindex.Options{Multi: multi})
		h := x.HashWord(1)
		if _, had := x.Get(h); had {
			t.Error("a place is found")
		}
		if _, had := x.Delete(h); had {
			t.Error("a place is deleted")
		}
		if _, done := x.Walk(0, 9, func(at uint64) uint64 { return at }); !done || x.Clear() != nil || files() != 0 {
			t.Errorf("walked to its end: %t, %d files", done, files())
		}
		x.Drop()
		x = open(t, path, keyindex.Options{Multi: multi})
		h = x.HashWord(1)
		for range 2 { // again after it was emptied
			if _, had, err := x.Put(h, 3); had || err != nil || files() != 1 {
				t.Fatalf("there before: %t, %d files, %v", had, files(), err)
			}
			if at, had := x.Get(h); !had || at != 3 || x.HashWord(1) != h {
				t.Errorf("the place is %d, %t", at, had)
			}
			if err := x.Clear(); err != nil || x.Len() != 0 || files() != 0 {
				t.Fatalf("emptied it has %d places and %d files, %v", x.Len(), files(), err)
			}
		}
		if err := x.CloseAt(7, []byte("n")); err != nil {
			t.Fatal(err)
		}
		again := open(t, path, keyindex.Options{Multi: multi, Snapshot: 7})
		if again.NeedsRebuild() || string(again.Note()) != "n" || again.Len() != 0 {
			t.Error("an empty index that was closed is not trusted")
		}
		again.Drop()
	}
}
