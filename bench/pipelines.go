//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/pipeline"
	"github.com/leatdata/leat/internal/postgres"
)

// servePipelines as the first argument makes this program a process that runs many pipelines, with the defaults of leat
// run. What follows are the database, a folder and the number of pipelines; each follows a schema of its own.
const servePipelines = "serve-pipelines"

// tenant names a pipeline and its schema.
func tenant(i int) string { return fmt.Sprintf("tenant_%d", i) }

// usage is what the process tells of itself.
type usage struct {
	Goroutines int
	Heap       int64 // bytes in use
}

// pipelines runs them until stdin ends. Each line of stdin asks for the usage.
func pipelines(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s: want a database, a folder and a number", servePipelines)
	}
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	debug.SetGCPercent(50) // as leat does
	g, ctx := errgroup.WithContext(ctx)
	ctx, end := context.WithCancel(ctx)
	defer end()
	for i := range n {
		g.Go(func() error {
			err := runTenant(ctx, args[0], args[1], tenant(i))
			if ctx.Err() != nil {
				return nil //nolint:nilerr // its end was asked for
			}
			return fmt.Errorf("pipeline %d has ended: %w", i, err)
		})
	}
	g.Go(func() error {
		defer end()
		answers := json.NewEncoder(os.Stdout)
		for questions := bufio.NewScanner(os.Stdin); questions.Scan(); {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			if err := answers.Encode(usage{runtime.NumGoroutine(), int64(m.HeapAlloc)}); err != nil {
				return err
			}
		}
		return nil
	})
	return g.Wait()
}

func runTenant(ctx context.Context, database, folder, name string) error {
	source, err := postgres.Connect(ctx, postgres.Settings{ConnString: database})
	if err != nil {
		return err
	}
	place, work := filepath.Join(folder, "lake", name), filepath.Join(folder, "work", name)
	target, err := bucket.Open(ctx, place, bucket.Options{})
	if err != nil {
		return err
	}
	defer target.Close()
	if err := os.MkdirAll(work, 0o700); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	snapshots := lake.Retention{Keep: 100, All: time.Hour, Minutely: 24 * time.Hour, Hourly: 7 * 24 * time.Hour, Daily: 30 * 24 * time.Hour, Grace: time.Hour}
	nothing := func(string, string) []string { return nil }
	return pipeline.Run(ctx, source, pipeline.Options{
		Name: name, Slot: name, Publication: name, OwnPublication: true, Identityless: "refuse", WithoutWAL: "skip", ForeignWrites: pipeline.ForeignWarn,
		Generated: pipeline.GeneratedCompute, DDLEvents: pipeline.DDLEventsOff, CopyOnChange: true,
		Selection: postgres.Selection{PartitionRoots: true, Named: func(postgres.Name) bool { return false }, Choose: func(all []postgres.Name, _ []string) (ours []int, err error) {
			for i, t := range all {
				if t.Schema == name {
					ours = append(ours, i)
				}
			}
			return ours, nil
		}},
		Keep:      func(string, string) pipeline.Keep { return pipeline.Keep{Current: true, History: true, Auto: true} },
		RowFilter: func(string, string) string { return "" }, ColumnList: nothing, PartitionBy: nothing, SortBy: nothing,
		State: target, Lake: func(ctx context.Context, epoch int64) (pipeline.Lake, error) {
			return lake.Open(ctx, lake.Options{Bucket: target, Location: target.Properties().URL, WorkDir: work, Epoch: epoch, Pipeline: name, Log: log,
				Catalog: lake.CatalogOptions{Kind: "file"}, Snapshots: snapshots})
		},
		CommitInterval: 10 * time.Second, CommitRows: 1_000_000, CommitBytes: 256 * mib, CopyParallel: 4, CopyChunk: 256 * mib, SpoolLimit: 64 << 30, WorkDir: work,
		Heartbeat: 30 * time.Second, GuardWarn: 8 << 30, GuardSpool: 32 << 30, LeaseTTL: 30 * time.Second, Maintain: time.Minute,
		MaintainTo:    lake.MaintainOptions{Compact: true, MergeDeletes: 32, MergeManifests: true, Snapshots: snapshots},
		MaxRetryDelay: time.Minute, Log: log, Watch: deaf{},
	})
}

// deaf hears nothing of a pipeline: there is no view of it.
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
func (deaf) Failed(err error, again time.Duration) {
	fmt.Fprintf(os.Stderr, "a pipeline failed and is tried again in %s: %v\n", again, err)
}
