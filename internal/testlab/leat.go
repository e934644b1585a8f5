package testlab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Binary is leat as users run it: a process, its arguments, its environment.
type Binary struct {
	Path string
	t    testing.TB
}

// Process is one run of the binary.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	stdout transcript
	stderr transcript
	done   chan struct{}
}

// Result is how a run ended and what it said.
type Result struct {
	Exit   int // the exit status, or 128 + the signal that killed it, as the shell has it
	Stdout string
	Stderr string
}

// Leat builds cmd/leat once per process, or takes the binary that LEAT_TEST_BINARY names.
func Leat(t testing.TB) *Binary {
	t.Helper()
	path, err := builtLeat()
	need(t, err)
	return Program(t, path)
}

// Program is any other program, run and watched as leat is.
func Program(t testing.TB, path string) *Binary { return &Binary{Path: path, t: t} }

var builtLeat = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("LEAT_TEST_BINARY"); path != "" {
		// Opened, because go test takes a result from its cache while the files that the tests opened are as they were.
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		return path, f.Close()
	}
	root, err := repoRoot()
	if err != nil {
		return "", err
	}
	dir, err := scratch("bin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "leat")
	build := exec.Command("go", "build", "-o", path, "./cmd/leat")
	build.Dir = root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/leat: %w\n%s", err, out)
	}
	return path, nil
})

// Run runs leat to its end.
func (b *Binary) Run(env []string, args ...string) Result {
	b.t.Helper()
	return b.Start(env, args...).Wait()
}

// Start runs leat with the given environment and nothing of ours but PATH: no credentials, no home, no
// settings of the machine find their way in. A run that is still going when the test ends is killed.
func (b *Binary) Start(env []string, args ...string) *Process {
	b.t.Helper()
	home := b.t.TempDir()
	p := &Process{t: b.t, cmd: exec.Command(b.Path, args...), done: make(chan struct{})}
	p.cmd.Dir = home
	p.cmd.Env = append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, "GOCOVERDIR=" + os.Getenv("GOCOVERDIR"),
		"AWS_EC2_METADATA_DISABLED=true", // else the SDK asks the network who we are
	}, env...)
	p.stdout.grown, p.stderr.grown = make(chan struct{}, 1), make(chan struct{}, 1)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	need(b.t, spawn(p.cmd, nil, syscall.SIGKILL))
	go func() { // ends with the process
		_ = p.cmd.Wait() // ProcessState tells how it ended
		close(p.done)
	}()
	b.t.Cleanup(func() {
		p.Kill()
		NoSecrets(b.t, "leat's stdout", p.stdout.bytes())
		NoSecrets(b.t, "leat's stderr", p.stderr.bytes())
	})
	return p
}

// Signal sends a signal. It is not an error if the process has ended already.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("signal leat: %v", err)
	}
}

// Kill ends the process as kill -9 does and waits until it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stdout is what the process has written to its standard output so far.
func (p *Process) Stdout() string { return string(p.stdout.bytes()) }

// Stderr is what the process has written to its standard error so far.
func (p *Process) Stderr() string { return string(p.stderr.bytes()) }

// PeakMemory is the most memory that the running process has had, in bytes (VmHWM of proc(5)).
func (p *Process) PeakMemory() int64 {
	p.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	need(p.t, err)
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(after, &kib)
	need(p.t, err)
	return kib << 10
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end. A run that takes longer than the lab's patience fails the test: give tests of long
// runs a context of their own by WaitFor and Kill.
func (p *Process) Wait() Result {
	p.t.Helper()
	return p.WaitWithin(patience)
}

// WaitWithin is Wait with a patience of the caller's own.
func (p *Process) WaitWithin(limit time.Duration) Result {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		p.Signal(syscall.SIGQUIT) // Go prints every goroutine's stack
		<-p.done
		p.t.Fatalf("leat still runs after %s:\n%s%s", limit, p.stdout.bytes(), p.stderr.bytes())
	}
	r := Result{Exit: p.cmd.ProcessState.ExitCode(), Stdout: string(p.stdout.bytes()), Stderr: string(p.stderr.bytes())}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		r.Exit = 128 + int(status.Signal())
	}
	return r
}

// WaitFor waits until stdout or stderr shows the text. The end of the process without it fails the test.
func (p *Process) WaitFor(text string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		ended := false
		select {
		case <-p.done:
			ended = true
		default:
		}
		if p.stdout.contains(text) || p.stderr.contains(text) {
			return
		}
		if ended || ctx.Err() != nil {
			p.t.Fatalf("leat never says %q:\n%s%s", text, p.stdout.bytes(), p.stderr.bytes())
		}
		select {
		case <-p.stdout.grown:
		case <-p.stderr.grown:
		case <-p.done:
		case <-ctx.Done():
		}
	}
}

// transcript keeps what a process writes and tells when there is more.
type transcript struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{} // has room for one
}

func (o *transcript) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, err := o.text.Write(p)
	select {
	case o.grown <- struct{}{}:
	default:
	}
	return n, err
}

func (o *transcript) bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.text.Bytes())
}

func (o *transcript) contains(text string) bool { return strings.Contains(string(o.bytes()), text) }
