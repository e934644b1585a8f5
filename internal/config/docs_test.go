package config_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/leatdata/leat/internal/config"
)

const schemaID = "https://github.com/leatdata/leat/raw/main/docs/leat.schema.json"

func TestThePublishedSchemaIsTheStructs(t *testing.T) {
	t.Parallel()
	compare(t, "../../docs/leat.schema.json", publishedSchema(t))
}

func TestTheReferencePageIsTheStructs(t *testing.T) {
	t.Parallel()
	compare(t, "../../docs/config.md", referencePage())
}

func TestEveryKeySaysWhatItMeans(t *testing.T) {
	t.Parallel()
	for _, key := range config.Keys() {
		if !strings.HasSuffix(key.Doc, ".") || strings.Contains(key.Doc, "|") {
			t.Errorf("%s: the meaning %q is no sentence for a table", key.Path, key.Doc)
		}
	}
}

// What the loader takes the schema takes too, so that an editor never marks a good file.
func TestTheSchemaTakesEveryGoodFile(t *testing.T) {
	t.Parallel()
	schema := compiled(t)
	for _, path := range files(t, "testdata/*.yaml") {
		if strings.HasSuffix(path, ".bad.yaml") {
			continue
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(decoded(t, data)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// What is wrong in one place alone the schema finds too. It is not a second loader: what
// concerns addresses, several keys or the environment is left to leat check.
func TestTheSchemaRefusesWhatIsWrongInOnePlace(t *testing.T) {
	t.Parallel()
	schema := compiled(t)
	for _, name := range []string{"unknown-key", "unknown-section", "wrong-choice", "wrong-size", "wrong-size-unit", "wrong-rate", "bare-time-span",
		"wrong-number", "negative-number", "large-number", "wrong-boolean", "wrong-policy", "wrong-version", "literal-password", "literal-password-number",
		"list-for-value", "value-for-list", "keys-for-value", "keys-for-item", "list-for-section", "value-for-section", "value-for-file", "wrong-region", "wrong-decimal"} {
		data, err := os.ReadFile("testdata/" + name + ".bad.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(decoded(t, data)); err == nil {
			t.Errorf("%s: the schema takes it", name)
		}
	}
}

var (
	yamlBlock = regexp.MustCompile("(?s)```yaml\n(# leat.yaml.*?)```")
	allMD     = []string{"../../*.md", "../../docs/*.md", "../../docs/*/*.md"}
)

func TestEveryExampleInTheDocsLoads(t *testing.T) {
	t.Parallel()
	found := 0
	for _, pattern := range allMD {
		pages, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, page := range pages {
			data, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			for _, block := range yamlBlock.FindAllSubmatch(data, -1) {
				found++
				if _, err := config.Parse(filepath.Base(page), block[1], config.LoadOptions{Env: examples}); err != nil {
					t.Errorf("%s: %v in\n%s", page, err, block[1])
				}
				if err := compiled(t).Validate(decoded(t, block[1])); err != nil {
					t.Errorf("%s: %v in\n%s", page, err, block[1])
				}
			}
		}
	}
	if found < 3 {
		t.Errorf("found %d examples; docs/config.md alone has 3", found)
	}
}

func compiled(t *testing.T) *validator.Schema {
	t.Helper()
	doc, err := validator.UnmarshalJSON(bytes.NewReader(publishedSchema(t)))
	if err != nil {
		t.Fatal(err)
	}
	c := validator.NewCompiler()
	if err := c.AddResource(schemaID, doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile(schemaID)
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// decoded reads YAML as an editor does, into JSON's values.
func decoded(t *testing.T, data []byte) any {
	t.Helper()
	asJSON, err := yaml.YAMLToJSON(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")))
	if err != nil {
		t.Fatal(err)
	}
	v, err := validator.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// publishedSchema takes the shape of the sections from the structs by reflection and the
// values from Keys.
func publishedSchema(t *testing.T) []byte {
	t.Helper()
	r := jsonschema.Reflector{FieldNameTag: "yaml", DoNotReference: true, RequiredFromJSONSchemaTags: true, BaseSchemaID: "https://github.com/leatdata/leat"}
	root := r.Reflect(config.Config{})
	root.ID, root.Title = schemaID, "leat.yaml"
	for _, key := range config.Keys() {
		section := root
		path := strings.Split(key.Path, ".")
		for _, name := range path[:len(path)-1] {
			section, _ = section.Properties.Get(name)
		}
		section.Properties.Set(path[len(path)-1], keySchema(key))
	}
	finishSections(root, reflect.TypeFor[config.Config]())
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// finishSections describes the sections and lets each be empty or, with a short form, a text.
func finishSections(s *jsonschema.Schema, typ reflect.Type) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		section, ok := s.Properties.Get(f.Tag.Get("yaml"))
		if !ok || section.Properties == nil {
			continue
		}
		finishSections(section, f.Type)
		either := &jsonschema.Schema{Description: f.Tag.Get("doc"), OneOf: []*jsonschema.Schema{section, {Type: "null"}}}
		for j := range f.Type.NumField() {
			if f.Type.Field(j).Tag.Get("short") == "true" {
				either.OneOf = append(either.OneOf, &jsonschema.Schema{Type: "string"})
			}
		}
		s.Properties.Set(f.Tag.Get("yaml"), either)
	}
}

const referenceForm = `\$\{(env|file):[^{}]+\}`

func keySchema(key config.Key) *jsonschema.Schema {
	value := valueSchema(key)
	if key.List {
		value = &jsonschema.Schema{Type: "array", Items: value}
	}
	value.Description = key.Doc
	if !key.List && key.Default != "" {
		value.Default = key.Default
	}
	return value
}

// valueSchema describes one value; anything may be a reference instead.
func valueSchema(key config.Key) *jsonschema.Schema {
	text := func(pattern string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: pattern} }
	or := func(s *jsonschema.Schema) *jsonschema.Schema {
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{s, text(referenceForm)}}
	}
	number := &jsonschema.Schema{Type: "integer", Minimum: "0"}
	switch {
	case key.Kind == "secret":
		return text(`^\s*` + referenceForm + `\s*$`)
	case key.Path == "version":
		return &jsonschema.Schema{Enum: []any{1, "1"}}
	case key.Path == "from.iam":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "boolean"}, text(`^(auto|true|false|[a-z]{2,8}(-[a-z]{1,20}){1,3}-[0-9]{1,2})$`), text(referenceForm)}}
	case strings.HasSuffix(key.Path, ".types.unbounded_numeric"):
		return or(text(`^(text|decimal\( *([1-9]|[12][0-9]|3[0-8]) *, *[0-9]{1,2} *\))$`))
	case key.Kind == "size":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{number, text(`^[0-9]+(\.[0-9]+)? ?([KMGT]i?B|kB|B)?$`), text(referenceForm)}}
	case key.Kind == "rate":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{number, text(`^[0-9]+(\.[0-9]+)? ?([KMGT]i?B|kB|B)?(/s)?$`), text(referenceForm)}}
	case key.Kind == "time span":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Const: 0}, text(`^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$`), text(referenceForm)}}
	case key.Kind == "time span or auto":
		return or(text(`^(auto|([0-9.]+(ns|us|µs|ms|s|m|h))+)$`))
	case key.Kind == "true or false":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "boolean"}, {Enum: []any{"true", "false"}}, text(referenceForm)}}
	case key.Kind == "number":
		return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "integer", Minimum: json.Number(key.Min), Maximum: json.Number(key.Max)}, text(`^[0-9]+$`), text(referenceForm)}}
	case len(key.Allowed) > 0:
		return or(&jsonschema.Schema{Enum: written(key.Allowed)})
	}
	return &jsonschema.Schema{Type: "string"}
}

// written gives the values in all the ways YAML has for them: true, "true", null, "null".
func written(allowed []string) []any {
	var all []any
	for _, a := range allowed {
		switch a {
		case "true", "false":
			all = append(all, a == "true")
		case "null":
			all = append(all, nil)
		}
		all = append(all, a)
	}
	return all
}

const pageIntro = `# Settings

<!-- Written by go test ./internal/config -update; the truth is internal/config/config.go. -->

leat needs no file: flags or the environment alone will do. A file, given by ` + "`-f leat.yaml`" + ` or ` + "`LEAT_CONFIG`" + `,
holds the same settings:

` + "```yaml" + `
# leat.yaml
# yaml-language-server: $schema=https://github.com/leatdata/leat/raw/main/docs/leat.schema.json
from:
  url: postgres://app@db.example.com/shop
  password: ${env:PGPASSWORD}
  sslmode: verify-full
to: s3://egress/shop
dump:
  tables: ["public.*", 'sales."Odd Name"']
  exclude: ["public.audit_*"]
  keep: 14
` + "```" + `

## Where a setting comes from

The first that gives it:

1. a flag;
2. its ` + "`LEAT_`" + ` variable (an empty one counts as unset; lists are separated by spaces or commas outside double
   quotes). ` + "`LEAT_FROM` and `LEAT_TO`" + ` are short for ` + "`LEAT_FROM_URL` and `LEAT_TO_URL`" + `;
3. the file;
4. a variable of another tool, where the table names one. ` + "`S3_OUTPUT` and `TABLES`" + ` count only without a file;
5. the default.

What none of these gives, PostgreSQL's own ways may (` + "`PGHOST`, `PGUSER`, `PGPASSWORD`, `PGSERVICE`, `.pgpass`" + ` and so on), and the
AWS SDK's (` + "`AWS_REGION`, `AWS_ACCESS_KEY_ID`, `AWS_PROFILE`" + `, web identity, instance role).

With no file and the target from ` + "`S3_OUTPUT`" + `, leat takes the place of the old dump job: ` + "`dump.format` is `csv.gz` and\n`dump.layout` is `date`" + ` unless a flag or ` + "`LEAT_`" + ` variable says otherwise, and the log reads as the job's did.

An unknown key is an error, and so is a value that leat cannot use.

## Secrets

A file or a flag never holds a secret, only a reference to it: ` + "`${env:NAME}`" + ` for an environment variable, ` + "`${file:/path}`" + ` for
a file (line breaks at its end are left out). A literal is refused, also as a password inside ` + "`from.url`" + `. References may
stand in other values too, within text; ` + "`$${`" + ` is a plain ` + "`${`" + `.

` + "```yaml" + `
# leat.yaml
from: postgres://app:${env:PGPASSWORD}@db/shop
to:
  url: s3://${env:BUCKET}/shop
  access_key_id: ${env:KEY_ID}
  secret_access_key: ${env:KEY_SECRET}
` + "```" + `

## Tables

A pattern is ` + "`schema.name`" + `, with ` + "`*`" + ` for any characters and ` + "`?`" + ` for one. As in psql, letters outside double quotes are
folded to lower case, and inside them everything stands for itself. A name without a schema is searched in the
search_path.

` + "```yaml" + `
# leat.yaml
dump:
  tables:
    - orders            # as in SQL: the first schema of the search_path that has it
    - sales.*           # all of a schema
    - sales."Odd Name"  # upper case, spaces, dots and stars in quotes
  types:
    timestamptz: clamp  # infinity becomes the last timestamp there is
` + "```" + `
`

func referencePage() []byte {
	var b strings.Builder
	b.WriteString(pageIntro)
	section := "-"
	for _, key := range config.Keys() {
		name := ""
		if i := strings.LastIndexByte(key.Path, '.'); i >= 0 {
			name = key.Path[:i]
		}
		if name != section {
			section = name
			fmt.Fprintf(&b, "\n%s\n| key | values | default | variable | meaning |\n|---|---|---|---|---|\n", heading(name))
		}
		variables := strings.Fields(key.Env + " " + strings.Join(key.Ambient, " "))
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", key.Path, values(key), code(key.Default), code(strings.Join(variables, "`, `")), escapeCell(key.Doc))
	}
	return []byte(b.String())
}

func heading(section string) string {
	if section == "" {
		return "## Every key\n"
	}
	typ, doc := reflect.TypeFor[config.Config](), ""
	for _, name := range strings.Split(section, ".") {
		for i := range typ.NumField() {
			if f := typ.Field(i); f.Tag.Get("yaml") == name {
				typ, doc = f.Type, f.Tag.Get("doc")
				break
			}
		}
	}
	return "### " + section + "\n\n" + doc + "\n"
}

func values(key config.Key) string {
	s := key.Kind
	if len(key.Allowed) > 0 {
		s = "`" + strings.Join(key.Allowed, "`, `") + "`"
	}
	if key.Max != "" {
		s += ", " + key.Min + " to " + key.Max
	}
	if key.List {
		s = "list of " + s + "s"
	}
	return s
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

// escapeCell keeps <to> from being read as HTML and * from being read as emphasis.
func escapeCell(s string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "*", `\*`).Replace(s)
}
