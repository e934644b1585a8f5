package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

func TestWhatIsSpilledComesBackInOrderWithoutWhatWasRolledBack(t *testing.T) {
	t.Parallel()
	s := newSpill(t.TempDir(), "s")
	defer s.close()
	random := rand.New(rand.NewPCG(1, 2))
	want := map[uint32][]string{}
	for i := range 6000 {
		xid := uint32(1 + i%3)
		subxid := xid
		if i%2 == 0 {
			subxid = 100 + xid
		}
		rest := bytes.Repeat([]byte{byte(i)}, random.IntN(20000))
		if i == 2000 {
			rest = bytes.Repeat([]byte{'h'}, 40<<20) // more than a window holds
		}
		if err := s.add(s.tx(xid), subxid, 'I', rest); err != nil {
			t.Fatal(err)
		}
		if s.memory > spillMemory+spillChunk {
			t.Fatalf("%d bytes in memory", s.memory)
		}
		if subxid == xid || xid != 2 {
			want[xid] = append(want[xid], fmt.Sprint(len(rest), string(rest[:min(1, len(rest))])))
		}
	}
	s.abort(2, 102)
	s.abort(3, 3)
	s.abort(77, 77)
	for _, xid := range []uint32{1, 2} {
		p, err := s.replay(xid)
		if err != nil {
			t.Fatal(err)
		}
		var have []string
		for {
			raw, aborted, err := p.next()
			if err != nil {
				t.Fatal(err)
			}
			if raw == nil {
				break
			}
			if !aborted {
				have = append(have, fmt.Sprint(len(raw)-1, string(raw[1:min(2, len(raw))])))
			}
		}
		if !slices.Equal(have, want[xid]) {
			t.Errorf("transaction %d: %d messages, want %d, or they differ", xid, len(have), len(want[xid]))
		}
		s.forget(xid)
	}
	if left, _ := os.ReadDir(s.dir); len(left) != 0 || s.memory != 0 {
		t.Errorf("%d files and %d bytes stay", len(left), s.memory)
	}
}

func TestAFullDiskIsToldAsSuch(t *testing.T) {
	t.Parallel()
	s := newSpill(filepath.Join(t.TempDir(), "absent"), "s")
	err := s.add(s.tx(1), 1, 'I', make([]byte, 2*spillChunk))
	if !fault.Is(err, fault.SpoolFull) || fault.Of(err).Where != s.dir {
		t.Error(err)
	}
}

// A subtransaction told the definition of table 7 and was rolled back; the server counts it as told.
func TestADefinitionOfARolledBackSubtransactionServesTheRowsThatFollow(t *testing.T) {
	t.Parallel()
	relation := logMessages()[1]
	row := logMessages()[2]
	var wire []byte
	send := func(kind byte, subxid uint32, rest []byte) {
		m := make([]byte, 25, 64)
		m[0] = 'w'
		m = append(m, kind)
		if subxid != 0 {
			m = binary.BigEndian.AppendUint32(m, subxid)
		}
		wire = append(wire, message('d', append(m, rest...))...)
	}
	send('S', 9, []byte{1})
	send('R', 10, relation[1:])
	send('I', 10, row[1:])
	send('I', 9, row[1:])
	send('E', 0, nil)
	send('A', 9, []byte{0, 0, 0, 10})
	send('c', 9, append([]byte{0}, logMessages()[10][2:]...))
	l := fedLog(t.TempDir(), wire)
	defer l.spill.close()
	var kinds []EventKind
	for {
		e, err := l.Next(t.Context())
		if err != nil {
			break
		}
		kinds = append(kinds, e.Kind)
	}
	if !slices.Equal(kinds, []EventKind{EventBegin, EventRelation, EventInsert, EventCommit}) {
		t.Errorf("%v", kinds)
	}
}

func TestAServerThatFallsSilentIsLeft(t *testing.T) {
	t.Parallel()
	ours, theirs := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, theirs) }()
	l := fedLog(t.TempDir(), nil)
	l.stream = newWALStream(ours, "test")
	l.stream.keep(10*time.Millisecond, 300*time.Millisecond)
	defer l.Close()
	if _, err := l.Next(t.Context()); !fault.Is(err, fault.SourceCut) {
		t.Error(err)
	}
}

func TestAServerThatTakesNothingDoesNotHoldUpTheEnd(t *testing.T) {
	t.Parallel()
	ours, _ := net.Pipe() // nobody reads: a status waits
	l := fedLog(t.TempDir(), nil)
	l.stream = newWALStream(ours, "test")
	l.stream.keep(time.Millisecond, 0)
	for l.stream.write.TryLock() {
		l.stream.write.Unlock()
	}
	ended := make(chan struct{})
	go func() { defer close(ended); l.Close() }()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the log is not closed")
	}
}

func TestALargeBufferIsGivenUp(t *testing.T) {
	t.Parallel()
	huge := bytes.Repeat([]byte{'x'}, 80<<20)
	l := fedLog(t.TempDir(), slices.Concat(message('S', huge), message('S', make([]byte, 100)), message('S', huge[:600<<10])))
	for _, want := range []int{80 << 20, 100, 600 << 10} {
		kind, body, err := l.stream.next()
		if err != nil || kind != 'S' || len(body) != want {
			t.Fatalf("%q, %d bytes, %v", kind, len(body), err)
		}
	}
	if n := len(l.stream.in.buf); n > windowKept {
		t.Errorf("%d bytes are kept", n)
	}
}
