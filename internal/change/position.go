package change

import (
	"fmt"
	"strconv"
	"strings"
)

// LSN is a position in PostgreSQL's write-ahead log, in bytes since its beginning.
type LSN uint64

// String writes the LSN as PostgreSQL's pg_lsn type does: two hexadecimal halves, "16/B374D848".
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads pg_lsn's text form.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("LSN %q: want two hexadecimal numbers with a slash between", s)
	}
	h, err := strconv.ParseUint(hi, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("LSN %q: %w", s, err)
	}
	l, err := strconv.ParseUint(lo, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("LSN %q: %w", s, err)
	}
	return LSN(h<<32 | l), nil
}

// MarshalText and UnmarshalText keep pg_lsn's form in JSON and YAML.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads pg_lsn's form.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err == nil {
		*l = v
	}
	return err
}

// Op says what happened to a row.
type Op byte

// The operations, by the letters that Debezium made customary.
const (
	OpRead   Op = 'r' // the row was found by a snapshot
	OpInsert Op = 'c'
	OpUpdate Op = 'u'
	OpDelete Op = 'd'
	OpTrunc  Op = 't'
)

func (o Op) String() string { return string(rune(o)) }

// Position orders what is known about a row: a larger LSN is newer; at the same LSN the
// larger Seq is. Snapshot rows have Seq 0 and the LSN of their exported snapshot, so a
// streamed change that committed after it is newer and one that committed before it is older.
type Position struct {
	LSN LSN
	Seq uint64
}
