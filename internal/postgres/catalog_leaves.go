package postgres

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/fault"
)

// Leaf is a leaf partition, as far as it matters to whoever follows its root as one table.
type Leaf struct {
	Root, OID    uint32
	Schema, Name string
	// Weak: of a row of this leaf that was updated or deleted the log tells less than of one of the root.
	Weak bool
}

// Attnums of a leaf need not be those of its root, so columns are compared by name.
const leavesSQL = `
with leaf as (
  select r.oid root, t.relid::oid oid
  from unnest($1::oid[]) r(oid), pg_catalog.pg_partition_tree(r.oid) t where t.isleaf and t.relid::oid <> r.oid
), identity as (
  select c.oid, c.relreplident kind, array(
    select a.attname::text from pg_catalog.pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n)
    join pg_catalog.pg_attribute a on a.attnum = k.attnum
    where i.indrelid = c.oid and a.attrelid = c.oid and k.n <= i.indnkeyatts
      and case c.relreplident when 'i' then i.indisreplident when 'n' then false else i.indisprimary and i.indimmediate end) as columns
  from pg_catalog.pg_class c where c.oid in (select root from leaf union select oid from leaf)
)
select leaf.root, leaf.oid, n.nspname, c.relname,
       c.relkind = 'r' and l.kind <> 'f' and (r.columns = '{}' or not l.columns @> r.columns)
from leaf join identity l on l.oid = leaf.oid join identity r on r.oid = leaf.root
join pg_catalog.pg_class c on c.oid = leaf.oid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
order by leaf.root, leaf.oid`

// Leaves lists the leaves of partitioned tables, by root and OID.
func (c *Catalog) Leaves(ctx context.Context, roots []uint32) (leaves []Leaf, err error) {
	if len(roots) == 0 {
		return nil, nil
	}
	err = c.read(ctx, func(conn *pgconn.PgConn) error {
		leaves, err = leavesBelow(ctx, conn, roots)
		return err
	})
	return leaves, err
}

func leavesBelow(ctx context.Context, conn *pgconn.PgConn, roots []uint32) ([]Leaf, error) {
	oids := map[uint32]bool{}
	for _, root := range roots {
		oids[root] = true
	}
	rows, err := query(ctx, conn, leavesSQL, oidArray(oids))
	if err != nil {
		return nil, err
	}
	leaves := make([]Leaf, len(rows))
	for i, r := range rows {
		leaves[i] = Leaf{Root: oid(r[0]), OID: oid(r[1]), Schema: string(r[2]), Name: string(r[3]), Weak: string(r[4]) == "t"}
	}
	return leaves, nil
}

// Look lists what the selection chooses and the leaves of the given roots: what is needed to notice that another look at
// the whole catalog is due.
func (s *Source) Look(ctx context.Context, sel Selection, roots []uint32) (seen []Seen, leaves []Leaf, err error) {
	c := &Catalog{source: s}
	err = c.read(ctx, func(conn *pgconn.PgConn) error {
		rels, err := s.relations(ctx, conn, sel)
		if err != nil {
			return err
		}
		for _, r := range rels {
			seen = append(seen, Seen{OID: r.oid, Name: Name{r.schema, r.name}, Unlogged: r.unlogged})
		}
		if len(roots) > 0 {
			leaves, err = leavesBelow(ctx, conn, roots)
		}
		return err
	})
	return seen, leaves, err
}

// A leaf that was made as a partition has the row of its type from the transaction that put it below its root; what is
// older than that transaction came by another way than the root. One level of partitions may have been attached with all
// that lies below it: the youngest of the leaf's bonds counts.
const attachedSQL = `
with came as (
  select min(age(i.xmin)) age from pg_catalog.pg_partition_ancestors($1::oid::regclass) a join pg_catalog.pg_inherits i on i.inhrelid = a.relid::oid
)
select age(t.xmin) <> came.age and exists (select from only %s l where age(l.xmin) >= came.age)
from came, pg_catalog.pg_class c join pg_catalog.pg_type t on t.oid = c.reltype where c.oid = $1::oid`

// AttachedWithRows says whether the leaf had rows when it came below its root: of those the log tells nothing under the root's
// name. Where the role may not look into the leaf itself, it says yes.
func (c *Catalog) AttachedWithRows(ctx context.Context, leaf Leaf) (had bool, err error) {
	sql := fmt.Sprintf(attachedSQL, quoteTable(leaf.Schema, leaf.Name))
	err = c.read(ctx, func(conn *pgconn.PgConn) error {
		rows, err := query(ctx, conn, sql, strconv.FormatUint(uint64(leaf.OID), 10))
		if err == nil {
			had = len(rows) == 1 && string(rows[0][0]) == "t"
		}
		return err
	})
	switch {
	case fault.Is(err, fault.SourceRights):
		return true, nil
	case fault.Is(err, fault.SourceMissing): // it is gone again
		return false, nil
	}
	return had, err
}
