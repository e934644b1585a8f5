//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// runCommits holds a commit to a table that has had thousands against one to a table that is new: the metadata must not grow with them.
func runCommits(ctx context.Context, b *bench) error {
	commits := max(3*commitsAtOnce, b.scaled(5000))
	for _, keep := range []string{"history", "current"} {
		progress("%d commits of ten updates, %s", commits, keep)
		if err := b.manyCommits(ctx, keep, commits); err != nil {
			return err
		}
		if err := b.commitRequests(ctx, keep); err != nil {
			return err
		}
	}
	return nil
}

// commitsAtOnce is of how many commits the mean is taken, at the beginning and at the end.
const commitsAtOnce = 100

// busyTable is a table of a thousand rows and the run that follows it, with a commit for each transaction of ten updates.
type busyTable struct {
	b        *bench
	database string
	args     []string
	env      []string
}

func (b *bench) openBusy(ctx context.Context, keep, folder, to string, env ...string) (*busyTable, error) {
	t := &busyTable{b: b, database: "commits_run"}
	if err := errors.Join(b.forget(ctx, t.database), b.cluster.do(ctx, "postgres", "CREATE DATABASE "+t.database)); err != nil {
		return nil, err
	}
	if err := b.cluster.do(ctx, t.database, "CREATE TABLE busy (id int PRIMARY KEY, n int NOT NULL, at timestamptz NOT NULL, note text)",
		"INSERT INTO busy SELECT g, g, now(), 'note ' || g FROM generate_series(0, 999) g"); err != nil {
		return nil, err
	}
	t.args = []string{b.leat, "run", "--quiet", "--to", to, "--work-dir", filepath.Join(folder, "work"), "--name", "commits",
		"--table", "public.busy", "--keep", keep, "--until-caught-up", "--set", "run.commit_rows=10"}
	t.env = append(b.cluster.env(t.database), env...)
	return t, t.run(ctx, "0s")
}

// run follows what there is to follow.
func (t *busyTable) run(ctx context.Context, maintain string) error {
	_, err := t.b.cluster.measure(ctx, t.env, append(slices.Clone(t.args), "--set", "run.maintain_interval="+maintain)...)
	return err
}

// change makes so many transactions.
func (t *busyTable) change(ctx context.Context, n int64) error {
	return t.b.cluster.do(ctx, t.database, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
		UPDATE busy SET n = n + 1, at = now() WHERE id %% 100 = i %% 100; COMMIT; END LOOP; END $$`, n))
}

// eachCommit is the wall time of a commit beyond that of a run with nothing to do.
func (t *busyTable) eachCommit(ctx context.Context, table string) (time.Duration, error) {
	took := func() (time.Duration, error) {
		began := time.Now()
		err := t.run(ctx, "0s")
		return time.Since(began), err
	}
	idle, err := took()
	if err != nil {
		return 0, err
	}
	before, err := sequence(table)
	if err != nil {
		return 0, err
	}
	if err := t.change(ctx, commitsAtOnce); err != nil {
		return 0, err
	}
	busy, err := took()
	if err != nil {
		return 0, err
	}
	after, err := sequence(table)
	if err != nil {
		return 0, err
	}
	if after-before < commitsAtOnce {
		return 0, fmt.Errorf("%d transactions became %d snapshots of %s", commitsAtOnce, after-before, table)
	}
	return (busy - idle) / time.Duration(after-before), nil
}

// sequence is the number of the table's last commit. It does not parse the file: run-soak asks for it all the time, of
// many tables.
func sequence(table string) (int64, error) {
	path, err := newestMetadata(table)
	if err != nil {
		return 0, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	_, rest, found := bytes.Cut(data, []byte(`"last-sequence-number":`)) // a value that has this text has its quotes escaped
	var n int64
	if _, err := fmt.Fscan(bytes.NewReader(rest[:min(len(rest), 24)]), &n); !found || err != nil {
		return 0, fmt.Errorf("%s has no sequence number: %w", path, err)
	}
	return n, nil
}

func (b *bench) manyCommits(ctx context.Context, keep string, commits int64) error {
	folder := filepath.Join(b.scratch, "commits")
	defer os.RemoveAll(folder)
	defer func() { _ = b.forget(context.WithoutCancel(ctx), "commits_run") }() // the cluster goes with the bench
	t, err := b.openBusy(ctx, keep, folder, filepath.Join(folder, "lake"))
	if err != nil {
		return err
	}
	table := filepath.Join(folder, "lake", "public", "busy")
	if keep == "history" {
		table += "_history"
	}
	first, err := t.eachCommit(ctx, table)
	if err != nil {
		return err
	}
	if err := t.change(ctx, commits-2*commitsAtOnce); err != nil {
		return err
	}
	if err := t.run(ctx, "1s"); err != nil {
		return err
	}
	last, err := t.eachCommit(ctx, table)
	if err != nil {
		return err
	}
	path, err := newestMetadata(table)
	if err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	m, err := readMetadata(path)
	if err != nil {
		return err
	}
	ratio := last.Seconds() / first.Seconds()
	progress("  %.1f ms a commit at first, %.1f ms in the end; %d snapshots, %d bytes of metadata", first.Seconds()*1000, last.Seconds()*1000, len(m.Snapshots), info.Size())
	name := fmt.Sprintf("leat run, %s, commits around the %dth", keep, commits)
	b.report.reach(name+": wall", fmt.Sprintf("against the first %d, %.1f ms each", commitsAtOnce, first.Seconds()*1000), fmt.Sprintf("%.2f×", ratio), "1.30×", ratio <= 1.3)
	b.report.reach(name+": metadata.json", fmt.Sprintf("%d snapshots", len(m.Snapshots)), fmt.Sprintf("%.0f KB", float64(info.Size())/1000), "200 KB", info.Size() <= 200_000)
	return nil
}

// commitRequests counts the requests of a commit to an S3 server. A deletion costs nothing at AWS.
func (b *bench) commitRequests(ctx context.Context, keep string) error {
	g, err := startGateway()
	if err != nil {
		return err
	}
	defer g.stop()
	c, err := countRequests(g.Endpoint)
	if err != nil {
		return err
	}
	defer c.close()
	folder := filepath.Join(b.scratch, "commits-s3")
	defer os.RemoveAll(folder)
	defer func() { _ = b.forget(context.WithoutCancel(ctx), "commits_run") }() // the cluster goes with the bench
	t, err := b.openBusy(ctx, keep, folder, g.URL, append(slices.Clone(g.Env), "AWS_ENDPOINT_URL="+c.endpoint)...)
	if err != nil {
		return err
	}
	if err := t.run(ctx, "0s"); err != nil {
		return err
	}
	c.take()
	if err := t.run(ctx, "0s"); err != nil {
		return err
	}
	idle := c.take()
	if err := t.change(ctx, 3*commitsAtOnce); err != nil {
		return err
	}
	if err := t.run(ctx, "0s"); err != nil {
		return err
	}
	busy := c.take()
	each := func(methods ...string) (n float64) {
		for _, m := range methods {
			n += float64(busy.kinds[m]-idle.kinds[m]) / (3 * commitsAtOnce)
		}
		return n
	}
	var told []string
	for _, m := range slices.Sorted(maps.Keys(busy.kinds)) {
		told = append(told, fmt.Sprintf("%s %.2f", m, each(m)))
	}
	size := float64(busy.sent-idle.sent) / (3 * commitsAtOnce)
	progress("  to S3, a commit: %s; %.1f KB written", strings.Join(told, ", "), size/1000)
	name := "leat run, " + keep + ", a commit to S3"
	b.report.reach(name+": written", strings.Join(told, ", ")+fmt.Sprintf("; %.1f KB", size/1000), fmt.Sprintf("%.2f PUT", each("PUT")), "5 PUT", each("PUT") <= 5)
	b.report.reach(name+": read", "GET, HEAD and LIST", fmt.Sprintf("%.2f GET", each("GET", "HEAD", "LIST")), "2 GET", each("GET", "HEAD", "LIST") <= 2)
	return nil
}
