//go:build linux

package main

import (
	"fmt"
	"math"
	"strings"
)

// panel is one curve over the commits.
type panel struct {
	title string
	of    func(soakSample) float64
	color string
}

const (
	plotWidth, panelHeight = 860, 150
	plotLeft, plotRight    = 60, 20
	panelTop, panelBottom  = 26, 14
)

// plot draws the windows as an SVG picture. A line marks each kill.
func (s *soak) plot() string {
	panels := []panel{
		{"wall time of a commit of a table in both forms, ms", soakSample.wallEach, "#1f77b4"},
		{"CPU time of leat for it, ms", soakSample.cpuEach, "#d62728"},
		{"largest metadata.json, KB", func(w soakSample) float64 { return float64(w.metadata) / 1000 }, "#2ca02c"},
		{"RSS, MiB", func(w soakSample) float64 { return float64(w.rss) / mib }, "#9467bd"},
	}
	var b strings.Builder
	height := len(panels)*panelHeight + 30
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12"><rect width="100%%" height="100%%" fill="#fff"/>`+"\n",
		plotWidth, height)
	for i, p := range panels {
		s.draw(&b, p, i*panelHeight)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">commits; grey lines are kills</text>`+"\n</svg>\n", plotWidth/2, height-8)
	return b.String()
}

func (s *soak) draw(b *strings.Builder, p panel, top int) {
	end, most := s.windows[len(s.windows)-1].commits, 0.0
	for _, w := range s.windows {
		most = max(most, p.of(w))
	}
	unit := math.Pow(10, math.Floor(math.Log10(max(most, 1e-9))))
	most = math.Ceil(most/unit) * unit
	x := func(commits int64) float64 {
		return plotLeft + float64(plotWidth-plotLeft-plotRight)*float64(commits)/float64(end)
	}
	floor := float64(top + panelHeight - panelBottom)
	y := func(v float64) float64 { return floor - (panelHeight-panelTop-panelBottom)*v/most }
	fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`+"\n", plotLeft, top+18, p.title)
	for _, v := range []float64{0, most / 2, most} {
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%g</text>`+"\n", plotLeft, y(v), plotWidth-plotRight, plotLeft-6, y(v)+4, v)
	}
	var points []string
	for _, w := range s.windows {
		points = append(points, fmt.Sprintf("%.1f,%.1f", x(w.commits), y(p.of(w))))
		if w.killed {
			fmt.Fprintf(b, `<path d="M%.1f %.1fV%.1f" stroke="#bbb" stroke-dasharray="2 3"/>`+"\n", x(w.commits), floor, y(most))
		}
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(points, " "), p.color)
}
