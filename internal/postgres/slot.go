package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Slot is what the server says of a replication slot. What a server does not know, because it is older, is left at
// its zero value.
type Slot struct {
	Name   string
	Exists bool // everything below is empty without

	Plugin, Database string
	Temporary        bool
	Failover         bool // 17+: standbys keep a copy of it
	Active           bool // somebody reads from it
	ActivePID        int
	Holder           string // who reads from it, for people: "user repl, application leat, from 10.0.0.7"
	RestartLSN       change.LSN
	ConfirmedFlush   change.LSN
	WALStatus        string     // 13+: reserved, extended, unreserved or lost
	Invalidation     string     // why it was invalidated: 17+ tells the reason, 16 only a conflict
	SafeWALSize      int64      // 13+: bytes that may be written before it can be lost; -1 unknown or without limit
	Retained         int64      // bytes of log that the server keeps because of it
	End              change.LSN // of the server's log, as far as it can be followed

	at       string // the server, for messages
	database string // ours
}

// slotRow is a row of pg_replication_slots as JSON: so one query serves all majors, whatever columns they have.
type slotRow struct {
	Plugin         string      `json:"plugin"`
	Database       string      `json:"database"`
	Temporary      bool        `json:"temporary"`
	Failover       bool        `json:"failover"`
	Active         bool        `json:"active"`
	ActivePID      int         `json:"active_pid"`
	RestartLSN     *change.LSN `json:"restart_lsn"`
	ConfirmedFlush *change.LSN `json:"confirmed_flush_lsn"`
	WALStatus      string      `json:"wal_status"`
	SafeWALSize    *int64      `json:"safe_wal_size"`
	Conflicting    bool        `json:"conflicting"`
	Invalidation   string      `json:"invalidation_reason"`
}

// logEnd is the end of the log as far as logical decoding can read it.
const logEnd = `case when pg_catalog.pg_is_in_recovery() then pg_catalog.pg_last_wal_replay_lsn() else pg_catalog.pg_current_wal_lsn() end`

// logEndBy is logEnd by another function of the server, and 0/0 where a standby has replayed nothing.
func logEndBy(function string) string {
	return "coalesce(" + strings.Replace(logEnd, "pg_current_wal_lsn", function, 1) + ", '0/0')"
}

// followable is logEnd without what is not flushed yet, which no walsender sends.
var followable = logEndBy("pg_current_wal_flush_lsn")

// writtenSQL is where the server's log ends, or what of it was replayed.
var writtenSQL = logEndBy("pg_current_wal_insert_lsn")

var slotSQL = `
select pg_catalog.row_to_json(s), coalesce(pg_catalog.pg_wal_lsn_diff(` + logEnd + `, s.restart_lsn), 0)::bigint,
       pg_catalog.concat_ws(', ', 'user ' || a.usename, 'application ' || nullif(a.application_name, ''), 'from ' || pg_catalog.host(a.client_addr)), ` + followable + `
from pg_catalog.pg_replication_slots s left join pg_catalog.pg_stat_activity a on a.pid = s.active_pid
where s.slot_name = $1`

// Slot asks for a replication slot. One that is not there is no error: Exists is false.
func (s *Source) Slot(ctx context.Context, name string) (Slot, error) {
	c, err := s.session(ctx)
	if err != nil {
		return Slot{}, err
	}
	defer leave(c)
	out := Slot{Name: name, SafeWALSize: -1, at: s.Name, database: s.config.Database}
	if out.database == "" {
		out.database = s.config.User // libpq's rule
	}
	rows, err := query(ctx, c, slotSQL, name)
	if err != nil {
		return Slot{}, classify(ctx, err, s.Name, "cannot read what the server says of slot %s", name)
	}
	if len(rows) == 0 {
		return out, nil
	}
	var row slotRow
	if err := json.Unmarshal(rows[0][0], &row); err != nil {
		return Slot{}, fault.Wrap(err, fault.SourceProtocol, s.Name, "pg_replication_slots")
	}
	out.fill(row)
	out.Retained, out.Holder = max(0, number(rows[0][1])), string(rows[0][2])
	if out.End, err = change.ParseLSN(string(rows[0][3])); err != nil {
		return Slot{}, fault.Wrap(err, fault.SourceProtocol, s.Name, "the end of the log")
	}
	return out, nil
}

func (sl *Slot) fill(row slotRow) {
	sl.Exists = true
	sl.Plugin, sl.Database, sl.Temporary, sl.Failover = row.Plugin, row.Database, row.Temporary, row.Failover
	sl.Active, sl.ActivePID, sl.WALStatus, sl.Invalidation = row.Active, row.ActivePID, row.WALStatus, row.Invalidation
	if sl.Invalidation == "" && row.Conflicting {
		sl.Invalidation = "conflict with recovery"
	}
	if row.RestartLSN != nil {
		sl.RestartLSN = *row.RestartLSN
	}
	if row.ConfirmedFlush != nil {
		sl.ConfirmedFlush = *row.ConfirmedFlush
	}
	if row.SafeWALSize != nil {
		sl.SafeWALSize = *row.SafeWALSize
	}
}

// Lost says why the slot can never be read from again, or "".
func (sl Slot) Lost() string {
	switch {
	case !sl.Exists:
		return ""
	case sl.Invalidation != "":
		return "the server has invalidated it: " + strings.ReplaceAll(sl.Invalidation, "_", " ")
	case sl.WALStatus == "lost" || sl.RestartLSN == 0:
		return "the server has removed log that it needs"
	}
	return ""
}

// Usable says whether the log can be read from the slot at a position: a nil error, or slot-missing, slot-lost,
// slot-busy, or source-failed for a slot of another kind. From 0 stands for where the slot itself is.
func (sl Slot) Usable(from change.LSN) error {
	where := sl.at + " slot " + sl.Name
	switch {
	case !sl.Exists:
		return fault.New(fault.SlotMissing, where, "there is no such slot")
	case sl.Plugin != "pgoutput":
		kind := "for physical replication"
		if sl.Plugin != "" {
			kind = "of output plugin " + sl.Plugin
		}
		return fault.New(fault.SourceFailed, where, "the slot is %s, not of pgoutput", kind).
			WithMend("Give the pipeline a slot name of its own.")
	case sl.Database != sl.database:
		return fault.New(fault.SourceFailed, where, "the slot belongs to database %s, not %s", sl.Database, sl.database).
			WithMend("Give the pipeline a slot name of its own: slot names are shared by all databases of a server.")
	case sl.Lost() != "":
		return fault.New(fault.SlotLost, where, "%s", sl.Lost())
	case from != 0 && sl.ConfirmedFlush > from:
		return fault.New(fault.SlotLost, where, "the slot has been advanced to %s, past %s, which is what the lake holds: the changes between are not in the log any more",
			sl.ConfirmedFlush, from)
	case sl.Active:
		return fault.New(fault.SlotBusy, where, "session %d reads from it (%s)", sl.ActivePID, sl.holder()).
			WithMend("End that process, or: select pg_terminate_backend(%d);", sl.ActivePID)
	}
	return nil
}

func (sl Slot) holder() string {
	if sl.Holder == "" {
		return "this role may not see whose it is"
	}
	return sl.Holder
}

// SlotOptions say how a slot is to be made.
type SlotOptions struct {
	Name     string
	Failover bool // 17+: standbys that synchronize slots keep a copy
	// Temporary slots are gone with CreatedSlot.Close: their snapshot is what was wanted.
	Temporary bool
	// Waiting hears every two seconds whom the server waits for; may be nil.
	Waiting func(string)
}

// CreatedSlot is a new slot, with the snapshot that belongs to it.
type CreatedSlot struct {
	Name string
	LSN  change.LSN // the consistent point: the log brings what commits from here on, the snapshot shows what committed before
	// Snapshot is the name of the exported snapshot; it lives until Close.
	Snapshot string

	conn *pgconn.PgConn
}

// Close ends the connection that keeps the exported snapshot. The slot stays, unless it is temporary.
func (c *CreatedSlot) Close() { leave(c.conn) }

// CreateSlot makes a logical slot for pgoutput. The server answers once every transaction that runs at that moment
// has ended, however long that takes; ctx bounds it, and a slot that was not finished is gone again.
func (s *Source) CreateSlot(ctx context.Context, o SlotOptions) (*CreatedSlot, error) {
	sql, err := s.createSlotSQL(o)
	if err != nil {
		return nil, err
	}
	conn, err := s.walsender(ctx)
	if err != nil {
		return nil, err
	}
	made, err := s.createSlot(ctx, conn, o, sql)
	if err != nil {
		leave(conn)
		return nil, err
	}
	return made, nil
}

// CanCreateSlot is source-version for a slot that a server of this version does not have.
func (s *Source) CanCreateSlot(o SlotOptions) error {
	_, err := s.createSlotSQL(o)
	return err
}

// createSlotSQL writes the command in the grammar of the server: before 15 the options are bare words.
func (s *Source) createSlotSQL(o SlotOptions) (string, error) {
	if s.InRecovery && s.Version < 160000 {
		return "", fault.New(fault.SourceVersion, s.Name, "a standby before PostgreSQL 16 has no logical slots").
			WithMend("Follow the primary, or upgrade to 16.")
	}
	if o.Failover && s.Version < 170000 {
		return "", fault.New(fault.SourceVersion, s.Name, "failover slots exist from PostgreSQL 17 on")
	}
	kind := " LOGICAL pgoutput "
	if o.Temporary {
		kind = " TEMPORARY" + kind
	}
	sql := "CREATE_REPLICATION_SLOT " + quoteIdent(o.Name) + kind
	if s.Version < 150000 {
		return sql + "EXPORT_SNAPSHOT", nil
	}
	options := "SNAPSHOT 'export'"
	if o.Failover {
		options += ", FAILOVER"
	}
	return sql + "(" + options + ")", nil
}

func (s *Source) createSlot(ctx context.Context, conn *pgconn.PgConn, o SlotOptions, sql string) (*CreatedSlot, error) {
	stop := s.tellWhomWeWaitFor(ctx, "slot "+o.Name, true, o.Waiting)
	defer stop()
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, s.slotRefused(ctx, err, o.Name)
	}
	row := results[0].Rows[0] // slot_name, consistent_point, snapshot_name, output_plugin
	lsn, err := change.ParseLSN(string(row[1]))
	if err != nil {
		return nil, fault.Wrap(err, fault.SourceProtocol, s.Name, "the slot's consistent point")
	}
	return &CreatedSlot{Name: o.Name, LSN: lsn, Snapshot: string(row[2]), conn: conn}, nil
}

// slotRefused says what to do about a slot that cannot be made.
func (s *Source) slotRefused(ctx context.Context, err error, name string) error {
	state := sqlState(err)
	err = classify(ctx, err, s.Name, "cannot make slot %s", name)
	user := quoteIdent(s.config.User)
	switch state {
	case "42501":
		return fault.Mended(err, "Run: alter role %s replication; (on RDS: grant rds_replication to %s;)", user, user)
	case "53400":
		return fault.Mended(err, "Raise max_replication_slots and restart the server, or drop a slot that nobody uses.")
	case "55000":
		return fault.Mended(err, "Set wal_level = logical (on RDS: rds.logical_replication = 1) and restart the server.")
	case "42710":
		return fault.Mended(err, "Give the pipeline a slot name of its own, or drop the old one: select pg_drop_replication_slot(%s);", quoteLiteral(name))
	}
	return err
}

// DropSlot removes a slot. One that is not there is no error; one that somebody reads from is slot-busy.
func (s *Source) DropSlot(ctx context.Context, name string) error {
	c, err := s.writer(ctx)
	if err != nil {
		return err
	}
	defer leave(c)
	_, err = query(ctx, c, "select pg_catalog.pg_drop_replication_slot($1::name)", name)
	switch sqlState(err) {
	case "42704": // undefined object
		return nil
	case "55006": // object in use
		return fault.Wrap(err, fault.SlotBusy, s.Name+" slot "+name, "the slot cannot be dropped")
	}
	return classify(ctx, err, s.Name, "cannot drop slot %s", name)
}

// tellEvery is how often whoever waits hears for whom.
const tellEvery = 2 * time.Second

// tellWhomWeWaitFor says which transactions keep a slot from being made: once, or again and again until stop.
func (s *Source) tellWhomWeWaitFor(ctx context.Context, what string, again bool, told func(string)) (stop func()) {
	if told == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		var c *pgconn.PgConn
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if c == nil {
				var err error
				if c, err = s.session(ctx); err != nil {
					return // making the slot will fail too and be told
				}
				defer leave(c)
			}
			for _, line := range s.waitedFor(ctx, c) {
				told(what + " waits for " + line)
			}
			if !again {
				return
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

// Transactions of all databases count, and those that were prepared and never ended.
const waitedForSQL = `
select pg_catalog.format('transaction %s of session %s, user %s, application %s, %s, open for %s: %s', a.backend_xid, a.pid, coalesce(a.usename::text, '?'),
         coalesce(nullif(a.application_name, ''), '-'), coalesce(a.state, '?'), pg_catalog.date_trunc('second', now() - a.xact_start), left(coalesce(a.query, ''), 60)), a.xact_start
from pg_catalog.pg_stat_activity a where a.backend_xid is not null and a.pid <> pg_catalog.pg_backend_pid()
union all
select pg_catalog.format('prepared transaction %s (%s) of user %s, since %s', p.transaction, p.gid, p.owner, p.prepared), p.prepared
from pg_catalog.pg_prepared_xacts p
order by 2 limit 3`

func (s *Source) waitedFor(ctx context.Context, c *pgconn.PgConn) []string {
	if s.InRecovery {
		return []string{"the primary to log which transactions run, as it does at a checkpoint; at once by: select pg_log_standby_snapshot(); on the primary"}
	}
	rows, err := query(ctx, c, waitedForSQL)
	if err != nil {
		return nil // nobody depends on it
	}
	lines := make([]string, len(rows))
	for i, r := range rows {
		lines[i] = oneLine(string(r[0]))
	}
	return lines
}

// String is the slot in one line, for people.
func (sl Slot) String() string {
	if !sl.Exists {
		return "slot " + sl.Name + " does not exist"
	}
	return fmt.Sprintf("slot %s at %s, keeps %d bytes of log", sl.Name, sl.ConfirmedFlush, sl.Retained)
}
