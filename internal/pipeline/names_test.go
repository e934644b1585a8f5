package pipeline_test

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// oddNames are columns' names that another grammar refuses.
var oddNames = []string{"Key.a", "with space", "da-sh", "größe", "1st", `q"uote`, "sl/ash", "per%cent", "line\nbreak", "漢字", "a=b", "x, y", "𝔘", strings.Repeat("l", 63)}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// TestNamesThatAnotherGrammarRefusesArePartitionedByAndRead follows a table for each odd name, which is its key's name too, and whose lake
// is partitioned and sorted by it.
func TestNamesThatAnotherGrammarRefusesArePartitionedByAndRead(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	var columns []string
	settings := map[string][]string{}
	for i, name := range oddNames {
		columns = append(columns, quoted(name)+" text")
		b.db.Exec(fmt.Sprintf("create table odd_%d (%[2]s int primary key, v text); insert into odd_%[1]d select i, 'v' from generate_series(1, 20) i", i, quoted(name)))
		if !strings.Contains(name, "\n") { // a setting is one line
			settings["partition_by"] = append(settings["partition_by"], fmt.Sprintf("public.odd_%d = bucket(2, %s)", i, quoted(name)))
			settings["sort_by"] = append(settings["sort_by"], fmt.Sprintf("public.odd_%d = %s desc", i, quoted(name)))
		}
	}
	b.db.Exec(`create table "Odd.T" (id int primary key, "case" int, "CASE" int, "a.b" text, "a_x2Eb" text, ` + strings.Join(columns, ", ") + `)`)
	b.db.Exec(`insert into "Odd.T" (id, "case", "CASE", "a.b", "a_x2Eb") select i, i, -i, repeat('long', 100 * i), 'b/ä' || i % 2 from generate_series(1, 4) i`)
	settings["partition_by"] = append(settings["partition_by"], `public."Odd.T" = "a.b", "a_x2Eb", truncate(3, "x, y")`)
	file, err := json.Marshal(map[string]any{"lake": settings}) // JSON is YAML
	if err == nil {
		err = os.WriteFile(b.dir+"/leat.yaml", file, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.more = []string{"-f", b.dir + "/leat.yaml"}
	b.mustCatchUp()
	b.db.Exec(`update "Odd.T" set "x, y" = 'comma', "Key.a" = 'dot' where id < 3; delete from "Odd.T" where id = 4`)
	for i, name := range oddNames {
		b.db.Exec(fmt.Sprintf("update odd_%d set v = 'w' where %[2]s > 10; delete from odd_%[1]d where %[2]s = 3", i, quoted(name)))
	}
	b.mustCatchUp()

	spark := testlab.SparkCatalog(t, map[string]string{"type": "hadoop", "warehouse": "file://" + b.dir + "/lake"})
	for i, name := range oddNames {
		table := fmt.Sprintf("odd_%d", i)
		var want []string
		for _, r := range b.db.Query(fmt.Sprintf("select %s || '|' || v from odd_%d", quoted(name), i)) {
			want = append(want, r[0])
		}
		slices.Sort(want)
		if got := b.inLake(table)[table].chosen([]string{name, "v"}); !slices.Equal(got, want) {
			t.Errorf("%q: PyIceberg reads %v, the source has %v", name, got, want)
		}
		_, rows := spark.Query(fmt.Sprintf("select `%s`, v from %s.public.%s where `%[1]s` > 0", strings.ReplaceAll(name, "`", "``"), spark.Catalog, table))
		var got []string
		for _, r := range rows {
			got = append(got, r[0]+"|"+r[1])
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%q: Spark reads %v, the source has %v", name, got, want)
		}
	}
	all := append([]string{"id", "case", "CASE", "a.b", "a_x2Eb"}, oddNames...)
	var texts, want []string
	for _, name := range all {
		texts = append(texts, "coalesce("+quoted(name)+"::text, 'NULL')")
	}
	for _, r := range b.db.Query(`select concat_ws('|', ` + strings.Join(texts, ", ") + `) from "Odd.T"`) {
		want = append(want, r[0])
	}
	slices.Sort(want)
	if got := b.inLake("Odd~2ET")["Odd~2ET"].chosen(all); !slices.Equal(got, want) {
		t.Errorf("the lake has\n%s\nthe source has\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A table is called as at the source wherever it is printed, and is found by any way to write its name.
func TestATableIsCalledAsAtTheSource(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	b.db.Exec(`create schema "My Shop"; create table "My Shop"."we ird" (id int primary key); create table public."a.b" (id int primary key); create table plain (id int primary key)`)
	b.mustCatchUp()
	b.restate(func(saved map[string]any) { // a state of before the names were kept
		delete(stateOf(saved, "a%2Eb"), "schema")
		delete(stateOf(saved, "a%2Eb"), "table")
	})
	r := testlab.Leat(t).Run(b.db.Env(), "status", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot())
	for _, name := range []string{`  "My Shop"."we ird"  `, `  public."a.b"  `, "  public.plain  "} {
		if !strings.Contains(r.Stdout, name) {
			t.Errorf("status does not name %s:\n%s", name, r.Stdout)
		}
	}
	r = testlab.Leat(t).Run(b.db.Env(), "status", "--json", "--to", b.dir+"/lake", "--set", "run.slot="+b.slot())
	var report struct {
		Tables map[string]struct{ Schema, Table string }
	}
	if err := json.Unmarshal([]byte(r.Stdout), &report); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, table := range report.Tables {
		got[table.Schema+"/"+table.Table] = true
	}
	if len(got) != 3 || !got["My Shop/we ird"] || !got["public/a.b"] || !got["public/plain"] {
		t.Errorf("status --json names %v:\n%s", got, r.Stdout)
	}
	for _, name := range []string{"My Shop.we ird", `"My Shop"."we ird"`, "My%20Shop.we%20ird", `public."a.b"`, `"public"."plain"`} {
		b.ask("resync", "--table", name)
		if r := b.mustCatchUp(); strings.Count(r.Stderr, "copied table=") != 1 {
			t.Errorf("%s is not copied again:\n%s", name, r.Stderr)
		}
	}
	b.db.Exec(`drop table "My Shop"."we ird"`)
	if r := b.mustCatchUp(); !strings.Contains(r.Stderr, `table="My Shop.we ird"`) || strings.Contains(r.Stderr, "%20") {
		t.Errorf("a table is called by its key:\n%s", r.Stderr)
	}
}
