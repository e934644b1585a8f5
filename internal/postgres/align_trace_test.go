package postgres_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// A copy is of a later snapshot than the rows that wait for it: what was dropped in between is in the rows alone.
func TestAColumnThatWasDroppedBetweenTheRowAndTheCopyIsToldFromItsNeighbours(t *testing.T) {
	t.Parallel()
	column := func(attnum int16, name string) change.Column {
		return change.Column{Name: name, Attnum: attnum, TypeOID: 25, Typmod: -1, Type: "text"}
	}
	known := &change.Table{Columns: []change.Column{column(1, "id"), column(2, "v"), column(4, "g"), column(5, "d")}}
	now := *known
	now.Traces = []change.Trace{{Attnum: 1, By: 10}, {Attnum: 2, By: 10}, {Attnum: 3, By: 100, Dropped: true}, {Attnum: 4, By: 110}, {Attnum: 5, By: 120}}
	numbers := func(xid uint32, names ...string) []int16 {
		t.Helper()
		rel := &postgres.Relation{}
		for _, name := range names {
			rel.Columns = append(rel.Columns, postgres.RelationColumn{Name: name, TypeOID: 25, Typmod: -1})
		}
		found, err := postgres.AlignAt(known, &now, rel, postgres.Moment{XID: xid, Behind: true})
		if err != nil {
			t.Fatal(err)
		}
		var out []int16
		for _, c := range found.Columns {
			out = append(out, c.Attnum)
		}
		return out
	}
	if got := numbers(50, "id", "v", "c", "g"); !slices.Equal(got, []int16{1, 2, 3, 4}) {
		t.Errorf("before it was dropped: %v", got)
	}
	if got := numbers(50, "id", "v", "x", "y"); !slices.Equal(got, []int16{1, 2, 3, 4}) {
		t.Errorf("with names that were changed since: %v", got)
	}
	if got := numbers(105, "id", "v", "g"); !slices.Equal(got, []int16{1, 2, 4}) {
		t.Errorf("after it: %v", got)
	}
	if got := numbers(130, "id", "v", "g", "d"); !slices.Equal(got, []int16{1, 2, 4, 5}) {
		t.Errorf("at last: %v", got)
	}
}

// A frozen row keeps the number of its transaction, and after 2^31 others that looks like a later one.
func TestWhatTheCatalogHasFrozenWasWrittenLongAgo(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.OwnPostgres(t, testlab.ServerOptions{Major: major}) // without slots of others, which keep rows from being frozen
			db.Exec("create table leat_t (id int primary key, v text, gone int); alter table leat_t drop column gone")
			db.Exec("vacuum freeze pg_attribute")
			db.Exec("alter table leat_t add column new int")
			tables, err := sourceOf(t, db).Catalog().Tables(t.Context(), tablesLike("leat"))
			must(t, err)
			for _, trace := range tables[0].Traces {
				if frozen := trace.By == 0; frozen != (trace.Attnum != 4) || frozen && trace.After(1<<31+5) {
					t.Errorf("%+v", trace)
				}
			}
		})
	}
}
