//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// report collects lines of Markdown tables: what is to be reached, and what every run took.
type report struct {
	head    []string
	reaches []string
	costs   []string
	more    []string // a table of a part's own
	notes   []string
}

// newReport notes where and how the figures come about.
func newReport(ctx context.Context, b *bench) (*report, error) {
	var host syscall.Sysinfo_t
	if err := syscall.Sysinfo(&host); err != nil {
		return nil, err
	}
	version, err := exec.CommandContext(ctx, b.cluster.program("postgres"), "--version").Output()
	if err != nil {
		return nil, err
	}
	leat, err := exec.CommandContext(ctx, b.leat, "version").Output()
	if err != nil {
		return nil, err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return nil, err
	}
	return &report{head: []string{
		fmt.Sprintf("%s, `go run ./bench %s`, medians of %d after one warm-up (wide, memory, run-large and later parts: one run), %s.", time.Now().UTC().Format(time.DateOnly), strings.Join(os.Args[1:], " "), b.n, b.mark()),
		fmt.Sprintf("%s, %d cores, %d GiB; load before the start %s. %s, %s, %s.", processor(), runtime.NumCPU(), host.Totalram*uint64(host.Unit)>>30,
			strings.Fields(string(load))[0], bytes.TrimSpace(version), runtime.Version(), bytes.TrimSpace(leat)),
	}}, nil
}

// processor is the model's name, where the kernel tells it.
func processor() string {
	data, _ := os.ReadFile("/proc/cpuinfo") // a machine that does not tell is no reason to stop
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// ratio holds our wall time against a reference's.
func (r *report) ratio(ours, reference outcome, reach float64) {
	ratio := median(ours, wall).Seconds() / median(reference, wall).Seconds()
	r.reach(ours.name+": wall", "against "+reference.name, fmt.Sprintf("%.2f×", ratio), fmt.Sprintf("%.2f×", reach), ratio <= reach)
}

// faster notes the median wall of ours against the fastest rival's.
func (r *report) faster(ours outcome, others []outcome, reach float64) {
	best := others[0]
	for _, o := range others[1:] {
		if median(o, wall) < median(best, wall) {
			best = o
		}
	}
	r.ratio(ours, best, reach)
}

// took holds a time that ours takes, as pick gives it, against a limit.
func (r *report) took(ours outcome, pick func(cost) time.Duration, what string, reach time.Duration) {
	got := median(ours, pick)
	r.reach(ours.name+": "+what, "of one run", fmt.Sprintf("%.2f s", got.Seconds()), fmt.Sprintf("%.2f s", reach.Seconds()), got <= reach)
}

// cpu holds our CPU seconds per million rows against a limit.
func (r *report) cpu(ours outcome, rows int64, reach float64) {
	got := perMillion(median(ours, own), rows)
	r.reach(ours.name+": CPU", "of ours, per million rows", fmt.Sprintf("%.2f s", got), fmt.Sprintf("%.2f s", reach), got <= reach)
}

// memory holds the highest peak of all runs against a limit in bytes.
func (r *report) memory(ours outcome, reach int64) {
	all := sorted(ours, rss)
	peak := all[len(all)-1]
	r.reach(ours.name+": memory", "peak RSS, highest of all runs", peakText(peak)+" MiB", fmt.Sprintf("%d MiB", reach>>20), peak <= reach)
}

// peakText is a peak RSS in MiB. Linux hands a process that starts another its own memory's peak on to the new
// one (exec_mmap in fs/exec.c), so below our own peak all we know is that it was not more.
func peakText(peak int64) string {
	var us syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &us); err == nil && peak <= us.Maxrss<<10 {
		return fmt.Sprintf("≤ %d", peak>>20)
	}
	return fmt.Sprint(peak >> 20)
}

func (r *report) reach(what, measure, got, reach string, reached bool) {
	mark := "yes"
	if !reached {
		mark = "**no**"
	}
	r.reaches = append(r.reaches, fmt.Sprintf("| %s | %s | %s | ≤ %s | %s |", what, measure, got, reach, mark))
}

// runs notes what contenders took for so many rows.
func (r *report) runs(rows int64, outcomes ...outcome) {
	for _, o := range outcomes {
		walls, peaks := sorted(o, wall), sorted(o, rss)
		alone, both := "", ""
		if rows >= 1_000_000 { // below, the start of a process would be most of it
			alone = fmt.Sprintf("%.2f", perMillion(median(o, own), rows))
			both = fmt.Sprintf("%.2f", perMillion(median(o, func(c cost) time.Duration { return own(c) + server(c) }), rows))
		}
		r.costs = append(r.costs, fmt.Sprintf("| %s | %.2f | %.2f to %.2f | %.2f | %.2f | %s | %s | %s | %.1f |", o.name,
			median(o, wall).Seconds(), walls[0].Seconds(), walls[len(walls)-1].Seconds(), median(o, own).Seconds(), median(o, server).Seconds(),
			alone, both, peakText(peaks[len(peaks)-1]), float64(median(o, size))/mib))
	}
}

func perMillion(d time.Duration, rows int64) float64 { return d.Seconds() / (float64(rows) / 1e6) }

// markdown is the whole report.
func (r *report) markdown() string {
	lines := append([]string{}, r.head...)
	table := func(rows []string, head ...string) {
		if len(rows) > 0 {
			lines = append(append(append(lines, ""), head...), rows...)
		}
	}
	table(r.reaches, "| measured | | got | reach | reached |", "| --- | --- | ---: | ---: | --- |")
	table(r.costs, "| run | wall, s | least to most | CPU, s | server's CPU, s | CPU-s per million rows | with the server's | peak RSS, MiB | written, MiB |",
		"| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	table(r.more)
	table(r.notes)
	return strings.Join(lines, "\n") + "\n"
}

// publish prints the report and, if asked, puts it into a file, between the marks of this name.
func (r *report) publish(readme, mark string) error {
	text := r.markdown()
	fmt.Print(text)
	if readme == "" {
		return nil
	}
	page, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	begin, end := fmt.Sprintf("<!-- result: %s -->\n", mark), fmt.Sprintf("<!-- end: %s -->", mark)
	before, rest, okBegin := strings.Cut(string(page), begin)
	_, after, okEnd := strings.Cut(rest, end)
	if !okBegin || !okEnd {
		return fmt.Errorf("%s lacks the marks %q and %q", readme, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(readme, []byte(before+begin+"\n"+text+"\n"+end+after), 0o644)
}
