package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// A table that another session holds for long, for a VACUUM FULL of hours, waits by itself when it is to be copied or comes into the
// publication. Exact copies and new tables wait for all transactions that are open, and so for this one.
func TestALockedTableHoldsUpItsOwnCopyAlone(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{Major: major}), dir: t.TempDir(), more: []string{"--set", "dump.lock_timeout=1s"}}
			b.db.Exec(`create table asked (id int primary key, v text); insert into asked values (1, 'first'); create table plain (id int primary key, v text); insert into plain values (1, 'first');`)
			b.mustCatchUp()
			b.ask("resync", "--table", "public.asked", "--table", "public.plain")
			b.db.Exec("insert into asked values (2, 'told')")
			end := b.openTransaction("lock table asked in access exclusive mode")
			once := testlab.Leat(t).Start(b.db.Env(), b.args("--until-caught-up")...)
			once.WaitFor("copied table=public.plain ")
			once.WaitFor("the run failed and is tried again") // it ends with an error if the table is not to be had
			once.Kill()
			p := b.start()
			p.WaitFor(`the table is locked; its copy waits, and the other tables go on" table=public.asked by="session `)
			b.until("the other table is followed", func() bool { return b.phase("public.plain") == "streaming" })
			b.db.Exec("create table fresh (id int primary key, v text); insert into fresh values (1, 'first'); create table late (id int primary key, v text)")
			hold := b.openTransaction("lock table late in access exclusive mode")
			p.WaitFor("it cannot come into the publication yet: session ")
			b.db.Exec("insert into plain values (3, 'told'); insert into fresh values (2, 'told')")
			b.flushed(p)
			end("insert into asked values (3, 'told'); commit")
			p.WaitFor("copied table=public.asked ")
			hold("insert into late values (1, 'first'); commit")
			tables := []string{"asked", "plain", "fresh", "late"}
			b.until("all tables are followed", func() bool {
				return !slices.ContainsFunc(tables, func(name string) bool { return b.phase("public."+name) != "streaming" })
			})
			b.db.Exec("insert into asked values (4, 'last'); insert into late values (2, 'last')")
			b.flushed(p)
			p.Signal(syscall.SIGTERM)
			p.Wait()
			b.judge(tables...)
		})
	}
}

// A value that the log leaves out, and that nobody but the source has, is waited for while another session holds its
// table.
func TestAValueThatOnlyALockedTableHasIsWaitedFor(t *testing.T) {
	t.Parallel()
	b := newBed(t, 15, "--set", "dump.lock_timeout=1s", "--set", "run.row_filters=public.notes = id > 5")
	b.db.Exec("create table notes (id int primary key, big text); alter table notes alter big set storage external; insert into notes values (1, repeat('x', 9000)), (2, 'small')")
	b.mustCatchUp()
	p := testlab.Leat(t).Start(b.environment(), b.args("--commit-interval", "4s")...)
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("insert into notes values (19, 'first')")
	b.flushed(p)
	b.db.Exec("update notes set id = id + 10") // the log tells inserts, of which one lacks its value
	end := b.openTransaction("lock table notes in access exclusive mode")
	p.WaitFor(`the table is locked, and a value that only the source has must be read from it; the run waits" table=public.notes by="session `)
	end("commit")
	b.db.Exec("insert into notes values (40, 'last')")
	b.flushed(p)
	p.Signal(syscall.SIGTERM)
	if r := p.Wait(); strings.Contains(r.Stderr, "the run failed") {
		t.Errorf("the attempt failed:\n%s", r.Stderr)
	}
	b.judge("notes")
}

// A look that fails again and again is told of once, and so is that it does not any more.
func TestLooksThatFailAreToldOf(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{}), dir: t.TempDir()}
	b.db.Exec("create table notes (id int primary key, v text); insert into notes values (1, 'one')")
	role := b.db.Role("REPLICATION")
	b.db.Exec("grant select on notes to " + role.Name + "; grant create on database " + b.db.Name + " to " + role.Name + "; alter table notes owner to " + role.Name)
	b.env = b.db.EnvOf(role)
	b.mustCatchUp()
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("revoke select on pg_catalog.pg_publication_rel from public")
	const failed = "the tables cannot be looked at"
	p.WaitFor(failed)
	b.db.Exec("insert into notes values (2, 'two')") // which is followed
	b.flushed(p)
	if !strings.Contains(p.Stderr(), "pg_publication_rel") {
		t.Errorf("the cause is not told:\n%s", p.Stderr())
	}
	b.db.Exec("grant select on pg_catalog.pg_publication_rel to public")
	p.WaitFor("the tables can be looked at again")
	p.Signal(syscall.SIGTERM)
	if r := p.Wait(); strings.Count(r.Stderr, failed) != 1 {
		t.Errorf("it is told of more than once:\n%s", r.Stderr)
	}
	b.judge("notes")
}
