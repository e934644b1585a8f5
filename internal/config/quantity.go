package config

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written as 8MiB, 100MB, 1.5GiB or 512.
type Size int64

// Rate is a number of bytes in a second, written as a Size with an optional /s; 0 is no limit.
type Rate int64

// Duration is a time span, written as 10s, 1m30s or 250ms; never negative.
type Duration time.Duration

// units are what sizes are written in, largest first: the binary ones are preferred when a
// size is written out.
var units = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"kB", 1e3}, {"B", 1}, {"", 1},
}

var sizeForm = regexp.MustCompile(`^([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)$`)

func parseBytes(s string) (int64, error) {
	m := sizeForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, fmt.Errorf("%q is not a size; write a number and a unit, such as 8MiB or 100MB", s)
	}
	for _, u := range units {
		if u.name != m[2] {
			continue
		}
		n, _ := new(big.Rat).SetString(m[1]) // the pattern admits nothing else
		n.Mul(n, new(big.Rat).SetInt64(u.bytes))
		if !n.IsInt() {
			return 0, fmt.Errorf("%q is not a whole number of bytes", s)
		}
		if !n.Num().IsInt64() {
			return 0, fmt.Errorf("%q is too large; the most is %d bytes", s, int64(math.MaxInt64))
		}
		return n.Num().Int64(), nil
	}
	return 0, fmt.Errorf("%q has an unknown unit; use B, KB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)", s)
}

func formatBytes(n int64) string {
	for _, u := range units {
		if n != 0 && n%u.bytes == 0 && u.bytes > 1 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(b []byte) error {
	n, err := parseBytes(string(b))
	if err == nil {
		*s = Size(n)
	}
	return err
}

// String writes the size in the largest unit that divides it.
func (s Size) String() string { return formatBytes(int64(s)) }

// MarshalText writes the size as String does.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a rate.
func (r *Rate) UnmarshalText(b []byte) error {
	n, err := parseBytes(strings.TrimSuffix(strings.TrimSpace(string(b)), "/s"))
	if err == nil {
		*r = Rate(n)
	}
	return err
}

// String writes the rate in the largest unit that divides it; no limit is "0".
func (r Rate) String() string {
	if r == 0 {
		return "0"
	}
	return formatBytes(int64(r)) + "/s"
}

// MarshalText writes the rate as String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads a time span. A bare number other than 0 is refused, because libpq
// would take it for seconds and PostgreSQL for milliseconds.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(strings.TrimSpace(string(b)))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a time span; write a number and a unit (ms, s, m, h), such as 10s or 1m30s", b)
	}
	*d = Duration(v)
	return nil
}

// String writes the time span as time.Duration does.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the time span as String does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Interval is a time span of more than nothing, or auto.
type Interval time.Duration

// IntervalAuto lets the program choose.
const IntervalAuto Interval = 0

// UnmarshalText reads a time span or auto.
func (i *Interval) UnmarshalText(b []byte) error {
	if strings.TrimSpace(string(b)) == "auto" {
		*i = IntervalAuto
		return nil
	}
	var d Duration
	if err := d.UnmarshalText(b); err != nil {
		return fmt.Errorf("%w, or auto", err)
	}
	if d == 0 {
		return fmt.Errorf("an interval must be more than 0s, or auto")
	}
	*i = Interval(d)
	return nil
}

// String writes the interval as a Duration does, or auto.
func (i Interval) String() string {
	if i == IntervalAuto {
		return "auto"
	}
	return time.Duration(i).String()
}

// MarshalText writes the interval as String does.
func (i Interval) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// IAM is the region an RDS IAM token is made for: "" for no token, "auto" for the AWS
// configuration's own region.
type IAM string

var regionForm = regexp.MustCompile(`^[a-z]{2,8}(-[a-z]{1,20}){1,3}-[0-9]{1,2}$`)

// UnmarshalText reads false, true (which is auto), auto or a region.
func (i *IAM) UnmarshalText(b []byte) error {
	switch s := string(b); {
	case s == "false":
		*i = ""
	case s == "true" || s == "auto":
		*i = "auto"
	case regionForm.MatchString(s):
		*i = IAM(s)
	default:
		return fmt.Errorf("%q is not a region; use a region such as eu-west-1, auto, or false", s)
	}
	return nil
}

// UnboundedNumeric says how numeric without a precision is carried: "text" or "decimal(p,s)".
type UnboundedNumeric string

var decimalForm = regexp.MustCompile(`^decimal\( *([0-9]{1,2}) *, *([0-9]{1,2}) *\)$`)

// UnmarshalText reads text or decimal(p,s); 38 digits are the most a 128-bit decimal holds.
func (u *UnboundedNumeric) UnmarshalText(b []byte) error {
	if string(b) == "text" {
		*u = "text"
		return nil
	}
	if m := decimalForm.FindSubmatch(b); m != nil {
		p, _ := strconv.Atoi(string(m[1])) // two digits by the pattern
		s, _ := strconv.Atoi(string(m[2]))
		if p >= 1 && p <= 38 && s <= p {
			*u = UnboundedNumeric(fmt.Sprintf("decimal(%d,%d)", p, s))
			return nil
		}
	}
	return fmt.Errorf("%q is neither text nor decimal(p,s) with p from 1 to 38 and s from 0 to p", b)
}
