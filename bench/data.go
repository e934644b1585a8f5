//go:build linux

package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// lineitem makes sure of the large table and returns its database.
func (b *bench) lineitem(ctx context.Context) (string, error) {
	name := fmt.Sprintf("lineitem_%d", b.rows)
	err := b.cluster.database(ctx, name, func(database string) error { return b.fillLineitem(ctx, database) })
	if err != nil {
		return "", err
	}
	return name, b.warm(ctx, name)
}

// fillLineitem makes the rows a million at a time, over two connections.
func (b *bench) fillLineitem(ctx context.Context, database string) error {
	if err := b.cluster.do(ctx, database, lineitemSQL); err != nil {
		return err
	}
	const step = 1_000_000
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for first := int64(1); first <= b.rows; first += step {
		g.Go(func() error {
			return b.cluster.do(ctx, database, fmt.Sprintf("CALL fill(%d, %d)", first, min(first+step-1, b.rows)))
		})
	}
	return g.Wait()
}

// warm brings the table into the server's memory, as far as it has room. A plain scan of a large table would not.
func (b *bench) warm(ctx context.Context, database string) error {
	conn, err := b.cluster.connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var available, fits bool
	var size string
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'pg_prewarm'),
		pg_table_size('lineitem') < 1.8 * 1024 ^ 3, pg_size_pretty(pg_table_size('lineitem'))`).Scan(&available, &fits, &size)
	if err != nil {
		return err
	}
	progress("lineitem: %d rows, %s", b.rows, size)
	if !available || !fits {
		return nil // the system's cache has to do
	}
	return b.cluster.do(ctx, database, "CREATE EXTENSION IF NOT EXISTS pg_prewarm", "SELECT pg_prewarm('lineitem')")
}

// script makes sure of a database that one script fills.
func (b *bench) script(ctx context.Context, name, sql string) error {
	return b.cluster.database(ctx, name, func(database string) error { return b.cluster.do(ctx, database, sql) })
}
