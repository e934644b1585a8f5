package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// LSNMode says how the snapshot's LSN is found.
type LSNMode string

// The modes. A temporary logical slot gives the exact LSN of its snapshot, but needs REPLICATION, wal_level = logical
// and that every transaction running at that moment ends first.
const (
	LSNAuto        LSNMode = "auto"        // exact where it can be had within SlotWait, else approximate
	LSNExact       LSNMode = "exact"       // exact or an error
	LSNApproximate LSNMode = "approximate" // never make a slot
)

// SnapshotOptions steer Source.Snapshot.
type SnapshotOptions struct {
	Selection Selection
	LSN       LSNMode
	SlotWait  time.Duration // how long LSNAuto and LSNExact wait for running transactions; 0 is no limit
	Typed     bool          // readers decode values or want UTF-8; false keeps the bytes of a SQL_ASCII database
	RoleForm  bool          // values are written as in a session that the role itself opens, see Snapshot.Form
	Told      func(string)  // hears what is waited for; may be nil
}

// Snapshot is a moment of the database that many readers share. All its tables are locked
// against being dropped or rewritten (ACCESS SHARE) until Close.
type Snapshot struct {
	// ID is the exported snapshot's name.
	ID string
	// LSN: every transaction that committed before it is seen, and, when Exact, none that
	// committed after. When not Exact the truth lies between LSN and LSNUpper.
	LSN, LSNUpper change.LSN
	Exact         bool
	WhyNotExact   string
	// Visibility is pg_current_snapshot() ("xmin:xmax:list"): the exact set of transactions
	// that are seen, whether or not the LSN is exact.
	Visibility string
	Time       time.Time // the server's clock when the snapshot was taken
	Tables     []*change.Table
	// Form is, with RoleForm, under which settings readers have values written; nil is the list's (docs/sessions.md).
	Form map[string]string

	source *Source
	types  typeTable
	money  int32
	typed  bool
	leader *pgconn.PgConn
	mu     sync.Mutex // one statement at a time on leader
}

// Snapshot locks the selected tables and takes one snapshot of them. The order matters: the
// locks come first, because TRUNCATE and rewriting ALTER TABLE are not MVCC-safe; a table that
// was rewritten between snapshot and lock would look empty.
func (s *Source) Snapshot(ctx context.Context, opts SnapshotOptions) (*Snapshot, error) {
	leader, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	sn := &Snapshot{source: s, leader: leader, typed: opts.Typed}
	if opts.RoleForm {
		sn.Form, err = s.form(ctx, leader)
	}
	if err == nil {
		err = sn.take(ctx, opts.Selection, func() error { return sn.fix(ctx, opts) })
	}
	if err != nil {
		sn.Close()
		return nil, err
	}
	return sn, nil
}

// take locks the tables, lets fix choose the moment, and reads what the catalog says of them at that moment.
func (sn *Snapshot) take(ctx context.Context, sel Selection, fix func() error) error {
	rels, err := sn.source.relations(ctx, sn.leader, sel)
	if err != nil {
		return err
	}
	if err := exec(ctx, sn.leader, "begin transaction isolation level repeatable read, read only"); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot begin the snapshot's transaction")
	}
	if err := sn.lock(ctx, rels); err != nil {
		return err
	}
	if err := fix(); err != nil {
		return err
	}
	if err := sn.describe(ctx); err != nil {
		return err
	}
	if sn.Tables, err = describeTables(ctx, sn.leader, rels, true); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot read the catalog")
	}
	if sn.types, err = readTypes(ctx, sn.leader, typesOf(sn.Tables...)); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot read the types")
	}
	if sn.money, err = moneyDigits(ctx, sn.leader); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot read how money is kept")
	}
	return nil
}

// lock takes ACCESS SHARE, the lock that SELECT takes (Invariant 9), on every table. Views and foreign tables are
// locked when they are read: LOCK TABLE would need rights on what stands below a view.
func (sn *Snapshot) lock(ctx context.Context, rels []relation) error {
	const batch = 200
	var names []string
	var tables []relation
	for _, r := range rels {
		if r.kind == change.KindTable || r.kind == change.KindPartitioned {
			names, tables = append(names, quoteTable(r.schema, r.name)), append(tables, r)
		}
	}
	for len(names) > 0 {
		n := min(batch, len(names))
		err := exec(ctx, sn.leader, "lock table "+strings.Join(names[:n], ", ")+" in access share mode")
		switch {
		case err == nil:
		case sqlState(err) == "55P03":
			return sn.blocked(ctx, tables, err)
		case sqlState(err) == "42501":
			return sn.forbidden(ctx, names[:n], err)
		case sqlState(err) == "42P01":
			return fault.Wrap(err, fault.SnapshotLost, sn.source.Name, "a table was dropped after it was listed")
		default:
			return classify(ctx, err, sn.source.Name, "cannot lock the tables for reading")
		}
		names, tables = names[n:], tables[n:]
	}
	return nil
}

// blocked names the tables that other sessions hold, for whose locks we waited in vain. The snapshot's own transaction is lost.
func (sn *Snapshot) blocked(ctx context.Context, tables []relation, cause error) error {
	var names []Name
	for _, t := range tables {
		names = append(names, Name{t.schema, t.name})
	}
	held := heldOf(ctx, sn.leader, names, readLock, cause)
	where, who := held.first(sn.source.Name)
	return fault.New(fault.SourceTimeout, where, "waited %s for %s to release its lock", sn.source.set.LockTimeout, who).
		WithMend("Let that session end, or raise lock_timeout.").Because(held)
}

// forbidden names all tables that the role may not read, and the grants they want.
func (sn *Snapshot) forbidden(ctx context.Context, names []string, cause error) error {
	user := quoteIdent(sn.source.config.User)
	lacking := fault.Wrap(cause, fault.SourceRights, sn.source.Name, "cannot lock the tables for reading")
	c, err := sn.source.session(ctx) // the leader's transaction is lost
	if err != nil {
		return lacking
	}
	defer leave(c)
	rows, err := query(ctx, c, `
select n.nspname, c.relname, pg_catalog.has_schema_privilege(n.oid, 'usage'), pg_catalog.has_table_privilege(c.oid, 'select')
from unnest($1::text[]) wanted(name) join pg_catalog.pg_namespace n on true join pg_catalog.pg_class c on c.relnamespace = n.oid
where wanted.name = pg_catalog.concat('"', replace(n.nspname, '"', '""'), '"."', replace(c.relname, '"', '""'), '"')
order by 1, 2`, textArray(names))
	if err != nil {
		return lacking
	}
	var tables, grants []string
	for _, r := range rows {
		schema, table := string(r[0]), string(r[1])
		usage, sel := string(r[2]) == "t", string(r[3]) == "t"
		if !usage || !sel {
			tables = append(tables, (&change.Table{Schema: schema, Name: table}).String())
		}
		if grant := "grant usage on schema " + quoteIdent(schema) + " to " + user + ";"; !usage && !slices.Contains(grants, grant) {
			grants = append(grants, grant)
		}
		if !sel {
			grants = append(grants, "grant select on "+quoteTable(schema, table)+" to "+user+";")
		}
	}
	if len(tables) == 0 {
		return lacking
	}
	return fault.New(fault.SourceRights, strings.Join(tables, ", "), "the role may not read it").
		WithMend("Run: %s", strings.Join(grants, " ")).Because(cause)
}

func textArray(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// fix makes the leader's transaction see one moment, and finds its LSN.
func (sn *Snapshot) fix(ctx context.Context, opts SnapshotOptions) error {
	if opts.LSN != LSNApproximate {
		err := sn.fixBySlot(ctx, opts)
		if err == nil || opts.LSN == LSNExact || ctx.Err() != nil {
			return err
		}
		sn.WhyNotExact = reason(err)
	} else {
		sn.WhyNotExact = "lsn: approximate was asked for"
	}
	if !sn.Exact {
		if err := sn.fixByTime(ctx); err != nil {
			return err
		}
	}
	return nil
}

// reason says in a few words why no slot could be made; the manifest keeps it.
func reason(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return oneLine(pg.Message)
	}
	if f := fault.Of(err); f != nil {
		return f.What
	}
	return oneLine(err.Error())
}

// fixBySlot takes the snapshot that a temporary logical slot exports: it sees exactly what committed before the
// slot's consistent point. The slot is gone again before the first row is read, so it never holds WAL back.
func (sn *Snapshot) fixBySlot(ctx context.Context, opts SnapshotOptions) error {
	if sn.source.InRecovery && sn.source.Version < 160000 {
		return fault.New(fault.SourceVersion, sn.source.Name, "a standby before PostgreSQL 16 has no logical slots")
	}
	repl, err := sn.source.walsender(ctx)
	if err != nil {
		return err
	}
	defer leave(repl)
	stop := sn.source.tellWhomWeWaitFor(ctx, "an exact LSN", false, opts.Told)
	defer stop()
	wait := ctx
	if opts.SlotWait > 0 {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, opts.SlotWait)
		defer cancel()
	}
	name := fmt.Sprintf("leat_tmp_%d_%d", repl.PID(), time.Now().UnixNano())
	results, err := repl.Exec(wait, "CREATE_REPLICATION_SLOT "+quoteIdent(name)+" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT").ReadAll()
	if err != nil {
		if ctx.Err() == nil && errors.Is(wait.Err(), context.DeadlineExceeded) {
			return fault.New(fault.SourceTimeout, sn.source.Name, "running transactions did not end within %s, so no slot could be made", opts.SlotWait).
				WithMend("Raise slot_wait, end the old transactions, or accept an approximate LSN (lsn: approximate).")
		}
		return fault.Mended(classify(ctx, err, sn.source.Name, "cannot make a temporary slot"),
			"Grant REPLICATION to the user and set wal_level = logical, or accept an approximate LSN (lsn: approximate).")
	}
	row := results[0].Rows[0] // slot_name, consistent_point, snapshot_name, output_plugin
	lsn, err := change.ParseLSN(string(row[1]))
	if err != nil {
		return fault.Wrap(err, fault.SourceProtocol, sn.source.Name, "the slot's consistent point")
	}
	if err := exec(ctx, sn.leader, "set transaction snapshot "+quoteLiteral(string(row[2]))); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot enter the slot's snapshot")
	}
	sn.LSN, sn.LSNUpper, sn.Exact = lsn, lsn, true
	return nil
}

// fixByTime takes an ordinary snapshot with the log's position before and after it: the LSN lies between.
func (sn *Snapshot) fixByTime(ctx context.Context) error {
	// A second session asks for the position, because the leader's first query is its snapshot.
	c, err := sn.source.session(ctx)
	if err != nil {
		return err
	}
	defer leave(c)
	if sn.LSN, err = logPosition(ctx, c, sn.source.InRecovery); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot read the log's position")
	}
	if err := exec(ctx, sn.leader, "select 1"); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot take the snapshot")
	}
	if sn.LSNUpper, err = logPosition(ctx, c, sn.source.InRecovery); err != nil {
		return classify(ctx, err, sn.source.Name, "cannot read the log's position")
	}
	return nil
}

func logPosition(ctx context.Context, c *pgconn.PgConn, standby bool) (change.LSN, error) {
	sql := "select pg_catalog.pg_current_wal_insert_lsn()"
	if standby {
		sql = "select coalesce(pg_catalog.pg_last_wal_replay_lsn(), '0/0')"
	}
	rows, err := query(ctx, c, sql)
	if err != nil {
		return 0, err
	}
	return change.ParseLSN(string(rows[0][0]))
}

// visibilitySQL is the text of which transactions a statement's snapshot sees.
func (s *Source) visibilitySQL() string {
	if s.Version < 130000 {
		return "pg_catalog.txid_current_snapshot()::text"
	}
	return "pg_catalog.pg_current_snapshot()::text"
}

// describe exports the leader's snapshot for the readers and notes what it sees.
func (sn *Snapshot) describe(ctx context.Context) error {
	rows, err := query(ctx, sn.leader, "select pg_catalog.pg_export_snapshot(), "+sn.source.visibilitySQL()+", (extract(epoch from pg_catalog.clock_timestamp())*1000000)::bigint")
	if err != nil {
		return classify(ctx, err, sn.source.Name, "cannot export the snapshot")
	}
	sn.ID, sn.Visibility, sn.Time = string(rows[0][0]), string(rows[0][1]), time.UnixMicro(number(rows[0][2])).UTC()
	return nil
}

// Alive says whether the snapshot still stands; when it does not, nothing more can be read in it.
func (sn *Snapshot) Alive(ctx context.Context) error {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	if err := exec(ctx, sn.leader, "select 1"); err != nil {
		return fault.Wrap(err, fault.SnapshotLost, sn.source.Name, "the connection that holds the snapshot ended")
	}
	return nil
}

// Close ends the snapshot's transaction and gives its locks back.
func (sn *Snapshot) Close() { leave(sn.leader) }
