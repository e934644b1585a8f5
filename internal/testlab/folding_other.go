//go:build !linux

package testlab

import "testing"

// Folding needs Linux.
func Folding(t testing.TB) string {
	t.Helper()
	t.Skip("a file system is mounted: this takes Linux")
	return ""
}
