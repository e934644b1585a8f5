package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/pipeline"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/scratch"
)

func (c *cli) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Follow the write-ahead log into Iceberg tables, exactly once",
		Long: `Run makes a publication and a replication slot, copies the tables once, and then
follows the log: each table in the lake is kept as the latest state (current), as every
change there was (history), or both. It can be ended and started again at any moment;
data and position are committed together.

Exit status: 0 caught up, 2 settings, 3 database, 4 lake or bucket, 5 a value or a change
of a table needs a policy, 1 anything else, 130 and 143 ended by SIGINT and SIGTERM.`,
		Example: `  leat run --from postgres://repl@db/shop --to s3://lake/shop
  leat run --from postgres://repl@db/shop --to ./lake --table 'public.*' --keep both --commit-interval 1s
  leat run -f leat.yaml --until-caught-up`,
		Args: cobra.NoArgs,
	}
	c.pipelineFlags(cmd)
	f := cmd.Flags()
	f.StringArray("exclude", nil, "table to leave out; may be repeated")
	keepFlag(cmd, "")
	f.String("commit-interval", "", "longest time from a change to its commit in the lake (10s), or auto")
	f.String("metrics", "", "address for /metrics, /healthz and /readyz, such as 127.0.0.1:9187")
	f.String("work-dir", "", "local folder for key indexes and transactions in progress; may be lost")
	untilCaughtUp := f.Bool("until-caught-up", false, "end at the position that was current at the start")
	flags := append(pipelineKeys(), []flagKey{
		{"table", "run.tables"}, {"exclude", "run.exclude"}, {"keep", "run.keep"}, {"commit-interval", "run.commit_interval"},
		{"metrics", "run.metrics"}, {"work-dir", "run.work_dir"},
	}...)
	f.StringArrayP("table", "t", nil, "table to follow, schema.name with * and ?; may be repeated (all)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c.flags = flags
		return c.follow(cmd, *untilCaughtUp)
	}
	return cmd
}

// pipelineFlags are shared by all verbs that concern a pipeline.
func (c *cli) pipelineFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("from", "", "database: postgres://user@host/db, or empty for PG* variables")
	f.String("to", "", "lake: s3://bucket/path, gs://, azblob://, file:///path or a path")
	f.String("endpoint", "", "S3 server other than AWS, such as https://ceph.example.com")
	f.String("region", "", "region of the bucket")
	lakeFlags(cmd, "")
}

// lakeFlags say which pipeline and which catalog; of goes before their help.
func lakeFlags(cmd *cobra.Command, of string) {
	f := cmd.Flags()
	f.String("name", "", of+"name of the pipeline (leat)")
	f.String("catalog", "", of+"file, sqlite, postgres, rest, glue or hive")
	f.String("catalog-uri", "", of+"address of the catalog")
	complete(cmd, "catalog", "file", "sqlite", "postgres", "rest", "glue", "hive")
}

func keepFlag(cmd *cobra.Command, of string) {
	cmd.Flags().String("keep", "", of+"auto, current, history or both")
	complete(cmd, "keep", "auto", "current", "history", "both")
}

func pipelineKeys() []flagKey {
	return []flagKey{
		{"from", "from.url"}, {"to", "to.url"}, {"endpoint", "to.endpoint"}, {"region", "to.region"}, {"name", "run.name"},
		{"catalog", "lake.catalog.type"}, {"catalog-uri", "lake.catalog.uri"},
	}
}

func (c *cli) follow(cmd *cobra.Command, untilCaughtUp bool) error {
	cfg, err := c.load(cmd)
	if err != nil {
		return err
	}
	if err := cfg.Require("to.url"); err != nil {
		return err
	}
	ctx := cmd.Context()
	view := c.newRunView(cfg)
	defer view.close()
	log := c.logger(cfg, view)
	source, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	target, err := openBucket(ctx, cfg)
	if err != nil {
		return err
	}
	defer target.Close()
	watch, stop, err := c.watch(ctx, cfg, view, log)
	if err != nil {
		return err
	}
	defer stop()
	work, err := workDir(&cfg.Run)
	if err != nil {
		return err
	}
	opts := runOptions(cfg, work, target, log, watch)
	opts.UntilCaughtUp, opts.HintEvery = untilCaughtUp, hintEvery(cfg, target)
	opts.Lake = lakeOf(cfg, target, work, log, opts.HintEvery)
	if err := pipeline.Run(ctx, source, opts); err != nil {
		return err
	}
	view.done()
	return nil
}

func runOptions(cfg *config.Config, work string, target bucket.Bucket, log *slog.Logger, watch pipeline.Watcher) pipeline.Options {
	n := &cfg.Run
	interval, lag := intervals(n)
	opts := pipeline.Options{
		Name: n.Name, Selection: runSelection(n), Policies: runPolicies(cfg.RunTypes()),
		Keep: func(schema, table string) pipeline.Keep { return keepOf(cfg, schema, table) }, Identityless: string(n.WithoutIdentity),
		RecopyEvery: time.Duration(n.RecopyEvery), Generated: pipeline.GeneratedPolicy(n.Generated), Judge: judgeOf(cfg), WithoutWAL: string(n.WithoutWAL),
		Slot: orName(n.Slot, n.Name), Publication: orName(n.Publication, n.Name), OwnPublication: n.OwnPublication, Failover: n.Failover,
		DDLEvents:  pipeline.DDLEvents(n.DDLEvents),
		RowFilter:  func(schema, table string) string { return config.SettingOf(n.RowFilters, schema, table) },
		ColumnList: func(schema, table string) []string { return splitList(config.SettingOf(n.Columns, schema, table)) },
		PartitionBy: func(schema, table string) []string {
			return splitList(config.SettingOf(cfg.Lake.PartitionBy, schema, table))
		},
		SortBy: func(schema, table string) []string {
			return splitList(config.SettingOf(cfg.Lake.SortBy, schema, table))
		},
		Messages: n.LogicalMessages,
		State:    target, Lake: lakeOf(cfg, target, work, log, 0),
		CommitInterval: interval, MaxLag: lag, CommitRows: int64(n.CommitRows), CommitBytes: int64(n.CommitBytes),
		CopyParallel: n.CopyParallel, CopyChunk: int64(n.CopyChunk), SpoolLimit: int64(n.SpoolLimit), WorkDir: work,
		Heartbeat: time.Duration(n.Heartbeat), GuardWarn: int64(n.GuardWarn), GuardSpool: int64(n.GuardSpool), GuardDrop: int64(n.GuardDrop),
		ForeignWrites: pipeline.ForeignWrites(cfg.Lake.ForeignWrites), CopyOnChange: n.OnSchemaChange != config.SchemaChangeStop, LeaseTTL: time.Duration(n.LeaseTTL),
		Maintain: time.Duration(n.MaintainInterval), MaintainAtEnd: pipeline.AtEnd(n.MaintainAtEnd), MaintainTo: maintainOptions(cfg),
		MaxRetryDelay: time.Duration(n.MaxRetryDelay), Log: log, Watch: watch,
	}
	if opts.CopyParallel == 0 {
		opts.CopyParallel = min(max(2*runtime.NumCPU(), 1), 8)
	}
	return opts
}

// leastInterval is the interval of a table that changes much, where tables have their own.
const leastInterval = 10 * time.Second

// intervals are the least and, where tables have their own, the longest one.
func intervals(n *config.Run) (interval, lag time.Duration) {
	if n.CommitInterval != config.IntervalAuto {
		return time.Duration(n.CommitInterval), 0
	}
	lag = time.Duration(n.MaxLag)
	return min(leastInterval, lag/2), lag
}

func runPolicies(t config.RunTypes) postgres.Policies {
	return postgres.Policies{
		Numeric: postgres.Policy(t.Numeric), Date: postgres.Policy(t.Date), Time: postgres.Policy(t.Time),
		Timestamp: postgres.Policy(t.Timestamp), Timestamptz: postgres.Policy(t.Timestamptz), Array: postgres.Policy(t.Array),
		UUID: postgres.Policy(t.UUID), UnboundedNumeric: string(t.UnboundedNumeric), Text: postgres.Policy(t.Text),
	}
}

func maintainOptions(cfg *config.Config) lake.MaintainOptions {
	return lake.MaintainOptions{
		Compact: true, MergeDeletes: 32, MergeManifests: true, Snapshots: snapshots(cfg),
	}
}

func snapshots(cfg *config.Config) lake.Retention {
	s := cfg.Lake.Snapshots
	return lake.Retention{
		Keep: s.Keep, All: time.Duration(s.All), Minutely: time.Duration(s.Minutely), Hourly: time.Duration(s.Hourly), Daily: time.Duration(s.Daily),
		Grace: time.Duration(s.Grace),
	}
}

func orName(given, name string) string {
	if given != "" {
		return given
	}
	if name == "leat" {
		return name
	}
	return "leat_" + name
}

// splitList cuts at commas outside parentheses and quotes: `bucket(16, id), day("at, local")`.
func splitList(s string) (items []string) {
	depth, from, quoted := 0, 0, false
	for i, r := range s + "," {
		switch {
		case r == '"':
			quoted = !quoted
		case quoted && i < len(s):
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth == 0:
			if item := strings.TrimSpace(s[from:i]); item != "" {
				items = append(items, item)
			}
			from = i + 1
		}
	}
	return items
}

func keepOf(cfg *config.Config, schema, table string) pipeline.Keep {
	n := &cfg.Run
	keep := n.Keep
	for _, p := range n.KeepCurrent {
		if p.Match(schema, table) {
			keep = config.KeepCurrent
		}
	}
	for _, p := range n.KeepHistory {
		if p.Match(schema, table) {
			keep = config.KeepHistory
		}
	}
	if cfg.Lake.Target == config.LakeFiles && keep == config.KeepAuto {
		keep = config.KeepHistory // files hold nothing else
	}
	return pipeline.Keep{
		Current: keep != config.KeepHistory, History: keep != config.KeepCurrent, Auto: keep == config.KeepAuto,
	}
}

func runSelection(n *config.Run) postgres.Selection {
	return selection(&config.Dump{Tables: orEvery(n.Tables), Exclude: n.Exclude, Partitions: n.Partitions}, "run.tables")
}

// orEvery takes every table when none is named.
func orEvery(tables []config.Pattern) []config.Pattern {
	if len(tables) > 0 {
		return tables
	}
	all, _ := config.ParsePattern("*.*") // a constant that parses
	return []config.Pattern{all}
}

// workDir is a folder of the pipeline's own.
func workDir(n *config.Run) (string, error) {
	dir := n.WorkDir
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			cache = os.TempDir()
		}
		dir = filepath.Join(cache, "leat")
	}
	dir = filepath.Join(dir, n.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fault.Wrap(err, fault.ConfigInvalid, "run.work_dir", "cannot make the folder %s", dir)
	}
	scratch.In(dir)
	return dir, nil
}

// judgeOf says whether a lake of these settings can hold a table, before there is one.
func judgeOf(cfg *config.Config) func(lake.Spec) ([]string, error) {
	if cfg.Lake.Target == config.LakeFiles {
		return filesOptions(cfg).Judge
	}
	return icebergOptions(cfg).Judge
}

// lakeOf opens the lake that the settings name, for the owner of a lease.
func lakeOf(cfg *config.Config, target bucket.Bucket, work string, log *slog.Logger, hints time.Duration) func(context.Context, int64) (pipeline.Lake, error) {
	return func(ctx context.Context, epoch int64) (pipeline.Lake, error) {
		if cfg.Lake.Target == config.LakeFiles {
			o := filesOptions(cfg)
			o.Bucket, o.WorkDir, o.Epoch, o.Log = target, work, epoch, log
			return lake.OpenFiles(ctx, o)
		}
		return openIceberg(ctx, cfg, target, work, epoch, log, hints)
	}
}

// hintEvery is how often version hints are written. In a folder of this machine they cost nothing.
func hintEvery(cfg *config.Config, target bucket.Bucket) time.Duration {
	if cfg.Lake.Target == config.LakeFiles || cfg.Lake.Catalog.Type != config.CatalogFile || target.Properties().Kind == bucket.KindFolder {
		return 0
	}
	return time.Duration(cfg.Lake.Catalog.HintInterval)
}

func filesOptions(cfg *config.Config) lake.FilesOptions {
	l := &cfg.Lake
	return lake.FilesOptions{
		Format: format.Kind(l.FileFormat), Compression: format.Compression(l.Compression), TargetFileSize: int64(l.FileSize),
		Profile: string(l.Profile), NamespacePrefix: l.NamespacePrefix, Pipeline: cfg.Run.Name,
	}
}

func openIceberg(ctx context.Context, cfg *config.Config, target bucket.Bucket, work string, epoch int64, log *slog.Logger, hints time.Duration) (*lake.Lake, error) {
	o := icebergOptions(cfg)
	o.Bucket, o.Location, o.WorkDir, o.Epoch, o.Log, o.HintEvery = target, target.Properties().URL, work, epoch, log, hints
	return lake.Open(ctx, o)
}

func icebergOptions(cfg *config.Config) lake.Options {
	l := &cfg.Lake
	return lake.Options{
		Catalog: catalogOptions(cfg), Format: l.FormatVersion, TargetFileSize: int64(l.FileSize), Compression: format.Compression(l.Compression),
		Profile: string(l.Profile), NamespacePrefix: l.NamespacePrefix, HistorySuffix: l.HistorySuffix, Pipeline: cfg.Run.Name,
		OnTypeChange: onTypeChange(cfg.Run.OnSchemaChange), Snapshots: snapshots(cfg),
	}
}

func onTypeChange(p config.SchemaChange) string {
	if p == config.SchemaChangeVersion {
		return "version"
	}
	return "stop"
}

func catalogOptions(cfg *config.Config) lake.CatalogOptions {
	k := &cfg.Lake.Catalog
	o := lake.CatalogOptions{
		Kind: string(k.Type), Name: k.Name, URI: k.URI, Warehouse: k.Warehouse, OAuthURI: k.OAuthURI, Scope: k.Scope, CAFile: k.CAFile, SigV4: k.SigV4, Region: k.Region,
	}
	if !k.Token.IsZero() {
		o.Token = k.Token.Reveal
	}
	if !k.Credential.IsZero() {
		o.Credential, o.Password = k.Credential.Reveal, k.Credential.Reveal
	}
	return o
}
