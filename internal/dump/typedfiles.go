package dump

import (
	"context"
	"strings"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
)

// typedFiles are the files that one unit makes: one is open, those before it are full. None is
// visible before commit.
type typedFiles struct {
	worker  *worker
	unit    unit
	full    []openFile
	current *openFile
}

type openFile struct {
	sink   *sink
	writer format.Writer
	rows   int64
}

func (f *typedFiles) open(ctx context.Context) error {
	t, r := f.unit.table, f.worker.run
	s, err := r.newSink(ctx, t.key(f.unit.index, len(f.full)))
	if err != nil {
		return err
	}
	w, err := format.NewTyped(r.opts.Format, s, t.plan.Schema, format.TypedOptions{
		Compression: r.opts.Compression, Bloom: t.bloom, CreatedBy: "leat " + r.opts.Version, Name: t.table.Name,
		Metadata: map[string]string{"leat.table": t.table.String(), "leat.lsn": r.snap.LSN.String(), "leat.dump": r.manifest.ID},
	})
	if err != nil {
		s.abort()
		return err
	}
	f.current = &openFile{sink: s, writer: w}
	return nil
}

func (f *typedFiles) write(ctx context.Context, b change.Batch) error {
	if f.current == nil {
		if err := f.open(ctx); err != nil {
			return err
		}
	}
	if err := f.current.writer.Write(b.Record); err != nil {
		return err
	}
	f.current.rows += b.Record.NumRows()
	if f.current.writer.Size() >= f.worker.run.opts.FileSize && f.worker.run.opts.Layout == LayoutRun {
		return f.closeOpen()
	}
	return nil
}

func (f *typedFiles) closeOpen() error {
	if f.current == nil {
		return nil
	}
	if err := f.current.writer.Close(); err != nil {
		return err
	}
	f.current.writer = nil
	f.full = append(f.full, *f.current)
	f.current = nil
	return nil
}

// commit ends the open file and makes all visible. After an error those that are visible already are
// returned too, so that they can be deleted.
func (f *typedFiles) commit(ctx context.Context) (files []FileManifest, err error) {
	if err := f.closeOpen(); err != nil {
		return nil, err
	}
	for len(f.full) > 0 {
		file, err := f.full[0].sink.commit(ctx, f.worker.run)
		if err != nil {
			return files, err
		}
		file.Rows, file.Chunks = f.full[0].rows, spans(f.unit.table.chunks[f.unit.index])
		files = append(files, file)
		f.full = f.full[1:]
	}
	return files, nil
}

// abort drops what is not committed.
func (f *typedFiles) abort() {
	if f.current != nil {
		f.full = append(f.full, *f.current)
	}
	for _, o := range f.full {
		o.sink.abort()
		if o.writer != nil {
			o.writer.Discard()
		}
	}
	f.full, f.current = nil, nil
}

// chooseBloom lists the table's columns that get a Bloom filter. One that was named outright and can have none is an error when the
// file is opened; of those that a pattern chose it is noted.
func (t *tableWork) chooseBloom() {
	choose := t.run.opts.Bloom
	if choose == nil || t.run.opts.Format != format.Parquet {
		return
	}
	var without []string
	for _, c := range t.plan.Columns {
		switch chosen, outright := choose(t.table.Schema, t.table.Name, c.Column.Name); {
		case !chosen:
		case outright || format.Bloomable(c.Field):
			t.bloom = append(t.bloom, c.Column.Name)
		default:
			without = append(without, c.Column.Name)
		}
	}
	if len(without) > 0 {
		t.run.opts.Log.Info("columns whose type can have no Bloom filter get none", "table", t.table.String(), "columns", strings.Join(without, ", "))
	}
}
