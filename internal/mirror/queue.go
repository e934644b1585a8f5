package mirror

import (
	"bufio"
	"context"
	"encoding/gob"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"

	"golang.org/x/sync/semaphore"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// entry is an object whose turn comes later.
type entry struct {
	bucket.Object
	Far   *bucket.Object
	Table string // whose data folder it lies in
}

func newEntry(p pair) entry { return entry{Object: *p.from, Far: p.to} }

// queue keeps entries in a file, in the order in which they came. Keys come back byte by byte as they were: a form of text, such as JSON, would
// change those that are no UTF-8.
type queue struct {
	file *os.File
	out  *bufio.Writer
	code *gob.Encoder // into out
	n    int
}

func newQueue(dir, name string) (*queue, error) {
	f, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		return nil, fault.Wrap(err, fault.StateUnusable, dir, "a file for what has to wait cannot be made")
	}
	out := bufio.NewWriterSize(f, 32<<10)
	return &queue{file: f, out: out, code: gob.NewEncoder(out)}, nil
}

func (q *queue) put(e entry) error {
	q.n++
	return fault.Wrap(q.code.Encode(e), fault.StateUnusable, q.file.Name(), "what has to wait cannot be kept")
}

// all gives the entries in their order. Nothing may be put after.
func (q *queue) all() iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		broken := func(err error) error {
			return fault.Wrap(err, fault.StateUnusable, q.file.Name(), "what has waited cannot be read back")
		}
		if err := q.out.Flush(); err != nil {
			yield(entry{}, broken(err))
			return
		}
		in := gob.NewDecoder(bufio.NewReaderSize(io.NewSectionReader(q.file, 0, 1<<62), 64<<10))
		for {
			var e entry
			err := in.Decode(&e)
			if errors.Is(err, io.EOF) {
				return
			}
			if !yield(e, broken(err)) || err != nil {
				return
			}
		}
	}
}

func (q *queue) close() {
	if q != nil {
		q.file.Close()
	}
}

// memoryBudget bounds the bytes of objects that are held at one time.
const memoryBudget = 96 << 20

// budget hands out memory.
type budget struct {
	all  int64
	free *semaphore.Weighted
}

func newBudget(bytes int64) *budget { return &budget{bytes, semaphore.NewWeighted(bytes)} }

// counted is what bytes count as: more than all as all, and less than none, which a file of others may say, as none.
func (b *budget) counted(bytes int64) int64 { return max(0, min(bytes, b.all)) }

// take waits for memory.
func (b *budget) take(ctx context.Context, bytes int64) error {
	if err := b.free.Acquire(ctx, b.counted(bytes)); err != nil {
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the mirror was ended")
	}
	return nil
}

func (b *budget) give(bytes int64) { b.free.Release(b.counted(bytes)) }
