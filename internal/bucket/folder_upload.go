package bucket

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// fileUpload writes a file in tempDir and renames it to its key.
type fileUpload struct {
	folder *folder
	ctx    context.Context
	key    string
	opts   WriteOptions
	temp   string // path of the unfinished file; "" when there is none any more
	file   *os.File
}

func (f *folder) Create(ctx context.Context, key string, opts WriteOptions) (Upload, error) {
	where := f.at.object(key)
	if ctx.Err() != nil {
		return nil, interrupted(ctx, where)
	}
	temp := path.Join(tempDir, tempName(time.Now(), key))
	file, err := f.createFile(temp)
	if err != nil {
		return nil, writeFailed(pathFault(err, where), where, WriteOptions{})
	}
	return &fileUpload{folder: f, ctx: ctx, key: key, opts: opts, temp: temp, file: file}, nil
}

// createFile makes a new file, and its folder if need be.
func (f *folder) createFile(name string) (*os.File, error) {
	const flags = os.O_CREATE | os.O_EXCL | os.O_WRONLY
	file, err := f.root.OpenFile(name, flags, 0o666)
	if errors.Is(err, fs.ErrNotExist) {
		if err = f.root.MkdirAll(path.Dir(name), 0o777); err == nil {
			file, err = f.root.OpenFile(name, flags, 0o666)
		}
	}
	return file, err
}

func (u *fileUpload) where() string { return u.folder.at.object(u.key) }

// failed judges an error of the file system. What is there or not there is a file beside the object: of the object itself publish tells.
func (u *fileUpload) failed(err error) error {
	return writeFailed(pathFault(err, u.where()), u.where(), WriteOptions{})
}

func (u *fileUpload) Write(p []byte) (int, error) {
	switch {
	case u.temp == "":
		return 0, errOver(u.where())
	case u.ctx.Err() != nil:
		return 0, interrupted(u.ctx, u.where())
	}
	n, err := u.file.Write(p)
	return n, u.failed(err)
}

func (u *fileUpload) Commit(ctx context.Context) (Object, error) {
	if u.temp == "" {
		return Object{}, errOver(u.where())
	}
	defer u.Abort() // does nothing once the file has its name
	for _, c := range []context.Context{ctx, u.ctx} {
		if c.Err() != nil {
			return Object{}, interrupted(c, u.where())
		}
	}
	if !u.opts.Lazy {
		if err := u.folder.lazy.flush(u.folder); err != nil {
			return Object{}, u.failed(err)
		}
	}
	done, err := u.seal()
	if err != nil {
		return Object{}, u.failed(err)
	}
	replaced, err := u.publish(ctx, done)
	if err != nil {
		return Object{}, err
	}
	if u.opts.Lazy {
		u.folder.lazy.add(u.key)
		return done, nil
	}
	// From here on the object is visible. If its name cannot be made durable it must go again: after an error nothing is visible. The
	// version that it has replaced does not come back, so then the new one stays: better than none.
	if err := u.folder.dirs.sync(path.Dir(u.key)); err != nil {
		if !replaced {
			_ = u.folder.root.Remove(u.key)
		}
		return Object{}, u.failed(err)
	}
	return done, nil
}

// seal brings the content, and the metadata if there is any, onto the disk.
func (u *fileUpload) seal() (Object, error) {
	if !u.opts.Lazy {
		if err := u.file.Sync(); err != nil {
			return Object{}, err
		}
	}
	info, err := u.file.Stat()
	if err != nil {
		return Object{}, err
	}
	o := fileObject(u.key, info)
	o.Metadata = u.opts.Metadata
	if len(o.Metadata) == 0 {
		return o, nil
	}
	text, err := json.Marshal(o.Metadata)
	if err != nil {
		return Object{}, err
	}
	side, err := u.folder.createFile(metaPath(o))
	if err != nil {
		return Object{}, err
	}
	_, err = side.Write(text)
	return o, errors.Join(err, side.Sync(), side.Close(), u.folder.dirs.sync(metaDir))
}

// publish gives the file its name, if the condition holds, and says whether it has replaced another version.
func (u *fileUpload) publish(ctx context.Context, done Object) (replaced bool, err error) {
	if u.opts.conditional() {
		release, err := u.lock(ctx)
		if err != nil {
			return false, err
		}
		defer release()
	}
	defer u.folder.spelled.turn(path.Dir(u.key))()
	before, found, err := u.folder.version(u.key)
	if err != nil && u.opts.conditional() { // that we could not look says nothing about what is there
		return false, u.failed(err)
	}
	if !u.opts.holds(found, before.ETag) {
		return false, conditionFailed(u.where(), u.opts)
	}
	// A Delete beside us may remove the folder when it becomes empty, just before the file
	// comes into it: then once more.
	for range 10 {
		if err = u.folder.makeDirs(path.Dir(u.key), u.opts.Lazy); err == nil {
			if err := u.folder.leads(u.key, true); err != nil {
				return false, err
			}
			err = u.rename()
		}
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return false, u.notPublished(err)
	}
	u.file.Close()
	if found && before.ETag != done.ETag {
		_ = u.folder.root.Remove(metaPath(before)) // it may have none
	}
	return found, nil
}

// version is what has the key now; found is false when nothing has.
func (f *folder) version(key string) (o Object, found bool, err error) {
	info, err := f.root.Stat(key)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), err == nil && !info.Mode().IsRegular():
		return Object{}, false, nil
	case err != nil:
		return Object{}, false, err
	}
	return fileObject(key, info), true, nil
}

// notPublished judges why a file did not get its name.
func (u *fileUpload) notPublished(err error) error {
	switch info, looked := u.folder.root.Lstat(u.key); {
	case u.opts.IfAbsent && errors.Is(err, fs.ErrExist) && looked == nil && info.Mode().IsRegular():
		return conditionFailed(u.where(), u.opts)
	case u.opts.IfAbsent && errors.Is(err, fs.ErrExist) && (looked != nil || info.Mode()&fs.ModeSymlink != 0):
		return fault.New(fault.BucketFailed, u.where(), "a name is in the way that is no object, or is not one any more").Because(err)
	case errors.Is(err, fs.ErrExist), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		return fault.New(fault.KeyRefused, u.where(), "a folder cannot hold a file and a folder of the same name").
			Because(err).WithMend("Choose another key, or delete what is in its place.")
	}
	return u.failed(err)
}

// rename moves the file to its key. With IfAbsent it is a link, which fails if the key has come to
// be since we looked, even by a writer that asks for no condition.
func (u *fileUpload) rename() error {
	root := u.folder.root
	if u.opts.IfAbsent {
		err := root.Link(u.temp, u.key)
		if err == nil {
			_ = root.Remove(u.temp) // a second name of the object; Sweep finds it
			u.temp = ""
		}
		// Some file systems know no links; there the lock must do.
		if !errors.Is(err, syscall.EPERM) && !errors.Is(err, syscall.ENOTSUP) {
			return err
		}
	}
	err := root.Rename(u.temp, u.key)
	if err == nil {
		u.temp = ""
	}
	return err
}

// lock keeps other conditional writes out, of this process and of others. Another process may have been stopped while it holds the lock: who
// waits for it obeys both contexts of the upload.
func (u *fileUpload) lock(ctx context.Context) (release func(), err error) {
	f := u.folder
	select {
	case f.conditions <- struct{}{}:
	case <-ctx.Done():
		return nil, interrupted(ctx, u.where())
	case <-u.ctx.Done():
		return nil, interrupted(u.ctx, u.where())
	}
	file, err := f.root.OpenFile(path.Join(tempDir, "lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		<-f.conditions
		return nil, u.failed(err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close(); <-f.conditions }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			err = u.failed(err)
			break
		}
		if err = u.wait(ctx, wait); err != nil {
			break
		}
	}
	file.Close()
	<-f.conditions
	return nil, err
}

// wait waits a time, unless one of the upload's contexts ends.
func (u *fileUpload) wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return interrupted(ctx, u.where())
	case <-u.ctx.Done():
		return interrupted(u.ctx, u.where())
	case <-timer.C:
		return nil
	}
}

// makeDirs makes a folder and those above it, and, unless that may wait, makes each new name durable: an
// object whose folder is gone after a power cut would be gone too.
func (f *folder) makeDirs(dir string, lazy bool) error {
	if dir == "." {
		return nil
	}
	err := f.root.Mkdir(dir, 0o777)
	switch {
	case err == nil && lazy: // lazyFiles.flush does it
		return nil
	case err == nil:
		return f.dirs.sync(path.Dir(dir))
	case errors.Is(err, fs.ErrExist):
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := f.makeDirs(path.Dir(dir), lazy); err != nil {
		return err
	}
	return f.makeDirs(dir, lazy)
}

func (u *fileUpload) Abort() {
	if u.temp == "" {
		return
	}
	u.file.Close()
	if info, err := u.folder.root.Lstat(u.temp); err == nil && len(u.opts.Metadata) > 0 {
		_ = u.folder.root.Remove(metaPath(fileObject(u.key, info)))
	}
	_ = u.folder.root.Remove(u.temp) // what stays, Sweep finds
	u.temp = ""
}

// maxTempKey is how much of an escaped key stands in the name of its unfinished file; a name may
// have 255 bytes in all.
const maxTempKey = 180

// tempName says when an upload began and for which key, so that Sweep needs nothing else.
func tempName(begun time.Time, key string) string {
	escaped := escapeName(key)
	return strconv.FormatInt(begun.UnixNano(), 36) + "." + rand.Text() + "." + escaped[:min(len(escaped), maxTempKey)]
}

func parseTempName(name string) (begun time.Time, key string, ok bool) {
	stamp, rest, ok := strings.Cut(name, ".")
	if !ok {
		return begun, "", false
	}
	_, key, ok = strings.Cut(rest, ".")
	nanos, err := strconv.ParseInt(stamp, 36, 64)
	return time.Unix(0, nanos), key, ok && err == nil
}

// escapeName makes one path segment of a key, byte by byte: the escape of a prefix is a prefix of
// the escape.
func escapeName(key string) string {
	return strings.NewReplacer("%", "%25", "/", "%2F").Replace(key)
}

// dirSync makes folders' entries durable. Callers that come while a sync of their folder is under
// way wait for the next one and share it.
type dirSync struct {
	root *os.Root
	mu   sync.Mutex
	next map[string]*syncRound // by folder: the round that has not begun
	busy map[string]*sync.Mutex
}

type syncRound struct {
	once sync.Once
	err  error
}

func (d *dirSync) sync(dir string) error {
	d.mu.Lock()
	if d.next == nil {
		d.next, d.busy = map[string]*syncRound{}, map[string]*sync.Mutex{}
	}
	round, turn := d.next[dir], d.busy[dir]
	if round == nil {
		round = &syncRound{}
		d.next[dir] = round
	}
	if turn == nil {
		turn = &sync.Mutex{}
		d.busy[dir] = turn
	}
	d.mu.Unlock()

	turn.Lock()
	defer turn.Unlock()
	round.once.Do(func() {
		d.mu.Lock()
		delete(d.next, dir) // who comes now may have renamed after our sync began
		d.mu.Unlock()
		round.err = d.now(dir)
	})
	return round.err
}

func (d *dirSync) now(dir string) error {
	file, err := d.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed since, and with it what was to be made durable
	}
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}
