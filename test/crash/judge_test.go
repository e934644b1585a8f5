package crash_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/leatdata/leat/internal/testlab"
)

// content is what a table holds, as far as the judge looks: how many rows, and the sum of its first column, an
// integer. A row that comes twice or not at all changes one of them.
type content struct{ rows, sum int64 }

func (c content) add(o content) content { return content{c.rows + o.rows, c.sum + o.sum} }

// contentOf asks the database.
func contentOf(db *testlab.DB, table, column string) content {
	row := db.Query(fmt.Sprintf("select count(*), coalesce(sum(%s), 0) from %s", column, table))[0]
	rows, _ := strconv.ParseInt(row[0], 10, 64) // count and sum of integers
	sum, _ := strconv.ParseInt(row[1], 10, 64)
	return content{rows, sum}
}

// manifest is the part of manifest.json that the judge holds leat to; see docs/FORMAT.md.
type manifest struct {
	Folder   string
	Snapshot struct {
		LSN         string
		Exact       bool   `json:"lsn_exact"`
		WhyNotExact string `json:"why_not_exact"`
	}
	Tables []struct {
		Schema, Name string
		Rows         int64
		Files        []struct {
			Key    string
			Rows   int64
			Bytes  int
			SHA256 string
		}
	}
}

const manifestName = "/manifest.json"

// verdict is what the judge found; the strings are keys.
type verdict struct {
	manifests map[string]manifest // by folder
	orphans   []string            // whole objects that no manifest names, marks not counted
	marks     []string
}

// judge reads everything that is visible and fails the test if an object is not whole or a manifest does not
// tell the truth. want is what the tables of every dump hold; nil leaves that to the caller.
func judge(t testing.TB, p place, want map[string]content) verdict {
	t.Helper()
	v := verdict{manifests: map[string]manifest{}}
	named := map[string]bool{}
	keys := p.keys(t)
	for _, key := range keys {
		if folder, ok := strings.CutSuffix(key, manifestName); ok {
			m := judgeManifest(t, p, folder, want)
			v.manifests[folder] = m
			for _, table := range m.Tables {
				for _, f := range table.Files {
					named[f.Key] = true
				}
			}
		}
	}
	for _, key := range keys {
		switch {
		case strings.HasSuffix(key, manifestName):
		case strings.HasPrefix(key, ".leat/running/"):
			v.marks = append(v.marks, key)
		case !named[key]:
			v.orphans = append(v.orphans, key)
			if _, err := contentIn(key, p.read(t, key)); err != nil {
				t.Errorf("%s is visible and not whole: %v", key, err)
			}
		}
	}
	return v
}

func judgeManifest(t testing.TB, p place, folder string, want map[string]content) manifest {
	t.Helper()
	var m manifest
	if err := json.Unmarshal(p.read(t, folder+manifestName), &m); err != nil {
		t.Fatalf("%s: %v", folder+manifestName, err)
	}
	if m.Folder != folder || want != nil && len(m.Tables) != len(want) {
		t.Errorf("the manifest of %s is for %s and names %d tables", folder, m.Folder, len(m.Tables))
	}
	for _, table := range m.Tables {
		var all content
		for _, f := range table.Files {
			data := p.read(t, f.Key)
			sum := sha256.Sum256(data)
			if data == nil || len(data) != f.Bytes || hex.EncodeToString(sum[:]) != f.SHA256 {
				t.Errorf("the manifest of %s lies about %s: there are %d bytes, it says %d", folder, f.Key, len(data), f.Bytes)
				continue
			}
			got, err := contentIn(f.Key, data)
			if err != nil || got.rows != f.Rows {
				t.Errorf("%s: %d rows, the manifest says %d: %v", f.Key, got.rows, f.Rows, err)
			}
			all = all.add(got)
		}
		if all.rows != table.Rows {
			t.Errorf("%s.%s in %s: %d rows, the manifest says %d", table.Schema, table.Name, folder, all.rows, table.Rows)
		}
		if expect, ok := want[table.Name]; want != nil && (!ok || all != expect) {
			t.Errorf("%s.%s in %s holds %+v, the database %+v", table.Schema, table.Name, folder, all, expect)
		}
	}
	return m
}

// judgeClean is judge after a dump that succeeded: nothing is left over.
func judgeClean(t testing.TB, p place, want map[string]content) verdict {
	t.Helper()
	v := judge(t, p, want)
	if len(v.orphans) > 0 || len(v.marks) > 0 {
		t.Errorf("left behind: objects %q, marks %q", v.orphans, v.marks)
	}
	if left := p.unfinished(t); len(left) > 0 {
		t.Errorf("left behind: unfinished uploads %q", left)
	}
	return v
}

// nothing fails the test if anything at all is visible.
func nothing(t testing.TB, p place) {
	t.Helper()
	if keys := p.keys(t); len(keys) > 0 {
		t.Errorf("visible: %q", keys)
	}
	if left := p.unfinished(t); len(left) > 0 {
		t.Errorf("unfinished: %q", left)
	}
}

// contentIn reads a whole object with readers that are not ours. An error says that it is not whole.
func contentIn(key string, data []byte) (content, error) {
	switch {
	case strings.HasSuffix(key, ".parquet"):
		return parquetContent(data)
	case strings.HasSuffix(key, ".csv.gz"):
		r, err := gzip.NewReader(bytes.NewReader(data))
		if err != nil {
			return content{}, err
		}
		return csvContent(r)
	case strings.HasSuffix(key, ".csv"):
		return csvContent(bytes.NewReader(data))
	}
	return content{}, fmt.Errorf("the judge knows no such file")
}

func csvContent(r io.Reader) (c content, err error) {
	records := csv.NewReader(r)
	for {
		record, err := records.Read() // every record must have as many fields as the first
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return c, err
		}
		n, err := strconv.ParseInt(record[0], 10, 64)
		if err != nil {
			return c, err
		}
		c = c.add(content{1, n})
	}
}

// parquetContent reads the first column of every row group with Arrow's own reader.
func parquetContent(data []byte) (c content, err error) {
	r, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		return c, err
	}
	defer r.Close()
	for i := range r.NumRowGroups() {
		column, err := r.RowGroup(i).Column(0)
		if err != nil {
			return c, err
		}
		got, err := sumColumn(column, r.RowGroup(i).NumRows())
		if err != nil {
			return c, err
		}
		c = c.add(got)
	}
	if c.rows != r.NumRows() {
		return c, fmt.Errorf("the footer says %d rows, there are %d", r.NumRows(), c.rows)
	}
	return c, nil
}

func sumColumn(column file.ColumnChunkReader, rows int64) (c content, err error) {
	ints, ok := column.(*file.Int64ColumnChunkReader)
	if !ok {
		return c, fmt.Errorf("the first column is %T", column)
	}
	values, levels := make([]int64, rows), make([]int16, rows)
	for c.rows < rows {
		n, read, err := ints.ReadBatch(rows-c.rows, values, levels, nil)
		if err != nil || n == 0 {
			return c, fmt.Errorf("after %d of %d rows: %w", c.rows, rows, err)
		}
		for _, v := range values[:read] {
			c.sum += v
		}
		c.rows += n
	}
	return c, nil
}
