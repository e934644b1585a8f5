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
	aheadEnough = 128 << 10
	// aheadWait is the least time between two looks at a busy stream that gives little at once: to be woken for every
	// read costs more than what was read.
	aheadWait = 2 * time.Millisecond
)

// readAhead reads a stream into a ring. Its goroutine alone reads the connection.
type readAhead struct {
	stream *walStream
	buf    []byte

	mu     sync.Mutex
	r, w   int   // what has been taken and what has come, counted since the ring was last empty
	err    error // what ended the connection; comes after all that was read
	hungry bool  // the consumer waits for data
	full   bool  // the reader waits for room

	data, room chan struct{}
	last       time.Time     // when the consumer took something
	small      bool          // it was little
	leaving    chan struct{} // nobody wants the data any more
	left       sync.Once
	ended      chan struct{}
}

func newReadAhead(s *walStream) *readAhead {
	a := &readAhead{
		stream: s, buf: make([]byte, aheadBuffer), data: make(chan struct{}, 1), room: make(chan struct{}, 1),
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
		if n > 0 {
			s.heard.Store(time.Now().UnixNano())
		}
		if failed := s.failed.Load(); err != nil && failed != nil {
			err = *failed
		}
		a.mu.Lock()
		a.w += n
		a.err = err
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
	at := a.r % len(a.buf)
	n := min(len(p), a.w-a.r, len(a.buf)-at)
	a.mu.Unlock()
	copy(p, a.buf[at:at+n]) // what has come stays as it is until r moves on
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
