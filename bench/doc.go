//go:build linux

// Command bench measures how fast leat dumps and how much memory it takes, against the programs that people
// use for the same today: make bench. README.md says how to run it and what came out.
//
// It starts a PostgreSQL of its own with a table like TPC-H's lineitem and keeps the data folder between runs.
// The key type is a [contender]: a command with a name. Those of one group run in turn, A B C A B C …, after one
// round that is not counted, so that a machine that slows down slows all of them.
//
// What it holds to: every counted run has a manifest with the right number of rows, or it is an error; files
// are removed and the disk is in step again before the next run begins; nothing outlives it. It needs Linux:
// the CPU time of the server's processes is read from /proc. It is not part of the binary that users get.
package main
