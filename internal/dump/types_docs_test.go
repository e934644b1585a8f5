package dump_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/twmb/avro/ocf"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

var update = flag.Bool("update", false, "write docs/types.md anew")

// observed collects what was read back: for each type and format how it was carried, and for each special value
// what became of it.
type observed struct {
	how      map[string]map[string]string // type, format
	specials map[string]map[string][]string
}

func newObserved() *observed {
	return &observed{how: map[string]map[string]string{}, specials: map[string]map[string][]string{}}
}

func (o *observed) special(c typeCase, s special, kind, what string) {
	key := c.name + "\x00" + s.label
	if o.specials[key] == nil {
		o.specials[key] = map[string][]string{}
	}
	if !slices.Contains(o.specials[key][kind], what) {
		o.specials[key][kind] = append(o.specials[key][kind], what)
	}
}

// carried notes what the file itself says about the column v.
func (o *observed) carried(t *testing.T, j *judge, d taken, c typeCase, table dump.TableManifest, back string) {
	t.Helper()
	how := "text"
	switch kind := format.Kind(d.Format); {
	case kind == format.Parquet:
		how = parquetType(t, d.file(t, table.Files[0].Key))
	case kind == format.Avro:
		how = avroType(t, d.file(t, table.Files[0].Key))
	case kind.JSON():
		how = j.db.One("select string_agg(distinct json_typeof(line->'v'), ' or ' order by json_typeof(line->'v')) from " + back + "j where json_typeof(line->'v') <> 'null' or '" + c.pg() + "' = 'null'")
	}
	if o.how[c.name] == nil {
		o.how[c.name] = map[string]string{}
	}
	o.how[c.name][d.Format] = how
}

func parquetType(t *testing.T, data []byte) string {
	t.Helper()
	f, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	column := f.MetaData().Schema.Column(1)
	how := column.PhysicalType().String()
	if n := column.TypeLength(); how == "FIXED_LEN_BYTE_ARRAY" {
		how += fmt.Sprintf("(%d)", n)
	}
	if logical := column.LogicalType().String(); logical != "None" {
		how += ", " + logical
	}
	return strings.Repeat("list of ", strings.Count(column.Path(), ".list.")) + how
}

func avroType(t *testing.T, data []byte) string {
	t.Helper()
	r, err := ocf.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := avroFields(t, r.Metadata()["avro.schema"])[1]
	lists := ""
	for ; n.items != nil; n = *n.items {
		lists += "array of "
	}
	if n.logical != "" {
		return lists + n.kind + ", " + n.logical
	}
	return lists + n.kind
}

// short makes a logical type fit a table.
func short(how string) string {
	how = strings.NewReplacer("FIXED_LEN_BYTE_ARRAY", "FIXED", "BYTE_ARRAY, String", "STRING", "BYTE_ARRAY, JSON", "JSON").Replace(how)
	if i := strings.Index(how, ", Int("); i > 0 {
		how = how[:i]
	}
	for _, kind := range []string{"Timestamp", "Time"} {
		if i := strings.Index(how, ", "+kind+"("); i > 0 {
			zone := " local"
			if strings.Contains(how, "isAdjustedToUTC=true") {
				zone = " UTC"
			}
			how = how[:i] + ", " + strings.ToUpper(kind) + " µs" + zone
		}
	}
	return how
}

const typesIntro = `# Types

<!-- Written by go test ./internal/dump -update from what was written and read back. -->

Every value is carried exactly, or a policy that you name rules it, or the dump fails. Nothing is rounded, cut or dropped in
silence. A run goes on: what a typed column cannot carry stands beside it as exact text.

- **csv** is the server's own text, as ` + "`COPY … CSV`" + ` writes it under settings that lose nothing (ISO dates, UTC, all digits of a float), whatever the role or the
  database sets: every value of every type is exact. ` + "`dump.csv_form: role`" + `, which the dump by ` + "`TABLES` and `S3_OUTPUT`" + ` has, writes what the role's own COPY would: there
  ` + "`extra_float_digits`" + ` below 1 loses digits, and a DateStyle other than ISO the offset of a timestamptz. Then the manifest has the settings (` + "`text_settings`" + `), and leat warns of
  those that lose something.
- **jsonl** is ` + "`row_to_json`" + `, exact too: numbers keep all their digits, NaN and the infinities are strings. What JSON has no form for is a
  string of PostgreSQL's own text, which ` + "`json_populate_record`" + ` reads back: an array that does not begin at index 1 (and a composite that
  holds one), int2vector and oidvector, PostGIS as hexadecimal EWKB. Two things JSON cannot say: a json value ` + "`null`" + ` is the same
  ` + "`null`" + ` as SQL's NULL, and line breaks between the tokens of a json value become spaces, for a line is a row.
- **parquet** and **avro** have typed columns where a type is the same on both sides. All other types are a string in PostgreSQL's own
  text (ISO dates, UTC, all digits of a float). Arrays are lists, one level a declared dimension; an array of a type that goes as text is a
  list of strings. A domain is carried as the type below it, an enum as its label, PostGIS as EWKB bytes. Where a domain or column has no
  declared dimensions (views, CREATE TABLE AS), one is taken. A "char" above 127 is an escape, ` + "`\\303`" + `, as PostgreSQL writes it from 15 on;
  in csv from older servers it is the byte itself.

Text that is not UTF-8, which only a SQL_ASCII database can hold, is a special value too (class ` + "`text`" + `); csv alone keeps such bytes.

What other programs can read of these types is in [readers.md](readers.md). For those that know no uuid or no time, ` + "`types.uuid: text` and `types.time: text`" + ` write the text.

Generated columns: a dump has them, but for csv, which leaves them out as COPY does. A run has them too ([run.md](run.md)): the log has stored ones from PostgreSQL 18 on, where the publication says
` + "`publish_generated_columns = stored`; the others the server computes from the rows that the log tells. `run.generated: leave_out`" + ` leaves those out.

## Policies

Some values have no place in a typed column: Parquet's dates know no infinity. For each class of them ` + "`dump.types.<class>`" + `, of a run ` + "`run.types.<class>`" + `, says what to do:

| policy | the value | the rest of the column |
| --- | --- | --- |
| ` + "`fail`" + ` (default) | the dump fails, naming table, column and setting; nothing is left behind | |
| ` + "`null`" + ` | becomes NULL, and is counted in the manifest (` + "`policy_applied`" + `) | typed, exact |
| ` + "`clamp`" + ` | becomes the nearest value the column has, and is counted; NULL where there is none (NaN). Dates stay within the years 1 to 9999, which all readers know | typed, exact |
| ` + "`text`" + ` | exact | the whole column is text, exact |
| ` + "`aside`" + ` (a run alone, its default) | becomes NULL, and its exact text stands in ` + "`_leat_special`" + ` of the same row, a map of column to text; counted in ` + "`leat status`" + ` and metrics | typed, exact |

Under ` + "`aside`" + ` the text is PostgreSQL's own (ISO dates, UTC); what is not UTF-8 is ` + "`\\x`" + ` and the hexadecimal digits of its bytes. An array with a special element goes aside as a whole. ` + "`money`" + ` in such an array has its digits alone.

Classes: ` + "`numeric`, `unbounded_numeric`, `date`, `time`, `timestamp`, `timestamptz`, `text`" + ` (fail, null or aside), ` + "`array`" + ` (no clamp; an element of a list follows its own
class). A value in an array is ruled for itself: the other elements stay. numeric without a precision is text unless
` + "`unbounded_numeric: decimal(p,s)`" + ` is set; with more than 38 digits of precision it always is. csv and jsonl need no policy.

## What was seen

Each type was written and read back by readers that share no code with leat, and PostgreSQL %d judged each value. The first line of a type says
how it is carried; NULL and ordinary values are exact everywhere. Lines below it are special values. STRING and JSON are Parquet's BYTE_ARRAY
with that annotation, FIXED its FIXED_LEN_BYTE_ARRAY; csv.gz and jsonl.gz are as csv and jsonl.

| type, special value | parquet | avro | csv | jsonl |
| --- | --- | --- | --- | --- |
`

var docKinds = []format.Kind{format.Parquet, format.Avro, format.CSV, format.JSONL}

// page writes docs/types.md from what was observed.
func (o *observed) page(t *testing.T, w *world) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, typesIntro, w.db.Server.Major)
	var names []string
	var last string
	flush := func() {
		if names != nil {
			fmt.Fprintf(&b, "| **%s** %s", cell(strings.Join(names, "; ")), last)
		}
	}
	for _, c := range w.cases { // types that are alike share a line
		var lines strings.Builder
		for _, kind := range docKinds {
			fmt.Fprintf(&lines, "| %s ", cell(short(o.how[c.name][string(kind)])))
		}
		lines.WriteString("|\n")
		o.specialLines(&lines, c)
		if lines.String() != last {
			flush()
			names, last = nil, lines.String()
		}
		names = append(names, c.name)
	}
	flush()
	return b.String()
}

// specialLines writes a line for all labels with the same fate.
func (o *observed) specialLines(b *strings.Builder, c typeCase) {
	labels := map[string][]string{}
	var order []string
	for _, s := range c.special {
		if o.specials[c.name+"\x00"+s.label] == nil {
			continue // this server does not have it yet
		}
		var fate strings.Builder
		for _, kind := range docKinds {
			fmt.Fprintf(&fate, "| %s ", cell(joinFates(o.specials[c.name+"\x00"+s.label][string(kind)])))
		}
		if labels[fate.String()] == nil {
			order = append(order, fate.String())
		}
		if !slices.Contains(labels[fate.String()], s.label) {
			labels[fate.String()] = append(labels[fate.String()], s.label)
		}
	}
	for _, fate := range order {
		fmt.Fprintf(b, "| – %s %s|\n", cell(strings.Join(labels[fate], "; ")), fate)
	}
}

func joinFates(fates []string) string {
	if len(fates) < 2 {
		return strings.Join(fates, "")
	}
	return fates[0] + " " + strings.Join(fates[1:], ", ")
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func (o *observed) compare(t *testing.T, w *world) {
	for _, pair := range [][2]format.Kind{{format.CSV, format.CSVGzip}, {format.JSONL, format.JSONLGzip}} {
		for name, how := range o.how {
			if how[string(pair[0])] != how[string(pair[1])] {
				t.Errorf("%s is %q in %s and %q in %s", name, how[string(pair[0])], pair[0], how[string(pair[1])], pair[1])
			}
		}
	}
	if !slices.ContainsFunc(w.cases, func(c typeCase) bool { return c.needs == "postgis" }) || w.db.Server.Major < 15 {
		t.Skip("docs/types.md is written on a machine that has PostgreSQL 15 with PostGIS")
	}
	path := testlab.RepoFile(t, "docs/types.md")
	page := o.page(t, w)
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Errorf("docs/types.md does not say what was seen; go test ./internal/dump -run TestTypes -update writes it\n%s", firstDifference(string(have), page))
	}
}

func firstDifference(have, want string) string {
	lines := strings.Split(have, "\n")
	for i, line := range strings.Split(want, "\n") {
		if i >= len(lines) || lines[i] != line {
			text, _ := json.Marshal(line)
			return fmt.Sprintf("line %d should be %s", i+1, text)
		}
	}
	return "it is too long"
}
