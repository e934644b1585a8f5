//go:build linux

package main

import (
	"context"
	"os"
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
		return b.cluster.do(ctx, database, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'leat_current'",
			"DROP PUBLICATION IF EXISTS leat_current", "SELECT pg_prewarm('ledger')")
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
	return b.cluster.do(ctx, database, "SELECT pg_drop_replication_slot('leat_current')", "DROP PUBLICATION leat_current")
}
