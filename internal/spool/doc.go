// Package spool keeps transactions of the log in the bucket while they wait, so that the database need not keep them: while
// a table is copied, or when the disk of the server would fill up. What it keeps are the raw messages; it does not look into
// them.
//
// A segment is one object. Its name says what is in it: FIRST-END-EPOCH-PART.spool, in hexadecimal; every transaction in it has its
// commit record at FIRST or later, and before END. So the names alone, in byte order, are the index. A transaction that
// is larger than a segment is cut into parts, PART 0 and on, with no other transaction in them; only the last part has an END
// that is larger than its FIRST, and without it, or any part before it of the same EPOCH, the transaction does not exist. What is
// written twice, after a crash or by a process that did not notice that it lost its lease, is read once.
//
// In a segment: the magic, then blocks of a length, a CRC-32C and zstd. Any segment can be read alone, because the
// definitions (Relation, Type) that its rows need are repeated in it.
package spool
