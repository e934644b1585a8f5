package lake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
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
	l := lake()
	if err := l.Reach(t.Context(), "public"); err != nil {
		t.Errorf("before it has a table: %v", err)
	}
	first := open(t, l, spec)
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
	expiresAt(t, third, spec)
}

// expiresAt expires the snapshots of a first definition at a catalog, which may refuse to take that out of the metadata.
func expiresAt(t *testing.T, held *lakeTable, spec Spec) {
	t.Helper()
	ice := held.history.ice
	widen(t, ice)
	write(t, held, changes(t, spec, 0x400, "c", `[{"id":4}]`), 0x410)
	old := len(ice.now().Metadata().Snapshots()) - 1 // of 3; some servers tell of the current one alone
	done, err := held.Maintain(t.Context(), MaintainOptions{Thorough: true, Snapshots: Retention{Keep: 1}})
	if err != nil || old != 3 && old != 0 || done.Snapshots != old || done.Removed < old {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := ice.dropUnused(t.Context()); err != nil {
		t.Error(err)
	}
	write(t, held, changes(t, spec, 0x500, "c", `[{"id":5}]`), 0x510)
	meta := ice.now().Metadata()
	if n, refused := len(meta.Schemas()), held.lake.keepsUnused.Load(); n != 1 && !refused || n == 1 && refused {
		t.Errorf("there are %d definitions; that one could not be removed: %t", n, refused)
	} else {
		t.Logf("%d definitions are left", n)
	}
	if got := idsOf(t, ice); !slices.Equal(got, []int64{1, 1, 2, 3, 4, 5}) {
		t.Errorf("the table has rows %d", got)
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
	role := db.Role("") // whatever it sets, but for where its tables lie
	db.Hostile(role.Name)
	db.Exec("grant create on schema public to " + role.Name + "; alter role " + role.Name + " in database " + db.Name + " set search_path = public")
	works(t, func() *Lake {
		return testLake(t, dir, func(o *Options) { o.Catalog = CatalogOptions{Kind: "postgres", URI: role.URL} })
	})
}

func TestAPostgresCatalogThatIsAwayIsAskedAgainAndOneThatRefusesIsNot(t *testing.T) {
	t.Parallel()
	db, dir, spec := testlab.Postgres(t), t.TempDir(), historySpec()
	at, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := testlab.Toxiproxy(t, at.Host)
	at.Host = proxy.Listen
	l := testLake(t, dir, func(o *Options) { o.Catalog = CatalogOptions{Kind: "postgres", URI: at.String()} })
	table := open(t, l, spec)
	put(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`))
	if err := proxy.Disable(); err != nil { // which cuts what is connected, and refuses what comes
		t.Fatal(err)
	}
	if _, err := table.Commit(t.Context(), 0x110, time.Now()); !fault.Is(err, fault.LakeUnreachable) || !fault.Retryable(err) {
		t.Errorf("the commit: %v", err)
	}
	if _, err := Open(t.Context(), l.Options); !fault.Is(err, fault.LakeUnreachable) {
		t.Errorf("opening the catalog: %v", err)
	}
	if err := l.Reach(t.Context(), "public"); !fault.Is(err, fault.LakeUnreachable) {
		t.Errorf("reaching the catalog: %v", err)
	}
	if err := proxy.Enable(); err != nil {
		t.Fatal(err)
	}
	write(t, open(t, l, spec), changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	o := l.Options
	o.Catalog.URI = strings.Replace(at.String(), at.Path, "/nowhere", 1)
	if _, err := Open(t.Context(), o); !fault.Is(err, fault.LakeFailed) {
		t.Errorf("a database that does not exist: %v", err)
	}
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

// picky refuses what servers refuse that are built on Iceberg's own library: "the last one that was added" when nothing new was.
type picky struct {
	tables
	sent []string // the actions of the last commit
}

func (p *picky) CommitTable(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	now, err := p.LoadTable(ctx, ident)
	if errors.Is(err, catalog.ErrNoSuchTable) {
		return p.tables.CommitTable(ctx, ident, reqs, updates)
	}
	if err != nil {
		return nil, "", err
	}
	p.sent = nil
	fresh := map[string]bool{}
	for _, u := range updates {
		var told struct {
			Action   string
			Schema   *iceberg.Schema  `json:"schema"`
			Order    *table.SortOrder `json:"sort-order"`
			SchemaID int              `json:"schema-id"`
			OrderID  int              `json:"sort-order-id"`
		}
		data, err := json.Marshal(u)
		if err == nil {
			err = json.Unmarshal(data, &told)
		}
		if err != nil {
			return nil, "", err
		}
		p.sent = append(p.sent, told.Action)
		switch {
		case told.Schema != nil:
			fresh["schema"] = !slices.ContainsFunc(now.Metadata().Schemas(), told.Schema.Equals)
		case told.Order != nil:
			fresh["order"] = !slices.ContainsFunc(now.Metadata().SortOrders(), func(o table.SortOrder) bool { return sameOrder(o, *told.Order) })
		case told.SchemaID == -1 && !fresh["schema"], told.OrderID == -1 && !fresh["order"]:
			return nil, "", fmt.Errorf("%s: nothing has been added", told.Action)
		}
	}
	return p.tables.CommitTable(ctx, ident, reqs, updates)
}

// comesBack drops a column and adds it, again and again, and so it does with sort orders.
func comesBack(t *testing.T, lake func() *Lake) {
	t.Helper()
	spec := bothSpec()
	spec.Table.Name = "back"
	at := change.LSN(0x100)
	for _, by := range []string{"name", "id", "name", "id desc", "id"} {
		spec.Sort = []string{by}
		l := lake()
		p := &picky{tables: l.catalog}
		l.catalog = p // it asks for no more than some servers do
		table := open(t, l, spec)
		for _, now := range []Spec{spec, withNote(spec), spec, withNote(spec), spec} {
			evolve(t, table, now)
			write(t, table, changes(t, now, at, "c", fmt.Sprintf(`[{"id":%d,"name":"n"}]`, at)), at+1)
			at += 0x10
		}
		if slices.Contains(p.sent, "add-schema") || !slices.Contains(p.sent, "set-current-schema") {
			t.Errorf("sorted by %s, at the end %v was sent", by, p.sent)
		}
		table.Close()
	}
}

func TestWhatATableHasHadIsNamedByItsID(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	comesBack(t, func() *Lake { return testLake(t, dir, nil) })
}

// sleeper is a bucket whose user falls asleep when it is about to write an object, while others go on.
type sleeper struct {
	bucket.Bucket
	before string // the end of the object's key
	others func()
}

func (s *sleeper) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if others := s.others; others != nil && strings.HasSuffix(key, s.before) {
		s.others = nil
		others()
	}
	return s.Bucket.Create(ctx, key, o)
}

func TestAWriterOfTheFileCatalogThatSleptSetsNothingBack(t *testing.T) {
	t.Parallel()
	const folder = "public/orders_history/metadata/"
	for _, c := range []struct {
		name        string
		has, others int  // versions before and meanwhile
		keeps       bool // an old version was not removed
		hints       time.Duration
	}{
		{"it wakes long after", 3, 25, false, 0}, {"an old version is left", 3, 25, true, 0}, {"it made the table", 0, 25, false, 0}, {"it wakes in time to see the next", 3, 2, false, 0},
		{"it wakes long after, and hints are rare", 3, 25, false, time.Hour}, {"an old version is left, and hints are rare", 3, 25, true, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, spec := t.TempDir(), historySpec()
			heir, lazy := testLake(t, dir, func(o *Options) { o.Epoch, o.HintEvery = 2, c.hints }), &sleeper{}
			ours := testLake(t, dir, func(o *Options) { lazy.Bucket, o.HintEvery = o.Bucket, c.hints; o.Bucket = lazy })
			version := func(n int) string { return dir + "/" + versionKey("public/orders_history", n) }
			at := change.LSN(0x100)
			commits := func(table Table, n int) {
				for range n {
					write(t, table, changes(t, spec, at, "c", `[{"id":1}]`), at+8)
					at += 0x10
				}
			}
			lazy.before = fmt.Sprintf("/v%d.metadata.json", c.has+1)
			lazy.others = func() {
				old, err := os.ReadFile(version(c.has))
				commits(open(t, heir, spec), c.others)
				if c.keeps && err == nil {
					err = os.WriteFile(version(c.has), old, 0o600)
				}
				if c.keeps && err != nil {
					t.Error(err)
				}
			}
			table, err := ours.Table(t.Context(), spec)
			if err == nil {
				commits(table, c.has)
				if err = table.Write(t.Context(), changes(t, spec, at, "c", `[{"id":2}]`)); err == nil {
					_, err = table.Commit(t.Context(), at+8, time.Now())
				}
				table.Close()
			}
			if !fault.Is(err, fault.PipelineFenced) {
				t.Errorf("the one that slept got %v", err)
			}
			if !heir.WriteHints(t.Context(), true) {
				t.Error("a hint is left behind")
			}
			hint, err := os.ReadFile(dir + "/" + folder + "version-hint.text")
			if want := c.has + c.others; err != nil || string(hint) != strconv.Itoa(want) {
				t.Errorf("the hint is %s of %d, %v", hint, want, err)
			}
			if _, err := os.Stat(version(c.has + 1)); c.others > 20 && err == nil {
				t.Error("its version is there")
			}
			again := open(t, heir, spec)
			live, _, err := again.history.ice.live(t.Context())
			if err != nil || len(live) != c.has+c.others || again.Position() != at-8 {
				t.Errorf("the table has %d files and stands at %s, %v", len(live), again.Position(), err)
			}
		})
	}
}

func TestAVersionThatTheNextOneWasBuiltOnStays(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	l := testLake(t, dir, nil)
	one := open(t, l, spec)
	for i := range change.LSN(5) {
		write(t, one, changes(t, spec, 0x100+0x10*i, "c", `[{"id":1}]`), 0x108+0x10*i)
	}
	if err := l.catalog.(*fileCatalog).proveNewest(t.Context(), "public/orders_history", 4); !errors.Is(err, table.ErrCommitFailed) {
		t.Errorf("got %v", err)
	}
	if _, err := l.Bucket.Stat(t.Context(), versionKey("public/orders_history", 4)); err != nil {
		t.Error(err)
	}
}
