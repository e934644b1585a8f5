package dump_test

import (
	"bytes"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

// The oldest and the newest major, and this machine's own.
var sessionMajors = []int{12, 0, 18}

// formats are all that a dump can be written in.
var formats = []format.Kind{format.Parquet, format.Avro, format.CSV, format.JSONL}

// content is what a dump holds, by object: the bytes of text, and the values of a typed file, which has the dump's own position in it.
func (d taken) content(t *testing.T) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, table := range d.Tables {
		for _, f := range table.Files {
			_, key, _ := strings.Cut(f.Key, "/") // below the dump's folder
			data := d.file(t, f.Key)
			switch format.Kind(d.Format) {
			case format.Parquet:
				out[key] = parquetRows(t, data, table)
			case format.Avro:
				out[key] = avroRows(t, data, table)
			default:
				out[key] = string(data)
			}
		}
	}
	return out
}

// as connects as a role.
func as(t *testing.T, r testlab.Role) *postgres.Source {
	t.Helper()
	source, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: r.Bare, Password: func() string { return r.Password }})
	if err != nil {
		t.Fatal(err)
	}
	return source
}

func TestADumpIsTheSameWhateverTheRoleAndTheDatabaseSet(t *testing.T) {
	t.Parallel()
	for _, major := range sessionMajors {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			w := newWorld(t, db)
			// What a view gives depends on the session that reads it.
			db.Exec(`create table src.days (d text); insert into src.days values ('02/01/2026'), ('02/03/2026');
create view src.computed as select to_char(123456.789, '999G999D99') n, to_char(d::date, 'TMMonth') m, d::date, 1.5::money, null = any(array[1]) a,
  pg_catalog.current_setting('lc_monetary') l, pg_catalog.current_setting('default_transaction_isolation') i from src.days`)
			plain, odd := db.Role(""), db.Role("")
			for _, r := range []testlab.Role{plain, odd} {
				db.Exec("grant usage on schema src to " + r.Name + "; grant select on all tables in schema src to " + r.Name)
			}
			if n := db.Hostile(odd.Name); n < 40 {
				t.Errorf("only %d settings were tried", n)
			}
			sameDumps(t, as(t, plain), as(t, odd))
			before := map[format.Kind]map[string]any{}
			for _, kind := range formats {
				before[kind] = take(t, w.source, dump.Options{Format: kind, Selection: in("src")}).content(t)
			}
			// Of the locale and of the order of day and month the database's word counts, for every role.
			db.Hostile("")
			for _, name := range []string{"lc_monetary", "lc_numeric", "lc_time", "DateStyle"} {
				db.Exec("alter database " + db.Name + " reset " + name)
			}
			later := as(t, plain)
			for _, kind := range formats {
				if got := take(t, later, dump.Options{Format: kind, Selection: in("src")}).content(t); !reflect.DeepEqual(got, before[kind]) {
					t.Errorf("as %s the database's settings change %s", kind, different(got, before[kind]))
				}
			}
		})
	}
}

func sameDumps(t *testing.T, plain, odd *postgres.Source) {
	t.Helper()
	for _, kind := range formats {
		opts := dump.Options{Format: kind, Selection: in("src")}
		want, got := take(t, plain, opts).content(t), take(t, odd, opts).content(t)
		if len(want) < 20 {
			t.Fatalf("only %d objects", len(want))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("as %s the role's settings change %s", kind, different(got, want))
		}
	}
}

// different names the objects in which two dumps differ.
func different(got, want map[string]any) string {
	var keys []string
	for key := range want {
		if !reflect.DeepEqual(got[key], want[key]) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return strings.Join(keys, ", ")
}

func TestCSVInTheRolesOwnFormIsWhatItsCopyGivesAndTheManifestSaysSo(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create schema src; create table src.t (f float8, at timestamptz, b bytea, i interval, c regclass);
insert into src.t values (0.1 + 0.2, '2026-03-01 12:00+00', '\x00ff', '-1 day 2 hours', 'pg_class'); insert into src.t select 1.0 / g, now(), null, null, null from generate_series(1, 5000) g`)
	role := db.Role("")
	db.Exec("grant usage on schema src to " + role.Name + "; grant select on all tables in schema src to " + role.Name)
	db.Hostile(role.Name)
	db.Exec("alter role " + role.Name + " in database " + db.Name + " reset client_encoding")
	opts := dump.Options{Format: format.CSV, Selection: in("src"), RoleForm: true, Layout: dump.LayoutDate}
	own := db.ConnectAs(role).PgConn()
	var want bytes.Buffer
	if _, err := own.CopyTo(t.Context(), &want, "copy src.t to stdout csv"); err != nil {
		t.Fatal(err)
	}
	d := take(t, as(t, role), opts)
	if got := string(d.file(t, d.Tables[0].Files[0].Key)); got != want.String() {
		t.Errorf("the dump begins with\n%.300s\nand the role's own COPY with\n%.300s", got, want.String())
	}
	for name, value := range map[string]string{"extra_float_digits": "-10", "DateStyle": "SQL, DMY", "TimeZone": "Asia/Kolkata", "bytea_output": "escape", "search_path": "shadow, pg_catalog"} {
		if d.TextSettings[name] != value {
			t.Errorf("the manifest says %s = %q", name, d.TextSettings[name])
		}
	}
	if lossy := postgres.Lossy(d.TextSettings); len(lossy) != 3 {
		t.Errorf("what loses digits, offsets and signs is %q", lossy)
	}
	// Unless the form is chosen, csv is exact and says nothing.
	opts.RoleForm = false
	d = take(t, as(t, role), opts)
	exact := string(db.Copy("copy src.t to stdout csv"))
	if got := string(d.file(t, d.Tables[0].Files[0].Key)); got != exact || d.TextSettings != nil {
		t.Errorf("exact csv begins with\n%.300s\nand not with\n%.300s\nand has the settings %v", got, exact, d.TextSettings)
	}
}
