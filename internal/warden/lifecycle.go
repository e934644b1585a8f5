package warden

import (
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// covers says whether a rule holds for every object of the path.
func covers(e bucket.Expiry, root string) bool {
	return e.Enabled && !e.Narrow && strings.HasPrefix(root, e.Prefix)
}

// lifecycle judges what goes and when: by the time that the server tells for the object, and by the rules.
func (a *auditor) lifecycle() error {
	rules, err := a.k.Expiries(a.ctx)
	if err != nil && !refused(err) {
		return err
	}
	_, root := a.k.Place()
	var whole []bucket.Expiry
	for _, e := range rules {
		if covers(e, root) {
			whole = append(whole, e)
		}
	}
	if a.opts.Rules.ExpireDays > 0 {
		a.expiry(whole, err)
		if err == nil {
			a.versions(whole)
		}
	}
	a.uploads(whole, err)
	return nil
}

func (a *auditor) expiry(whole []bucket.Expiry, err error) {
	limit := a.opts.Rules.ExpireDays
	const bySet = "leat bucket audit --fix sets it."
	ruled := 0 // days of the rule that acts first
	for _, e := range whole {
		if e.Days > 0 && (ruled == 0 || e.Days < ruled) {
			ruled = e.Days
		}
	}
	// Servers begin to count at the next midnight.
	told, inTime := !a.sight.Expires.IsZero(), a.sight.Expires.Before(a.opts.Now().AddDate(0, 0, limit+1).Add(time.Hour))
	switch {
	case fault.Is(err, fault.BucketUnsupported):
		a.add(LifecycleMissing, fault.SeverityHigh, "Let leat delete: dump.keep keeps that many dumps. Then accept this finding (--accept).", "the server has no lifecycle: nothing removes old objects")
	case told && !inTime:
		a.add(LifecycleMissing, fault.SeverityHigh, bySet, "the server says that an object of today goes on %s, later than in %s", a.sight.Expires.Format(time.DateOnly), days(limit))
	case err != nil && told:
		a.ok(LifecycleMissing, "the server says that an object of today goes on %s", a.sight.Expires.Format(time.DateOnly))
	case err != nil && a.key == "", err != nil && a.server == bucket.ServerOther:
		a.open(byOwner, "these keys may not read the lifecycle, and the server does not tell for single objects when they go")
	case err != nil:
		a.add(LifecycleMissing, fault.SeverityHigh, byOwner, "the server tells of no day on which an object of today goes")
	case ruled == 0:
		a.add(LifecycleMissing, fault.SeverityHigh, bySet, "no rule removes every object of the path")
	case ruled > limit:
		a.add(LifecycleMissing, fault.SeverityHigh, bySet, "objects go after %s, later than in %s", days(ruled), days(limit))
	case told:
		a.ok(LifecycleMissing, "a rule removes every object after %s, and the server says that one of today goes on %s", days(ruled), a.sight.Expires.Format(time.DateOnly))
	default:
		a.open("", "a rule removes every object after %s; the server does not tell for single objects when they go", days(ruled))
	}
}

// versions looks whether what was replaced or expired really goes in a bucket that keeps versions.
func (a *auditor) versions(whole []bucket.Expiry) {
	status, err := a.k.Versioning(a.ctx)
	if err != nil || status == "" {
		return
	}
	current, later := 0, 0
	for _, e := range whole {
		if e.Days > 0 && (current == 0 || e.Days < current) {
			current = e.Days
		}
		if e.NoncurrentDays > 0 && (later == 0 || e.NoncurrentDays < later) {
			later = e.NoncurrentDays
		}
	}
	switch {
	case later == 0:
		a.add(LifecycleMissing, fault.SeverityHigh, "leat bucket audit --fix sets it.", "the bucket keeps versions, and no rule removes those that are no longer current: an object that expires is only hidden")
	case current > 0 && current+later > a.opts.Rules.ExpireDays+1:
		a.add(LifecycleMissing, fault.SeverityHigh, "leat bucket audit --fix sets it.", "objects are hidden after %s and go only %s later", days(current), days(later))
	}
}

// versioning is looked at only where it is asked for.
func (a *auditor) versioning() error {
	if !a.opts.Rules.Versioning {
		return nil
	}
	status, err := a.k.Versioning(a.ctx)
	switch {
	case fault.Is(err, fault.BucketRights):
		a.open(byOwner, "these keys may not read whether the bucket keeps versions")
	case err != nil && !refused(err):
		return err
	case status != "Enabled":
		a.add(VersioningMissing, fault.SeverityMedium, "Use a server that keeps versions, or do without --versioning.", "the bucket does not keep replaced and deleted objects as versions")
	default:
		a.ok(VersioningMissing, "the bucket keeps replaced and deleted objects as versions")
	}
	return nil
}

func (a *auditor) uploads(whole []bucket.Expiry, err error) {
	switch {
	case fault.Is(err, fault.BucketUnsupported):
		a.add(UploadsNotAborted, fault.SeverityLow, "leat removes what its own dead runs left when it runs next. Accept this finding (--accept).", "the server has no lifecycle: nothing removes unfinished uploads")
		return
	case err != nil:
		a.open(byOwner, "these keys may not read whether unfinished uploads are aborted")
		return
	}
	for _, e := range whole {
		if e.AbortDays > 0 {
			a.ok(UploadsNotAborted, "unfinished uploads go after %s", days(e.AbortDays))
			return
		}
	}
	a.add(UploadsNotAborted, fault.SeverityLow, "leat bucket audit --fix sets it.", "no rule aborts unfinished uploads")
}
