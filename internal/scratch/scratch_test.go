package scratch

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"unsafe"
)

// The tests change where files are made, so they run one after another.

func TestALargeBufferIsNotInMemoryAndStaysWhatItIs(t *testing.T) {
	onLinux(t)
	In(t.TempDir())
	b := Make(4 * Large)
	defer Free(b)
	for i := range b {
		b[i] = byte(i * 7)
	}
	held.Lock() // nobody touches it now
	dropPages(b)
	kib := resident(t, b)
	held.Unlock()
	if kib > 1024 {
		t.Errorf("%d KiB of it are in memory", kib)
	}
	for i := range b {
		if b[i] != byte(i*7) {
			t.Fatalf("byte %d is %d", i, b[i])
		}
	}
	if left, err := os.ReadDir(held.dir); err != nil || len(left) > 0 {
		t.Errorf("files can be seen: %v, %v", left, err)
	}
}

func TestABufferThatGrowsKeepsWhatItHolds(t *testing.T) {
	onLinux(t)
	In(t.TempDir())
	b := []byte("begin")
	piece := bytes.Repeat([]byte("x"), Large/3)
	for range 10 {
		b = Append(b, piece)
	}
	if Held() != 1 {
		t.Errorf("%d buffers are held", Held())
	}
	if string(b[:5]) != "begin" || !bytes.Equal(b[len(b)-len(piece):], piece) || len(b) != 5+10*len(piece) {
		t.Errorf("%d bytes, beginning %q", len(b), b[:5])
	}
	Free(b[:0])
	if Held() != 0 {
		t.Errorf("%d buffers are held after all were given back", Held())
	}
}

func TestWithoutRoomForAFileABufferIsMemory(t *testing.T) {
	In(filepath.Join(t.TempDir(), "none"))
	b := Make(Large)
	b[Large-1] = 1
	if Held() != 0 {
		t.Error("it is in a file all the same")
	}
	Free(b)
	Free(nil)
	Free(make([]byte, 3))
	if b = Grow(b, 10); len(b) != Large || cap(b) < Large+10 || b[Large-1] != 1 {
		t.Errorf("grown to %d of %d", len(b), cap(b))
	}
}

func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("buffers are kept in files on Linux only")
	}
}

// resident asks the kernel how many KiB of a buffer are in memory.
func resident(t *testing.T, b []byte) (kib int) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(maps), fmt.Sprintf("\n%x-", uintptr(unsafe.Pointer(&b[0]))))
	if !ok {
		t.Fatal("the buffer is no mapping of its own")
	}
	_, after, _ = strings.Cut(after, "\nRss:")
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}
