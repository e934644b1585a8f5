package format_test

import (
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/scratch"
)

// columnOf has the value of the row in the middle.
func columnOf(t *testing.T, dt arrow.DataType, value string) arrow.Array {
	t.Helper()
	b := array.NewBuilder(memory.DefaultAllocator, dt)
	defer b.Release()
	for _, v := range []string{`{"small":1}`, value, `{"small":2}`} {
		switch b := b.(type) {
		case *array.StringBuilder:
			b.Append(v)
		case *array.BinaryBuilder:
			b.Append([]byte(v))
		}
	}
	return b.NewArray()
}

func TestLargeValuesAreWrittenInPiecesAsSmallOnesAreWhole(t *testing.T) {
	t.Parallel()
	odd := strings.Repeat(strings.Repeat("a", 97)+"\"\"\\\n\tü🦆\x01", 20_000) // of a length that no piece is a multiple of
	for _, value := range []string{odd, strings.Repeat("plain ", 300_000), strings.Repeat("end", 262_144/3*4) + `"`} {
		f := field("v", arrow.BinaryTypes.String, true, "")
		rows, err := csv.NewReader(strings.NewReader(textOf(t, format.CSV, f, columnOf(t, f.Type, value)))).ReadAll()
		if err != nil || len(rows) != 4 || rows[2][0] != value {
			t.Errorf("CSV: %d rows, %v", len(rows), err)
		}
		var row struct{ V string }
		lines := strings.Split(textOf(t, format.JSONL, f, columnOf(t, f.Type, value)), "\n")
		if err := json.Unmarshal([]byte(lines[1]), &row); err != nil || len(lines) != 4 || row.V != value {
			t.Errorf("JSON: %d lines, %v", len(lines), err)
		}
		f = field("v", arrow.BinaryTypes.Binary, true, "")
		if lines := strings.Split(textOf(t, format.CSV, f, columnOf(t, f.Type, value)), "\n"); lines[2] != `\x`+hex.EncodeToString([]byte(value)) {
			t.Error("bytea in CSV is another")
		}
		if lines := strings.Split(textOf(t, format.JSONL, f, columnOf(t, f.Type, value)), "\n"); lines[1] != `{"v":"\\x`+hex.EncodeToString([]byte(value))+`"}` {
			t.Error("bytea in JSON is another")
		}
	}
	f := field("v", arrow.BinaryTypes.String, true, change.LogicalJSON)
	document := "{\n" + strings.Repeat(`"a": "ü",`+"\n", 100_000) + `"b": 1}`
	if lines := strings.Split(textOf(t, format.JSONL, f, columnOf(t, f.Type, document)), "\n"); lines[1] != `{"v":`+strings.ReplaceAll(document, "\n", " ")+`}` {
		t.Error("json in JSON is another")
	}
}

// Not parallel: other tests would count as well.
func TestALargeValueIsNotCopiedIntoTextAndAvro(t *testing.T) {
	const size = 36 << 20
	f := field("v", arrow.BinaryTypes.String, true, "")
	schema := arrow.NewSchema([]arrow.Field{f, field("w", f.Type, true, ""), field("x", f.Type, true, "")}, nil)
	large := columnOf(t, f.Type, strings.Repeat("large \"value\" ", size/14)) // of scratch.Large and more
	rec := array.NewRecordBatch(schema, []arrow.Array{large, columnOf(t, f.Type, "small"), large}, 3)
	type open = func() (format.Writer, error)
	writers := map[string]open{}
	for _, k := range []format.Kind{format.CSV, format.JSONL} {
		writers[string(k)] = func() (format.Writer, error) { return format.NewText(k, io.Discard, schema, format.TextOptions{}) }
	}
	for _, c := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecZstd, format.CodecDeflate} {
		writers[fmt.Sprint("avro, ", c)] = func() (format.Writer, error) {
			return format.NewAvro(io.Discard, schema, format.AvroOptions{Compression: c})
		}
	}
	for name, begin := range writers {
		got := allocated(func() {
			w, err := begin()
			if err == nil {
				err = w.Write(rec)
			}
			if err == nil {
				err = w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		})
		if got > size/3 {
			t.Errorf("%s: a value of %d MiB takes %d MiB", name, size>>20, got>>20)
		}
		t.Logf("%s: %d MiB", name, got>>20)
		if n := scratch.Held(); n > 0 {
			t.Errorf("%s: %d large buffers are not given back", name, n)
		}
	}
}

// largeRecord has a value and a list in its second row that are large together; all its columns are of kinds that take room.
func largeRecord(t *testing.T) (arrow.RecordBatch, string) {
	t.Helper()
	list, fixed := arrow.ListOf(arrow.PrimitiveTypes.Int32), &arrow.FixedSizeBinaryType{ByteWidth: 12 << 20}
	schema := arrow.NewSchema([]arrow.Field{
		field("id", arrow.PrimitiveTypes.Int64, false, ""), field("v", arrow.BinaryTypes.String, true, ""), field("f", fixed, true, ""),
		field("l", list, true, ""), field("b", arrow.FixedWidthTypes.Boolean, true, ""),
	}, nil)
	large := strings.Repeat("large \"value\" ", 36<<20/14)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for row, v := range []string{"before", large, "behind"} {
		b.Field(0).(*array.Int64Builder).Append(int64(row))
		b.Field(1).(*array.StringBuilder).Append(v)
		if v == large {
			b.Field(2).(*array.FixedSizeBinaryBuilder).Append(make([]byte, fixed.ByteWidth))
		} else {
			b.Field(2).AppendNull()
		}
		b.Field(3).(*array.ListBuilder).Append(true)
		for i := range len(v) / 400 {
			b.Field(3).(*array.ListBuilder).ValueBuilder().(*array.Int32Builder).Append(int32(-i))
		}
		b.Field(4).(*array.BooleanBuilder).Append(true)
	}
	return b.NewRecordBatch(), large
}

// Not parallel: other tests' buffers would count as well.
func TestALargeRecordIsReadBackFromAvro(t *testing.T) {
	rec, large := largeRecord(t)
	for _, c := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecZstd, format.CodecDeflate} {
		rows := readAvro(t, writeAvro(t, rec.Schema(), format.AvroOptions{Compression: c}, rec))
		if len(rows) != 3 {
			t.Fatalf("%s: %d rows", c, len(rows))
		}
		for i, row := range rows {
			want, list := []string{"before", large, "behind"}[i], row["l"].([]any)
			if row["id"] != int64(i) || row["v"] != want || len(list) != len(want)/400 || len(list) > 0 && list[len(list)-1] != int32(1-len(list)) {
				t.Errorf("%s: row %d is another", c, i)
			}
		}
		if n := scratch.Held(); n > 0 {
			t.Errorf("%s: %d large buffers are not given back", c, n)
		}
	}
}

// broken takes so many bytes and then fails.
type broken int

func (b *broken) Write(p []byte) (int, error) {
	if *b -= broken(len(p)); *b < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// Not parallel: other tests' buffers would count as well.
func TestAFileThatIsGivenUpHoldsNothing(t *testing.T) {
	rec, _ := largeRecord(t)
	writers := map[string]func(io.Writer) (format.Writer, error){
		"text": func(w io.Writer) (format.Writer, error) {
			return format.NewText(format.CSV, w, rec.Schema(), format.TextOptions{})
		},
		"parquet": func(w io.Writer) (format.Writer, error) {
			return format.NewParquet(w, rec.Schema(), format.ParquetOptions{Compression: format.CodecNone})
		},
	}
	for _, c := range []format.Compression{format.CodecNone, format.CodecSnappy, format.CodecZstd, format.CodecDeflate} {
		writers["avro, "+string(c)] = func(w io.Writer) (format.Writer, error) {
			return format.NewAvro(w, rec.Schema(), format.AvroOptions{Compression: c})
		}
	}
	for name, open := range writers {
		for _, room := range []broken{1 << 10, 1 << 40} { // one that fails, and one that nobody wants any more
			w, err := open(&room)
			if err == nil {
				err = w.Write(rec)
			}
			if w == nil || err != nil && !errors.Is(err, io.ErrClosedPipe) {
				t.Fatalf("%s: %v", name, err)
			}
			w.Discard()
			if n := scratch.Held(); n > 0 {
				t.Errorf("%s: %d large buffers are not given back", name, n)
			}
		}
	}
}
