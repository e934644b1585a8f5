// Package substrait stands in for github.com/substrait-io/substrait v0.87.0 and has two of its extension files, unchanged:
// those with which filters are made. iceberg-go parses all there are whenever a program starts, which with the full set takes
// 130 ms and 32 MB. leat makes no use of them; see docs/decisions/0018-a-smaller-substrait.md.
package substrait

import "embed"

//go:embed extensions/*
var extensions embed.FS

// GetSubstraitExtensionsFS returns the folder "extensions".
func GetSubstraitExtensionsFS() embed.FS { return extensions }
