package main_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// TestNoPackageMakesMuchWhenItIsInitialised: a start costs every command, also those that end at once. Go tells of each package what it took
// (GODEBUG=inittrace=1, pkg.go.dev/runtime).
func TestNoPackageMakesMuchWhenItIsInitialised(t *testing.T) {
	t.Parallel()
	r := testlab.Leat(t).Run([]string{"GODEBUG=inittrace=1"}, "version")
	if r.Exit != 0 {
		t.Fatalf("exit %d: %s", r.Exit, r.Stderr)
	}
	packages := regexp.MustCompile(`(?m)^init (\S+) .* (\d+) bytes, \d+ allocs$`).FindAllStringSubmatch(r.Stderr, -1)
	if len(packages) < 100 {
		t.Fatalf("%d packages are told of in %s", len(packages), strings.TrimSpace(r.Stderr))
	}
	for _, p := range packages {
		if n, err := strconv.Atoi(p[2]); err != nil || n > 4<<20 {
			t.Errorf("%s makes %s bytes (%v)", p[1], p[2], err)
		}
	}
}
