package postgres

import (
	"context"

	"github.com/leatdata/leat/internal/change"
)

// Conversion says what a change of a column's type does to its values when the server converts them by its own cast. That an
// ALTER … TYPE … USING computed other values is not to be seen from here.
type Conversion int

// The conversions.
const (
	// ConversionUnknown: what becomes of a value is the server's alone to tell, or depends on its settings.
	ConversionUnknown Conversion = iota
	// ConversionNone: every value is the same in the new type.
	ConversionNone
	// ConversionExact: every value has one form in the new type, which follows from the types.
	ConversionExact
	// ConversionCut: texts are cut to the new type's length, where the server has made sure that blanks alone are lost.
	ConversionCut
)

// Conversion judges the change of a column's type from one to the other.
func (c *Catalog) Conversion(ctx context.Context, from, to change.Column) (Conversion, error) {
	if err := c.know(ctx, from, to); err != nil {
		return ConversionUnknown, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.carry.types.conversion(from, to), nil
}

// conversion takes a domain for what it stands for.
func (types typeTable) conversion(from, to change.Column) Conversion {
	from, enum := types.below(from)
	to, toEnum := types.below(to)
	switch {
	case from.Dims != to.Dims:
		return ConversionUnknown
	case from.TypeOID == to.TypeOID && from.Typmod == to.Typmod:
		return ConversionNone
	case enum || toEnum: // labels are carried as text
		return conversionOfLabels(from, to, enum, toEnum)
	case widens(from, to) || narrows(from, to):
		return ConversionNone
	case isText(from) && to.TypeOID == oidVarchar:
		return ConversionCut
	case exact(from, to):
		return ConversionExact
	}
	return ConversionUnknown
}

func isText(c change.Column) bool { return c.TypeOID == oidText || c.TypeOID == oidVarchar }

func conversionOfLabels(from, to change.Column, enum, toEnum bool) Conversion {
	switch {
	case enum && toEnum, enum && isText(to) && to.Typmod < 0, toEnum && isText(from):
		return ConversionNone
	case enum && to.TypeOID == oidVarchar:
		return ConversionCut
	}
	return ConversionUnknown
}

// Lengths of character(n) and numeric's precision and scale stand behind 4 bytes in a type's modifier.
const typmodHeader = 4

// TextLength is how many characters a column takes whose [Catalog.Conversion] was judged, 0 for any number.
func (c *Catalog) TextLength(col change.Column) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	col, _ = c.carry.types.below(col)
	return max(0, int(col.Typmod)-typmodHeader)
}

// elements are the types of the elements of built-in arrays.
var elements = map[uint32]uint32{
	1005: 21, 1007: 23, 1016: 20, 1021: 700, 1022: 701, 1231: oidNumeric, 1009: oidText, 1015: oidVarchar,
	1115: 1114, 1185: 1184, 1183: 1083, 1182: 1082,
}

// below is the column with the type that a domain or an array is of, and whether that is an enum.
func (types typeTable) below(c change.Column) (change.Column, bool) {
	t := types[c.TypeOID]
	for t.kind == 'd' {
		c.TypeOID, c.Typmod, c.Dims = t.base, pickTypmod(c.Typmod, t.typmod), max(c.Dims, t.dims)
		t = types[c.TypeOID]
	}
	elem := t.element
	if elem == 0 {
		elem = elements[c.TypeOID]
	}
	if elem != 0 {
		c.TypeOID, c.Dims = elem, max(c.Dims, 1)
		t = types[elem]
	}
	return c, t.kind == 'e'
}

// narrows says whether a type takes fewer of the same values: the server has made sure that those it has are among them.
func narrows(from, to change.Column) bool {
	whole := func(oid uint32) bool { return oid == 20 || oid == 21 || oid == 23 }
	if whole(from.TypeOID) && whole(to.TypeOID) {
		return true
	}
	a, ok := scaleOf(from)
	b, ok2 := scaleOf(to)
	return ok && ok2 && a == b
}

// scaleOf reads a numeric's scale; false for one without, and for other types.
func scaleOf(c change.Column) (scale int32, ok bool) {
	if c.TypeOID != oidNumeric || c.Typmod < typmodHeader {
		return 0, false
	}
	return ((c.Typmod-typmodHeader)&0x7ff ^ 1024) - 1024, true
}

// exact says whether a value's form in the new type follows from the types, whatever the server's settings are.
func exact(from, to change.Column) bool {
	scale, decimal := scaleOf(to)
	switch from.TypeOID {
	case oidNumeric:
		was, ok := scaleOf(from)
		return ok && decimal && scale >= was // digits that go are rounded
	case 20, 21, 23:
		return decimal && scale >= 0 || isText(to) || to.TypeOID == 701 && from.TypeOID != 20
	case 700: // its text has fewer digits
		return to.TypeOID == 701
	case 1082: // a day's midnight
		return to.TypeOID == 1114
	}
	return false
}
