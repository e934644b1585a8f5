package way_test

import (
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

func TestARenamedTableIsFollowedUnderItsNewName(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table a (id int primary key, note text); create table fresh (extra int, note text, id int primary key)")
	db.Exec("insert into a values (1, 'of old'), (2, 'of old'); insert into fresh values (1, 'new', 1)")
	p := newPipeline(t, db)
	run := p.start()
	defer func() {
		if t.Failed() {
			t.Log(run.Stderr())
		}
	}()
	p.follows("a", "fresh")

	db.Exec("alter table a rename to old; insert into old values (3, 'before anybody has noticed')")
	p.follows("old", "fresh")
	p.same("old")
	gone := followed{schema: "public", name: "a", columns: []string{"id", "note"}}
	if left := p.inLake(gone); len(left) < 2 {
		t.Errorf("under the name of before the lake has %v", left)
	}
	db.Exec("insert into old values (4, 'later'); alter table fresh rename to a; update a set note = 'renamed'")
	p.follows("a", "old")
	p.same("a", "old")
	db.Exec("begin; alter table a rename to between; alter table old rename to a; alter table between rename to old; commit")
	db.Exec("insert into a values (5, 'swapped'); insert into old values (6, 'swapped', 6)")
	wait(t, "both are copied anew", func() bool { return copies(run, "public.a") >= 3 && copies(run, "public.old") >= 2 })
	p.follows("a", "old")
	p.same("a", "old")
	p.end(run)
	db.Exec("delete from a where id = 1; alter table old rename to a_new; insert into a_new values (7, 'while leat was down', 7)")
	p.catchUp()
	p.same("a", "a_new")
}

// What others make or drop in the database does not end a pipeline that follows all of it.
func TestATableThatCannotBeFollowedDoesNotEndAPipelineAtWork(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	role := db.Role("REPLICATION")
	db.Exec("grant create on database " + db.Name + " to " + role.Name + "; create table notes (id int primary key); create table named (id int primary key); insert into notes values (1)")
	db.Exec("alter table notes owner to " + role.Name + "; alter table named owner to " + role.Name)
	p := newPipeline(t, db)
	p.env, p.all[1] = db.EnvOf(role), role.Bare
	p.run = append(p.run, "--table", "public.*", "--table", "public.named")
	run := p.start()
	p.follows("named", "notes")
	db.Exec("create unlogged table fleeting (id int primary key); create table secret (id int primary key); create table theirs (id int primary key)")
	db.Exec("grant select on theirs to " + role.Name + "; drop table named")
	for _, says := range []string{
		`the log does not tell of unlogged tables" table=public.fleeting`, `table=public.secret because="public.secret: the role may not read it"`,
		`table=public.theirs because="public.theirs: the role does not own it`, "public.named: there is no such table",
	} {
		run.WaitFor(says)
	}
	db.Exec("insert into notes values (2)")
	p.follows("notes")
	p.same("notes")
	p.end(run)
	db.Exec("alter table theirs owner to " + role.Name + "; insert into theirs values (7)")
	p.catchUp()
	p.same("notes", "theirs")

	p = newPipeline(t, db)
	p.env, p.all[1] = db.EnvOf(role), role.Bare
	p.run = append(p.run, "--table", "public.named", "--table", "public.notes")
	if r := p.start("--until-caught-up").WaitWithin(patience); r.Exit != 3 || !strings.Contains(r.Stderr, "public.named: there is no such table") {
		t.Errorf("a pipeline that begins ends with %d:\n%s", r.Exit, r.Stderr)
	}
}

func TestAGivenPublicationThatLacksANewTableGoesOn(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 18)
	db.Exec("create table notes (id int primary key, twice int generated always as (id * 2) stored); insert into notes values (1)")
	db.Exec("create publication mine for table notes with (publish_via_partition_root = true)")
	p := newPipeline(t, db).with("run.own_publication=false", "run.publication=mine", "run.generated=leave_out")
	run := p.start()
	p.follows("notes")
	db.Exec("create table more (id int primary key); insert into notes values (2)")
	run.WaitFor(`table=public.more because="public.more: the publication lacks it"`)
	p.follows("notes")
	notes := followed{schema: "public", name: "notes", columns: []string{"id"}}
	p.equal(notes, "select id from notes")
	if names, _ := testlab.PyIceberg(t, "file://"+p.lake+"/public/notes"); len(names) != 1 {
		t.Errorf("the publication gives no generated columns, and the lake has %v", names)
	}
	if strings.Contains(run.Stderr(), "the table's definition has changed") {
		t.Errorf("the copy and the log are of two definitions:\n%s", run.Stderr())
	}
	p.end(run)
	db.Exec("alter publication mine set (publish_generated_columns = stored); alter publication mine add table more; insert into notes values (3)")
	p.catchUp()
	p.same("more")
	notes.columns = append(notes.columns, "twice")
	p.equal(notes, "select id, twice from notes")
	db.Exec("insert into notes values (4)")
	p.catchUp()
	p.equal(notes, "select id, twice from notes")
}
