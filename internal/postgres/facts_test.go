package postgres_test

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// what happens to a partitioned table between two looks, and what is then in doubt. A look that finds nothing saves what it has seen.
var doubtful = []struct {
	happens string
	doubt   string // "" for none
	untold  bool   // there is none if the WAL told it
	altered bool   // the WAL has to tell a definition too
}{
	{happens: "insert into leat_r select i, i from generate_series(1, 19) i; analyze leat_r"},
	{happens: "create table leat_2 partition of leat_r for values from (20) to (30); insert into leat_r values (20, 20)"},
	{happens: "begin; create table leat_3 partition of leat_r for values from (30) to (40); insert into leat_r values (30, 30); alter table leat_3 owner to postgres; commit"},
	{happens: "create table leat_4 (like leat_r including all); vacuum analyze leat_4; alter table leat_r attach partition leat_4 for values from (40) to (50)"},
	{happens: "begin; create table leat_5 (like leat_r including all); alter table leat_r attach partition leat_5 for values from (50) to (60); commit"},
	{happens: "begin; create table leat_6 (id int not null, d int not null, v text); insert into leat_6 values (60, 60); alter table leat_r attach partition leat_6 for values from (60) to (70); commit",
		doubt: "had some once: public.leat_6"},
	{happens: "begin; create table leat_7 (like leat_r including all); savepoint s; insert into leat_7 values (70, 70); release s; alter table leat_r attach partition leat_7 for values from (70) to (80); commit",
		doubt: "had some once: public.leat_7"},
	{happens: "begin; alter table leat_r detach partition leat_2; alter table leat_r attach partition leat_2 for values from (20) to (30); commit", doubt: "detached for a time: public.leat_2"},
	{happens: "vacuum full leat_1; vacuum freeze leat_1; reindex table leat_1; grant select on leat_1 to public; alter table leat_r add x int; create index on leat_r (x)"},
	{happens: "truncate leat_1", doubt: "truncated or written anew", untold: true},
	{happens: "truncate leat_1; alter table leat_r rename x to y", doubt: "truncated or written anew", untold: true, altered: true},
	{happens: "alter table leat_r rename y to x; truncate leat_1", doubt: "truncated or written anew", untold: true, altered: true},
	{happens: "begin; alter table leat_3 set unlogged; alter table leat_3 set logged; commit", doubt: "truncated or written anew"},
	{happens: "alter table leat_3 set unlogged", doubt: "in the WAL now"},
	{happens: "begin; create table leat_8 (like leat_r including all); alter table leat_r attach partition leat_8 for values from (80) to (90); insert into leat_r values (80, 80), (81, 81); commit"},
	{happens: "begin; create table leat_9 partition of leat_r for values from (90) to (100); insert into leat_r values (90, 90); alter table leat_r detach partition leat_9; delete from leat_9; " +
		"alter table leat_r attach partition leat_9 for values from (90) to (100); insert into leat_r values (91, 91); commit", doubt: "had some once: public.leat_9"},
	{happens: "create table leat_10 (like leat_r including all); 2: begin; 2: select txid_current(); insert into leat_10 values (100, 100); " +
		"2: alter table leat_r attach partition leat_10 for values from (100) to (110); 2: commit", doubt: "had some once: public.leat_10"},
	{happens: "begin; create table leat_15 (like leat_r including all); insert into leat_15 values (150, 150); commit; alter table leat_r attach partition leat_15 for values from (150) to (160)",
		doubt: "had some once: public.leat_15"},
	{happens: "create unlogged table leat_11 partition of leat_r for values from (110) to (120); insert into leat_r values (110, 110); alter table leat_11 set logged", doubt: "made and then truncated"},
	{happens: "create table leat_12 partition of leat_r for values from (120) to (130); insert into leat_r values (120, 120); truncate leat_12", doubt: "made and then truncated", untold: true},
	{happens: "create table leat_16 partition of leat_r for values from (160) to (170); insert into leat_r values (160, 160); vacuum full leat_16", doubt: "made and then truncated", untold: true},
	{happens: "create table leat_13 partition of leat_r for values from (130) to (140); insert into leat_r values (130, 130); alter table leat_r detach partition leat_13; " +
		"delete from leat_13; vacuum leat_13; alter table leat_r attach partition leat_13 for values from (130) to (140)", doubt: "had some once: public.leat_13"},
	{happens: "alter table leat_r detach partition leat_12; create table leat_14 partition of leat_r for values from (140) to (150); insert into leat_r values (140, 140)"},
	{happens: "alter table leat_r detach partition leat_14"},
	{happens: "delete from leat_14; alter table leat_r attach partition leat_14 for values from (140) to (150)", doubt: "had some once: public.leat_14"},
	{happens: "alter table leat_3 replica identity nothing; alter table leat_3 replica identity default"},
	{happens: "begin; alter table leat_1 replica identity nothing; alter table leat_1 replica identity default; commit", doubt: "replica identity of a partition"},
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
	{happens: "alter table leat_f alter v type text using v || 'x'", doubt: "keep their type (ALTER … TYPE … USING, or SET EXPRESSION), v:", untold: true},
	{happens: "begin; alter table leat_n alter b type bigint; alter table leat_n alter b type int using b + 1; commit", doubt: "SET EXPRESSION), b:", untold: true},
	{happens: "begin; alter table leat_n alter b type bigint using b * 2; alter table leat_n alter c type int using c + 1; commit", doubt: "SET EXPRESSION), c:", untold: true},
	{happens: "alter table leat_n alter c type int using c + 1; alter table leat_n alter b type numeric; grant select on leat_n to public; alter table leat_n alter b set default 1", doubt: "SET EXPRESSION), c:", untold: true},
	{happens: "alter table leat_n alter c type int using c + 1; alter table leat_n add d timestamptz default clock_timestamp(); alter table leat_n drop d", doubt: "SET EXPRESSION), c:", untold: true},
	{happens: "alter table leat_n alter b type bigint", doubt: "the column b was added or has another type", untold: true},
	{happens: "alter table leat_n alter b type numeric using b * 2", doubt: "the column b was added or has another type", untold: true},
	{happens: "alter table leat_f add w timestamptz default clock_timestamp()", doubt: "the column w was added", untold: true},
	{happens: "alter table leat_f alter v type text; alter table leat_f add x int default 1; vacuum full leat_f"},
	{happens: "truncate leat_n; alter table leat_n alter c type int using c + 1"}, // it is empty
	{happens: "truncate leat_n; insert into leat_n values (1, 1); vacuum full leat_n; reindex table leat_n"},
	{happens: "alter table leat_n alter c set default 5; alter table leat_n alter b type text", doubt: "SET EXPRESSION), c:", untold: true}, // by their values it shows that there is none
	{happens: "alter table leat_n alter c type int using c + 1; alter table leat_n alter c set default 6", doubt: "SET EXPRESSION), c:", untold: true},
	{happens: "vacuum full leat_n; alter table leat_n alter b set default 1; alter table leat_n alter b set not null"},
	{happens: "truncate leat_f; alter table leat_f alter v set default 'x'; insert into leat_f values (2, 'b')"},
	{happens: "alter table leat_f replica identity full"},
	{happens: "alter table leat_f drop constraint leat_f_pkey, add primary key (id)", doubt: "primary key was dropped"},
	{happens: "alter table leat_s replica identity using index leat_s_k_d_key; alter table leat_s replica identity default", doubt: "replica identity of a partition or its root"},
	{happens: "alter table leat_s replica identity using index leat_s_k_d_key; alter table leat_s replica identity default; grant insert on leat_s to public", doubt: "replica identity of a partition or its root"},
	{happens: "alter table leat_s_1 replica identity using index leat_s_1_k_d_key; alter table leat_s_1 replica identity default; vacuum full leat_s_1", doubt: "replica identity of a partition or its root"},
	{happens: "cluster leat_s_0 using leat_s_0_pkey; create index on leat_s (k)"},
	{happens: "cluster leat_s_1 using leat_s_1_k_d_key; alter table leat_s_1 set (fillfactor = 80)", doubt: "replica identity of a partition or its root"},
	{happens: "cluster leat_s_1"},
	{happens: "grant select on all tables in schema public to public"},
	{happens: "grant select on all tables in schema public to public; create table leat_late (id int); grant select on leat_late to public"},
	{happens: "begin; alter table leat_s_1 replica identity nothing; alter table leat_s_1 replica identity default; alter table leat_n set (fillfactor = 90); commit", doubt: "replica identity of a partition or its root"},
	{happens: "create unlogged table leat_s_2 partition of leat_s for values from (10) to (20); insert into leat_s values (10, 10, 10)"},
	{happens: "vacuum full leat_s_2; truncate leat_s_2; insert into leat_s values (11, 11, 11)"},
	{happens: "alter table leat_s_2 set logged; insert into leat_s values (12, 12, 12); alter table leat_s_2 set unlogged", doubt: "may have been logged for a time"},
	{happens: "create table leat_s_3 partition of leat_s for values from (20) to (30); insert into leat_s values (20, 20, 20); alter table leat_s_3 set unlogged",
		doubt: "not logged may have been for a time: public.leat_s_3"},
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
create table leat_f (id int primary key, v text); create table leat_n (id int primary key, b int, c int);
create table leat_s (id int, d int, k int not null, v text, primary key (id, d), unique (k, d)) partition by range (d); create table leat_s_0 partition of leat_s for values from (-9) to (0);
create table leat_s_1 partition of leat_s for values from (0) to (10); insert into leat_s values (0, -1, 0), (1, 1, 1)`)
	second := db.Connect()
	all := func(many []postgres.Name, _ []string) (picked []int, _ error) {
		for i := range many {
			picked = append(picked, i)
		}
		return picked, nil
	}
	o := postgres.LookOptions{
		Selection: postgres.Selection{Choose: all, PartitionRoots: true}, Publications: []string{"leat_p"},
		Tables: []uint32{oidOf(db, "leat_r"), oidOf(db, "leat_f"), oidOf(db, "leat_n"), oidOf(db, "leat_s")}, Roots: []uint32{oidOf(db, "leat_r"), oidOf(db, "leat_s")},
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
			if by2, ok := strings.CutPrefix(statement, "2: "); ok {
				_, err := second.Exec(t.Context(), by2)
				must(t, err)
			} else {
				db.Exec(statement)
			}
		}
		now, err := s.Look(t.Context(), o)
		must(t, err)
		now.Doubts = slices.DeleteFunc(now.Doubts, func(d postgres.Doubt) bool { return d.Altered && c.doubt == "" })
		switch {
		case c.doubt == "" && len(now.Doubts) > 0, c.doubt != "" && len(now.Doubts) != 1:
			t.Errorf("%s: in doubt is %+v", c.happens, now.Doubts)
		case c.doubt != "" && (!strings.Contains(now.Doubts[0].Because, c.doubt) || now.Doubts[0].Certain() == c.untold):
			t.Errorf("%s: in doubt is %+v, want %s", c.happens, now.Doubts, c.doubt)
		case c.doubt != "" && len(now.Doubts[0].Truncated) > 0 && now.Doubts[0].Redefined != c.altered:
			t.Errorf("%s: in doubt is %+v, a definition among it: want %t", c.happens, now.Doubts, c.altered)
		}
	}
	if _, ok := postgres.ParseFacts("nothing of ours"); ok {
		t.Error("any text is taken for facts")
	}
}

// A name may be another table's by the time that a look asks for rows, and a role may read a root and not its partitions.
func TestALookAsksTheRelationThatItMeans(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	role := db.Role("REPLICATION")
	db.Exec(`create table leat_r (id int, d int, primary key (id, d)) partition by range (d); create table leat_1 partition of leat_r for values from (0) to (10);
insert into leat_r values (1, 1); create table leat_other as table leat_r; grant select on leat_r to ` + role.Name)
	limited, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: role.URL})
	must(t, err)
	o := postgres.LookOptions{Selection: tablesLike("leat"), Publications: []string{"leat_p"}, Tables: []uint32{oidOf(db, "leat_r")}}
	before, err := limited.Look(t.Context(), o)
	must(t, err)
	o.Known, o.Horizon = before.Facts, before.Horizon
	db.Exec("create table leat_2 (like leat_r including all); alter table leat_r attach partition leat_2 for values from (10) to (20)")
	empty, err := limited.Look(t.Context(), o)
	must(t, err)
	if len(empty.Doubts) > 0 {
		t.Errorf("a partition that is empty is in doubt: %+v", empty.Doubts)
	}
	db.Exec("truncate leat_1")
	moving := db.Connect()
	_, err = moving.Exec(t.Context(), "begin; alter table leat_1 rename to leat_was; alter table leat_other rename to leat_1")
	must(t, err)
	seen := make(chan postgres.Sight, 1)
	s := sourceOf(t, db)
	go func() {
		defer close(seen)
		if sight, err := s.Look(t.Context(), o); err == nil {
			seen <- sight
		}
	}()
	waiting := "select count(*) > 0 from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
	for db.One(waiting) != "t" && t.Context().Err() == nil {
		runtime.Gosched()
	}
	_, err = moving.Exec(t.Context(), "commit")
	must(t, err)
	if sight := <-seen; len(sight.Doubts) != 1 || !strings.Contains(sight.Doubts[0].Because, "truncated or written anew") {
		t.Errorf("a table that has the partition's name by now answers for it: %+v", sight.Doubts)
	}
}

// To judge rows takes the table's lock. A table that another session holds is known as before until it does not; the others are judged.
func TestALookDoesNotJudgeATableThatIsLocked(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	s := sourceOf(t, db)
	db.Exec(`create table leat_r (id int, d int, v text, primary key (id, d)) partition by range (d); create table leat_1 partition of leat_r for values from (0) to (10);
create table leat_2 (like leat_r including all); create table leat_n (id int primary key, n int); insert into leat_n values (1, 1); insert into leat_r values (1, 1)`)
	o := postgres.LookOptions{Selection: tablesLike("leat"), Tables: []uint32{oidOf(db, "leat_n"), oidOf(db, "leat_r")}, Publications: []string{"leat_p"}}
	before, err := s.Look(t.Context(), o)
	must(t, err)
	o.Known, o.Horizon = before.Facts, before.Horizon
	db.Exec("alter table leat_n replica identity full; alter table leat_n drop constraint leat_n_pkey")
	db.Exec("insert into leat_2 values (12, 12); alter table leat_r attach partition leat_2 for values from (10) to (20); truncate leat_1; insert into leat_r values (2, 2)")
	holder := db.Connect()
	_, err = holder.Exec(t.Context(), "begin; lock table leat_1, leat_2 in access exclusive mode")
	must(t, err)
	held, err := s.Look(t.Context(), o)
	must(t, err)
	root, flat := oidOf(db, "leat_r"), oidOf(db, "leat_n")
	if !fault.Is(held.Locked, fault.SourceTimeout) || !held.Facts[root].Equal(before.Facts[root]) || held.Horizon != before.Horizon {
		t.Errorf("while it is locked: %v, %+v", held.Locked, held.Facts[root])
	}
	if len(held.Doubts) != 1 || held.Doubts[0].Table != flat {
		t.Errorf("in doubt are %+v", held.Doubts)
	}
	_, err = holder.Exec(t.Context(), "commit")
	must(t, err)
	if then, err := s.Look(t.Context(), o); err != nil || then.Locked != nil || len(then.Doubts) != 2 || then.Facts[root].Equal(before.Facts[root]) {
		t.Errorf("then: %v, %v, %+v", err, then.Locked, then.Doubts)
	}
}

// A role with rights on columns alone does not see which transactions wrote rows. That it cannot look is no proof.
func TestALookThatMayNotSeeWhoWroteRowsDoubts(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{})
	role := db.Role("REPLICATION")
	db.Exec(`create table leat_n (id int primary key, n int, m int); insert into leat_n values (1, 1, 1); create publication leat_p for table leat_n;
grant select (id, n, m) on leat_n to ` + role.Name)
	limited, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: role.URL})
	must(t, err)
	o := postgres.LookOptions{Selection: tablesLike("leat"), Publications: []string{"leat_p"}, Tables: []uint32{oidOf(db, "leat_n")}}
	for _, c := range []struct {
		happens string
		columns []int16
	}{
		{"alter table leat_n alter n type int using n + 1", []int16{2}},
		{"alter table leat_n alter n type int using n + 1, alter m type int using m + 1", []int16{2, 3}},
		{"vacuum full leat_n", nil},
		{"alter table leat_n alter n set default 5", nil},
	} {
		before, err := limited.Look(t.Context(), o)
		must(t, err)
		o.Known, o.Horizon = before.Facts, before.Horizon
		db.Exec(c.happens)
		now, err := limited.Look(t.Context(), o)
		must(t, err)
		var columns []int16
		for _, d := range now.Doubts {
			columns = append(columns, d.Columns...)
		}
		if !slices.Equal(columns, c.columns) {
			t.Errorf("%s: in doubt is %+v, want columns %v", c.happens, now.Doubts, c.columns)
		}
	}
}

func oidOf(db *testlab.DB, table string) uint32 {
	var oid uint32
	for _, c := range db.One("select '" + table + "'::regclass::oid") {
		oid = oid*10 + uint32(c-'0')
	}
	return oid
}

// A table that another session has locked, for a VACUUM FULL of hours, is no reason to wait before anything is known of the others.
func TestNoLookWaitsForALock(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 15, 18} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			db.Exec(`create table root (id int, d int, v text, primary key (id, d)) partition by range (d); create table mid partition of root for values from (0) to (10) partition by range (d);
create table leaf partition of mid for values from (0) to (5); create table flat (id int primary key, v text); create table heir () inherits (flat);
insert into root select i, 1, repeat('x', 1000) from generate_series(1, 100) i; insert into flat select i, 'v' from generate_series(1, 100) i`)
			roots := map[bool]string{true: " with (publish_via_partition_root = true)"}[major >= 13]
			if major >= 13 {
				db.Exec("create publication leat_p for table root, flat" + roots)
			} else {
				db.Exec("create publication leat_p for table leaf, flat")
			}
			db.Exec("vacuum analyze leaf")
			db.Exec("vacuum analyze flat")
			s := sourceOf(t, db)
			all := func(many []postgres.Name, _ []string) (picked []int, _ error) {
				for i := range many {
					picked = append(picked, i)
				}
				return picked, nil
			}
			o := postgres.LookOptions{
				Selection: postgres.Selection{Choose: all, PartitionRoots: true}, Publications: []string{"leat_p"},
				Tables: []uint32{oidOf(db, "root"), oidOf(db, "flat")}, Roots: []uint32{oidOf(db, "root")},
			}
			conn := db.Connect()
			defer conn.Close(t.Context())
			_, err := conn.Exec(t.Context(), "begin; lock table root, mid, leaf, flat in access exclusive mode")
			must(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			sight, err := s.Look(ctx, o)
			must(t, err)
			root, flat := sight.Facts[oidOf(db, "root")].Relations, sight.Facts[oidOf(db, "flat")].Relations
			if len(sight.Leaves) != 1 || len(root) != 3 || root[oidOf(db, "leaf")].Parent != oidOf(db, "mid") || len(flat) != 1 {
				t.Errorf("leaves are %v; the root is made of %v, the flat table of %v", sight.Leaves, root, flat)
			}
			if given, err := s.Published(ctx, o.Publications); err != nil || len(given) != 3 && len(given) != 2 {
				t.Errorf("the publication gives %+v, %v", given, err)
			}
			catalog := s.Catalog()
			for _, name := range []string{"root", "flat"} {
				if table, err := catalog.Table(ctx, oidOf(db, name)); err != nil || table.Bytes == 0 {
					t.Errorf("%s: %v, %+v", name, err, table)
				}
			}
		})
	}
}
