package pipeline_test

import (
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

func TestADatabaseThatMovedToAServerWhoseLogIsYoungerIsFollowedThere(t *testing.T) {
	t.Parallel()
	b := &bed{t: t, db: testlab.OwnPostgres(t, testlab.ServerOptions{}), dir: t.TempDir()}
	const tables = "create table notes (id int primary key, v text); create table loose (v text); alter table loose replica identity full; "
	for range 4 {
		b.db.Exec("select pg_switch_wal()")
		b.db.Exec("select pg_logical_emit_message(true, 'other', 'so that there is something to switch')")
	}
	b.db.Exec(tables + "insert into notes select i, 'here' from generate_series(1, 4) i; insert into loose values ('here')")
	b.mustCatchUp()
	b.db.Exec("insert into notes values (5, 'here'); update notes set v = 'changed here' where id = 1; insert into loose values ('here too')")
	b.mustCatchUp()
	b.restate(func(saved map[string]any) { saved["spooled"] = saved["position"] })

	b.db = testlab.OwnPostgres(t, testlab.ServerOptions{})
	b.db.Exec(tables + "insert into notes select i, 'there' from generate_series(1, 4) i; insert into loose values ('there')")
	b.ask("resync", "--all")
	b.mustCatchUp()
	b.judge("notes", "loose")
	b.db.Exec("insert into notes values (6, 'there'); update notes set v = 'changed there' where id = 2; delete from notes where id = 3; insert into loose values ('there too')")
	b.mustCatchUp()
	b.judge("notes", "loose")
	told := b.inLake("notes_history")["notes_history"].chosen([]string{"_leat_op", "id", "v"})
	for _, want := range []string{"c|6|there", "u|2|changed there", "d|3|NULL"} {
		if n := strings.Count(strings.Join(told, "\n")+"\n", want+"\n"); n != 1 {
			t.Errorf("the history has %d times %s; all of it: %v", n, want, told)
		}
	}
}
