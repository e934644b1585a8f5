package lake

import (
	"strconv"
	"time"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// systemColumn is a column that the history adds to a table's own. fill makes its values: source tells for each row
// which change it comes from, nil that each row is its own.
type systemColumn struct {
	field arrow.Field
	fill  func(r historyRows, source []int, columns []arrow.Field) arrow.Array
}

type systemColumns []systemColumn

func (s systemColumns) fields() []arrow.Field {
	out := make([]arrow.Field, len(s))
	for i, c := range s {
		out[i] = c.field
	}
	return out
}

var utc = &arrow.TimestampType{Unit: arrow.Microsecond, TimeZone: "UTC"}

// profileColumns are the system columns by the names that other tools made customary.
func profileColumns(profile string) (systemColumns, error) {
	switch profile {
	case "", "leat":
		return systemColumns{
			{arrow.Field{Name: "_leat_op", Type: arrow.BinaryTypes.String}, fillOp},
			{arrow.Field{Name: "_leat_lsn", Type: arrow.PrimitiveTypes.Int64}, fillLSN},
			{arrow.Field{Name: "_leat_seq", Type: arrow.PrimitiveTypes.Int64}, fillSeq},
			{arrow.Field{Name: "_leat_committed_at", Type: utc}, fillTime(utc, 1)},
			{arrow.Field{Name: "_leat_txid", Type: arrow.PrimitiveTypes.Int64}, fillXID},
			{arrow.Field{Name: "_leat_unchanged", Type: arrow.ListOf(arrow.BinaryTypes.String), Nullable: true}, fillUnchanged},
		}, nil
	case "airbyte":
		return systemColumns{
			{arrow.Field{Name: "_ab_cdc_lsn", Type: arrow.PrimitiveTypes.Int64}, fillLSN},
			{arrow.Field{Name: "_ab_cdc_updated_at", Type: arrow.BinaryTypes.String}, fillInstant(nil)},
			{arrow.Field{Name: "_ab_cdc_deleted_at", Type: arrow.BinaryTypes.String, Nullable: true}, fillInstant(isDelete)},
			{arrow.Field{Name: "_ab_cdc_seq", Type: arrow.PrimitiveTypes.Int64}, fillSeq},
			{arrow.Field{Name: "_ab_cdc_op", Type: arrow.BinaryTypes.String}, fillOp},
		}, nil
	case "debezium":
		return systemColumns{
			{arrow.Field{Name: "__op", Type: arrow.BinaryTypes.String}, fillOp},
			{arrow.Field{Name: "__source_lsn", Type: arrow.PrimitiveTypes.Int64}, fillLSN},
			{arrow.Field{Name: "__source_seq", Type: arrow.PrimitiveTypes.Int64}, fillSeq},
			{arrow.Field{Name: "__source_ts_ms", Type: arrow.PrimitiveTypes.Int64}, fillTime(arrow.PrimitiveTypes.Int64, 1000)},
			{arrow.Field{Name: "__source_txId", Type: arrow.PrimitiveTypes.Int64}, fillXID},
			{arrow.Field{Name: "__deleted", Type: arrow.BinaryTypes.String}, fillDeleted},
		}, nil
	}
	return nil, fault.New(fault.ConfigInvalid, "", "%q is not a profile: leat, airbyte or debezium", profile)
}

func isDelete(o change.Op) bool { return o == change.OpDelete || o == change.OpTrunc }

// each calls f for every row with the change it comes from.
func (r historyRows) each(source []int, f func(row, from int)) {
	for i := range r.ops {
		if source == nil {
			f(i, i)
		} else {
			f(i, source[i])
		}
	}
}

// int64s wraps numbers without a copy as an array of a type of eight bytes.
func int64s(t arrow.DataType, v []int64) arrow.Array {
	data := array.NewData(t, len(v), []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int64Traits.CastToBytes(v))}, nil, 0, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

func fillOp(r historyRows, _ []int, _ []arrow.Field) arrow.Array {
	offsets := make([]int32, len(r.ops)+1)
	for i := range offsets {
		offsets[i] = int32(i)
	}
	var letters []byte
	if len(r.ops) > 0 {
		letters = unsafe.Slice((*byte)(&r.ops[0]), len(r.ops)) // an Op is a byte
	}
	data := array.NewData(arrow.BinaryTypes.String, len(r.ops), []*memory.Buffer{
		nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(letters)}, nil, 0, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

func fillLSN(r historyRows, source []int, _ []arrow.Field) arrow.Array {
	v := make([]int64, len(r.ops))
	r.each(source, func(i, from int) { v[i] = int64(r.LSN[from]) })
	return int64s(arrow.PrimitiveTypes.Int64, v)
}

func fillSeq(r historyRows, _ []int, _ []arrow.Field) arrow.Array {
	return int64s(arrow.PrimitiveTypes.Int64, r.seq)
}

func fillXID(r historyRows, source []int, _ []arrow.Field) arrow.Array {
	v := make([]int64, len(r.ops))
	r.each(source, func(i, from int) { v[i] = int64(r.XID[from]) })
	return int64s(arrow.PrimitiveTypes.Int64, v)
}

// fillTime gives the commit's time in microseconds divided by unit.
func fillTime(t arrow.DataType, unit int64) func(historyRows, []int, []arrow.Field) arrow.Array {
	return func(r historyRows, source []int, _ []arrow.Field) arrow.Array {
		v := make([]int64, len(r.ops))
		r.each(source, func(i, from int) { v[i] = r.Committed[from] / unit })
		return int64s(t, v)
	}
}

// fillInstant writes the commit's time as Airbyte does: Java's Instant of milliseconds, with three decimals or none. It is
// null for operations that only does not want; a nil one wants all.
func fillInstant(only func(change.Op) bool) func(historyRows, []int, []arrow.Field) arrow.Array {
	return func(r historyRows, source []int, _ []arrow.Field) arrow.Array {
		b := array.NewStringBuilder(memory.DefaultAllocator)
		defer b.Release()
		var at int64
		text := ""
		r.each(source, func(i, from int) {
			if only != nil && !only(r.ops[i]) {
				b.AppendNull()
				return
			}
			if ms := r.Committed[from] / 1000; ms != at || text == "" { // rows of one transaction share it
				at, text = ms, instant(ms)
			}
			b.Append(text)
		})
		return b.NewArray()
	}
}

func instant(ms int64) string {
	layout := "2006-01-02T15:04:05.000Z"
	if ms%1000 == 0 {
		layout = "2006-01-02T15:04:05Z"
	}
	return time.UnixMilli(ms).UTC().Format(layout)
}

// fillDeleted says "true" or "false": Debezium's own column is a text.
func fillDeleted(r historyRows, _ []int, _ []arrow.Field) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	for _, o := range r.ops {
		b.Append(strconv.FormatBool(isDelete(o)))
	}
	return b.NewArray()
}

// fillUnchanged names the columns whose values the log left out and nobody could fill in. Without any the list is null.
func fillUnchanged(r historyRows, source []int, columns []arrow.Field) arrow.Array {
	if r.Unchanged == nil {
		return array.MakeArrayOfNull(memory.DefaultAllocator, arrow.ListOf(arrow.BinaryTypes.String), len(r.ops))
	}
	b := array.NewListBuilder(memory.DefaultAllocator, arrow.BinaryTypes.String)
	defer b.Release()
	names := b.ValueBuilder().(*array.StringBuilder)
	r.each(source, func(i, from int) {
		begun := false
		for k, f := range columns {
			if r.ops[i] != change.OpDelete && r.IsUnchanged(k, from) {
				if !begun {
					b.Append(true)
					begun = true
				}
				names.Append(f.Name)
			}
		}
		if !begun {
			b.AppendNull()
		}
	})
	return b.NewArray()
}

// since gives the changes of transactions from position p on; those before are in the table already.
func since(c *change.Changes, p change.LSN) *change.Changes {
	lo := before(c, p)
	if lo == 0 {
		return c
	}
	return c.Between(lo, c.Len())
}

// before counts the rows of transactions before position p.
func before(c *change.Changes, p change.LSN) (n int) {
	for n < c.Len() && c.LSN[n] < p {
		n++
	}
	return n
}
