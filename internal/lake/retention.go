package lake

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// Retention says which snapshots of a table stay for time travel. The zero value keeps all.
type Retention struct {
	// Keep is how many of the newest snapshots stay regardless of their age; the current one always does.
	Keep int
	// All is the age up to which every snapshot stays.
	All time.Duration
	// Minutely, Hourly and Daily are the ages up to which the last snapshot of each minute, hour and day (UTC) stays.
	Minutely, Hourly, Daily time.Duration
	// Grace is how long the files of snapshots that are gone stay for those who still read them.
	Grace time.Duration
}

func (r Retention) expires() bool {
	r.Grace = 0
	return r != Retention{}
}

// properties tell other engines which snapshots stay, so that their expiry without arguments takes none that ours keeps.
func (r Retention) properties() iceberg.Properties {
	if !r.expires() {
		return nil
	}
	oldest := max(r.All, r.Minutely, r.Hourly, r.Daily, time.Millisecond)
	return iceberg.Properties{
		table.MaxSnapshotAgeMsKey:   strconv.FormatInt(oldest.Milliseconds(), 10),
		table.MinSnapshotsToKeepKey: strconv.Itoa(max(1, r.Keep)),
	}
}

// slack is how many snapshots may be beyond the retention before they are worth a commit of their own.
func (r Retention) slack() int { return max(1, r.Keep/4) }

// aside is the age up to which snapshots stay that are in no branch: other programs may still mean to publish them.
func (r Retention) aside() time.Duration { return max(r.All, r.Minutely, r.Hourly) }

func (r Retention) split(meta table.Metadata) (keep, gone []table.Snapshot) {
	return expired(meta, r, time.Now())
}

// expired parts the snapshots in those that stay and those that go. Tags and branches but main are made by others: we take none of
// them away, however old it is, and what they name stays.
func expired(meta table.Metadata, r Retention, now time.Time) (keep, gone []table.Snapshot) {
	stays := map[int64]bool{}
	line := mainLine(meta)
	for n, s := range line {
		stays[s.SnapshotID] = n < max(1, r.Keep) || young(s, r.All.Milliseconds(), now) || n > 0 && r.thins(s, line[n-1], now)
	}
	for name, ref := range meta.Refs() {
		if name != table.MainBranch {
			keepRef(meta, ref, r, now, stays)
		}
	}
	for _, s := range meta.Snapshots() {
		stay, known := stays[s.SnapshotID]
		if stay || !known && young(s, r.aside().Milliseconds(), now) || len(line) == 0 {
			keep = append(keep, s)
		} else {
			gone = append(gone, s)
		}
	}
	return keep, gone
}

// mainLine is the history of the main branch, the newest snapshot first. Where the parent of one is gone, the next older one that is
// there goes on.
func mainLine(meta table.Metadata) (line []table.Snapshot) {
	all := bySequence(meta)
	slices.Reverse(all)
	next := meta.CurrentSnapshot()
	for next != nil {
		line = append(line, *next)
		at := *next
		next = nil
		if at.ParentSnapshotID == nil {
			break
		}
		if next = meta.SnapshotByID(*at.ParentSnapshotID); next != nil && next.SequenceNumber < at.SequenceNumber {
			continue
		}
		next = nil
		if i := slices.IndexFunc(all, func(s table.Snapshot) bool { return s.SequenceNumber < at.SequenceNumber }); i >= 0 {
			next = &all[i]
		}
	}
	return line
}

// bySequence is the snapshots in the order in which they were committed.
func bySequence(meta table.Metadata) []table.Snapshot {
	return slices.SortedFunc(slices.Values(meta.Snapshots()), func(a, b table.Snapshot) int { return cmp.Compare(a.SequenceNumber, b.SequenceNumber) })
}

// thins says whether a snapshot is the last one of a minute, an hour or a day that keeps its last one; newer is the one after it.
func (r Retention) thins(s, newer table.Snapshot, now time.Time) bool {
	for _, of := range []struct{ step, age time.Duration }{{time.Minute, r.Minutely}, {time.Hour, r.Hourly}, {24 * time.Hour, r.Daily}} {
		if young(s, of.age.Milliseconds(), now) && s.TimestampMs/of.step.Milliseconds() != newer.TimestampMs/of.step.Milliseconds() {
			return true
		}
	}
	return false
}

// keepRef marks what a tag or a branch other than main keeps: by what it says itself; of what it leaves open it keeps as main does,
// and a branch that says nothing keeps all.
func keepRef(meta table.Metadata, ref table.SnapshotRef, r Retention, now time.Time, stays map[int64]bool) {
	least, age := max(1, r.Keep), r.aside().Milliseconds()
	switch {
	case ref.SnapshotRefType == table.TagRef:
		least, age = 1, 0
	case ref.MinSnapshotsToKeep == nil && ref.MaxSnapshotAgeMs == nil:
		least = math.MaxInt
	default:
		if ref.MinSnapshotsToKeep != nil {
			least = *ref.MinSnapshotsToKeep
		}
		if ref.MaxSnapshotAgeMs != nil {
			age = *ref.MaxSnapshotAgeMs
		}
	}
	id := &ref.SnapshotID
	for n := 0; id != nil; n++ {
		s := meta.SnapshotByID(*id)
		if s == nil || n > len(meta.Snapshots()) {
			return
		}
		if n < least || young(*s, age, now) {
			stays[s.SnapshotID] = true
		}
		id = s.ParentSnapshotID
	}
}

// young says that a snapshot is no older than age, in milliseconds; 0 is no age at all.
func young(s table.Snapshot, age int64, now time.Time) bool {
	return age > 0 && now.UnixMilli()-s.TimestampMs <= age
}
