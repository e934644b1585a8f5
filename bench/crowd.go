//go:build linux

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

//go:embed crowd.sql
var crowdSQL string

// crowd are many small tables that a pipeline follows, among five times as many in their database.
type crowd struct {
	b        *bench
	database string
	tables   int64
}

// usualTables is how many tables are followed at scale 1.
const usualTables = 1000

// openCrowd makes a database of its own for a part.
func (b *bench) openCrowd(ctx context.Context, database string) (*crowd, error) {
	c := &crowd{b: b, database: database, tables: b.scaled(usualTables)}
	template := fmt.Sprintf("crowd_%d", c.tables)
	err := b.cluster.database(ctx, template, func(database string) error {
		return b.cluster.do(ctx, database, crowdSQL, fmt.Sprintf("CALL others.fill(%d)", c.tables))
	})
	if err != nil {
		return nil, err
	}
	return c, b.clone(ctx, template, database)
}

func (c *crowd) folder() string   { return filepath.Join(c.b.scratch, c.database) }
func (c *crowd) template() string { return c.folder() + "-before" }
func (c *crowd) slot() string     { return "leat_" + c.database }

func (c *crowd) command() []string {
	return c.b.follow(c.folder(), c.database, "--table", "followed.*", "--until-caught-up")
}

// check is that each table has so many rows in the lake, in both forms.
func (c *crowd) check(rows func(table int64) (current, history int64)) (size int64, err error) {
	for i := range c.tables {
		current, history := rows(i + 1)
		for form, want := range map[string]int64{"": current, "_history": history} {
			table := filepath.Join(c.folder(), "lake", "followed", fmt.Sprintf("t%d%s", i+1, form))
			if live, err := liveRows(table); err != nil || live != want {
				return 0, errors.Join(err, fmt.Errorf("%s has %d rows, not %d", table, live, want))
			}
		}
	}
	return folderSize(c.folder())
}

const crowdRows = 10 // of each table

// runFirstChanges lets each of many tables change once. What a process has to learn of a table at its first change is most of it.
func runFirstChanges(ctx context.Context, b *bench) error {
	c, err := b.openCrowd(ctx, "crowd_changes")
	if err != nil {
		return err
	}
	defer func() { _ = b.forget(context.WithoutCancel(ctx), c.database) }() // the cluster goes with the bench
	defer os.RemoveAll(c.template())
	defer os.RemoveAll(c.folder())
	progress("copying %d tables", c.tables)
	if _, err := b.cluster.measure(ctx, b.cluster.env(c.database), c.command()...); err != nil {
		return err
	}
	if err := errors.Join(os.Rename(c.folder(), c.template()), b.copySlot(ctx, c.database, c.slot(), "base_"+c.database)); err != nil {
		return err
	}
	progress("the first change of each of %d tables in a database of %d", c.tables, 5*c.tables)
	err = b.cluster.change(ctx, c.database, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
		IF i %% 2 = 0 THEN EXECUTE format('UPDATE followed.t%%s SET amount = amount + 1 WHERE id = 1', i);
		ELSE EXECUTE format('INSERT INTO followed.t%%s VALUES (11, ''new'', 1, ''sad'', now(), ''{}'')', i); END IF;
		COMMIT; END LOOP; END $$`, c.tables))
	if err != nil {
		return err
	}
	ours := contender{
		name: fmt.Sprintf("leat run, first change of each of %d tables", c.tables), args: c.command(), env: b.cluster.env(c.database),
		before: func(ctx context.Context) error {
			if err := os.RemoveAll(c.folder()); err != nil {
				return err
			}
			if out, err := exec.CommandContext(ctx, "cp", "-a", c.template(), c.folder()).CombinedOutput(); err != nil {
				return fmt.Errorf("cp: %w: %s", err, out)
			}
			return b.copySlot(ctx, c.database, "base_"+c.database, c.slot())
		},
		after: func(context.Context) (int64, error) {
			return c.check(func(table int64) (current, history int64) { return crowdRows + table%2, crowdRows + 1 })
		},
	}
	o, err := b.race(ctx, true, b.n, ours)
	if err != nil {
		return err
	}
	b.report.runs(c.tables, o...)
	b.report.took(o[0], wall, "wall", 15*time.Second)
	b.report.took(o[0], server, "server's CPU", 5*time.Second)
	return nil
}

// runFirstCopy copies many small tables.
func runFirstCopy(ctx context.Context, b *bench) error {
	c, err := b.openCrowd(ctx, "crowd_copy")
	if err != nil {
		return err
	}
	defer func() { _ = b.forget(context.WithoutCancel(ctx), c.database) }() // the cluster goes with the bench
	progress("first copy of %d tables of %d rows", c.tables, crowdRows)
	o, err := b.race(ctx, true, b.n, contender{
		name: fmt.Sprintf("leat run, first copy of %d tables", c.tables), args: c.command(), env: b.cluster.env(c.database),
		before: func(ctx context.Context) error {
			return b.cluster.do(ctx, c.database, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '"+c.slot()+"'",
				"DROP PUBLICATION IF EXISTS "+c.slot())
		},
		after: func(context.Context) (int64, error) {
			size, err := c.check(func(int64) (current, history int64) { return crowdRows, crowdRows })
			return size, errors.Join(err, os.RemoveAll(c.folder()))
		},
	})
	if err != nil {
		return err
	}
	b.report.runs(c.tables, o...)
	b.report.took(o[0], wall, "wall", 12*time.Second)
	b.report.took(o[0], own, "CPU", 16*time.Second)
	b.report.memory(o[0], 150*mib)
	return nil
}
