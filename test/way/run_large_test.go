package way_test

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// TestLargeValuesPassInLittleMemory: a transaction of large values, one of which does not compress, and updates of their rows that leave
// them out. LEAT_TEST_LONG=1 makes each nearly as large as PostgreSQL has them.
func TestLargeValuesPassInLittleMemory(t *testing.T) {
	t.Parallel()
	most := int64(384 << 20)
	words := 6_000_000 // of 32 bytes
	if os.Getenv("LEAT_TEST_LONG") != "" {
		words, most = 31_000_000, 512<<20
	}
	db := testlab.Postgres(t)
	db.Exec("create table films (id int primary key, n int, body text); alter table films alter body set storage external; insert into films values (0, 0, 'short')")
	p := newPipeline(t, db)
	run := p.start()
	p.ready(run)
	follow := func(sql string) {
		db.Exec(sql)
		end := p.position()
		wait(t, "the lake holds it", func() bool { return p.slotIs("confirmed_flush_lsn >= '" + end + "'") })
		t.Logf("%d MiB at most", run.PeakMemory()>>20)
	}
	follow(fmt.Sprintf("insert into films select 1, 0, string_agg(md5(i::text), '') from generate_series(1, %d) i; insert into films values (2, 0, repeat('x', %d))", words, 32*words))
	follow("update films set n = n + 1")
	peak := run.PeakMemory()
	if peak > most {
		t.Errorf("leat took up to %d MiB for values of %d MiB", peak>>20, 32*words>>20)
	}
	p.end(run)
	for _, table := range []string{"films", "films_history"} {
		want := "0 1 1 1 2 1" // id, n
		if table == "films_history" {
			want = "0 0 0 1 1 0 1 1 2 0 2 1"
		}
		hashes := map[string]string{}
		var rows []string
		for _, line := range strings.Split(strings.TrimSpace(digests(t, p.lake+"/public/"+table)), "\n") {
			f := strings.Fields(line)
			rows = append(rows, f[0], f[1])
			hashes[f[0]] += f[2] + " "
		}
		if got := strings.Join(rows, " "); got != want {
			t.Errorf("%s has the rows %s instead of %s", table, got, want)
		}
		for id, all := range hashes {
			if one := db.One("select md5(body) from films where id = "+id) + " "; strings.ReplaceAll(all, one, "") != "" {
				t.Errorf("%s, row %s: %s instead of %s", table, id, all, one)
			}
		}
	}
}

// digests reads id, n and the MD5 of body of each live row, by PyIceberg.
func digests(t testing.TB, table string) string {
	t.Helper()
	out, err := exec.Command(testlab.Python(t), "-c", `
import glob, hashlib, sys
from pyiceberg.table import StaticTable
table = StaticTable.from_metadata(max(glob.glob(sys.argv[1] + "/metadata/*.metadata.json")))
rows = []
for batch in table.scan().to_arrow_batch_reader():
    for i in range(batch.num_rows):
        rows.append((batch["id"][i].as_py(), batch["n"][i].as_py(), hashlib.md5(batch["body"][i].as_buffer()).hexdigest()))
for row in sorted(rows):
    print(*row)
`, table).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
