package way_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/testlab"
)

// rows are rows of a table as text, sorted.
type rows [][]string

func sorted(r [][]string) rows {
	slices.SortFunc(r, slices.Compare)
	return r
}

// difference shows the first rows that only one of two tables has, "" if they are equal.
func (r rows) difference(other rows) string {
	var b strings.Builder
	i, j, shown := 0, 0, 0
	for (i < len(r) || j < len(other)) && shown < 6 {
		switch {
		case j == len(other) || i < len(r) && slices.Compare(r[i], other[j]) < 0:
			fmt.Fprintf(&b, "\n  only PostgreSQL: %.300q", r[i])
			i, shown = i+1, shown+1
		case i == len(r) || slices.Compare(r[i], other[j]) > 0:
			fmt.Fprintf(&b, "\n  only the lake:   %.300q", other[j])
			j, shown = j+1, shown+1
		default:
			i, j = i+1, j+1
		}
	}
	if shown > 0 {
		fmt.Fprintf(&b, "\n  (%d rows in PostgreSQL, %d in the lake)", len(r), len(other))
	}
	return b.String()
}

// moment is the database as it was at an exact position: what committed before lsn is seen, nothing else.
type moment struct {
	lsn    int64
	tables map[string]rows // by schema.name, columns in the order of pick
}

// followed is a table of the test: its name, the columns that are compared, and its key, nil for the whole row.
type followed struct {
	schema, name string
	columns, key []string
}

func (f followed) String() string { return f.schema + "." + f.name }

// tables lists the tables of a database that are no partitions, with the columns that the log carries.
func tables(db *testlab.DB) []followed {
	var all []followed
	for _, r := range db.Query(`select n.nspname, c.relname,
 (select string_agg(attname, ',' order by attnum) from pg_attribute a where a.attrelid = c.oid and attnum > 0 and not attisdropped and attgenerated = ''),
 (select string_agg(attname, ',' order by attnum) from pg_index i join pg_attribute a on a.attrelid = c.oid and a.attnum = any(i.indkey::int2[])
  where i.indrelid = c.oid and i.indisprimary and array_position(i.indkey::int2[], a.attnum) < i.indnkeyatts)
 from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where relkind in ('r', 'p') and not relispartition and nspname not in ('pg_catalog', 'information_schema') order by 1, 2`) {
		f := followed{schema: r[0], name: r[1], columns: strings.Split(r[2], ",")}
		if r[3] != testlab.Null {
			f.key = strings.Split(r[3], ",")
		}
		all = append(all, f)
	}
	return all
}

// looks numbers the slots of look: one goes a moment after its session has ended.
var looks atomic.Int64

// look takes a moment: a new slot exports a snapshot and tells its position. Transactions go on meanwhile.
func look(t testing.TB, db *testlab.DB, of []followed) moment {
	t.Helper()
	ctx := context.Background()
	config, err := pgconn.ParseConfig(db.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.RuntimeParams["replication"] = "database"
	logical, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	defer logical.Close(ctx)
	made, err := logical.Exec(ctx, fmt.Sprintf("CREATE_REPLICATION_SLOT %s_look_%d TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT", db.Name[:min(len(db.Name), 40)], looks.Add(1))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	slot := made[0].Rows[0]
	conn := db.Connect()
	if _, err := conn.Exec(ctx, "set timezone = 'UTC'; begin isolation level repeatable read, read only; set transaction snapshot '"+string(slot[2])+"'"); err != nil {
		t.Fatal(err)
	}
	m := moment{lsn: parseLSN(t, string(slot[1])), tables: map[string]rows{}}
	for _, f := range of {
		m.tables[f.String()] = sorted(read(t, conn, f))
	}
	if err := conn.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t testing.TB, conn *pgx.Conn, f followed) (all [][]string) {
	t.Helper()
	ctx := context.Background()
	arrays := conn.PgConn().ExecParams(ctx, "select attname from pg_attribute a join pg_type y on y.oid = atttypid where attrelid = $1::regclass and typcategory = 'A'",
		[][]byte{[]byte(pgx.Identifier{f.schema, f.name}.Sanitize())}, nil, nil, nil).Read()
	if arrays.Err != nil {
		t.Fatal(arrays.Err)
	}
	columns := make([]string, len(f.columns))
	for i, c := range f.columns {
		columns[i] = pgx.Identifier{c}.Sanitize()
		if slices.ContainsFunc(arrays.Rows, func(r [][]byte) bool { return string(r[0]) == c }) {
			columns[i] = "to_json(" + columns[i] + ")"
		}
	}
	result := conn.PgConn().ExecParams(ctx, "select "+strings.Join(columns, ", ")+" from "+pgx.Identifier{f.schema, f.name}.Sanitize(), nil, nil, nil, nil).Read()
	if result.Err != nil {
		t.Fatal(result.Err)
	}
	for _, values := range result.Rows {
		row := make([]string, len(values))
		for i, v := range values {
			row[i] = testlab.Null
			if v != nil {
				row[i] = string(v)
			}
		}
		all = append(all, row)
	}
	return all
}

func parseLSN(t testing.TB, s string) int64 {
	t.Helper()
	high, low, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseInt(high, 16, 64)
	l, err2 := strconv.ParseInt(low, 16, 64)
	if !ok || err1 != nil || err2 != nil {
		t.Fatalf("%q is no position", s)
	}
	return h<<32 | l
}

// pick takes columns by name, in the given order, and sorts the rows.
func pick(t testing.TB, what string, names []string, all [][]string, want []string) rows {
	t.Helper()
	places := make([]int, len(want))
	for i, c := range want {
		if places[i] = slices.Index(names, c); places[i] < 0 {
			t.Fatalf("%s has no column %s, only %v", what, c, names)
		}
	}
	out := make([][]string, len(all))
	for i, r := range all {
		out[i] = make([]string, len(want))
		for j, p := range places {
			out[i][j] = r[p]
		}
	}
	return sorted(out)
}

func readAll(t testing.TB, r io.Reader) []byte {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
