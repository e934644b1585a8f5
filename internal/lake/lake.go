package lake

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"path"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// Options say where a lake is and how its tables are kept.
type Options struct {
	Bucket bucket.Bucket
	// Root is a prefix in the bucket that all objects lie below, "" for none.
	Root string
	// Location is the URL of the bucket's root as tables name it: s3://lake/shop.
	Location string
	Catalog  CatalogOptions
	// Format is Iceberg's format version: 2 or 3; 2 if 0.
	Format int
	// TargetFileSize is how many bytes a data file has before the next one begins; 128 MiB if 0.
	TargetFileSize int64
	// Compression is of Parquet pages; zstd if empty.
	Compression format.Compression
	// Profile names the system columns of history tables: leat (or ""), airbyte, debezium.
	Profile string
	// NamespacePrefix goes before the schema's name in the namespace.
	NamespacePrefix string
	// HistorySuffix goes behind the table's name for the history; "_history" if empty.
	HistorySuffix string
	// HintEvery is how often the hint of a table's newest version is written with the file catalog, or WriteHints called;
	// 0 writes it with each commit.
	HintEvery time.Duration
	// Snapshots says which snapshots stay when commits make them too many; the zero value leaves them all to Maintain.
	Snapshots Retention
	// WorkDir is a local folder for key indexes.
	WorkDir string
	// Pipeline is the name of the one writer; a table of another one is refused.
	Pipeline string
	// Epoch grows with each lease of the pipeline and is written with every commit.
	Epoch int64
	// OnTypeChange says what follows a type that cannot be widened: "version" keeps the history's old column under a new name and
	// converts that of the current rows, or is fault.SchemaUnfollowable where that is not exact; "stop" (or "") always is.
	OnTypeChange string
	Log          *slog.Logger
}

// Spec is what the caller wants of one table.
type Spec struct {
	Table  *change.Table
	Schema *arrow.Schema // the table's columns as the source's plan carries them, in their order
	Key    []string
	// WholeRowKey says that there is no key and the whole row stands for one.
	WholeRowKey      bool
	Current, History bool
	Partition, Sort  []string
	// Renumbered says that positions which the tables hold are not of the log that is followed now: a copy ends that.
	Renumbered bool
	// Repair gives columns their names back that another program has changed.
	Repair bool
	// Reread gives the rows of these keys as they are in the source now, for TOAST values that nobody here has.
	Reread func(ctx context.Context, keys arrow.RecordBatch) (arrow.RecordBatch, error)
	// Compute computes, in changes in which TOAST values have been found, the computed columns that had to wait for them. It gives the
	// changes with another record, or the same ones, and names the columns whose values went aside. Nil where there are none.
	Compute func(ctx context.Context, c *change.Changes) (*change.Changes, []string, error)
}

// Committed says what a commit made visible.
type Committed struct {
	Rows, Files, Deletes int
	Bytes                int64
	Position             change.LSN
	Snapshots            []int64
}

// tables is what we need of a catalog. CommitTable must fail when the table is not the one that requirements name.
type tables interface {
	LoadTable(context.Context, table.Identifier) (*table.Table, error)
	CommitTable(context.Context, table.Identifier, []table.Requirement, []table.Update) (table.Metadata, string, error)
	// NewTable begins a table. Where the catalog lets a commit make it, the table is not there before its first one: it is
	// drafted.
	NewTable(context.Context, table.Identifier, *iceberg.Schema, ...catalog.CreateTableOpt) (*table.Table, error)
}

// Lake is an open lake. Its methods may be called from several goroutines.
type Lake struct {
	Options
	catalog tables
	// createNamespace makes a namespace if it is not there; nil where namespaces need no making.
	createNamespace func(context.Context, table.Identifier) error
	closeCatalog    func() error
	stores          *storeEntry
	places          places // of names in metadata, which other programs spell in other ways
	recent          recentFiles
	keepsUnused     atomic.Bool // the catalog does not take schemas and specs out of a table
}

// Open opens a lake. It writes nothing yet.
func Open(ctx context.Context, o Options) (*Lake, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Lake{Options: o, closeCatalog: func() error { return nil }, places: newPlaces(o.Location, o.Location)}
	l.register()
	if err := l.openCatalog(ctx); err != nil {
		l.stores.remove()
		return nil, err
	}
	return l, nil
}

// Reach asks the catalog for a table that is not there, among those of a schema of the source: an error tells that it cannot be asked.
func (l *Lake) Reach(ctx context.Context, schema string) error {
	_, err := l.catalog.LoadTable(ctx, l.identifier(&change.Table{Schema: schema, Name: "leat_reach"}, ""))
	if err == nil || errors.Is(err, catalog.ErrNoSuchTable) || errors.Is(err, catalog.ErrNoSuchNamespace) {
		return nil
	}
	return catalogFailed(ctx, err, l.Location, "the catalog cannot be asked for a table")
}

// Close lets go of the catalog's connections. Tables must have been closed; the bucket stays open.
func (l *Lake) Close() error {
	l.stores.remove()
	return l.closeCatalog()
}

const defaultTargetFileSize = 128 << 20

func (o Options) withDefaults() (Options, error) {
	o.Location = strings.TrimRight(o.Location, "/")
	if o.Location == "" {
		return o, fault.New(fault.Internal, "", "a lake needs a location")
	}
	o.Root = strings.Trim(o.Root, "/")
	if o.Format == 0 {
		o.Format = 2
	}
	if o.Format != 2 && o.Format != 3 {
		return o, fault.New(fault.FormatUnusable, "", "Iceberg's format version is 2 or 3, not %d", o.Format)
	}
	if o.TargetFileSize <= 0 {
		o.TargetFileSize = defaultTargetFileSize
	}
	if o.Compression == "" {
		o.Compression = format.CodecZstd
	}
	if o.HistorySuffix == "" {
		o.HistorySuffix = "_history"
	}
	if o.Catalog.Name == "" {
		o.Catalog.Name = "leat"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// fs is the lake's bucket for the Iceberg library.
func (l *Lake) fs(ctx context.Context) (iceio.IO, error) { return l.files(ctx), nil }

func (l *Lake) files(ctx context.Context) fileIO {
	return fileIO{ctx: ctx, bucket: l.Bucket, places: l.places}
}

// key is an object's key below the lake's root.
func (l *Lake) key(segments ...string) string {
	return path.Join(append([]string{l.Root}, segments...)...)
}

// url is the name that tables give to the object of a key.
func (l *Lake) url(key string) string { return l.Location + "/" + key }

// canonical is the one name of a place that other programs spell in other ways; a name elsewhere stays as it is.
func (l *Lake) canonical(name string) string {
	if _, key, ok := l.places.root(name); ok {
		return l.url(key)
	}
	return name
}

// identifier names the Iceberg table of a source table.
func (l *Lake) identifier(t *change.Table, suffix string) table.Identifier {
	return table.Identifier{lakeName(l.NamespacePrefix + t.Schema), lakeName(t.Name + suffix)}
}

// lakeName makes a name that is the same in a catalog, in a path and in a URL: letters and digits of all alphabets,
// '_' and '-' stand for themselves, every other byte becomes ~XX. Distinct names stay distinct.
func lakeName(name string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRuneInString(name[i:])
		if r == '_' || r == '-' || (r != utf8.RuneError && (unicode.IsLetter(r) || unicode.IsDigit(r))) {
			b.WriteString(name[i : i+size])
			i += size
			continue
		}
		for _, c := range []byte(name[i : i+size]) {
			b.Write([]byte{'~', digits[c>>4], digits[c&15]})
		}
		i += size
	}
	return b.String()
}

// fresh is a name that nothing has yet; later ones sort behind earlier ones.
func fresh() string {
	var random [8]byte
	rand.Read(random[:])
	var at [8]byte
	now := uint64(time.Now().UnixMicro())
	for i := range at {
		at[i] = byte(now >> (56 - 8*i))
	}
	return hex.EncodeToString(at[1:]) + "-" + hex.EncodeToString(random[:])
}
