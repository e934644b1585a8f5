package postgres

import (
	"encoding/binary"
	"encoding/hex"
	"math"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
)

// valueText appends the text of a value that the column has carried, as PostgreSQL reads it.
func (c *column) valueText(dst []byte, a arrow.Array, i int, typeOID uint32) ([]byte, bool) {
	switch a := a.(type) {
	case *array.String:
		return append(dst, a.Value(i)...), true
	case *array.LargeString:
		return append(dst, a.Value(i)...), true
	case *array.Binary:
		return binaryText(dst, a.Value(i), typeOID), true
	case *array.LargeBinary:
		return binaryText(dst, a.Value(i), typeOID), true
	case *array.Decimal128:
		return append(dst, a.Value(i).ToString(c.scale)...), true
	case *array.List:
		return c.listText(dst, a, i)
	}
	wire, ok := c.wireOf(a, i)
	if !ok {
		return dst, false
	}
	return c.fixedText(dst, wire), true
}

// binaryText is bytea's text, or that of a geometry, which has no mark before its digits.
func binaryText(dst, v []byte, typeOID uint32) []byte {
	if typeOID == oidBytea {
		dst = append(dst, `\x`...)
	}
	return hex.AppendEncode(dst, v)
}

func (c *column) listText(dst []byte, a *array.List, i int) ([]byte, bool) {
	if c.child == nil {
		return dst, false
	}
	dst = append(dst, '{')
	from, to := a.ValueOffsets(i)
	for at := int(from); at < int(to); at++ {
		if at > int(from) {
			dst = append(dst, c.delim)
		}
		if a.ListValues().IsNull(at) {
			dst = append(dst, "NULL"...)
			continue
		}
		typ := uint32(oidBytea)
		if c.delim == ':' { // of geometries
			typ = 0
		}
		item, ok := c.child.valueText(nil, a.ListValues(), at, typ)
		if !ok {
			return dst, false
		}
		if c.child.op == opList {
			dst = append(dst, item...)
			continue
		}
		dst = quotedElement(dst, item, c.delim)
	}
	return append(dst, '}'), true
}

// wireOf is a value of a fixed width in the wire's binary form.
func (c *column) wireOf(a arrow.Array, i int) ([]byte, bool) {
	long := func(v int64) ([]byte, bool) { return binary.BigEndian.AppendUint64(nil, uint64(v)), true }
	switch a := a.(type) {
	case *array.Boolean:
		if a.Value(i) {
			return []byte{1}, true
		}
		return []byte{0}, true
	case *array.Int16:
		return binary.BigEndian.AppendUint16(nil, uint16(a.Value(i))), true
	case *array.Int32:
		return binary.BigEndian.AppendUint32(nil, uint32(a.Value(i))), true
	case *array.Int64:
		if c.op == opOID {
			return binary.BigEndian.AppendUint32(nil, uint32(a.Value(i))), true
		}
		return long(a.Value(i))
	case *array.Float32:
		return binary.BigEndian.AppendUint32(nil, math.Float32bits(a.Value(i))), true
	case *array.Float64:
		return long(int64(math.Float64bits(a.Value(i))))
	case *array.FixedSizeBinary:
		return a.Value(i), len(a.Value(i)) == 16
	case *array.Date32:
		return binary.BigEndian.AppendUint32(nil, uint32(int32(a.Value(i))-epochDays)), true
	case *array.Time64:
		return long(int64(a.Value(i)))
	case *array.Timestamp:
		return long(int64(a.Value(i)) - epochMicros)
	}
	return nil, false
}
