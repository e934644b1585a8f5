package postgres

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// tcpSockets are the two ends of a connection by the network.
func tcpSockets(t *testing.T) (ours, theirs net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if ours, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if theirs, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// A few rows are never waited for, nor what comes by the network; a server on this machine that goes on sending little
// at a time is.
func TestAReaderWaitsForMoreOnlyWhileAServerOnThisMachineSends(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sockets func(*testing.T) (ours, theirs net.Conn)
		waits   bool
	}{"a Unix socket": {sockets, true}, "TCP": {tcpSockets, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := c.sockets(t)
			s := newCopyStream(ours, nil)
			for range 2 { // statements
				if err := s.start("copy"); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(theirs, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				if s.small {
					t.Error("it waits before the first row")
				}
				const size = 8 << 10
				for i := range 3 * localFlow / size {
					payload := bytes.Repeat([]byte{byte(i)}, size-5)
					if _, err := theirs.Write(append(binary.BigEndian.AppendUint32([]byte{'d'}, size-1), payload...)); err != nil {
						t.Fatal(err)
					}
					got := make([]byte, len(payload))
					if err := s.payload(got); err != nil || !bytes.Equal(got, payload) {
						t.Fatalf("message %d: %v", i, err)
					}
					enough := c.waits && (i+1)*size >= localFlow
					if many := (i+1)*size >= localFlow+size; s.small && !enough || c.waits && many && !s.small {
						t.Fatalf("after %d bytes it waits: %t", (i+1)*size, s.small)
					}
				}
			}
		})
	}
}
