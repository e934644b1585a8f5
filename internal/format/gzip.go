package format

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/leatdata/leat/internal/fault"
)

const (
	// gzipBlock is the number of text bytes in one gzip member. Members of 1 MiB cost
	// 0.3 % of size against one endless stream and are big enough to share out.
	gzipBlock = 1 << 20

	// DefaultGzipLevel is the level that level 0 stands for. On text like TPC-H's lineitem it takes
	// 4 CPU-seconds per GB for a file 1.19 times that of gzip -6, which takes 43; level 6 takes 7 for
	// 1.07 times, level 7 takes 20 for 1.02 times (decision 50).
	DefaultGzipLevel = 2

	maxGzipLevel = 9
)

var errGzipClosed = errors.New("write to a closed gzip stream")

// Gzip compresses a stream of bytes into gzip members of 1 MiB of input each (RFC 1952,
// section 2.2: a gzip file is a series of members), so gunzip and every other reader of
// gzip files reads it, and several such files put end to end are a gzip file again.
//
// The same input, cut by Flush at the same places, gives the same bytes whatever the
// number of processors and however it was cut into Writes.
//
// A Gzip is used by one goroutine. It starts others that compress one block each, wait for
// nothing and end by themselves: one that is dropped without Close leaks none.
type Gzip struct {
	w        io.Writer
	level    int
	parallel int

	block  *gzipMember   // being filled; nil before its first byte
	queue  []*gzipMember // being compressed, oldest first; at most parallel of them
	wrote  bool          // a member has been begun, so the file is not empty
	closed bool
	err    error // the first failure; all later calls return it
}

// gzipMember is one block on its way from text to a gzip member.
type gzipMember struct {
	text []byte
	out  bytes.Buffer
	enc  *gzip.Writer
	err  error
	done chan struct{} // closed when out is ready; a new one for each block
}

// gzipMembers keeps members between streams, by level: a dump of thousands of small tables
// would otherwise make a new megabyte of match tables for each.
var gzipMembers [maxGzipLevel + 1]sync.Pool

// NewGzip returns a Gzip that writes to w. Level is 1 (fast) to 9 (small), 0 takes
// [DefaultGzipLevel]; another level is a FormatUnusable fault from the first call.
// Parallel is how many blocks are compressed at once; with 1 or less there are no
// goroutines, all work is done inside Write. It holds at most parallel+1 blocks, 3 MiB each.
func NewGzip(w io.Writer, level, parallel int) *Gzip {
	g := &Gzip{w: w, level: level, parallel: max(parallel, 1)}
	if level == 0 {
		g.level = DefaultGzipLevel
	}
	if g.level < 0 || g.level > maxGzipLevel {
		g.err = fault.New(fault.FormatUnusable, "gzip", "level %d is not one of 1 to %d", level, maxGzipLevel)
	}
	return g
}

// Write takes text. It returns the underlying writer's error as it is, perhaps some
// blocks later than the one that caused it.
func (g *Gzip) Write(p []byte) (int, error) {
	if g.closed {
		return 0, errGzipClosed
	}
	taken := 0
	for taken < len(p) && g.err == nil {
		if g.block == nil {
			g.block = g.newMember()
		}
		n := min(len(p)-taken, gzipBlock-len(g.block.text))
		g.block.text = append(g.block.text, p[taken:taken+n]...)
		taken += n
		if len(g.block.text) == gzipBlock {
			g.compress()
		}
	}
	return taken, g.err
}

// Flush ends the current member and hands all that was written so far to the underlying
// writer. What has been written by then is a complete gzip file; without any text it is
// nothing at all.
func (g *Gzip) Flush() error {
	if g.closed {
		return errGzipClosed
	}
	if g.block != nil && g.err == nil {
		g.compress()
	}
	g.drain(0)
	return g.err
}

// Close writes what is left and returns the first failure. The underlying writer stays
// open. A stream without text becomes one empty member, because an empty file is no gzip
// file. Closing again does nothing and returns the same.
func (g *Gzip) Close() error {
	if g.closed {
		return g.err
	}
	if !g.wrote && g.err == nil {
		g.block = g.newMember()
	}
	err := g.Flush()
	g.closed = true
	if g.block != nil {
		g.release(g.block)
		g.block = nil
	}
	return err
}

// compress turns the current block into a member: at once, or in a goroutine of its own.
func (g *Gzip) compress() {
	m := g.block
	g.block = nil
	if g.parallel == 1 {
		m.compress()
		g.put(m)
		return
	}
	g.drain(g.parallel - 1)
	g.queue = append(g.queue, m)
	m.done = make(chan struct{})
	go func() {
		defer close(m.done)
		m.compress()
	}()
}

// drain writes the oldest members until at most keep are left. After a failure it still
// waits for them, so that no goroutine outlives Close.
func (g *Gzip) drain(keep int) {
	for len(g.queue) > keep {
		m := g.queue[0]
		g.queue = append(g.queue[:0], g.queue[1:]...)
		<-m.done
		g.put(m)
	}
}

// put writes a finished member, unless an earlier one failed: a gap must not follow.
func (g *Gzip) put(m *gzipMember) {
	defer g.release(m)
	if g.err != nil {
		return
	}
	if g.err = m.err; g.err != nil {
		return
	}
	n, err := g.w.Write(m.out.Bytes())
	if err == nil && n < m.out.Len() {
		err = io.ErrShortWrite
	}
	g.err = err
}

// newMember begins a block.
func (g *Gzip) newMember() *gzipMember {
	g.wrote = true
	if m, ok := gzipMembers[g.level].Get().(*gzipMember); ok {
		return m
	}
	m := new(gzipMember)
	// NewWriterLevel refuses only levels that NewGzip has refused already.
	m.enc, m.err = gzip.NewWriterLevel(&m.out, g.level)
	return m
}

// release keeps the member's memory for the next block.
func (g *Gzip) release(m *gzipMember) {
	if m.err != nil {
		return
	}
	m.text = m.text[:0]
	gzipMembers[g.level].Put(m)
}

// compress fills out with the member that holds text.
func (m *gzipMember) compress() {
	if m.err != nil {
		return
	}
	m.out.Reset()
	m.enc.Reset(&m.out)
	if _, m.err = m.enc.Write(m.text); m.err == nil {
		m.err = m.enc.Close()
	}
}
