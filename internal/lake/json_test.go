package lake

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/leatdata/leat/internal/change"
)

func TestJSONIsAPlainStringInDataFiles(t *testing.T) {
	t.Parallel()
	json := arrow.MetadataFrom(map[string]string{change.LogicalKey: change.LogicalJSON})
	spec := historySpec()
	spec.Current = true
	spec = altered(spec, func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns = append(s.Columns, change.Column{Name: "doc", Attnum: 4, TypeOID: 3802, Typmod: -1, Type: "jsonb"}, change.Column{Name: "docs", Attnum: 5, TypeOID: 3807, Typmod: -1, Type: "jsonb[]"})
		list := arrow.ListOfField(arrow.Field{Name: "item", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: json})
		return append(slices.Clone(f), arrow.Field{Name: "doc", Type: arrow.BinaryTypes.String, Nullable: true, Metadata: json}, arrow.Field{Name: "docs", Type: list, Nullable: true})
	})
	dir := t.TempDir()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1,"doc":"{}","docs":["{}"]}]`), 0x110)
	files, err := filepath.Glob(dir + "/public/*/data/*.parquet")
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range files {
		r, err := file.OpenParquetFile(name, false)
		if err != nil {
			t.Fatal(err)
		}
		schema := r.MetaData().Schema.String()
		r.Close()
		if strings.Contains(schema, "JSON") || !strings.Contains(schema, "doc (String)") {
			t.Errorf("%s: %s", name, schema)
		}
	}
}
