package pipeline

import (
	"context"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// heartbeatPrefix is of the messages that we write ourselves; they are not kept.
const heartbeatPrefix = "leat"

// messagesTable is where logical messages are kept, as if they were rows of a table that is only inserted into.
var messagesTable = &change.Table{
	Schema: "_leat", Name: "logical_messages", Kind: change.KindTable, ReplicaIdentity: 'n',
	Columns: []change.Column{
		{Name: "prefix", Attnum: 1, TypeOID: 25, Typmod: -1, Type: "text"},
		{Name: "content", Attnum: 2, TypeOID: 17, Typmod: -1, Type: "bytea"},
		{Name: "transactional", Attnum: 3, TypeOID: 16, Typmod: -1, Type: "boolean"},
	},
}

// openMessages opens the table of logical messages, where they are to be kept.
func (r *run) openMessages(ctx context.Context) error {
	if !r.o.Messages || r.source.Version < 140000 {
		return nil
	}
	rows := newMessageRows()
	t := &table{name: messagesTable.String(), source: messagesTable, keep: Keep{History: true}, mode: checkpoint.Streaming, builder: rows}
	if err := r.open(ctx, t, &postgres.Plan{Table: messagesTable, Schema: rows.rows.Schema()}); err != nil {
		return err
	}
	r.messages = t
	return nil
}

// message keeps a logical message. One that stands outside of transactions moves the position past itself, or it would be told
// again after a crash and not be known. The log tells where its record ends, which is where the next one may begin: so the position
// is that end, and the message counts as standing just before it.
func (r *run) message(ctx context.Context, ev *postgres.Event) error {
	err := r.keepMessage(ctx, ev)
	if !ev.Message.Transactional && !r.inTransaction { // it is kept from the position of before on
		r.position = max(r.position, ev.Message.LSN)
	}
	return err
}

func (r *run) keepMessage(ctx context.Context, ev *postgres.Event) error {
	if strings.HasPrefix(ev.Message.Prefix, postgres.DDLPrefix) {
		return r.hear(ctx, ev)
	}
	if r.messages == nil || ev.Message.Prefix == heartbeatPrefix {
		return nil
	}
	before := r.messages.builder.Bytes()
	if err := r.messages.builder.Append(ev); err != nil {
		return err
	}
	r.touch(r.messages, r.messages.builder.Bytes()-before)
	if r.messages.builder.Bytes() >= batchBytes {
		return r.messages.flush(ctx, r.o.Watch, r.evaluator)
	}
	return nil
}

// messageRows collects messages as inserted rows.
type messageRows struct {
	rows *array.RecordBuilder
	c    change.Changes
	size int64
	last arrow.RecordBatch
}

func newMessageRows() *messageRows {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "prefix", Type: arrow.BinaryTypes.String, Nullable: true},
		{Name: "content", Type: arrow.BinaryTypes.Binary, Nullable: true},
		{Name: "transactional", Type: arrow.FixedWidthTypes.Boolean, Nullable: true},
	}, nil)
	return &messageRows{rows: array.NewRecordBuilder(lake.LargeValues{}, schema), c: change.Changes{Table: messagesTable}}
}

// Append takes a message. One outside of any transaction stands where it was written, see message; it has no commit time.
func (m *messageRows) Append(ev *postgres.Event) error {
	m.rows.Field(0).(*array.StringBuilder).Append(ev.Message.Prefix)
	m.rows.Field(1).(*array.BinaryBuilder).Append(ev.Message.Content)
	m.rows.Field(2).(*array.BooleanBuilder).Append(ev.Message.Transactional)
	lsn, committed, xid := ev.Message.LSN-1, int64(0), uint32(0)
	if ev.Message.Transactional {
		lsn, committed, xid = ev.Tx.LSN, ev.Tx.Committed, ev.Tx.XID
	}
	m.c.Ops = append(m.c.Ops, change.OpInsert)
	m.c.LSN = append(m.c.LSN, lsn)
	m.c.Seq = append(m.c.Seq, ev.Seq)
	m.c.Committed = append(m.c.Committed, committed)
	m.c.XID = append(m.c.XID, xid)
	m.size += int64(len(ev.Message.Prefix) + len(ev.Message.Content) + 64)
	return nil
}

// Rows is how many messages wait.
func (m *messageRows) Rows() int { return len(m.c.Ops) }

// Bytes is how large they are.
func (m *messageRows) Bytes() int64 { return m.size }

// Release gives up what Take gave.
func (m *messageRows) Release() {
	if m.last != nil {
		m.last.Release()
		m.last = nil
	}
}

// Take gives what was collected; it is valid until the next call.
func (m *messageRows) Take() *change.Changes {
	m.Release()
	m.last = m.rows.NewRecordBatch()
	taken := m.c
	taken.Rows = m.last
	m.c, m.size = change.Changes{Table: messagesTable}, 0
	return &taken
}
