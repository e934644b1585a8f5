package bucket

import (
	"errors"
	"io/fs"
	"path"
	"sync"

	"golang.org/x/sync/errgroup"
)

// lazyFiles are files that have their names but are not yet safe from a power cut.
type lazyFiles struct {
	mu   sync.Mutex
	keys []string
}

func (l *lazyFiles) add(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = append(l.keys, key)
}

// manyFiles is from how many files on the whole file system is synced in one call: each file and each folder by
// itself would cost more than what else is on that disk.
const manyFiles = 256

// syncsAtOnce is how many files are synced at once: they share the file system's journal commits.
const syncsAtOnce = 16

// flush brings the files, and then every folder above them, onto the disk. After an error the next flush
// tries all of them again.
func (l *lazyFiles) flush(f *folder) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.keys) >= manyFiles {
		if done, err := f.syncAll(); done || err != nil {
			if err == nil {
				l.keys = nil
			}
			return err
		}
	}
	var files, folders errgroup.Group
	files.SetLimit(syncsAtOnce)
	folders.SetLimit(syncsAtOnce)
	dirs := map[string]bool{}
	for _, key := range l.keys {
		files.Go(func() error { return f.syncFile(key) })
		for dir := path.Dir(key); !dirs[dir]; dir = path.Dir(dir) {
			dirs[dir] = true // ends at ".", which is its own parent
		}
	}
	if err := files.Wait(); err != nil {
		return err
	}
	for dir := range dirs {
		folders.Go(func() error { return f.dirs.sync(dir) })
	}
	if err := folders.Wait(); err != nil {
		return err
	}
	l.keys = nil
	return nil
}

// syncFile syncs a file by its name; one that has been deleted since needs nothing.
func (f *folder) syncFile(key string) error {
	file, err := f.root.Open(key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
