package postgres_test

import (
	"slices"
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/postgres"
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
