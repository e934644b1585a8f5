package postgres

import (
	"encoding/hex"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// ErrAside says that a value goes aside: its column has null, and change.SpecialName its exact text.
var ErrAside = errors.New("the column cannot carry the value, which goes aside")

// specials are the values of one record that went aside, in the order of its rows.
type specials struct {
	entries []special
}

type special struct {
	row          int
	column, text string
}

// cut forgets the values of rows from the n-th on.
func (s *specials) cut(n int) {
	for len(s.entries) > 0 && s.entries[len(s.entries)-1].row >= n {
		s.entries = s.entries[:len(s.entries)-1]
	}
}

func (s *specials) reset() {
	clear(s.entries)
	s.entries = s.entries[:0]
}

// array is the record's column of special values.
func (s *specials) array(rows int) arrow.Array {
	b := array.NewMapBuilderWithType(memory.DefaultAllocator, change.SpecialType)
	defer b.Release()
	names, texts := b.KeyBuilder().(*array.StringBuilder), b.ItemBuilder().(*array.StringBuilder)
	left := s.entries
	for row := range rows {
		if len(left) == 0 || left[0].row != row {
			b.AppendNull()
			continue
		}
		b.Append(true)
		for len(left) > 0 && left[0].row == row {
			names.Append(left[0].column)
			texts.Append(left[0].text)
			left = left[1:]
		}
	}
	return b.NewArray()
}

// aside ends the attempt to append a value as the n-th of a column. Where the error says that the value goes aside, or that its
// text cannot be read and rescue is set, the column has null and the value's text is kept; any other error is returned.
func (s *specials) aside(c *column, n int, name string, value wireValue, rescue bool, err error) error {
	var text []byte
	switch {
	case errors.Is(err, ErrAside) && value.kind == cellBinary:
		var ok bool
		if text, ok = c.textOf(nil, value.bytes); !ok {
			return malformed("a value of %d bytes that its type cannot have", len(value.bytes))
		}
	case errors.Is(err, ErrAside), rescue && value.kind == cellText && fault.Is(err, fault.SourceProtocol):
		text = value.bytes
	default:
		return err
	}
	c.cut(n)
	c.null()
	c.applied++
	s.entries = append(s.entries, special{row: n, column: name, text: sideText(text)})
	return nil
}

// wireValue is one value as it came, and how.
type wireValue struct {
	kind  byte
	bytes []byte
}

const (
	cellText   = 't'
	cellBinary = 'b'
)

// sideText is a text as change.SpecialName has it.
func sideText(text []byte) string {
	if utf8.Valid(text) {
		return string(text)
	}
	return `\x` + hex.EncodeToString(text)
}

// wholeText is the text that sideText was given.
func wholeText(side string) string {
	if digits, ok := strings.CutPrefix(side, `\x`); ok {
		if raw, err := hex.DecodeString(digits); err == nil {
			return string(raw)
		}
	}
	return side
}

// goesAside says whether values of the carrier, or of what lies below it, may go aside.
func (c *carrier) goesAside() bool {
	return c.policy == Aside || c.undecoded == Aside || c.elem != nil && c.elem.goesAside()
}

// checkText has text looked at that the server does not vouch for, and lets the policy say what becomes of bytes that are not UTF-8.
func (c *carrier) checkText(p Policy) {
	switch {
	case c.elem != nil:
		elem := *c.elem
		elem.checkText(p)
		c.elem = &elem
	case (c.op == opBytes || c.op == opJSONB) && c.arrow.ID() == arrow.STRING:
		c.undecoded = p
	}
}

// checked appends text after a look at it.
func (c *column) checked(b []byte) error {
	if !utf8.Valid(b) {
		return c.undecodable()
	}
	c.string(b)
	return nil
}

// undecodable applies the policy to text that is not UTF-8 (Invariant 6).
func (c *column) undecodable() error {
	switch c.undecoded {
	case Aside:
		return ErrAside
	case Null:
		c.null()
		c.applied++
		return nil
	}
	return fault.New(fault.ValueUncarriable, "", "holds bytes that are not UTF-8, which text cannot carry").
		WithMend("Repair the text, exclude the column or table, or choose dump.types.text: null, of leat run run.types.text: aside; from a SQL_ASCII database csv keeps the bytes as they are.")
}
