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
	const most = 512 << 20
	words := 4_500_000 // of 32 bytes
	if os.Getenv("LEAT_TEST_LONG") != "" {
		words = 31_000_000
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
	follow("update films set id = id + 10")
	peak := run.PeakMemory()
	if peak > most {
		t.Errorf("leat took up to %d MiB for values of %d MiB", peak>>20, 32*words>>20)
	}
	p.end(run)
	for _, table := range []string{"films", "films_history"} {
		want := "10 1 11 1 12 1"      // id, n
		if table == "films_history" { // what an old key's end tells is the key alone
			want = "0 -1 0 0 0 1 1 -1 1 0 1 1 2 -1 2 0 2 1 10 1 11 1 12 1"
		}
		hashes := map[string]string{} // by the last digit of the id
		var rows []string
		for _, line := range strings.Split(strings.TrimSpace(digests(t, p.lake+"/public/"+table)), "\n") {
			f := strings.Fields(line)
			rows = append(rows, f[0], f[1])
			if f[1] != "-1" {
				hashes[f[0][len(f[0])-1:]] += f[2] + " "
			}
		}
		if got := strings.Join(rows, " "); got != want {
			t.Errorf("%s has the rows %s instead of %s", table, got, want)
		}
		for digit, all := range hashes {
			if one := db.One("select md5(body) from films where id = 1"+digit) + " "; strings.ReplaceAll(all, one, "") != "" {
				t.Errorf("%s, row %s: %s instead of %s", table, digit, all, one)
			}
		}
	}
}

// digests reads id, n and the MD5 of body of each live row, by PyIceberg; -1 and nothing for NULL.
func digests(t testing.TB, table string) string {
	t.Helper()
	out, err := exec.Command(testlab.Python(t), "-c", `
import glob, hashlib, sys
from pyiceberg.table import StaticTable
table = StaticTable.from_metadata(max(glob.glob(sys.argv[1] + "/metadata/*.metadata.json")))
rows = []
for batch in table.scan().to_arrow_batch_reader():
    for i in range(batch.num_rows):
        n, body = batch["n"][i].as_py(), batch["body"][i]
        rows.append((batch["id"][i].as_py(), -1 if n is None else n, hashlib.md5(body.as_buffer()).hexdigest() if body.is_valid else ""))
for row in sorted(rows):
    print(*row)
`, table).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestLargeValuesPassIntoChangeFilesInLittleMemory does it with the kinds of plain files. Only LEAT_TEST_LONG=1 has values that are large
// enough for the bound to say anything; without it internal/format's own tests do.
func TestLargeValuesPassIntoChangeFilesInLittleMemory(t *testing.T) {
	t.Parallel()
	const most = 512 << 20
	words, formats := 300_000, []string{"avro"}
	if os.Getenv("LEAT_TEST_LONG") != "" {
		words, formats = 28_000_000, []string{"avro", "csv", "csv.gz", "jsonl", "parquet"}
	}
	for _, format := range formats {
		db := testlab.Postgres(t)
		db.Exec("create table films (id int primary key, body text); alter table films alter body set storage external; insert into films values (0, 'short')")
		p := newPipeline(t, db).with("lake.target=files", "lake.file_format="+format, "run.logical_messages=true")
		p.run = p.run[2:] // --keep
		run := p.start()
		p.ready(run)
		db.Exec(fmt.Sprintf("insert into films select 1, string_agg(md5(i::text), '') from generate_series(1, %[1]d) i; insert into films values (2, repeat('x', %[2]d)); select pg_logical_emit_message(true, '3', repeat('m', %[2]d))", words, 32*words))
		end := p.position()
		wait(t, "the lake holds it", func() bool { return p.slotIs("confirmed_flush_lsn >= '" + end + "'") })
		peak := run.PeakMemory()
		t.Logf("%s: %d MiB at most", format, peak>>20)
		if peak > most {
			t.Errorf("leat took up to %d MiB for values of %d MiB", peak>>20, 32*words>>20)
		}
		p.end(run)
		want := ""
		for _, row := range db.Query(fmt.Sprintf("select id, md5(body) from films union all select 3, md5(repeat('m', %d)) order by id", 32*words)) {
			want += row[0] + " " + row[1] + "\n"
		}
		if got := digestsOfFiles(t, p.lake); got != want {
			t.Errorf("%s: the files have\n%sinstead of\n%s", format, got, want)
		}
	}
}

// digestsOfFiles reads id and the MD5 of body of each row of change files, by readers that are not ours; of messages, the prefix and the MD5 of the content.
func digestsOfFiles(t testing.TB, lake string) string {
	t.Helper()
	out, err := exec.Command(testlab.Python(t), "-c", `
import csv, gzip, hashlib, json, os, sys
csv.field_size_limit(1 << 40)
def records(path):
    if path.endswith(".avro"):
        import fastavro
        yield from fastavro.reader(open(path, "rb"))
    elif path.endswith(".parquet"):
        import pyarrow.parquet
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(1):
            yield from batch.to_pylist()
    elif path.endswith((".csv", ".csv.gz")):
        yield from csv.DictReader((gzip.open if path.endswith("gz") else open)(path, "rt", newline=""))
    elif path.endswith(".jsonl"):
        yield from map(json.loads, open(path))
rows = []
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        if name.endswith((".avro", ".parquet", ".csv", ".csv.gz", ".jsonl")):
            for row in records(os.path.join(folder, name)):
                id, body = (row["prefix"], row["content"]) if "prefix" in row else (row["id"], row["body"].encode())
                rows.append((int(id), hashlib.md5(bytes.fromhex(body[2:]) if type(body) is str else body).hexdigest()))
for row in sorted(rows):
    print(*row)
`, lake).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}
