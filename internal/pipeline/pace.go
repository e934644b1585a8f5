package pipeline

import (
	"cmp"
	"slices"
	"time"

	"github.com/leatdata/leat/internal/change"
)

// Where Options.MaxLag is more than CommitInterval, a table that changes little commits less often than one that
// changes much: what a commit costs does not depend on what is in it. Each table carries its own position, so their
// commits need not be of one moment. The saved position is that of the table that waits longest, and a crash replays
// from there (Invariant 11).

// A table has a commit for so many changes, or for so many bytes of the log.
const (
	worthRows  = 1000
	worthBytes = 1 << 20
)

// pace is what a table has that is not committed, and how long its changes may wait.
type pace struct {
	from  change.LSN    // all of the table from before it is committed
	at    int64         // when the newest transaction before it committed, microseconds since 1970
	since time.Time     // of the oldest change
	rows  int64         // changes
	bytes int64         // of the log
	last  time.Time     // of the last commit; zero before the first one
	wait  time.Duration // from that to the next
}

// begins notes that the table has a change again.
func (p *pace) begins(from change.LSN, at int64, now time.Time) {
	p.from, p.at, p.since = from, at, now
}

// due says whether the table commits now.
func (p *pace) due(now time.Time) bool {
	return p.last.IsZero() || p.share() >= 1 || now.Sub(p.last) >= p.wait
}

// share is how much of what a commit is worth the table has.
func (p *pace) share() float64 {
	return max(float64(p.rows)/worthRows, float64(p.bytes)/worthBytes)
}

// ends notes a commit. The next one waits for as long as the table takes to have what a commit is worth, at the pace
// since the last one.
func (p *pace) ends(now time.Time, least, most time.Duration) {
	wait := least
	if !p.last.IsZero() {
		took := now.Sub(p.last).Seconds() / max(p.share(), 1e-6)
		wait = max(least, time.Duration(min(took, most.Seconds())*float64(time.Second)))
	}
	*p = pace{last: now, wait: wait}
}

// paced says whether tables commit by themselves now. While any is copied, the spool and the tables go by one position.
func (r *run) paced() bool {
	return r.o.MaxLag > r.o.CommitInterval && !r.o.UntilCaughtUp && !r.spooled && len(r.pending) == 0 && !r.claims() && r.settled()
}

// toBeCommitted are the tables that a commit takes that is due: all, or where each has a pace of its own those whose
// time has come. Where too much is held, the largest of the others go with them, until half of it is gone.
func (r *run) toBeCommitted() []*table {
	if !r.paced() {
		return r.dirty
	}
	var due, rest []*table
	rows, bytes := r.rows, r.bytes
	for _, t := range r.dirty {
		// A crash replays no more of the log than may be held, and the server keeps no more of it for one table.
		if far := int64(r.position-t.pace.from) >= r.o.CommitBytes; !far && !t.pace.due(r.now) {
			rest = append(rest, t)
			continue
		}
		due = append(due, t)
		rows, bytes = rows-t.pace.rows, bytes-t.pace.bytes
	}
	if !r.holdsMuch() {
		return due
	}
	slices.SortStableFunc(rest, func(a, b *table) int { return cmp.Compare(b.pace.share(), a.pace.share()) })
	for _, t := range rest {
		if rows <= r.o.CommitRows/2 && bytes <= r.o.CommitBytes/2 {
			break
		}
		due = append(due, t)
		rows, bytes = rows-t.pace.rows, bytes-t.pace.bytes
	}
	return due
}

// holdsMuch says that so much is not committed that a commit is due, however young it is.
func (r *run) holdsMuch() bool { return r.rows >= r.o.CommitRows || r.bytes >= r.o.CommitBytes }

// longestWait is how long a table may go without a commit: with the time to the next look at all tables that is the
// longest lag.
func (r *run) longestWait() time.Duration {
	return max(r.o.CommitInterval, r.o.MaxLag-r.o.CommitInterval)
}

// committed notes which tables have no changes left, and what the others hold.
func (r *run) committed(tables []*table) {
	now := time.Now()
	for _, t := range tables {
		t.dirty = false
		t.pace.ends(now, r.o.CommitInterval, r.longestWait())
	}
	r.dirty = slices.DeleteFunc(r.dirty, func(t *table) bool { return !t.dirty })
	r.since, r.rows, r.bytes, r.pacedAt = time.Time{}, 0, 0, now
	for _, t := range r.dirty {
		r.rows, r.bytes = r.rows+t.pace.rows, r.bytes+t.pace.bytes
		if r.since.IsZero() || t.pace.since.Before(r.since) {
			r.since = t.pace.since
		}
	}
}

// wholeUpTo is up to where every table has everything, or the spool has: the end of the last transaction, or where the
// first table begins that waits; and when the newest transaction before it committed.
func (r *run) wholeUpTo() (change.LSN, int64) {
	to, at := r.position, r.at
	for _, t := range r.dirty {
		if t.pace.from < to {
			to, at = t.pace.from, t.pace.at
		}
	}
	return to, at
}

// everySeconds is about how often a table with a pace of its own is committed; 0 for others. It has few values, so that
// a commit does not change what is saved of many tables.
func (r *run) everySeconds(t *table) int64 {
	if r.o.MaxLag <= r.o.CommitInterval {
		return 0
	}
	every := r.o.CommitInterval
	for every < t.pace.wait {
		every *= 2
	}
	return int64(min(every, r.longestWait()).Round(time.Second) / time.Second)
}
