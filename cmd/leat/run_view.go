package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/pipeline"
)

// runView shows a pipeline at work: two lines that stay on a terminal, an object a commit with --json, and a line a
// commit elsewhere. Log lines go through it, so that they do not break the picture.
type runView struct {
	out  io.Writer // stdout
	log  io.Writer // where log lines go
	json *jsonView
	bars *mpb.Progress
	tell bool // a line a commit

	mu        sync.Mutex
	began     time.Time
	last      pipeline.Commit
	total     pipeline.Commit
	lag       pipeline.Lag
	followed  int64
	copied    int64 // rows of copies that have ended
	rate      rateMeter
	copies    map[string]copyState
	spool     int64
	modes     map[string]string
	failure   string
	closeOnce sync.Once
}

type copyState struct {
	done, total int
	rows        int64
}

// rateMeter is changes a second over the last few seconds.
type rateMeter struct {
	at     time.Time
	rows   int64
	perSec float64
}

func (m *rateMeter) see(rows int64) {
	now := time.Now()
	if d := now.Sub(m.at); m.at.IsZero() || d >= 2*time.Second {
		if !m.at.IsZero() {
			m.perSec = float64(rows-m.rows) / d.Seconds()
		}
		m.at, m.rows = now, rows
	}
}

func (c *cli) newRunView(cfg *config.Config) *runView {
	v := &runView{out: c.stdout, log: c.stderr, began: time.Now(), copies: map[string]copyState{}, modes: map[string]string{}}
	switch {
	case c.json:
		v.json = &jsonView{out: c.stdout}
	case c.quiet:
	case cfg.Log.Format == config.LogAuto && isTerminal(c.stderr):
		v.bars = mpb.New(mpb.WithOutput(c.stderr), mpb.WithRefreshRate(200*time.Millisecond), mpb.WithAutoRefresh())
		v.log = v.bars
		v.line(0, v.copyLine)
		v.line(1, v.logLine)
		v.line(2, v.lakeLine)
	default:
		v.tell = true
	}
	return v
}

// line is a line of text that draws itself from what is known.
func (v *runView) line(priority int, text func() string) {
	v.bars.MustAdd(1, nil, mpb.BarPriority(priority), mpb.PrependDecorators(decor.Any(func(decor.Statistics) string {
		v.mu.Lock()
		defer v.mu.Unlock()
		return text()
	})))
}

func (v *runView) Write(p []byte) (int, error) { return v.log.Write(p) }

func (v *runView) copyLine() string {
	if len(v.copies) == 0 {
		return fmt.Sprintf("tables %d streaming", v.count("streaming"))
	}
	var done, total int
	var rows int64
	for _, c := range v.copies {
		done, total, rows = done+c.done, total+c.total, rows+c.rows
	}
	return fmt.Sprintf("copy   %d of %d chunks, %s rows, %d tables left, spool %s", done, total, thousands(rows), v.count("copying"), byteText(v.spool))
}

func (v *runView) count(mode string) (n int) {
	for _, m := range v.modes {
		if m == mode {
			n++
		}
	}
	return n
}

func (v *runView) logLine() string {
	v.rate.see(v.followed)
	behind := ""
	if v.lag.Server > v.last.Position && v.last.Position > 0 {
		behind = ", " + byteText(int64(v.lag.Server-v.last.Position)) + " behind"
	}
	return fmt.Sprintf("log    %s changes, %.0f/s%s, slot retains %s", thousands(v.followed), v.rate.perSec, behind, byteText(v.lag.Retained))
}

func (v *runView) lakeLine() string {
	if v.failure != "" {
		return "lake   " + v.failure
	}
	if v.last.Position == 0 {
		return "lake   nothing committed yet"
	}
	return fmt.Sprintf("lake   at %s, last commit %s ago: %s changes, %s; %s in all",
		v.last.Position, durationText(time.Since(v.last.Committed).Round(100*time.Millisecond)), thousands(v.last.Changes), byteText(v.last.Bytes), byteText(v.total.Bytes))
}

// Followed counts what was read of the log.
func (v *runView) Followed(_ string, _ change.Op, rows int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.followed += rows
}

// Committed tells of a commit.
func (v *runView) Committed(c pipeline.Commit) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.last, v.failure = c, ""
	v.total.Rows, v.total.Bytes, v.total.Files = v.total.Rows+c.Rows, v.total.Bytes+c.Bytes, v.total.Files+c.Files
	switch {
	case v.json != nil:
		v.json.event("commit", map[string]any{
			"lsn": c.Position, "committed_at": c.Committed.UTC(), "seconds": c.Took.Seconds(), "tables": c.Tables,
			"changes": c.Changes, "rows": c.Rows, "files": c.Files, "deletes": c.Deletes, "bytes": c.Bytes,
		})
	case v.tell:
		say(v.out, "Committed up to %s: %s of %s, %s, %s\n", c.Position, plural(int(c.Changes), "change"), plural(c.Tables, "table"), byteText(c.Bytes), durationText(c.Took))
	}
}

// Special is told for metrics.
func (v *runView) Special(string, int64) {}

// TableCommitted is told for metrics; the view shows the sum.
func (v *runView) TableCommitted(string, pipeline.Commit) {}

// Working is told for metrics.
func (v *runView) Working(bool) {}

// Read is told for metrics.
func (v *runView) Read(int, int64) {}

// Leased is told for metrics.
func (v *runView) Leased(int64) {}

// Lag keeps the distance to the server.
func (v *runView) Lag(l pipeline.Lag) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lag = l
}

// Copying keeps how far a copy is.
func (v *runView) Copying(table string, done, total int, rows int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.copies[table] = copyState{done, total, rows}
	switch {
	case v.json != nil:
		v.json.event("copying", map[string]any{"table": table, "chunks": done, "of": total, "rows": rows})
	case v.tell && total > 1:
		say(v.out, "Copying %s: chunk %d of %d, %s rows\n", table, done, total, thousands(rows))
	}
}

// Mode tells of a table that changes its mode. Each attempt says anew in which mode its tables are.
func (v *runView) Mode(table, mode string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.modes[table] == mode {
		return
	}
	v.modes[table] = mode
	if settled(mode) {
		v.copied += v.copies[table].rows
		delete(v.copies, table)
	}
	switch {
	case v.json != nil:
		v.json.event("table", map[string]any{"table": table, "mode": mode})
	case v.tell && mode == pipeline.Recopied:
		say(v.out, "%s is copied; the log does not tell of it\n", table)
	case v.tell && settled(mode):
		say(v.out, "%s follows the log\n", table)
	}
}

// settled says whether a table in a mode is as new as it is to be.
func settled(mode string) bool { return mode == "streaming" || mode == pipeline.Recopied }

// Spool keeps how much waits.
func (v *runView) Spool(bytes int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.spool = bytes
}

// Failed tells of a failure that is tried again.
func (v *runView) Failed(err error, again time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failure = shown("failed, tried again in %s: %v", durationText(again), err)
}

// done ends a run that has caught up.
func (v *runView) done() {
	v.close()
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.json != nil:
		v.json.event("done", map[string]any{"lsn": v.last.Position, "rows": v.total.Rows, "copied": v.copied, "seconds": time.Since(v.began).Seconds()})
	case v.tell || v.bars != nil:
		copied := ""
		if v.copied > 0 {
			copied = plural(int(v.copied), "row") + " copied, "
		}
		say(v.out, "Caught up: %s%s followed (%s), in %s.\n", copied, plural(int(v.followed), "change"), byteText(v.total.Bytes), durationText(time.Since(v.began)))
	}
}

func (v *runView) close() {
	v.closeOnce.Do(func() {
		if v.bars != nil {
			v.bars.Shutdown()
			v.log = v.out
		}
	})
}
