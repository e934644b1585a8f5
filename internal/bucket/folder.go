package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

const (
	// tempDir holds uploads that are not finished. It lies under the root, so that it is on the
	// same file system and a rename can finish them.
	tempDir = ".leat-tmp"
	// metaDir holds the metadata of objects that have some.
	metaDir = ".leat-meta"
)

// folder keeps objects as files under a root, by their keys. Access goes through [os.Root]: no
// symbolic link below the root leads out of it.
//
// After a power cut an object is there whole or not there; one whose Commit returned is there.
// For this the file is synced before it is renamed to its key, and the folders whose entries
// changed are synced before Commit returns. Commits that run at once share that second sync. For Lazy ones
// both wait until the next commit that is not.
type folder struct {
	at   place
	root *os.Root
	dirs dirSync
	lazy lazyFiles
	// readOnly: nothing is written here, so that how names are spelled is looked up in the folders themselves.
	readOnly bool
	spelled  spellings
	// conditions has room for one: it makes look-and-replace one step within this process; a file lock does so
	// between processes.
	conditions chan struct{}
}

func openFolder(at place, readOnly bool) (*folder, error) {
	if readOnly {
		if info, err := os.Stat(at.name); errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && !info.IsDir() {
			return nil, fault.New(fault.BucketMissing, at.String(), "there is no such folder").Because(err).
				WithMend("Correct its name, or mount what it lies on.")
		}
		return openRoot(at, true)
	}
	err := os.MkdirAll(at.name, 0o777)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // such a place can hold no folders
		return nil, fault.Wrap(err, fault.BucketMissing, at.String(), "the folder cannot be made")
	}
	if err != nil {
		return nil, pathFault(err, at.String())
	}
	return openRoot(at, false)
}

func openRoot(at place, readOnly bool) (*folder, error) {
	root, err := os.OpenRoot(at.name)
	if err != nil {
		return nil, pathFault(err, at.String())
	}
	return &folder{
		at: at, root: root, dirs: dirSync{root: root}, conditions: make(chan struct{}, 1), readOnly: readOnly, spelled: spellings{seed: maphash.MakeSeed()},
	}, nil
}

func (f *folder) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	where := f.at.object(key)
	if ctx.Err() != nil {
		return nil, interrupted(ctx, where)
	}
	file, err := f.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe would wait for its writer
	if err != nil {
		return nil, f.lookFault(key, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err == nil {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, pathFault(err, where)
	}
	return &fileReader{ctx: ctx, where: where, file: file, left: length}, nil
}

// fileReader reads a range of a file; left below zero means to the end.
type fileReader struct {
	ctx   context.Context
	where string
	file  *os.File
	left  int64
}

func (r *fileReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, interrupted(r.ctx, r.where)
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if r.left > 0 {
		p = p[:min(int64(len(p)), r.left)]
	}
	n, err := r.file.Read(p)
	if r.left > 0 {
		r.left -= int64(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = pathFault(err, r.where)
	}
	return n, err
}

func (r *fileReader) Close() error { return r.file.Close() }

func (f *folder) Stat(ctx context.Context, key string) (Object, error) {
	where := f.at.object(key)
	if ctx.Err() != nil {
		return Object{}, interrupted(ctx, where)
	}
	info, err := f.root.Stat(key)
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Object{}, f.lookFault(key, err)
	}
	o := fileObject(key, info)
	o.Metadata, err = f.metadata(o)
	return o, err
}

// lookFault judges why a file cannot be looked at: a link that leads out of the folder has no error of the system's own.
func (f *folder) lookFault(key string, err error) error {
	judged := pathFault(err, f.at.object(key))
	if !fault.Is(judged, fault.BucketFailed) {
		return judged
	}
	if why := f.noObject(key, nil, err); why != nil {
		return why
	}
	return judged
}

func fileObject(key string, info fs.FileInfo) Object {
	return Object{Key: key, Size: info.Size(), ETag: fileETag(info), Modified: info.ModTime()}
}

// fileETag tells versions of a file apart: every commit makes a new file, so the inode or at least
// the time differs.
func fileETag(info fs.FileInfo) string {
	var inode uint64
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		inode = s.Ino
	}
	return strconv.FormatUint(inode, 36) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 36) + "-" + strconv.FormatInt(info.Size(), 36)
}

// metaPath is where the metadata of an object's very version lies. The version is in the name, so
// that metadata can be written before the object is there and never belongs to another version.
func metaPath(o Object) string {
	sum := sha256.Sum256([]byte(o.Key))
	return path.Join(metaDir, hex.EncodeToString(sum[:16])+"-"+o.ETag)
}

func (f *folder) metadata(o Object) (map[string]string, error) {
	text, err := f.root.ReadFile(metaPath(o))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, pathFault(err, f.at.object(o.Key))
	}
	var metadata map[string]string
	if err := json.Unmarshal(text, &metadata); err != nil {
		return nil, fault.New(fault.BucketFailed, f.at.object(o.Key), "its metadata cannot be read").Because(err)
	}
	return metadata, nil
}

// Delete removes files, and folders that became empty: in a bucket they do not exist either.
func (f *folder) Delete(ctx context.Context, keys ...string) error {
	changed := map[string]bool{}
	for _, key := range keys {
		where := f.at.object(key)
		if ctx.Err() != nil {
			return interrupted(ctx, where)
		}
		info, err := f.root.Lstat(key)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || err == nil && info.IsDir() {
			continue
		}
		if other := f.leads(key, true); fault.Is(other, fault.KeyRefused) {
			continue // it is another key's
		} else if other != nil {
			return other
		}
		if err == nil {
			err = f.root.Remove(key)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return pathFault(err, where)
		}
		_ = f.root.Remove(metaPath(fileObject(key, info))) // it may have none
		changed[f.prune(path.Dir(key))] = true
	}
	for dir := range changed {
		if err := f.dirs.sync(dir); err != nil {
			return pathFault(err, f.at.object(dir))
		}
	}
	return nil
}

// checkKey refuses a key that no file can have.
func (f *folder) checkKey(key string) error {
	for name := range strings.SplitSeq(key, "/") {
		if len(name) > maxFileName {
			return pathFault(syscall.ENAMETOOLONG, f.at.object(key))
		}
	}
	return nil
}

// maxFileName is how many bytes a name may have on the file systems in use.
const maxFileName = 255

// prune removes folders that are empty, upwards from dir, and returns the first that stays.
func (f *folder) prune(dir string) string {
	for dir != "." && f.root.Remove(dir) == nil {
		f.spelled.forget()
		dir = path.Dir(dir)
	}
	return dir
}

// Sweep removes uploads that began before the given time and never ended.
func (f *folder) Sweep(ctx context.Context, prefix string, begunBefore time.Time) (int, error) {
	names, err := f.names(tempDir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, pathFault(err, f.at.String())
	}
	swept := 0
	for _, name := range names {
		begun, key, ok := parseTempName(name)
		// A long key is cut in the name: then what is left of it decides.
		want := escapeName(prefix)
		if !ok || !begun.Before(begunBefore) || !strings.HasPrefix(key, want[:min(len(want), maxTempKey)]) {
			continue
		}
		if ctx.Err() != nil {
			return swept, interrupted(ctx, f.at.String())
		}
		if err := f.root.Remove(path.Join(tempDir, name)); err == nil {
			swept++
		} else if !errors.Is(err, fs.ErrNotExist) {
			return swept, pathFault(err, f.at.String())
		}
	}
	return swept, nil
}

func (f *folder) Properties() Properties {
	return Properties{Kind: KindFolder, URL: f.at.String(), ConditionalPut: Supported, ConditionalMultipart: Supported}
}

func (f *folder) Close() error { return f.root.Close() }

// pathFault judges an error of the file system.
func pathFault(err error, where string) error {
	if err == nil {
		return nil
	}
	code := fault.BucketFailed
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		code = fault.ObjectMissing
	case errors.Is(err, fs.ErrExist):
		code = fault.ObjectExists
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		code = fault.BucketRights
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		code = fault.BucketFull
	case errors.Is(err, syscall.ENAMETOOLONG):
		code = fault.BucketUnsupported
	}
	return fault.New(code, where, "%s", whats[code]).Because(err).WithMend("%s", folderMends[code])
}

// folderMends are the mends that differ from a bucket's.
var folderMends = map[fault.Code]string{
	fault.BucketRights:      "Let the user that leat runs as write to this folder.",
	fault.BucketUnsupported: "A file's name may have 255 bytes at most: choose a shorter one.",
}
