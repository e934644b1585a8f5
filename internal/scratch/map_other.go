//go:build !linux

package scratch

import "errors"

func mapUnnamed(string, int) ([]byte, error) { return nil, errors.ErrUnsupported }

func unmap([]byte) {}

func dropPages([]byte) {}
