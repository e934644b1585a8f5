package lake

import (
	"context"
	"errors"
	"fmt"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/format"
)

// valueReader is a reader of a Parquet column. Unlike ReadBatch, ReadBatchInPage copies no texts: a page of a few bytes can have the same one,
// large, some million times.
type valueReader[V any] interface {
	HasNext() bool
	Err() error
	ReadBatchInPage(size int64, values []V, definition, repetition []int16) (levels int64, read int, err error)
}

// steps are the values of a column chunk, some at a time.
type steps[V any] struct {
	from                   valueReader[V]
	values                 []V
	definition, repetition []int16
	levels                 int // of the values that next gave last, nulls included; 0 at the end
}

const stepRows = 4096

func newSteps[V any](from valueReader[V], d *schema.Column) *steps[V] {
	s := &steps[V]{from: from, values: make([]V, stepRows)}
	if d.MaxDefinitionLevel() > 0 {
		s.definition = make([]int16, stepRows)
	}
	if d.MaxRepetitionLevel() > 0 {
		s.repetition = make([]int16, stepRows)
	}
	return s
}

var errStuck = errors.New("a page has fewer values than it says")

// next reads the next values, which are valid until it is called again.
func (s *steps[V]) next(ctx context.Context) ([]V, error) {
	s.levels = 0
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if !s.from.HasNext() {
		return nil, s.from.Err()
	}
	levels, n, err := s.from.ReadBatchInPage(stepRows, s.values, s.definition, s.repetition)
	if err == nil && levels <= 0 {
		err = errStuck
	}
	if err != nil {
		return nil, err
	}
	s.levels = int(levels)
	return s.values[:n], nil
}

// deleteColumns are the columns of paths and of rows, -1 for none. Programs that write no ids are known by their names.
func deleteColumns(rd *file.Reader) (paths, rows int) {
	paths, rows = -1, -1
	for i := range rd.MetaData().Schema.NumColumns() {
		c := rd.MetaData().Schema.Column(i)
		if len(c.ColumnPath()) != 1 {
			continue
		}
		switch id := c.SchemaNode().FieldID(); {
		case id == deletePathID || id < 0 && c.Name() == "file_path":
			paths = i
		case id == deletePosID || id < 0 && c.Name() == "pos":
			rows = i
		}
	}
	return paths, rows
}

var errDeletes = errors.New("it has no rows of files, or they are null in places, or of another type")

// positions reads a file of position deletes and hands out paths with rows, some at a time; they are valid for the call.
func (t *icebergTable) positions(ctx context.Context, f iceberg.DataFile, each func([]parquet.ByteArray, []int64) error) error {
	r, err := t.openParquet(ctx, f, format.MostUnpacked)
	if err != nil {
		return err
	}
	defer r.Close()
	paths, rows := deleteColumns(r.Reader)
	if paths < 0 || rows < 0 {
		return r.unreadable(ctx, errDeletes)
	}
	for g := range r.NumRowGroups() {
		if err := eachPosition(ctx, r.RowGroup(g), paths, rows, each); err != nil {
			return r.unreadable(ctx, err)
		}
	}
	return nil
}

func eachPosition(ctx context.Context, group *file.RowGroupReader, pathsAt, rowsAt int, each func([]parquet.ByteArray, []int64) error) error {
	a, err := group.Column(pathsAt)
	if err != nil {
		return err
	}
	b, err := group.Column(rowsAt)
	if err != nil {
		return err
	}
	ofPaths, ok := a.(*file.ByteArrayColumnChunkReader)
	ofRows, ok2 := b.(*file.Int64ColumnChunkReader)
	if !ok || !ok2 {
		return errDeletes
	}
	from, with := newSteps(ofPaths, ofPaths.Descriptor()), newSteps(ofRows, ofRows.Descriptor())
	var paths []parquet.ByteArray
	var rows []int64
	for left := group.NumRows(); left > 0; {
		if paths, err = leftOrNext(ctx, from, paths); err != nil {
			return err
		}
		if rows, err = leftOrNext(ctx, with, rows); err != nil {
			return err
		}
		n := min(len(paths), len(rows))
		if int64(n) > left {
			return errRows
		}
		if err := each(paths[:n], rows[:n]); err != nil {
			return err
		}
		paths, rows, left = paths[n:], rows[n:], left-int64(n)
	}
	return nil
}

// leftOrNext are the values that are left of a step, else those of the next.
func leftOrNext[V any](ctx context.Context, s *steps[V], left []V) ([]V, error) {
	if len(left) > 0 {
		return left, nil
	}
	values, err := s.next(ctx)
	switch {
	case err != nil:
		return nil, err
	case s.levels == 0:
		return nil, fmt.Errorf("%w: a column ends before the others", errRows)
	case s.levels != len(values):
		return nil, errDeletes
	}
	return values, nil
}
