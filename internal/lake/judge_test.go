package lake

import (
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

func TestALakeSaysBeforehandWhatItCannotHold(t *testing.T) {
	t.Parallel()
	text, list := arrow.BinaryTypes.String, arrow.ListOf(arrow.BinaryTypes.String)
	for name, c := range map[string]struct {
		columns []arrow.Field
		change  func(*Options, *Spec)
		code    fault.Code // "" where it can
		places  string
	}{
		"a table":                           {[]arrow.Field{{Name: "id", Type: text}}, nil, "", "public.t_history public.t"},
		"another prefix and suffix":         {[]arrow.Field{{Name: "id", Type: text}}, func(o *Options, _ *Spec) { o.NamespacePrefix, o.HistorySuffix = "pg_", "__h" }, "", "pg_public.t__h pg_public.t"},
		"no columns":                        {nil, nil, fault.SchemaUnfollowable, ""},
		"a column of the history's":         {[]arrow.Field{{Name: "_leat_op", Type: text}}, nil, fault.SchemaUnfollowable, ""},
		"the same, current only":            {[]arrow.Field{{Name: "_leat_op", Type: text}}, func(_ *Options, s *Spec) { s.History = false }, "", "public.t"},
		"a column of another profile's":     {[]arrow.Field{{Name: "__op", Type: text}}, nil, "", "public.t_history public.t"},
		"a column of this profile's":        {[]arrow.Field{{Name: "__op", Type: text}}, func(o *Options, _ *Spec) { o.Profile = "debezium" }, fault.SchemaUnfollowable, ""},
		"columns of one name, folded":       {[]arrow.Field{{Name: "id", Type: text}, {Name: "ID", Type: text}}, nil, "", "public.t_history public.t"},
		"the same in Hive":                  {[]arrow.Field{{Name: "id", Type: text}, {Name: "ID", Type: text}}, func(o *Options, _ *Spec) { o.Catalog.Kind = "hive" }, fault.SchemaUnfollowable, ""},
		"the same in Glue":                  {[]arrow.Field{{Name: "id", Type: text}, {Name: "ID", Type: text}}, func(o *Options, _ *Spec) { o.Catalog.Kind = "glue" }, fault.SchemaUnfollowable, ""},
		"a table whose name Hive folds":     {[]arrow.Field{{Name: "id", Type: text}}, func(o *Options, s *Spec) { o.Catalog.Kind, s.Table.Name = "hive", "T" }, "", "public.t_history public.t"},
		"a column called as another's item": {[]arrow.Field{{Name: "a", Type: list}, {Name: "a.element", Type: text}}, nil, fault.SchemaUnfollowable, ""},
		"a type without a twin":             {[]arrow.Field{{Name: "id", Type: arrow.FixedWidthTypes.Duration_s}}, nil, fault.TypeUncarriable, ""},
		"a partition of nothing":            {[]arrow.Field{{Name: "id", Type: text}}, func(_ *Options, s *Spec) { s.Partition = []string{"day(at)"} }, fault.ConfigInvalid, ""},
		"an order by nothing":               {[]arrow.Field{{Name: "id", Type: text}}, func(_ *Options, s *Spec) { s.Sort = []string{"at desc"} }, fault.ConfigInvalid, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, spec := Options{}, judged(c.columns)
			if c.change != nil {
				c.change(&o, &spec)
			}
			places, err := o.Judge(spec)
			if f := fault.Of(err); (c.code == "") != (err == nil) || err != nil && (f == nil || f.Code != c.code || f.HowToMend() == "") {
				t.Errorf("%v, want %q", err, c.code)
			}
			if strings.Join(places, " ") != c.places {
				t.Errorf("its places are %q, want %q", places, c.places)
			}
		})
	}
}

// judged is the spec of a table whose columns are all text at the source.
func judged(fields []arrow.Field) Spec {
	table := &change.Table{OID: 7, Schema: "public", Name: "t", Kind: change.KindTable, ReplicaIdentity: 'f'}
	for i, f := range fields {
		table.Columns = append(table.Columns, change.Column{Name: f.Name, Attnum: int16(i + 1), TypeOID: 25, Typmod: -1, Type: "text"})
	}
	return Spec{Table: table, Schema: arrow.NewSchema(fields, nil), WholeRowKey: true, Current: true, History: true}
}

func TestALakeOfFilesSaysBeforehandWhatItCannotHold(t *testing.T) {
	t.Parallel()
	text := []arrow.Field{{Name: "id", Type: arrow.BinaryTypes.String}}
	system := []arrow.Field{{Name: "_leat_lsn", Type: arrow.BinaryTypes.String}}
	for name, c := range map[string]struct {
		columns []arrow.Field
		format  format.Kind
		current bool
		code    fault.Code
	}{
		"a table":          {text, format.Parquet, false, ""},
		"a table, as Avro": {text, format.Avro, false, ""},
		"a table, as text": {text, format.JSONL, false, ""},
		"no columns":       {nil, format.Parquet, false, fault.SchemaUnfollowable},
		"a column of ours": {system, format.Parquet, false, fault.SchemaUnfollowable},
		"the latest state": {text, format.Parquet, true, fault.ConfigInvalid},
	} {
		spec := judged(c.columns)
		spec.Current = c.current
		places, err := FilesOptions{Format: c.format}.Judge(spec)
		if f := fault.Of(err); (c.code == "") != (err == nil) || f != nil && f.Code != c.code || err == nil && len(places) != 1 {
			t.Errorf("%s: %q, %v, want %q", name, places, err, c.code)
		}
	}
}

// A column that another program renames keeps its field, and what was read and written by its name is not to be found any more.
func TestAColumnThatWasRenamedInTheLakeIsFoundAndGivenItsNameBack(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{kindHistory, kindCurrent} {
		dir, spec := t.TempDir(), historySpec()
		spec.Current, spec.History = kind == kindCurrent, kind == kindHistory
		l := testLake(t, dir, nil)
		write(t, open(t, l, spec), changes(t, spec, 0x100, "c", `[{"id":1,"name":"one"}]`), 0x110)
		ice := open(t, l, spec).kept[0].ice
		schema := ice.now().Schema()
		fields := slices.Clone(schema.Fields())
		i := slices.IndexFunc(fields, func(f iceberg.NestedField) bool { return f.Name == "name" })
		fields[i].Name = "title"
		columns, err := ice.columnsHeld()
		if err != nil {
			t.Fatal(err)
		}
		renamed := []*iceberg.Schema{iceberg.NewSchemaWithIdentifiers(0, schema.IdentifierFieldIDs, fields...)}
		if err := ice.commit(t.Context(), delta{staged: &staged{schemas: renamed, columns: columns, source: ice.property(propSource)}}); err != nil {
			t.Fatal(err)
		}
		_, err = l.Table(t.Context(), spec)
		if f := fault.Of(err); !fault.Is(err, fault.LakeAltered) || !strings.Contains(f.What, "name is called title") || !strings.Contains(f.HowToMend(), "leat resync --table public.orders") {
			t.Fatalf("%s: %v", kind, err)
		}
		spec.Repair = true
		table := open(t, l, spec)
		write(t, table, changes(t, spec, 0x200, "c", `[{"id":2,"name":"two"}]`), 0x210)
		spec.Repair = false
		again := open(t, l, spec)
		if again.Position() != 0x210 || again.Columns()[1].Name != "name" {
			t.Errorf("%s: it stands at %s with %v", kind, again.Position(), again.Columns())
		}
		without := slices.DeleteFunc(slices.Clone(again.kept[0].ice.now().Schema().Fields()), func(f iceberg.NestedField) bool { return f.Name == "name" })
		if err := again.kept[0].ice.commit(t.Context(), delta{staged: &staged{schemas: []*iceberg.Schema{iceberg.NewSchemaWithIdentifiers(0, schema.IdentifierFieldIDs, without...)}, columns: columns, source: ice.property(propSource)}}); err != nil {
			t.Fatal(err)
		}
		spec.Repair = true
		if _, err := l.Table(t.Context(), spec); !fault.Is(err, fault.LakeAltered) || !strings.Contains(err.Error(), "name was dropped") {
			t.Errorf("%s, dropped: %v", kind, err)
		}
	}
}
