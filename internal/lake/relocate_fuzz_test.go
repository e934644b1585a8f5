package lake

import (
	"bytes"
	"testing"

	"github.com/leatdata/leat/internal/fault"
)

func FuzzForeignAvro(f *testing.F) {
	f.Add(append([]byte("Obj\x01"), bytes.Repeat([]byte{0}, 17)...))
	sync := bytes.Repeat([]byte{7}, 16)
	for _, schema := range []string{listSchema, entrySchema, allOfAvro, twice(8), `{"type":"record","name":"e","fields":[{"name":"e","type":["null","e"]}]}`} {
		record := oneOfAll("old", "r", 5, true, true)
		f.Add(bytes.Join([][]byte{avroMagic, varint(1), prefixed("avro.schema"), prefixed(schema), varint(0), sync, varint(1), varint(int64(len(record))), record, sync}, nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := openAvro(data)
		if err != nil {
			return
		}
		m := &mover{places: newPlaces("s3://a", "s3://b")}
		for _, want := range []avroFields{listIDs, entryIDs, {deletePathID: textForm}} {
			var out bytes.Buffer
			_ = file.records(t.Context(), want, &out, func(all []avroValue) ([]avroEdit, error) {
				f := fieldsOf(all)
				f.long(idFileSize)
				f.long(idManifestLength)
				f.text(idFileFormat)
				f.text(idManifestPath)
				return m.moveEntry(f, all, nil)
			})
		}
	})
}

func FuzzForeignMetadata(f *testing.F) {
	f.Add([]byte(`{"format-version":2,"location":"s3://a/t","snapshots":[{"manifest-list":"s3://a/t/l"},null,{"manifests":["s3://a/m"]}],"properties":{"write.data.path":"s3://a/t"},
		"statistics":[{"statistics-path":"s3://a/s","file-size-in-bytes":-1}],"metadata-log":null,"partition-statistics":[null]}`))
	f.Add([]byte(`{"blobs":[{"properties":{"referenced-data-file":"s3://a/t"}},null]}`))
	f.Add([]byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &mover{Relocation: Relocation{FromURL: "s3://a", Root: "t"}, places: newPlaces("s3://a", "s3://b")}
		if meta, err := m.readMetadata("v1.metadata.json", data); err == nil {
			for _, s := range meta.statistics {
				if s.size < 0 {
					t.Errorf("a size below zero is taken: %d", s.size)
				}
			}
		} else if fault.Of(err) == nil {
			t.Errorf("an error that is no fault: %v", err)
		}
		_, _ = m.movePuffinFooter(data)
	})
}
