package crash_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

// nemesis changes tables, and the catalog rows that decide whether the WAL tells of their changes: one committed
// transaction at a time. After each one it keeps the position and the content of every table. So the truth at every
// commit position comes from SELECT alone, without a decoder.
type nemesis struct {
	t        testing.TB
	db       *testlab.DB
	dice     *rand.Rand
	conn     *pgx.Conn
	pub      string
	allPub   bool // the publication is FOR ALL TABLES, and the test's own
	serial   int
	leaves   []string // of ev, each holds the hundred values of d from its number times 100
	key      string   // the key column of keyed
	prepared string   // the transaction that is prepared and not committed
	states   []nemesisState
	ends     []change.LSN // where the runs that caught up have ended
	resynced bool         // new copies of all tables were asked for
}

// nemesisState is what every table holds after a commit.
type nemesisState struct {
	at     change.LSN // of the end of the WAL; the next commit record is behind it
	sql    string
	blind  []string // tables of which the WAL may not tell this transaction
	tables map[string]tableState
}

type tableState struct {
	oid     string
	attnums map[string]string // of the columns, by name
	types   map[string]string // of the columns, by attnum
	key     []string          // nil: the whole row
	rows    content2
}

const nemesisSQL = `
set client_min_messages = error;
create table ev (id int, d int, v text, primary key (id, d)) partition by range (d);
create table ev_0 partition of ev for values from (0) to (100);
create table ev_1 partition of ev for values from (100) to (200);
create table tree (r text, id int, v text, primary key (r, id)) partition by list (r);
create table tree_a partition of tree for values in ('a') partition by range (id);
create table tree_a0 partition of tree_a for values from (0) to (1000000);
create table tree_b partition of tree for values in ('b');
create table keyed (id int primary key, u int not null unique, v text);
create table loose (k int, v text, up text generated always as (upper(v) || k::text) stored);
alter table loose replica identity full;
create table swap_a (id int primary key, v text);
create table swap_b (id int primary key, v text);
create table col (id int primary key, x int, y text);
create table bulk (id int primary key, v text, size int generated always as (length(v)) stored, up text generated always as (upper(v)) stored);
insert into ev select i, i % 200, 'e' || i from generate_series(1, 60) i;
insert into tree select case i % 2 when 0 then 'a' else 'b' end, i, 't' || i from generate_series(1, 40) i;
insert into keyed select i, i, 'k' || i from generate_series(1, 40) i;
insert into loose select i % 10, 'l' || i % 4 from generate_series(1, 30) i;
insert into swap_a select i, 'a' || i from generate_series(1, 20) i;
insert into swap_b select i, 'b' || i from generate_series(1, 10) i;
insert into col select i, i, 'c' || i from generate_series(1, 20) i;
insert into bulk select i, 'b' || i from generate_series(1, 20) i`

var nemesisTables = []string{"ev", "tree", "keyed", "loose", "swap_a", "swap_b", "col", "bulk"}

func newNemesis(t testing.TB, db *testlab.DB, dice *rand.Rand) *nemesis {
	t.Helper()
	db.Exec(nemesisSQL)
	db.Exec("alter database " + db.Name + " set logical_decoding_work_mem = '64kB'") // large transactions are streamed
	n := &nemesis{t: t, db: db, dice: dice, conn: db.Connect(), leaves: []string{"ev_0", "ev_1"}, key: "id", serial: 1000}
	t.Cleanup(func() {
		n.finishPrepared()
		n.conn.Close(context.WithoutCancel(t.Context()))
	})
	n.exec("set timezone = 'UTC'; set statement_timeout = '120s'", nil)
	return n
}

// exec runs a script that commits once, and keeps what the tables hold after it. A script that begins with a question
// mark may fail: leat may have repaired already what it repairs.
func (n *nemesis) exec(sql string, blind []string) {
	n.t.Helper()
	script, mayFail := strings.CutPrefix(sql, "?")
	if _, err := n.conn.PgConn().Exec(n.t.Context(), script).ReadAll(); err != nil {
		if !mayFail {
			n.t.Fatalf("%s: %v", script, err)
		}
		_, _ = n.conn.PgConn().Exec(n.t.Context(), "rollback").ReadAll()
	}
	n.states = append(n.states, n.look(script, blind))
}

func (n *nemesis) look(sql string, blind []string) nemesisState {
	n.t.Helper()
	s := nemesisState{sql: sql, blind: blind, tables: map[string]tableState{}}
	s.at = n.position()
	for _, name := range nemesisTables {
		s.tables[name] = n.table(name)
	}
	return s
}

// position is the end of the WAL.
func (n *nemesis) position() change.LSN {
	n.t.Helper()
	var at string
	if err := n.conn.QueryRow(n.t.Context(), "select pg_current_wal_insert_lsn()::text").Scan(&at); err != nil {
		n.t.Fatal(err)
	}
	return lsnOf(n.t, at)
}

func (n *nemesis) table(name string) tableState {
	n.t.Helper()
	s := tableState{attnums: map[string]string{}, types: map[string]string{}, key: map[string][]string{
		"ev": {"id", "d"}, "tree": {"r", "id"}, "keyed": {n.key}, "swap_a": {"id"}, "swap_b": {"id"}, "col": {"id"}, "bulk": {"id"},
	}[name]}
	rows, err := n.conn.Query(n.t.Context(), `select attrelid::text, attname, attnum::text, format_type(atttypid, atttypmod) from pg_attribute
		where attrelid = $1::text::regclass and attnum > 0 and not attisdropped`, "public."+name)
	if err != nil {
		n.t.Fatal(err)
	}
	var column, attnum, kind string
	if _, err := pgx.ForEachRow(rows, []any{&s.oid, &column, &attnum, &kind}, func() error {
		s.attnums[column], s.types[attnum] = attnum, kind
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
	s.rows = contentNow(n.t, n.conn.PgConn(), "public."+name)
	return s
}

func (n *nemesis) next() int { n.serial++; return n.serial }

func (n *nemesis) finishPrepared() {
	if n.prepared != "" {
		_, err := n.conn.PgConn().Exec(context.WithoutCancel(n.t.Context()), "commit prepared '"+n.prepared+"'").ReadAll()
		if err != nil {
			n.t.Error(err)
		}
		n.prepared = ""
	}
}

// settle commits what is prepared, so that everything is in the WAL.
func (n *nemesis) settle() {
	if n.prepared != "" {
		n.exec("commit prepared '"+n.prepared+"'", nil)
		n.prepared = ""
	}
}

// nemesisOp is one thing that happens to a database: scripts, of which each commits once.
type nemesisOp struct {
	name    string
	blind   []string // tables that leat may resync because of it; none where the WAL tells everything
	ownPub  bool     // only where leat's own publication is there
	scripts func(n *nemesis) []string
}

// act does one thing.
func (n *nemesis) act() {
	n.t.Helper()
	op := nemesisOps[n.dice.IntN(len(nemesisOps))]
	if op.ownPub && n.allPub {
		return
	}
	for _, sql := range op.scripts(n) {
		n.exec(sql, op.blind)
	}
}

// leaf is one of ev's, and the bounds of its d.
func (n *nemesis) leaf() (name string, from int) {
	name = n.leaves[n.dice.IntN(len(n.leaves))]
	_, _ = fmt.Sscanf(name, "ev_%d", &from)
	return name, from * 100
}

// newLeaf names the next leaf of ev.
func (n *nemesis) newLeaf() (name string, from int) {
	number := len(n.leaves)
	name = fmt.Sprintf("ev_%d", number)
	n.leaves = append(n.leaves, name)
	return name, number * 100
}

// rows is some ordinary work on every table.
func (n *nemesis) rows() string {
	k := n.next()
	_, d := n.leaf()
	all := []string{
		fmt.Sprintf("insert into ev values (%d, %d, 'new')", k, d+k%100),
		fmt.Sprintf("update ev set v = v || '!' where id %% 7 = %d", k%7),
		fmt.Sprintf("update ev set d = %d where id = (select min(id) from ev where id %% 5 = %d)", d+k%100, k%5),
		fmt.Sprintf("delete from ev where id = (select min(id) from ev where id %% 3 = %d)", k%3),
		fmt.Sprintf("insert into tree values ('a', %d, 'new'), ('b', %d, 'new')", k, k),
		fmt.Sprintf("update tree set r = case r when 'a' then 'b' else 'a' end where id = %d", n.dice.IntN(40)),
		fmt.Sprintf("delete from tree where id = %d", n.dice.IntN(40)),
		fmt.Sprintf("insert into keyed values (%d, %d, 'new')", k, k),
		fmt.Sprintf("update keyed set v = v || '.' where %s %% 9 = %d", n.key, k%9),
		fmt.Sprintf("update keyed set %s = %d where %s = (select min(%s) from keyed)", n.key, k, n.key, n.key),
		fmt.Sprintf("insert into loose values (%d, 'l'), (%d, null)", k%10, k%10),
		fmt.Sprintf("update loose set v = 'w%d' where ctid = (select min(ctid) from loose where k = %d)", k, k%10),
		fmt.Sprintf("delete from loose where ctid = (select min(ctid) from loose where k = %d)", k%10),
		fmt.Sprintf("insert into swap_a values (%d, 'new')", k), fmt.Sprintf("update swap_b set v = 'x' where id %% 4 = %d", k%4),
		fmt.Sprintf("insert into col (id, y) values (%d, 'new')", k), fmt.Sprintf("update col set y = y || '+' where id %% 3 = %d", k%3),
		fmt.Sprintf("update bulk set v = 'u%d' where id %% 11 = %d", k, k%11),
	}
	var b strings.Builder
	b.WriteString("?begin; ") // one row may come twice
	for range 1 + n.dice.IntN(4) {
		b.WriteString(all[n.dice.IntN(len(all))] + "; ")
	}
	if n.dice.IntN(4) == 0 {
		b.WriteString("savepoint s; " + all[n.dice.IntN(len(all))] + "; rollback to s; ")
	}
	return b.String() + "commit"
}

func one(format string, args ...any) []string { return []string{fmt.Sprintf(format, args...)} }

// attach is the SQL that makes a table a leaf again.
func attach(leaf string, from int) string {
	return fmt.Sprintf("alter table ev attach partition %s for values from (%d) to (%d)", leaf, from, from+100)
}

var nemesisOps = []nemesisOp{
	{name: "rows", scripts: func(n *nemesis) []string { return []string{n.rows(), n.rows()} }},
	{name: "a partition made and filled in one transaction", blind: []string{"ev"}, scripts: func(n *nemesis) []string {
		leaf, from := n.newLeaf()
		return one("begin; create table %s partition of ev for values from (%d) to (%d); insert into ev values (%d, %d, 'made'); commit",
			leaf, from, from+100, n.next(), from)
	}},
	{name: "a partition made, filled and attached in one transaction", blind: []string{"ev"}, scripts: func(n *nemesis) []string {
		leaf, from := n.newLeaf()
		return one("begin; create table %[1]s (like ev including all); insert into %[1]s values (%[3]d, %[2]d, 'filled'), (%[4]d, %[2]d, 'filled'); %[5]s; commit",
			leaf, from, n.next(), n.next(), attach(leaf, from))
	}},
	{name: "a partition of another column order", blind: []string{"ev"}, scripts: func(n *nemesis) []string {
		leaf, from := n.newLeaf()
		return []string{
			fmt.Sprintf("create table %s (gone int, v text, d int not null, id int not null, primary key (id, d)); alter table %[1]s drop gone", leaf),
			fmt.Sprintf("insert into %s values ('before', %d, %d)", leaf, from, n.next()),
			attach(leaf, from),
			fmt.Sprintf("insert into ev values (%d, %d, 'after')", n.next(), from),
		}
	}},
	{name: "a partition detached, changed and attached", blind: []string{"ev"}, scripts: func(n *nemesis) []string {
		leaf, from := n.leaf()
		detach := []string{"", " concurrently"}[n.dice.IntN(2)]
		return []string{
			"alter table ev detach partition " + leaf + detach,
			fmt.Sprintf("begin; update %[1]s set v = 'changed'; delete from %[1]s where id %% 2 = 0; insert into %[1]s (id, d, v) values (%[2]d, %[3]d, 'apart'); commit", leaf, n.next(), from),
			attach(leaf, from),
		}
	}},
	{name: "the same in one transaction", blind: []string{"ev"}, scripts: func(n *nemesis) []string {
		leaf, from := n.leaf()
		return one("begin; alter table ev detach partition %[1]s; insert into %[1]s (id, d, v) values (%[2]d, %[3]d, 'apart'); %[4]s; commit", leaf, n.next(), from, attach(leaf, from))
	}},
	{name: "a tree hung elsewhere and back", blind: []string{"tree"}, scripts: func(n *nemesis) []string {
		return []string{
			"alter table tree detach partition tree_a",
			fmt.Sprintf("begin; insert into tree_a values ('a', %d, 'apart'); delete from tree_a where id %% 5 = 0; commit", n.next()),
			"alter table tree attach partition tree_a for values in ('a')",
		}
	}},
	{name: "TRUNCATE of a leaf", blind: []string{"ev"}, scripts: func(n *nemesis) []string {
		leaf, _ := n.leaf()
		return []string{"truncate " + leaf, n.rows()}
	}},
	{name: "TRUNCATE of a root", scripts: func(*nemesis) []string { return one("truncate ev") }},
	{name: "a leaf unlogged for a bulk load", blind: []string{"ev"}, scripts: func(n *nemesis) []string {
		leaf, from := n.leaf()
		load := fmt.Sprintf("insert into %s (id, d, v) values (%d, %d, 'bulk')", leaf, n.next(), from)
		if n.dice.IntN(2) == 0 {
			return one("begin; alter table %[1]s set unlogged; %[2]s; alter table %[1]s set logged; commit", leaf, load)
		}
		return []string{"alter table " + leaf + " set unlogged", load, "alter table " + leaf + " set logged"}
	}},
	{name: "a publication that publishes less for a while", blind: nemesisTables, ownPub: true, scripts: func(n *nemesis) []string {
		return []string{
			"?alter publication " + n.pub + " set (publish = 'insert')", n.rows(), n.rows(),
			"?alter publication " + n.pub + " set (publish = 'insert, update, delete, truncate')",
		}
	}},
	{name: "a publication without its roots for a while", blind: nemesisTables, ownPub: true, scripts: func(n *nemesis) []string {
		return []string{
			"?alter publication " + n.pub + " set (publish_via_partition_root = false)", n.rows(), n.rows(),
			"?alter publication " + n.pub + " set (publish_via_partition_root = true)",
		}
	}},
	{name: "a table that leaves the publication for a while", blind: []string{"keyed"}, ownPub: true, scripts: func(n *nemesis) []string {
		return []string{
			"?alter publication " + n.pub + " drop table only keyed", fmt.Sprintf("insert into keyed values (%d, %[1]d, 'untold')", n.next()),
			"?alter publication " + n.pub + " add table only keyed",
		}
	}},
	{name: "a publication dropped and made again", blind: nemesisTables, ownPub: true, scripts: func(n *nemesis) []string {
		return []string{
			"?begin; drop publication " + n.pub + "; insert into swap_a values (" + fmt.Sprint(n.next()) + ", 'untold'); create publication " + n.pub +
				" for table only keyed, only ev, only tree, only loose, only swap_a, only swap_b, only col, only bulk with (publish_via_partition_root = true); commit",
		}
	}},
	{name: "a row filter for a while", blind: []string{"col"}, ownPub: true, scripts: func(n *nemesis) []string {
		return []string{
			"?begin; alter publication " + n.pub + " drop table only col; alter publication " + n.pub + " add table only col where (id > 100000); commit",
			fmt.Sprintf("insert into col (id, y) values (%d, 'untold')", n.next()),
			"?begin; alter publication " + n.pub + " drop table only col; alter publication " + n.pub + " add table only col; commit",
		}
	}},
	{name: "a column list for a while", blind: []string{"bulk"}, ownPub: true, scripts: func(n *nemesis) []string {
		return []string{
			"?begin; alter publication " + n.pub + " drop table only bulk; alter publication " + n.pub + " add table only bulk (id); commit",
			fmt.Sprintf("insert into bulk values (%d, 'untold')", n.next()),
			"?begin; alter publication " + n.pub + " drop table only bulk; alter publication " + n.pub + " add table only bulk; commit",
		}
	}},
	{name: "no identity for a while", blind: []string{"swap_a"}, scripts: func(n *nemesis) []string {
		return []string{
			"alter table swap_a replica identity nothing", fmt.Sprintf("insert into swap_a values (%d, 'n')", n.next()),
			"alter table swap_a replica identity default", fmt.Sprintf("update swap_a set v = 'back' where id %% 3 = %d", n.next()%3),
		}
	}},
	{name: "another identity for a while", blind: []string{"col"}, scripts: func(n *nemesis) []string {
		return []string{
			"alter table col replica identity full", fmt.Sprintf("update col set y = 'full' where id %% 3 = %d", n.next()%3),
			fmt.Sprintf("update col set id = %d where id = (select min(id) from col)", n.next()),
			"alter table col replica identity default", fmt.Sprintf("delete from col where id = (select min(id) from col where id > %d)", n.dice.IntN(20)),
		}
	}},
	{name: "a key that goes, and another one", blind: []string{"keyed"}, scripts: (*nemesis).otherKey},
	{name: "two tables that change their names", blind: []string{"swap_a", "swap_b"}, scripts: func(n *nemesis) []string {
		return []string{
			"begin; alter table swap_a rename to swap_c; alter table swap_b rename to swap_a; alter table swap_c rename to swap_b; commit",
			fmt.Sprintf("begin; insert into swap_a values (%d, 'swapped'); update swap_b set v = 'swapped' where id %% 4 = 1; commit", n.next()),
		}
	}},
	{name: "a table replaced by a copy of it", blind: []string{"swap_b"}, scripts: func(n *nemesis) []string {
		return one("begin; create table fresh (like swap_b including all); insert into fresh select * from swap_b; insert into fresh values (%d, 'fresh'); "+
			"drop table swap_b; alter table fresh rename to swap_b; commit", n.next())
	}},
	{name: "a column dropped and made again", blind: []string{"col"}, scripts: func(n *nemesis) []string {
		return one("begin; alter table col drop x; alter table col add x int; insert into col (id, y) values (%d, 'again'); commit", n.next())
	}},
	{name: "a column of another type", blind: []string{"col"}, scripts: func(n *nemesis) []string {
		to := []string{"bigint", "int using x::int", "numeric(20,2)", "text using x::text || 'z'", "int using coalesce(length(x::text), 0)"}[n.dice.IntN(5)]
		return one("?begin; alter table col alter x type %s; insert into col (id, y) values (%d, 'type'); commit", to, n.next())
	}},
	{name: "a large transaction", scripts: func(n *nemesis) []string {
		from := n.next() * 10_000
		return one("begin; insert into bulk select i, repeat('x', 100) from generate_series(%[1]d, %[1]d + 1200) i; savepoint s; "+
			"insert into bulk select i, 'never' from generate_series(%[1]d + 2000, %[1]d + 2900) i; update bulk set v = 'never'; rollback to s; "+
			"update bulk set v = 'kept' where id %% 3 = 0; delete from bulk where id > %[1]d + 15; commit", from)
	}},
	{name: "a prepared transaction", scripts: func(n *nemesis) []string {
		if n.prepared != "" {
			gid := n.prepared
			n.prepared = ""
			return []string{"commit prepared '" + gid + "'"}
		}
		n.prepared = fmt.Sprintf("%s_%d", n.db.Name, n.next())
		return one("begin; insert into bulk values (%d, 'prepared'); prepare transaction '%s'", n.next(), n.prepared)
	}},
	{name: "care that changes nothing", scripts: func(n *nemesis) []string {
		leaf, _ := n.leaf()
		if n.prepared != "" { // it would be waited for
			return []string{"vacuum freeze keyed", "analyze"}
		}
		return []string{"vacuum freeze", "vacuum full keyed", "analyze", fmt.Sprintf("create index concurrently i%d on keyed (v)", n.next()),
			"grant select on swap_a to public", "comment on table col is 'nothing'", "reindex table " + leaf, n.rows()}
	}},
}

// otherKey drops the key of keyed, lets rows come that share its values, and makes the other column the key.
func (n *nemesis) otherKey() []string {
	was, will := n.key, map[string]string{"id": "u", "u": "id"}[n.key]
	free := fmt.Sprintf("update keyed k set %[1]s = s.n from (select %[2]s, %[3]d + row_number() over (order by %[2]s) n from keyed) s where s.%[2]s = k.%[2]s", will, was, n.next()*1000)
	n.key = will
	n.serial += 1000
	k := n.next()
	return []string{
		free, // no two rows share a value of the key to come
		"alter table keyed drop constraint keyed_pkey, drop constraint if exists keyed_u_key",
		fmt.Sprintf("insert into keyed (%[1]s, %[2]s, v) select %[1]s, %[3]d, 'twin' from keyed order by %[1]s limit 1", was, will, k),
		"alter table keyed add constraint keyed_pkey primary key (" + will + ")",
		fmt.Sprintf("update keyed set v = 'after' where %s = %d", will, k),
	}
}
