package pipeline_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

const spoolIsFull = "the spool is full"

// The copy of a table without a key ends at a later position than the one at which reading has stopped, and so does one that begins
// again.
func TestAFullSpoolIsReadPastWhatACopyHolds(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprint("killed: ", killed), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16, "--set", "run.spool_limit=1KiB", "--set", "run.heartbeat=100ms")
			b.db.Exec("create table notes (id int primary key, v text); create table loose (id int, v text); alter table loose replica identity full; insert into loose values (1, 'one')")
			b.mustCatchUp()
			p := b.start()
			b.until("the log is followed", func() bool { return b.active() != "" })
			end := b.openTransaction("insert into notes values (1, 'long')")
			b.ask("resync", "--table", "public.loose")
			p.WaitFor("the copy waits for transactions that are open")
			b.db.Exec("insert into loose select i, md5(i::text) from generate_series(10, 2000) i")
			p.WaitFor(spoolIsFull)
			if killed {
				p.Kill()
				p = b.start()
				p.WaitFor(spoolIsFull)
			}
			b.db.Exec("insert into loose values (2, 'not read yet'); insert into notes values (2, 'not read yet')")
			end("commit")
			b.until("all is followed", func() bool { return b.phase("loose") == "streaming" })
			b.flushed(p)
			p.Signal(syscall.SIGTERM)
			p.Wait()
			b.mustCatchUp()
			b.judge("loose", "notes")
		})
	}
}

// The spool cannot help a server that keeps too much when it is full: what it holds must go to the lake.
func TestAFullSpoolIsDrainedInDanger(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{}), dir: t.TempDir()}
	b.more = []string{"--set", "run.guard_spool=4MiB", "--set", "run.heartbeat=100ms", "--set", "run.spool_limit=1KiB"}
	b.db.Exec("create table notes (id int primary key, v text); insert into notes values (1, 'one')")
	b.mustCatchUp()
	end := b.openTransaction("insert into notes values (-1, 'never committed')") // holds back what the server may let go of
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("insert into notes select i, repeat(md5(i::text), 20) from generate_series(10, 5000) i; update notes set v = 'x' || v")
	p.WaitFor(drainedIntoTheBucket)
	b.db.Exec("insert into notes select i, md5(i::text) from generate_series(6000, 8000) i; insert into notes values (2, 'in danger')")
	b.until("the lake has it", func() bool {
		return strings.Contains(strings.Join(b.inLake("notes")["notes"].chosen([]string{"id", "v"}), "\n"), "2|in danger")
	})
	end("rollback")
	p.Signal(syscall.SIGTERM)
	p.Wait()
	b.mustCatchUp()
	b.judge("notes")
}
