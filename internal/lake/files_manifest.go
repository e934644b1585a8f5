package lake

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

const (
	manifestFolder  = "_manifests"
	manifestVersion = 1
	hintEvery       = 16 // manifests; so many at most are looked for behind the hint
)

// The kinds of commits.
const (
	commitBegin   = "begin"   // the table is there and has no rows
	commitChanges = "changes" // of the log
	commitCopy    = "copy"    // the rows of a snapshot
)

// fileManifest is one commit of a table: it makes its files part of it. Manifests are numbered from 1 without a gap, and
// one is written only if nobody has written its number.
type fileManifest struct {
	FormatVersion int                `json:"format_version"`
	Number        int64              `json:"number"`
	Kind          string             `json:"kind"`
	Pipeline      string             `json:"pipeline"`
	Epoch         int64              `json:"epoch"`
	Source        string             `json:"source"`
	Profile       string             `json:"profile"`
	From          change.LSN         `json:"from"`
	Position      change.LSN         `json:"position"` // 0 until the table has been copied
	CommittedAt   time.Time          `json:"committed_at"`
	Format        format.Kind        `json:"format"`
	Compression   format.Compression `json:"compression,omitempty"`
	Rows          int64              `json:"rows"`
	Bytes         int64              `json:"bytes"`
	Columns       []column           `json:"columns"` // of the source
	Files         []fileEntry        `json:"files"`
	Copies        []finishedCopy     `json:"copies,omitempty"` // all there were, with this one
}

// finishedCopy says which manifest names the files of a copy.
type finishedCopy struct {
	ID     string `json:"id"`
	Number int64  `json:"number"`
}

func (t *filesTable) manifestKey(n int64) string {
	return path.Join(t.folder, manifestFolder, fmt.Sprintf("%012d.json", n))
}

func (t *filesTable) hintKey() string { return path.Join(t.folder, manifestFolder, "latest") }

// load finds the newest manifest; none leaves last nil.
func (t *filesTable) load(ctx context.Context) error {
	n, err := t.hinted(ctx)
	if err != nil {
		return err
	}
	t.last = nil
	for {
		m, err := t.manifest(ctx, n)
		if fault.Is(err, fault.ObjectMissing) {
			return nil
		}
		if err != nil {
			return err
		}
		t.last, n = m, n+1
	}
}

// hinted is the number of a manifest that is there; 1 when there is none.
func (t *filesTable) hinted(ctx context.Context) (int64, error) {
	b := t.lake.Bucket
	if data, err := bucket.ReadAll(ctx, b, t.hintKey(), 64); err == nil {
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err == nil {
			if _, err = b.Stat(ctx, t.manifestKey(n)); err == nil {
				return n, nil
			}
		}
	} else if !fault.Is(err, fault.ObjectMissing) {
		return 0, err
	}
	last := int64(1)
	for o, err := range b.List(ctx, path.Join(t.folder, manifestFolder)+"/") {
		if err != nil {
			return 0, err
		}
		if n, err := strconv.ParseInt(strings.TrimSuffix(path.Base(o.Key), ".json"), 10, 64); err == nil {
			last = max(last, n)
		}
	}
	return last, nil
}

func (t *filesTable) manifest(ctx context.Context, n int64) (*fileManifest, error) {
	key := t.manifestKey(n)
	data, err := bucket.ReadAll(ctx, t.lake.Bucket, key, maxMetadata)
	if err != nil {
		return nil, err
	}
	m := &fileManifest{}
	if err := bucket.DecodeJSON(data, m); err != nil || m.FormatVersion != manifestVersion || m.Number != n {
		return nil, fault.New(fault.StateUnusable, key, "the manifest cannot be understood (format version %d)", m.FormatVersion)
	}
	return m, nil
}

// publish writes the next manifest: its files are part of the table from then on.
func (t *filesTable) publish(ctx context.Context, m *fileManifest) error {
	l := t.lake
	m.FormatVersion, m.Number = manifestVersion, 1
	if t.last != nil {
		m.Number = t.last.Number + 1
		m.Copies = append(t.last.Copies[:len(t.last.Copies):len(t.last.Copies)], m.Copies...)
	}
	m.Pipeline, m.Epoch, m.Source, m.Profile, m.Format = l.Pipeline, l.Epoch, t.spec.Table.String(), l.Profile, l.Format
	if l.Format.Typed() {
		m.Compression = l.Compression
	}
	if m.Files == nil {
		m.Files = []fileEntry{}
	}
	for _, f := range m.Files {
		m.Rows, m.Bytes = m.Rows+f.Rows, m.Bytes+f.Bytes
	}
	data, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		return fault.Wrap(err, fault.Internal, t.folder, "a manifest cannot be written")
	}
	key := t.manifestKey(m.Number)
	_, err = bucket.WriteAll(ctx, l.Bucket, key, append(data, '\n'), bucket.WriteOptions{ContentType: "application/json", IfAbsent: l.guarded})
	if fault.Is(err, fault.ObjectExists) {
		return fault.New(fault.LakeConflict, key, "somebody else has written the manifest of this commit").Because(err)
	}
	if err != nil {
		return err
	}
	t.last = m
	if m.Number%hintEvery == 0 || m.Kind != commitChanges {
		t.hint(ctx)
	}
	return nil
}

// hint notes the newest manifest. The commit has happened; without the note it is found all the same.
func (t *filesTable) hint(ctx context.Context) {
	text := strconv.FormatInt(t.last.Number, 10) + "\n"
	if _, err := bucket.WriteAll(ctx, t.lake.Bucket, t.hintKey(), []byte(text), bucket.WriteOptions{ContentType: "text/plain"}); err != nil {
		t.lake.Log.Warn("the hint at the newest manifest could not be written", "table", t.folder, "error", err)
	}
}
