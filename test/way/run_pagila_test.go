package way_test

import (
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// reads is how a program that is not ours reads a table of the lake.
type reads func(f followed, table string) (columns []string, rows [][]string)

// judge compares the lake with the truth: current with the newest moment, history rebuilt with each.
func judge(t testing.TB, of []followed, moments []moment, how map[string]reads, history reads) {
	t.Helper()
	newest := moments[len(moments)-1]
	for _, f := range of {
		truth := newest.tables[f.String()]
		for who, read := range how {
			names, all := read(f, f.name)
			if d := truth.difference(pick(t, f.String(), names, all, f.columns)); d != "" {
				t.Errorf("%s, as %s reads it:%s", f, who, d)
			}
		}
		if history == nil {
			continue
		}
		names, all := history(f, f.name+"_history")
		log := events(t, f, names, all)
		for _, m := range moments {
			if d := m.tables[f.String()].difference(f.rebuilt(log, m.lsn)); d != "" {
				t.Errorf("%s, rebuilt from its history to %X:%s", f, m.lsn, d)
			}
		}
	}
}

// judges read a lake that lies in a folder.
func judges(t testing.TB, folder string) (how map[string]reads, history reads) {
	spark := testlab.SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": "file://" + folder})
	pyiceberg := func(f followed, table string) ([]string, [][]string) {
		return testlab.PyIceberg(t, "file://"+folder+"/"+f.schema+"/"+table)
	}
	return map[string]reads{"PyIceberg": pyiceberg, "Spark": func(f followed, table string) ([]string, [][]string) {
		return spark.Query("select * from " + spark.Catalog + "." + f.schema + "." + table)
	}}, pyiceberg
}

// followThrough copies a database and follows it while it is at work, ends and starts again, and returns moments of it, the
// last of which is what the lake holds now.
func followThrough(t testing.TB, p *pipeline, b business, of []followed, transactions int) []moment {
	t.Helper()
	run := p.start()
	b.work(t, transactions, 1) // while it copies
	p.ready(run)
	moments := []moment{look(t, p.db, of)}
	b.work(t, transactions, 2)
	p.end(run)
	b.work(t, transactions, 3) // while nobody looks
	moments = append(moments, look(t, p.db, of))
	run = p.start()
	b.work(t, transactions, 4)
	p.ready(run)
	p.end(run)
	p.catchUp()
	return append(moments, look(t, p.db, of))
}

func TestPagilaAtWorkIsTheSameInTheLake(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t, 15)
	b := openPagila(t, db)
	p := newPipeline(t, db)
	of := tables(db)
	moments := followThrough(t, p, b, of, 300)
	how, history := judges(t, p.lake)
	judge(t, of, moments, how, history)
}

func TestAShopAtWorkIsTheSameInTheLake(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]string{"position deletes": "2", "deletion vectors": "3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t)
			b := openShop(db)
			if version == "3" { // a type without a binary form of ours: all values of the log come as text
				db.Exec("alter table notes add span tsrange default tsrange('2026-01-01', null)")
			}
			p := newPipeline(t, db).with("lake.format_version=" + version)
			of := tables(db)
			moments := followThrough(t, p, b, of, 240)
			how, history := judges(t, p.lake)
			judge(t, of, moments, how, history)
		})
	}
}

func TestAShopInARESTCatalogIsReadByOthers(t *testing.T) {
	t.Parallel()
	db, nessie := testlab.Postgres(t), testlab.Nessie(t)
	b := openShop(db)
	p := newPipeline(t, db)
	prefix := p.name + "_"
	p.in("s3://"+nessie.Store.Bucket+"/"+p.name, nessie.Store.Env()...)
	p.with("lake.catalog.type=rest", "lake.catalog.uri="+nessie.URI, "lake.catalog.warehouse=warehouse", "lake.namespace_prefix="+prefix)
	of := tables(db)
	p.catchUp()
	b.work(t, 60, 1)
	p.catchUp()
	moments := []moment{look(t, db, of)}
	spark := testlab.SparkCatalog(t, nessie.SparkSettings())
	judge(t, of, moments, map[string]reads{"Spark": func(f followed, table string) ([]string, [][]string) {
		return spark.Query("select * from " + spark.Catalog + "." + prefix + f.schema + "." + table)
	}}, func(f followed, table string) ([]string, [][]string) {
		return testlab.PyIcebergCatalog(t, nessie.PyIcebergSettings(), prefix+f.schema, table)
	})
}

// inGlue follows a database into a folder whose tables a Glue catalog lists.
func inGlue(t testing.TB, db *testlab.DB, glue testlab.GlueServer) (p *pipeline, prefix string) {
	t.Helper()
	p = newPipeline(t, db)
	prefix = p.name + "_"
	p.env = append(p.env, glue.Env()...)
	return p.with("lake.catalog.type=glue", "lake.catalog.uri="+glue.Endpoint, "lake.catalog.region=us-east-1", "lake.namespace_prefix="+prefix), prefix
}

func TestColumnsOfOddNamesInGlueAreReadByOthers(t *testing.T) {
	t.Parallel()
	db, glue := testlab.Postgres(t), testlab.Glue(t)
	p, prefix := inGlue(t, db, glue)
	oddColumns(t, db, p, prefix, glue.PyIcebergSettings())
}

func TestAShopInGlueIsReadByOthers(t *testing.T) {
	t.Parallel()
	db, glue := testlab.Postgres(t), testlab.Glue(t)
	b := openShop(db)
	p, prefix := inGlue(t, db, glue)
	p.catchUp()
	b.work(t, 60, 1)
	db.Exec("alter table customers add column rank int default 3")
	b.work(t, 20, 2)
	p.catchUp()
	of := tables(db)
	moments := []moment{look(t, db, of)}
	judge(t, of, moments, map[string]reads{"PyIceberg": func(f followed, table string) ([]string, [][]string) {
		return testlab.PyIcebergCatalog(t, glue.PyIcebergSettings(), prefix+f.schema, table)
	}}, nil)
}
