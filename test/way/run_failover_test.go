package way_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// at is the same pipeline, whose database is served by another server now.
func (p *pipeline) at(db *testlab.DB) *pipeline {
	moved := *p
	moved.db, moved.env, moved.all = db, db.Env(), slices.Clone(p.all)
	moved.all[slices.Index(moved.all, p.db.Bare)] = db.Bare
	return &moved
}

// A standby that lagged takes over, and has the pipeline's slot: what the lake holds beyond is gone, and what the new primary
// commits below the saved position would be left out by it without a word.
func TestAFailoverToAStandbyThatLaggedIsNotPassedOver(t *testing.T) {
	t.Parallel()
	primary := testlab.OwnPostgres(t, testlab.ServerOptions{})
	primary.Exec("create table notes (id int primary key, note text); insert into notes select i, 'note ' || i from generate_series(1, 100) i")
	old := newPipeline(t, primary)
	old.catchUp()
	standby := primary.Standby()
	primary.CatchUp(standby)
	standby.Server.Stop()
	primary.Exec("insert into notes select i, repeat('lost', 100) from generate_series(1001, 3000) i; update notes set note = 'lost' where id = 1")
	old.catchUp()
	primary.Server.Stop()

	if err := standby.Server.Start(); err != nil {
		t.Fatal(err)
	}
	standby.Exec("select pg_promote()")
	p := old.at(standby)
	refused := func(says string) {
		t.Helper()
		r := p.start("--until-caught-up").WaitWithin(patience)
		for _, word := range []string{"slot-lost", "the server has gone back", says, "leat resync --all"} {
			if r.Exit != 3 || !strings.Contains(r.Stderr, word) {
				t.Fatalf("leat run ends with %d, without %q:\n%s", r.Exit, word, r.Stderr)
			}
		}
	}
	standby.Exec("insert into notes values (101, 'committed below the saved position')")
	refused("its log ends at")
	standby.Exec("insert into notes select i, md5(i::text) from generate_series(1001, 20000) i")
	refused("its log left timeline 1 at")
	p.do("resync", "--all")
	p.catchUp()
	p.same("notes")
	standby.Exec("delete from notes where id < 50; insert into notes values (50000, 'after')")
	p.catchUp()
	p.same("notes")
	if s := p.status(); s.Tables["public.notes"].Phase != "streaming" {
		t.Errorf("%+v", s)
	}
}

// All that the lake holds is in the log of the server that takes over: the pipeline goes on.
func TestAFailoverToAStandbyThatHadAllIsGoneOnWith(t *testing.T) {
	t.Parallel()
	primary := testlab.OwnPostgres(t, testlab.ServerOptions{Major: 17})
	primary.Exec("create table notes (id int primary key, note text); insert into notes select i, 'note ' || i from generate_series(1, 100) i")
	standby := primary.Standby()
	old := newPipeline(t, primary).with("run.failover=true", "run.heartbeat=100ms")
	standby.Exec("alter system set primary_conninfo = '" + fmt.Sprintf("host=127.0.0.1 port=%d user=postgres password=%s dbname=%s sslmode=disable", primary.Server.Port, primary.Server.Password, primary.Name) + "'")
	primary.Exec("select pg_create_physical_replication_slot('standby', true)")
	standby.Exec("alter system set primary_slot_name = 'standby'")
	standby.Exec("alter system set sync_replication_slots = on")
	standby.Exec("select pg_reload_conf()")
	run := old.start()
	old.follows("notes")
	primary.Exec("update notes set note = 'changed' where id < 10; insert into notes values (1001, 'new')")
	wait(t, "the standby has the slot", func() bool { // which must have moved on since the standby heard of it
		primary.Exec("select pg_log_standby_snapshot()")
		return old.at(standby).slotIs("synced and not temporary")
	})
	old.end(run)
	primary.CatchUp(standby)
	primary.Server.Stop()
	p := old.at(standby)
	run = p.start() // a slot that is still synchronized cannot be read, which heals
	run.WaitFor("slot-busy")
	standby.Exec("select pg_promote()")
	p.follows("notes")
	p.end(run)
	standby.Exec("insert into notes values (1002, 'on the new primary'); delete from notes where id = 50")
	r := p.start("--until-caught-up").WaitWithin(patience)
	if r.Exit != 0 || strings.Contains(r.Stderr, "copied anew") {
		t.Fatalf("leat run ends with %d:\n%s", r.Exit, r.Stderr)
	}
	p.same("notes")
}

// What is logged while the publication is gone can never be read from the slot.
func TestAPublicationThatWasDroppedIsHealedByANewCopy(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			db.Exec("create table notes (id int primary key, note text); insert into notes values (1, 'one')")
			p := newPipeline(t, db)
			p.catchUp()
			db.Exec("drop publication leat_" + p.name)
			db.Exec("insert into notes values (2, 'without a publication')")
			for range 2 {
				r := p.start("--until-caught-up").WaitWithin(patience)
				if r.Exit != 3 || !strings.Contains(r.Stderr, "publication-unusable") || !strings.Contains(r.Stderr, "leat resync --all") {
					t.Fatalf("leat run ends with %d:\n%s", r.Exit, r.Stderr)
				}
			}
			p.do("resync", "--all")
			p.catchUp()
			db.Exec("insert into notes values (3, 'after')")
			p.catchUp()
			p.same("notes")
		})
	}
}
