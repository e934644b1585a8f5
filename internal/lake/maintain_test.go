package lake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go/table"
)

// idsOf reads the column id of a table, in its order.
func idsOf(t *testing.T, ice *icebergTable, of ...table.ScanOption) (ids []int64) {
	t.Helper()
	_, records, err := ice.now().Scan(of...).ToArrowRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for rec, err := range records {
		if err != nil {
			t.Fatal(err)
		}
		at := rec.Schema().FieldIndices("id")[0]
		ids = append(ids, rec.Column(at).(*array.Int64).Int64Values()...)
		rec.Release()
	}
	slices.Sort(ids)
	return ids
}

// deafCatalog asks what is to become of a commit, and answers nothing while it is deaf.
type deafCatalog struct {
	tables
	commit func(do func() error) error
	deaf   bool
}

var errDeaf = errors.New("no answer")

func (c *deafCatalog) CommitTable(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	var meta table.Metadata
	var location string
	err := c.commit(func() (err error) {
		meta, location, err = c.tables.CommitTable(context.WithoutCancel(ctx), ident, reqs, updates)
		return err
	})
	return meta, location, err
}

func (c *deafCatalog) LoadTable(ctx context.Context, ident table.Identifier) (*table.Table, error) {
	if c.deaf {
		return nil, errDeaf
	}
	return c.tables.LoadTable(ctx, ident)
}

func TestFilesOfACompactionStayWhenItsCommitMayHaveBeenMade(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"file", "sqlite"} {
		for _, fate := range []string{"made, and the reply lost", "made later", "not made", "refused"} {
			t.Run(kind+", "+fate, func(t *testing.T) {
				t.Parallel()
				dir, spec := t.TempDir(), historySpec()
				spec.Current, spec.History = true, false
				lake := func() *Lake {
					return testLake(t, dir, func(o *Options) { o.Catalog = CatalogOptions{Kind: kind, URI: dir + "/catalog.db"} })
				}
				l := lake()
				held := open(t, l, spec)
				for i := range 2 * leastFiles {
					write(t, held, changes(t, spec, lsn(0x100*i+0x100), "c", fmt.Sprintf(`[{"id":%d}]`, i)), lsn(0x100*i+0x110))
				}
				files := count(t, l, "public/orders/data/")
				catalog := &deafCatalog{tables: l.catalog}
				var later func() error
				catalog.commit = func(do func() error) error {
					switch fate {
					case "made later":
						later = do
					case "not made":
					case "refused":
						return fmt.Errorf("%w: somebody was first", table.ErrCommitFailed)
					default:
						if err := do(); err != nil {
							t.Error(err)
						}
					}
					catalog.deaf = true
					return errDeaf
				}
				l.catalog = catalog
				if done, err := held.Maintain(t.Context(), MaintainOptions{Compact: true}); err == nil {
					t.Errorf("%+v without an error", done)
				}
				if later != nil {
					if err := later(); err != nil {
						t.Error(err)
					}
				}
				if n := count(t, l, "public/orders/data/"); n != files+1 {
					t.Errorf("%d files of data became %d", files, n)
				}
				after := lake()
				again := open(t, after, spec)
				left := files
				if strings.HasPrefix(fate, "made") {
					left++
				}
				if _, _, err := after.Sweep(t.Context(), 0); err != nil || count(t, l, "public/orders/data/") != left {
					t.Errorf("a sweep leaves %d files of data, want %d, %v", count(t, l, "public/orders/data/"), left, err)
				}
				write(t, again, changes(t, spec, 0x5000, "u", `[{"id":0,"name":"new"}]`), 0x5010)
				if got := idsOf(t, again.current.t); !slices.Equal(got, []int64{0, 1, 2, 3, 4, 5, 6, 7}) {
					t.Errorf("the table has rows %d", got)
				}
			})
		}
	}
}

func TestManyPartitionsBecomeFewFilesEach(t *testing.T) {
	t.Parallel()
	spec := bothSpec()
	spec.Partition = []string{"bucket(64, id)"}
	held := open(t, testLake(t, t.TempDir(), nil), spec)
	const commits, rows = 9, 256
	var ids []int64
	for i := range commits {
		var added []string
		for k := range rows {
			ids = append(ids, int64(i*rows+k))
			added = append(added, fmt.Sprintf(`{"id":%d}`, i*rows+k))
		}
		added = append(added, fmt.Sprintf(`{"id":%d,"name":"again"}`, i*rows/2))
		at := lsn(0x100*i + 0x100)
		write(t, held, changes(t, spec, at, strings.Repeat("c", rows)+"u", "["+strings.Join(added, ",")+"]"), at+0x10)
	}
	for _, ice := range []*icebergTable{held.current.t, held.history.ice} {
		if n := ice.dataFiles(); n <= mostFiles {
			t.Fatalf("%s has %d files, which one rewrite takes", ice.where(), n)
		}
	}
	done, err := held.Maintain(t.Context(), MaintainOptions{Compact: true, Thorough: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, ice := range []*icebergTable{held.current.t, held.history.ice} {
		if n := ice.dataFiles(); n > 64+leastFiles { // of the one that was cut in two, some may be left
			t.Errorf("%s has %d files: %+v", ice.where(), n, done)
		}
	}
	if got := idsOf(t, held.current.t); !slices.Equal(got, ids) {
		t.Errorf("%d rows of %d are left", len(got), len(ids))
	}
	if got := idsOf(t, held.history.ice); len(got) != commits*(rows+1) {
		t.Errorf("the history has %d rows", len(got))
	}
	if done, err = held.Maintain(t.Context(), MaintainOptions{Compact: true, Thorough: true}); err != nil || done != (Maintained{}) {
		t.Errorf("the second time %+v, %v", done, err)
	}
}

func TestRewritesThatGainNothingEnd(t *testing.T) {
	t.Parallel()
	turns := 0
	before, _, err := inTurns(3*mostFiles, func() (int, int, error) {
		if turns++; turns > 100 {
			return 0, 0, errors.New("it goes on for ever")
		}
		return mostFiles, mostFiles, nil
	})
	if err != nil || before != 6*mostFiles {
		t.Errorf("%d files were rewritten, %v", before, err)
	}
}
