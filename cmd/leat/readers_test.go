package main_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

func TestCheckWarnsOfColumnsThatAReaderCannotRead(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create domain hour as time; create table visits (id uuid primary key, at time, each hour[], note text)")
	check := func(args ...string) (warned []string) {
		t.Helper()
		r := testlab.Leat(t).Run(db.Env(), append([]string{"check", "--to", t.TempDir(), "--json"}, args...)...)
		for line := range strings.SplitSeq(r.Stdout, "\n") {
			if strings.Contains(line, `"code":"reader"`) && strings.Contains(line, `"severity":"warn"`) {
				_, where, _ := strings.Cut(line, `"where":"`)
				where, _, _ = strings.Cut(where, `"`)
				warned = append(warned, strings.TrimPrefix(where, "public.visits."))
			}
		}
		return warned
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--readers", "spark"}, []string{"id", "at", "each"}},
		{[]string{"--readers", "spark,trino"}, []string{"id", "id", "at", "at", "each", "each"}},
		{[]string{"--readers", "spark", "--set", "dump.types.uuid=text", "--set", "dump.types.time=text"}, nil},
		{[]string{"--readers", "spark", "--set", "dump.format=csv"}, nil},
		{[]string{"--readers", "duckdb"}, nil},
		{nil, nil},
		{[]string{"--for", "run", "--readers", "spark"}, []string{"at", "each"}},
		{[]string{"--for", "run", "--readers", "trino"}, nil},
		{[]string{"--for", "run", "--readers", "trino", "--set", "lake.format_version=3"}, []string{"trino"}},
		{[]string{"--for", "run", "--readers", "spark", "--set", "dump.types.time=text"}, nil},
		{[]string{"--for", "run", "--readers", "spark", "--set", "run.types.time=text"}, nil},
		{[]string{"--for", "run", "--readers", "trino", "--set", "lake.target=files", "--set", "run.types.uuid=text"}, []string{"at", "each"}},
	} {
		if got := check(c.args...); !slices.Equal(got, c.want) {
			t.Errorf("check %v warns of %v, not %v", c.args, got, c.want)
		}
	}
	if r := testlab.Leat(t).Run(db.Env(), "check", "--to", t.TempDir(), "--readers", "excel"); r.Exit != 2 || !strings.Contains(r.Stderr, "excel") {
		t.Errorf("an unknown reader ends with %d: %s", r.Exit, r.Stderr)
	}
}
