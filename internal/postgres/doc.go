// Package postgres is all that speaks PostgreSQL: connections, the catalog, one
// consistent snapshot for many readers, COPY decoded straight into Arrow columns, and the
// checks that leat check makes on a server.
//
// The way through it: [Connect] gives a [Source]; [Source.Snapshot] locks the chosen
// tables and fixes what all readers see, at an [change.LSN]; [NewPlan] decides how each
// column of a table is carried; [Snapshot.Reader] is one connection inside the snapshot,
// whose [Reader.Batches] decodes binary COPY into [change.Batch]es and whose [Reader.Text]
// hands over the server's own CSV or JSON.
//
// It keeps these invariants (docs/INVARIANTS.md): every row of a dump is seen by one snapshot
// (I-5); a value that cannot be carried exactly is an error or goes by a named policy,
// and is counted (I-6); memory is bounded whatever the size of a row (I-8); no lock stronger
// than ACCESS SHARE is ever taken (I-9).
//
// It writes no files, knows no buckets and chooses no formats.
package postgres
