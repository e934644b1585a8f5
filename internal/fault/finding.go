package fault

// Severity says how grave a finding is.
type Severity string

// The severities. Only SeverityError makes leat check end with ExitFindings.
const (
	SeverityOK    Severity = "ok"    // was looked at and is right
	SeverityInfo  Severity = "info"  // worth knowing
	SeverityWarn  Severity = "warn"  // works, but not as well as it could
	SeverityError Severity = "error" // will not work until it is mended
)

// Finding is what a check found. A finding is not an error: the check went on.
type Finding struct {
	Code     string   `json:"code"` // stable, "wal-level"
	Severity Severity `json:"severity"`
	Where    string   `json:"where,omitempty"`
	What     string   `json:"what"`
	Mend     string   `json:"mend,omitempty"`
}
