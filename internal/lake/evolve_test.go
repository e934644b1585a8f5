package lake

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

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
	if err := table.Evolve(t.Context(), Definition{Table: spec.Table, Schema: spec.Schema, From: table.Position()}); err != nil {
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
		err := table.Evolve(t.Context(), Definition{Table: spec.Table, Schema: spec.Schema, From: table.Position()})
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

// withNote adds the column note, attnum 4.
func withNote(spec Spec) Spec {
	return altered(spec, func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns = append(s.Columns, change.Column{Name: "note", Attnum: 4, TypeOID: 25, Typmod: -1, Type: "text"})
		return append(slices.Clone(f), arrow.Field{Name: "note", Type: arrow.BinaryTypes.String, Nullable: true})
	})
}

// text is an array of one.
func text(s string) arrow.Array {
	b := array.NewStringBuilder(memory.DefaultAllocator)
	defer b.Release()
	b.Append(s)
	return b.NewArray()
}

func put(t *testing.T, table Table, c *change.Changes) {
	t.Helper()
	if err := table.Write(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func commit(t *testing.T, table Table, to change.LSN) Committed {
	t.Helper()
	done, err := table.Commit(t.Context(), to, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	return done
}

func names(columns []change.Column) string {
	var out []string
	for _, c := range columns {
		out = append(out, c.Name)
	}
	return strings.Join(out, " ")
}

func TestADefinitionComesWithTheDataThatNeedsIt(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1,"name":"a"},{"id":2}]`), 0x110)
	wide := withNote(spec)

	put(t, table, changes(t, spec, 0x200, "u", `[{"id":1,"name":"b"}]`)) // the same transaction goes on in the new definition
	evolve(t, table, wide)
	put(t, table, changes(t, wide, 0x200, "cu", `[{"id":3,"note":"n"},{"id":2,"note":"m"}]`))
	if got := names(table.Columns()); got != "id name price note" {
		t.Errorf("rows are taken as %s", got)
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, `1 "a" null`, `2 null null`)
	for _, k := range table.kept {
		if _, there := k.ice.now().Schema().FindFieldByName("note"); there {
			t.Errorf("the %s shows the column before its commit", k.ice.kind)
		}
	}
	table.Close() // nothing of it has happened

	table = open(t, testLake(t, dir, nil), wide) // the source has moved on, the log has not
	if got := names(table.Columns()); got != "id name price" {
		t.Errorf("the table has %s", got)
	}
	put(t, table, changes(t, spec, 0x200, "u", `[{"id":1,"name":"b"}]`))
	evolve(t, table, wide)
	put(t, table, changes(t, wide, 0x200, "cu", `[{"id":3,"note":"n"},{"id":2,"note":"m"}]`))
	if done := commit(t, table, 0x210); len(done.Snapshots) != 2 {
		t.Errorf("%+v", done)
	}
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, `1 "b" null`, `2 null "m"`, `3 null "n"`)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"_leat_lsn", "_leat_op", "id", "name", "note"},
		`256 "c" 1 "a" null`, `256 "c" 2 null null`, `512 "c" 3 null "n"`, `512 "u" 1 "b" null`, `512 "u" 2 null "m"`)
}

func TestTheHistoryMayBeAheadOfTheCurrentStateByADefinition(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1,"name":"a"},{"id":2}]`), 0x110)
	wide := withNote(spec)
	replay := func() {
		told := func(s Spec) {
			if err := table.Evolve(t.Context(), Definition{Table: s.Table, Schema: s.Schema, From: 0x200}); err != nil {
				t.Fatal(err)
			}
		}
		told(spec)
		put(t, table, changes(t, spec, 0x200, "u", `[{"id":1,"name":"b"}]`))
		told(wide)
		put(t, table, changes(t, wide, 0x200, "cu", `[{"id":3,"note":"n"},{"id":2,"note":"m"}]`))
	}
	replay()
	if _, err := table.kept[0].commit(t.Context(), 0x210, time.Now()); err != nil { // and the process ends
		t.Fatal(err)
	}
	table.Close()
	table = open(t, testLake(t, dir, nil), wide)
	if got := names(table.Columns()); got != "id name price" || table.Position() != 0x110 {
		t.Errorf("the table has %s at %s", got, table.Position())
	}
	replay()
	put(t, table, changes(t, wide, 0x300, "d", `[{"id":2}]`))
	commit(t, table, 0x310)
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, `1 "b" null`, `3 null "n"`)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"_leat_lsn", "_leat_op", "id", "name", "note"},
		`256 "c" 1 "a" null`, `256 "c" 2 null null`, `512 "c" 3 null "n"`, `512 "u" 1 "b" null`, `512 "u" 2 null "m"`, `768 "d" 2 null null`)
}

func TestADefinitionAloneIsCommitted(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	evolve(t, table, withNote(spec))
	commit(t, table, 0x210)
	table.Close()
	table = open(t, testLake(t, dir, nil), spec)
	if got := names(table.Columns()); got != "id name price note" || table.Position() != 0x210 {
		t.Errorf("the table has %s at %s", got, table.Position())
	}
}

func TestAFieldIDIsNeverGivenToTwoColumns(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	table := open(t, testLake(t, dir, nil), spec)
	wide := withNote(spec)
	evolve(t, table, wide)
	put(t, table, changes(t, wide, 0x100, "c", `[{"id":1,"note":"gone"}]`))
	evolve(t, table, spec) // dropped again before anybody saw it
	commit(t, table, 0x110)
	again := altered(wide, func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns[3].Attnum = 5
		return f
	})
	evolve(t, table, again)
	put(t, table, changes(t, again, 0x200, "c", `[{"id":2,"note":"new"}]`))
	commit(t, table, 0x210)
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "note"}, `1 null`, `2 "new"`)
	expect(t, readBack(t, dir+"/public/orders_history"), []string{"id", "note"}, `1 null`, `2 "new"`)
}

func TestRowsThatWereThereGetTheDefaultOfAnAddedColumn(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		dir, spec := t.TempDir(), bothSpec()
		l := testLake(t, dir, func(o *Options) { o.Format = version })
		table := open(t, l, spec)
		write(t, table, changes(t, spec, 0x100, "ccccc", `[{"id":1,"name":"a"},{"id":2},{"id":3},{"id":4},{"id":5}]`), 0x110)
		write(t, table, changes(t, spec, 0x200, "du", `[{"id":2},{"id":3,"name":"c"}]`), 0x210)
		put(t, table, changes(t, spec, 0x300, "duc", `[{"id":4},{"id":5,"name":"e"},{"id":6,"name":"f"}]`)) // before the column, not committed
		wide := withNote(spec)
		d := Definition{Table: wide.Table, Schema: wide.Schema, From: 0x400, Fill: map[int16]arrow.Array{4: text("seven")}}
		if err := table.Evolve(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		put(t, table, changes(t, wide, 0x400, "cuu", `[{"id":7},{"id":6,"name":"g","note":"own"},{"id":1,"name":"b"}]`))
		expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, `1 "a" null`, `3 "c" null`, `4 null null`, `5 null null`)
		commit(t, table, 0x410)
		want := []string{`1 "b" null`, `3 "c" "seven"`, `5 "e" "seven"`, `6 "g" "own"`, `7 null null`}
		expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, want...)
		write(t, table, changes(t, wide, 0x500, "ud", `[{"id":3,"name":"c","note":"8"},{"id":5}]`), 0x510)
		want = []string{`1 "b" null`, `3 "c" "8"`, `6 "g" "own"`, `7 null null`}
		expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, want...)
		table.Close()
		table = open(t, l, wide)
		write(t, table, changes(t, wide, 0x600, "dd", `[{"id":6},{"id":7}]`), 0x610)
		expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, want[:2]...)
		files, deletes, err := table.current.t.live(t.Context())
		if err != nil || len(deletes) > len(files)+1 {
			t.Errorf("%d data files and %d delete files, %v", len(files), len(deletes), err)
		}
	}
}

func TestAnotherKeyFindsTheRowsThatWereThere(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	spec.History = false
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1,"name":"a"},{"id":2,"name":"b"}]`), 0x110)
	put(t, table, changes(t, spec, 0x200, "cu", `[{"id":3,"name":"c"},{"id":2,"name":"bb"}]`))
	named := spec
	named.Table = new(change.Table)
	*named.Table = *spec.Table
	named.Table.Key = []int16{2}
	evolve(t, table, named)
	put(t, table, changes(t, named, 0x300, "dud", `[{"name":"a"},{"id":30,"name":"c"},{"name":"bb"}]`))
	commit(t, table, 0x310)
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `30 "c"`)
	table.Close()
	table = open(t, testLake(t, dir, nil), spec) // opened by what the source said before
	if got := table.spec.Key; !slices.Equal(got, []string{"name"}) {
		t.Errorf("the key is %v", got)
	}
	evolve(t, table, named)
	write(t, table, changes(t, named, 0x400, "u", `[{"id":31,"name":"c"}]`), 0x410)
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name"}, `31 "c"`)
}

func TestWholeRowsAreFoundAfterAColumnCameAndOneWent(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	spec.History, spec.Key, spec.WholeRowKey = false, nil, true
	full := *spec.Table
	full.Key, full.ReplicaIdentity = nil, 'f'
	spec.Table = &full
	table := open(t, testLake(t, dir, nil), spec)
	write(t, table, changes(t, spec, 0x100, "cccc", `[{"id":1,"name":"a"},{"id":1,"name":"a"},{"id":1,"name":"a","price":"2.00"},{"id":2}]`), 0x110)
	wide := withNote(spec)
	d := Definition{Table: wide.Table, Schema: wide.Schema, From: 0x200, Fill: map[int16]arrow.Array{4: text("x")}}
	if err := table.Evolve(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	put(t, table, changes(t, wide, 0x200, "d", `[{"id":1,"name":"a","note":"x"}]`))
	narrow := altered(wide, func(s *change.Table, f []arrow.Field) []arrow.Field {
		s.Columns = slices.Delete(s.Columns, 2, 3)
		return slices.Delete(slices.Clone(f), 2, 3)
	})
	evolve(t, table, narrow)
	put(t, table, changes(t, narrow, 0x300, "d", `[{"id":1,"name":"a","note":"x"}]`))
	commit(t, table, 0x310)
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "name", "note"}, `1 "a" "x"`, `2 null "x"`)
}

func TestACopyBringsItsOwnDefinition(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), bothSpec()
	l := testLake(t, dir, nil)
	table := open(t, l, spec)
	write(t, table, changes(t, spec, 0x100, "cc", `[{"id":1,"price":"1.25"},{"id":2,"price":"2.50"}]`), 0x110)
	table.Close()
	other := altered(withNote(spec), func(_ *change.Table, f []arrow.Field) []arrow.Field {
		f[2].Type = arrow.BinaryTypes.String // no widening of a decimal
		return f
	})
	table = open(t, l, other)
	c := begin(t, table, other)
	copyChunk(t, c, other, "1", 0x200, `[{"id":1,"price":"dear","note":"n"}]`)
	table.Close() // taken up by another process, with the same field ids
	table = open(t, l, other)
	if got := names(table.Columns()); got != "id name price" {
		t.Errorf("before the end of the copy the table has %s", got)
	}
	c = begin(t, table, other)
	copyChunk(t, c, other, "2", 0x200, `[{"id":3,"price":"cheap"}]`)
	if err := c.Finish(t.Context(), 0x200); err != nil {
		t.Fatal(err)
	}
	if got := names(table.Columns()); got != "id name price note" {
		t.Errorf("the table has %s", got)
	}
	evolve(t, table, other)
	write(t, table, changes(t, other, 0x300, "d", `[{"id":3}]`), 0x310)
	expect(t, readBack(t, dir+"/public/orders"), []string{"id", "price", "note"}, `1 "dear" "n"`)
	rows := readBack(t, dir+"/public/orders_history")
	expect(t, rows, []string{"_leat_op", "id", "price", "price__v10"}, `"c" 1 null "1.25"`, `"c" 2 null "2.50"`, `"d" 3 null null`,
		`"r" 1 "dear" null`, `"r" 3 "cheap" null`, `"t" null null null`)
}
