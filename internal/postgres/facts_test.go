package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// what happens to a partitioned table between two looks, and what is then in doubt. A look that finds nothing saves what it has seen.
var doubtful = []struct {
	happens string
	doubt   string // "" for none
	untold  bool   // there is none if the WAL told it
}{
	{happens: "insert into leat_r select i, i from generate_series(1, 19) i; analyze leat_r"},
	{happens: "create table leat_2 partition of leat_r for values from (20) to (30); insert into leat_r values (20, 20)"},
	{happens: "begin; create table leat_3 partition of leat_r for values from (30) to (40); insert into leat_r values (30, 30); alter table leat_3 owner to postgres; commit"},
	{happens: "create table leat_4 (like leat_r including all); alter table leat_r attach partition leat_4 for values from (40) to (50); insert into leat_r values (40, 40)"},
	{happens: "begin; create table leat_5 (like leat_r including all); alter table leat_r attach partition leat_5 for values from (50) to (60); commit"},
	{happens: "begin; create table leat_6 (id int not null, d int not null, v text); insert into leat_6 values (60, 60); alter table leat_r attach partition leat_6 for values from (60) to (70); commit",
		doubt: "attached with its rows: public.leat_6"},
	{happens: "begin; create table leat_7 (like leat_r including all); savepoint s; insert into leat_7 values (70, 70); release s; alter table leat_r attach partition leat_7 for values from (70) to (80); commit",
		doubt: "attached with its rows: public.leat_7"},
	{happens: "begin; alter table leat_r detach partition leat_2; alter table leat_r attach partition leat_2 for values from (20) to (30); commit", doubt: "detached for a time: public.leat_2"},
	{happens: "vacuum full leat_1; vacuum freeze leat_1; reindex table leat_1; grant select on leat_1 to public; alter table leat_r add x int; create index on leat_r (x)"},
	{happens: "truncate leat_1", doubt: "truncated or written anew", untold: true},
	{happens: "begin; alter table leat_3 set unlogged; alter table leat_3 set logged; commit", doubt: "truncated or written anew"},
	{happens: "alter table leat_3 set unlogged", doubt: "in the WAL now"},
	{happens: "alter table leat_3 replica identity nothing; alter table leat_3 replica identity default"},
	{happens: "begin; alter table leat_1 replica identity nothing; alter table leat_1 replica identity default; commit", doubt: "replica identity may have been"},
	{happens: "create publication leat_p for table only leat_f; create publication leat_q for table leat_f", doubt: "the publication was changed"},
	{happens: "alter publication leat_p set (publish = 'insert'); alter publication leat_p set (publish = 'insert, update, delete, truncate')", doubt: "the publication was changed"},
	{happens: "alter publication leat_p drop table only leat_f; alter publication leat_p add table only leat_f", doubt: "the publication was changed"},
	{happens: "alter publication leat_q set (publish = 'insert')"},
	{happens: "drop publication leat_p; create publication leat_p for table only leat_f", doubt: "the publication was changed"},
	{happens: "truncate leat_f; vacuum full leat_f; grant select on leat_f to public; alter table leat_f drop constraint leat_f_pkey, add primary key (id)"},
	{happens: "begin; alter table leat_f replica identity full; alter table leat_f drop constraint leat_f_pkey, add primary key (id); alter table leat_f replica identity default; commit",
		doubt: "primary key was dropped"},
	{happens: "alter table leat_f drop constraint leat_f_pkey, add primary key (id)"},
	{happens: "alter publication leat_p add table only leat_n", doubt: "the publication was changed"},
	{happens: "insert into leat_f values (1, 'a'); insert into leat_n values (1, 1)"},
	{happens: "alter table leat_f alter v type text using v || 'x'", doubt: "the column v may have other values"},
	{happens: "begin; alter table leat_n alter b type bigint; alter table leat_n alter b type int using b + 1; commit", doubt: "the column b may have other values"},
	{happens: "begin; alter table leat_n alter b type bigint using b * 2; alter table leat_n alter c type int using c + 1; commit", doubt: "the column c may have other values"},
	{happens: "alter table leat_n alter b type numeric using b * 2", doubt: "the column b was added or has another type", untold: true},
	{happens: "alter table leat_f add w timestamptz default clock_timestamp()", doubt: "the column w was added", untold: true},
	{happens: "alter table leat_f alter v type text; alter table leat_f add x int default 1; vacuum full leat_f"},
	{happens: "truncate leat_n; insert into leat_n values (1, 1); vacuum full leat_n; reindex table leat_n"},
	{happens: "vacuum full leat_n; alter table leat_n alter b set default 1; alter table leat_n alter b set not null"},
	{happens: "truncate leat_f; alter table leat_f alter v set default 'x'; insert into leat_f values (2, 'b')"},
	{happens: "alter table leat_f replica identity full"},
	{happens: "alter table leat_f drop constraint leat_f_pkey, add primary key (id)", doubt: "primary key was dropped"},
	{happens: "create unlogged table leat_8 partition of leat_r for values from (80) to (90); insert into leat_8 values (80, 80); alter table leat_8 set logged",
		doubt: "filled while it was unlogged, or attached with its rows: public.leat_8"},
	{happens: "create table leat_9 partition of leat_r for values from (90) to (99); insert into leat_9 values (90, 90); vacuum full leat_9; cluster leat_9 using leat_9_pkey"},
}

func TestALookDoubtsWhatTheWALMayNotHaveTold(t *testing.T) {
	t.Parallel()
	for _, major := range testlab.Majors {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			judgeDoubts(t, testlab.OwnPostgres(t, testlab.ServerOptions{Major: major})) // another test's open transaction makes a look less sure
		})
	}
}

func judgeDoubts(t *testing.T, db *testlab.DB) {
	s := sourceOf(t, db)
	db.Exec(`create table leat_r (id int, d int, v text, primary key (id, d)) partition by range (d); create table leat_1 partition of leat_r for values from (0) to (20);
create table leat_f (id int primary key, v text); create table leat_n (id int primary key, b int, c int)`)
	all := func(many []postgres.Name, _ []string) (picked []int, _ error) {
		for i := range many {
			picked = append(picked, i)
		}
		return picked, nil
	}
	o := postgres.LookOptions{
		Selection: postgres.Selection{Choose: all, PartitionRoots: true}, Publications: []string{"leat_p"},
		Tables: []uint32{oidOf(db, "leat_r"), oidOf(db, "leat_f"), oidOf(db, "leat_n")}, Roots: []uint32{oidOf(db, "leat_r")},
	}
	for _, c := range doubtful {
		before, err := s.Look(t.Context(), o)
		must(t, err)
		o.Known, o.Horizon = map[uint32]postgres.Facts{}, before.Horizon
		for table, facts := range before.Facts {
			saved, ok := postgres.ParseFacts(facts.String())
			if !ok || !saved.Equal(facts) {
				t.Fatalf("%q is read as %+v, want %+v", facts, saved, facts)
			}
			o.Known[table] = saved
		}
		for statement := range strings.SplitSeq(c.happens, "; ") {
			db.Exec(statement)
		}
		now, err := s.Look(t.Context(), o)
		must(t, err)
		switch {
		case c.doubt == "" && len(now.Doubts) > 0, c.doubt != "" && len(now.Doubts) != 1:
			t.Errorf("%s: in doubt is %+v", c.happens, now.Doubts)
		case c.doubt != "" && (!strings.Contains(now.Doubts[0].Because, c.doubt) || now.Doubts[0].Certain() == c.untold):
			t.Errorf("%s: in doubt is %+v, want %s", c.happens, now.Doubts, c.doubt)
		}
	}
	if _, ok := postgres.ParseFacts("nothing of ours"); ok {
		t.Error("any text is taken for facts")
	}
}

func oidOf(db *testlab.DB, table string) uint32 {
	var oid uint32
	for _, c := range db.One("select '" + table + "'::regclass::oid") {
		oid = oid*10 + uint32(c-'0')
	}
	return oid
}
