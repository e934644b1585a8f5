package lake

import (
	"strconv"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/fault"
)

// filling says what a column gets in rows that were written before it was there.
type filling struct {
	value arrow.Array // one value for all of them: an array of one; nil where the rows' own values are converted
	from  arrow.Field // the column that is converted, with its field id
	cut   int         // so many characters of a text are kept; 0: all
}

// fill gives the fillings of columns by their field ids.
type fill map[int]filling

// reading is the schema to read rows with before they are filled: what is converted and has no place in them any more comes behind.
func (f fill) reading(schema *arrow.Schema) *arrow.Schema {
	fields := schema.Fields()
	for _, s := range schema.Fields() {
		if v, ok := f[fieldID(s)]; ok && v.value == nil && fieldAt(fields, fieldID(v.from)) < 0 {
			fields = append(fields, v.from)
		}
	}
	return arrow.NewSchema(fields, nil)
}

// bytes is what the values of a row take that have one value for all rows.
func (f fill) bytes() (n int64) {
	for _, v := range f {
		if v.value != nil {
			n += bytesOfData(v.value.Data())
		}
	}
	return n
}

// fieldAt is where the field of an id is, -1 for nowhere.
func fieldAt(fields []arrow.Field, id int) int {
	for i, f := range fields {
		if fieldID(f) == id {
			return i
		}
	}
	return -1
}

// pair is two kinds of type of which values of the first are converted to the second.
type pair struct{ from, to arrow.Type }

// conversions give the value that PostgreSQL's own cast gives, for each value of the first type that the second has.
var conversions = map[pair]func(a arrow.Array, to arrow.DataType, cut int) (arrow.Array, error){
	{arrow.INT16, arrow.STRING}:          each(appendDigits),
	{arrow.INT32, arrow.STRING}:          each(appendDigits),
	{arrow.INT64, arrow.STRING}:          each(appendDigits),
	{arrow.INT16, arrow.FLOAT64}:         each(appendFloat),
	{arrow.INT32, arrow.FLOAT64}:         each(appendFloat),
	{arrow.INT16, arrow.INT32}:           each(appendInt),
	{arrow.INT16, arrow.INT64}:           each(appendInt),
	{arrow.INT32, arrow.INT64}:           each(appendInt),
	{arrow.INT16, arrow.DECIMAL128}:      each(appendWhole),
	{arrow.INT32, arrow.DECIMAL128}:      each(appendWhole),
	{arrow.INT64, arrow.DECIMAL128}:      each(appendWhole),
	{arrow.FLOAT32, arrow.FLOAT64}:       each(appendWider),
	{arrow.DECIMAL128, arrow.DECIMAL128}: each(appendRescaled),
	{arrow.DATE32, arrow.TIMESTAMP}:      each(appendMidnight),
	{arrow.STRING, arrow.STRING}:         each(appendCut),
}

// convertible says whether values of one type can be converted to another.
func convertible(from, to arrow.DataType) bool {
	if a, ok := from.(*arrow.ListType); ok {
		b, ok := to.(*arrow.ListType)
		return ok && convertible(a.Elem(), b.Elem())
	}
	_, ok := conversions[pair{from.ID(), to.ID()}]
	return ok
}

// convert is a column's values in another type. The array belongs to the caller.
func convert(a arrow.Array, to arrow.Field, cut int) (arrow.Array, error) {
	a = storage(a)
	if a.NullN() == a.Len() {
		return array.MakeArrayOfNull(memory.DefaultAllocator, to.Type, a.Len()), nil
	}
	if list, ok := a.(*array.List); ok {
		return convertList(list, to, cut)
	}
	f, ok := conversions[pair{a.DataType().ID(), to.Type.ID()}]
	if !ok {
		return nil, fault.New(fault.LakeFailed, to.Name, "a column's values cannot be converted from %s to %s", a.DataType(), to.Type)
	}
	out, err := f(a, to.Type, cut)
	return out, fault.Wrap(err, fault.LakeFailed, to.Name, "a column's earlier values do not fit its type")
}

// convertList converts the elements; the lists are as before.
func convertList(list *array.List, to arrow.Field, cut int) (arrow.Array, error) {
	dt, ok := to.Type.(*arrow.ListType)
	if !ok {
		return nil, fault.New(fault.LakeFailed, to.Name, "a list cannot be converted to %s", to.Type)
	}
	elem := dt.ElemField()
	elem.Name = to.Name
	values, err := convert(list.ListValues(), elem, cut)
	if err != nil {
		return nil, err
	}
	defer values.Release()
	d := list.Data()
	data := array.NewData(to.Type, d.Len(), d.Buffers(), []arrow.ArrayData{values.Data()}, d.NullN(), d.Offset())
	defer data.Release()
	return array.MakeFromData(data), nil
}

// each converts value by value.
func each(one func(b array.Builder, a arrow.Array, i, cut int) error) func(arrow.Array, arrow.DataType, int) (arrow.Array, error) {
	return func(a arrow.Array, to arrow.DataType, cut int) (arrow.Array, error) {
		b := array.NewBuilder(memory.DefaultAllocator, to)
		defer b.Release()
		b.Reserve(a.Len())
		for i := range a.Len() {
			if a.IsNull(i) {
				b.AppendNull()
			} else if err := one(b, a, i, cut); err != nil {
				return nil, err
			}
		}
		return b.NewArray(), nil
	}
}

func wholeAt(a arrow.Array, i int) int64 {
	switch a := a.(type) {
	case *array.Int16:
		return int64(a.Value(i))
	case *array.Int32:
		return int64(a.Value(i))
	}
	return a.(*array.Int64).Value(i)
}

func appendDigits(b array.Builder, a arrow.Array, i, _ int) error {
	b.(*array.StringBuilder).Append(strconv.FormatInt(wholeAt(a, i), 10))
	return nil
}

func appendFloat(b array.Builder, a arrow.Array, i, _ int) error {
	b.(*array.Float64Builder).Append(float64(wholeAt(a, i)))
	return nil
}

func appendInt(b array.Builder, a arrow.Array, i, _ int) error {
	if wide, ok := b.(*array.Int64Builder); ok {
		wide.Append(wholeAt(a, i))
	} else {
		b.(*array.Int32Builder).Append(int32(wholeAt(a, i)))
	}
	return nil
}

func appendWider(b array.Builder, a arrow.Array, i, _ int) error {
	b.(*array.Float64Builder).Append(float64(a.(*array.Float32).Value(i)))
	return nil
}

func appendWhole(b array.Builder, a arrow.Array, i, _ int) error {
	return appendDecimal(b.(*array.Decimal128Builder), decimal128.FromI64(wholeAt(a, i)), 0)
}

func appendRescaled(b array.Builder, a arrow.Array, i, _ int) error {
	return appendDecimal(b.(*array.Decimal128Builder), a.(*array.Decimal128).Value(i), a.DataType().(*arrow.Decimal128Type).Scale)
}

// appendDecimal gives a number the column's scale, or fails where digits would go.
func appendDecimal(b *array.Decimal128Builder, v decimal128.Num, scale int32) error {
	to := b.Type().(*arrow.Decimal128Type)
	v, err := v.Rescale(scale, to.Scale)
	if err == nil && !v.FitsInPrecision(to.Precision) {
		err = fault.New(fault.ValueUncarriable, to.String(), "a number has too many digits")
	}
	if err == nil {
		b.Append(v)
	}
	return err
}

func appendMidnight(b array.Builder, a arrow.Array, i, _ int) error {
	const day = 24 * 60 * 60 * 1_000_000
	b.(*array.TimestampBuilder).Append(arrow.Timestamp(int64(a.(*array.Date32).Value(i)) * day))
	return nil
}

// appendCut keeps the first characters, as PostgreSQL does where only blanks follow them.
func appendCut(b array.Builder, a arrow.Array, i, cut int) error {
	v := a.(*array.String).Value(i)
	if cut > 0 && len(v) > cut {
		at := 0
		for range cut {
			_, n := utf8.DecodeRuneInString(v[at:])
			at += n
		}
		v = v[:at]
	}
	b.(*array.StringBuilder).Append(v)
	return nil
}
