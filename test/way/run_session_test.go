package way_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

func TestARunIsTheSameWhateverItsRoleSets(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			t.Parallel()
			db := testlab.Postgres(t, major)
			db.Exec(`set timezone = 'UTC'; create schema app; create type app.mood as enum ('sad', 'ok');
create table forms (id int primary key, f float8, g real, at timestamptz, d date, i interval, b bytea, m money, x xml, c regclass, a float8[], e app.mood, j jsonb, "Odd" text);
create table recent (id int primary key, at timestamptz); alter table recent replica identity full`)
			values := func(from, to string) string {
				return `insert into forms select g, 1.0 / g, 0.1 + g, '2026-02-03 04:05:06+00'::timestamptz + g * interval '1 hour', '2026-02-03', '-1 day 2 hours', '\x00ff',
 -1.5, '<a>1</a>', 'pg_class', array[1.0 / g, null], 'ok', '{"a": 1}', 'a\b''"' from generate_series(` + from + ", " + to + `) g;
insert into recent select g, '2026-01-01 00:00+00'::timestamptz + g * interval '1 minute' from generate_series(` + from + ", " + to + `) g`
			}
			db.Exec(values("1", "20"))
			plain, odd := newPipeline(t, db), newPipeline(t, db)
			role := db.Role("SUPERUSER")
			if n := db.Hostile(role.Name); n < 40 {
				t.Errorf("only %d settings were tried", n)
			}
			odd.env = db.EnvOf(role)
			odd.all[slices.Index(odd.all, db.Bare)] = role.Bare
			for i, p := range []*pipeline{plain, odd} {
				p.all[slices.Index(p.all, p.name)] += string(rune('a' + i)) // a slot of its own
				p.all = append(p.all, "--table", "public.*")
				p.settings("run: {row_filters: [\"public.recent = at >= '2026-01-01 00:10'\"]}")
				p.catchUp()
			}
			db.Exec(values("21", "40") + "; update forms set d = '2027-03-04', f = f + 0.1 where id % 3 = 0; delete from forms where id % 7 = 0; update recent set at = at + interval '5 minutes' where id = 7")
			for _, p := range []*pipeline{plain, odd} {
				p.catchUp()
			}
			for _, f := range []followed{plain.table("forms"), plain.table("recent")} {
				for _, name := range []string{f.name, f.name + "_history"} {
					f.name = name
					if strings.HasSuffix(name, "_history") {
						f.columns = append(slices.Clone(f.columns), "_leat_op")
					}
					want, got := plain.inLake(f), odd.inLake(f)
					if d := want.difference(got); d != "" || len(want) < 30 {
						t.Errorf("%d: %s is another one under the role's settings: %s", major, f, strings.NewReplacer("PostgreSQL", "an ordinary role", "the lake", "this role").Replace(d))
					}
				}
			}
		})
	}
}
