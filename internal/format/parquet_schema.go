package format

import (
	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// physical is Parquet's storage type, by its number in parquet.thrift.
type physical int32

const (
	physBool   physical = 0
	physInt32  physical = 1
	physInt64  physical = 2
	physFloat  physical = 4
	physDouble physical = 5
	physBytes  physical = 6
	physFixed  physical = 7
)

// FieldIDKey is the key of Arrow field metadata that holds a Parquet field id in decimal
// digits, as Arrow's own libraries use it.
const FieldIDKey = "PARQUET:field_id"

// maxDepth keeps levels in seven bits; nesting deeper than that is a mistake, not a table.
const maxDepth = 100

// order says how a column's values compare for its minimum and maximum.
type order byte

const (
	orderNone     order = iota // no order: no bounds and no dictionary
	orderSigned                // integers
	orderUnsigned              // integers
	orderFloat                 // IEEE 754, NaN left out
	orderBytes                 // bytes, unsigned, lexicographic
	orderText                  // the same, and cut only between characters
	orderBig                   // two's complement, big-endian
)

// storage is how the values of one Arrow type are stored.
type storage struct {
	phys  physical
	width int // bytes of physFixed
	order order
	delta bool // DELTA_BINARY_PACKED where no dictionary pays
	load  loader
	// converted is the ConvertedType's number, -1 for none.
	converted        int32
	scale, precision int32
	decimal          bool
	logical          func(t *thrift) // writes the member of the LogicalType union; nil for none
}

// The Arrow ways of a leaf from the top of its column downwards.
type stepKind byte

const (
	stepLeaf stepKind = iota
	stepStruct
	stepList // and Map, which Arrow lays out as a list of structs
)

// step is one level of nesting on the way to a leaf.
type step struct {
	kind     stepKind
	nullable bool
	child    int   // of stepStruct: which of its fields
	again    uint8 // repetition level of a slot that is not the first of its list
}

// leaf is one column as Parquet sees it: a path of names that ends in values.
type leaf struct {
	storage
	top    int // which of the record's columns holds it
	path   []string
	steps  []step
	maxDef uint8
	maxRep uint8
	bloom  bool
	// fieldID is the field's id, 0 for none.
	fieldID int
}

// schemaBuilder walks an Arrow schema once, writes Parquet's list of schema elements (depth first)
// and collects the leaves.
type schemaBuilder struct {
	t        thrift
	elements int
	leaves   []*leaf
}

func buildSchema(schema *arrow.Schema) (*schemaBuilder, error) {
	b := &schemaBuilder{}
	b.group("schema", -1, arrow.Field{}, schema.NumFields(), -1, nil)
	for i, f := range schema.Fields() {
		if err := b.add(f, f.Name, leaf{top: i}); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Repetition types of schema elements.
const (
	repRequired = 0
	repOptional = 1
	repRepeated = 2
)

func repetition(f arrow.Field) int32 {
	if f.Nullable {
		return repOptional
	}
	return repRequired
}

// group writes an element with children. The root has no repetition: it is below zero.
func (b *schemaBuilder) group(name string, rep int32, f arrow.Field, children int, converted int32, logical func(*thrift)) {
	b.elements++
	t := &b.t
	t.open()
	if rep >= 0 {
		t.i32(3, rep)
	}
	t.str(4, name)
	t.i32(5, int32(children))
	if converted >= 0 {
		t.i32(6, converted)
	}
	b.fieldID(f)
	if logical != nil {
		t.begin(10)
		logical(t)
		t.end()
	}
	t.end()
}

func (b *schemaBuilder) fieldID(f arrow.Field) {
	if id := fieldIDOf(f); id != 0 {
		b.t.i32(9, int32(id))
	}
}

// add writes field f under the given name and below; at is the way so far.
func (b *schemaBuilder) add(f arrow.Field, name string, at leaf) error {
	at.path = append(at.path[:len(at.path):len(at.path)], name)
	at.steps = at.steps[:len(at.steps):len(at.steps)]
	if len(at.path) > maxDepth {
		return fault.New(fault.TypeUncarriable, at.path[0], "nested deeper than %d levels", maxDepth)
	}
	if f.Nullable {
		at.maxDef++
	}
	s := step{nullable: f.Nullable, again: at.maxRep}
	switch dt := f.Type.(type) {
	case *arrow.StructType:
		return b.addStruct(f, dt, name, at, s)
	case *arrow.MapType:
		return b.addMap(f, dt, name, at, s)
	case *arrow.ListType:
		return b.addList(f, dt.ElemField(), name, at, s)
	case *arrow.LargeListType:
		return b.addList(f, dt.ElemField(), name, at, s)
	}
	k, ok := storageOf(f)
	if !ok {
		return fault.New(fault.TypeUncarriable, at.path[0], "Parquet has no place for a value of Arrow type %s", f.Type)
	}
	at.storage, at.fieldID = k, fieldIDOf(f)
	at.steps = append(at.steps, s)
	b.leaves = append(b.leaves, &at)
	b.leafElement(f, name, k)
	return nil
}

func (b *schemaBuilder) addStruct(f arrow.Field, dt *arrow.StructType, name string, at leaf, s step) error {
	if dt.NumFields() == 0 {
		return fault.New(fault.TypeUncarriable, at.path[0], "Parquet cannot hold a composite without fields")
	}
	b.group(name, repetition(f), f, dt.NumFields(), -1, nil)
	s.kind = stepStruct
	for i, c := range dt.Fields() {
		s.child = i
		below := at
		below.steps = append(at.steps, s)
		if err := b.add(c, c.Name, below); err != nil {
			return err
		}
	}
	return nil
}

// addList writes the three levels that the format lays down for lists
// (https://github.com/apache/parquet-format/blob/master/LogicalTypes.md#lists).
func (b *schemaBuilder) addList(f, elem arrow.Field, name string, at leaf, s step) error {
	b.group(name, repetition(f), f, 1, 3, func(t *thrift) { t.empty(3) })
	b.group("list", repRepeated, arrow.Field{}, 1, -1, nil)
	return b.add(elem, "element", repeated(at, s, "list"))
}

// addMap writes a map as the format lays it down: a repeated key_value of a required key and a value.
func (b *schemaBuilder) addMap(f arrow.Field, dt *arrow.MapType, name string, at leaf, s step) error {
	b.group(name, repetition(f), f, 1, 1, func(t *thrift) { t.empty(2) })
	b.group("key_value", repRepeated, arrow.Field{}, 2, -1, nil)
	below := repeated(at, s, "key_value")
	key, value := dt.KeyField(), dt.ItemField()
	key.Nullable = false
	for i, c := range []struct {
		name string
		arrow.Field
	}{{"key", key}, {"value", value}} {
		entry := below
		entry.steps = append(below.steps[:len(below.steps):len(below.steps)], step{kind: stepStruct, child: i, again: below.maxRep})
		if err := b.add(c.Field, c.name, entry); err != nil {
			return err
		}
	}
	return nil
}

// repeated goes one list deeper, through the group of the given name.
func repeated(at leaf, s step, group string) leaf {
	s.kind = stepList
	at.path = append(at.path, group)
	at.steps = append(at.steps, s)
	at.maxDef++
	at.maxRep++
	return at
}

func (b *schemaBuilder) leafElement(f arrow.Field, name string, k storage) {
	b.elements++
	t := &b.t
	t.open()
	t.i32(1, int32(k.phys))
	if k.phys == physFixed {
		t.i32(2, int32(k.width))
	}
	t.i32(3, repetition(f))
	t.str(4, name)
	if k.converted >= 0 {
		t.i32(6, k.converted)
	}
	if k.decimal {
		t.i32(7, k.scale)
		t.i32(8, k.precision)
	}
	b.fieldID(f)
	if k.logical != nil {
		t.begin(10)
		k.logical(t)
		t.end()
	}
	t.end()
}

// storageOf chooses the storage of a leaf's Arrow type, and says whether there is one.
func storageOf(f arrow.Field) (storage, bool) {
	k := storage{converted: -1}
	switch dt := f.Type.(type) {
	case *arrow.NullType:
		k.phys, k.logical = physInt32, func(t *thrift) { t.empty(11) }
		k.load = loadNothing
		return k, f.Nullable
	case *arrow.BooleanType:
		k.phys, k.order, k.load = physBool, orderUnsigned, loadBool
	case *arrow.Float32Type:
		k.phys, k.order, k.load = physFloat, orderFloat, loadInt32
	case *arrow.Float64Type:
		k.phys, k.order, k.load = physDouble, orderFloat, loadInt64
	case *arrow.Decimal128Type:
		return decimalStorage(dt, dt.Precision <= 18)
	case *arrow.Decimal256Type:
		return decimalStorage(dt, false)
	case *arrow.FixedSizeBinaryType:
		k.phys, k.width, k.order, k.load = physFixed, dt.ByteWidth, orderBytes, loadFixed
		if change.Logical(f) == change.LogicalUUID && dt.ByteWidth == 16 {
			k.logical = func(t *thrift) { t.empty(14) }
			if fieldIDOf(f) != 0 {
				k.order = orderNone // Iceberg's Java library compares uuids as signed numbers (decision 32)
			}
		}
		return k, dt.ByteWidth > 0
	case *arrow.StringType, *arrow.LargeStringType:
		k.phys, k.order, k.load = physBytes, orderText, loadBytes
		k.converted, k.logical = 0, func(t *thrift) { t.empty(1) }
		if change.Logical(f) == change.LogicalJSON {
			k.converted, k.logical = 19, func(t *thrift) { t.empty(12) }
		}
	case *arrow.BinaryType, *arrow.LargeBinaryType:
		k.phys, k.order, k.load = physBytes, orderBytes, loadBytes
	default:
		return integerStorage(f.Type)
	}
	return k, true
}

// integerStorage is storageOf for what integers carry: integers, dates and times.
func integerStorage(t arrow.DataType) (storage, bool) {
	k := storage{converted: -1, delta: true, order: orderSigned}
	switch dt := t.(type) {
	case *arrow.Int8Type, *arrow.Int16Type, *arrow.Int32Type, *arrow.Int64Type:
		return wholeStorage(t, true), true
	case *arrow.Uint8Type, *arrow.Uint16Type, *arrow.Uint32Type, *arrow.Uint64Type:
		return wholeStorage(t, false), true
	case *arrow.Date32Type:
		k.phys, k.load, k.converted = physInt32, loadInt32, 6
		k.logical = func(t *thrift) { t.empty(6) }
	case *arrow.Time32Type:
		k.phys, k.load = physInt32, loadInt32
		k.logical = clock(7, false, dt.Unit)
		return k, dt.Unit == arrow.Millisecond
	case *arrow.Time64Type:
		k.phys, k.load = physInt64, loadInt64
		k.logical = clock(7, false, dt.Unit)
	case *arrow.TimestampType:
		utc := dt.TimeZone != ""
		k.phys, k.load, k.logical = physInt64, loadInt64, clock(8, utc, dt.Unit)
		// The old annotations mean UTC; local time and nanoseconds have none.
		if utc && dt.Unit == arrow.Microsecond {
			k.converted = 10
		} else if utc && dt.Unit == arrow.Millisecond {
			k.converted = 9
		}
		return k, dt.Unit != arrow.Second
	default:
		return k, false
	}
	return k, true
}

// clock writes TIME (7) or TIMESTAMP (8) of the LogicalType union.
func clock(member int, utc bool, unit arrow.TimeUnit) func(*thrift) {
	return func(t *thrift) {
		t.begin(member)
		t.boolean(1, utc)
		t.begin(2)
		t.empty(map[arrow.TimeUnit]int{arrow.Millisecond: 1, arrow.Microsecond: 2, arrow.Nanosecond: 3}[unit])
		t.end()
		t.end()
	}
}

func wholeStorage(dt arrow.DataType, signed bool) storage {
	bits := dt.(arrow.FixedWidthDataType).BitWidth()
	k := storage{phys: physInt32, delta: true, order: orderUnsigned, load: loaderOfInt(dt)}
	if signed {
		k.order = orderSigned
	}
	if bits == 64 {
		k.phys = physInt64
	}
	// UINT_8..UINT_64 are 11..14, INT_8..INT_64 are 15..18.
	k.converted = map[int]int32{8: 11, 16: 12, 32: 13, 64: 14}[bits]
	if signed {
		k.converted += 4
	}
	k.logical = func(t *thrift) {
		t.begin(10)
		t.i8(1, int8(bits))
		t.boolean(2, signed)
		t.end()
	}
	return k
}

// decimalStorage takes the smallest storage that holds the precision, as the format advises.
// Parquet knows no negative scale and none above the precision.
func decimalStorage(dt arrow.DecimalType, integer bool) (storage, bool) {
	p, s := dt.GetPrecision(), dt.GetScale()
	k := storage{order: orderSigned, delta: true, converted: 5, decimal: true, precision: p, scale: s}
	k.logical = func(t *thrift) {
		t.begin(5)
		t.i32(1, s)
		t.i32(2, p)
		t.end()
	}
	switch {
	case !integer:
		k.phys, k.width, k.order, k.delta = physFixed, decimalWidth(int(p)), orderBig, false
		k.load = decimalLoader(dt, k.width)
	case p <= 9:
		k.phys, k.load = physInt32, loadDecimal32
	default:
		k.phys, k.load = physInt64, loadDecimal64
	}
	return k, s >= 0 && s <= p
}

// decimalWidth is the least number of bytes whose two's complement holds p decimal digits:
// p times log2(10) bits, rounded up, and one for the sign.
func decimalWidth(p int) int {
	return (p*33220/10000 + 1 + 1 + 7) / 8
}
