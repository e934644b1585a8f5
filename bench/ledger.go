//go:build linux

package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sync/errgroup"
)

// ledger is a table, a lake for each way to keep it that holds a copy of it, and the log of changes made since. Slots
// named base_… stand where each lake ends, and are copied for every run: all runs read the same log.
type ledger struct {
	b        *bench
	database string
	rows     int64
	changes  int64
	end      string // LSN behind the last change
}

const (
	ledgerRows    = 5_000_000
	ledgerChanges = 2_000_000
)

func (b *bench) scaled(n int64) int64 { return max(1, int64(float64(n)*b.scale)) }

// ledgerTable makes sure of the table as it is before all changes, and returns its database.
func (b *bench) ledgerTable(ctx context.Context) (database string, rows int64, err error) {
	rows = b.scaled(ledgerRows)
	database = fmt.Sprintf("ledger_%d", rows)
	return database, rows, b.cluster.database(ctx, database, func(database string) error {
		if err := b.cluster.do(ctx, database, ledgerSQL); err != nil {
			return err
		}
		const step = 500_000
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(2)
		for first := int64(1); first <= rows; first += step {
			g.Go(func() error {
				return b.cluster.do(ctx, database, fmt.Sprintf("INSERT INTO ledger SELECT * FROM entries(%d, %d)", first, min(first+step-1, rows)))
			})
		}
		return g.Wait()
	})
}

// clone makes a database that is another one's copy, in the place of what is left of an earlier one.
func (b *bench) clone(ctx context.Context, from, to string) error {
	if err := b.forget(ctx, to); err != nil {
		return err
	}
	return b.cluster.do(ctx, "postgres", fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s STRATEGY file_copy", to, from))
}

// forget drops a database and its slots.
func (b *bench) forget(ctx context.Context, database string) error {
	return b.cluster.do(ctx, "postgres",
		"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = '"+database+"'",
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+database+"'",
		"DROP DATABASE IF EXISTS "+database+" WITH (FORCE)")
}

// openLedger copies the table into its lakes and makes the changes, once for all parts.
func (b *bench) openLedger(ctx context.Context) (*ledger, error) {
	if b.ledger != nil {
		return b.ledger, nil
	}
	template, rows, err := b.ledgerTable(ctx)
	if err != nil {
		return nil, err
	}
	l := &ledger{b: b, database: "ledger_run", rows: rows, changes: min(b.scaled(ledgerChanges), rows)}
	if err := b.clone(ctx, template, l.database); err != nil {
		return nil, err
	}
	for _, keep := range []string{"current", "history"} {
		progress("copying %d rows into a lake of %s", rows, keep)
		if _, err := b.cluster.measure(ctx, b.cluster.env(l.database), l.command(keep)...); err != nil {
			return nil, err
		}
		if keep == "current" { // the first change makes the key index: what that costs is measured by a run of its own
			if err := b.cluster.do(ctx, l.database, "UPDATE ledger SET amount = amount WHERE id = 1"); err != nil {
				return nil, err
			}
			if _, err := b.cluster.measure(ctx, b.cluster.env(l.database), l.command(keep)...); err != nil {
				return nil, err
			}
		}
		if err := os.Rename(l.folder(keep), l.template(keep)); err != nil {
			return nil, err
		}
		if err := b.copySlot(ctx, l.database, l.slot(keep), "base_"+keep); err != nil {
			return nil, err
		}
	}
	progress("making %d changes in transactions of three", l.changes)
	if err := l.work(ctx); err != nil {
		return nil, err
	}
	b.ledger = l
	return l, nil
}

// work makes the changes over two connections.
func (l *ledger) work(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	half := l.changes / 2
	for _, r := range [][2]int64{{0, half - 1}, {half, l.changes - 1}} {
		g.Go(func() error {
			return l.b.cluster.change(gctx, l.database, fmt.Sprintf("CALL work(%d, %d, %d, 3)", r[0], r[1], l.rows))
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	conn, err := l.b.cluster.connect(ctx, l.database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&l.end); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "SELECT pg_logical_emit_message(true, 'bench', 'the end')")
	return err
}

// copySlot makes a slot that stands where another one does.
func (b *bench) copySlot(ctx context.Context, database, from, to string) error {
	return b.cluster.do(ctx, database,
		"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+to+"'",
		"SELECT pg_copy_logical_replication_slot('"+from+"', '"+to+"')")
}

// folder is where the lake and the work folder are that leat uses: tables name their files by it.
func (l *ledger) folder(keep string) string   { return filepath.Join(l.b.scratch, l.pipeline(keep)) }
func (l *ledger) template(keep string) string { return l.folder(keep) + "-before" }
func (l *ledger) table(keep string) string {
	name := "ledger"
	if keep == "history" {
		name += "_history"
	}
	return filepath.Join(l.folder(keep), "lake", "public", name)
}

// pipeline is the name of the pipeline that keeps the ledger so, and slot that of its slot and publication: slots are shared by
// all databases of the server.
func (l *ledger) pipeline(keep string) string { return l.database + "_" + keep }
func (l *ledger) slot(keep string) string     { return "leat_" + l.pipeline(keep) }

func (l *ledger) command(keep string) []string {
	return l.b.follow(l.folder(keep), l.pipeline(keep), "--table", "public.ledger", "--keep", keep, "--until-caught-up")
}

// follow is a run of leat with a folder of its own for lake and work.
func (b *bench) follow(folder, name string, more ...string) []string {
	args := []string{b.leat, "run", "--quiet", "--to", filepath.Join(folder, "lake"), "--work-dir", filepath.Join(folder, "work"), "--name", name}
	return append(args, more...)
}

// follower is a run of leat over all the changes.
func (l *ledger) follower(name, keep string, index bool) contender {
	return contender{
		name: name, args: l.command(keep), env: l.b.cluster.env(l.database),
		before: func(ctx context.Context) error {
			if err := os.RemoveAll(l.folder(keep)); err != nil {
				return err
			}
			if out, err := exec.CommandContext(ctx, "cp", "-a", l.template(keep), l.folder(keep)).CombinedOutput(); err != nil {
				return fmt.Errorf("cp: %w: %s", err, out)
			}
			if !index {
				if err := os.RemoveAll(filepath.Join(l.folder(keep), "work")); err != nil {
					return err
				}
			}
			return l.b.copySlot(ctx, l.database, "base_"+keep, l.slot(keep))
		},
		after: func(context.Context) (int64, error) {
			after, err := l.check(keep)
			if err != nil {
				return 0, err
			}
			before, err := folderSize(l.template(keep))
			return after - before, err
		},
	}
}

// check is that a lake holds all changes. It returns the size of the lake and of the work folder.
func (l *ledger) check(keep string) (size int64, err error) {
	live, err := liveRows(l.table(keep))
	if err != nil {
		return 0, err
	}
	want := l.rows + l.changes
	if keep == "current" {
		want = l.rows + inserts(l.changes) - deletes(l.changes)
	}
	if live != want {
		return 0, fmt.Errorf("the lake has %d rows, not %d", live, want)
	}
	return folderSize(l.folder(keep))
}

// Of changes 0..n-1, every fourth is a delete and every fourth an insert.
func deletes(n int64) int64 { return (n + 1) / 4 }
func inserts(n int64) int64 { return n / 4 }

// receiver is pg_recvlogical over the same log.
func (l *ledger) receiver(keep string) contender {
	const slot = "receiver"
	return contender{
		name: "pg_recvlogical -f /dev/null", env: l.b.cluster.env(l.database),
		args: []string{"pg_recvlogical", "-d", l.database, "--slot", slot, "--start", "--endpos", l.end, "-f", "/dev/null", "-F", "0",
			"-o", "proto_version=2", "-o", "binary=true", "-o", "publication_names=" + l.slot(keep)},
		before: func(ctx context.Context) error { return l.b.copySlot(ctx, l.database, "base_"+keep, slot) },
		after:  func(context.Context) (int64, error) { return 0, nil },
	}
}

func folderSize(dir string) (size int64, err error) {
	return size, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
}
