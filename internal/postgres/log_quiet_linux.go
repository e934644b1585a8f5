package postgres

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// quietConn reads a socket by calls that block. Go's runtime waits for all other sockets by epoll, edge-triggered: one of
// its threads is woken for each message that arrives, also while nobody reads, and a walsender sends every change by itself.
// That took as much time as all the rest of reading the log.
type quietConn struct {
	net.Conn // closed; for its addresses
	fd       int
	gone     atomic.Bool
	until    atomic.Int64 // reads end with os.ErrDeadlineExceeded from here on, in Unix nanoseconds; 0 never

	mu sync.RWMutex // held for reading while fd is in use
}

const (
	quietLook  = 100 * time.Millisecond // how soon a read notices a new deadline
	quietWrite = time.Minute            // the longest that a write may take
)

// quiet takes over a connection whose reads are few and large. What it cannot take over it returns as it is.
func quiet(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	fd := -1
	var dupErr error
	err = raw.Control(func(old uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, dupErr = syscall.Dup(int(old)); dupErr == nil {
			syscall.CloseOnExec(fd)
		}
	})
	if err != nil || dupErr != nil {
		return c
	}
	look, write := syscall.NsecToTimeval(quietLook.Nanoseconds()), syscall.NsecToTimeval(quietWrite.Nanoseconds())
	if syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &look) != nil ||
		syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &write) != nil || syscall.SetNonblock(fd, false) != nil {
		_ = syscall.SetNonblock(fd, true) // it is the same socket
		_ = syscall.Close(fd)
		return c
	}
	_ = c.Close() // the socket stays open by fd; epoll forgets it
	return &quietConn{Conn: c, fd: fd}
}

// Read waits in the kernel.
func (c *quietConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	for {
		if c.gone.Load() {
			return 0, net.ErrClosed
		}
		if until := c.until.Load(); until != 0 && time.Now().UnixNano() >= until {
			return 0, os.ErrDeadlineExceeded
		}
		n, err := syscall.Read(c.fd, p)
		switch {
		case err == syscall.EINTR || err == syscall.EAGAIN:
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write writes all, or fails when it cannot within quietWrite.
func (c *quietConn) Write(p []byte) (written int, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for written < len(p) {
		if c.gone.Load() {
			return written, net.ErrClosed
		}
		n, err := syscall.Write(c.fd, p[written:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return written, os.ErrDeadlineExceeded
		case err != nil:
			return written, os.NewSyscallError("write", err)
		default:
			written += n
		}
	}
	return written, nil
}

// Close wakes a read that waits.
func (c *quietConn) Close() error {
	if c.gone.Swap(true) {
		return net.ErrClosed
	}
	_ = syscall.Shutdown(c.fd, syscall.SHUT_RDWR)
	c.mu.Lock()
	defer c.mu.Unlock()
	return os.NewSyscallError("close", syscall.Close(c.fd))
}

// SetReadDeadline is noticed within quietLook.
func (c *quietConn) SetReadDeadline(t time.Time) error {
	if t.IsZero() {
		c.until.Store(0)
	} else {
		c.until.Store(t.UnixNano())
	}
	return nil
}

// SetWriteDeadline does nothing: every write has the same.
func (c *quietConn) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline sets the one for reading.
func (c *quietConn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }
