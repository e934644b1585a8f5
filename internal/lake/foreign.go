package lake

import (
	"strconv"

	"github.com/apache/iceberg-go/table"
)

// Foreign is what other programs have done to a table beside its pipeline.
type Foreign struct {
	// Snapshots of other programs since the last one of ours; Rows that they added or removed. Rewritten files count nothing.
	Snapshots int
	Rows      int64
	// TotalRows are Rows and those of all times before.
	TotalRows int64
	// RolledBack: the table's snapshot does not follow from the last one of ours, so rows of ours may be missing.
	RolledBack bool
}

func (f *Foreign) add(o Foreign) {
	f.Snapshots += o.Snapshots
	f.Rows += o.Rows
	f.TotalRows += o.TotalRows
	f.RolledBack = f.RolledBack || o.RolledBack
}

// ForeignTo is what other programs have done to a table since the last commit of ours. Change files are ours alone.
func ForeignTo(t Table) (sum Foreign) {
	of, ok := t.(*lakeTable)
	if !ok {
		return sum
	}
	for _, k := range of.kept {
		k.ice.mu.Lock()
		sum.add(k.ice.foreign)
		k.ice.mu.Unlock()
	}
	return sum
}

// foreignTo compares a table with what its properties say of the last snapshot that we made. A table of before they said so
// is believed.
func foreignTo(meta table.Metadata) (f Foreign) {
	f.TotalRows, _ = strconv.ParseInt(meta.Properties()[propForeign], 10, 64)
	ours, err := strconv.ParseInt(meta.Properties()[propSnapshot], 10, 64)
	if err != nil {
		return f
	}
	for id := currentID(meta); ; {
		switch {
		case id == nil:
			f.RolledBack = true
			return f
		case *id == ours:
			f.TotalRows += f.Rows
			return f
		}
		s := meta.SnapshotByID(*id)
		if s == nil || f.Snapshots > len(meta.Snapshots()) || s.Summary != nil && s.Summary.Properties[propCommit] != "" {
			f.RolledBack = true // to a snapshot of ours from before, or the chain does not lead to the last one
			return f
		}
		f.Snapshots++
		if s.Summary != nil && s.Summary.Operation != table.OpReplace {
			for _, name := range []string{"added-records", "deleted-records", "added-position-deletes", "added-equality-deletes"} {
				n, _ := strconv.ParseInt(s.Summary.Properties[name], 10, 64)
				f.Rows += max(n, 0)
			}
		}
		id = s.ParentSnapshotID
	}
}
