package spool

import (
	"cmp"
	"context"
	"errors"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// Tx is a transaction of the log.
type Tx struct {
	XID       uint32
	LSN       change.LSN // where its commit record is
	End       change.LSN // the position after it; only a Commit record knows
	Committed int64      // microseconds since 1970-01-01 UTC
}

// Kind is what a Record is.
type Kind byte

// The kinds of records.
const (
	Begin      Kind = 'B'
	Definition Kind = 'D' // of the table, or of a type when Table is empty
	Row        Kind = 'R'
	Commit     Kind = 'C'
)

// Record is a message as it was written. Raw is valid until the next one.
type Record struct {
	Kind  Kind
	Tx    Tx
	Table string // of a Row or Definition
	Seq   uint64 // of a Row
	Raw   []byte
}

// Read yields the whole transactions from a position on that are durable at the moment of the call, in the order of the log.
// Want picks tables; nil takes all. A transaction that has no row of them is left out. Definitions come before the rows that
// need them, and may come again. After an error the sequence ends.
func (s *Spool) Read(ctx context.Context, from change.LSN, want func(table string) bool) iter.Seq2[Record, error] {
	s.mu.Lock()
	segments := slices.Clone(s.segments)
	s.mu.Unlock()
	return func(yield func(Record, error) bool) {
		dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(mostBlock), zstd.WithDecoderMaxWindow(mostBlock))
		if err != nil {
			yield(Record{}, fault.Wrap(err, fault.Internal, s.prefix, "cannot make a decompressor"))
			return
		}
		defer dec.Close()
		r := &reading{spool: s, next: from, want: want, dec: dec, yield: yield}
		defer func() { r.part() }()
		for _, u := range readable(segments) {
			// A transaction in parts has its unit for itself.
			if u.end <= r.next {
				continue
			}
			for _, seg := range u.segments {
				if err := r.segment(ctx, seg); err != nil {
					if !errors.Is(err, errStopped) {
						yield(Record{}, err)
					}
					return
				}
			}
		}
	}
}

// unit is a segment of whole transactions, or all parts of one.
type unit struct {
	first, end change.LSN
	segments   []segment
}

// readable orders the segments, and leaves out parts of transactions that are not there whole.
func readable(segments []segment) []unit {
	type owner struct {
		first change.LSN
		epoch int64
	}
	parts := map[owner]map[int]segment{}
	var out []unit
	for _, seg := range segments {
		if seg.part == 0 && !seg.unfinished() {
			out = append(out, unit{seg.first, seg.end, []segment{seg}})
			continue
		}
		o := owner{seg.first, seg.epoch}
		if parts[o] == nil {
			parts[o] = map[int]segment{}
		}
		parts[o][seg.part] = seg
	}
	for o, of := range parts {
		u := unit{first: o.first}
		for n, seg := 0, of[0]; seg.key != ""; n, seg = n+1, of[n+1] {
			u.segments = append(u.segments, seg)
			if !seg.unfinished() {
				u.end = seg.end
				out = append(out, u)
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b unit) int {
		return cmp.Or(cmp.Compare(a.first, b.first), cmp.Compare(a.end, b.end), strings.Compare(a.segments[0].key, b.segments[0].key))
	})
	return out
}

// errStopped ends reading because the caller wants no more.
var errStopped = errors.New("stopped")

// reading is one pass over the segments.
type reading struct {
	spool *Spool
	next  change.LSN // transactions before it have been delivered
	want  func(string) bool
	dec   *zstd.Decoder
	yield func(Record, error) bool

	names   []string // of this segment's tables, by number less one
	wanted  []bool
	pending [][]byte // definitions of wanted tables that have not been delivered
	types   [][]byte // likewise, of types

	tx    Tx
	begin []byte
	skip  bool // the transaction has been delivered already
	begun bool // its Begin has been delivered

	joined []byte // the pieces of a long message
}

func (r *reading) segment(ctx context.Context, seg segment) error {
	body, err := r.spool.bucket.Open(ctx, seg.key, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	b := &blocks{where: seg.key, r: body, dec: r.dec, left: seg.size}
	if err := b.open(); err != nil {
		return err
	}
	r.names, r.wanted, r.pending, r.types = nil, nil, nil, nil
	for {
		raw, err := b.next()
		if errors.Is(err, io.EOF) && fault.Of(err) == nil {
			return nil
		}
		if err != nil {
			return err
		}
		for f := (&fields{data: raw}); len(f.data) > 0; {
			if err := r.record(f, seg.key); err != nil {
				return err
			}
		}
	}
}

// record takes one record from the block.
func (r *reading) record(f *fields, where string) error {
	mark := f.data[0]
	f.data = f.data[1:]
	var err error
	switch mark {
	case markBegin:
		r.tx = Tx{LSN: change.LSN(f.number()), XID: uint32(f.number()), Committed: int64(f.number())}
		r.begin = append(r.begin[:0], f.bytes()...)
		r.skip, r.begun = r.tx.LSN < r.next, false
	case markTable:
		f.bad = f.number() != uint64(len(r.names)+1) || f.bad
		name := string(f.bytes())
		r.names = append(r.names, name)
		r.wanted = append(r.wanted, r.want == nil || r.want(name))
		r.pending = append(r.pending, nil)
	case markDefine:
		n, raw := f.number(), slices.Clone(f.bytes())
		switch {
		case n == 0:
			r.types = append(r.types, raw)
		case n > uint64(len(r.names)):
			f.bad = true
		case r.wanted[n-1]:
			r.pending[n-1] = raw
		}
	case markPiece:
		r.piece(f)
	case markRow:
		n, seq, raw := f.number(), f.number(), f.bytes()
		if len(r.joined) > 0 {
			raw = r.whole(f, raw)
			defer r.part()
		}
		if f.bad = f.bad || n == 0 || n > uint64(len(r.names)); !f.bad && r.wanted[n-1] && !r.skip {
			err = r.row(int(n-1), seq, raw)
		}
	case markCommit:
		r.tx.End = change.LSN(f.number())
		raw := f.bytes()
		if r.begun && !f.bad {
			err = r.give(Record{Kind: Commit, Tx: r.tx, Raw: raw})
		}
		if !r.skip {
			r.next = max(r.next, r.tx.End)
		}
		r.begun = false
	default:
		f.bad = true
	}
	if f.bad {
		return fault.New(fault.StateUnusable, where, "a record of the spool cannot be understood")
	}
	return err
}

// piece joins a piece of a long message to those before.
func (r *reading) piece(f *fields) {
	whole, raw := f.number(), f.bytes()
	if len(r.joined) == 0 && whole <= longest {
		r.joined = scratch.Make(int(whole))[:0]
	}
	if f.bad = f.bad || len(raw) == 0 || len(r.joined)+len(raw) >= cap(r.joined); !f.bad {
		r.joined = append(r.joined, raw...)
	}
}

// longest is more than PostgreSQL's messages have (MaxAllocSize).
const longest = 1<<30 + 64

// whole is the message with its last piece.
func (r *reading) whole(f *fields, last []byte) []byte {
	if f.bad = f.bad || len(r.joined)+len(last) > cap(r.joined); f.bad {
		return nil
	}
	return append(r.joined, last...)
}

// part gives up the pieces of a message.
func (r *reading) part() {
	scratch.Free(r.joined)
	r.joined = nil
}

// row delivers a row, with what must come before it.
func (r *reading) row(table int, seq uint64, raw []byte) error {
	if !r.begun {
		r.begun = true
		if err := r.give(Record{Kind: Begin, Tx: r.tx, Raw: r.begin}); err != nil {
			return err
		}
	}
	for ; len(r.types) > 0; r.types = r.types[1:] {
		if err := r.give(Record{Kind: Definition, Tx: r.tx, Raw: r.types[0]}); err != nil {
			return err
		}
	}
	if d := r.pending[table]; d != nil {
		r.pending[table] = nil
		if err := r.give(Record{Kind: Definition, Tx: r.tx, Table: r.names[table], Raw: d}); err != nil {
			return err
		}
	}
	return r.give(Record{Kind: Row, Tx: r.tx, Table: r.names[table], Seq: seq, Raw: raw})
}

func (r *reading) give(rec Record) error {
	if !r.yield(rec, nil) {
		return errStopped
	}
	return nil
}
