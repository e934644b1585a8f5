package postgres

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// nap sleeps for less than a millisecond. The runtime's own timers round that up to a whole one, because its poller
// counts milliseconds. The runtime is not told of the call, so that it keeps its processor: its monitor would take it
// away each time and, for that, look every 20 µs, which is a tenth of the CPU of following a busy log. With a single
// processor nobody else could work meanwhile.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(d.Nanoseconds())
	if runtime.GOMAXPROCS(0) == 1 {
		_ = syscall.Nanosleep(&ts, nil) // a signal that ends it early does no harm
		return
	}
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0) //nolint:gosec // the kernel reads ts
}
