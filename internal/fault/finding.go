package fault

import (
	"fmt"
	"strings"
	"time"
)

// Severity says how grave a finding is.
type Severity string

// The severities. Only SeverityError makes leat check end with ExitFindings. A rule of a bucket that is broken has one of the last four,
// each of which does.
const (
	SeverityOK    Severity = "ok"    // was looked at and is right
	SeverityInfo  Severity = "info"  // worth knowing
	SeverityWarn  Severity = "warn"  // works, but not as well as it could
	SeverityError Severity = "error" // will not work until it is mended

	SeverityLow      Severity = "low"
	SeverityMedium   Severity = "medium"
	SeverityHigh     Severity = "high"
	SeverityCritical Severity = "critical"
)

// Finding is what a check found. A finding is not an error: the check went on.
type Finding struct {
	Code     string   `json:"code"` // stable, "wal-level"
	Severity Severity `json:"severity"`
	Where    string   `json:"where,omitempty"`
	What     string   `json:"what"`
	Mend     string   `json:"mend,omitempty"`
}

// FindingOf is the finding that a failure is: an error that keeps a check from looking further is one too.
func FindingOf(err error) Finding {
	if f := Of(err); f != nil {
		return Finding{Code: string(f.Code), Severity: SeverityError, Where: f.Where, What: strings.TrimPrefix(err.Error(), f.Where+": "), Mend: f.HowToMend()}
	}
	return Finding{Code: string(Internal), Severity: SeverityError, What: err.Error()}
}

// ClockFinding judges a clock that was asked between before and after. Dates in names and leases depend on clocks agreeing.
func ClockFinding(code, where string, before, after, theirs time.Time) Finding {
	const tolerance = 5 * time.Second
	skew := time.Duration(0)
	switch {
	case theirs.Before(before):
		skew = theirs.Sub(before)
	case theirs.After(after):
		skew = theirs.Sub(after)
	}
	if skew.Abs() > tolerance {
		return Finding{Code: code, Severity: SeverityWarn, Where: where, What: fmt.Sprintf("its clock differs from ours by %s", skew.Round(time.Second)), Mend: "Let both follow NTP."}
	}
	return Finding{Code: code, Severity: SeverityOK, Where: where, What: "its clock agrees with ours"}
}
