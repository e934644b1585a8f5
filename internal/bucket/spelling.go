package bucket

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/leatdata/leat/internal/fault"
)

// OtherSpelling is the cause of a key-refused: the file system has what the key leads to under another spelling. Some take README for readme (vfat,
// SMB, macOS, ext4 with casefold), one form of é for the other, or a name with a dot at its end for the name without.
type OtherSpelling struct {
	As string // the key, or the folder in it, as the file system has it
}

func (e *OtherSpelling) Error() string { return fmt.Sprintf("it is there as %q", e.As) }

// spellings is what is known of how a file system spells names.
type spellings struct {
	mu    sync.Mutex
	right map[string]bool // folders that are there in this very spelling

	// turns are for what looks at a name and then takes it: two keys that are one name to the file system lie in one folder.
	turns [32]sync.Mutex
	seed  maphash.Seed
}

// turn waits until nobody else takes a name in a folder.
func (s *spellings) turn(dir string) (done func()) {
	m := &s.turns[maphash.String(s.seed, dir)%uint64(len(s.turns))]
	m.Lock()
	return m.Unlock
}

func (s *spellings) isRight(dir string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.right[dir]
}

// mostSpelled bounds what is remembered of folders.
const mostSpelled = 1000

func (s *spellings) note(dir string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.right) >= mostSpelled || s.right == nil {
		s.right = map[string]bool{}
	}
	s.right[dir] = true
}

// forget is for folders that were removed: they may come back in another spelling.
func (s *spellings) forget() {
	s.mu.Lock()
	s.right = nil
	s.mu.Unlock()
}

// leads is an error where a key leads to what is another key's: the file system has it, or a folder in the key, under another spelling, or, unless
// links are followed, such a folder is a symbolic link. Nothing there is no error.
func (f *folder) leads(key string, links bool) error {
	for i := 1; i <= len(key); i++ {
		at, last := key[:i], i == len(key)
		if !last && (key[i] != '/' || links && f.spelled.isRight(at)) {
			continue
		}
		info, err := f.root.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
			return nil
		case err != nil:
			return pathFault(err, f.at.object(key))
		case !last && !links && info.Mode()&fs.ModeSymlink != 0:
			return fault.New(fault.KeyRefused, f.at.object(key), "%q is a symbolic link, and the file would lie where it leads", at).
				WithMend("Replace the link by a folder, or exclude what lies below it.")
		case !last && f.spelled.isRight(at):
			continue
		}
		as, err := f.spelling(at, info)
		if err != nil {
			return pathFault(err, f.at.object(key))
		}
		if as != at {
			return fault.New(fault.KeyRefused, f.at.object(key), "the file system has %q there, and takes the one name for the other", as).
				Because(&OtherSpelling{as}).WithMend("Rename one of the two, or keep the objects on a file system that tells such names apart.")
		}
		if !last && info.IsDir() {
			f.spelled.note(at)
		}
	}
	return nil
}

// spelling is the path under which the file system has what a path leads to. Only where it takes other names for this one the folder is read.
func (f *folder) spelling(name string, is fs.FileInfo) (string, error) {
	dir, base := path.Split(name)
	if !f.readOnly && !f.folds(dir, base, is) {
		return name, nil
	}
	names, err := f.names(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return "", err
	}
	as := name
	for _, other := range names {
		if other == base {
			return name, nil
		}
		if info, err := f.root.Lstat(dir + other); err == nil && os.SameFile(info, is) {
			as = dir + other
		}
	}
	return as, nil
}

// folds says whether a folder has what is there under a name under another spelling of it too.
func (f *folder) folds(dir, base string, is fs.FileInfo) bool {
	for _, other := range otherSpellings(base) {
		if info, err := f.root.Lstat(dir + other); err == nil && os.SameFile(info, is) {
			return true
		}
	}
	return false
}

// otherSpellings are names that a file system takes for a name if it takes any others for it: another case, another form of composed characters,
// a dot at the end (vfat, SMB), and a soft hyphen, which folding by Unicode's rules ignores (ext4, f2fs).
func otherSpellings(name string) []string {
	swapped := strings.Map(func(r rune) rune {
		if up := unicode.ToUpper(r); up != r {
			return up
		}
		return unicode.ToLower(r)
	}, name)
	all := []string{name + ".", name + "\u00ad"}
	for _, other := range []string{swapped, norm.NFD.String(name), norm.NFC.String(name)} {
		if other != name {
			all = append(all, other)
		}
	}
	return all
}
