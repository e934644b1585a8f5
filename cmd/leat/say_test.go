package main_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/leatdata/leat/internal/testlab"
)

// hostileName clears the screen, ends the line, forges one of a log and turns the direction of writing.
const hostileName = "e\x1b[2J\u009b31m\nlevel=INFO msg=forged\r\u202e\u200b"

// hostileShell is a command to a shell, in each of its quotes.
const hostileShell = "; rm -rf ~ $(id) `id` '; id; ' #"

// obeyed is the first character in an output that a terminal obeys or hides, beside the ends of lines.
func obeyed(out string) (at string, found bool) {
	i := strings.IndexFunc(out, func(r rune) bool {
		return r != '\n' && (unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar)
	})
	if i < 0 {
		return "", false
	}
	return out[max(0, i-60):min(len(out), i+20)], true
}

func TestHostileNamesArePrintedEscapedByEveryVerb(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create table "` + hostileName + `" (id int primary key, "c` + hostileName + `" text); insert into "` + hostileName + `" values (1, 'a'); create table plain (id int primary key);
create table "no` + hostileName + `" (a int); create table "` + hostileShell + `" (id int primary key); create table "no ` + hostileShell + `" (a int)`)
	lakeAt, keys, far := t.TempDir(), t.TempDir(), t.TempDir()
	for _, name := range []string{"k" + hostileName, "bytes\xff\xfe", "plain"} {
		if err := os.WriteFile(filepath.Join(keys, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := "h_" + db.Name[max(0, len(db.Name)-36):]
	env := append(db.Env(), "XDG_CACHE_HOME="+t.TempDir(), "LEAT_RUN_WORK_DIR="+t.TempDir(), "LEAT_MIRROR_ATTEMPTS=1", "LEAT_RUN_WITHOUT_IDENTITY=skip")
	for _, verb := range []struct {
		args []string
		says string // of the hostile name, when it is printed
	}{
		{[]string{"dump", "--to", t.TempDir(), "--format", "parquet"}, ""},
		{[]string{"dump", "--to", t.TempDir(), "--format", "parquet", "--table", "none" + hostileName}, `e\x1b[2J`},
		{[]string{"dump", "--to", "s3://" + hostileName}, ""},
		{[]string{"dump", "--to", t.TempDir(), "--nonsense" + hostileName}, `e\x1b[2J`},
		{[]string{"check", "--to", t.TempDir()}, ""},
		{[]string{"check", "--for", "run", "--to", t.TempDir(), "--name", "o" + run[1:]}, `e\x1b[2J`},
		{[]string{"run", "--until-caught-up", "--to", lakeAt, "--name", run}, ""},
		{[]string{"status", "--to", lakeAt, "--name", run}, `e\x1b[2J`},
		{[]string{"resync", "--to", lakeAt, "--name", run, "--table", "public.x" + hostileName}, `e\x1b[2J`},
		{[]string{"resync", "--to", lakeAt, "--name", run, "--table", "public." + hostileName}, "resync"},
		{[]string{"resync", "--to", lakeAt, "--name", run, "--table", "public." + hostileShell}, "resync"},
		{[]string{"resync", "--to", lakeAt, "--name", run, "--table", "public.none" + hostileShell}, "usage-invalid"},
		{[]string{"lake", "maintain", "--to", lakeAt, "--name", run}, ""},
		{[]string{"mirror", keys, far, "--dry-run"}, `e\x1b[2J`},
		{[]string{"mirror", keys, far}, `e\x1b[2J`},
		{[]string{"mirror", keys + "/none" + hostileName, far}, ""},
		{[]string{"bucket", "audit", keys + "/none" + hostileName}, ""},
		{[]string{"-f", "/none/" + hostileName, "dump"}, `e\x1b[2J`},
		{[]string{"dump", "--set", "dump.none" + hostileName + "=1"}, `e\x1b[2J`},
	} {
		for _, how := range [][]string{nil, {"--json"}} {
			env := append(env, "LEAT_LOG_LEVEL=debug")
			r := testlab.Leat(t).Run(env, append(verb.args, how...)...)
			name := strings.Join(verb.args[:2], " ") + strings.Join(how, " ")
			for _, out := range []string{r.Stdout, r.Stderr} {
				if at, found := obeyed(out); found {
					t.Errorf("%s prints %q", name, at)
				}
				if strings.Contains(out, "\nlevel=INFO msg=forged") {
					t.Errorf("%s prints a line that the name forged:\n%s", name, out)
				}
			}
			all := r.Stdout + r.Stderr
			if how != nil {
				jsonLines(t, name, r.Stdout)
				told := regexp.MustCompile(`(?m)^.*"event":"set-aside".*"key_bytes":"Ynl0ZXP//g==".*$`) // and not the report alone
				if strings.HasPrefix(name, "mirror "+keys+"--") && !told.MatchString(r.Stdout) {
					t.Errorf("%s does not tell the bytes of a key that is no UTF-8:\n%s", name, r.Stdout)
				}
				continue
			}
			if !strings.Contains(all, verb.says) {
				t.Errorf("%s does not print the name:\n%s", name, all)
			}
		}
	}
}

// What is to be pasted is one command, about the very table.
func TestSQLToPasteIsSeenAndNamesTheVeryTable(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	tables := []string{"no" + hostileName, "plain", hostileShell, "Key.a\\"}
	for _, name := range tables {
		db.Exec(`create table "` + name + `" (a int)`)
	}
	r := testlab.Leat(t).Run(db.Env(), "check", "--for", "run", "--to", t.TempDir(), "--name", "p_"+db.Name[max(0, len(db.Name)-36):])
	hints := regexp.MustCompile(`ALTER TABLE (?:U&)?"(?:[^"]|"")*"\.(?:U&)?"(?:[^"]|"")*" REPLICA IDENTITY FULL;`).FindAllString(r.Stdout, -1)
	for _, sql := range hints {
		if at, found := obeyed(sql); found {
			t.Errorf("it prints %q", at)
		}
		db.Exec(sql)
	}
	for _, name := range tables {
		if got := db.One(`select relreplident::text from pg_class where relname = '` + strings.ReplaceAll(name, "'", "''") + `'`); got != "f" {
			t.Errorf("%q has the replica identity %q after %q:\n%s", name, got, hints, r.Stdout)
		}
	}
}

// jsonLines makes sure that every line is an object.
func jsonLines(t *testing.T, name, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%s --json: %v: %q", name, err, line)
		}
	}
}

func TestAllTextLeavesThroughOneFile(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	direct := regexp.MustCompile(`fmt\.F?[Pp]rint(f|ln)?\(|io\.WriteString\(|\.stdout\.Write\(|\.stderr\.Write\(`)
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || f == "say.go" {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if f == "main.go" && !strings.Contains(string(data), "stdlog.SetOutput(printableLines{") {
			t.Error("what libraries log goes to the terminal as it is")
		}
		if at := direct.FindIndex(data); at != nil {
			t.Errorf("%s writes without say.go, at %q", f, data[at[0]:min(len(data), at[1]+40)])
		}
	}
}
