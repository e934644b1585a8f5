package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// PreflightOptions say what will be wanted of the server.
type PreflightOptions struct {
	Selection Selection
	Policies  Policies
	Typed     bool // a typed format, whose columns may need a policy
	Deep      bool // count the values that need a policy: reads every table
	// Slot is the one that a run reads from, "" for a dump, which can do without most of what a run needs.
	Slot string
	// Columns and RowFilter are what a run publishes of a table: nil and "" for all. The functions may be nil.
	Columns   func(schema, table string) []string
	RowFilter func(schema, table string) string
	Now       func() time.Time
}

// preflight collects findings about a server.
type preflight struct {
	ctx      context.Context
	source   *Source
	conn     *pgconn.PgConn
	opts     PreflightOptions
	findings []fault.Finding
	// unchecked columns may hold values that need a policy.
	unchecked []string
}

// Preflight looks at the server as a dump or run would, and reports what would stand in the way. It
// returns an error only when it could not look.
func (s *Source) Preflight(ctx context.Context, opts PreflightOptions) ([]fault.Finding, error) {
	c, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	defer leave(c)
	p := &preflight{ctx: ctx, source: s, conn: c, opts: opts}
	for _, look := range []func() error{p.server, p.transport, p.exactLSN, p.oldTransactions, p.clock, p.tables} {
		if err := look(); err != nil {
			return p.findings, classify(ctx, err, s.Name, "the check could not be made")
		}
	}
	return p.findings, nil
}

// follows says whether a run is asked about, and not a dump.
func (p *preflight) follows() bool { return p.opts.Slot != "" }

func (p *preflight) add(code string, severity fault.Severity, where, mend, format string, args ...any) {
	p.findings = append(p.findings, fault.Finding{Code: code, Severity: severity, Where: where, What: fmt.Sprintf(format, args...), Mend: mend})
}

func (p *preflight) server() error {
	v := p.source.Version
	p.add("server-version", fault.SeverityOK, p.source.Name, "", "PostgreSQL %s", p.conn.ParameterStatus("server_version"))
	if v < 140000 {
		p.add("no-tid-range-scan", fault.SeverityInfo, p.source.Name, "Upgrade to 14 or newer to read one large table with several connections.",
			"before PostgreSQL 14 each table is read by one connection")
	}
	p.encoding()
	if p.source.InRecovery {
		p.add("standby", fault.SeverityInfo, p.source.Name, "Set hot_standby_feedback = on, or a large max_standby_streaming_delay, so that long reads are not cancelled.",
			"the server is a standby: what is read is as old as its replay")
	}
	return nil
}

// encoding tells of a database whose text may be any bytes.
func (p *preflight) encoding() {
	switch {
	case !p.source.ascii():
	case !p.opts.Typed:
		p.add("encoding", fault.SeverityInfo, p.source.Name, "", "the database's encoding is SQL_ASCII: its text may be any bytes, which csv keeps as they are")
	case p.opts.Policies.Text == Aside:
		p.add("encoding", fault.SeverityInfo, p.source.Name, "", "the database's encoding is SQL_ASCII: its text may be any bytes. What is not UTF-8 becomes null and stands in %s of its row, as \\x and hexadecimal digits", change.SpecialName)
	case p.opts.Policies.Text == Null:
		p.add("encoding", fault.SeverityWarn, p.source.Name, "", "the database's encoding is SQL_ASCII: its text may be any bytes. What is not UTF-8 becomes null (types.text)")
	default:
		p.add("encoding", fault.SeverityWarn, p.source.Name, "Choose types.text: null, or aside for leat run; or take csv, which keeps the bytes.",
			"the database's encoding is SQL_ASCII: its text may be any bytes, and the first that is not UTF-8 fails the job")
	}
}

func (p *preflight) transport() error {
	rows, err := query(p.ctx, p.conn, `select coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false)::text, coalesce(inet_client_addr() <<= '127.0.0.0/8' or inet_client_addr() = '::1', true)::text`)
	if err != nil {
		return err
	}
	switch encrypted, local := string(rows[0][0]) == "true", string(rows[0][1]) == "true"; {
	case encrypted:
		p.add("tls", fault.SeverityOK, p.source.Name, "", "the connection is encrypted")
	case !local:
		p.add("tls", fault.SeverityWarn, p.source.Name, "Set sslmode to verify-full and sslrootcert to the server's CA.", "the connection crosses a network unencrypted")
	}
	return nil
}

// exactLSN looks for what a temporary slot needs.
func (p *preflight) exactLSN() error {
	rows, err := query(p.ctx, p.conn, `
select current_setting('wal_level'), (r.rolsuper or r.rolreplication or exists (
         select from pg_roles g where g.rolname = 'rds_replication' and pg_has_role(r.rolname, g.oid, 'member')))::text,
       current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots where slot_name <> $1), r.rolname
from pg_roles r where r.rolname = current_user`, p.opts.Slot)
	if err != nil {
		return err
	}
	lacking, without := fault.SeverityWarn, " Until then a dump's LSN is approximate."
	if p.follows() {
		lacking, without = fault.SeverityError, ""
	}
	user := string(rows[0][3])
	if level := string(rows[0][0]); level != "logical" {
		p.add("wal-level", lacking, p.source.Name, "Set wal_level = logical (on RDS: rds.logical_replication = 1) and restart."+without, "wal_level is %s, so no logical slot can be made", level)
	} else {
		p.add("wal-level", fault.SeverityOK, p.source.Name, "", "wal_level is logical")
	}
	if string(rows[0][1]) != "true" {
		p.add("replication-right", lacking, user, "alter role "+quoteIdent(user)+" replication (on RDS: grant rds_replication to "+quoteIdent(user)+")."+without, "the role may not replicate")
	} else {
		p.add("replication-right", fault.SeverityOK, user, "", "the role may replicate")
	}
	if number(rows[0][2]) < 1 {
		p.add("free-slots", lacking, p.source.Name, "Drop slots that are not used, or raise max_replication_slots."+without, "all replication slots are taken")
	}
	if p.source.InRecovery && p.source.Version < 160000 {
		p.add("standby-slot", lacking, p.source.Name, "Read from the primary, or upgrade to 16."+without, "a standby before PostgreSQL 16 has no logical slots")
	}
	return nil
}

// oldTransactions names those a slot would wait for.
func (p *preflight) oldTransactions() error {
	rows, err := query(p.ctx, p.conn, `
select pid, coalesce(usename::text, ''), date_trunc('second', now() - xact_start)::text from pg_stat_activity
where backend_xid is not null and pid <> pg_backend_pid() and xact_start < now() - interval '1 minute' order by xact_start limit 5`)
	if err != nil {
		return err
	}
	mend, what := "Let it end first, or accept an approximate LSN.", "an exact LSN waits for its end"
	if p.follows() {
		mend, what = "Let it end first, or let leat run wait.", "a new slot waits for its end"
	}
	for _, r := range rows {
		p.add("old-transaction", fault.SeverityWarn, "session "+string(r[0]), mend, "a transaction of user %s has been open for %s; %s", r[1], r[2], what)
	}
	return nil
}

func (p *preflight) clock() error {
	before := p.opts.Now()
	rows, err := query(p.ctx, p.conn, `select (extract(epoch from clock_timestamp()) * 1000000)::bigint`)
	if err != nil {
		return err
	}
	p.findings = append(p.findings, fault.ClockFinding("clock-database", p.source.Name, before, p.opts.Now(), time.UnixMicro(number(rows[0][0]))))
	return nil
}

// tables looks at each chosen table.
func (p *preflight) tables() error {
	rels, err := p.source.relations(p.ctx, p.conn, p.opts.Selection)
	if err != nil {
		if f := fault.Of(err); f != nil && f.Code == fault.SourceMissing {
			p.add("table-missing", fault.SeverityError, f.Where, f.HowToMend(), "%s", f.What)
			return nil
		}
		return err
	}
	tables, err := describeTables(p.ctx, p.conn, rels, false)
	if err != nil {
		return err
	}
	types, err := readTypes(p.ctx, p.conn, typesOf(tables...))
	if err != nil {
		return err
	}
	sn := &Snapshot{source: p.source, types: types}
	if p.follows() {
		tables = slices.DeleteFunc(tables, func(t *change.Table) bool { return !logged(t) })
	}
	for _, t := range tables {
		readable, err := p.rights(t)
		if err != nil {
			return err
		}
		p.identity(t)
		if p.opts.Typed {
			if err := p.types(sn, p.published(t), readable); err != nil {
				return err
			}
		}
	}
	p.mayNeedPolicy()
	p.add("tables", fault.SeverityOK, p.source.Name, "", "tables chosen: %d", len(tables))
	return nil
}

func (p *preflight) rights(t *change.Table) (readable bool, err error) {
	rows, err := query(p.ctx, p.conn, `
select has_schema_privilege(n.oid, 'usage')::text, has_table_privilege(c.oid, 'select')::text, row_security_active(c.oid)::text, current_user
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = $1::oid`, fmt.Sprint(t.OID))
	if err != nil || len(rows) == 0 {
		return false, err
	}
	user := quoteIdent(string(rows[0][3]))
	readable = true
	if string(rows[0][0]) != "true" {
		readable = false
		p.add("schema-usage", fault.SeverityError, t.String(), "grant usage on schema "+quoteIdent(t.Schema)+" to "+user+";", "the role may not look into the schema")
	}
	if string(rows[0][1]) != "true" {
		readable = false
		p.add("table-select", fault.SeverityError, t.String(), "grant select on "+quoteTable(t.Schema, t.Name)+" to "+user+";", "the role may not read the table")
	}
	if string(rows[0][2]) == "true" {
		readable = false
		p.add("row-security", fault.SeverityError, t.String(), "alter role "+user+" bypassrls; or use the table's owner.", "row security would hide rows from the role")
	}
	return readable, nil
}

// logged says whether the log tells of a table at all.
func logged(t *change.Table) bool {
	return (t.Kind == change.KindTable || t.Kind == change.KindPartitioned) && !t.Unlogged
}

// identity tells what following the log would meet; a dump does not mind.
func (p *preflight) identity(t *change.Table) {
	if p.follows() || !logged(t) { // of a run the pipeline itself tells
		return
	}
	mend := "alter table " + quoteTable(t.Schema, t.Name) + " replica identity full; or give it a primary key."
	switch {
	case t.ReplicaIdentity == 'n':
		p.add("replica-identity", fault.SeverityInfo, t.String(), mend, "replica identity is nothing: its updates and deletes cannot be followed in the log. A dump does without; leat run refuses the table (run.without_identity)")
	case t.ReplicaIdentity == 'd' && len(t.Key) == 0:
		p.add("replica-identity", fault.SeverityInfo, t.String(), mend, "no primary key: its updates and deletes cannot be followed in the log. A dump does without; leat run refuses the table (run.without_identity)")
	}
}

// published is a table with the columns that are published.
func (p *preflight) published(t *change.Table) *change.Table {
	if p.opts.Columns == nil {
		return t
	}
	only := p.opts.Columns(t.Schema, t.Name)
	if len(only) == 0 {
		return t
	}
	cut := *t
	cut.Columns = slices.DeleteFunc(slices.Clone(t.Columns), func(c change.Column) bool { return !slices.Contains(only, c.Name) })
	return &cut
}

// types tells which columns may hold values that need a policy.
func (p *preflight) types(sn *Snapshot, t *change.Table, readable bool) error {
	plan, err := sn.Plan(t, p.opts.Policies)
	if err != nil {
		return err
	}
	for i, c := range plan.Columns {
		if aside := c.Policy == Aside && p.opts.Deep && readable; c.Class == "" || c.Policy != Fail && !aside {
			continue
		}
		where := t.String() + "." + c.Column.Name
		mend := "Choose dump.types." + c.Class + ": text, null or clamp. Or take a text format, which carries everything."
		if p.follows() {
			mend = "Choose run.types." + c.Class + ": aside, text, null or clamp."
		}
		if !p.opts.Deep || !readable {
			p.unchecked = append(p.unchecked, where)
			continue
		}
		n, err := p.count(t, c.Column.Name, specialSQL(plan.carry[i]))
		if err != nil {
			return err
		}
		if n > 0 && c.Policy == Aside {
			p.add("type-policy", fault.SeverityInfo, where, "", "%d of its values cannot be carried exactly as %s: they become null, and their text stands in %s", n, c.Field.Type, change.SpecialName)
		} else if n > 0 {
			p.add("type-policy", fault.SeverityError, where, mend, "%d of its values cannot be carried exactly as %s", n, c.Field.Type)
		}
	}
	return nil
}

// mayNeedPolicy is one finding for all tables, since nearly every table has a timestamp.
func (p *preflight) mayNeedPolicy() {
	if p.opts.Deep || len(p.unchecked) == 0 {
		return
	}
	const shown = 3
	names := strings.Join(p.unchecked[:min(shown, len(p.unchecked))], ", ")
	if more := len(p.unchecked) - shown; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	job := "dump"
	if p.follows() {
		job = "run"
	}
	p.add("type-policy", fault.SeverityInfo, p.source.Name, "leat check --deep counts such values; "+job+".types has the policies.",
		"a %s fails if there is infinity, NaN or the like in %s", job, names)
}

// specialSQL is the condition under which a value needs the policy.
func specialSQL(c carrier) string {
	switch c.op {
	case opDate, opTimestamp:
		return "not isfinite(%[1]s)"
	case opTime:
		return "%[1]s = '24:00:00'"
	case opDecimal:
		return "%[1]s = 'NaN'"
	case opList:
		return fmt.Sprintf("array_ndims(%%[1]s) <> %d or array_lower(%%[1]s, 1) <> 1", c.dims)
	}
	return "false"
}

func (p *preflight) count(t *change.Table, column, condition string) (int64, error) {
	where := fmt.Sprintf(condition, quoteIdent(column))
	if p.opts.RowFilter != nil {
		if filter := p.opts.RowFilter(t.Schema, t.Name); filter != "" {
			where += " and (" + filter + ")"
		}
	}
	rows, err := query(p.ctx, p.conn, "select count(*)"+from(t)+" where "+where)
	if err != nil {
		return 0, err
	}
	return number(rows[0][0]), nil
}
