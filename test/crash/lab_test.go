package crash_test

import (
	"context"
	"log/slog"
	"net/url"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

func TestMain(m *testing.M) {
	if long() { // the truth of an hour is large; servers and leat need room beside its judges
		debug.SetMemoryLimit(12 << 30)
	}
	testlab.Main(m)
}

// long says whether the test has all the time in the world (make crash).
func long() bool { return os.Getenv("LEAT_TEST_LONG") != "" }

// patience is how long the tests wait for an event that must come. Only a broken leat lets it pass: the machine may be busy.
const patience = 4 * time.Minute

// until polls for an event that announces itself nowhere.
func until(t testing.TB, what string, happened func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond) // some conditions read all that a process has said
	defer tick.Stop()
	for !happened() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never happened: %s", what)
		}
	}
}

// warehouse fills three tables: one of large rows that do not compress, enough for a multipart upload, one of many
// small rows, and one of none.
func warehouse(t testing.TB, db *testlab.DB) map[string]content {
	t.Helper()
	db.Exec(`create table parcels (id bigint primary key, label text);
insert into parcels select i, (select string_agg(md5(i::text || k), '') from generate_series(1, 32) k) from generate_series(1, 24000) i;
create table scans (id bigint, place text); insert into scans select i, 'place ' || i % 100 from generate_series(1, 60000) i;
create table returns (id bigint, why text); analyze`)
	return map[string]content{
		"parcels": contentOf(db, "parcels", "id"), "scans": contentOf(db, "scans", "id"), "returns": {},
	}
}

// reach connects as leat does, by way of another address if one is given.
func reach(t testing.TB, address string, via ...string) *postgres.Source {
	t.Helper()
	source, err := tryReach(t.Context(), address, via...)
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func tryReach(ctx context.Context, address string, via ...string) (*postgres.Source, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	if len(via) > 0 {
		u.Host = via[0]
	}
	return postgres.Connect(ctx, postgres.Settings{
		ConnString: u.String(), Password: func() string { return password }, LockTimeout: 10 * time.Second,
	})
}

// upstream is the host:port of a database.
func upstream(t testing.TB, db *testlab.DB) string {
	t.Helper()
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

// all chooses every table of the schema public.
func all() postgres.Selection {
	return postgres.Selection{Choose: func(names []postgres.Name, _ []string) (picked []int, _ error) {
		for i, n := range names {
			if n.Schema == "public" {
				picked = append(picked, i)
			}
		}
		return picked, nil
	}}
}

// options are those of an ordinary dump.
func options(kind format.Kind, layout dump.Layout) dump.Options {
	return dump.Options{Selection: all(), Format: kind, Compression: format.Compression("zstd"), Layout: layout, Parallel: 2, LSN: postgres.LSNApproximate}
}

// hears calls back when leat says something; it is the log's handler.
type hears struct {
	mu   sync.Mutex
	said []string
	then func(message string)
}

func (h *hears) Enabled(context.Context, slog.Level) bool { return true }
func (h *hears) WithAttrs([]slog.Attr) slog.Handler       { return h }
func (h *hears) WithGroup(string) slog.Handler            { return h }

func (h *hears) Handle(_ context.Context, r slog.Record) error {
	h.mu.Lock()
	line := r.Message
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	h.said = append(h.said, line)
	h.mu.Unlock()
	if h.then != nil {
		h.then(r.Message)
	}
	return nil
}

// times counts what was said.
func (h *hears) times(text string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, line := range h.said {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}

// watches calls back when a table is begun.
type watches struct {
	started func(*dump.Progress)
	planned func([]*dump.Progress)
}

func (w watches) Planned(_ *dump.Manifest, p []*dump.Progress) {
	if w.planned != nil {
		w.planned(p)
	}
}

func (w watches) Started(p *dump.Progress) {
	if w.started != nil {
		w.started(p)
	}
}
func (watches) Finished(*dump.Progress) {}

// wants fails the test unless err has the code and shows every text, in its message or its mend.
func wants(t testing.TB, err error, code fault.Code, texts ...string) {
	t.Helper()
	f := fault.Of(err)
	if f == nil || f.Code != code {
		t.Errorf("want %s, got %v", code, err)
		return
	}
	whole := err.Error() + "\n" + f.HowToMend()
	for _, text := range texts {
		if !strings.Contains(whole, text) {
			t.Errorf("nothing is said of %q: %s", text, whole)
		}
	}
	testlab.NoSecrets(t, "the error", []byte(whole))
}

// recovered is a dump by a process that takes every mark but its own for dead: what the next run does two minutes later.
func recovered(t testing.TB, source *postgres.Source, b bucket.Bucket, opts dump.Options) *dump.Manifest {
	t.Helper()
	opts.Liveness = time.Nanosecond
	m, err := dump.Run(t.Context(), source, b, opts)
	if err != nil {
		t.Fatalf("the next dump fails: %v", err)
	}
	return m
}

func logTo(h *hears) *slog.Logger { return slog.New(h) }
