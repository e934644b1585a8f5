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
	for version := 2; version <= 3; version++ {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			t.Parallel()
			foreignWriter(t, version)
		})
	}
}

func foreignWriter(t *testing.T, version int) {
	db := testlab.Postgres(t)
	db.Exec("create table notes (id int primary key, note text); insert into notes select i, 'n' || i from generate_series(1, 100) i; create table others (id int primary key)")
	p := newPipeline(t, db).with("run.maintain_interval=0s", "lake.orphan_age=0s", fmt.Sprintf("lake.format_version=%d", version))
	p.catchUp()
	spark := testlab.SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": "file://" + p.lake})
	does := func(sql string) { spark.Query(strings.ReplaceAll(sql, "CATALOG", spark.Catalog)) }
	ids := func() (ids []string) {
		_, rows := spark.Query("select id from " + spark.Catalog + ".public.notes where id > 90 order by id")
		for _, r := range rows {
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

	does("insert into CATALOG.public.notes values (9001, 'of Spark'), (9002, 'of Spark')")
	follows(2, "another program has written to the lake table")
	does("delete from CATALOG.public.notes where id = 9001")
	does("update CATALOG.public.notes set note = 'of Spark' where id = 91")
	follows(5, "another program has written to the lake table")
	follows(5, "") // once is enough
	if got := strings.Join(ids(), " "); got != "91 92 93 94 95 96 97 98 99 100 1003 9002" {
		t.Errorf("the lake has %s", got)
	}

	does("call CATALOG.system.rewrite_data_files(table => 'public.notes', options => map('rewrite-all', 'true'))")
	does("call CATALOG.system.rewrite_manifests('public.notes')")
	follows(5, "")
	does("call CATALOG.system.expire_snapshots(table => 'public.notes', retain_last => 1, older_than => timestamp '2100-01-01 00:00:00')")
	does("call CATALOG.system.remove_orphan_files(table => 'public.notes', older_than => timestamp '2020-01-01 00:00:00')")
	p.do("lake", "maintain") // takes nothing away that Spark names in its own way
	follows(5, "")

	_, before := spark.Query(strings.ReplaceAll("select snapshot_id from CATALOG.public.notes.snapshots order by committed_at", "CATALOG", spark.Catalog))
	db.Exec("delete from notes where id < 50")
	p.catchUp()
	does("call CATALOG.system.rollback_to_snapshot('public.notes', " + before[len(before)-1][0] + ")")
	follows(5, "does not follow from leat's last one")
	of := tables(db)
	how, history := judges(t, p.lake)
	judge(t, of, []moment{look(t, db, of)}, how, history)

	does("insert into CATALOG.public.notes values (9003, 'of Spark')")
	db.Exec("update notes set note = 'left out'; insert into others values (1)")
	r := p.start("--until-caught-up", "--set", "lake.foreign_writes=stop").WaitWithin(patience)
	if r.Exit != 0 || !strings.Contains(r.Stderr, "the table is left out") || !strings.Contains(r.Stderr, "added or removed 1 rows of the lake table") {
		t.Errorf("a run that is to leave the table alone ends with %d:\n%s", r.Exit, r.Stderr)
	}
	_, rows := spark.Query("select count(*) from " + spark.Catalog + ".public.notes where note = 'left out'")
	_, beside := spark.Query("select count(*) from " + spark.Catalog + ".public.others where id = 1")
	if rows[0][0] != "0" || beside[0][0] != "1" {
		t.Errorf("%s changes of the table that is left out are in the lake, and %s of 1 of the other one", rows[0][0], beside[0][0])
	}
	p.do("resync", "--table", "public.notes")
	p.catchUp()
	how, history = judges(t, p.lake)
	judge(t, of, []moment{look(t, db, of)}, how, history)
}
