//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/leatdata/leat/internal/change"
)

// tenantTables is how many tables each pipeline at rest follows.
const tenantTables = 10

// runIdle measures what pipelines cost that have nothing to do: 1, 10 and 100 of them in one process, each with a
// schema of one database.
func runIdle(ctx context.Context, b *bench) error {
	const database = "idle_run"
	long := max(20*time.Second, time.Duration(60*b.scale*float64(time.Second)))
	b.report.more = append(b.report.more, "| pipelines of 10 tables at rest | RSS, MiB | heap in use, MiB | goroutines | CPU each, % of a core | server's CPU each, % | sessions | logins a minute each |",
		"| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	var all []rest
	for _, n := range []int{1, 10, 100} {
		progress("%d pipelines of %d tables at rest for %s", n, tenantTables, long)
		r, err := b.rest(ctx, database, n, long)
		if err := errors.Join(err, b.forget(context.WithoutCancel(ctx), database)); err != nil {
			return err
		}
		progress("  %s", r)
		all = append(all, r)
		b.report.more = append(b.report.more, r.row())
	}
	first, last := all[0], all[len(all)-1]
	more := float64(last.rss-first.rss) / float64(last.pipelines-first.pipelines) / mib
	b.report.reach("leat run, each further pipeline at rest: memory", fmt.Sprintf("RSS of %d against that of one", last.pipelines), fmt.Sprintf("%.1f MiB", more), "10 MiB", more <= 10)
	share := last.share(last.own)
	b.report.reach("leat run, a pipeline at rest: CPU", fmt.Sprintf("of %d, each", last.pipelines), fmt.Sprintf("%.2f %%", share), "0.2 %", share <= 0.2)
	return nil
}

// rest is what pipelines have taken for a while.
type rest struct {
	pipelines   int
	long        time.Duration
	own, server time.Duration
	rss         int64
	usage       usage
	sessions    int
	logins      int
}

// share is of one core and for each pipeline, in percent.
func (r rest) share(d time.Duration) float64 {
	return 100 * d.Seconds() / r.long.Seconds() / float64(r.pipelines)
}

func (r rest) row() string {
	return fmt.Sprintf("| %d | %d | %d | %d | %.3f | %.3f | %d | %.1f |", r.pipelines, r.rss>>20, r.usage.Heap>>20, r.usage.Goroutines, r.share(r.own), r.share(r.server), r.sessions,
		float64(r.logins)/r.long.Minutes()/float64(r.pipelines))
}

func (r rest) String() string { return r.row() }

// rest copies the tables of n pipelines, starts them again, lets each table change once, and measures when that is
// over.
func (b *bench) rest(ctx context.Context, database string, n int, long time.Duration) (r rest, err error) {
	if err := errors.Join(b.forget(ctx, database), b.cluster.do(ctx, "postgres", "CREATE DATABASE "+database)); err != nil {
		return r, err
	}
	for i := range n {
		if err := b.cluster.do(ctx, database, "CREATE SCHEMA "+tenant(i), fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
			EXECUTE format('CREATE TABLE %[2]s.t%%s (id bigint PRIMARY KEY, name text NOT NULL, amount numeric(12,2), at timestamptz)', i);
			EXECUTE format('INSERT INTO %[2]s.t%%s SELECT g, md5(g::text), g / 7.0, now() FROM generate_series(1, 1000) g', i);
			END LOOP; END $$`, tenantTables, tenant(i))); err != nil {
			return r, err
		}
	}
	folder := filepath.Join(b.scratch, "idle")
	defer os.RemoveAll(folder)
	for _, measured := range []bool{false, true} {
		p, err := b.startPipelines(database, folder, n)
		if err == nil {
			err = p.changeAll(ctx, n)
		}
		if err == nil && measured {
			r, err = p.atRest(ctx, n, long)
		}
		if err := errors.Join(err, p.stop()); err != nil {
			return r, err
		}
	}
	return r, nil
}

// tenants is a process that runs pipelines.
type tenants struct {
	b        *bench
	database string
	cmd      *exec.Cmd
	ask      io.WriteCloser
	answers  *json.Decoder
	said     bytes.Buffer
}

func (b *bench) startPipelines(database, folder string, n int) (*tenants, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &tenants{b: b, database: database}
	p.cmd = exec.Command(self, servePipelines, "dbname="+database, folder, strconv.Itoa(n))
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + b.scratch}, b.cluster.env(database)...)
	p.cmd.Stderr = &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if p.ask, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.answers = json.NewDecoder(stdout)
	return p, p.cmd.Start()
}

// stop lets the pipelines end and tells what they said if they failed.
func (p *tenants) stop() error {
	if p == nil {
		return nil
	}
	p.ask.Close()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%d pipelines: %w\n%s", p.cmd.Process.Pid, err, p.said.String())
	}
	return nil
}

// changeAll lets each table change once, when all pipelines follow, and waits until the lake has it.
func (p *tenants) changeAll(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	if err := p.until(ctx, n, fmt.Sprintf("SELECT count(*) FROM pg_replication_slots WHERE active AND database = '%s'", p.database)); err != nil {
		return fmt.Errorf("the pipelines do not follow: %w\n%s", err, p.said.String())
	}
	for i := range n {
		if err := p.b.cluster.do(ctx, p.database, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP
			EXECUTE format('UPDATE %s.t%%s SET amount = amount + 1 WHERE id <= 10', i); END LOOP; END $$`, tenantTables, tenant(i))); err != nil {
			return err
		}
	}
	end, err := p.b.cluster.scalar(ctx, p.database, "SELECT pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	if _, err := change.ParseLSN(end); err != nil {
		return err
	}
	if err := p.until(ctx, n, fmt.Sprintf("SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= '%s' AND database = '%s'", end, p.database)); err != nil {
		return fmt.Errorf("the pipelines do not catch up: %w\n%s", err, p.said.String())
	}
	return nil
}

// until waits until a query counts n.
func (p *tenants) until(ctx context.Context, n int, query string) error {
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for {
		got, err := p.b.cluster.scalar(ctx, p.database, query)
		if err != nil || got == strconv.Itoa(n) {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("%s of %d: %w", got, n, ctx.Err())
		}
	}
}

// settle is how long after the last commit pipelines are at rest: upkeep has come round twice, and found nothing to do
// the second time.
const settle = 150 * time.Second

func (p *tenants) atRest(ctx context.Context, n int, long time.Duration) (r rest, err error) {
	r = rest{pipelines: n, long: long}
	if err := pause(ctx, settle); err != nil {
		return r, err
	}
	before, err := p.counts(ctx)
	if err != nil {
		return r, err
	}
	const looks = 20
	for range looks {
		if err := pause(ctx, long/looks); err != nil {
			return r, err
		}
		text, err := p.b.cluster.scalar(ctx, p.database, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leat'")
		if err != nil {
			return r, err
		}
		now, err := strconv.Atoi(text)
		if err != nil {
			return r, err
		}
		r.sessions = max(r.sessions, now)
	}
	after, err := p.counts(ctx)
	if err != nil {
		return r, err
	}
	r.own, r.server, r.logins = after.own-before.own, after.server-before.server, after.logins-before.logins-looks-1 // ours
	if _, err := io.WriteString(p.ask, "\n"); err != nil {
		return r, err
	}
	if err := p.answers.Decode(&r.usage); err != nil {
		return r, err
	}
	r.rss, err = residentOf(p.cmd.Process.Pid)
	return r, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// counts are the counters of the process and of the server.
func (p *tenants) counts(ctx context.Context) (c rest, err error) {
	s, err := readStat(p.cmd.Process.Pid)
	if err != nil {
		return c, err
	}
	c.own = time.Duration(s.own) * tick
	if c.server, err = p.b.cluster.cpu(); err != nil {
		return c, err
	}
	text, err := p.b.cluster.scalar(ctx, p.database, "SELECT sessions FROM pg_stat_database WHERE datname = '"+p.database+"'")
	if err == nil {
		c.logins, err = strconv.Atoi(text)
	}
	return c, err
}

// residentOf is the memory that a process has now, in bytes.
func residentOf(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(data), &size, &resident); err != nil {
		return 0, err
	}
	return resident * int64(os.Getpagesize()), nil
}
