package postgres

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/bits"

	"github.com/leatdata/leat/internal/fault"
)

// PostgreSQL counts days and microseconds from 2000-01-01, Arrow from 1970-01-01
// (src/include/datatype/timestamp.h: POSTGRES_EPOCH_JDATE, UNIX_EPOCH_JDATE).
const (
	epochDays   = 10957
	epochMicros = epochDays * 86400 * 1000000
	dayMicros   = 86400 * 1000000

	// clamped dates: the years that every reader of dates knows.
	minDate, maxDate           = -719162, 2932896                               // 0001-01-01, 9999-12-31
	minTimestamp, maxTimestamp = minDate * dayMicros, (maxDate+1)*dayMicros - 1 // 9999-12-31 23:59:59.999999
)

// malformed is an error in the wire's bytes, not in the data.
func malformed(format string, args ...any) error {
	return fault.New(fault.SourceProtocol, "", format, args...)
}

// append decodes one value's bytes, as the type's send function wrote them.
func (c *column) append(b []byte) error {
	switch c.op {
	case opBytes:
		if c.undecoded != "" {
			return c.checked(b)
		}
		c.string(b)
		return nil
	case opInt32:
		if len(b) != 4 {
			return malformed("an integer of %d bytes", len(b))
		}
		c.int32(int32(binary.BigEndian.Uint32(b)))
		return nil
	case opInt64:
		if len(b) != 8 {
			return malformed("a bigint of %d bytes", len(b))
		}
		c.int64(int64(binary.BigEndian.Uint64(b)))
		return nil
	case opDecimal:
		return c.appendNumeric(b)
	case opDate:
		return c.appendDate(b)
	case opTimestamp:
		return c.appendTimestamp(b)
	case opList:
		return c.appendArray(b)
	}
	return c.appendRare(b)
}

// appendRare holds the types that are seldom many in a row, so that append stays small.
func (c *column) appendRare(b []byte) error {
	want := map[op]int{opBool: 1, opInt16: 2, opOID: 4, opFloat32: 4, opFloat64: 8, opMoney: 8, opUUID: 16, opTime: 8}
	if n, ok := want[c.op]; ok && len(b) != n {
		return malformed("a value of %d bytes where %d were due", len(b), n)
	}
	switch c.op {
	case opBool:
		c.bool(b[0] != 0)
	case opInt16:
		c.data = binary.LittleEndian.AppendUint16(c.data, binary.BigEndian.Uint16(b))
		c.n++
	case opOID:
		c.int64(int64(binary.BigEndian.Uint32(b)))
	case opFloat32:
		c.int32(int32(binary.BigEndian.Uint32(b)))
	case opFloat64:
		c.int64(int64(binary.BigEndian.Uint64(b)))
	case opMoney:
		v := int64(binary.BigEndian.Uint64(b))
		c.int128(v>>63, uint64(v))
	case opUUID:
		c.data = append(c.data, b...)
		c.n++
	case opJSONB:
		// jsonb_send: a version byte, 1 since the type exists, then the text.
		if len(b) < 1 || b[0] != 1 {
			return malformed("jsonb of an unknown version")
		}
		if c.undecoded != "" {
			return c.checked(b[1:])
		}
		c.string(b[1:])
	case opTime:
		return c.time(int64(binary.BigEndian.Uint64(b)))
	}
	return nil
}

// time appends microseconds since midnight.
func (c *column) time(v int64) error {
	if v >= dayMicros {
		return c.special("24:00:00", func() { c.int64(dayMicros - 1) })
	}
	c.int64(v)
	return nil
}

func (c *column) appendDate(b []byte) error {
	if len(b) != 4 {
		return malformed("a date of %d bytes", len(b))
	}
	return c.date(int32(binary.BigEndian.Uint32(b)))
}

// date appends days since 2000-01-01, whose ends are the infinities.
func (c *column) date(v int32) error {
	switch v {
	case math.MaxInt32:
		return c.special("infinity", func() { c.int32(maxDate) })
	case math.MinInt32:
		return c.special("-infinity", func() { c.int32(minDate) })
	}
	binary.LittleEndian.PutUint32(c.place(4), uint32(v+epochDays)) // the last date is 5874897-12-31: far from overflow
	c.n++
	return nil
}

func (c *column) appendTimestamp(b []byte) error {
	if len(b) != 8 {
		return malformed("a timestamp of %d bytes", len(b))
	}
	return c.timestamp(int64(binary.BigEndian.Uint64(b)))
}

// timestamp appends microseconds since 2000-01-01, whose ends are the infinities.
func (c *column) timestamp(v int64) error {
	switch {
	case v == math.MaxInt64:
		return c.special("infinity", func() { c.int64(maxTimestamp) })
	case v == math.MinInt64:
		return c.special("-infinity", func() { c.int64(minTimestamp) })
	case v > math.MaxInt64-epochMicros: // the last years before 294277 do not fit int64 microseconds since 1970
		return c.special("a timestamp past 294246", func() { c.int64(maxTimestamp) })
	}
	c.int64(v + epochMicros)
	return nil
}

// special applies the policy to a value the column cannot carry exactly (Invariant 6).
func (c *column) special(what string, clamp func()) error {
	switch {
	case c.policy == Null, c.policy == Clamp && clamp == nil:
		c.null()
	case c.policy == Clamp:
		clamp()
	case c.policy == Aside:
		return ErrAside
	default:
		return fault.New(fault.ValueUncarriable, "", "holds %s, which %s cannot carry", what, c.arrow).
			WithMend("Choose a policy: dump.types.%[1]s: text (the whole column as text, exact), null or clamp; of leat run run.types.%[1]s, which knows aside too. Or take csv or jsonl, which carry everything.", c.class)
	}
	c.applied++
	return nil
}

// The sign field of numeric's binary form (src/backend/utils/adt/numeric.c, numeric_send).
const (
	numericPos    = 0x0000
	numericNeg    = 0x4000
	numericNaN    = 0xC000
	numericPosInf = 0xD000
	numericNegInf = 0xF000
)

var pow10 = [19]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18}

// tenths[k] is 2^32 / 10^k, rounded up: a 16-bit number times it, shifted by 32, is exactly the number divided by 10^k.
var tenths = [4]uint64{1 << 32, (1<<32 + 9) / 10, (1<<32 + 99) / 100, (1<<32 + 999) / 1000}

// appendNumeric turns groups of four digits into a decimal of the column's scale. Nearly all values have at most 18 digits, which fit
// one word.
func (c *column) appendNumeric(b []byte) error {
	if len(b) < 8 {
		return malformed("a numeric of %d bytes", len(b))
	}
	head := binary.BigEndian.Uint64(b) // groups, weight, sign, and the decimals that are shown
	groups, weight, sign := int(head>>48), int(int16(head>>32)), uint16(head>>16)
	b = b[8:]
	if len(b) != 2*groups {
		return malformed("a numeric of %d digits in %d bytes", groups, len(b))
	}
	if sign&^numericNeg != numericPos {
		return c.numericSpecial(sign)
	}
	if groups == 0 {
		c.int128(0, 0)
		return nil
	}
	// exponent of the last group, in units of the column's last place
	exp := 4*(weight-groups+1) + int(c.scale)
	if groups > 4 || exp < -3 || 4*groups+exp > 18 {
		return c.appendLong(b, exp, sign == numericNeg)
	}
	end := len(b) - 2
	var v uint64
	for i := 0; i < end; i += 2 {
		v = v*10000 + uint64(binary.BigEndian.Uint16(b[i:]))
	}
	last := uint64(binary.BigEndian.Uint16(b[end:]))
	if exp >= 0 {
		v = (v*10000 + last) * pow10[exp]
	} else {
		whole := last * tenths[-exp] >> 32
		if whole*pow10[-exp] != last {
			return c.appendWide(b, exp, sign == numericNeg)
		}
		v = v*pow10[4+exp] + whole
	}
	if c.precision <= 18 && v >= pow10[c.precision] {
		return c.special("a number with more digits than the column has", func() { c.limit(sign == numericNeg) })
	}
	if sign == numericNeg {
		v = -v
	}
	out := c.place(16)
	binary.LittleEndian.PutUint64(out, v)
	binary.LittleEndian.PutUint64(out[8:], uint64(int64(v)>>63)) // no group makes a number of 63 bits
	c.n++
	return nil
}

// numericSpecial is for what the sign says of a value that is no number.
func (c *column) numericSpecial(sign uint16) error {
	switch sign {
	case numericNaN:
		return c.special("NaN", nil)
	case numericPosInf:
		return c.special("Infinity", func() { c.limit(false) })
	case numericNegInf:
		return c.special("-Infinity", func() { c.limit(true) })
	}
	return malformed("a numeric of sign %#x", sign)
}

// appendLong is appendNumeric for numbers of up to 38 digits, which fit two words.
func (c *column) appendLong(b []byte, exp int, neg bool) error {
	first := binary.BigEndian.Uint16(b)
	digits := 2*len(b) + exp // of a number whose first group has four
	for end := uint16(1000); end > first && end > 1; end /= 10 {
		digits--
	}
	if exp < -3 || digits > maxDecimal128 {
		return c.appendWide(b, exp, neg)
	}
	var v uint128
	for i := 0; i+2 < len(b); i += 2 {
		group := binary.BigEndian.Uint16(b[i:])
		if group >= 10000 { // the server sends none
			return c.appendWide(b, exp, neg)
		}
		v = v.times(10000, uint64(group))
	}
	last := binary.BigEndian.Uint16(b[len(b)-2:])
	switch {
	case last >= 10000:
		return c.appendWide(b, exp, neg)
	case exp >= 0:
		v = v.times(10000, uint64(last))
		for ; exp > 18; exp -= 18 {
			v = v.times(pow10[18], 0)
		}
		v = v.times(pow10[exp], 0)
	default:
		whole := uint64(last) * tenths[-exp] >> 32
		if whole*pow10[-exp] != uint64(last) {
			return c.appendWide(b, exp, neg)
		}
		v = v.times(pow10[4+exp], whole)
	}
	if !v.less(decimalEnds[c.precision]) {
		return c.special("a number with more digits than the column has", func() { c.limit(neg) })
	}
	c.signed(v, neg)
	return nil
}

// appendWide is for numbers of any length, and for what a policy rules.
func (c *column) appendWide(b []byte, exp int, neg bool) error {
	v := new(big.Int)
	group := new(big.Int)
	base := big.NewInt(10000)
	if len(b) > 2*64 && exp >= -4 { // far more digits than any decimal holds: do not build a huge number to learn that
		return c.special("a number with more digits than the column has", func() { c.limit(neg) })
	}
	for ; len(b) >= 2; b = b[2:] {
		v.Add(v.Mul(v, base), group.SetUint64(uint64(binary.BigEndian.Uint16(b))))
	}
	if exp > 4*64 {
		return c.special("a number with more digits than the column has", func() { c.limit(neg) })
	}
	shift := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exp, -exp))), nil)
	if exp >= 0 {
		v.Mul(v, shift)
	} else if v.QuoRem(v, shift, group); group.Sign() != 0 {
		return c.special("a number with more decimals than the column has", func() { c.rounded(v, group, shift, neg) })
	}
	if v.Cmp(maxDecimals[c.precision]) > 0 {
		return c.special("a number with more digits than the column has", func() { c.limit(neg) })
	}
	c.bigDecimal(v, neg)
	return nil
}

// rounded appends the decimal nearest to v + rest/unit; a half goes away from zero, as numeric's own rounding does.
func (c *column) rounded(v, rest, unit *big.Int, neg bool) {
	if rest.Lsh(rest, 1).Cmp(unit) >= 0 {
		v.Add(v, big.NewInt(1))
	}
	if v.Cmp(maxDecimals[c.precision]) > 0 {
		c.limit(neg)
		return
	}
	c.bigDecimal(v, neg)
}

// limit appends the largest or smallest decimal the column has.
func (c *column) limit(neg bool) { c.bigDecimal(maxDecimals[c.precision], neg) }

// bigDecimal appends v < 2^127 as two's complement.
func (c *column) bigDecimal(v *big.Int, neg bool) {
	var raw [16]byte
	v.FillBytes(raw[:])
	hi, lo := binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])
	if neg {
		var borrow uint64
		lo, borrow = bits.Sub64(0, lo, 0)
		hi, _ = bits.Sub64(0, hi, borrow)
	}
	c.int128(int64(hi), lo)
}

// appendArray reads array_send's form: dimensions, flags, element type, then length and lower bound of
// each dimension, then the elements row by row.
func (c *column) appendArray(b []byte) error {
	if len(b) < 12 {
		return malformed("an array of %d bytes", len(b))
	}
	dims := int(binary.BigEndian.Uint32(b))
	b = b[12:]
	if dims == 0 {
		c.list()
		return nil
	}
	if dims < 0 || dims > 6 || len(b) < 8*dims {
		return malformed("an array of %d dimensions in %d bytes", dims, len(b))
	}
	var lengths [6]int
	for i := range dims {
		lengths[i] = int(int32(binary.BigEndian.Uint32(b[8*i:])))
		if lower := int32(binary.BigEndian.Uint32(b[8*i+4:])); lower != 1 {
			return c.special(fmt.Sprintf("an array that begins at index %d", lower), nil)
		}
	}
	if dims != c.dims {
		return c.special(fmt.Sprintf("an array of %d dimensions", dims), nil)
	}
	rest, err := c.appendElements(b[8*dims:], lengths[:dims])
	if err == nil && len(rest) != 0 {
		err = malformed("%d bytes after an array", len(rest))
	}
	return err
}

func (c *column) appendElements(b []byte, lengths []int) ([]byte, error) {
	var err error
	for range lengths[0] {
		if len(lengths) > 1 {
			if b, err = c.child.appendElements(b, lengths[1:]); err != nil {
				return nil, err
			}
			continue
		}
		if len(b) < 4 {
			return nil, malformed("an array cut short")
		}
		n := int(int32(binary.BigEndian.Uint32(b)))
		b = b[4:]
		if n == -1 {
			c.child.null()
			continue
		}
		if n < 0 || n > len(b) {
			return nil, malformed("an array element of %d bytes where %d are left", n, len(b))
		}
		if err := c.child.append(b[:n]); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	c.list()
	return b, nil
}
