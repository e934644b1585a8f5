package lake

import (
	"context"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// FilesOptions say where change files are kept and how.
type FilesOptions struct {
	Bucket bucket.Bucket
	// Root is a prefix in the bucket that all objects lie below, "" for none.
	Root string
	// Format is of the files; Parquet if empty.
	Format format.Kind
	// Compression is of Parquet pages and Avro blocks; zstd if empty.
	Compression format.Compression
	// TargetFileSize is how many bytes a file has before the next one begins; 128 MiB if 0.
	TargetFileSize int64
	// Profile names the system columns: leat (or ""), airbyte, debezium.
	Profile string
	// NamespacePrefix goes before the schema's name in the names of folders.
	NamespacePrefix string
	// WorkDir is a local folder where files are made before their commit; what it holds may be lost.
	WorkDir string
	// Pipeline is the name of the one writer; a table of another one is refused.
	Pipeline string
	// Epoch grows with each lease of the pipeline and is written with every commit.
	Epoch int64
	Log   *slog.Logger
}

// Files is the lake of plain files: of each table its history, as files that manifests name. Its methods may be
// called from several goroutines.
type Files struct {
	FilesOptions
	local string // below WorkDir
	// What the store can refuse: to write over an object of one part, or of any size.
	guarded, guardedData bool
}

// OpenFiles opens a lake of plain files.
func OpenFiles(ctx context.Context, o FilesOptions) (*Files, error) {
	o.Root = strings.Trim(o.Root, "/")
	if o.Format == "" {
		o.Format = format.Parquet
	}
	if !o.Format.Known() {
		return nil, fault.New(fault.FormatUnusable, "lake.file_format", "%q is no format of files", o.Format)
	}
	if o.Compression == "" {
		o.Compression = format.CodecZstd
	}
	if o.TargetFileSize <= 0 {
		o.TargetFileSize = defaultTargetFileSize
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.WorkDir == "" {
		o.WorkDir = os.TempDir()
	}
	if _, err := profileColumns(o.Profile); err != nil {
		return nil, err
	}
	can, err := bucket.Probe(ctx, o.Bucket)
	if err != nil {
		return nil, err
	}
	l := &Files{FilesOptions: o, guarded: can.ConditionalPut == bucket.Supported}
	l.guardedData = l.guarded && can.ConditionalMultipart == bucket.Supported
	if !l.guarded {
		o.Log.Warn("the store has no conditional writes: the lease alone keeps a second writer away", "store", can.URL)
	}
	if err := os.MkdirAll(o.WorkDir, 0o700); err != nil {
		return nil, fault.Wrap(err, fault.StateUnusable, o.WorkDir, "there is no room for files in the making")
	}
	l.local, err = os.MkdirTemp(o.WorkDir, "files-")
	return l, fault.Wrap(err, fault.StateUnusable, o.WorkDir, "there is no room for files in the making")
}

// Close removes what is in the making. Tables must have been closed; the bucket stays open.
func (l *Files) Close() error { return os.RemoveAll(l.local) }

// Table opens the files of a source table. fault.LakeForeign if another pipeline writes there.
func (l *Files) Table(ctx context.Context, spec Spec) (Table, error) {
	if spec.Current {
		return nil, l.noCurrent(spec.Table)
	}
	t := &filesTable{lake: l, spec: spec, folder: l.folder(spec.Table)}
	t.uploads, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := t.open(ctx); err != nil {
		_ = t.Close() // the error that counts is there
		return nil, err
	}
	return t, nil
}

func (l *Files) folder(t *change.Table) string {
	named := change.Table{Schema: l.NamespacePrefix + t.Schema, Name: t.Name}
	return path.Join(l.Root, named.KeyName())
}

// Sweep removes files of this pipeline's tables that no manifest and no copy names and that are older than olderThan,
// and uploads that were never finished. It returns how many there were and their bytes.
func (l *Files) Sweep(ctx context.Context, olderThan time.Duration) (n int, size int64, err error) {
	before := time.Now().Add(-olderThan)
	folders := map[string]bool{}
	for o, err := range l.Bucket.List(ctx, l.Root) {
		if err != nil {
			return 0, 0, err
		}
		if at := strings.Index(o.Key, "/"+manifestFolder+"/"); at > 0 {
			folders[o.Key[:at]] = true
		}
	}
	for folder := range folders {
		t := &filesTable{lake: l, folder: folder}
		if err := t.load(ctx); err != nil {
			return n, size, err
		}
		if t.last == nil || t.last.Pipeline != l.Pipeline {
			continue
		}
		swept, bytes, err := t.sweep(ctx, before)
		n, size = n+swept, size+bytes
		if err != nil {
			return n, size, err
		}
	}
	unfinished, err := l.Bucket.Sweep(ctx, l.Root, before)
	return n + unfinished, size, err
}

// localFile is a new file of a name that nothing has.
func (l *Files) localFile() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(l.local, fresh()), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	return f, localFault(err, l.local)
}

// localFault judges an error of the local disk.
func localFault(err error, where string) error {
	if err == nil || fault.Of(err) != nil {
		return err
	}
	return fault.Wrap(err, fault.StateUnusable, where, "a file in the making cannot be written or read")
}

// HintsBehind says no: each commit of change files brings its hint along.
func (l *Files) HintsBehind() bool { return false }

// WriteHints has nothing to do, and so has FindHints.
func (l *Files) WriteHints(context.Context, bool) bool { return true }

// FindHints has nothing to do.
func (l *Files) FindHints(context.Context, []change.Table) bool { return true }
