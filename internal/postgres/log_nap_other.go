//go:build !linux

package postgres

import "time"

// nap sleeps for a moment.
func nap(d time.Duration) { time.Sleep(d) }
