package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/metrics"
	"github.com/leatdata/leat/internal/pipeline"
)

// watched is the view of a run together with its metrics.
type watched struct {
	*runView
	metrics *metrics.Metrics
	limit   int64

	mu      sync.Mutex
	working bool
	phases  map[string]string
}

// watch lets view and metrics hear what a run does, and opens the port for /metrics where one is asked for.
func (c *cli) watch(ctx context.Context, cfg *config.Config, view *runView, log *slog.Logger) (pipeline.Watcher, func(), error) {
	w := &watched{runView: view, metrics: metrics.New(metrics.Options{Pipeline: cfg.Run.Name}), limit: int64(cfg.Run.SpoolLimit), phases: map[string]string{}}
	if cfg.Run.Metrics == "" {
		return w, func() {}, nil
	}
	server, err := w.metrics.Serve(metrics.ServerOptions{Address: cfg.Run.Metrics, Token: cfg.Run.MetricsToken.Reveal(), Ready: w.ready})
	if err != nil {
		return nil, nil, err
	}
	log.Info("metrics", "address", server.Address)
	return w, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		defer cancel()
		_ = server.Close(ctx) // nobody is waiting for an answer any more
	}, nil
}

func (w *watched) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.working {
		return fault.New(fault.SourceUnreachable, "", "the log is not being followed")
	}
	for table, phase := range w.phases {
		if !settled(phase) {
			return fault.New(fault.SourceUnreachable, table, "the table is %s", phase)
		}
	}
	return nil
}

// Followed counts rows.
func (w *watched) Followed(table string, op change.Op, rows int64) {
	w.runView.Followed(table, op, rows)
	w.metrics.Rows(table, op, int(rows))
}

// Special counts values that went aside.
func (w *watched) Special(table string, n int64) { w.metrics.Special(table, n) }

// TableCommitted counts a commit of a table.
func (w *watched) TableCommitted(table string, c pipeline.Commit) {
	w.metrics.TableCommitted(table, c.Files, c.Deletes, c.Bytes, c.Position)
}

// Committed notes the position.
func (w *watched) Committed(c pipeline.Commit) {
	w.runView.Committed(c)
	w.metrics.Committed(c.Position, c.Committed, c.Took)
}

// Lag notes the distance to the server.
func (w *watched) Lag(l pipeline.Lag) {
	w.runView.Lag(l)
	w.metrics.Lag(l.Server, l.Position, l.Age)
	w.metrics.Slot(l.Retained, l.SafeSize)
}

// Copying notes how far a copy is.
func (w *watched) Copying(table string, done, total int, rows int64) {
	w.runView.Copying(table, done, total, rows)
	w.metrics.Copy(table, done, total)
}

// Mode notes what a table does.
func (w *watched) Mode(table, mode string) {
	w.runView.Mode(table, mode)
	if settled(mode) {
		w.metrics.CopyEnded(table)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.phases[table] = mode
	count := map[string]int{}
	for _, m := range w.phases {
		count[m]++
	}
	w.metrics.Phases(count)
}

// Spool notes how much waits in the bucket.
func (w *watched) Spool(bytes int64) {
	w.runView.Spool(bytes)
	w.metrics.Spool(bytes, w.limit)
}

// Working notes whether the log is being followed.
func (w *watched) Working(yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.working = yes
	w.metrics.Streaming(yes)
}

// Read counts what came from the log.
func (w *watched) Read(transactions int, bytes int64) {
	w.metrics.Read(transactions, bytes, time.Now())
}

// Leased notes the epoch of the lease.
func (w *watched) Leased(epoch int64) { w.metrics.Epoch(epoch) }

// Failed counts a failure.
func (w *watched) Failed(err error, again time.Duration) {
	w.runView.Failed(err, again)
	w.metrics.Failed(err, again > 0)
}
