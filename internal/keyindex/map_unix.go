//go:build unix

package keyindex

import (
	"os"

	"golang.org/x/sys/unix"
)

func mapFile(f *os.File, at int64, n int) ([]byte, error) {
	return unix.Mmap(int(f.Fd()), at, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func unmapFile(_ *os.File, _ int64, m []byte, keep bool) error {
	if keep {
		if err := unix.Msync(m, unix.MS_SYNC); err != nil {
			return err
		}
	}
	return unix.Munmap(m)
}
