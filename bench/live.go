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
	"strings"
	"syscall"
	"time"

	"github.com/leatdata/leat/internal/change"
)

// live is a leat that runs until it is told to end.
type live struct {
	cmd   *exec.Cmd
	said  strings.Builder
	ended chan struct{}
	err   error // how it ended
}

func (b *bench) startLive(ctx context.Context, database string, args []string, env ...string) (*live, error) {
	p := &live{cmd: exec.CommandContext(ctx, args[0], args[1:]...), ended: make(chan struct{})}
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.scratch}, append(b.cluster.env(database), env...)...)
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// kill ends it as a crash does.
func (p *live) kill() error {
	err := p.cmd.Process.Kill()
	<-p.ended
	return err
}

// rss is what it has in memory now, in bytes.
func (p *live) rss() (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	_, err = fmt.Sscan(string(data), &size, &resident) // in pages: proc_pid_statm(5)
	return resident * int64(os.Getpagesize()), err
}

// stop asks it to end, which is an end by a signal, and returns its peak RSS.
func (p *live) stop() (rss int64, err error) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // one that has ended by itself is an error below
	<-p.ended
	err = p.err
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 128+int(syscall.SIGTERM) {
		err = nil
	}
	if err != nil {
		return 0, fmt.Errorf("leat run: %w\n%s", err, p.said.String())
	}
	return p.cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10, nil
}

func (p *live) cpu() (time.Duration, error) {
	s, err := readStat(p.cmd.Process.Pid)
	return time.Duration(s.own) * tick, err
}

// held is up to where a table in the lake holds the log; 0 without a table.
func held(table string) change.LSN {
	path, err := newestMetadata(table)
	if err != nil {
		return 0
	}
	m, err := readMetadata(path)
	if err != nil {
		return 0 // it has been replaced meanwhile
	}
	p, err := change.ParseLSN(m.Properties["leat.position"])
	if err != nil {
		return 0
	}
	return p
}

// waitHeld waits until a table in the lake holds the log up to p.
func waitHeld(ctx context.Context, table string, p change.LSN) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for held(table) < p {
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not reach %s: %w", table, p, ctx.Err())
		}
	}
	return nil
}

// offer runs a statement so many times a second, each in a transaction of its own, and notes when each had committed and
// where the log ended then.
func (b *bench) offer(ctx context.Context, database string, perSecond int, long time.Duration, statement func(i int) string) (done []committed, err error) {
	conn, err := b.cluster.connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	pace := time.NewTicker(time.Second / time.Duration(perSecond))
	defer pace.Stop()
	for began := time.Now(); time.Since(began) < long; {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if _, err := conn.Exec(ctx, statement(len(done))); err != nil {
			return nil, err
		}
		c := committed{at: time.Now()}
		var text string
		if err := conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()").Scan(&text); err != nil {
			return nil, err
		}
		if c.lsn, err = change.ParseLSN(text); err != nil {
			return nil, err
		}
		done = append(done, c)
	}
	return done, nil
}

// committed is a transaction of the source.
type committed struct {
	at  time.Time
	lsn change.LSN // not before the end of its commit record
}

// runLatency measures the time from a commit at the source to a snapshot in the lake that holds it.
func runLatency(ctx context.Context, b *bench) error {
	const each, perSecond = 10, 100
	long := max(5*time.Second, time.Duration(30*b.scale*float64(time.Second)))
	template, rows, err := b.ledgerTable(ctx)
	if err != nil {
		return err
	}
	l := &ledger{b: b, database: "ledger_latency", rows: rows}
	if err := b.clone(ctx, template, l.database); err != nil {
		return err
	}
	defer func() { _ = b.forget(context.WithoutCancel(ctx), l.database) }() // the cluster goes with the bench
	progress("commit to readable: %d changes a second for %s", each*perSecond, long)
	if _, err := b.cluster.measure(ctx, b.cluster.env(l.database), l.command("current")...); err != nil {
		return err
	}
	p, err := b.startLive(ctx, l.database, b.follow(l.folder("current"), l.pipeline("current"), "--table", "public.ledger", "--keep", "current", "--commit-interval", "1s"))
	if err != nil {
		return err
	}
	delays, err := l.delays(ctx, perSecond, each, long)
	rss, stopErr := p.stop()
	if err := errors.Join(err, stopErr, os.RemoveAll(l.folder("current"))); err != nil {
		return err
	}
	slices.Sort(delays)
	p99 := delays[len(delays)*99/100]
	progress("  median %s, p99 %s, longest %s, %d MiB", delays[len(delays)/2], p99, delays[len(delays)-1], rss>>20)
	b.report.reach("leat run: commit to readable", fmt.Sprintf("p99 of %d changes, %d a second, --commit-interval 1s", each*len(delays), each*perSecond),
		fmt.Sprintf("%.2f s", p99.Seconds()), "3.00 s", p99 <= 3*time.Second)
	return nil
}

// delays offers transactions of so many updates and sees when each can be read. The first seconds, in which leat starts, do
// not count.
func (l *ledger) delays(ctx context.Context, perSecond, each int, long time.Duration) ([]time.Duration, error) {
	update := func(i int) string {
		return fmt.Sprintf("UPDATE ledger SET amount = amount + 1 WHERE id IN (SELECT spread(i, %d) FROM generate_series(%d, %d) i)", l.rows, i*each, i*each+each-1)
	}
	first, err := l.b.offer(ctx, l.database, perSecond, 100*time.Millisecond, update)
	if err != nil {
		return nil, err
	}
	if err := waitHeld(ctx, l.table("current"), first[len(first)-1].lsn); err != nil {
		return nil, err
	}
	type seen struct {
		at  time.Time
		lsn change.LSN
	}
	var reads []seen
	watching, endWatch := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { // ends with endWatch
		defer close(watched)
		look := time.NewTicker(5 * time.Millisecond)
		defer look.Stop()
		for watching.Err() == nil {
			if p := held(l.table("current")); len(reads) == 0 || p > reads[len(reads)-1].lsn {
				reads = append(reads, seen{time.Now(), p})
			}
			select {
			case <-look.C:
			case <-watching.Done():
			}
		}
	}()
	done, err := l.b.offer(ctx, l.database, perSecond, long, update)
	if err == nil {
		// What comes after the last transaction lets the position pass it.
		err = l.b.cluster.do(ctx, l.database, "SELECT pg_logical_emit_message(true, 'bench', '')", update(len(done)))
	}
	if err == nil {
		err = waitHeld(ctx, l.table("current"), done[len(done)-1].lsn)
	}
	time.AfterFunc(100*time.Millisecond, endWatch)
	<-watched
	endWatch()
	if err != nil {
		return nil, err
	}
	var delays []time.Duration
	for _, c := range done {
		i := slices.IndexFunc(reads, func(s seen) bool { return s.lsn >= c.lsn })
		if i < 0 {
			return nil, fmt.Errorf("the transaction at %s was never seen", c.lsn)
		}
		delays = append(delays, reads[i].at.Sub(c.at))
	}
	return delays, nil
}

// runTables holds ten busy tables among a thousand against ten.
func runTables(ctx context.Context, b *bench) error {
	const busy = 10
	long := max(5*time.Second, time.Duration(30*b.scale*float64(time.Second)))
	var used [2]time.Duration
	for i, n := range []int{busy, max(busy, int(1000*b.scale))} {
		progress("%d tables of which %d are busy", n, busy)
		var err error
		if used[i], err = b.busyTables(ctx, n, busy, long); err != nil {
			return err
		}
		progress("  %.2f CPU-s in %s", used[i].Seconds(), long)
	}
	ratio := used[1].Seconds() / used[0].Seconds()
	b.report.reach("leat run, 1000 tables, 10 of them busy: CPU", "against 10 tables, 2,000 changes a second", fmt.Sprintf("%.2f×", ratio), "1.30×", ratio <= 1.3)
	return nil
}

func (b *bench) busyTables(ctx context.Context, n, busy int, long time.Duration) (time.Duration, error) {
	const database = "tables_run"
	folder := filepath.Join(b.scratch, "tables")
	if err := errors.Join(b.forget(ctx, database), b.cluster.do(ctx, "postgres", "CREATE DATABASE "+database)); err != nil {
		return 0, err
	}
	defer os.RemoveAll(folder)
	defer func() { _ = b.forget(context.WithoutCancel(ctx), database) }() // the cluster goes with the bench
	if err := b.cluster.do(ctx, database, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
		EXECUTE format('CREATE TABLE t%%s (id bigint PRIMARY KEY, n int NOT NULL, at timestamptz NOT NULL)', i);
		EXECUTE format('INSERT INTO t%%s SELECT g, g, now() FROM generate_series(1, 1000) g', i); END LOOP; END $$`, n)); err != nil {
		return 0, err
	}
	args := b.follow(folder, "tables", "--keep", "current", "--commit-interval", "1s")
	if _, err := b.cluster.measure(ctx, b.cluster.env(database), append(args, "--until-caught-up")...); err != nil {
		return 0, err
	}
	p, err := b.startLive(ctx, database, args)
	if err != nil {
		return 0, err
	}
	used, err := b.busyPeriod(ctx, p, database, folder, busy, long)
	_, stopErr := p.stop()
	return used, errors.Join(err, stopErr)
}

// busyPeriod is the CPU time of leat from when all busy tables follow to when the last change of a period is in the lake.
func (b *bench) busyPeriod(ctx context.Context, p *live, database, folder string, busy int, long time.Duration) (time.Duration, error) {
	update := func(i int) string {
		return fmt.Sprintf("UPDATE t%d SET n = n + 1, at = now() WHERE id BETWEEN %d AND %d", 1+i%busy, 1+i%50*20, 20+i%50*20)
	}
	offered := func(long time.Duration) error {
		done, err := b.offer(ctx, database, 100, long, update)
		if err != nil {
			return err
		}
		last := (len(done) - 1) % busy
		return waitHeld(ctx, filepath.Join(folder, "lake", "public", fmt.Sprintf("t%d", 1+last)), done[len(done)-1].lsn-1)
	}
	if err := offered(time.Second); err != nil {
		return 0, err
	}
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	if err := offered(long); err != nil {
		return 0, err
	}
	after, err := p.cpu()
	return after - before, err
}
