package bucket_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

func TestAFileSystemThatTakesNamesForOneAnotherLosesNone(t *testing.T) {
	t.Parallel()
	dir := testlab.Folding(t)
	b := open(t, dir, bucket.Options{})
	write := func(key, text string) error {
		_, err := bucket.WriteAll(t.Context(), b, key, []byte(text), bucket.WriteOptions{})
		return err
	}
	for _, key := range []string{"README", "Dir/a.txt", "\u00e9t\u00e9", "plain", "1234"} {
		if err := write(key, key); err != nil {
			t.Fatal(err)
		}
		if err := write(key, key); err != nil {
			t.Errorf("%s once more: %v", key, err)
		}
	}
	for key, as := range map[string]string{
		"readme": "README", "Readme": "README", "README.": "README", "dir/a.txt": "Dir", "DIR/other": "Dir", "Dir/A.TXT": "Dir/a.txt",
		"e\u0301te\u0301": "\u00e9t\u00e9", "1234.": "1234", "Plain": "plain",
	} {
		for what, err := range map[string]error{"holds": bucket.Holds(t.Context(), b, key), "a write": write(key, "another")} {
			var other *bucket.OtherSpelling
			if !fault.Is(err, fault.KeyRefused) || !errors.As(err, &other) || other.As != as {
				t.Errorf("%s of %q: %v", what, key, err)
			}
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	var keys []string
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := bucket.ReadAll(t.Context(), b, o.Key, 100)
		if err != nil || string(data) != o.Key {
			t.Errorf("%s holds %q, %v", o.Key, data, err)
		}
		keys = append(keys, o.Key)
	}
	if !slices.Equal(keys, []string{"1234", "Dir/a.txt", "README", "plain", "\u00e9t\u00e9"}) {
		t.Errorf("there are %q", keys)
	}
	if err := b.Delete(t.Context(), "Dir/a.txt"); err != nil {
		t.Fatal(err)
	}
	if err := write("dir/b.txt", "b"); err != nil { // the folder is gone with its last file
		t.Error(err)
	}
	if err := write("Dir/c.txt", "c"); !fault.Is(err, fault.KeyRefused) {
		t.Errorf("a folder that came back in another spelling: %v", err)
	}
}

func TestOfTwoWritersOfOneNameInTwoSpellingsOneIsRefused(t *testing.T) {
	t.Parallel()
	b := open(t, testlab.Folding(t), bucket.Options{})
	for range 20 {
		var writers sync.WaitGroup
		keys := []string{"A/x", "a/x", "B", "b", "c/K", "c/k"}
		errs := make([]error, len(keys))
		for i, key := range keys {
			writers.Go(func() { _, errs[i] = bucket.WriteAll(t.Context(), b, key, []byte(key), bucket.WriteOptions{}) })
		}
		writers.Wait()
		for i := 0; i < len(keys); i += 2 {
			if one, other := errs[i], errs[i+1]; (one == nil) == (other == nil) || !fault.Is(errors.Join(one, other), fault.KeyRefused) {
				t.Errorf("%s: %v; %s: %v", keys[i], one, keys[i+1], other)
			}
		}
		for o, err := range b.List(t.Context(), "") {
			if data, failed := bucket.ReadAll(t.Context(), b, o.Key, 100); err != nil || failed != nil || string(data) != o.Key {
				t.Errorf("%s holds %q (%v, %v)", o.Key, data, err, failed)
			}
			if err := b.Delete(t.Context(), o.Key); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestAFileSystemThatTellsNamesApartKeepsThemAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := open(t, dir, bucket.Options{})
	keys := []string{"Dir/x", "README", "Readme", "a", "a.", "dir/x", "e\u0301", "\u00e9"}
	for _, key := range keys {
		if err := bucket.Holds(t.Context(), b, key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
		if _, err := bucket.WriteAll(t.Context(), b, key, []byte(key), bucket.WriteOptions{}); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "A")); err != nil { // one file with two names
		t.Fatal(err)
	}
	for _, key := range append(keys, "A") {
		if err := bucket.Holds(t.Context(), b, key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestANameIsLookedUpInEachSpellingThatAFileSystemFolds(t *testing.T) {
	t.Parallel()
	for name, others := range map[string][]string{
		"ReadMe":  {"rEADmE", "ReadMe.", "ReadMe\u00ad"},
		"1234":    {"1234.", "1234\u00ad"},
		"\u00e9":  {"\u00c9", "e\u0301", "\u00e9."},
		"e\u0301": {"E\u0301", "\u00e9", "e\u0301."},
	} {
		got := bucket.OtherSpellings(name)
		for _, other := range others {
			if !slices.Contains(got, other) {
				t.Errorf("%q is not looked up as %q: %q", name, other, got)
			}
		}
		if slices.Contains(got, name) {
			t.Errorf("%q is taken for another spelling of itself", name)
		}
	}
}
