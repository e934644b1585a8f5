package main

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// dropStartup takes those pages of the binary out of our memory that have been read so far. The start of each of its many packages reads
// some, and most are not needed again; what is comes back from the page cache.
func dropStartup() {
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return
	}
	for line := range strings.Lines(string(maps)) {
		// address, permissions, offset, device, inode, path (proc_pid_maps(5))
		field := strings.Fields(line)
		if len(field) != 6 || field[5] != self || strings.Contains(field[1], "w") {
			continue
		}
		first, last, _ := strings.Cut(field[0], "-")
		from, err := strconv.ParseUint(first, 16, 64)
		to, err2 := strconv.ParseUint(last, 16, 64)
		if err == nil && err2 == nil {
			_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, uintptr(from), uintptr(to-from), syscall.MADV_DONTNEED) // without it, it is only more memory
		}
	}
}
