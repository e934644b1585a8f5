package pipeline_test

import (
	"context"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// A table that waits to be drained is copied anew: by an operator's wish, or because the process ended and the copy begins again.
func TestACopyThatBeginsAgainLeavesNoGapInTheHistory(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	b.db.Exec("create table notes (id int primary key, v text); insert into notes select i, 'old' from generate_series(1, 4) i")
	b.mustCatchUp()
	become := func(phase, guard string) {
		b.restate(func(saved map[string]any) {
			s := stateOf(saved, "notes")
			s["phase"], s["anew"], saved["guard"] = phase, phase == "copying", guard
			if s["since"] == nil || phase == "spooling" {
				s["since"] = saved["position"]
			}
		})
	}
	become("spooling", "spooling")
	b.more = []string{"--set", "run.guard_spool=1KiB"} // the server keeps more than that at any time
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("insert into notes values (10, 'new'); update notes set v = 'changed' where id = 1; delete from notes where id = 2")
	b.takenFrom(func() { b.db.Exec("update notes set v = 'again' where id = 1") })
	p.Kill()
	become("copying", "")
	b.more = nil
	b.db.Exec("update notes set v = 'last' where id = 3; delete from notes where id = 10")
	b.mustCatchUp()
	b.judge("notes")
	told := map[string]int{}
	for _, row := range b.inLake("notes_history")["notes_history"].chosen([]string{"_leat_op", "id", "v"}) {
		told[row]++
	}
	for _, want := range []string{"c|10|new", "u|1|changed", "d|2|NULL", "u|1|again", "u|3|last", "d|10|NULL"} {
		if told[want] != 1 {
			t.Errorf("the history has %d times %s; all of it: %v", told[want], want, told)
		}
	}
}

// Rewriting a table is not MVCC-safe: an older snapshot sees none of its rows, and the log tells nothing of it.
func TestAChunkThatWasReadWithoutTheSnapshotsLocksDoesNotCount(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.copy_parallel=1", "--set", "run.lease_ttl=30s", "--set", "run.ddl_events=off")
	b.db.Exec("create table large (id int primary key, v text); insert into large select i, repeat(md5(i::text), 60) from generate_series(1, 60000) i; alter table large alter v set storage external")
	b.db.Exec("create table small (id int primary key, n int); insert into small select i, i from generate_series(1, 10) i; analyze")
	p := b.start()
	b.until("the large table is read", func() bool {
		return b.db.One("select count(*) from pg_stat_activity where datname = current_database() and query ilike 'copy%large%' and state = 'active'") == "1"
	})
	p.Signal(syscall.SIGSTOP)
	b.db.Exec("select pg_terminate_backend(pid) from pg_locks where relation = 'small'::regclass and database = (select oid from pg_database where datname = current_database())")
	b.db.Exec("alter table small alter n type bigint")
	p.Signal(syscall.SIGCONT)
	b.until("the tables are followed", func() bool { return b.phase("small") == "streaming" && b.phase("large") == "streaming" })
	b.flushed(p)
	p.Signal(syscall.SIGTERM)
	p.Wait()
	b.judge("small")
	looked := strings.Contains(p.Stderr(), "no row has told of it since") // a look may come first: the copy begins again then
	if !looked && !strings.Contains(p.Stderr(), "snapshot-lost") {
		t.Errorf("the snapshot was not lost in time:\n%s", p.Stderr())
	}
}

func TestACopyIsNotGoneOnWithByAnotherTypePolicy(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.copy_parallel=1", "--set", "run.copy_chunk=64KiB", "--set", "dump.types.timestamp=fail")
	b.db.Exec("create table notes (id int primary key, at timestamp); insert into notes select i, timestamp '2026-01-01' + i * interval '1 min' from generate_series(1, 10000) i; insert into notes values (0, 'infinity'); analyze")
	if r := b.catchUp(); r.Exit == 0 || !strings.Contains(r.Stderr, "value-uncarriable") {
		t.Fatalf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	b.more = append(b.more, "--set", "run.types.timestamp=text")
	b.mustCatchUp()
	b.judge("notes")
}

// A commit is in the log before any snapshot shows it.
func TestACopyHoldsWhatAnEarlierAttemptWasTold(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{}), dir: t.TempDir(), more: []string{"--set", "run.heartbeat=100ms"}}
	b.db.Exec("create table notes (id int primary key, v text); insert into notes values (1, 'one')")
	b.mustCatchUp()
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("alter system set synchronous_standby_names = 'nobody'")
	b.db.Exec("select pg_reload_conf()")
	b.until("commits wait", func() bool { return b.db.One("show synchronous_standby_names") == "nobody" })
	conn, done := b.db.Connect(), make(chan error)
	go func() {
		_, err := conn.Exec(context.Background(), "insert into notes values (2, 'told and not visible')")
		done <- err
	}()
	b.until("the lake has it", func() bool { return slices.Contains(b.inLake("notes")["notes"].chosen([]string{"id"}), "2") })
	b.ask("resync", "--table", "public.notes")
	p.WaitFor("msg=\"the copy waits\"")
	b.db.Exec("alter system reset synchronous_standby_names")
	b.db.Exec("select pg_reload_conf()")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	b.until("the copy is in the lake", func() bool { return strings.Count(p.Stderr(), "msg=copied") == 1 && b.phase("notes") == "streaming" })
	p.Signal(syscall.SIGTERM)
	p.Wait()
	b.judge("notes")
}
