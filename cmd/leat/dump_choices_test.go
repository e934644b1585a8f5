package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// files are the data files of a dump of layout date, by their names.
func files(t *testing.T, out string) []string {
	t.Helper()
	found, err := filepath.Glob(out + "/????-??-??/*.gz")
	if err != nil {
		t.Fatal(err)
	}
	for i := range found {
		found[i] = filepath.Base(found[i])
	}
	slices.Sort(found)
	return found
}

func TestTheOldJobsFormHasAFileForEachTableThatIsNamed(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create table payment (id int, at date) partition by range (at);
create table payment_01 partition of payment for values from ('2026-01-01') to ('2026-02-01');
create table payment_02 partition of payment for values from ('2026-02-01') to ('2026-03-01') partition by list (id);
create table payment_02_1 partition of payment_02 default;
insert into payment values (1, '2026-01-05'), (2, '2026-02-05'), (3, '2026-02-06')`)
	for _, c := range []struct {
		tables, more string
		want         []string
	}{
		{"payment", "", []string{"payment.csv.gz"}},
		{"payment payment_01 payment_02", "", []string{"payment.csv.gz", "payment_01.csv.gz", "payment_02.csv.gz"}},
		{"payment payment_0*", "", []string{"payment.csv.gz"}}, // a pattern names no table
		{"payment", "LEAT_DUMP_PARTITIONS=leaf", []string{"public.payment_01.csv.gz", "public.payment_02_1.csv.gz"}},
	} {
		out := t.TempDir()
		r := testlab.Leat(t).Run(append(db.Env(), "TABLES="+c.tables, "S3_OUTPUT="+out, c.more), "dump")
		if r.Exit != 0 {
			t.Fatalf("%s: exit %d\n%s", c.tables, r.Exit, r.Stderr)
		}
		got := files(t, out)
		if !slices.Equal(got, c.want) {
			t.Errorf("TABLES=%q %s has the files %v, not %v", c.tables, c.more, got, c.want)
		}
		for _, name := range got {
			if name == "payment.csv.gz" {
				if rows := bytes.Count(gunzip(t, one(t, out+"/*/"+name)), []byte("\n")); rows != 3 {
					t.Errorf("TABLES=%q: payment has %d rows", c.tables, rows)
				}
			}
		}
	}
}

func TestWhatADumpLeavesOutIsSaidAndCanBeHad(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create table goods (id int primary key, price numeric(10,2), gross numeric(10,2) generated always as (price * 2) stored, sold bool, tags bool[]);
insert into goods values (1, 1.5, default, true, '{t}')`)
	const generated, bloom = "csv leaves generated columns out", "can have no Bloom filter get none"
	for _, c := range []struct {
		name string
		args []string
		exit int
		says []string
		not  []string
		csv  string
	}{
		{"csv", []string{"--format", "csv"}, 0, []string{generated, "public.goods.gross"}, nil, "1,1.50,t,{t}\n"},
		{"csv with generated columns", []string{"--format", "csv", "--set", "dump.csv_generated=true"}, 0, nil, []string{generated}, "1,1.50,3.00,t,{t}\n"},
		{"parquet", []string{"--format", "parquet"}, 0, nil, []string{generated, bloom}, ""},
		{"a filter by pattern", []string{"--bloom", "public.*.*"}, 0, []string{bloom, "sold, tags"}, nil, ""},
		{"a filter by name", []string{"--bloom", "public.goods.id"}, 0, nil, []string{bloom}, ""},
		{"a filter by a name that can have none", []string{"--bloom", "public.*.*", "--bloom", "public.goods.sold"}, 1, []string{"sold", "format-unusable"}, nil, ""},
	} {
		out := t.TempDir()
		r := testlab.Leat(t).Run(db.Env(), append([]string{"dump", "--to", out, "--table", "public.goods"}, c.args...)...)
		if (r.Exit != 0) != (c.exit != 0) {
			t.Errorf("%s: exit %d\n%s", c.name, r.Exit, r.Stderr)
		}
		for _, say := range c.says {
			if !strings.Contains(r.Stderr, say) {
				t.Errorf("%s: it does not say %q:\n%s", c.name, say, r.Stderr)
			}
		}
		for _, say := range c.not {
			if strings.Contains(r.Stderr, say) {
				t.Errorf("%s: it says %q:\n%s", c.name, say, r.Stderr)
			}
		}
		if c.csv != "" {
			got, err := os.ReadFile(one(t, out+"/*/public.goods/*.csv"))
			if err != nil || string(got) != c.csv {
				t.Errorf("%s: the file is %q, %v", c.name, got, err)
			}
		}
	}
}

// The header of a gzip file tells the fastest and the smallest level (RFC 1952, section 2.3.1: XFL).
func TestTheLevelOfGzipIsTheSettings(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table goods as select i from generate_series(1, 100) i")
	for level, xfl := range map[string]byte{"": 0, "1": 4, "7": 0, "9": 2} {
		out := t.TempDir()
		args := []string{"dump", "--to", out, "--table", "public.goods", "--format", "csv.gz"}
		if level != "" {
			args = append(args, "--set", "dump.gzip_level="+level)
		}
		if r := testlab.Leat(t).Run(db.Env(), args...); r.Exit != 0 {
			t.Fatalf("level %q: exit %d\n%s", level, r.Exit, r.Stderr)
		}
		got, err := os.ReadFile(one(t, out+"/*/public.goods/*.csv.gz"))
		if err != nil {
			t.Fatal(err)
		}
		if got[8] != xfl {
			t.Errorf("level %q: the header says %d, not %d", level, got[8], xfl)
		}
	}
}
