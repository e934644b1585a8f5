package format

import (
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// textAppender appends the value of a row.
type textAppender func(to []byte, row int) []byte

// textForm turns a column of a record into what appends its values.
type textForm func(column arrow.Array) textAppender

// textFormOf chooses how a field's values are written.
func textFormOf(f arrow.Field, json bool) (textForm, error) {
	if json {
		return jsonForm(f)
	}
	return csvForm(f)
}

// orNull writes null where there is no value.
func orNull(column arrow.Array, null string, value textAppender) textAppender {
	if column.NullN() == 0 {
		return value
	}
	return func(to []byte, row int) []byte {
		if column.IsNull(row) {
			return append(to, null...)
		}
		return value(to, row)
	}
}

func jsonForm(f arrow.Field) (textForm, error) {
	if list, ok := f.Type.(*arrow.ListType); ok {
		item, err := jsonForm(list.ElemField())
		if err != nil {
			return nil, err
		}
		return func(column arrow.Array) textAppender {
			l := column.(*array.List)
			value := item(l.ListValues())
			return orNull(l, "null", func(to []byte, row int) []byte { return appendList(to, l, row, '[', ']', value) })
		}, nil
	}
	if of, ok := f.Type.(*arrow.MapType); ok {
		return mapForm(of)
	}
	if change.Logical(f) == change.LogicalJSON && f.Type.ID() == arrow.STRING {
		return func(column arrow.Array) textAppender {
			s := column.(*array.String)
			return orNull(s, "null", func(to []byte, row int) []byte { return appendJSONText(to, s.Value(row)) })
		}, nil
	}
	if f.Type.ID() == arrow.STRING {
		return func(column arrow.Array) textAppender {
			s := column.(*array.String)
			return orNull(s, "null", func(to []byte, row int) []byte { return appendJSONString(to, s.Value(row)) })
		}, nil
	}
	scalar, err := scalarFormOf(f, true)
	if err != nil {
		return nil, err
	}
	bare := jsonBare(f.Type)
	return func(column arrow.Array) textAppender {
		value := scalar(column)
		if !bare {
			inner := value
			value = func(to []byte, row int) []byte { return append(inner(append(to, '"'), row), '"') }
		}
		return orNull(column, "null", value)
	}, nil
}

// mapForm writes maps of text as JSON objects.
func mapForm(of *arrow.MapType) (textForm, error) {
	if of.KeyType().ID() != arrow.STRING || of.ItemType().ID() != arrow.STRING {
		return nil, fault.New(fault.TypeUncarriable, "", "there is no text form here of %s", of)
	}
	return func(column arrow.Array) textAppender {
		m := column.(*array.Map)
		keys, items := m.Keys().(*array.String), m.Items().(*array.String)
		return orNull(m, "null", func(to []byte, row int) []byte {
			from, end := m.ValueOffsets(row)
			to = append(to, '{')
			for i := int(from); i < int(end); i++ {
				if i > int(from) {
					to = append(to, ',')
				}
				to = appendJSONString(append(appendJSONString(to, keys.Value(i)), ':'), items.Value(i))
			}
			return append(to, '}')
		})
	}, nil
}

// jsonBare says whether a type's values stand in JSON without quotes. (Floats see to themselves: NaN needs them.)
func jsonBare(t arrow.DataType) bool {
	switch t.ID() {
	case arrow.BOOL, arrow.INT8, arrow.INT16, arrow.INT32, arrow.INT64, arrow.FLOAT32, arrow.FLOAT64, arrow.DECIMAL128:
		return true
	}
	return false
}

func csvForm(f arrow.Field) (textForm, error) {
	value, err := csvValue(f)
	if err != nil {
		return nil, err
	}
	return func(column arrow.Array) textAppender { return orNull(column, "", value(column)) }, nil
}

func csvValue(f arrow.Field) (textForm, error) {
	if f.Type.ID() == arrow.STRING {
		return func(column arrow.Array) textAppender {
			s := column.(*array.String)
			return func(to []byte, row int) []byte { return appendCSV(to, s.Value(row)) }
		}, nil
	}
	if f.Type.ID() != arrow.LIST && f.Type.ID() != arrow.MAP {
		return scalarFormOf(f, false)
	}
	form := arrayForm
	if of, ok := f.Type.(*arrow.MapType); ok {
		form = func(arrow.Field) (textForm, error) { return mapForm(of) }
	}
	item, err := form(f)
	if err != nil {
		return nil, err
	}
	return func(column arrow.Array) textAppender {
		value := item(column)
		var scratch []byte
		return func(to []byte, row int) []byte {
			scratch = value(scratch[:0], row)
			return appendCSV(to, string(scratch))
		}
	}, nil
}

// arrayForm writes lists as PostgreSQL writes arrays: {1,2,NULL}.
func arrayForm(f arrow.Field) (textForm, error) {
	list, ok := f.Type.(*arrow.ListType)
	if !ok {
		return arrayItem(f)
	}
	item, err := arrayForm(list.ElemField())
	if err != nil {
		return nil, err
	}
	return func(column arrow.Array) textAppender {
		l := column.(*array.List)
		values := l.ListValues()
		value := orNull(values, "NULL", item(values))
		return func(to []byte, row int) []byte { return appendList(to, l, row, '{', '}', value) }
	}, nil
}

func arrayItem(f arrow.Field) (textForm, error) {
	if f.Type.ID() == arrow.STRING {
		return func(column arrow.Array) textAppender {
			s := column.(*array.String)
			return func(to []byte, row int) []byte { return appendArrayItem(to, s.Value(row)) }
		}, nil
	}
	scalar, err := scalarFormOf(f, false)
	if err != nil {
		return nil, err
	}
	return func(column arrow.Array) textAppender {
		value := scalar(column)
		var scratch []byte
		return func(to []byte, row int) []byte {
			scratch = value(scratch[:0], row)
			return appendArrayItem(to, string(scratch))
		}
	}, nil
}

func appendList(to []byte, l *array.List, row int, open, shut byte, value textAppender) []byte {
	to = append(to, open)
	start, end := l.ValueOffsets(row)
	for i := start; i < end; i++ {
		if i > start {
			to = append(to, ',')
		}
		to = value(to, int(i))
	}
	return append(to, shut)
}

// scalarFormOf chooses how values that are neither strings nor lists are written, by their type.
func scalarFormOf(f arrow.Field, json bool) (textForm, error) {
	switch dt := f.Type.(type) {
	case *arrow.BooleanType:
		return boolForm(json), nil
	case *arrow.Int8Type:
		return intForm(func(a arrow.Array) []int8 { return a.(*array.Int8).Int8Values() }), nil
	case *arrow.Int16Type:
		return intForm(func(a arrow.Array) []int16 { return a.(*array.Int16).Int16Values() }), nil
	case *arrow.Int32Type:
		return intForm(func(a arrow.Array) []int32 { return a.(*array.Int32).Int32Values() }), nil
	case *arrow.Int64Type:
		return intForm(func(a arrow.Array) []int64 { return a.(*array.Int64).Int64Values() }), nil
	case *arrow.Float32Type:
		return floatForm(func(a arrow.Array, row int) float64 { return float64(a.(*array.Float32).Value(row)) }, 32, json), nil
	case *arrow.Float64Type:
		return floatForm(func(a arrow.Array, row int) float64 { return a.(*array.Float64).Value(row) }, 64, json), nil
	case *arrow.Decimal128Type:
		return func(column arrow.Array) textAppender {
			values := column.(*array.Decimal128)
			return func(to []byte, row int) []byte { return appendDecimal(to, values.Value(row), int(dt.Scale)) }
		}, nil
	case *arrow.BinaryType:
		return func(column arrow.Array) textAppender {
			values := column.(*array.Binary)
			return func(to []byte, row int) []byte { return appendBytea(to, values.Value(row), json) }
		}, nil
	case *arrow.FixedSizeBinaryType:
		return fixedForm(f, dt, json), nil
	}
	if form := timeForm(f.Type, json); form != nil {
		return form, nil
	}
	return nil, fault.New(fault.TypeUncarriable, f.Name, "text files have no form for Arrow's %s", f.Type)
}

func boolForm(json bool) textForm {
	yes, no := "t", "f"
	if json {
		yes, no = "true", "false"
	}
	return func(column arrow.Array) textAppender {
		values := column.(*array.Boolean)
		return func(to []byte, row int) []byte {
			if values.Value(row) {
				return append(to, yes...)
			}
			return append(to, no...)
		}
	}
}

func intForm[T int8 | int16 | int32 | int64](valuesOf func(arrow.Array) []T) textForm {
	return func(column arrow.Array) textAppender {
		values := valuesOf(column)
		return func(to []byte, row int) []byte { return strconv.AppendInt(to, int64(values[row]), 10) }
	}
}

// floatForm writes the fewest digits that give the same value back.
func floatForm(value func(arrow.Array, int) float64, bits int, json bool) textForm {
	quote := ""
	if json {
		quote = `"`
	}
	return func(column arrow.Array) textAppender {
		return func(to []byte, row int) []byte {
			v := value(column, row)
			switch abs := math.Abs(v); {
			case math.IsNaN(v):
				return append(to, quote+"NaN"+quote...)
			case math.IsInf(v, 1):
				return append(to, quote+"Infinity"+quote...)
			case math.IsInf(v, -1):
				return append(to, quote+"-Infinity"+quote...)
			case abs != 0 && (abs < 1e-4 || abs >= 1e15):
				return strconv.AppendFloat(to, v, 'e', -1, bits)
			}
			return strconv.AppendFloat(to, v, 'f', -1, bits)
		}
	}
}

// appendDecimal writes all digits, with as many behind the point as the scale says.
func appendDecimal(to []byte, v decimal128.Num, scale int) []byte {
	negative := v.Sign() < 0
	var digits []byte
	if high := v.HighBits(); high == 0 && !negative {
		digits = strconv.AppendUint(nil, v.LowBits(), 10)
	} else {
		digits = v.Abs().BigInt().Append(nil, 10)
	}
	if negative {
		to = append(to, '-')
	}
	if scale <= 0 {
		to = append(to, digits...)
		for range -scale {
			to = append(to, '0')
		}
		return to
	}
	if pad := scale + 1 - len(digits); pad > 0 {
		digits = append([]byte(strings.Repeat("0", pad)), digits...)
	}
	point := len(digits) - scale
	to = append(to, digits[:point]...)
	to = append(to, '.')
	return append(to, digits[point:]...)
}

func appendBytea(to, v []byte, json bool) []byte {
	if json {
		to = append(to, '\\')
	}
	return hex.AppendEncode(append(to, `\x`...), v)
}

func fixedForm(f arrow.Field, dt *arrow.FixedSizeBinaryType, json bool) textForm {
	isUUID := change.Logical(f) == change.LogicalUUID && dt.ByteWidth == 16
	return func(column arrow.Array) textAppender {
		values := column.(*array.FixedSizeBinary)
		return func(to []byte, row int) []byte {
			v := values.Value(row)
			if !isUUID {
				return appendBytea(to, v, json)
			}
			for i, part := range [][]byte{v[:4], v[4:6], v[6:8], v[8:10], v[10:]} {
				if i > 0 {
					to = append(to, '-')
				}
				to = hex.AppendEncode(to, part)
			}
			return to
		}
	}
}

// timeForm writes dates and times as PostgreSQL's ISO style does, in UTC; JSON's timestamps have a T. Nil for other types.
func timeForm(t arrow.DataType, json bool) textForm {
	switch dt := t.(type) {
	case *arrow.Date32Type:
		return func(column arrow.Array) textAppender {
			values := column.(*array.Date32).Date32Values()
			return func(to []byte, row int) []byte {
				to, bc := appendDate(to, time.Unix(int64(values[row])*86400, 0).UTC())
				return append(to, bc...)
			}
		}
	case *arrow.Time64Type:
		if dt.Unit != arrow.Microsecond {
			return nil
		}
		return func(column arrow.Array) textAppender {
			values := column.(*array.Time64).Time64Values()
			return func(to []byte, row int) []byte { return appendClock(to, int64(values[row])) }
		}
	case *arrow.TimestampType:
		if dt.Unit != arrow.Microsecond {
			return nil
		}
		between, zone := byte(' '), ""
		if dt.TimeZone != "" {
			zone = "+00"
		}
		if json {
			between = 'T'
			if zone != "" {
				zone = "+00:00"
			}
		}
		return func(column arrow.Array) textAppender {
			values := column.(*array.Timestamp).TimestampValues()
			return func(to []byte, row int) []byte {
				const day = 86_400_000_000
				us := int64(values[row])
				clock := ((us % day) + day) % day
				to, bc := appendDate(to, time.Unix((us-clock)/1_000_000, 0).UTC())
				to = appendClock(append(to, between), clock)
				return append(append(to, zone...), bc...)
			}
		}
	}
	return nil
}

// appendDate writes year, month and day; years before 1 are counted backwards and end in what is returned beside.
func appendDate(to []byte, t time.Time) (date []byte, bc string) {
	year, month, day := t.Date()
	if year <= 0 {
		year, bc = 1-year, " BC"
	}
	for limit := 1000; year < limit && limit > 1; limit /= 10 {
		to = append(to, '0')
	}
	to = strconv.AppendInt(to, int64(year), 10)
	to = appendTwo(append(to, '-'), int64(month))
	return appendTwo(append(to, '-'), int64(day)), bc
}

func appendTwo(to []byte, v int64) []byte { return append(to, byte('0'+v/10), byte('0'+v%10)) }

// appendClock writes microseconds of a day, without zeros at the end of a fraction.
func appendClock(to []byte, us int64) []byte {
	seconds := us / 1_000_000
	to = appendTwo(to, seconds/3600)
	to = appendTwo(append(to, ':'), seconds/60%60)
	to = appendTwo(append(to, ':'), seconds%60)
	fraction := us % 1_000_000
	if fraction == 0 {
		return to
	}
	to = append(to, '.')
	for unit := int64(100_000); fraction > 0; unit /= 10 {
		to = append(to, byte('0'+fraction/unit))
		fraction %= unit
	}
	return to
}

// appendCSV quotes what RFC 4180 wants quoted, the empty text, which would be NULL, and what COPY takes for its end.
func appendCSV(to []byte, v string) []byte {
	if v != "" && v != `\.` && !strings.ContainsAny(v, csvQuoted) {
		return append(to, v...)
	}
	return append(appendCSVInside(append(to, '"'), v), '"')
}

// csvQuoted are what a value cannot have without quotes around it.
const csvQuoted = ",\"\r\n"

// appendCSVInside appends what stands between quotes.
func appendCSVInside(to []byte, v string) []byte {
	for {
		i := strings.IndexByte(v, '"')
		if i < 0 {
			return append(to, v...)
		}
		to = append(append(to, v[:i]...), '"', '"')
		v = v[i+1:]
	}
}

// appendArrayItem quotes an element as array_out does.
func appendArrayItem(to []byte, v string) []byte {
	if v != "" && !strings.ContainsAny(v, "{},\"\\ \t\n\r\v\f") && !strings.EqualFold(v, "null") {
		return append(to, v...)
	}
	to = append(to, '"')
	for i := range len(v) {
		if v[i] == '"' || v[i] == '\\' {
			to = append(to, '\\')
		}
		to = append(to, v[i])
	}
	return append(to, '"')
}

// appendJSONText writes a JSON value as it is. A line is a row: line breaks, which stand between tokens only, become spaces.
func appendJSONText(to []byte, v string) []byte {
	at := len(to)
	to = append(to, v...)
	for i := at; i < len(to); i++ {
		if to[i] == '\n' || to[i] == '\r' {
			to[i] = ' '
		}
	}
	return to
}

func appendJSONString(to []byte, v string) []byte {
	return append(appendJSONInside(append(to, '"'), v), '"')
}

// appendJSONInside appends what stands between the quotes of a string.
func appendJSONInside(to []byte, v string) []byte {
	const digits = "0123456789abcdef"
	from := 0
	for i := 0; i < len(v); {
		c := v[i]
		if c >= utf8.RuneSelf || c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		to = append(to, v[from:i]...)
		switch c {
		case '"', '\\':
			to = append(to, '\\', c)
		case '\n':
			to = append(to, '\\', 'n')
		case '\r':
			to = append(to, '\\', 'r')
		case '\t':
			to = append(to, '\\', 't')
		default:
			to = append(to, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		from = i
	}
	return append(to, v[from:]...)
}
