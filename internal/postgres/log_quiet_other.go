//go:build !linux

package postgres

import "net"

// quiet is for Linux only.
func quiet(c net.Conn) net.Conn { return c }
