// Package mirror carries the objects of one bucket to another and keeps the far side readable at every moment.
//
// Its key function is [Run]. Both sides are listed in the order of their keys and merged, so memory does not grow with the number
// of objects; what has to wait for its turn waits in a local file.
//
// Invariants:
//   - An object becomes visible at the far side whole, after its bytes were checked against what the source says of them.
//   - Data comes before what names it: an Iceberg table's pointer and a dump's manifest are written when all they lead to is there.
//   - Nothing is deleted that was not asked for, and nothing at all when a listing did not come to its end.
//   - One object that cannot be carried is set aside; the others go on.
//
// What it does not do: it never changes the source, and knows nothing of PostgreSQL.
package mirror
