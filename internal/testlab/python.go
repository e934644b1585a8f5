package testlab

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Python returns a python that has pyarrow, duckdb, and fastavro with its codecs: readers of our files that
// share no code with us. A script is better run by RunPython, which loads these libraries once.
func Python(t testing.TB) string {
	t.Helper()
	path, err := usablePython()
	need(t, err)
	return path
}

// usablePython looks once whether the libraries are there: loading them takes a second.
var usablePython = sync.OnceValues(func() (string, error) {
	path := os.Getenv("LEAT_TEST_PYTHON")
	if path == "" {
		path = filepath.Join(cacheDir(), "python", "bin", "python")
	}
	if _, err := os.Stat(path); err != nil {
		return "", &notInstalled{"python with pyarrow, duckdb and fastavro", mendDeps}
	}
	if out, err := exec.Command(path, "-c", "import pyarrow, duckdb, fastavro, cramjam, backports.zstd").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s lacks a library: %w\n%s", path, err, out)
	}
	return path, nil
})

// RunPython runs a script as "python -c" would, in a process of its own, and returns what it prints. A script that fails
// fails the test. Its folder is not the package's: it is given whole paths.
func RunPython(t testing.TB, script string, args ...string) (stdout, stderr string) {
	t.Helper()
	python := Python(t)
	oneScriptHost.once.Do(func() { oneScriptHost.host, oneScriptHost.err = startScriptHost(python) })
	need(t, oneScriptHost.err)
	reply, err := oneScriptHost.host.run(script, args)
	if err != nil {
		t.Fatalf("the host of Python's scripts has died: %v\n%s", err, oneScriptHost.host.tail())
	}
	if reply.Status != 0 {
		t.Fatalf("a script of Python ends with %d:\n%s%s", reply.Status, reply.Stdout, reply.Stderr)
	}
	return reply.Stdout, reply.Stderr
}

var oneScriptHost struct {
	once sync.Once
	host *scriptHost
	err  error
}

// scriptHost is a Python process that has loaded the libraries. It forks itself for each script.
type scriptHost struct {
	*child
	socket string
}

//go:embed scripts.py
var scriptsScript string

// startScriptHost starts the process. It ends when its standard input does: with this process at the latest.
func startScriptHost(python string) (*scriptHost, error) {
	dir, err := scratch("py")
	if err != nil {
		return nil, err
	}
	h := &scriptHost{socket: filepath.Join(dir, "socket")}
	cmd := exec.Command(python, "-W", "ignore", "-c", scriptsScript, h.socket)
	cmd.Dir = dir
	// The numeric libraries start no threads, which a fork would lose.
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "LANG=C.UTF-8", "OPENBLAS_NUM_THREADS=1", "OMP_NUM_THREADS=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if h.child, err = start("Python", filepath.Join(dir, "log"), cmd, nil, syscall.SIGKILL); err != nil {
		return nil, err
	}
	onStop(func() {
		in.Close()
		<-h.done
	})
	return h, h.ready(func() error {
		_, err := h.run("", nil)
		return err
	})
}

// scriptReply is how a script ended and what it printed.
type scriptReply struct {
	Status         int
	Stdout, Stderr string
}

func (h *scriptHost) run(script string, args []string) (reply scriptReply, err error) {
	conn, err := net.Dial("unix", h.socket)
	if err != nil {
		return reply, err
	}
	defer func() { _ = conn.Close() }() // it has been read
	question := struct {
		Script string   `json:"script"`
		Args   []string `json:"args"`
	}{script, append([]string{}, args...)}
	if err := json.NewEncoder(conn).Encode(question); err != nil {
		return reply, err
	}
	return reply, json.NewDecoder(conn).Decode(&reply)
}
