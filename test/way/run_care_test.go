package way_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// slotIs is a condition on the pipeline's slot, asked of the server.
func (p *pipeline) slotIs(condition string) bool {
	return p.db.One("select count(*) from pg_replication_slots where slot_name = 'leat_"+p.name+"' and "+condition) == "1"
}

// position is the end of the log now.
func (p *pipeline) position() string { return p.db.One("select pg_current_wal_lsn()") }

// fill writes a few megabytes of log into the table notes.
func (p *pipeline) fill(from int) {
	p.db.Exec(fmt.Sprintf("insert into notes select i, repeat(md5(i::text), 20) from generate_series(%d, %d) i; update notes set note = 'x' || note where id >= %d", from, from+4000, from))
}

func TestTheLogIsDrainedIntoTheBucketBeforeTheServersDiskIsFull(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	db.Exec("create table notes (id int primary key, note text); insert into notes values (1, 'one')")
	p := newPipeline(t, db).with("run.guard_warn=1MiB", "run.guard_spool=4MiB", "run.heartbeat=100ms")
	run := p.start("--commit-interval", "1h")
	p.follows("notes")
	notes := p.table("notes")

	// A transaction that stays open holds back what the server may let go of, so the danger lasts.
	open := db.Connect()
	if _, err := open.Exec(context.Background(), "begin; select pg_current_xact_id()"); err != nil {
		t.Fatal(err)
	}
	p.fill(10)
	run.WaitFor("the log is drained into the bucket")
	if !strings.Contains(run.Stderr(), "the server keeps much of its log") {
		t.Errorf("nobody was warned:\n%s", run.Stderr())
	}
	db.Exec("insert into notes values (2, 'in danger')")
	written := p.position()
	wait(t, "the slot moves on", func() bool { return p.slotIs("confirmed_flush_lsn >= '" + written + "'") })
	if _, page := p.get("/metrics"); !strings.Contains(page, `leat_tables{phase="spooling",pipeline="`+p.name+`"} 1`) {
		t.Errorf("the metrics do not tell of the danger:\n%s", page)
	}
	if lake := p.inLake(notes); len(lake) != 1 {
		t.Errorf("while the log is drained the lake has %d rows", len(lake))
	}

	if _, err := open.Exec(context.Background(), "rollback"); err != nil {
		t.Fatal(err)
	}
	wait(t, "the danger is over and the table is whole", func() bool {
		db.Exec("checkpoint") // the server writes down which transactions run, and lets go of its log
		return len(p.inLake(notes)) > 4000
	})
	p.follows("notes")
	p.end(run)
	p.catchUp()
	p.same("notes")
	if n := copies(run, "public.notes"); n != 1 {
		t.Errorf("the table was copied %d times", n)
	}
}

func TestTheSlotIsGivenUpBeforeTheServersDiskIsFull(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	db.Exec("create table notes (id int primary key, note text); insert into notes values (1, 'one'); create table lines (note text); alter table lines replica identity full; insert into lines values ('a'), ('a')")
	p := newPipeline(t, db).with("run.guard_spool=0", "run.guard_drop=3MiB")
	run := p.start("--commit-interval", "1h")
	p.follows("lines", "notes")
	p.fill(10)
	db.Exec("insert into lines values ('b'); delete from lines where note = 'a'")
	run.WaitFor("the slot is dropped to save the server's disk")
	db.Exec("checkpoint")
	wait(t, "all is copied anew", func() bool { return copies(run, "public.notes") >= 2 && copies(run, "public.lines") >= 2 })
	p.follows("lines", "notes")
	p.end(run)
	db.Exec("update notes set note = 'last' where id < 20; insert into lines values ('c')")
	p.catchUp()
	p.same("lines", "notes")
}

func TestASlotThatIsDroppedWhileItIsReadIsTold(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table notes (id int primary key, note text)")
	p := newPipeline(t, db)
	run := p.start()
	p.follows("notes")
	db.Exec(`do $$ begin loop
  perform pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'leat_` + p.name + `' and active;
  begin
    perform pg_drop_replication_slot('leat_` + p.name + `'); exit;
  exception when object_in_use then perform pg_sleep(0.01);
  end;
end loop; end $$`)
	db.Exec("insert into notes values (1, 'of which the log is lost')")
	if r := run.WaitWithin(patience); r.Exit != 3 || !strings.Contains(r.Stderr, "slot-missing") || !strings.Contains(r.Stderr, "leat resync --all") {
		t.Errorf("leat run ends with %d:\n%s", r.Exit, r.Stderr)
	}
	p.do("resync", "--all")
	p.catchUp()
	p.same("notes")
}

func TestAFailoverSlotIsMade(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 17)
	db.Exec("create table notes (id int primary key, note text)")
	p := newPipeline(t, db).with("run.failover=true")
	p.catchUp()
	if !p.slotIs("failover") {
		t.Error("the slot is no failover slot")
	}
	old := newPipeline(t, testlab.Postgres(t, 16)).with("run.failover=true")
	old.db.Exec("create table notes (id int primary key)")
	if r := old.start("--until-caught-up").WaitWithin(patience); r.Exit != 3 || !strings.Contains(r.Stderr, "failover slots exist from PostgreSQL 17 on") {
		t.Errorf("on PostgreSQL 16: %d\n%s", r.Exit, r.Stderr)
	}
}

func TestAStandbyIsCopiedAndFollowed(t *testing.T) {
	t.Parallel()
	primary := testlab.OwnPostgres(t, testlab.ServerOptions{Major: 16})
	primary.Exec("create table notes (id int primary key, note text); create table lines (note text); alter table lines replica identity full")
	primary.Exec("insert into notes select i, 'note ' || i from generate_series(1, 500) i; insert into lines values ('a'), ('a')")
	standby := primary.Standby()
	p := newPipeline(t, standby).with("run.row_filters=public.notes = id < 1000")
	r := p.start("--until-caught-up").WaitWithin(patience)
	sql := "create publication leat_" + p.name
	at := strings.Index(r.Stderr, `create publication "leat_`)
	if r.Exit != 3 || at < 0 || !strings.Contains(r.Stderr, "on the primary") {
		t.Fatalf("without a publication: %d, not %s\n%s", r.Exit, sql, r.Stderr)
	}
	primary.Exec(r.Stderr[at : at+strings.Index(r.Stderr[at:], ";")])
	primary.CatchUp(standby)
	run := p.start()
	// The standby learns from its primary which transactions run; the slot waits for that.
	wait(t, "every table follows the log", func() bool {
		primary.Exec("select pg_log_standby_snapshot()")
		s := p.status()
		return s.Tables["public.notes"].Phase == "streaming" && s.Tables["public.lines"].Phase == "streaming"
	})
	primary.Exec("insert into notes values (501, 'new'), (1001, 'not chosen'); update notes set note = 'changed' where id < 10; delete from notes where id = 20; insert into lines values ('b'); delete from lines where ctid = '(0,1)'")
	primary.CatchUp(standby)
	notes := p.table("notes")
	p.equal(notes, "select id, note from notes where id < 1000")
	p.same("lines")
	p.end(run)
}
