package format

import (
	"fmt"
	"strings"
)

// avroTypeNames cannot name a record.
var avroTypeNames = map[string]bool{
	"null": true, "boolean": true, "int": true, "long": true, "float": true, "double": true, "bytes": true,
	"string": true, "record": true, "enum": true, "array": true, "map": true, "union": true, "fixed": true,
}

// avroName makes a column's name one that Avro allows: [A-Za-z_][A-Za-z0-9_]*
// (specification 1.11, "Names"). Every other character becomes _xHHHH_ with its code point
// in four or more hexadecimal digits, and an underscore before an x becomes _x005F_, so
// that "_x" always begins such an escape: distinct names stay distinct and the original can
// be read back. It is the rule of SQL/XML (ISO 9075-14), which PostgreSQL's own XML export
// follows too. An empty name is "_x_".
func avroName(name string) string {
	if name == "" {
		return "_x_"
	}
	var b strings.Builder
	for i, r := range name {
		switch {
		case r == '_' && strings.HasPrefix(name[i:], "_x"),
			r >= '0' && r <= '9' && i == 0,
			!avroLetter(r):
			fmt.Fprintf(&b, "_x%04X_", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func avroLetter(r rune) bool {
	return r == '_' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// avroRecordName is avroName for a record, which must not be called as a type is: such a
// name has its first letter escaped.
func avroRecordName(name string) string {
	if avroTypeNames[name] {
		return fmt.Sprintf("_x%04X_%s", name[0], name[1:])
	}
	return avroName(name)
}

// avroNamespace maps each part of a namespace and drops empty ones.
func avroNamespace(namespace string) string {
	var parts []string
	for part := range strings.SplitSeq(namespace, ".") {
		if part != "" {
			parts = append(parts, avroName(part))
		}
	}
	return strings.Join(parts, ".")
}
