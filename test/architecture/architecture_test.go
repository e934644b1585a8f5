package architecture_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestThePackagesKeepTheRules(t *testing.T) {
	t.Parallel()
	pkgs := ourPackages(t)
	if len(pkgs) < 5 {
		t.Fatalf("only %d packages found", len(pkgs))
	}
	for _, broken := range violations(pkgs) {
		t.Error(broken)
	}
}

func TestTheShippedBinaryHoldsNothingOfTheTests(t *testing.T) {
	t.Parallel()
	deps := strings.Fields(string(goList(t, "-deps", "./cmd/leat")))
	if !slices.Contains(deps, module+"cmd/leat") {
		t.Fatal("cmd/leat is not in its own list")
	}
	for _, path := range deps {
		if hasPrefixOf(path, notShipped) || slices.ContainsFunc(notShipped, func(m string) bool { return strings.HasPrefix(path, m+"/v") }) {
			t.Errorf("leat links %s", path)
		}
	}
}

func TestEachRuleFindsWhatBreaksIt(t *testing.T) {
	t.Parallel()
	good := pkg{path: "internal/bucket", comments: []string{"doc.go"}}
	with := func(change func(*pkg)) pkg {
		p := good
		change(&p)
		return p
	}
	cases := []struct {
		name string
		pkg  pkg
		want string // the one violation, or none
	}{
		{"nothing wrong", good, ""},
		{"an allowed import", with(func(p *pkg) {
			p.imports = []string{"net/http", module + "internal/fault", "golang.org/x/oauth2/google"}
		}), ""},
		{"an unknown package", with(func(p *pkg) { p.path = "internal/util" }), "internal/util is not in the table mayImport"},
		{
			"an import against the direction", with(func(p *pkg) { p.imports = []string{module + "internal/dump"} }),
			"internal/bucket imports " + module + "internal/dump: the table mayImport does not allow it",
		},
		{
			"somebody else's third party", with(func(p *pkg) { p.imports = []string{"github.com/jackc/pgx/v5/pgconn"} }),
			"internal/bucket imports github.com/jackc/pgx/v5/pgconn: it belongs to [internal/postgres internal/lake internal/testlab bench demo]",
		},
		{
			"a third party without an owner", with(func(p *pkg) { p.imports = []string{"example.com/new"} }),
			"internal/bucket imports example.com/new: the table owners does not name its owner",
		},
		{
			"testing in code that ships", with(func(p *pkg) { p.imports = []string{"testing/iotest"} }),
			"internal/bucket imports testing/iotest: testing belongs in tests",
		},
		{
			"the lab in code that ships", with(func(p *pkg) {
				p.path, p.imports = "cmd/leat", []string{module + "internal/testlab"}
				p.command, p.comments = true, []string{"main.go"}
			}),
			"cmd/leat imports " + module + "internal/testlab: only tests, bench and demo may",
		},
		{"the lab in a test", with(func(p *pkg) { p.testImports = []string{module + "internal/testlab"} }), ""},
		{"the lab in the demo", with(func(p *pkg) { p.path, p.imports = "demo", []string{module + "internal/testlab"} }), ""},
		{
			"a server started past the lab", with(func(p *pkg) { p.testImports = []string{"github.com/versity/versitygw/embedgw"} }),
			"the tests of internal/bucket import github.com/versity/versitygw/embedgw: testlab starts it for them",
		},
		{
			"no package comment", with(func(p *pkg) { p.comments = nil }),
			"internal/bucket has its package comment in []: it must be in doc.go alone",
		},
		{
			"two package comments", with(func(p *pkg) { p.comments = []string{"bucket.go", "doc.go"} }),
			"internal/bucket has its package comment in [bucket.go doc.go]: it must be in doc.go alone",
		},
		{"a command", with(func(p *pkg) { p.path, p.command, p.comments = "cmd/leat", true, []string{"main.go"} }), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := strings.Join(violations([]pkg{c.pkg}), "\n")
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// ourPackages reads the packages of the module as the go command sees them.
func ourPackages(t *testing.T) []pkg {
	t.Helper()
	var pkgs []pkg
	for list := json.NewDecoder(bytes.NewReader(goList(t, "-json", "./..."))); ; {
		var p struct {
			ImportPath, Name, Dir              string
			GoFiles                            []string
			Imports, TestImports, XTestImports []string
		}
		if err := list.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, pkg{
			path:        strings.TrimPrefix(p.ImportPath, module),
			imports:     p.Imports,
			testImports: slices.Concat(p.TestImports, p.XTestImports),
			comments:    commented(t, p.Dir, p.GoFiles),
			command:     p.Name == "main",
		})
	}
}

// commented lists the files of a package that have a package comment.
func commented(t *testing.T, dir string, files []string) []string {
	t.Helper()
	var found []string
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		if file.Doc != nil {
			found = append(found, name)
		}
	}
	return found
}

func goList(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list"}, args...)...)
	cmd.Dir = filepath.Join("..", "..")
	var problem bytes.Buffer
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %s: %v\n%s", strings.Join(args, " "), err, problem.Bytes())
	}
	return out
}

// filesOf reads the Go files of a package, by their names from the module's root on.
func filesOf(t *testing.T, p pkg) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", p.path, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string][]byte{}
	for _, f := range files {
		if texts[p.path+"/"+filepath.Base(f)], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	return texts
}

// Every PostgreSQL session that leat opens has the settings of internal/session: each place that opens one is named here.
func TestSessionsAreOpenedWhereTheirSettingsAreSet(t *testing.T) {
	t.Parallel()
	opens := regexp.MustCompile(`\b(pgconn\.Connect\w*|pgx\.Connect\w*|pgxpool\.\w+|stdlib\.\w*Open\w*|sql\.Open)\(|\.dial\(`)
	want := map[string][]string{
		"internal/postgres/connect.go": {"pgconn.ConnectConfig("},       // dial itself
		"internal/postgres/session.go": {".dial("},                      // open
		"internal/lake/catalog_sql.go": {`sql.Open(`, "stdlib.OpenDB("}, // SQLite, and PostgreSQL with its settings
	}
	got := map[string][]string{}
	for _, p := range ourPackages(t) {
		if slices.Contains(forTests, p.path) || strings.HasPrefix(p.path, "test/") || p.path == "bench" || p.path == "demo" {
			continue
		}
		for name, text := range filesOf(t, p) {
			if !strings.HasSuffix(name, "_test.go") {
				for _, found := range opens.FindAll(text, -1) {
					got[name] = append(got[name], string(found))
				}
			}
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("sessions are opened in %v,\nand not only in %v", got, want)
	}
}

// A server of the lab may change the working folder, and a test beside it no longer finds a file by a relative path.
func TestFilesAreNotNamedByRelativePathsBesideServers(t *testing.T) {
	t.Parallel()
	relative := regexp.MustCompile(`"(\.\./\.\./|testdata/)\w[^"]*"`)
	beside := 0
	for _, p := range ourPackages(t) {
		if !slices.Contains(p.testImports, module+"internal/testlab") {
			continue
		}
		beside++
		for name, text := range filesOf(t, p) {
			if strings.HasSuffix(name, "_test.go") {
				for _, found := range relative.FindAll(text, -1) {
					t.Errorf("%s names %s: testlab.RepoFile gives a path that stays right", name, found)
				}
			}
		}
	}
	if beside < 5 {
		t.Errorf("only %d packages start servers", beside)
	}
}
