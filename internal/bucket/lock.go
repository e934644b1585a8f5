package bucket

import (
	"net/http"
	"time"
)

// The modes of a retention (docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html).
const (
	lockGovernance = "GOVERNANCE"
	lockCompliance = "COMPLIANCE"
)

// Lock says how a server keeps an object from being deleted.
type Lock struct {
	Mode  string    // of the retention, in the server's word; "" for none
	Until time.Time // the retention's end, in whole seconds; zero where it cannot be known
	Hold  bool      // there is a legal hold
}

// Holds says whether a lock keeps anything from being deleted at a time. A retention whose end is not known does.
func (l Lock) Holds(at time.Time) bool {
	return l.Hold || l.Mode != "" && (l.Until.IsZero() || l.Until.After(at))
}

// Known says whether a lock can be asked of another server.
func (l Lock) Known() bool {
	return l.Mode == "" || (l.Mode == lockGovernance || l.Mode == lockCompliance) && !l.Until.IsZero()
}

// At is the lock at a time: without a retention that has ended.
func (l Lock) At(at time.Time) Lock {
	if l.Mode != "" && !l.Until.IsZero() && !l.Until.After(at) {
		l.Mode, l.Until = "", time.Time{}
	}
	return l
}

// Raise is what an object with this lock must be told so that it keeps also what another lock asks for, and whether all of that can be: nothing is
// shortened, made less strict or lifted.
func (l Lock) Raise(to Lock) (more Lock, whole bool) {
	more.Hold = to.Hold && !l.Hold
	keeps := to.Mode == "" || to.Known() && (l.Mode == to.Mode || l.Mode == lockCompliance) && !l.Until.Before(to.Until)
	may := l.Known() && to.Known() && (l.Mode == "" || l.Mode == to.Mode || to.Mode == lockCompliance) && !to.Until.Before(l.Until)
	if !keeps && may {
		more.Mode, more.Until = to.Mode, to.Until
	}
	return more, keeps || may
}

// The headers of locks.
const (
	lockModeHeader  = "X-Amz-Object-Lock-Mode"
	lockUntilHeader = "X-Amz-Object-Lock-Retain-Until-Date"
	lockHoldHeader  = "X-Amz-Object-Lock-Legal-Hold"
)

// lockOf reads the lock that the headers of an answer tell. A retention never becomes shorter: its end is rounded up to a second.
func lockOf(h http.Header) Lock {
	l := Lock{Mode: h.Get(lockModeHeader), Hold: h.Get(lockHoldHeader) == "ON"}
	if until, err := time.Parse(time.RFC3339Nano, h.Get(lockUntilHeader)); err == nil && l.Mode != "" {
		l.Until = until.UTC().Add(time.Second - 1).Truncate(time.Second)
	}
	return l
}

// ask puts the headers of a lock on a request.
func (l Lock) ask(h http.Header) {
	if l.Mode != "" {
		h.Set(lockModeHeader, l.Mode)
		h.Set(lockUntilHeader, l.Until.UTC().Format(time.RFC3339))
	}
	if l.Hold {
		h.Set(lockHoldHeader, "ON")
	}
}
