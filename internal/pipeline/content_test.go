package pipeline_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

const hasNoContent = "the lake has no content of it"

// ask has an operator ask something of the pipeline.
func (b *bed) ask(command ...string) {
	b.t.Helper()
	r := testlab.Leat(b.t).Run(b.db.Env(), append(command, "--to", b.dir+"/lake")...)
	if r.Exit != 0 {
		b.t.Fatalf("leat %v ends with %d: %s", command, r.Exit, r.Stderr)
	}
}

func TestATableThatTheLakeHasNoContentOfIsCopiedAnew(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		before []string
		lose   func(b *bed)
	}{
		"kept in one more form": {before: []string{"--keep", "history"}, lose: func(*bed) {}},
		"dropped in the lake": {lose: func(b *bed) {
			if err := os.RemoveAll(b.dir + "/lake/public/notes"); err != nil {
				b.t.Fatal(err)
			}
		}},
		"while it was about to be drained": {lose: func(b *bed) {
			b.restate(func(saved map[string]any) {
				s := stateOf(saved, "notes")
				s["phase"], s["since"] = "spooling", saved["position"]
			})
			if err := os.RemoveAll(b.dir + "/lake/public/notes"); err != nil {
				b.t.Fatal(err)
			}
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16, c.before...)
			b.db.Exec("create table notes (id int primary key, v text); insert into notes select i, 'old' from generate_series(1, 4) i; create table empty (id int primary key)")
			b.mustCatchUp()
			b.more = nil
			c.lose(b)
			b.db.Exec("insert into notes values (10, 'new'); update notes set v = 'changed' where id = 1; insert into empty values (1)")
			r := b.mustCatchUp()
			b.judge("notes")
			if n := strings.Count(r.Stderr, hasNoContent); n != 1 && len(c.before) == 0 || n == 0 {
				t.Errorf("%d tables are copied anew:\n%s", n, r.Stderr)
			}
			b.db.Exec("delete from notes where id = 2; insert into empty values (2)")
			if r := b.mustCatchUp(); strings.Contains(r.Stderr, hasNoContent) {
				t.Errorf("a table is copied again:\n%s", r.Stderr)
			}
			b.judge("notes", "empty")
		})
	}
}

// The WAL tells again what is behind the saved position, and not that rows went with their partition.
func TestAPartitionedTableIsCopiedAgainExactly(t *testing.T) {
	t.Parallel()
	b := newBed(t, 15)
	does := map[string]string{
		"emptied": "truncate %[1]s_2", "dropped": "drop table %[1]s_2", "detached": "alter table %[1]s detach partition %[1]s_2", "lost": "drop table %[1]s_2",
		"unseen": "create table %[1]s_3 partition of %[1]s for values from (20) to (30); insert into %[1]s values (25, 25, 'gone'); drop table %[1]s_3",
	}
	tables := slices.Sorted(maps.Keys(does))
	for _, name := range tables {
		b.db.Exec(strings.ReplaceAll(parted, "%[1]s", name))
	}
	b.mustCatchUp()
	for name, sql := range does {
		b.execAll(fmt.Sprintf("insert into %[1]s values (30, 3, 'stays'), (31, 13, 'goes'); "+sql, name))
		if name != "lost" {
			b.ask("resync", "--table", "public."+name)
		}
	}
	if err := os.RemoveAll(b.dir + "/lake/public/lost"); err != nil {
		t.Fatal(err)
	}
	b.mustCatchUp()
	b.judge(tables...)
}

// A copy that cannot be gone on with is not broken off for tables that are made meanwhile.
func TestAnExactCopyEndsWhileTablesAreMade(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0, "--set", "run.heartbeat=100ms")
	b.db.Exec("create table loose (id int, v text); alter table loose replica identity full; insert into loose values (1, 'one'); create table notes (id int primary key)")
	b.mustCatchUp()
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	end := b.openTransaction("insert into loose values (2, 'two')")
	b.ask("resync", "--table", "public.loose")
	p.WaitFor("the copy waits for transactions that are open")
	b.db.Exec("create table fresh (id int primary key)")
	p.WaitFor("tables, partitions or publications were made")
	for i := range 3 { // the run looks around between
		b.db.Exec(fmt.Sprintf("insert into notes values (%d)", i))
		b.flushed(p)
	}
	end("commit")
	b.until("the new table is followed", func() bool { return b.phase("fresh") == "streaming" && b.phase("loose") == "streaming" })
	p.Signal(syscall.SIGTERM)
	said := p.Wait().Stderr
	if copied, late := strings.Index(said, "copied table=public.loose "), strings.Index(said, "brought up to date"); copied < 0 || late < copied {
		t.Errorf("the copy was broken off for a new table:\n%s", said)
	}
	b.mustCatchUp()
	b.judge("loose", "fresh", "notes")
}
