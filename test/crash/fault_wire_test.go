package crash_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	toxics "github.com/Shopify/toxiproxy/v2/client"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// cutting is a wire to a database that can be spoiled.
type cutting struct {
	*toxics.Proxy
	t testing.TB
}

func wireTo(t testing.TB, db *testlab.DB) *cutting {
	t.Helper()
	return &cutting{testlab.Toxiproxy(t, upstream(t, db)), t}
}

func (c *cutting) add(name, kind string, attributes toxics.Attributes) {
	c.t.Helper()
	if _, err := c.AddToxic(name, kind, "downstream", 1, attributes); err != nil {
		c.t.Error(err)
	}
}

func (c *cutting) remove(name string) {
	c.t.Helper()
	if err := c.RemoveToxic(name); err != nil {
		c.t.Error(err)
	}
}

const (
	readsAgain  = "reading again after the connection was cut"
	beginsAgain = "beginning again with a new snapshot"
)

// everyFormat are the ways rows take: typed files, text files, text joined into one file.
var everyFormat = []struct {
	name   string
	kind   format.Kind
	layout dump.Layout
}{
	{"parquet", format.Parquet, dump.LayoutRun},
	{"csv", format.CSV, dump.LayoutRun},
	{"csv.gz joined", format.CSVGzip, dump.LayoutDate},
}

// TestACutInTheMiddleOfACopyIsReadAgain cuts every connection after a megabyte, until leat notices.
func TestACutInTheMiddleOfACopyIsReadAgain(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	want := warehouse(t, db)
	for _, c := range everyFormat {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wire, dir := wireTo(t, db), folderPlace(t.TempDir())
			source := reach(t, db.URL, wire.Listen)
			wire.add("cut", "limit_data", toxics.Attributes{"bytes": 1_000_000})
			var once sync.Once
			log := &hears{then: func(string) { once.Do(func() { wire.remove("cut") }) }}
			opts := options(c.kind, c.layout)
			opts.Log = logTo(log)
			if _, err := dump.Run(t.Context(), source, dir.open(t), opts); err != nil {
				t.Fatal(err)
			}
			judgeClean(t, dir, want)
			if log.times(readsAgain)+log.times(beginsAgain) == 0 {
				t.Errorf("no connection was cut: %q", log.said)
			}
			if c.layout == dump.LayoutRun && log.times(beginsAgain) > 0 {
				t.Errorf("a cut unit made the whole dump begin again: %q", log.said)
			}
		})
	}
}

// TestACutBeforeTheFirstByteOfAJoinedObjectIsReadAgain: nothing is in the object yet, so the snapshot is kept.
func TestACutBeforeTheFirstByteOfAJoinedObjectIsReadAgain(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	want := warehouse(t, db)
	dir := folderPlace(t.TempDir())
	wire := wireTo(t, db)
	log := &hears{}
	opts := options(format.CSVGzip, dump.LayoutDate)
	opts.Parallel = 1
	opts.Log = logTo(log)
	cut := false
	// Less than the first megabyte, which is the least that gzip passes on.
	opts.Watch = watches{started: func(p *dump.Progress) {
		if p.Table.Name == "parcels" {
			wire.add("cut", "limit_data", toxics.Attributes{"bytes": 300_000})
			cut = true
		}
	}}
	log.then = func(string) {
		if cut {
			cut = false
			wire.remove("cut")
		}
	}
	if _, err := dump.Run(t.Context(), reach(t, db.URL, wire.Listen), dir.open(t), opts); err != nil {
		t.Fatal(err)
	}
	judgeClean(t, dir, want)
	if log.times(readsAgain) != 1 || log.times(beginsAgain) != 0 {
		t.Errorf("want the unit read again, heard %q", log.said)
	}
}

// leaders are the sessions that hold the snapshot while others read.
const leaders = `from pg_stat_activity where datname = current_database() and application_name = 'leat' and state = 'idle in transaction' and pid <> pg_backend_pid()`

func TestALostSnapshotBeginsTheWholeDumpAgain(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	want := warehouse(t, db)
	dir := folderPlace(t.TempDir())
	log := &hears{}
	opts := options(format.Parquet, dump.LayoutRun)
	opts.Log = logTo(log)
	var once sync.Once
	opts.Watch = watches{started: func(*dump.Progress) {
		once.Do(func() { db.Exec("select pg_terminate_backend(pid) " + leaders) })
	}}
	if _, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), opts); err != nil {
		t.Fatal(err)
	}
	if v := judgeClean(t, dir, want); len(v.manifests) != 1 || log.times(beginsAgain) != 1 {
		t.Errorf("%d dumps, heard %q", len(v.manifests), log.said)
	}
}

// TestTheLocksAreHeldToTheEnd: the session that holds the locks ends when every reader is inside the snapshot and
// a table is truncated before it is read. TRUNCATE does not care for snapshots, so the rows must not be taken for all there are.
func TestTheLocksAreHeldToTheEnd(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	dir := folderPlace(t.TempDir())
	log := &hears{}
	opts := options(format.CSV, dump.LayoutRun)
	opts.Parallel, opts.Log = 1, logTo(log)
	done := false
	opts.Watch = watches{started: func(p *dump.Progress) { // parcels is the largest and read first
		if p.Table.Name != "parcels" && !done {
			done = true
			db.Exec("select pg_terminate_backend(pid) " + leaders + " and query not like 'copy%'")
			db.Exec("truncate scans, returns")
		}
	}}
	if _, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), opts); err != nil {
		t.Fatal(err)
	}
	if log.times(beginsAgain) != 1 {
		t.Errorf("the dump went on without its locks: %q", log.said)
	}
	judgeClean(t, dir, map[string]content{"parcels": contentOf(db, "parcels", "id"), "scans": {}, "returns": {}})
}

func TestAServerThatCrashesAndComesBackIsDumpedWhole(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	want := warehouse(t, db)
	dir := folderPlace(t.TempDir())
	log := &hears{}
	opts := options(format.Parquet, dump.LayoutRun)
	opts.Log, opts.MaxRate = logTo(log), 8<<20 // slow enough to be hit in the middle
	planned := make(chan []*dump.Progress, opts.Parallel)
	opts.Watch = watches{planned: func(p []*dump.Progress) { planned <- p }}
	ended := make(chan error, 1)
	go func() {
		_, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), opts)
		ended <- err
	}()
	tables := <-planned
	until(t, "a table is read in part", func() bool {
		for _, p := range tables {
			if p.Bytes.Load() > 1<<20 && !p.Done() {
				return true
			}
		}
		return false
	})
	db.Server.Crash()
	if err := db.Server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	judgeClean(t, dir, want)
	if log.times(beginsAgain) == 0 {
		t.Errorf("the crash was not noticed: %q", log.said)
	}
}

func TestAServerThatIsGoneForGoodIsSaidToBe(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	warehouse(t, db)
	dir := folderPlace(t.TempDir())
	opts := options(format.Parquet, dump.LayoutRun)
	opts.Attempts = 2
	var once sync.Once
	opts.Watch = watches{started: func(*dump.Progress) { once.Do(db.Server.Stop) }}
	_, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), opts)
	wants(t, err, fault.SourceUnreachable, "127.0.0.1", db.Name)
	nothing(t, dir)
}

// TestAServerThatIsSlowToComeBackIsWaitedFor: the second attempt finds nobody, the third does.
func TestAServerThatIsSlowToComeBackIsWaitedFor(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	want := warehouse(t, db)
	dir := folderPlace(t.TempDir())
	log := &hears{}
	log.then = func(message string) {
		if strings.HasSuffix(message, beginsAgain) && log.times(beginsAgain) == 2 {
			if err := db.Server.Start(); err != nil {
				t.Error(err)
			}
		}
	}
	opts := options(format.Parquet, dump.LayoutRun)
	opts.Log = logTo(log)
	var once sync.Once
	opts.Watch = watches{started: func(*dump.Progress) { once.Do(db.Server.Stop) }}
	if _, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), opts); err != nil {
		t.Fatalf("%v; heard %q", err, log.said)
	}
	judgeClean(t, dir, want)
}

func TestASlowServerOnlyTakesLonger(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table slow (id bigint, filler text); insert into slow select i, repeat('x', 100) from generate_series(1, 5000) i")
	wire, dir := wireTo(t, db), folderPlace(t.TempDir())
	source := reach(t, db.URL, wire.Listen)
	wire.add("slow", "bandwidth", toxics.Attributes{"rate": 400})
	wire.add("far", "latency", toxics.Attributes{"latency": 20, "jitter": 20})
	wire.add("crumbs", "slicer", toxics.Attributes{"average_size": 500, "size_variation": 400})
	if _, err := dump.Run(t.Context(), source, dir.open(t), options(format.Parquet, dump.LayoutRun)); err != nil {
		t.Fatal(err)
	}
	judgeClean(t, dir, map[string]content{"slow": contentOf(db, "slow", "id")})
}

// TestAHalfOpenConnectionDoesNotHoldACancelledDump: the wire swallows everything and says nothing.
func TestAHalfOpenConnectionDoesNotHoldACancelledDump(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	wire, dir := wireTo(t, db), folderPlace(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	opts := options(format.Parquet, dump.LayoutRun)
	deaf := make(chan struct{})
	var once sync.Once
	opts.Watch = watches{started: func(*dump.Progress) {
		once.Do(func() {
			wire.add("deaf", "timeout", toxics.Attributes{"timeout": 0})
			close(deaf)
		})
	}}
	ended := make(chan error, 1)
	source := reach(t, db.URL, wire.Listen)
	go func() {
		_, err := dump.Run(ctx, source, dir.open(t), opts)
		ended <- err
	}()
	<-deaf
	cancel()
	select {
	case err := <-ended:
		wants(t, err, fault.Interrupted)
	case <-time.After(patience):
		t.Fatal("the dump still waits")
	}
	nothing(t, dir)
}
