//go:build !linux

package main

// dropStartup is for systems that show what a process holds of its binary.
func dropStartup() {}
