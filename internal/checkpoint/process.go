package checkpoint

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// process tells a process from every other one, as far as the system lets us; empty where it does not. It is what lets a
// pipeline that was killed start again at once on the same machine, instead of waiting for its own lease to run out.
type process struct {
	Boot  string `json:"boot,omitempty"`  // this run of this machine
	Space string `json:"space,omitempty"` // the PID namespace: a container's numbers mean nothing outside
	PID   int    `json:"pid,omitempty"`
	Start string `json:"start,omitempty"` // when it began, in ticks since boot: numbers are used again
}

func thisProcess() process {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // not Linux: stays empty
	space, _ := os.Readlink("/proc/self/ns/pid")
	return process{Boot: strings.TrimSpace(string(boot)), Space: space, PID: os.Getpid(), Start: startOf(os.Getpid())}
}

// startOf is field 22 of /proc/PID/stat; the second one is a name in brackets that may hold anything.
func startOf(pid int) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return ""
	}
	return fields[19]
}

// surelyDead says whether p was a process of this machine that has ended. Whatever cannot be known is no.
func (p process) surelyDead() bool {
	us := thisProcess()
	if p.Boot == "" || p.Space == "" || p.Start == "" || p.Boot != us.Boot || p.Space != us.Space {
		return false
	}
	if now := startOf(p.PID); now != "" {
		return now != p.Start
	}
	return syscall.Kill(p.PID, 0) == syscall.ESRCH
}
