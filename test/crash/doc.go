// Package crash proves what leat promises when things break: the process is killed, the wire is cut, the server
// restarts, the store fails, the disk is full, tables are locked, dropped or written to.
//
// Its key type is the judge: it looks at a bucket or folder as a stranger would, with a plain S3 client or os,
// JSON and a Parquet reader that is not ours, and knows nothing of the code under test.
//
// Kills come at random moments. The seed is printed; LEAT_TEST_SEED repeats a run, LEAT_TEST_LONG=1 makes fifty kills of each
// kind instead of five.
//
// It does not measure anything and holds no code that ships.
package crash
