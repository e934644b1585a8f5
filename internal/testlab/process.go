package testlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// patience is how long a server may take to start, to end or to answer, and a run of leat to end. It is long because the machine may be busy;
// nothing waits for it to pass unless something is broken.
const patience = 4 * time.Minute

// child is a server that runs as a child of the test process.
type child struct {
	name string
	log  string // file with its output
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// spawner runs what it is given on one thread that lives as long as the process. Linux sends the
// parent-death signal when the thread that started the child ends, not the process; and the Go runtime may
// end any thread it likes except this one.
var spawner = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

// start runs cmd with its output in the file log. If the test process dies, the kernel sends the child
// deathSignal.
func start(name, log string, cmd *exec.Cmd, as *account, deathSignal syscall.Signal) (*child, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := spawn(cmd, as, deathSignal); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, log: log, cmd: cmd, done: make(chan struct{})}
	go func() { // ends with the child
		defer close(c.done)
		_ = cmd.Wait() // how a server ended is told by its log
	}()
	return c, nil
}

func spawn(cmd *exec.Cmd, as *account, deathSignal syscall.Signal) error {
	cmd.SysProcAttr = attributes(deathSignal)
	if as != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: as.uid, Gid: as.gid}
	}
	started := make(chan error)
	spawner() <- func() { started <- cmd.Start() }
	return <-started
}

// ready waits until probe succeeds. It gives up when the child ends or patience does, and then shows the
// end of the child's log.
func (c *child) ready(probe func() error) error {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := probe()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.done:
			return fmt.Errorf("%s ended while it started: %w\n%s", c.name, err, c.tail())
		case <-deadline.C:
			return fmt.Errorf("%s is not ready after %s: %w\n%s", c.name, patience, err, c.tail())
		}
	}
}

// stop asks the child to end and waits for it; a child that does not listen is killed.
func (c *child) stop(ask syscall.Signal) {
	if err := c.cmd.Process.Signal(ask); errors.Is(err, os.ErrProcessDone) {
		<-c.done
		return
	}
	select {
	case <-c.done:
	case <-time.After(patience / 3):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// tail is the end of the child's log.
func (c *child) tail() string {
	text, err := os.ReadFile(c.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// account is the system user a server runs as; nil means ours.
type account struct{ uid, gid uint32 }

// unprivileged returns the user for servers that refuse to run as root, or nil when we are not root.
func unprivileged() (*account, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &account{uint32(uid), uint32(gid)}, nil
	}
	return nil, errors.New("root needs a user named postgres or nobody for PostgreSQL's server")
}

// own gives a file or folder to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, int(a.uid), int(a.gid))
}
