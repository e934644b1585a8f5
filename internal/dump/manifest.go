package dump

import (
	"context"
	"encoding/json"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// ManifestName is the object that makes a folder a dump. docs/FORMAT.md describes it.
const ManifestName = "manifest.json"

// ManifestVersion is raised when a reader of older manifests would misread a new one.
const ManifestVersion = 1

// Manifest describes a whole dump. It is written last: what it names is there, whole.
type Manifest struct {
	FormatVersion int          `json:"format_version"`
	ID            string       `json:"id"`     // when the dump began, 2006-01-02T150405Z
	Folder        string       `json:"folder"` // below the root
	Tool          Tool         `json:"tool"`
	Source        SourceInfo   `json:"source"`
	Snapshot      SnapshotInfo `json:"snapshot"`
	Started       time.Time    `json:"started"`
	Finished      time.Time    `json:"finished"`
	Layout        Layout       `json:"layout"`
	Format        string       `json:"format"`
	Compression   string       `json:"compression"`
	// TextSettings are the server's settings by which values were written, where these are the role's own.
	TextSettings map[string]string `json:"text_settings,omitempty"`
	Tables       []TableManifest   `json:"tables"`
	Totals       Totals            `json:"totals"`
}

// Tool names the program that wrote the dump.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// SourceInfo names the server, without user or secrets.
type SourceInfo struct {
	Server   string `json:"server"`         // host:port/database
	Version  int    `json:"server_version"` // server_version_num
	Standby  bool   `json:"standby"`
	Encoding string `json:"encoding"`
}

// SnapshotInfo says which moment the rows belong to.
type SnapshotInfo struct {
	LSN         change.LSN `json:"lsn"`
	LSNUpper    change.LSN `json:"lsn_upper"`
	LSNExact    bool       `json:"lsn_exact"`
	WhyNotExact string     `json:"why_not_exact,omitempty"`
	Visibility  string     `json:"visibility"` // pg_current_snapshot()
	Time        time.Time  `json:"time"`       // the server's clock
}

// TableManifest is one table of a dump.
type TableManifest struct {
	Schema          string           `json:"schema"`
	Name            string           `json:"name"`
	Kind            string           `json:"kind"`
	ReplicaIdentity string           `json:"replica_identity"` // pg_class.relreplident
	Key             []string         `json:"key"`              // columns of the primary key
	Rows            int64            `json:"rows"`
	Bytes           int64            `json:"bytes"`
	Columns         []ColumnManifest `json:"columns"`
	Files           []FileManifest   `json:"files"`
}

// ColumnManifest is one column and how it was carried.
type ColumnManifest struct {
	Name    string `json:"name"`
	Attnum  int16  `json:"attnum"`
	Type    string `json:"type"`
	NotNull bool   `json:"not_null"`
	// Generated is true for a generated column.
	Generated bool `json:"generated,omitempty"`
	// Carried is the Arrow type, or "text": PostgreSQL's own text form.
	Carried string `json:"carried"`
	// Policy rules values that Carried cannot hold; Applied is how many it was used on.
	Policy  string `json:"policy,omitempty"`
	Applied int64  `json:"policy_applied,omitempty"`
}

// FileManifest is one object.
type FileManifest struct {
	Key    string     `json:"key"` // below the root
	Rows   int64      `json:"rows"`
	Bytes  int64      `json:"bytes"`
	SHA256 string     `json:"sha256"` // hexadecimal
	Chunks []PageSpan `json:"chunks"`
}

// PageSpan is a range of heap pages [From, To); both 0 is the whole table, To 0 its end.
type PageSpan struct {
	From int64 `json:"from_page"`
	To   int64 `json:"to_page"`
}

// Totals sums the tables.
type Totals struct {
	Tables int   `json:"tables"`
	Files  int   `json:"files"`
	Rows   int64 `json:"rows"`
	Bytes  int64 `json:"bytes"`
}

func (m *Manifest) sum() {
	m.Totals = Totals{Tables: len(m.Tables)}
	for i := range m.Tables {
		t := &m.Tables[i]
		t.Rows, t.Bytes = 0, 0
		for _, f := range t.Files {
			t.Rows += f.Rows
			t.Bytes += f.Bytes
		}
		m.Totals.Files += len(t.Files)
		m.Totals.Rows += t.Rows
		m.Totals.Bytes += t.Bytes
	}
}

func newTableManifest(t *change.Table, columns []ColumnManifest) TableManifest {
	m := TableManifest{
		Schema: t.Schema, Name: t.Name, Kind: t.Kind.String(), ReplicaIdentity: string(rune(t.ReplicaIdentity)),
		Key: []string{}, Columns: columns, Files: []FileManifest{},
	}
	for _, k := range t.Key {
		for _, c := range t.Columns {
			if c.Attnum == k {
				m.Key = append(m.Key, c.Name)
			}
		}
	}
	return m
}

// typedColumns says how a plan carries the columns.
func typedColumns(p *postgres.Plan) []ColumnManifest {
	columns := make([]ColumnManifest, len(p.Columns))
	for i, c := range p.Columns {
		columns[i] = columnManifest(c.Column)
		columns[i].Carried = c.Field.Type.String()
		columns[i].Policy = string(c.Policy)
		if c.AsText {
			columns[i].Carried = "text"
		}
	}
	return columns
}

// textColumns: every value is the server's own text. CSV follows COPY t TO, which leaves generated columns out.
func textColumns(t *change.Table, generated bool) []ColumnManifest {
	columns := []ColumnManifest{}
	for _, c := range t.Columns {
		if c.Generated != 0 && !generated {
			continue
		}
		m := columnManifest(c)
		m.Carried = "text"
		columns = append(columns, m)
	}
	return columns
}

func columnManifest(c change.Column) ColumnManifest {
	return ColumnManifest{Name: c.Name, Attnum: c.Attnum, Type: c.Type, NotNull: c.NotNull, Generated: c.Generated != 0}
}

func (m *Manifest) write(ctx context.Context, b bucket.Bucket) error {
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fault.Wrap(err, fault.Internal, ManifestName, "cannot be written as JSON")
	}
	_, err = bucket.WriteAll(ctx, b, m.Folder+"/"+ManifestName, append(data, '\n'), bucket.WriteOptions{ContentType: "application/json"})
	return err
}

// maxManifest bounds what is read of an object that says it is a manifest.
const maxManifest = 128 << 20

// ManifestKey is where the manifest of a dump's folder lies; "" is the bucket's root.
func ManifestKey(folder string) string {
	if folder == "" {
		return ManifestName
	}
	return folder + "/" + ManifestName
}

// ReadManifest reads the manifest of a dump's folder; fault.ObjectMissing where there is none.
func ReadManifest(ctx context.Context, b bucket.Bucket, folder string) (*Manifest, error) {
	key := ManifestKey(folder)
	data, err := bucket.ReadAll(ctx, b, key, maxManifest)
	if err != nil {
		return nil, err
	}
	var m Manifest
	if err := bucket.DecodeJSON(data, &m); err != nil {
		return nil, fault.Wrap(err, fault.BucketFailed, key, "is not a manifest")
	}
	if m.FormatVersion != ManifestVersion {
		return nil, fault.New(fault.BucketUnsupported, key, "has format_version %d; this leat reads %d", m.FormatVersion, ManifestVersion)
	}
	for _, t := range m.Tables {
		for _, f := range t.Files {
			if f.Bytes < 0 || f.Rows < 0 {
				return nil, fault.New(fault.BucketFailed, key, "is not a manifest: %s has %d bytes and %d rows", f.Key, f.Bytes, f.Rows)
			}
		}
	}
	return &m, nil
}
