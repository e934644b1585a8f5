package bucket

import (
	"net/http"
	"sync/atomic"
	"time"
)

// serverClock is how far a server's clock is ahead of ours, by the Date of its answers.
type serverClock struct {
	ahead atomic.Int64 // nanoseconds
	at    atomic.Int64 // when that was told, by our clock; 0 before
}

// clockLasts is how long what an answer told of a clock is good: the next answer after it is looked at.
const clockLasts = time.Minute

func (c *serverClock) told(date string) {
	now := time.Now()
	if last := c.at.Load(); last != 0 && now.UnixNano()-last < int64(clockLasts) {
		return
	}
	if at, err := http.ParseTime(date); err == nil {
		c.ahead.Store(int64(at.Sub(now)))
		c.at.Store(now.UnixNano())
	}
}

// Ahead is how far the clock that a bucket's objects are dated by is ahead of ours, to a second or two; 0 where nothing has told of it yet.
func Ahead(b Bucket) time.Duration {
	var wire *watchdog
	switch k := bare(b).(type) {
	case *s3Bucket:
		wire = k.wire
	case *gcsBucket:
		wire = k.wire
	case *azureBucket:
		wire = k.wire
	default:
		return 0
	}
	return time.Duration(wire.clock.ahead.Load())
}
