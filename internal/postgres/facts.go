package postgres

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// Facts are the versions of the catalog rows that decide whether the WAL tells everything that happens to a table.
// A row that is changed gets a new xmin, also when it is changed back; one that is made again gets a new OID. So of
// two Facts that are equal nothing was different in between. Freezing keeps xmin.
type Facts struct {
	// Publication has the rows of pg_publication, Member those that make the table part of one, with the bonds to
	// an ancestor that is.
	Publication, Member string
	// Named: a publication names the table itself. Then PostgreSQL refuses to make it unlogged.
	Named    bool
	Identity byte   // relreplident
	Key      uint32 // the constraint of the primary key
	// Types has typeDigits characters for each column that the table has or had, by attnum: a hash of its type. It is
	// kept for tables that are Named, whose files tell nothing else of ALTER … TYPE … USING.
	Types string
	// Generated has the versions of the expressions of generated columns; "" where nobody has looked at them.
	Generated string
	// Shape is a hash of the names and types of the columns; 0 where it is not known.
	Shape uint32
	// Relations hold the rows: the table itself, or all that is below a partitioned one.
	Relations map[uint32]RelationFacts
}

// RelationFacts are the facts of one relation that holds rows of a table, or of a partitioned table between.
type RelationFacts struct {
	Parent, Bond uint32 // the table that it is a partition of, and the version of that bond; 0 for the table itself
	Class        uint32 // the version of its row in pg_class
	File, Toast  uint32 // its relfilenode, and the OID of its TOAST table
	Sum          uint32 // of what pg_class says of it otherwise
	Logged       bool   // it is a permanent table
}

// typeDigits is how many hexadecimal digits of the hash of a column's type are kept.
const typeDigits = 3

// String is the form that is saved. The zero Facts are "".
func (f Facts) String() string {
	if f.Identity == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %d %c %d %s", cmp.Or(f.Publication, "-"), cmp.Or(f.Member, "-"), number01(f.Named), f.Identity, f.Key, cmp.Or(f.Types, "-"))
	if f.Generated != "" {
		b.WriteString(" =" + f.Generated)
	}
	if f.Shape != 0 {
		fmt.Fprintf(&b, " #%d", f.Shape)
	}
	for _, oid := range slices.Sorted(maps.Keys(f.Relations)) {
		r := f.Relations[oid]
		fmt.Fprintf(&b, " %d:%d:%d:%d:%d:%d:%d:%d", oid, r.Parent, r.Bond, r.Class, r.File, r.Toast, r.Sum, number01(r.Logged))
	}
	return b.String()
}

func number01(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// ParseFacts reads what String gives. Anything else is like nothing: ok is false.
func ParseFacts(text string) (f Facts, ok bool) {
	words := strings.Fields(text)
	if len(words) < 6 || len(words[3]) != 1 || !strings.Contains("dnfi", words[3]) { // pg_class.relreplident
		return Facts{}, false
	}
	key, err := strconv.ParseUint(words[4], 10, 32)
	if err != nil {
		return Facts{}, false
	}
	unless := func(w string) string {
		if w == "-" {
			return ""
		}
		return w
	}
	f = Facts{Publication: unless(words[0]), Member: unless(words[1]), Named: words[2] == "1", Identity: words[3][0], Relations: map[uint32]RelationFacts{}}
	f.Key, f.Types = uint32(key), unless(words[5])
	for _, w := range words[6:] {
		if generated, is := strings.CutPrefix(w, "="); is {
			f.Generated = generated
			continue
		}
		if shape, is := strings.CutPrefix(w, "#"); is {
			n, err := strconv.ParseUint(shape, 10, 32)
			if err != nil {
				return Facts{}, false
			}
			f.Shape = uint32(n)
			continue
		}
		var n [8]uint32
		parts := strings.Split(w, ":")
		if len(parts) != len(n) {
			return Facts{}, false
		}
		for i, p := range parts {
			v, err := strconv.ParseUint(p, 10, 32)
			if err != nil {
				return Facts{}, false
			}
			n[i] = uint32(v)
		}
		f.Relations[n[0]] = RelationFacts{Parent: n[1], Bond: n[2], Class: n[3], File: n[4], Toast: n[5], Sum: n[6], Logged: n[7] == 1}
	}
	return f, true
}

// Equal says whether nothing has moved.
func (f Facts) Equal(g Facts) bool {
	return f.Publication == g.Publication && f.Member == g.Member && f.Named == g.Named && f.Identity == g.Identity && f.Key == g.Key && f.Types == g.Types && f.Generated == g.Generated && f.Shape == g.Shape &&
		maps.Equal(f.Relations, g.Relations)
}

// PublishedAs says whether the table is published as in other facts, and was all the time between.
func (f Facts) PublishedAs(was Facts) bool {
	return f.Publication == was.Publication && f.Member == was.Member
}

// What makes a table part of a publication: its own row in pg_publication_rel, its schema's in
// pg_publication_namespace (15+), or such rows of an ancestor. A table that moves to another schema and back has
// another version of its row type then. With an ancestor above, as in a publication of all tables, the bonds up to
// it count too.
const membersSQL = `
with w as (select unnest($1::oid[]) oid),
up as (select w.oid, w.oid up from w union select w.oid, a.relid::oid from w, pg_catalog.pg_partition_ancestors(w.oid) a),
p as (select oid, puballtables, xmin from pg_catalog.pg_publication where pubname = any($2::name[])),
m as (
  select up.oid, up.up, p.oid pub, true named, format('%%s/%%s', r.oid, r.xmin) v
  from up join pg_catalog.pg_publication_rel r on r.prrelid = up.up join p on p.oid = r.prpubid%s),
g as (select oid, string_agg(v, ',' order by v) v, array_agg(pub) pubs, bool_or(up <> oid) above, bool_or(named and up = oid) named from m group by oid),
b as (select up.oid, string_agg(format('%%s/%%s', i.inhparent, i.xmin), ',' order by i.inhrelid) v
      from up join pg_catalog.pg_inherits i on i.inhrelid = up.up group by up.oid)
select w.oid, (select string_agg(format('%%s/%%s', p.oid, p.xmin), ',' order by p.oid) from p where p.puballtables or p.oid = any(g.pubs)),
       g.v, case when g.above or exists (select from p where puballtables) then b.v end, coalesce(g.named, false), c.relreplident, coalesce(k.oid, 0),
       case when g.named and c.relkind = 'r' then (
         select string_agg(lpad(to_hex((hashoid(a.atttypid) # hashint4(a.atttypmod)) & 4095), %d, '0'), '' order by a.attnum)
         from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0) end,
       (select hashtext(string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod), ',' order by a.attnum))
         from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)
from w join pg_catalog.pg_class c on c.oid = w.oid left join g on g.oid = w.oid left join b on b.oid = w.oid
left join pg_catalog.pg_constraint k on k.conrelid = w.oid and k.contype = 'p'`

const schemaMembersSQL = `
  union all select up.oid, up.up, p.oid, false, format('%s/%s/%s', n.oid, t.xmin, n.xmin) from up join pg_catalog.pg_class c on c.oid = up.up
  join pg_catalog.pg_publication_namespace n on n.pnnspid = c.relnamespace join p on p.oid = n.pnpubid
  left join pg_catalog.pg_type t on t.oid = c.reltype`

// sumOfClass is RelationFacts.Sum.
const sumOfClass = `pg_catalog.hashtext(pg_catalog.concat_ws('/', c.relname, c.relnamespace, c.relowner, c.relam, c.reltablespace, c.relrowsecurity,
         c.relforcerowsecurity, c.relreplident, c.relnatts, c.relchecks, c.relhasrules, c.relhastriggers, c.relhassubclass, c.relacl::text, c.reloptions::text))`

// ANALYZE, VACUUM and CREATE INDEX change pg_class in place, which gives no new version.
var holdersSQL = `
select w.oid, c.oid, coalesce(i.inhparent, 0), coalesce(i.xmin, '0'), c.xmin, c.relfilenode, c.reltoastrelid,
       ` + sumOfClass + `,
       c.relpersistence = 'p' and c.relkind in ('r','p')
from pg_catalog.unnest($1::oid[]) w(oid) cross join lateral ` + below("w.oid") + ` m
join pg_catalog.pg_class c on c.oid = m.relid
left join pg_catalog.pg_inherits i on i.inhrelid = c.oid and c.oid <> w.oid`

// facts reads those of the tables, by OID. Two queries serve however many.
func (s *Source) facts(ctx context.Context, conn *pgconn.PgConn, o LookOptions) (map[uint32]Facts, error) {
	tables, publications := o.Tables, o.Publications
	if len(tables) == 0 {
		return nil, nil
	}
	oids := map[uint32]bool{}
	for _, t := range tables {
		oids[t] = true
	}
	schemas := ""
	if s.Version >= 150000 {
		schemas = schemaMembersSQL
	}
	rows, err := query(ctx, conn, fmt.Sprintf(membersSQL, schemas, typeDigits), oidArray(oids), textArray(publications))
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read what is published")
	}
	all := map[uint32]Facts{}
	for _, r := range rows {
		f := Facts{Publication: string(r[1]), Member: string(r[2]), Named: string(r[4]) == "t", Identity: r[5][0], Key: oid(r[6]), Types: string(r[7]), Shape: uint32(number(r[8])), Relations: map[uint32]RelationFacts{}}
		if bonds := string(r[3]); bonds != "" {
			f.Member += ",up:" + bonds
		}
		all[oid(r[0])] = f
	}
	if rows, err = query(ctx, conn, holdersSQL, oidArray(oids)); err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read which relations hold the rows")
	}
	for _, r := range rows {
		if f, found := all[oid(r[0])]; found {
			f.Relations[oid(r[1])] = RelationFacts{
				Parent: oid(r[2]), Bond: oid(r[3]), Class: oid(r[4]), File: oid(r[5]), Toast: oid(r[6]),
				Sum: uint32(number(r[7])), Logged: string(r[8]) == "t",
			}
		}
	}
	if !o.Generated {
		return all, nil
	}
	if rows, err = query(ctx, conn, generatedSQL, oidArray(oids)); err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read how generated columns are computed")
	}
	for oid, f := range all {
		f.Generated = "+"
		all[oid] = f
	}
	for _, r := range rows {
		if f, found := all[oid(r[6])]; found {
			f.Generated += fmt.Sprintf(",%s:%s%d", r[0], r[3], number01(string(r[4]) == "t"))
			all[oid(r[6])] = f
		}
	}
	return all, nil
}

// generatedFacts are the versions of expressions, by attnum.
func generatedFacts(text string) map[int16]string {
	all := map[int16]string{}
	for part := range strings.SplitSeq(text, ",") {
		if attnum, version, is := strings.Cut(part, ":"); is {
			all[int16(number([]byte(attnum)))] = version
		}
	}
	return all
}
