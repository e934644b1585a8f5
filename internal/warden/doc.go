// Package warden makes a bucket keep the rules for carrying data out of a network, and proves that it does: encrypted, emptied after some
// days, closed to everybody without keys, and reached by keys that can do no more than their job.
//
// [Create] brings a bucket to the [Rules], [Audit] proves them by trying rather than by reading what the server says of itself, [Fix] mends
// what an audit found. [Draft] writes the least policy for a job, [Apply] makes it part of a bucket's. All of them stand on
// [bucket.Keeper] and know nothing of a server's protocol.
package warden
