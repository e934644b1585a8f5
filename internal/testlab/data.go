package testlab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Pagila returns the path of pagila.sql, a sample database with the oddities of real ones. DB.Load reads it.
func Pagila(t testing.TB) string {
	t.Helper()
	path := os.Getenv("LEAT_TEST_PAGILA")
	if path == "" {
		root, err := repoRoot()
		need(t, err)
		path = filepath.Join(root, "..", "shared", "data", "pagila", "pagila.sql")
	}
	if _, err := os.Stat(path); err != nil {
		// Not a part that hack/test-deps could install, so it is never more than a skip.
		t.Skip("pagila.sql is not here: set LEAT_TEST_PAGILA to its path")
	}
	return path
}

// Python returns a python that has pyarrow, duckdb, and fastavro with its codecs: readers of our files that
// share no code with us.
func Python(t testing.TB) string {
	t.Helper()
	path := os.Getenv("LEAT_TEST_PYTHON")
	if path == "" {
		path = filepath.Join(cacheDir(), "python", "bin", "python")
	}
	if _, err := os.Stat(path); err != nil {
		missing(t, "python with pyarrow, duckdb and fastavro", mendDeps)
	}
	if out, err := exec.Command(path, "-c", "import pyarrow, duckdb, fastavro, cramjam, backports.zstd").CombinedOutput(); err != nil {
		t.Fatalf("%s lacks a library: %v\n%s", path, err, out)
	}
	return path
}
