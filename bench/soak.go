//go:build linux

package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

//go:embed soak.sql
var soakSQL string

const (
	soakTables  = 50
	soakCommits = 20_000 // of a table in both forms, over all tables
	soakWindow  = 500    // commits from one look to the next
	soakKill    = 3      // windows from one kill to the next
)

// soak is a lake of many tables that change all the time, while their definitions change and leat is killed.
type soak struct {
	b        *bench
	database string
	tables   []int         // numbers of those that live
	made     int           // number of the last one that was made
	counted  map[int]int64 // commits of each table that lives, at the last look
	before   int64         // commits of those that were dropped
	extras   []extra
	windows  []soakSample
	read     []string // what other engines have read in the end
}

// soakSample is one window.
type soakSample struct {
	commits   int64 // since the first one, at the end of the window
	during    int64
	wall, cpu time.Duration
	metadata  int64 // size of the largest metadata file, bytes
	rss       int64 // at the end, bytes
	killed    bool  // after the window
}

// wallEach and cpuEach are times of the window per commit, in milliseconds.
func (s soakSample) wallEach() float64 { return s.wall.Seconds() * 1000 / float64(s.during) }
func (s soakSample) cpuEach() float64  { return s.cpu.Seconds() * 1000 / float64(s.during) }

func (s *soak) folder() string { return filepath.Join(s.b.scratch, s.database) }

func (s *soak) lake(table int, form string) string {
	return filepath.Join(s.folder(), "lake", "soak", fmt.Sprintf("t%d%s", table, form))
}

func (s *soak) command(more ...string) []string {
	return s.b.follow(s.folder(), s.database, append([]string{"--table", "soak.*", "--keep", "both", "--commit-interval", "100ms",
		"--set", "run.maintain_interval=5s"}, more...)...)
}

// runSoak makes thousands of commits with maintenance, changed definitions and kills, and has the lake read by other
// engines.
func runSoak(ctx context.Context, b *bench) error {
	s := &soak{b: b, database: "soak_run", counted: map[int]int64{}}
	if err := s.open(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(s.folder())
	defer func() { _ = b.forget(context.WithoutCancel(ctx), s.database) }() // the cluster goes with the bench
	want := max(10*soakWindow, b.scaled(soakCommits))
	progress("%d commits over %d tables", want, soakTables)
	if err := s.follow(ctx, want); err != nil {
		return err
	}
	if _, err := b.cluster.measure(ctx, b.cluster.env(s.database), s.command("--until-caught-up")...); err != nil {
		return err
	}
	if err := s.judge(ctx); err != nil {
		return err
	}
	return s.tell()
}

func (s *soak) open(ctx context.Context) error {
	if err := errors.Join(s.b.forget(ctx, s.database), s.b.cluster.do(ctx, "postgres", "CREATE DATABASE "+s.database),
		s.b.cluster.do(ctx, s.database, soakSQL)); err != nil {
		return err
	}
	for range soakTables {
		if err := s.make(ctx); err != nil {
			return err
		}
	}
	_, err := s.b.cluster.measure(ctx, s.b.cluster.env(s.database), s.command("--until-caught-up")...)
	return err
}

func (s *soak) make(ctx context.Context) error {
	s.made++
	s.tables = append(s.tables, s.made)
	return s.b.cluster.do(ctx, s.database, fmt.Sprintf("CALL work.make(%d)", s.made))
}

// follow runs leat until there were so many commits.
func (s *soak) follow(ctx context.Context, want int64) (err error) {
	p, err := s.start(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if p != nil {
			_, stopErr := p.stop()
			err = errors.Join(err, stopErr)
		}
	}()
	for n := 0; ; n++ {
		w, err := s.window(ctx, p)
		if err != nil {
			return err
		}
		w.killed = n%soakKill == soakKill-1
		s.windows = append(s.windows, w)
		progress("  %6d commits: %.1f ms and %.1f CPU-ms each, metadata %d KB, %d MiB", w.commits, w.wallEach(), w.cpuEach(), w.metadata/1000, w.rss>>20)
		if w.commits >= want {
			return nil
		}
		if err := s.alter(ctx, n); err != nil {
			return err
		}
		if !w.killed {
			continue
		}
		if err := p.kill(); err != nil {
			return err
		}
		if p, err = s.start(ctx); err != nil {
			return err
		}
	}
}

// start starts leat and waits for its first commits: what a start costs is no window's.
func (s *soak) start(ctx context.Context) (*live, error) {
	p, err := s.b.startLive(ctx, s.database, s.command())
	if err != nil {
		return nil, err
	}
	if _, err := s.work(ctx, p, soakTables); err != nil {
		_, stopErr := p.stop()
		return nil, errors.Join(err, stopErr)
	}
	return p, nil
}

// window measures leat while it makes a number of commits.
func (s *soak) window(ctx context.Context, p *live) (w soakSample, err error) {
	used, err := p.cpu()
	if err != nil {
		return w, err
	}
	began := time.Now()
	if w.during, err = s.work(ctx, p, soakWindow); err != nil {
		return w, err
	}
	w.wall = time.Since(began)
	now, err := p.cpu()
	if err != nil {
		return w, err
	}
	w.cpu, w.commits = now-used, s.before
	for _, table := range s.tables {
		w.commits += s.counted[table]
		for _, form := range []string{"", "_history"} {
			path, err := newestMetadata(s.lake(table, form))
			if err != nil {
				continue // a table that is new
			}
			if info, err := os.Stat(path); err == nil { // else it has been replaced meanwhile
				w.metadata = max(w.metadata, info.Size())
			}
		}
	}
	w.rss, err = p.rss()
	return w, err
}

// work changes the tables all the time until leat has made so many commits, and returns how many it has made.
func (s *soak) work(ctx context.Context, p *live, commits int64) (done int64, err error) {
	busy, rest := context.WithTimeout(ctx, 10*time.Minute)
	defer rest()
	g, gctx := errgroup.WithContext(busy)
	half := len(s.tables) / 2
	for _, tables := range [][]int{s.tables[:half], s.tables[half:]} {
		g.Go(func() error { return s.change(gctx, tables) })
	}
	first := s.count()
	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()
	for done < commits && gctx.Err() == nil {
		select {
		case <-look.C:
			done = s.count() - first
		case <-p.ended:
			rest()
			return done, errors.Join(fmt.Errorf("leat run has ended: %w: %s", p.err, p.said.String()), g.Wait())
		case <-gctx.Done():
		}
	}
	rest()
	if err := g.Wait(); done < commits {
		return done, fmt.Errorf("%d commits instead of %d: %w", done, commits, err)
	}
	return done, nil
}

// change makes 200 transactions a second, one table after the other, until the context ends.
func (s *soak) change(ctx context.Context, tables []int) error {
	conn, err := s.b.cluster.connect(ctx, s.database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	pace := time.NewTicker(5 * time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-pace.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, err := conn.Exec(context.WithoutCancel(ctx), fmt.Sprintf("CALL work.change(%d)", tables[i%len(tables)])); err != nil {
			return err
		}
	}
}

// count is how many commits the histories of the tables have had, maintenance among them.
func (s *soak) count() (n int64) {
	for _, table := range s.tables {
		if last, err := sequence(s.lake(table, "_history")); err == nil { // else it is new, or has just been replaced
			s.counted[table] = last
		}
		n += s.counted[table]
	}
	return n + s.before
}

// extra is a column that was added, and goes later.
type extra struct {
	table  int
	column string
}

// alter changes definitions: a column comes, one is renamed, one goes, one gets a wider type, each of another table; at
// times a table is emptied, and at times one goes and another comes.
func (s *soak) alter(ctx context.Context, n int) error {
	one := func(step int) int { return s.tables[n*step%len(s.tables)] }
	added := extra{one(7), fmt.Sprintf("extra_%d", n)}
	s.extras = append(s.extras, added)
	statements := []string{
		fmt.Sprintf("ALTER TABLE soak.t%d ADD COLUMN %s text DEFAULT 'none'", added.table, added.column),
		fmt.Sprintf("ALTER TABLE soak.t%d ALTER COLUMN n TYPE bigint", one(11)),
	}
	if len(s.extras) >= 3 {
		e := &s.extras[len(s.extras)-3]
		statements = append(statements, fmt.Sprintf("ALTER TABLE IF EXISTS soak.t%d RENAME COLUMN %s TO %[2]s_old", e.table, e.column))
		e.column += "_old"
	}
	if len(s.extras) > 5 {
		statements = append(statements, fmt.Sprintf("ALTER TABLE IF EXISTS soak.t%d DROP COLUMN %s", s.extras[0].table, s.extras[0].column))
		s.extras = s.extras[1:]
	}
	if n%5 == 4 {
		statements = append(statements, fmt.Sprintf("TRUNCATE soak.t%d", one(17)))
	}
	if err := s.b.cluster.do(ctx, s.database, statements...); err != nil {
		return err
	}
	if n%8 != 7 {
		return nil
	}
	i := n * 3 % len(s.tables)
	gone := s.tables[i]
	s.tables, s.before = slices.Delete(s.tables, i, i+1), s.before+s.counted[gone]
	delete(s.counted, gone)
	return errors.Join(s.b.cluster.do(ctx, s.database, fmt.Sprintf("DROP TABLE soak.t%d", gone)), s.make(ctx))
}
