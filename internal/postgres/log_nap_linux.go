package postgres

import (
	"syscall"
	"time"
)

// nap sleeps for less than a millisecond. The runtime's own timers round that up to a whole one, because its poller
// counts milliseconds.
func nap(d time.Duration) {
	ts := syscall.NsecToTimespec(d.Nanoseconds())
	_ = syscall.Nanosleep(&ts, nil) // a signal that ends it early does no harm
}
