package way_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// identified is a table by the replica identities of its root and of its partitions, which the log tells rows by.
type identified struct {
	root, leaf string // d, i, f, n; w of a partition is an index of more columns than the root's key
	keyed      bool   // there is a primary key
}

func (i identified) name() string { return fmt.Sprintf("of_%s_%s_%t", i.root, i.leaf, i.keyed) }

// told says whether the log tells updates and deletes: of a partition no less than of its root.
func (i identified) told() bool {
	return i.root != "n" && i.leaf != "n" && (i.keyed || i.root == "i" && i.leaf != "d" || i.root == "f" && i.leaf == "f")
}

// make makes a table of two partitions, one of which has its columns in another order. Large values lie outside their rows.
func (i identified) make(db *testlab.DB) {
	sql := `create table %[1]s (id int not null, d int not null, big text, v text, w int not null) partition by range (d);
alter table %[1]s alter big set storage external; create unique index %[1]s_u on %[1]s (id, d)`
	if i.keyed {
		sql += "; alter table %[1]s add primary key (id, d)"
	}
	sql += `; create table %[1]s_1 partition of %[1]s for values from (0) to (10);
create table %[1]s_2 (w int not null, gone int, v text, big text, d int not null, id int not null); alter table %[1]s_2 drop gone;
alter table %[1]s_2 alter big set storage external; alter table %[1]s attach partition %[1]s_2 for values from (10) to (20);
create unique index %[1]s_1_w on %[1]s_1 (id, d, w); create unique index %[1]s_2_w on %[1]s_2 (id, d, w);
insert into %[1]s select i, i, repeat(i::text, 2500), 'first', 0 from generate_series(1, 19) i; insert into %[1]s values (30, 3, null, 'first', 0), (31, 13, null, 'first', 0)`
	db.Exec(fmt.Sprintf(sql, i.name()))
	db.Exec("alter table " + i.name() + " replica identity " + i.identity(i.root, i.name()+"_u"))
	for _, leaf := range []string{i.name() + "_1", i.name() + "_2"} {
		db.Exec("alter table " + leaf + " replica identity " + i.identity(i.leaf, leaf+map[bool]string{true: "_w", false: "_id_d_idx"}[i.leaf == "w"]))
	}
}

func (i identified) identity(kind, index string) string {
	switch kind {
	case "d":
		return "default"
	case "f":
		return "full"
	case "n":
		return "nothing"
	}
	return "using index " + index
}

// what happens to the rows of each table, in one transaction each. Large values stay as they are, or change with what else does.
var identifiedDoes = []string{
	"update %s set id = id + 100 where id in (1, 11)",
	"update %s set v = 'changed' where id in (2, 12, 101, 111)",
	"update %s set w = w + 1 where id in (2, 3, 12, 13)",
	"delete from %s where id in (3, 13)",
	"insert into %[1]s values (40, 4, repeat('new', 3000), 'second', 0), (41, 14, repeat('new', 3000), 'second', 0); update %[1]s set id = id + 100 where id in (40, 41); update %[1]s set v = 'third' where id in (140, 141)",
	"update %[1]s set id = id + 100 where id in (4, 14); update %[1]s set id = id + 100, v = 'twice' where id in (104, 114); update %[1]s set w = 9 where id in (204, 214)",
	"update %s set id = id + 100 where big is null",
	"update %s set id = id + 100, big = repeat('other', 2000) where id in (5, 15)",
	"update %s set d = d + 10 where id in (6, 7); update %[1]s set d = d - 10 where id in (18, 19)",
	"delete from %[1]s where id in (8, 16); insert into %[1]s values (8, 8, null, 'again', 0), (16, 16, repeat('again', 2000), 'again', 0); update %[1]s set v = 'last' where id in (8, 16)",
	"update %s set id = -id",
}

// The log says of which identity the root is, and what of an earlier row it tells goes by the partition's.
func TestRowsOfPartitionsAreRightWhateverTheIdentitiesOfRootAndPartition(t *testing.T) {
	t.Parallel()
	// One major has all tables, the oldest and the newest have a half each; all with LEAT_TEST_LONG=1.
	for major, part := range map[int]int{13: 0, 15: -1, 18: 1} {
		t.Run(fmt.Sprint("PostgreSQL ", major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			var of []followed
			var out []string
			n := 0
			for _, root := range []string{"d", "i", "f", "n"} {
				for _, leaf := range []string{"d", "i", "w", "f", "n"} {
					for _, keyed := range []bool{true, false} {
						i := identified{root, leaf, keyed}
						if !keyed && (root == "d" || root == "n") {
							continue // they are left out whatever their partitions are
						}
						if n++; n%2 == part && os.Getenv("LEAT_TEST_LONG") == "" {
							continue
						}
						i.make(db)
						f := followed{schema: "public", name: i.name(), columns: []string{"id", "d", "big", "v", "w"}}
						if keyed || root == "i" {
							f.key = []string{"id", "d"}
						}
						if i.told() {
							of = append(of, f)
						} else {
							out = append(out, f.name)
						}
					}
				}
			}
			p := newPipeline(t, db)
			if r := p.start("--until-caught-up").WaitWithin(patience); r.Exit != 0 || slices.ContainsFunc(out, func(name string) bool { return !strings.Contains(r.Stderr, "public."+name) }) {
				t.Fatalf("leat run ends with %d, and names of %v:\n%s", r.Exit, out, r.Stderr)
			}
			moments := []moment{look(t, db, of)}
			for step, does := range identifiedDoes {
				for _, f := range of {
					db.Exec("begin; " + fmt.Sprintf(does+"%[2]s", f.name, "; commit"))
				}
				moments = append(moments, look(t, db, of))
				if step == 4 {
					p.catchUp()
				}
			}
			p.catchUp()
			for _, name := range out {
				if _, err := os.Stat(p.lake + "/public/" + name); err == nil {
					t.Errorf("%s is in the lake, and the log does not tell of it", name)
				}
			}
			pyiceberg := func(f followed, table string) ([]string, [][]string) {
				return testlab.PyIceberg(t, "file://"+p.lake+"/"+f.schema+"/"+table)
			}
			judge(t, of, moments, map[string]reads{"PyIceberg": pyiceberg}, pyiceberg)
		})
	}
}

// An update that brings a row into a row filter is told as an insert, and may leave out a large value as an update does.
func TestAHistoryNamesTheLargeValuesThatAnInsertLeavesOut(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 15)
	db.Exec("create table notes (id int primary key, big text); alter table notes alter big set storage external; insert into notes values (1, repeat('x', 9000)), (2, 'small')")
	p := newPipeline(t, db)
	p.settings("run:\n  row_filters: [\"public.notes = id > 5\"]\n")
	p.run = append(p.run, "--keep", "history")
	p.catchUp()
	db.Exec("update notes set id = id + 10")
	p.catchUp()
	f := followed{schema: "public", name: "notes", columns: []string{"id", "big"}}
	names, all := testlab.PyIceberg(t, "file://"+p.lake+"/public/notes_history")
	got := ""
	for _, e := range events(t, f, names, all) {
		got += fmt.Sprintf("%s%v%v", e.op, e.row, e.unchanged)
	}
	if want := "c[11 " + testlab.Null + "][big]c[12 small][]"; got != want {
		t.Errorf("the history is %s, want %s", got, want)
	}
}
