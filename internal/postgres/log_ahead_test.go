package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// sockets are the two ends of a Unix socket.
func sockets(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("unix", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func followed(t *testing.T, ours net.Conn) *walStream {
	t.Helper()
	burst := &burstConn{Conn: ours}
	burst.begin()
	s := newWALStream(burst, "test")
	s.keep(time.Hour, 0)
	t.Cleanup(s.close)
	return s
}

func TestTheServerIsNotKeptWaitingWhileTheConsumerIsBusy(t *testing.T) {
	t.Parallel()
	ours, theirs := sockets(t)
	s := followed(t, ours)
	// The consumer reads nothing, and all of this is far more than a socket holds.
	_ = theirs.SetWriteDeadline(time.Now().Add(30 * time.Second))
	sent := make([]byte, aheadBuffer/2)
	for i := range len(sent) / 8 {
		binary.BigEndian.PutUint64(sent[i*8:], uint64(i))
	}
	if _, err := theirs.Write(sent); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(reads(s.in.read), got); err != nil || string(got) != string(sent) {
		t.Errorf("%v, the same: %v", err, string(got) == string(sent))
	}
}

func TestWhatIsReadAheadComesInOrderAndItsEndLast(t *testing.T) {
	t.Parallel()
	ours, theirs := sockets(t)
	s := followed(t, ours)
	const words = 5 * aheadBuffer / 8
	go func() { // ends with the last word
		defer theirs.Close()
		piece := make([]byte, 0, 16<<10)
		for i := range words {
			piece = binary.BigEndian.AppendUint64(piece, uint64(i))
			if len(piece) == cap(piece) || i == words-1 {
				if _, err := theirs.Write(piece); err != nil {
					return
				}
				piece = piece[:0]
			}
		}
	}()
	r := reads(s.in.read)
	p := make([]byte, 100*8)
	for i := 0; i < words; {
		n := min(len(p), 8*(words-i))
		if _, err := io.ReadFull(r, p[:n]); err != nil {
			t.Fatal(i, err)
		}
		for at := 0; at < n; at, i = at+8, i+1 {
			if w := binary.BigEndian.Uint64(p[at:]); w != uint64(i) {
				t.Fatalf("word %d is %d", i, w)
			}
		}
	}
	if n, err := r.Read(p); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %d, %v", n, err)
	}
}

// What a busy hour has made of the buffers must not stay: a process may hold many pipelines at rest.
func TestBuffersOfTheLogShrinkWhenTheStreamComesToRest(t *testing.T) {
	t.Parallel()
	ours, theirs := sockets(t)
	s := followed(t, ours)
	message := func(size int) []byte {
		m := make([]byte, 5+size)
		m[0] = 'd'
		binary.BigEndian.PutUint32(m[1:], uint32(4+size))
		return m
	}
	read := func(size int) {
		t.Helper()
		if kind, body, err := s.next(); kind != 'd' || len(body) != size || err != nil {
			t.Fatalf("a message %q of %d bytes, %v; want %d", kind, len(body), err, size)
		}
	}
	ring := func() int {
		s.ahead.mu.Lock()
		defer s.ahead.mu.Unlock()
		return len(s.ahead.buf)
	}
	write := func(m []byte) {
		t.Helper()
		_ = theirs.SetWriteDeadline(time.Now().Add(30 * time.Second))
		if _, err := theirs.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	write(message(aheadBuffer / 2)) // far more than a socket holds: the ring takes it
	if ring() <= aheadFirst {
		t.Fatalf("the ring has %d bytes", ring())
	}
	read(aheadBuffer / 2)
	if len(s.in.buf) <= windowBuffer {
		t.Fatalf("the window has %d bytes", len(s.in.buf))
	}
	for range 2 { // the second finds the buffers that the first has left
		s.heard.Store(time.Now().Add(-2 * aheadQuiet).UnixNano())
		write(message(17))
		read(17)
	}
	write(message(17))
	read(17)
	if ring() != aheadFirst || len(s.in.buf) != windowBuffer {
		t.Errorf("at rest the ring has %d bytes and the window %d", ring(), len(s.in.buf))
	}
	write(message(aheadBuffer)) // and they grow again
	read(aheadBuffer)
}

func TestAWaitForTheLogThatWasEndedLosesNothing(t *testing.T) {
	t.Parallel()
	ours, theirs := sockets(t)
	s := followed(t, ours)
	r := reads(s.in.read)
	p := make([]byte, 8)
	for i := range 200 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%3)*time.Millisecond)
		s.ctx, s.woken = ctx, false
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = theirs.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
		}()
		n, err := r.Read(p)
		if err != nil {
			if !s.woken || n != 0 {
				t.Fatal(n, err)
			}
			s.ctx = t.Context()
			n, err = io.ReadFull(r, p)
		}
		cancel()
		<-written
		if err != nil || n != 8 || binary.BigEndian.Uint64(p) != uint64(i) {
			t.Fatalf("%d: %d bytes, %v, %v", i, n, p, err)
		}
	}
}

func TestAReadOfTheLogEndsWithItsDeadlineAndItsConnection(t *testing.T) {
	t.Parallel()
	ours, theirs := sockets(t)
	c := quiet(ours)
	if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 8)
	if _, err := c.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if _, err := theirs.Write(p); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(p); n != 8 || err != nil {
		t.Error(n, err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Read(p)
		ended <- err
	}()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a read from a closed connection gave something")
		}
	case <-time.After(10 * time.Second):
		t.Error("closing does not end a read")
	}
	if _, err := c.Write(p); err == nil {
		t.Error("a closed connection was written to")
	}
}

type reads func([]byte) (int, error)

func (r reads) Read(p []byte) (int, error) { return r(p) }
