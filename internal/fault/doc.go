// Package fault holds errors that carry a decision: what happened, to which thing,
// how to mend it, whether a retry can heal it, and with which status the process ends.
//
// Its key type is [Fault]. Every error that reaches a user is one; it is made where the
// error is born, because only there is known what it means. Code further up adds places
// (fmt.Errorf with %w), never meaning, and nobody reads an error's text to learn its kind:
// use [Of] or [Is].
//
// The codes are registered in one table ([Codes]); docs/errors.md is written from it and a
// test holds the two together. The package imports nothing of ours.
package fault
