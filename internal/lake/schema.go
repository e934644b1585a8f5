package lake

import (
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/extensions"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// icebergField is the Iceberg field of an Arrow field. next gives ids to it and what lies below it.
func icebergField(f arrow.Field, next func() int) (iceberg.NestedField, error) {
	id := next()
	t, err := icebergType(f, next)
	return iceberg.NestedField{ID: id, Name: f.Name, Type: t, Required: !f.Nullable, Doc: docOf(f)}, err
}

// docOf keeps in a column's comment what Iceberg's types do not tell.
func docOf(f arrow.Field) string {
	doc, _ := f.Metadata.GetValue(change.TypeKey)
	return doc
}

func icebergType(f arrow.Field, next func() int) (iceberg.Type, error) {
	switch dt := f.Type.(type) {
	case *arrow.BooleanType:
		return iceberg.PrimitiveTypes.Bool, nil
	case *arrow.Int8Type, *arrow.Int16Type, *arrow.Int32Type:
		return iceberg.PrimitiveTypes.Int32, nil
	case *arrow.Int64Type:
		return iceberg.PrimitiveTypes.Int64, nil
	case *arrow.Float32Type:
		return iceberg.PrimitiveTypes.Float32, nil
	case *arrow.Float64Type:
		return iceberg.PrimitiveTypes.Float64, nil
	case *arrow.StringType, *arrow.LargeStringType:
		return iceberg.PrimitiveTypes.String, nil
	case *arrow.BinaryType, *arrow.LargeBinaryType:
		return iceberg.PrimitiveTypes.Binary, nil
	case *arrow.Date32Type:
		return iceberg.PrimitiveTypes.Date, nil
	case *arrow.FixedSizeBinaryType:
		if change.Logical(f) == change.LogicalUUID {
			return iceberg.PrimitiveTypes.UUID, nil
		}
		return iceberg.FixedTypeOf(dt.ByteWidth), nil
	case *arrow.Decimal128Type:
		if dt.Scale >= 0 && dt.Scale <= dt.Precision {
			return iceberg.DecimalTypeOf(int(dt.Precision), int(dt.Scale)), nil
		}
	case *arrow.Time64Type:
		if dt.Unit == arrow.Microsecond {
			return iceberg.PrimitiveTypes.Time, nil
		}
	case *arrow.TimestampType:
		if dt.Unit == arrow.Microsecond && dt.TimeZone == "" {
			return iceberg.PrimitiveTypes.Timestamp, nil
		} else if dt.Unit == arrow.Microsecond {
			return iceberg.PrimitiveTypes.TimestampTz, nil
		}
	case *arrow.ListType:
		id := next()
		elem, err := icebergType(dt.ElemField(), next)
		return &iceberg.ListType{ElementID: id, Element: elem, ElementRequired: !dt.ElemField().Nullable}, err
	case *arrow.MapType: // of special values
		return &iceberg.MapType{KeyID: next(), KeyType: iceberg.PrimitiveTypes.String, ValueID: next(), ValueType: iceberg.PrimitiveTypes.String}, nil
	}
	return nil, fault.New(fault.TypeUncarriable, f.Name, "Iceberg has no type for Arrow's %s", f.Type).
		WithMend("Choose the policy text for the column, or exclude it.")
}

// withFieldID returns the Arrow field with the ids of the Iceberg field, for Parquet's schema. To Iceberg JSON is a string, and its
// readers refuse a Parquet column that says more.
func withFieldID(f arrow.Field, ice iceberg.NestedField) arrow.Field {
	keys, values := []string{format.FieldIDKey}, []string{strconv.Itoa(ice.ID)}
	for i, key := range f.Metadata.Keys() {
		if value := f.Metadata.Values()[i]; key != change.LogicalKey || value != change.LogicalJSON {
			keys, values = append(keys, key), append(values, value)
		}
	}
	f.Metadata = arrow.NewMetadata(keys, values)
	f.Nullable = !ice.Required // rows of before may lack what the source has for all by now
	if list, ok := ice.Type.(*iceberg.ListType); ok {
		if dt, ok := f.Type.(*arrow.ListType); ok {
			f.Type = arrow.ListOfField(withFieldID(dt.ElemField(), list.ElementField()))
		}
	}
	if of, ok := ice.Type.(*iceberg.MapType); ok {
		if dt, ok := f.Type.(*arrow.MapType); ok {
			f.Type = arrow.MapOfFields(withFieldID(dt.KeyField(), of.KeyField()), withFieldID(dt.ItemField(), of.ValueField()))
		}
	}
	return f
}

// withFieldIDs finds each Arrow field by name in the Iceberg schema and gives it its ids.
func withFieldIDs(schema *arrow.Schema, ice *iceberg.Schema) (*arrow.Schema, error) {
	fields := make([]arrow.Field, schema.NumFields())
	for i, f := range schema.Fields() {
		in, ok := ice.FindFieldByName(f.Name)
		if !ok {
			return nil, fault.New(fault.Internal, f.Name, "the column is not in the Iceberg table")
		}
		fields[i] = withFieldID(f, in)
	}
	return arrow.NewSchema(fields, nil), nil
}

// icebergSchema makes the Iceberg schema of new tables. Columns named in key that are never null identify rows.
func icebergSchema(schema *arrow.Schema, key []string) (*iceberg.Schema, error) {
	// Numbered as the library numbers the fields of a new table again; other catalogs may do it otherwise, see checkFields.
	last := 0
	next := func() int { last++; return last }
	fields := make([]iceberg.NestedField, schema.NumFields())
	for i, f := range schema.Fields() {
		var err error
		if fields[i], err = icebergField(f, next); err != nil {
			return nil, err
		}
	}
	s := iceberg.NewSchema(0, fields...)
	return iceberg.NewSchemaWithIdentifiers(0, identifiers(s, key), fields...), nil
}

// identifiers are the ids of the key's columns; none when one of them may be null or has a type that cannot identify.
func identifiers(s *iceberg.Schema, key []string) []int {
	var ids []int
	for _, name := range key {
		f, ok := s.FindFieldByName(name)
		if !ok || !f.Required {
			return nil
		}
		switch f.Type.(type) {
		case iceberg.Float32Type, iceberg.Float64Type, *iceberg.ListType, *iceberg.MapType:
			return nil
		}
		ids = append(ids, f.ID)
	}
	return ids
}

// checkNames refuses columns of the source that are called as system columns are.
func checkNames(t *change.Table, system *arrow.Schema) error {
	for _, c := range t.Columns {
		if _, ok := system.FieldsByName(c.Name); ok {
			return fault.New(fault.SchemaUnfollowable, t.String()+"."+c.Name, "the history needs a column of that name for itself").
				WithMend("Rename the column at the source, leave it out of the publication (run.columns), keep the table as current only (run.keep_current), or choose another profile (lake.profile).")
		}
	}
	return nil
}

// arrowFields are the fields of an Iceberg schema as Arrow has them, by their ids. They tell less than the source's plan
// does: what its integers of two bytes were, for one.
func arrowFields(ice *iceberg.Schema) (map[int]arrow.Field, error) {
	schema, err := table.SchemaToArrowSchema(ice, nil, true, false)
	if err != nil {
		return nil, err
	}
	out := map[int]arrow.Field{}
	for _, f := range schema.Fields() {
		out[fieldID(f)] = plainField(f)
	}
	return out, nil
}

// plainField has no extension types.
func plainField(f arrow.Field) arrow.Field {
	switch dt := f.Type.(type) {
	case *extensions.UUIDType:
		f.Type = dt.StorageType()
		f.Metadata = arrow.NewMetadata(append(f.Metadata.Keys(), change.LogicalKey), append(f.Metadata.Values(), change.LogicalUUID))
	case *arrow.ListType:
		f.Type = arrow.ListOfField(plainField(dt.ElemField()))
	}
	return f
}
