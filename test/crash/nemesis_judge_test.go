package crash_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

// nemesisSeeds are the random histories that are tried: two that are always the same, or thirty new ones where there is time.
func nemesisSeeds(t testing.TB) (seeds []uint64) {
	if s := os.Getenv("LEAT_TEST_NEMESIS"); s != "" {
		seed, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("LEAT_TEST_NEMESIS: %v", err)
		}
		return []uint64{seed}
	}
	if !long() {
		return []uint64{12917752715516187698, 10828754132945577474}
	}
	dice := seeded(t)
	for range 30 {
		seeds = append(seeds, dice.Uint64())
	}
	return seeds
}

func TestANemesisOfTablesAndPublicationsFindsCurrentAndHistoryRight(t *testing.T) {
	t.Parallel()
	for _, seed := range nemesisSeeds(t) {
		t.Run(fmt.Sprintf("LEAT_TEST_NEMESIS=%d", seed), func(t *testing.T) { aNemesis(t, seed) })
	}
}

func aNemesis(t *testing.T, seed uint64) {
	dice := diceOf(seed)
	db := testlab.Postgres(t, 15+dice.IntN(4))
	n := newNemesis(t, db, dice)
	s := &shop{t: t, db: db}
	f := followToFolder(t, s)
	n.pub = `"leat_` + f.name + `"`
	if dice.IntN(4) == 0 {
		n.allPub = true
		db.Exec("create publication everything for all tables with (publish_via_partition_root = true)")
		f.args = append(f.args, "--set", "run.own_publication=false", "--set", "run.publication=everything")
	}
	if dice.IntN(3) == 0 {
		role := db.Role("superuser replication")
		db.Hostile(role.Name)
		f.env = db.EnvOf(role)
	}
	n.exec("select", nil)
	f.nemesisCatchUp(n)
	rounds := 4
	if long() {
		rounds = 8
	}
	for range rounds {
		if dice.IntN(3) > 0 {
			run := f.start()
			for range 3 + dice.IntN(4) {
				n.act()
			}
			f.nemesisLives(n, run, time.Duration(dice.IntN(2)*dice.IntN(1500))*time.Millisecond)
			for range dice.IntN(3) {
				n.act()
			}
		} else {
			for range 2 + dice.IntN(4) {
				n.act()
			}
		}
		n.settle()
		f.nemesisCatchUp(n)
		n.judge(f)
		if t.Failed() {
			n.tell()
			return
		}
	}
}

// nemesisLives lets a run live for a while and kills it. It may have ended where the WAL of before cannot be read.
func (f *follower) nemesisLives(n *nemesis, run *testlab.Process, d time.Duration) {
	f.t.Helper()
	select {
	case <-time.After(d):
		run.Kill()
	case <-run.Done():
		if r := run.Wait(); !strings.Contains(r.Stderr, "publication-unusable") {
			n.tell()
			f.t.Fatalf("leat run ends by itself with %d:\n%s%s", r.Exit, r.Stdout, last(r.Stderr, 40))
		}
	}
}

// nemesisCatchUp runs until the lake holds everything.
func (f *follower) nemesisCatchUp(n *nemesis) {
	f.t.Helper()
	r := f.start("--until-caught-up").WaitWithin(2 * patience)
	if strings.Contains(r.Stderr, "publication-unusable") { // the WAL of before cannot be read: the hint says what to do
		n.resynced = true
		if asked := f.leat("resync", "--all"); asked.Exit != 0 {
			f.t.Fatalf("leat resync ends with %d:\n%s", asked.Exit, asked.Stderr)
		}
		r = f.start("--until-caught-up").WaitWithin(2 * patience)
	}
	if r.Exit != 0 {
		n.tell()
		f.t.Fatalf("leat run --until-caught-up ends with %d:\n%s%s", r.Exit, r.Stdout, last(r.Stderr, 40))
	}
	n.ends = append(n.ends, n.position())
}

// tell logs what has happened.
func (n *nemesis) tell() {
	var b strings.Builder
	for _, s := range n.states[max(0, len(n.states)-80):] {
		fmt.Fprintf(&b, "%s  %s\n", s.at, s.sql)
	}
	n.t.Logf("PostgreSQL %d; publication for all tables: %v; after each position:\n%s", n.db.Server.Major, n.allPub, b.String())
}

// judge compares current with the source, and the history, rebuilt at every commit position since it is whole.
func (n *nemesis) judge(f *follower) {
	n.t.Helper()
	now := n.states[len(n.states)-1]
	for _, name := range nemesisTables {
		full := "public." + name
		lake := theStranger(n.t).read(n.t, f.to, f.properties, []string{full, full + "_history"})
		current, history := lake[full], lake[full+"_history"]
		if current.Missing || history.Missing {
			n.t.Errorf("%s is not in the lake", name)
			continue
		}
		same(n.t, "current of "+name, now.tables[name].rows, content2{columns: current.Columns, rows: current.Rows})
		all := events(n.t, name, history)
		n.history(name, all)
		if !n.resynced { // on request it is no surprise
			n.noNeedlessCopy(name, all)
		}
	}
}

// history compares the history of a table, rebuilt to each commit position, with what the source held there. What lies between the
// last commit to the table and a new copy of it is a hole, which the history tells by the copy's place.
func (n *nemesis) history(name string, all []event) {
	n.t.Helper()
	last := len(n.states) - 1
	end := n.states[last].tables[name]
	checked := 0
	for i := last; i >= 0 && len(all) > 0; i-- {
		s := n.states[i]
		if s.tables[name].oid != end.oid || s.tables[name].oid != n.followedAs(name, s.at) || i < last && (s.at < all[0].lsn || n.inHole(all, s.at) || n.emptiedLater(name, s.at)) {
			continue
		}
		want, columns := n.projected(name, i)
		got := make([]event, 0, len(all))
		for _, e := range all {
			row := tuple{}
			for _, c := range columns {
				row[c] = e.row[c]
			}
			e.row = row
			got = append(got, e)
		}
		to := s.at
		if i == last { // with what a copy has brought since
			to = 1<<63 - 1
		}
		rebuilt := (&followJudge{t: n.t}).rebuild(followed{name: name, key: s.tables[name].key}, got, to)
		same(n.t, fmt.Sprintf("the history of %s, rebuilt to %s (after %s)", name, s.at, s.sql), want, rebuilt)
		checked++
		if n.t.Failed() {
			return
		}
	}
	n.t.Logf("%s: the history is right at %d of %d positions", name, checked, last+1)
}

// between are the ends of the runs that caught up before and behind a position. A run's saved position is no higher than its end, and
// a copy that begins there is of the run behind it: so the first of the two is that of the last commit before it.
func (n *nemesis) between(at change.LSN) (from, until change.LSN) {
	end := change.LSN(0)
	for _, e := range n.ends {
		until = e
		if e >= at {
			break
		}
		end = e
	}
	for _, s := range n.states {
		if s.at <= end {
			from = s.at
		}
	}
	return from, until
}

// followedAs is the table that has the name when the run ends that took a position into the lake. A name that another table had for a
// time between two looks is not seen: the history goes on with the table that has it again.
func (n *nemesis) followedAs(name string, at change.LSN) (oid string) {
	_, until := n.between(at)
	for _, s := range n.states {
		if s.at <= until {
			oid = s.tables[name].oid
		}
	}
	return oid
}

// inHole says whether the run that took a position into the lake copied the table again: what it had not committed before is not told,
// and rows of a copy may be ahead of its position.
func (n *nemesis) inHole(all []event, at change.LSN) bool {
	from, until := n.between(at)
	return slices.ContainsFunc(all, func(e event) bool { return copied(e) && e.lsn >= from && e.lsn <= until })
}

// emptiedLater says whether a partition was truncated before a position and its root behind it, within one run. The WAL tells of the
// second alone. With it all is right again, so nothing is copied, and until then the history has the partition's rows.
func (n *nemesis) emptiedLater(name string, at change.LSN) bool {
	from, until := n.between(at)
	return slices.ContainsFunc(n.states, func(s nemesisState) bool {
		return s.at > from && s.at <= at && strings.HasPrefix(s.sql, "truncate "+name+"_")
	}) && slices.ContainsFunc(n.states, func(s nemesisState) bool {
		return s.at > at && s.at <= until && s.sql == "truncate "+name
	})
}

// copied says that a row of a history begins a new copy of the table.
func copied(e event) bool { return e.op == "t" && e.xid == 0 }

// noNeedlessCopy fails the test where a table was copied again although the WAL told everything of it.
func (n *nemesis) noNeedlessCopy(name string, all []event) {
	n.t.Helper()
	for _, e := range all {
		if !copied(e) {
			continue
		}
		from, until := n.between(e.lsn)
		_, until = n.between(until + 1) // a copy may begin where the run before has ended
		blind := slices.ContainsFunc(n.states, func(s nemesisState) bool {
			return s.at > from && s.at <= until && slices.Contains(s.blind, name)
		})
		if !blind {
			n.t.Errorf("%s was copied again at %s, and nothing has happened to it since %s that the WAL does not tell", name, e.lsn, from)
		}
	}
}

// projected is what a table held at a state, by the columns that it still has in the type that they always had, under the names of now.
func (n *nemesis) projected(name string, state int) (c content2, columns []string) {
	then, now := n.states[state].tables[name], n.states[len(n.states)-1].tables[name]
	retyped := func(attnum string) bool {
		return slices.ContainsFunc(n.states, func(s nemesisState) bool {
			t := s.tables[name]
			return t.oid == now.oid && t.types[attnum] != "" && t.types[attnum] != now.types[attnum]
		})
	}
	var places []int
	for i, column := range then.rows.columns {
		for today, attnum := range now.attnums {
			if attnum == then.attnums[column] && !retyped(attnum) {
				places, columns = append(places, i), append(columns, today)
			}
		}
	}
	c.columns = columns
	for _, row := range then.rows.rows {
		c.rows = append(c.rows, picked(row, places))
	}
	return c, columns
}
