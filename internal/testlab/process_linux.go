package testlab

import "syscall"

// attributes makes a child that gets deathSignal when the thread that started it ends.
func attributes(deathSignal syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: deathSignal, Setpgid: true}
}
