package way_test

import (
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
