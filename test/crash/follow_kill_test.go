package crash_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

// followKills is how often a scenario kills leat run.
func followKills() int {
	if long() {
		return 200
	}
	return 5
}

func TestARunKilledAtAnyMomentLeavesTheLakeAsTheSource(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	f := followToFolder(t, s)
	if long() || dice.IntN(2) == 0 {
		store := testlab.S3(t)
		f = followToS3(t, s, store, store)
	}
	closed := s.open(dice)
	for i := range followKills() {
		p := f.start()
		f.lives(p, time.Duration(300+dice.IntN(3000))*time.Millisecond)
		p.Kill()
		if dice.IntN(3) == 0 {
			f.forget()
		}
		if i%3 == 2 { // what was copied under kills is whole now: from here on any moment can be rebuilt
			closed() // or it would run after them
			f.catchUp()
			closed = s.open(dice)
			s.remember()
		}
		if i%20 == 19 {
			closed()
			f.catchUp()
			judgeLake(t, s, f, false)
			if t.Failed() {
				t.Fatalf("after kill %d", i)
			}
			closed = s.open(dice)
		}
	}
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}

// lives waits, and fails the test if the run ends by itself meanwhile.
func (f *follower) lives(p *testlab.Process, d time.Duration) {
	f.t.Helper()
	select {
	case <-time.After(d):
	case <-p.Done():
		f.t.Fatalf("leat run ends by itself:\n%s", last(p.Wait().Stderr, 40))
	}
}

// handOff is a request that begins or ends a step that must not be half done.
type handOff struct {
	name  string
	match func(*http.Request) bool
	after bool // leat dies when the store has done it, but before leat hears
}

func put(parts ...string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		if r.Method != http.MethodPut {
			return false
		}
		for _, p := range parts {
			if !strings.Contains(r.URL.Path, p) {
				return false
			}
		}
		return true
	}
}

func both(name string, match func(*http.Request) bool) []handOff {
	return []handOff{{name + ", before", match, false}, {name + ", after", match, true}}
}

// aCommit is a new version of a table that holds its own history of versions, not the first one, which makes it.
func aCommit(r *http.Request) bool {
	return put("/metadata/v", ".metadata.json")(r) && !strings.HasSuffix(r.URL.Path, "/v1.metadata.json")
}

func aData(r *http.Request) bool {
	return put(".parquet")(r) && !strings.Contains(r.URL.Path, "copy-")
}

func join(all ...[]handOff) (out []handOff) {
	for _, h := range all {
		out = append(out, h...)
	}
	return out
}

// whileCopying are the hand-offs of a copy, in the order in which it comes to them.
func whileCopying() []handOff {
	return join(
		both("a lease", put("/lease.json")), both("a state", put("/state.json")), both("a copied file", put("copy-", ".parquet")),
		both("a ledger", put("/.leat/copy/")), both("a spool segment", put(".spool")), both("a copy's commit", aCommit),
		both("the deletion of a ledger", deletion("/.leat/copy/")), both("the deletion of a spool segment", deletion(".spool")),
	)
}

// whileFollowing are those of the log.
func whileFollowing() []handOff {
	return join(
		both("a data file", aData), both("a manifest list", put("/metadata/snap-")), both("a commit", aCommit),
		both("a hint", put("/version-hint.text")), both("a state", put("/state.json")), both("a lease", put("/lease.json")),
		both("an expired file's deletion", deletion("/data/")),
		both("a note of expired snapshots", put("/.leat/expired/")), both("the deletion of such a note", deletion("/.leat/expired/")),
	)
}

// deletion matches one, and deletes of many, whose keys are in the body.
func deletion(part string) func(*http.Request) bool {
	return func(r *http.Request) bool {
		switch {
		case r.Method == http.MethodDelete:
			return strings.Contains(r.URL.Path, part)
		case r.Method != http.MethodPost || !r.URL.Query().Has("delete"):
			return false
		}
		body, err := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		return err == nil && bytes.Contains(body, []byte(part))
	}
}

func TestARunKilledAtEachHandOffLeavesTheLakeAsTheSource(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	store := testlab.S3(t)
	k := &snare{}
	proxy := testlab.FaultyS3(t, store, k.script)
	f := followToS3(t, s, store, proxy.Store)
	closed := s.open(dice)
	rounds := 1
	if long() {
		rounds = 6
	}
	for range rounds {
		f.killAtEach(k, dice, whileCopying(), f.copyAgain)
		closed() // or it would run after them
		f.catchUp()
		closed = s.open(dice)
		s.remember()
		f.killAtEach(k, dice, whileFollowing(), func() {})
		closed()
		f.catchUp()
		judgeLake(t, s, f, false)
		if t.Failed() {
			return
		}
		closed = s.open(dice)
	}
}

// copyAgain asks for a new copy of all tables.
func (f *follower) copyAgain() {
	f.t.Helper()
	f.asked = true
	if r := f.leat("resync", "--all"); r.Exit != 0 {
		f.t.Fatalf("leat resync ends with %d:\n%s", r.Exit, r.Stderr)
	}
}

// killAtEach starts leat and kills it at one hand-off after the other, each of which must come. Where it does not come at once,
// because what an earlier process had begun has ended, begin begins it anew.
func (f *follower) killAtEach(k *snare, dice *rand.Rand, all []handOff, begin func()) {
	f.t.Helper()
	for _, h := range some(dice, all) {
		skip := dice.IntN(3)
		if strings.Contains(h.name, "lease") || strings.Contains(h.name, "spool") || strings.Contains(h.name, "deletion") {
			skip = 0 // they are rare
		}
		reached, killed := k.set(h, skip)
		p := f.start()
		// What is begun anew must have the time to come to the hand-off: it is not begun again in the same time.
		began, soon, wait, late := time.Now(), time.NewTimer(4*time.Second), 45*time.Second, time.After(2*patience)
		for waiting := true; waiting; {
			select {
			case <-reached:
				waiting = false
			case <-soon.C:
				begin()
				soon.Reset(wait)
				wait *= 2
			case <-late:
				p.Signal(syscall.SIGQUIT) // Go prints every goroutine's stack
				f.t.Fatalf("%s: it never comes:\n%s", h.name, p.Wait().Stderr)
			case <-p.Done():
				f.t.Fatalf("%s: leat run ends by itself:\n%s", h.name, last(p.Wait().Stderr, 40))
			}
		}
		p.Kill()
		close(killed)
		k.clear()
		f.t.Logf("killed at %s after %s", h.name, time.Since(began).Round(time.Millisecond))
	}
}

// some are all hand-offs when there is time, else a few.
func some(dice *rand.Rand, all []handOff) []handOff {
	for !long() && len(all) > handOffs {
		i := dice.IntN(len(all))
		all = slices.Delete(all, i, i+1)
	}
	return all
}

// handOffs is how many of a kind are tried where time is short.
const handOffs = 5

// snare stops a request that matches until leat has been killed.
type snare struct {
	mu      sync.Mutex
	armed   bool
	skip    int
	what    handOff
	reached chan struct{}
	killed  chan struct{}
}

func (s *snare) set(what handOff, skip int) (reached, killed chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed, s.what, s.skip = true, what, skip
	s.reached, s.killed = make(chan struct{}), make(chan struct{})
	return s.reached, s.killed
}

func (s *snare) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = false
}

func (s *snare) script(r *http.Request) testlab.Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.armed || !s.what.match(r) {
		return nil
	}
	if s.skip > 0 {
		s.skip--
		return nil
	}
	s.armed = false
	reached, killed, after := s.reached, s.killed, s.what.after
	return func(_ http.ResponseWriter, r *http.Request, upstream http.Handler) {
		if after {
			upstream.ServeHTTP(httptest.NewRecorder(), r)
		}
		close(reached)
		<-killed
		panic(http.ErrAbortHandler)
	}
}
