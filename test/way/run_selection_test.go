package way_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

// settings writes a configuration, for what has no flag.
func (p *pipeline) settings(yaml string) {
	p.t.Helper()
	path := p.lake + ".yaml"
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if !slices.Contains(p.all, "-f") {
		p.all = append(p.all, "-f", path)
	}
}

// ops are the operations of a table's history on rows of an id, in the order of the log.
func (p *pipeline) ops(table string, id int) string {
	p.t.Helper()
	f := followed{schema: "public", name: table + "_history", columns: []string{"id"}}
	names, all := testlab.PyIceberg(p.t, "file://"+p.lake+"/public/"+f.name)
	var out strings.Builder
	for _, e := range events(p.t, f, names, all) {
		if e.row[0] == strconv.Itoa(id) {
			out.WriteString(e.op)
		}
	}
	return out.String()
}

func TestOnlyTheRowsAndColumnsThatAreChosenArrive(t *testing.T) {
	t.Parallel()
	for _, own := range []bool{true, false} {
		t.Run(fmt.Sprintf("in a publication of leat's own: %t", own), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, 15)
			db.Exec(`create table orders (id int primary key, region text, secret text, note text); alter table orders replica identity full;
create table users (id int primary key, secret text, name text, age int);
insert into orders select i, case when i % 2 = 0 then 'eu' else 'us' end, 'secret', 'note ' || i from generate_series(1, 100) i;
insert into users select i, 'secret', 'name ' || i, i from generate_series(1, 100) i`)
			p := newPipeline(t, db)
			if own {
				p.settings("run:\n  row_filters: [\"public.orders = region = 'eu'\"]\n  columns: [\"public.users = id, name\"]\n")
			} else {
				db.Exec("create publication mine for table orders where (region = 'eu'), users (id, name) with (publish_via_partition_root = true)")
				p.with("run.own_publication=false", "run.publication=mine")
			}
			run := p.start()
			p.follows("orders", "users")
			orders, users := p.table("orders"), followed{schema: "public", name: "users", columns: []string{"id", "name"}}
			chosen := "select id, region, secret, note from orders where region = 'eu'"
			p.equal(orders, chosen)

			db.Exec("insert into orders values (201, 'eu', 's', 'arrives'), (202, 'us', 's', 'does not')")
			db.Exec("update orders set region = 'us' where id = 2; update orders set region = 'eu' where id = 3; update orders set note = 'changed' where id in (4, 5)")
			db.Exec("delete from orders where id in (6, 7); update users set name = 'changed', secret = 'other' where id < 10; insert into users values (201, 'secret', 'new', 1)")
			p.equal(orders, chosen)
			p.equal(users, "select id, name from users")
			p.end(run)
			for id, want := range map[int]string{2: "rd", 3: "c", 4: "ru", 5: "", 6: "rd", 7: "", 202: ""} {
				if got := p.ops("orders", id); got != want {
					t.Errorf("the history of order %d is %q, not %q", id, got, want)
				}
			}
			if names, _ := testlab.PyIceberg(t, "file://"+p.lake+"/public/users"); !slices.Equal(names, users.columns) {
				t.Errorf("the lake has the columns %v of users", names)
			}

			if own { // other rules: the lake follows them
				p.settings("run:\n  row_filters: [\"public.orders = region = 'us'\"]\n  columns: [\"public.users = id, name, age\"]\n")
			} else {
				db.Exec("alter publication mine set table orders where (region = 'us'), users (id, name, age)")
			}
			p.catchUp()
			p.equal(orders, "select id, region, secret, note from orders where region = 'us'")
			users.columns = append(users.columns, "age")
			p.equal(users, "select id, name, age from users")
			if r := p.start("--until-caught-up").WaitWithin(patience); strings.Contains(r.Stderr, "copied anew") {
				t.Errorf("with the same rules tables are copied again:\n%s", r.Stderr)
			}
		})
	}
}

func TestTypesThatAreAlteredWhileTheirTableIsFollowed(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create type mood as enum ('sad', 'glad'); create domain amount as numeric(6,2) check (value >= 0); create type place as (street text, no int);
create table people (id int primary key, feels mood, moods mood[], owes amount, lives place);
insert into people values (1, 'sad', '{sad,glad}', 1.50, ('Main St', 1)), (2, null, null, null, null)`)
	p := newPipeline(t, db)
	run := p.start()
	p.follows("people")
	db.Exec("insert into people values (3, 'glad', '{}', 2, ('Elm St', 2))")
	db.Exec("alter type mood add value 'calm' before 'glad'; alter type mood add value 'wild'")
	db.Exec("insert into people values (4, 'calm', '{calm,wild}', 3.25, ('Elm St', 3)); update people set feels = 'wild' where id = 1")
	p.same("people")
	db.Exec("alter type mood rename value 'wild' to 'mad'; alter domain amount drop constraint amount_check; insert into people values (5, 'mad', '{mad}', -4, null)")
	db.Exec("alter type place add attribute zip text; insert into people values (6, null, null, null, ('Oak St', 4, '12345')); update people set owes = -1 where id = 3")
	f := p.table("people")
	p.equal(f, `select id, case when id in (1) then 'wild' else feels::text end, to_json(case when id = 4 then '{calm,wild}'::text[] else moods::text[] end), owes,
 case when id in (1, 4) then rtrim(lives::text, ',)') || ')' else lives::text end from people`)
	p.end(run)
	p.catchUp()
}

func TestLogicalMessagesArriveOnceAndInOrder(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 14)
	db.Exec("create table notes (id int primary key)")
	p := newPipeline(t, db).with("run.logical_messages=true", "run.heartbeat=0s", "run.commit_rows=1") // a commit right behind each message
	messages := followed{schema: "_leat", name: "logical_messages_history", columns: []string{"prefix", "content", "transactional"}}
	var want []string
	say := func(transactional bool, prefix string) string {
		want = append(want, fmt.Sprintf(`%s \x%x %.1s`, prefix, prefix, strconv.FormatBool(transactional)))
		return fmt.Sprintf("select pg_logical_emit_message(%t, '%s', '%s')", transactional, prefix, prefix)
	}
	heard := func() (got []string) {
		if _, err := os.Stat(filepath.Join(p.lake, "_leat", messages.name, "metadata", "version-hint.text")); err != nil {
			return nil // the commit of its first message makes it
		}
		names, all := testlab.PyIceberg(t, "file://"+p.lake+"/_leat/"+messages.name)
		before := event{}
		for _, e := range events(t, messages, names, all) {
			if e.lsn == before.lsn && e.seq == before.seq {
				t.Errorf("two messages at %X, %d", e.lsn, e.seq)
			}
			got, before = append(got, strings.Join(e.row, " ")), e
		}
		return got
	}
	p.catchUp()
	db.Exec(say(false, "first"))
	run := p.start()
	p.follows("notes")
	for i := range 3 {
		db.Exec(say(false, fmt.Sprint("alone", i)))
		p.hears(run, want, heard)
		run.Kill() // with nothing but a message between two positions
		run = p.start()
	}
	db.Exec("begin; insert into notes values (1); " + say(true, "within1") + "; " + say(true, "within2") + "; insert into notes values (2); " + say(true, "within3") + "; commit")
	db.Exec("begin; select pg_logical_emit_message(true, 'undone', ''); rollback")
	db.Exec(say(false, "last"))
	p.hears(run, want, heard)
	run.Kill()
	p.catchUp()
	p.hears(run, want, heard)
	p.same("notes")
}

// hears waits until as many messages are in the lake as were said, and compares them.
func (p *pipeline) hears(run *testlab.Process, want []string, heard func() []string) {
	p.t.Helper()
	var got []string
	defer func() {
		if !slices.Equal(got, want) {
			p.t.Errorf("the lake has\n%s\nnot\n%s\nleat run:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), run.Stderr())
		}
	}()
	wait(p.t, "every message is in the lake", func() bool { got = heard(); return len(got) >= len(want) })
}

// profileRow is a row of a history by its columns' names.
type profileRow map[string]string

func (p *pipeline) profile(table string) (columns []string, all []profileRow) {
	p.t.Helper()
	columns, lake := testlab.PyIceberg(p.t, "file://"+p.lake+"/public/"+table+"_history")
	for _, values := range lake {
		row := profileRow{}
		for i, name := range columns {
			row[name] = values[i]
		}
		all = append(all, row)
	}
	return columns, all
}

func TestHistoryHasTheColumnsThatModelsOfOtherToolsRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		profile string
		columns []string
		check   func(t *testing.T, op string, committed time.Time, row profileRow)
	}{
		{"airbyte", []string{"_ab_cdc_lsn", "_ab_cdc_updated_at", "_ab_cdc_deleted_at", "_ab_cdc_seq", "_ab_cdc_op"}, func(t *testing.T, op string, committed time.Time, row profileRow) {
			at, deleted := strings.Replace(committed.Format("2006-01-02T15:04:05.000Z"), ".000", "", 1), testlab.Null
			if op == "d" {
				deleted = at
			}
			if row["_ab_cdc_updated_at"] != at || row["_ab_cdc_deleted_at"] != deleted || row["_ab_cdc_op"] != op {
				t.Errorf("%s, committed %s: %v", op, at, row)
			}
		}},
		{"debezium", []string{"__op", "__source_lsn", "__source_seq", "__source_ts_ms", "__source_txId", "__deleted"}, func(t *testing.T, op string, committed time.Time, row profileRow) {
			if row["__op"] != op || row["__deleted"] != strconv.FormatBool(op == "d") || row["__source_ts_ms"] != fmt.Sprint(committed.UnixMilli()) {
				t.Errorf("%s, committed %s: %v", op, committed, row)
			}
		}},
	} {
		t.Run(c.profile, func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t)
			db.Exec("create table notes (id int primary key, note text); insert into notes values (1, 'one')")
			p := newPipeline(t, db).with("lake.profile=" + c.profile)
			p.catchUp()
			var committed []time.Time
			for _, statement := range []string{"insert into notes values (2, 'two')", "update notes set note = 'deux' where id = 2", "delete from notes where id = 2"} {
				xid := db.Query("with done as (" + statement + " returning 1) select pg_current_xact_id() from done")[0][0]
				at, err := time.Parse("2006-01-02 15:04:05.999999Z", db.One("select pg_xact_commit_timestamp('"+xid+"'::xid) at time zone 'UTC'")+"Z")
				if err != nil {
					t.Fatal(err)
				}
				committed = append(committed, at)
			}
			p.catchUp()
			columns, all := p.profile("notes")
			if want := append(c.columns, "id", "note"); !slices.Equal(columns, want) {
				t.Errorf("the history has the columns %v, not %v", columns, want)
			}
			if len(all) != 4 {
				t.Fatalf("the history has %v", all)
			}
			byOp := map[string]profileRow{}
			for _, row := range all {
				byOp[row[c.columns[len(c.columns)-1]]+row["__op"]] = row
			}
			for i, op := range []string{"c", "u", "d"} {
				key := op
				if c.profile == "debezium" {
					key = strconv.FormatBool(op == "d") + op
				}
				row := byOp[key]
				if note := []string{"two", "deux", testlab.Null}[i]; row["id"] != "2" || row["note"] != note {
					t.Errorf("%s: %v", op, row)
				}
				c.check(t, op, committed[i], row)
			}
		})
	}
}
