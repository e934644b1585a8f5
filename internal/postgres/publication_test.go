package postgres_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// tablesOf reads the chosen tables as they are now.
func tablesOf(t testing.TB, s *postgres.Source, prefix string) map[string]*change.Table {
	t.Helper()
	sel := tablesLike(prefix)
	sel.PartitionRoots = true
	sn, err := s.Snapshot(t.Context(), postgres.SnapshotOptions{Selection: sel, LSN: postgres.LSNApproximate, Typed: true})
	must(t, err)
	defer sn.Close()
	out := map[string]*change.Table{}
	for _, tab := range sn.Tables {
		out[tab.Name] = tab
	}
	return out
}

// gives tells what a publication gives: "a(id):where iudt".
func gives(t testing.TB, s *postgres.Source, name string) string {
	t.Helper()
	tables, err := s.Published(t.Context(), []string{name})
	must(t, err)
	var out []string
	for _, p := range tables {
		line := p.Name
		if p.Columns != nil {
			line += "(" + strings.Join(p.Columns, ",") + ")"
		}
		if p.RowFilter != "" {
			line += ":" + p.RowFilter
		}
		line += " "
		for i, on := range []bool{p.Insert, p.Update, p.Delete, p.Truncate, p.ViaRoot} {
			if on {
				line += "iudtr"[i : i+1]
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

func TestAPublicationIsMadeAndKeptAsWanted(t *testing.T) {
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		s := sourceOf(t, db)
		db.Exec(`create table leat_a (id int primary key, x int); create table "leat_B ""q" (id int primary key); create table leat_c (id int primary key)`)
		tables := tablesOf(t, s, "leat")
		f := func(o postgres.PublicationOptions, changed bool, want string) {
			t.Helper()
			o.Name = `le"at`
			for _, expect := range []bool{changed, false} {
				got, err := s.EnsurePublication(t.Context(), o)
				if err != nil || (got != nil) != expect {
					t.Errorf("changed: %+v, %v", got, err)
				}
			}
			if got := gives(t, s, o.Name); got != want {
				t.Errorf("it gives %s, want %s", got, want)
			}
		}
		a, b, c := tables["leat_a"], tables[`leat_B "q`], tables["leat_c"]
		f(postgres.PublicationOptions{Tables: []*change.Table{a, b}}, true, `leat_B "q iudt; leat_a iudt`)
		for _, name := range []string{"leat_a", "leat_gone"} { // c had this name when it was read: another table has it now, or none
			renamed := *c
			renamed.Name = name
			if _, err := s.EnsurePublication(t.Context(), postgres.PublicationOptions{Name: `le"at`, Tables: []*change.Table{a, b, &renamed}}); !fault.Is(err, fault.SourceBusy) || !fault.Retryable(err) {
				t.Errorf("with a table that is called %s no more: %v", name, err)
			}
		}
		f(postgres.PublicationOptions{Tables: []*change.Table{a, c}}, true, `leat_a iudt; leat_c iudt`)
		f(postgres.PublicationOptions{Tables: []*change.Table{a}, InsertsOnly: true}, true, `leat_a it`)
		f(postgres.PublicationOptions{}, true, ``)
		if major >= 13 {
			f(postgres.PublicationOptions{Tables: []*change.Table{a}, ViaRoot: true}, true, `leat_a iudtr`)
		}
		filtered := postgres.PublicationOptions{Tables: []*change.Table{a}, RowFilters: map[string]string{"public.leat_a": "id>5 and id<9"}}
		if major < 15 {
			if _, err := s.EnsurePublication(t.Context(), filtered); !fault.Is(err, fault.SourceVersion) {
				t.Errorf("%v", err)
			}
			return
		}
		f(filtered, true, `leat_a:((id > 5) AND (id < 9)) iudt`)
		filtered.Columns = map[string][]string{"public.leat_a": {"id"}}
		f(filtered, true, `leat_a(id):((id > 5) AND (id < 9)) iudt`)
		filtered.Columns, filtered.RowFilters = nil, nil
		f(filtered, true, `leat_a iudt`)
	})
}

// What follows would make PostgreSQL refuse the application's updates.
func TestAPublicationNeverStopsTheApplication(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 17)
	s := sourceOf(t, db)
	db.Exec(`create table leat_nokey (id int); create table leat_nothing (id int primary key); alter table leat_nothing replica identity nothing`)
	db.Exec(`create table leat_key (id int primary key, x int, y int); create table leat_full (id int); alter table leat_full replica identity full`)
	db.Exec(`insert into leat_nokey values (1); insert into leat_nothing values (1); insert into leat_key values (1, 1, 1); insert into leat_full values (1)`)
	tables := tablesOf(t, s, "leat")
	f := func(o postgres.PublicationOptions, refused bool, names ...string) {
		t.Helper()
		o.Name = "leat"
		for _, n := range names {
			o.Tables = append(o.Tables, tables[n])
		}
		_, err := s.EnsurePublication(t.Context(), o)
		if fault.Is(err, fault.KeyMissing) != refused || !refused && err != nil {
			t.Errorf("%v: %v", names, err)
		}
		for n := range tables {
			db.Exec("update " + n + " set id = id")
		}
	}
	f(postgres.PublicationOptions{}, true, "leat_nokey")
	f(postgres.PublicationOptions{}, true, "leat_nothing", "leat_key")
	f(postgres.PublicationOptions{InsertsOnly: true}, false, "leat_nothing", "leat_nokey")
	f(postgres.PublicationOptions{}, false, "leat_key", "leat_full")
	f(postgres.PublicationOptions{RowFilters: map[string]string{"public.leat_key": "x > 0"}}, true, "leat_key")
	f(postgres.PublicationOptions{Columns: map[string][]string{"public.leat_key": {"x", "y"}}}, true, "leat_key")
	f(postgres.PublicationOptions{RowFilters: map[string]string{"public.leat_key": "id > 0"}, Columns: map[string][]string{"public.leat_key": {"id", "y"}}}, false, "leat_key")
}

// PostgreSQL does not take a deferrable key for the replica identity.
func TestADeferrableKeyIdentifiesNothing(t *testing.T) {
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		s := sourceOf(t, db)
		db.Exec(`create table leat_later (id int primary key deferrable initially immediate); insert into leat_later values (1), (2)`)
		db.Exec(`create table leat_p (id int primary key deferrable) partition by range (id); create table leat_p1 partition of leat_p for values from (1) to (10);
alter table leat_p replica identity full`)
		tables := tablesOf(t, s, "leat")
		later := tables["leat_later"]
		if len(later.Identity()) > 0 {
			t.Errorf("its identity is %v", later.Identity())
		}
		o := postgres.PublicationOptions{Name: "leat", Tables: []*change.Table{later}}
		_, err := s.EnsurePublication(t.Context(), o)
		if !fault.Is(err, fault.KeyMissing) || !strings.Contains(fault.Of(err).Mend, `alter table "public"."leat_later" replica identity full`) {
			t.Errorf("%v", err)
		}
		db.Exec("update leat_later set id = id + 1") // the application works on
		catalog := s.Catalog()
		leaves, err := catalog.Leaves(t.Context(), []uint32{tables["leat_p"].OID})
		must(t, err)
		if len(leaves) != 1 || !leaves[0].Weak {
			t.Errorf("%+v", leaves)
		}
	})
}

func TestARootsPublicationCoversItsPartitions(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 16)
	s := sourceOf(t, db)
	db.Exec(`create table leat_p (id int primary key) partition by list (id); create table leat_p1 partition of leat_p for values in (1); create table leat_p2 partition of leat_p for values in (2)`)
	tables := tablesOf(t, s, "leat")
	root := postgres.PublicationOptions{Name: "leat", Tables: []*change.Table{tables["leat_p"]}}
	if _, err := s.EnsurePublication(t.Context(), root); err != nil || gives(t, s, "leat") != "leat_p1 iudt; leat_p2 iudt" {
		t.Errorf("%s %v", gives(t, s, "leat"), err)
	}
	root.ViaRoot = true
	if changed, err := s.EnsurePublication(t.Context(), root); err != nil || changed == nil || gives(t, s, "leat") != "leat_p iudtr" {
		t.Errorf("%s %v", gives(t, s, "leat"), err)
	}
}

func TestAGivenPublicationIsLookedAtAndNotTouched(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 15)
	s := sourceOf(t, db)
	db.Exec(`create table leat_a (id int primary key); create table leat_b (id int primary key); create schema other; create table other.leat_c (id int primary key)`)
	tables := tablesOf(t, s, "leat")
	f := func(ddl, lacks string, names ...string) {
		t.Helper()
		db.Exec("drop publication if exists theirs; " + ddl)
		o := postgres.PublicationOptions{Name: "theirs", Given: true}
		for _, n := range names {
			o.Tables = append(o.Tables, tables[n])
		}
		changed, err := s.EnsurePublication(t.Context(), o)
		if changed != nil || (lacks == "") != (err == nil) {
			t.Errorf("%s: %v", ddl, err)
		}
		if err != nil && (!fault.Is(err, fault.PublicationUnusable) || !strings.Contains(fault.Of(err).Mend, lacks)) {
			t.Errorf("%s: %v; %s", ddl, err, fault.Of(err).Mend)
		}
	}
	f("", `create publication "theirs" for table only "public"."leat_a" with (publish = 'insert, update, delete, truncate')`, "leat_a")
	f("create publication theirs for table leat_a", `alter publication "theirs" add table only "public"."leat_b";`, "leat_a", "leat_b")
	f("create publication theirs for table leat_a, leat_b where (id > 3)", "", "leat_b")
	f("create publication theirs for table leat_a with (publish = 'insert')", `set (publish = `, "leat_a")
	f("create publication theirs for all tables", "", "leat_a", "leat_b", "leat_c")
	f("create publication theirs for tables in schema other", "", "leat_c")
	f("create publication theirs for tables in schema other", "add table", "leat_a")
}

func TestWhoMayNotPublishIsToldWhatToRun(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 18)
	db.Exec("create table leat_a (id int primary key)")
	role := db.Role("REPLICATION")
	db.Exec("grant select on leat_a to " + role.Name + "; revoke execute on function pg_logical_emit_message(boolean, text, text, boolean) from public")
	s, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: role.URL})
	must(t, err)
	o := postgres.PublicationOptions{Name: "leat", Tables: slices.Collect(maps.Values(tablesOf(t, s, "leat")))}
	_, err = s.EnsurePublication(t.Context(), o)
	if !fault.Is(err, fault.PublicationUnusable) {
		t.Fatal(err)
	}
	_, sql, _ := strings.Cut(fault.Of(err).Mend, "database: ")
	db.Exec(sql)
	if changed, err := s.EnsurePublication(t.Context(), o); changed != nil || err != nil {
		t.Errorf("after %s: %v", sql, err)
	}
	if _, err := s.Heartbeat(t.Context(), "leat"); !fault.Is(err, fault.SourceRights) || !strings.Contains(fault.Of(err).Mend, "grant execute") {
		t.Errorf("%v", err)
	}
	_, grant, _ := strings.Cut(fault.Of(func() error { _, err := s.Heartbeat(t.Context(), "leat"); return err }()).Mend, "Run: ")
	db.Exec(grant)
	if _, err := s.Heartbeat(t.Context(), "leat"); err != nil {
		t.Errorf("after %s: %v", grant, err)
	}
	if _, err := s.CreateSlot(t.Context(), postgres.SlotOptions{Name: db.Name}); err != nil {
		t.Errorf("%v", err)
	}
}

func TestAHeartbeatMovesTheLogAndAServerKnowsItself(t *testing.T) {
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		s := sourceOf(t, db)
		id, err := s.Identify(t.Context())
		must(t, err)
		if id.SystemID != db.One("select system_identifier from pg_control_system()") || id.Timeline != 1 || id.End == 0 {
			t.Errorf("%+v", id)
		}
		before, err := s.LogEnd(t.Context())
		must(t, err)
		lsn, err := s.Heartbeat(t.Context(), "leat")
		must(t, err)
		if lsn <= before {
			t.Errorf("%s after %s", lsn, before)
		}
	})
}

// What a change of a publication replaces is exact: all that others have changed before it is in it, and what they change later is not in
// what it leaves.
func TestAChangeOfAPublicationTellsWhatItReplaces(t *testing.T) {
	t.Parallel()
	everyMajor(t, func(t *testing.T, db *testlab.DB, _ int) {
		s := sourceOf(t, db)
		db.Exec("create table leat_a (id int primary key); create table leat_b (id int primary key); create table leat_c (id int primary key)")
		tables := tablesOf(t, s, "leat")
		a, b, c := tables["leat_a"], tables["leat_b"], tables["leat_c"]
		o := postgres.PublicationOptions{Name: "leat", Tables: []*change.Table{a, b}, Followed: []uint32{a.OID, b.OID, c.OID}, Beside: []string{"leat"}}
		look := func() map[uint32]postgres.Facts {
			t.Helper()
			sight, err := s.Look(t.Context(), postgres.LookOptions{Selection: tablesLike("leat"), Publications: o.Beside, Tables: o.Followed})
			must(t, err)
			return sight.Facts
		}
		same := func(what string, got, want map[uint32]postgres.Facts, moved ...*change.Table) {
			t.Helper()
			for _, table := range []*change.Table{a, b, c} {
				if is := !got[table.OID].PublishedAs(want[table.OID]); is != slices.Contains(moved, table) {
					t.Errorf("%s: that %s was published otherwise is %t; %+v, %+v", what, table, is, got[table.OID], want[table.OID])
				}
			}
		}
		ensure := func(what string, others string, moved ...*change.Table) {
			t.Helper()
			before := look()
			db.Exec(others)
			changed, err := s.EnsurePublication(t.Context(), o)
			must(t, err)
			if changed == nil {
				t.Fatalf("%s: nothing was changed", what)
			}
			same(what+", found", changed.Before, before, moved...)
			same(what+", left", changed.After, look())
		}
		ensure("it is made", "select 1")
		o.Tables = []*change.Table{a, b, c}
		ensure("a table comes", "select 1")
		ensure("a table was taken out", "alter publication leat drop table leat_a", a)
		ensure("two were, and one came back", "alter publication leat drop table leat_a, leat_b; alter publication leat add table leat_b", a, b)
		ensure("it gave inserts only", "alter publication leat set (publish = 'insert')", a, b, c)
		ensure("it was dropped", "drop publication leat", a, b, c)
		ensure("it was another one", "drop publication leat; create publication leat for table leat_a", a, b, c)
		o.Tables = []*change.Table{a, b}
		changed, err := s.EnsurePublication(t.Context(), o)
		must(t, err)
		db.Exec("alter publication leat drop table leat_b; alter publication leat add table leat_b")
		same("later", changed.After, look(), b)
	})
}
