package way_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// filtered is a table (id, v) whose rows come in three loads, and pairs of values that filters ask for.
type filtered struct {
	name   string
	sql    string    // the type of v in PostgreSQL
	loads  [3]string // expressions of g
	values [][2]string
	rows   int        // of a load; 0 is 20
	only   [][]string // the filters where all those of values would find too much
	old    string     // the kind of values that are why some cannot read the table
	likes  []string   // engines that compare some of these values in a way of their own
}

// floats have NaN, which PyArrow finds neither above nor below a number.
var floats = []string{"pyarrow"}

var filteredTables = []filtered{
	{name: "k_boolean", sql: "boolean", loads: [3]string{"true", "false", "null"}, values: [][2]string{{"true", "false"}}},
	{name: "k_smallint", sql: "smallint", loads: [3]string{"g", "g - 20", "null"}, values: [][2]string{{"3", "7"}, {"-20", "1000"}}},
	{name: "k_integer", sql: "integer", loads: [3]string{"g", "-2147483648 + g", "2147483647 - g"}, values: [][2]string{{"3", "7"}, {"-2147483647", "2147483646"}}},
	{name: "k_bigint", sql: "bigint", loads: [3]string{"g", "-9223372036854775808 + g", "9223372036854775807 - g"}, values: [][2]string{{"3", "7"}, {"-9223372036854775807", "9223372036854775806"}}},
	{name: "k_real", sql: "real", loads: [3]string{"case when g % 7 = 0 then 'NaN'::real else g end", "'-Infinity'::real", "-0.0::real * g"}, values: [][2]string{{"3", "7"}, {"NaN", "0"}, {"1000", "Infinity"}, {"-0.0", "0"}}, likes: floats},
	{name: "k_double", sql: "double precision", loads: [3]string{"case when g % 7 = 0 then 'NaN'::float8 else g end", "'NaN'::float8", "(-0.0)::float8"}, values: [][2]string{{"3", "7"}, {"NaN", "0"}, {"1000", "Infinity"}, {"0", "-0.0"}}, likes: floats},
	{name: "k_zeros", sql: "double precision", loads: [3]string{"g - 1", "case when g = 1 then '-0'::float8 else 'Infinity'::float8 end", "null"}, values: [][2]string{{"0", "5"}, {"-0.0", "0"}}, likes: floats},
	{name: "k_pages", sql: "double precision", loads: [3]string{"case when g = 5000 then 'NaN'::float8 else g end", "g", "null"}, rows: 40000, likes: floats, only: [][]string{
		{">", "50000"}, {">=", "50000"}, {"=", "NaN"}, {"=", "39000"}, {"between", "50000", "NaN"}, {"between", "38000", "38002"}, {"in", "39000", "NaN"}, {"<", "3"}, {"<=", "3"}, {"<", "1"}, {">", "39998"}, {"=", "0"},
	}},
	{name: "k_numeric", sql: "numeric(14,2)", loads: [3]string{"g * 1.25", "-g * 1000.01", "null"}, values: [][2]string{{"2.50", "3.75"}, {"-1000.01", "5000000.00"}}},
	{name: "k_numeric38", sql: "numeric(38,4)", loads: [3]string{"g * 1.25", "-g * 12345678901234567890123456789.0001", "g * 12345678901234567890123456789.0001"}, values: [][2]string{{"2.5", "3.75"}, {"-12345678901234567890123456789.0001", "12345678901234567890123456789.0001"}}},
	{name: "k_text", sql: "text", loads: [3]string{"repeat('a', 70) || g", "repeat(U&'\\+10FFFF', 20)", "case when g < 5 then '' else 'ä' || g end"}, values: [][2]string{{strings.Repeat("a", 70) + "3", strings.Repeat("a", 71)}, {strings.Repeat("\U0010FFFF", 20), ""}, {"ä7", "z"}}},
	{name: "k_bytea", sql: "bytea", loads: [3]string{"decode(repeat('ff', 80), 'hex')", "decode(lpad(to_hex(g), 2, '0'), 'hex')", "''::bytea"}, values: [][2]string{{`\x` + strings.Repeat("ff", 80), `\x03`}, {`\x`, `\x7f`}}},
	{name: "k_uuid", sql: "uuid", loads: [3]string{"(lpad(to_hex(g), 8, '0') || repeat('0', 24))::uuid", "('f' || lpad(to_hex(g), 7, '0') || repeat('9', 24))::uuid", "md5(g::text)::uuid"}, values: [][2]string{{"00000003-0000-0000-0000-000000000000", "f0000003-9999-9999-9999-999999999999"}, {"eccbc87e-4b5c-e2fe-2830-8fd9f2a7baf3", "80000000-0000-0000-0000-000000000000"}}},
	{name: "k_uuid_few", sql: "uuid", loads: [3]string{"(lpad(to_hex(g % 3), 8, '0') || repeat('0', 24))::uuid", "('f' || lpad(to_hex(g % 3), 7, '0') || repeat('9', 24))::uuid", "null"}, values: [][2]string{{"00000001-0000-0000-0000-000000000000", "f0000001-9999-9999-9999-999999999999"}, {"f0000000-0000-0000-0000-000000000000", "80000000-0000-0000-0000-000000000000"}}},
	{name: "k_date", sql: "date", loads: [3]string{"'2024-02-28'::date + g", "'1969-12-25'::date + g", "null"}, values: [][2]string{{"2024-03-01", "1970-01-01"}}},
	{name: "k_date_old", sql: "date", loads: [3]string{"'0001-01-01'::date + g", "'2024-02-28'::date + g", "null"}, values: [][2]string{{"0001-01-04", "1970-01-01"}}, old: format.KindOldDate},
	{name: "k_time", sql: "time", loads: [3]string{"'00:00'::time + g * interval '1 second'", "'23:59:59.999999'::time", "null"}, values: [][2]string{{"00:00:03", "23:59:59.999999"}}},
	{name: "k_timestamp", sql: "timestamp", loads: [3]string{"'2024-02-28 23:59:59.5'::timestamp + g * interval '1 s'", "'0969-12-31 23:59:55.123456'::timestamp + g * interval '1 s'", "null"}, values: [][2]string{{"2024-02-29 00:00:02.5", "0969-12-31 23:59:56.123456"}}},
	{name: "k_timestamptz", sql: "timestamptz", loads: [3]string{"'2024-02-28 23:59:59.5+00'::timestamptz + g * interval '1 s'", "'1969-12-31 23:59:55.123456+00'::timestamptz + g * interval '1 s'", "null"}, values: [][2]string{{"2024-02-29 00:00:02.5+00:00", "1969-12-31 23:59:56.123456+00:00"}}},
	{name: "k_timestamptz_old", sql: "timestamptz", loads: [3]string{"'2024-02-28 23:59:59.5+00'::timestamptz + g * interval '1 s'", "'1000-12-31 23:59:55.123456+00'::timestamptz + g * interval '1 s'", "null"}, values: [][2]string{{"2024-02-29 00:00:02.5+00:00", "1000-12-31 23:59:56.123456+00:00"}}, old: format.KindOldTimestamptz},
	{name: "k_jsonb", sql: "jsonb", loads: [3]string{"to_jsonb(g)", "'{}'::jsonb", "null"}},
	{name: "k_integers", sql: "integer[]", loads: [3]string{"array[g, null]", "'{}'::int[]", "null"}},
	{name: "k_doubles", sql: "double precision[]", loads: [3]string{"array[g, 'NaN'::float8]", "array['NaN'::float8]", "null"}},
	{name: "k_uuids", sql: "uuid[]", loads: [3]string{"array[md5(g::text)::uuid, null]", "'{}'::uuid[]", "null"}},
	{name: "k_times", sql: "time[]", loads: [3]string{"array['12:00'::time, null]", "'{}'::time[]", "null"}},
	{name: "k_interval", sql: "interval", loads: [3]string{"g * interval '1 day'", "g * interval '1 month'", "null"}},
}

// filters are those of a table: twelve with each pair of values.
func (f filtered) filters() [][]string {
	if f.only != nil {
		return f.only
	}
	out := [][]string{{"is null"}, {"is not null"}}
	for _, v := range f.values {
		for _, op := range []string{"=", "<>", "<", "<=", ">", ">="} {
			out = append(out, []string{op, v[0]})
		}
		out = append(out, []string{"between", v[0], v[1]}, []string{"between", v[1], v[0]}, []string{"in", v[0], v[1]}, []string{"not in", v[0], v[1]})
	}
	return out
}

// asked are the filters that a form is asked for: a third each, because all three have the same data files; all
// where there are few, and in the long form.
func (f filtered) asked(form format.Form) []int {
	var asked []int
	few := len(f.filters()) < 2*len(format.Forms)
	for i := range f.filters() {
		if few || i%len(format.Forms) == slices.Index(format.Forms, form) || os.Getenv("LEAT_TEST_LONG") != "" {
			asked = append(asked, i)
		}
	}
	return asked
}

// truth is what PostgreSQL finds.
func (f filtered) truth(db *testlab.DB) [][]int {
	var out [][]int
	for _, c := range f.filters() {
		where := "v " + c[0]
		var values []string
		for _, v := range c[1:] {
			values = append(values, "'"+v+"'::"+f.sql)
		}
		column := "v"
		if f.sql == "text" {
			column = `v collate "C"`
		}
		switch {
		case c[0] == "between":
			where = column + " between " + strings.Join(values, " and ")
		case len(values) == 2:
			where = column + " " + c[0] + " (" + strings.Join(values, ", ") + ")"
		case len(values) == 1:
			where = column + " " + c[0] + " " + values[0]
		}
		ids := []int{}
		for _, r := range db.Query("select id from " + f.name + " where " + where + " order by id") {
			id, _ := strconv.Atoi(r[0])
			ids = append(ids, id)
		}
		out = append(out, ids)
	}
	return out
}

// readerFiles are one database's tables in files of each form.
type readerFiles struct {
	leat   *testlab.Binary
	db     *testlab.DB
	folder string
	dump   string
}

// writeReaderFiles dumps the tables and follows them into lakes of both versions, in three loads, so that each has several files, and
// files of deletes.
func writeReaderFiles(t *testing.T) *readerFiles {
	t.Helper()
	db := testlab.Postgres(t)
	r := &readerFiles{leat: testlab.Leat(t), db: db, folder: t.TempDir()}
	for n := range 3 {
		for _, f := range filteredTables {
			if n == 0 {
				db.Exec(fmt.Sprintf("create table %s (id int generated by default as identity primary key, v %s)", f.name, f.sql))
			}
			db.Exec(fmt.Sprintf("insert into %s (v) select %s from generate_series(1, %d) g", f.name, f.loads[n], max(f.rows, 20)))
			if n == 2 {
				db.Exec(fmt.Sprintf("delete from %[1]s where id in (2, 22); update %[1]s set v = v where id in (3, 33)", f.name))
			}
		}
		for _, version := range []string{"2", "3"} {
			lake := filepath.Join(r.folder, "v"+version)
			r.do(t, "run", "--to", lake, "--name", "r"+version+"_"+db.Name[len(db.Name)-8:], "--keep", "current", "--work-dir", lake+"-work",
				"--set", "lake.format_version="+version, "--set", "run.maintain_interval=0s", "--until-caught-up")
		}
	}
	r.do(t, "dump", "--to", filepath.Join(r.folder, "dump"), "--format", "parquet", "--table", "public.*")
	dumps, err := filepath.Glob(filepath.Join(r.folder, "dump", "2*"))
	if err != nil || len(dumps) != 1 {
		t.Fatalf("dumps are %v, %v", dumps, err)
	}
	r.dump = dumps[0]
	return r
}

func (r *readerFiles) do(t *testing.T, args ...string) string {
	t.Helper()
	a := r.leat.Run(r.db.Env(), args...)
	if a.Exit != 0 {
		t.Fatalf("leat %v ends with %d: %s", args, a.Exit, a.Stderr)
	}
	return a.Stdout
}

func (r *readerFiles) question(form format.Form, f filtered, asked []int) testlab.EngineQuestion {
	q := testlab.EngineQuestion{Kind: "iceberg", Type: f.sql, Filters: [][]string{}}
	for _, i := range asked {
		q.Filters = append(q.Filters, f.filters()[i])
	}
	switch form {
	case format.FormParquet:
		q.Kind, q.Path = "parquet", filepath.Join(r.dump, "public."+f.name)
	case format.FormIcebergV2:
		q.Path = filepath.Join(r.folder, "v2", "public", f.name)
	case format.FormIcebergV3:
		q.Path = filepath.Join(r.folder, "v3", "public", f.name)
	}
	return q
}

// told is what leat check says that readers cannot read: by form, reader and table, "" for all tables.
type told map[format.Form]map[[2]string]string

func (r *readerFiles) told(t *testing.T) told {
	t.Helper()
	of := map[format.Form][]string{
		format.FormParquet:   {"--for", "dump", "--set", "dump.format=parquet"},
		format.FormIcebergV2: {"--for", "run"},
		format.FormIcebergV3: {"--for", "run", "--set", "lake.format_version=3"},
	}
	all := told{}
	for form, args := range of {
		all[form] = map[[2]string]string{}
		out := r.do(t, append(args, "check", "--json", "--to", t.TempDir(), "--readers", strings.Join(format.Readers, ","))...)
		for line := range strings.Lines(out) {
			var f struct{ Code, Severity, Where, What string }
			if err := json.Unmarshal([]byte(line), &f); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if f.Code == "reader" && f.Severity == "warn" {
				reader, why, _ := strings.Cut(f.What, " ")
				table := strings.TrimSuffix(strings.TrimPrefix(f.Where, "public."), ".v")
				if table == reader {
					table = ""
				}
				all[form][[2]string{reader, table}] = why[:strings.LastIndex(why, " (")]
			}
		}
	}
	return all
}

// cannot is why a reader cannot read a table, as leat check says it, or, of values that no check knows, the page; "" if it can.
func (s told) cannot(form format.Form, reader string, f filtered) string {
	if why := s[form][[2]string{reader, ""}]; why != "" {
		return why
	}
	if why := format.CannotRead(reader, form, f.old); why != "" {
		return why
	}
	return s[form][[2]string{reader, f.name}]
}

// readerOf is the program that an engine of the lab is for a form.
func readerOf(engine string, form format.Form) string {
	if engine == "pyarrow" && form != format.FormParquet {
		return "pyiceberg"
	}
	return engine
}

// Engines skip files, row groups and pages by what leat writes of them: minimum, maximum, counts, dictionaries.
func TestFiltersFindTheRowsThatPostgreSQLFinds(t *testing.T) {
	t.Parallel()
	files := writeReaderFiles(t)
	told := files.told(t)
	truths := map[string][][]int{}
	for _, f := range filteredTables {
		truths[f.name] = f.truth(files.db)
	}
	page := readersPage{told: told, versions: map[string]string{}}
	t.Run("engines", func(t *testing.T) {
		for _, engine := range testlab.Engines {
			t.Run(engine, func(t *testing.T) {
				t.Parallel()
				e := testlab.StartEngine(t, engine)
				page.add(engine, e.Version)
				for _, f := range filteredTables {
					for _, form := range format.Forms {
						asked := f.asked(form)
						a := e.Ask(files.question(form, f, asked))
						why := told.cannot(form, readerOf(engine, form), f)
						switch {
						case a.Error != "" && why == "":
							t.Errorf("%s cannot be read as %s: %.400s", f.name, form, a.Error)
						case a.Error == "" && why != "":
							t.Errorf("%s can be read as %s, but leat says that it %s", f.name, form, why)
						case a.Error == "":
							f.compare(t, engine, form, asked, a, truths[f.name])
						}
					}
				}
			})
		}
	})
	page.compare(t)
}

// compare holds what an engine found in the files against what it finds in its own copy of all rows, and against PostgreSQL.
func (f filtered) compare(t *testing.T, engine string, form format.Form, asked []int, a testlab.EngineAnswer, truth [][]int) {
	if want := 3*max(f.rows, 20) - 2; a.Rows != want {
		t.Errorf("%s has %d rows as %s, not %d", f.name, a.Rows, form, want)
	}
	for i, n := range asked {
		c := f.filters()[n]
		switch {
		case a.Files[i] == nil && a.Memory[i] == nil && engine == "pyarrow": // no such filter
		case !slices.Equal(a.Files[i], a.Memory[i]):
			t.Errorf("%s as %s, %v: the files give %s, all rows %s", f.name, form, c, some(a.Files[i]), some(a.Memory[i]))
		case !slices.Equal(a.Files[i], truth[n]) && !slices.Contains(f.likes, engine):
			t.Errorf("%s as %s, %v: the engine finds %s, PostgreSQL %s", f.name, form, c, some(a.Files[i]), some(truth[n]))
		}
	}
}

// some shows a list that may be long.
func some(ids []int) string {
	return fmt.Sprintf("%d rows %v", len(ids), ids[:min(len(ids), 70)])
}
