package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/fault"
)

// Evaluator lets the server compute generated columns, over a connection that it keeps. It may be used by several goroutines.
type Evaluator struct {
	source *Source
	mu     sync.Mutex
	conn   *pgconn.PgConn // nil until it is needed
}

// Evaluator opens nothing yet.
func (s *Source) Evaluator() *Evaluator { return &Evaluator{source: s} }

// Close ends the connection.
func (e *Evaluator) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leave()
}

func (e *Evaluator) leave() {
	if e.conn != nil {
		leave(e.conn)
		e.conn = nil
	}
}

// do runs a query for so many rows.
func (e *Evaluator) do(ctx context.Context, q exprQuery, params []rowValues, rows int, limit int64) ([][][]byte, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.conn != nil && e.conn.IsClosed() {
		e.leave()
	}
	if e.conn == nil {
		conn, err := e.source.session(ctx)
		if err != nil {
			return nil, err
		}
		e.conn = conn
	}
	out, err := q.run(ctx, e.conn, params, rows, limit)
	switch {
	case errors.Is(err, errComputedTooMuch): // the rest of the answer is not wanted
		e.leave()
	case err != nil && !refused(err):
		e.leave()
		return nil, classify(ctx, err, e.source.Name, "cannot compute generated columns")
	}
	return out, err
}

// rowValues are an input's values in some rows, nil for NULL, all as text or all in their binary form.
type rowValues struct {
	binary bool
	values [][]byte
}

// errComputedTooMuch says that the values of generated columns are more than can be held at one time.
var errComputedTooMuch = errors.New("the values of generated columns are too many to be held at one time")

// run asks the server. Its answer has the expressions' values in their binary form, nil for NULL. It ends with errComputedTooMuch when
// they are more than limit bytes, in the middle of the answer.
func (q exprQuery) run(ctx context.Context, conn *pgconn.PgConn, params []rowValues, rows int, limit int64) ([][][]byte, error) {
	values, formats := make([][]byte, len(q.types)), make([]int16, len(q.types))
	for i, in := range q.inputs {
		if params[i].binary && in.array != 0 {
			values[i], formats[i] = binaryArray(in.elem, params[i].values), 1
			continue
		}
		values[i] = textArrayOf(in, params[i].values)
	}
	if len(q.inputs) == 0 {
		values[0], formats[0] = binary.BigEndian.AppendUint32(nil, uint32(rows)), 1
	}
	answer := conn.ExecParams(ctx, q.sql, values, q.types, formats, []int16{1})
	out := make([][][]byte, 0, rows)
	for answer.NextRow() {
		row := make([][]byte, len(answer.Values()))
		for i, v := range answer.Values() {
			if v != nil {
				row[i] = append(make([]byte, 0, len(v)), v...)
			}
			if limit -= int64(len(v)); limit < 0 {
				return nil, errComputedTooMuch
			}
		}
		out = append(out, row)
	}
	_, err := answer.Close()
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && ctx.Err() == nil && !fault.Codes[codeOf(err)].Retry:
		return nil, &Uncomputable{err}
	case err != nil:
		return nil, err
	case len(out) != rows:
		return nil, malformed("%d rows were computed of %d", len(out), rows)
	}
	return out, nil
}

// binaryArray is an array of values in their binary form, as array_recv of src/backend/utils/adt/arrayfuncs.c reads it.
func binaryArray(elem uint32, values [][]byte) []byte {
	size := 20
	for _, v := range values {
		size += 4 + len(v)
	}
	out := make([]byte, 0, size)
	dims, nulls := uint32(1), uint32(0)
	if len(values) == 0 {
		dims = 0
	}
	for _, v := range values {
		if v == nil {
			nulls = 1
		}
	}
	for _, word := range []uint32{dims, nulls, elem} {
		out = binary.BigEndian.AppendUint32(out, word)
	}
	if dims == 0 {
		return out
	}
	out = binary.BigEndian.AppendUint32(out, uint32(len(values)))
	out = binary.BigEndian.AppendUint32(out, 1)
	for _, v := range values {
		if v == nil {
			out = binary.BigEndian.AppendUint32(out, 0xffffffff)
			continue
		}
		out = append(binary.BigEndian.AppendUint32(out, uint32(len(v))), v...)
	}
	return out
}

// textArrayOf is an array of values as text.
func textArrayOf(in exprInput, values [][]byte) []byte {
	delim := in.delim
	if in.array == 0 { // of text
		delim = ','
	}
	out := []byte{'{'}
	for i, v := range values {
		if i > 0 {
			out = append(out, delim)
		}
		if v == nil {
			out = append(out, "NULL"...)
			continue
		}
		out = quotedElement(out, v, delim)
	}
	return append(out, '}')
}
