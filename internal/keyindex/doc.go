// Package keyindex maps the keys of a table to the places of their rows in the lake: a hash table on the local disk, so
// that its size is bounded by the disk and not by memory.
//
// A key is known by 128 bits of SipHash under a secret seed of the index's own, so that nobody can choose keys that
// collide. A place is a number below [MaxLocation]; what it means is the caller's.
//
// The file is an extendible hash table of 4 KiB pages that lies in mapped memory: a full page splits alone, nothing is
// ever rebuilt as a whole, and the kernel may take back whatever memory it needs. An index is a cache of what the lake
// holds. It is trusted only after [Index.CloseAt], and only for the snapshot named there: whatever else it finds, a crash or a
// power cut, [Open] gives an empty index that says [Index.NeedsRebuild].
package keyindex
