package format

import (
	"encoding/json"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// avroType is an Avro schema in its JSON form. Properties that Avro does not define begin
// with "leat:", and readers pass over them.
type avroType struct {
	Type      string      `json:"type"`
	Name      string      `json:"name,omitempty"`
	Namespace string      `json:"namespace,omitempty"`
	Original  string      `json:"leat:name,omitempty"`
	Logical   string      `json:"logicalType,omitempty"`
	Precision int32       `json:"precision,omitempty"`
	Scale     int32       `json:"scale,omitempty"`
	Items     any         `json:"items,omitempty"`
	Values    any         `json:"values,omitempty"`
	Fields    []avroField `json:"fields,omitzero"` // empty, but there, in a record without columns
	OurType   string      `json:"leat:logical,omitempty"`
}

// avroField is a field of a record.
type avroField struct {
	Name     string          `json:"name"`
	Type     any             `json:"type"`
	Default  json.RawMessage `json:"default,omitempty"`
	Original string          `json:"leat:name,omitempty"`   // the column's name where Avro's rule changed it
	PGType   string          `json:"leat:pgtype,omitempty"` // change.TypeKey
}

// avroPlan turns Arrow types into Avro schemas and the encoders that belong to them.
type avroPlan struct {
	null *error // where encoders report a NULL that may not be
}

// avroPlace says where in a table a type stands.
type avroPlace struct {
	path      string // for messages: "address.street"
	name      string // of a record made here, not yet mapped
	namespace string // of a record made here, mapped
	logical   string // change.LogicalKey; items of a list take their column's
}

// record plans the file's outermost record and returns its schema as JSON.
func (p avroPlan) record(schema *arrow.Schema, name, namespace string) ([]byte, []avroEncoder, error) {
	if name == "" {
		name = "row"
	}
	t, columns, err := p.fields(schema.Fields(), avroPlace{name: name, namespace: avroNamespace(namespace)})
	if err != nil {
		return nil, nil, err
	}
	text, err := json.Marshal(t)
	return text, columns, fault.Wrap(err, fault.Internal, "avro", "the schema cannot be written")
}

// fields plans a record. The records inside it get a namespace of their own that ends with
// this record's name, since a full name may be defined only once in a schema.
func (p avroPlan) fields(fields []arrow.Field, at avroPlace) (*avroType, []avroEncoder, error) {
	t := &avroType{Type: "record", Name: avroRecordName(at.name), Namespace: at.namespace, Fields: []avroField{}}
	if t.Name != at.name {
		t.Original = at.name
	}
	inner := t.Name
	if at.namespace != "" {
		inner = at.namespace + "." + t.Name
	}
	taken := map[string]bool{}
	encoders := make([]avroEncoder, len(fields))
	for i, f := range fields {
		place := avroPlace{path: f.Name, name: f.Name, namespace: inner}
		if at.path != "" {
			place.path = at.path + "." + f.Name
		}
		name := avroName(f.Name)
		if taken[name] {
			return nil, nil, fault.New(fault.TypeUncarriable, place.path, "is the name of two columns")
		}
		taken[name] = true
		kind, encoder, err := p.nullable(f, place)
		if err != nil {
			return nil, nil, err
		}
		encoders[i] = encoder
		field := avroField{Name: name, Type: kind}
		field.PGType, _ = f.Metadata.GetValue(change.TypeKey)
		if name != f.Name {
			field.Original = f.Name
		}
		if f.Nullable {
			field.Default = json.RawMessage("null")
		}
		t.Fields = append(t.Fields, field)
	}
	return t, encoders, nil
}

// nullable plans a field's type: a union with null first, where null is the default, or the
// plain type for one that is never NULL.
func (p avroPlan) nullable(f arrow.Field, at avroPlace) (any, avroEncoder, error) {
	if logical := change.Logical(f); logical != "" {
		at.logical = logical
	}
	kind, encoder, err := p.value(f.Type, at)
	switch {
	case err != nil:
		return nil, nil, err
	case f.Type.ID() == arrow.NULL: // a union may not hold null twice
		return kind, encoder, nil
	case f.Nullable:
		return []any{"null", kind}, avroNullable(encoder), nil
	}
	return kind, avroRequired(encoder, at.path, p.null), nil
}

// value plans a type. Strings that are labels of an enum stay strings: Avro's enum allows
// only names as symbols, and its symbols are fixed in the schema while PostgreSQL's grow.
// A uuid is its 36 characters, as Avro has it since 1.8; sixteen fixed bytes came with 1.12
// and fastavro and Spark 3.5 read those as bare bytes.
func (p avroPlan) value(dt arrow.DataType, at avroPlace) (any, avroEncoder, error) {
	if plain, ok := avroPlain[dt.ID()]; ok {
		if plain.name == "string" && at.logical != "" {
			return &avroType{Type: plain.name, OurType: at.logical}, plain.encoder, nil
		}
		return plain.name, plain.encoder, nil
	}
	switch dt := dt.(type) {
	case *arrow.Date32Type:
		return &avroType{Type: "int", Logical: "date"}, avroInts[int32], nil
	case *arrow.Time64Type:
		if dt.Unit == arrow.Microsecond {
			return &avroType{Type: "long", Logical: "time-micros"}, avroInts[int64], nil
		}
	case *arrow.TimestampType:
		if dt.Unit == arrow.Microsecond {
			return avroTimestamp(dt), avroInts[int64], nil
		}
	case *arrow.Decimal128Type:
		return p.decimal(dt, avroDecimal128, at)
	case *arrow.Decimal256Type:
		return p.decimal(dt, avroDecimal256, at)
	case *arrow.FixedSizeBinaryType:
		if dt.ByteWidth == 16 && at.logical == change.LogicalUUID {
			return &avroType{Type: "string", Logical: "uuid"}, avroUUID, nil
		}
		return "bytes", avroFixed, nil
	case *arrow.MapType:
		return p.mapping(dt, at)
	case arrow.ListLikeType:
		items, item, err := p.nullable(dt.ElemField(), at)
		return &avroType{Type: "array", Items: items}, avroArray(item), err
	case *arrow.StructType:
		t, fields, err := p.fields(dt.Fields(), at)
		return t, avroStruct(fields), err
	}
	return nil, nil, fault.New(fault.TypeUncarriable, at.path, "avro has no type for %s", dt)
}

// avroPlain lists the types that are one of Avro's and nothing more.
var avroPlain = map[arrow.Type]struct {
	name    string
	encoder avroEncoder
}{
	arrow.NULL:         {"null", avroNull},
	arrow.BOOL:         {"boolean", avroBool},
	arrow.INT8:         {"int", avroInts[int8]},
	arrow.INT16:        {"int", avroInts[int16]},
	arrow.INT32:        {"int", avroInts[int32]},
	arrow.INT64:        {"long", avroInts[int64]},
	arrow.UINT8:        {"int", avroInts[uint8]},
	arrow.UINT16:       {"int", avroInts[uint16]},
	arrow.UINT32:       {"long", avroInts[uint32]},
	arrow.FLOAT32:      {"float", avroFloat32},
	arrow.FLOAT64:      {"double", avroFloat64},
	arrow.STRING:       {"string", avroBytes[int32]},
	arrow.LARGE_STRING: {"string", avroBytes[int64]},
	arrow.BINARY:       {"bytes", avroBytes[int32]},
	arrow.LARGE_BINARY: {"bytes", avroBytes[int64]},
}

func avroTimestamp(dt *arrow.TimestampType) *avroType {
	if dt.TimeZone == "" {
		return &avroType{Type: "long", Logical: "local-timestamp-micros"}
	}
	return &avroType{Type: "long", Logical: "timestamp-micros"}
}

// decimal plans a decimal. Avro wants a scale of zero up to the precision.
func (p avroPlan) decimal(dt arrow.DecimalType, encoder avroEncoder, at avroPlace) (any, avroEncoder, error) {
	precision, scale := dt.GetPrecision(), dt.GetScale()
	if scale < 0 || scale > precision {
		return nil, nil, fault.New(fault.TypeUncarriable, at.path, "avro has no decimal of %d digits with %d after the point", precision, scale)
	}
	return &avroType{Type: "bytes", Logical: "decimal", Precision: precision, Scale: scale}, encoder, nil
}

// mapping plans a map, whose keys are strings in Avro.
func (p avroPlan) mapping(dt *arrow.MapType, at avroPlace) (any, avroEncoder, error) {
	if dt.KeyType().ID() != arrow.STRING {
		return nil, nil, fault.New(fault.TypeUncarriable, at.path, "avro has no map with keys of type %s", dt.KeyType())
	}
	values, value, err := p.nullable(dt.ItemField(), at)
	return &avroType{Type: "map", Values: values}, avroMap(value), err
}
