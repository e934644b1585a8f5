package postgres

import (
	"context"
	"encoding/binary"
	"io"
	"testing"

	"github.com/leatdata/leat/internal/fault"
)

// Messages of a small transaction, as PostgreSQL writes them.
func logMessages() [][]byte {
	u32, u64 := binary.BigEndian.AppendUint32, binary.BigEndian.AppendUint64
	relation := append(u32([]byte("R"), 7), "s\x00t\x00d\x00\x02\x01id\x00\x00\x00\x00\x17\xff\xff\xff\xff\x00v\x00\x00\x00\x00\x19\xff\xff\xff\xff"...)
	row := "\x00\x02t\x00\x00\x00\x011b\x00\x00\x00\x02ab"
	return [][]byte{
		u32(u64(u64([]byte("B"), 100), 5), 9),
		relation,
		append(u32([]byte("I"), 7), "N"+row...),
		append(u32([]byte("U"), 7), "K\x00\x02t\x00\x00\x00\x010nN"+row...),
		append(u32([]byte("U"), 7), "N\x00\x02t\x00\x00\x00\x011u"...),
		append(u32([]byte("D"), 7), "O"+row...),
		u32(append(u32([]byte("T"), 1), 3), 7),
		append(u64([]byte("M\x01"), 50), "p\x00\x00\x00\x00\x02hi"...),
		append(u32([]byte("Y"), 99), "s\x00mood\x00"...),
		append(u64([]byte("O"), 1), "elsewhere\x00"...),
		u64(u64(u64([]byte("C\x00"), 100), 120), 5),
	}
}

func TestAMessageThatEndsEarlyOrLateIsAnError(t *testing.T) {
	t.Parallel()
	for _, m := range logMessages() {
		for cut := range len(m) + 1 {
			r := NewEventReader()
			for _, before := range logMessages() {
				if before[0] == m[0] {
					break
				}
				if _, err := r.Event(before); err != nil {
					t.Fatal(err)
				}
			}
			bad := m[:cut]
			if cut == len(m) {
				bad = append(m[:len(m):len(m)], 0)
			}
			if _, err := r.Event(bad); !fault.Is(err, fault.SourceProtocol) {
				t.Errorf("%q, cut at %d: %v", m, cut, err)
			}
		}
	}
}

func TestAMessageOfAnUnknownKindIsNamed(t *testing.T) {
	t.Parallel()
	_, err := NewEventReader().Event([]byte("x123"))
	if !fault.Is(err, fault.SourceProtocol) || fault.Of(err).What != `a message of kind 'x' in the log` {
		t.Error(err)
	}
}

// Bytes that are not the log are an error, never a panic, and take no memory that they do not fill.
func FuzzLogMessage(f *testing.F) {
	for _, m := range logMessages() {
		f.Add(m)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := NewEventReader()
		for _, m := range append(logMessages()[:2], data) {
			e, err := r.Event(m)
			if err != nil {
				if !fault.Is(err, fault.SourceProtocol) {
					t.Fatal(err)
				}
				continue
			}
			for _, tuple := range []Tuple{e.Old, e.New} {
				for i := range tuple.Len() {
					_, _ = tuple.Kind(i), tuple.Bytes(i)
				}
			}
		}
	})
}

// FuzzLogStream feeds the framing and the stream blocks: the messages are those of data, each after its length.
func FuzzLogStream(f *testing.F) {
	block := func(kind byte, rest string) string {
		m := make([]byte, 25, 64)
		m[0] = 'w'
		return string(message('d', append(append(m, kind), rest...)))
	}
	f.Add([]byte(block('S', "\x00\x00\x00\x09\x01") + block('M', "\x00\x00\x00\x0a\x01\x00\x00\x00\x00\x00\x00\x00\x05p\x00\x00\x00\x00\x00") + block('E', "") +
		block('A', "\x00\x00\x00\x09\x00\x00\x00\x0a") + block('c', "\x00\x00\x00\x09\x00"+string(make([]byte, 24)))))
	f.Add(message('d', append([]byte{'k'}, make([]byte, 17)...)))
	f.Add([]byte("d\x3f\xff\xff\xffw"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := fedLog(t.TempDir(), data)
		defer l.spill.close()
		for {
			if _, err := l.Next(context.Background()); err != nil {
				return
			}
		}
	})
}

// fedLog is a log whose server has said all it will say.
func fedLog(dir string, data []byte) *Log {
	l := &Log{source: &Source{}, reader: NewEventReader(), spill: newSpill(dir, "s"), parked: map[uint32][]byte{}}
	l.stream = newWALStream(nil, "test")
	l.stream.in.read = func(p []byte) (int, error) {
		n := copy(p, data)
		data = data[n:]
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	return l
}
