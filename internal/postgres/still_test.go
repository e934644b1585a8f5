package postgres_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// restful is what happens between two looks, and whether the second is spared. "2: " and "3: " are other sessions.
var restful = []struct {
	happens string
	spared  bool
	from14  bool // spared where indexes are not marked in place
}{
	{happens: "select 1; select count(*) from leat_t", spared: true},
	{happens: "select pg_logical_emit_message(false, 'leat', 'a heartbeat')", from14: true},
	{happens: "checkpoint", from14: true},
	{happens: "2: begin; 2: create table leat_new (id int primary key); 2: insert into leat_new values (1)", from14: true}, // of which nothing is to be seen
	{happens: "2: commit"},
	{happens: "2: begin; 2: alter table leat_t replica identity full; 3: begin; 3: alter table leat_r replica identity full", from14: true},
	{happens: "3: commit"}, // it began after one that is still under way
	{happens: "2: savepoint s; 2: alter table leat_t replica identity nothing; 2: rollback to s; 2: commit"},
	{happens: "begin; alter table leat_t replica identity default; prepare transaction 'leat_p'", from14: true},
	{happens: "commit prepared 'leat_p'"},
	{happens: "alter publication leat_p drop table leat_t"},
	{happens: "alter publication leat_p add table leat_t"},
	{happens: "create table leat_2 partition of leat_r for values from (10) to (20)"},
	{happens: "begin; alter table leat_r detach partition leat_2; alter table leat_r attach partition leat_2 for values from (10) to (20); commit"},
	{happens: "truncate leat_t"},
	{happens: "alter table leat_t rename to leat_u; alter table leat_u rename to leat_t"},
	{happens: "alter table leat_t add c int; comment on table leat_t is 'other'; grant select on leat_t to public"},
	{happens: "create function leat_f() returns trigger language plpgsql as 'begin return new;end'; create trigger leat_g before insert on leat_t for each row execute function leat_f(); drop trigger leat_g on leat_t"},
	{happens: "vacuum leat_t"}, // which takes in place that it has triggers
	{happens: "select 2", spared: true},
}

// What a look would find is the same as long as no transaction has ended and nothing was written in place, and only
// then it is spared.
func TestALookIsSparedWhereItWouldFindTheSame(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 14, 18} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			db := testlab.OwnPostgres(t, testlab.ServerOptions{Major: major, Settings: []string{"max_prepared_transactions = 2", "autovacuum = off"}})
			db.Exec(`create table leat_t (id int primary key, v text); insert into leat_t values (1, 'a'); create table leat_r (id int primary key) partition by range (id);
create table leat_1 partition of leat_r for values from (0) to (10)`)
			db.Exec("create publication leat_p for table leat_t")
			sessions := map[string]func(string){"1": func(sql string) { db.Exec(sql) }}
			for _, name := range []string{"2", "3"} {
				c := db.Connect()
				sessions[name] = func(sql string) { _, err := c.Exec(t.Context(), sql); must(t, err) }
			}
			s := sourceOf(t, db)
			o := postgres.LookOptions{Selection: tablesLike("leat"), Tables: []uint32{oidOf(db, "leat_t"), oidOf(db, "leat_r")}, Roots: []uint32{oidOf(db, "leat_r")}, Publications: []string{"leat_p"}}
			for _, c := range restful {
				was, err := s.Look(t.Context(), o)
				must(t, err)
				for statement := range strings.SplitSeq(c.happens, "; ") {
					by, sql, other := strings.Cut(statement, ": ")
					if !other {
						by, sql = "1", statement
					}
					sessions[by](sql)
				}
				still, err := s.Still(t.Context(), &was)
				must(t, err)
				if want := c.spared || c.from14 && major >= 14; still != want {
					t.Errorf("%s: a look is spared: %t, want %t", c.happens, still, want)
				}
				now, err := s.Look(t.Context(), o)
				must(t, err)
				same := slices.Equal(now.Seen, was.Seen) && slices.Equal(now.Leaves, was.Leaves) && maps.EqualFunc(now.Facts, was.Facts, postgres.Facts.Equal)
				if still && (!same || now.Visible != was.Visible || now.Horizon != was.Horizon) {
					t.Errorf("%s: a look is spared that would find\n%+v, and not\n%+v", c.happens, now, was)
				}
			}
		})
	}
}

// A standby does not tell which transactions run, so there everything that is replayed counts.
func TestALookAtAStandbyIsSparedWhileNothingIsReplayed(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{Major: 16})
	db.Exec("create table leat_t (id int primary key); create table leat_o (id int primary key)")
	standby := db.Standby()
	oldest, other := db.Connect(), db.Connect()
	in := func(c *pgx.Conn, sql string) { _, err := c.Exec(t.Context(), sql); must(t, err) }
	in(oldest, "begin; insert into leat_o values (1)") // it stays the oldest
	in(other, "begin; alter table leat_t replica identity full")
	db.Exec("insert into leat_o values (2)")
	db.CatchUp(standby)
	s := sourceOf(t, standby)
	o := postgres.LookOptions{Selection: tablesLike("leat"), Tables: []uint32{oidOf(db, "leat_t")}, Publications: []string{"leat_p"}}
	was, err := s.Look(t.Context(), o)
	must(t, err)
	if still, err := s.Still(t.Context(), &was); !still || err != nil {
		t.Errorf("at rest: %t, %v", still, err)
	}
	in(other, "commit")
	db.CatchUp(standby)
	now, err := s.Look(t.Context(), o)
	must(t, err)
	if now.Visible != was.Visible || now.Facts[o.Tables[0]].Equal(was.Facts[o.Tables[0]]) {
		t.Fatalf("the standby tells of the commit by itself: %s, %s", was.Visible, now.Visible)
	}
	if still, err := s.Still(t.Context(), &was); still || err != nil {
		t.Errorf("after a commit that the visible transactions do not tell of: %t, %v", still, err)
	}
	in(oldest, "rollback")
}
