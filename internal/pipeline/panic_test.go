package pipeline_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/pipeline"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// wornLake fails at one step of the table "bad" as a bug of ours would.
type wornLake struct {
	pipeline.Lake
	at string
}

func (l *wornLake) fails(table, at string) {
	if table == "bad" && at == l.at {
		var none []int
		_ = none[len(at)]
	}
}

func (l *wornLake) Look(ctx context.Context, spec lake.Spec) error {
	l.fails(spec.Table.Name, "Look")
	return l.Lake.Look(ctx, spec)
}

func (l *wornLake) Table(ctx context.Context, spec lake.Spec) (lake.Table, error) {
	l.fails(spec.Table.Name, "Table")
	t, err := l.Lake.Table(ctx, spec)
	if err != nil || spec.Table.Name != "bad" {
		return t, err
	}
	return &wornTable{t, l}, nil
}

type wornTable struct {
	lake.Table
	lake *wornLake
}

func (t *wornTable) Evolve(ctx context.Context, d lake.Definition) error {
	t.lake.fails("bad", "Evolve")
	return t.Table.Evolve(ctx, d)
}

func (t *wornTable) Write(ctx context.Context, c *change.Changes) error {
	t.lake.fails("bad", "Write")
	return t.Table.Write(ctx, c)
}

func (t *wornTable) Commit(ctx context.Context, to change.LSN, at time.Time) (lake.Committed, error) {
	done, err := t.Table.Commit(ctx, to, at)
	t.lake.fails("bad", "Commit") // the worst moment: it is in the lake, and nobody has said so
	return done, err
}

func (t *wornTable) Maintain(ctx context.Context, o lake.MaintainOptions) (lake.Maintained, error) {
	t.lake.fails("bad", "Maintain")
	return t.Table.Maintain(ctx, o)
}

func (t *wornTable) Copy(ctx context.Context, source *change.Table, schema *arrow.Schema) (lake.Copy, error) {
	t.lake.fails("bad", "Copy")
	c, err := t.Table.Copy(ctx, source, schema)
	return &wornCopy{c, t.lake}, err
}

type wornCopy struct {
	lake.Copy
	lake *wornLake
}

func (c *wornCopy) Chunk(ctx context.Context, id string, stamp change.LSN) (lake.ChunkWriter, error) {
	c.lake.fails("bad", "Chunk")
	return c.Copy.Chunk(ctx, id, stamp)
}

func (c *wornCopy) Finish(ctx context.Context, position change.LSN) error {
	c.lake.fails("bad", "Finish")
	return c.Copy.Finish(ctx, position)
}

type deaf struct{}

func (deaf) Followed(string, change.Op, int64)      {}
func (deaf) Special(string, int64)                  {}
func (deaf) Committed(pipeline.Commit)              {}
func (deaf) TableCommitted(string, pipeline.Commit) {}
func (deaf) Working(bool)                           {}
func (deaf) Read(int, int64)                        {}
func (deaf) Leased(int64)                           {}
func (deaf) Lag(pipeline.Lag)                       {}
func (deaf) Copying(string, int, int, int64)        {}
func (deaf) Mode(string, string)                    {}
func (deaf) Spool(int64)                            {}
func (deaf) Failed(error, time.Duration)            {}

// within is a run in this process, into the bed's lake.
func (b *bed) within(at string, log *bytes.Buffer) (*postgres.Source, pipeline.Options) {
	b.t.Helper()
	source, err := postgres.Connect(b.t.Context(), postgres.Settings{
		ConnString: "host=127.0.0.1 sslmode=disable user=postgres port=" + strconv.Itoa(b.db.Server.Port) + " dbname=" + b.db.Name,
		Password:   func() string { return b.db.Server.Password },
	})
	if err != nil {
		b.t.Fatal(err)
	}
	target, err := bucket.Open(b.t.Context(), b.dir+"/lake", bucket.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { target.Close() })
	nothing := func(string, string) []string { return nil }
	logger := slog.New(slog.NewTextHandler(log, nil))
	return source, pipeline.Options{
		Name: "leat", Slot: b.slot(), Publication: "leat", OwnPublication: true, Identityless: "refuse", WithoutWAL: "skip", ForeignWrites: pipeline.ForeignWarn,
		Selection: postgres.Selection{Named: func(postgres.Name) bool { return false }, Choose: func(all []postgres.Name, _ []string) (every []int, err error) {
			for i := range all {
				every = append(every, i)
			}
			return every, nil
		}},
		Keep:      func(string, string) pipeline.Keep { return pipeline.Keep{Current: true, History: true} },
		RowFilter: func(string, string) string { return "" }, ColumnList: nothing, PartitionBy: nothing, SortBy: nothing,
		State: target, Lake: func(ctx context.Context, epoch int64) (pipeline.Lake, error) {
			l, err := lake.Open(ctx, lake.Options{Bucket: target, Location: target.Properties().URL, WorkDir: b.dir + "/work", Epoch: epoch, Pipeline: "leat", Log: logger})
			return &wornLake{l, at}, err
		},
		UntilCaughtUp: true, CommitInterval: 10 * time.Millisecond, CommitRows: 1 << 20, CommitBytes: 1 << 30, CopyParallel: 2, CopyChunk: 1 << 30,
		SpoolLimit: 1 << 30, WorkDir: b.dir + "/work", LeaseTTL: 2 * time.Second, MaxRetryDelay: time.Second, CopyOnChange: true,
		MaintainTo: lake.MaintainOptions{Compact: true}, Log: logger, Watch: deaf{},
	}
}

func TestAPanicIsTheErrorOfOneTableAndLosesNothing(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	b.db.Exec("create table bad (id int primary key, v text); create table good (id int primary key, v text)")
	rows := 0
	run := func(at string) (string, error) {
		t.Helper()
		rows++
		b.db.Exec("insert into bad values ($1, 'x')", rows)
		b.db.Exec("insert into good values ($1, 'x')", rows)
		var log bytes.Buffer
		source, o := b.within(at, &log)
		err := pipeline.Run(t.Context(), source, o)
		return log.String(), err
	}
	wanted := func(at string, err error) {
		t.Helper()
		if !fault.Panicked(err) || !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "bad") {
			t.Errorf("%s: the run ends with %v", at, err)
		}
		_, saved := b.state()
		if phase := stateOf(saved, "bad")["phase"]; phase != "" {
			t.Errorf("%s: the saved state takes the table for one that is %s", at, phase)
		}
		if left, _ := saved["left_out"].(map[string]any); left["public.bad"] == nil {
			t.Errorf("%s: the saved state does not say that the table is left out: %v", at, saved["left_out"])
		}
	}
	for _, at := range []string{"Look", "Table", "Copy", "Chunk", "Finish"} { // of a table that is new, which it is again each time
		_, err := run(at)
		wanted(at, err)
	}
	for _, at := range []string{"Evolve", "Write", "Commit", "Table"} { // of one that follows the log
		if log, err := run(""); err != nil {
			t.Fatalf("before %s: %v\n%s", at, err, log)
		}
		b.judge("bad")
		_, err := run(at)
		wanted(at, err)
	}
	b.judge("good")
	if _, err := run(""); err != nil {
		t.Fatal(err)
	}
	b.judge("good", "bad")

	var log bytes.Buffer
	source, o := b.within("Maintain", &log)
	did, err := pipeline.Maintain(t.Context(), source, o, time.Hour)
	if !fault.Panicked(err) || did.Tables != 1 {
		t.Errorf("the upkeep of all ends with %+v, %v", did, err)
	}
	b.db.Exec("update good set v = 'y'; update bad set v = 'y'")
	source, o = b.within("Maintain", &log)
	o.Maintain = 20 * time.Millisecond
	log.Reset()
	if err := pipeline.Run(t.Context(), source, o); err != nil || !strings.Contains(log.String(), "the upkeep of a table failed") {
		t.Errorf("a run whose upkeep fails ends with %v\n%s", err, log.String())
	}
	b.judge("good", "bad")
}

func TestStatusTellsOfAStateWithoutItsLease(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	b.db.Exec("create table notes (id int primary key)")
	b.mustCatchUp()
	if err := os.Remove(b.dir + "/lake/_leat/leat/lease.json"); err != nil {
		t.Fatal(err)
	}
	r := testlab.Leat(t).Run(b.db.Env(), "status", "--to", b.dir+"/lake")
	if r.Exit != 0 || !strings.Contains(r.Stdout, "never ran") || !strings.Contains(r.Stdout, "position ") {
		t.Errorf("exit %d: %s%s", r.Exit, r.Stdout, r.Stderr)
	}
}

func TestATableWhoseFilesAreDamagedIsLeftOutAlone(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	b.db.Exec("create table bad (id int primary key, v text); create table good (id int primary key, v text); insert into bad values (1, 'x'); insert into good values (1, 'x')")
	b.mustCatchUp()
	manifests, err := filepath.Glob(b.dir + "/lake/public/bad/metadata/*-m0.avro")
	if err != nil || len(manifests) == 0 {
		t.Fatalf("manifests: %v %v", manifests, err)
	}
	for _, path := range manifests {
		if err := os.WriteFile(path, []byte("Obj\x01nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	b.db.Exec("insert into bad values (2, 'y'); insert into good values (2, 'y')")
	damaged := func(r testlab.Result) {
		t.Helper()
		if r.Exit == 0 || !strings.Contains(r.Stderr, "code: lake-unreadable") || !strings.Contains(r.Stderr, "leat resync --table") {
			t.Errorf("it ends with %d: %s", r.Exit, r.Stderr)
		}
	}
	os.RemoveAll(b.dir + "/work") // on another machine: the key index of before would not ask for the files
	damaged(b.catchUp())
	b.judge("good")
	r := testlab.Leat(t).Run(b.db.Env(), "lake", "maintain", "--to", b.dir+"/lake", "--set", "lake.orphan_age=1s")
	if r.Exit != 0 { // the pipeline no longer has the table, and the sweep leaves its folder alone
		t.Errorf("upkeep ends with %d: %s", r.Exit, r.Stderr)
	}
	if left, _ := filepath.Glob(b.dir + "/lake/public/bad/metadata/*-m0.avro"); len(left) != len(manifests) {
		t.Errorf("of %d manifests the sweep left %d", len(manifests), len(left))
	}
	if err := os.RemoveAll(b.dir + "/lake/public/bad"); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(b.dir + "/lake/public/bad_history"); err != nil {
		t.Fatal(err)
	}
	b.mustCatchUp()
	b.judge("good", "bad")
}
