package bucket

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
)

// List walks the folders in the byte order of keys. It holds the names of one folder on each
// level, not the whole listing. Hidden folders of ours are left out; so is what is no plain file.
func (f *folder) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		w := walk{folder: f, ctx: ctx, prefix: prefix, yield: yield}
		// Only the folder in which the prefix ends, and what is below, can hold matches.
		dir, _ := path.Split(prefix)
		if dir = strings.TrimSuffix(dir, "/"); dir != "" && !fs.ValidPath(dir) {
			return
		}
		w.dir(dir)
	}
}

type walk struct {
	folder *folder
	ctx    context.Context
	prefix string
	yield  func(Object, error) bool
}

// dir yields what lies in and below a folder; it returns false to stop the walk.
func (w *walk) dir(dir string) bool {
	if w.ctx.Err() != nil {
		w.yield(Object{}, interrupted(w.ctx, w.folder.at.object(dir)))
		return false
	}
	names, err := w.folder.sorted(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return true // removed since we looked, or a prefix that nothing has
	}
	if err != nil {
		w.yield(Object{}, pathFault(err, w.folder.at.object(dir)))
		return false
	}
	for _, name := range names {
		key := path.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			below := key + "/"
			relevant := strings.HasPrefix(below, w.prefix) || strings.HasPrefix(w.prefix, below)
			if relevant && !w.dir(key) {
				return false
			}
			continue
		}
		if strings.HasPrefix(key, w.prefix) && !w.file(key) {
			return false
		}
	}
	return true
}

func (w *walk) file(key string) bool {
	info, err := w.folder.root.Stat(key)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return true
	}
	if err != nil {
		w.yield(Object{}, pathFault(err, w.folder.at.object(key)))
		return false
	}
	return w.yield(fileObject(key, info), nil)
}

// sorted returns the names in a folder, those of folders with a slash at their end: so they sort
// as the keys below them do ("a.txt" before "a/b").
func (f *folder) sorted(dir string) ([]string, error) {
	names, err := f.entries(dir, func(e fs.DirEntry) string {
		switch {
		case dir == "" && (e.Name() == tempDir || e.Name() == metaDir):
			return ""
		case e.IsDir():
			return e.Name() + "/"
		case e.Type().IsRegular(), e.Type()&fs.ModeSymlink != 0:
			return e.Name()
		}
		return ""
	})
	slices.Sort(names)
	return names, err
}

// names returns the names in a folder, in no order.
func (f *folder) names(dir string) ([]string, error) {
	return f.entries(dir, fs.DirEntry.Name)
}

func (f *folder) entries(dir string, name func(fs.DirEntry) string) ([]string, error) {
	file, err := f.root.Open(path.Clean("./" + dir))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	all, err := file.ReadDir(-1)
	var names []string
	for _, e := range all {
		if n := name(e); n != "" {
			names = append(names, n)
		}
	}
	return names, err
}
