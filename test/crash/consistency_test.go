package crash_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// busy runs a transaction again and again in several sessions until the returned func is called; done counts.
func busy(t testing.TB, db *testlab.DB, transaction func(ctx context.Context, c *pgx.Conn, worker int) error) (done *atomic.Int64, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var workers sync.WaitGroup
	done = &atomic.Int64{}
	for i := range 3 {
		c := db.Connect()
		workers.Go(func() {
			for ctx.Err() == nil {
				if err := transaction(context.WithoutCancel(ctx), c, i); err != nil {
					t.Errorf("a writer fails: %v", err)
					return
				}
				done.Add(1)
			}
		})
	}
	return done, func() { cancel(); workers.Wait() }
}

// records reads the CSV files of one table of a dump.
func records(t testing.TB, p place, m *dump.Manifest, table string) (all [][]string) {
	t.Helper()
	for _, tm := range m.Tables {
		if tm.Name != table {
			continue
		}
		for _, f := range tm.Files {
			data := p.read(t, f.Key)
			in := csv.NewReader(bytes.NewReader(data))
			if strings.HasSuffix(f.Key, ".gz") {
				z, err := gzip.NewReader(bytes.NewReader(data))
				if err != nil {
					t.Fatal(err)
				}
				in = csv.NewReader(z)
			}
			rows, err := in.ReadAll()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, rows...)
		}
	}
	return all
}

// TestADumpUnderWritesSeesOneMoment: money moves between two tables, and every change moves its row to another page.
func TestADumpUnderWritesSeesOneMoment(t *testing.T) {
	t.Parallel()
	const accounts = 5000
	db := testlab.Postgres(t)
	for _, table := range []string{"checking", "savings"} {
		db.Exec(fmt.Sprintf("create table %s (id bigint primary key, balance bigint, filler text) with (fillfactor = 100); insert into %[1]s select i, 1000, repeat('x', 300) from generate_series(1, %d) i; analyze %[1]s", table, accounts))
	}
	done, stop := busy(t, db, func(ctx context.Context, c *pgx.Conn, _ int) error {
		from, to, sum := 1+rand.IntN(accounts), 1+rand.IntN(accounts), rand.IntN(100)
		_, err := c.PgConn().Exec(ctx, fmt.Sprintf("begin; update checking set balance = balance - %[1]d where id = %[2]d; update savings set balance = balance + %[1]d where id = %[3]d; commit", sum, from, to)).ReadAll()
		return err
	})
	defer stop()
	source := reach(t, db.URL)
	for _, lsn := range []postgres.LSNMode{postgres.LSNExact, postgres.LSNApproximate} {
		for _, layout := range []dump.Layout{dump.LayoutRun, dump.LayoutDate} {
			opts := options(format.CSVGzip, layout)
			opts.LSN, opts.Parallel, opts.FileSize = lsn, 4, 64<<10
			dir := folderPlace(t.TempDir())
			before := done.Load()
			until(t, "the writers write", func() bool { return done.Load() > before+20 })
			m, err := dump.Run(t.Context(), source, dir.open(t), opts)
			if err != nil {
				t.Fatal(err)
			}
			total := 0
			for _, table := range []string{"checking", "savings"} {
				seen := map[string]int{}
				for _, r := range records(t, dir, m, table) {
					seen[r[0]]++
					n, _ := strconv.Atoi(r[1]) // a bigint of the server
					total += n
				}
				if len(seen) != accounts {
					t.Errorf("%s: %d of %d rows", table, len(seen), accounts)
				}
				for id, n := range seen {
					if n != 1 {
						t.Errorf("%s: row %s comes %d times", table, id, n)
					}
				}
			}
			if total != 2*accounts*1000 {
				t.Errorf("%s, %s: the sum is %d, not %d: the tables are of two moments", lsn, layout, total, 2*accounts*1000)
			}
			if layout == dump.LayoutRun && len(m.Tables[0].Files) < 5 {
				t.Errorf("only %d chunks: the test would prove less than it says", len(m.Tables[0].Files))
			}
		}
	}
}

var inserted = regexp.MustCompile(`^table public\.entries: INSERT: id\[bigint\]:(\d+)`)

// commits reads the log by PostgreSQL's own test_decoding: for each row of entries the end of its transaction's commit
// record, which is the position that pg_logical_slot_get_changes gives beside COMMIT (commit_cb_wrapper in
// src/backend/replication/logical/logical.c sets it to end_lsn).
func commits(t testing.TB, db *testlab.DB, slot string) map[string]change.LSN {
	t.Helper()
	ends, pending := map[string]change.LSN{}, []string{}
	for _, row := range db.Query("select lsn, data from pg_logical_slot_get_changes('" + slot + "', null, null)") {
		if m := inserted.FindStringSubmatch(row[1]); m != nil {
			pending = append(pending, m[1])
		}
		if strings.HasPrefix(row[1], "COMMIT") {
			lsn, err := change.ParseLSN(row[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range pending {
				ends[id] = lsn
			}
			pending = pending[:0]
		}
	}
	return ends
}

// TestTheExactLSNSeparatesWhatIsInFromWhatIsNot: a row is in the dump if, and only if, its transaction's commit
// record ends at or before the manifest's LSN.
func TestTheExactLSNSeparatesWhatIsInFromWhatIsNot(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table entries (id bigint, writer int)")
	slot := "judge_" + db.Name
	db.Exec("select pg_create_logical_replication_slot('" + slot + "', 'test_decoding')")
	var id atomic.Int64
	_, stop := busy(t, db, func(ctx context.Context, c *pgx.Conn, worker int) error {
		// Two rows a transaction, with a pause for others between: half a transaction would show.
		_, err := c.PgConn().Exec(ctx, fmt.Sprintf("begin; insert into entries values (%d, %d); insert into entries values (%d, %d); commit", id.Add(1), worker, id.Add(1), worker)).ReadAll()
		return err
	})
	defer stop()
	source := reach(t, db.URL)
	type taken struct {
		lsn change.LSN
		ids []string
	}
	var dumps []taken
	for range 6 {
		before := id.Load()
		until(t, "the writers write", func() bool { return id.Load() > before+100 })
		dir := folderPlace(t.TempDir())
		opts := options(format.CSV, dump.LayoutRun)
		opts.LSN = postgres.LSNExact
		m, err := dump.Run(t.Context(), source, dir.open(t), opts)
		if err != nil {
			t.Fatal(err)
		}
		if !m.Snapshot.LSNExact || m.Snapshot.LSN != m.Snapshot.LSNUpper {
			t.Errorf("the LSN is not exact: %+v", m.Snapshot)
		}
		d := taken{lsn: m.Snapshot.LSN}
		for _, r := range records(t, dir, m, "entries") {
			d.ids = append(d.ids, r[0])
		}
		dumps = append(dumps, d)
	}
	stop()
	ends := commits(t, db, slot)
	for _, d := range dumps {
		in := map[string]bool{}
		for _, id := range d.ids {
			in[id] = true
		}
		for _, id := range slices.Sorted(maps.Keys(ends)) {
			if want := ends[id] <= d.lsn; in[id] != want {
				t.Errorf("row %s, whose commit ends at %s, is in the dump of %s: %v", id, ends[id], d.lsn, in[id])
			}
		}
		if len(in) == 0 || len(in) == len(ends) {
			t.Errorf("%d of %d rows: the LSN separates nothing", len(in), len(ends))
		}
	}
}

func TestWithoutASlotTheManifestSaysApproximateAndWhy(t *testing.T) {
	t.Parallel()
	t.Run("no right to replicate", func(t *testing.T) {
		t.Parallel()
		db := testlab.Postgres(t)
		role := db.Role("")
		db.Exec("create table entries (id bigint); grant select on entries to " + role.Name)
		approximate(t, role.URL, "replication")
	})
	t.Run("wal_level is replica", func(t *testing.T) {
		t.Parallel()
		db := testlab.OwnPostgres(t, testlab.ServerOptions{Settings: []string{"wal_level = replica"}})
		db.Exec("create table entries (id bigint)")
		approximate(t, db.URL, "wal_level")
	})
}

func approximate(t *testing.T, address, why string) {
	t.Helper()
	opts := options(format.CSV, dump.LayoutRun)
	opts.LSN = postgres.LSNAuto
	m, err := dump.Run(t.Context(), reach(t, address), folderPlace(t.TempDir()).open(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	s := m.Snapshot
	if s.LSNExact || !strings.Contains(s.WhyNotExact, why) || s.LSN == 0 || s.LSNUpper < s.LSN {
		t.Errorf("want an approximate LSN because of %q, found %+v", why, s)
	}
	opts.LSN = postgres.LSNExact
	if _, err := dump.Run(t.Context(), reach(t, address), folderPlace(t.TempDir()).open(t), opts); err == nil {
		t.Error("lsn: exact succeeds without a slot")
	}
}
