package postgres

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// EventKind says what an Event tells.
type EventKind byte

// The kinds of event. Between a Begin and its Commit stand the rows of one transaction.
const (
	EventBegin    EventKind = iota + 1
	EventCommit             // Position is the position after the transaction
	EventRelation           // the definition of a table as of the rows that follow
	EventInsert
	EventUpdate
	EventDelete
	EventTruncate
	EventMessage // pg_logical_emit_message; one that is not transactional stands outside Begin and Commit
	EventIdle    // nothing is open and everything before Position has been delivered
	EventType    // the name of a type that is not built in
	EventOrigin
)

// Event is one message of the log, decoded where it lies.
type Event struct {
	Kind EventKind
	// Raw is the pgoutput message in the form of protocol 1, whichever protocol brought it; EventReader understands
	// it again. Nil for EventIdle.
	Raw []byte
	Tx  Tx // from Begin to Commit; zero outside
	// Seq counts the rows and messages of the transaction from 1. A TRUNCATE counts each of its tables: relation i of
	// Truncated has Seq+i.
	Seq      uint64
	Relation *Relation // of Relation, Insert, Update and Delete
	Old, New Tuple
	// OldKind is 'K' where Old has the columns of the replica identity only, 'O' where it has the whole row,
	// 0 where there is none.
	OldKind   byte
	Truncated []*Relation
	Message   LogicalMessage
	// Position of a Commit is the transaction's end; of an Idle, the position up to which all is delivered.
	Position change.LSN
}

// Tx is a transaction of the source.
type Tx struct {
	XID       uint32
	LSN       change.LSN // of the commit record: pgoutput's final LSN
	End       change.LSN // after the commit record; 0 until its Commit
	Committed int64      // microseconds since 1970-01-01 UTC, by the server's clock
}

// TruncateOf is the message of a TRUNCATE as if it had named only relation i of Truncated: a reader that knows no other
// relation understands it.
func (e *Event) TruncateOf(i int) []byte {
	raw := append([]byte{'T', 0, 0, 0, 1}, e.Raw[5]) // the options
	return binary.BigEndian.AppendUint32(raw, e.Truncated[i].OID)
}

// Relation is a table's definition as the log tells it. It is never changed once made: a new definition is a new Relation.
type Relation struct {
	OID          uint32
	Schema, Name string
	Identity     byte // pg_class.relreplident: d, n, f or i
	Columns      []RelationColumn
	Version      uint64 // 1 for the first definition seen of this OID, one more for each that differs
	Raw          []byte // the message that told it: what a spool writes before the first row of the relation
}

// RelationColumn is a column of a Relation.
type RelationColumn struct {
	Key     bool // part of the replica identity
	Name    string
	TypeOID uint32
	Typmod  int32
}

// LogicalMessage is what pg_logical_emit_message wrote.
type LogicalMessage struct {
	Prefix        string
	Content       []byte
	LSN           change.LSN // where the message stands in the log
	Transactional bool
}

// Tuple is the columns of one row, over the bytes of the message.
type Tuple struct {
	raw   []byte
	cells []cell
}

type cell struct {
	kind   byte
	at, to uint32
}

// Len is the number of columns: that of the relation, or 0 where there is no row.
func (t Tuple) Len() int { return len(t.cells) }

// Kind says how column i is given: 'n' null, 'u' unchanged TOAST value that was left out, 't' text, 'b' binary.
func (t Tuple) Kind(i int) byte { return t.cells[i].kind }

// Bytes is the value of column i; empty for 'n' and 'u'.
func (t Tuple) Bytes(i int) []byte {
	c := &t.cells[i]
	return t.raw[c.at:c.to]
}

// EventReader decodes pgoutput messages, in the form of protocol 1, in the order in which a Log gave them.
type EventReader struct {
	event     Event
	relations map[uint32]*Relation
	last      *Relation // the relation of the row before: most rows follow one of their own table
	tx        Tx
	open      bool // between Begin and Commit
	seq       uint64
	old, new  []cell
	truncated []*Relation
}

// NewEventReader returns a reader that knows no relation yet.
func NewEventReader() *EventReader { return &EventReader{relations: map[uint32]*Relation{}} }

// Event decodes one message. The event and its bytes are valid until the next call, or until raw is changed.
func (r *EventReader) Event(raw []byte) (*Event, error) {
	if len(raw) == 0 {
		return nil, malformed("an empty message of the log")
	}
	r.event = Event{Raw: raw, Tx: r.tx}
	c := cursor{b: raw[1:]}
	var err error
	switch raw[0] {
	case 'B', 'C':
		err = r.boundary(raw[0], &c)
	case 'R':
		err = r.relation(raw, &c)
	case 'I', 'U', 'D':
		err = r.row(raw, &c)
	case 'T':
		err = r.truncate(&c)
	case 'M':
		r.message(&c)
	case 'Y':
		r.event.Kind = EventType
		c.u32()
		c.text()
		c.text()
	case 'O':
		r.event.Kind = EventOrigin
		c.u64()
		c.text()
	default:
		return nil, malformed("a message of kind %q in the log", raw[0])
	}
	if err == nil && (c.bad || len(c.b) != 0) {
		err = malformed("a message of kind %q in the log whose length does not fit", raw[0])
	}
	if err != nil {
		return nil, err
	}
	return &r.event, nil
}

// pgEpoch is 2000-01-01 in microseconds since 1970-01-01.
const pgEpoch = 946684800000000

// boundary decodes Begin and Commit.
func (r *EventReader) boundary(kind byte, c *cursor) error {
	if (kind == 'B') == r.open {
		return malformed("a message of kind %q in the log where none can stand", kind)
	}
	if kind == 'B' {
		tx := Tx{LSN: change.LSN(c.u64()), Committed: int64(c.u64()) + pgEpoch, XID: c.u32()}
		if c.bad {
			return nil // the caller tells
		}
		r.event.Kind, r.event.Tx = EventBegin, tx
		r.tx, r.open, r.seq = tx, true, 0
		return nil
	}
	c.u8() // flags, unused
	lsn, end := change.LSN(c.u64()), change.LSN(c.u64())
	c.u64() // the time that Begin told already
	if c.bad {
		return nil
	}
	if lsn != r.tx.LSN || end < lsn {
		return malformed("a commit at %s (end %s) of a transaction that began as %s", lsn, end, r.tx.LSN)
	}
	r.event.Kind, r.event.Position = EventCommit, end
	r.event.Tx.End = end
	r.tx, r.open = Tx{}, false
	return nil
}

func (r *EventReader) relation(raw []byte, c *cursor) error {
	oid := c.u32()
	known := r.relations[oid]
	if known == nil || !bytes.Equal(known.Raw, raw) {
		fresh, err := newRelation(raw, known)
		if err != nil {
			return err
		}
		known, r.last = fresh, fresh
		r.relations[oid] = fresh
	}
	c.b = nil // newRelation has looked at all of it, now or when it came first
	r.event.Kind, r.event.Relation = EventRelation, known
	return nil
}

// newRelation reads a whole Relation message, which replaces before (or nil).
func newRelation(raw []byte, before *Relation) (*Relation, error) {
	c := cursor{b: raw[1:]}
	rel := &Relation{OID: c.u32(), Schema: c.text(), Name: c.text(), Identity: c.u8(), Version: 1, Raw: bytes.Clone(raw)}
	if rel.Schema == "" {
		rel.Schema = "pg_catalog" // pgoutput leaves the name of that one empty
	}
	if before != nil {
		rel.Version = before.Version + 1
	}
	n := int(c.u16())
	if c.bad || n*10 > len(c.b) { // 10 bytes is the least a column takes
		return nil, malformed("a relation of %d columns in %d bytes", n, len(raw))
	}
	rel.Columns = make([]RelationColumn, n)
	for i := range rel.Columns {
		rel.Columns[i] = RelationColumn{Key: c.u8()&1 != 0, Name: c.text(), TypeOID: c.u32(), Typmod: int32(c.u32())}
	}
	if c.bad || len(c.b) != 0 {
		return nil, malformed("the definition of relation %d whose length does not fit", rel.OID)
	}
	return rel, nil
}

// of finds the relation of a row.
func (r *EventReader) of(oid uint32) (*Relation, error) {
	if r.last != nil && r.last.OID == oid {
		return r.last, nil
	}
	rel := r.relations[oid]
	if rel == nil {
		return nil, malformed("a row of relation %d, which the log has not defined", oid)
	}
	r.last = rel
	return rel, nil
}

// row decodes Insert, Update and Delete.
func (r *EventReader) row(raw []byte, c *cursor) error {
	rel, err := r.of(c.u32())
	if err != nil {
		return err
	}
	if !r.open {
		return malformed("a row of %s.%s outside a transaction", rel.Schema, rel.Name)
	}
	e := &r.event
	e.Relation = rel
	part := c.u8()
	if (part == 'K' || part == 'O') && raw[0] != 'I' {
		e.OldKind = part
		if r.old, err = c.tuple(raw, r.old[:0], rel); err != nil {
			return err
		}
		e.Old = Tuple{raw, r.old}
		if raw[0] == 'U' {
			part = c.u8()
		}
	}
	switch raw[0] {
	case 'I':
		e.Kind = EventInsert
	case 'U':
		e.Kind = EventUpdate
	case 'D':
		e.Kind = EventDelete
		if e.OldKind == 0 {
			return malformed("a delete of %s.%s without the old row", rel.Schema, rel.Name)
		}
	}
	if raw[0] != 'D' {
		if part != 'N' {
			return malformed("a row of %s.%s with a part %q", rel.Schema, rel.Name, part)
		}
		if r.new, err = c.tuple(raw, r.new[:0], rel); err != nil {
			return err
		}
		e.New = Tuple{raw, r.new}
	}
	r.seq++
	e.Seq = r.seq
	return nil
}

func (r *EventReader) truncate(c *cursor) error {
	n := int(c.u32())
	c.u8() // CASCADE and RESTART IDENTITY: each table that is emptied is named, and sequences are not followed
	if n < 0 || n > len(c.b)/4 || !r.open {
		return malformed("a truncate of %d relations in %d bytes", n, len(c.b))
	}
	r.truncated = r.truncated[:0]
	for range n {
		rel, err := r.of(c.u32())
		if err != nil {
			return err
		}
		r.truncated = append(r.truncated, rel)
	}
	e := &r.event
	e.Kind, e.Truncated = EventTruncate, r.truncated
	e.Seq = r.seq + 1
	r.seq += uint64(n)
	return nil
}

func (r *EventReader) message(c *cursor) {
	m := LogicalMessage{Transactional: c.u8()&1 != 0, LSN: change.LSN(c.u64()), Prefix: c.text()}
	m.Content = c.take(int(c.u32()))
	r.event.Kind, r.event.Message = EventMessage, m
	if r.open {
		r.seq++
		r.event.Seq = r.seq
	}
}

// cursor reads big-endian fields. Past the end it gives zeros and remembers that it did.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.bad, c.b = true, nil
		return nil
	}
	v := c.b[:n]
	c.b = c.b[n:]
	return v
}

func (c *cursor) u8() byte {
	if v := c.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if v := c.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if v := c.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if v := c.take(8); v != nil {
		return binary.BigEndian.Uint64(v)
	}
	return 0
}

// text reads a string that ends in a zero byte.
func (c *cursor) text() string {
	n := bytes.IndexByte(c.b, 0)
	if n < 0 {
		c.bad, c.b = true, nil
		return ""
	}
	v := string(c.b[:n])
	c.b = c.b[n+1:]
	return v
}

// tuple reads a row of rel, which lies at the end of raw, into cells.
func (c *cursor) tuple(raw []byte, cells []cell, rel *Relation) ([]cell, error) {
	if n := int(c.u16()); n != len(rel.Columns) || c.bad {
		return cells, malformed("a row of %d columns for %s.%s, which has %d", n, rel.Schema, rel.Name, len(rel.Columns))
	}
	b := c.b
	base := len(raw) - len(b)
	if len(raw) > math.MaxUint32 {
		return cells, malformed("a row of %d bytes", len(raw))
	}
	at := 0
	for range rel.Columns {
		if at >= len(b) {
			return cells, short(rel)
		}
		kind := b[at]
		at++
		from := at
		switch kind {
		case 't', 'b':
			if len(b)-at < 4 {
				return cells, short(rel)
			}
			n := int(binary.BigEndian.Uint32(b[at:]))
			from = at + 4
			if n > len(b)-from {
				return cells, short(rel)
			}
			at = from + n
		case 'n', 'u':
		default:
			return cells, malformed("a value of kind %q in a row of %s.%s", kind, rel.Schema, rel.Name)
		}
		cells = append(cells, cell{kind, uint32(base + from), uint32(base + at)})
	}
	c.b = b[at:]
	return cells, nil
}

func short(rel *Relation) error {
	return fault.New(fault.SourceProtocol, rel.Schema+"."+rel.Name, "a row ends before its last column")
}
