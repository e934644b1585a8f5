// Package pipeline is leat run: the order of the steps from the write-ahead log to the lake.
//
// The order is the product (docs/INVARIANTS.md): whole transactions are read, written to files, committed to the lake
// together with their position, then the pipeline's own position is saved, and only then the source is acknowledged.
// After any failure the position is read back from where it is durable: from each table in the lake, and from the saved state.
//
//	follow.go  the loop over the log: apply, commit, save, acknowledge
//	table.go   one table: its shape, its builder, its place in the lake
//	copy.go    the first copy, resumable, beside the stream
//	drain.go   the spool of what happened to a table while it was copied
//	care.go    heartbeat, guard of the server's disk, requests of the operator, maintenance
package pipeline
