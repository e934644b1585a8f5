package dump

import (
	"context"
	"sync"
)

// joined makes one object of the outputs of a table's units, in the order of the units,
// while several are read at once. The unit whose turn it is writes straight through; a later one may
// be ahead by so many bytes and then waits (Invariant 8). Units are begun in order,
// so the one whose turn it is always has a reader, and nobody waits for ever.
type joined struct {
	mu    sync.Mutex
	wake  chan struct{} // closed and replaced when something changed
	turn  int
	parts map[int]*part
	sink  *sink
	ahead int // bytes that one unit may hold before its turn
	err   error
}

// aheadBytes is joined.ahead of a dump.
const aheadBytes = 8 << 20

type part struct {
	held    []byte
	ended   bool
	through bool // bytes of this unit are in the object: it cannot be tried again
}

func newJoined(s *sink) *joined {
	return &joined{wake: make(chan struct{}), parts: map[int]*part{}, sink: s, ahead: aheadBytes}
}

// writer gives unit i its way into the object.
func (j *joined) writer(ctx context.Context, i int) *partWriter {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.parts[i] = &part{}
	return &partWriter{ctx: ctx, joined: j, index: i}
}

type partWriter struct {
	ctx    context.Context
	joined *joined
	index  int
}

func (w *partWriter) Write(p []byte) (int, error) {
	j := w.joined
	j.mu.Lock()
	defer j.mu.Unlock()
	for {
		if j.err != nil {
			return 0, j.err
		}
		mine := j.parts[w.index]
		if j.turn == w.index {
			if err := j.passOn(mine, p); err != nil {
				return 0, err
			}
			return len(p), nil
		}
		if len(mine.held)+len(p) <= j.ahead || len(mine.held) == 0 && len(p) <= 2*j.ahead {
			mine.held = append(mine.held, p...)
			return len(p), nil
		}
		if err := j.wait(w.ctx); err != nil {
			return 0, err
		}
	}
}

// passOn writes what was held and then p. The lock is kept: the object has one writer.
func (j *joined) passOn(mine *part, p []byte) error {
	for _, b := range [][]byte{mine.held, p} {
		if len(b) == 0 {
			continue
		}
		mine.through = true
		if _, err := j.sink.Write(b); err != nil {
			j.fail(err)
			return err
		}
	}
	mine.held = nil
	return nil
}

// wait gives the lock up until something changed.
func (j *joined) wait(ctx context.Context) error {
	wake := j.wake
	j.mu.Unlock()
	defer j.mu.Lock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (j *joined) changed() {
	close(j.wake)
	j.wake = make(chan struct{})
}

func (j *joined) fail(err error) {
	if j.err == nil {
		j.err = err
	}
	j.changed()
}

// end says that the unit is whole; then it is the next one's turn, and what that one holds is passed on.
func (w *partWriter) end() error {
	j := w.joined
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return j.err
	}
	j.parts[w.index].ended = true
	for {
		p := j.parts[j.turn]
		if p == nil {
			break
		}
		if err := j.passOn(p, nil); err != nil {
			return err
		}
		if !p.ended {
			break
		}
		delete(j.parts, j.turn)
		j.turn++
	}
	j.changed()
	return nil
}

// retract forgets what the unit has written, so that it can be tried again. It returns false when
// bytes are in the object already.
func (w *partWriter) retract() bool {
	j := w.joined
	j.mu.Lock()
	defer j.mu.Unlock()
	p := j.parts[w.index]
	if j.err != nil || p == nil || p.through {
		return false
	}
	p.held = nil
	return true
}
