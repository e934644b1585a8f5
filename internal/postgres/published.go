package postgres

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/leatdata/leat/internal/fault"
)

// What pg_publication_tables says, which locks the tables from 15 on and waits for whoever holds one: with publish_via_partition_root a
// partition stands behind its published root, else a root behind its leaves. A row filter or column list belongs to the relation that the
// publication names.
var publishedSQL = `
with p as (select p.oid, p.pubname, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate,
                  coalesce((to_jsonb(p)->>'pubviaroot')::bool, false) root, coalesce(to_jsonb(p)->>'pubgencols', 'n') = 's' computed
           from pg_publication p where p.pubname = any($1::name[])),
g as (select r.prpubid pub, r.prrelid rel, false every from p join pg_publication_rel r on r.prpubid = p.oid
      union all select p.oid, c.oid, true from p join pg_class c on p.puballtables and c.oid >= 16384 and c.relpersistence = 'p' and c.relkind in ('r', 'p')%s),
t as (select g.pub, g.rel, bool_or(g.every) every from g join p on p.oid = g.pub join pg_class c on c.oid = g.rel
      where case when p.root then not c.relispartition or not exists (
        select from pg_partition_ancestors(g.rel) a join g up on up.rel = a.relid and up.pub = g.pub where a.relid <> g.rel) else c.relkind <> 'p' end
      group by g.pub, g.rel
      union select g.pub, m.relid, false from g join p on p.oid = g.pub and not p.root join pg_class c on c.oid = g.rel and c.relkind = 'p',
        lateral ` + below("g.rel") + ` m join pg_class l on l.oid = m.relid and l.relkind <> 'p' where not exists (select from g own where own.pub = g.pub and own.rel = m.relid))
select p.pubname, n.nspname, c.relname, %s, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.root, p.puballtables, p.computed
from t join p on p.oid = t.pub join pg_class c on c.oid = t.rel join pg_namespace n on n.oid = c.relnamespace
left join pg_publication_rel r on r.prpubid = t.pub and r.prrelid = t.rel and not t.every order by 1, 2, 3`

const (
	publishedSchemasSQL = `
      union all select p.oid, c.oid, true from p join pg_publication_namespace s on s.pnpubid = p.oid
        join pg_class c on c.relnamespace = s.pnnspid and c.relpersistence = 'p' and c.relkind in ('r', 'p')`
	publishedListsSQL = `case when r.prattrs is not null then (select json_agg(a.attname order by a.attnum) from pg_attribute a
  where a.attrelid = t.rel and a.attnum = any(r.prattrs::int2[])) end, coalesce(pg_get_expr(r.prqual, r.prrelid), '')`
)

// Published lists what the publications give, in the order of publication, schema and name. One that does not exist gives nothing.
func (s *Source) Published(ctx context.Context, names []string) ([]PublishedTable, error) {
	c, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	defer leave(c)
	schemas, lists := "", "null, ''"
	if s.Version >= 150000 {
		schemas, lists = publishedSchemasSQL, publishedListsSQL
	}
	rows, err := query(ctx, c, fmt.Sprintf(publishedSQL, schemas, lists), textArray(names))
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read what the publications give")
	}
	out := make([]PublishedTable, len(rows))
	for i, r := range rows {
		is := func(n int) bool { return string(r[n]) == "t" }
		out[i] = PublishedTable{
			Publication: string(r[0]), Schema: string(r[1]), Name: string(r[2]), RowFilter: string(r[4]),
			Insert: is(5), Update: is(6), Delete: is(7), Truncate: is(8), ViaRoot: is(9), AllTables: is(10), Generated: is(11),
		}
		if r[3] != nil {
			if err := json.Unmarshal(r[3], &out[i].Columns); err != nil {
				return nil, fault.Wrap(err, fault.SourceProtocol, s.Name, "pg_publication_rel.prattrs")
			}
		}
	}
	return out, nil
}
