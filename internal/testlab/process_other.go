//go:build unix && !linux

package testlab

import "syscall"

// attributes makes a plain child: only Linux can promise that it dies with us.
func attributes(syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
