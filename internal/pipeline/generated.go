package pipeline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// generated are the columns of a table that the server computes; those that are not published are left out of copy and log alike.
func generated(t *change.Table) (columns []change.Column) {
	for _, c := range t.Columns {
		if c.Generated != 0 {
			columns = append(columns, c)
		}
	}
	return columns
}

// noteGenerated says which computed columns of the tables the lake does not get, and keeps them in mind: one that is no longer computed
// (DROP EXPRESSION) comes into the log with its next row, and the rows that are there have values in it that the log never told.
func (r *run) noteGenerated() {
	for key, t := range r.tables {
		t.leftOut = slices.Clone(r.state.Tables[key].LeftOut)
		if r.state.Tables[key].OID != t.source.OID {
			t.leftOut = nil
		}
		given := r.published(t.source)
		var names []string
		for _, c := range generated(t.source) {
			if !slices.ContainsFunc(given.Columns, func(g change.Column) bool { return g.Attnum == c.Attnum }) {
				names = append(names, c.Name)
				t.leaveOut(c.Attnum)
			}
		}
		if len(names) > 0 {
			r.o.Log.Info("generated columns are left out: the log does not have them", "table", t.name, "columns", strings.Join(names, ", "))
		}
	}
}

func (t *table) leaveOut(attnum int16) {
	if !slices.Contains(t.leftOut, attnum) {
		t.leftOut = append(t.leftOut, attnum)
	}
}

// wasComputed copies a table again when a column comes into the log that was computed and left out before: rows that are there have
// values in it.
func (r *run) wasComputed(t *table, s postgres.SchemaStep) error {
	if s.Kind != postgres.StepAdded || !slices.Contains(t.leftOut, s.To.Attnum) {
		return nil
	}
	return r.anew(t, "a generated column, which was left out, is an ordinary one now: "+s.To.Name)
}

// generated tells which computed columns of a table the lake would not get.
func (c *checker) generated(t *change.Table, published []postgres.PublishedTable) {
	stored := c.o.OwnPublication && c.source.Version >= 180000 || slices.ContainsFunc(published, func(p postgres.PublishedTable) bool {
		return p.Schema == t.Schema && p.Name == t.Name && p.Generated
	})
	only := c.o.ColumnList(t.Schema, t.Name)
	var names []string
	for _, g := range generated(t) {
		if g.Generated != 's' || !stored && !slices.Contains(only, g.Name) {
			names = append(names, g.Name)
		}
	}
	if len(names) == 0 {
		return
	}
	mend := "Compute them in a view on the lake. Stored ones are followed from PostgreSQL 18 on, where the publication says publish_generated_columns = stored, as leat's own does."
	c.add("generated-columns", fault.SeverityInfo, t.String(), mend, fmt.Sprintf("generated columns are left out, in copy and log alike: %s", strings.Join(names, ", ")))
}
