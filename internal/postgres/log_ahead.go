package postgres

import (
	"context"
	"sync"
	"time"
)

// aheadBuffer is how much of the log waits in memory while the consumer is busy with what came before: writing a batch,
// committing. Without it the walsender, which a socket of some hundred messages stops, would stand still meanwhile.
const aheadBuffer = 8 << 20

const (
	aheadFirst  = 256 << 10       // where it begins, and what it goes back to
	aheadQuiet  = 5 * time.Second // of silence, after which a stream is at rest
	aheadEnough = 128 << 10
	// aheadWait is the least time between two looks at a busy stream that gives little at once: to be woken for every
	// read costs more than what was read.
	aheadWait = 2 * time.Millisecond
)

// readAhead reads a stream into a ring, which grows while the consumer is slower and shrinks when the stream comes to
// rest. Its goroutine alone reads the connection.
type readAhead struct {
	stream *walStream
	buf    []byte

	mu     sync.Mutex
	r, w   int   // what has been taken and what has come, counted since the ring was last empty
	err    error // what ended the connection; comes after all that was read
	hungry bool  // the consumer waits for data
	full   bool  // the reader waits for room
	quiet  bool  // what came last came after a silence

	data, room chan struct{}
	last       time.Time     // when the consumer took something
	small      bool          // it was little
	leaving    chan struct{} // nobody wants the data any more
	left       sync.Once
	ended      chan struct{}
}

func newReadAhead(s *walStream) *readAhead {
	a := &readAhead{
		stream: s, buf: make([]byte, aheadFirst), data: make(chan struct{}, 1), room: make(chan struct{}, 1),
		leaving: make(chan struct{}), ended: make(chan struct{}),
	}
	go a.run()
	return a
}

func (a *readAhead) run() {
	defer close(a.ended)
	s := a.stream
	for {
		free := a.free()
		if free == nil {
			return
		}
		s.reading.Store(true)
		n, err := s.conn.Read(free)
		s.reading.Store(false)
		quiet := false
		if n > 0 {
			now := time.Now().UnixNano()
			quiet = now-s.heard.Swap(now) > int64(aheadQuiet)
		}
		if failed := s.failed.Load(); err != nil && failed != nil {
			err = *failed
		}
		a.mu.Lock()
		a.w += n
		a.err, a.quiet = err, quiet
		wake := a.hungry && (n > 0 || err != nil)
		a.hungry = a.hungry && !wake
		a.mu.Unlock()
		if wake {
			a.data <- struct{}{}
		}
		if err != nil {
			return
		}
	}
}

// free waits for room and returns it, nil when nobody wants the data any more. Whoever leaves reads on without keeping anything, so
// that the server can say its last.
func (a *readAhead) free() []byte {
	for {
		a.mu.Lock()
		if a.r == a.w {
			a.r, a.w = 0, 0 // what is used again soon stays in the processor's cache
		}
		switch have := a.w - a.r; {
		case have == len(a.buf) && have < aheadBuffer:
			a.resize(2 * have)
		case a.quiet && len(a.buf) > aheadFirst && have < aheadFirst/2:
			a.resize(aheadFirst)
		}
		if room := len(a.buf) - (a.w - a.r); room > 0 {
			at := a.w % len(a.buf)
			a.mu.Unlock()
			return a.buf[at:min(at+room, len(a.buf))]
		}
		a.full = true
		a.mu.Unlock()
		select {
		case <-a.room:
			a.stream.heard.Store(time.Now().UnixNano()) // it was us who were silent
		case <-a.leaving:
			a.discard()
			return nil
		}
	}
}

// resize moves what has come and was not taken to another ring. mu is held.
func (a *readAhead) resize(n int) {
	fresh := make([]byte, n)
	at, have := a.r%len(a.buf), a.w-a.r
	first := copy(fresh, a.buf[at:min(at+have, len(a.buf))])
	copy(fresh[first:], a.buf[:have-first])
	a.buf, a.r, a.w = fresh, 0, have
}

// rests says whether the stream has come to rest.
func (a *readAhead) rests() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.quiet
}

func (a *readAhead) discard() {
	for {
		if _, err := a.stream.conn.Read(a.buf); err != nil {
			return
		}
	}
}

// read gives what has come, or waits for it. The end of the context ends the wait.
func (a *readAhead) read(p []byte) (int, error) {
	s := a.stream
	if failed := s.failed.Load(); failed != nil {
		return 0, *failed
	}
	if wait := aheadWait - time.Since(a.last); a.small && wait > aheadWait/8 {
		nap(wait)
	}
	for {
		if s.ctx.Err() != nil {
			s.woken = true
			return 0, context.Cause(s.ctx)
		}
		a.mu.Lock()
		if n, err := a.take(p); n > 0 || err != nil {
			a.last = time.Now()
			return n, err
		}
		a.hungry = true
		a.mu.Unlock()
		select {
		case <-a.data:
		case <-s.ctx.Done():
			a.mu.Lock()
			if !a.hungry { // the signal is on its way: it must not wake a later wait
				<-a.data
			}
			a.hungry = false
			a.mu.Unlock()
		}
	}
}

// take copies what has come. It unlocks mu unless there is nothing.
func (a *readAhead) take(p []byte) (int, error) {
	if a.r == a.w {
		if a.err == nil {
			return 0, nil
		}
		defer a.mu.Unlock()
		return 0, a.err
	}
	buf, at := a.buf, a.r%len(a.buf)
	n := min(len(p), a.w-a.r, len(buf)-at)
	a.mu.Unlock()
	copy(p, buf[at:at+n]) // what has come stays as it is until r moves on, also where the ring is another one by then
	a.mu.Lock()
	a.r += n
	a.small = a.r == a.w && n < aheadEnough
	wake := a.full
	a.full = false
	a.mu.Unlock()
	if wake {
		a.room <- struct{}{}
	}
	return n, nil
}

// leave ends the reading: the goroutine goes on until the connection ends, but keeps nothing that there is no room for. It
// may be called again.
func (a *readAhead) leave() { a.left.Do(func() { close(a.leaving) }) }
