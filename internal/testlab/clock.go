package testlab

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// SetClock is what LeatOnAClock heeds.
const SetClock = "LEAT_TEST_CLOCK"

// LeatOnAClock is leat whose wall clock LEAT_TEST_CLOCK sets: "3s:-1h" is an hour behind from the third second of the process on;
// the monotonic clock goes on, as when a machine's clock is set. For this the package time is patched and everything compiled
// anew, which takes minutes once.
func LeatOnAClock(t testing.TB) *Binary {
	t.Helper()
	path, err := clockLeat()
	need(t, err)
	return Program(t, path)
}

// In time.Now: where the wall clock's seconds are known and the monotonic clock is.
const (
	clockBefore = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	clockAfter  = clockBefore + "\tif runtimeNano()-startNano >= int64(labAfter) {\n\t\tsec += int64(labJump / Second)\n\t}\n"
	clockMore   = `
var labAfter, labJump = labClock()

func labClock() (after, jump Duration) {
	set, _ := syscall.Getenv("LEAT_TEST_CLOCK")
	for i := range len(set) {
		if set[i] != ':' {
			continue
		}
		var failed, failed2 error
		after, failed = ParseDuration(set[:i])
		jump, failed2 = ParseDuration(set[i+1:])
		if failed != nil || failed2 != nil {
			panic("LEAT_TEST_CLOCK: " + set)
		}
	}
	return after, jump
}
`
	clockImport = "import (\n"
)

var clockLeat = sync.OnceValues(func() (string, error) {
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	dir, err := scratch("clock")
	if err != nil {
		return "", err
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	original := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	text := string(source)
	for was, is := range map[string]string{clockBefore: clockAfter, clockImport: clockImport + "\t\"syscall\"\n"} {
		if strings.Count(text, was) != 1 {
			return "", fmt.Errorf("the text to patch is not in %s exactly once: %q", original, was)
		}
		text = strings.Replace(text, was, is, 1)
	}
	patched, overlay, path := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "leat")
	if err := os.WriteFile(patched, []byte(text+clockMore), 0o600); err != nil {
		return "", err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: patched}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-overlay", overlay, "-o", path, "./cmd/leat")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/leat on a clock: %w\n%s", err, out)
	}
	return path, nil
})
