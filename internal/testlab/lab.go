package testlab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// lab is what one test process holds.
var lab struct {
	mu    sync.Mutex
	lock  *os.File // held as long as the process lives; tells the next one that dir is in use
	dir   string
	stops []func()
}

// Main runs a package's tests, stops every server they started and ends the process. A package that uses
// testlab calls it from TestMain; without it the servers die with the process and the scratch folder stays
// until the next lab sweeps it.
func Main(m *testing.M) {
	code := m.Run()
	Stop()
	os.Exit(code)
}

// Stop stops every server of this process, the last started first, and removes the scratch folder.
func Stop() {
	lab.mu.Lock()
	stops, dir := lab.stops, lab.dir
	lab.stops, lab.dir = nil, ""
	lab.mu.Unlock()
	for i := len(stops) - 1; i >= 0; i-- {
		stops[i]()
	}
	if dir != "" {
		os.RemoveAll(dir)
	}
}

func onStop(f func()) {
	lab.mu.Lock()
	defer lab.mu.Unlock()
	lab.stops = append(lab.stops, f)
}

const scratchPrefix = "leat-lab-"

// scratch makes a new folder for a service below the lab's own. The path is short: the socket of a server
// lies in it, and a socket's path may have no more than 107 bytes.
func scratch(name string) (string, error) {
	lab.mu.Lock()
	defer lab.mu.Unlock()
	if lab.dir == "" {
		if err := openScratch(); err != nil {
			return "", fmt.Errorf("scratch folder: %w", err)
		}
	}
	dir, err := os.MkdirTemp(lab.dir, name+"-")
	if err != nil {
		return "", fmt.Errorf("scratch folder: %w", err)
	}
	// The server's unprivileged user must be able to walk in.
	return dir, os.Chmod(dir, 0o755)
}

func openScratch() error {
	root := os.TempDir()
	if len(root) > 40 {
		root = "/tmp"
	}
	sweep(root)
	dir, err := os.MkdirTemp(root, scratchPrefix)
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	lock, err := lockFile(dir)
	if err != nil {
		return err
	}
	lab.dir, lab.lock = dir, lock
	return nil
}

// lockFile takes the lock that marks a scratch folder as in use. The kernel drops it when the process ends,
// however it ends; children do not inherit it.
func lockFile(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// sweep removes what killed test processes left. A folder without a lock file is being made right now.
func sweep(root string) {
	old, _ := filepath.Glob(filepath.Join(root, scratchPrefix+"*", "lock"))
	for _, path := range old {
		if f, err := lockFile(filepath.Dir(path)); err == nil {
			os.RemoveAll(filepath.Dir(path))
			f.Close()
		}
	}
}

// cacheDir is where hack/test-deps puts what it downloads. The two must follow one rule.
func cacheDir() string {
	if dir := os.Getenv("LEAT_TEST_CACHE"); dir != "" {
		return dir
	}
	if os.Getuid() == 0 {
		return "/var/cache/leat-test"
	}
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return filepath.Join(dir, "leat-test")
	}
	return filepath.Join(os.Getenv("HOME"), ".cache", "leat-test")
}

// missing ends the test because a part is not installed: it skips, or fails where everything must be there.
func missing(t testing.TB, what, mend string) {
	t.Helper()
	if os.Getenv("LEAT_TEST_STRICT") == "1" {
		t.Fatalf("%s is not here: %s", what, mend)
	}
	t.Skipf("%s is not here: %s", what, mend)
}

// notInstalled is the error of a starter whose programs are not there.
type notInstalled struct{ what, mend string }

func (e *notInstalled) Error() string { return e.what + " is not here: " + e.mend }

const mendDeps = "run hack/test-deps (make test does)"

// began is the folder the process began in: its package's own. versitygw changes the working folder.
var began, errBegan = os.Getwd()

// repoRoot is the folder of go.mod, somewhere above the package's.
func repoRoot() (string, error) {
	dir, err := began, errBegan
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above the working folder")
		}
		dir = filepath.Dir(dir)
	}
}

// RepoFile is the absolute path of a file of this repository, such as "docs/types.md". A test that reads it by a
// path relative to its package's folder fails after another test has started a server that changes the working folder.
func RepoFile(t testing.TB, path string) string {
	t.Helper()
	root, err := repoRoot()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, filepath.FromSlash(path))
}

// FreeAddress is a port of 127.0.0.1 for a process that is told where to listen.
func FreeAddress(t testing.TB) string {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return address(port)
}

// freePort returns a port of 127.0.0.1 that nobody listens on. It lies below the range from which the kernel
// picks ports for outgoing connections, so that none of those takes it before the server does.
func freePort() (int, error) {
	for range 100 {
		var b [2]byte
		rand.Read(b[:])
		port := 20000 + (int(b[0])<<8|int(b[1]))%12000
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port between 20000 and 31999")
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// unique returns a name that no other test of any process uses: lower-case letters, digits and the
// separator, at most 50 bytes, so that it serves as a database, a role and a bucket.
func unique(t testing.TB, separator string) string {
	var b [4]byte
	rand.Read(b[:])
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(t.Name()))
	return "t" + separator + name[:min(len(name), 36)] + separator + hex.EncodeToString(b[:])
}
