package postgres

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/leatdata/leat/internal/fault"
)

// spill keeps the messages of transactions in progress until they commit: in memory while that is little, then in files.
type spill struct {
	dir, slot string
	txs       map[uint32]*spilled
	memory    int // bytes held in memory, of all transactions
}

// spilled is one transaction. Its messages stand one after another, in the file and then in mem, each as: length of the
// message (4 bytes), the subtransaction that wrote it (4 bytes), the message in the form of protocol 1.
type spilled struct {
	path    string
	file    *os.File // nil while all is in mem
	mem     []byte
	aborted []uint32 // subtransactions that were rolled back
}

const (
	spillMemory = 16 << 20 // for all transactions in progress together
	spillChunk  = 1 << 20  // what one that has a file gathers before it writes
	spillHead   = 8
)

func newSpill(dir, slot string) *spill {
	return &spill{dir: dir, slot: slot, txs: map[uint32]*spilled{}}
}

// sweep makes the folder and removes what a process that died left in it. The slot's holder alone may do it.
func (s *spill) sweep() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return s.failed(err)
	}
	old, err := filepath.Glob(filepath.Join(s.dir, s.file("*")))
	if err != nil {
		return s.failed(err)
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil {
			return s.failed(err)
		}
	}
	return nil
}

// file is the name of a transaction's file; a slot's name has only letters, digits and underscores.
func (s *spill) file(xid string) string { return "slot-" + s.slot + "-tx-" + xid + ".spill" }

func (s *spill) failed(err error) error {
	if err == nil {
		return nil
	}
	return fault.New(fault.SpoolFull, s.dir, "transactions in progress cannot be kept there").Because(err).
		WithMend("Make room in the folder, or give another one; it must hold the largest transactions that run at one time.")
}

// tx finds a transaction, which begins with its first stream.
func (s *spill) tx(xid uint32) *spilled {
	t := s.txs[xid]
	if t == nil {
		t = &spilled{path: filepath.Join(s.dir, s.file(strconv.FormatUint(uint64(xid), 10)))}
		s.txs[xid] = t
	}
	return t
}

// add keeps a message that came as kind, subxid, rest.
func (s *spill) add(t *spilled, subxid uint32, kind byte, rest []byte) error {
	var head [spillHead + 1]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(rest)+1))
	binary.BigEndian.PutUint32(head[4:], subxid)
	head[8] = kind
	if len(rest) > spillChunk { // too large to be copied
		if err := s.flush(t); err != nil {
			return err
		}
		if _, err := t.file.Write(head[:]); err != nil {
			return s.failed(err)
		}
		_, err := t.file.Write(rest)
		return s.failed(err)
	}
	t.mem = append(append(t.mem, head[:]...), rest...)
	s.memory += len(head) + len(rest)
	if t.file != nil && len(t.mem) >= spillChunk {
		return s.flush(t)
	}
	if s.memory > spillMemory {
		return s.flush(s.largest())
	}
	return nil
}

func (s *spill) largest() *spilled {
	var most *spilled
	for _, t := range s.txs {
		if most == nil || len(t.mem) > len(most.mem) {
			most = t
		}
	}
	return most
}

// flush writes what a transaction has in memory to its file.
func (s *spill) flush(t *spilled) error {
	if t.file == nil {
		f, err := os.OpenFile(t.path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return s.failed(err)
		}
		t.file = f
	}
	if _, err := t.file.Write(t.mem); err != nil {
		return s.failed(err)
	}
	s.memory -= len(t.mem)
	if t.mem = t.mem[:0]; cap(t.mem) > 2*spillChunk {
		t.mem = nil
	}
	return nil
}

// abort forgets a transaction, or what one of its subtransactions wrote.
func (s *spill) abort(xid, subxid uint32) {
	t := s.txs[xid]
	switch {
	case t == nil: // it had not been streamed
	case xid == subxid:
		s.forget(xid)
	default:
		t.aborted = append(t.aborted, subxid)
	}
}

// forget removes a transaction and its file.
func (s *spill) forget(xid uint32) {
	t := s.txs[xid]
	if t == nil {
		return
	}
	delete(s.txs, xid)
	s.memory -= len(t.mem)
	if t.file != nil {
		t.file.Close()
		os.Remove(t.path)
	}
}

func (s *spill) close() {
	for xid := range s.txs {
		s.forget(xid)
	}
}

// replay reads a transaction that has committed, from its first message on.
func (s *spill) replay(xid uint32) (*replay, error) {
	t := s.txs[xid]
	if t == nil {
		return nil, malformed("a commit of transaction %d, which was never streamed", xid)
	}
	slices.Sort(t.aborted)
	p := &replay{xid: xid, aborted: t.aborted}
	if t.file == nil {
		p.in, p.memory = window{buf: t.mem, w: len(t.mem), read: func([]byte) (int, error) { return 0, io.EOF }}, true
		return p, nil
	}
	if err := s.flush(t); err != nil {
		return nil, err
	}
	if _, err := t.file.Seek(0, io.SeekStart); err != nil {
		return nil, s.failed(err)
	}
	p.in.read = t.file.Read
	return p, nil
}

// replay is a transaction being read again.
type replay struct {
	xid     uint32
	in      window
	used    int
	memory  bool // in holds all of it
	aborted []uint32
	commit  []byte // the message to end with
}

// next returns a message and whether what wrote it was rolled back; nil at the end. It is valid until the next call.
func (p *replay) next() (raw []byte, aborted bool, err error) {
	p.in.pass(p.used)
	p.used = 0
	if p.in.r == p.in.w && p.memory {
		return nil, false, nil
	}
	if err := p.in.need(spillHead); err != nil {
		if p.in.r == p.in.w && errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, false, nil
		}
		return nil, false, err
	}
	head := p.in.buf[p.in.r:]
	size := spillHead + int(binary.BigEndian.Uint32(head))
	subxid := binary.BigEndian.Uint32(head[4:])
	if err := p.in.need(size); err != nil {
		return nil, false, err
	}
	p.used = size
	if len(p.aborted) > 0 {
		_, aborted = slices.BinarySearch(p.aborted, subxid)
	}
	return p.in.buf[p.in.r+spillHead : p.in.r+size], aborted, nil
}
