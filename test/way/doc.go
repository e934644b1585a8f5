// Package way walks the whole way of leat run, from a PostgreSQL at work to tables that programs which are not ours read:
// the real binary, real servers, PyIceberg and Spark as judges, a catalog server that is not ours.
//
// The truth is PostgreSQL itself, asked in snapshots whose exact position in the log is known. Values are compared as
// PostgreSQL writes them in text.
//
// It does not break anything while it looks (test/crash does), measures nothing and holds no code that ships.
package way
