package checkpoint

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Version is what this program writes. It reads older versions, and refuses newer ones.
const Version = 1

// State is how far a pipeline is.
type State struct {
	Version int `json:"version"`
	// Epoch and Owner are those of the lease under which the state was written.
	Epoch int64  `json:"epoch"`
	Owner string `json:"owner"`
	// Position: all tables hold every transaction before it, or the spool does.
	Position change.LSN `json:"position"`
	// Spooled: the spool holds every transaction before it that a copying table needs.
	Spooled     change.LSN            `json:"spooled"`
	SystemID    string                `json:"system_id,omitempty"`
	Timeline    int                   `json:"timeline,omitempty"`
	Slot        string                `json:"slot,omitempty"`
	Publication string                `json:"publication,omitempty"`
	Tables      map[string]TableState `json:"tables,omitempty"`   // by a name that the pipeline chooses
	LeftOut     map[string]string     `json:"left_out,omitempty"` // tables that were chosen and cannot be followed, and why
	// Held are tables that stay as another program has left them in the lake, until they are copied again on request, and why.
	Held    map[string]string `json:"held,omitempty"`
	Control Control           `json:"control"`
	Guard   Guard             `json:"guard,omitempty"`
	// Horizon: the facts of the tables are of a moment at which every transaction with a lower number had ended; 0 when nobody knows.
	Horizon uint64 `json:"horizon,omitempty"`
	// Unreadable: the log cannot be read on from Position, and never will be. A new copy of all tables needs a slot made anew.
	Unreadable bool `json:"unreadable,omitempty"`
	// HintsBehind: version hints of tables may not lead to what is committed: they are brought up to date beside the
	// commits.
	HintsBehind bool      `json:"hints_behind,omitempty"`
	Saved       time.Time `json:"saved"` // by the writer's clock: for people
	Written     string    `json:"written"`
}

// Phase is what a table does.
type Phase string

// The phases.
const (
	Copying   Phase = "copying"   // its rows are being copied, its changes go to the spool
	Spooling  Phase = "spooling"  // its changes go to the spool, the copy has ended or waits
	Streaming Phase = "streaming" // it follows the log
)

// Guard is what a pipeline does because the server keeps too much of its log, until it has come to its end.
type Guard string

// The measures.
const (
	GuardSpooling Guard = "spooling" // all tables' changes go to the spool
	GuardDropping Guard = "dropping" // the slot is dropped, and a new copy of all tables begins
)

// TableState is what is known of one table beyond what the lake itself tells.
type TableState struct {
	// Schema and Table are its name at the source, which the name in the saved state encodes; "" in states of before they were kept.
	Schema string `json:"schema,omitempty"`
	Table  string `json:"table,omitempty"`

	Phase Phase      `json:"phase"`
	OID   uint32     `json:"oid,omitempty"`
	Since change.LSN `json:"since,omitempty"` // where its spool begins
	Upper change.LSN `json:"upper,omitempty"` // nothing from here on was in the snapshot of its copy
	Lower change.LSN `json:"lower,omitempty"` // everything before was in it
	Anew  bool       `json:"anew,omitempty"`  // it was copied before, and is to be copied again
	Exact bool       `json:"exact,omitempty"` // in a snapshot of which it is known what of the log it holds
	// Late: it came into the publication of a log that was being read. What transactions of before it have written may never be
	// told, so none of them may run any more when the copy begins.
	Late bool `json:"late,omitempty"`
	// Renumbered: the log has begun anew, perhaps at another server, and positions that the lake holds are not of it.
	Renumbered bool `json:"renumbered,omitempty"`
	// Published is what the publication gave of the table when its copy began: columns and row filter; "" all of it.
	Published string `json:"published,omitempty"`
	// Leaves are the partitions of a table that is followed as one; nil where nobody has looked.
	Leaves []uint32 `json:"leaves,omitzero"`
	// LeftOut are the attnums of columns that the server computes and that the lake does not have.
	LeftOut []int16 `json:"left_out,omitempty"`
	// Special counts values that went aside, of copies and of the log. Changes that are told again after a crash count again.
	Special int64 `json:"special,omitempty"`
	// Former are partitions that it had once, whose rows the lake still keeps.
	Former []uint32 `json:"former,omitempty"`
	// Facts are the versions of the catalog rows that decide whether the WAL tells all of the table; "" where nobody has looked.
	Facts string `json:"facts,omitempty"`
	// Claim is what messages of DDL events say of it that no look has judged yet.
	Claim *Claim `json:"claim,omitempty"`
	// Truncated are the latest transactions of which the WAL told a TRUNCATE of it.
	Truncated []uint32 `json:"truncated,omitempty"`
	// Tended is when upkeep was done last, or when the table came into the lake: by the writer's clock.
	Tended time.Time `json:"tended,omitzero"`
	// Untended is how many runs that have caught up have written to it and left upkeep to a later one, since it was done last.
	Untended int `json:"untended,omitempty"`
	// Foreign is how many rows other programs have added to the lake's tables, or removed from them.
	Foreign int64 `json:"foreign_rows,omitempty"`
	// Every is how many seconds pass between its commits, where the run gives each table an interval of its own.
	Every int64 `json:"commit_seconds,omitempty"`
	// Recopied is when the last copy began of a table that the log does not tell of, and that is kept right by copying it again: by the
	// writer's clock.
	Recopied time.Time `json:"recopied,omitzero"`
}

// Named is the state with the name of its table, of which the saved state's own name is key.
func (t TableState) Named(key string) TableState {
	schema, table, _ := strings.Cut(key, ".")
	if t.Table != "" || strings.Contains(key, "~") { // it was cut
		return t
	}
	var err error
	if t.Schema, err = url.PathUnescape(schema); err == nil {
		t.Table, err = url.PathUnescape(table)
	}
	if err != nil {
		t.Schema, t.Table = schema, table
	}
	return t
}

// Name is the table's name, schema.name, or the saved state's where that is all that is known.
func (t TableState) Name(key string) string {
	if t = t.Named(key); t.Table == "" {
		return key
	}
	return t.Schema + "." + t.Table
}

// Claim says that the WAL may not have told all of a table.
type Claim struct {
	XIDs      []uint32   `json:"xids"` // the transactions that claim it
	At        change.LSN `json:"at"`   // the commit of the last of them
	Because   string     `json:"because"`
	Published bool       `json:"published,omitempty"` // it was not published, or not as it is now
}

// Control is what the pipeline has made of requests.
type Control struct {
	Paused bool `json:"paused,omitempty"`
	// Done are the requests that have been taken up, as long as control.json still has them.
	Done []string `json:"done,omitempty"`
}

// Lease is who runs a pipeline.
type Lease struct {
	Version  int           `json:"version"`
	Epoch    int64         `json:"epoch"` // grows with each new owner
	Owner    string        `json:"owner"` // a name that no other process has
	Host     string        `json:"host"`
	PID      int           `json:"pid"`
	Process  process       `json:"process"`
	TTL      time.Duration `json:"ttl"`     // nanoseconds
	Renewed  time.Time     `json:"renewed"` // by the owner's clock: for people
	Released bool          `json:"released,omitempty"`
	// Modified is the store's time of the last renewal; not part of the object.
	Modified time.Time `json:"-"`

	etag string
}

const (
	stateKey   = "state.json"
	leaseKey   = "lease.json"
	controlKey = "control.json"
	// maxObject bounds what is read into memory: 100,000 tables fit.
	maxObject = 64 << 20
)

// stored is an object together with the version of it that was read.
type stored struct {
	data     []byte
	etag     string // "" when there is none
	modified time.Time
}

// read reads an object and its ETag, which belong together. One that never stays the same for as long as that takes is bucket-busy.
func read(ctx context.Context, b bucket.Bucket, key string) (stored, error) {
	for attempt := range mostAttempts {
		if err := pauseBefore(ctx, attempt, key); err != nil {
			return stored{}, err
		}
		before, err := b.Stat(ctx, key)
		if fault.Is(err, fault.ObjectMissing) {
			return stored{}, nil
		}
		if err != nil {
			return stored{}, err
		}
		data, err := bucket.ReadAll(ctx, b, key, maxObject)
		if fault.Is(err, fault.ObjectMissing) {
			continue
		}
		if err != nil {
			return stored{}, err
		}
		after, err := b.Stat(ctx, key)
		if fault.Is(err, fault.ObjectMissing) || err == nil && after.ETag != before.ETag {
			continue // it was written meanwhile
		}
		if err != nil {
			return stored{}, err
		}
		return stored{data: data, etag: after.ETag, modified: after.Modified}, nil
	}
	return stored{}, fault.New(fault.BucketBusy, key, "the object was another one at each of %d looks", mostAttempts)
}

// mostAttempts is how often something is tried again because others were in the way.
const mostAttempts = 20

// pauseBefore waits before all attempts but the first, longer each time and at random: those who were in each other's way do not come
// back together, and no store is asked without pause.
func pauseBefore(ctx context.Context, attempt int, where string) error {
	if attempt == 0 {
		return nil
	}
	return pause(ctx, rand.N(min(10*time.Millisecond<<min(attempt, 10), time.Second)), where)
}

func write(ctx context.Context, b bucket.Bucket, key string, value any, o bucket.WriteOptions) (string, error) {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return "", fault.Wrap(err, fault.Internal, key, "cannot be written as JSON")
	}
	o.ContentType = "application/json"
	done, err := bucket.WriteAll(ctx, b, key, append(data, '\n'), o)
	return done.ETag, err
}

// only is the condition that the object is still the version we know.
func only(etag string) bucket.WriteOptions {
	if etag == "" {
		return bucket.WriteOptions{IfAbsent: true}
	}
	return bucket.WriteOptions{IfMatch: etag}
}

// decode reads JSON of a version that we know.
func decode(data []byte, where string, into any) error {
	return decodeUpTo(Version, data, where, into)
}

func decodeUpTo(most int, data []byte, where string, into any) error {
	var v struct {
		Version int `json:"version"`
	}
	if err := bucket.DecodeJSON(data, &v); err != nil {
		return fault.Wrap(err, fault.StateUnusable, where, "it is not JSON of ours")
	}
	if v.Version < 1 || v.Version > most {
		return fault.New(fault.StateUnusable, where, "it has version %d, and this leat knows up to %d", v.Version, most)
	}
	return fault.Wrap(bucket.DecodeJSON(data, into), fault.StateUnusable, where, "it is not JSON of ours")
}

func readLease(ctx context.Context, b bucket.Bucket, prefix string) (Lease, error) {
	o, err := read(ctx, b, prefix+leaseKey)
	if err != nil || o.etag == "" {
		return Lease{}, err
	}
	var l Lease
	err = decode(o.data, prefix+leaseKey, &l)
	l.etag, l.Modified = o.etag, o.modified
	return l, err
}

// Read looks at a pipeline from outside, for its status: nothing is written. A pipeline that never ran has the zero State
// and Lease, with Epoch 0.
func Read(ctx context.Context, b bucket.Bucket, prefix string) (State, Lease, error) {
	prefix = folder(prefix)
	s, err := readState(ctx, b, prefix)
	if err != nil {
		return State{}, Lease{}, err
	}
	l, err := readLease(ctx, b, prefix)
	return s.State, l, err
}

func folder(prefix string) string {
	if prefix == "" || prefix[len(prefix)-1] == '/' {
		return prefix
	}
	return prefix + "/"
}
