package lake

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// fileCatalog keeps tables without any server: metadata/vN.metadata.json beside the data, as Hadoop's catalog does, so
// that its readers find them. Version N+1 is written only if nobody has written it yet, and stands if no later one is there by
// then: see proveNewest. metadata/version-hint.text is a hint: it may lag behind, never ahead.
type fileCatalog struct {
	lake  *Lake
	mu    sync.Mutex
	last  map[string]fileVersion // by the table's folder: what we loaded or wrote last
	hints map[string]*versionHint
}

type fileVersion struct {
	number int
	meta   table.Metadata
}

func newFileCatalog(l *Lake) *fileCatalog {
	return &fileCatalog{lake: l, last: map[string]fileVersion{}, hints: map[string]*versionHint{}}
}

func (c *fileCatalog) folder(ident table.Identifier) string { return c.lake.key(ident...) }

func versionKey(folder string, n int) string {
	return folder + "/metadata/v" + strconv.Itoa(n) + ".metadata.json"
}

func hintKey(folder string) string { return folder + "/metadata/version-hint.text" }

// LoadTable finds the newest version, or catalog.ErrNoSuchTable.
func (c *fileCatalog) LoadTable(ctx context.Context, ident table.Identifier) (*table.Table, error) {
	folder := c.folder(ident)
	n, said, err := c.newest(ctx, folder, true)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("%w: %s", catalog.ErrNoSuchTable, strings.Join(ident, "."))
	}
	data, err := bucket.ReadAll(ctx, c.lake.Bucket, versionKey(folder, n), maxMetadata)
	if err != nil {
		return nil, err
	}
	meta, err := parseMetadata(ctx, versionKey(folder, n), data)
	if err != nil {
		return nil, err
	}
	c.heard(folder, said, n)
	c.remember(folder, fileVersion{n, meta})
	return c.table(ident, n, meta), nil
}

func (c *fileCatalog) table(ident table.Identifier, n int, meta table.Metadata) *table.Table {
	return table.New(ident, meta, c.lake.url(versionKey(c.folder(ident), n)), c.lake.fs, c)
}

func (c *fileCatalog) remember(folder string, v fileVersion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last[folder] = v
}

// newest is the highest version there is, 0 without any, and what the hint says. It starts at the hint and looks for
// higher ones; where the hint leads nowhere, all versions are listed, if that is wanted.
func (c *fileCatalog) newest(ctx context.Context, folder string, list bool) (found, said int, err error) {
	if said, err = c.hint(ctx, folder); err != nil || said == 0 && !list {
		return 0, said, err
	}
	for i := max(said, 1); ; i++ {
		_, err := c.lake.Bucket.Stat(ctx, versionKey(folder, i))
		if fault.Is(err, fault.ObjectMissing) {
			break
		}
		if err != nil {
			return 0, said, err
		}
		found = i
	}
	if found == 0 && list {
		found, err = c.listed(ctx, folder)
	}
	return found, said, err
}

// hint is the version that the hint names, 0 for none.
func (c *fileCatalog) hint(ctx context.Context, folder string) (int, error) {
	data, err := bucket.ReadAll(ctx, c.lake.Bucket, hintKey(folder), 64)
	if fault.Is(err, fault.ObjectMissing) {
		return 0, nil
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(data))) // whatever else it says is no hint
	return n, err
}

func (c *fileCatalog) listed(ctx context.Context, folder string) (int, error) {
	n := 0
	for o, err := range c.lake.Bucket.List(ctx, folder+"/metadata/v") {
		if err != nil {
			return 0, err
		}
		name, ok := strings.CutSuffix(o.Key[len(folder+"/metadata/v"):], ".metadata.json")
		if v, err := strconv.Atoi(name); ok && err == nil {
			n = max(n, v)
		}
	}
	return n, nil
}

// NewTable drafts a table, which the first commit writes as version 1.
func (c *fileCatalog) NewTable(_ context.Context, ident table.Identifier, schema *iceberg.Schema, opts ...catalog.CreateTableOpt) (*table.Table, error) {
	cfg := catalog.NewCreateTableCfg()
	for _, opt := range opts {
		opt(&cfg)
	}
	folder := c.folder(ident)
	meta, err := table.NewMetadata(schema, cfg.PartitionSpec, cfg.SortOrder, c.lake.url(folder), cfg.Properties)
	if err != nil {
		return nil, err
	}
	c.remember(folder, fileVersion{0, meta})
	return table.New(ident, meta, "", c.lake.fs, c), nil
}

// CommitTable writes the version after the one we know last; table.ErrCommitFailed if somebody else has done so.
func (c *fileCatalog) CommitTable(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	folder := c.folder(ident)
	c.mu.Lock()
	base, ok := c.last[folder]
	c.mu.Unlock()
	if !ok {
		if _, err := c.LoadTable(ctx, ident); err != nil {
			return nil, "", err
		}
		return c.CommitTable(ctx, ident, reqs, updates)
	}
	for _, r := range reqs {
		if err := r.Validate(base.meta); err != nil {
			return nil, "", fmt.Errorf("%w: %w", table.ErrCommitFailed, err)
		}
	}
	location := "" // of a draft
	if base.number > 0 {
		location = c.lake.url(versionKey(folder, base.number))
	}
	meta, err := updated(base.meta, updates, location)
	if err != nil {
		return nil, "", err
	}
	next := fileVersion{base.number + 1, meta}
	if err := c.write(ctx, folder, next); err != nil {
		return nil, "", err
	}
	return meta, c.lake.url(versionKey(folder, next.number)), nil
}

// write makes a version visible if it is not there yet, and then the hint.
func (c *fileCatalog) write(ctx context.Context, folder string, v fileVersion) error {
	data, err := encodeMetadata(v.meta)
	if err != nil {
		return err
	}
	o := bucket.WriteOptions{ContentType: "application/json", IfAbsent: !c.lake.Catalog.Unconditional}
	if _, err := bucket.WriteAll(ctx, c.lake.Bucket, versionKey(folder, v.number), data, o); err != nil {
		if fault.Is(err, fault.ObjectExists) {
			return fmt.Errorf("%w: %v", table.ErrCommitFailed, err) //nolint:errorlint // the catalog's decision: the store's is its cause
		}
		return err
	}
	if err := c.proveNewest(ctx, folder, v.number); err != nil {
		return err
	}
	c.remember(folder, v)
	c.writeHint(ctx, folder, false)
	return nil
}

// proveNewest makes sure that the version we have just written is the last one. That there was none of its number does not say
// so: old versions are deleted, and whoever slept meanwhile finds the place free again. Then the version before is gone too, or
// the hint is beyond, and all are listed. A version that came too late is taken away; nobody was led to it. One that the next
// version was built on stays: the way there leads through it.
func (c *fileCatalog) proveNewest(ctx context.Context, folder string, n int) error {
	hint, err := c.hint(ctx, folder)
	if err != nil {
		return err
	}
	if hint <= n {
		if n == 1 {
			return nil
		}
		if _, err := c.lake.Bucket.Stat(ctx, versionKey(folder, n-1)); !fault.Is(err, fault.ObjectMissing) {
			return err
		}
	}
	newest, err := c.listed(ctx, folder)
	if err != nil || newest <= n {
		return err
	}
	if _, err := c.lake.Bucket.Stat(ctx, versionKey(folder, n+1)); fault.Is(err, fault.ObjectMissing) {
		if err := c.lake.Bucket.Delete(ctx, versionKey(folder, n)); err != nil {
			c.lake.Log.Warn("a version of a table that came too late could not be removed", "table", folder, "version", n, "error", err)
		}
	}
	return fmt.Errorf("%w: version %d of %s was written when version %d was there", table.ErrCommitFailed, n, folder, newest)
}
