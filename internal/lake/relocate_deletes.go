package lake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/scratch"
)

// carryPositions writes a file that tells deleted rows of data files, by their paths, and returns its size at the far side.
func (m *mover) carryPositions(ctx context.Context, path, kind string, size, rows int64) (int64, error) {
	key, err := m.places.key(path)
	if err != nil {
		return 0, err
	}
	return m.arrived.once(ctx, key, asPositions, func() (int64, error) {
		if old, has := m.arrived.earlier(key); has {
			return old, nil
		}
		release, err := take(ctx, m.files)
		if err != nil {
			return 0, err
		}
		defer release()
		var moved int64
		switch kind {
		case "parquet":
			moved, err = m.moveParquet(ctx, key, size, rows)
		case "puffin":
			moved, err = m.movePuffin(ctx, key, size)
		case "avro":
			moved, err = m.moveAvro(ctx, key)
		default:
			err = fault.New(fault.LakeFailed, path, "the table has position deletes in a file of format %q, which cannot be given new paths", kind).
				WithMend("Rewrite the table's position deletes as Parquet, or leave the table out.")
		}
		if err != nil {
			return 0, m.failed(err, key, "the file of deletes cannot be carried")
		}
		m.deleteFiles.Add(1)
		return moved, nil
	})
}

func (m *mover) moveAvro(ctx context.Context, key string) (int64, error) {
	f, err := m.readAvroFile(ctx, key)
	if err != nil {
		return 0, err
	}
	return m.writeAvroFile(ctx, key, f, avroFields{deletePathID: textForm}, func(r []avroValue) ([]avroEdit, error) {
		path := fieldsOf(r)
		if !path.has(deletePathID) {
			return nil, errNoPaths
		}
		moved, err := m.places.moved(path.text(deletePathID))
		return []avroEdit{path[deletePathID].withBytes([]byte(moved))}, err
	})
}

// A Puffin file is blobs, then a footer: magic, JSON, its length (4 bytes), flags (4 bytes), magic.
const (
	puffinMagic = "PFA1"
	puffinTail  = 4 + 4 + len(puffinMagic)
)

// mostFooter bounds the footer of a file of deletes, in bytes: a Parquet footer of a few bytes a schema element nests that deep.
const mostFooter = 16 << 20

var errFooter = fmt.Errorf("its footer has more than %d bytes", mostFooter)

// movePuffin copies the blobs, which therefore stay where they are in the file, and writes a footer that names the new paths.
func (m *mover) movePuffin(ctx context.Context, key string, size int64) (int64, error) {
	data, err := m.readDeletes(ctx, key, size)
	if err != nil {
		return 0, err
	}
	defer scratch.Free(data)
	tail, err := stretch(data, size-int64(puffinTail), int64(puffinTail))
	if err != nil {
		return 0, err
	}
	length := int64(binary.LittleEndian.Uint32(tail))
	start := size - int64(puffinTail) - length - int64(len(puffinMagic))
	if string(tail[8:]) != puffinMagic || start < int64(len(puffinMagic)) {
		return 0, errors.New("it is no Puffin file of the size that the metadata says")
	}
	if flags := binary.LittleEndian.Uint32(tail[4:]); flags != 0 {
		return 0, fmt.Errorf("its footer is packed or of a later form (flags %#x), which is not known here", flags)
	}
	if length > mostFooter {
		return 0, errFooter
	}
	footer, err := stretch(data, start, length+int64(len(puffinMagic)))
	if err != nil {
		return 0, err
	}
	if string(footer[:4]) != puffinMagic {
		return 0, errors.New("its footer does not begin where it says")
	}
	payload, err := m.movePuffinFooter(footer[4:])
	if err != nil {
		return 0, err
	}
	end := append([]byte(puffinMagic), payload...)
	end = binary.LittleEndian.AppendUint32(end, uint32(len(payload)))
	end = append(append(end, 0, 0, 0, 0), puffinMagic...)
	return m.writeStream(ctx, key, func(w io.Writer) error {
		_, err := w.Write(data[:start])
		if err == nil {
			_, err = w.Write(end)
		}
		return err
	})
}

func (m *mover) movePuffinFooter(payload []byte) ([]byte, error) {
	var footer object
	if err := bucket.DecodeJSON(payload, &footer); err != nil {
		return nil, err
	}
	err := footer.objects("blobs", func(blob object) error {
		return blob.object("properties", func(p object) error { return p.text("referenced-data-file", m.places.moved) })
	})
	if err != nil {
		return nil, err
	}
	return asJSON(footer)
}

// readDeletes reads a file of deletes whole, of which the metadata says the size: only then can it be compared with what the source says of it.
func (m *mover) readDeletes(ctx context.Context, key string, size int64) ([]byte, error) {
	return m.read(ctx, key, min(max(size, wholeDeletes), largestDeletes))
}

// stretch is some bytes of a file.
func stretch(data []byte, offset, length int64) ([]byte, error) {
	if offset < 0 || length < 0 || offset+length > int64(len(data)) {
		return nil, errors.New("it is shorter than its format needs")
	}
	return data[offset : offset+length], nil
}

func (m *mover) writeStream(ctx context.Context, key string, write func(io.Writer) error) (int64, error) {
	if err := bucket.Holds(ctx, m.To, key); err != nil {
		return 0, err
	}
	up, err := m.To.Create(ctx, key, bucket.WriteOptions{ContentType: "application/octet-stream", Lazy: true})
	if err != nil {
		return 0, err
	}
	defer up.Abort()
	if err := write(up); err != nil {
		return 0, err
	}
	o, err := up.Commit(ctx)
	return o.Size, err
}

// largestDeletes bounds a file of deletes, in bytes, whatever the metadata says.
const largestDeletes = 1 << 40

// wholeDeletes is how large a file of deletes may be, in bytes, whatever the metadata says of it.
const wholeDeletes = 16 << 20

var errNoPaths = errors.New("the file of position deletes has no column of paths")

// moveParquet copies a file of position deletes column by column, rows and row groups as they are, with new paths.
func (m *mover) moveParquet(ctx context.Context, key string, size, rows int64) (int64, error) {
	in, err := m.random(ctx, key, size)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	rd, _, err := openChecked(in, parquetLimits{footer: mostFooter, page: format.MostUnpacked, dictionary: mostDictionary, rows: rows},
		parquet.NewReaderProperties(nil))
	if err != nil {
		return 0, err
	}
	paths, _ := deleteColumns(rd)
	if paths < 0 {
		return 0, errNoPaths
	}
	return m.writeStream(ctx, key, func(w io.Writer) error {
		w = &boundedWriter{w, format.MostUnpacked + mostGrowth*rd.MetaData().GetSourceFileSize()}
		out, err := file.NewParquetWriterWithError(w, rd.MetaData().Schema.Root(), file.WithWriterProps(likeParquet(rd, paths)),
			file.WithWriteMetadata(rd.MetaData().KeyValueMetadata()))
		if err != nil {
			return err
		}
		for g := range rd.NumRowGroups() {
			if err := m.moveRowGroup(ctx, rd.RowGroup(g), out, paths); err != nil {
				return err
			}
		}
		return out.Close()
	})
}

// mostGrowth is how many times as large a file of deletes may become when it is written again: it is packed and encoded as it was.
const mostGrowth = 16

// boundedWriter writes so many bytes and no more.
type boundedWriter struct {
	io.Writer
	left int64
}

var errGrown = fmt.Errorf("with new paths it would have more than %d times its size", mostGrowth)

func (w *boundedWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, errGrown
	}
	return w.Writer.Write(p)
}

func (m *mover) random(ctx context.Context, key string, size int64) (readable, error) {
	data, err := m.readDeletes(ctx, key, size)
	return inMemory{bytes.NewReader(data), data}, err
}

type inMemory struct {
	*bytes.Reader
	data []byte
}

func (f inMemory) Close() error {
	scratch.Free(f.data)
	return nil
}

// likeParquet has columns packed and encoded as in the file they come from.
func likeParquet(rd *file.Reader, paths int) *parquet.WriterProperties {
	// A dictionary that was whole stays so: without one a file would have each path once a row.
	props := []parquet.WriterProperty{parquet.WithVersion(rd.MetaData().Version()), parquet.WithDictionaryDefault(false),
		parquet.WithDictionaryPageSizeLimit(mostDictionary)}
	if rd.NumRowGroups() == 0 {
		return parquet.NewWriterProperties(props...)
	}
	first := rd.MetaData().RowGroup(0)
	for i := range rd.MetaData().Schema.NumColumns() {
		chunk, err := first.ColumnChunk(i)
		if err != nil {
			continue // the reader will say so
		}
		column := chunk.PathInSchema().String()
		codec := chunk.Compression()
		if _, err := compress.GetCodec(codec); err != nil {
			codec = compress.Codecs.Zstd
		}
		props = append(props, parquet.WithCompressionFor(column, codec), parquet.WithDictionaryFor(column, i == paths || chunk.HasDictionaryPage()))
		whole := chunk.Type() == parquet.Types.Int32 || chunk.Type() == parquet.Types.Int64
		if whole && slices.Contains(chunk.Encodings(), parquet.Encodings.DeltaBinaryPacked) {
			props = append(props, parquet.WithEncodingFor(column, parquet.Encodings.DeltaBinaryPacked))
		}
	}
	return parquet.NewWriterProperties(props...)
}

func (m *mover) moveRowGroup(ctx context.Context, in *file.RowGroupReader, out *file.Writer, paths int) error {
	group, err := out.AppendRowGroupChecked()
	if err != nil {
		return err
	}
	for i := range in.NumColumns() {
		from, err := in.Column(i)
		if err != nil {
			return err
		}
		to, err := group.NextColumn()
		if err != nil {
			return err
		}
		var change func([]parquet.ByteArray) error
		if i == paths {
			change = m.movePaths
		}
		chunk, err := in.MetaData().ColumnChunk(i)
		if err != nil {
			return err
		}
		if err := copyColumn(ctx, from, to, chunk.NumValues(), change); err != nil {
			return err
		}
		if err := to.Close(); err != nil {
			return err
		}
	}
	return group.Close()
}

// mostPath is how many bytes a path in a file of deletes may have: no store has longer names.
const mostPath = 16 << 10

var errPath = fmt.Errorf("it has a path of more than %d bytes", mostPath)

// movePaths changes paths in place. Equal ones follow one another.
func (m *mover) movePaths(values []parquet.ByteArray) error {
	var last, moved parquet.ByteArray
	for i, v := range values {
		if last == nil || !bytes.Equal(v, last) {
			if len(v) > mostPath {
				return errPath
			}
			name, err := m.places.moved(string(v))
			if err != nil {
				return err
			}
			last, moved = bytes.Clone(v), parquet.ByteArray(name)
		}
		values[i] = moved
	}
	return nil
}

func copyColumn(ctx context.Context, from file.ColumnChunkReader, to file.ColumnChunkWriter, want int64, change func([]parquet.ByteArray) error) error {
	d := from.Descriptor()
	if in, ok := from.(*file.ByteArrayColumnChunkReader); ok {
		return copyValues(ctx, newSteps(in, d), to.(*file.ByteArrayColumnChunkWriter), want, change)
	}
	if change != nil {
		return errNoPaths
	}
	switch in := from.(type) {
	case *file.Int64ColumnChunkReader:
		return copyValues(ctx, newSteps(in, d), to.(*file.Int64ColumnChunkWriter), want, nil)
	case *file.Int32ColumnChunkReader:
		return copyValues(ctx, newSteps(in, d), to.(*file.Int32ColumnChunkWriter), want, nil)
	case *file.BooleanColumnChunkReader:
		return copyValues(ctx, newSteps(in, d), to.(*file.BooleanColumnChunkWriter), want, nil)
	case *file.Float32ColumnChunkReader:
		return copyValues(ctx, newSteps(in, d), to.(*file.Float32ColumnChunkWriter), want, nil)
	case *file.Float64ColumnChunkReader:
		return copyValues(ctx, newSteps(in, d), to.(*file.Float64ColumnChunkWriter), want, nil)
	case *file.Int96ColumnChunkReader:
		return copyValues(ctx, newSteps(in, d), to.(*file.Int96ColumnChunkWriter), want, nil)
	case *file.FixedLenByteArrayColumnChunkReader:
		return copyValues(ctx, newSteps(in, d), to.(*file.FixedLenByteArrayColumnChunkWriter), want, nil)
	}
	return fault.New(fault.FormatUnusable, d.Path(), "a column of a type that is not known here")
}

type valueWriter[V any] interface {
	WriteBatch(values []V, definition, repetition []int16) (int64, error)
}

// copyValues copies a column of so many values with its levels, so that it stays the same whatever its shape.
func copyValues[V any](ctx context.Context, in *steps[V], to valueWriter[V], want int64, change func([]V) error) error {
	for {
		values, err := in.next(ctx)
		if err != nil {
			return err
		}
		if want -= int64(in.levels); want < 0 || in.levels == 0 {
			if want != 0 {
				return errRows
			}
			return nil
		}
		if change != nil {
			if err := change(values); err != nil {
				return err
			}
		}
		if bytesOfTexts(values) > format.MostUnpacked { // the writer holds all of them
			return errGrown
		}
		if _, err := to.WriteBatch(values, in.definition[:min(in.levels, len(in.definition))], in.repetition[:min(in.levels, len(in.repetition))]); err != nil {
			return err
		}
	}
}

// bytesOfTexts is how long texts are together; other values are short.
func bytesOfTexts(values any) (n int) {
	switch values := values.(type) {
	case []parquet.ByteArray:
		for _, v := range values {
			n += len(v)
		}
	case []parquet.FixedLenByteArray:
		for _, v := range values {
			n += len(v)
		}
	}
	return n
}
