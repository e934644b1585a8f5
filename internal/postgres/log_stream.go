package postgres

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// burstConn reads what a busy server sends in few large pieces. A walsender writes each change by itself, and a reader
// as fast as it would spend most of its time in one small read after another; so while the stream is busy, the next read
// waits a moment for more. It lies below TLS, whose records are as small.
type burstConn struct {
	net.Conn
	on    bool // set when the stream begins
	buf   []byte
	r, w  int
	last  time.Time // when the last read returned
	small bool      // it gave little
}

const (
	burstBuffer = 256 << 10
	burstEnough = 64 << 10 // a read that gives this much needs no patience
	// A socket holds some hundred small messages, on Unix sockets no more than 250, which a server sends in about a
	// millisecond: whoever waits until it is full makes the walsender wait.
	burstWait = 500 * time.Microsecond
)

// begin is called when the stream does, while nobody reads.
func (c *burstConn) begin() {
	c.on = true
	c.Conn = quiet(c.Conn)
}

// Read serves from what was read ahead.
func (c *burstConn) Read(p []byte) (int, error) {
	if c.r == c.w {
		if c.on && c.small {
			c.pause()
		}
		if len(p) >= burstBuffer/2 {
			n, err := c.Conn.Read(p)
			c.note(n)
			return n, err
		}
		if c.buf == nil {
			c.buf = make([]byte, burstBuffer)
		}
		n, err := c.Conn.Read(c.buf)
		c.r, c.w = 0, n
		c.note(n)
		if n == 0 {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}

func (c *burstConn) note(n int) {
	if c.on {
		c.last, c.small = time.Now(), n < burstEnough
	}
}

// pause waits until burstWait has passed since the last read. It never delays what comes after a silence.
func (c *burstConn) pause() {
	wait := burstWait - time.Since(c.last)
	if wait < burstWait/8 {
		return
	}
	nap(wait)
}

// window is the part of a stream that is at hand.
type window struct {
	buf  []byte
	r, w int // buf[r:w] is read and not used
	read func([]byte) (int, error)
}

const (
	windowBuffer = 512 << 10
	windowKept   = 16 << 20   // a larger buffer is given up after its message
	windowTrust  = 64 << 20   // a length beyond this is believed when so much has come
	maxMessage   = 1<<30 + 64 // PostgreSQL's messages are below MaxAllocSize
)

// need reads until n bytes stand at buf[r:].
func (b *window) need(n int) error {
	if b.w-b.r >= n {
		return nil
	}
	if n > maxMessage {
		return malformed("a message of %d bytes", n)
	}
	b.fit(min(n, windowTrust))
	for b.w-b.r < n {
		if b.w == len(b.buf) {
			b.fit(n)
		}
		m, err := b.read(b.buf[b.w:])
		b.w += m
		if err != nil && b.w-b.r < n {
			return unexpected(err)
		}
	}
	return nil
}

// fit moves what is at hand to the front of a buffer that holds n bytes, and gives up one that has become too large.
func (b *window) fit(n int) {
	have := b.buf[b.r:b.w]
	if want := max(n, windowBuffer); want > len(b.buf) || len(b.buf) > windowKept && want <= windowKept && len(have) <= want {
		for size := windowBuffer; size <= windowKept; size *= 2 {
			if size >= want {
				want = size
				break
			}
		}
		fresh := scratch.Make(want)
		b.w = copy(fresh, have)
		scratch.Free(b.buf)
		b.buf, b.r = fresh, 0
		return
	}
	b.w = copy(b.buf, have)
	b.r = 0
}

// pass gives up the message that stood at hand.
func (b *window) pass(n int) {
	b.r += n
	if len(b.buf) > windowKept && b.w-b.r <= windowBuffer {
		b.fit(0)
	}
}

// shrink gives a buffer up that has grown, while nothing is at hand.
func (b *window) shrink() {
	scratch.Free(b.buf)
	b.buf, b.r, b.w = make([]byte, windowBuffer), 0, 0
}

// free ends the use of the window.
func (b *window) free() {
	scratch.Free(b.buf)
	*b = window{read: b.read}
}

// walStream is a connection in which the server sends the log (START_REPLICATION) and hears what is durable.
type walStream struct {
	conn  net.Conn
	where string
	in    window
	used  int             // bytes of the message that the last call of next gave
	ctx   context.Context // of the read that waits

	write    sync.Mutex    // one status at a time
	received atomic.Uint64 // LSN up to which the log has come
	durable  atomic.Uint64 // LSN that the consumer has acknowledged; 0 none yet
	ahead    *readAhead    // from when the stream is open
	reading  atomic.Bool   // a read waits for the server
	heard    atomic.Int64  // since when it waits without bytes, in Unix nanoseconds
	woken    bool          // it was the context that ended it
	asked    chan struct{} // a status is wanted before its time
	failed   atomic.Pointer[error]
	stop     context.CancelFunc
	done     chan struct{}
	by       atomic.Int64 // when the farewell must be over, in Unix nanoseconds; 0 before it begins
}

func newWALStream(conn net.Conn, where string) *walStream {
	s := &walStream{conn: conn, where: where, asked: make(chan struct{}, 1), ctx: context.Background()}
	s.in.read = s.readSocket
	s.in.buf = make([]byte, windowBuffer)
	return s
}

// readSocket reads once, before the stream is open. A context that ends wakes it.
func (s *walStream) readSocket(p []byte) (int, error) {
	ctx := s.ctx
	if ctx.Err() != nil {
		s.woken = true
		return 0, context.Cause(ctx)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		close(woken)
	})
	n, err := s.conn.Read(p)
	if !stop() {
		<-woken
		_ = s.conn.SetReadDeadline(time.Time{})
		if n > 0 {
			return n, nil
		}
		s.woken = true
		return 0, context.Cause(ctx)
	}
	return n, err
}

// send writes one message of the client.
func (s *walStream) send(kind byte, body []byte) error {
	msg := make([]byte, 0, len(body)+5)
	msg = append(msg, kind)
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(body)+4))
	msg = append(msg, body...)
	s.write.Lock()
	defer s.write.Unlock()
	until := time.Now().Add(time.Minute)
	if by := s.by.Load(); by != 0 {
		until = time.Unix(0, by)
	}
	_ = s.conn.SetWriteDeadline(until)
	_, err := s.conn.Write(msg)
	return err
}

// next returns the next message of the server; body is valid until the next call. An error of the server is returned as one.
func (s *walStream) next() (kind byte, body []byte, err error) {
	s.in.pass(s.used)
	s.used = 0
	if len(s.in.buf) > windowBuffer && s.in.r == s.in.w && s.ahead != nil && s.ahead.rests() {
		s.in.shrink() // a large message has passed long ago
	}
	if err := s.in.need(5); err != nil {
		return 0, nil, err
	}
	head := s.in.buf[s.in.r:]
	kind = head[0]
	size := int(binary.BigEndian.Uint32(head[1:])) + 1
	if size < 5 {
		return 0, nil, malformed("a message of length %d", size-1)
	}
	if err := s.in.need(size); err != nil {
		return 0, nil, err
	}
	s.used = size
	body = s.in.buf[s.in.r+5 : s.in.r+size]
	if kind == 'E' {
		var e pgproto3.ErrorResponse
		if e.Decode(body) != nil {
			return 0, nil, malformed("an error message that cannot be read")
		}
		return 0, nil, pgconn.ErrorResponseToPgError(&e)
	}
	return kind, body, nil
}

// begin sends START_REPLICATION and waits until the stream is open.
func (s *walStream) begin(command string) error {
	if err := s.send('Q', append([]byte(command), 0)); err != nil {
		return err
	}
	for {
		kind, _, err := s.next()
		if err != nil {
			return err
		}
		switch kind {
		case 'W':
			return nil
		case 'N', 'S':
		default:
			return malformed("a message of kind %q in answer to START_REPLICATION", kind)
		}
	}
}

// keep begins to read ahead and sends the status until the stream is closed: every interval, and when it is asked for. silence ends a
// stream in which the server, though asked, has said nothing for so long; 0 waits for ever.
func (s *walStream) keep(every, silence time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop, s.done = cancel, make(chan struct{})
	s.heard.Store(time.Now().UnixNano())
	s.ahead = newReadAhead(s)
	s.in.read = s.ahead.read
	go func() {
		defer close(s.done)
		if err := s.tellStatus(ctx, every, silence); err != nil {
			s.failed.Store(&err)
			_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // a read that waits learns of it
		}
	}()
}

// apart is the least time between two statuses: a server that shuts down asks as fast as it is answered.
const apart = 100 * time.Millisecond

func (s *walStream) tellStatus(ctx context.Context, every, silence time.Duration) error {
	timer := time.NewTimer(every)
	defer timer.Stop()
	pause := time.NewTimer(apart)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-s.asked:
		}
		quiet := time.Since(time.Unix(0, s.heard.Load()))
		if silence > 0 && s.reading.Load() && quiet > silence {
			return fault.New(fault.SourceCut, s.where, "the server has said nothing for %s", quiet.Round(time.Second))
		}
		if err := s.status(s.reading.Load() && quiet > every); err != nil {
			return fault.Wrap(err, fault.SourceCut, s.where, "cannot tell the server what is durable")
		}
		timer.Reset(every)
		pause.Reset(apart)
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
	}
}

// status tells what has come and what is durable.
func (s *walStream) status(wantReply bool) error {
	durable := s.durable.Load()
	body := make([]byte, 0, 34)
	body = append(body, 'r')
	body = binary.BigEndian.AppendUint64(body, max(s.received.Load(), durable))
	body = binary.BigEndian.AppendUint64(body, durable)
	body = binary.BigEndian.AppendUint64(body, durable)
	body = binary.BigEndian.AppendUint64(body, uint64(time.Now().UnixMicro()-pgEpoch))
	if wantReply {
		body = append(body, 1)
	} else {
		body = append(body, 0)
	}
	return s.send('d', body)
}

// ask makes the next status go out soon.
func (s *walStream) ask() {
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// ack notes what is durable. It never goes back.
func (s *walStream) ack(p change.LSN) {
	for {
		old := s.durable.Load()
		if uint64(p) <= old {
			return
		}
		if s.durable.CompareAndSwap(old, uint64(p)) {
			s.ask()
			return
		}
	}
}

// close tells the server the last status and waits, but not long, until it has let go of the slot.
func (s *walStream) close() {
	by := time.Now().Add(closeWithin)
	s.by.Store(by.UnixNano())
	_ = s.conn.SetWriteDeadline(by) // a status may be on its way to a server that takes nothing
	if s.stop != nil {
		s.stop()
		<-s.done
		s.ahead.leave()
	}
	_ = s.conn.SetReadDeadline(by)
	if s.ahead != nil && s.failed.Load() == nil && s.status(false) == nil && s.send('c', nil) == nil && s.send('X', nil) == nil {
		<-s.ahead.ended
	}
	_ = s.conn.Close()
	if s.ahead != nil {
		<-s.ahead.ended
	}
}

// notice is the fault in a notice of the server, if it is one: from 18 on, a publication that does not exist is
// only warned of, and its tables are left out without a word.
func (s *walStream) notice(body []byte) error {
	var n pgproto3.NoticeResponse
	if err := n.Decode(body); err != nil {
		return malformed("a notice: %v", err)
	}
	if n.Code != "55000" {
		return nil
	}
	return fault.New(fault.PublicationUnusable, s.where, "the server warns: %s", oneLine(strings.Join([]string{n.Message, n.Detail}, " "))).WithMend(notPublished)
}

// startReplication is the command that begins the stream.
func startReplication(o LogOptions, version int) string {
	names := make([]string, len(o.Publications))
	for i, p := range o.Publications {
		names[i] = quoteIdent(p)
	}
	protocol := 1
	var more string
	if version >= 140000 {
		protocol = 2
		if o.Streaming {
			more += ", streaming 'on'"
		}
		if o.Binary {
			more += ", binary 'true'"
		}
		if o.Messages {
			more += ", messages 'true'"
		}
	}
	switch {
	case version >= 160000:
		protocol = 4
	case version >= 150000:
		protocol = 3
	}
	// The grammar of replication commands knows no E'' strings; doubling the quotes is enough for it.
	list := "'" + strings.ReplaceAll(strings.Join(names, ","), "'", "''") + "'"
	return fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (proto_version '%d', publication_names %s%s)", quoteIdent(o.Slot), o.From, protocol, list, more)
}
