package lake

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/testlab"
)

func TestATableOfPyIcebergIsRelocatedWithoutItsCatalog(t *testing.T) {
	t.Parallel()
	s := folderSides(t, "shop/orders")
	const script = `
import sys, datetime, pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionSpec, PartitionField
from pyiceberg.transforms import IdentityTransform
from pyiceberg.schema import Schema
from pyiceberg.types import *
root, work = sys.argv[1:]
c = SqlCatalog("c", uri=f"sqlite:///{work}/c.db", warehouse=root)
c.create_namespace("shop")
schema = Schema(NestedField(1, "id", LongType(), required=False), NestedField(2, "at", TimestampType()), NestedField(3, "name", StringType()), NestedField(4, "tags", ListType(5, StringType(), False)))
t = c.create_table("shop.orders", schema, location=root + "/shop/orders",
    partition_spec=PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "at"), PartitionField(3, 1001, IdentityTransform(), "name")),
    properties={"write.data.path": root + "/shop/orders/data", "comment": "see " + root, "write.metadata.previous-versions-max": "3"})
def rows(a, b):
    return pa.table({"id": pa.array(range(a, b), pa.int64()), "at": pa.array([datetime.datetime(2026, 1 + i % 3, 1) for i in range(a, b)], pa.timestamp("us")),
        "name": [None if i % 7 == 0 else "ä/%d" % (i % 3) for i in range(a, b)], "tags": [["x", str(i)] for i in range(a, b)]})
t.append(rows(0, 20)); t.append(rows(20, 30)); t.delete("id < 5"); t.overwrite(rows(100, 103), "id = 21")
with t.update_schema() as u: u.add_column("more", DecimalType(20, 2))
t.append(rows(40, 50).append_column("more", pa.array([None] * 10, pa.decimal128(20, 2))))
t.append(rows(50, 52).append_column("more", pa.array([None] * 2, pa.decimal128(20, 2))))
print("POINTER" + t.metadata_location)
`
	out, _ := testlab.RunPython(t, script, s.FromURL, t.TempDir())
	_, pointer, _ := strings.Cut(strings.TrimSpace(out), "POINTER")
	want := rowsBySnapshot(t, pointer)
	if len(want) < 7 || len(want["now"]) < 35 {
		t.Fatalf("%d snapshots, %d rows", len(want)-1, len(want["now"]))
	}
	done := s.run(t)
	if done.Version < 6 || done.DataFiles == 0 {
		t.Errorf("%+v", done)
	}
	if done = s.run(t); !done.Nothing() {
		t.Errorf("the second run did %+v", done)
	}
	if err := os.RemoveAll(s.dir(s.FromURL)); err != nil {
		t.Fatal(err)
	}
	sameRows(t, "by the pointer", rowsBySnapshot(t, s.ToURL+"/shop/orders"), want)
	sameRows(t, "by name", rowsBySnapshot(t, strings.Replace(pointer, s.FromURL, s.ToURL, 1)), want)
	meta, err := os.ReadFile(s.dir(strings.Replace(pointer, s.FromURL, s.ToURL, 1)))
	if err != nil || !strings.Contains(string(meta), `"see `+s.FromURL+`"`) || strings.Count(string(meta), s.FromURL) != 1 {
		t.Errorf("%v: %s", err, meta)
	}
}

func TestATableGoesFromOneStoreToAnother(t *testing.T) {
	t.Parallel()
	from, to := testlab.S3(t), testlab.Ceph(t)
	s := newSides(t, "s3://"+from.Bucket+"/app", openStoreBucket(t, from, "app"), "s3a://"+to.Bucket+"/dr/app", openStoreBucket(t, to, "dr/app"), "public/visits")
	lived(t, testLake(t, t.TempDir(), func(o *Options) { o.Bucket, o.Location, o.Format = s.From, s.FromURL, 3 }))
	want := rowsBySnapshot(t, s.FromURL+"/public/visits", s3Settings(from))
	s.run(t)
	if done := s.run(t); !done.Nothing() {
		t.Errorf("the second run did %+v", done)
	}
	var keys []string
	for o, err := range s.From.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, o.Key)
	}
	if err := s.From.Delete(t.Context(), keys...); err != nil {
		t.Fatal(err)
	}
	sameRows(t, "at Ceph", rowsBySnapshot(t, s.ToURL+"/public/visits", s3Settings(to)), want)
}

func openStoreBucket(t *testing.T, s testlab.Store, root string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "s3://"+s.Bucket+"/"+root, bucket.Options{Endpoint: s.Endpoint, Region: s.Region,
		AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// s3Settings are PyIceberg's.
func s3Settings(s testlab.Store) string {
	text, _ := json.Marshal(map[string]string{"s3.endpoint": s.Endpoint, "s3.region": s.Region, "s3.access-key-id": s.AccessKey, "s3.secret-access-key": s.SecretKey,
		"s3.force-virtual-addressing": "false"})
	return string(text)
}

func TestATableOfSparkIsRelocated(t *testing.T) {
	t.Parallel()
	for _, version := range []string{"2", "3"} {
		t.Run("v"+version, func(t *testing.T) {
			t.Parallel()
			s := folderSides(t, "db/t")
			near := testlab.SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": s.FromURL})
			for _, sql := range []string{
				`CREATE TABLE %s.db.t (id bigint, name string, big decimal(20,3)) USING iceberg PARTITIONED BY (bucket(2, id)) TBLPROPERTIES ('format-version'='` + version + `',
					'write.delete.mode'='merge-on-read', 'write.update.mode'='merge-on-read', 'write.metadata.compression-codec'='gzip', 'write.delete.parquet.compression-codec'='gzip',
					'write.delete.granularity'='partition')`,
				`INSERT INTO %s.db.t SELECT id, concat('n', id), id / 7 FROM range(100)`,
				`DELETE FROM %s.db.t WHERE id % 5 = 0`,
				`UPDATE %s.db.t SET name = 'x' WHERE id % 7 = 0`,
				`ALTER TABLE %s.db.t ADD COLUMN more int`,
				`INSERT INTO %s.db.t SELECT id, 'y', null, 7 FROM range(200, 210)`,
			} {
				near.Query(strings.ReplaceAll(sql, "%s", near.Catalog))
			}
			var snapshots [][]string
			query := func(c *testlab.Spark) [][]string {
				var parts []string
				for _, id := range snapshots {
					parts = append(parts, "SELECT "+id[0]+" AS s, id, name, big FROM "+c.Catalog+".db.t VERSION AS OF "+id[0])
				}
				_, rows := c.Query(strings.Join(parts, " UNION ALL ") + " ORDER BY s, id")
				return rows
			}
			_, snapshots = near.Query("SELECT snapshot_id FROM " + near.Catalog + ".db.t.snapshots")
			want := query(near)
			if len(want) < 350 {
				t.Fatalf("%d rows", len(want))
			}
			done := s.run(t)
			if done.DeleteFiles == 0 || done.ManifestLists != 4 {
				t.Errorf("%+v", done)
			}
			if done = s.run(t); !done.Nothing() {
				t.Errorf("the second run did %+v", done)
			}
			empty(t, s.dir(s.FromURL))
			far := testlab.SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": s.ToURL})
			if got := query(far); !slices.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%d rows, want %d", len(got), len(want))
			}
		})
	}
}
