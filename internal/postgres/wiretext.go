package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
)

// textOf appends the text of a value that came in its binary form, as the server's output function writes it under the settings of
// typed. Money has the digits alone: its other signs are the server's.
func (c *column) textOf(dst, b []byte) ([]byte, bool) {
	if c.expr != "" && c.op == opBytes {
		if write := wireWriters[c.wire]; write != nil {
			return write(dst, b)
		}
	}
	switch c.op {
	case opBytes:
		if c.arrow.ID() == arrow.BINARY {
			return hex.AppendEncode(append(dst, `\x`...), b), true
		}
		return append(dst, b...), true
	case opJSONB:
		return append(dst, b[min(1, len(b)):]...), len(b) > 0
	case opDecimal:
		return numericText(dst, b)
	case opList:
		return c.arrayText(dst, b)
	}
	if len(b) != wireWidth(c.op) {
		return dst, false
	}
	return c.fixedText(dst, b), true
}

// wireWidth is the length of a value in the wire's binary form.
func wireWidth(o op) int {
	switch o {
	case opBool:
		return 1
	case opOID:
		return 4
	case opMoney:
		return 8
	}
	return width(o)
}

// fixedText is textOf for values of a fixed width.
func (c *column) fixedText(dst, b []byte) []byte {
	switch c.op {
	case opBool:
		return append(dst, "ft"[b[0]&1])
	case opInt16:
		return strconv.AppendInt(dst, int64(int16(binary.BigEndian.Uint16(b))), 10)
	case opInt32:
		return strconv.AppendInt(dst, int64(int32(binary.BigEndian.Uint32(b))), 10)
	case opOID:
		return strconv.AppendUint(dst, uint64(binary.BigEndian.Uint32(b)), 10)
	case opFloat32:
		return floatText(dst, float64(math.Float32frombits(binary.BigEndian.Uint32(b))), 32, 6)
	case opFloat64:
		return floatText(dst, math.Float64frombits(binary.BigEndian.Uint64(b)), 64, 15)
	case opUUID:
		return fmt.Appendf(dst, "%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	case opDate:
		return dateText(dst, int32(binary.BigEndian.Uint32(b)))
	}
	v := int64(binary.BigEndian.Uint64(b))
	switch c.op {
	case opMoney:
		return moneyText(dst, v, int(c.scale))
	case opTime:
		return timeText(dst, v)
	case opTimestamp:
		return timestampText(dst, v, c.arrow.(*arrow.TimestampType).TimeZone != "")
	}
	return strconv.AppendInt(dst, v, 10)
}

// floatText follows to_chars of src/common/d2s.c and f2s.c: digits are written out for exponents from -4 to below the given one.
func floatText(dst []byte, v float64, size, below int) []byte {
	switch {
	case v != v:
		return append(dst, "NaN"...)
	case math.IsInf(v, 0):
		if v < 0 {
			dst = append(dst, '-')
		}
		return append(dst, "Infinity"...)
	}
	short := strconv.AppendFloat(nil, v, 'e', -1, size)
	exponent, _ := strconv.Atoi(string(short[bytes.IndexByte(short, 'e')+1:]))
	if exponent >= -4 && exponent < below {
		return strconv.AppendFloat(dst, v, 'f', -1, size)
	}
	return append(dst, short...)
}

func moneyText(dst []byte, v int64, scale int) []byte {
	digits := strconv.AppendInt(nil, v, 10)
	if v < 0 {
		dst, digits = append(dst, '-'), digits[1:]
	}
	for len(digits) <= scale {
		digits = append([]byte{'0'}, digits...)
	}
	dst = append(dst, digits[:len(digits)-scale]...)
	if scale > 0 {
		dst = append(append(dst, '.'), digits[len(digits)-scale:]...)
	}
	return dst
}

// dateText writes days since 2000-01-01.
func dateText(dst []byte, days int32) []byte {
	switch days {
	case math.MaxInt32:
		return append(dst, "infinity"...)
	case math.MinInt32:
		return append(dst, "-infinity"...)
	}
	dst, bc := dayText(dst, int64(days))
	if bc {
		dst = append(dst, beforeChrist...)
	}
	return dst
}

// dayText writes year, month and day, and says whether the mark of years before Christ belongs to the end.
func dayText(dst []byte, days int64) (text []byte, bc bool) {
	days += 730425 // since 0000-03-01: the inverse of daysOf
	era := days / 146097
	if days < 0 {
		era = (days - 146096) / 146097
	}
	ofEra := days - era*146097
	year := (ofEra - ofEra/1460 + ofEra/36524 - ofEra/146096) / 365
	ofYear := ofEra - (365*year + year/4 - year/100)
	month := (5*ofYear + 2) / 153
	day := ofYear - (153*month+2)/5 + 1
	year += era * 400
	if month += 3; month > 12 {
		month, year = month-12, year+1
	}
	if bc = year <= 0; bc {
		year = 1 - year
	}
	return fmt.Appendf(dst, "%04d-%02d-%02d", year, month, day), bc
}

// timestampText writes microseconds since 2000-01-01.
func timestampText(dst []byte, v int64, zone bool) []byte {
	switch v {
	case math.MaxInt64:
		return append(dst, "infinity"...)
	case math.MinInt64:
		return append(dst, "-infinity"...)
	}
	days, micros := v/dayMicros, v%dayMicros
	if micros < 0 {
		days, micros = days-1, micros+dayMicros
	}
	dst, bc := dayText(dst, days)
	dst = timeText(append(dst, ' '), micros)
	if zone {
		dst = append(dst, "+00"...)
	}
	if bc {
		dst = append(dst, beforeChrist...)
	}
	return dst
}

// arrayText follows array_out of src/backend/utils/adt/arrayfuncs.c.
func (c *column) arrayText(dst, b []byte) ([]byte, bool) {
	if len(b) < 12 {
		return dst, false
	}
	dims := int(binary.BigEndian.Uint32(b))
	b = b[12:]
	if dims == 0 {
		return append(dst, "{}"...), true
	}
	if dims < 0 || dims > 6 || len(b) < 8*dims {
		return dst, false
	}
	lengths, bounds, odd := make([]int, dims), []byte(nil), false
	for i := range dims {
		n, lower := int(int32(binary.BigEndian.Uint32(b[8*i:]))), int32(binary.BigEndian.Uint32(b[8*i+4:]))
		lengths[i], odd = n, odd || lower != 1
		bounds = fmt.Appendf(bounds, "[%d:%d]", lower, int64(lower)+int64(n)-1)
	}
	if odd {
		dst = append(append(dst, bounds...), '=')
	}
	elem := c
	for elem.op == opList {
		elem = elem.child
	}
	dst, rest, ok := c.elementsText(dst, b[8*dims:], lengths, elem)
	return dst, ok && len(rest) == 0
}

func (c *column) elementsText(dst, b []byte, lengths []int, elem *column) (text, rest []byte, ok bool) {
	dst = append(dst, '{')
	for i := range lengths[0] {
		if i > 0 {
			dst = append(dst, c.delim)
		}
		if len(lengths) > 1 {
			if dst, b, ok = c.elementsText(dst, b, lengths[1:], elem); !ok {
				return dst, b, false
			}
			continue
		}
		if len(b) < 4 {
			return dst, b, false
		}
		n := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if n == -1 {
			dst = append(dst, "NULL"...)
			continue
		}
		if n < 0 || n > len(b) {
			return dst, b, false
		}
		item, fine := elem.textOf(nil, b[:n])
		if !fine {
			return dst, b, false
		}
		if c.delim == ':' && elem.arrow.ID() == arrow.BINARY { // geometry has no mark before its digits
			item = bytes.ToUpper(item[2:])
		}
		dst, b = quotedElement(dst, item, c.delim), b[n:]
	}
	return append(dst, '}'), b, true
}

// quotedElement writes an element's text, in quotes where the array's text could not be read without.
func quotedElement(dst, item []byte, delim byte) []byte {
	special := func(r byte) bool {
		return r == '"' || r == '\\' || r == '{' || r == '}' || r == delim || r == ' ' || r >= '\t' && r <= '\r'
	}
	quote := len(item) == 0 || bytes.EqualFold(item, []byte("NULL"))
	for _, r := range item {
		quote = quote || special(r)
	}
	if !quote {
		return append(dst, item...)
	}
	dst = append(dst, '"')
	for _, r := range item {
		if r == '"' || r == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, r)
	}
	return append(dst, '"')
}
