package lake

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table/dv"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// inBounds fails when work takes long or makes room for much more than its input accounts for.
func inBounds(t *testing.T, data []byte, work func(ctx context.Context)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	used := memoryOf(func() { work(ctx) })
	if ctx.Err() != nil {
		t.Errorf("%d bytes took more than ten seconds", len(data))
	}
	if used > 512 {
		t.Errorf("%d bytes took %d MiB", len(data), used)
	}
}

// fuzzTable is a table whose files are in memory.
func fuzzTable(f testing.TB) (*icebergTable, bucket.Bucket) {
	f.Helper()
	b, err := bucket.Open(context.Background(), "mem://", bucket.Options{})
	if err != nil {
		f.Fatal(err)
	}
	return &icebergTable{lake: &Lake{Options: Options{Bucket: b}, places: newPlaces("mem://", "mem://")}, ident: []string{"s", "t"}}, b
}

func putIn(t testing.TB, b bucket.Bucket, key string, data []byte) {
	t.Helper()
	if _, err := bucket.WriteAll(context.Background(), b, key, data, bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func FuzzManifests(f *testing.F) {
	o := newOwnTable(f, 3)
	for _, pattern := range []string{"metadata/snap-*.avro", "metadata/*-m0.avro"} {
		f.Add(o.read(o.last(pattern)))
	}
	_, b := fuzzTable(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		putIn(t, b, "m.avro", data)
		inBounds(t, data, func(ctx context.Context) {
			in, err := avroFiles{fileIO{ctx: ctx, bucket: b, places: newPlaces("mem://", "mem://")}}.Open("mem://m.avro")
			if err != nil {
				if fault.Of(err) == nil {
					t.Errorf("an error that is no fault: %v", err)
				}
				return
			}
			defer fault.Catch(&err, nil, "") // the library's own, which the table's boundary takes
			_, _ = iceberg.ReadManifestList(in)
			_, _ = in.Seek(0, 0)
			m := iceberg.NewManifestFile(3, "mem://m.avro", int64(len(data)), 0, 1).Build()
			entries, _ := iceberg.ReadManifest(m, in, true)
			for _, e := range entries {
				_ = checkEntry(e)
			}
		})
	})
}

func FuzzMetadata(f *testing.F) {
	o := newOwnTable(f, 3)
	f.Add("v1.metadata.json", o.read(o.last("metadata/v*.metadata.json")))
	f.Add("00001-a.gz.metadata.json", zeros(f, "{", 1, "}"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		inBounds(t, data, func(ctx context.Context) {
			err := fault.Catching(nil, "", func() error { return checkMetadata(ctx, name, data) })()
			if err != nil && !fault.Is(err, fault.LakeUnreadable) && !fault.Panicked(err) {
				t.Errorf("got %v", err)
			}
		})
	})
}

func FuzzPuffin(f *testing.F) {
	o := newOwnTable(f, 3)
	vectors := o.read(o.last("data/*.puffin"))
	f.Add(vectors, int64(4), int64(len(vectors)), int64(1))
	f.Add(vectors, int64(4), int64(46), int64(1))
	_, b := fuzzTable(f)
	m := &mover{Relocation: Relocation{From: b, To: b}, places: newPlaces("mem://", "mem://")}
	f.Fuzz(func(t *testing.T, data []byte, offset, size, count int64) {
		putIn(t, b, "v.puffin", data)
		inBounds(t, data, func(ctx context.Context) {
			files := fileIO{ctx: ctx, bucket: b, places: newPlaces("mem://", "mem://")}
			d, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentPosDeletes, "mem://v.puffin", iceberg.PuffinFile, nil, nil, nil, max(1, count), max(1, size))
			if err != nil {
				return
			}
			file := d.ContentOffset(offset).ContentSizeInBytes(size).ReferencedDataFile("mem://d").Build()
			if puffinChecked(files, "mem://v.puffin") == nil {
				if bits, err := dv.ReadDV(files, file); err == nil {
					for p := range bits.Positions() {
						if p > 1<<20 {
							break
						}
					}
				}
			}
			_, _ = m.movePuffin(ctx, "v.puffin", size)
		})
	})
}

func FuzzParquetDeletes(f *testing.F) {
	f.Add(positionsFile(f, "mem://d", 1))
	for _, hostile := range hostileDeletes() {
		f.Add(hostile.file)
	}
	f.Add(append(append([]byte("PAR1"), 1, 0, 0, 0), "PAR1"...))
	ice, b := fuzzTable(f)
	m := &mover{Relocation: Relocation{From: b, To: b}, places: newPlaces("mem://", "mem://")}
	f.Fuzz(func(t *testing.T, data []byte) {
		putIn(t, b, "d.parquet", data)
		inBounds(t, data, func(ctx context.Context) {
			d, err := iceberg.NewDataFileBuilder(*iceberg.UnpartitionedSpec, iceberg.EntryContentPosDeletes, "mem://d.parquet", iceberg.ParquetFile, nil, nil, nil, 1, int64(max(1, len(data))))
			if err != nil {
				t.Fatal(err)
			}
			rows := int64(0)
			err = fault.Catching(nil, "", func() error {
				return ice.positions(ctx, d.Build(), func(_ []parquet.ByteArray, some []int64) error { rows += int64(len(some)); return nil })
			})()
			if err != nil && fault.Of(err) == nil {
				t.Errorf("an error that is no fault: %v", err)
			}
			_ = fault.Catching(nil, "", func() error { _, err := m.moveParquet(ctx, "d.parquet", int64(len(data)), -1); return err })()
		})
	})
}

// positionsFile is a file of position deletes of one row.
func positionsFile(t testing.TB, path string, row int64) []byte {
	t.Helper()
	paths, rows := array.NewStringBuilder(memory.DefaultAllocator), array.NewInt64Builder(memory.DefaultAllocator)
	paths.Append(path)
	rows.Append(row)
	rec := array.NewRecordBatch(posDeleteSchema, []arrow.Array{paths.NewArray(), rows.NewArray()}, 1)
	var out bytes.Buffer
	w, err := format.NewParquet(&out, posDeleteSchema, format.ParquetOptions{})
	if err == nil {
		err = w.Write(rec)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func FuzzPlaces(f *testing.F) {
	for _, name := range []string{"s3a://a/b/k x%2F", "file:/a/k", "mem://k", "s3://a:9/b", "//a/b", "s3://a/%zz", "\x00"} {
		f.Add("s3://a/b", "file:///c", name)
	}
	f.Fuzz(func(t *testing.T, from, to, name string) {
		p := newPlaces(from, to)
		moved, err := p.moved(name)
		if err != nil {
			if !fault.Is(err, fault.LakeForeign) {
				t.Errorf("got %v", err)
			}
			return
		}
		root, key, ok := p.root(name)
		if !ok || len(root)+len(key) > 2*len(name)+2*len(from) || len(moved) > len(to)+len(name)+1 {
			t.Errorf("%q from %q to %q is %q; its root is %q, its key %q, %v", name, from, to, moved, root, key, ok)
		}
	})
}

// puffinChecked reads a small file of deletion vectors and looks at its footer.
func puffinChecked(files fileIO, name string) error {
	in, err := files.openSized(name, 0)
	if err != nil {
		return err
	}
	return checkPuffin(in)
}
