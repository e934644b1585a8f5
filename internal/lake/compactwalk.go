package lake

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Kinds of values in Thrift's compact protocol
// (https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
const (
	compactTrue   = 1
	compactFalse  = 2
	compactByte   = 3
	compactI16    = 4
	compactI32    = 5
	compactI64    = 6
	compactDouble = 7
	compactBinary = 8
	compactList   = 9
	compactSet    = 10
	compactMap    = 11
	compactStruct = 12
	compactUUID   = 13
)

// compactItems is how many structures and items of lists are taken from one text: each takes up to some hundred bytes in memory.
const compactItems = 1 << 20

const compactDepth = 32

var (
	errCompact      = errors.New("its metadata is damaged")
	errCompactItems = fmt.Errorf("its metadata has more than %d items", compactItems)
)

// compactWalk walks through a structure in Thrift's compact protocol and makes nothing of it. Thrift makes room for a list by the number that
// stands before it.
type compactWalk struct {
	data []byte
	at   int
	left int   // structures and items that may still come
	path []int // field ids, from the outermost structure
	// see gets integers and the lengths of lists, by the fields that they are in; the path is valid for the call.
	see func(path []int, kind byte, n int64)
	// items says of which kind the items of a list must be, 0 for any; nil for all any.
	items func(path []int) byte
}

// structure walks through the structure that begins here.
func (w *compactWalk) structure() error {
	if w.left--; w.left < 0 {
		return errCompactItems
	}
	if len(w.path) == compactDepth {
		return errCompact
	}
	w.path = append(w.path, 0)
	last := len(w.path) - 1
	for {
		head, err := w.byte()
		if err != nil {
			return err
		}
		if head == 0 {
			w.path = w.path[:last]
			return nil
		}
		if delta := int(head >> 4); delta > 0 {
			w.path[last] = int(int16(w.path[last] + delta)) // as Thrift counts
		} else {
			id, err := w.signed()
			if err != nil {
				return err
			}
			w.path[last] = int(int16(id))
		}
		if kind := head & 0xf; kind != compactTrue && kind != compactFalse { // the kind is their value
			if err := w.value(kind); err != nil {
				return err
			}
		}
	}
}

func (w *compactWalk) value(kind byte) error {
	switch kind {
	case compactTrue, compactFalse, compactByte:
		_, err := w.byte()
		return err
	case compactI16, compactI32, compactI64:
		n, err := w.signed()
		if err == nil {
			w.see(w.path, kind, n)
		}
		return err
	case compactDouble:
		return w.skip(8)
	case compactUUID:
		return w.skip(16)
	case compactBinary:
		n, err := w.unsigned()
		if err != nil {
			return err
		}
		return w.skip(n)
	case compactList, compactSet:
		return w.list()
	case compactMap:
		return w.mapping()
	case compactStruct:
		return w.structure()
	}
	return errCompact
}

func (w *compactWalk) list() error {
	head, err := w.byte()
	if err != nil {
		return err
	}
	n := uint64(head >> 4)
	if n == 15 {
		if n, err = w.unsigned(); err != nil {
			return err
		}
	}
	if n > uint64(len(w.data)-w.at) { // each takes a byte at least
		return errCompact
	}
	kind := head & 0xf
	if w.items != nil && n > 0 {
		if want := w.items(w.path); want != 0 && want != kind {
			return errCompact
		}
	}
	w.see(w.path, compactList, int64(n))
	for range n {
		if err := w.item(kind); err != nil {
			return err
		}
	}
	return nil
}

func (w *compactWalk) mapping() error {
	n, err := w.unsigned()
	if err != nil || n == 0 {
		return err
	}
	kinds, err := w.byte()
	if err != nil {
		return err
	}
	if n > uint64(len(w.data)-w.at) {
		return errCompact
	}
	for range n {
		if err := w.item(kinds >> 4); err != nil {
			return err
		}
		if err := w.item(kinds & 0xf); err != nil {
			return err
		}
	}
	return nil
}

// item walks through an item of a list. Lists in lists have a depth too.
func (w *compactWalk) item(kind byte) error {
	if kind == compactStruct { // which counts itself
		return w.structure()
	}
	if w.left--; w.left < 0 {
		return errCompactItems
	}
	if kind != compactList && kind != compactSet && kind != compactMap {
		return w.value(kind)
	}
	if len(w.path) == compactDepth {
		return errCompact
	}
	w.path = append(w.path, 0)
	err := w.value(kind)
	w.path = w.path[:len(w.path)-1]
	return err
}

func (w *compactWalk) byte() (byte, error) {
	if w.at >= len(w.data) {
		return 0, errShort
	}
	w.at++
	return w.data[w.at-1], nil
}

func (w *compactWalk) skip(n uint64) error {
	if n > uint64(len(w.data)-w.at) {
		return errShort
	}
	w.at += int(n)
	return nil
}

func (w *compactWalk) unsigned() (uint64, error) {
	n, size := binary.Uvarint(w.data[w.at:])
	if size <= 0 {
		return 0, errCompact
	}
	w.at += size
	return n, nil
}

func (w *compactWalk) signed() (int64, error) {
	n, size := binary.Varint(w.data[w.at:])
	if size <= 0 {
		return 0, errCompact
	}
	w.at += size
	return n, nil
}
