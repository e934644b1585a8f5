package main

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// garbagePercent is how much garbage may stand beside what is in use: buffers are used again, so
// little is made, and a small heap is worth more than a rare collection.
const garbagePercent = 50

// moreGarbage lets twice as much stand beside what is in use: a verb that holds little and makes much would do little else than collect.
func moreGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(2 * garbagePercent)
	}
}

// boundMemory keeps the heap below a container's limit, unless GOMEMLIMIT or GOGC say otherwise.
func boundMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64); err == nil && limit > 0 && limit < 1<<50 {
			debug.SetMemoryLimit(limit / 10 * 9)
			return
		}
	}
}
