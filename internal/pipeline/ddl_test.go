package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// toldMeddlings are those that versions of catalog rows do not show, and that DDL events tell.
var toldMeddlings = map[string]meddling{
	"granted": {rows: flat, does: []string{`begin; alter table %[1]s replica identity full; alter table %[1]s drop constraint %[1]s_pkey; insert into %[1]s values (1, 'twin');
delete from %[1]s where v = 'twin'; insert into %[1]s values (30, 'told'); alter table %[1]s add primary key (id); alter table %[1]s replica identity default; grant select on %[1]s to public; commit`}},
	"another": {rows: parted + `; create unique index %[1]s_a on %[1]s_1 (id, d); create unique index %[1]s_b on %[1]s_1 (id); alter table %[1]s_1 replica identity using index %[1]s_a`,
		does: []string{`alter table %[1]s_1 replica identity using index %[1]s_b`, `update %[1]s set d = 0 where id = 3`, `alter table %[1]s_1 replica identity using index %[1]s_a`}},
	"shouted": {rows: flat, does: []string{`alter table %[1]s alter v type text using upper(v)`, `update %[1]s set v = 'told' where id = 7`}},
	"thereback": {rows: flat, does: []string{`begin; alter table %[1]s alter v type int using length(v); alter table %[1]s alter v type text using 'of ' || v; commit`,
		`update %[1]s set v = 'told' where id = 7`}},
	"computed": {from: 18, rows: `create table %[1]s (id int primary key, v text, g text generated always as (v || '.') stored); insert into %[1]s select i, 'first' from generate_series(0, 19) i`,
		does: []string{`alter table %[1]s alter g set expression as (v || '!')`, `update %[1]s set v = 'told' where id = 7`}},
}

func TestWhatDDLEventsTellIsCopiedAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		major   int
		running bool
	}{{14, true}, {18, false}} {
		t.Run(fmt.Sprint("PostgreSQL ", c.major, ", running: ", c.running), func(t *testing.T) {
			t.Parallel()
			meddle(t, c.major, c.running, toldMeddlings, true, "on")
		})
	}
}

// tell writes a message as an event trigger would, with whatever content, as a role that has no rights.
func (b *bed) tell(role testlab.Role, content string) {
	b.t.Helper()
	if _, err := b.db.ConnectAs(role).Exec(b.t.Context(), "select pg_logical_emit_message(true, $1, $2::text)", "leat_ddl:"+b.slot(), content); err != nil {
		b.t.Fatal(err)
	}
}

// events counts what there is of event triggers that are right, and of their schema.
func (b *bed) events() string {
	return b.db.One("select (select count(*) from pg_event_trigger where evtenabled = 'A') || ' ' || (select count(*) from pg_namespace where nspname = '_leat')")
}

func TestAForgedMessageMakesNoCopy(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	role := b.db.Role("")
	b.db.Exec("create table one (id int primary key, v text); insert into one values (1, 'first')")
	b.db.Exec(strings.ReplaceAll(parted, "%[1]s", "ev"))
	b.mustCatchUp()
	oids := b.db.Query("select 'one'::regclass::oid, 'ev'::regclass::oid, 'ev_1'::regclass::oid")[0]
	for _, content := range []string{
		fmt.Sprintf(`{"version":1,"tables":[{"oid":%s,"identity":"f","key":1,"reason":5,"columns":[[2,25,-1,false]]}]}`, oids[0]),
		fmt.Sprintf(`{"version":1,"tables":[{"oid":%s,"above":[%s],"identity":"i","weak":[%[1]s],"reason":1}]}`, oids[2], oids[1]),
		`{"version":1,"publications":[{"name":"leat"},{"name":"leat_inserts","table":1}]}`,
		"{", "", strings.Repeat("x", 100000), `{"version":9}`, "\x1b[2J",
	} {
		b.tell(role, content)
	}
	for range mostTold { // more transactions than a claim names
		b.tell(role, fmt.Sprintf(`{"version":1,"tables":[{"oid":%s,"identity":"d","reason":1}]}`, oids[0]))
	}
	b.db.Exec("update one set v = 'told'; update ev set v = 'told'")
	if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied") || strings.Contains(r.Stderr, "WARN") {
		t.Errorf("forged messages are believed:\n%s", r.Stderr)
	}
	b.judge("one", "ev")
	// A claim of before a harmless change is not believed either, and a true one among forged ones is.
	b.db.Exec("alter table one add w int")
	b.tell(role, fmt.Sprintf(`{"version":1,"tables":[{"oid":%s,"identity":"d","reason":1}]}`, oids[0]))
	if r := b.mustCatchUp(); strings.Contains(r.Stderr, "copied") {
		t.Errorf("a forged message behind a harmless change is believed:\n%s", r.Stderr)
	}
	b.tell(role, fmt.Sprintf(`{"version":1,"by":%q,"tables":[{"oid":%s,"identity":"d","reason":1}]}`, b.slot(), oids[0]))
	b.db.Exec("alter table one alter v type text using upper(v)")
	for range mostTold {
		b.tell(role, fmt.Sprintf(`{"version":1,"tables":[{"oid":%s,"identity":"d","reason":1}]}`, oids[0]))
	}
	if got := copiedAnew(b.mustCatchUp().Stderr, []string{"ev", "one"}); !slices.Equal(got, []string{"one"}) {
		t.Errorf("copied again are %v", got)
	}
	b.judge("one", "ev")
}

// mostTold is more than one claim keeps of transactions.
const mostTold = 70

func TestDDLEventsComeAndGoAsChosen(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	b.db.Exec("create table one (id int primary key, v text); insert into one values (1, 'first')")
	if b.mustCatchUp(); b.events() != "3 1" {
		t.Errorf("by auto, of a superuser, there are %s", b.events())
	}
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("drop schema _leat cascade; alter table one add w int; insert into one values (2, 'told', 2)")
	b.flushed(p)
	b.db.Exec("begin; alter table one replica identity full; alter table one drop constraint one_pkey; alter table one add primary key (v); commit")
	p.WaitFor("copied table=public.one ") // the versions show it without events
	p.Signal(syscall.SIGTERM)
	if r := p.Wait(); r.Exit != 143 {
		t.Errorf("without its event triggers leat ends with %d: %s", r.Exit, r.Stderr)
	}
	if b.mustCatchUp(); b.events() != "3 1" {
		t.Errorf("after they were dropped and leat has started again there are %s", b.events())
	}
	b.more = []string{"--set", "run.partitions=leaf"} // leat changes its own publication
	if r := b.mustCatchUp(); b.db.One("select pubviaroot from pg_publication") != "f" || strings.Contains(r.Stderr, "copied") {
		t.Errorf("after leat has changed its publication: %s", r.Stderr)
	}
	b.more = []string{"--set", "run.ddl_events=off"}
	if r := b.mustCatchUp(); b.events() != "0 0" || !strings.Contains(r.Stderr, "event triggers were removed") {
		t.Errorf("by off there are %s: %s", b.events(), r.Stderr)
	}
	b.judge("one")
}

func TestARoleThatMayNotMakeEventTriggers(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	role := b.db.Role("replication")
	b.db.Exec(fmt.Sprintf("grant create on database %s to %[2]s; create table one (id int primary key, v text); insert into one values (1, 'first'); alter table one owner to %[2]s", b.db.Name, role.Name))
	run := func(events string) testlab.Result {
		return testlab.Leat(t).Run(b.db.EnvOf(role), b.args("--until-caught-up", "--set", "run.ddl_events="+events)...)
	}
	left := func() string {
		return b.db.One("select (select count(*) from pg_publication) + (select count(*) from pg_replication_slots where slot_name = '" + b.slot() + "')")
	}
	r := run("on")
	if r.Exit != 3 || !strings.Contains(r.Stderr, "Run as a superuser: create schema") || left() != "0" || b.events() != "0 0" {
		t.Errorf("by on it ends with %d, and leaves %s and %s: %s", r.Exit, left(), b.events(), r.Stderr)
	}
	if r := run("auto"); r.Exit != 0 || strings.Count(r.Stderr, "there are no event triggers") != 1 || strings.Contains(r.Stderr, "WARN") {
		t.Errorf("by auto it ends with %d: %s", r.Exit, r.Stderr)
	}
	super := testlab.Leat(t).Run(b.db.Env(), "check", "--for", "run", "--set", "run.slot="+b.slot())
	if !strings.Contains(super.Stdout, "leat run makes the event triggers") || strings.Contains(super.Stdout, "create or replace function") {
		t.Errorf("whose role may make them is told their SQL: %s", super.Stdout)
	}
	check := testlab.Leat(t).Run(b.db.EnvOf(role), "check", "--for", "run", "--set", "run.slot="+b.slot())
	_, sql, found := strings.Cut(check.Stdout, "A superuser can make them: ")
	if !found {
		t.Fatalf("leat check does not print the SQL: %s", check.Stdout)
	}
	sql, _, _ = strings.Cut(sql, "\n")
	b.db.Exec(sql)
	b.db.Exec("alter table one alter v type text using upper(v)")
	if r := run("on"); r.Exit != 0 || !slices.Equal(copiedAnew(r.Stderr, []string{"one"}), []string{"one"}) {
		t.Errorf("with the SQL of leat check it ends with %d: %s", r.Exit, r.Stderr)
	}
	b.judge("one")
	if r := run("off"); r.Exit != 0 || b.events() != "3 1" || !strings.Contains(r.Stderr, "the event triggers stay") {
		t.Errorf("by off it ends with %d, and leaves %s: %s", r.Exit, b.events(), r.Stderr)
	}
	b.db.Exec("drop schema _leat cascade")
}

func TestWhatAMessageClaimsOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	b.db.Exec("create table one (id int primary key, v text); insert into one values (1, 'first')")
	b.mustCatchUp()
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("alter table one alter v type text using upper(v)")
	b.db.Exec("insert into one values (2, 'told')")
	b.flushed(p) // the server has given up the message
	p.Signal(syscall.SIGKILL)
	before := p.Wait().Stderr
	r := b.mustCatchUp()
	if got := copiedAnew(before+r.Stderr, []string{"one"}); len(got) != 1 {
		t.Errorf("nothing is said of it:\n%s%s", before, r.Stderr)
	}
	b.judge("one")
}
