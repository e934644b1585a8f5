package change

import "github.com/apache/arrow-go/v18/arrow"

// Batch is what flows: some rows of one table, as one Arrow record, with the operation and
// the position at which they are true.
//
// The record's buffers belong to whoever made the batch and are used again: a consumer may
// read them until it returns, and copies what it keeps.
type Batch struct {
	Table    *Table
	Op       Op
	Position Position
	Record   arrow.RecordBatch
}
