package postgres

import (
	"fmt"
	"strings"

	"github.com/leatdata/leat/internal/change"
)

// jsonColumns is the SELECT list that makes row_to_json exact (Invariant 6). What JSON has no form for becomes a
// JSON string of PostgreSQL's own text: an array that does not begin at index 1, and a type whose extension
// turns it into JSON that says less. json_populate_record reads both back.
func (sn *Snapshot) jsonColumns(t *change.Table) string {
	list := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		name := quoteIdent(c.Name)
		list[i] = name
		expr := sn.types.jsonExpr(name, c.TypeOID)
		if sn.types.base(c.TypeOID).oid == oidChar && sn.source.Version < 150000 {
			expr = fmt.Sprintf(charText, name)
		}
		if expr != name {
			list[i] = expr + " as " + name
		}
	}
	return strings.Join(list, ",")
}

func (types typeTable) jsonExpr(name string, typeOID uint32) string {
	t := types.base(typeOID)
	value := name
	if t.element != 0 && types.base(t.element).element != 0 {
		return name + "::pg_catalog.text" // arrays in an array, by a domain: JSON would make dimensions of them
	}
	if types.holds(t.oid, func(t typeInfo) bool { return t.ownJSON }) {
		value += "::pg_catalog.text"
		if t.element == 0 {
			return value
		}
		value += "[]"
	}
	begins := ""
	switch isArray := func(t typeInfo) bool { return t.element != 0 }; {
	case t.element != 0 && !types.holds(t.element, isArray):
		begins = "pg_catalog.array_dims(" + name + ")"
	case types.holds(t.oid, isArray):
		// An array inside a composite shows its bounds in the text alone. A text that looks like bounds is
		// taken for them, which costs shape and no value.
		begins = name + "::pg_catalog.text"
	default:
		return value
	}
	return "case when " + begins + ` operator(pg_catalog.~) E'\\[(?!1:)-?[0-9]+:-?[0-9]+\\]' then pg_catalog.to_json(` + name +
		"::pg_catalog.text) else pg_catalog.to_json(" + value + ") end"
}

// base is the type below all domains.
func (types typeTable) base(typeOID uint32) typeInfo {
	t := types[typeOID]
	for t.kind == 'd' {
		t = types[t.base]
	}
	return t
}

// holds says whether the type, or one that its values are made of, is as asked.
func (types typeTable) holds(typeOID uint32, is func(typeInfo) bool) bool {
	t := types.base(typeOID)
	if is(t) || t.element != 0 && types.holds(t.element, is) {
		return true
	}
	for _, f := range t.fields {
		if types.holds(f, is) {
			return true
		}
	}
	return false
}
