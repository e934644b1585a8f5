package lake

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/fault"
)

// Each of these is refused by a guard of its own, as its error tells: what the others would make of it is another one, or none.
func TestEachLieOfAnAvroFileIsFoundForWhatItIs(t *testing.T) {
	t.Parallel()
	const self = `{"type":"record","name":"e","fields":[{"name":"a","type":["null","e"]}]}`
	const pair = `{"type":"record","name":"e","fields":[{"name":"a","type":["null","int"]}]}`
	const textAndNumber = `{"type":"record","name":"e","fields":[{"name":"a","type":"string"},{"name":"b","type":"int"}]}`
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
		"values deeper than any":                     {one(self, 1, append(bytes.Repeat([]byte{2}, 1000), 0)), errAvroBlock, errAvroBlock},
		"values as deep as they may be":              {one(self, 1, append(bytes.Repeat([]byte{2}, 60), 0)), nil, nil},
		"a text longer than its block":               {one(`"string"`, 1, []byte{20, 'a'}), errAvroBlock, errAvroBlock},
		"a text longer than its block, and a number": {one(textAndNumber, 1, []byte{20, 'a', 2}), errAvroBlock, errAvroBlock},
		"a text of less than nothing":                {one(`"string"`, 1, []byte{1, 'a'}), errAvroBlock, errAvroBlock},
		"a branch that there is not":                 {one(pair, 1, []byte{4, 0}), errAvroBlock, errAvroBlock},
		"a branch before the first":                  {one(pair, 1, []byte{1, 0}), errAvroBlock, errAvroBlock},
		"more items than bytes":                      {one(nulls, 1, append(varint(1<<40), 0)), errAvroBlock, errAvroBlock},
		"items whose number has no positive":         {one(nulls, 1, append(append(varint(math.MinInt64), 0), 0)), errAvroBlock, errAvroBlock},
		"a fixed of more than there can be":          {one(fixed("1e30"), 1, nil), errAvroSchema, errAvroSchema},
		"a fixed of less than nothing":               {one(fixed("-1"), 1, nil), errAvroSchema, errAvroSchema},
		"a schema of many bytes":                     {one(strings.Repeat(" ", mostAvroSchema)+pair, 1, []byte{0}), errAvroSchema, errAvroSchema},
		"a block of less than no records":            {one(pair, -1, nil), errAvroBlock, errAvroBlock},
		"a block without its mark":                   {spoilt(one(pair, 1, []byte{0})), errAvroBlock, errAvroBlock},
		"a block with more than its records":         {one(pair, 1, []byte{0, 0}), errAvroBlock, errAvroBlock},
		"a record without bytes":                     {one(empty, 1, nil), nil, errAvroBlock},
		"as many records without bytes as one can":   {one(empty, math.MaxInt64, nil), nil, errAvroBlock},
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
	m := &mover{places: newPlaces("mem://a", "mem://b")}
	if _, err := m.readMetadata("v1.metadata.json", []byte(many)); !fault.Is(err, fault.LakeFailed) || !strings.Contains(err.Error(), "objects") {
		t.Errorf("to be carried: %v", err)
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

func TestRowsThatNoColumnTellsAreCounted(t *testing.T) {
	t.Parallel()
	for rows, want := range map[int64]error{-1: errRows, 0: nil, 1 << 62: errRows} {
		data := fakeParquet(rows)
		meta, err := readFooter(bytes.NewReader(data), int64(len(data)), mostFooter)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := chunksOf(meta, int64(len(data)), -1); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%d rows: %v", rows, err)
		}
	}
}

func TestAPageIsOfAKnownKindAndSize(t *testing.T) {
	t.Parallel()
	facts := chunkFacts{length: 100, values: 1 << 40}
	most := parquetLimits{page: 1 << 20, dictionary: 1 << 10}
	for name, c := range map[string]struct {
		head pageHead
		want error
	}{
		"data":                             {pageHead{kind: kindData, unpacked: 4, packed: 4}, nil},
		"an index":                         {pageHead{kind: 1, unpacked: 4, packed: 4}, errPage},
		"of a later version":               {pageHead{kind: 4, unpacked: 4, packed: 4}, errPage},
		"as many values as there may be":   {pageHead{kind: kindData, values: [pageData2 + 1]int64{pageData: mostPageValues}}, nil},
		"more values than there may be":    {pageHead{kind: kindData, values: [pageData2 + 1]int64{pageData: mostPageValues + 1}}, errPageValues},
		"a dictionary that is too large":   {pageHead{kind: kindDictionary, unpacked: 1<<10 + 1, packed: 1}, errPage},
		"more bytes than a page may have":  {pageHead{kind: kindData, unpacked: 4, packed: 1<<20 + 1}, errPage},
		"less than nothing when unpacked":  {pageHead{kind: kindData, unpacked: -1, packed: 4}, errPage},
		"less than nothing when it is not": {pageHead{kind: kindData, unpacked: 4, packed: -1}, errPage},
	} {
		if err := c.head.check(facts, most); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
	}
}

// scripted is a reader of a column that gives one answer.
type scripted struct {
	next   bool
	levels int64
	read   int
}

func (s scripted) HasNext() bool { return s.next }
func (s scripted) Err() error    { return nil }

func (s scripted) ReadBatchInPage(int64, []int64, []int16, []int16) (int64, int, error) {
	return s.levels, s.read, nil
}

func TestAColumnHasAValueForEachRow(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from scripted
		want error
	}{
		"values":                     {scripted{true, 2, 2}, nil},
		"fewer than it says":         {scripted{true, 0, 0}, errStuck},
		"nulls":                      {scripted{true, 2, 1}, errDeletes},
		"an end before that of rows": {scripted{false, 0, 0}, errRows},
	} {
		s := &steps[int64]{from: c.from, values: make([]int64, stepRows)}
		if _, err := leftOrNext(t.Context(), s, nil); !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
			t.Errorf("%s: %v, not %v", name, err, c.want)
		}
	}
}

func TestPathsAndGrowthOfDeletesAreBounded(t *testing.T) {
	t.Parallel()
	m := &mover{places: newPlaces("mem://a", "mem://b")}
	for size, want := range map[int]error{mostPath: nil, mostPath + 1: errPath} {
		path := parquet.ByteArray("mem://a/" + strings.Repeat("x", size-len("mem://a/")))
		if err := m.movePaths([]parquet.ByteArray{path, path}); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("a path of %d bytes: %v", size, err)
		}
	}
	w := &boundedWriter{io.Discard, 10}
	for n, want := range []error{nil, nil, errGrown} {
		if _, err := w.Write(make([]byte, 5)); !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("write %d: %v", n, err)
		}
	}
}

func TestMetadataIsPackedAsItsNameSays(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	m := &mover{Relocation: f.Relocation, places: newPlaces(f.FromURL, f.ToURL)}
	plain := []byte(`{"format-version":2,"location":"` + f.FromURL + `/t"}`)
	for _, name := range []string{"00001-a.gz.metadata.json", "v1.metadata.json.gz"} {
		if _, err := m.readMetadata(name, plain); !fault.Is(err, fault.LakeFailed) {
			t.Errorf("%s that is not packed: %v", name, err)
		}
		if _, err := m.readMetadata(name, zeros(t, `{"x":"`, 1, `",`+string(plain[1:]))); err != nil {
			t.Errorf("%s that is: %v", name, err)
		}
	}
}

func TestMetadataWithTextOfManyMiBIsNoTables(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	for mib, want := range map[int]bool{1: true, 80: false} {
		f.put("metadata/v1.metadata.json", zeros(t, `{"x":"`, mib, `","format-version":2,"location":"x"}`))
		if is, err := IsTable(t.Context(), f.From, "t"); err != nil || is != want {
			t.Errorf("%d MiB before the fields of a table: %v, %v", mib, is, err)
		}
	}
}

func TestANoteOfAnIndexHasNumbersThatOneCanGiveOut(t *testing.T) {
	t.Parallel()
	o := newOwnTable(t, 2)
	o.open(t)
	for number, good := range map[uint32]bool{mostFileNumber: true, mostFileNumber + 1: false} {
		var n indexNote
		if err := json.Unmarshal(o.table.current.note(), &n); err != nil {
			t.Fatal(err)
		}
		n.Files["x"] = number
		note, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := o.table.current.readNote(note); ok != good {
			t.Errorf("a note with the number %d is trusted: %v", number, ok)
		}
	}
}

func TestAPanicInATablesOwnWorkIsItsError(t *testing.T) {
	t.Parallel()
	o := newOwnTable(t, 2)
	o.open(t)
	if err := o.table.Write(t.Context(), nil); !fault.Panicked(err) {
		t.Fatalf("got %v", err)
	}
	for i, k := range o.table.kept {
		if k.ice.broken == nil {
			t.Errorf("table %d of Iceberg would commit again", i)
		}
	}
}

func TestWhoWaitsForAFileWhoseCarryingPanicsGoesOn(t *testing.T) {
	t.Parallel()
	a := &arrivals{flying: map[uint64]chan struct{}{}, kinds: map[uint64]fileKind{}, now: map[uint64]int64{}, beyond: map[uint64]int64{}}
	err := fault.Catching(nil, "k", func() error {
		_, err := a.once(t.Context(), "k", asPlain, func() (int64, error) { panic("a bug") })
		return err
	})()
	if !fault.Panicked(err) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if size, err := a.once(ctx, "k", asPlain, func() (int64, error) { return 7, nil }); err != nil || size != 7 {
		t.Errorf("the next one has %d bytes, %v", size, err)
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
		err := puffinChecked(o.lake.files(t.Context()), "file://"+o.last("data/*.puffin"))
		if (err == nil) != c.good {
			t.Errorf("%s, to be read: %v", name, err)
		}
	}
}
