package keyindex_test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/keyindex"
)

// damage closes an index of some keys, changes bytes of its pages and of its mark, and works with what is opened then.
func damage(t testing.TB, pages []byte, at uint32, mark []byte, markAt uint16) error {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "public.orders")
	x := open(t, path, keyindex.Options{})
	for n := range uint64(300) {
		if _, _, err := x.Put(x.Hash(key(n)), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.CloseAt(7, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	overwrite(t, filepath.Join(dir, "public.orders.*.pages"), pages, int64(at))
	overwrite(t, path+".closed", mark, int64(markAt))
	x, err := keyindex.Open(path, keyindex.Options{Snapshot: 7})
	if err != nil {
		return err
	}
	defer x.Drop()
	return fault.Catching(nil, "public.orders", func() error {
		for n := range uint64(400) {
			x.Get(x.Hash(key(n)))
			if _, _, err := x.Put(x.Hash(key(n)), n); err != nil {
				return err
			}
			x.Delete(x.Hash(key(n)))
		}
		x.Walk(0, 1<<20, func(at uint64) uint64 { return at })
		return nil
	})()
}

// overwrite changes bytes of a file, which keeps its length.
func overwrite(t testing.TB, pattern string, with []byte, at int64) {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	data, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 {
		copy(data[at%int64(len(data)):], with)
	}
	if err := os.WriteFile(all[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASearchInADamagedPageEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pages []byte
		at    uint32
	}{
		"all slots are taken":               {bytes.Repeat([]byte{0xff}, 1<<16), 0},
		"all slots are taken, and none are": {append(make([]byte, 8), bytes.Repeat([]byte{1}, 1<<16)...), 0},
	} {
		done := make(chan error, 1)
		go func() { done <- damage(t, c.pages, c.at, nil, 0) }()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: nothing is noticed", name)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s: the search does not end", name)
		}
	}
	if err := damage(t, nil, 0, nil, 0); err != nil {
		t.Errorf("of an index that is whole: %v", err)
	}
}

func TestARemovalFromAFullPageEnds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "public.orders")
	x := open(t, path, keyindex.Options{})
	for n := range uint64(10) {
		if _, _, err := x.Put(x.Hash(key(n)), n); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.CloseAt(7, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	all, err := filepath.Glob(filepath.Join(dir, "public.orders.*.pages"))
	if err != nil || len(all) != 1 {
		t.Fatalf("%v %v", all, err)
	}
	data, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at+4096 <= len(data); at += 4096 {
		for slot := at + 8; slot+24 <= at+8+170*24; slot += 24 { // three words each: the last is a value, and 0 if there is none
			if binary.LittleEndian.Uint64(data[slot+16:]) == 0 {
				binary.LittleEndian.PutUint64(data[slot+16:], 1)
			}
		}
	}
	if err := os.WriteFile(all[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	x, err = keyindex.Open(path, keyindex.Options{Snapshot: 7})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Drop()
	done := make(chan error, 1)
	go func() {
		done <- fault.Catching(nil, "public.orders", func() error {
			for n := range uint64(10) {
				x.Delete(x.Hash(key(n)))
			}
			return nil
		})()
	}()
	select {
	case err := <-done:
		if !fault.Panicked(err) {
			t.Errorf("nothing is noticed: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the removal does not end")
	}
}

func FuzzClosedIndex(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xff}, 4096), uint32(0), []byte{}, uint16(0))
	f.Add([]byte{1}, uint32(8), []byte("9"), uint16(40))
	f.Fuzz(func(t *testing.T, pages []byte, at uint32, mark []byte, markAt uint16) {
		began := time.Now()
		if err := damage(t, pages, at, mark, markAt); err != nil && fault.Of(err) == nil {
			t.Errorf("an error that is no fault: %v", err)
		}
		if time.Since(began) > 10*time.Second {
			t.Error("it took too long")
		}
	})
}
