package lake

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// The objects of expired snapshots outlast readers that still read them. A note names them; it is written before the commit that removes
// the snapshots, so that a process that dies in between leaves nothing behind (Invariant 40).

// expiredNote is what a note says.
type expiredNote struct {
	Table     string    `json:"table"`           // its UUID
	Sequence  int64     `json:"sequence_number"` // the table's last one when it was decided what goes
	Written   time.Time `json:"written"`
	Snapshots []int64   `json:"snapshots"` // that go
	Objects   []string  `json:"objects"`   // that only they need, as metadata names them
}

// noteKey is a note that is there.
type noteKey struct {
	name     string // a fresh one, one of its snapshots, .json
	snapshot int64  // 0 where the name does not tell
	at       int64  // when it was written, in milliseconds
}

const (
	noteBytes   = 1 << 20  // of names in a note; then the next one begins
	mostNote    = 32 << 20 // bytes of a note that is read
	notesAtOnce = 8        // that are followed beside a commit
)

// notesFolder is where the notes of the pipeline lie, or those of one table.
func (l *Lake) notesFolder(of ...string) string {
	return l.key(append([]string{".leat", "expired", lakeName(l.Pipeline)}, of...)...)
}

func (t *icebergTable) noteKey(n noteKey) string {
	return t.lake.notesFolder(t.ident...) + "/" + n.name
}

// listNotes lists the notes of a table.
func (l *Lake) listNotes(ctx context.Context, ident table.Identifier) (notes []noteKey, err error) {
	prefix := l.notesFolder(ident...) + "/"
	for o, err := range l.Bucket.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		n := noteKey{name: o.Key[len(prefix):], at: o.Modified.UnixMilli()}
		id := strings.TrimSuffix(n.name[strings.LastIndexByte(n.name, '-')+1:], ".json")
		n.snapshot, _ = strconv.ParseInt(id, 10, 64) // 0 is no snapshot's
		notes = append(notes, n)
	}
	return notes, nil
}

// anyNote is for the one that writes a table's notes: none of them is being written while it looks.
const anyNote = math.MaxInt64

// learnNotes lists the notes that earlier processes left, once. Those whose commit the table has not seen go, before a later one names the same
// snapshots, if they were written before a time in milliseconds: the commit of a later one may be under way elsewhere.
func (t *icebergTable) learnNotes(ctx context.Context, before int64) error {
	if t.notesKnown {
		return nil
	}
	notes, err := t.lake.listNotes(ctx, t.ident)
	if err != nil {
		return err
	}
	var void []string
	meta := t.now().Metadata()
	notes = slices.DeleteFunc(notes, func(n noteKey) bool {
		ahead := n.ahead(meta)
		if ahead && n.at < before {
			void = append(void, t.noteKey(n))
		}
		return ahead
	})
	if err := t.lake.Bucket.Delete(ctx, void...); err != nil {
		return err
	}
	t.notes, t.notesKnown = notes, true
	return nil
}

// ahead says that the table has not seen the commit that the note was written for: it never happened, or another program has put the
// table back to a version from before it.
func (n noteKey) ahead(meta table.Metadata) bool {
	return n.name > meta.Properties()[propExpired] || meta.SnapshotByID(n.snapshot) != nil
}

// writeNotes says what is about to be removed. The commit brings the notes to the disk.
func (t *icebergTable) writeNotes(ctx context.Context, x expiry, unneeded objects) (notes []noteKey, err error) {
	note := expiredNote{Table: t.now().Metadata().TableUUID().String(), Sequence: x.sequence, Written: time.Now().UTC()}
	for _, s := range x.gone {
		note.Snapshots = append(note.Snapshots, s.SnapshotID)
	}
	names := slices.Sorted(maps.Keys(unneeded.names))
	for len(names) > 0 {
		n, size := 0, 0
		for n < len(names) && (n == 0 || size+len(names[n]) <= noteBytes) {
			n, size = n+1, size+len(names[n])
		}
		note.Objects, names = names[:n], names[n:]
		data, err := json.Marshal(note)
		if err != nil {
			return nil, fault.Wrap(err, fault.Internal, t.where(), "a note of expired snapshots cannot be written")
		}
		id := x.gone[0].SnapshotID
		key := noteKey{name: fresh() + "-" + strconv.FormatInt(id, 10) + ".json", snapshot: id}
		if _, err := bucket.WriteAll(ctx, t.lake.Bucket, t.noteKey(key), data, bucket.WriteOptions{ContentType: "application/json", Lazy: true}); err != nil {
			return nil, err
		}
		notes = append(notes, key)
	}
	return notes, nil
}

func (l *Lake) readNote(ctx context.Context, key string) (note expiredNote, err error) {
	data, err := bucket.ReadAll(ctx, l.Bucket, key, mostNote)
	if err != nil {
		return note, err
	}
	return note, unreadable(ctx, key, bucket.DecodeJSON(data, &note), "the note of expired snapshots cannot be understood")
}

// due says that the time of a note has come.
func (t *icebergTable) due(grace time.Duration) bool {
	now := time.Now().UnixMilli()
	return slices.ContainsFunc(t.notes, func(n noteKey) bool { return n.due(grace, now) })
}

func (n noteKey) due(grace time.Duration, now int64) bool { return now-n.at >= grace.Milliseconds() }

// followNotes deletes the objects of notes that are older than the grace, of the oldest so many, and then the notes. t has the table as it is
// now. What fails is tried again after the same time.
func (t *icebergTable) followNotes(ctx context.Context, grace time.Duration, most int) (removed int) {
	now := time.Now().UnixMilli()
	var due, rest []noteKey
	for _, n := range t.notes {
		if len(due) < most && n.due(grace, now) {
			due = append(due, n)
		} else {
			rest = append(rest, n)
		}
	}
	if len(due) == 0 {
		return 0
	}
	removed, err := t.follow(ctx, due)
	if err != nil {
		if ctx.Err() == nil {
			t.lake.Log.Warn("files of expired snapshots could not be removed", "table", t.where(), "error", err)
		}
		for _, n := range due {
			n.at = now
			rest = append(rest, n)
		}
	}
	t.notes = rest
	return removed
}

func (t *icebergTable) follow(ctx context.Context, due []noteKey) (removed int, err error) {
	var names, done []string
	for _, n := range due {
		key := t.noteKey(n)
		note, err := t.lake.readNote(ctx, key)
		switch {
		case fault.Is(err, fault.ObjectMissing): // another one has followed it
		case fault.Is(err, fault.LakeUnreadable):
			t.lake.Log.Warn("a note of expired snapshots is removed; the files that it names are left to leat lake maintain", "table", t.where(), "error", err)
			done = append(done, key)
		case err != nil:
			return 0, err
		default:
			unneeded, err := t.stillUnneeded(ctx, n, note)
			if err != nil {
				return 0, err
			}
			names, done = append(names, unneeded...), append(done, key)
		}
	}
	slices.Sort(names)
	if removed, err = t.lake.removeAll(ctx, slices.Compact(names)...); err != nil {
		return removed, err
	}
	return removed, t.lake.Bucket.Delete(ctx, done...)
}

// stillUnneeded is what of a note's objects the table does not need: none when the note is of another table, or its commit is not of the
// table's past. Snapshots that were there when the note was written do not need them; later ones do not as long as the history is
// one line, and else they are asked.
func (t *icebergTable) stillUnneeded(ctx context.Context, n noteKey, note expiredNote) ([]string, error) {
	meta := t.now().Metadata()
	there := func(id int64) bool { return meta.SnapshotByID(id) != nil }
	if meta.TableUUID().String() != note.Table || n.ahead(meta) || slices.ContainsFunc(note.Snapshots, there) {
		return nil, nil
	}
	needed := t.named()
	for _, m := range t.manifestsNow() {
		needed.add(m.FilePath())
	}
	if lineSince(meta) > note.Sequence {
		if err := t.neededLater(ctx, note, needed); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(note.Objects, needed.has), nil
}

// neededLater adds what of a note's objects is needed by snapshots that were committed after it: another program may have begun at a
// snapshot that was about to go.
func (t *icebergTable) neededLater(ctx context.Context, note expiredNote, needed objects) error {
	dead, seen := t.lake.noObjects(), t.lake.noObjects()
	for _, name := range note.Objects {
		dead.add(name)
	}
	for _, s := range t.now().Metadata().Snapshots() {
		if s.SequenceNumber <= note.Sequence {
			continue
		}
		list, err := t.manifestsOf(ctx, s)
		if err != nil {
			return err
		}
		for _, m := range list {
			needed.add(m.FilePath())
			if m.SequenceNum() <= note.Sequence && !dead.has(m.FilePath()) || !seen.add(m.FilePath()) {
				continue // snapshots that stayed have it, and what is in it
			}
			files, err := t.readManifest(ctx, m)
			if err != nil {
				return err
			}
			for _, f := range files {
				needed.add(f.File().FilePath())
			}
		}
	}
	return nil
}

// sweepNotes follows the notes of all tables of the pipeline that are due. Those of tables that are gone or another's have no one else who
// removes them.
func (l *Lake) sweepNotes(ctx context.Context, before time.Time) error {
	var noted []table.Identifier
	prefix := l.notesFolder() + "/"
	for o, err := range l.Bucket.List(ctx, prefix) {
		if err != nil {
			return err
		}
		parts := strings.SplitN(o.Key[len(prefix):], "/", 3)
		if len(parts) == 3 && (len(noted) == 0 || !slices.Equal(noted[len(noted)-1], parts[:2])) {
			noted = append(noted, parts[:2])
		}
	}
	return l.eachReadable(noted, func(ident table.Identifier) error {
		t, found, err := l.openIceberg(ctx, ident, "")
		if err != nil {
			return err
		}
		if !found || t.property(propPipeline) != l.Pipeline {
			return l.dropNotes(ctx, ident, before)
		}
		if err := t.learnNotes(ctx, before.UnixMilli()); err != nil {
			return err
		}
		t.followNotes(ctx, l.Snapshots.Grace, math.MaxInt)
		return nil
	})
}

// dropNotes removes the notes of a table that nothing is known of.
func (l *Lake) dropNotes(ctx context.Context, ident table.Identifier, before time.Time) error {
	notes, err := l.listNotes(ctx, ident)
	if err != nil {
		return err
	}
	var old []string
	for _, n := range notes {
		if n.at < before.UnixMilli() {
			old = append(old, l.notesFolder(ident...)+"/"+n.name)
		}
	}
	return l.Bucket.Delete(ctx, old...)
}

// addNoted adds the objects that notes name: they are kept for readers of snapshots that are gone.
func (t *icebergTable) addNoted(ctx context.Context, to objects) error {
	notes, err := t.lake.listNotes(ctx, t.ident)
	if err != nil {
		return err
	}
	for _, n := range notes {
		note, err := t.lake.readNote(ctx, t.noteKey(n))
		if fault.Is(err, fault.ObjectMissing) {
			continue // followed just now
		}
		if err != nil {
			return err
		}
		for _, name := range note.Objects {
			to.add(name)
		}
	}
	return nil
}
