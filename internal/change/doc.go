// Package change holds the words that all parts of leat speak: a [Table] and its
// [Column]s, an [LSN] and a [Position] in the write-ahead log, an [Op], and the [Batch]
// that flows from the database to the lake. It does no I/O and imports nothing of ours.
//
// Arrow is the shared tongue: a Batch is one Arrow record of one table. What Arrow's type
// system does not say (that a string is JSON, that sixteen bytes are a UUID) stands in
// field metadata under [LogicalKey]; PostgreSQL's own name of the type under [TypeKey].
package change
