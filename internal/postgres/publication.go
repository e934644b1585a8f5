package postgres

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// PublicationOptions say what a publication must give.
type PublicationOptions struct {
	Name   string
	Tables []*change.Table
	// ViaRoot publishes changes of partitions under the root's name (13+). It is a property of the whole publication.
	ViaRoot bool
	// InsertsOnly publishes inserts and truncates only: for tables whose updates the log could not identify.
	InsertsOnly bool
	RowFilters  map[string]string   // by Table.String(): the condition of WHERE (15+)
	Columns     map[string][]string // by Table.String(): the columns to send (15+)
	// Given marks somebody else's publication: it is looked at, never changed. Its filters are its own affair.
	Given bool
	// By is the slot of the pipeline that changes it: its own DDL events name it, see [DDL].
	By string
	// Trial takes back what was made, when it has shown that it can be.
	Trial bool
	// Followed are tables of which is to be known what a change replaces, and Beside the publications that give them.
	Followed []uint32
	Beside   []string
}

// Republished is a change of a publication: what was published until then and from then on, of the tables that are followed.
type Republished struct{ Before, After map[uint32]Facts }

func (o PublicationOptions) operations() string {
	if o.InsertsOnly {
		return "insert, truncate"
	}
	return "insert, update, delete, truncate"
}

// PublishedTable is a table as a publication gives it.
type PublishedTable struct {
	Publication  string
	Schema, Name string
	Columns      []string // nil is all of them
	RowFilter    string   // "" is all rows

	Insert, Update, Delete, Truncate, ViaRoot bool

	Generated bool // stored generated columns too, where Columns are all of them (18+)
	AllTables bool // it gives every table from the moment it is made
}

// publication is what the catalog says of one.
type publication struct {
	exists, allTables, viaRoot bool
	operations                 string // in the order of operations()
	generated                  bool   // publishes stored generated columns (18+)
}

// EnsurePublication makes the publication give the tables, all their operations and nothing else. It returns what it had to
// change, nil for nothing. A given one is only looked at, and so is any on a standby. What is lacking, or what the role may not do, is
// publication-unusable with the SQL to run.
//
// Publishing the updates of a table makes PostgreSQL refuse the updates that the log could not identify, and with them the
// application's work. So a table without a usable replica identity is key-missing here, unless InsertsOnly; and so is a row
// filter or column list that would have that effect.
func (s *Source) EnsurePublication(ctx context.Context, o PublicationOptions) (*Republished, error) {
	o.Given = o.Given || s.InRecovery
	if err := s.publishable(o); err != nil {
		return nil, err
	}
	c, err := s.writer(ctx)
	if err != nil {
		return nil, err
	}
	defer leave(c)
	have, err := s.publication(ctx, c, o.Name)
	if err != nil {
		return nil, err
	}
	statements, add, err := s.publicationSQL(ctx, c, have, o)
	if err != nil || len(statements) == 0 {
		return nil, err
	}
	if o.Given {
		what := "it does not exist"
		if have.exists {
			what = "it does not give all that is needed"
		}
		return nil, s.publicationUnusable(o.Name, nil, statements, what)
	}
	changed, err := s.publish(ctx, c, o, statements)
	if sqlState(err) == "55P03" {
		held := heldOf(ctx, c, namesOf(add), publishLock, err)
		where, who := held.first(s.Name)
		return nil, fault.New(fault.SourceTimeout, where, "it cannot come into publication %s yet: %s holds a lock on it", o.Name, who).
			WithMend("Let that session end.").Because(held)
	}
	return changed, err
}

// TryTable tries whether the publication can give the only table of o, with its row filter and column list, and takes it
// back. Errors are as of EnsurePublication, and publication-unusable for a filter or list that does not fit the table.
func (s *Source) TryTable(ctx context.Context, o PublicationOptions) error {
	if err := s.publishable(o); err != nil {
		return err
	}
	c, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer leave(c)
	have, err := s.publication(ctx, c, o.Name)
	if err != nil {
		return err
	}
	t := o.Tables[0]
	members, err := s.publishedTables(ctx, c, o)
	if err != nil {
		return err
	}
	clause := tableClauses(o.Tables, o)[0]
	statements := []string{"create publication " + quoteIdent(o.Name) + " for table " + clause}
	if have.exists {
		statements = []string{"alter publication " + quoteIdent(o.Name) + " add table " + clause}
		if m, is := members[t.OID]; is && m.named {
			statements = slices.Insert(statements, 0, "alter publication "+quoteIdent(o.Name)+" drop table only "+m.sql)
		}
	}
	o.Trial = true
	_, err = s.publish(ctx, c, o, statements)
	switch sqlState(err) {
	case "42703", "42601", "42883", "42804", "0A000", "42P17": // a column, an operator or a function that is not there, or not allowed
		return fault.New(fault.PublicationUnusable, t.String(), "its row filter or column list does not fit it").
			WithMend("Correct run.row_filters or run.columns for this table.").Because(err)
	}
	return err
}

// HasPublication says whether there is a publication of the name.
func (s *Source) HasPublication(ctx context.Context, name string) (bool, error) {
	c, err := s.session(ctx)
	if err != nil {
		return false, err
	}
	defer leave(c)
	have, err := s.publication(ctx, c, name)
	return have.exists, err
}

// DropPublication removes a publication; one that is not there is no error.
func (s *Source) DropPublication(ctx context.Context, name string) error {
	c, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer leave(c)
	return classify(ctx, exec(ctx, c, "drop publication if exists "+quoteIdent(name)), s.Name, "cannot drop publication %s", name)
}

// publishable refuses what the server's version cannot do, and what would stop the application.
func (s *Source) publishable(o PublicationOptions) error {
	if s.Version < 150000 && len(o.RowFilters)+len(o.Columns) > 0 {
		return fault.New(fault.SourceVersion, s.Name, "row filters and column lists exist from PostgreSQL 15 on")
	}
	for _, t := range o.Tables {
		if t.Kind == change.KindPartitioned && s.Version < 130000 {
			return fault.New(fault.SourceVersion, t.String(), "PostgreSQL 12 cannot publish a partitioned table as a whole").
				WithMend("Choose its partitions instead.")
		}
		if t.Kind != change.KindTable && t.Kind != change.KindPartitioned {
			return fault.New(fault.SourceVersion, t.String(), "changes of a %s are not in the log", t.Kind)
		}
		if !o.InsertsOnly && !o.Given && (t.ReplicaIdentity == 'n' || t.ReplicaIdentity == 'd' && len(t.Key) == 0) {
			return fault.New(fault.KeyMissing, t.String(), "the table has no replica identity: once its updates were published, PostgreSQL would refuse them to the application").
				WithMend("Run: alter table %s replica identity full; or give it a primary key, or follow its inserts only.", quoteTable(t.Schema, t.Name))
		}
	}
	return nil
}

// publication reads pg_publication as JSON: pubviaroot came with 13, pubgencols with 18.
func (s *Source) publication(ctx context.Context, c *pgconn.PgConn, name string) (publication, error) {
	rows, err := query(ctx, c, `
select (p.j->>'puballtables')::bool, coalesce((p.j->>'pubviaroot')::bool, false), coalesce(p.j->>'pubgencols', 'n') = 's',
       concat_ws(', ', case when (p.j->>'pubinsert')::bool then 'insert' end, case when (p.j->>'pubupdate')::bool then 'update' end,
                       case when (p.j->>'pubdelete')::bool then 'delete' end, case when (p.j->>'pubtruncate')::bool then 'truncate' end)
from (select to_jsonb(p) j from pg_publication p where pubname = $1) p`, name)
	if err != nil {
		return publication{}, classify(ctx, err, s.Name, "cannot read what publication %s gives", name)
	}
	if len(rows) == 0 {
		return publication{}, nil
	}
	r := rows[0]
	return publication{exists: true, allTables: string(r[0]) == "t", viaRoot: string(r[1]) == "t", generated: string(r[2]) == "t", operations: string(r[3])}, nil
}

// publicationSQL is what must be run to make the publication as it is wanted, and the tables that come into it; nothing when it is.
func (s *Source) publicationSQL(ctx context.Context, c *pgconn.PgConn, have publication, o PublicationOptions) (out []string, add []*change.Table, err error) {
	name := quoteIdent(o.Name)
	with := s.publicationParameters(publication{}, o)
	if !have.exists {
		sql := "create publication " + name
		if len(o.Tables) > 0 {
			sql += " for table " + strings.Join(tableClauses(o.Tables, o), ", ")
		}
		return []string{sql + " with (" + with + ")"}, o.Tables, nil
	}
	if with := s.publicationParameters(have, o); with != "" {
		out = append(out, "alter publication "+name+" set ("+with+")")
	}
	if have.allTables {
		return out, nil, nil
	}
	published, err := s.publishedTables(ctx, c, o)
	if err != nil {
		return nil, nil, err
	}
	add, drop, err := s.publicationDifference(ctx, c, published, o)
	if err != nil {
		return nil, nil, err
	}
	if len(drop) > 0 {
		out = append(out, "alter publication "+name+" drop table only "+strings.Join(drop, ", only "))
	}
	if len(add) > 0 {
		out = append(out, "alter publication "+name+" add table "+strings.Join(tableClauses(add, o), ", "))
	}
	return out, add, nil
}

// publicationParameters lists the parameters in which the publication differs from what is wanted.
func (s *Source) publicationParameters(have publication, o PublicationOptions) string {
	var with []string
	lacks := have.operations != o.operations()
	if o.Given { // more than needed is welcome
		lacks = !o.InsertsOnly && lacks || !strings.Contains(have.operations, "insert") || !strings.Contains(have.operations, "truncate")
	}
	if lacks {
		with = append(with, "publish = '"+o.operations()+"'")
	}
	if s.Version >= 130000 && have.viaRoot != o.ViaRoot && (!o.Given || !o.ViaRoot || slices.ContainsFunc(o.Tables, partitioned)) {
		with = append(with, fmt.Sprintf("publish_via_partition_root = %t", o.ViaRoot))
	}
	if s.Version >= 180000 && !have.generated && !o.Given {
		with = append(with, "publish_generated_columns = stored")
	}
	return strings.Join(with, ", ")
}

// partitioned says whether a table is followed as the root of its partitions: one that is none does not mind how those are published.
func partitioned(t *change.Table) bool { return t.Kind == change.KindPartitioned }

// tableClauses names the tables as CREATE and ALTER PUBLICATION take them.
func tableClauses(tables []*change.Table, o PublicationOptions) []string {
	out := make([]string, len(tables))
	for i, t := range tables {
		sql := quoteTable(t.Schema, t.Name)
		if t.Kind == change.KindTable {
			sql = "only " + sql // children by inheritance are tables of their own
		}
		if columns := o.Columns[t.String()]; columns != nil {
			quoted := make([]string, len(columns))
			for j, c := range columns {
				quoted[j] = quoteIdent(c)
			}
			sql += " (" + strings.Join(quoted, ", ") + ")"
		}
		if filter := o.RowFilters[t.String()]; filter != "" {
			sql += " where (" + filter + ")"
		}
		out[i] = sql
	}
	return out
}

// member is a table that a publication names, or gives by way of a schema or a root.
type member struct {
	oid     uint32
	sql     string // its quoted name
	columns string // attnums, "" for all
	filter  string // as the server writes it
	named   bool   // itself, so that it can be dropped
}

func (s *Source) publishedTables(ctx context.Context, c *pgconn.PgConn, o PublicationOptions) (map[uint32]member, error) {
	sql := `
select r.prrelid, format('%I.%I', n.nspname, k.relname), `
	if s.Version >= 150000 {
		sql += `coalesce(r.prattrs::text, ''), coalesce(pg_get_expr(r.prqual, r.prrelid), ''), true`
	} else {
		sql += `'', '', true`
	}
	sql += `
from pg_publication p join pg_publication_rel r on r.prpubid = p.oid join pg_class k on k.oid = r.prrelid join pg_namespace n on n.oid = k.relnamespace
where p.pubname = $1`
	if s.Version >= 150000 {
		sql += `
union all
select k.oid, format('%I.%I', s.nspname, k.relname), '', '', false
from pg_publication p join pg_publication_namespace pn on pn.pnpubid = p.oid join pg_namespace s on s.oid = pn.pnnspid
join pg_class k on k.relnamespace = s.oid and k.relkind in ('r','p') where p.pubname = $1`
	}
	rows, err := query(ctx, c, sql, o.Name)
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read the tables of publication %s", o.Name)
	}
	members := map[uint32]member{}
	for _, r := range rows {
		m := member{oid: oid(r[0]), sql: string(r[1]), columns: string(r[2]), filter: string(r[3]), named: string(r[4]) == "t"}
		if old, twice := members[m.oid]; !twice || !old.named {
			members[m.oid] = m
		}
	}
	return members, nil
}

// publicationDifference compares the tables. A given publication may have more of them.
func (s *Source) publicationDifference(ctx context.Context, c *pgconn.PgConn, have map[uint32]member, o PublicationOptions) (add []*change.Table, drop []string, err error) {
	filters := map[string]string{}
	if !o.Given {
		if filters, err = s.serversFilters(ctx, c, o); err != nil {
			return nil, nil, err
		}
	}
	above, err := s.partitionRoots(ctx, c, o)
	if err != nil {
		return nil, nil, err
	}
	wanted := map[uint32]bool{}
	for _, t := range o.Tables {
		wanted[t.OID] = true
		m, found := have[t.OID]
		if found && (o.Given || m.filter == filters[t.String()] && m.columns == columnList(t, o.Columns[t.String()])) {
			continue
		}
		if !found && slices.ContainsFunc(above[t.OID], func(root uint32) bool { _, ok := have[root]; return ok }) {
			for _, root := range above[t.OID] {
				wanted[root] = true
			}
			continue
		}
		if found {
			drop = append(drop, m.sql)
		}
		add = append(add, t)
	}
	if o.Given {
		return add, nil, nil
	}
	for _, m := range have {
		if !wanted[m.oid] && m.named {
			drop = append(drop, m.sql)
		}
	}
	slices.Sort(drop)
	return add, drop, nil
}

// partitionRoots are the tables above each wanted one: whoever publishes a root publishes its partitions.
func (s *Source) partitionRoots(ctx context.Context, c *pgconn.PgConn, o PublicationOptions) (map[uint32][]uint32, error) {
	if o.ViaRoot || s.Version < 130000 {
		return nil, nil
	}
	oids := map[uint32]bool{}
	for _, t := range o.Tables {
		oids[t.OID] = true
	}
	rows, err := query(ctx, c, `select w.oid, a.relid::oid from unnest($1::oid[]) w(oid), pg_partition_ancestors(w.oid) a where a.relid::oid <> w.oid`, oidArray(oids))
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot list the partitions")
	}
	above := map[uint32][]uint32{}
	for _, r := range rows {
		above[oid(r[0])] = append(above[oid(r[0])], oid(r[1]))
	}
	return above, nil
}

// columnList is a column list as pg_publication_rel.prattrs has it.
func columnList(t *change.Table, names []string) string {
	if names == nil {
		return ""
	}
	var out []string
	for _, c := range t.Columns {
		if slices.Contains(names, c.Name) {
			out = append(out, fmt.Sprint(c.Attnum))
		}
	}
	return strings.Join(out, " ")
}

// serversFilters are the row filters as the server writes them. It only tells once they belong to a publication: one is made
// for the question and never committed.
func (s *Source) serversFilters(ctx context.Context, c *pgconn.PgConn, o PublicationOptions) (map[string]string, error) {
	var filtered []*change.Table
	for _, t := range o.Tables {
		if o.RowFilters[t.String()] != "" {
			filtered = append(filtered, t)
		}
	}
	out := map[string]string{}
	if len(filtered) == 0 {
		return out, nil
	}
	scratch := "leat_" + rand.Text()
	sql := "create publication " + quoteIdent(scratch) + " for table " + strings.Join(tableClauses(filtered, o), ", ")
	defer func() { _ = exec(ctx, c, "rollback") }() // a connection that is gone has rolled back already
	if err := exec(ctx, c, "begin; "+sql); err != nil {
		return nil, s.publicationRefused(ctx, err, o.Name, []string{strings.Replace(sql, quoteIdent(scratch), quoteIdent(o.Name), 1)})
	}
	rows, err := query(ctx, c, `select r.prrelid, pg_get_expr(r.prqual, r.prrelid) from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = $1`, scratch)
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read the row filters")
	}
	for _, r := range rows {
		for _, t := range filtered {
			if t.OID == oid(r[0]) {
				out[t.String()] = string(r[1])
			}
		}
	}
	return out, nil
}

// publish runs the statements in one transaction, unless the application would suffer from them.
func (s *Source) publish(ctx context.Context, c *pgconn.PgConn, o PublicationOptions, statements []string) (*Republished, error) {
	defer func() { _ = exec(ctx, c, "rollback") }() // after a commit there is nothing to roll back
	if err := exec(ctx, c, "begin; set local leat.slot = "+quoteLiteral(o.By)+"; "+strings.Join(statements, "; ")); err != nil {
		return nil, s.publicationRefused(ctx, err, o.Name, statements)
	}
	if s.Version >= 150000 && !o.InsertsOnly {
		only := uint32(0)
		if o.Trial && len(o.Tables) == 1 {
			only = o.Tables[0].OID
		}
		if err := s.identified(ctx, c, o.Name, only); err != nil {
			return nil, err
		}
	}
	if o.Trial {
		return nil, nil
	}
	changed, err := s.republished(ctx, c, o)
	if err != nil {
		return nil, err
	}
	if err := exec(ctx, c, "commit"); err != nil {
		return nil, classify(ctx, err, s.Name, "cannot change publication %s", o.Name)
	}
	return changed, nil
}

// republished is what a transaction replaces that has changed a publication and is not committed yet. Rows of the catalog that it has
// changed cannot be changed by others until it ends, and others see them as they were. So whatever others have changed before this
// look is in Before, and whatever they change after it is not in After.
func (s *Source) republished(ctx context.Context, c *pgconn.PgConn, o PublicationOptions) (changed *Republished, err error) {
	changed = &Republished{}
	if changed.After, err = s.facts(ctx, c, LookOptions{Publications: o.Beside, Tables: o.Followed}); err != nil {
		return nil, err
	}
	other, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	defer leave(other)
	changed.Before, err = s.facts(ctx, other, LookOptions{Publications: o.Beside, Tables: o.Followed})
	return changed, err
}

// identifiedSQL finds filters that look at columns outside the replica identity, and column lists that lack columns of it:
// with either PostgreSQL refuses updates of the table. The columns of a filter stand in its tree only: pg_depend does not
// tell them from those of the list.
const identifiedSQL = `
with identity as (
  select r.prqual, r.prrelid, r.prattrs, k.relreplident,
         coalesce((select array_agg(a) from pg_index i, unnest(i.indkey::int2[]) a where i.indrelid = k.oid
                   and (k.relreplident = 'd' and i.indisprimary and i.indimmediate or k.relreplident = 'i' and i.indisreplident)), '{}') cols
  from pg_publication p join pg_publication_rel r on r.prpubid = p.oid join pg_class k on k.oid = r.prrelid where p.pubname = $1 and ($2::oid = 0 or r.prrelid = $2::oid))
select i.prrelid::regclass::text, a.attname, 'the row filter looks at a column that is not'
from identity i, regexp_matches(i.prqual::text, ':varattno (\d+)', 'g') v
join pg_attribute a on a.attnum = v[1]::int2
where a.attrelid = i.prrelid and i.relreplident <> 'f' and not a.attnum = any(i.cols)
union all
select i.prrelid::regclass::text, a.attname, 'the column list lacks a column that is'
from identity i join pg_attribute a on a.attrelid = i.prrelid and a.attnum > 0 and not a.attisdropped
where i.prattrs is not null and not a.attnum = any(i.prattrs::int2[]) and (i.relreplident = 'f' or a.attnum = any(i.cols))
limit 1`

// identified refuses a publication that would stop the application: of one table, or of all for 0.
func (s *Source) identified(ctx context.Context, c *pgconn.PgConn, name string, only uint32) error {
	rows, err := query(ctx, c, identifiedSQL, name, fmt.Sprint(only))
	if err != nil {
		return classify(ctx, err, s.Name, "cannot compare publication %s with the replica identities", name)
	}
	if len(rows) == 0 {
		return nil
	}
	return fault.New(fault.KeyMissing, string(rows[0][0])+"."+string(rows[0][1]),
		"%s part of the replica identity: PostgreSQL would refuse updates of the table to the application", rows[0][2]).
		WithMend("Change the row filter or column list, or the table's replica identity (alter table %s replica identity full, or using an index with that column).", rows[0][0])
}

func (s *Source) publicationRefused(ctx context.Context, err error, name string, statements []string) error {
	switch sqlState(err) {
	case "42501":
		return s.publicationUnusable(name, err, statements, "the role may not make or change it")
	case "55P03":
		return classify(ctx, err, s.Name, "cannot change publication %s: a table is locked", name)
	case "42710", "42P01", "42704", "3F000": // it is there already; or table, publication or schema are not: renamed, made or dropped since they were read
		return fault.Wrap(err, fault.SourceBusy, s.Name, "cannot change publication %s: another session has changed it or its tables meanwhile", name)
	}
	return classify(ctx, err, s.Name, "cannot make or change publication %s", name)
}

func (s *Source) publicationUnusable(name string, cause error, statements []string, what string) error {
	who := "as the owner of the tables, who must have the right to create in the database"
	if s.InRecovery {
		who += ", on the primary"
	}
	return fault.New(fault.PublicationUnusable, s.Name+" publication "+name, "%s", what).
		WithMend("Run %s: %s;", who, strings.Join(statements, "; ")).Because(cause)
}
