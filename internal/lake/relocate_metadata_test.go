package lake

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

func TestMetadataKeepsAllThatIsNotAPath(t *testing.T) {
	t.Parallel()
	m := &mover{Relocation: Relocation{FromURL: "s3://a/b", Root: "t"}, places: newPlaces("s3://a/b", "s3://c")}
	const before = `{"format-version":1,"location":"s3a://a/b/t","last-updated-ms":12345678901234567890,"unknown":{"x":1e400,"y":["s3://a/b/t",0.10]},
		"schemas":[{"fields":[{"initial-default":"s3://a/b/t","doc":"<ü>"}]}],"properties":{"write.data.path":"s3://a/b/t/data/","owner":"s3://z"},
		"snapshots":[{"snapshot-id":9223372036854775807,"manifest-list":"s3://a/b/t/metadata/l.avro","summary":{"k":"s3://a/b"}},{"snapshot-id":2,"manifests":["s3n://a/b/m1","s3://a/b/m2"]}],
		"metadata-log":[{"timestamp-ms":1,"metadata-file":"s3://a/b/t/metadata/v1.metadata.json"}],"snapshot-log":null,
		"statistics":[{"snapshot-id":2,"statistics-path":"s3://a/b/t/s.puffin","file-size-in-bytes":7,"blob-metadata":[]}],
		"partition-statistics":[{"statistics-path":"s3://a/b/t/p.parquet","file-size-in-bytes":8}]}`
	moved, err := m.readMetadata("v1.metadata.json", []byte(before))
	if err != nil {
		t.Fatal(err)
	}
	got, want := object{}, object{}
	to := strings.NewReplacer(`"location":"s3a://a/b`, `"location":"s3://c`, `path":"s3://a/b`, `path":"s3://c`, `list":"s3://a/b`, `list":"s3://c`, `file":"s3://a/b`, `file":"s3://c`, `s3n://a/b/m1","s3://a/b/m2`, `s3://c/m1","s3://c/m2`)
	if err := errors.Join(json.Unmarshal(moved.moved, &got), json.Unmarshal([]byte(to.Replace(before)), &want)); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Errorf("%d fields, want %d", len(got), len(want))
	}
	for field := range want {
		if a, b := plainJSON(t, got[field]), plainJSON(t, want[field]); a != b {
			t.Errorf("%s is\n%s\nwant\n%s", field, a, b)
		}
	}
	if len(moved.lists) != 2 || moved.lists[0].list != "s3://a/b/t/metadata/l.avro" || len(moved.lists[1].manifests) != 2 || len(moved.statistics) != 2 || moved.statistics[1].size != 8 {
		t.Errorf("%+v", moved)
	}
	for _, path := range []string{"location", "write.data.path", "manifest-list", "metadata-file", "statistics-path"} {
		foreign := strings.Replace(strings.Replace(before, path+`":"s3a://a/b`, path+`":"s3://else`, 1), path+`":"s3://a/b`, path+`":"s3://else`, 1)
		if _, err := m.readMetadata("v1.metadata.json", []byte(foreign)); !fault.Is(err, fault.LakeForeign) || !strings.Contains(err.Error(), "s3://else/t") {
			t.Errorf("with a foreign %s: %v", path, err)
		}
	}
	for _, broken := range []string{"", "{}", "[]", `{"format-version":2,"location":7}`, `{"format-version":2,"location":"s3://a/b","snapshots":{}}`, "\x1f\x8bx"} {
		if _, err := m.readMetadata("v1.metadata.json", []byte(broken)); !fault.Is(err, fault.LakeFailed) {
			t.Errorf("%q: %v", broken, err)
		}
	}
}

func TestWhatNamesAFileThatGotAnotherSizeIsWrittenToo(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "public/visits")
	lived(t, testLake(t, s.dir(s.FromURL), nil))
	s.run(t)
	want := libraryRows(t, s.To, s.ToURL, s.Root)
	listKey := ".leat/relocated/public/visits.json"
	data, err := bucket.ReadAll(t.Context(), s.To, listKey, 1<<20)
	var list arrivalList
	if err = errors.Join(err, json.Unmarshal(data, &list)); err != nil {
		t.Fatal(err)
	}
	deletes := 0
	for o, err := range s.To.List(t.Context(), s.Root+"/data/") {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(o.Key, "-deletes.parquet") {
			continue
		}
		deletes++
		for f := list.Files; len(f) > 0; f = f[16:] {
			if binary.BigEndian.Uint64(f) == keyHash(o.Key) {
				binary.BigEndian.PutUint64(f[8:], uint64(o.Size)+1) // as if it had been packed otherwise
			}
		}
	}
	if data, err = json.Marshal(list); err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.WriteAll(t.Context(), s.To, listKey, data, bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if done := s.run(t); done.DeleteFiles != deletes || done.Manifests == 0 || done.DataFiles > 0 || done.Metadata > 0 {
		t.Errorf("%d files of deletes got another size, and %+v was done", deletes, done)
	}
	if done := s.run(t); !done.Nothing() {
		t.Errorf("then %+v was done", done)
	}
	sameRows(t, "written anew", libraryRows(t, s.To, s.ToURL, s.Root), want)
}

// plainJSON sorts fields and keeps numbers as they are written.
func plainJSON(t *testing.T, data []byte) string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	out, err := asJSON(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
