package lake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/fault"
)

// Each of these is refused by a guard of its own, as its error tells: what the others would make of it is another one, or none.
func TestEachLieOfAnAvroFileIsFoundForWhatItIs(t *testing.T) {
	t.Parallel()
	const self = `{"type":"record","name":"e","fields":[{"name":"a","type":["null","e"]}]}`
	const pair = `{"type":"record","name":"e","fields":[{"name":"a","type":["null","int"]}]}`
	const nulls = `{"type":"record","name":"e","fields":[{"name":"a","type":{"type":"array","items":"null"}}]}`
	const empty = `{"type":"record","name":"e","fields":[]}`
	fixed := func(size string) string { return `{"type":"fixed","name":"x","size":` + size + `}` }
	one := func(schema string, count int64, records []byte) []byte {
		return container(t, schema, "null", count, records)
	}
	spoilt := func(data []byte) []byte { data[len(data)-1]++; return data } // the mark behind the block
	for name, c := range map[string]struct {
		data    []byte
		walks   error // for the walk that moves names
		checked error // for the look before the library reads it
	}{
		"values deeper than any":                   {one(self, 1, append(bytes.Repeat([]byte{2}, 1000), 0)), errAvroBlock, errAvroBlock},
		"values as deep as they may be":            {one(self, 1, append(bytes.Repeat([]byte{2}, 60), 0)), nil, nil},
		"a text longer than its block":             {one(`"string"`, 1, []byte{20, 'a'}), errAvroBlock, errAvroBlock},
		"a text of less than nothing":              {one(`"string"`, 1, []byte{1, 'a'}), errAvroBlock, errAvroBlock},
		"a branch that there is not":               {one(pair, 1, []byte{4, 0}), errAvroBlock, errAvroBlock},
		"a branch before the first":                {one(pair, 1, []byte{1, 0}), errAvroBlock, errAvroBlock},
		"more items than bytes":                    {one(nulls, 1, append(varint(1<<40), 0)), errAvroBlock, errAvroBlock},
		"items whose number has no positive":       {one(nulls, 1, append(append(varint(math.MinInt64), 0), 0)), errAvroBlock, errAvroBlock},
		"a fixed of more than there can be":        {one(fixed("1e30"), 1, nil), errAvroSchema, errAvroSchema},
		"a fixed of less than nothing":             {one(fixed("-1"), 1, nil), errAvroSchema, errAvroSchema},
		"a schema of many bytes":                   {one(strings.Repeat(" ", mostAvroSchema)+pair, 1, []byte{0}), errAvroSchema, errAvroSchema},
		"a block of less than no records":          {one(pair, -1, nil), errAvroBlock, errAvroBlock},
		"a block without its mark":                 {spoilt(one(pair, 1, []byte{0})), errAvroBlock, errAvroBlock},
		"a block with more than its records":       {one(pair, 1, []byte{0, 0}), errAvroBlock, errAvroBlock},
		"a record without bytes":                   {one(empty, 1, nil), nil, errAvroBlock},
		"as many records without bytes as one can": {one(empty, math.MaxInt64, nil), nil, errAvroBlock},
	} {
		f, err := openAvro(c.data)
		if err == nil {
			err = f.records(t.Context(), nil, &bytes.Buffer{}, func([]avroValue) ([]avroEdit, error) { return nil, nil })
		}
		if !errors.Is(err, c.walks) || (err == nil) != (c.walks == nil) {
			t.Errorf("%s: the walk says %v, not %v", name, err, c.walks)
		}
		if err := checkAvro(t.Context(), c.data); !errors.Is(err, c.checked) || (err == nil) != (c.checked == nil) {
			t.Errorf("%s: the look before it is read says %v, not %v", name, err, c.checked)
		}
	}
}

func TestBlocksThatAreTooMuchTogetherAreRefused(t *testing.T) {
	t.Parallel()
	const size = 60 << 20
	data := container(t, `"bytes"`, "deflate", 1, append(varint(size), make([]byte, size)...))
	block := data[bytes.Index(data, bytes.Repeat([]byte{7}, 16))+16:]
	for n, want := range map[int]error{maxMetadata / size: nil, maxMetadata/size + 1: errAvroTotal} {
		if err := checkAvro(t.Context(), append(slices.Clone(data), bytes.Repeat(block, n-1)...)); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d blocks of %d bytes: %v", n, size, err)
		}
	}
}

// told is what a manifest tells of a file.
type told struct {
	iceberg.ManifestEntry
	file iceberg.DataFile
}

func (e told) DataFile() iceberg.DataFile { return e.file }

type toldFile struct {
	iceberg.DataFile
	bytes, rows int64
}

func (f toldFile) FileSizeBytes() int64 { return f.bytes }
func (f toldFile) Count() int64         { return f.rows }

func TestWhatAManifestTellsOfAFileIsPossible(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file iceberg.DataFile
		good bool
	}{
		"a file":                       {toldFile{bytes: 4, rows: 3}, true},
		"a file of nothing":            {toldFile{}, true},
		"the largest one":              {toldFile{bytes: math.MaxInt64, rows: math.MaxUint32}, true},
		"none":                         {nil, false},
		"one of less than no bytes":    {toldFile{bytes: -1}, false},
		"one of less than no rows":     {toldFile{rows: -1}, false},
		"one of more rows than can be": {toldFile{rows: math.MaxUint32 + 1}, false},
	} {
		if err := checkEntry(told{file: c.file}); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnEndedReadingIsNoDamagedFile(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	damaged := errors.New("unexpected EOF")
	if err := unreadable(ctx, "a", damaged, "b"); !fault.Is(err, fault.LakeUnreadable) {
		t.Errorf("got %v", err)
	}
	cancel()
	if err := unreadable(ctx, "a", damaged, "b"); err != damaged { //nolint:errorlint // the very one
		t.Errorf("got %v", err)
	}
}

func TestMetadataThatIsMostlyObjectsIsNotRead(t *testing.T) {
	t.Parallel()
	o := newOwnTable(t, 2)
	good := o.read(o.last("metadata/v*.metadata.json"))
	if _, err := parseMetadata(t.Context(), "m", good); err != nil {
		t.Fatal(err)
	}
	many := `{"x":[` + strings.Repeat("{},", 200_000) + `{}],` + string(good[1:])
	if _, err := parseMetadata(t.Context(), "m", []byte(many)); !fault.Is(err, fault.LakeUnreadable) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"1.zstd.metadata.json", "metadata.json.zstd", "1.gz.metadata.json", "metadata.json.gz"} {
		if err := checkMetadata(t.Context(), name, good); !fault.Is(err, fault.LakeUnreadable) {
			t.Errorf("%s that is not packed: %v", name, err)
		}
	}
}

// endless is text without an end.
type endless struct {
	text string
	read int64
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.text)
	e.read += int64(n)
	return n, nil
}

func (e *endless) Close() error { return nil }

func TestAnAnswerOfACatalogIsReadToItsBoundOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		most int64
	}{{" ", maxMetadata}, {"{},", 16 << 20}} {
		body := &endless{text: strings.Repeat(c.text, 30_000)}
		_, err := io.Copy(io.Discard, io.LimitReader(bounded(&http.Response{Body: body}).Body, 2*maxMetadata))
		if !fault.Is(err, fault.LakeFailed) || body.read > c.most+1<<20 {
			t.Errorf("%q: %d bytes are read: %v", c.text, body.read, err)
		}
	}
}

func TestAPanicInARelocationIsItsError(t *testing.T) {
	t.Parallel()
	for _, on := range []string{"v1.metadata.json", "list.avro", "m.avro", "a.parquet", "relocated"} {
		f := newForeign(t)
		f.From, f.To = &worn{Bucket: f.From, on: on}, &worn{Bucket: f.To, on: on}
		if _, err := f.Run(t.Context()); !fault.Panicked(err) {
			t.Errorf("a panic at %s became %v", on, err)
		}
	}
}

func TestPuffinFootersAreReadToTheirBoundOnly(t *testing.T) {
	t.Parallel()
	footer := func(json string) []byte {
		data := binary.LittleEndian.AppendUint32([]byte("PFA1PFA1"+json), uint32(len(json)))
		return append(data, "\x00\x00\x00\x00PFA1"...)
	}
	for name, c := range map[string]struct {
		json string
		good bool
	}{
		"a small one":          {`{"blobs":[]}`, true},
		"the largest one":      {`{"blobs":[]` + strings.Repeat(" ", mostFooter-12) + `}`, true},
		"a larger one":         {`{"blobs":[]` + strings.Repeat(" ", mostFooter-11) + `}`, false},
		"one that is all bits": {`{"blobs":[],"x":[` + strings.Repeat("{},", 200_000) + `{}]}`, false},
	} {
		f := newForeign(t)
		data := footer(c.json)
		f.put("data/v.puffin", data)
		f.manifest(contentPositions, f.url("data/v.puffin"), "PUFFIN", int64(len(data)))
		if _, err := f.Run(t.Context()); (err == nil) != c.good {
			t.Errorf("%s, to be carried: %v", name, err)
		}
		o := newOwnTable(t, 3)
		o.put(o.last("data/*.puffin"), data)
		err := o.lake.files(t.Context()).checkPuffin("file://" + o.last("data/*.puffin"))
		if (err == nil) != c.good {
			t.Errorf("%s, to be read: %v", name, err)
		}
	}
}
