package format

import "github.com/apache/arrow-go/v18/arrow"

// Writer turns records into one immutable file.
type Writer interface {
	Write(rec arrow.RecordBatch) error // the record's buffers are read before it returns and not kept
	Size() int64                       // bytes written plus bytes held back, for rolling files
	Ender
}

// Ender ends a file, one way or the other. The underlying io.Writer stays open.
type Ender interface {
	Close() error // writes what is left
	Discard()     // gives up what is held, in place of Close or after it failed; nothing is written
}
