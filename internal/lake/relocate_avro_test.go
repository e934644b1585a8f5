package lake

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

func varint(n int64) []byte { return binary.AppendVarint(nil, n) }

func prefixed(s string) []byte { return append(varint(int64(len(s))), s...) }

// container makes an Avro file of one block.
func container(t *testing.T, schema, codec string, count int64, records []byte) []byte {
	t.Helper()
	packed, err := format.PackAvro(codec, records)
	if err != nil {
		t.Fatal(err)
	}
	return containerOf(schema, codec, count, packed)
}

// containerOf is a container of records that are packed already.
func containerOf(schema, codec string, count int64, packed []byte) []byte {
	sync := bytes.Repeat([]byte{7}, 16)
	header := [][]byte{avroMagic, varint(-3), varint(99), prefixed("avro.schema"), prefixed(schema), prefixed("avro.codec"), prefixed(codec),
		prefixed("own"), prefixed("kept"), varint(0), sync, varint(count), varint(int64(len(packed))), packed, sync}
	return bytes.Join(header, nil)
}

const allOfAvro = `{"type":"record","name":"e","namespace":"n","fields":[
	{"name":"status","type":"int","field-id":0},
	{"name":"odd","type":["null",{"type":"map","values":{"type":"array","items":["string","null","double"]}}],"field-id":9},
	{"name":"f","type":{"type":"record","name":"r2","fields":[
		{"name":"path","type":"string","field-id":100},
		{"name":"part","type":{"type":"record","name":"r102","fields":[{"name":"d","type":{"type":"fixed","size":3,"name":"dec","logicalType":"decimal"},"field-id":1000},
			{"name":"e","type":{"type":"enum","name":"en","symbols":["A","B"]}},{"name":"again","type":["null","n.dec"]},{"name":"b","type":"boolean"},{"name":"fl","type":"float"}]},"field-id":102},
		{"name":"size","type":{"type":"long","logicalType":"x"},"field-id":104},
		{"name":"low","type":["null",{"type":"array","items":{"type":"record","name":"kv","fields":[{"name":"key","type":"int","field-id":126},{"name":"value","type":"bytes","field-id":127}]}}],"field-id":125},
		{"name":"offsets","type":["null",{"type":"array","items":"long"}],"field-id":132},
		{"name":"ref","type":["string","null"],"field-id":143}]},"field-id":2}]}`

// oneOfAll is a record of that schema; sized says whether blocks of arrays tell their length in bytes.
func oneOfAll(path, ref string, size int64, sized, offsets bool) []byte {
	items := func(count int64, data []byte) []byte {
		if sized {
			return bytes.Join([][]byte{varint(-count), varint(int64(len(data))), data, varint(0)}, nil)
		}
		return bytes.Join([][]byte{varint(count), data, varint(0)}, nil)
	}
	strs := items(3, bytes.Join([][]byte{varint(0), prefixed("s"), varint(1), varint(2), make([]byte, 8)}, nil))
	odd := items(2, bytes.Join([][]byte{prefixed("k"), strs, prefixed("l"), strs}, nil))
	low := items(2, bytes.Join([][]byte{varint(4), prefixed("bound"), varint(deletePathID), prefixed(path)}, nil))
	off := varint(0)
	if offsets {
		off = append(varint(1), items(2, append(varint(4), varint(9)...))...)
	}
	return bytes.Join([][]byte{varint(1), varint(1), odd, prefixed(path), {1, 2, 3}, varint(1), varint(1), {4, 5, 6}, {1}, {0, 0, 1, 2}, varint(size),
		varint(1), low, off, varint(0), prefixed(ref)}, nil)
}

func TestOnlyWhatIsMeantChangesInAnAvroFile(t *testing.T) {
	t.Parallel()
	for _, codec := range []string{"null", "deflate", "snappy", "zstandard"} {
		for _, sized := range []bool{false, true} {
			many := func(path, ref string, size int64, sized, offsets bool) []byte {
				return container(t, allOfAvro, codec, 3, bytes.Repeat(oneOfAll(path, ref, size, sized, offsets), 3))
			}
			file, err := openAvro(many("old", "r", 5, sized, true))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			err = file.records(t.Context(), entryIDs, &out, func(all []avroValue) ([]avroEdit, error) {
				f := fieldsOf(all)
				none, ok := f[idSplitOffsets].withNull()
				if !ok || f.text(idFilePath) != "old" || f.text(idReferenced) != "r" || f.long(idFileSize) != 5 || f.long(idStatus) != 1 {
					t.Errorf("%+v", f)
				}
				edits := []avroEdit{f[idReferenced].withBytes([]byte("longer")), f[idFilePath].withBytes([]byte("a new path")), f[idFileSize].withLong(1 << 40), none}
				for i, v := range all {
					if v.id == idLowKey && v.long() == deletePathID {
						edits = append(edits, all[i+1].withBytes([]byte("a new path")))
					}
				}
				return sorted(edits), nil
			})
			if want := many("a new path", "longer", 1<<40, false, false); err != nil || !bytes.Equal(out.Bytes(), want) {
				t.Errorf("%s: %v\n%q\nwant\n%q", codec, err, out.Bytes(), want)
			}
		}
	}
}

func TestABrokenAvroFileIsAnErrorAndNothingElse(t *testing.T) {
	t.Parallel()
	whole := container(t, allOfAvro, "null", 2, bytes.Repeat(oneOfAll("old", "r", 5, true, true), 2))
	try := func(data []byte) error {
		f, err := openAvro(data)
		if err != nil {
			return err
		}
		return f.records(t.Context(), entryIDs, &bytes.Buffer{}, func(all []avroValue) ([]avroEdit, error) {
			f := fieldsOf(all)
			return []avroEdit{f[idFilePath].withBytes([]byte("x"))}, nil
		})
	}
	if err := try(whole); err != nil {
		t.Fatal(err)
	}
	header := len(whole) - len(whole[bytes.Index(whole, bytes.Repeat([]byte{7}, 16))+16:])
	for n := range len(whole) {
		if n != header && try(whole[:n]) == nil {
			t.Errorf("%d of %d bytes are taken for a whole file", n, len(whole))
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		data := bytes.Clone(whole)
		for range 1 + r.IntN(3) {
			data[r.IntN(len(data))] = byte(r.IntN(256))
		}
		_ = try(data) // must end
	}
	for _, schema := range []string{`"x"`, `{"type":"record","name":"e","fields":[{"name":"e","type":"e"}]}`, `{"type":"array"}`, `[]`, `{"type":"fixed","size":-1}`} {
		if try(container(t, schema, "null", 1<<40, []byte{0, 0, 0})) == nil {
			t.Errorf("the schema %s is taken", schema)
		}
	}
}

func TestPlacesAreKnownByAllTheirSpellings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ from, to, name, want string }{
		{"s3://a/b", "s3://c", "s3a://a/b/k x%2F", "s3://c/k x%2F"},
		{"s3://a/b/", "gs://c/d/", "s3n://a/b/k", "gs://c/d/k"},
		{"s3a://a", "s3a://c", "s3://a//k", "s3a://c//k"},
		{"file:///a", "file:///b", "file:/a/k", "file:///b/k"},
		{"file:///a", "s3://b", "/a/k", "s3://b/k"},
		{"mem://", "mem://", "mem://k", "mem://k"},
		{"s3://a/b", "s3://c", "s3://a/bc/k", ""},
		{"s3://a/b", "s3://c", "s3://a/b", ""},
		{"s3://a/b", "s3://c", "gs://a/b/k", ""},
		{"s3://a/b", "s3://c", "data/k", ""},
	} {
		got, err := newPlaces(c.from, c.to).moved(c.name)
		if c.want == "" && !fault.Is(err, fault.LakeForeign) || c.want != "" && got != c.want {
			t.Errorf("%s from %s to %s is %q, %v", c.name, c.from, c.to, got, err)
		}
	}
	p := newPlaces("s3://a/b", "s3://c")
	for _, c := range [][4]string{
		{"s3://a/b/k", "s3://a/b/k", "s3://c/k", "s3://c/k"},
		{"s3://a/b/k", "s3://a/b/l", "s3://c/k", "s3://c/l"},
		{"s3://a", "s3://b", "s3://c/", "s3://c0"},          // cut
		{"s3://a/b/z", "s3a://a/b/a", "s3://c/", "s3://c0"}, // two spellings: nothing is known of what lies between
		{"s3://a/b/data/00", "s3://a/b/dat~", "s3://c/data/00", "s3://c/dat~"},
	} {
		low, high := p.movedBounds([]byte(c[0]), []byte(c[1]))
		if string(low) != c[2] || string(high) != c[3] {
			t.Errorf("bounds %q and %q, want %q and %q", low, high, c[2], c[3])
		}
	}
	if low, high := p.movedBounds(nil, nil); low != nil || high != nil {
		t.Error("absent bounds must stay so")
	}
}

func TestDeletesOfOtherFormsGetTheirNewPaths(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "t")
	const script = `
import sys, pyarrow as pa, pyarrow.parquet as pq
dir, root = sys.argv[1:]
row = pa.struct([pa.field("id", pa.int32(), False), ("tags", pa.list_(pa.string())), ("f", pa.float64()), ("b", pa.bool_()), ("u", pa.binary(4)), ("t", pa.float32())])
n = 20000
t = pa.table({"file_path": [f"{root}/t/data/{i // 700}.parquet" for i in range(n)], "pos": pa.array([i % 700 for i in range(n)], pa.int64()),
    "row": pa.array([None if i % 5 == 0 else {"id": i, "tags": None if i % 3 == 0 else ["a"] * (i % 4), "f": i / 3, "b": i % 2 == 0, "u": b"abcd", "t": 1.5} for i in range(n)], row)})
for name, o in {"plain": dict(compression="none", use_dictionary=False), "small": dict(row_group_size=999, compression="gzip", data_page_size=512),
        "new": dict(compression="zstd", use_dictionary=False, data_page_version="2.0", column_encoding={"pos": "DELTA_BINARY_PACKED", "file_path": "DELTA_BYTE_ARRAY"}), "mixed": dict(compression="lz4", row_group_size=5000)}.items():
    pq.write_table(t, f"{dir}/{name}.parquet", **o)
pq.write_table(t.slice(0, 0), f"{dir}/none.parquet")
`
	const compare = `
import sys, glob, pyarrow.parquet as pq
a, b, from_, to = sys.argv[1:]
files = glob.glob(a + "/*.parquet")
for f in files:
    x, y = pq.ParquetFile(f), pq.ParquetFile(b + f[len(a):])
    assert x.schema.equals(y.schema), (x.schema, y.schema)
    assert x.num_row_groups == y.num_row_groups and x.metadata.metadata == y.metadata.metadata
    x, y = x.read().to_pydict(), y.read().to_pydict()
    assert [p.replace(from_, to, 1) for p in x["file_path"]] == y["file_path"] and x["pos"] == y["pos"] and x["row"] == y["row"]
assert len(files) == 5
`
	from, to := s.dir(s.FromURL), s.dir(s.ToURL)
	testlab.RunPython(t, script, from, "s3a://x/y")
	m := &mover{Relocation: s.Relocation, places: newPlaces("s3://x/y", "s3://far/z")}
	files, _ := filepath.Glob(from + "/*.parquet")
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		if size, err := m.moveParquet(t.Context(), filepath.Base(f), info.Size(), -1); err != nil || size == 0 {
			t.Errorf("%s: %d, %v", f, size, err)
		}
	}
	testlab.RunPython(t, compare, from, to, "s3a://x/y", "s3://far/z")
	m.places = newPlaces("s3://x/other", "s3://far/z")
	if _, err := m.moveParquet(t.Context(), "plain.parquet", 1, -1); !fault.Is(err, fault.LakeForeign) || !strings.Contains(err.Error(), "s3a://x/y/t/data/0.parquet") {
		t.Errorf("got %v", err)
	}
}
