package lake

import (
	"github.com/RoaringBitmap/roaring/v2"
)

// moved says where the live rows of a compacted file went. The index is not rewritten at once: places in it are
// translated when they are met, and a walk through the index, a piece with each commit, makes that needless in the end.
type moved struct {
	dead *roaring.Bitmap // what was dead when the file was read
	runs []movedRun      // in the order of rows
	// order tells where rows of a file lie that was sorted when it was written, which the runs do not know; nil for as they came.
	order map[uint32][]uint32
}

// movedRun is a run of live rows that lie together in an output file.
type movedRun struct {
	rank uint32 // how many live rows came before
	file uint32
	row  uint32
}

// target is the new place of a row that was alive when the file was read.
func (m *moved) target(row uint32) (file, at uint32) {
	rank := row
	if m.dead != nil {
		rank -= uint32(m.dead.Rank(row)) // the row itself is not among the dead
	}
	lo, hi := 0, len(m.runs)
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; m.runs[mid].rank <= rank {
			lo = mid
		} else {
			hi = mid
		}
	}
	r := m.runs[lo]
	at = r.row + rank - r.rank
	if order := m.order[r.file]; order != nil {
		at = order[at]
	}
	return r.file, at
}

// settle follows a place of the index to where the row lies now.
func (c *currentTable) settle(at uint64) (file, row uint32) {
	file, row = uint32(at>>32), uint32(at)
	for c.files[file] != nil && c.files[file].moved != nil {
		file, row = c.files[file].moved.target(row)
	}
	return file, row
}

// walkPages is how many pages of the index, of 4 KiB, a commit looks through while places in it are out of date.
const walkPages = 4096

// walk is the state of bringing the index up to date.
type walk struct {
	page  uint32
	files []uint32 // moved files that the walk under way makes needless
	next  []uint32 // those that came later and take another walk
}

func (w *walk) busy() bool { return len(w.files)+len(w.next) > 0 }

// add has the walk see to a file that has moved.
func (w *walk) add(files ...uint32) { w.next = append(w.next, files...) }

// stop forgets all: the index is empty.
func (w *walk) stop() { w.page, w.files, w.next = 0, nil, append(w.next, w.files...) }

// walkOn looks through some pages. At the end of a walk no place leads to the files that it was for.
func (c *currentTable) walkOn(pages int) {
	w := &c.walk
	if len(w.files) == 0 {
		if len(w.next) == 0 {
			return
		}
		w.page, w.files, w.next = 0, w.next, nil
	}
	next, done := c.index.Walk(w.page, pages, func(at uint64) uint64 {
		if f := c.files[at>>32]; f == nil || f.moved == nil {
			return at
		}
		return place(c.settle(at))
	})
	w.page = next
	if done {
		for _, n := range w.files {
			c.files[n] = nil
		}
		w.files = nil
	}
}
