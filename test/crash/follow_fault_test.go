package crash_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	toxics "github.com/Shopify/toxiproxy/v2/client"

	"github.com/leatdata/leat/internal/testlab"
)

// goes waits until the run has committed something after this moment.
func (s *shop) goes(f *follower, p *testlab.Process) {
	s.t.Helper()
	before := strings.Count(p.Stderr()+p.Stdout(), "Committed up to")
	until(s.t, "the run commits", func() bool {
		select {
		case <-p.Done():
			s.t.Fatalf("leat run ends by itself:\n%s", last(p.Wait().Stderr, 40))
		default:
		}
		return strings.Count(p.Stderr()+p.Stdout(), "Committed up to") > before
	})
}

// TestARunOutlivesWhatTheDatabaseDoes: it is never started anew.
func TestARunOutlivesWhatTheDatabaseDoes(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.OwnPostgres(t, testlab.ServerOptions{Durable: true}))
	wire := wireTo(t, s.db)
	f := followToFolder(t, s)
	f.from(wire.Listen)
	closed := s.open(dice)
	p := f.start()
	nothing := func() {}
	steps := []struct {
		name string
		do   func()
	}{
		{"nothing", nothing},
		{"the walsender is terminated", func() {
			s.db.Exec("select pg_terminate_backend(active_pid) from pg_replication_slots where active and slot_name like 'leat%'")
		}},
		{"every session is terminated", func() {
			s.db.Exec("select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()")
		}},
		{"the server restarts", func() {
			s.db.Server.Stop()
			s.started(t)
		}},
		{"the server crashes", func() {
			s.db.Server.Crash()
			s.started(t)
		}},
		{"the wire is slow", func() {
			wire.cutWhile(nothing, toxics.Toxic{Name: "slow", Type: "latency", Stream: "downstream", Attributes: toxics.Attributes{"latency": 150, "jitter": 100}})
			s.goes(f, p)
			wire.cutWhile(nothing)
		}},
		{"the wire is cut after each 20 kB", func() {
			wire.cutWhile(nothing, toxics.Toxic{Name: "cut", Type: "limit_data", Stream: "downstream", Attributes: toxics.Attributes{"bytes": 20_000}})
			before := strings.Count(p.Stderr(), "tried again")
			until(t, "the run notices", func() bool { return strings.Count(p.Stderr(), "tried again") > before })
			wire.cutWhile(nothing)
		}},
		{"nobody answers", func() {
			wire.cutWhile(func() { f.lives(p, 2*time.Second) })
		}},
	}
	for _, step := range steps {
		s.goes(f, p)
		t.Log(step.name)
		step.do()
	}
	s.goes(f, p)
	p.Kill()
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}

// cutWhile ends all connections, and has none made, while do runs. What then is at the wire's address is spoiled as told.
func (c *cutting) cutWhile(do func(), spoiled ...toxics.Toxic) {
	c.t.Helper()
	if err := c.Delete(); err != nil {
		c.t.Fatal(err)
	}
	do()
	c.Proxy = testlab.ToxiproxyAt(c.t, c.Listen, c.Upstream, spoiled...)
}

func (s *shop) started(t testing.TB) {
	t.Helper()
	if err := s.db.Server.Start(); err != nil {
		t.Fatal(err)
	}
}

// TestARunOutlivesWhatTheStoreDoes: it is never started anew.
func TestARunOutlivesWhatTheStoreDoes(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	store := testlab.S3(t)
	var fault atomic.Pointer[testlab.Answer]
	var count, hits atomic.Int64
	proxy := testlab.FaultyS3(t, store, func(*http.Request) testlab.Answer {
		if a := fault.Load(); a != nil && count.Add(1)%3 == 0 {
			hits.Add(1)
			return *a
		}
		return nil
	})
	f := followToS3(t, s, store, proxy.Store)
	closed := s.open(dice)
	p := f.start()
	for _, c := range []struct {
		name   string
		answer testlab.Answer
	}{
		{"500", testlab.Fail(500, "InternalError")},
		{"503", testlab.Fail(503, "SlowDown")},
		{"lost replies", testlab.LoseReply},
		{"resets", testlab.Reset},
		{"replies cut short", testlab.CutReply(10)},
	} {
		t.Log(c.name)
		before := hits.Load()
		fault.Store(&c.answer)
		until(t, "the store fails often", func() bool { return hits.Load() > before+8 })
		fault.Store(nil)
		s.goes(f, p)
	}
	p.Kill()
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}

func TestASlotThatIsGoneIsToldAndAResyncHeals(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	f := followToFolder(t, s)
	f.catchUp()
	closed := s.open(dice)
	s.db.Exec("select pg_drop_replication_slot('leat_" + f.name + "')")
	r := f.start().Wait()
	refused(t, r, 3, "code: slot-missing", "leat resync --all")
	if r := f.leat("resync", "--all"); r.Exit != 0 {
		t.Fatalf("leat resync ends with %d:\n%s", r.Exit, r.Stderr)
	}
	closed() // or it would run after them
	f.catchUp()
	closed = s.open(dice)
	s.remember()
	closed()
	f.catchUp()
	judgeLake(t, s, f, true)
}

func TestOnePipelineHasOneRun(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	store := testlab.S3(t)
	f := followToS3(t, s, store, store)
	f.args = append(f.args, "--set", "run.lease_ttl=15s") // both wait for it to run out; a busy machine may take seconds to renew it
	closed := s.open(dice)
	first := f.start()
	s.goes(f, first)

	second := newFollower(t, s, f.to) // with a work folder of its own, as on another machine
	second.name, second.args, second.env = f.name, append(second.args, "--name", f.name, "--set", "run.lease_ttl=15s"), f.env
	refused(t, second.start().Wait(), 4, "code: pipeline-busy")
	s.goes(f, first)

	// An owner that sleeps loses the pipeline; when it wakes it must notice before it writes.
	first.Signal(syscall.SIGSTOP)
	heir := second.start()
	until(t, "the second process takes over", func() bool {
		if strings.Contains(heir.Stderr()+heir.Stdout(), "Committed up to") {
			return true
		}
		select {
		case <-heir.Done():
			if r := heir.Wait(); !strings.Contains(r.Stderr, "pipeline-busy") {
				t.Fatalf("the heir ends with %d:\n%s", r.Exit, last(r.Stderr, 30))
			}
			heir = second.start()
		default:
		}
		return false
	})
	first.Signal(syscall.SIGCONT)
	refused(t, first.Wait(), 4, "code: pipeline-fenced")
	s.goes(second, heir)

	heir.Signal(syscall.SIGTERM)
	if r := heir.Wait(); r.Exit != 143 {
		t.Errorf("SIGTERM ends the run with %d, not 143:\n%s", r.Exit, last(r.Stderr, 30))
	}
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}
