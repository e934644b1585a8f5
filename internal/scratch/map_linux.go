package scratch

import (
	"os"

	"golang.org/x/sys/unix"
)

// mapUnnamed maps a new file that has no name any more. Its room is reserved: a disk that is full must be an error now, not a signal when a
// page is written.
func mapUnnamed(dir string, n int) ([]byte, error) {
	f, err := os.CreateTemp(dir, "leat-large-")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, err
	}
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(n)); err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// unmap and dropPages fail only for addresses that are not mapped.

func unmap(m []byte) { _ = unix.Munmap(m) }

func dropPages(m []byte) { _ = unix.Madvise(m, unix.MADV_DONTNEED) }
