package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/leatdata/leat/internal/dump"
)

// liveView draws a bar for each table that is being read and one for all, on a terminal. A
// table that is done leaves a line behind.
type liveView struct {
	out   io.Writer
	bars  *mpb.Progress
	began time.Time

	mu     sync.Mutex
	closed bool
	width  int
	tables []*dump.Progress
	shown  map[*dump.Progress]*mpb.Bar
	total  *mpb.Bar
}

func newLiveView(out, terminal io.Writer) *liveView {
	return &liveView{
		out: out, began: time.Now(), shown: map[*dump.Progress]*mpb.Bar{},
		bars: mpb.New(mpb.WithOutput(terminal), mpb.WithRefreshRate(120*time.Millisecond), mpb.WithAutoRefresh()),
	}
}

func (v *liveView) Planned(m *dump.Manifest, tables []*dump.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tables, v.width = tables, max(nameWidth(tables), len("total"))
	v.say(plannedLine(m, tables))
	v.total = v.bar("total", 1<<20, v.totalFraction, func() string {
		var rows, bytes int64
		for _, p := range v.tables {
			rows += p.Rows.Load()
			bytes += p.Bytes.Load()
		}
		return figures(rows, bytes, time.Since(v.began), v.totalFraction())
	})
}

// totalFraction weighs each table by its size; one row counts for tables that have none.
func (v *liveView) totalFraction() float64 {
	var done, all float64
	for _, p := range v.tables {
		weight := float64(max(p.Table.Bytes, 1))
		all += weight
		done += weight * p.Fraction()
	}
	if all == 0 {
		return 0
	}
	return done / all
}

func (v *liveView) Started(p *dump.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.shown[p] = v.bar(p.Table.String(), len(v.shown), p.Fraction, func() string {
		return figures(p.Rows.Load(), p.Bytes.Load(), p.Elapsed(time.Now()), p.Fraction())
	})
}

func (v *liveView) Finished(p *dump.Progress) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if bar := v.shown[p]; bar != nil {
		bar.Abort(true)
	}
	v.say("✓ " + finishedLine(p, v.width))
}

// bar draws itself from what the dump counts: nothing has to push.
func (v *liveView) bar(name string, priority int, fraction func() float64, text func() string) *mpb.Bar {
	filler := mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		room := max(min(s.AvailableWidth-2, 30), 4)
		full := int(fraction() * float64(room))
		say(w, "[%s%s]", strings.Repeat("█", full), strings.Repeat("·", room-full))
		return nil
	})
	return v.bars.MustAdd(1, filler, mpb.BarPriority(priority),
		mpb.PrependDecorators(decor.Name(shown("%-*.*s ", v.width, v.width, name))),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return text() })))
}

func figures(rows, bytes int64, elapsed time.Duration, fraction float64) string {
	seconds := max(elapsed.Seconds(), 0.001)
	eta := "--"
	if fraction > 0.01 && fraction < 1 {
		eta = time.Duration(seconds * (1 - fraction) / fraction * float64(time.Second)).Round(time.Second).String()
	}
	return fmt.Sprintf(" %3.0f%%  %s rows  %s  %s/s  ETA %s", 100*fraction, thousands(rows), rateText(rows, elapsed), byteText(int64(float64(bytes)/seconds)), eta)
}

func (v *liveView) say(line string) { say(v.bars, "%s\n", line) }

func (v *liveView) summary(m *dump.Manifest, root string) { summarize(v.out, m, root) }

func (v *liveView) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return
	}
	v.closed = true
	for _, bar := range v.shown {
		bar.Abort(true)
	}
	if v.total != nil {
		v.total.Abort(true)
	}
	v.bars.Wait()
}
