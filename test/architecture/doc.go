// Package architecture holds the law of imports, as a test: which package may import which, which package owns
// each third party, what must stay out of the shipped binary, and that every package says what it is.
//
// The tables are closed: a new package or a new module has to be entered before the test passes, which is the
// moment to think about where it belongs. It has no code of its own beside the test.
package architecture
