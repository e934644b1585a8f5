package postgres

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
)

// wireForm says how the log's binary form of a type that is carried as text becomes that text. A snapshot never
// sees such values: there the server writes the text.
type wireForm uint8

const (
	wireUnknown wireForm = iota // the log must be read as text
	wireText                    // the binary form is the text
	wireNumeric
	wireChar
	wireInet
	wireCIDR
	wireBits
	wireMAC
	wireXID
	wireXID8
	wireTimeTZ
	wireInterval
	wireTime
	wireUUID
)

// wireForms lists built-in types whose text we can write ourselves exactly as the server does.
var wireForms = map[uint32]wireForm{
	oidChar: wireChar, 28: wireXID, 29: wireXID, 5069: wireXID8, 650: wireCIDR, 869: wireInet, 774: wireMAC, 829: wireMAC,
	1186: wireInterval, 1266: wireTimeTZ, 1560: wireBits, 1562: wireBits,
}

// CanBinary says whether the log may be asked for binary values: every column becomes then exactly what it is in a
// snapshot. Where it is false, the log must give text.
func (p *Plan) CanBinary() bool {
	for _, c := range p.carry {
		if c.expr != "" && c.wire == wireUnknown {
			return false
		}
	}
	return true
}

// appendWire decodes a value that the log gives in the type's binary form.
func (c *column) appendWire(b []byte) error {
	if c.expr == "" {
		return c.append(b)
	}
	if c.wire == wireText && c.undecoded != "" {
		return c.checked(b)
	}
	if c.wire == wireText {
		c.string(b)
		return nil
	}
	write := wireWriters[c.wire]
	if write == nil {
		return malformed("a binary value of a type that can only be read as text")
	}
	out, ok := write(c.data, b)
	if !ok {
		return malformed("a value of %d bytes that its type cannot have", len(b))
	}
	c.data = out
	c.string(nil)
	return nil
}

// wireWriters append a value's text to dst.
var wireWriters = [...]func(dst, b []byte) (out []byte, ok bool){
	wireNumeric:  numericText,
	wireChar:     charText8,
	wireInet:     func(dst, b []byte) ([]byte, bool) { return inetText(dst, b, false) },
	wireCIDR:     func(dst, b []byte) ([]byte, bool) { return inetText(dst, b, true) },
	wireBits:     bitsText,
	wireMAC:      macText,
	wireXID:      xidText,
	wireXID8:     xid8Text,
	wireTimeTZ:   timeTZText,
	wireInterval: intervalText,
	wireTime:     timeWithoutZoneText,
	wireUUID:     uuidText,
}

// numericText follows get_str_from_var of src/backend/utils/adt/numeric.c.
func numericText(dst, b []byte) ([]byte, bool) {
	if len(b) < 8 || len(b) != 8+2*int(binary.BigEndian.Uint16(b)) {
		return nil, false
	}
	weight, decimals := int(int16(binary.BigEndian.Uint16(b[2:]))), int(binary.BigEndian.Uint16(b[6:])&0x3fff)
	switch binary.BigEndian.Uint16(b[4:]) {
	case numericNaN:
		return append(dst, "NaN"...), true
	case numericPosInf:
		return append(dst, "Infinity"...), true
	case numericNegInf:
		return append(dst, "-Infinity"...), true
	case numericNeg:
		dst = append(dst, '-')
	case numericPos:
	default:
		return nil, false
	}
	b = b[8:]
	group := func(i int) uint64 { // four digits
		if i < 0 || 2*i >= len(b) {
			return 0
		}
		return uint64(binary.BigEndian.Uint16(b[2*i:]))
	}
	dst = strconv.AppendUint(dst, group(0)*b2u(weight >= 0), 10)
	for i := 1; i <= weight; i++ {
		dst = fourDigits(dst, group(i))
	}
	if decimals == 0 {
		return dst, true
	}
	dst = append(dst, '.')
	end := len(dst) + decimals
	for i := weight + 1; len(dst) < end; i++ {
		dst = fourDigits(dst, group(i))
	}
	return dst[:end], true
}

func b2u(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func fourDigits(dst []byte, v uint64) []byte {
	return append(dst, '0'+byte(v/1000), '0'+byte(v/100%10), '0'+byte(v/10%10), '0'+byte(v%10))
}

func twoDigits(dst []byte, v int64) []byte {
	if v < 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, v, 10)
}

// charText8 writes a "char" as servers from 15 on do, whatever the server.
func charText8(dst, b []byte) ([]byte, bool) {
	switch {
	case len(b) != 1:
		return nil, false
	case b[0] == 0:
		return dst, true
	case b[0] >= 0x80:
		return append(dst, '\\', '0'+b[0]>>6, '0'+b[0]>>3&7, '0'+b[0]&7), true
	}
	return append(dst, b[0]), true
}

// inetText follows network_out and pg_inet_net_ntop (src/port/inet_net_ntop.c): family, bits, whether cidr, length, address.
func inetText(dst, b []byte, cidr bool) ([]byte, bool) {
	const v4, v6 = 2, 3
	if len(b) < 4 || len(b) != 4+int(b[3]) {
		return nil, false
	}
	full := byte(32)
	switch addr := b[4:]; {
	case b[0] == v4 && len(addr) == 4:
		dst = dotted(dst, addr)
	case b[0] == v6 && len(addr) == 16:
		full = 128
		dst = inet6Text(dst, addr)
	default:
		return nil, false
	}
	if cidr || b[1] != full {
		dst = append(dst, '/')
		dst = strconv.AppendUint(dst, uint64(b[1]), 10)
	}
	return dst, true
}

func dotted(dst, addr []byte) []byte {
	for i, v := range addr {
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = strconv.AppendUint(dst, uint64(v), 10)
	}
	return dst
}

func inet6Text(dst, addr []byte) []byte {
	var words [8]uint16
	base, most := -1, 1 // the longest run of zero words, the first of equals, two at least
	run := 0
	for i := range words {
		words[i] = binary.BigEndian.Uint16(addr[2*i:])
		if words[i] != 0 {
			run = 0
		} else if run++; run > most {
			base, most = i-run+1, run
		}
	}
	for i, w := range words {
		if base >= 0 && i >= base && i < base+most {
			if i == base {
				dst = append(dst, ':')
			}
			continue
		}
		if i != 0 {
			dst = append(dst, ':')
		}
		if i == 6 && base == 0 && (most == 6 || most == 5 && words[5] == 0xffff) { // an IPv4 address inside
			return dotted(dst, addr[12:])
		}
		dst = strconv.AppendUint(dst, uint64(w), 16)
	}
	if base >= 0 && base+most == len(words) {
		dst = append(dst, ':')
	}
	return dst
}

func bitsText(dst, b []byte) ([]byte, bool) {
	if len(b) < 4 {
		return nil, false
	}
	n := int(int32(binary.BigEndian.Uint32(b)))
	if b = b[4:]; n < 0 || len(b) != (n+7)/8 {
		return nil, false
	}
	for i := range n {
		dst = append(dst, '0'+b[i>>3]>>(7-i&7)&1)
	}
	return dst, true
}

func macText(dst, b []byte) ([]byte, bool) {
	for i := range b {
		if i > 0 {
			dst = append(dst, ':')
		}
		dst = hex.AppendEncode(dst, b[i:i+1])
	}
	return dst, len(b) == 6 || len(b) == 8
}

func xidText(dst, b []byte) ([]byte, bool) {
	if len(b) != 4 {
		return nil, false
	}
	return strconv.AppendUint(dst, uint64(binary.BigEndian.Uint32(b)), 10), true
}

func xid8Text(dst, b []byte) ([]byte, bool) {
	if len(b) != 8 {
		return nil, false
	}
	return strconv.AppendUint(dst, binary.BigEndian.Uint64(b), 10), true
}

// timeText writes hours, minutes, seconds and the decimals that are not 0.
func timeText(dst []byte, micros int64) []byte {
	dst = append(twoDigits(dst, micros/3600000000), ':')
	dst = append(twoDigits(dst, micros/60000000%60), ':')
	dst = twoDigits(dst, micros/1000000%60)
	fraction := micros % 1000000
	if fraction == 0 {
		return dst
	}
	dst = append(dst, '.')
	for unit := int64(100000); fraction > 0; unit /= 10 {
		dst = append(dst, '0'+byte(fraction/unit))
		fraction %= unit
	}
	return dst
}

// timeTZText: the zone is in seconds west of Greenwich, and is written as east of it.
func timeTZText(dst, b []byte) ([]byte, bool) {
	if len(b) != 12 {
		return nil, false
	}
	micros, west := int64(binary.BigEndian.Uint64(b)), int64(int32(binary.BigEndian.Uint32(b[8:])))
	if micros < 0 || micros > dayMicros {
		return nil, false
	}
	dst = timeText(dst, micros)
	sign := byte('-')
	if west <= 0 {
		sign, west = '+', -west
	}
	dst = twoDigits(append(dst, sign), west/3600)
	if west%3600 != 0 {
		dst = twoDigits(append(dst, ':'), west/60%60)
	}
	if west%60 != 0 {
		dst = twoDigits(append(dst, ':'), west%60)
	}
	return dst, true
}

func timeWithoutZoneText(dst, b []byte) ([]byte, bool) {
	if len(b) != 8 {
		return nil, false
	}
	micros := int64(binary.BigEndian.Uint64(b))
	if micros < 0 || micros > dayMicros {
		return nil, false
	}
	return timeText(dst, micros), true
}

func uuidText(dst, b []byte) ([]byte, bool) {
	if len(b) != 16 {
		return nil, false
	}
	for i, part := range [][]byte{b[:4], b[4:6], b[6:8], b[8:10], b[10:]} {
		if i > 0 {
			dst = append(dst, '-')
		}
		dst = hex.AppendEncode(dst, part)
	}
	return dst, true
}

// intervalText follows EncodeInterval of src/backend/utils/adt/datetime.c for intervalstyle postgres.
func intervalText(dst, b []byte) ([]byte, bool) {
	if len(b) != 16 {
		return nil, false
	}
	micros := int64(binary.BigEndian.Uint64(b))
	days, months := int64(int32(binary.BigEndian.Uint32(b[8:]))), int64(int32(binary.BigEndian.Uint32(b[12:])))
	switch { // 17 and newer
	case micros == math.MaxInt64 && days == math.MaxInt32 && months == math.MaxInt32:
		return append(dst, "infinity"...), true
	case micros == math.MinInt64 && days == math.MinInt32 && months == math.MinInt32:
		return append(dst, "-infinity"...), true
	}
	empty, negative := true, false
	part := func(v int64, unit string) {
		if v == 0 {
			return
		}
		if !empty {
			dst = append(dst, ' ')
		}
		if negative && v > 0 {
			dst = append(dst, '+')
		}
		dst = append(append(strconv.AppendInt(dst, v, 10), ' '), unit...)
		if v != 1 {
			dst = append(dst, 's')
		}
		empty, negative = false, v < 0
	}
	part(months/12, "year")
	part(months%12, "mon")
	part(days, "day")
	if !empty && micros == 0 {
		return dst, true
	}
	if !empty {
		dst = append(dst, ' ')
	}
	if micros == math.MinInt64 {
		return nil, false // its hours have no positive twin; no server sends it
	}
	if micros < 0 {
		dst, micros = append(dst, '-'), -micros
	} else if negative {
		dst = append(dst, '+')
	}
	return timeText(dst, micros), true
}
