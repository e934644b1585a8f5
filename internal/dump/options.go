package dump

import (
	"log/slog"
	"time"

	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
)

// Layout says where a dump's objects stand below the root.
type Layout string

// The layouts.
const (
	// LayoutRun: <YYYY-MM-DDTHHMMSSZ>/<schema>.<table>/<chunk>-<file>.<ext>. Every dump has a folder of
	// its own, so an older one stays whole whatever happens.
	LayoutRun Layout = "run"
	// LayoutDate: <YYYY-MM-DD>/<table>.<ext>, one file a table. A second dump on the same day replaces the first.
	LayoutDate Layout = "date"
)

// idFormat is the time a dump began, in UTC.
const idFormat = "2006-01-02T150405Z"

// names says whether the folder is one that the layout makes.
func (l Layout) names(folder string) bool {
	format := idFormat
	if l == LayoutDate {
		format = time.DateOnly
	}
	_, err := time.Parse(format, folder)
	return err == nil
}

// Options say what to dump and how.
type Options struct {
	Selection   postgres.Selection
	Format      format.Kind
	Compression format.Compression
	// Bloom chooses the columns that get a Bloom filter, and says whether one was named outright; may be nil.
	Bloom    func(schema, table, column string) (chosen, outright bool)
	FileSize int64 // target bytes of a file
	Layout   Layout
	// Name gives a table's name in LayoutDate when it is not schema.table; nil keeps that.
	Name     func(schema, table string) string
	Keep     int // complete dumps to keep; 0 keeps all
	Parallel int // connections that read
	MaxRate  int64
	LSN      postgres.LSNMode
	SlotWait time.Duration
	Policies postgres.Policies
	// RoleForm has the values of csv written as the role's own sessions would; the manifest records its settings.
	RoleForm bool
	// GzipLevel is that of text formats with .gz, 1 to 9; 0 is format.DefaultGzipLevel.
	GzipLevel int
	// Generated has generated columns in csv too, which COPY leaves out.
	Generated bool
	// Attempts is how often a unit, and how often the whole dump, is tried when the source fails for a moment.
	Attempts int
	// Liveness is the age from which a run that does not renew its mark counts as dead.
	Liveness time.Duration
	Version  string // of leat, for the manifest
	Log      *slog.Logger
	Watch    Watcher
	Now      func() time.Time
}

// The defaults of Options.
const (
	DefaultFileSize = 256 << 20
	DefaultAttempts = 3
	DefaultLiveness = 2 * time.Minute
)

func (o *Options) fill() {
	if o.FileSize <= 0 {
		o.FileSize = DefaultFileSize
	}
	if o.Parallel <= 0 {
		o.Parallel = 4
	}
	if o.Attempts <= 0 {
		o.Attempts = DefaultAttempts
	}
	if o.Liveness <= 0 {
		o.Liveness = DefaultLiveness
	}
	if o.Layout == "" {
		o.Layout = LayoutRun
	}
	if o.LSN == "" {
		o.LSN = postgres.LSNAuto
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Watch == nil {
		o.Watch = silent{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}
