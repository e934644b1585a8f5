package testlab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/text/unicode/norm"
)

// Folding mounts a file system in memory that takes names in any case, in any form of composed characters and with any dots at their end for one
// name, as vfat, SMB and macOS do, and keeps the spelling that came first. It is FUSE's protocol without a library (linux/fuse.h), so it takes
// root: elsewhere the test is skipped.
func Folding(t testing.TB) (dir string) {
	t.Helper()
	fd, err := syscall.Open("/dev/fuse", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil || os.Geteuid() != 0 {
		t.Skip("a file system is mounted: this takes root and /dev/fuse")
	}
	dir = t.TempDir()
	if err := syscall.Mount("leat-test", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		_ = syscall.Close(fd)
		t.Skipf("a file system cannot be mounted: %v", err)
	}
	f := &foldingFS{fd: fd, nodes: map[uint64]*foldedNode{}}
	f.make("", syscall.S_IFDIR|0o755)
	var serving sync.WaitGroup
	serving.Go(f.serve)
	need(t, askPoll(dir))
	t.Cleanup(func() {
		_ = syscall.Unmount(dir, 2) // MNT_DETACH: a file may still be open
		serving.Wait()
		_ = syscall.Close(fd)
	})
	return dir
}

// askPoll has the kernel learn that files cannot be polled. Go asks that of each file that it opens, in a way that holds up all goroutines of a
// processor: as many of them as there are processors would wait for ever for the one that answers.
func askPoll(dir string) error {
	name := dir + "/poll"
	fd, err := syscall.Open(name, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	poll := struct {
		fd              int32
		events, revents int16
	}{fd: int32(fd), events: 1}
	if _, _, failed := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&syscall.Timespec{})), 0, 0, 0); failed != 0 {
		return failed
	}
	return errors.Join(syscall.Close(fd), syscall.Unlink(name))
}

// foldingFS serves one request after the other.
type foldingFS struct {
	fd    int
	nodes map[uint64]*foldedNode // by number; none is forgotten
}

type foldedNode struct {
	id       uint64
	name     string // as it was given first
	mode     uint32
	links    uint32
	data     []byte
	modified time.Time
	children map[string]*foldedNode // by folded name
	order    []string               // folded names, as they came
}

func foldName(name string) string {
	return strings.ToLower(norm.NFC.String(strings.TrimRight(name, ".")))
}

func (f *foldingFS) make(name string, mode uint32) *foldedNode {
	n := &foldedNode{id: uint64(len(f.nodes) + 1), name: name, mode: mode, links: 1, modified: time.Now(), children: map[string]*foldedNode{}}
	f.nodes[n.id] = n
	return n
}

func (n *foldedNode) put(name string, child *foldedNode) {
	at := foldName(name)
	if _, there := n.children[at]; !there {
		n.order = append(n.order, at)
	}
	n.children[at], n.modified = child, time.Now()
}

func (n *foldedNode) drop(name string) {
	at := foldName(name)
	delete(n.children, at)
	kept := n.order[:0]
	for _, other := range n.order {
		if other != at {
			kept = append(kept, other)
		}
	}
	n.order, n.modified = kept, time.Now()
}

// The requests that are answered (linux/fuse.h); to others the kernel is told that there are none such.
const (
	fuseLookup, fuseForget, fuseGetattr, fuseSetattr   = 1, 2, 3, 4
	fuseMkdir, fuseUnlink, fuseRmdir, fuseRename       = 9, 10, 11, 12
	fuseLink, fuseOpen, fuseRead, fuseWrite            = 13, 14, 15, 16
	fuseStatfs, fuseRelease, fuseFsync, fuseFlush      = 17, 18, 20, 25
	fuseInit, fuseOpendir, fuseReaddir, fuseReleasedir = 26, 27, 28, 29
	fuseFsyncdir, fuseCreate, fuseInterrupt            = 30, 35, 36
	fuseBatchForget, fuseRename2                       = 42, 45
)

func (f *foldingFS) serve() {
	in := make([]byte, 1<<20+4096)
	for {
		n, err := syscall.Read(f.fd, in)
		switch {
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOENT):
			continue
		case err != nil || n < 40: // it was unmounted
			return
		}
		op, unique, node := binary.LittleEndian.Uint32(in[4:]), binary.LittleEndian.Uint64(in[8:]), f.nodes[binary.LittleEndian.Uint64(in[16:])]
		if op == fuseForget || op == fuseBatchForget || op == fuseInterrupt {
			continue
		}
		body, failed := f.answer(op, node, in[40:n])
		out := binary.LittleEndian.AppendUint32(nil, uint32(16+len(body)))
		out = binary.LittleEndian.AppendUint32(out, uint32(-int32(failed)))
		out = append(binary.LittleEndian.AppendUint64(out, unique), body...)
		_, _ = syscall.Write(f.fd, out) // a request that was interrupted wants no answer
	}
}

func u32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
func u64(b []byte, at int) uint64 { return binary.LittleEndian.Uint64(b[at:]) }

// texts are the names in a request, each with a zero at its end.
func texts(b []byte) []string { return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00") }

func (f *foldingFS) answer(op uint32, n *foldedNode, in []byte) ([]byte, syscall.Errno) {
	if n == nil && op != fuseInit && op != fuseStatfs {
		return nil, syscall.ENOENT
	}
	switch op {
	case fuseInit:
		return initAnswer(in), 0
	case fuseLookup:
		if child := n.children[foldName(texts(in)[0])]; child != nil {
			return child.entry(), 0
		}
		return nil, syscall.ENOENT
	case fuseGetattr:
		return n.attributes(), 0
	case fuseSetattr:
		if valid := u32(in, 0); valid&8 != 0 {
			n.resize(int(u64(in, 16)))
		}
		return n.attributes(), 0
	case fuseMkdir:
		return f.child(n, texts(in[8:])[0], syscall.S_IFDIR|0o755)
	case fuseCreate:
		entry, failed := f.child(n, texts(in[16:])[0], syscall.S_IFREG|0o644)
		return append(entry, make([]byte, 16)...), failed
	case fuseUnlink, fuseRmdir:
		return nil, n.remove(texts(in)[0], op == fuseRmdir)
	case fuseRename:
		return nil, f.rename(n, f.nodes[u64(in, 0)], texts(in[8:]))
	case fuseRename2:
		return nil, f.rename(n, f.nodes[u64(in, 0)], texts(in[16:]))
	case fuseLink:
		return f.link(n, f.nodes[u64(in, 0)], texts(in[8:])[0])
	case fuseOpen, fuseOpendir:
		return make([]byte, 16), 0
	case fuseRead:
		from := min(int(u64(in, 8)), len(n.data))
		return n.data[from:min(from+int(u32(in, 16)), len(n.data))], 0
	case fuseWrite:
		return n.write(int(u64(in, 8)), in[40:40+u32(in, 16)]), 0
	case fuseReaddir:
		return n.list(int(u64(in, 8)), int(u32(in, 16))), 0
	case fuseStatfs:
		return make([]byte, 80), 0
	case fuseRelease, fuseReleasedir, fuseFsync, fuseFsyncdir, fuseFlush:
		return nil, 0
	}
	return nil, syscall.ENOSYS
}

// initAnswer agrees to version 7.31 at most, with none of its options.
func initAnswer(in []byte) []byte {
	out := make([]byte, 64)
	binary.LittleEndian.PutUint32(out, 7)
	binary.LittleEndian.PutUint32(out[4:], min(u32(in, 4), 31))
	binary.LittleEndian.PutUint32(out[8:], u32(in, 8))
	binary.LittleEndian.PutUint32(out[20:], 128<<10) // bytes of a write
	binary.LittleEndian.PutUint32(out[24:], 1)       // nanoseconds
	return out
}

func (f *foldingFS) child(dir *foldedNode, name string, mode uint32) ([]byte, syscall.Errno) {
	if dir.children[foldName(name)] != nil {
		return nil, syscall.EEXIST
	}
	n := f.make(name, mode)
	dir.put(name, n)
	return n.entry(), 0
}

func (n *foldedNode) remove(name string, folder bool) syscall.Errno {
	child := n.children[foldName(name)]
	switch {
	case child == nil:
		return syscall.ENOENT
	case folder && len(child.children) > 0:
		return syscall.ENOTEMPTY
	case folder && child.mode&syscall.S_IFDIR == 0:
		return syscall.ENOTDIR
	}
	child.links--
	n.drop(name)
	return 0
}

func (f *foldingFS) rename(from, to *foldedNode, names []string) syscall.Errno {
	n := from.children[foldName(names[0])]
	switch {
	case n == nil || to == nil:
		return syscall.ENOENT
	case to.children[foldName(names[1])] == nil:
		n.name = names[1]
	default:
		n.name = to.children[foldName(names[1])].name // the entry stays, with another file in it
	}
	from.drop(names[0])
	to.put(names[1], n)
	return 0
}

func (f *foldingFS) link(dir, n *foldedNode, name string) ([]byte, syscall.Errno) {
	switch {
	case n == nil:
		return nil, syscall.ENOENT
	case dir.children[foldName(name)] != nil:
		return nil, syscall.EEXIST
	}
	n.links++
	n.name = name
	dir.put(name, n)
	return n.entry(), 0
}

func (n *foldedNode) resize(size int) {
	n.data = append(n.data[:min(size, len(n.data))], make([]byte, max(0, size-len(n.data)))...)
	n.modified = time.Now()
}

func (n *foldedNode) write(at int, data []byte) []byte {
	if at+len(data) > len(n.data) {
		n.resize(at + len(data))
	}
	copy(n.data[at:], data)
	n.modified = time.Now()
	return binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
}

// list gives entries behind the one with a number.
func (n *foldedNode) list(behind, room int) []byte {
	var out bytes.Buffer
	for i := behind; i < len(n.order); i++ {
		child := n.children[n.order[i]]
		size := (24 + len(child.name) + 7) &^ 7
		if out.Len()+size > room {
			break
		}
		entry := binary.LittleEndian.AppendUint64(nil, child.id)
		entry = binary.LittleEndian.AppendUint64(entry, uint64(i+1))
		entry = binary.LittleEndian.AppendUint32(entry, uint32(len(child.name)))
		entry = binary.LittleEndian.AppendUint32(entry, child.mode>>12)
		entry = append(entry, child.name...)
		out.Write(append(entry, make([]byte, size-len(entry))...))
	}
	return out.Bytes()
}

// attr is what the kernel keeps of a node; its times are not kept at all.
func (n *foldedNode) attr() []byte {
	second, nano := uint64(n.modified.Unix()), uint32(n.modified.Nanosecond())
	var out []byte
	for _, v := range []uint64{n.id, uint64(len(n.data)), uint64(len(n.data)+511) / 512, second, second, second} {
		out = binary.LittleEndian.AppendUint64(out, v)
	}
	for _, v := range []uint32{nano, nano, nano, n.mode, n.links, 0, 0, 0, 4096, 0} {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return out
}

func (n *foldedNode) attributes() []byte { return append(make([]byte, 16), n.attr()...) }

func (n *foldedNode) entry() []byte {
	return append(append(binary.LittleEndian.AppendUint64(nil, n.id), make([]byte, 32)...), n.attr()...)
}
