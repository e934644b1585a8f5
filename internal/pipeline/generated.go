package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// GeneratedPolicy says what becomes of generated columns that the log does not have.
type GeneratedPolicy string

// The choices.
const (
	GeneratedCompute  GeneratedPolicy = "compute"   // the server computes them from the rows that the log tells
	GeneratedLeaveOut GeneratedPolicy = "leave_out" // of copy and log alike
)

// generated are the columns of a table that the server computes.
func generated(t *change.Table) (columns []change.Column) {
	for _, c := range t.Columns {
		if c.Generated != 0 {
			columns = append(columns, c)
		}
	}
	return columns
}

// readGenerated learns how the generated columns of tables are computed that the log does not have. The identity of such a table is what
// the log tells of it.
func (r *run) readGenerated(ctx context.Context, catalog *postgres.Catalog, all []*candidate, next *again) error {
	r.expressions = map[uint32]*postgres.Expressions{}
	for _, c := range all {
		if c.table == nil || len(r.untoldGenerated(c.source)) == 0 {
			continue
		}
		x, err := catalog.Generated(ctx, c.source)
		if err != nil {
			return err
		}
		if why := next.uncomputed[c.table.name]; why != "" {
			for i := range x.List {
				x.List[i].Why, x.List[i].Hint = why, "leat resync --table "+c.table.name+", or the next start, tries it again."
			}
		}
		r.expressions[c.source.OID] = x
		if identifyLogged(c.source, x, r.untoldGenerated(c.source)) && c.why == nil && c.whole {
			*c = *r.identify(c.source)
		}
	}
	return nil
}

// untoldGenerated are the generated columns of a table that the log does not have.
func (r *run) untoldGenerated(t *change.Table) []change.Column {
	gives := r.givesOf(t)
	return slices.DeleteFunc(generated(t), func(c change.Column) bool {
		if len(gives.Columns) > 0 {
			return slices.Contains(gives.Columns, c.Name)
		}
		return c.Generated == 's' && gives.Generated
	})
}

// identifyLogged takes generated columns that the log does not have out of the identity, and says whether it has. Without them the rest is
// an identity if it is all that they are computed from. A row that is told as a whole is known by its other columns.
func identifyLogged(t *change.Table, x *postgres.Expressions, untold []change.Column) bool {
	isUntold := func(attnum int16) bool {
		return slices.ContainsFunc(untold, func(c change.Column) bool { return c.Attnum == attnum })
	}
	changed := false
	for _, identity := range []*[]int16{&t.Key, &t.IdentityIndex} {
		rest := slices.DeleteFunc(slices.Clone(*identity), isUntold)
		if len(rest) == len(*identity) {
			continue
		}
		changed = true
		if t.ReplicaIdentity == 'f' || !determines(rest, *identity, x) {
			rest = nil
		}
		*identity = rest
	}
	return changed
}

// determines says whether columns tell what the generated ones among others are.
func determines(rest, all []int16, x *postgres.Expressions) bool {
	for _, attnum := range all {
		if slices.Contains(rest, attnum) {
			continue
		}
		i := slices.IndexFunc(x.List, func(g postgres.Generated) bool { return g.Column.Attnum == attnum })
		if i < 0 || slices.ContainsFunc(x.List[i].Inputs, func(in int16) bool { return !slices.Contains(rest, in) }) {
			return false
		}
	}
	return len(rest) > 0
}

// computes says whether a generated column that the log does not have is computed; if not, why and what helps. A table that is copied
// again on a schedule has no need of it: its copies have all columns.
func (r *run) computes(t *change.Table, c change.Column) (yes bool, why, hint string) {
	x := r.expressions[t.OID]
	switch {
	case r.o.Generated != GeneratedCompute:
		return false, leftByChoice, "run.generated: compute lets the server compute them from the rows of the log."
	case len(r.givesOf(t).Columns) > 0:
		return false, leftByList, "Name no columns, or compute them in a view on the lake."
	case x == nil:
		return false, "", ""
	}
	for _, g := range x.List {
		if g.Column.Attnum == c.Attnum {
			return g.Why == "", g.Why, g.Hint
		}
	}
	return false, "", ""
}

// Why columns are left out that could be computed.
const (
	leftByChoice = "run.generated is leave_out"
	leftByList   = "the list of columns to publish does not have them"
)

// cannot says whether a reason to leave a column out is anything else than a choice.
func (r *run) cannot(why string) bool { return why != leftByChoice && why != leftByList }

// givesOf is what the publications give of a table, or will give.
func (r *run) givesOf(t *change.Table) postgres.PublishedTable {
	gives, is := r.gives[postgres.Name{Schema: t.Schema, Name: t.Name}]
	if !is && r.o.OwnPublication && r.o.ColumnList != nil {
		gives.Columns = r.o.ColumnList(t.Schema, t.Name)
	}
	gives.Generated = gives.Generated || r.o.OwnPublication && r.source != nil && r.source.Version >= 180000
	return gives
}

// published is the table as it is followed: without columns that the publication leaves out, with those that are computed, and with the
// identity that the log tells.
func (r *run) published(source *change.Table) *change.Table {
	t := *source
	gives := r.givesOf(source)
	recopied := false
	if is := r.tables[source.KeyName()]; is != nil {
		recopied = is.recopied && r.o.Generated == GeneratedCompute
	}
	t.Columns = nil
	for _, c := range source.Columns {
		switch {
		case len(gives.Columns) > 0:
			if slices.Contains(gives.Columns, c.Name) {
				t.Columns = append(t.Columns, c)
			}
		case c.Generated == 0 || c.Generated == 's' && gives.Generated || recopied:
			t.Columns = append(t.Columns, c)
		default:
			if yes, _, _ := r.computes(source, c); yes {
				c.Computed = true
				t.Columns = append(t.Columns, c)
			}
		}
	}
	if x := r.expressions[source.OID]; x != nil {
		identifyLogged(&t, x, r.untoldGenerated(source))
	}
	return &t
}

// noteGenerated says which generated columns of the tables the lake does not get, and keeps them in mind: one that comes into the lake
// later has values in the rows that are there.
func (r *run) noteGenerated(next *again) {
	for key, t := range r.tables {
		t.leftOut = slices.Clone(r.state.Tables[key].LeftOut)
		if r.state.Tables[key].OID != t.source.OID {
			t.leftOut = nil
		}
		given := r.published(t.source)
		byWhy := map[[2]string][]string{}
		for _, c := range generated(t.source) {
			if slices.ContainsFunc(given.Columns, func(g change.Column) bool { return g.Attnum == c.Attnum }) {
				continue
			}
			_, why, hint := r.computes(t.source, c)
			byWhy[[2]string{why, hint}] = append(byWhy[[2]string{why, hint}], c.Name)
			t.leaveOut(c.Attnum)
		}
		for why, names := range byWhy {
			what := t.name + ": " + strings.Join(names, ", ")
			if slices.Contains(next.toldGenerated, what) { // an earlier attempt has said so
				continue
			}
			next.toldGenerated = append(next.toldGenerated, what)
			level := slog.LevelInfo // they were chosen to be left out
			if r.cannot(why[0]) {
				level = slog.LevelWarn
			}
			r.o.Log.Log(context.Background(), level, "generated columns are left out, in copy and log alike: the log does not have them",
				"table", t.name, "columns", strings.Join(names, ", "), "because", why[0], "hint", why[1])
		}
	}
}

// takesIn says whether a column that was left out is followed now, and forgets that it was.
func (r *run) takesIn(t *table) bool {
	in := false
	for _, c := range r.published(t.source).Columns {
		if c.Generated != 0 && slices.Contains(t.leftOut, c.Attnum) {
			in = true
			t.leftOut = slices.DeleteFunc(t.leftOut, func(n int16) bool { return n == c.Attnum })
		}
	}
	return in
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
	return r.anew(t, "a generated column, which was left out, is in the log now: "+s.To.Name)
}

// logged is a table without the columns that the log does not have.
func logged(t *change.Table) *change.Table {
	l := *t
	l.Columns = slices.DeleteFunc(slices.Clone(t.Columns), func(c change.Column) bool { return c.Computed })
	return &l
}

// computedOf adds the computed columns to a table as the log tells it, in their places. It copies the table again where rows that are in
// the lake have other values in one than are computed now.
func (r *run) computedOf(ctx context.Context, t *table, shape, now *change.Table, catalog *postgres.Catalog) (*change.Table, *postgres.Expressions, error) {
	if now == nil {
		return shape, nil, nil
	}
	told := func(attnum int16) bool {
		return slices.ContainsFunc(shape.Columns, func(c change.Column) bool { return c.Attnum == attnum })
	}
	var before []change.Column
	for _, c := range known(t).Columns {
		if c.Computed {
			before = append(before, c)
		}
	}
	if len(before) == 0 && !slices.ContainsFunc(generated(now), func(c change.Column) bool { return !told(c.Attnum) }) {
		return shape, nil, nil
	}
	x, err := catalog.Generated(ctx, now)
	if err != nil {
		return nil, nil, err
	}
	if err := r.sameExpressions(t, before, now, x); err != nil {
		return nil, nil, err
	}
	if is := *now; shape.ReplicaIdentity != 'f' && identifyLogged(&is, x, r.untoldGenerated(now)) && len(is.Identity()) == 0 {
		return nil, nil, r.anew(t, "its identity has a generated column, which the log does not have")
	}
	full, computed := *shape, false
	full.Columns = slices.Clone(shape.Columns)
	for _, g := range x.List {
		was := slices.ContainsFunc(before, func(c change.Column) bool { return c.Attnum == g.Column.Attnum })
		switch {
		case told(g.Column.Attnum) || !r.computable(t, g):
			continue
		case !slices.ContainsFunc(g.Inputs, func(in int16) bool { return !told(in) }):
			c := g.Column
			c.Computed, computed = true, true
			full.Columns = append(full.Columns, c)
		case was:
			return nil, nil, r.anew(t, "the log tells of its definition before that of the copy, and lacks a column that another one is computed from: "+g.Column.Name)
		}
	}
	if !computed {
		return shape, nil, nil
	}
	slices.SortFunc(full.Columns, func(a, b change.Column) int { return int(a.Attnum) - int(b.Attnum) })
	return &full, x, nil
}

// computable says whether a generated column is computed, which may have been made since the attempt began.
func (r *run) computable(t *table, g postgres.Generated) bool {
	if x := r.expressions[t.source.OID]; x != nil && slices.ContainsFunc(x.List, func(was postgres.Generated) bool { return was.Column.Attnum == g.Column.Attnum }) {
		yes, _, _ := r.computes(t.source, g.Column)
		return yes
	}
	return r.o.Generated == GeneratedCompute && len(r.givesOf(t.source).Columns) == 0 && g.Why == ""
}

// sameExpressions copies a table again of which computed columns are computed otherwise now than when the attempt began, or are not
// generated any more.
func (r *run) sameExpressions(t *table, before []change.Column, now *change.Table, x *postgres.Expressions) error {
	version := func(x *postgres.Expressions, attnum int16) string {
		for _, g := range x.List {
			if g.Column.Attnum == attnum {
				return g.Version + " " + g.Why
			}
		}
		return ""
	}
	for _, c := range before {
		i := slices.IndexFunc(now.Columns, func(n change.Column) bool { return n.Attnum == c.Attnum })
		switch computes, _, _ := r.computes(t.source, c); {
		case i < 0:
		case now.Columns[i].Generated == 0:
			return r.anew(t, "a generated column is an ordinary one now: "+c.Name)
		case computes && version(r.expressions[t.source.OID], c.Attnum) != version(x, c.Attnum):
			return r.anew(t, "a generated column is computed in another way now: "+c.Name)
		}
	}
	return nil
}

// newBuilder makes what collects the rows of a relation. Where columns are computed, the rows come without them.
func (r *run) newBuilder(ctx context.Context, plan *postgres.Plan, shape *change.Table, rel *postgres.Relation, catalog *postgres.Catalog, x *postgres.Expressions) (builder, error) {
	if x == nil {
		return postgres.NewChangesBuilder(plan, rel)
	}
	of, err := catalog.Plan(ctx, shape, r.o.Policies)
	if err != nil {
		return nil, err
	}
	return postgres.NewComputing(plan, of, rel, x)
}

// write hands changes to the lake, with the computed columns.
func (t *table) write(ctx context.Context, changes *change.Changes, watch Watcher, e *postgres.Evaluator) error {
	c, computes := t.builder.(*postgres.Computing)
	if !computes {
		t.wentAside(watch, changes)
		return t.lake.Write(ctx, changes)
	}
	for from := 0; from < changes.Len(); {
		part, err := c.Complete(ctx, e, changes, from)
		if err != nil {
			return err
		}
		from += part.Len()
		t.wentAside(watch, part)
		err = t.lake.Write(ctx, part)
		part.Rows.Release()
		if part.Old != nil {
			part.Old.Release()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// computeRest computes what had to wait for values that the log left out.
func (r *run) computeRest(ctx context.Context, t *table, changes *change.Changes) (*change.Changes, []string, error) {
	c, computes := t.builder.(*postgres.Computing)
	if !computes {
		return changes, nil, nil
	}
	return c.Resume(ctx, r.evaluator, changes)
}

// uncomputable turns the server's refusal to compute generated columns into another attempt, which leaves those of the table out.
func uncomputable(t *table, err error) error {
	if u := (*postgres.Uncomputable)(nil); errors.As(err, &u) {
		return &again{uncomputed: map[string]string{t.name: u.Error()}}
	}
	return err
}

// generated tells what a run does with the generated columns of a table that the log does not have.
func (c *checker) generated(t *change.Table) {
	var computed []string
	byWhy := map[[2]string][]string{}
	for _, g := range c.untoldGenerated(t) {
		if yes, why, hint := c.computes(t, g); yes {
			computed = append(computed, g.Name)
		} else {
			byWhy[[2]string{why, hint}] = append(byWhy[[2]string{why, hint}], g.Name)
		}
	}
	if len(computed) > 0 {
		c.add("generated-columns", fault.SeverityInfo, t.String(), "Nothing. run.generated: leave_out leaves them out.",
			fmt.Sprintf("the log does not have generated columns, which the server computes from the rows that it tells: %s", strings.Join(computed, ", ")))
	}
	for why, names := range byWhy {
		hint := why[1]
		if hint == "" {
			hint = "Compute them in a view on the lake."
		}
		severity := fault.SeverityInfo
		if c.cannot(why[0]) {
			severity = fault.SeverityWarn
		}
		c.add("generated-columns", severity, t.String(), hint,
			fmt.Sprintf("generated columns are left out, in copy and log alike: %s (%s)", strings.Join(names, ", "), why[0]))
	}
}

// toldGenerated says whether the lake has the generated columns that are followed of a table as it is now.
func (r *run) toldGenerated(ctx context.Context, t *table, now *change.Table, catalog *postgres.Catalog) (bool, error) {
	if len(r.untoldGenerated(now)) == 0 {
		return true, nil
	}
	x, err := catalog.Generated(ctx, now)
	if err != nil {
		return false, err
	}
	lake := known(t).Columns
	return !slices.ContainsFunc(x.List, func(g postgres.Generated) bool {
		untold := slices.ContainsFunc(r.untoldGenerated(now), func(c change.Column) bool { return c.Attnum == g.Column.Attnum })
		return untold && r.computable(t, g) && !slices.ContainsFunc(lake, func(k change.Column) bool { return k.Attnum == g.Column.Attnum })
	}), nil
}

// computedColumns are the attnums of the columns that are computed, by the OID of their table.
func (r *run) computedColumns() map[uint32][]int16 {
	all := map[uint32][]int16{}
	for oid, t := range r.byOID {
		for _, c := range r.published(t.source).Columns {
			if c.Computed {
				all[oid] = append(all[oid], c.Attnum)
			}
		}
	}
	return all
}
