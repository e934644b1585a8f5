// Package dump carries tables, as they are at one moment, into objects of a bucket, and
// writes last the manifest that makes them a dump.
//
// Its one verb is [Run]; the order of its steps is the product and stands in dump.go:
//
//	claim (mark) ─► snapshot ─► sweep ─► plan ─► units (read ─► format ─► upload) ─► manifest ─► prune ─► unmark
//
// A unit is what is read by one COPY and tried again as a whole: a range of a table's
// pages. A typed unit becomes files of its own; text units of one table may be joined, in order,
// into one file.
//
// It keeps these invariants (docs/INVARIANTS.md): what is not committed is invisible and is
// swept (I-4); the manifest is written after everything it names, and goes before anything it names is
// touched (I-1); all rows belong to one snapshot (I-5); every use of a policy is counted in the
// manifest (I-6).
//
// It does not read the log, merge, or mirror.
package dump
