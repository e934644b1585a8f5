package crash_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// kills is how often each scenario kills leat.
func kills() int {
	if long() {
		return 50
	}
	return 5
}

// seeded makes the test's dice and prints how to throw them again.
func seeded(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv("LEAT_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("LEAT_TEST_SEED: %v", err)
		}
	}
	t.Logf("LEAT_TEST_SEED=%d", seed)
	return diceOf(seed)
}

// diceOf repeats the same throws for the same seed.
func diceOf(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }

// scenario is leat, where it dumps to, and how it is killed.
type scenario struct {
	db     *testlab.DB
	source *postgres.Source
	place  place
	bucket bucket.Bucket
	env    []string
	args   []string
	kind   format.Kind
	layout dump.Layout
	want   map[string]content
	dice   *rand.Rand
}

func TestAKilledDumpLeavesNothingHalfAndNoManifestThatLies(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	want := warehouse(t, db)
	source := reach(t, db.URL)
	cases := []struct {
		name   string
		s3     bool
		kind   format.Kind
		layout dump.Layout
	}{
		{"parquet to S3, a folder a run", true, format.Parquet, dump.LayoutRun},
		{"csv.gz to S3, a folder a day", true, format.CSVGzip, dump.LayoutDate},
		{"csv.gz to a folder, a folder a run", false, format.CSVGzip, dump.LayoutRun},
		{"parquet to a folder, a folder a day", false, format.Parquet, dump.LayoutDate},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &scenario{db: db, source: source, kind: c.kind, layout: c.layout, want: want, dice: seeded(t), env: db.Env()}
			s.args = []string{"dump", "--table", "public.*", "--format", string(c.kind), "--layout", string(c.layout), "--file-size", "12MiB", "--parallel", "2"}
			if c.s3 {
				s.killByRequest(t)
			} else {
				s.killByTime(t)
			}
		})
	}
}

// before makes the dump of another day that must stay whole whatever happens later, and returns its folder.
func (s *scenario) before(t *testing.T) string {
	t.Helper()
	opts := options(s.kind, s.layout)
	opts.Now = func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }
	return recovered(t, s.source, s.bucket, opts).Folder
}

// look judges what a killed process has left, then lets the next dump run and judges what that one leaves.
func (s *scenario) look(t *testing.T, earlier string) {
	t.Helper()
	v := judge(t, s.place, s.want)
	if _, ok := v.manifests[earlier]; !ok {
		t.Errorf("the manifest of the earlier dump %s is gone", earlier)
	}
	s.clockMoves(t)
	m := recovered(t, s.source, s.bucket, options(s.kind, s.layout))
	v = judgeClean(t, s.place, s.want)
	for _, folder := range []string{earlier, m.Folder} {
		if _, ok := v.manifests[folder]; !ok {
			t.Errorf("there is no manifest of %s", folder)
		}
	}
}

// clockMoves waits until the store's clock, which may count whole seconds, has left the second of the kill:
// only then is the mark old.
func (s *scenario) clockMoves(t *testing.T) {
	t.Helper()
	const key = "clock"
	stamp := func() time.Time {
		if _, err := bucket.WriteAll(t.Context(), s.bucket, key, nil, bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		o, err := s.bucket.Stat(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return o.Modified
	}
	first := stamp()
	until(t, "the store's clock moves on", func() bool { return stamp().Sub(first) >= time.Second })
	if err := s.bucket.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

// killByTime kills at a moment drawn from the time that a whole dump takes.
func (s *scenario) killByTime(t *testing.T) {
	dir := folderPlace(t.TempDir())
	s.place, s.bucket = dir, dir.open(t)
	s.args = append(s.args, "--to", string(dir))
	earlier := s.before(t)
	began := time.Now()
	if r := testlab.Leat(t).Run(s.env, s.args...); r.Exit != 0 {
		t.Fatalf("exit %d\n%s", r.Exit, r.Stderr)
	}
	whole := time.Since(began)
	for i := range kills() {
		moment := time.Duration(s.dice.Int64N(int64(whole)))
		p := testlab.Leat(t).Start(s.env, s.args...)
		select {
		case <-time.After(moment):
		case <-p.Done():
		}
		p.Kill()
		s.look(t, earlier)
		if t.Failed() {
			t.Fatalf("kill %d, after %s", i, moment)
		}
	}
}

// killByRequest kills at a request drawn from those that a whole dump sends: before the store hears of it, or after
// it has done it and before leat hears. Whatever state leat can leave a bucket in lies between two requests.
func (s *scenario) killByRequest(t *testing.T) {
	store := testlab.S3(t)
	trap := &trap{}
	proxy := testlab.FaultyS3(t, store, trap.script)
	at := s3Place{store}
	s.place, s.bucket = at, at.open(t, bucket.Options{})
	s.env = append(s.env, proxy.Env()...)
	s.args = append(s.args, "--to", "s3://"+store.Bucket)
	earlier := s.before(t)
	if r := testlab.Leat(t).Run(s.env, s.args...); r.Exit != 0 {
		t.Fatalf("exit %d\n%s", r.Exit, r.Stderr)
	}
	requests := len(proxy.Requests())
	uploads := strings.Contains(strings.Join(proxy.Requests(), "\n"), "uploadId=")
	if !uploads {
		t.Error("no object is large enough for a multipart upload: the test would prove less than it says")
	}
	for range kills() {
		n, done := 1+s.dice.IntN(requests), s.dice.IntN(2) == 0
		reached, killed := trap.set(n, done)
		p := testlab.Leat(t).Start(s.env, s.args...)
		select {
		case <-reached:
		case <-p.Done(): // this run needed fewer requests
		}
		p.Kill()
		close(killed)
		s.look(t, earlier)
		if t.Failed() {
			t.Fatalf("killed at request %d of about %d, the store did it: %v: %s", n, requests, done, trap.caught())
		}
	}
}

// trap stops the n-th request until leat has been killed.
type trap struct {
	mu      sync.Mutex
	left    int
	done    bool
	what    string
	reached chan struct{}
	killed  chan struct{}
}

func (t *trap) set(n int, done bool) (reached, killed chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.left, t.done, t.what = n, done, ""
	t.reached, t.killed = make(chan struct{}), make(chan struct{})
	return t.reached, t.killed
}

func (t *trap) caught() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.what
}

func (t *trap) script(r *http.Request) testlab.Answer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.left == 0 {
		return nil
	}
	if t.left--; t.left > 0 {
		return nil
	}
	t.what = fmt.Sprintf("%s %s", r.Method, r.URL.RequestURI())
	reached, killed, done := t.reached, t.killed, t.done
	return func(_ http.ResponseWriter, r *http.Request, upstream http.Handler) {
		if done {
			upstream.ServeHTTP(httptest.NewRecorder(), r)
		}
		close(reached)
		<-killed
		panic(http.ErrAbortHandler)
	}
}
