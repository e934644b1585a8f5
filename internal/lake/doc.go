// Package lake keeps tables in a data lake: Apache Iceberg tables, or plain files with a manifest.
//
// One source table becomes a history table (every change, appended), a current table (the latest row of each key, kept
// by position deletes), or both. Each kept table commits its data and its position in the write-ahead log together, as
// one new version of its metadata; after a crash it says itself where it stands. Nobody but one pipeline writes a
// table: a commit that finds a version it does not know ends in fault.LakeConflict and is never forced.
//
// All objects go through bucket.Bucket, also what the Iceberg library reads and writes, so that encryption, TLS and
// retries are the same everywhere. Only this package imports the Iceberg library.
package lake
