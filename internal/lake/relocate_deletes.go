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
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// carryPositions writes a file that tells deleted rows of data files, by their paths, and returns its size at the far side.
func (m *mover) carryPositions(ctx context.Context, path, kind string, size int64) (int64, error) {
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
			moved, err = m.moveParquet(ctx, key, size)
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
func (m *mover) moveParquet(ctx context.Context, key string, size int64) (int64, error) {
	in, err := m.random(ctx, key, size)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if err := boundedFooter(in, mostFooter); err != nil {
		return 0, err
	}
	rd, err := file.NewParquetReader(in)
	if err != nil {
		return 0, err
	}
	defer rd.Close()
	paths := -1
	for i := range rd.MetaData().Schema.NumColumns() {
		c := rd.MetaData().Schema.Column(i)
		node := c.SchemaNode()
		if len(c.ColumnPath()) == 1 && (node.FieldID() == deletePathID || node.FieldID() < 0 && c.Name() == "file_path") {
			paths = i
		}
	}
	if paths < 0 {
		return 0, errNoPaths
	}
	return m.writeStream(ctx, key, func(w io.Writer) error {
		out, err := file.NewParquetWriterWithError(w, rd.MetaData().Schema.Root(), file.WithWriterProps(likeParquet(rd, paths)),
			file.WithWriteMetadata(rd.MetaData().KeyValueMetadata()))
		if err != nil {
			return err
		}
		for g := range rd.NumRowGroups() {
			if err := m.moveRowGroup(rd.RowGroup(g), out, paths); err != nil {
				return err
			}
		}
		return out.Close()
	})
}

// boundedFooter is an error when a Parquet file says that its footer has more bytes than are held in memory for it.
func boundedFooter(in readable, most int64) error {
	end, err := in.Seek(-8, io.SeekEnd)
	if err != nil {
		return err
	}
	var tail [4]byte
	if _, err := in.ReadAt(tail[:], end); err != nil {
		return err
	}
	if int64(binary.LittleEndian.Uint32(tail[:])) > most {
		return errFooter
	}
	_, err = in.Seek(0, io.SeekStart)
	return err
}

// readable is what a Parquet file is read from.
type readable interface {
	parquet.ReaderAtSeeker
	io.Closer
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
	props := []parquet.WriterProperty{parquet.WithVersion(rd.MetaData().Version()), parquet.WithDictionaryDefault(false)}
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

func (m *mover) moveRowGroup(in *file.RowGroupReader, out *file.Writer, paths int) error {
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
		if err := copyColumn(from, to, change); err != nil {
			return err
		}
		if err := to.Close(); err != nil {
			return err
		}
	}
	return group.Close()
}

// movePaths changes paths in place. Equal ones follow one another.
func (m *mover) movePaths(values []parquet.ByteArray) error {
	var last, moved parquet.ByteArray
	for i, v := range values {
		if last == nil || !bytes.Equal(v, last) {
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

func copyColumn(from file.ColumnChunkReader, to file.ColumnChunkWriter, change func([]parquet.ByteArray) error) error {
	d := from.Descriptor()
	if in, ok := from.(*file.ByteArrayColumnChunkReader); ok {
		return copyValues(in, to.(*file.ByteArrayColumnChunkWriter), d, change)
	}
	if change != nil {
		return errNoPaths
	}
	switch in := from.(type) {
	case *file.Int64ColumnChunkReader:
		return copyValues(in, to.(*file.Int64ColumnChunkWriter), d, nil)
	case *file.Int32ColumnChunkReader:
		return copyValues(in, to.(*file.Int32ColumnChunkWriter), d, nil)
	case *file.BooleanColumnChunkReader:
		return copyValues(in, to.(*file.BooleanColumnChunkWriter), d, nil)
	case *file.Float32ColumnChunkReader:
		return copyValues(in, to.(*file.Float32ColumnChunkWriter), d, nil)
	case *file.Float64ColumnChunkReader:
		return copyValues(in, to.(*file.Float64ColumnChunkWriter), d, nil)
	case *file.Int96ColumnChunkReader:
		return copyValues(in, to.(*file.Int96ColumnChunkWriter), d, nil)
	case *file.FixedLenByteArrayColumnChunkReader:
		return copyValues(in, to.(*file.FixedLenByteArrayColumnChunkWriter), d, nil)
	}
	return fault.New(fault.FormatUnusable, d.Path(), "a column of a type that is not known here")
}

type valueReader[V any] interface {
	HasNext() bool
	Err() error
	ReadBatch(size int64, values []V, definition, repetition []int16) (levels int64, read int, err error)
}

type valueWriter[V any] interface {
	WriteBatch(values []V, definition, repetition []int16) (int64, error)
}

// copyValues copies a column with its levels, so that it stays the same whatever its shape.
func copyValues[V any](from valueReader[V], to valueWriter[V], d *schema.Column, change func([]V) error) error {
	const step = 4096
	values := make([]V, step)
	var definition, repetition []int16
	if d.MaxDefinitionLevel() > 0 {
		definition = make([]int16, step)
	}
	if d.MaxRepetitionLevel() > 0 {
		repetition = make([]int16, step)
	}
	for from.HasNext() {
		levels, n, err := from.ReadBatch(step, values, definition, repetition)
		if err != nil {
			return err
		}
		if change != nil {
			if err := change(values[:n]); err != nil {
				return err
			}
		}
		if _, err := to.WriteBatch(values[:n], definition[:min(int(levels), len(definition))], repetition[:min(int(levels), len(repetition))]); err != nil {
			return err
		}
	}
	return from.Err()
}
