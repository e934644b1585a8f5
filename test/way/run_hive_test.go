package way_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// inHive follows the shop into a folder whose tables a Hive metastore lists, at the address.
func inHive(t testing.TB, db *testlab.DB, address string) (p *pipeline, prefix string) {
	t.Helper()
	p = newPipeline(t, db)
	prefix = p.name + "_"
	return p.with("lake.catalog.type=hive", "lake.catalog.uri=thrift://"+address, "lake.namespace_prefix="+prefix), prefix
}

func TestAShopInHiveIsReadByOthers(t *testing.T) {
	t.Parallel()
	db, hive := testlab.Postgres(t), testlab.Hive(t)
	b := openShop(db)
	p, prefix := inHive(t, db, hive.Address)
	run := p.start()
	b.work(t, 60, 1) // while it copies
	p.ready(run)
	b.work(t, 30, 2)
	db.Exec("alter table customers add column rank int, drop column born; update customers set rank = id % 7 where id % 3 = 0")
	b.work(t, 30, 3)
	p.end(run)
	b.work(t, 20, 4)
	p.catchUp()
	of := tables(db)
	read := func(f followed, table string) ([]string, [][]string) {
		return testlab.PyIcebergCatalog(t, hive.PyIcebergSettings(), prefix+f.schema, table)
	}
	judge(t, of, []moment{look(t, db, of)}, map[string]reads{"PyIceberg": read}, read)
}

func TestColumnsOfOddNamesInHiveAreReadByOthers(t *testing.T) {
	t.Parallel()
	db, hive := testlab.Postgres(t), testlab.Hive(t)
	p, prefix := inHive(t, db, hive.Address)
	oddColumns(t, db, p, prefix, hive.PyIcebergSettings())
}

// oddColumns follows a table whose columns' names other grammars refuse. A catalog keeps them as they are; partitions by
// them have Iceberg's names.
func oddColumns(t *testing.T, db *testlab.DB, p *pipeline, prefix string, catalog map[string]string) {
	t.Helper()
	db.Exec(`create table odd ("Key.a" int primary key, "with space" text, "größe" text, "1st" text, "sl/ash" text, "per%cent" text, "a,b:c" text, "q""uote" text)`)
	db.Exec(`insert into odd select i, 's' || i, 'g', '1', '/', '%', ':', '"' from generate_series(1, 20) i`)
	p.with(`lake.partition_by=public.odd = bucket(2, "Key.a"), "größe"`)
	p.catchUp()
	db.Exec(`update odd set "with space" = 'changed', "größe" = 'ä' where "Key.a" > 10; delete from odd where "Key.a" = 3; alter table odd add "new-one" int default 7`)
	db.Exec(`insert into odd ("Key.a") values (21)`)
	p.catchUp()
	columns, rows := testlab.PyIcebergCatalog(t, catalog, prefix+"public", "odd")
	want := db.Query(`select "Key.a"::text, "with space", "größe", "1st", "sl/ash", "per%cent", "a,b:c", "q""uote", "new-one"::text from odd`)
	if wanted := []string{"Key.a", "with space", "größe", "1st", "sl/ash", "per%cent", "a,b:c", `q"uote`, "new-one"}; !slices.Equal(columns, wanted) {
		t.Errorf("PyIceberg reads the columns %q, want %q", columns, wanted)
	}
	sorted := func(rows [][]string) (lines []string) {
		for _, r := range rows {
			lines = append(lines, strings.Join(r, "|"))
		}
		slices.Sort(lines)
		return lines
	}
	if got, want := sorted(rows), sorted(want); !slices.Equal(got, want) {
		t.Errorf("PyIceberg reads\n%q, the source has\n%q", got, want)
	}
}
