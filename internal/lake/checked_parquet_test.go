package lake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/iceberg-go"
	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// compactText is a structure in Thrift's compact protocol, of which everything can be a lie.
type compactText struct {
	b    []byte
	last int
}

func (c *compactText) head(id, kind int) *compactText {
	c.b = append(c.b, byte((id-c.last)<<4|kind))
	c.last = id
	return c
}

func (c *compactText) i32(id int, v int64) *compactText {
	c.head(id, compactI32)
	c.b = binary.AppendVarint(c.b, v)
	return c
}

func (c *compactText) i64(id int, v int64) *compactText {
	c.head(id, compactI64)
	c.b = binary.AppendVarint(c.b, v)
	return c
}

func (c *compactText) text(id int, s string) *compactText {
	c.head(id, compactBinary)
	c.b = append(binary.AppendUvarint(c.b, uint64(len(s))), s...)
	return c
}

// list has a number of items, which may be another one than there are.
func (c *compactText) list(id, kind int, n uint64, items ...[]byte) *compactText {
	c.head(id, compactList)
	c.b = binary.AppendUvarint(append(c.b, byte(0xf0|kind)), n)
	for _, item := range items {
		c.b = append(c.b, item...)
	}
	return c
}

func (c *compactText) in(id int, s []byte) *compactText {
	c.head(id, compactStruct)
	c.b = append(c.b, s...)
	return c
}

func (c *compactText) end() []byte { return append(c.b, 0) }

func structure() *compactText { return &compactText{} }

// fakeColumn is a column chunk of a fake Parquet file.
type fakeColumn struct {
	name   string
	kind   int64 // 2 INT64, 6 BYTE_ARRAY
	id     int64
	body   []byte
	codec  int64
	length int64 // what the footer says; 0 for what it is
	values int64 // the same
	start  int64 // the same
	space  int   // how many elements the schema says that the column has in it
}

func page(kind, unpacked, packed, values int64, body []byte) []byte {
	encoding := int64(0)
	head := structure().i32(1, kind).i32(2, unpacked).i32(3, packed)
	switch kind {
	case kindDictionary:
		head.in(7, structure().i32(1, values).i32(2, encoding).end())
	case kindData2:
		head.in(8, structure().i32(1, values).i32(2, 0).i32(3, values).i32(4, encoding).i32(5, 0).i32(6, 0).end())
	default:
		head.in(5, structure().i32(1, values).i32(2, encoding).i32(3, 3).i32(4, 3).end())
	}
	return append(head.end(), body...)
}

// indexPage is a page of values of a dictionary: so many times the first one.
func indexPage(times int64) []byte {
	body := binary.AppendUvarint([]byte{1}, uint64(times)<<1)
	body = append(body, 0)
	head := structure().i32(1, kindData).i32(2, int64(len(body))).i32(3, int64(len(body))).
		in(5, structure().i32(1, times).i32(2, 8).i32(3, 3).i32(4, 3).end())
	return append(head.end(), body...)
}

func plainText(s string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(s))), s...)
}

// fakeParquet is a file of one row group of so many rows.
func fakeParquet(rows int64, columns ...fakeColumn) []byte {
	return fakeGroups(rows, 1, columns...)
}

func fakeGroups(rows int64, groups int, columns ...fakeColumn) []byte {
	out := []byte(parquetMagic)
	elements := [][]byte{structure().text(4, "schema").i32(5, int64(len(columns))).end()}
	var chunks [][]byte
	for _, c := range columns {
		start, length, values := int64(len(out)), int64(len(c.body)), rows
		if c.length != 0 {
			length = c.length
		}
		if c.values != 0 {
			values = c.values
		}
		if c.start != 0 {
			start = c.start
		}
		out = append(out, c.body...)
		element := structure().i32(1, c.kind).i32(3, 0).text(4, c.name)
		if c.space > 0 {
			element.i32(5, int64(c.space))
		}
		elements = append(elements, element.i32(9, c.id).end())
		meta := structure().i32(1, c.kind).list(2, compactI32, 1, varint(0)).list(3, compactBinary, 1, append([]byte{byte(len(c.name))}, c.name...)).
			i32(4, c.codec).i64(5, values).i64(6, length).i64(7, length).i64(9, start).end()
		chunks = append(chunks, structure().i64(2, 0).in(3, meta).end())
	}
	group := structure().list(1, compactStruct, uint64(len(chunks)), chunks...).i64(2, 0).i64(3, rows).end()
	footer := structure().i32(1, 1).list(2, compactStruct, uint64(len(elements)), elements...).i64(3, rows*int64(groups)).
		list(4, compactStruct, uint64(groups), bytes.Repeat(group, groups)).end()
	return withFooter(out, footer)
}

func withFooter(out, footer []byte) []byte {
	out = append(out, footer...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(footer)))
	return append(out, parquetMagic...)
}

const fakePath = "mem://d"

func pathColumn(body []byte) fakeColumn {
	return fakeColumn{name: "file_path", kind: 6, id: deletePathID, body: body}
}

func rowColumn(body []byte) fakeColumn {
	return fakeColumn{name: "pos", kind: 2, id: deletePosID, body: body}
}

func goodPaths() fakeColumn {
	path := plainText(fakePath)
	return pathColumn(page(kindData, int64(len(path)), int64(len(path)), 1, path))
}

func goodRows() fakeColumn { return rowColumn(page(kindData, 8, 8, 1, make([]byte, 8))) }

// hostileDelete is a file of position deletes that says what is not so.
type hostileDelete struct {
	name string
	file []byte
	rows int64 // as the table's metadata says
	err  error
}

func hostileDeletes() []hostileDelete {
	path := plainText(fakePath)
	n := int64(len(path))
	const rows = 1 << 20
	bomb := packedZeros(300 << 20)
	large := func(c fakeColumn, change func(*fakeColumn)) fakeColumn { change(&c); return c }
	manyPaths := pathColumn(append(page(kindDictionary, n, n, 1, path), indexPage(rows)...))
	manyRows := rowColumn(append(page(kindDictionary, 8, 8, 1, make([]byte, 8)), indexPage(rows)...))
	long := plainText(strings.Repeat("x", 1<<20))
	element := structure().text(4, "schema").i32(5, 1<<31-1).end()
	deep := append(bytes.Repeat([]byte{1<<4 | compactStruct}, 100_000), make([]byte, 100_001)...)
	return []hostileDelete{
		{"a page that unpacks to two GiB", fakeParquet(1, pathColumn(page(kindData, 1<<31-1, n, 1, path)), goodRows()), 1, errPage},
		{"a second page that does", fakeParquet(2, pathColumn(append(page(kindData, n, n, 1, path), page(kindData2, 1<<31-1, n, 1, path)...)), rowColumn(bytes.Repeat(goodRows().body, 2))), 2, errPage},
		{"a page that is two GiB", fakeParquet(1, pathColumn(page(kindData, 1<<31-1, 1<<31-1, 1, path)), goodRows()), 1, errPage},
		{"a page of less than nothing", fakeParquet(1, pathColumn(page(kindData, -1, n, 1, path)), goodRows()), 1, errPage},
		{"a page that ends before its file", fakeParquet(1, pathColumn(page(kindData, n+9, n+9, 1, path)), goodRows()), 1, errPage},
		{"a page of 300 MiB of nothing", fakeParquet(1, large(pathColumn(page(kindData, 300<<20, int64(len(bomb)), 1, bomb)), func(c *fakeColumn) { c.codec = 6 }), goodRows()), 1, errPage},
		{"a page of an index, in which another one lies", fakeParquet(1, pathColumn(page(1, 100, 100, 1, page(kindData, 1<<31-1, n, 1, path))), goodRows()), 1, errPage},
		{"a dictionary of two billion values", fakeParquet(1, pathColumn(append(page(kindDictionary, n, n, 1<<31-1, path), indexPage(1)...)), goodRows()), 1, errPageValues},
		{"a dictionary of 20 MiB", fakeParquet(1, large(pathColumn(append(page(kindDictionary, 20<<20, int64(len(bomb)), 1, bomb), indexPage(1)...)), func(c *fakeColumn) { c.codec = 6 }), goodRows()), 1, errPage},
		{"a page of two billion values", fakeParquet(1, pathColumn(page(kindData, n, n, 1<<31-1, path)), goodRows()), 1, errPageValues},
		{"a page of more values than rows", fakeParquet(1, pathColumn(page(kindData2, n, n, 2, path)), goodRows()), 1, errPageValues},
		{"pages of more values than rows", fakeParquet(3, pathColumn(bytes.Repeat(page(kindData, 2*n, 2*n, 2, append(path, path...)), 2)), rowColumn(bytes.Repeat(goodRows().body, 3))), 3, errRows},
		{"pages of more values than rows in each column", fakeParquet(3, pathColumn(bytes.Repeat(page(kindData, 2*n, 2*n, 2, append(path, path...)), 2)),
			rowColumn(bytes.Repeat(page(kindData, 16, 16, 2, make([]byte, 16)), 2))), 3, errRows},
		{"a page of fewer values than it says", fakeParquet(9, pathColumn(page(kindData, n, n, 9, path)), rowColumn(bytes.Repeat(goodRows().body, 9))), 9, nil},
		{"a column that ends early", fakeParquet(2, goodPaths(), rowColumn(bytes.Repeat(goodRows().body, 2))), 2, errRows},
		{"a chunk of a terabyte", fakeParquet(1, large(goodPaths(), func(c *fakeColumn) { c.length = 1 << 40 }), goodRows()), 1, errChunk},
		{"a chunk of less than nothing", fakeParquet(1, large(goodPaths(), func(c *fakeColumn) { c.length = -1 }), goodRows()), 1, errChunk},
		{"a chunk before the file", fakeParquet(1, large(goodPaths(), func(c *fakeColumn) { c.start = -1 }), goodRows()), 1, errChunk},
		{"a chunk behind the file", fakeParquet(1, large(goodPaths(), func(c *fakeColumn) { c.start = 1 << 62 }), goodRows()), 1, errChunk},
		{"chunks that are one and the same", fakeGroups(0, 10_000, pathColumn(make([]byte, 1<<20)), rowColumn(make([]byte, 9))), 0, errChunk},
		{"more values than rows", fakeParquet(1, large(goodPaths(), func(c *fakeColumn) { c.values = 1 << 62 }), goodRows()), 1, errRows},
		{"more rows than the table says", fakeParquet(rows, manyPaths, manyRows), 1, errRows},
		{"fewer rows than the table says", fakeParquet(1, goodPaths(), goodRows()), 2, errRows},
		{"less than no rows", fakeParquet(-1, goodPaths(), goodRows()), -1, errRows},
		{"more rows than any file of its size", fakeParquet(1<<62, goodPaths(), goodRows()), -1, errRows},
		{"a footer of a hundred million elements", withFooter([]byte(parquetMagic), structure().i32(1, 1).list(2, compactStruct, 100_000_000, element).end()), 1, errCompact},
		{"an element of two billion others", withFooter([]byte(parquetMagic), structure().i32(1, 1).list(2, compactStruct, 1, element).i64(3, 0).list(4, compactStruct, 0).end()), 1, errSchema},
		{"an element of two billion others beside one of less than none", withFooter([]byte(parquetMagic), structure().i32(1, 1).list(2, compactStruct, 2, element,
			structure().text(4, "less").i32(5, -(1<<31-2)).end()).i64(3, 0).list(4, compactStruct, 0).end()), 1, errSchema},
		{"elements that are said to be bytes", withFooter([]byte(parquetMagic), structure().i32(1, 1).list(2, compactByte, uint64(len(element)), element).i64(3, 0).list(4, compactStruct, 0).end()), 1, errCompact},
		{"a hundred thousand elements", withFooter([]byte(parquetMagic), structure().i32(1, 1).list(2, compactStruct, 100_000, make([]byte, 100_000)).end()), 1, errSchema},
		{"two million row groups of nothing", withFooter([]byte(parquetMagic), structure().i32(1, 1).list(4, compactStruct, 2_000_000, make([]byte, 2_000_000)).end()), 1, errCompactItems},
		{"structures in one another", withFooter([]byte(parquetMagic), structure().i32(1, 1).in(100, deep).end()), 1, errCompact},
		{"a footer longer than its file", append(binary.LittleEndian.AppendUint32([]byte(parquetMagic), 1<<20), parquetMagic...), 1, errShort},
		{"a footer of four GiB", append(binary.LittleEndian.AppendUint32([]byte(parquetMagic), 1<<32-1), parquetMagic...), 1, errFooter},
		{"a file that is encrypted", append(binary.LittleEndian.AppendUint32([]byte(parquetMagic), 0), "PARE"...), 1, errParquet},
		{"a file of nothing", nil, 1, errParquet},
		{"columns in columns", fakeParquet(1, large(goodPaths(), func(c *fakeColumn) { c.space = 1000 }), goodRows()), 1, errSchema},
		{"no rows of files", fakeParquet(1, goodPaths(), large(goodRows(), func(c *fakeColumn) { c.id = 7 })), 1, nil},
		{"rows that are texts", fakeParquet(1, goodPaths(), large(goodPaths(), func(c *fakeColumn) { c.name, c.id = "pos", deletePosID })), 1, nil},
		{"a million times a path of a megabyte", fakeParquet(rows, pathColumn(append(page(kindDictionary, int64(len(long)), int64(len(long)), 1, long), indexPage(rows)...)), manyRows), rows, nil},
		{"a million times a value of a megabyte", fakeParquet(rows, manyPaths, manyRows,
			fakeColumn{name: "row", kind: 6, id: 9, body: append(page(kindDictionary, int64(len(long)), int64(len(long)), 1, long), indexPage(rows)...)}), rows, nil},
	}
}

// packedZeros are so many zeros as zstd packs them.
func packedZeros(n int) []byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return enc.EncodeAll(make([]byte, n), nil)
}

// It measures memory, so no other test runs beside it.
func TestAFileOfDeletesThatLiesIsRefusedInLittleMemory(t *testing.T) {
	ice, b := fuzzTable(t)
	m := &mover{Relocation: Relocation{From: b, To: b}, places: newPlaces("mem://", "mem://")}
	for _, c := range hostileDeletes() {
		putIn(t, b, "d.parquet", c.file)
		f := fakeDeletes(t, c.rows, int64(len(c.file)))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		var loading, moving error
		loaded := 0
		used := memoryOf(func() {
			loading = ice.positions(ctx, f, func(paths []parquet.ByteArray, rows []int64) error { loaded += len(rows); return nil })
		})
		// A path of any length names no file of a table, and columns that nothing asks for are not read.
		harmless := c.name == "a million times a path of a megabyte" || c.name == "a million times a value of a megabyte" || c.name == "pages of more values than rows"
		if harmless != (loading == nil) || loading != nil && !fault.Is(loading, fault.LakeUnreadable) || !harmless && c.err != nil && c.rows >= 0 && !errors.Is(loading, c.err) {
			t.Errorf("%s: loading %d rows says: %v", c.name, loaded, loading)
		}
		if used > 96 {
			t.Errorf("%s: loading took %d MiB", c.name, used)
		}
		used = memoryOf(func() {
			_, moving = m.moveParquet(ctx, "d.parquet", int64(len(c.file)), c.rows)
		})
		ownWay := c.name == "no rows of files" || c.name == "rows that are texts" // stays what it is
		if ownWay != (moving == nil) || c.err != nil && !errors.Is(moving, c.err) {
			t.Errorf("%s: moving says: %v", c.name, moving)
		}
		if used > 192 {
			t.Errorf("%s: moving took %d MiB", c.name, used)
		}
		if ctx.Err() != nil {
			t.Errorf("%s: it takes too long", c.name)
		}
		cancel()
	}
	// What they are made from is right.
	good := fakeParquet(1, goodPaths(), goodRows())
	putIn(t, b, "d.parquet", good)
	if _, err := m.moveParquet(t.Context(), "d.parquet", int64(len(good)), 1); err != nil {
		t.Error(err)
	}
	var got []string
	err := ice.positions(t.Context(), fakeDeletes(t, 1, int64(len(good))), func(paths []parquet.ByteArray, rows []int64) error {
		for i := range rows {
			got = append(got, fmt.Sprint(string(paths[i]), rows[i]))
		}
		return nil
	})
	if err != nil || len(got) != 1 || got[0] != fakePath+" 0" && got[0] != fakePath+"0" {
		t.Errorf("%q, %v", got, err)
	}
}

func fakeDeletes(t testing.TB, rows, size int64) iceberg.DataFile {
	t.Helper()
	d, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentPosDeletes, "mem://d.parquet", iceberg.ParquetFile, nil, nil, nil, max(1, rows), max(1, size))
	if err != nil {
		t.Fatal(err)
	}
	return countedFile{d.Build(), rows}
}

// countedFile is a file that says that it has so many rows.
type countedFile struct {
	iceberg.DataFile
	rows int64
}

func (f countedFile) Count() int64 { return f.rows }

// It measures memory, so no other test runs beside it.
func TestADataFileThatLiesIsRefusedInLittleMemory(t *testing.T) {
	ice, b := fuzzTable(t)
	bomb := packedZeros(8 << 20)
	for name, c := range map[string]struct {
		column fakeColumn
		err    error
	}{
		"a page that unpacks to two GiB":      {fakeColumn{name: "v", kind: 6, id: 1, body: page(kindData, 1<<31-1, 9, 1, make([]byte, 9))}, errPage},
		"packed bytes that cannot be as much": {fakeColumn{name: "v", kind: 6, id: 1, codec: 6, body: page(kindData, 1<<31-1, int64(len(bomb)), 1, bomb)}, errPage},
		"a chunk of a terabyte":               {fakeColumn{name: "v", kind: 6, id: 1, length: 1 << 40, body: make([]byte, 9)}, errChunk},
		"a dictionary of two billion values": {fakeColumn{name: "v", kind: 6, id: 1,
			body: append(page(kindDictionary, 9, 9, 1<<31-1, make([]byte, 9)), indexPage(1)...)}, errPageValues},
	} {
		data := fakeParquet(1, c.column)
		putIn(t, b, "d.parquet", data)
		d, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentData, "mem://d.parquet", iceberg.ParquetFile, nil, nil, nil, 1, int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		schema := arrow.NewSchema([]arrow.Field{{Name: "v", Type: arrow.BinaryTypes.String, Metadata: arrow.NewMetadata([]string{format.FieldIDKey}, []string{"1"})}}, nil)
		if used := memoryOf(func() {
			err = ice.scan(t.Context(), d.Build(), schema, 0, func(arrow.RecordBatch) error { return nil })
		}); used > 96 {
			t.Errorf("%s: it took %d MiB", name, used)
		}
		if !fault.Is(err, fault.LakeUnreadable) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
