package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/fault"
)

// DDLEvents are the objects that let the WAL tell of DDL: three event triggers and their function, of one pipeline.
type DDLEvents struct {
	Slot         string // the pipeline's: the objects are called after it
	Publications []string
}

// DDLState is what there is of them.
type DDLState struct {
	There  bool // at least one of them
	Usable bool // all, and messages come
	Right  bool // all, as this program makes them
	// Why says what is wrong where they are not right.
	Why string
	// Create makes or repairs them, Drop removes them.
	Create, Drop []string
}

// ddlSchema holds the functions.
const ddlSchema = "_leat"

// ddlVersion grows with the function. It stands in the comment on it: a newer one is left alone.
const ddlVersion = 1

// ddlMark is the comment on the function, before the version.
const ddlMark = "leat: DDL events, version "

// ddlTriggers are the event triggers, by the end of their names. A TRUNCATE has no event, and the WAL tells it.
var ddlTriggers = []struct {
	name, event string
	tags        []string
}{
	{"_ddl_end", "ddl_command_end", []string{
		"ALTER EXTENSION", "ALTER FOREIGN TABLE", "ALTER PUBLICATION", "ALTER TABLE", "CREATE EXTENSION", "CREATE FOREIGN TABLE",
		"CREATE PUBLICATION", "CREATE SCHEMA", "CREATE TABLE", "CREATE TABLE AS", "SELECT INTO",
	}},
	{"_ddl_drop", "sql_drop", []string{"ALTER PUBLICATION", "DROP OWNED", "DROP PUBLICATION"}},
	{"_ddl_rewrite", "table_rewrite", nil},
}

// ddlBody is the function. It runs with the rights of whoever runs the DDL, reads the catalog alone and fails nothing: what it reads is
// in a block of its own, and it writes only what it is sure that it may. %[1]s are the publications, %[2]s the prefix of the messages.
//
// weak are partitions of which the WAL tells less than of their root; see leavesSQL. columns are those that the rewriting transaction
// has changed.
const ddlBody = `
declare
  ours constant name[] := %[1]s;
  told json;
  may bool;
  reason int := 0;
  rewritten oid;
  members oid[];
  every bool;
begin
  begin
    select has_function_privilege(p.oid, 'execute') into may from pg_proc p
    where p.pronamespace = 'pg_catalog'::regnamespace and p.proname = 'pg_logical_emit_message' and p.proargtypes[2] = 'text'::regtype;
    if may is not true then
      return;
    end if;
    select array_agg(r.prrelid) into members from pg_publication_rel r join pg_publication p on p.oid = r.prpubid where p.pubname = any(ours);
    select exists (select from pg_publication p where p.pubname = any(ours) and p.puballtables) into every;
    if not every and current_setting('server_version_num')::int >= 150000 then
      select members || array_agg(c.oid) into members from pg_publication p join pg_publication_namespace n on n.pnpubid = p.oid
      join pg_class c on c.relnamespace = n.pnnspid and c.relkind in ('r', 'p') where p.pubname = any(ours);
    end if;
    if tg_event = 'sql_drop' then
      select json_build_object('publications', json_agg(json_build_object('name', g.name, 'table', to_regclass(g.member)::oid::bigint))) into told from (
        select case when d.objsubid = 0 and d.classid = 'pg_publication'::regclass then d.address_names[1] else d.address_args[1] end as name,
               case when d.classid = 'pg_publication_rel'::regclass then format('%%I.%%I', d.address_names[1], d.address_names[2]) end as member
        from pg_event_trigger_dropped_objects() d where d.classid in ('pg_publication'::regclass, 'pg_publication_rel'::regclass)) g
      where g.name = any(ours) having count(*) > 0;
    else
      if tg_event = 'table_rewrite' then
        rewritten := pg_event_trigger_table_rewrite_oid();
        reason := pg_event_trigger_table_rewrite_reason();
      end if;
      with object as (
        select d.classid, d.objid from pg_event_trigger_ddl_commands() d where tg_event = 'ddl_command_end' and d.objid is not null
        union select 'pg_class'::regclass, rewritten where rewritten is not null
      ), relation as (
        select c.oid, array(select a.relid::oid from pg_partition_ancestors(c.oid) a) as above
        from object o join pg_class c on c.oid = o.objid
        where o.classid = 'pg_class'::regclass and c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't'
      ), followed as (
        select r.oid, array_remove(r.above, r.oid) as above, coalesce(pg_partition_root(r.oid)::oid, r.oid) as root
        from relation r where every or r.oid = any(members) or r.above && members
      ), leaf as (
        select f.oid as of, f.root, t.relid::oid as oid from followed f, pg_partition_tree(f.oid) t
        where t.isleaf and t.relid::oid <> f.root and tg_event = 'ddl_command_end'
      ), identity as (
        select c.oid, c.relreplident as kind, array(
          select a.attname::text from pg_index i, unnest(i.indkey::int2[]) with ordinality k(attnum, n)
          join pg_attribute a on a.attnum = k.attnum
          where i.indrelid = c.oid and a.attrelid = c.oid and k.n <= i.indnkeyatts
            and case c.relreplident when 'i' then i.indisreplident when 'n' then false else i.indisprimary and i.indimmediate end) as columns
        from pg_class c where c.oid in (select l.root from leaf l union select l.oid from leaf l)
      ), weak as (
        select l.of, l.oid, row_number() over (partition by l.of order by l.oid) as n
        from leaf l join identity i on i.oid = l.oid join identity r on r.oid = l.root join pg_class c on c.oid = l.oid
        where c.relkind = 'r' and i.kind <> 'f' and (r.columns = '{}' or not i.columns @> r.columns)
      ), changed as (
        select publication.pubname as name, o.member from pg_publication publication join (
          select b.objid as pub, null::oid as member from object b where b.classid = 'pg_publication'::regclass
          union all select m.prpubid, m.prrelid from object b join pg_publication_rel m on m.oid = b.objid where b.classid = 'pg_publication_rel'::regclass
        ) o on o.pub = publication.oid where publication.pubname = any(ours)
      )
      select json_build_object(
        'tables', (select json_agg(json_build_object(
            'oid', f.oid::bigint, 'above', f.above::bigint[], 'identity', c.relreplident,
            'key', coalesce((select k.oid::bigint from pg_constraint k where k.conrelid = f.oid and k.contype = 'p'), 0),
            'weak', (select json_agg(w.oid::bigint) from weak w where w.of = f.oid and w.n <= 100),
            'reason', reason,
            'columns', case when reason <> 0 then (select json_agg(json_build_array(a.attnum, a.atttypid::bigint, a.atttypmod, a.attgenerated = 's'))
              from pg_attribute a where a.attrelid = f.oid and a.attnum > 0 and not a.attisdropped and age(a.xmin) between -1000000 and 0) end))
          from followed f join pg_class c on c.oid = f.oid),
        'publications', (select json_agg(json_build_object('name', g.name, 'table', g.member::bigint)) from changed g)) into told
      where exists (select from followed) or exists (select from changed);
    end if;
    if told is null then
      return;
    end if;
    told := json_build_object('version', 1, 'by', left(current_setting('leat.slot', true), 63), 'tables', told->'tables', 'publications', told->'publications');
    if octet_length(told::text) > 8000 then
      told := json_build_object('version', 1, 'many', true);
    end if;
  exception when others then
    raise log 'leat is not told of this command: %% (%%)', sqlerrm, sqlstate;
    return;
  end;
  perform pg_logical_emit_message(true, %[2]s, told::text);
end
`

// DDLPrefix begins the prefix of the messages; the pipeline's slot follows.
const DDLPrefix = "leat_ddl:"

// Prefix is that of the pipeline's messages.
func (d DDLEvents) Prefix() string { return DDLPrefix + d.Slot }

// base is what the objects' names begin with.
func (d DDLEvents) base() string {
	if len(d.Slot)+len("_ddl_rewrite") <= 63 {
		return d.Slot
	}
	sum := sha256.Sum256([]byte(d.Slot))
	return "leat_" + hex.EncodeToString(sum[:8])
}

func (d DDLEvents) function() string { return quoteTable(ddlSchema, d.base()+"_ddl") }

func (d DDLEvents) body() string {
	names := make([]string, len(d.Publications))
	for i, p := range d.Publications {
		names[i] = quoteLiteral(p)
	}
	oneLine := strings.Join(strings.Fields(ddlBody), " ") // a hint has the SQL, and a hint is one line
	return fmt.Sprintf(oneLine, "array["+strings.Join(names, ", ")+"]::name[]", quoteLiteral(d.Prefix()))
}

func (d DDLEvents) triggerSQL() (sql []string) {
	for _, t := range ddlTriggers {
		when := ""
		if len(t.tags) > 0 {
			when = " when tag in ('" + strings.Join(t.tags, "', '") + "')"
		}
		name := quoteIdent(d.base() + t.name)
		sql = append(sql, "drop event trigger if exists "+name,
			"create event trigger "+name+" on "+t.event+when+" execute function "+d.function()+"()",
			"alter event trigger "+name+" enable always") // also where session_replication_role is replica
	}
	return sql
}

func (d DDLEvents) dropSQL() (sql []string) {
	for _, t := range ddlTriggers {
		sql = append(sql, "drop event trigger if exists "+quoteIdent(d.base()+t.name))
	}
	return append(sql, "drop function if exists "+d.function()+"()")
}

const ddlFunctionSQL = `
select p.prosrc, p.prosecdef, coalesce(p.proconfig::text, ''), l.lanname, coalesce(obj_description(p.oid, 'pg_proc'), ''), p.provolatile
from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
where n.nspname = $1 and p.proname = $2 and p.pronargs = 0`

const ddlTriggersSQL = `
select t.evtname, t.evtevent, t.evtenabled, coalesce(array_to_string(array(select unnest(t.evttags) order by 1), ','), ''), n.nspname = $2 and p.proname = $3
from pg_event_trigger t join pg_proc p on p.oid = t.evtfoid join pg_namespace n on n.oid = p.pronamespace where t.evtname = any($1::name[])`

var ddlMarked = regexp.MustCompile("^" + ddlMark + `(\d{1,9})$`)

// ddlState compares what is there with what is wanted.
func (s *Source) ddlState(ctx context.Context, c *pgconn.PgConn, d DDLEvents) (DDLState, error) {
	st := DDLState{Drop: d.dropSQL()}
	function := d.base() + "_ddl"
	rows, err := query(ctx, c, "select to_regnamespace($1) is null", quoteIdent(ddlSchema))
	if err != nil {
		return st, err
	}
	if string(rows[0][0]) == "t" {
		st.Create = append(st.Create, "create schema "+quoteIdent(ddlSchema))
	}
	rows, err = query(ctx, c, ddlFunctionSQL, ddlSchema, function)
	if err != nil {
		return st, err
	}
	functionRight, newer := false, false
	if len(rows) == 1 {
		r := rows[0]
		version := 0
		if m := ddlMarked.FindSubmatch(r[4]); m != nil {
			version, _ = strconv.Atoi(string(m[1]))
		}
		newer = version > ddlVersion
		functionRight = version == ddlVersion && sameSQL(string(r[0]), d.body()) && string(r[1]) == "f" && string(r[2]) == `{"search_path=pg_catalog, pg_temp",jit=off}` &&
			string(r[3]) == "plpgsql" && string(r[5]) == "v"
		st.There = true
	}
	triggersRight, err := s.ddlTriggersRight(ctx, c, d, function, &st)
	if err != nil {
		return st, err
	}
	if !functionRight && !newer {
		st.Create = append(st.Create,
			"create or replace function "+d.function()+"() returns event_trigger language plpgsql volatile security invoker set search_path = pg_catalog, pg_temp set jit = off as "+dollarQuoted(d.body()),
			"comment on function "+d.function()+"() is '"+ddlMark+strconv.Itoa(ddlVersion)+"'")
	}
	if !triggersRight {
		st.Create = append(st.Create, d.triggerSQL()...)
	}
	st.Usable = len(rows) == 1 && triggersRight && (functionRight || newer)
	st.Right = functionRight && triggersRight
	switch {
	case !st.There:
		st.Why = "they are not there"
	case newer:
		st.Why = "the function is of a newer leat"
	case len(rows) == 0:
		st.Why = "the function is not there"
	case !functionRight:
		st.Why = "the function is another one than this leat makes"
	case !triggersRight:
		st.Why = "an event trigger is missing, disabled, not ENABLE ALWAYS or another one"
	}
	return st, nil
}

func (s *Source) ddlTriggersRight(ctx context.Context, c *pgconn.PgConn, d DDLEvents, function string, st *DDLState) (bool, error) {
	var names []string
	for _, t := range ddlTriggers {
		names = append(names, d.base()+t.name)
	}
	rows, err := query(ctx, c, ddlTriggersSQL, textArray(names), ddlSchema, function)
	if err != nil {
		return false, err
	}
	st.There = st.There || len(rows) > 0
	right := 0
	for _, r := range rows {
		for _, t := range ddlTriggers {
			if string(r[0]) == d.base()+t.name && string(r[1]) == t.event && string(r[2]) == "A" && string(r[3]) == strings.Join(slices.Sorted(slices.Values(t.tags)), ",") && string(r[4]) == "t" {
				right++
			}
		}
	}
	return right == len(ddlTriggers), nil
}

// sameSQL compares two texts but for white space, which a terminal may have changed.
func sameSQL(a, b string) bool { return slices.Equal(strings.Fields(a), strings.Fields(b)) }

// dollarQuoted quotes a function's body so that people can read it.
func dollarQuoted(body string) string {
	tag := "$leat$"
	for i := 0; strings.Contains(body, tag); i++ {
		tag = fmt.Sprintf("$leat%d$", i)
	}
	return tag + body + tag
}

// DDLEventsState looks at what there is of a pipeline's DDL events.
func (s *Source) DDLEventsState(ctx context.Context, d DDLEvents) (DDLState, error) {
	c, err := s.session(ctx)
	if err != nil {
		return DDLState{}, err
	}
	defer leave(c)
	st, err := s.ddlState(ctx, c, d)
	return st, classify(ctx, err, s.Name, "cannot look at the event triggers")
}

// MayMakeEventTriggers says whether it makes sense to try: PostgreSQL lets superusers alone, and managed services a role of theirs.
func (s *Source) MayMakeEventTriggers(ctx context.Context) (bool, error) {
	if s.InRecovery {
		return false, nil
	}
	c, err := s.session(ctx)
	if err != nil {
		return false, err
	}
	defer leave(c)
	rows, err := query(ctx, c, `
select pg_catalog.bool_or(r.rolname = current_user and r.rolsuper or r.rolname = any($1::name[]) and pg_catalog.pg_has_role(r.oid, 'member'))
from pg_catalog.pg_roles r`, textArray(managedSuperusers))
	if err != nil {
		return false, classify(ctx, err, s.Name, "cannot read the role's rights")
	}
	return string(rows[0][0]) == "t", nil
}

// managedSuperusers are the roles of services that have no superusers for their users.
var managedSuperusers = []string{"rds_superuser", "cloudsqlsuperuser", "alloydbsuperuser", "azure_pg_admin", "neon_superuser", "supabase_admin"}

// EnsureDDLEvents makes the objects, or brings them up to date. A role that may not is source-rights with the SQL to run.
func (s *Source) EnsureDDLEvents(ctx context.Context, d DDLEvents) (made bool, err error) {
	return s.changeDDLEvents(ctx, d, func(st DDLState) []string {
		if st.Right || st.Usable {
			return nil
		}
		return st.Create
	})
}

// DropDDLEvents removes them, and the schema when it is empty.
func (s *Source) DropDDLEvents(ctx context.Context, d DDLEvents) (dropped bool, err error) {
	return s.changeDDLEvents(ctx, d, func(st DDLState) []string {
		if !st.There {
			return nil
		}
		return append(st.Drop, dropEmptySchema)
	})
}

// dropEmptySchema leaves a schema that holds something else, or that is another's.
const dropEmptySchema = `do $leat$ begin drop schema if exists "` + ddlSchema + `"; exception when dependent_objects_still_exist or insufficient_privilege then null; end $leat$`

// changeDDLEvents changes them in one transaction. Another leat that does the same at the time is waited for.
func (s *Source) changeDDLEvents(ctx context.Context, d DDLEvents, statements func(DDLState) []string) (changed bool, err error) {
	c, err := s.writer(ctx)
	if err != nil {
		return false, err
	}
	defer leave(c)
	defer func() { _ = exec(ctx, c, "rollback") }() // after a commit there is nothing to roll back
	const alone = "begin; select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('leat: DDL events'))"
	if err := exec(ctx, c, alone); err != nil {
		return false, classify(ctx, err, s.Name, "cannot wait for another leat that makes event triggers")
	}
	st, err := s.ddlState(ctx, c, d)
	if err != nil {
		return false, classify(ctx, err, s.Name, "cannot look at the event triggers")
	}
	do := statements(st)
	if len(do) == 0 {
		return false, nil
	}
	for _, sql := range append(do, "commit") {
		if err := exec(ctx, c, sql); err != nil {
			if sqlState(err) == "42501" {
				return false, fault.New(fault.SourceRights, s.Name, "the role may not make or remove event triggers").
					WithMend("Run as a superuser: %s; or choose run.ddl_events: off.", strings.Join(do, "; ")).Because(err)
			}
			return false, classify(ctx, err, s.Name, "cannot make or remove event triggers")
		}
	}
	return true, nil
}
