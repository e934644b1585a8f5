package way_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// Spark names files of a folder as Hadoop does, file:/x or /x, where leat writes file:///x.
func TestARunGoesOnAfterAnotherProgramHasWrittenToALakeTable(t *testing.T) {
	t.Parallel()
	for where, open := range map[string]func(t *testing.T, db *testlab.DB) *foreignLake{"in a folder": inFolder, "in SQLite and S3": inSQLite} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t)
			db.Exec("create table notes (id int primary key, note text); insert into notes select i, 'n' || i from generate_series(1, 100) i; create table others (id int primary key)")
			l := open(t, db)
			l.pipeline.with("run.maintain_interval=0s", "lake.orphan_age=0s").catchUp()
			foreignWriter(t, l)
		})
	}
}

// foreignLake is a lake that Spark writes to as well.
type foreignLake struct {
	*pipeline
	spark   *testlab.Spark
	schema  string // of the tables, with the catalog
	listing string // a further argument of remove_orphan_files
}

func inFolder(t *testing.T, db *testlab.DB) *foreignLake {
	p := newPipeline(t, db)
	spark := testlab.SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": "file://" + p.lake})
	return &foreignLake{pipeline: p, spark: spark, schema: spark.Catalog + ".public"}
}

func inSQLite(t *testing.T, db *testlab.DB) *foreignLake {
	p, store, catalog := newPipeline(t, db), testlab.S3(t), t.TempDir()+"/catalog.db"
	p.in("s3://"+store.Bucket+"/lake", store.Env()...)
	spark := testlab.SparkCatalog(t, store.SparkSettings(map[string]string{
		"catalog-impl": "org.apache.iceberg.jdbc.JdbcCatalog", "uri": "jdbc:sqlite:" + catalog, "warehouse": p.lake, "jdbc.init-catalog-tables": "false", // which leaves a read transaction open
	}))
	p.with("lake.catalog.type=sqlite", "lake.catalog.uri="+catalog, "lake.catalog.name="+spark.Catalog, "lake.format_version=3")
	return &foreignLake{pipeline: p, spark: spark, schema: spark.Catalog + ".public", listing: ", prefix_listing => true"}
}

func inREST(t *testing.T, db *testlab.DB) *foreignLake {
	p, nessie := newPipeline(t, db), testlab.Nessie(t)
	prefix := p.name + "_"
	p.in("s3://"+nessie.Store.Bucket+"/"+p.name, nessie.Store.Env()...)
	p.with("lake.catalog.type=rest", "lake.catalog.uri="+nessie.URI, "lake.catalog.warehouse=warehouse", "lake.namespace_prefix="+prefix)
	spark := testlab.SparkCatalog(t, nessie.SparkSettings())
	return &foreignLake{pipeline: p, spark: spark, schema: spark.Catalog + "." + prefix + "public"}
}

// does lets Spark run a statement; TABLE is the lake's notes, and CALL its catalog's procedures.
func (l *foreignLake) does(sql string) [][]string {
	schema := l.schema[strings.Index(l.schema, ".")+1:]
	_, rows := l.spark.Query(strings.NewReplacer("TABLE", l.schema+".notes", "CALL", "call "+l.spark.Catalog, "NAME", "'"+schema+".notes'").Replace(sql))
	return rows
}

// same holds Spark's view of the tables against the source.
func (l *foreignLake) same(t *testing.T) {
	t.Helper()
	of := tables(l.db)
	judge(t, of, []moment{look(t, l.db, of)}, map[string]reads{"Spark": func(_ followed, table string) ([]string, [][]string) {
		return l.spark.Query("select * from " + l.schema + "." + table)
	}}, nil)
}

func foreignWriter(t *testing.T, p *foreignLake) {
	db, does := p.db, p.does
	ids := func() (ids []string) {
		for _, r := range does("select id from TABLE where id > 90 order by id") {
			ids = append(ids, r[0])
		}
		return ids
	}
	next := 1000
	follows := func(foreign int64, says string) {
		t.Helper()
		next++
		db.Exec(fmt.Sprintf("insert into notes values (%[1]d); update notes set note = 'round %[1]d' where id %% 7 = 0; delete from notes where id = %[1]d - 1; insert into others values (%[1]d)", next))
		r := p.start("--until-caught-up").WaitWithin(patience)
		if r.Exit != 0 || (says == "") == strings.Contains(r.Stderr, "another program") || !strings.Contains(r.Stderr, says) {
			t.Errorf("leat run ends with %d, and is to say %q:\n%s%s", r.Exit, says, r.Stdout, r.Stderr)
		}
		if got := p.status().Tables["public.notes"].Foreign; got != foreign {
			t.Errorf("the status tells of %d rows of other programs, not of %d", got, foreign)
		}
	}

	does("insert into TABLE values (9001, 'of Spark'), (9002, 'of Spark')")
	follows(2, "another program has written to the lake table")
	does("delete from TABLE where id = 9001")
	does("update TABLE set note = 'of Spark' where id = 91")
	follows(5, "another program has written to the lake table")
	follows(5, "") // once is enough
	if got := strings.Join(ids(), " "); got != "91 92 93 94 95 96 97 98 99 100 1003 9002" {
		t.Errorf("the lake has %s", got)
	}

	does("CALL.system.rewrite_data_files(table => NAME, options => map('rewrite-all', 'true'))")
	does("CALL.system.rewrite_manifests(NAME)")
	follows(5, "")
	does("CALL.system.expire_snapshots(table => NAME, retain_last => 1, older_than => timestamp '2100-01-01 00:00:00')")
	does("CALL.system.remove_orphan_files(table => NAME, older_than => timestamp '2020-01-01 00:00:00'" + p.listing + ")")
	p.do("lake", "maintain") // takes nothing away that Spark names in its own way
	follows(5, "")

	run := p.start()
	for i := range 3 {
		p.spark.Commits(fmt.Sprintf("insert into %s.notes values (%d, 'of Spark')", p.schema, 9100+i))
		db.Exec(fmt.Sprintf("insert into notes values (%d); update notes set note = 'beside %d' where id %% 5 = 0", 2000+i, i))
	}
	p.until("the rows that came while leat runs are told", func(s status) bool { return s.Tables["public.notes"].Foreign == 8 })
	wait(t, "changes that came meanwhile are in the lake", func() bool {
		return does("select count(*) from TABLE where note = 'beside 2' or id in (2000, 2001, 2002)")[0][0] == db.One("select count(*) from notes where note = 'beside 2' or id in (2000, 2001, 2002)")
	})
	p.end(run)

	before := does("select snapshot_id from TABLE.snapshots order by committed_at")
	db.Exec("delete from notes where id < 50")
	p.catchUp()
	does("CALL.system.rollback_to_snapshot(NAME, " + before[len(before)-1][0] + ")")
	follows(8, "does not follow from leat's last one")
	p.same(t)

	does("insert into TABLE values (9003, 'of Spark')")
	db.Exec("update notes set note = 'left out'; insert into others values (1)")
	r := p.start("--until-caught-up", "--set", "lake.foreign_writes=stop").WaitWithin(patience)
	if r.Exit != 0 || !strings.Contains(r.Stderr, "the table is left out") || !strings.Contains(r.Stderr, "added or removed 1 rows of the lake table") {
		t.Errorf("a run that is to leave the table alone ends with %d:\n%s", r.Exit, r.Stderr)
	}
	rows, beside := does("select count(*) from TABLE where note = 'left out'"), does("select count(*) from "+p.schema+".others where id = 1")
	if rows[0][0] != "0" || beside[0][0] != "1" {
		t.Errorf("%s changes of the table that is left out are in the lake, and %s of 1 of the other one", rows[0][0], beside[0][0])
	}
	p.do("resync", "--table", "public.notes")
	p.catchUp()
	p.same(t)
}

// Nessie gives tables locations of its own, outside the lake, and tells no snapshot but the last one, without its parent.
func TestARunCopiesATableAgainThatOthersWroteToInACatalogWithoutSnapshots(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table notes (id int primary key, note text); insert into notes select i, 'n' || i from generate_series(1, 100) i; create table others (id int primary key)")
	l := inREST(t, db)
	l.catchUp()
	for i, sql := range []string{"insert into TABLE values (9001, 'of Spark')", "delete from TABLE where id < 20", "CALL.system.rewrite_data_files(table => NAME, options => map('rewrite-all', 'true'))"} {
		l.does(sql)
		for _, r := range l.does("select file_path from TABLE.all_files") {
			if !strings.HasPrefix(r[0], l.lake+"/") {
				t.Errorf("Spark writes %s, outside the lake %s", r[0], l.lake)
			}
		}
		db.Exec(fmt.Sprintf("insert into notes values (%[1]d); update notes set note = 'round %[1]d' where id %% 7 = 0; insert into others values (%[1]d)", 1000+i))
		r := l.start("--until-caught-up").WaitWithin(patience)
		if r.Exit != 0 || !strings.Contains(r.Stderr, "does not follow from leat's last one") || strings.Contains(r.Stderr, "table=public.others") {
			t.Errorf("after %s leat run ends with %d:\n%s", sql, r.Exit, r.Stderr)
		}
		l.same(t)
	}
}
