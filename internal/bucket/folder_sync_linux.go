package bucket

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// syncAll brings everything on the folder's file system onto the disk (syncfs(2), which since Linux 5.8 also
// tells of writes that failed).
func (f *folder) syncAll() (done bool, err error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return false, err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return false, fmt.Errorf("syncfs: %w", err)
	}
	return true, nil
}
