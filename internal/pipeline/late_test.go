package pipeline_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// openTransaction begins one and leaves it open.
func (b *bed) openTransaction(sql string) (end func(sql string)) {
	b.t.Helper()
	conn := b.db.Connect()
	do := func(sql string) {
		b.t.Helper()
		if _, err := conn.Exec(context.Background(), sql); err != nil {
			b.t.Fatal(err)
		}
	}
	do("begin; " + sql)
	return do
}

// What a transaction writes to a table before that is published is never told, whenever it commits; and a server that has begun to
// decode it without the table may go on so.
func TestATransactionThatRanWhenATableCameLosesNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		major  int
		killed bool
	}{{12, false}, {16, false}, {16, true}} {
		t.Run(fmt.Sprint("PostgreSQL ", c.major, ", killed: ", c.killed), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, c.major)
			b.db.Exec("create table notes (id int primary key, v text); insert into notes values (1, 'one')")
			b.mustCatchUp()
			p := b.start()
			b.until("the log is followed", func() bool { return b.active() != "" })
			b.db.Exec("create table late (id int primary key, v text); create table loose (v text); alter table loose replica identity full")
			end := b.openTransaction("insert into late select i, 'early' from generate_series(1, 50) i; insert into loose values ('early')")
			p.WaitFor("the copy waits for transactions that are open")
			if c.killed { // between the publication's change and the copy
				p.Kill()
				p = b.start()
				p.WaitFor("the copy waits for transactions that are open")
			}
			end("insert into late values (100, 'late in the same'); update late set v = 'changed' where id = 1; insert into notes values (2, 'two'); commit")
			b.db.Exec("insert into late values (101, 'after'); update late set v = 'changed after' where id = 2; delete from late where id = 3; insert into loose values ('after')")
			b.until("the tables are followed", func() bool { return b.phase("late") == "streaming" && b.phase("loose") == "streaming" })
			b.db.Exec("insert into late values (102, 'last'); delete from late where id = 4; insert into loose values ('last')")
			b.flushed(p)
			p.Signal(syscall.SIGTERM)
			p.Wait()
			b.mustCatchUp()
			b.judge("late", "loose", "notes")
			if n := strings.Count(p.Stderr(), "copied table=public.late"); n != 1 {
				t.Errorf("the table was copied %d times:\n%s", n, p.Stderr())
			}
		})
	}
}

func TestATableThatIsChosenLaterLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--table", "public.notes")
	b.db.Exec("create table notes (id int primary key); create table wanted (id int primary key, v text); insert into wanted values (1, 'one')")
	b.mustCatchUp()
	end := b.openTransaction("insert into wanted values (2, 'early')")
	b.more = []string{"--table", "public.notes", "--table", "public.wanted"}
	p := testlab.Leat(t).Start(b.db.Env(), b.args("--until-caught-up")...)
	p.WaitFor("the copy waits for transactions that are open")
	end("commit")
	if r := p.Wait(); r.Exit != 0 {
		t.Fatalf("leat run ends with %d: %s", r.Exit, r.Stderr)
	}
	b.judge("notes", "wanted")
}

func TestATableOfAPublicationOfAllTablesWaitsForNobody(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.own_publication=false", "--set", "run.publication=everything")
	b.db.Exec("create publication everything for all tables with (publish_via_partition_root = true); create table notes (id int primary key); insert into notes values (1)")
	b.mustCatchUp()
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("create table late (id int primary key, v text)")
	end := b.openTransaction("insert into late values (1, 'early')")
	b.until("the table is followed", func() bool { return b.phase("late") == "streaming" })
	end("commit")
	b.flushed(p)
	p.Signal(syscall.SIGTERM)
	p.Wait()
	b.judge("late", "notes")
}

func TestATableThatWasTakenOutOfThePublicationIsCopiedAnew(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.publication=shop")
	b.db.Exec("create table notes (id int primary key); create table other (id int primary key); insert into notes values (1), (2)")
	b.mustCatchUp()
	b.db.Exec("alter publication shop drop table notes")
	b.db.Exec("insert into notes values (3); delete from notes where id = 1; insert into other values (1)")
	b.mustCatchUp()
	b.judge("notes", "other")
	if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied") {
		t.Errorf("a table is copied again:\n%s", r.Stderr)
	}
}

func TestATableThatComesWhenNoSlotIsFreeDoesNotHoldUpTheOthers(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{Settings: []string{"max_replication_slots = 1"}}), dir: t.TempDir()}
	b.db.Exec("create table notes (id int primary key, v text); insert into notes values (1, 'one')")
	b.mustCatchUp()
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("create table late (id int primary key)")
	p.WaitFor("new tables cannot be copied yet")
	b.db.Exec("insert into notes values (2, 'two')")
	b.until("the lake has it", func() bool {
		return strings.Contains(strings.Join(b.inLake("notes")["notes"].chosen([]string{"id", "v"}), "\n"), "2|two")
	})
	if text := p.Stderr(); strings.Contains(text, "is tried again") {
		t.Errorf("the run began again:\n%s", text)
	}
}
