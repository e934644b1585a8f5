// Package scratch gives large buffers that do not count as the process's memory: pages of files that have no name, which the kernel
// writes to disk when it needs the room. A value of a gigabyte so passes a process that may have half of one.
//
// Small buffers, and all where there is no such file (a full disk, a file system that cannot reserve room), are ordinary memory.
package scratch
