package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/leatdata/leat/internal/fault"
)

// readYAML reads a file into what it gives for each key. It goes through the syntax tree
// itself instead of decoding, because every message needs the key's path and position and
// because a tree is only followed where the schema leads: aliases cannot multiply.
func readYAML(name string, data []byte) (map[string]given, error) {
	r := &reader{file: name, all: map[string]given{}, anchors: map[string]ast.Node{}}
	body, err := r.parse(data)
	if err != nil {
		return nil, err
	}
	if err := r.section(tree(), body); err != nil {
		return nil, err
	}
	return r.all, nil
}

type reader struct {
	file    string
	all     map[string]given
	anchors map[string]ast.Node
}

// parse gives the root of the file's one document.
func (r *reader) parse(data []byte) (root ast.Node, err error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	if err := r.guard(data); err != nil {
		return nil, err
	}
	defer func() { // the parser is not ours and the bytes are anybody's
		if p := recover(); p != nil {
			root, err = nil, fault.New(fault.ConfigInvalid, r.file, "this is not YAML that can be read")
		}
	}()
	tokens := lexer.Tokenize(string(data))
	if err := r.guardTokens(tokens); err != nil {
		return nil, err
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey()) // section finds them, and says it better
	if err != nil {
		return nil, r.syntax(err)
	}
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			return nil, r.wrong("", doc.Body, "the file holds more than one document; keep one, and one --- at most")
		}
		root = doc.Body
	}
	if root == nil {
		return nil, fault.New(fault.ConfigInvalid, r.file, "the file holds no settings").
			WithMend("Write the settings into it, or start without a file.")
	}
	return root, nil
}

// guard refuses bytes that are no text of a sensible size before any parser sees them.
func (r *reader) guard(data []byte) error {
	if len(data) > maxFile {
		return fault.New(fault.ConfigInvalid, r.file, "the file is larger than %d bytes", maxFile)
	}
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) {
		return fault.New(fault.ConfigInvalid, r.file, "the file is UTF-16; save it as UTF-8")
	}
	for number, line := range bytes.Split(data, []byte("\n")) {
		place := fmt.Sprintf("%s:%d", r.file, number+1)
		indent := line[:len(line)-len(bytes.TrimLeft(line, " \t"))]
		switch {
		case !utf8.Valid(line):
			return fault.New(fault.ConfigInvalid, place, "the line is not UTF-8")
		case bytes.IndexByte(indent, '\t') >= 0 && len(bytes.TrimSpace(line)) > 0:
			return fault.New(fault.ConfigInvalid, place, "the line is indented with a tab; YAML wants spaces")
		case bytes.ContainsFunc(bytes.TrimSuffix(line, []byte("\r")), isControl):
			return fault.New(fault.ConfigInvalid, place, "the line holds a control character")
		}
	}
	return nil
}

func isControl(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }

// maxDepth bounds how deep brackets, dashes and indentation nest. The schema needs four; the
// parser calls itself once a level, and a stack that overflows cannot be caught.
const maxDepth = 32

// The parser's time grows with the square of a mapping's keys, and its stack with the anchors;
// the schema has some fifty keys.
const (
	maxKeys    = 2000
	maxAnchors = 100
)

// guardTokens counts keys and anchors and, for each token, the brackets it stands in, the columns to its left at
// which other lines begin, and the dashes and colons before it on its line. Tags and ? keys
// nest without any of these, and so would anchors; the schema has no use for the first two.
func (r *reader) guardTokens(tokens token.Tokens) error {
	brackets, onLine, line, keys, anchors := 0, 0, 0, 0, 0
	var columns []int
	for _, t := range tokens {
		if t.Position.Line != line {
			line, onLine = t.Position.Line, 0
			for len(columns) > 0 && columns[len(columns)-1] >= t.Position.Column {
				columns = columns[:len(columns)-1]
			}
			columns = append(columns, t.Position.Column)
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			brackets++
		case token.MappingEndType, token.SequenceEndType:
			brackets--
		case token.CollectEntryType:
			onLine = 0
		case token.SequenceEntryType:
			onLine++
		case token.MappingValueType:
			onLine++
			keys++
		case token.AnchorType:
			anchors++
		case token.TagType:
			return fault.New(fault.ConfigInvalid, r.position(t), "a tag is not wanted; write the value alone, in quotes if it begins with !")
		case token.MappingKeyType:
			return fault.New(fault.ConfigInvalid, r.position(t), "a key must be plain text, without ?")
		}
		if brackets > maxDepth || onLine > maxDepth || len(columns) > maxDepth {
			return fault.New(fault.ConfigInvalid, r.position(t), "this nests deeper than %d levels", maxDepth)
		}
		if keys > maxKeys || anchors > maxAnchors {
			return fault.New(fault.ConfigInvalid, r.position(t), "the file has more than %d keys or %d anchors", maxKeys, maxAnchors)
		}
	}
	return nil
}

// syntax turns the parser's error into a fault. The parser's own text is left out where it
// would show the source, which may hold a secret.
func (r *reader) syntax(err error) error {
	var at yaml.Error
	if !errors.As(err, &at) || at.GetToken() == nil {
		return fault.New(fault.ConfigInvalid, r.file, "this is not YAML that can be read")
	}
	return fault.New(fault.ConfigInvalid, r.position(at.GetToken()), "this is not YAML: %s", at.GetMessage())
}

func (r *reader) position(t *token.Token) string {
	if t == nil || t.Position == nil {
		return r.file
	}
	return fmt.Sprintf("%s:%d:%d", r.file, t.Position.Line, t.Position.Column)
}

// wrong makes the fault of a value that cannot be used.
func (r *reader) wrong(path string, n ast.Node, format string, args ...any) error {
	place := r.position(n.GetToken())
	if path != "" {
		place = where(path, place)
	}
	return fault.New(fault.ConfigInvalid, place, format, args...)
}

// plain takes anchors off a node and follows an alias.
func (r *reader) plain(path string, n ast.Node) (ast.Node, error) {
	for range maxDepth {
		switch v := n.(type) {
		case *ast.AnchorNode:
			r.anchors[v.Name.String()] = v.Value
			n = v.Value
		case *ast.AliasNode:
			target, ok := r.anchors[v.Value.String()]
			if !ok {
				return nil, r.wrong(path, n, "no anchor &%s stands above", v.Value.String())
			}
			n = target
		default:
			if n == nil {
				return nil, fault.New(fault.ConfigInvalid, where(path, r.file), "has no value")
			}
			return n, nil
		}
	}
	return nil, r.wrong(path, n, "anchors and aliases go in a circle")
}

// section reads a mapping, or the plain text that stands for it.
func (r *reader) section(s *section, n ast.Node) error {
	n, err := r.plain(s.path, n)
	if err != nil {
		return err
	}
	switch v := n.(type) {
	case *ast.MappingNode:
		return r.entries(s, v.Values)
	case *ast.MappingValueNode:
		return r.entries(s, []*ast.MappingValueNode{v})
	case *ast.NullNode:
		return nil // a section whose keys are all commented out
	case *ast.SequenceNode:
		return r.wrong(s.path, n, "this is a list; wanted are keys with values%s", s.orText())
	}
	if s.short == "" {
		return r.wrong(s.path, n, "this is plain text; wanted are keys with values")
	}
	return r.scalar(keys()[s.short], n)
}

func (s *section) orText() string {
	if s.short == "" {
		return ""
	}
	return ", or one text for " + s.short
}

func (r *reader) entries(s *section, entries []*ast.MappingValueNode) error {
	seen := map[string]*token.Token{}
	for _, e := range entries {
		name, err := r.name(s, e)
		if err != nil {
			return err
		}
		path := join(s.path, name)
		if first, ok := seen[name]; ok {
			return r.wrong(path, e.Key, "the key stands twice; the first is in line %d", first.Position.Line)
		}
		seen[name] = e.Key.GetToken()
		field, ok := s.fields[name]
		switch {
		case !ok:
			return r.unknown(s, name, e.Key)
		case field.section != nil:
			err = r.section(field.section, e.Value)
		case field.key.List:
			err = r.list(field.key, e.Value)
		default:
			err = r.scalar(field.key, e.Value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// name gives a key's text.
func (r *reader) name(s *section, e *ast.MappingValueNode) (string, error) {
	switch k := e.Key.(type) {
	case *ast.StringNode:
		return k.Value, nil
	case *ast.MergeKeyNode:
		return "", r.wrong(s.path, e.Key, "<< is not supported; write the keys out")
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
		return k.GetToken().Value, nil
	}
	return "", r.wrong(s.path, e.Key, "a key must be plain text")
}

// unknown makes the fault of an unknown key, with the known one that was probably meant: the
// nearest in the same section, or one of that name elsewhere.
func (r *reader) unknown(s *section, name string, at ast.Node) error {
	mean := ""
	if near := Nearest(name, s.order); near != "" {
		mean = join(s.path, near)
	} else {
		for key := range tree().leaves() {
			if mean == "" && (key.Path == name || strings.HasSuffix(key.Path, "."+name)) {
				mean = key.Path
			}
		}
	}
	place := where(shorten(join(s.path, name)), r.position(at.GetToken()))
	if mean == "" {
		return fault.New(fault.ConfigUnknown, place, "unknown key; known here: %s", strings.Join(s.order, ", "))
	}
	return fault.New(fault.ConfigUnknown, place, "unknown key; did you mean %s?", mean)
}

// shorten keeps messages readable when a whole paragraph was taken for a key.
func shorten(s string) string {
	const most = 80
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most]) + "…"
}

func (r *reader) list(key *Key, n ast.Node) error {
	n, err := r.plain(key.Path, n)
	if err != nil {
		return err
	}
	g := given{layer: layerFile, place: r.position(n.GetToken())}
	sequence, ok := n.(*ast.SequenceNode)
	if !ok {
		return r.wrong(key.Path, n, "this is no list; write [one, two], or each item in a line of its own after a dash")
	}
	for _, item := range sequence.Values {
		t, err := r.text(key, item)
		if err != nil {
			return err
		}
		g.texts = append(g.texts, t)
	}
	r.all[key.Path] = g
	return nil
}

func (r *reader) scalar(key *Key, n ast.Node) error {
	t, err := r.text(key, n)
	if err != nil {
		return err
	}
	if key.Kind == "secret" && !isReference(t.value) { // also where another layer would win
		return literalSecret(key.Path, t.place)
	}
	r.all[key.Path] = given{layer: layerFile, place: t.place, texts: []text{t}}
	return nil
}

// text gives a plain value as it was written: a schema of texts needs no YAML types, and so
// "null" is a policy and 010 is ten.
func (r *reader) text(key *Key, n ast.Node) (text, error) {
	n, err := r.plain(key.Path, n)
	if err != nil {
		return text{}, err
	}
	place := r.position(n.GetToken())
	switch v := n.(type) {
	case *ast.StringNode:
		return text{v.Value, place}, nil
	case *ast.LiteralNode:
		return text{strings.TrimRight(v.Value.Value, "\n"), place}, nil
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return text{v.GetToken().Value, place}, nil
	case *ast.NullNode:
		if t := v.GetToken(); t.Type == token.NullType && t.Value == "null" { // the word is there: a policy
			return text{"null", place}, nil
		}
		return text{}, r.wrong(key.Path, n, "has no value; give one, or delete the key to get the default")
	case *ast.MappingNode, *ast.MappingValueNode:
		return text{}, r.wrong(key.Path, n, "this has keys of its own; wanted is a plain value")
	case *ast.SequenceNode:
		return text{}, r.wrong(key.Path, n, "this is a list; wanted is one value")
	}
	return text{}, r.wrong(key.Path, n, "wanted is a plain value")
}
