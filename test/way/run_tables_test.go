package way_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// table describes a table of the database, for comparisons.
func (p *pipeline) table(name string) followed {
	p.t.Helper()
	all := tables(p.db)
	i := slices.IndexFunc(all, func(f followed) bool { return f.name == name })
	if i < 0 {
		p.t.Fatalf("there is no table %s", name)
	}
	return all[i]
}

// inLake reads a table of the lake with PyIceberg.
func (p *pipeline) inLake(f followed) rows {
	p.t.Helper()
	names, all := testlab.PyIceberg(p.t, "file://"+p.lake+"/"+f.schema+"/"+f.name)
	return pick(p.t, f.String(), names, all, f.columns)
}

// equal waits until the lake holds exactly the rows of a query, which are those of the followed table or a part of them.
func (p *pipeline) equal(f followed, query string) {
	p.t.Helper()
	var truth, lake rows
	defer func() {
		if d := truth.difference(lake); d != "" {
			p.t.Errorf("%s:%s", f, d)
		}
	}()
	wait(p.t, f.String()+" in the lake is that of the source", func() bool {
		truth, lake = sorted(p.db.Query(query)), p.inLake(f)
		return truth.difference(lake) == ""
	})
}

// same waits until the lake has the whole table.
func (p *pipeline) same(names ...string) {
	p.t.Helper()
	for _, name := range names {
		f := p.table(name)
		p.equal(f, p.db.One("select 'select ' || string_agg(case typcategory when 'A' then format('to_json(%I)', attname) else quote_ident(attname) end, ', ' order by attnum) || ' from "+
			f.String()+"' from pg_attribute a join pg_type t on t.oid = atttypid where attrelid = '"+f.String()+"'::regclass and attnum > 0 and not attisdropped"))
	}
}

// follows waits until tables, and no others, follow the log.
func (p *pipeline) follows(names ...string) {
	p.t.Helper()
	p.until(strings.Join(names, ", ")+" follow the log", func(s status) bool {
		for _, name := range names {
			if s.Tables["public."+name].Phase != "streaming" {
				return false
			}
		}
		return len(s.Tables) == len(names)
	})
}

func TestTablesThatComeAndGoWhileLeatRuns(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table stays (id int primary key); create table goes (id int primary key); create table returns (id int primary key, note text)")
	db.Exec("insert into stays values (1); insert into goes values (1), (2); insert into returns values (1, 'first'), (2, 'first')")
	p := newPipeline(t, db)
	p.run = append(p.run, "--exclude", "public.scratch*")
	run := p.start()
	p.follows("goes", "returns", "stays")
	gone := p.table("goes")

	db.Exec("create table fresh (id int primary key, note text); create table scratch_1 (id int); create table loose (note text)")
	db.Exec("insert into fresh select i, 'before ' || i from generate_series(1, 100) i; insert into stays values (2)")
	db.Exec("drop table goes; drop table returns")
	db.Exec("create table returns (made int, id bigint primary key, note varchar(20)); insert into returns values (7, 2, 'second')")
	db.Exec("insert into fresh values (101, 'after')")
	p.follows("fresh", "returns", "stays")
	db.Exec("update fresh set note = 'changed' where id <= 10; delete from fresh where id = 11; insert into returns values (8, 3, 'third')")
	p.same("fresh", "returns", "stays")
	if left := p.inLake(gone); len(left) != 2 {
		t.Errorf("of the table that was dropped the lake has %v", left)
	}
	if !strings.Contains(run.Stderr(), "tables are left out: the log cannot tell") {
		t.Error("nothing is said of the table without a key")
	}
	if n := copies(run, "public.stays"); n != 1 {
		t.Errorf("a table that nobody touched was copied %d times", n)
	}
	p.end(run)
	p.catchUp()
	p.same("fresh", "returns", "stays")
}

const visitsSQL = `
create table visits (id int, day int, page text, primary key (id, day)) partition by range (day);
create table visits_1 partition of visits for values from (0) to (10);
create table visits_2 partition of visits for values from (10) to (20);
create table stray (page text, day int not null, id int not null, primary key (id, day));
insert into visits select i, i % 20, 'page ' || i from generate_series(1, 200) i;
insert into stray select 'stray ' || i, 30 + i % 10, i from generate_series(1, 50) i`

func TestPartitionsThatComeAndGoBelowATableThatIsFollowedAsOne(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(visitsSQL)
	p := newPipeline(t, db)
	run := p.start()
	p.follows("stray", "visits")

	db.Exec("create table visits_3 partition of visits for values from (20) to (30)")
	db.Exec("create table visits_5 (like visits including all)")
	db.Exec("alter table visits attach partition visits_5 for values from (40) to (50)")
	db.Exec("insert into visits values (1000, 25, 'in a new partition'), (1001, 45, 'in an empty one that was attached')")
	p.same("visits")
	if n := copies(run, "public.visits"); n != 1 {
		t.Errorf("new partitions made the table be copied %d times", n)
	}

	db.Exec("alter table visits attach partition stray for values from (30) to (40)") // with its rows, of which the log tells nothing
	db.Exec("insert into visits values (1002, 35, 'after'); update visits set page = 'changed' where id = 5")
	p.follows("visits")
	p.same("visits")

	before := p.inLake(p.table("visits"))
	db.Exec("alter table visits detach partition visits_1")
	run.WaitFor("partitions were detached or dropped")
	p.follows("visits", "visits_1")
	p.same("visits_1")
	if d := before.difference(p.inLake(p.table("visits"))); d != "" {
		t.Errorf("the rows of the partition that was detached do not stay:%s", d)
	}
	p.do("resync", "--table", "public.visits")
	p.same("visits")
	p.end(run)
}

func TestPartitionsThatComeAndGoAndAreFollowedByThemselves(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(visitsSQL)
	p := newPipeline(t, db).with("run.partitions=leaf")
	p.run = append(p.run, "--table", "public.visits")
	run := p.start()
	p.follows("visits_1", "visits_2")

	gone := followed{schema: "public", name: "visits_1", columns: []string{"id", "day", "page"}}
	before := p.inLake(gone)
	db.Exec("create table visits_3 partition of visits for values from (20) to (30); alter table visits attach partition stray for values from (30) to (40)")
	db.Exec("alter table visits detach partition visits_1")
	db.Exec("insert into visits values (1000, 25, 'in a new partition'), (1001, 35, 'in one that was attached'); update visits set page = 'changed' where id < 20")
	p.follows("stray", "visits_2", "visits_3")
	db.Exec("update visits set day = 31 where id = 152; insert into visits_1 values (2000, 1, 'alone')")
	for _, name := range []string{"stray", "visits_2", "visits_3"} {
		p.equal(followed{schema: "public", name: name, columns: []string{"id", "day", "page"}}, "select id, day, page from "+name)
	}
	if d := before.difference(p.inLake(gone)); d != "" {
		t.Errorf("the partition that was detached does not stay as it was:%s", d)
	}
	p.end(run)
}

func TestAPartitionOfWhichTheLogTellsTooLittleIsRefused(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create table visits (day int, page text) partition by range (day);
create table "Early" partition of visits for values from (0) to (10); insert into visits values (1, 'a')`)
	p := newPipeline(t, db)
	refused := func(r testlab.Result, leaf, mend string) {
		t.Helper()
		if r.Exit != 3 || !strings.Contains(r.Stderr, "key-missing") || !strings.Contains(r.Stderr, leaf) || !strings.Contains(r.Stderr, mend) {
			t.Errorf("leat run ends with %d:\n%s", r.Exit, r.Stderr)
		}
	}
	mend := `ALTER TABLE "public"."Early" REPLICA IDENTITY FULL;`
	root := `ALTER TABLE "public"."visits" REPLICA IDENTITY FULL;`
	refused(p.start("--until-caught-up").WaitWithin(patience), "public.visits, public.Early", root+" "+mend) // all of it at once
	db.Exec(root)
	refused(p.start("--until-caught-up").WaitWithin(patience), "public.Early", mend)
	db.Exec(mend + `update visits set page = 'b'`)
	run := p.start()
	p.follows("visits")
	db.Exec("update visits set page = 'c'")
	p.same("visits")
	db.Exec("create table late partition of visits for values from (10) to (20)")
	run.WaitFor(`tables=public.late hint="ALTER TABLE \"public\".\"late\" REPLICA IDENTITY FULL;`) // the table is left out until then
	db.Exec(`alter table late replica identity full; insert into visits values (11, 'late')`)
	p.same("visits")
	p.end(run)
}
