package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
)

func (c *cli) dumpCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dump",
		Short: "Dump tables, as they are at one moment, into a bucket or folder",
		Long: `Dump reads all chosen tables in one snapshot, several at once and large ones in
parts, and writes files and then a manifest. A dump without its manifest is not a
dump; an older one stays whole while a new one is written.

With the environment alone (TABLES, S3_OUTPUT, PGHOST, PGUSER, PGDATABASE) it writes
<S3_OUTPUT>/<YYYY-MM-DD>/<table>.csv.gz and logs as the job it stands in for.

Exit status: 0 done, 2 settings, 3 database, 4 bucket, 5 a value needs a policy,
1 anything else, 130 and 143 ended by SIGINT and SIGTERM.`,
		Example: `  leat dump --from postgres://app@db/shop --to s3://egress/shop --table 'public.*' --exclude 'public.audit_*'
  leat dump --from postgres://app@db/shop --to ./out --table orders --format csv.gz
  leat dump -f leat.yaml --set dump.types.timestamptz=null
  TABLES="orders items" S3_OUTPUT=s3://egress/shop PGHOST=db PGUSER=app PGDATABASE=shop leat dump`,
		Args: cobra.NoArgs,
	}
	c.placeFlags(cmd)
	f := cmd.Flags()
	f.String("compression", "", "parquet and avro: zstd, snappy, gzip or none")
	f.StringArray("bloom", nil, "parquet: column with a bloom filter, schema.table.column; may be repeated")
	f.String("file-size", "", "size at which a new file is begun (256MiB)")
	f.String("layout", "", "run: a folder a dump; date: <YYYY-MM-DD>/<table>.<ext>")
	f.String("keep", "", "complete dumps to keep; older ones are deleted (0 keeps all)")
	f.String("parallel", "", "connections that read at the same time (twice the cores, at most 8)")
	f.String("max-rate", "", "most bytes a second to read from the database, such as 50MiB")
	f.String("lock-timeout", "", "longest wait for a table's lock (10s)")
	f.String("slot-wait", "", "longest wait for an exact log position (10s)")
	f.String("lsn", "", "exact, approximate or auto")
	flags := append(placeKeys(), []flagKey{
		{"compression", "dump.compression"}, {"bloom", "dump.bloom"}, {"file-size", "dump.file_size"}, {"layout", "dump.layout"},
		{"keep", "dump.keep"}, {"parallel", "dump.parallel"}, {"max-rate", "dump.max_rate"}, {"lock-timeout", "dump.lock_timeout"},
		{"slot-wait", "dump.slot_wait"}, {"lsn", "dump.lsn"},
	}...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c.flags = flags
		return c.dump(cmd)
	}
	return cmd
}

// placeFlags are shared by all verbs that read tables and write to a bucket.
func (c *cli) placeFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.String("from", "", "database: postgres://user@host/db, or empty for PG* variables")
	f.String("to", "", "bucket or folder: s3://bucket/path, gs://, azblob://, file:///path or a path")
	f.String("endpoint", "", "S3 server other than AWS, such as https://ceph.example.com")
	f.String("region", "", "region of the bucket")
	f.StringArrayP("table", "t", nil, "table to take, schema.name with * and ?; may be repeated")
	f.StringArray("exclude", nil, "table to leave out; may be repeated")
	f.String("format", "", "parquet, csv, csv.gz, jsonl, jsonl.gz or avro")
	f.String("partitions", "", "leaf: each partition a table; root: the partitioned table as one")
	complete(cmd, "format", "parquet", "csv", "csv.gz", "jsonl", "jsonl.gz", "avro")
	complete(cmd, "partitions", "leaf", "root")
}

func complete(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	}) // fails only for a flag that does not exist, which the command's own tests would show
}

func placeKeys() []flagKey {
	return []flagKey{
		{"from", "from.url"}, {"to", "to.url"}, {"endpoint", "to.endpoint"}, {"region", "to.region"},
		{"table", "dump.tables"}, {"exclude", "dump.exclude"}, {"format", "dump.format"}, {"partitions", "dump.partitions"},
	}
}

func (c *cli) dump(cmd *cobra.Command) error {
	cfg, err := c.load(cmd)
	if err != nil {
		return err
	}
	if err := cfg.Require("to.url", "dump.tables"); err != nil {
		return err
	}
	ctx := cmd.Context()
	view, logTo := c.newView(cfg)
	defer view.close()
	log := c.logger(cfg, logTo)
	source, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	target, err := openBucket(ctx, cfg)
	if err != nil {
		return err
	}
	defer target.Close()
	m, err := dump.Run(ctx, source, target, dumpOptions(cfg, log, view))
	view.close()
	if err != nil {
		return err
	}
	view.summary(m, target.Properties().URL)
	return nil
}

func dumpOptions(cfg *config.Config, log *slog.Logger, watch dump.Watcher) dump.Options {
	d := &cfg.Dump
	opts := dump.Options{
		Selection: selection(d, "dump.tables"),
		Format:    format.Kind(d.Format), Compression: format.Compression(d.Compression), FileSize: int64(d.FileSize),
		Layout: dump.Layout(d.Layout), Keep: d.Keep, Parallel: d.Workers(runtime.NumCPU()), MaxRate: int64(d.MaxRate),
		LSN: postgres.LSNMode(d.LSN), SlotWait: time.Duration(d.SlotWait), Policies: policies(d.Types),
		RoleForm: d.CSVForm == config.CSVRole, Generated: d.CSVGenerated, GzipLevel: d.GzipLevel,
		Version: version, Log: log, Watch: watch,
		Bloom: func(schema, table, column string) (chosen, outright bool) {
			for _, p := range d.Bloom {
				if p.Match(schema, table, column) {
					chosen, outright = true, outright || p.Exact()
				}
			}
			return chosen, outright
		},
	}
	if cfg.DropIn { // each table that is named has a file, as from the job that this stands in for
		opts.Selection.Besides = func(n postgres.Name) bool { return namedOutright(d.Tables, n) }
	}
	opts.Name = dateName(d)
	return opts
}

func namedOutright(patterns []config.Pattern, n postgres.Name) bool {
	return slices.ContainsFunc(patterns, func(p config.Pattern) bool {
		_, _, exact := p.Exact()
		return exact && p.Match(n.Schema, n.Name)
	})
}

// dateName names files of layout date as the tables were asked for: TABLES="orders" gives orders.csv.gz.
func dateName(d *config.Dump) func(schema, table string) string {
	return func(schema, table string) string {
		for _, p := range d.Tables {
			if _, name, exact := p.Exact(); exact && !p.Qualified() && name == table {
				return change.EncodeName(table)
			}
		}
		return (&change.Table{Schema: schema, Name: table}).KeyName()
	}
}

func policies(t config.Types) postgres.Policies {
	return postgres.Policies{
		Numeric: postgres.Policy(t.Numeric), Date: postgres.Policy(t.Date), Time: postgres.Policy(t.Time),
		Timestamp: postgres.Policy(t.Timestamp), Timestamptz: postgres.Policy(t.Timestamptz), Array: postgres.Policy(t.Array),
		UUID: postgres.Policy(t.UUID), UnboundedNumeric: string(t.UnboundedNumeric), Text: postgres.Policy(t.Text),
	}
}

// selection turns the patterns into a choice. A name that nothing has is an error, which comes with what the others found; a pattern
// with wildcards may find nothing as long as another one finds something. setting is where the patterns stand.
func selection(d *config.Dump, setting string) postgres.Selection {
	choose := func(all []postgres.Name, searchPath []string) ([]int, error) {
		chosen := map[int]bool{}
		var missing []string
		near := ""
		for _, p := range d.Tables {
			found := matches(p, all, searchPath)
			if _, _, exact := p.Exact(); exact && len(found) == 0 {
				missing = append(missing, p.String())
				near += alike(p, all)
			}
			for _, i := range found {
				chosen[i] = true
			}
		}
		var out []int
		for i, n := range all {
			if chosen[i] && !excluded(d.Exclude, n) {
				out = append(out, i)
			}
		}
		if len(missing) > 0 {
			return out, fault.New(fault.SourceMissing, strings.Join(missing, ", "), "there is no such table").
				WithMend("Check its schema (searched: %s), its quotes and its upper-case letters.%s", strings.Join(searchPath, ", "), near)
		}
		if len(out) == 0 {
			return nil, fault.New(fault.SourceMissing, setting, "no table matches").WithMend("Check the patterns; the database has %d tables.", len(all))
		}
		return out, nil
	}
	named := func(n postgres.Name) bool {
		return slices.ContainsFunc(d.Tables, func(p config.Pattern) bool {
			_, _, exact := p.Exact()
			return exact && p.Match(n.Schema, n.Name)
		})
	}
	return postgres.Selection{Choose: choose, Named: named, PartitionRoots: d.Partitions == config.PartitionsRoot}
}

// matches finds a pattern's tables. Without a schema it looks through the search_path, and as in SQL an exact
// name is the first schema's that has it.
func matches(p config.Pattern, all []postgres.Name, searchPath []string) (found []int) {
	if p.Qualified() {
		for i, n := range all {
			if p.Match(n.Schema, n.Name) {
				found = append(found, i)
			}
		}
		return found
	}
	_, _, exact := p.Exact()
	for _, schema := range searchPath {
		for i, n := range all {
			if n.Schema == schema && p.Match(n.Schema, n.Name) {
				found = append(found, i)
			}
		}
		if exact && len(found) > 0 {
			break
		}
	}
	return found
}

func excluded(patterns []config.Pattern, n postgres.Name) bool {
	for _, p := range patterns {
		if p.Match(n.Schema, n.Name) {
			return true
		}
	}
	return false
}

// alike names tables that differ from what was asked for only in schema or letter case.
func alike(p config.Pattern, all []postgres.Name) string {
	_, want, _ := p.Exact()
	var names []string
	for _, n := range all {
		if strings.EqualFold(n.Name, want) && len(names) < 3 {
			names = append(names, fmt.Sprintf("%q.%q", n.Schema, n.Name))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " There is " + strings.Join(names, ", ") + "."
}

func connect(ctx context.Context, cfg *config.Config) (*postgres.Source, error) {
	set, err := settings(cfg)
	if err != nil {
		return nil, err
	}
	return postgres.Connect(ctx, set)
}

func openBucket(ctx context.Context, cfg *config.Config) (bucket.Bucket, error) {
	t := &cfg.To
	opts := bucket.Options{
		Endpoint: t.Endpoint, Region: t.Region, PathStyle: t.PathStyle == config.ToggleTrue,
		CAFile: t.CAFile, AllowHTTP: t.AllowHTTP, KMSKeyID: t.KMSKeyID, Checksums: string(t.Checksums), PartSize: int64(t.PartSize), Stall: time.Duration(t.Stall),
		RequesterPays: t.RequesterPays, ACL: aclOf(t.ACL),
	}
	if t.Encryption != config.EncryptionNone {
		opts.SSE = string(t.Encryption)
	}
	withKeys(&opts, t.AccessKeyID, t.SecretAccessKey, t.SessionToken)
	return bucket.Open(ctx, t.URL, opts)
}

// aclOf is the list of grants to ask for, if any.
func aclOf(acl config.ACL) string {
	if acl == config.ACLNone {
		return ""
	}
	return string(acl)
}

// withKeys gives the options static credentials, where there are some. Those of files are read again when a server wants others.
func withKeys(opts *bucket.Options, id, secret, token config.Secret) {
	if !id.IsZero() {
		opts.Keys = func() (keyID, key, session string, err error) {
			for _, s := range []struct {
				from config.Secret
				to   *string
			}{{id, &keyID}, {secret, &key}, {token, &session}} {
				if *s.to, err = s.from.Again(); err != nil {
					return "", "", "", err
				}
			}
			return keyID, key, session, nil
		}
	}
	opts.AccessKeyID = id.Reveal()
	if !secret.IsZero() {
		opts.SecretAccessKey = secret.Reveal
	}
	if !token.IsZero() {
		opts.SessionToken = token.Reveal
	}
}

// isTerminal says whether somebody may be watching.
func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
