package pipeline_test

import (
	"strconv"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// A run at rest looks whether anything has happened, in the one session that it has for it. It does not read the
// catalog again, until something has.
func TestARunAtRestAsksTheServerForNextToNothing(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{Major: 16, Settings: []string{"autovacuum = off"}}), dir: t.TempDir()}
	b.db.Exec("create table notes (id int primary key); insert into notes values (1)")
	p := b.start()
	b.until("the table is followed", func() bool { return b.active() != "" && b.phase("notes") == "streaming" })
	b.flushed(p)
	const reading = "application_name = 'leat' and backend_type = 'client backend'"
	asked, sessions := "", map[string]bool{}
	looks := func(n int) { // as many as begin from now on
		for seen := 0; seen < n; {
			b.until("it looks whether anything has happened", func() bool {
				rows := b.db.Query("select query_start, pid from pg_stat_activity where " + reading + " and query like '%pg_current_snapshot%'")
				if len(rows) == 0 || rows[0][0] == asked {
					return false
				}
				asked, sessions[rows[0][1]] = rows[0][0], true
				return true
			})
			seen++
		}
	}
	reads := func() int { // of the publications, which each look at the catalog reads
		n, err := strconv.Atoi(b.db.One("select sum(seq_scan + coalesce(idx_scan, 0)) from pg_stat_sys_tables where relname in ('pg_publication', 'pg_publication_rel')"))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	looks(3) // one after the last commit of ours
	before := reads()
	clear(sessions)
	looks(3)
	if now := reads(); now != before {
		t.Errorf("at rest the publications are read %d times", now-before)
	}
	if len(sessions) != 1 {
		t.Errorf("three looks at rest take the sessions %v", sessions)
	}
	b.db.Exec("create table more (id int primary key); insert into more values (1)")
	b.until("the table that was made is followed", func() bool { return b.phase("more") == "streaming" })
	if reads() == before {
		t.Error("the publications are not to be seen to be read")
	}
	p.Signal(syscall.SIGTERM)
	p.Wait()
	b.judge("notes", "more")
}
