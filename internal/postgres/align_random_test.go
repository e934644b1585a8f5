package postgres_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// alteration changes the table t in one way that keeps at least one column.
func alteration(r *rand.Rand, t *change.Table, n int) string {
	pick := func() string { return t.Columns[r.IntN(len(t.Columns))].Name }
	types := []string{"integer", "bigint", "text", "date"}
	switch c := pick(); r.IntN(7) {
	case 0, 1:
		return fmt.Sprintf("alter table %s add c%d %s", t.Name, n, types[r.IntN(len(types))])
	case 2:
		if len(t.Columns) > 1 {
			return fmt.Sprintf("alter table %s drop %s", t.Name, c)
		}
	case 3:
		return fmt.Sprintf("alter table %s rename %s to r%d", t.Name, c, n)
	case 4: // the name of a column that is or was
		if old := fmt.Sprint("c", r.IntN(n)); !slices.ContainsFunc(t.Columns, func(k change.Column) bool { return k.Name == old }) {
			return fmt.Sprintf("alter table %s rename %s to %s", t.Name, c, old)
		}
	case 5:
		if other := pick(); other != c {
			return fmt.Sprintf("alter table %[1]s rename %[2]s to tmp; alter table %[1]s rename %[3]s to %[2]s; alter table %[1]s rename tmp to %[3]s", t.Name, c, other)
		}
	case 6:
		return fmt.Sprintf("alter table %s alter %s type text using null", t.Name, c)
	}
	return ""
}

func attnumsOf(t *change.Table) (list []int16) {
	for _, c := range t.Columns {
		list = append(list, c.Attnum)
	}
	return list
}

// Whatever happened to a table between what was known, what the log tells and what the catalog says now: the columns that
// were there all the time are found, and where the catalog is not ahead of the log all are.
func TestRandomAlterationsAreFollowedByAttnum(t *testing.T) {
	t.Parallel()
	const seeds, steps = 6, 25
	db := testlab.Postgres(t)
	source := sourceOf(t, db)
	for seed := range uint64(seeds) {
		db.Exec(fmt.Sprintf("create table t%d (c0 integer, c1 text, c2 integer)", seed))
	}
	db.Exec("create publication leat for all tables")
	db.Exec("select pg_create_logical_replication_slot('" + db.Name + "', 'pgoutput')")
	catalog := source.Catalog()
	truth := map[string][]*change.Table{}
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 1))
		var oid uint32
		fmt.Sscan(db.One(fmt.Sprintf("select 't%d'::regclass::oid", seed)), &oid)
		for step := range steps {
			table, err := catalog.Table(t.Context(), oid)
			if err != nil {
				t.Fatal(err)
			}
			for range r.IntN(3) {
				if sql := alteration(r, table, 10*step+len(truth)+3+r.IntN(1000)*1000); sql != "" {
					db.Exec(sql)
				}
				if table, err = catalog.Table(t.Context(), oid); err != nil {
					t.Fatal(err)
				}
			}
			db.Exec("insert into " + table.Name + " default values")
			truth[table.Name] = append(truth[table.Name], table)
		}
	}
	told := map[string][]*postgres.Relation{}
	by := map[string][]uint32{}
	events(t, db, source, postgres.LogOptions{Slot: db.Name, Publications: []string{"leat"}}, func(e *postgres.Event) {
		if e.Kind == postgres.EventInsert {
			told[e.Relation.Name] = append(told[e.Relation.Name], e.Relation)
			by[e.Relation.Name] = append(by[e.Relation.Name], e.Tx.XID)
		}
	})
	exact, all := 0, 0
	for name, tables := range truth {
		if len(told[name]) != steps {
			t.Fatalf("%s: the log has %d rows", name, len(told[name]))
		}
		for i, rel := range told[name] {
			for k := range i + 1 {
				for j := i; j < min(steps, i+4); j++ {
					want, known, now := attnumsOf(tables[i]), tables[k], tables[j]
					table, err := postgres.AlignAt(known, now, rel, postgres.Moment{})
					if err != nil {
						t.Errorf("%s: known %v, now %v, log %v: %v", name, attnumsOf(known), attnumsOf(now), want, err)
						continue
					}
					traced, err := postgres.AlignAt(known, now, rel, postgres.Moment{XID: by[name][i]})
					if err != nil || !slices.Equal(attnumsOf(traced), want) {
						t.Errorf("%s: known %v, now %v: the log's columns %v of transaction %d were taken for %v (%v)", name, known.Columns, now.Columns, want, by[name][i], attnumsOf(traced), err)
					}
					got := attnumsOf(table)
					all++
					if slices.Equal(got, want) {
						exact++
						continue
					}
					for c, n := range want {
						stayed := slices.Contains(attnumsOf(known), n) && slices.Contains(attnumsOf(now), n)
						if got[c] != n && (stayed || i == j) {
							t.Errorf("%s: known %v, now %v: the log's columns %v were taken for %v", name, known.Columns, now.Columns, want, got)
						}
					}
				}
			}
		}
	}
	t.Logf("%d of %d alignments are exact to the last column", exact, all)
	if exact*100 < all*95 {
		t.Errorf("only %d of %d alignments are exact", exact, all)
	}
}
