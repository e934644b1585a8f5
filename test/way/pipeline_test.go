package way_test

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) { testlab.Main(m) }

// patience is how long a run may take that catches up. The machine may be busy.
const patience = 4 * time.Minute

// pipeline is leat as an operator uses it: one database, one lake, one work folder.
type pipeline struct {
	t    testing.TB
	db   *testlab.DB
	leat *testlab.Binary
	lake string // URL or folder
	name string
	port string   // address of /metrics and /readyz
	env  []string // of every command
	all  []string // arguments of every command
	run  []string // further arguments of leat run
}

// newPipeline follows a database into a folder with a table of every kind kept both ways.
func newPipeline(t testing.TB, db *testlab.DB) *pipeline {
	t.Helper()
	port := testlab.FreeAddress(t)
	lake, name := t.TempDir(), "way_"+db.Name[len(db.Name)-8:] // slots are shared by all databases of a server
	return &pipeline{
		t: t, db: db, leat: testlab.Leat(t), lake: lake, name: name, port: port, env: db.Env(),
		all: []string{"--from", db.Bare, "--to", lake, "--name", name},
		run: []string{"--keep", "both", "--commit-interval", "300ms", "--work-dir", t.TempDir(), "--metrics", port},
	}
}

// get asks the run's port for a page.
func (p *pipeline) get(page string) (code int, body string) {
	reply, err := http.Get("http://" + p.port + page)
	if err != nil {
		return 0, err.Error()
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		return 0, err.Error()
	}
	return reply.StatusCode, string(data)
}

// ready waits until every table follows the log.
func (p *pipeline) ready(run *testlab.Process) {
	p.t.Helper()
	said := ""
	defer func() {
		if p.t.Failed() {
			p.t.Logf("readyz: %s\nleat run:\n%s", said, run.Stderr())
		}
	}()
	wait(p.t, "every table follows the log", func() bool {
		select {
		case <-run.Done():
			p.t.Fatal("leat run has ended")
		default:
		}
		code, body := p.get("/readyz")
		said = body
		return code == http.StatusOK
	})
}

// with gives every command a setting.
func (p *pipeline) with(settings ...string) *pipeline {
	for _, s := range settings {
		p.all = append(p.all, "--set", s)
	}
	return p
}

// in moves the lake to a store, which the environment tells how to reach.
func (p *pipeline) in(store string, env ...string) {
	p.all[slices.Index(p.all, p.lake)], p.lake = store, store
	p.env = append(p.env, env...)
}

// do runs a command to its end, which must be good, and returns its standard output.
func (p *pipeline) do(command ...string) string {
	p.t.Helper()
	r := p.leat.Run(p.env, append(command, p.all...)...)
	if r.Exit != 0 {
		p.t.Fatalf("leat %v ends with %d:\n%s%s", command, r.Exit, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// start begins to follow.
func (p *pipeline) start(more ...string) *testlab.Process {
	p.t.Helper()
	return p.leat.Start(p.env, append(append(append([]string{"run"}, p.all...), p.run...), more...)...)
}

// catchUp follows until the lake holds what the database holds now.
func (p *pipeline) catchUp() {
	p.t.Helper()
	if r := p.start("--until-caught-up").WaitWithin(patience); r.Exit != 0 {
		p.t.Fatalf("leat run --until-caught-up ends with %d:\n%s", r.Exit, r.Stderr)
	}
}

// end ends a run as Ctrl-C does.
func (p *pipeline) end(run *testlab.Process) {
	p.t.Helper()
	run.Signal(syscall.SIGINT)
	if r := run.WaitWithin(patience); r.Exit != 130 {
		p.t.Fatalf("leat run, interrupted, ends with %d:\n%s", r.Exit, r.Stderr)
	}
}

// status is what leat status --json tells.
type status struct {
	Running, Paused bool
	Position        string
	Tables          map[string]struct {
		Phase, Reason string
		Foreign       int64 `json:"foreign_rows"`
	}
	Slot struct {
		Name           string
		Exists, Active bool
	}
}

func (p *pipeline) status() status {
	p.t.Helper()
	var s status
	if err := json.Unmarshal([]byte(p.do("status", "--json")), &s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

// until waits for a condition, looking at the status.
func (p *pipeline) until(what string, is func(status) bool) status {
	p.t.Helper()
	var s status
	wait(p.t, what, func() bool { s = p.status(); return is(s) })
	return s
}

// wait looks again and again until a condition holds.
func wait(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("after %s it is not so: %s", patience, what)
		}
	}
}
