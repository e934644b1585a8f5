package lake

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// longPast is a table's metadata with that many snapshots, as leat's commits leave them.
func longPast(t testing.TB, version, snapshots int) table.Metadata {
	t.Helper()
	schema := iceberg.NewSchema(0, iceberg.NestedField{ID: 1, Name: "id", Type: iceberg.PrimitiveTypes.Int64, Required: true},
		iceberg.NestedField{ID: 2, Name: "a <name> & \"quotes\"", Type: iceberg.PrimitiveTypes.String})
	meta, err := table.NewMetadata(schema, iceberg.UnpartitionedSpec, table.UnsortedSortOrder, "file:///lake/public/t", iceberg.Properties{
		"format-version": fmt.Sprint(version), "leat.position": "0/16B3748", "hostile": "</script>\u2028\x00\"\\é\xff"})
	if err != nil {
		t.Fatal(err)
	}
	id := 0
	for i := range snapshots {
		s := &table.Snapshot{SnapshotID: int64(i + 1), SequenceNumber: int64(i + 1), TimestampMs: meta.LastUpdatedMillis() + 1, SchemaID: &id,
			ManifestList: fmt.Sprintf("file:///lake/public/t/metadata/snap-%d.avro", i), Summary: &table.Summary{Operation: table.OpAppend, Properties: iceberg.Properties{
				"leat.position": fmt.Sprintf("0/%X", i), "added-records": "12", "hostile": "\"\x01\t\n\\<&>é\xff\u2029", "": ""}}}
		if i > 0 {
			parent := int64(i)
			s.ParentSnapshotID = &parent
		}
		if version == 3 {
			first, added := int64(10*i), int64(10)
			s.FirstRowID, s.AddedRows = &first, &added
		}
		switch i % 4 {
		case 1:
			s.Summary.Properties = nil
		case 2:
			s.Summary = nil
		case 3:
			for n := range 12 {
				s.Summary.Properties[fmt.Sprintf("total-number-%d", n)] = strings.Repeat("9", n)
			}
		}
		meta, err = table.UpdateTableMetadata(meta, []table.Update{table.NewAddSnapshotUpdate(s),
			table.NewSetSnapshotRefUpdate(table.MainBranch, s.SnapshotID, table.BranchRef, -1, -1, -1)}, fmt.Sprintf("file:///lake/public/t/metadata/v%d.metadata.json", i))
		if err != nil {
			t.Fatal(err)
		}
	}
	return meta
}

// TestEncodedMetadataIsTheLibrarys: every field that a metadata file can have comes out as iceberg-go writes it.
func TestEncodedMetadataIsTheLibrarys(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2, 3} {
		for _, snapshots := range []int{0, 1, 7} {
			if version == 1 && snapshots > 0 {
				continue // ours have no such snapshots
			}
			meta := longPast(t, version, snapshots)
			sameJSON(t, meta)
			if snapshots == 7 {
				sameJSON(t, withEveryField(t, meta))
			}
		}
	}
}

// withEveryField has what other engines may have put there.
func withEveryField(t *testing.T, meta table.Metadata) table.Metadata {
	t.Helper()
	data, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]any
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	all["refs"].(map[string]any)["kept"] = map[string]any{"snapshot-id": 3, "type": "tag", "max-ref-age-ms": 1000000000}
	all["refs"].(map[string]any)["side"] = map[string]any{"snapshot-id": 2, "type": "branch", "min-snapshots-to-keep": 2, "max-snapshot-age-ms": 5}
	all["statistics"] = []any{map[string]any{"snapshot-id": 3, "statistics-path": "file:///s.puffin", "file-size-in-bytes": 10, "file-footer-size-in-bytes": 4,
		"blob-metadata": []any{map[string]any{"type": "apache-datasketches-theta-v1", "snapshot-id": 3, "sequence-number": 3, "fields": []any{1}, "properties": map[string]any{"ndv": "3"}}}}}
	all["partition-statistics"] = []any{map[string]any{"snapshot-id": 3, "statistics-path": "file:///p.parquet", "file-size-in-bytes": 10}}
	if meta.Version() >= 3 {
		all["encryption-keys"] = []any{map[string]any{"key-id": "k", "encrypted-key-metadata": "YWJj", "encrypted-by-id": "kms", "properties": map[string]any{"a": "b"}}}
	}
	all["snapshot-log"] = all["snapshot-log"].([]any)[3:]
	if data, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	meta, err = table.ParseMetadataBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	var again map[string]any
	if data, err = json.Marshal(meta); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &again); err != nil || len(again) < len(all) {
		t.Fatalf("the library keeps %d of %d fields, %v: the test compares less than it says", len(again), len(all), err)
	}
	return meta
}

func sameJSON(t *testing.T, meta table.Metadata) {
	t.Helper()
	ours, err := encodeMetadata(meta)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	var got, want map[string]any
	if err := json.Unmarshal(ours, &got); err != nil {
		t.Fatalf("%v: %s", err, ours)
	}
	if err := json.Unmarshal(theirs, &want); err != nil {
		t.Fatal(err)
	}
	for name := range want {
		if !reflect.DeepEqual(got[name], want[name]) {
			t.Errorf("version %d: %s is %v, not %v", meta.Version(), name, got[name], want[name])
		}
	}
	for name := range got {
		if _, known := want[name]; !known {
			t.Errorf("version %d: %s is ours alone", meta.Version(), name)
		}
	}
}

func BenchmarkEncodeMetadata(b *testing.B) {
	for name, encode := range map[string]func(table.Metadata) ([]byte, error){
		"ours": encodeMetadata, "library": func(m table.Metadata) ([]byte, error) { return json.Marshal(m) },
	} {
		for _, snapshots := range []int{10, 240} {
			meta := longPast(b, 2, snapshots)
			b.Run(fmt.Sprintf("%s/%d", name, snapshots), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := encode(meta); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
