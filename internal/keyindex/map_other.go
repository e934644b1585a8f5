//go:build !unix

package keyindex

import (
	"io"
	"os"
)

// mapFile reads where it cannot map: the index then lies in memory and is written back when it closes.
func mapFile(f *os.File, at int64, n int) ([]byte, error) {
	m := make([]byte, n)
	if _, err := f.ReadAt(m, at); err != nil && err != io.EOF {
		return nil, err
	}
	return m, nil
}

func unmapFile(f *os.File, at int64, m []byte, keep bool) error {
	if !keep {
		return nil
	}
	_, err := f.WriteAt(m, at)
	return err
}
