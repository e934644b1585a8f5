package pipeline_test

import (
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// A slot that others dropped and made again begins later than the lake ends. The hint says how to go on, and that works.
func TestASlotThatOthersMakeAgainIsMadeByLeatForACopy(t *testing.T) {
	t.Parallel()
	b := newBed(t, 15)
	b.db.Exec("create table notes (id int primary key, v text); insert into notes values (1, 'told'), (2, 'told')")
	b.mustCatchUp()
	slot := "('" + b.slot() + "'"
	b.db.Exec("select pg_drop_replication_slot" + slot + "); update notes set v = 'not told' where id = 1; delete from notes where id = 2")
	b.db.Exec("select pg_create_logical_replication_slot" + slot + ", 'pgoutput')")
	b.db.Exec("insert into notes values (3, 'told')")
	if r := b.catchUp(); r.Exit == 0 || !strings.Contains(r.Stderr, "slot-lost") || !strings.Contains(r.Stderr, "leat resync --all") {
		t.Errorf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	b.ask("resync", "--all")
	b.mustCatchUp()
	b.judge("notes")
	b.db.Exec("update notes set v = 'last'")
	b.mustCatchUp()
	b.judge("notes")
}

// pg_upgrade makes a server of another identity, before 17 without slots: what was written at its first moments is in no log that leat could read. Rows and
// their transactions are as they were, the rows of the catalog are not.
func TestAServerThatPgUpgradeHasMadeIsFollowedAfterACopy(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{}), dir: t.TempDir()}
	tables := []string{"notes", "loose", "ev", "sums"}
	b.db.Exec("create table notes (id int primary key, v text, big text); alter table notes alter big set storage external; create table loose (v text); alter table loose replica identity full; " +
		strings.ReplaceAll(parted, "%[1]s", "ev") + "; create table sums (id int primary key, a int, g int generated always as (a * 2) stored); insert into sums values (1, 1)")
	b.db.Exec("insert into notes select i, 'before', repeat(i::text, 5000) from generate_series(1, 4) i; insert into loose values ('before')")
	b.mustCatchUp()
	b.db.Exec("update notes set v = 'told' where id = 1; insert into ev values (8, 9, 'told'); update sums set a = 5")
	b.mustCatchUp()
	b.judge(tables...)
	b.db.Exec("insert into notes values (5, 'not told', 'x'); delete from notes where id = 4; delete from ev where id = 3") // leat is away when the server ends
	_, before := b.state()

	b.db.Upgrade()
	b.db.Exec("insert into notes values (6, 'not told either', 'x'); update loose set v = 'not told'; truncate ev_2")
	refused := func(when string) {
		t.Helper()
		r := b.catchUp()
		if r.Exit == 0 || !strings.Contains(r.Stderr, "this is another server") || !strings.Contains(r.Stderr, "pg_upgrade") || !strings.Contains(r.Stderr, "leat resync --all") {
			t.Errorf("%s, leat run ends with %d: %s", when, r.Exit, r.Stderr)
		}
		if _, saved := b.state(); saved["position"] != before["position"] || b.phase("public.notes") != "streaming" {
			t.Errorf("%s, the saved state is not as before: %v", when, saved)
		}
	}
	refused("without a slot")
	// A slot that others make under that name begins where it is made.
	b.db.Exec("select pg_create_logical_replication_slot(n, 'pgoutput') from (values ('" + b.slot() + "')) v(n) where n not in (select slot_name from pg_replication_slots)")
	b.db.Exec("update notes set v = 'told again', id = 7 where id = 1; insert into ev values (12, 11, 'told again')")
	refused("with a slot that is another one")
	b.ask("resync", "--all")
	b.mustCatchUp()
	b.judge(tables...)
	b.db.Exec("update notes set v = 'new' where id = 2; delete from notes where id = 3; insert into ev values (13, 12, 'new'); update loose set v = 'new'; update sums set a = 6")
	r := b.mustCatchUp()
	b.judge(tables...)
	if strings.Contains(r.Stderr, "copied") || warned(r.Stderr, "") > 0 {
		t.Errorf("after the copy it is not as with any other server: %s", r.Stderr)
	}
}
