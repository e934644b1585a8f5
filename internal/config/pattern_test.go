package config_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/leatdata/leat/internal/config"
)

func TestPatternsMatchAsInPsql(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, schema, table string
		want                   bool
	}{
		{"public.orders", "public", "orders", true},
		{"public.orders", "public", "orders2", false},
		{"public.orders", "sales", "orders", false},
		{"orders", "any", "orders", true},
		{"public.*", "public", "", true},
		{"public.*", "public", "Odd Name", true},
		{"public.*", "publi", "c", false},
		{"*.*", "a", "b", true},
		{"*.audit_*", "x", "audit_", true},
		{"*.audit_*", "x", "audi", false},
		{"p?blic.o*s", "public", "orders", true},
		{"p?blic.o*s", "pblic", "orders", false},
		{"?", "x", "é", true},
		{"?", "x", "éé", false},
		{"*a*b*c", "x", "abcabc", true},
		{"*a*b*c", "x", "abcab", false},
		{"**", "x", "", true},
		{"Public.ORDERS", "public", "orders", true},
		{"Public.ORDERS", "Public", "ORDERS", false},
		{`"Public"."ORDERS"`, "Public", "ORDERS", true},
		{`pub"LIC".x`, "pubLIC", "x", true},
		{`sales."Odd Name"`, "sales", "Odd Name", true},
		{`sales."a.b"`, "sales", "a.b", true},
		{`sales."*"`, "sales", "*", true},
		{`sales."*"`, "sales", "x", false},
		{`sales."q""uote"`, "sales", `q"uote`, true},
		{`sales."Order"*`, "sales", "Orders", true},
		{"ÄRGER", "x", "Ärger", true},
		{"ÄRGER", "x", "ärger", false},
		{"日本.表*", "日本", "表一", true},
		{"tab[0-9](a|b)$", "x", "tab[0-9](a|b)$", true},
	} {
		p, err := config.ParsePattern(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		if got := p.Match(c.schema, c.table); got != c.want {
			t.Errorf("%s matches %s.%s: %v, want %v", c.pattern, c.schema, c.table, got, c.want)
		}
	}
}

func TestPatternsThatNameNothingAreRefused(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"", ".", "a.", ".a", "a..b", "a.b.c", `"`, `"a`, `""`, `a.""`, "a b", "a,b", " a", "a\x00", "\"a\x00\"", "a\xff", "a\tb", strings.Repeat("a", 600)} {
		if _, err := config.ParsePattern(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
	for _, s := range []string{"", "a", "a.b.c.d", "a.b.", `a."b`} {
		if _, err := config.ParseColumnPattern(s); err == nil {
			t.Errorf("column %q was taken", s)
		}
	}
}

func TestAnExactPatternTellsItsNames(t *testing.T) {
	t.Parallel()
	for pattern, want := range map[string][3]any{
		"Public.Orders":    {"public", "orders", true},
		`sales."Odd*Name"`: {"sales", "Odd*Name", true},
		"orders":           {"", "orders", true},
		"public.*":         {"", "", false},
		"p?.orders":        {"", "", false},
	} {
		p, err := config.ParsePattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		schema, name, exact := p.Exact()
		if got := [3]any{schema, name, exact}; got != want {
			t.Errorf("%s: got %v, want %v", pattern, got, want)
		}
		if p.Qualified() != strings.Contains(pattern, ".") || p.String() != pattern {
			t.Errorf("%s: qualified %v, written %s", pattern, p.Qualified(), p)
		}
	}
}

func TestColumnPatternsMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, schema, table, column string
		want                           bool
	}{
		{"public.orders.customer_id", "public", "orders", "customer_id", true},
		{"public.orders.customer_id", "public", "orders", "id", false},
		{"public.orders.customer_id", "sales", "orders", "customer_id", false},
		{"orders.*_id", "any", "orders", "customer_id", true},
		{`*.*."Odd Column"`, "a", "b", "Odd Column", true},
	} {
		p, err := config.ParseColumnPattern(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Match(c.schema, c.table, c.column); got != c.want {
			t.Errorf("%s matches %s.%s.%s: %v, want %v", c.pattern, c.schema, c.table, c.column, got, c.want)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("public.*", "orders")
	f.Add(strings.Repeat("*a", 200), strings.Repeat("a", 5000)+"b")
	f.Add(`"Odd ""Name"".".x?`, "x")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		p, err := config.ParsePattern(pattern)
		if err != nil {
			return
		}
		p.Match(name, name)
		if !utf8.ValidString(name) || name == "" || strings.ContainsRune(name, 0) || len(name) > 250 {
			return
		}
		quoted := `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
		q, err := config.ParsePattern("x." + quoted)
		if err != nil || !q.Match("x", name) {
			t.Fatalf("a quoted name must match itself: %q, %v", name, err)
		}
	})
}
