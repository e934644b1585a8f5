package postgres_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// count reads a table in a snapshot.
func count(t testing.TB, sn *postgres.Snapshot, table string) int64 {
	t.Helper()
	for _, tab := range sn.Tables {
		if tab.Name != table {
			continue
		}
		plan, err := sn.Plan(tab, postgres.Policies{})
		must(t, err)
		r, err := sn.Reader(t.Context(), postgres.Shared{})
		must(t, err)
		defer r.Close()
		var rows int64
		for _, c := range sn.Chunks(tab, 1<<20) {
			n, _, err := r.Batches(t.Context(), plan, c, func(b change.Batch) error {
				if b.Position.LSN != sn.LSN {
					t.Errorf("a batch of %s at %s", sn.LSN, b.Position.LSN)
				}
				return nil
			})
			must(t, err)
			rows += n
		}
		return rows
	}
	return -1
}

func TestASlotAndItsSnapshotMeetExactly(t *testing.T) {
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		s := sourceOf(t, db)
		db.Exec("create table leat_t (id int primary key); insert into leat_t select generate_series(1, 10000)")
		db.Exec("create publication leat for all tables")
		slot, err := s.CreateSlot(t.Context(), postgres.SlotOptions{Name: db.Name, Failover: major >= 17})
		must(t, err)
		db.Exec("insert into leat_t values (0)")
		db.Exec("create table leat_later (id int primary key)")
		sn, err := s.SnapshotAt(t.Context(), slot.Snapshot, slot.LSN, tablesLike("leat"))
		must(t, err)
		slot.Close()
		defer sn.Close()
		if n := count(t, sn, "leat_t"); n != 10000 || sn.LSN != slot.LSN || len(sn.Tables) != 1 {
			t.Errorf("%d rows at %s in %d tables", n, sn.LSN, len(sn.Tables))
		}
		got, err := s.Slot(t.Context(), db.Name)
		must(t, err)
		if !got.Exists || got.ConfirmedFlush != slot.LSN || got.Active || got.Retained <= 0 || got.Failover != (major >= 17) ||
			got.Database != db.Name || (got.WALStatus == "reserved") != (major >= 13) {
			t.Errorf("%+v", got)
		}
		must(t, got.Usable(slot.LSN))
		must(t, got.Usable(0))
		var rows int
		log, err := s.Log(t.Context(), postgres.LogOptions{Slot: db.Name, Publications: []string{"leat"}, From: slot.LSN, SpillDir: t.TempDir()})
		must(t, err)
		end, err := s.LogEnd(t.Context())
		must(t, err)
		follow(t, log, end, func(e *postgres.Event) {
			if e.Kind == postgres.EventInsert {
				rows++
			}
		})
		if rows != 1 {
			t.Errorf("the log brings %d rows", rows)
		}
		busy, err := s.Slot(t.Context(), db.Name)
		must(t, err)
		if err := busy.Usable(slot.LSN); !fault.Is(err, fault.SlotBusy) || !strings.Contains(err.Error(), "user postgres, application leat") {
			t.Errorf("%v", err)
		}
		if err := s.DropSlot(t.Context(), db.Name); !fault.Is(err, fault.SlotBusy) {
			t.Errorf("%v", err)
		}
		log.Close()
		drop(t, s, db.Name)
		must(t, s.DropSlot(t.Context(), db.Name))
		if got, err := s.Slot(t.Context(), db.Name); err != nil || got.Exists || !fault.Is(got.Usable(0), fault.SlotMissing) {
			t.Errorf("%+v %v", got, err)
		}
	})
}

// drop drops a slot whose reader has just gone.
func drop(t *testing.T, s *postgres.Source, name string) {
	t.Helper()
	deadline := time.Now().Add(logPatience)
	for {
		err := s.DropSlot(t.Context(), name)
		if err == nil {
			return
		}
		if !fault.Is(err, fault.SlotBusy) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestWhatIsWrongWithASlotIsSaid(t *testing.T) {
	t.Parallel()
	f := func(change func(*postgres.Slot), from change.LSN, code fault.Code, word string) {
		t.Helper()
		sl := postgres.Slot{Name: "s", Exists: true, Plugin: "pgoutput", RestartLSN: 5, ConfirmedFlush: 10, WALStatus: "reserved"}
		change(&sl)
		if err := sl.Usable(from); !fault.Is(err, code) || !strings.Contains(err.Error(), word) {
			t.Errorf("%+v: %v", sl, err)
		}
	}
	f(func(s *postgres.Slot) {}, 9, fault.SlotLost, "advanced to 0/A, past 0/9")
	f(func(s *postgres.Slot) { s.WALStatus = "lost" }, 10, fault.SlotLost, "removed log")
	f(func(s *postgres.Slot) { s.RestartLSN = 0 }, 10, fault.SlotLost, "removed log")
	f(func(s *postgres.Slot) { s.Invalidation = "idle_timeout" }, 10, fault.SlotLost, "idle timeout")
	f(func(s *postgres.Slot) { s.Plugin = "test_decoding" }, 10, fault.SourceFailed, "test_decoding")
	f(func(s *postgres.Slot) { s.Plugin = "" }, 10, fault.SourceFailed, "physical")
	f(func(s *postgres.Slot) { s.Database = "other" }, 10, fault.SourceFailed, "other")
	f(func(s *postgres.Slot) { s.Active = true }, 10, fault.SlotBusy, "session 0")
}

func TestALostSlotIsNoticed(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 16, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.OwnPostgres(t, testlab.ServerOptions{Major: major, Settings: []string{"max_slot_wal_keep_size = 1MB", "max_wal_size = 32MB", "min_wal_size = 32MB"}})
			s := sourceOf(t, db)
			slot, err := s.CreateSlot(t.Context(), postgres.SlotOptions{Name: "s"})
			must(t, err)
			slot.Close()
			first, err := s.Slot(t.Context(), "s")
			must(t, err)
			if first.SafeWALSize < 0 {
				t.Errorf("%+v", first)
			}
			for range 6 {
				db.Exec("select pg_switch_wal(); create table x(); drop table x; checkpoint")
			}
			lost, err := s.Slot(t.Context(), "s")
			must(t, err)
			if err := lost.Usable(slot.LSN); !fault.Is(err, fault.SlotLost) {
				t.Errorf("%+v: %v", lost, err)
			}
			must(t, s.DropSlot(t.Context(), "s"))
		})
	}
}

func TestMakingASlotTellsForWhomItWaits(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	s := sourceOf(t, db)
	db.Exec("create table t (id int)")
	c := db.Connect()
	must(t, run(t.Context(), c, "set application_name = 'night batch'; begin; insert into t values (1)"))
	db.Exec("begin; insert into t values (2); prepare transaction 'forgotten'")
	heard := make(chan string, 100)
	made := make(chan error, 1)
	go func() {
		slot, err := s.CreateSlot(t.Context(), postgres.SlotOptions{Name: "s", Waiting: func(line string) { heard <- line }})
		if err == nil {
			slot.Close()
		}
		made <- err
	}()
	var all string
	for !strings.Contains(all, "night batch") || !strings.Contains(all, "forgotten") {
		select {
		case line := <-heard:
			all += line + "\n"
		case err := <-made:
			t.Fatalf("made too early: %v; %s", err, all)
		case <-time.After(logPatience):
			t.Fatalf("heard %q", all)
		}
	}
	if !strings.Contains(all, "user postgres") || !strings.Contains(all, "idle in transaction") || !strings.Contains(all, "begin; insert into t") {
		t.Errorf("%s", all)
	}
	must(t, run(t.Context(), c, "commit"))
	db.Exec("rollback prepared 'forgotten'")
	must(t, <-made)

	// Who gives up leaves no slot behind.
	must(t, run(t.Context(), c, "begin; insert into t values (1)"))
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(300*time.Millisecond, cancel)
	if _, err := s.CreateSlot(ctx, postgres.SlotOptions{Name: "given_up"}); !fault.Is(err, fault.Interrupted) {
		t.Errorf("%v", err)
	}
	deadline := time.Now().Add(logPatience)
	for {
		got, err := s.Slot(t.Context(), "given_up")
		must(t, err)
		if !got.Exists {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v", got)
		}
	}
}

func TestATableThatChangedBetweenSlotAndLockIsNotCopied(t *testing.T) {
	t.Parallel()
	for _, sql := range []string{
		"truncate leat_t", "alter table leat_t alter id type bigint", "vacuum full leat_t", "truncate leat_p1",
		"alter table leat_t add column extra int default 5", "alter table leat_t rename b to c", "alter table leat_t drop column b",
		"alter table leat_t rename to leat_u", "alter table leat_t drop constraint leat_t_pkey", "drop table leat_t",
	} {
		t.Run(sql, func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t)
			s := sourceOf(t, db)
			db.Exec("create table leat_t (id int primary key, b text); insert into leat_t values (1)")
			db.Exec("create table leat_p (id int primary key) partition by list (id)")
			db.Exec("create table leat_p1 partition of leat_p for values in (1); insert into leat_p values (1)")
			slot, err := s.CreateSlot(t.Context(), postgres.SlotOptions{Name: db.Name})
			must(t, err)
			defer slot.Close()
			db.Exec(sql)
			sel := tablesLike("leat")
			sel.PartitionRoots = true
			sn, err := s.SnapshotAt(t.Context(), slot.Snapshot, slot.LSN, sel)
			if sql == "drop table leat_t" { // it is not there to be chosen any more
				must(t, err)
				defer sn.Close()
				if len(sn.Tables) != 1 {
					t.Errorf("%v", sn.Tables)
				}
				return
			}
			if !fault.Is(err, fault.SnapshotLost) || !fault.Retryable(err) {
				t.Fatalf("%v", err)
			}
			now, err := s.SnapshotNow(t.Context(), postgres.NowOptions{Selection: sel, At: slot.LSN})
			must(t, err)
			now.Close()
		})
	}
}

// The log tells each transaction; of those at the upper border and beyond the snapshot must hold none.
func TestASnapshotWithoutASlotHoldsNothingBeyondItsBorder(t *testing.T) {
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		lab := newLogLab(t, db, "create table leat_t (xid bigint)")
		log := lab.open(lab.options())
		defer log.Close()
		stop, work := make(chan struct{}), sync.WaitGroup{}
		for range 4 {
			c := db.Connect()
			work.Go(func() { keepInserting(t, c, stop) })
		}
		type shot struct {
			sn   *postgres.Snapshot
			xids map[uint32]bool
		}
		var shots []shot
		for range 10 {
			at, err := lab.source.LogEnd(t.Context())
			must(t, err)
			sn, err := lab.source.SnapshotNow(t.Context(), postgres.NowOptions{Selection: tablesLike("leat")})
			must(t, err)
			if sn.LSNUpper < at {
				t.Errorf("upper border %s before %s", sn.LSNUpper, at)
			}
			shots = append(shots, shot{sn, xidsIn(t, db, sn.ID)})
			sn.Close()
		}
		close(stop)
		work.Wait()
		checked, hidden := 0, 0
		follow(t, log, lab.now(), func(e *postgres.Event) {
			if e.Kind != postgres.EventInsert {
				return
			}
			for _, sh := range shots {
				if e.Tx.LSN >= sh.sn.LSNUpper && sh.xids[e.Tx.XID] {
					t.Fatalf("transaction %d at %s is in the snapshot (%s, up to %s)", e.Tx.XID, e.Tx.LSN, sh.sn.Visibility, sh.sn.LSNUpper)
				}
				checked++
				if e.Tx.LSN < sh.sn.LSNUpper && !sh.xids[e.Tx.XID] {
					hidden++
				}
			}
		})
		if checked < 100 {
			t.Errorf("%d were compared", checked)
		}
		t.Logf("%d compared, %d had written their commit record but were not visible", checked, hidden)
	})
}

func keepInserting(t *testing.T, c *pgx.Conn, stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
			if err := run(context.Background(), c, "begin; insert into leat_t select txid_current(); commit"); err != nil {
				t.Error(err)
				return
			}
		}
	}
}

func xidsIn(t *testing.T, db *testlab.DB, snapshot string) map[uint32]bool {
	t.Helper()
	c := db.Connect()
	tx, err := c.BeginTx(t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead})
	must(t, err)
	_, err = tx.Exec(t.Context(), "set transaction snapshot '"+snapshot+"'")
	must(t, err)
	rows, err := tx.Query(t.Context(), "select xid from leat_t")
	must(t, err)
	xids := map[uint32]bool{}
	for rows.Next() {
		var x int64
		must(t, rows.Scan(&x))
		xids[uint32(x)] = true
	}
	must(t, rows.Err())
	return xids
}

// A transaction that waits for a synchronous standby is in the log already, but no snapshot shows it.
func TestASnapshotWaitsForWhatTheLogHasDeliveredAlready(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	lab := newLogLab(t, db, "create table leat_t (xid bigint)")
	log := lab.open(lab.options())
	defer log.Close()
	c := db.Connect()
	db.Exec("alter system set synchronous_standby_names = 'nobody'")
	db.Exec("select pg_reload_conf()")
	lab.eventually("select current_setting('synchronous_standby_names') = 'nobody'")
	stop, done := make(chan struct{}), sync.WaitGroup{}
	done.Go(func() { keepInserting(t, c, stop) }) // until the setting has reached the server's last corner
	lab.eventually("exists (select from pg_stat_activity where wait_event = 'SyncRep')")
	close(stop)
	var delivered []uint32
	at, err := lab.source.LogEnd(t.Context())
	must(t, err)
	rows := int64(0)
	follow(t, log, at, func(e *postgres.Event) {
		if e.Kind == postgres.EventCommit {
			delivered = append(delivered, e.Tx.XID)
			rows++
		}
	})
	o := postgres.NowOptions{Selection: tablesLike("leat"), At: at, Delivered: delivered}
	heard := make(chan string, 100)
	o.Waiting = func(line string) { heard <- line }
	short, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		if line := <-heard; !strings.Contains(line, "which has committed and is not visible yet") || db.One("select count(*) from pg_locks where relation = 'leat_t'::regclass and mode = 'AccessShareLock'") != "0" {
			t.Errorf("%s, or the table is locked meanwhile", line)
		}
		cancel()
	}()
	if sn, err := lab.source.SnapshotNow(short, o); !fault.Is(err, fault.Interrupted) {
		t.Errorf("%+v %v", sn, err)
	}
	db.Exec("alter system reset synchronous_standby_names")
	db.Exec("select pg_reload_conf()")
	sn, err := lab.source.SnapshotNow(t.Context(), o)
	must(t, err)
	defer sn.Close()
	if n := count(t, sn, "leat_t"); n != rows || sn.LSN != at {
		t.Errorf("%d rows at %s", n, sn.LSN)
	}
	done.Wait()
}

// Whoever drops a table while we wait for its lock wins: the next look does not find it.
func TestATableThatIsDroppedBeforeItIsLockedIsLookedForAgain(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t), "create table leat_t (id int); create table leat_gone (id int)")
	c := lab.Connect()
	must(t, run(t.Context(), c, "begin; drop table leat_gone"))
	done := make(chan error, 1)
	go func() {
		sn, err := lab.source.SnapshotNow(t.Context(), postgres.NowOptions{Selection: tablesLike("leat")})
		if err == nil {
			sn.Close()
		}
		done <- err
	}()
	lab.eventually("exists (select from pg_locks where relation = 'leat_gone'::regclass and not granted)")
	must(t, run(t.Context(), c, "commit"))
	if err := <-done; !fault.Is(err, fault.SnapshotLost) || !fault.Retryable(err) {
		t.Errorf("%v", err)
	}
}

func TestAStandbyIsFollowed(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 16, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			primary := testlab.OwnPostgres(t, testlab.ServerOptions{Major: major})
			primary.Exec("create table leat_t (id int primary key); create publication leat for all tables")
			db := primary.Standby()
			primary.Exec("insert into leat_t values (1)")
			primary.CatchUp(db)
			s := sourceOf(t, db)
			if lsn, err := s.Heartbeat(t.Context(), "leat"); err != nil || lsn != 0 {
				t.Errorf("%s %v", lsn, err)
			}
			if _, err := s.EnsurePublication(t.Context(), postgres.PublicationOptions{Name: "missing"}); !fault.Is(err, fault.PublicationUnusable) ||
				!strings.Contains(fault.Of(err).Mend, "on the primary: create publication") {
				t.Errorf("%v", err)
			}
			sn, err := s.SnapshotNow(t.Context(), postgres.NowOptions{Selection: tablesLike("leat")})
			must(t, err)
			if n := count(t, sn, "leat_t"); n != 1 {
				t.Errorf("%d rows", n)
			}
			sn.Close()
			heard := make(chan string, 100)
			made := make(chan error, 1)
			var slot *postgres.CreatedSlot
			go func() {
				var err error
				slot, err = s.CreateSlot(t.Context(), postgres.SlotOptions{Name: "s", Waiting: func(line string) { heard <- line }})
				made <- err
			}()
			if major < 16 {
				if err := <-made; !fault.Is(err, fault.SourceVersion) {
					t.Errorf("%v", err)
				}
				return
			}
			if line := <-heard; !strings.Contains(line, "pg_log_standby_snapshot()") {
				t.Errorf("%s", line)
			}
			primary.Exec("select pg_log_standby_snapshot()")
			must(t, <-made)
			defer slot.Close()
			at, err := s.SnapshotAt(t.Context(), slot.Snapshot, slot.LSN, tablesLike("leat"))
			must(t, err)
			defer at.Close()
			if n := count(t, at, "leat_t"); n != 1 {
				t.Errorf("%d rows", n)
			}
			got, err := s.Slot(t.Context(), "s")
			must(t, err)
			must(t, got.Usable(slot.LSN))
		})
	}
}
