package spool

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Options say how a spool is written.
type Options struct {
	// From is up to where the spool is known to be durable (the checkpoint's word). What lies beyond was written by a process that
	// ended before it could say so: Open removes it, for the log will bring it again.
	From change.LSN
	// Epoch is the pipeline's: parts of a transaction that were written by different owners are never mixed.
	Epoch        int64
	SegmentBytes int64 // compressed; 8 MiB when 0
}

// Spool writes and reads the segments below a prefix. Its writing methods belong to one goroutine; reading, deleting and
// Size may go on beside them.
type Spool struct {
	bucket bucket.Bucket
	prefix string
	o      Options
	enc    *zstd.Encoder

	mu       sync.Mutex
	segments []segment // in the order of their names
	size     int64

	// What is being written. A segment holds whole transactions, or some of one.
	durable change.LSN // everything before it is in segments that are written
	whole   change.LSN // the end of the last whole transaction
	out     []byte     // compressed blocks
	raw     []byte     // the block that is being filled
	first   change.LSN // commit LSN of the first transaction in out and raw
	open    bool       // a transaction has begun
	openLSN change.LSN
	serial  uint64 // of the open transaction, or the last one
	openRaw int    // where in raw it began, while it is not alone
	alone   bool   // the segment has nothing but the open transaction
	part    int    // of the open transaction

	types  []definition         // of no single table, the oldest first
	typed  int                  // how many of them this segment has
	latest map[string][]byte    // the latest definition of each table
	tables map[string]*numbered // what this segment says of tables
}

// numbered is a table in a segment.
type numbered struct {
	number  uint64
	defined []byte // its definition, as the segment has it at this point
	born    uint64 // serial number of the transaction that brought it into the segment
	changed uint64 // serial number of the transaction that said its definition last
	before  []byte // what the definition was until then
}

// definition is a message that belongs to no single table.
type definition struct {
	name string
	raw  []byte
}

// Open reads what the spool has, and removes what was never said to be durable.
func Open(ctx context.Context, b bucket.Bucket, prefix string, o Options) (*Spool, error) {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 8 << 20
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, prefix, "cannot make a compressor")
	}
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		prefix += "/"
	}
	s := &Spool{bucket: b, prefix: prefix, o: o, enc: enc, durable: o.From, whole: o.From, latest: map[string][]byte{}}
	s.fresh()
	var late []string
	for obj, err := range b.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		seg, ok := parseSegment(strings.TrimPrefix(obj.Key, prefix))
		if !ok {
			continue // not ours
		}
		if seg.first >= o.From {
			late = append(late, obj.Key)
			continue
		}
		seg.key, seg.size = obj.Key, obj.Size
		s.segments = append(s.segments, seg)
		s.size += obj.Size
	}
	return s, b.Delete(ctx, late...)
}

// fresh begins a segment.
func (s *Spool) fresh() {
	s.out = append(s.out[:0], magic...)
	s.tables, s.typed = map[string]*numbered{}, 0
}

func (s *Spool) empty() bool { return len(s.raw) == 0 && len(s.out) == len(magic) }

// Begin begins a transaction. After an error of a writing method the spool must be opened anew.
func (s *Spool) Begin(tx Tx, raw []byte) error {
	if s.open {
		return fault.New(fault.Internal, s.prefix, "transaction %d begins inside another", tx.XID)
	}
	s.alone = s.empty()
	if s.alone {
		s.first = tx.LSN
	}
	s.serial++
	s.open, s.openLSN, s.openRaw, s.part = true, tx.LSN, len(s.raw), 0
	s.raw = append(s.raw, markBegin)
	s.raw = binary.AppendUvarint(s.raw, uint64(tx.LSN))
	s.raw = binary.AppendUvarint(s.raw, uint64(tx.XID))
	s.raw = binary.AppendUvarint(s.raw, uint64(tx.Committed))
	s.raw = appendBytes(s.raw, raw)
	return nil
}

// Define tells the definition (Relation message) of a table, inside a transaction or before one. It is written where rows of the
// table follow.
func (s *Spool) Define(table string, raw []byte) {
	if !bytes.Equal(s.latest[table], raw) {
		s.latest[table] = bytes.Clone(raw)
	}
}

// DefineType tells a definition (Type message) that belongs to no single table; a later one of the same name replaces it.
func (s *Spool) DefineType(name string, raw []byte) {
	for i, d := range s.types {
		if d.name == name {
			if bytes.Equal(d.raw, raw) {
				return
			}
			s.types = slices.Delete(s.types, i, i+1)
			s.typed = min(s.typed, i)
			break
		}
	}
	s.types = append(s.types, definition{name, bytes.Clone(raw)})
}

// Add writes a row of the open transaction. Seq is its place in the transaction, for readers that do not get all rows.
func (s *Spool) Add(ctx context.Context, table string, seq uint64, raw []byte) error {
	if !s.open {
		return fault.New(fault.Internal, s.prefix, "a row of %s outside a transaction", table)
	}
	raw, err := s.pieces(ctx, raw)
	if err != nil {
		return err
	}
	t := s.tables[table]
	if t == nil {
		t = &numbered{number: uint64(len(s.tables) + 1), born: s.serial}
		s.tables[table] = t
		s.raw = appendTable(s.raw, table, t.number)
	}
	if latest := s.latest[table]; !bytes.Equal(t.defined, latest) {
		s.defineTypes()
		s.raw = appendDefinition(s.raw, t.number, latest)
		if t.changed != s.serial {
			t.changed, t.before = s.serial, t.defined
		}
		t.defined = latest
	}
	s.raw = append(s.raw, markRow)
	s.raw = binary.AppendUvarint(s.raw, t.number)
	s.raw = binary.AppendUvarint(s.raw, seq)
	s.raw = appendBytes(s.raw, raw)
	return s.rollInside(ctx)
}

// pieces writes a message that is too long for one record, but for its last piece, which it returns. They come before the table's
// number, because each may end a segment, and the next segment numbers its tables anew.
func (s *Spool) pieces(ctx context.Context, raw []byte) ([]byte, error) {
	whole := uint64(len(raw))
	for len(raw) > pieceBytes {
		s.raw = append(s.raw, markPiece)
		s.raw = binary.AppendUvarint(s.raw, whole)
		s.raw = appendBytes(s.raw, raw[:pieceBytes])
		raw = raw[pieceBytes:]
		if err := s.rollInside(ctx); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

func appendTable(dst []byte, name string, number uint64) []byte {
	return appendBytes(binary.AppendUvarint(append(dst, markTable), number), []byte(name))
}

func appendDefinition(dst []byte, number uint64, raw []byte) []byte {
	return appendBytes(binary.AppendUvarint(append(dst, markDefine), number), raw)
}

func (s *Spool) defineTypes() {
	for ; s.typed < len(s.types); s.typed++ {
		s.raw = appendDefinition(s.raw, 0, s.types[s.typed].raw)
	}
}

// Commit ends the transaction. It is durable when Flush has returned.
func (s *Spool) Commit(ctx context.Context, end change.LSN, raw []byte) error {
	if !s.open {
		return fault.New(fault.Internal, s.prefix, "a commit outside a transaction")
	}
	s.raw = append(s.raw, markCommit)
	s.raw = binary.AppendUvarint(s.raw, uint64(end))
	s.raw = appendBytes(s.raw, raw)
	s.open, s.whole = false, max(s.whole, end)
	if len(s.raw) >= blockBytes {
		s.seal()
	}
	if s.part > 0 || int64(len(s.out)) >= s.o.SegmentBytes {
		return s.write(ctx, s.whole, s.part)
	}
	return nil
}

// rollInside bounds what is held of an open transaction. One that has grown large gets segments of its own.
func (s *Spool) rollInside(ctx context.Context) error {
	if len(s.raw) < 4*blockBytes {
		return nil
	}
	if !s.alone {
		if err := s.cut(ctx); err != nil {
			return err
		}
	}
	s.seal()
	if int64(len(s.out)) < s.o.SegmentBytes {
		return nil
	}
	err := s.write(ctx, s.openLSN, s.part)
	s.first = s.openLSN
	s.part++
	return err
}

// cut writes what stands before the open transaction, all of which is in the block, and begins a segment with it. What the
// transaction relies on is said again before it.
func (s *Spool) cut(ctx context.Context) error {
	tail := bytes.Clone(s.raw[s.openRaw:])
	s.raw = s.raw[:s.openRaw]
	tables := s.tables
	if err := s.write(ctx, s.whole, 0); err != nil {
		return err
	}
	s.defineTypes()
	names := slices.SortedFunc(maps.Keys(tables), func(a, b string) int { return int(tables[a].number) - int(tables[b].number) })
	for _, name := range names {
		t := tables[name]
		if t.born == s.serial {
			continue
		}
		s.raw = appendTable(s.raw, name, t.number)
		definition := t.defined
		if t.changed == s.serial {
			definition = t.before
		}
		if definition != nil {
			s.raw = appendDefinition(s.raw, t.number, definition)
		}
	}
	s.raw = append(s.raw, tail...)
	s.tables, s.first, s.alone = tables, s.openLSN, true
	return nil
}

func (s *Spool) seal() {
	if len(s.raw) > 0 {
		s.out = appendBlock(s.out, s.enc, s.raw)
		s.raw = s.raw[:0]
	}
}

// Flush writes what is pending of whole transactions, and returns up to where the spool is durable. Inside a transaction
// that is the end of the one before.
func (s *Spool) Flush(ctx context.Context) (change.LSN, error) {
	switch {
	case s.open && !s.alone:
		if err := s.cut(ctx); err != nil {
			return s.durable, err
		}
	case !s.open && !s.empty():
		if err := s.write(ctx, s.whole, s.part); err != nil {
			return s.durable, err
		}
	}
	return s.durable, nil
}

// write makes a segment of what is pending; an end that is its first LSN marks a part that others follow.
func (s *Spool) write(ctx context.Context, end change.LSN, part int) error {
	s.seal()
	seg := segment{first: s.first, end: end, epoch: s.o.Epoch, part: part, size: int64(len(s.out))}
	seg.key = s.prefix + seg.name()
	if _, err := bucket.WriteAll(ctx, s.bucket, seg.key, s.out, bucket.WriteOptions{ContentType: "application/octet-stream"}); err != nil {
		return err
	}
	if !seg.unfinished() {
		s.durable, s.part = end, 0
	}
	s.mu.Lock()
	s.segments = append(s.segments, seg)
	s.size += seg.size
	s.mu.Unlock()
	s.fresh()
	return nil
}

// Size is how many bytes the written segments have.
func (s *Spool) Size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}

// Delete removes what holds nothing from a position on.
func (s *Spool) Delete(ctx context.Context, upTo change.LSN) error {
	s.mu.Lock()
	var keys []string
	for _, seg := range s.segments {
		if seg.end <= upTo && !seg.unfinished() || seg.unfinished() && seg.first < upTo {
			keys = append(keys, seg.key)
		}
	}
	s.mu.Unlock()
	if err := s.bucket.Delete(ctx, keys...); err != nil || len(keys) == 0 {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := map[string]bool{}
	for _, k := range keys {
		gone[k] = true
	}
	var stay []segment
	s.size = 0
	for _, seg := range s.segments { // more may have been written meanwhile
		if !gone[seg.key] {
			stay = append(stay, seg)
			s.size += seg.size
		}
	}
	s.segments = stay
	return nil
}
