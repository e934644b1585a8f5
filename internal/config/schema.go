package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
)

// Key is one setting of leat.yaml, as files, variables, flags and documentation know it.
type Key struct {
	Path    string   // with dots: dump.file_size
	Env     string   // the variable that gives it: LEAT_DUMP_FILE_SIZE; "" for none
	Ambient []string // variables of other tools, read when nothing else gives it
	Kind    string   // text, true or false, number, size, rate, time span, secret, pattern, column pattern
	List    bool     // several values; a variable separates them by spaces or commas
	Default string   // as it would be written; "" for none
	Allowed []string // the closed set of values, if it is one
	Doc     string   // one or two sentences

	Min string // the least number; "" for none
	Max string // the greatest

	index []int // the field, for reflect.Value.FieldByIndex
}

// kindTableSetting is the Kind of settings that belong to tables, whose names stand in the value.
const kindTableSetting = "table setting"

// section is a struct of the schema: a mapping in the file.
type section struct {
	path   string
	doc    string
	short  string // the path of the key that a plain text gives, "" for none
	order  []string
	fields map[string]node
}

// node is what stands under a key of a section: one of the two.
type node struct {
	section *section
	key     *Key
}

// tree is the schema, read once from the structs.
var tree = sync.OnceValue(func() *section { return newSection(reflect.TypeFor[Config](), "", "", nil) })

// keys is the schema's leaves by path.
var keys = sync.OnceValue(func() map[string]*Key {
	byPath := map[string]*Key{}
	for key := range tree().leaves() {
		byPath[key.Path] = key
	}
	return byPath
})

// Keys lists every setting, in the order of the structs.
func Keys() []Key {
	var all []Key
	for key := range tree().leaves() {
		all = append(all, *key)
	}
	return all
}

// leaves goes through the keys in the order of the structs.
func (s *section) leaves() func(yield func(*Key) bool) {
	return func(yield func(*Key) bool) { s.visit(yield) }
}

func (s *section) visit(yield func(*Key) bool) bool {
	for _, name := range s.order {
		n := s.fields[name]
		if n.key != nil && !yield(n.key) || n.section != nil && !n.section.visit(yield) {
			return false
		}
	}
	return true
}

func newSection(t reflect.Type, path, doc string, index []int) *section {
	s := &section{path: path, doc: doc, fields: map[string]node{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		at := append(append([]int(nil), index...), i)
		s.order = append(s.order, name)
		if f.Type.Kind() == reflect.Struct && !isText(f.Type) {
			s.fields[name] = node{section: newSection(f.Type, join(path, name), f.Tag.Get("doc"), at)}
			continue
		}
		key := newKey(f, join(path, name), at)
		s.fields[name] = node{key: key}
		if f.Tag.Get("short") == "true" {
			s.short = key.Path
		}
	}
	return s
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func newKey(f reflect.StructField, path string, index []int) *Key {
	t := f.Type
	key := &Key{
		Path: path, Env: "LEAT_" + strings.ToUpper(strings.ReplaceAll(path, ".", "_")),
		Ambient: strings.Fields(f.Tag.Get("ambient")), Default: f.Tag.Get("default"), Doc: f.Tag.Get("doc"),
		index: index, Min: f.Tag.Get("min"), Max: f.Tag.Get("max"),
	}
	if f.Tag.Get("env") == "-" {
		key.Env = ""
	}
	if t.Kind() == reflect.Slice {
		key.List, t = true, t.Elem()
	}
	key.Kind = kindOf(t)
	if e, ok := reflect.Zero(t).Interface().(enum); ok {
		key.Allowed = e.allowed()
	}
	return key
}

func kindOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Rate]():
		return "rate"
	case reflect.TypeFor[Duration]():
		return "time span"
	case reflect.TypeFor[Interval]():
		return "time span or auto"
	case reflect.TypeFor[Pattern]():
		return "pattern"
	case reflect.TypeFor[ColumnPattern]():
		return "column pattern"
	case reflect.TypeFor[TableSetting]():
		return kindTableSetting
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "number"
	}
	return "text"
}

// isText says whether a struct type stands for one text: Secret and the patterns.
func isText(t reflect.Type) bool {
	return t == reflect.TypeFor[Secret]() || reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// set reads one value's text into v, a field of Config or an item of one. Errors are about the
// text alone and may quote it: secrets never come here.
func (k *Key) set(v reflect.Value, text string) error {
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	switch v.Kind() {
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(text == "true")
	case reflect.Int:
		return k.setNumber(v, text)
	default:
		if err := k.check(text); err != nil {
			return err
		}
		v.SetString(text)
	}
	return nil
}

func (k *Key) setNumber(v reflect.Value, text string) error {
	n, err := strconv.Atoi(text)
	if err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	if low, err := strconv.Atoi(k.Min); err == nil && n < low {
		return fmt.Errorf("%d is too small; the least is %d", n, low)
	}
	if high, err := strconv.Atoi(k.Max); err == nil && n > high {
		return fmt.Errorf("%d is too large; the most is %d", n, high)
	}
	v.SetInt(int64(n))
	return nil
}

func (k *Key) check(text string) error {
	if len(k.Allowed) == 0 {
		return nil
	}
	for _, a := range k.Allowed {
		if a == text {
			return nil
		}
	}
	near := ""
	if n := Nearest(text, k.Allowed); n != "" {
		near = "; did you mean " + n + "?"
	}
	return fmt.Errorf("%q is not one of %s%s", text, strings.Join(k.Allowed, ", "), near)
}

// Nearest gives the candidate that the fewest typing slips away from text, or "" when none is
// near enough to be what was meant.
func Nearest(text string, candidates []string) string {
	best, least := "", max(2, len(text)/3)+1
	if len(text) > 64 {
		return ""
	}
	for _, c := range candidates {
		if d := distance(strings.ToLower(text), strings.ToLower(c)); d < least && d < len(c) {
			best, least = c, d
		}
	}
	return best
}

// distance is Levenshtein's: insertions, deletions and replacements of bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
