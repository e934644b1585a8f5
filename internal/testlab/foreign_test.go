package testlab

import (
	"net/http"
	"slices"
	"testing"
)

func TestSparkWritesValuesAsPostgreSQLDoes(t *testing.T) {
	t.Parallel()
	s := SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": "file://" + t.TempDir()})
	s.Query("create table " + s.Catalog + ".a.b (id int, at timestamp, plain timestamp_ntz, day date, n decimal(8,2), f boolean, b binary, l array<string>)")
	s.Query("insert into " + s.Catalog + ".a.b values (1, timestamp '2026-01-02 03:04:05.6+00', timestamp_ntz '2026-01-02 03:04:05', date '2026-01-02', 1.5, true, X'c3', array('x', 'ä')), (2, null, null, null, null, null, null, null)")
	columns, rows := s.Query("select * from " + s.Catalog + ".a.b order by id")
	if !slices.Equal(columns, []string{"id", "at", "plain", "day", "n", "f", "b", "l"}) {
		t.Error(columns)
	}
	want := [][]string{{"1", "2026-01-02 03:04:05.6+00", "2026-01-02 03:04:05", "2026-01-02", "1.50", "t", `\xc3`, `["x","ä"]`}, {"2", Null, Null, Null, Null, Null, Null, Null}}
	if !slices.EqualFunc(rows, want, slices.Equal) {
		t.Error(rows)
	}
}

func TestNessieAnswers(t *testing.T) {
	t.Parallel()
	n := Nessie(t)
	reply, err := http.Get(n.URI + "/v1/config?warehouse=" + nessieWarehouse)
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		t.Error(reply.Status)
	}
}
