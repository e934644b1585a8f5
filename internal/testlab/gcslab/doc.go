// Package gcslab starts fake servers of Google Cloud Storage for tests. It is a package of its own because the server brings Google's
// clients along, which what only needs testlab's other servers need not compile.
package gcslab
