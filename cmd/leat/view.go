package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
)

// view shows a dump to whoever looks: a person at a terminal, a log, a program, or the habits of the old job.
type view interface {
	dump.Watcher
	summary(m *dump.Manifest, root string) // after success
	close()                                // may be called twice
}

// newView also says where log lines go, so that they do not break the picture.
func (c *cli) newView(cfg *config.Config) (view, io.Writer) {
	switch {
	case c.json:
		return &jsonView{out: c.stdout}, c.stderr
	case cfg.DropIn:
		return &jobView{out: c.stdout}, c.stderr
	case c.quiet:
		return quietView{}, c.stderr
	case cfg.Log.Format == config.LogAuto && isTerminal(c.stderr):
		live := newLiveView(c.stdout, c.stderr)
		return live, live.bars
	}
	return &plainView{out: c.stdout}, c.stderr
}

// jobView speaks, word for word, as the shell job did that leat stands in for.
type jobView struct{ out io.Writer }

func (v *jobView) Planned(*dump.Manifest, []*dump.Progress) {}
func (v *jobView) Started(p *dump.Progress) {
	say(v.out, "Table '%s': Data collection started.\n", p.Table.Name)
}
func (v *jobView) Finished(p *dump.Progress) {
	say(v.out, "Table '%s': Dump uploaded to intermediate storage.\n", p.Table.Name)
}
func (v *jobView) summary(*dump.Manifest, string) { say(v.out, "Success.\n") }
func (v *jobView) close()                         {}

// quietView shows nothing but what is logged.
type quietView struct{}

func (quietView) Planned(*dump.Manifest, []*dump.Progress) {}
func (quietView) Started(*dump.Progress)                   {}
func (quietView) Finished(*dump.Progress)                  {}
func (quietView) summary(*dump.Manifest, string)           {}
func (quietView) close()                                   {}

// plainView writes a line a table, for logs.
type plainView struct {
	out   io.Writer
	mu    sync.Mutex
	done  int
	total int
	width int
}

func (v *plainView) Planned(m *dump.Manifest, tables []*dump.Progress) {
	v.total, v.width = len(tables), nameWidth(tables)
	say(v.out, "%s\n", plannedLine(m, tables))
}

func plannedLine(m *dump.Manifest, tables []*dump.Progress) string {
	exact := "exact"
	if !m.Snapshot.LSNExact {
		exact = "approximate: " + m.Snapshot.WhyNotExact
	}
	return shown("Dumping %s from %s as of LSN %s (%s)", plural(len(tables), "table"), m.Source.Server, m.Snapshot.LSN, exact)
}

func (v *plainView) Started(*dump.Progress) {}

func (v *plainView) Finished(p *dump.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done++
	say(v.out, "[%*d/%d] %s\n", len(fmt.Sprint(v.total)), v.done, v.total, finishedLine(p, v.width))
}

func (v *plainView) close() {}
func (v *plainView) summary(m *dump.Manifest, root string) {
	summarize(v.out, m, root)
}

func finishedLine(p *dump.Progress, width int) string {
	elapsed := p.Elapsed(time.Now())
	return shown("%-*s %14s rows  %10s  %7s  %s", width, p.Table.String(), thousands(p.Rows.Load()), byteText(p.Stored.Load()), durationText(elapsed), rateText(p.Rows.Load(), elapsed))
}

func summarize(w io.Writer, m *dump.Manifest, root string) {
	elapsed := m.Finished.Sub(m.Started)
	say(w, "Dumped %s: %s rows in %s, %s, in %s (%s).\n", plural(m.Totals.Tables, "table"), thousands(m.Totals.Rows), plural(m.Totals.Files, "file"),
		byteText(m.Totals.Bytes), durationText(elapsed), rateText(m.Totals.Rows, elapsed))
	for _, t := range m.Tables {
		for _, c := range t.Columns {
			if c.Applied > 0 {
				say(w, "  %s.%s.%s: policy %s was applied to %s\n", t.Schema, t.Name, c.Name, c.Policy, plural(int(c.Applied), "value"))
			}
		}
	}
	say(w, "Manifest: %s/%s/%s\n", strings.TrimRight(root, "/"), m.Folder, dump.ManifestName)
}

// jsonView writes an object a line to stdout; the log goes to stderr.
type jsonView struct {
	out io.Writer
	mu  sync.Mutex
}

func (v *jsonView) event(name string, fields map[string]any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fields["event"] = name
	for field, value := range fields {
		if text, ok := value.(string); ok {
			fields[field] = fault.ValidText(text)
		}
	}
	_ = sayJSON(v.out, fields) // maps of strings and numbers always marshal
}

func (v *jsonView) Planned(m *dump.Manifest, tables []*dump.Progress) {
	v.event("planned", map[string]any{"dump": m.ID, "tables": len(tables), "snapshot": m.Snapshot, "source": m.Source})
}

func (v *jsonView) Started(p *dump.Progress) {
	v.event("started", map[string]any{"schema": p.Table.Schema, "table": p.Table.Name})
}

func (v *jsonView) Finished(p *dump.Progress) {
	v.event("finished", map[string]any{
		"schema": p.Table.Schema, "table": p.Table.Name, "rows": p.Rows.Load(), "bytes": p.Stored.Load(),
		"seconds": p.Elapsed(time.Now()).Seconds(),
	})
}

func (v *jsonView) close() {}
func (v *jsonView) summary(m *dump.Manifest, root string) {
	v.event("done", map[string]any{
		"dump": m.ID, "manifest": strings.TrimRight(root, "/") + "/" + m.Folder + "/" + dump.ManifestName, "totals": m.Totals,
		"seconds": m.Finished.Sub(m.Started).Seconds(), "snapshot": m.Snapshot,
	})
}

func nameWidth(tables []*dump.Progress) int {
	width := 0
	for _, p := range tables {
		width = max(width, len(p.Table.String()))
	}
	return min(width, 48)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return thousands(int64(n)) + " " + noun + "s"
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func byteText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n)/unit, "KMGTP"
	for f >= unit && len(units) > 1 {
		f, units = f/unit, units[1:]
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}

func durationText(d time.Duration) string {
	if d >= time.Minute {
		return d.Round(time.Second).String()
	}
	return fmt.Sprintf("%.1fs", d.Seconds())
}

func rateText(rows int64, d time.Duration) string {
	if d <= 0 {
		return "0 rows/s"
	}
	return thousands(int64(float64(rows)/d.Seconds())) + " rows/s"
}
