package postgres

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Heartbeat writes a logical message into the log and returns its position, so that a slot moves on although none of
// the followed tables changes. On a standby, which cannot write, it does nothing and returns 0. A role that may not is
// source-rights.
func (s *Source) Heartbeat(ctx context.Context, prefix string) (change.LSN, error) {
	if s.InRecovery {
		return 0, nil
	}
	c, err := s.writer(ctx)
	if err != nil {
		return 0, err
	}
	defer leave(c)
	rows, err := query(ctx, c, "select pg_catalog.pg_logical_emit_message(false, $1, pg_catalog.clock_timestamp()::text)", prefix)
	if sqlState(err) == "42501" {
		signature := "boolean, text, text"
		if s.Version >= 170000 {
			signature += ", boolean"
		}
		return 0, fault.New(fault.SourceRights, s.Name, "the role may not write a message into the log, so the log of a quiet table's slot is kept longer").
			WithMend("Run: grant execute on function pg_catalog.pg_logical_emit_message(%s) to %s;", signature, quoteIdent(s.config.User)).Because(err)
	}
	if err != nil {
		return 0, classify(ctx, err, s.Name, "cannot write a heartbeat into the log")
	}
	return change.ParseLSN(string(rows[0][0]))
}

// LogEnd is the end of the log as far as it can be followed: what is flushed, or replayed on a standby. The distance
// to a pipeline's position is its lag in bytes.
func (s *Source) LogEnd(ctx context.Context) (change.LSN, error) {
	c, err := s.session(ctx)
	if err != nil {
		return 0, err
	}
	defer leave(c)
	rows, err := query(ctx, c, "select "+followable)
	if err != nil {
		return 0, classify(ctx, err, s.Name, "cannot read the log's position")
	}
	return change.ParseLSN(string(rows[0][0]))
}

// SnapshotAt enters a snapshot that somebody has exported, as [Source.CreateSlot] does, and locks the selected tables. Tables
// that came later are not in it.
//
// Here the snapshot is older than the locks. TRUNCATE and what rewrites a table are not MVCC-safe, and COPY goes by the
// newest definition while the catalog's rows are those of the snapshot: so a table that has been rewritten or defined
// otherwise between the two is snapshot-lost. The slot is still good: [Source.SnapshotNow] goes on from there.
func (s *Source) SnapshotAt(ctx context.Context, exported string, lsn change.LSN, sel Selection) (*Snapshot, error) {
	sn, err := s.copySnapshot(ctx)
	if err != nil {
		return nil, err
	}
	err = sn.take(ctx, sel, func() error {
		if err := exec(ctx, sn.leader, "set transaction snapshot "+quoteLiteral(exported)); err != nil {
			return fault.Wrap(classify(ctx, err, s.Name, "cannot enter the snapshot"), fault.SnapshotLost, s.Name, "the exported snapshot is gone")
		}
		sn.LSN, sn.LSNUpper, sn.Exact = lsn, lsn, true
		return nil
	})
	if err == nil {
		err = sn.unchangedSince(ctx)
	}
	if err != nil {
		sn.Close()
		return nil, err
	}
	return sn, nil
}

func (s *Source) copySnapshot(ctx context.Context) (*Snapshot, error) {
	leader, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	return &Snapshot{source: s, leader: leader, typed: true}, nil
}

// rewrittenSQL compares the file that a table had when the snapshot was taken (pg_class is read under the snapshot) with
// the one that it has now (pg_relation_filenode asks the caches, which are always current). Partitions have files, their
// roots have none.
const rewrittenSQL = `
select distinct w.oid::regclass::text
from unnest($1::oid[]) w(oid), lateral (select w.oid relid union select t.relid from pg_catalog.pg_partition_tree(w.oid) t) m
join pg_catalog.pg_class c on c.oid = m.relid
where c.relkind in ('r','m') and c.relfilenode <> pg_catalog.pg_relation_filenode(c.oid) order by 1`

// unchangedSince makes sure that the tables are still what the snapshot says. The locks hold them from now on.
func (sn *Snapshot) unchangedSince(ctx context.Context) error {
	oids := map[uint32]bool{}
	var rels []relation
	for _, t := range sn.Tables {
		oids[t.OID] = true
		rels = append(rels, relation{oid: t.OID})
	}
	rows, err := query(ctx, sn.leader, rewrittenSQL, oidArray(oids))
	if err != nil {
		return classify(ctx, err, sn.source.Name, "cannot compare the tables with the snapshot")
	}
	if len(rows) > 0 {
		return fault.New(fault.SnapshotLost, string(rows[0][0]), "the table was truncated or rewritten after the snapshot was taken")
	}
	c, err := sn.source.session(ctx)
	if err != nil {
		return err
	}
	defer leave(c)
	now, err := describeTables(ctx, c, rels, false)
	if err != nil {
		return classify(ctx, err, sn.source.Name, "cannot read the catalog")
	}
	byOID := map[uint32]*change.Table{}
	for _, t := range now {
		byOID[t.OID] = t
	}
	for _, t := range sn.Tables {
		n := byOID[t.OID]
		if n == nil || n.String() != t.String() || !slices.Equal(n.Key, t.Key) || !reflect.DeepEqual(n.Columns, t.Columns) {
			return fault.New(fault.SnapshotLost, t.String(), "the table's definition was changed after the snapshot was taken")
		}
	}
	return nil
}

// NowOptions steer Source.SnapshotNow.
type NowOptions struct {
	Selection Selection
	// At is a position that the log has been delivered to, and becomes the snapshot's LSN.
	At change.LSN
	// Delivered are the transactions that the log has delivered before At, as far as they may not be visible yet. Those
	// that were given to a SnapshotNow that succeeded are visible from then on, and need not be given again.
	Delivered []uint32
	// Waiting hears every two seconds what is waited for; may be nil.
	Waiting func(string)
}

// SnapshotNow takes a snapshot of this moment, without a slot and so without waiting for transactions that run. It is
// what a copy goes on with beside the log, or after a crash.
//
// Which transactions does it hold? A transaction writes its commit record first and becomes visible a moment later (much
// later, where it waits for a synchronous standby); the log is read up to the commit record, so it can be ahead of what
// snapshots show. Two borders follow.
//
//   - LSN (= At): every transaction with a commit record before it is visible. It is one of those that were Delivered, and
//     SnapshotNow looks again, for as long as ctx allows, until the snapshot shows all of them.
//   - LSNUpper, read after the snapshot was taken: no transaction with a commit record at or after it is visible, because
//     what is visible had written its record before.
//
// Between the two a transaction may be in the snapshot or not. Events from LSN on, applied again in order, bring any row of the
// snapshot to its latest state, visible or not, as long as rows have a key; where they have none, [Source.SnapshotAt] is needed.
//
// On a standby the order is the other way round: a commit is replayed, is visible, and only then counts as replayed, so
// nothing has been delivered that is not visible. There LSN is the replay position before, and Exact says that nothing more had
// been received by then.
func (s *Source) SnapshotNow(ctx context.Context, o NowOptions) (*Snapshot, error) {
	sn, err := s.copySnapshot(ctx)
	if err != nil {
		return nil, err
	}
	// What is visible stays so: the wait is over before anything is locked.
	if err = sn.outwait(ctx, o); err == nil {
		err = sn.take(ctx, o.Selection, func() error { return sn.fixByTime(ctx) })
	}
	if err == nil && s.InRecovery {
		err = sn.exactOnStandby(ctx)
	}
	if err != nil {
		sn.Close()
		return nil, err
	}
	if !s.InRecovery {
		sn.LSN, sn.LSNUpper = o.At, max(o.At, sn.LSNUpper)
	}
	return sn, nil
}

// outwait looks until all that the log has delivered is visible. A standby shows what it has replayed, and delivers nothing else.
func (sn *Snapshot) outwait(ctx context.Context, o NowOptions) error {
	if sn.source.InRecovery || len(o.Delivered) == 0 {
		return nil
	}
	told := time.Now()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		rows, err := query(ctx, sn.leader, "select "+sn.source.visibilitySQL())
		if err != nil {
			return classify(ctx, err, sn.source.Name, "cannot ask which transactions are visible")
		}
		late, err := firstUnseen(string(rows[0][0]), o.Delivered)
		if err != nil {
			return fault.Wrap(err, fault.SourceProtocol, sn.source.Name, "the snapshot's visibility")
		}
		if late == 0 {
			return nil
		}
		if o.Waiting != nil && time.Since(told) >= tellEvery {
			told = time.Now()
			o.Waiting(fmt.Sprintf("transaction %d, which has committed and is not visible yet: for a synchronous standby, most likely", late))
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(context.Cause(ctx), fault.Interrupted, sn.source.Name, "transaction %d has committed, but is not visible yet; it may wait for a synchronous standby", late)
		case <-time.After(wait):
		}
	}
}

// exactOnStandby looks whether all that has been received had been replayed before the snapshot was taken. The replay
// position alone does not do: it moves a moment after a commit has become visible.
func (sn *Snapshot) exactOnStandby(ctx context.Context) error {
	c, err := sn.source.session(ctx)
	if err != nil {
		return err
	}
	defer leave(c)
	rows, err := query(ctx, c, "select coalesce(pg_catalog.pg_last_wal_receive_lsn(), '0/0')")
	if err != nil {
		return classify(ctx, err, sn.source.Name, "cannot read the log's position")
	}
	received, err := change.ParseLSN(string(rows[0][0]))
	if err != nil {
		return fault.Wrap(err, fault.SourceProtocol, sn.source.Name, "pg_last_wal_receive_lsn")
	}
	sn.LSNUpper = max(sn.LSNUpper, received)
	sn.Exact = sn.LSN == received && sn.LSNUpper == received
	return nil
}

// visibility is pg_current_snapshot(): what is below xmin is visible, what is in running or from xmax on is not.
type visibility struct {
	xmin, xmax uint64
	running    map[uint32]bool
}

func parseVisibility(text string) (visibility, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return visibility{}, fmt.Errorf("snapshot %q: want xmin:xmax:list", text)
	}
	v := visibility{running: map[uint32]bool{}}
	var err error
	if v.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return v, err
	}
	if v.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return v, err
	}
	for _, x := range strings.FieldsFunc(parts[2], func(r rune) bool { return r == ',' }) {
		xid, err := strconv.ParseUint(x, 10, 64)
		if err != nil {
			return v, err
		}
		v.running[uint32(xid)] = true
	}
	return v, nil
}

// sees judges a committed top-level transaction by the 32 bits that the log tells: the rest is that of the nearest number.
func (v visibility) sees(xid uint32) bool {
	full := int64(v.xmax) + int64(int32(xid-uint32(v.xmax)))
	return full < int64(v.xmin) || full < int64(v.xmax) && !v.running[xid]
}

// Sees says whether a committed transaction is to be seen by a look with that visibility.
func Sees(visible string, xid uint32) bool {
	v, err := parseVisibility(visible)
	return err == nil && v.sees(xid)
}

// firstUnseen returns one of the transactions that a snapshot of this visibility does not hold, 0 if it holds all.
func firstUnseen(text string, xids []uint32) (uint32, error) {
	v, err := parseVisibility(text)
	if err != nil {
		return 0, err
	}
	for _, xid := range xids {
		if !v.sees(xid) {
			return xid, nil
		}
	}
	return 0, nil
}
