// Package buckettest is the contract of [bucket.Bucket]: the suite that every kind passes.
//
// Its key function is [Run]. It tries what a caller can see: when objects become visible, what a
// range or a listing holds, which conditions hold, what failures leave. It knows no server and
// looks at nothing but the port; faults on the wire are the business of the kinds' own tests.
package buckettest
