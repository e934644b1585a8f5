//go:build linux

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed soak.py
var soakPy string

// judge compares the lake with the source, and earlier snapshots with the history, by engines that are not leat's.
func (s *soak) judge(ctx context.Context) error {
	script, truth := filepath.Join(s.folder(), "soak.py"), filepath.Join(s.folder(), "truth")
	if err := errors.Join(os.WriteFile(script, []byte(soakPy), 0o644), os.Mkdir(truth, 0o755)); err != nil {
		return err
	}
	for _, table := range s.tables {
		psql := exec.CommandContext(ctx, s.b.cluster.program("psql"), "-Xq", "-o", filepath.Join(truth, fmt.Sprintf("t%d.jsonl", table)),
			"-c", "SET timezone = 'UTC'", "-c", fmt.Sprintf("COPY (SELECT to_jsonb(t) FROM soak.t%d t ORDER BY id) TO STDOUT", table))
		psql.Env = append(os.Environ(), s.b.cluster.env(s.database)...)
		if out, err := psql.CombinedOutput(); err != nil {
			return fmt.Errorf("the rows of t%d: %w: %s", table, err, out)
		}
	}
	lake, expected := filepath.Join(s.folder(), "lake"), filepath.Join(s.folder(), "expected.json")
	if err := s.ask(ctx, "PyIceberg", s.b.python, script, "judge", lake, truth, expected); err != nil {
		return err
	}
	if s.b.spark != "" {
		python := filepath.Join(s.b.spark, "python", "bin", "python")
		if err := s.ask(ctx, "Spark", python, script, "spark", lake, expected, filepath.Join(s.b.spark, "iceberg.jar")); err != nil {
			return err
		}
	}
	if s.b.trino != "" {
		return s.ask(ctx, "Trino", s.b.python, script, "trino", lake, expected, s.b.trino)
	}
	return nil
}

// ask has an engine read the lake, and keeps what it says of that.
func (s *soak) ask(ctx context.Context, engine string, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "SPARK_LOCAL_IP=127.0.0.1")
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", engine, err, lastLine(failed.String()))
	}
	var seen struct{ Tables, Snapshots, Changes int }
	if err := json.Unmarshal(out, &seen); err != nil {
		return fmt.Errorf("%s: %w", engine, err)
	}
	text := fmt.Sprintf("%s: %d tables and %d of their earlier snapshots", engine, seen.Tables, seen.Snapshots)
	if seen.Changes > 0 {
		text += fmt.Sprintf(", %d changes in histories", seen.Changes)
	}
	progress("  %s", text)
	s.read = append(s.read, text)
	return nil
}

// tell reports the soak: whether the last fifth of its windows costs what the first does, and the plot of all.
func (s *soak) tell() error {
	last := s.windows[len(s.windows)-1]
	fifth := len(s.windows) / 5
	middle := func(windows []soakSample, of func(soakSample) float64) float64 {
		all := make([]float64, len(windows))
		for i, w := range windows {
			all[i] = of(w)
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	var metadata, rss int64
	kills := 0
	for _, w := range s.windows {
		metadata, rss = max(metadata, w.metadata), max(rss, w.rss)
		if w.killed {
			kills++
		}
	}
	name := fmt.Sprintf("leat run, %d commits over %d tables", last.commits, soakTables)
	for what, of := range map[string]func(soakSample) float64{"wall": soakSample.wallEach, "CPU": soakSample.cpuEach} {
		first, end := middle(s.windows[:fifth], of), middle(s.windows[len(s.windows)-fifth:], of)
		s.b.report.reach(name+": "+what+" of a commit in the last fifth", fmt.Sprintf("against the first, %.1f ms", first),
			fmt.Sprintf("%.2f×", end/first), "1.30×", end <= 1.3*first)
	}
	s.b.report.reach(name+": metadata.json", "the largest", fmt.Sprintf("%d KB", metadata/1000), "200 KB", metadata <= 200_000)
	s.b.report.reach(name+": memory", fmt.Sprintf("RSS after %d commits, highest of %d looks", soakWindow, len(s.windows)), fmt.Sprintf("%d MiB", rss/mib),
		"512 MiB", rss <= 512*mib)
	s.b.report.notes = append(s.b.report.notes, fmt.Sprintf("%d kills, %d changes of definitions, maintenance each 5 s. Read in the end and right: %s.",
		kills, len(s.windows)*2, strings.Join(s.read, "; ")))
	if s.b.readme == "" {
		return nil
	}
	s.b.report.notes = append(s.b.report.notes, "", "![Time of a commit and size of metadata over the soak](soak.svg)")
	return os.WriteFile(filepath.Join(filepath.Dir(s.b.readme), "soak.svg"), []byte(s.plot()), 0o644)
}
