package postgres

import (
	"regexp"
	"strings"
)

// quoteIdent quotes a name for use in SQL. Every identifier that reaches a statement goes
// through here or through quoteTable.
func quoteIdent(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// QuoteTable quotes a qualified name for SQL that is shown to people.
func QuoteTable(schema, name string) string { return quoteTable(schema, name) }

var plainIdent = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)

// WriteTable is a qualified name as people write it, with quotes where it needs them.
func WriteTable(schema, name string) string {
	if !plainIdent.MatchString(schema) {
		schema = quoteIdent(schema)
	}
	if !plainIdent.MatchString(name) {
		name = quoteIdent(name)
	}
	return schema + "." + name
}

func quoteTable(schema, name string) string { return quoteIdent(schema) + "." + quoteIdent(name) }

// quoteLiteral quotes a string for use in SQL where no parameter can stand. The E form with doubled
// backslashes is right whatever standard_conforming_strings says.
func quoteLiteral(s string) string {
	s = strings.ReplaceAll(s, `'`, `''`)
	if strings.Contains(s, `\`) {
		return ` E'` + strings.ReplaceAll(s, `\`, `\\`) + `'`
	}
	return `'` + s + `'`
}
