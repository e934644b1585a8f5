package postgres

import (
	"bytes"
	"math"
)

// clock reads the server's ISO forms of dates and times from the front.
type clock struct {
	b   []byte
	bad bool
}

// digits reads at least least decimal digits and at most nine.
func (k *clock) digits(least int) int64 {
	var v int64
	n := 0
	for n < len(k.b) && n < 9 && k.b[n] >= '0' && k.b[n] <= '9' {
		v = v*10 + int64(k.b[n]-'0')
		n++
	}
	k.b, k.bad = k.b[n:], k.bad || n < least
	return v
}

// two reads exactly two digits.
func (k *clock) two() int64 {
	if len(k.b) < 2 || k.b[0]-'0' > 9 || k.b[1]-'0' > 9 {
		k.bad = true
		return 0
	}
	v := int64(k.b[0]-'0')*10 + int64(k.b[1]-'0')
	k.b = k.b[2:]
	return v
}

// take reads one byte if it is the given one.
func (k *clock) take(want byte) bool {
	if len(k.b) == 0 || k.b[0] != want {
		return false
	}
	k.b = k.b[1:]
	return true
}

func (k *clock) must(want byte) { k.bad = !k.take(want) || k.bad }

// date reads year, month and day; the mark of years before Christ, which stands at the very end, was cut off before.
func (k *clock) date(bc bool) (days int64) {
	var year int64
	if len(k.b) > 4 && k.b[4] == '-' {
		year = 100*k.two() + k.two()
	} else {
		year = k.digits(4)
	}
	k.must('-')
	month := k.two()
	k.must('-')
	day := k.two()
	if bc {
		year = 1 - year
	}
	k.bad = k.bad || month < 1 || month > 12 || day < 1 || day > 31
	return daysOf(year, month, day)
}

// daysOf counts from 2000-01-01 in the Gregorian calendar, which PostgreSQL follows into all past. Years begin in March,
// so that the leap day is their last.
func daysOf(year, month, day int64) int64 {
	if month -= 3; month < 0 {
		month, year = month+12, year-1
	}
	era := year / 400
	if year < 0 {
		era = (year - 399) / 400
	}
	ofEra := year - era*400
	return era*146097 + ofEra*365 + ofEra/4 - ofEra/100 + (153*month+2)/5 + day - 1 - 730425
}

// time reads hours, minutes, seconds and up to six decimals, in microseconds.
func (k *clock) time() int64 {
	v := k.two() * 3600
	k.must(':')
	v += k.two() * 60
	k.must(':')
	v = (v + k.two()) * 1000000
	switch {
	case !k.take('.'):
	case k.six():
		v += 10000*k.two() + 100*k.two() + k.two()
	default:
		before := len(k.b)
		fraction := k.digits(1)
		n := before - len(k.b)
		if n > 6 {
			k.bad = true
			return v
		}
		v += fraction * int64(pow10[6-n])
	}
	return v
}

// six says whether six digits come next, which a zone may follow.
func (k *clock) six() bool {
	if len(k.b) < 6 {
		return false
	}
	for _, d := range k.b[:6] {
		if d-'0' > 9 {
			return false
		}
	}
	return true
}

// zone reads an offset from UTC, +05:30 or -07:52:58, in microseconds; there may be none.
func (k *clock) zone() int64 {
	sign := int64(1)
	if k.take('-') {
		sign = -1
	} else if !k.take('+') {
		return 0
	}
	v := k.two() * 3600
	if k.take(':') {
		v += k.two() * 60
		if k.take(':') {
			v += k.two()
		}
	}
	return sign * v * 1000000
}

var beforeChrist = []byte(" BC")

func (c *column) textDate(b []byte) error {
	switch string(b) {
	case "infinity":
		return c.date(math.MaxInt32)
	case "-infinity":
		return c.date(math.MinInt32)
	}
	rest, bc := bytes.CutSuffix(b, beforeChrist)
	k := clock{b: rest}
	days := k.date(bc)
	if k.bad || len(k.b) != 0 || days != int64(int32(days)) {
		return unreadable("date", b)
	}
	return c.date(int32(days))
}

func (c *column) textTime(b []byte) error {
	k := clock{b: b}
	v := k.time()
	if k.bad || len(k.b) != 0 || v > dayMicros {
		return unreadable("time", b)
	}
	return c.time(v)
}

func (c *column) textTimestamp(b []byte) error {
	switch string(b) {
	case "infinity":
		return c.timestamp(math.MaxInt64)
	case "-infinity":
		return c.timestamp(math.MinInt64)
	}
	rest, bc := bytes.CutSuffix(b, beforeChrist)
	k := clock{b: rest}
	days := k.date(bc)
	k.must(' ')
	v := days*dayMicros + k.time() - k.zone()
	if k.bad || len(k.b) != 0 || days < -2451545 || days > 106751991 { // beyond, the product does not fit
		return unreadable("timestamp", b)
	}
	return c.timestamp(v)
}
