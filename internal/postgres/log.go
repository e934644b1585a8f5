package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/session"
)

// LogOptions say which log to follow and how.
type LogOptions struct {
	Slot         string // of the plugin pgoutput
	Publications []string
	// From is the position to start at: every transaction whose commit record lies there or later comes. It must
	// not lie before the position that the slot was last told, because the server would skip without a word; 0 is that position.
	From      change.LSN
	Binary    bool   // ask for binary values (14+)
	Streaming bool   // take large transactions while they are in progress (14+); needs SpillDir
	Messages  bool   // logical messages (14+)
	SpillDir  string // local folder for transactions in progress; without one the server keeps them
	// StatusEvery is how often the server hears what is durable, 10 s when 0; more often where its
	// wal_sender_timeout demands it.
	StatusEvery time.Duration
}

// Log follows a replication slot: whole committed transactions, in the order of their commits.
//
// Next and Close are for one goroutine; Ack may come from any. While nobody calls Next the server goes on hearing
// from us, so a consumer may take as long as it needs.
type Log struct {
	source  *Source
	slot    string
	where   string
	stream  *walStream
	reader  *EventReader
	spill   *spill            // nil without streaming
	block   *spilled          // the transaction whose stream block is open, or nil
	replay  *replay           // the streamed transaction that is being delivered, or nil
	parked  map[uint32][]byte // by OID: definitions told in subtransactions that were rolled back, see park
	held    []byte            // a message that waits for the parked definition before it
	reached change.LSN        // the last position that an event has told
	err     error             // what ended the log
}

// Log begins to follow the log. It fails with SlotMissing, SlotLost (also where From lies before what the slot still has), SlotBusy or
// SourceRights where the slot cannot be read.
func (s *Source) Log(ctx context.Context, o LogOptions) (*Log, error) {
	if s.Version < 140000 || o.SpillDir == "" {
		o.Streaming = false
	}
	l := &Log{source: s, slot: o.Slot, where: s.Name + " slot " + o.Slot, reader: NewEventReader(), parked: map[uint32][]byte{}}
	c, burst, err := s.replication(ctx)
	if err != nil {
		return nil, l.explain(err)
	}
	timeout, err := l.inspect(ctx, c, &o)
	if err == nil {
		err = c.SyncConn(ctx)
	}
	if err != nil {
		leave(c)
		return nil, classify(ctx, l.explain(err), l.where, "cannot be read")
	}
	h, err := c.Hijack()
	if err != nil {
		return nil, classify(ctx, err, l.where, "cannot take over the connection")
	}
	l.stream = newWALStream(h.Conn, l.where)
	l.reached = o.From
	if err := l.begin(ctx, o); err != nil {
		_ = h.Conn.Close()
		return nil, err
	}
	burst.begin()
	every, silence := o.StatusEvery, time.Duration(0)
	if every <= 0 {
		every = 10 * time.Second
	}
	if timeout > 0 {
		every, silence = min(every, timeout/3), max(5*time.Minute, 5*timeout)
	}
	l.stream.keep(every, silence)
	return l, nil
}

func (l *Log) begin(ctx context.Context, o LogOptions) error {
	l.stream.ctx = ctx
	err := l.stream.begin(startReplication(o, l.source.Version))
	if err != nil {
		if l.stream.woken {
			return fault.Wrap(err, fault.Interrupted, l.where, "cannot be read")
		}
		var pg *pgconn.PgError
		if errors.As(err, &pg) && pg.Code == "42704" {
			return fault.Wrap(err, fault.SlotMissing, l.where, "the slot does not exist")
		}
		return l.explain(err)
	}
	if !o.Streaming {
		return nil
	}
	l.spill = newSpill(o.SpillDir, o.Slot) // the slot is ours now, so are its files
	return l.spill.sweep()
}

// replication opens a walsender in the database, with the settings under which COPY is read, so that values have the same text.
func (s *Source) replication(ctx context.Context) (*pgconn.PgConn, *burstConn, error) {
	r := *s
	r.config = s.config.Copy()
	dial := r.config.DialFunc
	var burst *burstConn
	r.config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		burst = &burstConn{Conn: c}
		return burst, nil
	}
	c, err := r.open(ctx, session.Replication, s.dataEncoding())
	return c, burst, err
}

// inspect looks at the slot, because the server tells apart in words only what is wrong with one, and skips
// without an error what it no longer has. It completes o.From and returns the server's wal_sender_timeout, 0 for none.
func (l *Log) inspect(ctx context.Context, c *pgconn.PgConn, o *LogOptions) (timeout time.Duration, err error) {
	results, err := c.Exec(ctx, `select pg_catalog.current_setting('wal_level'),
		(select setting from pg_catalog.pg_settings where name = 'wal_sender_timeout'),
		s.slot_name, s.plugin, s.database = pg_catalog.current_database(), s.confirmed_flush_lsn,
		coalesce(s.j->>'invalidation_reason', case when s.j->>'conflicting' = 'true' then 'conflict with recovery' end,
			case when s.j->>'wal_status' = 'lost' then 'the log it needs was removed' end)
		from (values (1)) one left join (select *, pg_catalog.to_jsonb(r) as j from pg_catalog.pg_replication_slots r) s
		on s.slot_name = `+quoteLiteral(o.Slot)).ReadAll()
	if err != nil {
		return 0, err
	}
	row := results[0].Rows[0]
	ms, _ := strconv.Atoi(string(row[1]))
	timeout = time.Duration(ms) * time.Millisecond
	switch {
	case string(row[0]) != "logical":
		return timeout, fault.New(fault.SourceFailed, l.where, "the server writes no logical log (wal_level = %s)", row[0]).
			WithMend("Set wal_level = logical and restart the server; on RDS set rds.logical_replication = 1.")
	case row[2] == nil:
		return timeout, fault.New(fault.SlotMissing, l.where, "the slot does not exist")
	case string(row[3]) != "pgoutput" || string(row[4]) != "t":
		return timeout, fault.New(fault.SourceFailed, l.where, "the slot belongs to another database or to the plugin %q", row[3]).
			WithMend("Give the pipeline a slot name of its own.")
	case row[6] != nil:
		return timeout, fault.New(fault.SlotLost, l.where, "the server has invalidated the slot: %s", row[6])
	}
	confirmed, err := change.ParseLSN(string(row[5]))
	if err != nil {
		return timeout, fault.Wrap(err, fault.SlotLost, l.where, "the slot has no position")
	}
	if o.From == 0 {
		o.From = confirmed
	}
	if o.From < confirmed {
		return timeout, fault.New(fault.SlotLost, l.where, "the slot has been moved on to %s, past our position %s", confirmed, o.From)
	}
	return timeout, nil
}

// Next waits for the next event. The event and its bytes are valid until the next call. Where ctx ends the wait the error is
// Interrupted, nothing is lost and Next may be called again; any other error ends the log.
func (l *Log) Next(ctx context.Context) (*Event, error) {
	if l.err != nil {
		return nil, l.err
	}
	l.stream.ctx, l.stream.woken = ctx, false
	e, err := l.next()
	if err == nil {
		return e, nil
	}
	if l.stream.woken {
		return nil, fault.Wrap(err, fault.Interrupted, l.where, "the wait for the log has ended")
	}
	l.err = l.explain(err)
	return nil, l.err
}

func (l *Log) next() (*Event, error) {
	if raw := l.held; raw != nil {
		l.held = nil
		return l.deliver(raw)
	}
	for {
		var e *Event
		var err error
		if l.replay != nil {
			e, err = l.again()
		} else {
			e, err = l.receive()
		}
		if e != nil || err != nil {
			return e, err
		}
	}
}

// receive takes one message of the server, which need not be an event.
func (l *Log) receive() (*Event, error) {
	kind, body, err := l.stream.next()
	if err != nil {
		return nil, err
	}
	switch kind {
	case 'd':
		return l.data(body)
	case 'N':
		return nil, l.stream.notice(body)
	case 'S', 'A':
		return nil, nil
	case 'c', 'C':
		return nil, fault.New(fault.SourceCut, l.where, "the server has ended the stream")
	}
	return nil, malformed("a message of kind %q in the stream of the log", kind)
}

func (l *Log) data(body []byte) (*Event, error) {
	switch {
	case len(body) > 25 && body[0] == 'w':
		return l.message(body[25:])
	case len(body) == 18 && body[0] == 'k':
		if body[17] != 0 {
			l.stream.ask()
		}
		return l.keepalive(change.LSN(binary.BigEndian.Uint64(body[1:]))), nil
	}
	return nil, malformed("a message of %d bytes in the stream of the log", len(body))
}

// keepalive tells how far the server has decoded. Transactions in progress do not matter: their commit records come later.
func (l *Log) keepalive(end change.LSN) *Event {
	if l.reader.open || end <= l.reached {
		return nil
	}
	l.reach(end)
	l.reader.event = Event{Kind: EventIdle, Position: end}
	return &l.reader.event
}

func (l *Log) reach(p change.LSN) {
	l.reached = max(l.reached, p)
	l.stream.received.Store(uint64(l.reached))
}

// message takes one pgoutput message.
func (l *Log) message(raw []byte) (*Event, error) {
	if l.spill == nil {
		return l.deliver(raw)
	}
	kind, c := raw[0], cursor{b: raw[1:]}
	switch {
	case l.block != nil:
		return nil, l.blocked(kind, &c)
	case kind == 'S':
		l.block = l.spill.tx(c.u32())
		c.u8() // whether it is the first block
	case kind == 'A':
		xid, subxid := c.u32(), c.u32()
		if len(c.b) != 0 {
			c.take(16) // LSN and time, with streaming 'parallel'
		}
		if !c.bad {
			l.spill.abort(xid, subxid)
		}
	case kind == 'c':
		return l.commit(&c)
	default:
		return l.deliver(raw)
	}
	return nil, c.end(kind)
}

// end checks that the message was as long as its kind demands.
func (c *cursor) end(kind byte) error {
	if c.bad || len(c.b) != 0 {
		return malformed("a message of kind %q in the log whose length does not fit", kind)
	}
	return nil
}

// blocked takes a message of a stream block. All but a few say which subtransaction they belong to.
func (l *Log) blocked(kind byte, c *cursor) error {
	switch kind {
	case 'E':
		l.block = nil
		return c.end(kind)
	case 'O':
		return nil
	case 'R', 'Y', 'I', 'U', 'D', 'T', 'M':
		subxid := c.u32()
		if c.bad {
			return malformed("a message of kind %q of no transaction", kind)
		}
		return l.spill.add(l.block, subxid, kind, c.b)
	}
	return malformed("a message of kind %q in a stream block", kind)
}

// commit begins to deliver a streamed transaction, as if it came now.
func (l *Log) commit(c *cursor) (*Event, error) {
	body := c.b
	xid := c.u32()
	c.take(25)
	if err := c.end('c'); err != nil {
		return nil, err
	}
	p, err := l.spill.replay(xid)
	if err != nil {
		return nil, err
	}
	read := p.in.read
	p.in.read = func(b []byte) (int, error) {
		if ctx := l.stream.ctx; ctx.Err() != nil {
			l.stream.woken = true
			return 0, context.Cause(ctx)
		}
		return read(b)
	}
	p.commit = append([]byte{'C'}, body[4:]...)
	l.replay = p
	begin := append([]byte{'B'}, body[5:13]...) // commit LSN
	begin = append(begin, body[21:29]...)       // time
	begin = append(begin, body[:4]...)          // xid
	return l.reader.Event(begin)
}

// again takes the next message of the streamed transaction; at its end, the Commit.
func (l *Log) again() (*Event, error) {
	raw, aborted, err := l.replay.next()
	switch {
	case err != nil:
		return nil, err
	case raw == nil:
		p := l.replay
		p.in.free()
		l.replay = nil
		l.spill.forget(p.xid)
		return l.deliver(p.commit)
	case aborted:
		l.park(raw)
		return nil, nil
	}
	return l.deliver(raw)
}

// park keeps a definition that a subtransaction told and that was then rolled back. The server counts it as told for the
// rest of the transaction and after it, unless the rollback undid a change of the table: then it tells the new one
// before the next row. So it is used only when a row comes that nothing else explains.
func (l *Log) park(raw []byte) {
	if raw[0] == 'R' && len(raw) >= 5 {
		l.parked[binary.BigEndian.Uint32(raw[1:])] = bytes.Clone(raw)
	}
}

// unpark returns the parked definition that a message needs, if there is one.
func (l *Log) unpark(raw []byte) []byte {
	c := cursor{b: raw[1:]}
	n := 1
	switch raw[0] {
	case 'R':
		delete(l.parked, c.u32())
		return nil
	case 'I', 'U', 'D':
	case 'T':
		n = int(c.u32())
		c.u8()
	default:
		return nil
	}
	for range n {
		oid := c.u32()
		if c.bad {
			return nil // the reader tells
		}
		if definition := l.parked[oid]; definition != nil {
			delete(l.parked, oid)
			return definition
		}
	}
	return nil
}

// deliver decodes a message that counts.
func (l *Log) deliver(raw []byte) (*Event, error) {
	if len(l.parked) > 0 {
		if definition := l.unpark(raw); definition != nil {
			l.held = raw
			return l.reader.Event(definition)
		}
	}
	e, err := l.reader.Event(raw)
	if err == nil && e.Kind == EventCommit {
		l.reach(e.Position)
	}
	return e, err
}

// Ack tells that all before p is durable where the log is carried to, so that the server need not keep it. It goes out
// within a fraction of a second. An older position than before changes nothing.
func (l *Log) Ack(p change.LSN) { l.stream.ack(p) }

// Close tells the server what is durable and leaves the slot. It takes two seconds at most.
func (l *Log) Close() {
	l.stream.close()
	l.stream.in.free()
	if l.replay != nil {
		l.replay.in.free()
	}
	if l.spill != nil {
		l.spill.close()
	}
	if l.err == nil {
		l.err = fault.New(fault.Interrupted, l.where, "the log was closed")
	}
}

// explain judges an error of the server or of the connection.
func (l *Log) explain(err error) error {
	if f := fault.Of(err); f != nil {
		if f.Where == "" {
			f.Where = l.where
		}
		if f.Code == fault.SourceRights {
			return l.rights(err)
		}
		return err
	}
	switch sqlState(err) {
	case "55006":
		return fault.Wrap(err, fault.SlotBusy, l.where, "another session reads from the slot")
	case "55000":
		return l.unready(err)
	case "58P01":
		return fault.Wrap(err, fault.SlotLost, l.where, "the slot cannot be read any more")
	case "42704":
		return fault.Mended(fault.Wrap(err, fault.PublicationUnusable, l.where, "the publication was not there when the log was written"), notPublished)
	case "42501":
		return l.rights(fault.Wrap(err, fault.SourceRights, l.where, "the slot may not be read"))
	}
	return classify(context.Background(), err, l.where, "the log cannot be read")
}

// unready judges a slot that the server does not let us read by what it says of it: one that is lost for ever is refused in the
// same way as one that a standby synchronizes, which can be read once that is promoted.
func (l *Log) unready(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), unreadyWithin)
	defer cancel()
	if slot, e := l.source.Slot(ctx, l.slot); e == nil && slot.Lost() != "" {
		return fault.Wrap(err, fault.SlotLost, l.where, "%s", slot.Lost())
	}
	return fault.Mended(fault.Wrap(err, fault.SlotBusy, l.where, "the slot cannot be read yet"),
		"It is tried again. A slot that a standby synchronizes can be read once the standby is promoted.")
}

// notPublished is what heals a log of which a publication was dropped and made again, or made after the slot.
const notPublished = "What was logged without the publication cannot be read. Make it again if it is gone, then copy all tables anew, with a new slot: leat resync --all."

// unreadyWithin is how long the server may take to tell of a slot that it has refused.
const unreadyWithin = 10 * time.Second

func (l *Log) rights(err error) error {
	user := quoteIdent(l.source.config.User)
	return fault.Mended(err, "Run: alter role %s replication; (on RDS: grant rds_replication to %s; on Cloud SQL and Azure the same alter role, as their administrator)", user, user)
}
