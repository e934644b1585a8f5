//go:build !linux

package bucket

// syncAll says that this system cannot sync one file system alone.
func (f *folder) syncAll() (done bool, err error) { return false, nil }
