package postgres_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// ddlMajors runs f on each server whose walsender sends messages.
func ddlMajors(t *testing.T, f func(t *testing.T, db *testlab.DB, major int)) {
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		if major < 14 {
			t.Skip("pgoutput sends messages from 14 on")
		}
		f(t, db, major)
	})
}

// heard are the messages since the last call, as the tables of a test are called.
func heard(t *testing.T, db *testlab.DB, d postgres.DDLEvents) (told []postgres.DDL) {
	t.Helper()
	for _, r := range db.Query("select data from pg_logical_slot_get_changes('" + d.Slot + "', null, null) where data like 'message: transactional: 1 prefix: " + d.Prefix() + ",%'") {
		_, content, _ := strings.Cut(r[0], " content:")
		m, err := postgres.ParseDDL([]byte(content))
		if err != nil {
			t.Fatalf("%s: %v", content, err)
		}
		told = append(told, m)
	}
	return told
}

func TestDDLIsToldInItsTransaction(t *testing.T) {
	ddlMajors(t, func(t *testing.T, db *testlab.DB, major int) {
		s := sourceOf(t, db)
		role := db.Role("")
		db.Exec("grant create on schema public to " + role.Name)
		conn := db.ConnectAs(role)
		do := func(sql string) {
			t.Helper()
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		do(`create table one (id int primary key, v text, g int); create table other (id int primary key);
create table ev (id int, d int, primary key (id, d)) partition by range (d); create table ev_1 partition of ev for values from (0) to (10)`)
		db.Exec("create publication pub for table one, ev; create publication foreigner for table other")
		d := postgres.DDLEvents{Slot: db.Name[max(0, len(db.Name)-60):], Publications: []string{"pub", "pub_inserts"}}
		for _, want := range []bool{true, false} {
			if made, err := s.EnsureDDLEvents(t.Context(), d); err != nil || made != want {
				t.Fatalf("made: %t, %v", made, err)
			}
		}
		db.One("select pg_create_logical_replication_slot('" + d.Slot + "', 'test_decoding')")
		oid := func(name string) (n uint32) {
			fmt.Sscan(db.One("select '"+name+"'::regclass::oid"), &n)
			return n
		}
		key := func(name string) (n uint32) {
			fmt.Sscan(db.One("select oid from pg_constraint where contype = 'p' and conrelid = '"+name+"'::regclass"), &n)
			return n
		}
		db.Hostile(role.Name)
		db.Sets(role.Name, "statement_timeout = 0", "default_transaction_read_only = off", "search_path = shadow, pg_catalog, public", "idle_in_transaction_session_timeout = 0", "idle_session_timeout = 0", "transaction_timeout = 0", "lock_timeout = 0", "synchronous_commit = on")
		conn = db.ConnectAs(role)
		for _, c := range []struct {
			sql  string
			want func() []postgres.DDL
		}{
			{"alter table public.other add x int; create temp table tt (id int); alter table tt add y int; create table public.plain (id int); create index on public.one (v); drop table public.plain; begin; alter table public.one add z int; rollback", nil},
			{"comment on table public.one is 'x'; grant select on public.one to public; truncate public.one", nil},
			{"alter table public.one add w int", func() []postgres.DDL {
				return []postgres.DDL{{Tables: []postgres.DDLTable{{OID: oid("one"), Above: []uint32{}, Identity: 'd', Key: key("one")}}}}
			}},
			{"alter table public.one replica identity full", func() []postgres.DDL {
				return []postgres.DDL{{Tables: []postgres.DDLTable{{OID: oid("one"), Above: []uint32{}, Identity: 'f', Key: key("one")}}}}
			}},
			{"alter table public.one alter v type text using upper(v)", func() []postgres.DDL {
				one := postgres.DDLTable{OID: oid("one"), Above: []uint32{}, Identity: 'f', Key: key("one")}
				rewritten := one
				rewritten.Rewrite, rewritten.Columns = postgres.RewriteType, []postgres.DDLColumn{{Attnum: 2, Type: 25, Typmod: -1}}
				return []postgres.DDL{{Tables: []postgres.DDLTable{rewritten}}, {Tables: []postgres.DDLTable{one}}}
			}},
			{"create unique index on public.ev_1 (d); alter table public.ev_1 replica identity using index ev_1_d_idx", func() []postgres.DDL {
				return []postgres.DDL{{Tables: []postgres.DDLTable{{OID: oid("ev_1"), Above: []uint32{oid("ev")}, Identity: 'i', Key: key("ev_1"), Weak: []uint32{oid("ev_1")}}}}}
			}},
			{"alter table public.ev_1 replica identity default; create table public.ev_2 partition of public.ev for values from (10) to (20)", func() []postgres.DDL {
				return []postgres.DDL{
					{Tables: []postgres.DDLTable{{OID: oid("ev_1"), Above: []uint32{oid("ev")}, Identity: 'd', Key: key("ev_1")}}},
					{Tables: []postgres.DDLTable{{OID: oid("ev_2"), Above: []uint32{oid("ev")}, Identity: 'd', Key: key("ev_2")}}},
				}
			}},
			{"alter table public.ev_2 set unlogged", func() []postgres.DDL {
				two := postgres.DDLTable{OID: oid("ev_2"), Above: []uint32{oid("ev")}, Identity: 'd', Key: key("ev_2")}
				rewritten := two
				rewritten.Rewrite = postgres.RewritePersistence
				return []postgres.DDL{{Tables: []postgres.DDLTable{rewritten}}, {Tables: []postgres.DDLTable{two}}}
			}},
		} {
			for statement := range strings.SplitSeq(c.sql, "; ") {
				do(statement)
			}
			var want []postgres.DDL
			if c.want != nil {
				want = c.want()
			}
			if got := heard(t, db, d); !reflect.DeepEqual(got, want) {
				t.Errorf("%s is told as\n%+v\nwant\n%+v", c.sql, got, want)
			}
		}
		// The publication belongs to a superuser, whose session does not heed triggers that are not ENABLE ALWAYS.
		db.Exec("set session_replication_role = replica; alter publication pub drop table one; set leat.slot = 'me'; alter publication pub add table one; alter publication pub set (publish = 'insert'); alter publication foreigner set (publish = 'insert')")
		want := []postgres.DDL{
			{Publications: []postgres.DDLPublication{{Name: "pub", Table: oid("one")}}},
			{By: "me", Publications: []postgres.DDLPublication{{Name: "pub", Table: oid("one")}}},
			{By: "me", Publications: []postgres.DDLPublication{{Name: "pub"}}},
		}
		if got := heard(t, db, d); !reflect.DeepEqual(got, want) {
			t.Errorf("the publication's changes are told as %+v", got)
		}
		db.Exec("drop publication pub; create publication pub for all tables")
		do("alter table public.other add y int")
		if got := heard(t, db, d); len(got) != 3 || got[0].Publications[0] != (postgres.DDLPublication{Name: "pub"}) || got[2].Tables[0].OID != oid("other") {
			t.Errorf("a publication of all tables is told as %+v", got)
		}
		for _, want := range []bool{true, false} {
			if dropped, err := s.DropDDLEvents(t.Context(), d); err != nil || dropped != want {
				t.Errorf("dropped: %t, %v", dropped, err)
			}
		}
		if left := db.One("select (select count(*) from pg_event_trigger) + (select count(*) from pg_namespace where nspname = '_leat')"); left != "0" {
			t.Errorf("%s objects are left", left)
		}
	})
}

func TestDDLEventsAreRepairedAndNewerOnesLeftAlone(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	s := sourceOf(t, db)
	d := postgres.DDLEvents{Slot: `a"b`, Publications: []string{`p'u"b`, `b\\s`}}
	ensure := func(want bool) {
		t.Helper()
		if made, err := s.EnsureDDLEvents(t.Context(), d); err != nil || made != want {
			t.Fatalf("made: %t, %v", made, err)
		}
	}
	state := func() postgres.DDLState {
		t.Helper()
		st, err := s.DDLEventsState(t.Context(), d)
		must(t, err)
		return st
	}
	if st := state(); st.There || st.Usable || st.Right {
		t.Errorf("before they are made: %+v", st)
	}
	ensure(true)
	for _, harm := range []string{
		`alter event trigger "a""b_ddl_end" disable`, `alter event trigger "a""b_ddl_drop" enable`, `drop event trigger "a""b_ddl_rewrite"`,
		`drop event trigger "a""b_ddl_end"; create event trigger "a""b_ddl_end" on ddl_command_end execute function _leat."a""b_ddl"(); alter event trigger "a""b_ddl_end" enable always`,
		`create or replace function _leat."a""b_ddl"() returns event_trigger language plpgsql as 'begin end'`, `alter function _leat."a""b_ddl"() security definer`,
		`alter function _leat."a""b_ddl"() reset search_path`, `comment on function _leat."a""b_ddl"() is null`, `drop function _leat."a""b_ddl"() cascade`, `drop schema _leat cascade`,
	} {
		db.Exec(harm)
		if st := state(); st.Right || st.Usable || !st.There && !strings.HasSuffix(harm, "cascade") {
			t.Errorf("%s: %+v", harm, st)
		}
		ensure(true)
		if st := state(); !st.Right || !st.Usable || st.Why != "" {
			t.Errorf("%s is repaired to %+v", harm, st)
		}
	}
	db.Exec(`comment on function _leat."a""b_ddl"() is 'leat: DDL events, version 2'`)
	ensure(false)
	if st := state(); st.Right || !st.Usable || st.Why == "" {
		t.Errorf("a newer one is %+v", st)
	}
	db.Exec("create table _leat.others (id int)")
	if _, err := s.DropDDLEvents(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if st := state(); st.There {
		t.Errorf("after they were dropped: %+v", st)
	}
	db.Exec("drop table _leat.others")
}

func TestDDLEventsOfARoleThatMayNot(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	role := db.Role("replication")
	db.Exec("grant create on database " + db.Name + " to " + role.Name)
	s, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: role.Bare, Password: func() string { return role.Password }})
	must(t, err)
	if may, err := s.MayMakeEventTriggers(t.Context()); err != nil || may {
		t.Errorf("it may: %t, %v", may, err)
	}
	d := postgres.DDLEvents{Slot: "s", Publications: []string{"p"}}
	_, err = s.EnsureDDLEvents(t.Context(), d)
	f := fault.Of(err)
	if !fault.Is(err, fault.SourceRights) {
		t.Fatal(err)
	}
	if left := db.One("select count(*) from pg_namespace where nspname = '_leat'"); left != "0" {
		t.Error("what was made before the refusal stays")
	}
	sql, _, _ := strings.Cut(strings.TrimPrefix(f.HowToMend(), "Run as a superuser: "), "; or choose")
	db.Exec(sql)
	st, err := s.DDLEventsState(t.Context(), d)
	if err != nil || !st.Right {
		t.Errorf("after the SQL of the hint: %+v, %v", st, err)
	}
	if made, err := s.EnsureDDLEvents(t.Context(), d); made || err != nil {
		t.Errorf("what is there is used: %t, %v", made, err)
	}
	if _, err = s.DropDDLEvents(t.Context(), d); !fault.Is(err, fault.SourceRights) {
		t.Error(err)
	}
}

// Whatever is wrong with the catalog or the rights, the application's own command goes through.
func TestDDLNeverFailsBecauseOfItsEvents(t *testing.T) {
	ddlMajors(t, func(t *testing.T, db *testlab.DB, _ int) {
		s := sourceOf(t, db)
		role := db.Role("")
		db.Exec("grant create on schema public to " + role.Name + "; create publication pub")
		_, err := s.EnsureDDLEvents(t.Context(), postgres.DDLEvents{Slot: "s", Publications: []string{"pub"}})
		must(t, err)
		conn := db.ConnectAs(role)
		_, err = conn.Exec(t.Context(), "create table public.a (id int primary key)")
		must(t, err)
		db.Exec("alter publication pub add table public.a")
		var emit string
		for _, r := range db.Query("select string_agg(oid::regprocedure::text, ', ') from pg_proc where proname = 'pg_logical_emit_message'") {
			emit = r[0]
		}
		for i, harm := range []string{
			"revoke select on pg_catalog.pg_publication from public", "grant select on pg_catalog.pg_publication to public; revoke execute on function " + emit + " from public",
			"revoke execute on function pg_catalog.has_function_privilege(oid, text) from public", "revoke usage on language plpgsql from public", "revoke usage on schema _leat from public",
			"revoke execute on function pg_catalog.pg_event_trigger_ddl_commands() from public",
		} {
			db.Exec(harm)
			_, err = conn.Exec(t.Context(), fmt.Sprintf("begin; alter table public.a add c%d int; alter table public.a alter c%[1]d type bigint using c%[1]d + 1; commit", i))
			if err != nil {
				t.Errorf("after %s: %v", harm, err)
			}
		}
		_, err = conn.Exec(t.Context(), "begin; create table public.b (id int); savepoint s; alter table public.a add d int; rollback to s; alter table public.a add d int; drop table public.b; commit")
		must(t, err)
	})
}

func TestHostileMessagesAreRefused(t *testing.T) {
	t.Parallel()
	long := `{"version":1,"tables":[{"oid":1,"identity":"d","weak":[1` + strings.Repeat(",1", 5000) + `]}]}`
	for _, content := range []string{
		"", "x", "null", "[]", "{}", `{"version":2}`, `{"version":1}{}`, `{"version":1,"more":1}`, `{"version":1,"tables":[{"oid":-1,"identity":"d"}]}`,
		`{"version":1,"tables":[{"oid":1}]}`, `{"version":1,"tables":[{"oid":1,"identity":"dd"}]}`, `{"version":1,"tables":[{"oid":1,"identity":"d","columns":[[1,2,3]]}]}`,
		`{"version":1,"tables":[{"oid":1,"identity":"d","columns":[[99999,2,3,false]]}]}`, `{"version":1,"tables":"x"}`, long, strings.Repeat("[", 8000),
	} {
		if m, err := postgres.ParseDDL([]byte(content)); err == nil {
			t.Errorf("%.60s is %+v", content, m)
		}
	}
	if m, err := postgres.ParseDDL([]byte(`{"version":1,"many":true}`)); err != nil || !reflect.DeepEqual(m, postgres.DDL{}) {
		t.Errorf("%+v, %v", m, err)
	}
}
