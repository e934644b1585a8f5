package postgres

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/big"
	"math/bits"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/scratch"
)

// The log gives values as their output functions write them, under the settings that typed names. appendText reads
// them into the very bytes that append makes of the same values' binary form.
func (c *column) appendText(b []byte) error {
	switch c.op {
	case opBytes:
		return c.textBytes(b)
	case opInt16, opInt32, opInt64, opOID:
		return c.textInt(b)
	case opDecimal:
		return c.textNumeric(b)
	case opTimestamp:
		return c.textTimestamp(b)
	case opFloat32, opFloat64:
		return c.textFloat(b)
	case opBool:
		if len(b) != 1 || b[0] != 't' && b[0] != 'f' {
			return unreadable("boolean", b)
		}
		c.bool(b[0] == 't')
		return nil
	case opDate:
		return c.textDate(b)
	case opTime:
		return c.textTime(b)
	case opUUID:
		return c.textUUID(b)
	case opMoney:
		return c.textMoney(b)
	case opList:
		return c.textArray(b)
	}
	if c.undecoded != "" { // jsonb
		return c.checked(b)
	}
	c.string(b)
	return nil
}

// unreadable names what a text should have been and shows its beginning.
func unreadable(what string, b []byte) error {
	return malformed("%q is no %s", b[:min(len(b), 40)], what)
}

// textBytes takes text as it is. Binary columns come in hexadecimal: bytea with \x before, geometry without.
func (c *column) textBytes(b []byte) error {
	if c.arrow.ID() != arrow.BINARY {
		if c.wire == wireChar && len(b) == 1 && b[0] >= 0x80 { // servers before 15 write the bare byte
			c.data, _ = charText8(c.data, b)
			c.string(nil)
			return nil
		}
		if c.undecoded != "" {
			return c.checked(b)
		}
		c.string(b)
		return nil
	}
	b = bytes.TrimPrefix(b, []byte(`\x`))
	at := len(c.data)
	c.data = scratch.Append(c.data, b[:len(b)/2]) // room: hex.Decode may not write past its source's half
	if _, err := hex.Decode(c.data[at:], b); err != nil {
		c.data = c.data[:at]
		return unreadable("hexadecimal bytea", b)
	}
	c.string(nil)
	return nil
}

func (c *column) textInt(b []byte) error {
	v, ok := parseInt(b)
	switch c.op {
	case opInt16:
		ok = ok && v == int64(int16(v))
	case opInt32:
		ok = ok && v == int64(int32(v))
	case opOID:
		ok = ok && v == int64(uint32(v))
	}
	if !ok {
		return unreadable("integer that fits its type", b)
	}
	switch c.op {
	case opInt16:
		c.data = binary.LittleEndian.AppendUint16(c.data, uint16(v))
		c.n++
	case opInt32:
		c.int32(int32(v))
	default:
		c.int64(v)
	}
	return nil
}

func parseInt(b []byte) (int64, bool) {
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 { // 19 digits fit 64 bits without a sign
		return 0, false
	}
	var v uint64
	for _, d := range b {
		if d -= '0'; d > 9 {
			return 0, false
		}
		v = v*10 + uint64(d)
	}
	if neg {
		return int64(-v), v <= 1<<63
	}
	return int64(v), v <= math.MaxInt64
}

// The NaN that the server itself makes and sends.
const (
	nan32 = 0x7fc00000
	nan64 = 0x7ff8000000000000
)

func (c *column) textFloat(b []byte) error {
	size := 64
	if c.op == opFloat32 {
		size = 32
	}
	v, err := strconv.ParseFloat(string(b), size)
	if err != nil {
		return unreadable("floating point number", b)
	}
	switch {
	case c.op == opFloat64 && v != v:
		c.int64(nan64)
	case c.op == opFloat64:
		c.int64(int64(math.Float64bits(v)))
	case v != v:
		c.int32(nan32)
	default:
		c.int32(int32(math.Float32bits(float32(v))))
	}
	return nil
}

// uint128 is large enough for the digits of any decimal.
type uint128 struct{ hi, lo uint64 }

// times is v*m + plus, for results below 2^128.
func (v uint128) times(m, plus uint64) uint128 {
	over, lo := bits.Mul64(v.lo, m)
	lo, carry := bits.Add64(lo, plus, 0)
	return uint128{v.hi*m + over + carry, lo}
}

func (v uint128) less(w uint128) bool { return v.hi < w.hi || v.hi == w.hi && v.lo < w.lo }

// decimalEnds[p] is 10^p, the first number of more than p digits.
var decimalEnds = func() (m [maxDecimal128 + 1]uint128) {
	for p, last := range maxDecimals {
		end := new(big.Int).Add(last, big.NewInt(1))
		m[p] = uint128{new(big.Int).Rsh(end, 64).Uint64(), new(big.Int).And(end, new(big.Int).SetUint64(math.MaxUint64)).Uint64()}
	}
	return m
}()

// textNumeric reads digits with at most one point: numeric's text has no exponent.
func (c *column) textNumeric(b []byte) error {
	if v, neg, ok := c.shortNumeric(b); ok {
		return c.decimal(uint128{lo: v}, 0, neg, false, false)
	}
	switch string(b) {
	case "NaN":
		return c.special("NaN", nil)
	case "Infinity":
		return c.special("Infinity", func() { c.limit(false) })
	case "-Infinity":
		return c.special("-Infinity", func() { c.limit(true) })
	}
	text := b
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 {
		return unreadable("numeric", text)
	}
	var small uint64 // the first digits, as long as one word holds them
	var v uint128
	var digits, decimals int // digits counts from the first that is not 0
	point, rest, up := false, false, false
	for _, d := range b {
		if d == '.' && !point {
			point = true
			continue
		}
		if d -= '0'; d > 9 {
			return unreadable("numeric", text)
		}
		if point {
			if decimals++; decimals > int(c.scale) {
				up = up || decimals == int(c.scale)+1 && d >= 5
				rest = rest || d != 0
				continue
			}
		}
		if digits > 0 || d != 0 {
			digits++
		}
		switch {
		case digits <= 18:
			small = small*10 + uint64(d)
			v.lo = small
		case digits <= maxDecimal128:
			v = v.times(10, uint64(d))
		}
	}
	for ; decimals < int(c.scale) && digits > 0; decimals++ {
		digits++
		if digits <= maxDecimal128 {
			v = v.times(10, 0)
		}
	}
	return c.decimal(v, digits, neg, rest, up)
}

// shortNumeric reads what one word holds, which nearly all values are.
func (c *column) shortNumeric(b []byte) (v uint64, neg, ok bool) {
	if len(b) > 0 && b[0] == '-' {
		neg, b = true, b[1:]
	}
	if len(b) == 0 || len(b) > 18 {
		return 0, false, false
	}
	left := 0 // decimals that the text does not have
	for i, d := range b {
		if d == '.' && left == 0 && i > 0 {
			left = len(b) - i
			continue
		}
		if d -= '0'; d > 9 {
			return 0, false, false
		}
		v = v*10 + uint64(d)
	}
	if left > 0 {
		left-- // the point itself
	}
	left = int(c.scale) - left
	if left < 0 || len(b)+left > 18 {
		return 0, false, false
	}
	return v * pow10[left], neg, true
}

// decimal appends v, a number of the given digits in units of the last place; rest says that decimals beyond it were
// left out, up that they round away from zero.
func (c *column) decimal(v uint128, digits int, neg, rest, up bool) error {
	fits := digits <= maxDecimal128 && v.less(decimalEnds[c.precision])
	if rest {
		return c.special("a number with more decimals than the column has", func() {
			if up {
				var carry uint64
				v.lo, carry = bits.Add64(v.lo, 1, 0)
				v.hi += carry
			}
			if !fits || !v.less(decimalEnds[c.precision]) {
				c.limit(neg)
				return
			}
			c.signed(v, neg)
		})
	}
	if !fits {
		return c.special("a number with more digits than the column has", func() { c.limit(neg) })
	}
	c.signed(v, neg)
	return nil
}

func (c *column) signed(v uint128, neg bool) {
	if neg {
		var borrow uint64
		v.lo, borrow = bits.Sub64(0, v.lo, 0)
		v.hi, _ = bits.Sub64(0, v.hi, borrow)
	}
	c.int128(int64(v.hi), v.lo)
}

// textMoney takes the digits, whatever lc_monetary puts between them: the text always has all decimals. A minus sign of
// any kind or a parenthesis makes it negative.
func (c *column) textMoney(b []byte) error {
	var v uint64
	digits := 0
	for _, d := range b {
		if d >= '0' && d <= '9' {
			v = v*10 + uint64(d-'0')
			digits++
		}
	}
	neg := bytes.IndexByte(b, '-') >= 0 || bytes.IndexByte(b, '(') >= 0 || bytes.Contains(b, []byte("\u2212"))
	if digits == 0 || digits > 19 || v > 1<<63 || v == 1<<63 && !neg {
		return unreadable("amount of money", b)
	}
	c.signed(uint128{lo: v}, neg && v != 0)
	return nil
}

func (c *column) textUUID(b []byte) error {
	var raw [16]byte
	if len(b) != 36 || b[8] != '-' || b[13] != '-' || b[18] != '-' || b[23] != '-' {
		return unreadable("uuid", b)
	}
	at := 0
	for i := 0; i < 36; i += 2 {
		if b[i] == '-' {
			i++
		}
		hi, lo := nibble(b[i]), nibble(b[i+1])
		if hi > 15 || lo > 15 || at > 15 {
			return unreadable("uuid", b)
		}
		raw[at] = hi<<4 | lo
		at++
	}
	c.data = append(c.data, raw[:]...)
	c.n++
	return nil
}

func nibble(b byte) byte {
	switch {
	case b >= '0' && b <= '9':
		return b - '0'
	case b >= 'a' && b <= 'f':
		return b - 'a' + 10
	case b >= 'A' && b <= 'F':
		return b - 'A' + 10
	}
	return 0xff
}

// textArray reads array_out's form: "{1,NULL,\"a b\"}", nested for more dimensions, with "[0:1]=" before where a lower
// bound is not 1.
func (c *column) textArray(b []byte) error {
	text := b
	lower, odd := int64(1), false
	for len(b) > 0 && b[0] == '[' {
		colon, end := bytes.IndexByte(b, ':'), bytes.IndexByte(b, ']')
		if colon < 0 || end < colon {
			return unreadable("array", text)
		}
		from, ok := parseInt(b[1:colon])
		if !ok {
			return unreadable("array", text)
		}
		if from != 1 && !odd {
			lower, odd = from, true
		}
		b = b[end+1:]
	}
	if odd {
		return c.special(fmt.Sprintf("an array that begins at index %d", lower), nil)
	}
	b = bytes.TrimPrefix(b, []byte{'='})
	if string(b) == "{}" {
		c.list()
		return nil
	}
	dims := 0
	for dims < len(b) && b[dims] == '{' {
		dims++
	}
	if dims == 0 {
		return unreadable("array", text)
	}
	if dims != c.dims {
		return c.special(fmt.Sprintf("an array of %d dimensions", dims), nil)
	}
	rest, err := c.textElements(b[1:])
	if err == nil && len(rest) != 0 {
		err = unreadable("array", text)
	}
	return err
}

// textElements reads what follows an opening brace, its closing brace included, and returns what is left.
func (c *column) textElements(b []byte) ([]byte, error) {
	for {
		var err error
		if c.dims > 1 {
			if len(b) == 0 || b[0] != '{' {
				return nil, malformed("an array whose braces do not match")
			}
			b, err = c.child.textElements(b[1:])
		} else {
			b, err = c.textElement(b)
		}
		if err != nil {
			return nil, err
		}
		if len(b) == 0 {
			return nil, malformed("an array cut short")
		}
		end := b[0]
		b = b[1:]
		if end == '}' {
			c.list()
			return b, nil
		}
		if end != c.delim {
			return nil, malformed("an array with %q between its elements", end)
		}
	}
}

// textElement appends one element to the child and returns what stands behind it.
func (c *column) textElement(b []byte) ([]byte, error) {
	if len(b) > 0 && b[0] == '"' {
		value, rest, ok := c.quoted(b[1:])
		if !ok {
			return nil, malformed("an array with a quote that does not end")
		}
		return rest, c.child.appendText(value)
	}
	n := 0
	for n < len(b) && b[n] != c.delim && b[n] != '}' {
		n++
	}
	if string(b[:n]) == "NULL" { // the text NULL stands in quotes
		c.child.null()
		return b[n:], nil
	}
	return b[n:], c.child.appendText(b[:n])
}

// quoted returns what stands before the closing quote, without its backslashes, and what stands behind.
func (c *column) quoted(b []byte) (value, rest []byte, ok bool) {
	plain := true
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			if plain {
				c.scratch, plain = append(c.scratch[:0], b[:i]...), false
			}
			if i++; i == len(b) {
				return nil, nil, false
			}
			c.scratch = append(c.scratch, b[i])
		case '"':
			if plain {
				return b[:i], b[i+1:], true
			}
			return c.scratch, b[i+1:], true
		default:
			if !plain {
				c.scratch = append(c.scratch, b[i])
			}
		}
	}
	return nil, nil, false
}
