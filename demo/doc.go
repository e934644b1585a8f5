// Command demo shows leat at work, on this machine alone: make demo.
//
// It starts a scratch PostgreSQL with a shop in it and an S3 server (internal/testlab), runs the real leat as
// a user would, prints each command before its output, and then reads every file back with readers that are
// not leat's own: Arrow's for Parquet, gunzip for CSV. If a row is missing it says so and fails.
//
// What it holds to: it downloads nothing itself (hack/test-deps installs PostgreSQL where there is none);
// everything listens on 127.0.0.1; servers and files are gone when it ends, however it ends. It is no part of
// the binary that users get, and it measures nothing: that is bench.
package main
