package lake

import (
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// works writes with two lakes of the same catalog: the second one must find a conflict.
func works(t *testing.T, lake func() *Lake) {
	t.Helper()
	keeps(t, "Odd näme.1", lake) // a dot and a space
}

func keeps(t *testing.T, name string, lake func() *Lake) {
	t.Helper()
	spec := historySpec()
	spec.Table.Name = name
	first := open(t, lake(), spec)
	write(t, first, changes(t, spec, 0x100, "cc", `[{"id":1},{"id":2}]`), 0x110)
	write(t, first, changes(t, spec, 0x200, "d", `[{"id":1}]`), 0x210)
	second := open(t, lake(), spec)
	if second.Position() != 0x210 {
		t.Errorf("it stands at %s", second.Position())
	}
	write(t, first, changes(t, spec, 0x300, "c", `[{"id":3}]`), 0x310)
	if err := second.Write(t.Context(), changes(t, spec, 0x300, "c", `[{"id":3}]`)); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Commit(t.Context(), 0x310, time.Now()); !fault.Is(err, fault.LakeConflict) {
		t.Errorf("the second writer got %v", err)
	}
	third := open(t, lake(), spec)
	data, _, err := third.kept[0].ice.live(t.Context())
	if err != nil || len(data) != 3 {
		t.Errorf("%d files, %v", len(data), err)
	}
}

func TestTheSQLiteCatalogKeepsTables(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	works(t, func() *Lake {
		return testLake(t, dir, func(o *Options) { o.Catalog = CatalogOptions{Kind: "sqlite", URI: dir + "/catalog #1.db"} })
	})
}

func TestThePostgresCatalogKeepsTables(t *testing.T) {
	t.Parallel()
	db, dir := testlab.Postgres(t), t.TempDir()
	works(t, func() *Lake {
		return testLake(t, dir, func(o *Options) { o.Catalog = CatalogOptions{Kind: "postgres", URI: db.URL} })
	})
}

func TestTheFileCatalogKeepsTablesInS3(t *testing.T) {
	t.Parallel()
	s := testlab.S3(t)
	b, err := bucket.Open(t.Context(), "s3://"+s.Bucket+"/lake", bucket.Options{Endpoint: s.Endpoint, Region: s.Region,
		AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey }})
	if err != nil {
		t.Fatal(err)
	}
	works(t, func() *Lake {
		return testLake(t, t.TempDir(), func(o *Options) { o.Bucket, o.Location = b, "s3://"+s.Bucket+"/lake" })
	})
}

func TestTheFileCatalogFindsTheNewestVersionWithoutItsHint(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	l := testLake(t, dir, nil)
	table := open(t, l, spec)
	for i := range 30 { // more than the versions that are kept
		at := 0x100 + 0x10*i
		write(t, table, changes(t, spec, lsn(at), "c", `[{"id":1}]`), lsn(at+8))
	}
	if n := count(t, l, "public/orders_history/metadata/v"); n > 25 {
		t.Errorf("%d old versions are kept", n)
	}
	for _, hint := range []string{"", "1", "x", "29"} {
		key := "public/orders_history/metadata/version-hint.text"
		if err := l.Bucket.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if hint != "" {
			if _, err := bucket.WriteAll(t.Context(), l.Bucket, key, []byte(hint), bucket.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if p := open(t, testLake(t, dir, nil), spec).Position(); p != 0x100+0x10*29+8 {
			t.Errorf("with the hint %q it stands at %s", hint, p)
		}
	}
}

func TestAServerWithoutConditionsIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := testLake(t, dir, nil)
	o := l.Options
	o.Bucket = weakBucket{o.Bucket}
	if _, err := Open(t.Context(), o); !fault.Is(err, fault.LakeFailed) {
		t.Errorf("got %v", err)
	}
	o.Catalog.Unconditional = true
	weak, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	weak.Close()
}

type weakBucket struct{ bucket.Bucket }

func (weakBucket) Properties() bucket.Properties {
	return bucket.Properties{Kind: bucket.KindS3, ConditionalPut: bucket.Unsupported}
}
