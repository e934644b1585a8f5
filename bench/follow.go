//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func runHistory(ctx context.Context, b *bench) error {
	l, err := b.openLedger(ctx)
	if err != nil {
		return err
	}
	progress("history against pg_recvlogical")
	o, err := b.race(ctx, true, b.n, l.receiver("history"), l.follower("leat run, history", "history", true))
	if err != nil {
		return err
	}
	b.report.runs(l.changes, o...)
	b.report.ratio(o[1], o[0], 1.0)
	b.report.cpu(o[1], l.changes, 3.0)
	b.report.memory(o[1], 512*mib)
	return nil
}

func runCurrent(ctx context.Context, b *bench) error {
	l, err := b.openLedger(ctx)
	if err != nil {
		return err
	}
	progress("current against pg_recvlogical")
	o, err := b.race(ctx, true, b.n, l.receiver("current"), l.follower("leat run, current", "current", true),
		l.follower("leat run, current, without its key index", "current", false))
	if err != nil {
		return err
	}
	b.report.runs(l.changes, o...)
	b.report.ratio(o[1], o[0], 1.75)
	b.report.memory(o[1], 512*mib)
	b.report.memory(o[2], 512*mib)
	return nil
}

// runCopy holds the first copy against a dump of the same table.
func runCopy(ctx context.Context, b *bench) error {
	database, rows, err := b.ledgerTable(ctx)
	if err != nil {
		return err
	}
	progress("first copy against leat dump")
	l := &ledger{b: b, database: database, rows: rows}
	ours := l.follower("leat run, first copy", "current", true)
	ours.before = func(ctx context.Context) error {
		if err := os.RemoveAll(l.folder("current")); err != nil { // another part's
			return err
		}
		return b.cluster.do(ctx, database, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+l.slot("current")+"'",
			"DROP PUBLICATION IF EXISTS "+l.slot("current"), "SELECT pg_prewarm('ledger')")
	}
	ours.after = func(context.Context) (int64, error) {
		size, err := l.check("current")
		if err != nil {
			return 0, err
		}
		return size, os.RemoveAll(l.folder("current"))
	}
	if err := b.cluster.do(ctx, database, "CREATE EXTENSION IF NOT EXISTS pg_prewarm"); err != nil {
		return err
	}
	dump := b.dump("dump, parquet zstd", database, "public.ledger", rows, "--format", "parquet", "--compression", "zstd")
	o, err := b.race(ctx, true, b.n, dump, ours)
	if err != nil {
		return err
	}
	b.report.runs(rows, o...)
	b.report.ratio(o[1], o[0], 1.1)
	b.report.memory(o[1], 512*mib)
	return b.cluster.do(ctx, database, "SELECT pg_drop_replication_slot('"+l.slot("current")+"')", "DROP PUBLICATION "+l.slot("current"))
}

// runLarge takes one transaction of ten million rows. Only memory counts: one run.
func runLarge(ctx context.Context, b *bench) error {
	const database = "large_run"
	rows := b.scaled(10_000_000)
	if err := errors.Join(b.forget(ctx, database), b.cluster.do(ctx, "postgres", "CREATE DATABASE "+database), b.cluster.do(ctx, database, ledgerSQL)); err != nil {
		return err
	}
	defer func() { _ = b.forget(context.WithoutCancel(ctx), database) }() // the cluster goes with the bench
	l := &ledger{b: b, database: database}
	defer os.RemoveAll(l.folder("history"))
	if _, err := b.cluster.measure(ctx, b.cluster.env(database), l.command("history")...); err != nil {
		return err
	}
	progress("one transaction of %d rows", rows)
	if err := b.cluster.do(ctx, database, fmt.Sprintf("INSERT INTO ledger SELECT * FROM entries(1, %d)", rows)); err != nil {
		return err
	}
	l.rows = rows
	ours := l.follower(fmt.Sprintf("leat run, one transaction of %d rows", rows), "history", true)
	ours.before, ours.after = nil, func(context.Context) (int64, error) { return l.check("history") }
	o, err := b.race(ctx, false, 1, ours)
	if err != nil {
		return err
	}
	b.report.runs(rows, o...)
	b.report.memory(o[0], 512*mib)
	return nil
}

// scanPy reads a whole table and prints how long that took, in seconds, and how many rows there were.
const scanPy = `
import sys, time
from pyiceberg.table import StaticTable
t = StaticTable.from_metadata(sys.argv[1])
began = time.perf_counter()
rows = t.scan().to_arrow().num_rows
print(time.perf_counter() - began, rows)`

// runScan reads a table that 2,000 commits of 1,000 spread updates have gone through, and the same rows freshly written, by
// a reader that is not ours.
func runScan(ctx context.Context, b *bench) error {
	const width = 1000
	commits := b.scaled(2000)
	template, rows, err := b.ledgerTable(ctx)
	if err != nil {
		return err
	}
	l := &ledger{b: b, database: "ledger_scan", rows: rows}
	if err := b.clone(ctx, template, l.database); err != nil {
		return err
	}
	defer func() { _ = b.forget(context.WithoutCancel(ctx), l.database) }() // the cluster goes with the bench
	worn, fresh := filepath.Join(b.scratch, "worn"), filepath.Join(b.scratch, "fresh")
	defer os.RemoveAll(worn)
	defer os.RemoveAll(fresh)
	run := func(folder string, more ...string) error {
		args := b.follow(folder, filepath.Base(folder), "--table", "public.ledger", "--keep", "current", "--until-caught-up")
		_, err := b.cluster.measure(ctx, b.cluster.env(l.database), append(args, more...)...)
		return err
	}
	if err := run(worn); err != nil {
		return err
	}
	progress("%d commits of %d updates", commits, width)
	if err := b.cluster.change(ctx, l.database, fmt.Sprintf(`DO $$ BEGIN FOR i IN 0..%d LOOP
		UPDATE ledger SET amount = amount + 1 WHERE id IN (SELECT spread(i * %[2]d::bigint + j, %[3]d) FROM generate_series(0, %[2]d - 1) j);
		COMMIT; END LOOP; END $$`, commits-1, width, rows)); err != nil {
		return err
	}
	if err := run(worn, "--set", fmt.Sprintf("run.commit_rows=%d", width), "--set", "run.maintain_interval=1s"); err != nil {
		return err
	}
	// A run that ends leaves the deletes of its last commits; one that goes on would rewrite them when the table has come to rest.
	maintain := []string{b.leat, "lake", "maintain", "--quiet", "--to", filepath.Join(worn, "lake"), "--name", "worn", "--set", "run.work_dir=" + filepath.Join(worn, "work"),
		"--set", "run.tables=public.ledger", "--set", "run.keep=current"}
	upkeep, err := b.cluster.measure(ctx, b.cluster.env(l.database), maintain...)
	if err != nil {
		return err
	}
	progress("  leat lake maintain %.2f s, %d MiB", upkeep.wall.Seconds(), upkeep.rss>>20)
	if err := run(fresh); err != nil {
		return err
	}
	var took [2][]float64
	for round := range b.n + 1 {
		for i, folder := range []string{fresh, worn} {
			seconds, err := b.scan(ctx, filepath.Join(folder, "lake", "public", "ledger"), rows)
			if err != nil {
				return err
			}
			progress("  round %d/%d  scan of %s %7.2f s", round, b.n, filepath.Base(folder), seconds)
			if round > 0 {
				took[i] = append(took[i], seconds)
			}
		}
	}
	slices.Sort(took[0])
	slices.Sort(took[1])
	ratio := took[1][(b.n-1)/2] / took[0][(b.n-1)/2]
	b.report.reach(fmt.Sprintf("scan of current after %d commits of %d updates and leat lake maintain", commits, width), "against the same rows freshly written, by PyIceberg",
		fmt.Sprintf("%.2f×", ratio), "1.50×", ratio <= 1.5)
	return nil
}

func (b *bench) scan(ctx context.Context, table string, rows int64) (seconds float64, err error) {
	path, err := newestMetadata(table)
	if err != nil {
		return 0, err
	}
	out, err := exec.CommandContext(ctx, b.python, "-c", scanPy, path).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", b.python, err, out)
	}
	fields := strings.Fields(string(out))
	if len(fields) != 2 || fields[1] != strconv.FormatInt(rows, 10) {
		return 0, fmt.Errorf("PyIceberg finds in %s: %s; there are %d rows", table, out, rows)
	}
	return strconv.ParseFloat(fields[0], 64)
}
