// Package testlab starts the real servers that tests talk to: PostgreSQL of every supported major, S3
// (versitygw, Ceph), Azure (azurite), GCS (fake-gcs-server), Iceberg catalogs (Nessie, Glue, Hive), and what stands between
// them and leat: a TCP proxy that spoils connections, an S3 proxy that answers by a script, and leat's own binary
// as a process; and readers of Iceberg tables that are not ours: Spark and PyIceberg.
//
// Its key types are [DB], a database of the test's own on a shared server; [Store], a bucket of the test's
// own; and [Binary], leat as users run it.
//
// What it holds to:
//   - One server of a kind per test process, started by the first test that asks. Tests share the server,
//     never a database, a bucket or a role.
//   - Nothing outlives the test process. [Main] stops everything in order; a killed process takes its
//     children along by their parent-death signal, and the next process sweeps its scratch folder.
//   - Everything listens on 127.0.0.1 only. PostgreSQL refuses to run as root: then it runs as "postgres" or
//     "nobody".
//   - Every password and key is one of the lab's known secrets. All output of leat is searched for them, and
//     a test whose output shows one fails.
//   - A part that is not installed skips the test with a line that says what to install. With
//     LEAT_TEST_STRICT=1, which make test sets, it fails instead.
//
// It downloads nothing (hack/test-deps does), holds no test data and mocks nothing. Only tests, bench and demo
// import it; test/architecture sees to that.
package testlab
