package crash_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

func get(part string) func(*http.Request) bool {
	return func(r *http.Request) bool { return r.Method == http.MethodGet && strings.Contains(r.URL.Path, part) }
}

// hang is a request that is accepted, and what the store does with it instead of an answer.
type hang struct {
	name   string
	match  func(*http.Request) bool
	answer testlab.Answer
	times  int64        // how many will hang, one after the other; 1 if 0
	left   atomic.Int64 // so many more will hang
	given  atomic.Int64 // so many were given up by leat
}

// hangs are requests that may hang.
type hangs []*hang

func (h hangs) script(r *http.Request) testlab.Answer {
	for _, one := range h {
		if one.left.Load() > 0 && one.match(r) && one.left.Add(-1) >= 0 {
			return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
				defer one.given.Add(1)
				one.answer(w, r, upstream)
			}
		}
	}
	return nil
}

// TestARunOutlivesAStoreThatNeverAnswers: it is not started anew, and gives up by itself what gets no answer. A request may have
// been done all the same, or be done after leat has turned away.
func TestARunOutlivesAStoreThatNeverAnswers(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	store := testlab.S3(t)
	// They are given up as soon as the lease would run out. Where two in a row are, it does, and the run begins another attempt.
	lease := hangs{
		{name: "a lease", match: put("/lease.json"), answer: testlab.Hang, times: 2}, {name: "a lease that was written", match: put("/lease.json"), answer: testlab.HangAfter, times: 2},
		{name: "a lease that comes late", match: put("/lease.json"), answer: testlab.Late},
	}
	groups := []hangs{lease[:1], lease[1:2], lease[2:]}
	// The shortest answer has 8 bytes, and must not come to its end.
	reading := hangs{{name: "the body of an answer", match: get(".parquet"), answer: testlab.StallReply(1)}}
	if long() { // all others when there was no progress for as long as the setting says
		groups = append(groups, never("a data file", aData), never("a commit", aCommit), never("a hint", put("/version-hint.text"))[2:], never("a state", put("/state.json"))[1:])
	}
	var all hangs
	for _, group := range groups {
		all = append(all, group...)
	}
	all = append(all, reading...)
	f := followToS3(t, s, store, testlab.FaultyS3(t, store, all.script).Store)
	if long() {
		f.args = append(f.args, "--set", "to.stall=5s")
	}
	closed := s.open(dice)
	p := f.start()
	s.goes(f, p)
	for _, group := range groups {
		f.outlives(p, group)
	}
	if long() {
		p.Kill()
		f.forget() // so the lake's files are read again
		reading[0].left.Store(1)
		p = f.start()
		f.outlives(p, reading)
	}
	p.Kill()
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}

// never are the ways in which a request gets no answer.
func never(name string, match func(*http.Request) bool) hangs {
	return hangs{
		{name: name, match: match, answer: testlab.Hang}, {name: name + " that was done", match: match, answer: testlab.HangAfter},
		{name: name + " that comes late", match: match, answer: testlab.Late},
	}
}

// outlives lets each of the requests hang.
func (f *follower) outlives(p *testlab.Process, group hangs) {
	f.t.Helper()
	began := time.Now()
	for _, one := range group {
		one.left.Store(max(1, one.times))
	}
	for _, one := range group {
		until(f.t, "leat gives up "+one.name, func() bool { return one.given.Load() >= max(1, one.times) })
	}
	f.shop.goes(f, p)
	f.t.Logf("%s and its like were outlived in %s", group[0].name, time.Since(began).Round(time.Millisecond))
}
