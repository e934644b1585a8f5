package lake

import (
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// altered gives the spec another definition.
func altered(spec Spec, f func(*change.Table, []arrow.Field) []arrow.Field) Spec {
	table := *spec.Table
	table.Columns = slices.Clone(table.Columns)
	spec.Schema = arrow.NewSchema(f(&table, spec.Schema.Fields()), nil)
	spec.Table = &table
	return spec
}

func evolve(t *testing.T, table Table, spec Spec) {
	t.Helper()
	if err := table.Evolve(t.Context(), spec.Table, spec.Schema); err != nil {
		t.Fatal(err)
	}
}

func TestARenamedColumnKeepsItsValuesAndANewOneOfTheOldNameDoesNotGetThem(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1,"name":"a","price":"1.00"}]`), 0x110)
	spec = altered(spec, func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns[1].Name, f[1].Name = "title", "title"
		s.Columns = append(s.Columns[:2:2], change.Column{Name: "name", Attnum: 4, TypeOID: 23, Typmod: -1, Type: "integer"}) // price is dropped
		return append(f[:2:2], arrow.Field{Name: "name", Type: arrow.PrimitiveTypes.Int32, Nullable: true})
	})
	evolve(t, table, spec)
	write(t, table, changes(t, spec, 0x200, "c", `[{"id":2,"title":"b","name":7}]`), 0x210)
	rows := readBack(t, dir+"/public/orders_history")
	expect(t, rows, []string{"id", "title", "name", "price"}, `1 "a" null null`, `2 "b" 7 null`)
	again := open(t, testLake(t, dir, nil), spec)
	if got := again.Columns(); len(got) != 3 || got[1].Name != "title" || got[1].Attnum != 2 || got[2].Attnum != 4 {
		t.Errorf("%+v", got)
	}
}

func TestColumnsAreWidenedInPlace(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	spec = altered(spec, func(_ *change.Table, f []arrow.Field) []arrow.Field {
		f[1] = arrow.Field{Name: "name", Type: arrow.PrimitiveTypes.Int16, Nullable: true}
		return f
	})
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1,"name":3,"price":"1.25"}]`), 0x110)
	spec = altered(spec, func(_ *change.Table, f []arrow.Field) []arrow.Field {
		f[1].Type, f[2].Type = arrow.PrimitiveTypes.Int64, &arrow.Decimal128Type{Precision: 30, Scale: 2}
		return f
	})
	evolve(t, table, spec)
	write(t, table, changes(t, spec, 0x200, "c", `[{"id":2,"name":5000000000,"price":"1234567890123.45"}]`), 0x210)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"id", "name", "price"}, `1 3 "1.25"`, `2 5000000000 "1234567890123.45"`)
}

func TestATypeThatCannotBeWidenedStopsOrIsKeptUnderAnotherName(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"stop", "version"} {
		dir, spec := t.TempDir(), historySpec()
		table := open(t, testLake(t, dir, func(o *Options) { o.OnTypeChange = policy }), spec)
		write(t, table, changes(t, spec, 0x100, "c", `[{"id":1,"price":"1.25"}]`), 0x110)
		spec = altered(spec, func(_ *change.Table, f []arrow.Field) []arrow.Field {
			f[2].Type = arrow.BinaryTypes.String
			return f
		})
		err := table.Evolve(t.Context(), spec.Table, spec.Schema)
		if policy == "stop" {
			if !fault.Is(err, fault.SchemaUnfollowable) {
				t.Errorf("got %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		write(t, table, changes(t, spec, 0x200, "c", `[{"id":2,"price":"dear"}]`), 0x210)
		evolve(t, table, spec) // nothing more to do
		rows := readBack(t, dir+"/public/orders_history")
		expect(t, rows, []string{"id", "price", "price__v10"}, `1 null "1.25"`, `2 "dear" null`)
	}
}

func TestTheHistoryRefusesAColumnOfItsOwnName(t *testing.T) {
	t.Parallel()
	spec := altered(historySpec(), func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns[1].Name, f[1].Name = "_leat_op", "_leat_op"
		return f
	})
	if _, err := testLake(t, t.TempDir(), nil).Table(t.Context(), spec); !fault.Is(err, fault.SchemaUnfollowable) {
		t.Errorf("got %v", err)
	}
}
