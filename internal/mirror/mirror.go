package mirror

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/time/rate"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Options say what is carried and how.
type Options struct {
	Name   string // of the mirror: its report is called after it
	Filter Filter
	// Delete removes what the source no longer has, MaxDelete objects at most, and none where the source lists fewer objects than the target has by
	// more than MaxDeleteShare percent.
	Delete         bool
	MaxDelete      int
	MaxDeleteShare int
	DryRun         bool

	Beside Choices

	Archived    Archived // "" is ArchivedFail
	RestoreDays int      // that a restored object can be read
	RestoreTier string   // how fast the archive is asked to be

	Parallel int   // objects, and parts of large ones, on their way at once
	MaxRate  int64 // bytes a second over all; 0 for no limit
	Attempts int   // of one object before it is set aside
	Backoff  time.Duration
	WorkDir  string // local folder for what has to wait; the system's when empty

	Tables Tables
	Watch  Watcher
	Log    *slog.Logger // of what is wrong in leat itself; nil for none
	Now    func() time.Time
}

// Archived says what becomes of objects that lie in an archive and must be restored before they can be read.
type Archived string

// The choices.
const (
	ArchivedFail    Archived = "fail"
	ArchivedSkip    Archived = "skip"    // left out and counted
	ArchivedRestore Archived = "restore" // asked for; a later run carries them
)

// Tables knows Iceberg tables, each by its key prefix below both buckets ("" is the root).
type Tables interface {
	// Is says whether there is one at the source.
	Is(ctx context.Context, root string) (bool, error)
	// Relocate brings a table's metadata to the target. It says whether the target lacked anything.
	Relocate(ctx context.Context, root string, files Files) (changed bool, err error)
	// Brought says of each file below a table's root whether the table has it at the target; nil where that is not known.
	Brought(ctx context.Context, root string) (has func(key string) bool, err error)
}

// Watcher is told how a mirror goes on. Its methods are called from several goroutines.
type Watcher interface {
	// Seen: an object was compared; a reason to carry it and its bytes, or the way by which it is the same.
	Seen(o bucket.Object, verdict Verdict)
	// Moved: so many bytes have come over since the last call.
	Moved(bytes int64)
	Carried(key string, bytes int64, how string)
	Deleted(key string)
	Again(key string, err error, in time.Duration)
	SetAside(key string, err error)
	// LeftOut: what lies at the source is no object that the target could have; no failure.
	LeftOut(key string, err error)
}

// Report is what a run has done.
type Report struct {
	FormatVersion int                  `json:"format_version"`
	From          string               `json:"from"`
	To            string               `json:"to"`
	Started       time.Time            `json:"started"`
	Finished      time.Time            `json:"finished"`
	Objects       int64                `json:"objects"` // of the source that the filter lets pass
	Bytes         int64                `json:"bytes"`
	Same          map[Way]int64        `json:"same"`        // by the way they were compared
	Carried       Sum                  `json:"carried"`     // by us
	Copied        Sum                  `json:"copied"`      // by the server itself
	Tables        int                  `json:"tables"`      // Iceberg tables brought up to date
	TablesSame    int                  `json:"tables_same"` // those of which the far side lacked nothing
	Dumps         int                  `json:"dumps"`       // dumps that became complete
	Deleted       int64                `json:"deleted"`
	Withheld      int64                `json:"withheld"` // deletions that were not made because objects were set aside
	Unlisted      int64                `json:"unlisted"` // not deleted: the source has them, although its listing did not show them
	Gone          int64                `json:"gone"`     // deleted at the source between listing and carrying
	Retries       int64                `json:"retries"`
	SetAside      []Dead               `json:"set_aside"`   // the first thousand
	Failed        int64                `json:"failed"`      // all of them
	FailedBy      map[fault.Code]int64 `json:"failed_by"`   // by the code of their last error
	LeftOut       map[fault.Code]int64 `json:"left_out"`    // what is no object, or not wanted, by code; no failures
	NotCarried    map[Attribute]int64  `json:"not_carried"` // objects that came without something that they have beside their bytes
	DryRun        bool                 `json:"dry_run,omitempty"`
	Reasons       map[Reason]int       `json:"reasons"` // why objects were carried
}

// Sum counts objects.
type Sum struct {
	Objects int64 `json:"objects"`
	Bytes   int64 `json:"bytes"`
}

// Dead is an object that could not be carried.
type Dead struct {
	Key      string     `json:"key"`
	KeyBytes []byte     `json:"key_bytes,omitempty"` // of a key that is no UTF-8, which JSON cannot say, in base64
	Code     fault.Code `json:"code"`
	Reason   string     `json:"reason"`
}

// KeyBytes is a key that JSON cannot say; nil for one that it can.
func KeyBytes(key string) []byte {
	if utf8.ValidString(key) {
		return nil
	}
	return []byte(key)
}

const (
	reportVersion = 1
	mostDead      = 1000
)

// run is one mirror from its first listing to its report.
type run struct {
	o         Options
	from, to  side
	rate      *rate.Limiter // nil for no limit
	memory    *budget
	buffers   sync.Pool // of small objects
	parts     sync.Pool // of large ones
	sums      *sumsFile
	crew      *crew
	tally     tally
	began     time.Time
	listed    counted
	foreign   foreign
	markKey   string
	marks     marks
	besides   besides
	later     later
	tables    map[string]tableLook // folders that were looked at: is there an Iceberg table
	failed    map[string]bool      // tables that could not be carried
	arrived   map[string]bool      // tables of which the far side has data files
	server    bool                 // both sides are one server, which copies by itself
	opaque    atomic.Bool          // the far side encrypts so that its ETags say nothing
	veils     veils
	refused   refusals
	respelled respelled
}

// later is what has to wait, in files in the order of keys.
type later struct {
	metadata  *queue // of Iceberg tables
	inTables  *queue // what lies in their data folders and not at the target
	manifests *queue // of dumps
	changes   *queue // manifests of change files
	pointers  *queue // to those
	respelled *queue // what the target has under another spelling
	deletions deletions
}

// deletions are in the order in which they are made: what names other objects goes before these.
type deletions struct{ pointers, manifests, data *queue }

func (d *deletions) all() []*queue { return []*queue{d.pointers, d.manifests, d.data} }

// Run carries what the far side lacks. It returns the report also with an error; mirror-incomplete says that all was tried and
// some objects were set aside.
func Run(ctx context.Context, from, to bucket.Bucket, o Options) (Report, error) {
	r := &run{o: o, began: o.Now(), markKey: markKey(o.Name), from: newSide(from), to: newSide(to), memory: newBudget(memoryBudget), tables: map[string]tableLook{}, arrived: map[string]bool{}, failed: map[string]bool{}}
	r.buffers.New = func() any { return new([]byte) }
	r.tally.begin(from.Properties().URL, to.Properties().URL, o)
	if err := r.apart(); err != nil {
		return r.tally.end(o.Now()), err
	}
	if o.MaxRate > 0 {
		r.rate = rate.NewLimiter(rate.Limit(o.MaxRate), int(max(64<<10, min(o.MaxRate, 4<<20))))
	}
	if r.from.carrier != nil && r.to.carrier != nil {
		r.server = r.to.carrier.Reaches(r.from.carrier)
	}
	err := r.work(ctx)
	report := r.tally.end(o.Now())
	if err == nil && !o.DryRun {
		err = r.writeReport(ctx, report)
	}
	if err == nil && report.Failed > 0 {
		err = fault.New(fault.MirrorIncomplete, report.To, "%d objects could not be carried, the first %s: %s", report.Failed, report.SetAside[0].Key, report.SetAside[0].Reason)
	}
	return report, err
}

// work is the order of the steps: data first, then what names it, and deletions when all else is there.
func (r *run) work(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(r.o.WorkDir, "leat-mirror-")
	if err != nil {
		return fault.Wrap(err, fault.StateUnusable, r.o.WorkDir, "no folder can be made for what has to wait")
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := r.openFiles(dir); err != nil {
		return err
	}
	defer r.closeFiles()
	defer r.unmark(ctx)
	for _, step := range []func(context.Context) error{r.mark, r.carryData, r.carryTables, r.countOrphans, r.carryChanges, r.carryManifests, r.deleteAll, r.carryRespelled} {
		if err := step(ctx); err != nil {
			r.refuseRespelled(ctx)
			return err
		}
	}
	return nil
}

func (r *run) openFiles(dir string) (err error) {
	l := &r.later
	for _, f := range []struct {
		to   **queue
		name string
	}{
		{&l.metadata, "metadata"}, {&l.inTables, "in-tables"}, {&l.manifests, "manifests"}, {&l.changes, "changes"}, {&l.pointers, "pointers"}, {&l.respelled, "respelled"},
		{&l.deletions.pointers, "deleted-pointers"}, {&l.deletions.manifests, "deleted-manifests"}, {&l.deletions.data, "deleted-data"},
	} {
		if *f.to, err = newQueue(dir, f.name); err != nil {
			return err
		}
	}
	r.sums, err = newSumsFile(dir)
	return err
}

func (r *run) closeFiles() {
	l := &r.later
	for _, q := range append(l.deletions.all(), l.metadata, l.inTables, l.manifests, l.changes, l.pointers, l.respelled) {
		q.close()
	}
	r.sums.close()
}

// carryData lists both sides and carries what nothing else has to wait for.
func (r *run) carryData(ctx context.Context) error {
	r.crew = r.newCrew(ctx, r.carry)
	err := r.plan(ctx)
	return errors.Join(r.crew.end(), err)
}
