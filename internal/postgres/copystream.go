package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/leatdata/leat/internal/scratch"
)

// copyStream speaks COPY … TO STDOUT on a connection of its own. It reads messages in place
// from one large buffer, where the driver would copy each, and hands a value that is larger than the buffer straight to where
// it belongs, so that a row of a gigabyte needs the memory of its columns and no more.
//
// Bounds of CopyData messages mean nothing ("https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-COPY":
// the division into messages is not meaningful); what it gives is the stream of their payloads.
type copyStream struct {
	conn  net.Conn
	local bool              // a Unix socket, which gives a server's messages one by one
	limit func(n int) error // waits until n more bytes may be read; nil is no limit
	buf   []byte
	r, w  int    // buf[r:w] is read and not used
	left  int    // payload bytes of the current CopyData that are not used
	ended bool   // CopyDone was seen
	tag   string // command tag, after CommandComplete
	total int64  // payload bytes so far

	last  time.Time // when the last read of a local stream returned
	small bool      // it gave little
	came  int       // bytes since the statement was sent
}

const (
	streamBuffer = 256 << 10
	localEnough  = 64 << 10 // a read that gives this much needs no patience
	localFlow    = 64 << 10 // what a COPY has given when it is more than a few rows
	// A server sends 8 KB at a time, and a reader that is faster is woken for each. It sends some 50 KB meanwhile, which
	// the socket holds.
	localWait = 200 * time.Microsecond
)

func newCopyStream(conn net.Conn, limit func(int) error) *copyStream {
	_, local := conn.(*net.UnixConn)
	return &copyStream{conn: conn, local: local, limit: limit, buf: make([]byte, streamBuffer)}
}

// read reads once into the free part of the buffer. While a server on this machine sends all the time, it waits a
// moment for more.
func (s *copyStream) read() (int, error) {
	if !s.local {
		return s.conn.Read(s.buf[s.w:])
	}
	if s.small {
		if wait := localWait - time.Since(s.last); wait > localWait/8 {
			nap(wait)
		}
	}
	n, err := s.conn.Read(s.buf[s.w:])
	s.came += n
	s.last, s.small = time.Now(), n < localEnough && s.came >= localFlow
	return n, err
}

// start sends the statement. Its answer is read with the first payload.
func (s *copyStream) start(sql string) error {
	s.ended, s.tag, s.left, s.small, s.came = false, "", 0, false, 0
	msg := make([]byte, 0, len(sql)+6)
	msg = append(msg, 'Q')
	msg = binary.BigEndian.AppendUint32(msg, uint32(len(sql)+5))
	msg = append(append(msg, sql...), 0)
	_, err := s.conn.Write(msg)
	return err
}

// fill reads until at least n bytes stand in the buffer; n is at most the buffer's size. A read is offered half of the buffer at least: what is
// left over is moved before it.
func (s *copyStream) fill(n int) error {
	if s.w-s.r >= n {
		return nil
	}
	if s.r+n > len(s.buf) || len(s.buf)-s.w < len(s.buf)/2 {
		s.w = copy(s.buf, s.buf[s.r:s.w])
		s.r = 0
	}
	for s.w-s.r < n {
		m, err := s.read()
		s.w += m
		if err != nil && s.w-s.r < n {
			return unexpected(err)
		}
		if s.limit != nil && m > 0 {
			if err := s.limit(m); err != nil {
				return err
			}
		}
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// next makes sure that payload is at hand, reading on to the next CopyData where the last one is used up.
// It returns false at the end of the COPY.
func (s *copyStream) next() (bool, error) {
	for s.left == 0 {
		if s.ended {
			return false, nil
		}
		if err := s.fill(5); err != nil {
			return false, err
		}
		kind, size := s.buf[s.r], int(int32(binary.BigEndian.Uint32(s.buf[s.r+1:])))-4
		s.r += 5
		if size < 0 {
			return false, malformed("a message of length %d", size)
		}
		if kind == 'd' {
			s.left = size
			s.total += int64(size)
			continue
		}
		if err := s.message(kind, size); err != nil {
			return false, err
		}
	}
	return true, nil
}

// whole returns the payload of the next CopyData if it stands in the buffer already, else nil: most rows need no more than that.
func (s *copyStream) whole() []byte {
	if s.left != 0 || s.w-s.r < 5 || s.buf[s.r] != 'd' {
		return nil
	}
	size := int(int32(binary.BigEndian.Uint32(s.buf[s.r+1:]))) - 4
	if size <= 0 || size > s.w-s.r-5 {
		return nil
	}
	s.r += 5
	s.left = size
	s.total += int64(size)
	return s.buf[s.r : s.r+size]
}

// message handles everything that is not CopyData.
func (s *copyStream) message(kind byte, size int) error {
	const most = 16 << 20 // no message of these kinds is near this
	if size > most {
		return malformed("a message %q of %d bytes", kind, size)
	}
	body := make([]byte, size)
	if err := s.readFull(body); err != nil {
		return err
	}
	switch kind {
	case 'E':
		var e pgproto3.ErrorResponse
		if err := e.Decode(body); err != nil {
			return malformed("an error message that cannot be read")
		}
		s.untilReady()
		return pgconn.ErrorResponseToPgError(&e)
	case 'C':
		s.tag = strings.TrimRight(string(body), "\x00")
	case 'Z':
		s.ended = true
	case 'H', 'c', 'N', 'S', 'A': // CopyOutResponse, CopyDone, notices: nothing to do
	default:
		return malformed("a message of kind %q during COPY", kind)
	}
	return nil
}

// untilReady skips what follows an error, so that the connection can serve again. A FATAL error ends the
// connection instead, which the next statement will find.
func (s *copyStream) untilReady() {
	for {
		if s.fill(5) != nil {
			return // the error that brought us here is the one to tell
		}
		kind, size := s.buf[s.r], int(int32(binary.BigEndian.Uint32(s.buf[s.r+1:])))-4
		s.r += 5
		if size < 0 || size > 16<<20 || s.readFull(make([]byte, size)) != nil {
			return
		}
		if kind == 'Z' {
			s.ended = true
			return
		}
	}
}

// readFull reads raw bytes of the connection, past the buffer once that is used up.
func (s *copyStream) readFull(dst []byte) error {
	n := copy(dst, s.buf[s.r:s.w])
	s.r += n
	for n < len(dst) {
		m, err := s.conn.Read(dst[n:])
		n += m
		if s.limit != nil && m > 0 {
			if err := s.limit(m); err != nil {
				return err
			}
		}
		if err != nil && n < len(dst) {
			return unexpected(err)
		}
	}
	return nil
}

// window returns the rest of the current CopyData if it stands in the buffer whole, else nil.
func (s *copyStream) window() ([]byte, error) {
	if s.left > len(s.buf)/2 {
		return nil, nil
	}
	if err := s.fill(s.left); err != nil {
		return nil, err
	}
	return s.buf[s.r : s.r+s.left], nil
}

func (s *copyStream) advance(n int) { s.r += n; s.left -= n }

// payload reads exactly len(dst) payload bytes, over as many messages as they are spread.
func (s *copyStream) payload(dst []byte) error {
	for len(dst) > 0 {
		ok, err := s.next()
		if err != nil {
			return err
		}
		if !ok {
			return io.ErrUnexpectedEOF
		}
		n := min(len(dst), s.left)
		if err := s.readFull(dst[:n]); err != nil {
			return err
		}
		s.left -= n
		dst = dst[n:]
	}
	return nil
}

// appendPayload appends n payload bytes to dst. Memory is taken in one piece for what the current message
// holds, and step by step beyond it, so that a length that lies costs nothing.
func (s *copyStream) appendPayload(dst []byte, n int) ([]byte, error) {
	for n > 0 {
		step := min(n, max(s.left, 1<<20))
		old := len(dst)
		dst = scratch.Grow(dst, step)[:old+step]
		if err := s.payload(dst[old:]); err != nil {
			return dst[:old], err
		}
		n -= step
	}
	return dst, nil
}

// writeTo hands all payload to w until the COPY ends, without regard to rows.
func (s *copyStream) writeTo(w io.Writer) error {
	for {
		ok, err := s.next()
		if err != nil || !ok {
			return err
		}
		if err := s.fill(1); err != nil {
			return err
		}
		n := min(s.left, s.w-s.r)
		if _, err := w.Write(s.buf[s.r : s.r+n]); err != nil {
			return err
		}
		s.advance(n)
	}
}

// rows is the count of the command tag "COPY n".
func (s *copyStream) rows() (int64, error) {
	n, err := strconv.ParseInt(strings.TrimPrefix(s.tag, "COPY "), 10, 64)
	if err != nil {
		return 0, malformed("a command tag %q after COPY", s.tag)
	}
	return n, nil
}

// during makes a cancelled context end a read or write that waits: the deadline wakes it.
func (s *copyStream) during(ctx context.Context, f func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	err := f()
	if ctx.Err() != nil {
		return fmt.Errorf("%w", context.Cause(ctx))
	}
	return err
}
