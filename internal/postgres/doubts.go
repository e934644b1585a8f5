package postgres

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Doubt is a reason why the WAL may not have told everything that happened to a table since a look that found it in
// order.
type Doubt struct {
	Table   uint32
	Because string
	// Published: it was not published, or not as it is now. What transactions of that time wrote may be told later
	// in part.
	Published bool
	// Truncated are transactions that may have done no more than a TRUNCATE that the WAL told. If all have, there
	// is no doubt.
	Truncated []uint32
	// Redefined: an ALTER TABLE gave columns another type, or made them, and wrote all rows again. If the WAL has told
	// the definition of now, with a row, there is no doubt.
	Redefined bool
	// Columns keep their type, and an ALTER TABLE may have given them other values when it wrote all rows again. If the lake has
	// what the rows have, there is no doubt.
	Columns []int16
	// Altered: an ALTER TABLE changed names or types of columns and wrote no row. If the WAL has not told the definition
	// of now, with a row, it can be taken from the catalog.
	Altered bool
}

// Republication is the reason for a doubt about what was published.
const Republication = "the publication was changed, or the table was taken out of it for a time"

// Certain says that nothing that the WAL has yet to tell can end the doubt.
func (d Doubt) Certain() bool {
	return len(d.Truncated)+len(d.Columns) == 0 && !d.Redefined && !d.Altered
}

// LookOptions say what to look at.
type LookOptions struct {
	Selection    Selection
	Roots        []uint32 // partitioned tables that are followed as one
	Publications []string
	Tables       []uint32 // those that are followed
	// Known are the facts of a look of before, and Horizon its Sight.Horizon; 0 when nobody knows.
	Known   map[uint32]Facts
	Horizon uint64
	// Leaves are all that is known of the partitions of a table without known facts.
	Leaves map[uint32][]uint32
	// Former are partitions that a table had once, and whose rows its copy may still have.
	Former map[uint32][]uint32
	// Claims are what messages of DDL events say of tables.
	Claims map[uint32]Claim
	// Generated says to look at generated columns too; Computed are those that are computed by their expression, by table.
	Generated bool
	Computed  map[uint32][]int16
}

// Sight is what there is at one moment: what is needed to notice that another look at the whole catalog is due, and
// whether the WAL has told everything until then.
type Sight struct {
	Seen    []Seen
	Leaves  []Leaf
	Facts   map[uint32]Facts // by OID
	Doubts  []Doubt          // at most one for each table
	At      change.LSN       // everything that is seen was written before
	Horizon uint64           // every transaction with a lower number had ended
	Judged  []uint32         // the tables whose claims were judged; of others a transaction is not visible yet
	Visible string           // pg_current_snapshot(): the transactions that had ended
	// Locked is why tables are not judged, and known as before: another session holds them. nil for none.
	Locked error

	written string // where the server's log ended before anything was read
}

// Look looks at the tables, and judges whether what has changed since the look of before can mean that the WAL did
// not tell all.
func (s *Source) Look(ctx context.Context, o LookOptions) (sight Sight, err error) {
	c := &Catalog{source: s}
	// Before the transaction takes its snapshot: what a standby replays in between must not count as seen.
	err = c.once(ctx, func(conn *pgconn.PgConn) error {
		rows, err := query(ctx, conn, "select "+writtenSQL)
		if err == nil {
			sight.written = string(rows[0][0])
		}
		return err
	})
	if err != nil {
		return sight, err
	}
	err = c.read(ctx, func(conn *pgconn.PgConn) error {
		rows, err := query(ctx, conn, "select "+s.visibilitySQL())
		if err != nil {
			return err
		}
		sight.Visible = string(rows[0][0])
		v, err := parseVisibility(sight.Visible)
		if err != nil {
			return err
		}
		sight.Horizon = v.xmin
		rels, err := s.relations(ctx, conn, o.Selection)
		if err != nil {
			return err
		}
		for _, r := range rels {
			sight.Seen = append(sight.Seen, Seen{OID: r.oid, Name: Name{r.schema, r.name}, Unlogged: r.unlogged, Identified: r.identified})
		}
		if len(o.Roots) > 0 {
			if sight.Leaves, err = leavesBelow(ctx, conn, o.Roots); err != nil {
				return err
			}
		}
		if rows, err = query(ctx, conn, "select "+logEndBy("pg_current_wal_lsn")); err != nil {
			return err
		}
		if sight.At, err = change.ParseLSN(string(rows[0][0])); err != nil {
			return err
		}
		if sight.Facts, err = s.facts(ctx, conn, o); err != nil {
			return err
		}
		j := &judge{conn: conn, options: o, next: v.xmax}
		for _, t := range slices.Sorted(slices.Values(o.Tables)) {
			if now, there := sight.Facts[t]; there {
				if err := j.sight(ctx, t, now, v, &sight); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return sight, err
}

// sumsSQL finds relations of which a look would find something else, although no transaction has ended since: VACUUM
// writes whether a relation has rules and triggers in place.
const sumsSQL = `
select from rows from (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::int4[])) w(oid, sum) left join pg_catalog.pg_class c on c.oid = w.oid
where c.oid is null or ` + sumOfClass + ` <> w.sum limit 1`

// Still says whether a look would find what an earlier one, with the same options, has found: without doubts, claims or
// locks. It costs next to nothing, and is true at rest.
//
// What a look reads is written by transactions, which get a number for it and end. So where the transactions that are
// visible are the same, the catalog is too. A standby does not tell which of them still run: there nothing may have
// been replayed. What is written in place, without a number, stands in the log, and of that a look reads no more than
// pg_class has in its sums; before 14 indexes are marked in place too.
func (s *Source) Still(ctx context.Context, was *Sight) (still bool, err error) {
	err = s.Catalog().once(ctx, func(conn *pgconn.PgConn) error {
		now, err := query(ctx, conn, "select "+s.visibilitySQL()+", "+writtenSQL)
		if err != nil || string(now[0][0]) != was.Visible {
			return err
		}
		written := string(now[0][1])
		switch {
		case written == was.written:
			still = true
			return nil
		case s.InRecovery || s.Version < 140000:
			return nil
		}
		var oids, sums []string
		for _, f := range was.Facts {
			for oid, r := range f.Relations {
				oids, sums = append(oids, strconv.FormatUint(uint64(oid), 10)), append(sums, strconv.FormatInt(int64(int32(r.Sum)), 10))
			}
		}
		rows, err := query(ctx, conn, sumsSQL, "{"+strings.Join(oids, ",")+"}", "{"+strings.Join(sums, ",")+"}")
		if err == nil && len(rows) == 0 {
			still, was.written = true, written
		}
		return err
	})
	return still, err
}

// patience is how long a look waits for a table that another session has locked.
const patience = "3s"

// sight judges one table, unless it has to wait for its lock: then it is left as it was known.
func (j *judge) sight(ctx context.Context, t uint32, now Facts, v visibility, sight *Sight) (err error) {
	was, known := j.options.knownOf(t, now)
	moved, claimed := known && !was.Equal(now), j.options.Claims[t].visible(v)
	if !moved && !claimed {
		return nil
	}
	if err := exec(ctx, j.conn, "savepoint judged; set local lock_timeout = '"+patience+"'"); err != nil {
		return err
	}
	var d *Doubt
	if moved {
		d, err = j.table(ctx, t, was, now)
	}
	if claimed && err == nil {
		d, err = j.claimed(ctx, t, now, d)
	}
	switch {
	case sqlState(err) == "55P03":
		if known {
			sight.Facts[t] = was
		}
		sight.Horizon = j.options.Horizon
		sight.Locked = fault.New(fault.SourceTimeout, "", "a table is locked by another session, so it is not known yet whether the log has told all of it").
			WithMend("Let that session end.").Because(err)
		return exec(ctx, j.conn, "rollback to judged")
	case err != nil:
		return err
	}
	if claimed {
		sight.Judged = append(sight.Judged, t)
	}
	if d != nil {
		sight.Doubts = append(sight.Doubts, *d)
	}
	return exec(ctx, j.conn, "release judged")
}

// knownOf is what is known of a table. Of one of which no more than its partitions is known, all else is trusted
// once.
func (o LookOptions) knownOf(t uint32, now Facts) (Facts, bool) {
	was, known := o.Known[t]
	leaves, listed := o.Leaves[t]
	if known || !listed {
		return was, known
	}
	was = now
	was.Relations = maps.Clone(now.Relations)
	maps.DeleteFunc(was.Relations, func(oid uint32, r RelationFacts) bool {
		return r.Parent != 0 && r.File != 0 && !slices.Contains(leaves, oid)
	})
	return was, true
}

// judge finds doubts. Its connection is in a transaction of its own.
type judge struct {
	conn    *pgconn.PgConn
	options LookOptions
	next    uint64 // the next transaction
}

func (j *judge) table(ctx context.Context, t uint32, was, now Facts) (*Doubt, error) {
	if !now.PublishedAs(was) {
		return &Doubt{Table: t, Published: true, Because: Republication}, nil
	}
	a, b := was.Relations[t], now.Relations[t]
	full := now.Identity == 'f' || was.Identity != now.Identity
	if was.Key != now.Key && !full && a.Class != b.Class && a.Sum == b.Sum {
		granted, err := j.granted(ctx, t)
		if err != nil {
			return nil, err
		}
		full = !granted // nothing else explains it
	}
	if was.Key != now.Key && full {
		return &Doubt{Table: t, Because: "its primary key was dropped or made, and the WAL does not tell which rows it held for"}, nil
	}
	redefined := j.options.expressionsMoved(t, was, now)
	if redefined != nil && redefined.Certain() {
		return redefined, nil
	}
	var emptied *Doubt // by a TRUNCATE, most likely: what is certain counts more
	for oid, r := range now.Relations {
		d, err := j.relation(ctx, t, oid, was, now, r)
		if err != nil || d != nil && d.Certain() {
			return d, err
		}
		if d != nil && emptied != nil {
			d.Truncated = append(d.Truncated, emptied.Truncated...)
		}
		if d != nil {
			emptied = d
		}
	}
	altered := was.Shape != 0 && was.Shape != now.Shape
	if emptied == nil && redefined == nil && altered {
		return &Doubt{Table: t, Altered: true, Because: "an ALTER TABLE changed its columns"}, nil
	}
	if emptied == nil {
		return redefined, nil
	}
	emptied.Redefined = emptied.Redefined || redefined != nil || altered
	return emptied, nil
}

// expressionsMoved judges generated columns whose expression is another one, or calls a function that was replaced, and such as were added.
func (o LookOptions) expressionsMoved(t uint32, was, now Facts) *Doubt {
	before := generatedFacts(was.Generated)
	var redefined *Doubt
	for attnum, version := range generatedFacts(now.Generated) {
		old, there := before[attnum]
		switch {
		case there && old != version && slices.Contains(o.Computed[t], attnum):
			return &Doubt{Table: t, Because: "the expression of a generated column, or a function that it calls, was changed"}
		case !there && was.Generated != "":
			redefined = &Doubt{Table: t, Redefined: true, Because: "a generated column was added, and no row has told of it since"}
		}
	}
	return redefined
}

func (j *judge) relation(ctx context.Context, t, rel uint32, was, now Facts, r RelationFacts) (*Doubt, error) {
	name, err := j.name(ctx, rel)
	if err != nil || name.Name == "" { // it is gone again
		return nil, err
	}
	doubt := func(format string, args ...any) *Doubt {
		return &Doubt{Table: t, Because: fmt.Sprintf(format, args...) + ": " + name.Schema + "." + name.Name}
	}
	before, known := was.Relations[rel]
	switch {
	case before == r:
		return nil, nil
	case slices.Contains(j.options.Former[t], rel):
		return doubt("a partition that was detached is attached again"), nil
	case !known && r.File == 0: // it holds no rows
		return nil, nil
	case !known:
		return j.unknown(ctx, doubt, t, rel, name, was, r)
	case before.Parent != r.Parent || before.Bond != r.Bond:
		return doubt("a partition was detached for a time"), nil
	case before.Logged != r.Logged:
		return doubt("its rows are in the WAL now and were not before, or the other way round"), nil
	case !r.Logged:
		return j.unlogged(ctx, doubt, rel, name, before, r)
	case rel == t && r.File != 0: // the WAL names its identity with its rows
		if before.File == r.File {
			return nil, nil
		}
		if now.Named {
			return j.recomputed(ctx, doubt, t, was.Types, now.Types, name, before, r)
		}
		return j.rewritten(ctx, doubt, true, rel, name, before, r)
	}
	var d *Doubt
	if before.File != r.File {
		if d, err = j.rewritten(ctx, doubt, false, rel, name, before, r); err != nil || d != nil && d.Certain() {
			return d, err
		}
	}
	if before.Class == r.Class || r.File == 0 && rel != t {
		return d, nil
	}
	// The WAL has the root's identity with the definition, and its partition's with a row of before.
	changed, err := j.identityMoved(ctx, rel, before.File == r.File && before.Sum == r.Sum)
	if changed {
		return doubt("the replica identity of a partition or its root may have been another one for a time"), err
	}
	return d, err
}

// unlogged judges a relation that is not logged, and was not at the look of before. If it was for a time, the WAL told
// of rows that the table is not to have. An ALTER TABLE SET LOGGED makes another TOAST table and writes all rows.
func (j *judge) unlogged(ctx context.Context, doubt func(string, ...any) *Doubt, rel uint32, name Name, before, now RelationFacts) (*Doubt, error) {
	if before.File == now.File || before.Toast == now.Toast && now.Toast != 0 {
		return nil, nil
	}
	if kept, err := j.keepsRows(ctx, rel, name); kept || err != nil {
		return nil, err
	}
	return doubt("it was truncated or written again, and may have been logged for a time"), nil
}

// rewritten judges a relation that has another file: VACUUM FULL, CLUSTER, TRUNCATE and rewriting ALTER TABLEs make
// one, and of these SET UNLOGGED hides rows from the WAL. Rows keep their transaction unless an ALTER TABLE has
// written them.
func (j *judge) rewritten(ctx context.Context, doubt func(string, ...any) *Doubt, whole bool, rel uint32, name Name, before, now RelationFacts) (*Doubt, error) {
	if kept, err := j.keepsRows(ctx, rel, name); kept || err != nil {
		return nil, err
	}
	onlyEmptied := before.Toast == now.Toast && now.Toast != 0 // an ALTER TABLE makes another TOAST table
	switch d := doubt("it was truncated or written anew, and may have been unlogged for a time"); {
	case onlyEmptied && whole:
		return nil, nil
	case onlyEmptied: // of one partition alone the WAL does not tell it
		d.Truncated = []uint32{now.Class}
		return d, nil
	default:
		return d, nil
	}
}

// recomputed judges a table that has another file, and that a publication names: it cannot have been unlogged, and a
// TRUNCATE is told. What is left is an ALTER TABLE that gives a column other values of the same type, by USING or as
// the expression of a generated column. It changes the column's row in pg_attribute, but so do many others, and another ALTER TABLE may
// have written the rows since: which column has other values only these can tell. Another type, or another column, is told with the next
// row of the table, and what the rows of before have in it then; without such a row nothing tells.
func (j *judge) recomputed(ctx context.Context, doubt func(string, ...any) *Doubt, t uint32, was, is string, name Name, before, now RelationFacts) (*Doubt, error) {
	if before.Toast == now.Toast && now.Toast != 0 {
		return nil, nil
	}
	if kept, err := j.keepsRows(ctx, t, name); kept || err != nil {
		return nil, err
	}
	if none, err := j.lacks(ctx, t, name, "true"); none || err != nil { // the WAL has told how the rows went
		return nil, err
	}
	newer := "true"
	if h := j.options.Horizon; h != 0 && j.next-h < 1<<31 {
		newer = fmt.Sprintf("pg_catalog.age(xmin) between 0 and pg_catalog.age('%d'::xid)", uint32(h))
	}
	rows, err := query(ctx, j.conn, `select attnum, attname, attgenerated <> '' from pg_catalog.pg_attribute
where attrelid = $1::oid and attnum > 0 and not attisdropped and `+newer+` order by attnum`, fmt.Sprint(t))
	if err != nil {
		return nil, err
	}
	var redefined *Doubt
	var kept []int16
	var names []string
	for _, r := range rows {
		attnum := int16(number(r[0]))
		from := (int(attnum) - 1) * typeDigits
		to := from + typeDigits
		switch {
		case to <= len(was) && to <= len(is) && was[from:to] == is[from:to]:
			kept, names = append(kept, attnum), append(names, string(r[1]))
		case string(r[2]) != "t":
			redefined = doubt("the column %s was added or has another type, all rows were written again, and no row has told of it since", r[1])
			redefined.Redefined = true
		}
	}
	if len(kept) == 0 {
		return redefined, nil
	}
	d := doubt("ALTER TABLE wrote all rows again, and may have given other values to columns that keep their type (ALTER … TYPE … USING, or SET EXPRESSION), %s", strings.Join(names, ", "))
	d.Columns, d.Redefined = kept, redefined != nil
	return d, nil
}

func (j *judge) name(ctx context.Context, rel uint32) (Name, error) {
	rows, err := query(ctx, j.conn, `select n.nspname, c.relname from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1::oid`, fmt.Sprint(rel))
	if err != nil || len(rows) == 0 {
		return Name{}, err
	}
	return Name{string(rows[0][0]), string(rows[0][1])}, nil
}

// exists says whether the relation itself has such rows.
func (j *judge) exists(ctx context.Context, rel uint32, name Name, where string, args ...string) (bool, error) {
	return j.proves(ctx, fmt.Sprintf("exists (select from only %s l where l.tableoid = '%d'::oid and %s)", quoteTable(name.Schema, name.Name), rel, where), args...)
}

// lacks says whether the relation itself certainly has no such rows.
func (j *judge) lacks(ctx context.Context, rel uint32, name Name, where string, args ...string) (bool, error) {
	table := quoteTable(name.Schema, name.Name)
	condition := fmt.Sprintf("not exists (select from only %s l where %s) and pg_catalog.to_regclass($%d::text)::oid = '%d'::oid", table, where, len(args)+1, rel)
	return j.proves(ctx, condition, append(args, table)...)
}

// proves asks about the rows of one relation. Where the role may not look, and where the name is another relation's by
// now, or none's, the answer is no: it is a proof that there is no reason for a doubt.
func (j *judge) proves(ctx context.Context, condition string, args ...string) (bool, error) {
	if err := exec(ctx, j.conn, "savepoint look"); err != nil {
		return false, err
	}
	rows, err := query(ctx, j.conn, "select "+condition, args...)
	if err == nil {
		return string(rows[0][0]) == "t", exec(ctx, j.conn, "release look")
	}
	switch sqlState(err) {
	case "42501", "42P01", "42703", "42809": // no right, no such table, or no table
		return false, exec(ctx, j.conn, "rollback to look")
	}
	return false, err
}

// keepsRows says whether the relation has a row that was there at the look of before, and that no ALTER TABLE has
// written since. Numbers of transactions come again after four billions, so it must not have been too long ago.
func (j *judge) keepsRows(ctx context.Context, rel uint32, name Name) (bool, error) {
	h := j.options.Horizon
	if h == 0 || j.next-h >= 1<<31 {
		return false, nil
	}
	return j.exists(ctx, rel, name, "pg_catalog.age(l.xmin) > pg_catalog.age($1::xid)", fmt.Sprint(uint32(h)))
}

// Where a table was made as a partition, its columns have been inherited since the command that made it; ATTACH and
// DETACH write them again. That command is known by the row of a system column, which stays as it was made. Of a
// table that VACUUM has emptied a piece of the map of free space is left.
const bondsSQL = `
with recursive b as (
  select i.inhrelid, i.inhparent, i.xmin, i.cmin from pg_catalog.pg_inherits i where i.inhrelid = $1::oid
  union all
  select i.inhrelid, i.inhparent, i.xmin, i.cmin from b join pg_catalog.pg_inherits i on i.inhrelid = b.inhparent where b.inhparent <> $2::oid),
made as (select attrelid, xmin from pg_catalog.pg_attribute where attname = 'tableoid' and attnum < 0)
select b.inhrelid, b.inhparent, b.xmin, b.cmin, exists (
  select from pg_catalog.pg_attribute s join pg_catalog.pg_attribute u on u.attrelid = s.attrelid
  where s.attrelid = b.inhrelid and s.attname = 'tableoid' and s.attnum < 0 and s.xmin = b.xmin
    and u.attnum > 0 and u.attinhcount > 0 and not u.attislocal and u.xmin = s.xmin and u.cmin = s.cmin),
  m.xmin, m.xmin <> c.xmin and exists (select from made t where t.attrelid = c.reltoastrelid and t.xmin = m.xmin),
  pg_catalog.pg_relation_size(c.oid) + pg_catalog.pg_relation_size(c.oid, 'fsm')
from b, pg_catalog.pg_class c join made m on m.attrelid = c.oid where c.oid = $1::oid`

// origin is how a relation came below its root.
type origin struct {
	gone    bool
	born    bool   // it was made as a partition, and so were those above it that are new
	toast   bool   // its TOAST table is the one that it was made with, and it has been changed in a later transaction
	empty   bool   // its file never held a row
	made    string // the transaction that made it, if that also attached it and those above
	command int64  // of the attachment, in that transaction
}

func (j *judge) origin(ctx context.Context, root, leaf uint32, was Facts) (o origin, err error) {
	rows, err := query(ctx, j.conn, bondsSQL, fmt.Sprint(leaf), fmt.Sprint(root))
	if err != nil || len(rows) == 0 || rows[0][7] == nil {
		return origin{gone: true}, err
	}
	o.born, o.made = true, string(rows[0][5])
	o.toast, o.empty = string(rows[0][6]) == "t", string(rows[0][7]) == "0"
	for _, r := range rows {
		before, known := was.Relations[oid(r[0])]
		if string(r[4]) == "t" || known && before.Parent == oid(r[1]) && before.Bond == oid(r[2]) {
			continue
		}
		if o.born = false; string(r[2]) != string(r[5]) {
			o.made = ""
		}
		o.command = max(o.command, number(r[3]))
	}
	return o, nil
}

// unknown judges a relation that no look has seen below its root: of rows that it had before, the WAL tells nothing
// under the root's name. Its file has the number of its OID until it is truncated or written again by a transaction
// after the one that made it.
//
// That transactions are younger than the one that attached it proves nothing: it may have waited for their locks. But
// where it was made by that transaction, which then wrote the first row of its file, there was no row before.
func (j *judge) unknown(ctx context.Context, doubt func(string, ...any) *Doubt, root, rel uint32, name Name, was Facts, now RelationFacts) (*Doubt, error) {
	o, err := j.origin(ctx, root, rel, was)
	first := now.File == rel
	switch {
	case err != nil || o.gone:
		return nil, err
	case !now.Logged && first: // and it never was
		return nil, nil
	case !now.Logged:
		return doubt("a partition that is not logged may have been for a time"), nil
	case first && (o.born || o.empty):
		return nil, nil
	case o.born:
		d := doubt("a partition was made and then truncated or written again, and may have been unlogged for a time")
		if o.toast { // by no ALTER TABLE, which makes another one
			d.Truncated = []uint32{now.Class}
		}
		return d, nil
	case first && o.made != "":
		const byItself = "l.ctid = '(0,1)'::tid and l.xmin = $1::xid and l.xmax::text = '0' and l.cmin::text::bigint > $2::bigint"
		if itself, err := j.exists(ctx, rel, name, byItself, o.made, fmt.Sprint(o.command)); itself || err != nil {
			return nil, err
		}
	}
	return doubt("a partition may have been attached with its rows, or had some once"), nil
}

// identityMoved says whether the replica identity of a root or partition may have been another index for a time, given
// that its row in pg_class has moved: by an index that has been changed since, or because nothing else explains it
// (unexplained). The primary key's index is not changed by it.
func (j *judge) identityMoved(ctx context.Context, rel uint32, unexplained bool) (bool, error) {
	if unexplained {
		if granted, err := j.granted(ctx, rel); !granted || err != nil {
			return true, err
		}
	}
	h := j.options.Horizon
	if h == 0 || j.next-h >= 1<<31 {
		return false, nil
	}
	rows, err := query(ctx, j.conn, `
select exists (select from pg_catalog.pg_index i join pg_catalog.pg_attribute a on a.attrelid = i.indexrelid and a.attnum = 1
               where i.indrelid = $1::oid and i.indisunique and not i.indisprimary and pg_catalog.age(i.xmin) between 0 and pg_catalog.age($2::xid)
                 and not pg_catalog.age(a.xmin) between 0 and pg_catalog.age($2::xid))`,
		fmt.Sprint(rel), fmt.Sprint(uint32(h)))
	if err != nil {
		return false, err
	}
	return string(rows[0][0]) == "t", nil
}

// granted says whether a GRANT on all tables of the schema explains that the row of a relation in pg_class has moved. It
// writes those of all, also where it changes nothing.
func (j *judge) granted(ctx context.Context, rel uint32) (bool, error) {
	rows, err := query(ctx, j.conn, `
select c.relacl is not null and count(*) filter (where o.xmin = c.xmin) > 0 and not coalesce(bool_or(pg_catalog.age(o.xmin) > pg_catalog.age(c.xmin)), false)
from pg_catalog.pg_class c join pg_catalog.pg_class o
  on o.relnamespace = c.relnamespace and o.relowner = c.relowner and o.oid <> c.oid and o.relkind in ('r', 'p', 'v', 'm', 'f')
where c.oid = $1::oid group by c.oid, c.relacl`, fmt.Sprint(rel))
	return err == nil && len(rows) > 0 && string(rows[0][0]) == "t", err
}
