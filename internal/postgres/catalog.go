package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Name is a relation's name.
type Name struct{ Schema, Name string }

// Seen is a relation as far as a change of it calls for another look at the whole catalog.
type Seen struct {
	OID      uint32
	Name     Name
	Unlogged bool
	// Identified: the WAL can tell its updates and deletes.
	Identified bool
}

// Selection says which relations are wanted.
type Selection struct {
	// Choose picks from all relations that are not the system's, in order of schema and name; searchPath is
	// the session's, for names without a schema. It returns the indexes it wants. A wish that
	// nothing fulfils is its error to make; what the others find comes with it.
	Choose func(all []Name, searchPath []string) ([]int, error)
	// Missing hears of a wish that nothing fulfils while others find something, and says whether to go on without it; nil never
	// does.
	Missing func(error) bool
	// Named says whether a wish names the table itself, and not only a pattern that it fits; nil names all.
	Named func(Name) bool
	// PartitionRoots reads a partitioned table as one; otherwise each leaf is a table of its own.
	PartitionRoots bool
	// Besides says, with PartitionRoots, which partitions are read by themselves although a table above them is read too; nil is none.
	Besides func(Name) bool
}

// relation is what is known of a table before its snapshot.
type relation struct {
	oid          uint32
	schema, name string
	kind         change.Kind
	isPartition  bool
	unlogged     bool
	identified   bool
}

// Names are left out of the server's own schemas and of other sessions' temporary tables.
const relationsSQL = `
select c.oid, n.nspname, c.relname, c.relkind, c.relispartition, c.relpersistence = 'u',
       c.relreplident = 'f' or exists (select from pg_catalog.pg_index i where i.indrelid = c.oid
         and case c.relreplident when 'd' then i.indisprimary and i.indimmediate when 'i' then i.indisreplident end)
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r','p','v','m','f') and c.relpersistence <> 't'
  and n.nspname not in ('pg_catalog','information_schema') and n.nspname not like 'pg\_toast%'
order by n.nspname, c.relname`

// relations lists what the selection chooses, in the order of schema and name.
func (s *Source) relations(ctx context.Context, c *pgconn.PgConn, sel Selection) ([]relation, error) {
	rows, err := query(ctx, c, relationsSQL)
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot list the tables")
	}
	all := make([]relation, len(rows))
	names := make([]Name, len(rows))
	for i, r := range rows {
		all[i] = relation{oid: oid(r[0]), schema: string(r[1]), name: string(r[2]), kind: change.Kind(r[3][0]), isPartition: string(r[4]) == "t", unlogged: string(r[5]) == "t", identified: string(r[6]) == "t"}
		names[i] = Name{all[i].schema, all[i].name}
	}
	picked, err := sel.Choose(names, s.searchPath)
	if err != nil && (len(picked) == 0 || sel.Missing == nil || !sel.Missing(err)) {
		return nil, err
	}
	var chosen []relation
	roots := map[uint32]bool{}
	for _, i := range picked {
		rel := all[i]
		if rel.kind == change.KindPartitioned {
			roots[rel.oid] = true
			if !sel.PartitionRoots {
				continue // its leaves stand for it, see below
			}
		}
		chosen = append(chosen, rel)
	}
	if len(roots) == 0 {
		return chosen, nil
	}
	leaves, err := leavesOf(ctx, c, roots)
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot list the partitions")
	}
	return resolvePartitions(chosen, leaves, sel), nil
}

// below is a subquery of a relation and of all that lie below it as partitions. pg_partition_tree would lock each of them, and wait for
// whoever holds one of them.
func below(oid string) string {
	return `(with recursive m as (
  select ` + oid + ` as relid union all
  select i.inhrelid from m join pg_catalog.pg_class p on p.oid = m.relid and p.relkind = 'p' join pg_catalog.pg_inherits i on i.inhparent = m.relid
  where (pg_catalog.to_jsonb(i) ->> 'inhdetachpending') is distinct from 'true') select relid from m)`
}

// leavesOf lists the leaf partitions below the roots.
func leavesOf(ctx context.Context, c *pgconn.PgConn, roots map[uint32]bool) ([]relation, error) {
	rows, err := query(ctx, c, `
select distinct k.oid, n.nspname, k.relname, k.relkind, k.relpersistence = 'u',
       k.relreplident = 'f' or exists (select from pg_catalog.pg_index i where i.indrelid = k.oid
         and case k.relreplident when 'd' then i.indisprimary and i.indimmediate when 'i' then i.indisreplident end)
from unnest($1::oid[]) r(oid), lateral `+below("r.oid")+` t
join pg_catalog.pg_class k on k.oid = t.relid join pg_catalog.pg_namespace n on n.oid = k.relnamespace
where k.relkind <> 'p' order by 2, 3`, oidArray(roots))
	if err != nil {
		return nil, err
	}
	var leaves []relation
	for _, r := range rows {
		leaves = append(leaves, relation{oid: oid(r[0]), schema: string(r[1]), name: string(r[2]), kind: change.Kind(r[3][0]), isPartition: true, unlogged: string(r[4]) == "t", identified: string(r[5]) == "t"})
	}
	return leaves, nil
}

// resolvePartitions makes every row come exactly once: a root that is read as one takes its leaves out
// of the list, but for those that are wanted besides; a root that is not brings its leaves in.
func resolvePartitions(chosen, leaves []relation, sel Selection) []relation {
	isLeaf := map[uint32]bool{}
	for _, l := range leaves {
		isLeaf[l.oid] = true
	}
	out := slices.DeleteFunc(chosen, func(r relation) bool {
		if sel.PartitionRoots && sel.Besides != nil && sel.Besides(Name{r.schema, r.name}) {
			return false
		}
		// A sub-partitioned table below a chosen root is covered by the root as well.
		return isLeaf[r.oid] || sel.PartitionRoots && r.isPartition && r.kind == change.KindPartitioned
	})
	if !sel.PartitionRoots {
		out = append(out, leaves...)
	}
	slices.SortFunc(out, func(a, b relation) int {
		return strings.Compare(a.schema+"\x00"+a.name, b.schema+"\x00"+b.name)
	})
	return out
}

// The sizes of tables that are locked are exact. To ask for them takes a lock: of others there is what the last VACUUM or ANALYZE has noted.
var (
	lockedSizesSQL = `
       case when c.relkind in ('r','m') then pg_catalog.pg_table_size(c.oid)
            when c.relkind = 'p' then (select coalesce(sum(pg_catalog.pg_table_size(t.relid)),0) from ` + below("c.oid") + ` t where t.relid <> c.oid)
            else 0 end,
       case when c.relkind in ('r','m') then pg_catalog.pg_relation_size(c.oid) / current_setting('block_size')::bigint else 0 end,`
	notedSizesSQL = `
       (select coalesce(sum(k.relpages::bigint + coalesce(o.relpages, 0)), 0) from ` + below("c.oid") + ` t
        join pg_catalog.pg_class k on k.oid = t.relid and k.relkind in ('r','m','p') and k.relpages >= 0
        left join pg_catalog.pg_class o on o.oid = k.reltoastrelid) * current_setting('block_size')::bigint,
       case when c.relkind in ('r','m') then c.relpages else 0 end,`
)

// A primary key that is DEFERRABLE identifies no row to the log: PostgreSQL does not take it for the replica identity.
const tablesSQL = `
select c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.reltuples::bigint,%s
       coalesce((select pg_catalog.string_agg(k.attnum::text, ' ' order by k.n)
                 from pg_catalog.pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n)
                 where i.indrelid = c.oid and i.indisprimary and i.indimmediate and k.n <= i.indnkeyatts), ''),
       coalesce((select pg_catalog.string_agg(k.attnum::text, ' ' order by k.n)
                 from pg_catalog.pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n)
                 where i.indrelid = c.oid and i.indisreplident and c.relreplident = 'i' and k.n <= i.indnkeyatts), ''),
       coalesce(pg_catalog.pg_relation_filenode(c.oid), 0), c.relpersistence = 'u'
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any($1::oid[]) order by n.nspname, c.relname`

// A row that is frozen keeps the number of its transaction, which may be another one's by now: what is older than relfrozenxid is.
// NOT NULL is believed only where the server enforces it: it does not on foreign tables, nor for the old rows of
// a constraint that is not validated (18+).
var columnsSQL = `
select a.attrelid, a.attname, a.attnum, a.atttypid, a.atttypmod, pg_catalog.format_type(a.atttypid, a.atttypmod),
       a.attnotnull and c.relkind <> 'f'
         and not exists (select from pg_catalog.pg_constraint k
                         where k.conrelid = c.oid and k.contype = 'n' and not k.convalidated and k.conkey = array[a.attnum])
         and not (c.relkind = 'p' and exists (select from ` + below("c.oid") + ` t join pg_catalog.pg_class f on f.oid = t.relid
                                              where f.relkind = 'f')),
       a.attgenerated, a.attndims, case when pg_catalog.age(a.xmin) between 0 and pg_catalog.age(pg_attribute.relfrozenxid) then a.xmin else '0' end, a.attisdropped
from pg_catalog.pg_attribute a join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_class pg_attribute on pg_attribute.oid = 'pg_catalog.pg_attribute'::regclass
where a.attrelid = any($1::oid[]) and a.attnum > 0
order by a.attrelid, a.attnum`

// describeTables reads everything about the relations. Two queries serve however many tables. Only what is asked of locked ones waits for
// the locks of others.
func describeTables(ctx context.Context, c *pgconn.PgConn, rels []relation, locked bool) ([]*change.Table, error) {
	sizes := notedSizesSQL
	if locked {
		sizes = lockedSizesSQL
	}
	oids := map[uint32]bool{}
	for _, r := range rels {
		oids[r.oid] = true
	}
	list := oidArray(oids)
	rows, err := prepared(ctx, c, fmt.Sprintf(tablesSQL, sizes), list)
	if err != nil {
		return nil, err
	}
	byOID := map[uint32]*change.Table{}
	tables := make([]*change.Table, 0, len(rows))
	for _, r := range rows {
		t := &change.Table{
			OID: oid(r[0]), Schema: string(r[1]), Name: string(r[2]), Kind: change.Kind(r[3][0]), ReplicaIdentity: r[4][0],
			Rows: number(r[5]), Bytes: number(r[6]), Pages: number(r[7]),
		}
		t.Key, t.IdentityIndex, t.Filenode, t.Unlogged = attnums(r[8]), attnums(r[9]), oid(r[10]), string(r[11]) == "t"
		byOID[t.OID] = t
		tables = append(tables, t)
	}
	rows, err = prepared(ctx, c, columnsSQL, list)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		t := byOID[oid(r[0])]
		trace := change.Trace{Attnum: int16(number(r[2])), By: oid(r[9]), Dropped: string(r[10]) == "t"}
		if t.Traces = append(t.Traces, trace); trace.Dropped {
			continue
		}
		col := change.Column{
			Name: string(r[1]), Attnum: int16(number(r[2])), TypeOID: oid(r[3]), Typmod: int32(number(r[4])), Type: string(r[5]),
			NotNull: string(r[6]) == "t", Dims: int(number(r[8])),
		}
		if len(r[7]) > 0 {
			col.Generated = r[7][0]
		}
		t.Columns = append(t.Columns, col)
	}
	return tables, nil
}

func attnums(b []byte) (list []int16) {
	for _, k := range strings.Fields(string(b)) {
		list = append(list, int16(number([]byte(k))))
	}
	return list
}

// typeInfo is what pg_type says of a type, as far as carrying it needs.
type typeInfo struct {
	oid     uint32
	kind    byte     // typtype: b base, c composite, d domain, e enum, r range, m multirange, p pseudo
	base    uint32   // domain: the type below
	typmod  int32    // domain: the base's typmod
	element uint32   // array: the element's type
	dims    int      // domain over an array: declared dimensions
	name    string   // schema-qualified by format_type
	geo     bool     // PostGIS geometry or geography: its send function gives EWKB
	fields  []uint32 // composite: the types of its fields
	ownJSON bool     // its form in JSON says less than the value, or cannot be read back
	output  string   // its output function, where the cast to text may write something else; quoted
	delim   byte     // what stands between its values in the text of an array
	// sendsText: the binary form is the text
	sendsText bool
}

// typeTable knows every type that the tables use, and those below them.
type typeTable map[uint32]typeInfo

// typesSQL walks down through domains, arrays and composites. An array is a type whose subscripting is the array
// handler's; typelem alone is also set for name, point and others. Of the casts to json that extensions bring,
// hstore's alone is exact: PostGIS rounds to nine decimals and drops the SRID. The vectors become JSON arrays that
// json_populate_record does not take, for they begin at index 0.
const typesSQL = `
with recursive need(oid) as (
  select pg_catalog.unnest($1::oid[])
  union
  select below.oid
  from need join pg_catalog.pg_type t on t.oid = need.oid, lateral (
    select t.typbasetype where t.typtype = 'd'
    union all select t.typelem where t.typelem <> 0 and t.typlen = -1 and t.typoutput = 'pg_catalog.array_out'::regproc
    union all select a.atttypid from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ) below(oid)
)
select t.oid, t.typtype, t.typbasetype, t.typtypmod,
       case when t.typlen = -1 and t.typoutput = 'pg_catalog.array_out'::regproc then t.typelem else 0 end, t.typndims,
       pg_catalog.format_type(t.oid, null),
       t.typname in ('geometry','geography') and exists (
         select from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
         where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e' and e.extname = 'postgis'),
       case when t.typtype = 'c' then array(select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) end,
       t.oid in ('pg_catalog.int2vector'::regtype, 'pg_catalog.oidvector'::regtype)
         or exists (select from pg_catalog.pg_cast k where k.castsource = t.oid and k.casttarget = 'pg_catalog.json'::regtype and k.castfunc <> 0)
         and not exists (
         select from pg_catalog.pg_depend d join pg_catalog.pg_extension e on e.oid = d.refobjid
         where d.classid = 'pg_catalog.pg_type'::regclass and d.objid = t.oid and d.deptype = 'e' and e.extname = 'hstore'),
       case when o.prosrc <> 'textout' and exists (select from pg_catalog.pg_cast k where k.castsource = t.oid and k.casttarget = 'pg_catalog.text'::regtype)
         then (select pg_catalog.quote_ident(n.nspname) from pg_catalog.pg_namespace n where n.oid = o.pronamespace) || '.' || pg_catalog.quote_ident(o.proname) else '' end,
       t.typdelim, o.prosrc = 'textout' and exists (select from pg_catalog.pg_proc s where s.oid = t.typsend and s.prosrc = 'textsend')
from need join pg_catalog.pg_type t on t.oid = need.oid left join pg_catalog.pg_proc o on o.oid = t.typoutput`

// typesOf are the types of the tables' columns.
func typesOf(tables ...*change.Table) map[uint32]bool {
	oids := map[uint32]bool{}
	for _, t := range tables {
		for _, col := range t.Columns {
			oids[col.TypeOID] = true
		}
	}
	return oids
}

// readTypes reads types and those below them. One that is gone is not among them.
func readTypes(ctx context.Context, c *pgconn.PgConn, oids map[uint32]bool) (typeTable, error) {
	rows, err := prepared(ctx, c, typesSQL, oidArray(oids))
	if err != nil {
		return nil, err
	}
	return typesFrom(rows), nil
}

func typesFrom(rows [][][]byte) typeTable {
	types := typeTable{}
	for _, r := range rows {
		info := typeInfo{
			oid: oid(r[0]), kind: r[1][0], base: oid(r[2]), typmod: int32(number(r[3])), element: oid(r[4]),
			dims: int(number(r[5])), name: string(r[6]), geo: string(r[7]) == "t", ownJSON: string(r[9]) == "t",
			output: string(r[10]), delim: r[11][0], sendsText: string(r[12]) == "t",
		}
		for _, f := range strings.FieldsFunc(string(r[8]), func(c rune) bool { return c < '0' || c > '9' }) {
			info.fields = append(info.fields, oid([]byte(f)))
		}
		types[info.oid] = info
	}
	return types
}

// moneyDigits is how many decimals lc_monetary gives to money; its binary form does not say.
func moneyDigits(ctx context.Context, c *pgconn.PgConn) (int32, error) {
	rows, err := query(ctx, c, `select pg_catalog.encode(pg_catalog.cash_send(1::money), 'hex')`)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseInt(string(rows[0][0]), 16, 64)
	if err != nil {
		return 0, fault.Wrap(err, fault.SourceProtocol, "money", "cash_send gave an unreadable value")
	}
	var digits int32
	for ; v >= 10; v /= 10 {
		digits++
	}
	return digits, nil
}

func oid(b []byte) uint32 { return uint32(number(b)) }

func number(b []byte) int64 {
	n, _ := strconv.ParseInt(string(b), 10, 64) // the catalog's own integers
	return n
}

func oidArray(oids map[uint32]bool) string {
	sorted := make([]string, 0, len(oids))
	for o := range oids {
		sorted = append(sorted, fmt.Sprint(o))
	}
	slices.Sort(sorted)
	return "{" + strings.Join(sorted, ",") + "}"
}
