// Package bucket is one narrow port to object stores, and five kinds of them: S3 (AWS, Ceph, and
// whatever speaks its protocol), Google Cloud Storage, Azure Blob Storage, a local folder, and
// memory.
//
// Its key type is [Bucket]; [Open] makes one from a URL. Sub-package buckettest holds the suite
// that every kind passes: it is the contract, the comments here quote it.
//
// Invariants:
//   - An object is visible whole or not at all. What fails or is cancelled leaves nothing visible,
//     and what it began on the server is aborted; what a killed process left, Sweep finds.
//   - A condition (IfAbsent, IfMatch) holds or the write is refused. A server that does not know
//     conditions is found out by trying; it never silently overwrites.
//   - Memory is bounded: an upload holds at most PartParallel+1 part buffers, a listing two pages
//     (for a folder: the names of the folders on one path).
//   - A server that stops answering is given up after Options.Stall; a cancelled context is obeyed
//     within Options.Grace.
//   - A secret never stands in an error, in Properties or in a log: the package logs nothing, and
//     errors are built from codes and messages, never from URLs with queries.
//
// Every object leat writes carries the metadata key "leat-write" with a random value (on S3, GCS
// and Azure). It answers the one question a lost reply leaves open: was that write mine? Stat
// does not show it.
//
// What it does not do: it keeps no cache, compresses and encrypts nothing itself, changes no
// bucket settings, and knows nothing of tables or dumps.
package bucket
