package change

import (
	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// SpecialName is the column that holds, by the name of their column, the exact texts of a row's values that its typed columns
// cannot carry and have null for. A text that is not valid UTF-8 stands there as \x and the hexadecimal digits of its bytes.
const SpecialName = "_leat_special"

// SpecialAttnum stands for SpecialName where columns are known by their attnum; no column of PostgreSQL has it.
const SpecialAttnum int16 = -100

// SpecialType is the Arrow type of SpecialName.
var SpecialType = arrow.MapOf(arrow.BinaryTypes.String, arrow.BinaryTypes.String)

// SpecialField is the field that records of rows have behind the columns of their table where one of the rows has a special value.
var SpecialField = arrow.Field{Name: SpecialName, Type: SpecialType, Nullable: true}

// SpecialOf is the column of special values of a record whose table has the given number of columns; nil where it has none.
func SpecialOf(rec arrow.RecordBatch, columns int) *array.Map {
	if int(rec.NumCols()) != columns+1 {
		return nil
	}
	m, _ := rec.Column(columns).(*array.Map)
	return m
}

// SpecialText is the text of a column's special value in a row, and whether there is one.
func SpecialText(m *array.Map, row int, column string) (string, bool) {
	if m == nil || m.IsNull(row) {
		return "", false
	}
	names, texts := m.Keys().(*array.String), m.Items().(*array.String)
	from, to := m.ValueOffsets(row)
	for i := int(from); i < int(to); i++ {
		if names.Value(i) == column {
			return texts.Value(i), true
		}
	}
	return "", false
}
