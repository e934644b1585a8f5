package lake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/iceberg-go"
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

func TestWhatATagOrABranchNamesOutlivesExpiry(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"file", "sqlite"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir, spec := t.TempDir(), bothSpec()
			lake := func() *Lake {
				return testLake(t, dir, func(o *Options) { o.Catalog = CatalogOptions{Kind: kind, URI: dir + "/catalog.db"} })
			}
			held := open(t, lake(), spec)
			for i := range 8 {
				at := lsn(0x100*i + 0x100)
				write(t, held, changes(t, spec, at, "c", fmt.Sprintf(`[{"id":%d}]`, i)), at+0x10)
			}
			if done, err := held.Maintain(t.Context(), MaintainOptions{Compact: true}); err != nil || done.Compacted != 16 {
				t.Fatalf("%+v, %v", done, err)
			}
			// Somebody else, of whom our process learns nothing.
			other := lake()
			for _, ice := range []*icebergTable{held.current.t, held.history.ice} {
				s := ice.now().Metadata().Snapshots()
				if _, err := other.catalog.LoadTable(t.Context(), ice.ident); err != nil {
					t.Fatal(err)
				}
				_, _, err := other.catalog.CommitTable(t.Context(), ice.ident, nil, []table.Update{
					table.NewSetSnapshotRefUpdate("audit", s[2].SnapshotID, table.TagRef, 1, 0, 0),
					table.NewSetSnapshotRefUpdate("trial", s[4].SnapshotID, table.BranchRef, 0, 1, 2),
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			var sum Maintained
			for range 2 {
				done, err := held.Maintain(t.Context(), MaintainOptions{Snapshots: Retention{Keep: 1}})
				if err != nil {
					t.Fatal(err)
				}
				sum.add(done)
			}
			if sum.Snapshots != 2*5 { // of nine the last one stays, the tag's, and two of the branch
				t.Errorf("%+v", sum)
			}
			again := open(t, lake(), spec)
			for _, ice := range []*icebergTable{again.current.t, again.history.ice} {
				for _, c := range []struct {
					of   []table.ScanOption
					last int64
				}{{nil, 7}, {[]table.ScanOption{useRef(t, ice, "audit")}, 2}, {[]table.ScanOption{useRef(t, ice, "trial")}, 4}} {
					if got := idsOf(t, ice, c.of...); len(got) != int(c.last)+1 || got[c.last] != c.last {
						t.Errorf("%s has rows %d up to %d", ice.where(), got, c.last)
					}
				}
			}
		})
	}
}

func useRef(t *testing.T, ice *icebergTable, name string) table.ScanOption {
	t.Helper()
	for of, ref := range ice.now().Metadata().Refs() {
		if of == name {
			return table.WithSnapshotID(ref.SnapshotID)
		}
	}
	t.Fatalf("%s has lost %s", ice.where(), name)
	return nil
}

func TestABranchKeepsWhatItSaysItself(t *testing.T) {
	t.Parallel()
	const old = 5 * time.Hour
	for name, c := range map[string]struct {
		ref   table.Update
		o     MaintainOptions
		keeps []int // of ten snapshots of which each is an hour older than the next one, the last one's age being one
	}{
		"none":                {nil, MaintainOptions{Snapshots: Retention{Keep: 2}}, []int{8, 9}},
		"none, and an age":    {nil, MaintainOptions{Snapshots: Retention{Keep: 2, All: 3 * time.Hour}}, []int{7, 8, 9}},
		"tag":                 {table.NewSetSnapshotRefUpdate("r", 4, table.TagRef, 1, 0, 0), MaintainOptions{Snapshots: Retention{Keep: 1}}, []int{3, 9}},
		"branch":              {table.NewSetSnapshotRefUpdate("r", 4, table.BranchRef, 1, 0, 0), MaintainOptions{Snapshots: Retention{Keep: 1}}, []int{0, 1, 2, 3, 9}},
		"branch of so many":   {table.NewSetSnapshotRefUpdate("r", 4, table.BranchRef, 0, 0, 2), MaintainOptions{Snapshots: Retention{Keep: 1}}, []int{2, 3, 9}},
		"branch up to an age": {table.NewSetSnapshotRefUpdate("r", 6, table.BranchRef, 0, (old + time.Hour + time.Minute).Milliseconds(), 0), MaintainOptions{Snapshots: Retention{Keep: 1}}, []int{4, 5, 9}},
		"main is rolled back": {table.NewSetSnapshotRefUpdate(table.MainBranch, 4, table.BranchRef, 0, 0, 0), MaintainOptions{Snapshots: Retention{Keep: 2}}, []int{2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := time.Now()
			keep, gone := expired(tenSnapshots(t, now, c.ref), c.o.Snapshots, now)
			var kept []int
			for _, s := range keep {
				kept = append(kept, int(s.SnapshotID)-1)
			}
			if !slices.Equal(kept, c.keeps) || len(keep)+len(gone) != 10 {
				t.Errorf("it keeps %d, want %d", kept, c.keeps)
			}
		})
	}
}

// tenSnapshots is a table of snapshots 1 to 10, the last of which is an hour old.
func tenSnapshots(t *testing.T, now time.Time, more table.Update) table.Metadata {
	t.Helper()
	meta, err := table.NewMetadata(iceberg.NewSchema(0), iceberg.UnpartitionedSpec, table.UnsortedSortOrder, "file:///t", nil)
	if err != nil {
		t.Fatal(err)
	}
	if meta, err = withTimes(meta, func(_ string, _ json.Number) json.Number {
		return json.Number(strconv.FormatInt(now.Add(-24*time.Hour).UnixMilli(), 10))
	}); err != nil {
		t.Fatal(err)
	}
	for id := range int64(10) {
		s := table.Snapshot{SnapshotID: id + 1, SequenceNumber: id + 1, TimestampMs: now.Add(time.Duration(id-10) * time.Hour).UnixMilli(), Summary: &table.Summary{Operation: table.OpAppend}}
		if id > 0 {
			s.ParentSnapshotID = &id
		}
		updates := []table.Update{table.NewAddSnapshotUpdate(&s), table.NewSetSnapshotRefUpdate(table.MainBranch, id+1, table.BranchRef, 0, 0, 0)}
		if id == 9 && more != nil {
			updates = append(updates, more)
		}
		if meta, err = updated(meta, updates, ""); err != nil {
			t.Fatal(err)
		}
	}
	return meta
}
