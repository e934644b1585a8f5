package bucket

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/leatdata/leat/internal/fault"
)

// Stray is what lies in a folder under a key and is no object of it.
type Stray struct {
	Key string // of a folder with a slash at its end
	// Why is a fault: object-link, object-outside, object-special, or what kept us from looking.
	Why error
}

// ListAll is List that also tells of strays, where the kind of bucket has any. What cannot be looked at is a stray then, and does not end
// the listing.
func ListAll(ctx context.Context, b Bucket, prefix string, stray func(Stray)) iter.Seq2[Object, error] {
	inner := b
	if f, ok := b.(*front); ok {
		inner = f.Bucket
	}
	if f, ok := inner.(*folder); ok {
		return f.list(ctx, prefix, stray)
	}
	return b.List(ctx, prefix)
}

// List walks the folders in the byte order of keys. It holds the names of one folder on each
// level, not the whole listing. Hidden folders of ours are left out; so is what is no plain file, nor a link to one below the root.
func (f *folder) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return f.list(ctx, prefix, nil)
}

func (f *folder) list(ctx context.Context, prefix string, stray func(Stray)) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		w := walk{folder: f, ctx: ctx, prefix: prefix, yield: yield, stray: stray}
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
	stray  func(Stray) // nil where nobody wants to know
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
		err = pathFault(err, w.folder.at.object(dir))
		if w.stray != nil && dir != "" {
			w.stray(Stray{Key: dir + "/", Why: err})
			return true
		}
		w.yield(Object{}, err)
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
	if err == nil && info.Mode().IsRegular() {
		return w.yield(fileObject(key, info), nil)
	}
	why := w.folder.noObject(key, info, err)
	switch {
	case why == nil: // removed since we looked
	case w.stray != nil:
		w.stray(Stray{Key: key, Why: why})
	case !isStray(why):
		w.yield(Object{}, why)
		return false
	}
	return true
}

// isStray says whether a fault is of something that is no object, and not of looking at it.
func isStray(why *fault.Fault) bool {
	return why.Code == fault.ObjectLink || why.Code == fault.ObjectOutside || why.Code == fault.ObjectSpecial
}

// noObject says why what lies under a key is no object, by what following it came to; nil if nothing lies there.
func (f *folder) noObject(key string, info fs.FileInfo, err error) *fault.Fault {
	where := f.at.object(key)
	is := func(code fault.Code, what string) *fault.Fault { return fault.New(code, where, "%s", what) }
	itself, lost := f.root.Lstat(key)
	switch link := lost == nil && itself.Mode()&fs.ModeSymlink != 0; {
	case errors.Is(lost, fs.ErrNotExist):
		return nil
	case link && errors.Is(err, fs.ErrNotExist):
		return is(fault.ObjectLink, "a symbolic link that leads nowhere")
	case link && errors.Is(err, syscall.ELOOP):
		return is(fault.ObjectLink, "a symbolic link that leads in a circle")
	case link && err == nil && info.IsDir():
		return is(fault.ObjectLink, "a symbolic link to a folder")
	case link && err != nil && !errors.Is(err, fs.ErrPermission):
		return is(fault.ObjectOutside, "a symbolic link that leads out of the folder")
	case err == nil && !info.IsDir():
		return is(fault.ObjectSpecial, "a named pipe, a socket or a device")
	case err == nil: // a file that became a folder since we looked
		return nil
	}
	return fault.Of(pathFault(err, where))
}

// sorted returns the names in a folder, those of folders with a slash at their end: so they sort
// as the keys below them do ("a.txt" before "a/b").
func (f *folder) sorted(dir string) ([]string, error) {
	names, err := f.entries(dir, func(e fs.DirEntry) string {
		switch {
		case e.Name() == tempDir || e.Name() == metaDir: // also those of another place of ours below
			return ""
		case e.IsDir():
			return e.Name() + "/"
		}
		return e.Name()
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
