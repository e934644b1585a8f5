package pipeline_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

// until waits for a condition.
func (b *bed) until(what string, is func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 60*time.Second)
	defer cancel()
	for !is() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			b.t.Fatalf("it never came to this: %s", what)
		}
	}
}

// state is the pipeline's saved state, and where it lies.
func (b *bed) state() (at string, saved map[string]any) {
	b.t.Helper()
	found, err := filepath.Glob(b.dir + "/lake/_leat/*/state.json")
	if err != nil || len(found) != 1 {
		b.t.Fatalf("saved states: %v %v", found, err)
	}
	data, err := os.ReadFile(found[0])
	if err == nil {
		err = json.Unmarshal(data, &saved)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return found[0], saved
}

// restate writes another saved state, as if an earlier process had left it.
func (b *bed) restate(change func(saved map[string]any)) {
	b.t.Helper()
	at, saved := b.state()
	change(saved)
	data, err := json.Marshal(saved)
	if err == nil {
		err = os.WriteFile(at, data, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) phase(table string) string {
	_, saved := b.state()
	return stateOf(saved, table)["phase"].(string)
}

// stateOf is what a saved state says of a table.
func stateOf(saved map[string]any, table string) map[string]any {
	tables, _ := saved["tables"].(map[string]any) // null before the first one
	for name, t := range tables {
		if strings.Contains(name, table) {
			return t.(map[string]any)
		}
	}
	return map[string]any{"phase": ""}
}

const drainedIntoTheBucket = "the log is drained into the bucket"

func TestTheGuardIsNotForgottenByARetryOrAnotherProcess(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{}), dir: t.TempDir(), more: []string{"--set", "run.guard_spool=4MiB", "--set", "run.heartbeat=100ms"}}
	b.db.Exec("create table notes (id int primary key, note text); insert into notes values (1, 'one')")
	b.mustCatchUp()
	// A transaction that stays open holds back what the server may let go of, so the danger lasts.
	open := b.db.Connect()
	if _, err := open.Exec(context.Background(), "begin; insert into notes values (-1, 'never committed')"); err != nil {
		t.Fatal(err)
	}
	run := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("insert into notes select i, repeat(md5(i::text), 20) from generate_series(10, 5000) i; update notes set note = 'x' || note")
	run.WaitFor(drainedIntoTheBucket)
	b.stillSpooling(run)
	b.db.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots")
	run.WaitFor("the run failed and is tried again")
	b.stillSpooling(run)
	run.Kill()
	heir := b.start()
	b.stillSpooling(heir)
	for who, p := range map[string]*testlab.Process{"the retry": run, "the heir": heir} {
		if n := strings.Count(p.Stderr(), drainedIntoTheBucket); n > 1 || p == heir && n > 0 {
			t.Errorf("%s had forgotten that the log is drained:\n%s", who, p.Stderr())
		}
	}
	if _, err := open.Exec(context.Background(), "rollback"); err != nil {
		t.Fatal(err)
	}
	b.until("the danger is over", func() bool {
		b.db.Exec("checkpoint") // the server writes down which transactions run, and lets go of its log
		return b.phase("notes") == "streaming"
	})
	heir.Signal(syscall.SIGTERM)
	heir.Wait()
	b.mustCatchUp()
	b.judge("notes")
}

func (b *bed) active() string {
	return b.db.One("select coalesce(max(active_pid)::text, '') from pg_replication_slots where slot_name = '" + b.slot() + "'")
}

// stillSpooling writes, waits until that is taken from the server, and looks that it did not go to the table.
func (b *bed) stillSpooling(p *testlab.Process) {
	b.t.Helper()
	b.until("the log is followed again", func() bool { return b.active() != "" })
	b.db.Exec("update notes set note = 'in danger' where id = 1")
	b.takenFrom(func() { b.db.Exec("update notes set note = 'in danger yet' where id = 1") })
	if phase := b.phase("notes"); phase != "spooling" {
		b.t.Errorf("in danger the table is %s\n%s", phase, p.Stderr())
	}
}

// takenFrom waits until the server may let go of what was there before a change.
func (b *bed) takenFrom(change func()) {
	b.t.Helper()
	written := b.db.One("select pg_current_wal_lsn()")
	change()
	b.until("the slot moves on", func() bool {
		return b.db.One("select confirmed_flush_lsn >= '"+written+"' from pg_replication_slots where slot_name = '"+b.slot()+"'") == "t"
	})
}

func TestASlotThatWasToBeDroppedIsDroppedByTheNextProcess(t *testing.T) {
	t.Parallel()
	for _, gone := range []bool{false, true} {
		t.Run(fmt.Sprint("it is gone already: ", gone), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16)
			b.db.Exec("create table notes (id int primary key, note text); insert into notes values (1, 'one')")
			b.mustCatchUp()
			b.restate(func(saved map[string]any) { saved["guard"] = "dropping" })
			b.db.Exec("update notes set note = 'never told'")
			if gone {
				b.db.Exec("select pg_drop_replication_slot('" + b.slot() + "')")
			}
			r := b.mustCatchUp()
			if !strings.Contains(r.Stderr, "making the replication slot") || !strings.Contains(r.Stderr, "copied") {
				t.Errorf("the slot was not made anew:\n%s", r.Stderr)
			}
			b.judge("notes")
			if r := b.mustCatchUp(); strings.Contains(r.Stderr, "making the replication slot") {
				t.Errorf("the plan is not forgotten when it is carried out:\n%s", r.Stderr)
			}
		})
	}
}
