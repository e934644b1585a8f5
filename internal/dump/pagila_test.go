package dump_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

func TestPagilaComesBackRowForRow(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Load(testlab.Pagila(t))
	source := connect(t, db)
	for _, kind := range format.Kinds {
		for _, roots := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, partitions as one: %t", kind, roots), func(t *testing.T) {
				selection := in("public")
				selection.PartitionRoots = roots
				d := take(t, source, dump.Options{Format: kind, Selection: selection})
				j := newJudge(t, db)
				for _, table := range d.Tables {
					j.same(d, table)
				}
				paymentsAreThereOnce(t, db, d, roots)
				if got := d.table(t, "public", "country"); got.ReplicaIdentity != "n" || got.Rows == 0 {
					t.Errorf("country, which has no replica identity, stands in the manifest with %q and %d rows", got.ReplicaIdentity, got.Rows)
				}
			})
		}
	}
}

func paymentsAreThereOnce(t *testing.T, db *testlab.DB, d taken, roots bool) {
	t.Helper()
	rows, tables := int64(0), 0
	for _, table := range d.Tables {
		if table.Kind != "view" && table.Kind != "materialized view" && strings.HasPrefix(table.Name, "payment") {
			rows += table.Rows
			tables++
		}
	}
	if want := db.One("select count(*) from payment"); fmt.Sprint(rows) != want || (tables == 1) != roots {
		t.Errorf("payment: %d rows in %d tables; the source has %s", rows, tables, want)
	}
}
