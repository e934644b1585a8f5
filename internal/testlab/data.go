package testlab

import (
	"os"
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
