package metrics_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/metrics"
	"github.com/leatdata/leat/internal/testlab"
)

func serve(t *testing.T, m *metrics.Metrics, o metrics.ServerOptions) *metrics.Server {
	t.Helper()
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	s, err := m.Serve(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *metrics.Server, path, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.Address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

func TestTheNumbersOfAPipelineAreServed(t *testing.T) {
	t.Parallel()
	m := metrics.New(metrics.Options{Pipeline: "shop"})
	m.Rows("public.a", change.OpInsert, 3)
	m.Rows("public.a", change.OpInsert, 0)
	m.TableCommitted("public.a", 2, 1, 100, 0x10)
	m.Committed(0x20, time.Unix(1000, 5e8), time.Second)
	m.Lag(0x120, 0x20, 90*time.Second)
	m.Slot(5, 7)
	m.Spool(8, 9)
	m.Streaming(true)
	m.Phases(map[string]int{"copying": 4})
	m.Phases(map[string]int{"streaming": 4})
	m.Copy("public.a", 1, 2)
	m.Copy("public.b", 1, 2)
	m.CopyEnded("public.b")
	m.Failed(fault.New(fault.BucketBusy, "", "503"), true)
	m.Failed(errors.New("what"), false)
	m.Failed(nil, true)
	s := serve(t, m, metrics.ServerOptions{})
	status, body := get(t, s, "/metrics", "")
	if status != http.StatusOK {
		t.Fatal(status, body)
	}
	for _, want := range []string{
		`leat_rows_total{op="c",pipeline="shop",table="public.a"} 3`,
		`leat_commits_total{pipeline="shop",table="public.a"} 1`,
		`leat_files_total{pipeline="shop",table="public.a"} 2`,
		`leat_deletes_total{pipeline="shop",table="public.a"} 1`,
		`leat_written_bytes_total{pipeline="shop",table="public.a"} 100`,
		`leat_lag_bytes{pipeline="shop"} 256`, `leat_lag_seconds{pipeline="shop"} 90`,
		`leat_slot_retained_bytes{pipeline="shop"} 5`, `leat_slot_safe_wal_bytes{pipeline="shop"} 7`,
		`leat_spool_bytes{pipeline="shop"} 8`, `leat_streaming{pipeline="shop"} 1`,
		`leat_last_commit_timestamp_seconds{pipeline="shop"} 1000.5`,
		`leat_tables{phase="streaming",pipeline="shop"} 4`,
		`leat_copy_chunks{pipeline="shop",table="public.a"} 2`,
		`leat_errors_total{code="bucket-busy",pipeline="shop"} 1`, `leat_retries_total{code="bucket-busy",pipeline="shop"} 1`,
		`leat_errors_total{code="internal",pipeline="shop"} 1`,
		`process_resident_memory_bytes`, `go_goroutines`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%s is not there", want)
		}
	}
	for _, gone := range []string{"public.b", `phase="copying"`} {
		if strings.Contains(body, gone) {
			t.Errorf("%s is there", gone)
		}
	}
}

func TestAThousandTablesDoNotMakeAThousandLabels(t *testing.T) {
	t.Parallel()
	for most, want := range map[int]int{3: 4, -1: 1, 0: 501} {
		m := metrics.New(metrics.Options{MaxTables: most})
		for range 2 {
			for i := range 1000 {
				m.Rows(fmt.Sprintf("public.t%d", i), change.OpInsert, 1)
				m.TableCommitted(fmt.Sprintf("public.t%d", i), 1, 1, 1, 1)
				m.Copy(fmt.Sprintf("public.t%d", i), 1, 1)
			}
		}
		_, body := get(t, serve(t, m, metrics.ServerOptions{}), "/metrics", "")
		if got := strings.Count(body, "\nleat_rows_total{"); got != want {
			t.Errorf("at most %d: %d labels", most, got)
		}
		if most == 3 && !strings.Contains(body, `leat_rows_total{op="c",pipeline="",table="other"} 1994`) {
			t.Errorf("the others are not counted")
		}
	}
}

func TestReadinessAndHealthAreAnswered(t *testing.T) {
	t.Parallel()
	var stands error
	token := testlab.Secret("metrics-token-3Hd8")
	m := metrics.New(metrics.Options{})
	open := serve(t, m, metrics.ServerOptions{Ready: func() error { return stands }})
	closed := serve(t, m, metrics.ServerOptions{Ready: func() error { return stands }, Token: token})
	f := func(s *metrics.Server, path, token string, status int, word string) {
		t.Helper()
		got, body := get(t, s, path, token)
		if got != status || strings.TrimSpace(body) != word {
			t.Errorf("%s: %d %q", path, got, body)
		}
	}
	f(open, "/healthz", "", 200, "ok")
	f(open, "/readyz", "", 200, "ok")
	stands = errors.New("public.a has failed")
	f(open, "/healthz", "", 200, "ok")
	f(open, "/readyz", "", 503, "public.a has failed")
	f(closed, "/readyz", "", 503, "no")
	f(closed, "/readyz", token, 503, "public.a has failed")
	f(closed, "/metrics", "", 401, "a bearer token is wanted")
	f(closed, "/metrics", token+"x", 401, "a bearer token is wanted")
	if status, _ := get(t, closed, "/metrics", token); status != 200 {
		t.Error(status)
	}
	if status, _ := get(t, open, "/debug/pprof/", ""); status != 404 {
		t.Error(status)
	}
}

func TestOtherMachinesNeedAToken(t *testing.T) {
	t.Parallel()
	m := metrics.New(metrics.Options{})
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "example.com:0", "10.0.0.1:0", "nonsense"} {
		if _, err := m.Serve(metrics.ServerOptions{Address: address}); !fault.Is(err, fault.ConfigInvalid) || !strings.Contains(fault.Of(err).Mend, "token") {
			t.Errorf("%s: %v", address, err)
		}
	}
	serve(t, m, metrics.ServerOptions{Address: "0.0.0.0:0", Token: testlab.Secret("metrics-token-3Hd8")})
	serve(t, m, metrics.ServerOptions{Address: "localhost:0"})
}

func TestLabelsOfHostileNamesArePrintable(t *testing.T) {
	t.Parallel()
	const name = "public.a\x1b[2J\u202e\xff\n"
	m := metrics.New(metrics.Options{Pipeline: name})
	s := serve(t, m, metrics.ServerOptions{Ready: func() error { return fault.New(fault.LakeFailed, name, "it is away") }})
	if _, body := get(t, s, "/readyz", ""); body != `public.a\x1b[2J\u202e\xff\n: it is away`+"\n" {
		t.Errorf("why it is not ready is told as %q", body)
	}
	mirror := metrics.NewMirror(name)
	mirror.Ran(nil, time.Unix(1, 0))
	m.Rows(name, change.OpInsert, 1)
	m.TableCommitted(name, 1, 0, 1, 7)
	m.Copy(name, 1, 2)
	_, body := get(t, s, "/metrics", "")
	if !strings.Contains(body, `table="public.a\\x1b[2J\\u202e\\xff\\n"`) || strings.ContainsAny(body, "\x1b\u202e") || strings.Contains(body, "\xff") {
		t.Errorf("the label is not printable:\n%s", body)
	}
	if !strings.Contains(body, `pipeline="public.a\\x1b[2J`) {
		t.Errorf("the pipeline's name is not printable:\n%s", body)
	}
	for _, gauge := range []string{"leat_copy_chunks_done", "leat_copy_chunks", "leat_table_position_bytes"} {
		if !strings.Contains(body, gauge+"{pipeline=") {
			t.Errorf("%s is not told of such a table:\n%s", gauge, body)
		}
	}
	m.CopyEnded(name)
	if _, body := get(t, s, "/metrics", ""); strings.Contains(body, "leat_copy_chunks_done{") {
		t.Error("a copy that ended is still told")
	}
}
