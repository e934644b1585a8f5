// Package format turns records into immutable files: Parquet and Avro from Arrow records, and
// gzip around the text that PostgreSQL itself writes.
//
// Its key type is [Writer]; [NewTyped] makes one by [Kind]. The Parquet encoder is our own, since
// it must be quick and hold little: pages are encoded and compressed as rows come, only
// compressed pages of the open row group are kept, and buffers are used again.
//
// Invariants: a record's buffers are free again when Write returns; a value is carried exactly or
// not at all (fault.TypeUncarriable, fault.ValueUncarriable); memory is bounded by constants
// and the largest row, never by the number of rows; equal records give equal files; after a failed
// Write the file is never ended as if it were whole.
//
// It reads no files, opens none, and knows neither buckets nor PostgreSQL.
package format
