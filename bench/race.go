//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
)

// contender is a command that is measured.
type contender struct {
	name string
	args []string // "{out}" in them stands for the place it writes to
	env  []string
	rows int64    // leat: what the manifest must say; 0 for programs that leave none
	s3   *gateway // nil: it writes to a folder

	before func(context.Context) error                   // nil, or what brings about the state that each run begins with
	after  func(context.Context) (size int64, err error) // nil, or what checks each run's result and tells its size
}

// outcome is what the counted runs of a contender took.
type outcome struct {
	contender
	costs []cost
}

// race runs contenders in turn: one round to warm up, if any, and then n that count.
func (b *bench) race(ctx context.Context, warmUp bool, n int, contenders ...contender) ([]outcome, error) {
	// What folders hold stays until the race is over: ext4 passes over inodes that were freed in the last seconds
	// one by one, so 2,000 files are made far more slowly right after 2,000 were removed.
	written, err := os.MkdirTemp(b.scratch, "written-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(written)
	outcomes := make([]outcome, len(contenders))
	for i, c := range contenders {
		outcomes[i].contender = c
	}
	first := 1
	if warmUp {
		first = 0
	}
	for round := first; round <= n; round++ {
		for i := range outcomes {
			took, err := b.once(ctx, outcomes[i].contender, written)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", outcomes[i].name, err)
			}
			progress("  round %d/%d  %-46s %7.2f s  %6.2f CPU-s  %5d MiB", round, n, outcomes[i].name, took.wall.Seconds(), took.own.Seconds(), took.rss>>20)
			if round > 0 {
				outcomes[i].costs = append(outcomes[i].costs, took)
			}
		}
	}
	return outcomes, nil
}

// once measures one run into an empty place: the gateway's bucket, or a new folder below written.
func (b *bench) once(ctx context.Context, c contender, written string) (cost, error) {
	out, err := os.MkdirTemp(written, "")
	if err != nil {
		return cost{}, err
	}
	open := func() (bucket.Bucket, error) { return bucket.Open(ctx, out, bucket.Options{}) }
	env := c.env
	if c.s3 != nil {
		open = func() (bucket.Bucket, error) { return c.s3.open(ctx) }
		env = append(slices.Clone(env), c.s3.Env...)
	}
	args := slices.Clone(c.args)
	for i := range args {
		where := out
		if c.s3 != nil {
			where = c.s3.URL
		}
		args[i] = strings.ReplaceAll(args[i], "{out}", where)
	}
	if c.before != nil {
		if err := c.before(ctx); err != nil {
			return cost{}, err
		}
		syscall.Sync()
	}
	took, err := b.cluster.measure(ctx, env, args...)
	if err != nil {
		return took, err
	}
	if c.after != nil {
		if took.size, err = c.after(ctx); err != nil {
			return took, err
		}
		syscall.Sync()
		return took, nil
	}
	place, err := open()
	if err != nil {
		return took, err
	}
	defer place.Close()
	took.size, err = inspect(ctx, place, c.rows)
	if c.s3 != nil {
		err = errors.Join(err, empty(ctx, place))
	}
	syscall.Sync() // what this run left to write must not be written during the next
	return took, err
}

// inspect sums what a run left and checks that a dump has all its rows.
func inspect(ctx context.Context, place bucket.Bucket, rows int64) (size int64, err error) {
	var got int64
	for o, err := range place.List(ctx, "") {
		if err != nil {
			return 0, err
		}
		size += o.Size
		if path.Base(o.Key) != dump.ManifestName {
			continue
		}
		m, err := dump.ReadManifest(ctx, place, path.Dir(o.Key))
		if err != nil {
			return 0, err
		}
		got += m.Totals.Rows
	}
	if got != rows {
		return 0, fmt.Errorf("its manifest says %d rows, the table has %d", got, rows)
	}
	return size, nil
}

func empty(ctx context.Context, place bucket.Bucket) error {
	var keys []string
	for o, err := range place.List(ctx, "") {
		if err != nil {
			return err
		}
		keys = append(keys, o.Key)
	}
	return place.Delete(ctx, keys...)
}

// median is the middle of what pick takes from the runs; of an even number, the lower middle.
func median[T cmp.Ordered](o outcome, pick func(cost) T) T {
	return sorted(o, pick)[(len(o.costs)-1)/2]
}

func sorted[T cmp.Ordered](o outcome, pick func(cost) T) []T {
	var all []T
	for _, c := range o.costs {
		all = append(all, pick(c))
	}
	slices.Sort(all)
	return all
}

func wall(c cost) time.Duration   { return c.wall }
func own(c cost) time.Duration    { return c.own }
func server(c cost) time.Duration { return c.server }
func rss(c cost) int64            { return c.rss }
func size(c cost) int64           { return c.size }
