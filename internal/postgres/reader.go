package postgres

import (
	"context"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/session"
)

// Chunk is a range of a table's heap pages, [From, To); To 0 is the end, and the zero Chunk is the whole
// table. Pages, not keys: every heap table has them, they need no index and cannot be skewed by the data.
type Chunk struct {
	From, To int64
}

// Whole says whether the chunk is the whole table.
func (c Chunk) Whole() bool { return c.From == 0 && c.To == 0 }

// where is the condition that a TID range scan (PostgreSQL 14+) answers by reading just these pages.
func (c Chunk) where() string {
	switch {
	case c.Whole():
		return ""
	case c.To == 0:
		return fmt.Sprintf(" where ctid operator(pg_catalog.>=) '(%d,0)'::pg_catalog.tid", c.From)
	}
	return fmt.Sprintf(" where ctid operator(pg_catalog.>=) '(%d,0)'::pg_catalog.tid and ctid operator(pg_catalog.<) '(%d,0)'::pg_catalog.tid", c.From, c.To)
}

// leastChunk is in bytes of heap: below it, more connections gain less than more files cost.
const leastChunk = 64 << 20

// ChunkBytes is how much heap a chunk reads of the snapshot's tables: most bytes, but less where that makes fewer than the
// given number of chunks, and some of the connections would have nothing to do at the end.
func (sn *Snapshot) ChunkBytes(chunks int, most int64) int64 {
	var all int64
	for _, t := range sn.Tables {
		all += t.Bytes
	}
	return min(max(all/int64(chunks), leastChunk), most)
}

// Chunks cuts the table's heap into ranges of about the given bytes. Before 14 a range
// of ctid is a scan of the whole table, so there the table is one chunk; so is all that has no heap.
func (sn *Snapshot) Chunks(t *change.Table, bytes int64) []Chunk {
	const page = 8192
	if sn.source.Version < 140000 || t.Kind != change.KindTable && t.Kind != change.KindMatView || t.Pages <= 1 {
		return []Chunk{{}}
	}
	// TOAST makes a page stand for more bytes than its own.
	perPage := max(page, t.Bytes/t.Pages)
	n := max(1, (t.Pages*perPage+bytes/2)/bytes)
	step := (t.Pages + n - 1) / n
	var chunks []Chunk
	for from := int64(0); from < t.Pages; from += step {
		chunks = append(chunks, Chunk{From: from, To: from + step})
	}
	chunks[len(chunks)-1].To = 0 // pages that are added meanwhile hold nothing this snapshot sees, but cost nothing either
	return chunks
}

// Shared bounds what all readers of a dump do together.
type Shared struct {
	// Limit waits until so many bytes may be read; nil is no limit.
	Limit func(ctx context.Context, bytes int) error
	// Huge, of capacity one, lets one reader at a time hold values of hugeValue bytes and more
	// (Invariant 8); nil lets all. A reader takes it at most once a batch, so readers cannot
	// wait for each other in a ring.
	Huge chan struct{}
}

// Reader is one connection inside a snapshot. It reads one chunk at a time.
type Reader struct {
	snap   *Snapshot
	shared Shared
	conn   *pgconn.PgConn // only to cancel by: its connection is the stream's
	stream *copyStream
	huge   bool     // Shared.Huge is held, until the batch is handed on
	used   *decoder // of the last chunk that was read to its end
}

// Reader opens a connection and enters the snapshot.
func (sn *Snapshot) Reader(ctx context.Context, shared Shared) (*Reader, error) {
	own := sn.source.dataEncoding()
	maps.Copy(own, sn.Form)
	c, err := sn.source.open(ctx, session.Read, own)
	if err != nil {
		return nil, err
	}
	hijacked, err := sn.enter(ctx, c)
	if err != nil {
		leave(c)
		return nil, err
	}
	r := &Reader{snap: sn, shared: shared, conn: c}
	limit := func(n int) error { return shared.Limit(ctx, n) }
	if shared.Limit == nil {
		limit = nil
	}
	r.stream = newCopyStream(hijacked.Conn, limit)
	r.stream.ended = true // no COPY is under way
	return r, nil
}

func (sn *Snapshot) enter(ctx context.Context, c *pgconn.PgConn) (*pgconn.HijackedConn, error) {
	err := exec(ctx, c, "begin transaction isolation level repeatable read, read only; set transaction snapshot "+quoteLiteral(sn.ID))
	if err != nil {
		if alive := sn.Alive(ctx); alive != nil && ctx.Err() == nil {
			return nil, alive
		}
		return nil, classify(ctx, err, sn.source.Name, "cannot enter the snapshot")
	}
	if err := c.SyncConn(ctx); err != nil {
		return nil, classify(ctx, err, sn.source.Name, "cannot enter the snapshot")
	}
	h, err := c.Hijack()
	return h, classify(ctx, err, sn.source.Name, "cannot take over the connection")
}

// Close ends the connection, and with it whatever the server still does for it.
func (r *Reader) Close() {
	if !r.stream.ended { // a server that computes or waits for a lock does not see the connection go
		ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
		defer cancel()
		_ = r.conn.CancelRequest(ctx)
	}
	_ = r.stream.conn.SetDeadline(time.Now().Add(time.Second))
	_, _ = r.stream.conn.Write([]byte{'X', 0, 0, 0, 4}) // Terminate; a dead connection needs no farewell
	_ = r.stream.conn.Close()
}

func from(t *change.Table) string {
	only := ""
	if t.Kind == change.KindTable {
		only = "only " // children by inheritance are tables of their own
	}
	return " from " + only + quoteTable(t.Schema, t.Name)
}

// Batches reads a chunk and hands it on batch by batch; a batch is valid until yield returns.
// It returns the rows read, and for each column how often its policy was applied.
func (r *Reader) Batches(ctx context.Context, p *Plan, chunk Chunk, yield func(change.Batch) error) (rows int64, applied []int64, err error) {
	where := chunk.where()
	switch {
	case p.RowFilter == "":
	case where == "":
		where = " where (" + p.RowFilter + ")"
	default:
		where += " and (" + p.RowFilter + ")"
	}
	return r.batches(ctx, p, where, yield)
}

func (r *Reader) batches(ctx context.Context, p *Plan, where string, yield func(change.Batch) error) (rows int64, applied []int64, err error) {
	d := r.decoder(p)
	sql := "copy (select " + p.query + from(p.Table) + where + ") to stdout (format binary)"
	position := change.Position{LSN: r.snap.LSN}
	flush := func() error {
		defer r.release()
		if d.rows == 0 {
			return nil
		}
		rec := d.record()
		defer rec.Release()
		rows += int64(d.rows)
		err := yield(change.Batch{Table: p.Table, Op: change.OpRead, Position: position, Record: rec})
		d.reset()
		return err
	}
	defer r.release()
	err = r.run(ctx, p.Table, sql, func() error { return r.decodeAll(ctx, d, flush) })
	if err != nil {
		return 0, nil, err
	}
	tagged, err := r.stream.rows()
	if err != nil {
		return 0, nil, err
	}
	if tagged != rows {
		return 0, nil, fault.New(fault.SourceProtocol, p.Table.String(), "the server sent %d rows, %d were understood", tagged, rows)
	}
	r.used = d
	return rows, d.applied(), nil
}

// TextFormat is a text form that the server itself renders.
type TextFormat int

// The text forms.
const (
	CSV          TextFormat = iota // as COPY t TO STDOUT CSV
	CSVGenerated                   // the same with generated columns, which COPY t leaves out
	JSON                           // as row_to_json, a line a row; see jsonColumns
)

// Text copies a chunk in the server's own text form to w and returns the rows.
func (r *Reader) Text(ctx context.Context, t *change.Table, form TextFormat, chunk Chunk, w io.Writer) (int64, error) {
	var sql string
	var read func() error
	switch form {
	case CSV, CSVGenerated:
		sql = "copy (select " + plainColumns(t, form == CSVGenerated) + from(t) + chunk.where() + ") to stdout (format csv)"
		read = func() error { return r.stream.writeTo(w) }
	case JSON:
		row := "pg_catalog.row_to_json(t.*)"
		if r.snap.source.ascii() { // the server lets any bytes through to this session, and JSON has no place for them
			row = "pg_catalog.convert_from(pg_catalog.convert_to(" + row + "::pg_catalog.text, 'SQL_ASCII'), 'UTF8')"
		}
		sql = "copy (select " + row + " from (select " + r.snap.jsonColumns(t) + from(t) + chunk.where() + ") t) to stdout (format binary)"
		read = func() error { return r.jsonLines(w) }
	}
	if err := r.run(ctx, t, sql, read); err != nil {
		return 0, err
	}
	return r.stream.rows()
}

// plainColumns lists what COPY t TO takes: all columns but generated ones, unless they are wanted.
func plainColumns(t *change.Table, generated bool) string {
	list := ""
	for _, c := range t.Columns {
		if c.Generated != 0 && !generated {
			continue
		}
		if list != "" {
			list += ","
		}
		list += quoteIdent(c.Name)
	}
	return list
}

// run sends a COPY and reads its answer.
func (r *Reader) run(ctx context.Context, t *change.Table, sql string, read func() error) error {
	err := r.stream.during(ctx, func() error {
		if err := r.stream.start(sql); err != nil {
			return err
		}
		return read()
	})
	return r.explain(ctx, t, err)
}

// explain says which table a failure belongs to, and what to grant where a right is missing.
func (r *Reader) explain(ctx context.Context, t *change.Table, err error) error {
	if err == nil {
		return nil
	}
	if f := fault.Of(err); f != nil {
		if f.Where == "" {
			f.Where = t.String()
		}
		return err
	}
	err = classify(ctx, err, t.String(), "cannot be read")
	if fault.Is(err, fault.ValueUncarriable) {
		return fault.Mended(err, "Repair the text, or exclude the column or table; from a SQL_ASCII database csv keeps the bytes as they are.")
	}
	if fault.Is(err, fault.SourceRights) {
		return fault.Mended(err, "Run: grant usage on schema %s to %s; grant select on %s to %s; (row security needs BYPASSRLS or the table's owner.)",
			quoteIdent(t.Schema), quoteIdent(r.snap.source.config.User), quoteTable(t.Schema, t.Name), quoteIdent(r.snap.source.config.User))
	}
	return err
}

func (r *Reader) release() {
	if r.huge {
		<-r.shared.Huge
		r.huge = false
	}
}

// The limits of a batch. Rows bound the fixed-width buffers, bytes the rest.
const (
	batchRows  = 16 << 10
	batchBytes = 4 << 20
	hugeValue  = 8 << 20 // values from here on wait for Shared.Huge
	maxValue   = 1 << 30 // PostgreSQL has none larger (MaxAllocSize)
)

// Bytes is what has been read of payload since the reader began.
func (r *Reader) Bytes() int64 { return r.stream.total }
