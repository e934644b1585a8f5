package pipeline_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// retyping is a column v whose type is changed.
type retyping struct {
	was    string // its type
	values string // of it in the rows that are there: (1), (2), …
	alter  string // statements, of the table %s
	then   string // the value of a row that comes after
	copied bool   // only a copy can tell what the rows have now
}

// retypings are tables by name.
var retypings = map[string]retyping{
	"more_decimals":      {"numeric(14,2) not null", "(1.50), (-2.25), (0), (999999999.99)", "alter table %s alter v type numeric(14,4)", "1.2345", false},
	"fewer_decimals":     {"numeric(14,4)", "(1.2345), (2.5), (null)", "alter table %s alter v type numeric(14,2)", "1.25", true},
	"more_digits":        {"numeric(9,2)", "(1.50), (null)", "alter table %s alter v type numeric(12,2)", "1234567890.50", false},
	"to_numeric":         {"numeric(9,2)", "(1.50), (null)", "alter table %s alter v type numeric", "1.23456", true},
	"to_bigint":          {"int", "(1), (-2), (null)", "alter table %s alter v type bigint", "5000000000", false},
	"to_smallint":        {"bigint", "(1), (-2), (null)", "alter table %s alter v type smallint", "7", false},
	"int_to_numeric":     {"int not null", "(1), (-2), (2147483647)", "alter table %s alter v type numeric(14,3)", "1.125", false},
	"int_to_text":        {"bigint", "(1), (-2), (null)", "alter table %s alter v type text", "'three'", false},
	"int_to_varchar":     {"smallint", "(1), (-2), (null)", "alter table %s alter v type varchar(5)", "'three'", false},
	"text_to_int":        {"text", "('1'), ('-2')", "alter table %s alter v type int using v::int", "3", true},
	"to_double":          {"real", "(0.1), (2.5), (null)", "alter table %s alter v type double precision", "0.25", false},
	"longer":             {"varchar(5)", "('a'), (null)", "alter table %s alter v type varchar(50)", "'much longer'", false},
	"shorter":            {"varchar(10)", "('ab'), ('äöü   '), (null)", "alter table %s alter v type varchar(4)", "'xyz'", false},
	"to_text":            {"varchar(5)", "('a'), (null)", "alter table %s alter v type text", "'much longer'", false},
	"char_to_text":       {"char(5)", "('a'), (null)", "alter table %s alter v type text", "'much longer'", true},
	"date_to_timestamp":  {"date", "('2024-02-29'), ('1900-01-01'), (null)", "alter table %s alter v type timestamp", "'2024-01-02 03:04:05.5'", false},
	"to_timestamptz":     {"timestamp", "('2024-02-29 12:00'), (null)", "set timezone = 'Asia/Tokyo'; alter table %s alter v type timestamptz; reset timezone", "'2024-01-02 03:04:05+00'", true},
	"to_seconds":         {"timestamp", "('2024-02-29 12:00:00.75'), (null)", "alter table %s alter v type timestamp(0)", "'2024-01-02 03:04:05'", true},
	"json_to_jsonb":      {"json", `('{"b": 1,  "a": 2}'), (null)`, "alter table %s alter v type jsonb", `'{"c": 3}'`, true},
	"inet_to_text":       {"inet", "('1.2.3.4'), ('10.0.0.0/8')", "alter table %s alter v type text", "'x'", true},
	"enum_to_text":       {"mood", "('sad'), (null)", "alter table %s alter v type text", "'x'", false},
	"enum_to_enum":       {"mood", "('sad'), ('glad')", "alter table %s alter v type temper using v::text::temper", "'calm'", false},
	"enum_mapped":        {"mood", "('sad'), ('glad')", "alter table %s alter v type temper using case v when 'sad' then 'calm' else v::text end::temper", "'calm'", true},
	"domain_to_base":     {"posint", "(1), (2)", "alter table %s alter v type int", "-3", false},
	"base_to_domain":     {"bigint", "(1), (2)", "alter table %s alter v type posint", "3", false},
	"using_other":        {"numeric(14,2)", "(1.50), (2.25)", "alter table %s alter v type numeric(14,4) using v * 100", "1.2345", true},
	"using_in_place":     {"int", "(1), (2)", "alter table %s alter v type bigint using v * 1000", "5", true},
	"using_without_need": {"varchar(5)", "('a'), ('b')", "alter table %s alter v type text using upper(v)", "'c'", true},
	"using_of_one_row":   {"int", "(1), (2), (3), (4)", "alter table %s alter v type text using case v when 3 then 'three' else v::text end", "'five'", true},
	"using_then_more":    {"int", "(1), (2)", "alter table %s alter v type bigint using v * 1000; alter table %[1]s alter v set not null", "5", true},
	"using_then_renamed": {"int", "(1), (2)", "alter table %s alter v type bigint using v * 1000; alter table %[1]s rename v to w; alter table %[1]s rename w to v", "5", true},
	"twice":              {"int", "(1), (2)", "alter table %s alter v type numeric(12,2); alter table %[1]s alter v type numeric(12,4)", "1.2345", false},
	"dropped_and_made":   {"int", "(1), (2)", "alter table %s drop v; alter table %[1]s add v text default 'x'", "'y'", false},
	"updated_since":      {"numeric(14,2)", "(1.50), (2.25), (3)", "alter table %s alter v type numeric(14,4); update %[1]s set v = v + 0.0001 where id = 1; delete from %[1]s where id = 2", "1.2345", false},
	"key_too":            {"int", "(1), (2)", "alter table %s alter v type text, alter id type bigint", "'x'", true},
	"key_to_text":        {"int", "(1), (2)", "alter table %s alter id type text", "3", true},
}

func (b *bed) retypingTables() []string {
	b.db.Exec("create type mood as enum ('sad', 'glad'); create type temper as enum ('glad', 'calm', 'sad'); create domain posint as int check (value <> 0)")
	for name, r := range retypings {
		b.db.Exec(fmt.Sprintf("create table %[1]s (id int generated by default as identity primary key, v %[2]s, other text default 'o'); insert into %[1]s (v) values %[3]s; alter table %[1]s alter id drop identity", name, r.was, r.values))
	}
	return slices.Sorted(maps.Keys(retypings))
}

func (b *bed) retype() {
	for name, r := range retypings {
		for statement := range strings.SplitSeq(fmt.Sprintf(r.alter, name), "; ") {
			b.db.Exec(statement)
		}
		b.db.Exec(fmt.Sprintf("insert into %s (id, v) values (99, %s)", name, r.then))
	}
}

var copiedAgain = regexp.MustCompile(`table is copied anew.*?table=public\.(\w+)`)

func copiedTables(stderr string) []string {
	var names []string
	for _, m := range copiedAgain.FindAllStringSubmatch(stderr, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func needCopies() []string {
	var names []string
	for name, r := range retypings {
		if r.copied {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestTheCurrentRowsHaveTheirValuesInAColumnsNewType(t *testing.T) {
	t.Parallel()
	t.Run("while leat is away", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, 15)
		tables := b.retypingTables()
		b.mustCatchUp()
		b.retype()
		r := b.mustCatchUp()
		b.judge(tables...)
		if got, want := copiedTables(r.Stderr), needCopies(); !slices.Equal(got, want) {
			t.Errorf("copied again are\n%v, not\n%v\n%s", got, want, r.Stderr)
		}
		b.untold(tables)
	})
	t.Run("while leat runs", func(t *testing.T) {
		t.Parallel()
		b := newBed(t, 17, "--set", "lake.format_version=3")
		tables := b.retypingTables()
		b.mustCatchUp()
		p := b.start()
		b.retype()
		b.flushed(p)
		p.Signal(syscall.SIGTERM)
		p.Wait()
		b.mustCatchUp() // a copy may have been under way
		b.judge(tables...)
	})
}

func TestAUUIDOrATimeMayBecomeTextBetweenRuns(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	b.db.Exec(`create table by_uuid (id uuid primary key, v text); create table by_both (u uuid, t time, v int, primary key (u, t));
		create table beside (id int primary key, u uuid not null, t time); create table whole (u uuid, t time); alter table whole replica identity full`)
	tables, n := []string{"by_uuid", "by_both", "beside", "whole"}, 0
	change := func() {
		n++
		b.db.Exec(fmt.Sprintf(`insert into by_uuid select md5(%[1]d::text || g)::uuid, 'n%[1]d' from generate_series(1, 5) g;
			insert into by_both select md5(%[1]d::text || g)::uuid, '12:00'::time + g * interval '1.500001 s', %[1]d from generate_series(1, 5) g;
			insert into beside select %[1]d * 10 + g, md5(%[1]d::text || g)::uuid, '12:00'::time + g * interval '1 us' from generate_series(1, 5) g;
			insert into whole select md5((g / 2)::text)::uuid, '12:00' from generate_series(1, 5) g;
			update by_uuid set v = v || 'u' where id > '80000000-0000-0000-0000-000000000000'; delete from by_uuid where id < '20000000-0000-0000-0000-000000000000';
			update by_both set v = v + 100 where t > '12:00:04'; delete from by_both where t < '12:00:03.1' and t > '12:00:02';
			update beside set u = md5(id::text)::uuid where id %% 2 = 0; delete from beside where id %% 5 = 0;
			delete from whole where ctid = (select min(ctid) from whole); update whole set t = '13:00' where ctid = (select max(ctid) from whole)`, n))
	}
	for _, more := range [][]string{nil, {"--set", "run.types.uuid=text", "--set", "run.types.time=text"}, nil} {
		b.more = more
		change()
		b.mustCatchUp()
		b.judge(tables...)
		p := b.start()
		change()
		b.flushed(p)
		p.Signal(syscall.SIGTERM)
		p.Wait()
		b.mustCatchUp()
		b.judge(tables...)
	}
}
