package lake

import (
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
