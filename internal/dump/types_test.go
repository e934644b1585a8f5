package dump_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// connect reaches the test's database as leat does.
func connect(t testing.TB, db *testlab.DB) *postgres.Source {
	t.Helper()
	u, err := url.Parse(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	source, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: db.Bare, Password: func() string { return password }})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func memory(t testing.TB) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// in chooses all relations of a schema.
func in(schemas ...string) postgres.Selection {
	return choose(func(n postgres.Name) bool { return slices.Contains(schemas, n.Schema) })
}

func choose(want func(postgres.Name) bool) postgres.Selection {
	return postgres.Selection{Choose: func(all []postgres.Name, _ []string) (picked []int, _ error) {
		for i, n := range all {
			if want(n) {
				picked = append(picked, i)
			}
		}
		return picked, nil
	}}
}

// taken is a dump that was made, and where.
type taken struct {
	*dump.Manifest
	bucket bucket.Bucket
}

// take dumps and fails the test when that fails.
func take(t testing.TB, source *postgres.Source, opts dump.Options) taken {
	t.Helper()
	b := memory(t)
	opts.LSN, opts.Compression = postgres.LSNApproximate, format.CodecSnappy
	m, err := dump.Run(t.Context(), source, b, opts)
	if err != nil {
		t.Fatalf("dump as %s: %v", opts.Format, err)
	}
	return taken{m, b}
}

// table finds a table of the manifest.
func (d taken) table(t testing.TB, schema, name string) dump.TableManifest {
	t.Helper()
	for _, table := range d.Tables {
		if table.Schema == schema && table.Name == name {
			return table
		}
	}
	t.Fatalf("the manifest has no table %s.%s", schema, name)
	return dump.TableManifest{}
}

// file returns the bytes of an object, without its gzip.
func (d taken) file(t testing.TB, key string) []byte {
	t.Helper()
	r, err := d.bucket.Open(context.Background(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var plain io.Reader = r
	if strings.HasSuffix(key, ".gz") {
		if plain, err = gzip.NewReader(r); err != nil {
			t.Fatal(err)
		}
	}
	data, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// ident quotes a name for SQL.
func ident(names ...string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
	}
	return strings.Join(quoted, ".")
}

// printed is a value as its type's output function writes it. A cast to text is not the same: it strips bpchar's
// padding and adds to inet.
func printed(value string) string {
	return "case when (" + value + ")::text is not null then format('%s', " + value + ") end collate \"C\""
}

// judge is the server that says whether what was read back is what was there. It keeps what was read back as
// PostgreSQL's input text, a table of text columns each time.
type judge struct {
	t      testing.TB
	db     *testlab.DB
	copyIn func(data []byte, sql string) error
	schema string
	n      int
}

func newJudge(t testing.TB, db *testlab.DB) *judge {
	t.Helper()
	back := "back" + db.One("select count(*) from pg_namespace") // nobody else makes schemas here
	db.Exec("create schema " + back)
	conn := db.Connect().PgConn()
	return &judge{t: t, db: db, schema: back, copyIn: func(data []byte, sql string) error {
		_, err := conn.CopyFrom(context.Background(), bytes.NewReader(data), sql)
		return err
	}}
}

// load reads a dumped table back, whatever its format, and returns the name of a table of text columns c0, c1, …
func (j *judge) load(d taken, table dump.TableManifest) string {
	j.t.Helper()
	j.n++
	name := fmt.Sprintf("%s.t%d", j.schema, j.n)
	columns := make([]string, len(table.Columns))
	for i := range columns {
		columns[i] = fmt.Sprintf("c%d text", i)
	}
	j.db.Exec("create table " + name + " (" + strings.Join(columns, ", ") + ")")
	for _, f := range table.Files {
		data := d.file(j.t, f.Key)
		switch kind := format.Kind(d.Format); {
		case kind.JSON():
			j.loadJSON(name, table, data)
			continue
		case kind == format.Parquet:
			data = csvOf(parquetRows(j.t, data, table))
		case kind == format.Avro:
			data = csvOf(avroRows(j.t, data, table))
		}
		if err := j.copyIn(data, "copy "+name+" from stdin (format csv)"); err != nil {
			j.t.Fatalf("%s: the server does not take %s back: %v", table.Name, f.Key, err)
		}
	}
	return name
}

// loadJSON lets json_populate_record read the lines into the table's own row type. It has no way back for hstore, whose
// pairs are put together again, and it writes the escapes of json anew, so json is taken from the line.
func (j *judge) loadJSON(name string, table dump.TableManifest, lines []byte) {
	j.t.Helper()
	j.db.Exec("drop table if exists " + name + "j; create table " + name + "j (line json)")
	// No JSON text holds these two control characters, so each line is one value.
	if err := j.copyIn(lines, "copy "+name+`j from stdin (format csv, delimiter E'\x02', quote E'\x01')`); err != nil {
		j.t.Fatalf("%s: the lines are not JSON: %v", table.Name, err)
	}
	row := ident(table.Schema, table.Name)
	values, record := make([]string, len(table.Columns)), "json_populate_record(null::"+row+", line)"
	for i, c := range table.Columns {
		values[i] = printed("(r)." + ident(c.Name))
		switch member := "line->'" + strings.ReplaceAll(c.Name, "'", "''") + "'"; {
		case c.Type == "public.hstore":
			values[i] = "case when json_typeof(" + member + ") <> 'null' then (select coalesce(hstore(array_agg(key), array_agg(value)), '') from json_each_text(" + member + "))::text end"
			record = "null::" + row
		case strings.HasPrefix(c.Type, "json") && c.Type != "jsonpath" && !strings.Contains(c.Type, "["):
			values[i] = "case when json_typeof(" + member + ") <> 'null' then (" + member + ")::" + c.Type + "::text end"
		}
	}
	if record == "null::"+row { // and so do the other columns of that table
		values[0] = "line->>'id'"
	}
	if len(values) > 0 {
		j.db.Exec("insert into " + name + " select " + strings.Join(values, ", ") + " from (select " + record + " r, line from " + name + "j offset 0) x")
		return
	}
	j.db.Exec("insert into " + name + " select from " + name + "j")
}

// same compares a dumped table with its source, row for row and both ways, and says whether all is well.
func (j *judge) same(d taken, table dump.TableManifest) bool {
	j.t.Helper()
	name := j.load(d, table)
	source, back := make([]string, len(table.Columns)), make([]string, len(table.Columns))
	for i, c := range table.Columns {
		source[i] = printed(ident(c.Name))
		back[i] = printed(fmt.Sprintf("c%d::%s", i, c.Type))
	}
	only := ""
	if table.Kind == "table" {
		only = "only "
	}
	from := "select " + strings.Join(source, ", ") + " from " + only + ident(table.Schema, table.Name)
	got := "select " + strings.Join(back, ", ") + " from " + name
	if len(table.Columns) == 0 { // EXCEPT wants a column
		from, got = strings.Replace(from, "select ", "select 1", 1), strings.Replace(got, "select ", "select 1", 1)
	}
	rows := j.db.Query("select (select count(*) from (" + from + ") s), (select count(*) from (" + got + ") g), " +
		"(select count(*) from (" + from + " except all " + got + ") l), (select count(*) from (" + got + " except all " + from + ") m)")
	r := rows[0]
	if fmt.Sprint(table.Rows) != r[0] {
		j.t.Errorf("%s.%s as %s: the manifest says %d rows, there are %s", table.Schema, table.Name, d.Format, table.Rows, r[0])
	}
	if r[0] != r[1] || r[2] != "0" || r[3] != "0" {
		j.t.Errorf("%s.%s as %s: the source has %s rows, %s came back; %s are lost and %s are new", table.Schema, table.Name, d.Format, r[0], r[1], r[2], r[3])
	}
	return r[0] == r[1] && r[2] == "0" && r[3] == "0"
}
