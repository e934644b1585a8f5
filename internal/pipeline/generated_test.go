package pipeline_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// TestGeneratedColumnsAreLeftOutAndSaidToBe: those that the log does not have, in the copy as in the log, until the server does not
// compute them any more. From 18 on leat's publication has stored ones.
func TestGeneratedColumnsAreLeftOutAndSaidToBe(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 18} {
		t.Run(testlab.Postgres(t, major).Name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, major, "--set", "run.generated=leave_out")
			b.db.Exec("create table plain (id int primary key, v int); create table sums (id int primary key, a int, twice int generated always as (a * 2) stored, k int); insert into sums (id, a) values (1, 1), (2, 2); insert into plain values (1, 1)")
			if major >= 18 {
				b.db.Exec("alter table sums add half int generated always as (a / 2) virtual")
			}
			check := testlab.Leat(t).Run(b.db.Env(), "check", "--for", "run", "--to", b.dir+"/lake", "--json", "--set", "run.generated=leave_out")
			r := b.mustCatchUp()
			for what, told := range map[string]string{"check": check.Stdout, "run": r.Stderr} {
				if !strings.Contains(told, "generated columns are left out") || strings.Contains(told, "twice") != (major < 18) || strings.Contains(told, "half") != (major >= 18) {
					t.Errorf("%s does not tell of them: %s", what, told)
				}
			}
			b.db.Exec("insert into sums (id, a) values (3, 3); update sums set a = 5 where id = 1")
			b.mustCatchUp()
			for name, l := range b.inLake("sums", "sums_history") {
				if slices.Contains(l.Columns, "twice") != (major >= 18) || slices.Contains(l.Columns, "half") {
					t.Errorf("%s has columns %v", name, l.Columns)
				}
			}
			if major >= 18 {
				b.db.Exec("alter table sums drop half")
			}
			b.db.Exec("alter table sums alter twice drop expression; insert into sums values (4, 4, 44); update sums set twice = 1 where id = 2")
			b.mustCatchUp()
			b.judge("sums", "plain")
			b.db.Exec("alter table plain add twice int generated always as (v * 2) stored; alter table plain add thrice int generated always as (v * 3) " + map[bool]string{true: "virtual", false: "stored"}[major >= 18] + "; insert into plain values (2, 2)")
			b.mustCatchUp()
			b.more = nil // now they are wanted
			if r := b.mustCatchUp(); warned(r.Stderr, "generated columns of it are followed") != 1 {
				t.Errorf("the table is not copied again: %s", r.Stderr)
			}
			b.db.Exec("update plain set v = 7 where id = 1")
			if r := b.mustCatchUp(); warned(r.Stderr, "") > 0 {
				t.Errorf("it warns: %s", r.Stderr)
			}
			b.judge("sums", "plain")
		})
	}
}
