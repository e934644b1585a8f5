package way_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// newest is the highest id of the table notes in the lake, 0 without any.
func newest(t testing.TB, p *pipeline) (highest int) {
	t.Helper()
	_, all := testlab.PyIceberg(t, "file://"+p.lake+"/public/notes")
	for _, r := range all {
		id, err := strconv.Atoi(r[0])
		if err != nil {
			t.Fatal(err)
		}
		highest = max(highest, id)
	}
	return highest
}

func TestAnOperatorPausesResumesAndCopiesAnew(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table notes (id bigint primary key, note text); insert into notes select i, 'note ' || i from generate_series(1, 1000) i; create table others (id int primary key)")
	p := newPipeline(t, db)
	if s := p.status(); s.Running || s.Slot.Exists || len(s.Tables) != 0 {
		t.Errorf("before the first run: %+v", s)
	}
	run := p.start()
	p.ready(run)
	p.until("the status tells of a run whose tables follow the log", func(s status) bool {
		return s.Running && s.Slot.Active && len(s.Tables) == 2 && s.Tables["public.notes"].Phase == "streaming"
	})

	p.do("pause")
	p.until("the pipeline is paused", func(s status) bool { return s.Paused && !s.Slot.Active })
	db.Exec("insert into notes values (1001, 'while it is paused')")
	if n := newest(t, p); n != 1000 {
		t.Errorf("while it is paused the lake has note %d", n)
	}
	p.do("resume")
	wait(t, "the note that was written meanwhile is in the lake", func() bool { return newest(t, p) == 1001 })

	p.do("resync", "--table", "public.notes")
	wait(t, "the table is copied anew", func() bool { return copies(run, "public.notes") == 2 })
	db.Exec("update notes set note = 'last' where id = 1")
	p.ready(run)
	p.end(run)
	p.catchUp()
	if s := p.status(); s.Running || s.Paused || !s.Slot.Exists || s.Slot.Active {
		t.Errorf("after the run: %+v", s)
	}
	of := tables(db)
	how, history := judges(t, p.lake)
	judge(t, of, []moment{look(t, db, of)}, how, history)
	if n := copies(run, "public.others"); n != 1 {
		t.Errorf("the other table was copied %d times", n)
	}
}

// copies counts how often a run says that it has copied a table.
func copies(run *testlab.Process, table string) (n int) {
	for line := range strings.Lines(run.Stderr()) {
		if strings.Contains(line, "copied") && strings.Contains(line, table+" ") {
			n++
		}
	}
	return n
}

func TestRequestsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	p := newPipeline(t, testlab.Postgres(t))
	p.db.Exec("create table notes (id int primary key)")
	for _, c := range []struct {
		command []string
		exit    int
		says    string
	}{
		{[]string{"pause"}, 2, "there is no pipeline of this name"},
		{[]string{"resync"}, 2, "names no table"},
	} {
		if r := p.leat.Run(p.env, append(c.command, p.all...)...); r.Exit != c.exit || !strings.Contains(r.Stderr, c.says) {
			t.Errorf("leat %v: %d %s", c.command, r.Exit, r.Stderr)
		}
	}
	p.db.Exec("insert into notes select generate_series(1, 70)")
	if r := p.start("--until-caught-up").WaitWithin(patience); r.Exit != 0 || !strings.Contains(r.Stdout, "Caught up: 70 rows copied, 0 changes followed") {
		t.Errorf("the first run: %d %s%s", r.Exit, r.Stdout, r.Stderr)
	}
	if r := p.leat.Run(p.env, append([]string{"resync", "--table", "public.nodes"}, p.all...)...); r.Exit != 2 || !strings.Contains(r.Stderr, "no such table") {
		t.Errorf("a table that is not there: %d %s", r.Exit, r.Stderr)
	}
}

func TestTheLakeIsMaintainedByHand(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table notes (id int primary key, note text); insert into notes select i from generate_series(1, 300) i")
	p := newPipeline(t, db).with("run.maintain_interval=0s", "lake.snapshots.keep=1", "lake.snapshots.minutely=0s", "lake.snapshots.hourly=0s",
		"lake.snapshots.daily=0s", "lake.snapshots.grace=0s", "lake.orphan_age=0s")
	p.catchUp()
	for i := range 5 {
		db.Exec(fmt.Sprintf("update notes set note = 'round %d' where id %% 5 = %d; insert into notes values (%d)", i, i, 1000+i))
		p.catchUp()
	}
	files := "select count(*), sum(record_count) from %s.public.notes.%s"
	spark := testlab.SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": "file://" + p.lake})
	_, before := spark.Query(fmt.Sprintf(files, spark.Catalog, "files"))
	var did struct{ Tables, Files int }
	if err := json.Unmarshal([]byte(p.do("lake", "maintain", "--json")), &did); err != nil {
		t.Fatal(err)
	}
	_, after := spark.Query(fmt.Sprintf(files, spark.Catalog, "files"))
	_, left := spark.Query(fmt.Sprintf("select count(*) from %s.public.notes.snapshots", spark.Catalog))
	t.Logf("%+v; files and rows before %v, after %v; snapshots %v", did, before, after, left)
	if after[0][0] != "1" || left[0][0] != "1" {
		t.Errorf("maintenance leaves %s of %s files, and %s snapshots", after[0][0], before[0][0], left[0][0])
	}
	p.catchUp()
	of := tables(db)
	how, history := judges(t, p.lake)
	judge(t, of, []moment{look(t, db, of)}, how, history)
}

func TestARunIsWatched(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table notes (id int primary key, note text); insert into notes select i from generate_series(1, 300) i")
	p := newPipeline(t, db)
	run := p.start()
	p.ready(run)
	db.Exec("insert into notes values (1001); update notes set note = 'x' where id <= 10; delete from notes where id > 290 and id < 300")
	want := map[string]string{
		`leat_rows_total{op="c",pipeline="NAME",table="public.notes"}`: "1", `leat_rows_total{op="u",pipeline="NAME",table="public.notes"}`: "10",
		`leat_rows_total{op="d",pipeline="NAME",table="public.notes"}`: "9", `leat_streaming{pipeline="NAME"}`: "1",
		`leat_tables{phase="streaming",pipeline="NAME"}`: "1",
	}
	page := ""
	wait(t, "the metrics count the changes", func() bool {
		_, page = p.get("/metrics")
		return strings.Contains(page, `op="d",pipeline="`+p.name+`",table="public.notes"} 9`)
	})
	wait(t, "its line tells of the changes, not of the rows of both forms", func() bool { return strings.Contains(run.Stdout(), ": 20 changes of 1 table, ") })
	for name, value := range want {
		if name = strings.ReplaceAll(name, "NAME", p.name); !strings.Contains(page, name+" "+value+"\n") {
			t.Errorf("no %s %s in\n%s", name, value, page)
		}
	}
	for _, name := range []string{"leat_lag_bytes", "leat_lag_seconds", "leat_commits_total", "leat_written_bytes_total", "leat_slot_retained_bytes", "leat_last_commit_timestamp_seconds"} {
		if !regexp.MustCompile(`(?m)^` + name + `\{.*\} [0-9]`).MatchString(page) {
			t.Errorf("no %s in\n%s", name, page)
		}
	}
	if code, body := p.get("/healthz"); code != http.StatusOK {
		t.Errorf("healthz: %d %s", code, body)
	}
	p.do("pause")
	wait(t, "a paused run is not ready", func() bool { code, _ := p.get("/readyz"); return code == http.StatusServiceUnavailable })
	p.do("resume")
	p.ready(run)
	p.end(run)
}

func TestTheLagIsMeasuredInSeconds(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table notes (id int primary key)")
	p := newPipeline(t, db)
	lag := func() float64 {
		_, page := p.get("/metrics")
		found := regexp.MustCompile(`(?m)^leat_lag_seconds\{.*\} (.*)$`).FindStringSubmatch(page)
		if found == nil {
			return -1
		}
		seconds, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return seconds
	}
	run := p.start("--commit-interval", "1h")
	p.follows("notes")
	db.Exec("insert into notes values (1)")
	wait(t, "the lag grows", func() bool { return lag() >= 6 })
	p.end(run)
	run = p.start()
	p.follows("notes")
	wait(t, "there is none", func() bool { return lag() == 0 })
	p.end(run)
}
