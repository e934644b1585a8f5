package crash_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// TestHugeValuesComeWhole: each larger than every buffer on its way, and several connections at once. What memory that
// takes is measured in bench.
func TestHugeValuesComeWhole(t *testing.T) {
	t.Parallel()
	size := "640000" // times 32 bytes: 20 MB
	if long() {
		size = "6400000"
	}
	db := testlab.Postgres(t)
	want := map[string]content{}
	for _, table := range []string{"films", "scans"} {
		db.Exec("create table " + table + " (id bigint, body text); alter table " + table + " alter body set storage external; insert into " + table + " select i, repeat(md5(i::text), " + size + ") from generate_series(1, 3) i; insert into " + table + " values (4, ''), (5, null)")
		want[table] = contentOf(db, table, "id")
	}
	source := reach(t, db.URL)
	for _, c := range everyFormat {
		t.Run(c.name, func(t *testing.T) {
			dir := folderPlace(t.TempDir())
			m, err := dump.Run(t.Context(), source, dir.open(t), options(c.kind, c.layout))
			if err != nil {
				t.Fatal(err)
			}
			judgeClean(t, dir, want)
			if c.kind != format.CSVGzip {
				return
			}
			for _, table := range m.Tables {
				z, err := gzip.NewReader(bytes.NewReader(dir.read(t, table.Files[0].Key)))
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(z)
				if err != nil || !bytes.Equal(got, db.Copy("copy "+table.Name+" to stdout csv")) {
					t.Errorf("%s: %v: %d bytes that COPY does not give", table.Name, err, len(got))
				}
			}
		})
	}
}
