package config

import (
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"
)

// maxPattern bounds a pattern's length in bytes. PostgreSQL's names have at most 63 bytes, so
// matching takes at most some ten thousand steps, whatever the pattern.
const maxPattern = 512

// glob is one name with wildcards: text in which anyRun and anyOne stand for them. Both are
// outside Unicode, so no character of a name is mistaken for them.
type glob []rune

const (
	anyRun = utf8.MaxRune + 1 + iota // *: any characters, also none
	anyOne                           // ?: one character
)

// Pattern names tables: schema.name or name, with * and ?. As in psql, a letter outside
// double quotes is folded to lower case and inside them everything stands for itself.
type Pattern struct {
	text         string
	schema, name glob
	qualified    bool
}

// ColumnPattern names columns: schema.table.column or table.column, in the manner of Pattern.
type ColumnPattern struct {
	table  Pattern
	column glob
	text   string
}

// ParsePattern reads a table pattern.
func ParsePattern(s string) (Pattern, error) {
	parts, err := splitPattern(s)
	if err != nil {
		return Pattern{}, err
	}
	switch len(parts) {
	case 1:
		return Pattern{text: s, name: parts[0]}, nil
	case 2:
		return Pattern{text: s, schema: parts[0], name: parts[1], qualified: true}, nil
	}
	return Pattern{}, fmt.Errorf("%q has %d names with dots between; a table is schema.name (quote a name that has a dot in it)", s, len(parts))
}

// ParseColumnPattern reads a column pattern.
func ParseColumnPattern(s string) (ColumnPattern, error) {
	parts, err := splitPattern(s)
	if err != nil {
		return ColumnPattern{}, err
	}
	c := ColumnPattern{text: s}
	switch len(parts) {
	case 2:
		c.table, c.column = Pattern{name: parts[0]}, parts[1]
	case 3:
		c.table, c.column = Pattern{schema: parts[0], name: parts[1], qualified: true}, parts[2]
	default:
		return ColumnPattern{}, fmt.Errorf("%q does not name a column; write schema.table.column (quote a name that has a dot in it)", s)
	}
	return c, nil
}

// Match says whether the table is named. A pattern without a schema matches the name in any
// schema: the caller keeps to those of the search_path (see Qualified).
func (p Pattern) Match(schema, name string) bool {
	return (!p.qualified || p.schema.match(schema)) && p.name.match(name)
}

// Qualified says whether the pattern names a schema.
func (p Pattern) Qualified() bool { return p.qualified }

// Exact gives the names of a pattern without wildcards; schema is "" when not Qualified. Such
// a pattern that matches nothing is a missing table, while one with wildcards may match none.
func (p Pattern) Exact() (schema, name string, ok bool) {
	if p.schema.wild() || p.name.wild() {
		return "", "", false
	}
	return string(p.schema), string(p.name), true
}

// String gives the pattern as it was written.
func (p Pattern) String() string { return p.text }

// MarshalText gives the pattern as it was written.
func (p Pattern) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// UnmarshalText reads a pattern.
func (p *Pattern) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePattern(string(b))
	return err
}

// Match says whether the column of the table is named.
func (c ColumnPattern) Match(schema, table, column string) bool {
	return c.table.Match(schema, table) && c.column.match(column)
}

// Exact says whether the pattern names one column, without wildcards.
func (c ColumnPattern) Exact() bool {
	_, _, table := c.table.Exact()
	return table && !c.column.wild()
}

// String gives the pattern as it was written.
func (c ColumnPattern) String() string { return c.text }

// MarshalText gives the pattern as it was written.
func (c ColumnPattern) MarshalText() ([]byte, error) { return []byte(c.text), nil }

// UnmarshalText reads a pattern.
func (c *ColumnPattern) UnmarshalText(b []byte) (err error) {
	*c, err = ParseColumnPattern(string(b))
	return err
}

// splitPattern reads names with dots between.
func splitPattern(s string) ([]glob, error) {
	if len(s) > maxPattern {
		return nil, fmt.Errorf("a pattern of %d bytes is too long; the most is %d", len(s), maxPattern)
	}
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf("%q is not UTF-8", s)
	}
	var parts []glob
	var part glob
	quoted, touched := false, false // touched: the part is there, though "" may leave it empty
	runes := []rune(s)
	for i := 0; i < len(runes); i++ {
		r := runes[i]
		switch {
		case r == 0:
			return nil, fmt.Errorf("%q has a zero byte, which no name can have", s)
		case r == '"' && quoted && i+1 < len(runes) && runes[i+1] == '"': // "" inside quotes is one
			part = append(part, '"')
			i++
		case r == '"':
			quoted, touched = !quoted, true
		case quoted:
			part = append(part, r)
		case r == '.':
			if len(part) == 0 {
				return nil, emptyName(s)
			}
			parts, part, touched = append(parts, part), nil, false
		default:
			plain, err := unquoted(r)
			if err != nil {
				return nil, fmt.Errorf("%q %w", s, err)
			}
			part = append(part, plain)
		}
	}
	switch {
	case quoted:
		return nil, fmt.Errorf("%q has a quote that does not end", s)
	case len(part) == 0 && (touched || len(parts) > 0 || s == ""):
		return nil, emptyName(s)
	}
	return append(parts, part), nil
}

func emptyName(s string) error {
	return fmt.Errorf("%q has an empty name; write schema.name, such as public.orders or sales.*", s)
}

var (
	errPatternSpace = errors.New(`has a space outside quotes; list several tables as several items, and quote a name that has a space in it: sales."Odd Name"`)
	errPatternComma = errors.New("has a comma outside quotes; list several tables as several items")
)

// unquoted turns a character outside quotes into what it stands for. Only ASCII letters are
// folded, as PostgreSQL does in databases of multi-byte encodings.
func unquoted(r rune) (rune, error) {
	switch {
	case r == '*':
		return anyRun, nil
	case r == '?':
		return anyOne, nil
	case r == ',':
		return 0, errPatternComma
	case unicode.IsSpace(r) || unicode.IsControl(r):
		return 0, errPatternSpace
	case 'A' <= r && r <= 'Z':
		return r + 'a' - 'A', nil
	}
	return r, nil
}

func (g glob) wild() bool {
	return slices.ContainsFunc(g, func(r rune) bool { return r >= anyRun })
}

// match goes back only to the last *: an earlier one need never take more, so the steps are at
// most the pattern's length times the name's.
func (g glob) match(name string) bool {
	text := []rune(name)
	at, i := 0, 0
	star, resume := -1, 0
	for i < len(text) {
		switch {
		case at < len(g) && g[at] == anyRun:
			star, resume = at, i
			at++
		case at < len(g) && (g[at] == anyOne || g[at] == text[i]):
			at++
			i++
		case star >= 0:
			resume++
			at, i = star+1, resume
		default:
			return false
		}
	}
	for at < len(g) && g[at] == anyRun {
		at++
	}
	return at == len(g)
}
