package pipeline_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

// takeOver gives the pipeline's lease to another process.
func (b *bed) takeOver() {
	b.t.Helper()
	at := b.dir + "/lake/_leat/leat/lease.json"
	data, err := os.ReadFile(at)
	if err != nil {
		b.t.Fatal(err)
	}
	var lease map[string]any
	if err := json.Unmarshal(data, &lease); err != nil {
		b.t.Fatal(err)
	}
	lease["owner"], lease["epoch"], lease["host"] = "another", lease["epoch"].(float64)+1, "elsewhere"
	if data, err = json.Marshal(lease); err == nil {
		err = os.WriteFile(at+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(at+".new", at)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func TestATakeoverEndsARunThatWaits(t *testing.T) {
	t.Parallel()
	for name, wait := range map[string]func(b *bed) *testlab.Process{
		"for changes, of which none come": func(b *bed) *testlab.Process {
			b.more = append(b.more, "--set", "run.heartbeat=0s")
			b.mustCatchUp()
			p := b.start()
			b.until("the log is followed", func() bool { return b.active() != "" })
			return p
		},
		"to be resumed": func(b *bed) *testlab.Process {
			b.mustCatchUp()
			b.ask("pause")
			p := b.start()
			p.WaitFor("paused; the server keeps its log")
			return p
		},
		"for a transaction, to make its slot": func(b *bed) *testlab.Process {
			b.openTransaction("insert into notes values (10)")
			p := b.start()
			p.WaitFor("making the slot waits for transactions")
			return p
		},
		"for a transaction, to copy a table": func(b *bed) *testlab.Process {
			b.mustCatchUp()
			b.db.Exec("create table loose (v text); alter table loose replica identity full")
			b.openTransaction("insert into notes values (10)")
			p := b.start()
			p.WaitFor("the copy waits for transactions that are open")
			return p
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16)
			b.db.Exec("create table notes (id int primary key); insert into notes values (1)")
			p := wait(b)
			b.takeOver()
			r := p.WaitWithin(20 * time.Second)
			if r.Exit != 4 || !strings.Contains(r.Stderr, "pipeline-fenced") || !strings.Contains(r.Stderr, "elsewhere") {
				t.Errorf("leat run ends with %d:\n%s", r.Exit, r.Stderr)
			}
		})
	}
}
