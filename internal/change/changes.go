package change

import "github.com/apache/arrow-go/v18/arrow"

// Changes are rows of one table as the write-ahead log tells them, in the log's order. All slices have one entry for
// each row of Rows.
//
// Its buffers belong to whoever made it and are used again: a consumer may read them until it returns, and copies
// what it keeps.
type Changes struct {
	Table *Table
	// Rows has the columns of Table. For an insert or update it is the row afterwards; for a delete the row before, as
	// far as the replica identity tells it, with null for the other columns; for a truncate it is all null.
	Rows arrow.RecordBatch
	// Old holds the rows before those updates that told it (the key has changed, or REPLICA IDENTITY FULL), with null
	// for what the replica identity leaves out: of a row of a partition that is the partition's, and not Table's. Nil when no row has one.
	Old arrow.RecordBatch
	// OldRow is the index in Old of each row's earlier image, -1 for none. Nil when Old is nil.
	OldRow []int32
	Ops    []Op
	// LSN is where the row's transaction has its commit record (pgoutput's Begin calls it the final LSN). A position P of
	// a table holds exactly the transactions with LSN < P, as a snapshot exported at P does.
	LSN []LSN
	// Seq counts the rows of one transaction over all its tables, from 1.
	Seq       []uint64
	Committed []int64 // microseconds since 1970-01-01 UTC, by the server's clock
	XID       []uint32
	// Unchanged marks values that the log left out because they lie in TOAST and did not change; Rows holds null there.
	// One bitmap a column, nil for a column without such values; nil when no column has any.
	Unchanged []Bitmap
}

// Bitmap is one bit a row, least significant first, as Arrow has it.
type Bitmap []byte

// Has says whether the bit of row i is set; bits past the end are not.
func (b Bitmap) Has(i int) bool { return i>>3 < len(b) && b[i>>3]&(1<<(i&7)) != 0 }

// Set sets the bit of row i and returns the bitmap, grown where need be.
func (b Bitmap) Set(i int) Bitmap {
	for len(b) <= i>>3 {
		b = append(b, 0)
	}
	b[i>>3] |= 1 << (i & 7)
	return b
}

// Len is the number of rows.
func (c *Changes) Len() int { return len(c.Ops) }

// IsUnchanged says whether the value of a column in a row was left out of the log.
func (c *Changes) IsUnchanged(column, row int) bool {
	return c.Unchanged != nil && c.Unchanged[column].Has(row)
}

// Between are the changes from one row to before another, which share the buffers of all. Their Rows are the caller's to release.
func (c *Changes) Between(lo, hi int) *Changes {
	out := *c
	out.Ops, out.LSN, out.Seq, out.Committed, out.XID = c.Ops[lo:hi], c.LSN[lo:hi], c.Seq[lo:hi], c.Committed[lo:hi], c.XID[lo:hi]
	out.Rows, out.Unchanged = c.Rows.NewSlice(int64(lo), int64(hi)), nil
	if c.OldRow != nil {
		out.OldRow = c.OldRow[lo:hi]
	}
	if c.Unchanged != nil {
		out.Unchanged = make([]Bitmap, len(c.Unchanged))
		for k, bits := range c.Unchanged {
			for i := lo; i < hi; i++ {
				if bits.Has(i) {
					out.Unchanged[k] = out.Unchanged[k].Set(i - lo)
				}
			}
		}
	}
	return &out
}
