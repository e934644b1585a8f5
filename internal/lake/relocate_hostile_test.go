package lake

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

const (
	listSchema = `{"type":"record","name":"manifest_file","fields":[{"name":"manifest_path","type":"string","field-id":500},
		{"name":"manifest_length","type":"long","field-id":501},{"name":"content","type":"int","field-id":517}]}`
	entrySchema = `{"type":"record","name":"manifest_entry","fields":[{"name":"status","type":"int","field-id":0},{"name":"data_file","type":
		{"type":"record","name":"r2","fields":[{"name":"content","type":"int","field-id":134},{"name":"file_path","type":"string","field-id":100},
		{"name":"file_format","type":"string","field-id":101},{"name":"file_size_in_bytes","type":"long","field-id":104}]},"field-id":2}]}`
)

// foreign is a table that another program wrote, with one file of data.
type foreign struct {
	*sides
	t *testing.T
}

func newForeign(t *testing.T) foreign {
	f := foreign{folderSides(t, "t"), t}
	f.metadata(`"snapshots":[{"snapshot-id":1,"manifest-list":"` + f.url("metadata/list.avro") + `"}]`)
	f.list(f.url("metadata/m.avro"), 0)
	f.manifest(contentData, f.url("data/a.parquet"), "PARQUET", 4)
	f.put("data/a.parquet", []byte("PAR1"))
	return f
}

func (f foreign) url(name string) string { return f.FromURL + "/t/" + name }

func (f foreign) put(name string, data []byte) {
	f.t.Helper()
	if _, err := bucket.WriteAll(f.t.Context(), f.From, "t/"+name, data, bucket.WriteOptions{Lazy: true}); err != nil {
		f.t.Fatal(err)
	}
}

func (f foreign) metadata(fields string) {
	f.put("metadata/v1.metadata.json", []byte(`{"format-version":2,"location":"`+f.FromURL+`/t",`+fields+`}`))
}

func (f foreign) list(path string, content int64) {
	f.put("metadata/list.avro", container(f.t, listSchema, "null", 1, bytes.Join([][]byte{prefixed(path), varint(1), varint(content)}, nil)))
}

func (f foreign) manifest(content int64, path, format string, size int64) {
	f.put("metadata/m.avro", container(f.t, entrySchema, "null", 1, bytes.Join([][]byte{varint(1), varint(content), prefixed(path), prefixed(format), varint(size)}, nil)))
}

// twice are records without bytes, each of which holds the next one twice.
func twice(levels int) string {
	schema := fmt.Sprintf(`{"type":"record","name":"R%d","fields":[]}`, levels)
	for i := levels - 1; i >= 0; i-- {
		schema = fmt.Sprintf(`{"type":"record","name":"R%d","fields":[{"name":"a","type":%s},{"name":"b","type":"R%d"}]}`, i, schema, i+1)
	}
	return schema
}

func TestAHostileTableIsAnErrorOfItsOwn(t *testing.T) {
	t.Parallel()
	self := `{"type":"record","name":"e","fields":[{"name":"a","type":["null","e"]},{"name":"b","type":"e"}]}`
	for name, c := range map[string]struct {
		make func(f foreign)
		code fault.Code
	}{
		"a data file of less than no bytes":     {func(f foreign) { f.manifest(contentData, f.url("data/a.parquet"), "PARQUET", -1) }, fault.LakeFailed},
		"equality deletes of less than nothing": {func(f foreign) { f.manifest(contentEquality, f.url("data/a.parquet"), "PARQUET", -5) }, fault.LakeFailed},
		"position deletes of less than nothing": {func(f foreign) { f.manifest(contentPositions, f.url("data/a.parquet"), "PARQUET", -1<<63) }, fault.LakeFailed},
		"a vector of less than nothing":         {func(f foreign) { f.manifest(contentPositions, f.url("data/a.parquet"), "PUFFIN", -1) }, fault.LakeFailed},
		"a vector larger than any file":         {func(f foreign) { f.manifest(contentPositions, f.url("data/a.parquet"), "PUFFIN", 1<<63-1) }, ""},
		"deletes larger than any file":          {func(f foreign) { f.manifest(contentPositions, f.url("data/a.parquet"), "PARQUET", 1<<63-1) }, ""},
		"deletes that are no Parquet":           {func(f foreign) { f.manifest(contentPositions, f.url("data/a.parquet"), "PARQUET", 4) }, fault.LakeFailed},
		"a file of a kind that there is not":    {func(f foreign) { f.manifest(77, f.url("data/a.parquet"), "PARQUET", 4) }, fault.LakeFailed},
		"a path that is a number": {func(f foreign) {
			f.put("metadata/list.avro", container(t, `{"type":"record","name":"l","fields":[{"name":"manifest_path","type":"long","field-id":500}]}`, "null", 1, varint(-5)))
		}, fault.LakeFailed},
		"a size that is a text": {func(f foreign) {
			f.put("metadata/m.avro", container(t, strings.Replace(entrySchema, `"long"`, `"string"`, 1), "null", 1,
				bytes.Join([][]byte{varint(1), varint(0), prefixed(f.url("data/a.parquet")), prefixed("PARQUET"), prefixed("4")}, nil)))
		}, fault.LakeFailed},
		"a status that is a record": {func(f foreign) {
			f.put("metadata/m.avro", container(t, `{"type":"record","name":"e","fields":[{"name":"status","type":{"type":"record","name":"x","fields":[]},"field-id":0}]}`, "null", 1, nil))
		}, fault.LakeFailed},
		"records in one another that take no bytes": {func(f foreign) {
			f.put("metadata/list.avro", container(t, twice(60), "null", 1, []byte{0}))
		}, fault.LakeFailed},
		"many records that take no bytes": {func(f foreign) {
			f.put("metadata/m.avro", container(t, `{"type":"record","name":"e","fields":[{"name":"x","type":{"type":"array","items":`+twice(14)+`}}]}`, "null", 1,
				append(varint(1<<10), make([]byte, 1<<11)...)))
		}, fault.LakeFailed},
		"a schema that holds itself": {func(f foreign) { f.put("metadata/m.avro", container(t, self, "null", 1<<40, make([]byte, 300))) }, fault.LakeFailed},
		"a schema deeper than JSON may be": {func(f foreign) {
			f.put("metadata/m.avro", container(t, strings.Repeat(`{"type":"array","items":`, 20_000)+`"int"`+strings.Repeat("}", 20_000), "null", 1, []byte{0}))
		}, fault.LakeFailed},
		"a list that names itself":                     {func(f foreign) { f.list(f.url("metadata/list.avro"), 0) }, fault.LakeFailed},
		"a manifest that names itself":                 {func(f foreign) { f.manifest(contentData, f.url("metadata/m.avro"), "AVRO", 4) }, fault.LakeFailed},
		"a manifest that names itself as deletes":      {func(f foreign) { f.manifest(contentPositions, f.url("metadata/m.avro"), "AVRO", 4) }, fault.LakeFailed},
		"a manifest that names its list":               {func(f foreign) { f.manifest(contentData, f.url("metadata/list.avro"), "AVRO", 4) }, fault.LakeFailed},
		"a manifest that names the table's metadata":   {func(f foreign) { f.manifest(contentData, f.url("metadata/v1.metadata.json"), "AVRO", 4) }, fault.LakeFailed},
		"statistics that are the table's manifest":     {func(f foreign) { f.metadataWith("statistics", f.url("metadata/m.avro"), 4) }, fault.LakeFailed},
		"statistics of less than no bytes":             {func(f foreign) { f.metadataWith("statistics", f.url("data/a.parquet"), -1) }, fault.LakeFailed},
		"partition statistics of less than no bytes":   {func(f foreign) { f.metadataWith("partition-statistics", f.url("data/a.parquet"), -1) }, fault.LakeFailed},
		"metadata deeper than JSON may be":             {func(f foreign) { f.metadata(`"x":` + strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)) }, fault.LakeFailed},
		"two lists of which each names the other":      {func(f foreign) { f.twoLists() }, fault.LakeFailed},
		"a list of manifests with a negative count":    {func(f foreign) { f.put("metadata/list.avro", negativeCount(t)) }, fault.LakeFailed},
		"a Puffin footer that is as long as four GiB":  {func(f foreign) { f.puffin(1<<32 - 1) }, fault.LakeFailed},
		"a Puffin footer that is longer than its file": {func(f foreign) { f.puffin(64) }, fault.LakeFailed},
		"a Parquet footer that is longer than its file": {func(f foreign) {
			f.put("data/d.parquet", []byte("PAR1\xff\xff\xff\x7fPAR1"))
			f.manifest(contentPositions, f.url("data/d.parquet"), "PARQUET", 12)
		}, fault.LakeFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newForeign(t)
			c.make(f)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			done, err := f.Run(ctx)
			if err == nil || ctx.Err() != nil || c.code != "" && !fault.Is(err, c.code) || fault.Is(err, fault.Internal) {
				t.Errorf("got %+v, %v", done, err)
			}
			if _, err := f.To.Stat(t.Context(), "t/metadata/v1.metadata.json"); !fault.Is(err, fault.ObjectMissing) {
				t.Errorf("the table is visible at the destination: %v", err)
			}
		})
	}
	newForeign(t).run(t) // what they are made from is right
}

func (f foreign) metadataWith(list, path string, size int64) {
	f.metadata(fmt.Sprintf(`"snapshots":[{"snapshot-id":1,"manifest-list":%q}],%q:[{"statistics-path":%q,"file-size-in-bytes":%d}]`, f.url("metadata/list.avro"), list, path, size))
}

func (f foreign) twoLists() {
	other := container(f.t, listSchema, "null", 1, bytes.Join([][]byte{prefixed(f.url("metadata/list.avro")), varint(1), varint(0)}, nil))
	f.put("metadata/other.avro", other)
	f.list(f.url("metadata/other.avro"), 0)
	f.metadata(fmt.Sprintf(`"snapshots":[{"manifest-list":%q},{"manifest-list":%q}]`, f.url("metadata/list.avro"), f.url("metadata/other.avro")))
}

// puffin is a file of deletion vectors whose footer says that it has so many bytes.
func (f foreign) puffin(length uint32) {
	data := append([]byte("PFA1PFA1{}"), byte(length), byte(length>>8), byte(length>>16), byte(length>>24), 0, 0, 0, 0)
	data = append(data, "PFA1"...)
	f.put("data/v.puffin", data)
	f.manifest(contentPositions, f.url("data/v.puffin"), "PUFFIN", int64(len(data)))
}

func negativeCount(t *testing.T) []byte {
	data := container(t, listSchema, "null", 1, []byte{0, 0, 0})
	at := bytes.Index(data, bytes.Repeat([]byte{7}, 16)) + 16
	data[at] = varint(-2)[0]
	return data
}

// zeros is packed gzip of so many MiB that hold nothing, between two texts.
func zeros(t testing.TB, before string, mib int, after string) []byte {
	t.Helper()
	block, sum := bytes.Repeat([]byte("a"), 1<<20), crc32.NewIEEE()
	_, _ = io.WriteString(sum, before)
	for range mib {
		_, _ = sum.Write(block)
	}
	_, _ = io.WriteString(sum, after)
	out := append([]byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255}, deflated(t, []byte(before), block, mib, []byte(after))...) // RFC 1952
	out = binary.LittleEndian.AppendUint32(out, sum.Sum32())
	return binary.LittleEndian.AppendUint32(out, uint32(len(before)+mib<<20+len(after)))
}

// deflated packs two texts, and a block so often between them. What the second block becomes is what all others would: it is repeated.
func deflated(t testing.TB, before, block []byte, times int, after []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	add := func(text []byte) {
		t.Helper()
		if _, err := z.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := z.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	add(before)
	add(block)
	if at := out.Len(); times > 1 {
		add(block)
		out.Write(bytes.Repeat(out.Bytes()[at:], times-2))
	}
	add(after)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// bomb is a container of one block, whose records are so many MiB of zeros behind a few bytes.
func bomb(t *testing.T, schema, codec string, before []byte, mib int) []byte {
	t.Helper()
	if codec != "deflate" {
		return container(t, schema, codec, 1, append(before, make([]byte, mib<<20)...))
	}
	return containerOf(schema, codec, 1, deflated(t, before, make([]byte, 1<<20), mib, nil))
}

// It measures memory, so no other test runs beside it.
func TestABombIsRefusedInLittleMemory(t *testing.T) {
	const mib = 300
	packed := func(f foreign, schema, codec string) []byte {
		return bomb(t, schema, codec, prefixed(f.url("metadata/m.avro")), mib)
	}
	for name, hide := range map[string]func(f foreign){
		"gzip": func(f foreign) {
			f.put("metadata/v1.metadata.json", zeros(t, `{"format-version":2,"location":"`, mib, `"}`))
		},
		"deflate":   func(f foreign) { f.put("metadata/list.avro", packed(f, listSchema, "deflate")) },
		"zstandard": func(f foreign) { f.put("metadata/m.avro", packed(f, entrySchema, "zstandard")) },
		"snappy":    func(f foreign) { f.put("metadata/m.avro", packed(f, entrySchema, "snappy")) },
	} {
		f := newForeign(t)
		hide(f)
		runtime.GC()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := f.Run(t.Context())
		runtime.ReadMemStats(&after)
		if !fault.Is(err, fault.LakeFailed) && !fault.Is(err, fault.BucketFailed) {
			t.Errorf("%s: %v", name, err)
		}
		if used := (after.TotalAlloc - before.TotalAlloc) >> 20; used > 192 {
			t.Errorf("%s: a bomb of %d MiB took %d MiB of memory", name, mib, used)
		}
	}
}

func TestAWalkThroughHostileMetadataEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	f, err := openAvro(container(t, `{"type":"record","name":"e","fields":[{"name":"x","type":`+twice(40)+`},{"name":"y","type":"int"}]}`, "null", 1, make([]byte, 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.records(ctx, nil, nil, func([]avroValue) ([]avroEdit, error) { return nil, nil }); !errors.Is(err, stop) {
		t.Errorf("the walk ended with %v", err)
	}
	w := newAvroWalk(ctx, make([]byte, 1<<20), nil)
	w.walk(f.schema, 0)
	if !errors.Is(w.err, stop) {
		t.Errorf("inside a record the walk ended with %v", w.err)
	}
}
