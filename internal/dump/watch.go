package dump

import (
	"sync/atomic"
	"time"

	"github.com/leatdata/leat/internal/change"
)

// Watcher hears what a dump does. Its methods are called from several goroutines.
type Watcher interface {
	// Planned is called once the snapshot stands, with a Progress for each table, in the order of names.
	Planned(*Manifest, []*Progress)
	// Started and Finished frame a table.
	Started(*Progress)
	Finished(*Progress)
}

type silent struct{}

func (silent) Planned(*Manifest, []*Progress) {}
func (silent) Started(*Progress)              {}
func (silent) Finished(*Progress)             {}

// Progress is how far one table is. Its counters may be read at any time.
type Progress struct {
	Table *change.Table
	// Rows and Bytes are what has been read; Bytes as they came over the wire. A unit that is tried
	// again is counted again.
	Rows, Bytes atomic.Int64
	// Stored is the bytes of committed files.
	Stored       atomic.Int64
	Units        int // units in all
	UnitsDone    atomic.Int32
	began, ended atomic.Int64 // UnixNano; 0 is not yet
}

// Fraction estimates the part that is done, 0 to 1, from the heap's size; it is 1 only at the end.
func (p *Progress) Fraction() float64 {
	if p.Done() {
		return 1
	}
	byUnits := float64(p.UnitsDone.Load()) / float64(max(p.Units, 1))
	if p.Table.Bytes <= 0 {
		return min(byUnits, 0.99)
	}
	return min(max(byUnits, float64(p.Bytes.Load())/float64(p.Table.Bytes)), 0.99)
}

// Done says whether all units are committed.
func (p *Progress) Done() bool { return p.ended.Load() != 0 }

// Elapsed is the time since the table's first unit began, until its last ended.
func (p *Progress) Elapsed(now time.Time) time.Duration {
	began := p.began.Load()
	if began == 0 {
		return 0
	}
	if ended := p.ended.Load(); ended != 0 {
		return time.Duration(ended - began)
	}
	return now.Sub(time.Unix(0, began))
}
