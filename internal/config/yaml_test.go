package config_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
)

var update = flag.Bool("update", false, "write the expected messages, docs/config.md and docs/leat.schema.json anew")

// env is an environment with just these variables.
func env(pairs ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

// password is the secret that no message may show.
const password = "hunter2"

// examples is the environment that the files in testdata and docs refer to.
var examples = env("PASSWORD", password, "PGPASSWORD", password, "KEY_ID", "AKIAEXAMPLE", "KEY_SECRET", password,
	"KEY_TOKEN", password, "BUCKET", "egress", "EMPTY", "")

func TestEveryGoodFileLoads(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "testdata/*.yaml") {
		if strings.HasSuffix(path, ".bad.yaml") {
			continue
		}
		if _, err := config.Load(config.LoadOptions{Path: path, Env: examples}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestEveryBadFileIsRefusedInTheseWords(t *testing.T) {
	t.Parallel()
	for _, path := range files(t, "testdata/*.bad.yaml") {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".bad.yaml"), func(t *testing.T) {
			t.Parallel()
			_, err := config.Load(config.LoadOptions{Path: path, Env: examples})
			f := fault.Of(err)
			if f == nil {
				t.Fatalf("got %v, want a fault", err)
			}
			got := fmt.Sprintf("%s\n%s\nmend: %s\n", f.Code, err, f.HowToMend())
			if strings.Contains(got, password) {
				t.Error("the message shows the secret")
			}
			compare(t, strings.TrimSuffix(path, ".yaml")+".txt", []byte(got))
		})
	}
}

func TestAllKeysOfTheFullFileArrive(t *testing.T) {
	t.Parallel()
	c, err := config.Load(config.LoadOptions{Path: "testdata/full.yaml", Env: examples})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range config.Keys() {
		name := key.Path[strings.LastIndexByte(key.Path, '.')+1:]
		if !bytes.Contains(data, []byte(name+":")) {
			t.Errorf("full.yaml lacks %s", key.Path)
		}
	}
	connString, err := c.From.ConnString()
	if err != nil {
		t.Fatal(err)
	}
	for what, pair := range map[string][2]any{
		"conn string": {connString, `user='app' port='5433' host='db.example.com' dbname='shop' sslmode='verify-full' sslrootcert='/etc/leat/ca.pem' sslcert='/etc/leat/client.pem' sslkey='/etc/leat/client.key' connect_timeout='5'`},
		"password":    {c.From.Password.Reveal(), password},
		"name":        {c.From.ApplicationName, "leat-nightly"},
		"key id":      {c.To.AccessKeyID.Reveal(), "AKIAEXAMPLE"},
		"path style":  {c.To.PathStyle, config.ToggleTrue},
		"part size":   {c.To.PartSize, config.Size(10 << 20)},
		"tables":      {fmt.Sprint(c.Dump.Tables), `[public.* sales.orders sales."Odd Name"]`},
		"rate":        {c.Dump.MaxRate, config.Rate(50 << 20)},
		"mirror":      {c.Mirror.From.URL + " " + c.Mirror.To.URL, "s3://egress/app s3://dh-secure/app"},
		// What a run is told counts, then what a dump is told, then a run's own default.
		"run types":  {c.RunTypes(), config.RunTypes{Numeric: "fail", UnboundedNumeric: "decimal(38,9)", Date: "clamp", Time: "text", Timestamp: "null", Timestamptz: "clamp", UUID: "text", Array: "aside", Text: "aside"}},
		"one proxy":  {c.Mirror.To.Proxy, "http://other:3128"},
		"include":    {fmt.Sprint(c.Mirror.Include), "[*.parquet app/**]"},
		"lock":       {time.Duration(c.Dump.LockTimeout), 90 * time.Second},
		"numeric":    {c.Dump.Types.Numeric, config.PolicyNull},
		"timestamp":  {c.Dump.Types.Timestamp, config.PolicyNull},
		"unbounded":  {c.Dump.Types.UnboundedNumeric, config.UnboundedNumeric("decimal(38,9)")},
		"log format": {c.Log.Format, config.LogJSON},
		"filter":     {config.SettingOf(c.Run.RowFilters, "public", "orders"), "region = 'eu' and total > 0"},
		"no filter":  {config.SettingOf(c.Run.RowFilters, "public", "users"), ""},
		"catalog":    {c.Lake.Catalog.Type, config.CatalogREST},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
		}
	}
}

// Inputs that a parser could take minutes, gigabytes or its whole stack for.
func TestHostileFilesEndInAnError(t *testing.T) {
	t.Parallel()
	const n = 1 << 18
	fill := func(s string) string { return strings.Repeat(s, n/len(s)) }
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", c, c, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1, c-1)
	}
	for name, s := range map[string]string{
		"ten megabytes": "log: {level: info}\n" + strings.Repeat("# comment\n", 1<<20), "brackets": fill("["), "braces": fill("{a: "), "dashes": fill("- "),
		"question marks": fill("?\n"), "anchors": fill("&a\n"), "tags": fill("!a\n"), "colons": fill(": "), "same key": fill("a: 1\n"),
		"carriage returns": fill("a: b\r\n"), "bars": fill("|\n"), "zero bytes": fill("\x00"), "one line": fill("a"),
		"alias bomb": bomb, "alias bomb where lists stand": "dump:\n  tables: " + strings.ReplaceAll(bomb, "\n", "\n  "),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse("leat.yaml", []byte(s), config.LoadOptions{Env: env()})
			if f := fault.Of(err); f == nil || len(err.Error()) > 500 {
				t.Errorf("got %.600v, want a short fault", err)
			}
		})
	}
}

// quotedValue is a value of a connection string, which may well say password= itself.
var quotedValue = regexp.MustCompile(`'(\\.|[^'\\])*'`)

func FuzzConfig(f *testing.F) {
	for _, path := range files(f, "testdata/*.yaml") {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse("leat.yaml", data, config.LoadOptions{Env: examples})
		if err != nil {
			if fault.Of(err) == nil {
				t.Fatalf("%v is no fault", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("what was loaded is not valid: %v", err)
		}
		s, err := c.From.ConnString()
		if keys := quotedValue.ReplaceAllString(s, "''"); err != nil || strings.Contains(keys, "password=") {
			t.Fatalf("connection string %q, %v", s, err)
		}
	})
}

func files(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		t.Fatalf("no files like %s: %v", pattern, err)
	}
	return found
}

// compare holds got against a file of the repository, or writes it with -update.
func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; go test ./internal/config -update writes it anew\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}
