//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// peersChanges holds the history and current rows of leat against pg_recvlogical, and against Debezium's embedded
// engine, which writes the same changes as JSON. All connect by TCP.
func peersChanges(ctx context.Context, b *bench) error {
	if b.peersFile("debezium/VERSION") == "" {
		return fmt.Errorf("debezium is not in %s: run hack/bench-peers, or give -peers", b.peers)
	}
	l, err := b.openLedger(ctx)
	if err != nil {
		return err
	}
	progress("changes against Debezium, by TCP")
	o, err := b.race(ctx, true, b.n, b.byTCP(l.receiver("history"), l.database), l.debezium("history"),
		b.byTCP(l.follower("leat run, history", "history", true), l.database),
		b.byTCP(l.follower("leat run, current", "current", true), l.database))
	if err != nil {
		return err
	}
	received, debezium, history, current := o[0], o[1], o[2], o[3]
	b.report.runs(l.changes, o...)
	b.report.ratio(history, received, 1.0)
	b.report.cpu(history, l.changes, 4.0)
	b.report.ratio(current, received, 1.15)
	b.report.cpu(current, l.changes, 6.0)
	b.report.ratio(history, debezium, 1.0)
	b.report.ratio(current, debezium, 1.0)
	return nil
}

// debezium is its embedded engine over all the changes, from a copy of leat's slot.
func (l *ledger) debezium(keep string) contender {
	const slot = "debezium"
	folder := filepath.Join(l.b.peers, "debezium")
	file := filepath.Join(l.b.scratch, "debezium.json")
	return contender{
		name: "Debezium's embedded engine, JSON to a file", env: l.b.cluster.byTCP(l.database),
		args: []string{"java", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", folder + ":" + folder + "/lib/*", "Changes",
			"public.ledger", slot, l.slot(keep), strconv.FormatInt(l.changes, 10), file},
		before: func(ctx context.Context) error { return l.b.copySlot(ctx, l.database, "base_"+keep, slot) },
		after: func(context.Context) (int64, error) {
			defer os.Remove(file)
			lines, size, err := countLines(file)
			if err == nil && lines != l.changes {
				err = fmt.Errorf("it has written %d changes, not %d", lines, l.changes)
			}
			return size, err
		},
	}
}

func countLines(file string) (lines, size int64, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	buf := make([]byte, mib)
	for {
		n, err := f.Read(buf)
		lines, size = lines+int64(bytes.Count(buf[:n], []byte("\n"))), size+int64(n)
		if errors.Is(err, io.EOF) {
			return lines, size, nil
		}
		if err != nil {
			return lines, size, err
		}
	}
}
