package pipeline_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

// standsAt is the position that a lake table has.
func (b *bed) standsAt(table string) change.LSN {
	b.t.Helper()
	versions, err := filepath.Glob(b.dir + "/lake/public/" + table + "/metadata/v*.metadata.json")
	if err != nil {
		b.t.Fatal(err)
	}
	var newest change.LSN
	for _, name := range versions {
		var meta struct {
			Properties map[string]string `json:"properties"`
		}
		if data, err := os.ReadFile(name); err != nil || json.Unmarshal(data, &meta) != nil {
			continue // it was removed or is being written
		}
		if at, err := change.ParseLSN(meta.Properties["leat.position"]); err == nil {
			newest = max(newest, at)
		}
	}
	return newest
}

func TestARunWhoseTablesHaveTheirOwnPaceLosesNothingWhenItIsKilled(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0, "--set", "run.logical_messages=true")
	b.db.Exec("create table busy (id int primary key, v text); create table slow_a (id int primary key, v text); create table slow_b (id int primary key, v text)")
	b.db.Exec("insert into slow_a select g, 'x' from generate_series(1, 50) g; insert into slow_b select g, 'x' from generate_series(1, 50) g")
	b.mustCatchUp()
	n := 0
	change := func() {
		n++
		b.db.Exec(fmt.Sprintf("insert into busy select g, 'x' from generate_series(%d, %d) g; update busy set v = 'y' where id %% 7 = 0 and id > %[1]d", n*200, n*200+199))
		b.db.Exec(fmt.Sprintf("update slow_a set v = 'a%d' where id = %d; select pg_logical_emit_message(false, 'm%[1]d', '')", n, n%50+1))
		b.db.Exec(fmt.Sprintf("begin; update slow_b set v = 'b%d' where id = %d; delete from busy where id = %d; commit", n, n%50+1, n*200))
	}
	saved := func() string { _, state := b.state(); return state["position"].(string) }
	start := func() *testlab.Process {
		return testlab.Leat(t).Start(b.environment(), b.args("--commit-interval", "auto", "--set", "run.max_lag=4s")...)
	}
	for range 3 {
		p := start()
		b.until("the busy table is ahead of the position that is saved", func() bool {
			change()
			return b.aheadOf("busy", saved())
		})
		p.Kill()
	}
	p := start()
	b.until("the busy table is ahead of the position that is saved", func() bool { change(); return b.aheadOf("busy", saved()) })
	b.flushed(p) // also without further changes
	r := testlab.Leat(t).Run(b.environment(), "status", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot())
	if r.Exit != 0 || strings.Count(r.Stdout, "committed every ") != 3 {
		t.Errorf("leat status says %s%s", r.Stdout, r.Stderr)
	}
	p.Signal(syscall.SIGTERM)
	p.Wait()
	b.mustCatchUp()
	b.judge("busy", "slow_a", "slow_b")
	var written, told []string
	for i := range n {
		written, told = append(written, fmt.Sprintf("a%d", i+1)), append(told, fmt.Sprintf("m%d", i+1))
	}
	for table, want := range map[string][]string{"slow_a_history": written, "../_leat/logical_messages_history": told} {
		column := map[string]string{"slow_a_history": "v"}[table]
		got := b.inLake(table)[table].chosen([]string{cmp.Or(column, "prefix")})
		got = slices.DeleteFunc(got, func(v string) bool { return v == "x" }) // of the copy
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s has\n%v\nand should have\n%v", table, got, want)
		}
	}
}

// aheadOf says whether a lake table stands behind a position.
func (b *bed) aheadOf(table, position string) bool {
	b.t.Helper()
	at, err := change.ParseLSN(position)
	if err != nil {
		b.t.Fatal(err)
	}
	return b.standsAt(table) > at
}
