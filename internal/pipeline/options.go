package pipeline

import (
	"context"
	"log/slog"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// Keep says what is kept of a table.
type Keep struct {
	Current, History bool
	// Auto gives up current without a fault where the log tells no key.
	Auto bool
}

// Options is everything a run is told.
type Options struct {
	Name      string // of the pipeline
	Selection postgres.Selection
	Policies  postgres.Policies
	Keep      func(schema, table string) Keep
	// Identityless is "refuse", "skip", "inserts" or "recopy": for tables whose updates the log cannot tell. RecopyEvery is how old the copy of
	// one may become that is kept by recopy.
	Identityless string
	RecopyEvery  time.Duration
	// Judge says whether the lake can hold a table, without asking it, and which of its places the table takes; nil holds all.
	Judge func(lake.Spec) (places []string, err error)
	// WithoutWAL is "skip", "copy" or "refuse": for unlogged and foreign partitions of a table that is followed as one.
	WithoutWAL string

	Slot           string
	Publication    string
	OwnPublication bool
	DDLEvents      DDLEvents
	Failover       bool
	RowFilter      func(schema, table string) string
	ColumnList     func(schema, table string) []string
	PartitionBy    func(schema, table string) []string
	SortBy         func(schema, table string) []string

	Generated GeneratedPolicy
	Messages  bool // keep logical messages

	State bucket.Bucket // where state and spool lie
	Lake  func(ctx context.Context, epoch int64) (Lake, error)

	UntilCaughtUp  bool
	CommitInterval time.Duration
	MaxLag         time.Duration // of a table that changes little; each is committed with the others where it is not more than CommitInterval
	CommitRows     int64
	CommitBytes    int64
	CopyParallel   int
	CopyChunk      int64 // bytes of heap
	SpoolLimit     int64 // bytes
	WorkDir        string
	Heartbeat      time.Duration // 0 never
	GuardWarn      int64         // bytes; 0 never
	GuardSpool     int64
	GuardDrop      int64
	ForeignWrites  ForeignWrites
	CopyOnChange   bool // a change of definition that cannot be followed is answered by a new copy
	LeaseTTL       time.Duration
	Maintain       time.Duration // 0 never
	MaintainAtEnd  AtEnd
	MaintainTo     lake.MaintainOptions
	MaxRetryDelay  time.Duration
	HintEvery      time.Duration // how often the lake's version hints are written; 0 with each commit

	Log   *slog.Logger
	Watch Watcher
}

// AtEnd says whether a run that has caught up does upkeep before it ends.
type AtEnd string

// The choices. What is not chosen is AtEndAuto.
const (
	AtEndAuto   AtEnd = "auto"   // where a rewrite serves the commits of many runs
	AtEndNever  AtEnd = "never"  // it is left to a run that goes on, and to Maintain
	AtEndAlways AtEnd = "always" // of every table that the run has written to
)

// Lake opens the lake's tables.
type Lake interface {
	Tables
	// HintsBehind says whether a version hint does not lead to a commit of this lake yet: commits do not bring hints up to
	// date each time.
	HintsBehind() bool
	// WriteHints brings the version hints up to date whose time has come, or all, and says whether all are.
	WriteHints(ctx context.Context, all bool) bool
	// FindHints brings those of tables up to date that another process may have left behind, and says whether all are.
	FindHints(ctx context.Context, of []change.Table) bool
	// Sweep removes files that no table knows and that are older than the given age.
	Sweep(ctx context.Context, olderThan time.Duration) (files int, bytes int64, err error)
	Close() error
}

// Tables are those of a lake.
type Tables interface {
	// Table opens one, and makes it if it is not there.
	Table(ctx context.Context, spec lake.Spec) (lake.Table, error)
	// Look says whether one can be opened, as far as other owners of its name matter.
	Look(ctx context.Context, spec lake.Spec) error
}

// Watcher hears what happens, for metrics and views. Its methods are called from several goroutines.
type Watcher interface {
	// Followed is called for what was read of the log: the rows of a table by operation since the last call.
	Followed(table string, op change.Op, rows int64)
	// Special is called for values of a table that went aside, of the log or of a copy.
	Special(table string, values int64)
	// Committed is called after each commit of the lake's tables, with the position they now hold.
	Committed(Commit)
	// TableCommitted is called after each commit of one table.
	TableCommitted(table string, c Commit)
	// Working tells when the log is being followed, and when not any more.
	Working(yes bool)
	// Read tells how many transactions and bytes of the log have been read since the last call.
	Read(transactions int, bytes int64)
	// Leased tells the epoch of the lease that was taken.
	Leased(epoch int64)
	// Lag tells where the server's log ends and how much of it the slot retains.
	Lag(Lag)
	// Copying tells how far the copy of a table is; done chunks of total, rows so far.
	Copying(table string, done, total int, rows int64)
	// Mode tells that a table's mode has changed: copying, spooling, streaming; or Recopied, of a table that is copied and not followed.
	Mode(table, mode string)
	// Spool tells how many bytes wait in the bucket.
	Spool(bytes int64)
	// Failed is called for a failure that is tried again.
	Failed(err error, again time.Duration)
}

// Commit tells of a commit.
type Commit struct {
	Position  change.LSN
	Committed time.Time // the server's clock at the newest transaction in it
	Took      time.Duration
	Tables    int   // of the source
	Changes   int64 // of these, of the log
	Rows      int64 // written to the lake, which may keep a change in two forms
	Files     int
	Deletes   int
	Bytes     int64
}

// Lag is the distance between the server and the lake.
type Lag struct {
	Server, Position change.LSN
	Retained         int64         // bytes of log that the server keeps for the slot
	SafeSize         int64         // bytes that may still be written before the slot is lost; -1 unknown
	Age              time.Duration // of the oldest change that the lake may lack
}

// StatePrefix is where a pipeline keeps its state and spool in the bucket.
func StatePrefix(name string) string { return "_leat/" + name }

// DDLEvents says whether event triggers let the WAL tell of DDL.
type DDLEvents string

// The choices.
const (
	DDLEventsAuto DDLEvents = "auto" // made where the role may, used where they are there
	DDLEventsOn   DDLEvents = "on"   // a run does not start without
	DDLEventsOff  DDLEvents = "off"  // removed
)

// ForeignWrites is what a run does when another program has added or removed rows of a lake table.
type ForeignWrites string

// The policies.
const (
	ForeignAllow ForeignWrites = "allow" // goes on
	ForeignWarn  ForeignWrites = "warn"  // goes on with a warning
	ForeignStop  ForeignWrites = "stop"  // does not write to the table
)
