package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// candidate is a table that the selection gives, and whether it can be followed.
type candidate struct {
	source *change.Table
	table  *table // nil where a policy leaves it out
	whole  bool   // its updates and deletes can be published
	why    error  // it cannot be followed; nil if it can
	sql    []string
}

// chooseTables decides which tables are followed, and in which mode each begins: a table that is new, or that is
// to be copied again, is diverted from this position on and copied.
//
// Whether a table can be followed is asked here alone, before anything is made at the server, and of each table by itself.
func (r *run) chooseTables(ctx context.Context, next *again) error {
	if err := r.sameServer(ctx, next); err != nil {
		return err
	}
	catalog := r.source.Catalog()
	chosen, err := catalog.Tables(ctx, r.selection())
	if err != nil {
		return err
	}
	all, err := r.candidates(ctx, catalog, chosen, next)
	if err != nil {
		return err
	}
	if err := r.bar(ctx, all); err != nil {
		return err
	}
	if err := r.leaveOut(all, next); err != nil {
		return err
	}
	var full, inserts []*change.Table
	for _, c := range all {
		if c.why != nil || c.table == nil {
			continue
		}
		r.tables[c.table.key] = c.table
		switch {
		case c.table.recopied: // the log has no word for it
			continue
		case c.whole:
			full = append(full, c.source)
		default:
			inserts = append(inserts, c.source)
		}
		r.byOID[c.source.OID] = c.table
	}
	if len(r.tables) == 0 {
		return r.noTable(all)
	}
	if err := r.publishWatched(ctx, full, inserts, next); err != nil {
		return err
	}
	r.noteGenerated(next)
	for _, t := range r.tables {
		if plan, err := catalog.Plan(ctx, r.published(t.source), r.o.Policies); err == nil && !plan.CanBinary() && !next.text && !t.recopied {
			r.o.Log.Info("values of the log are taken as text: a column's type has no exact binary form", "table", t.name)
			next.text = true
		}
	}
	r.restoreModes(next)
	for _, t := range r.byOID {
		r.watchClaim(t)
	}
	r.tellOfRecopied(next)
	return nil
}

// noTable is the error of a run that has nothing to follow: the reason of the first that was left out, if any was.
// A pipeline at work waits for one that has lost its identity.
func (r *run) noTable(all []*candidate) error {
	var loose []*candidate
	for _, c := range all {
		switch {
		case fault.Is(c.why, fault.KeyMissing):
			loose = append(loose, c)
		case c.why != nil:
			return c.why
		}
	}
	if len(loose) > 0 && len(r.state.Tables) > 0 && !r.o.UntilCaughtUp {
		f := fault.Of(together(loose))
		return fault.New(fault.SourceBusy, f.Where, "no table is left to follow: there is no replica identity, and the run waits for one").WithMend("%s", f.HowToMend())
	}
	if len(loose) > 0 {
		return together(loose)
	}
	return fault.New(fault.SourceMissing, "run.tables", "no table matches").WithMend("Check the patterns, and whether the tables have a primary key (run.without_identity).")
}

// candidates asks of each table whether it can be followed.
func (r *run) candidates(ctx context.Context, catalog *postgres.Catalog, chosen []*change.Table, next *again) (all []*candidate, err error) {
	r.chosen = map[postgres.Seen]bool{}
	for _, source := range chosen {
		r.chosen[postgres.Seen{
			OID: source.OID, Name: postgres.Name{Schema: source.Schema, Name: source.Name}, Unlogged: source.Unlogged,
			Identified: source.ReplicaIdentity == 'f' || len(source.Identity()) > 0,
		}] = true
		if source.Kind != change.KindTable && source.Kind != change.KindPartitioned {
			continue // views and foreign tables have no log
		}
		if source.Unlogged {
			r.o.Log.Warn("left out: the log does not tell of unlogged tables", "table", source.String())
			continue
		}
		all = append(all, r.identify(source))
	}
	if err := r.identifyLeaves(ctx, catalog, all); err != nil {
		return nil, err
	}
	given, err := r.source.Published(ctx, []string{r.o.Publication, r.o.Publication + insertsSuffix})
	if err != nil {
		return nil, err
	}
	r.gives = byName(given)
	if err := r.readGenerated(ctx, catalog, all, next); err != nil {
		return nil, err
	}
	if err := r.judge(ctx, catalog, all); err != nil {
		return nil, err
	}
	for _, c := range all {
		if c.table == nil {
			continue
		}
		if slices.Contains(next.tables, c.table.name) || slices.Contains(next.tables, c.table.key) || next.all { // it is to be tried again
			delete(next.left, c.table.name)
			delete(r.state.Held, c.table.name)
		}
		if c.why == nil {
			c.why = r.leftBefore(c.table.name, next)
		}
		if why := next.locked[c.table.name]; why != nil && c.why == nil {
			c.why, r.locked = why, append(r.locked, c.source)
		}
		if was := r.state.Tables[c.table.key]; !was.Recopied.IsZero() && !c.table.recopied { // the log tells of it from now on
			delete(r.state.Tables, c.table.key)
		}
	}
	return all, nil
}

// leftBefore says why an earlier attempt has left a table out because of what the lake has of it. What another program wrote there is kept
// until an operator asks for a copy, also by a process that is started later.
func (r *run) leftBefore(name string, next *again) error {
	why := next.left[name]
	if why != nil && slices.Contains(next.held, name) {
		if r.state.Held == nil {
			r.state.Held = map[string]string{}
		}
		r.state.Held[name] = fault.Of(why).What
	}
	if r.o.ForeignWrites != ForeignStop {
		delete(r.state.Held, name)
	}
	if held := r.state.Held[name]; why == nil && held != "" {
		return heldBack(name, held)
	}
	return why
}

// heldBack is the error of a table that stays as another program has left it.
func heldBack(name, why string) *fault.Fault {
	return fault.New(fault.LakeForeign, name, "%s", why).
		WithMend("Copy the table again: leat resync --table %s; or let others write: --set lake.foreign_writes=warn.", fault.Shell(name))
}

// identify decides what is kept of a table and how its rows are known.
func (r *run) identify(source *change.Table) *candidate {
	c := &candidate{source: source}
	c.table, c.whole, c.why = r.newTable(source)
	if c.why != nil {
		c.sql = []string{identitySQL(source.Schema, source.Name)}
	}
	return c
}

// newTable decides what is kept of a table; nil leaves it out. whole says that its updates and deletes can be published.
func (r *run) newTable(source *change.Table) (t *table, whole bool, err error) {
	t = &table{name: source.String(), key: source.KeyName(), source: source, keep: r.o.Keep(source.Schema, source.Name), mode: checkpoint.Copying}
	if source.ReplicaIdentity == 'f' || len(source.Identity()) > 0 {
		return t, true, nil
	}
	switch r.o.Identityless {
	case "skip":
		r.o.Log.Warn("left out: the log cannot tell its updates and deletes", "table", t.name)
		return nil, false, nil
	case "inserts":
		r.o.Log.Warn("only inserts and truncates are followed: the log cannot tell updates and deletes", "table", t.name)
	case "recopy":
		return t, false, t.recopy()
	default:
		return t, false, withoutIdentity(source.String(), identitySQL(source.Schema, source.Name))
	}
	if t.keep.Auto {
		t.keep.Current = false
	}
	if t.keep.Current { // of inserts alone no latest state can be kept
		return t, false, withoutIdentity(source.String(), identitySQL(source.Schema, source.Name))
	}
	return t, false, nil
}

// identifyLeaves looks at the partitions of tables that are followed as one: a leaf of which the log tells less than of its root makes the
// root a table without an identity. Of a root that has none itself they are named too, since their identities are their own.
func (r *run) identifyLeaves(ctx context.Context, catalog *postgres.Catalog, all []*candidate) (err error) {
	roots := map[uint32]*candidate{}
	r.roots = nil
	for _, c := range all {
		if c.source.Kind == change.KindPartitioned && c.table != nil {
			roots[c.source.OID], r.roots = c, append(r.roots, c.source.OID)
		}
	}
	if r.leaves, err = catalog.Leaves(ctx, r.roots); err != nil {
		return err
	}
	weak := map[uint32][]string{}
	for _, l := range r.leaves {
		c := roots[l.Root]
		switch {
		case !l.Logged:
			if r.o.WithoutWAL == "refuse" && c.why == nil {
				c.why = unloggedLeaf(l)
			}
		case l.Weak && (c.whole || c.why != nil):
			weak[l.Root] = append(weak[l.Root], l.Schema+"."+l.Name)
			c.sql = append(c.sql, identitySQL(l.Schema, l.Name))
		}
	}
	for root, leaves := range weak {
		switch c := roots[root]; {
		case !c.whole:
			c.sql = append(c.sql[:1:1], leavesSQL(c.source, c.sql[1:])...)
			c.why = withoutIdentity(c.source.String()+", "+fewOf(leaves), c.sql...)
		case r.o.Identityless == "recopy":
			c.whole, c.why = false, c.table.recopy()
		default:
			c.sql = leavesSQL(c.source, c.sql)
			c.whole, c.why = false, weakLeaves(c.source.String(), leaves, c.sql)
		}
	}
	return nil
}

// judge asks the lake of each table that can be identified: whether it can hold the table in this definition, whether another one has its
// name, and, of tables that are new, whether another owner has it.
func (r *run) judge(ctx context.Context, catalog *postgres.Catalog, all []*candidate) error {
	places := map[string]*candidate{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(looksAtOnce)
	known := func(c *candidate) bool { _, is := r.state.Tables[c.source.KeyName()]; return is }
	order := slices.Clone(all)
	slices.SortStableFunc(order, func(a, b *candidate) int { // who was first keeps a name
		if known(a) != known(b) && known(a) {
			return -1
		} else if known(a) != known(b) {
			return 1
		}
		return 0
	})
	for _, c := range order {
		if c.table == nil || c.why != nil {
			continue
		}
		if err := r.fits(ctx, c); err != nil || c.why != nil {
			if err != nil {
				return errors.Join(err, g.Wait())
			}
			continue
		}
		plan, err := catalog.Plan(ctx, r.published(c.source), r.o.Policies)
		if heals(err) { // it is not about the table
			return errors.Join(err, g.Wait())
		}
		if err != nil {
			c.why = err
			continue
		}
		spec := r.spec(c.table, plan)
		if known(c) {
			spec = shapeOnly(spec)
		}
		if c.why = r.holds(c, spec, places); c.why != nil || known(c) || r.lake == nil {
			continue
		}
		g.Go(func() error {
			err := r.safely(c.source.String(), func() error { return r.lake.Look(gctx, spec) })
			if fault.Is(err, fault.LakeForeign) || isBroken(err) {
				c.why, err = err, nil
			}
			return err
		})
	}
	return g.Wait()
}

// looksAtOnce is how many tables the catalog is asked for at once.
const looksAtOnce = 8

// shapeOnly is the spec without its layout, which a table that is there was made with: its columns may be called otherwise by now.
func shapeOnly(spec lake.Spec) lake.Spec {
	spec.Partition, spec.Sort = nil, nil
	return spec
}

// holds says why the lake cannot hold a table in this definition, and claims its places there.
func (r *run) holds(c *candidate, spec lake.Spec, places map[string]*candidate) error {
	if r.o.Judge == nil {
		return nil
	}
	mine, err := r.o.Judge(spec)
	if err != nil {
		return err
	}
	for _, p := range mine {
		if other := places[p]; other != nil {
			return fault.New(fault.SchemaUnfollowable, c.source.String(), "the lake's table %s is that of %s", p, other.source).
				WithMend("Exclude one of the two (run.exclude), keep one form of %s only (run.keep_current, run.keep_history), or set lake.history_suffix before the first run.", other.source)
		}
	}
	for _, p := range mine {
		places[p] = c
	}
	return nil
}

// leaveOut says which tables are left out and why. The first start refuses a table that is named outright, and settings that do
// not fit: that is the moment to correct them. A pipeline at work goes on with the others.
func (r *run) leaveOut(all []*candidate, next *again) error {
	first := len(r.state.Tables) == 0
	var loose, refused []*candidate
	told := map[string]string{}
	for _, c := range all {
		if c.why == nil {
			continue
		}
		switch without := fault.Is(c.why, fault.KeyMissing); {
		case first && r.refuses(c) && without:
			refused = append(refused, c)
		case first && r.refuses(c):
			return c.why
		case without:
			loose = append(loose, c)
		}
		if isBroken(c.why) {
			next.also(&again{left: map[string]error{c.source.String(): c.why}})
		}
		told[c.source.String()] = c.why.Error()
	}
	if len(refused) > 0 {
		return together(refused)
	}
	r.state.LeftOut = told
	if maps.Equal(told, next.told) { // an earlier attempt has said so
		return nil
	}
	next.told = told
	for _, c := range all {
		if c.why != nil && !fault.Is(c.why, fault.KeyMissing) {
			r.o.Log.Warn("the table is left out: it cannot be followed as it is", "table", c.source.String(), "because", c.why, "hint", fault.Of(c.why).HowToMend())
		}
	}
	if len(loose) > 0 {
		f := fault.Of(together(loose))
		r.o.Log.Warn("tables are left out: the log cannot tell their updates and deletes", "tables", f.Where, "hint", f.HowToMend())
	}
	return nil
}

// refuses says whether a first start is refused because of a table that cannot be followed.
func (r *run) refuses(c *candidate) bool {
	named := r.o.Selection.Named
	return named == nil || named(postgres.Name{Schema: c.source.Schema, Name: c.source.Name}) || fault.Is(c.why, fault.ConfigInvalid)
}

// together is one error of all tables without an identity, with the SQL for all.
func together(all []*candidate) error {
	if len(all) == 1 {
		return all[0].why
	}
	var names, sql []string
	for _, c := range all {
		names, sql = append(names, fault.Of(c.why).Where), append(sql, c.sql...)
	}
	return withoutIdentity(strings.Join(names, ", "), sql...)
}

// withoutIdentity is the error of tables whose updates the log cannot tell, with the SQL that lets it.
func withoutIdentity(where string, sql ...string) *fault.Fault {
	return fault.New(fault.KeyMissing, where, "the log cannot tell updates and deletes: there is no primary key, or it is deferrable or has a generated column that the log does not have, or the replica identity is nothing").
		WithMend("%s Or exclude them, or choose run.without_identity: recopy, skip or inserts.", strings.Join(sql, " "))
}

// weakLeaves is the error of a table with partitions of which the log tells too little.
func weakLeaves(root string, leaves, sql []string) *fault.Fault {
	return fault.New(fault.KeyMissing, fewOf(leaves), "the partition's replica identity is weaker than its root's (%s): the log cannot tell its updates and deletes", root).
		WithMend("%s Or give them the root's key and identity.", strings.Join(sql, " "))
}

// fewNamed is how many partitions of a table are named, and have their SQL written out.
const fewNamed = 5

// fewOf names the first of the partitions, and says how many more there are.
func fewOf(leaves []string) string {
	if len(leaves) <= fewNamed {
		return strings.Join(leaves, ", ")
	}
	return fmt.Sprintf("%s and %d more partitions", strings.Join(leaves[:fewNamed], ", "), len(leaves)-fewNamed)
}

// leavesSQL is the SQL of the partitions of a table. Of many it is one statement for psql, which does it for all.
func leavesSQL(root *change.Table, all []string) []string {
	if len(all) <= fewNamed {
		return all
	}
	return []string{fmt.Sprintf("In psql, for the partitions of %s: SELECT format('ALTER TABLE %%s REPLICA IDENTITY FULL', c.oid::regclass) FROM pg_partition_tree(%d) t "+
		"JOIN pg_class c ON c.oid = t.relid WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f' \\gexec", root, root.OID)}
}

// identitySQL lets the log tell a table's updates and deletes.
func identitySQL(schema, name string) string {
	return "ALTER TABLE " + postgres.QuoteTable(schema, name) + " REPLICA IDENTITY FULL;"
}

// bar leaves out tables that the role may not read, and, once a pipeline is at work, those that the publication lacks and cannot
// be given: what others do in the database does not end it. A first start tells of the publication as a whole.
func (r *run) bar(ctx context.Context, all []*candidate) error {
	first := len(r.state.Tables) == 0
	var full, inserts []*change.Table
	asked := map[uint32]*candidate{}
	for _, c := range all {
		switch {
		case c.table == nil || c.why != nil:
			continue
		case c.whole:
			full = append(full, c.source)
		default:
			inserts = append(inserts, c.source)
		}
		asked[c.source.OID] = c
	}
	for _, o := range r.o.publications(full, inserts) {
		barred, err := r.source.Barred(ctx, o)
		if err != nil {
			return err
		}
		for oid, why := range barred {
			if c := asked[oid]; fault.Is(why, fault.SourceRights) || !first && !c.table.recopied {
				c.why = why
			}
		}
	}
	return nil
}

// fits tries the row filter and the column list of a table, of which the publication of all tables would fail.
func (r *run) fits(ctx context.Context, c *candidate) error {
	if !r.o.OwnPublication || r.source.InRecovery || r.source.Version < 150000 || c.table.recopied {
		return nil
	}
	full, inserts := []*change.Table{c.source}, []*change.Table(nil)
	if !c.whole {
		full, inserts = inserts, full
	}
	o := r.o.publications(full, inserts)[0]
	if len(o.RowFilters)+len(o.Columns) == 0 {
		return nil
	}
	err := r.source.TryTable(ctx, o)
	switch f := fault.Of(err); {
	case fault.Is(err, fault.KeyMissing):
		c.why = fault.New(fault.PublicationUnusable, f.Where, "%s", f.What).WithMend("%s", f.HowToMend())
	case fault.Is(err, fault.PublicationUnusable):
		c.why = err
	default:
		return err
	}
	return nil
}

// ofTable says whether an error is about one table in the lake, so that the others can go on without it.
func ofTable(err error) bool {
	return fault.Is(err, fault.LakeForeign) || fault.Is(err, fault.LakeAltered) || isBroken(err)
}

// isBroken says whether a table cannot be worked on because of what lies in its files, or because leat itself failed at it. A run that ends
// says so in its exit status: the table is not kept on purpose as it is.
func isBroken(err error) bool { return fault.Is(err, fault.LakeUnreadable) || fault.Panicked(err) }

// safely does work on one table, whose panic is an error of that table.
func (r *run) safely(where string, work func() error) error {
	return fault.Catching(r.o.Log, where, work)()
}

// aside is safely; a table that is broken is left out of the next attempt.
func (r *run) aside(t *table, work func() error) error {
	err := uncomputable(t, r.safely(t.name, work))
	if isBroken(err) {
		return r.alone(t, err)
	}
	return err
}

// alone turns an error that is about one table into another attempt, which leaves it out. A table that was named outright when the
// pipeline began was refused before.
func (r *run) alone(t *table, err error) error {
	if !ofTable(err) || t.key == "" { // logical messages have a table that none is chosen for
		return err
	}
	return &again{left: map[string]error{t.name: err}}
}
