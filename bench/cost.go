//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cost is what one run took.
type cost struct {
	wall   time.Duration
	own    time.Duration // CPU of the command and of the processes it started, user and system
	server time.Duration // CPU of PostgreSQL's processes meanwhile
	rss    int64         // peak of the largest of the command's processes, bytes
	size   int64         // bytes left behind
}

// measure runs a command to its end.
func (c *cluster) measure(ctx context.Context, env []string, args ...string) (cost, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append([]string{"PATH=" + c.bin + ":" + os.Getenv("PATH"), "HOME=" + c.socket, "LC_ALL=C.UTF-8", "AWS_EC2_METADATA_DISABLED=true"}, env...)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	// A group of its own, so that a pipeline ends whole.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	before, err := c.cpu()
	if err != nil {
		return cost{}, err
	}
	began := time.Now()
	err = cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return cost{}, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	after, err := c.cpu()
	// The kernel's wait4 counts the command's own children in, as far as it has waited for them.
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return cost{
		wall: wall, own: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(),
		server: after - before, rss: usage.Maxrss << 10,
	}, err
}

// tick is the unit of CPU times in /proc: Linux shows them to programs in hundredths of a second everywhere.
const tick = 10 * time.Millisecond

// cpu is what all processes of the server have used since it started: those that live, by their own count, and
// those that ended, by the postmaster's count of children it has waited for.
func (c *cluster) cpu() (time.Duration, error) {
	postmaster := c.server.Process.Pid
	for range 100 {
		first, err := readStat(postmaster)
		if err != nil {
			return 0, err
		}
		living, err := childrenTicks(postmaster)
		if err != nil {
			return 0, err
		}
		second, err := readStat(postmaster)
		if err != nil {
			return 0, err
		}
		if first.reaped == second.reaped { // else a backend ended while we counted: it would count twice or not at all
			return time.Duration(second.own+second.reaped+living) * tick, nil
		}
	}
	return 0, fmt.Errorf("the server's backends come and go too fast to count their CPU time")
}

// stat is a line of /proc/<pid>/stat, as far as we need it; times are in ticks.
type stat struct {
	parent      int
	own, reaped int64
}

func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return stat{}, err
	}
	// The second field, the name, may hold anything, blanks and brackets included; the rest follows its last bracket.
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 15 {
		return stat{}, fmt.Errorf("/proc/%d/stat is too short: %q", pid, text)
	}
	var numbers [5]int64 // ppid is field 4; utime, stime, cutime, cstime are 14 to 17 (proc_pid_stat(5))
	for i, field := range []int{4, 14, 15, 16, 17} {
		if numbers[i], err = strconv.ParseInt(fields[field-3], 10, 64); err != nil {
			return stat{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	return stat{parent: int(numbers[0]), own: numbers[1] + numbers[2], reaped: numbers[3] + numbers[4]}, nil
}

func childrenTicks(parent int) (sum int64, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil && s.parent == parent { // a process that has ended meanwhile is no error
			sum += s.own
		}
	}
	return sum, nil
}
