package postgres

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// keysAtOnce bounds the length of a statement.
const keysAtOnce = 500

// ErrAltered says that a table's definition is no longer the one of the plan: who looks again finds the new one.
var ErrAltered = errors.New("the table's definition has just changed")

// ReadKeys reads the rows that have the given keys, as they are now. The columns of keys are named as the table's; the record
// has the plan's columns, rows in no order, and lacks the rows that are gone. The caller releases it. Nothing is read, and
// ErrAltered returned, when a column of the plan is no longer there as the plan has it. Keys and the rows that are read may have
// special values, in a last column of the record.
func (s *Source) ReadKeys(ctx context.Context, p *Plan, keys arrow.RecordBatch) (arrow.RecordBatch, error) {
	return s.ReadKeysBy(ctx, p, keys, Writers{})
}

// Writers say of rows by which transactions they were written. The zero Writers are all transactions.
type Writers struct {
	XIDs []uint32 // nil is any
	// Visible is a Sight's: they had ended by then. "" is any.
	Visible string
}

// ReadKeysBy is ReadKeys for those of the rows that one of the transactions wrote.
func (s *Source) ReadKeysBy(ctx context.Context, p *Plan, keys arrow.RecordBatch, by Writers) (arrow.RecordBatch, error) {
	written, err := by.condition()
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, p.Table.String(), "cannot ask for rows by who wrote them")
	}
	only := Selection{PartitionRoots: p.Table.Kind == change.KindPartitioned, Choose: func(all []Name, _ []string) (chosen []int, err error) {
		for i, n := range all {
			if n.Schema == p.Table.Schema && n.Name == p.Table.Name {
				chosen = append(chosen, i)
			}
		}
		return chosen, nil
	}}
	sn, err := s.SnapshotNow(ctx, NowOptions{Selection: only})
	if err != nil {
		return nil, err
	}
	defer sn.Close()
	if !has(sn.Tables, p.Table) {
		return nil, ErrAltered
	}
	r, err := sn.Reader(ctx, Shared{})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	parts := make([][]arrow.Array, p.Schema.NumFields()+1)
	special := false
	defer func() {
		for _, column := range parts {
			for _, a := range column {
				a.Release()
			}
		}
	}()
	var rows int64
	for from := 0; from < int(keys.NumRows()); from += keysAtOnce {
		where, err := whereKeys(p, keys, from, min(from+keysAtOnce, int(keys.NumRows())))
		if err != nil {
			return nil, err
		}
		where += written
		n, _, err := r.batches(ctx, p, where, func(b change.Batch) error {
			columns := b.Record.Columns()
			if m := change.SpecialOf(b.Record, p.Schema.NumFields()); m != nil {
				special = true
			} else {
				none := array.MakeArrayOfNull(memory.DefaultAllocator, change.SpecialType, int(b.Record.NumRows()))
				defer none.Release()
				columns = append(slices.Clone(columns), none)
			}
			for i, column := range columns { // the batch's buffers are used again
				own, err := array.Concatenate([]arrow.Array{column}, memory.DefaultAllocator)
				if err != nil {
					return fault.Wrap(err, fault.Internal, p.Table.String(), "cannot keep rows that were read by key")
				}
				parts[i] = append(parts[i], own)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		rows += n
	}
	if special {
		return joined(p, withSpecial(p.Schema), parts, rows)
	}
	return joined(p, p.Schema, parts[:p.Schema.NumFields()], rows)
}

// has says whether one of the tables, which are locked, has all columns of t just as t has them.
func has(tables []*change.Table, t *change.Table) bool {
	return slices.ContainsFunc(tables, func(now *change.Table) bool {
		return now.OID == t.OID && !slices.ContainsFunc(t.Columns, func(c change.Column) bool {
			return !slices.ContainsFunc(now.Columns, func(n change.Column) bool {
				return n.Attnum == c.Attnum && n.Name == c.Name && n.TypeOID == c.TypeOID && n.Typmod == c.Typmod
			})
		})
	})
}

func joined(p *Plan, schema *arrow.Schema, parts [][]arrow.Array, rows int64) (arrow.RecordBatch, error) {
	columns := make([]arrow.Array, len(parts))
	defer func() {
		for _, c := range columns {
			if c != nil {
				c.Release()
			}
		}
	}()
	for i, pieces := range parts {
		if len(pieces) == 0 {
			columns[i] = array.MakeArrayOfNull(memory.DefaultAllocator, schema.Field(i).Type, 0)
			continue
		}
		whole, err := array.Concatenate(pieces, memory.DefaultAllocator)
		if err != nil {
			return nil, fault.Wrap(err, fault.Internal, p.Table.String(), "cannot join rows that were read by key")
		}
		columns[i] = whole
	}
	return array.NewRecordBatch(schema, columns, rows), nil
}

// whereKeys writes " where (a, b) in ((…), …)". Values are compared in their column's own type.
func whereKeys(p *Plan, keys arrow.RecordBatch, from, to int) (string, error) {
	var b strings.Builder
	b.WriteString(" where (")
	fields := keys.Schema().Fields()
	var special *array.Map
	if last := len(fields) - 1; fields[last].Name == change.SpecialName {
		fields, special = fields[:last], change.SpecialOf(keys, last)
	}
	types := make([]string, len(fields))
	for i, f := range fields {
		at := p.Schema.FieldIndices(f.Name)
		if len(at) != 1 {
			return "", fault.New(fault.Internal, p.Table.String(), "the table has no key column %s", f.Name)
		}
		types[i] = p.Columns[at[0]].Column.Type
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quoteIdent(f.Name))
	}
	b.WriteString(") in (")
	for row := from; row < to; row++ {
		if row > from {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for i, f := range fields {
			if i > 0 {
				b.WriteString(", ")
			}
			literal := keyLiteral(keys.Column(i), row)
			if text, ok := change.SpecialText(special, row, f.Name); ok {
				literal = quoteLiteral(wholeText(text))
			}
			b.WriteString(literal + "::" + types[i])
		}
		b.WriteByte(')')
	}
	b.WriteByte(')')
	return b.String(), nil
}

// condition is one on a row. A frozen row keeps the number of who wrote it.
func (w Writers) condition() (sql string, err error) {
	list := func(xids []uint32) string {
		texts := make([]string, len(xids))
		for i, x := range xids {
			texts[i] = strconv.FormatUint(uint64(x), 10)
		}
		return "'{" + strings.Join(texts, ",") + "}'::pg_catalog.text[]"
	}
	if w.XIDs != nil {
		sql = " and xmin::pg_catalog.text = any (" + list(w.XIDs) + ")"
	}
	if w.Visible != "" {
		v, err := parseVisibility(w.Visible)
		if err != nil {
			return "", err
		}
		sql += fmt.Sprintf(" and pg_catalog.age(xmin) > pg_catalog.age('%d'::pg_catalog.xid) and xmin::pg_catalog.text <> all (%s)",
			uint32(v.xmax), list(slices.Sorted(maps.Keys(v.running))))
	}
	return sql, nil
}

// keyLiteral is a value as PostgreSQL reads it.
func keyLiteral(a arrow.Array, row int) string {
	switch a := a.(type) {
	case *array.Binary:
		return quoteLiteral(`\x` + hex.EncodeToString(a.Value(row)))
	case *array.FixedSizeBinary: // a UUID; its input takes hexadecimal digits alone
		return quoteLiteral(hex.EncodeToString(a.Value(row)))
	case *array.Boolean:
		return map[bool]string{true: "'t'", false: "'f'"}[a.Value(row)]
	case *array.String:
		return quoteLiteral(a.Value(row))
	}
	return quoteLiteral(a.ValueStr(row))
}
