package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgconn"
)

// Leaf is a leaf partition, as far as it matters to whoever follows its root as one table.
type Leaf struct {
	Root, OID    uint32
	Schema, Name string
	// Weak: of a row of this leaf that was updated or deleted the log tells less than of one of the root.
	Weak bool
	// Logged: the WAL tells of it. Of unlogged and foreign tables it does not.
	Logged bool
}

// Attnums of a leaf need not be those of its root, so columns are compared by name.
var leavesSQL = `
with leaf as (
  select r.oid root, t.relid oid
  from unnest($1::oid[]) r(oid), lateral ` + below("r.oid") + ` t
  join pg_catalog.pg_class k on k.oid = t.relid and k.relkind <> 'p' where t.relid <> r.oid
), identity as (
  select c.oid, c.relreplident kind, array(
    select a.attname::text from pg_catalog.pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n)
    join pg_catalog.pg_attribute a on a.attnum = k.attnum
    where i.indrelid = c.oid and a.attrelid = c.oid and k.n <= i.indnkeyatts
      and case c.relreplident when 'i' then i.indisreplident when 'n' then false else i.indisprimary and i.indimmediate end) as columns
  from pg_catalog.pg_class c where c.oid in (select root from leaf union select oid from leaf)
)
select leaf.root, leaf.oid, n.nspname, c.relname,
       c.relkind = 'r' and l.kind <> 'f' and (r.columns = '{}' or not l.columns @> r.columns), c.relkind = 'r' and c.relpersistence = 'p'
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
		leaves[i] = Leaf{Root: oid(r[0]), OID: oid(r[1]), Schema: string(r[2]), Name: string(r[3]), Weak: string(r[4]) == "t", Logged: string(r[5]) == "t"}
	}
	return leaves, nil
}
