package pipeline_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// noRows are tables with two steps of ALTER TABLE that no row of the table follows.
var noRows = map[string][2]string{
	"added":     {"alter table added add c int default 5", "alter table added add d text"},
	"dropped":   {"alter table dropped drop v", "alter table dropped drop w"},
	"remade":    {"alter table remade drop v; alter table remade add v text default 'other'", "alter table remade drop v; alter table remade add v int"},
	"renamed":   {"alter table renamed rename v to x", "alter table renamed rename x to y"},
	"exchanged": {"alter table exchanged rename v to x; alter table exchanged rename w to v; alter table exchanged rename x to w", "alter table exchanged rename id to key"},
	"widened":   {"alter table widened alter s type varchar(50)", "alter table widened alter s type text"},
	"parted":    {"alter table parted drop v; alter table parted add v text default 'all of them'", "alter table parted rename v to x"},
	"keyless":   {"alter table keyless drop v; alter table keyless add v int default 4", "alter table keyless rename v to x"},
	"odd":       {`alter table odd rename v to "V /""é"`, `alter table odd drop w; alter table odd add w timestamptz default '2026-01-02 03:04:05+00'`},
	"rewritten": {"alter table rewritten add c text default 'c' || clock_timestamp()", "alter table rewritten alter w type int"},
	"empty":     {"truncate empty; alter table empty drop v; alter table empty add v int default 6", "alter table empty rename v to x"},
	"mixed":     {"begin; update mixed set v = 'told'; alter table mixed drop w; alter table mixed add w text default 'not told'; commit", "update mixed set v = 'again'; alter table mixed rename v to x"},
}

func (b *bed) quietTables() []string {
	for name := range noRows {
		switch key := "primary key"; name {
		case "parted":
			b.db.Exec("create table parted (id int primary key, v text, w int, s varchar(9)) partition by range (id); create table parted_1 (s varchar(9), w int, id int not null, v text); " +
				"alter table parted attach partition parted_1 for values from (0) to (9)")
		case "keyless":
			key = ""
			fallthrough
		default:
			b.db.Exec(fmt.Sprintf("create table %s (id int %s, v text, w int, s varchar(9))", name, key))
		}
		b.db.Exec(fmt.Sprintf("insert into %[1]s values (1, 'a', 1, 'x'), (2, 'b', 2, 'y')", name))
	}
	b.db.Exec("alter table keyless replica identity full")
	return slices.Sorted(maps.Keys(noRows))
}

func (b *bed) alterQuietly(step int) {
	for _, statements := range noRows {
		b.execAll(statements[step])
	}
}

func TestAnAlterTableThatNoRowFollowsIsFollowed(t *testing.T) {
	t.Parallel()
	// Values that differ from row to row are copied: neither the WAL nor the catalog tells them.
	mayCopy := []string{"rewritten"}
	ofNeed := func(t *testing.T, stderr string) {
		t.Helper()
		for _, name := range copiedTables(stderr) {
			if !slices.Contains(mayCopy, name) {
				t.Errorf("%s is copied again", name)
			}
		}
	}
	for _, c := range []struct {
		major  int
		events string
	}{{13, "off"}, {15, "off"}, {18, "auto"}} {
		t.Run(fmt.Sprintf("while leat is away, PostgreSQL %d, DDL events %s", c.major, c.events), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, c.major, "--set", "run.ddl_events="+c.events)
			tables := b.quietTables()
			b.mustCatchUp()
			for step := range 2 {
				b.alterQuietly(step)
				ofNeed(t, b.mustCatchUp().Stderr)
				b.judge(tables...)
			}
			b.untold(tables)
			b.db.Exec("insert into remade values (3, 3, 'z', 3); insert into exchanged values (3, 'z', 3, 'c'); delete from added where id = 1")
			b.mustCatchUp()
			b.judge(tables...)
		})
	}
	t.Run("while leat runs", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, 15, "--set", "run.ddl_events=on")
		tables := b.quietTables()
		b.mustCatchUp()
		p := b.start()
		b.until("the log is followed", func() bool { return b.active() != "" })
		for step, column := range []string{"c", "d"} {
			b.alterQuietly(step)
			b.until("the lake has the definition", func() bool { return slices.Contains(b.inLake("added")["added"].Columns, column) })
		}
		p.Signal(syscall.SIGTERM)
		ofNeed(t, p.Wait().Stderr)
		b.mustCatchUp()
		b.judge(tables...)
	})
	t.Run("told by a row after the look", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, 15, "--set", "run.keep=both")
		b.db.Exec("create table t (id int primary key, v text); insert into t values (1, 'a')")
		b.mustCatchUp()
		b.db.Exec("alter table t drop v; alter table t add v text default 'b'")
		b.mustCatchUp()
		b.db.Exec("insert into t values (2, 'c'); alter table t rename v to w; insert into t values (3, 'd')")
		if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied") {
			t.Errorf("the table is copied again:\n%s", r.Stderr)
		}
		b.judge("t")
		if rows, want := b.inLake("t_history")["t_history"].chosen([]string{"id", "w"}), []string{"1|NULL", "2|c", "3|d"}; !slices.Equal(rows, want) {
			t.Errorf("the history has %v, want %v", rows, want)
		}
	})
}
