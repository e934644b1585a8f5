package main

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/metrics"
	"github.com/leatdata/leat/internal/mirror"
)

func (c *cli) mirrorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mirror [FROM TO]",
		Short: "Carry a bucket to another one, verified, and keep the far side readable",
		Long: `Mirror lists both buckets, carries what the far side lacks, and checks every object
from end to end. Data comes before what names it: a dump appears when all its files are
there, an Iceberg table with its paths rewritten to the new place. Nothing is deleted
unless --delete is given.

With the environment alone (INPUT_URL, INPUT_PATH, INPUT_ACCESS_KEY_ID,
INPUT_SECRET_ACCESS_KEY and the same with OUTPUT_) it stands in for the sync job of
MinIO's client and logs as it does.

Exit status: 0 the far side has everything, 6 some objects were set aside, 2 settings,
4 a bucket, 1 anything else, 130 and 143 ended by SIGINT and SIGTERM.`,
		Example: `  leat mirror s3://egress/app s3://dh-secure/app --from-endpoint https://s3.amazonaws.com --to-endpoint https://ceph.internal
  leat mirror s3://egress/app s3://dh-secure/app --dry-run
  leat mirror -f leat.yaml --delete --max-delete 100
  leat mirror -f leat.yaml --watch --every 5m --metrics 127.0.0.1:9187`,
		Args: cobra.MaximumNArgs(2),
	}
	f := cmd.Flags()
	for _, side := range []string{"from", "to"} {
		f.String(side, "", "bucket: s3://bucket/path, gs://, azblob://, file:///path or a path")
		f.String(side+"-endpoint", "", "S3 server other than AWS, such as https://ceph.example.com")
		f.String(side+"-region", "", "region of the bucket")
		f.String(side+"-ca-file", "", "CA certificates to trust besides the system's, for this side alone")
	}
	f.StringArray("include", nil, "objects to carry, such as '*.parquet' or 'app/**'; may be repeated")
	f.StringArray("exclude", nil, "objects to leave out; may be repeated")
	f.String("newer-than", "", "only objects written within this time, such as 24h")
	f.String("older-than", "", "only objects written before this time")
	f.String("first-date", "", "first date folder to carry, YYYY-MM-DD")
	f.String("last-date", "", "last date folder to carry")
	f.Bool("delete", false, "delete what the source no longer has")
	f.String("max-delete", "", "most objects that one run may delete (1000)")
	f.String("max-delete-share", "", "percent by which the source may have fewer objects than the target (25)")
	f.String("parallel", "", "objects on their way at once (8 for each core, at most 32)")
	f.String("max-rate", "", "most bytes a second, such as 50MiB")
	f.String("every", "", "pause between two runs of --watch (5m)")
	f.String("metrics", "", "address for /metrics with --watch, such as 127.0.0.1:9187")
	dryRun := f.Bool("dry-run", false, "only say what would be done")
	watch := f.Bool("watch", false, "run again and again")
	flags := []flagKey{
		{"from", "mirror.from.url"}, {"to", "mirror.to.url"}, {"from-endpoint", "mirror.from.endpoint"}, {"to-endpoint", "mirror.to.endpoint"},
		{"from-region", "mirror.from.region"}, {"to-region", "mirror.to.region"}, {"from-ca-file", "mirror.from.ca_file"}, {"to-ca-file", "mirror.to.ca_file"},
		{"include", "mirror.include"}, {"exclude", "mirror.exclude"}, {"newer-than", "mirror.newer_than"}, {"older-than", "mirror.older_than"},
		{"first-date", "mirror.first_date"}, {"last-date", "mirror.last_date"}, {"delete", "mirror.delete"}, {"max-delete", "mirror.max_delete"},
		{"max-delete-share", "mirror.max_delete_share"},
		{"parallel", "mirror.parallel"}, {"max-rate", "mirror.max_rate"}, {"every", "mirror.every"}, {"metrics", "mirror.metrics"},
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c.flags = flags
		for i, side := range []string{"from", "to"} {
			if i >= len(args) {
				break
			}
			if cmd.Flags().Changed(side) {
				return fault.New(fault.UsageInvalid, "--"+side, "is given twice: as a flag and as an argument")
			}
			if err := cmd.Flags().Set(side, args[i]); err != nil {
				return err
			}
		}
		return c.mirror(cmd, *dryRun, *watch)
	}
	return cmd
}

func (c *cli) mirror(cmd *cobra.Command, dryRun, watch bool) error {
	cfg, err := c.load(cmd)
	if err != nil {
		return err
	}
	if err := cfg.Require("mirror.from.url", "mirror.to.url"); err != nil {
		return err
	}
	ctx := cmd.Context()
	moreGarbage()
	opts, err := mirrorOptions(cfg)
	if err != nil {
		return err
	}
	opts.DryRun = dryRun
	from, to, err := openSides(ctx, &cfg.Mirror)
	if err != nil {
		return err
	}
	defer from.Close()
	defer to.Close()
	if watch {
		return c.mirrorOn(ctx, cfg, from, to, opts)
	}
	return c.mirrorOnce(ctx, cfg, from, to, opts)
}

func (c *cli) mirrorOnce(ctx context.Context, cfg *config.Config, from, to bucket.Bucket, opts mirror.Options) error {
	bound(&opts.Filter, &cfg.Mirror, time.Now())
	view := c.newMirrorView(cfg, opts.DryRun)
	defer view.close()
	opts.Watch = view
	opts.Log = c.logger(cfg, view)
	opts.Tables = &tables{from: from, to: to, log: opts.Log}
	report, err := mirror.Run(ctx, from, to, opts)
	view.close()
	view.summary(report)
	return err
}

// mirrorOn runs the mirror again and again. A run that fails is told, and the next one comes; only settings end it.
func (c *cli) mirrorOn(ctx context.Context, cfg *config.Config, from, to bucket.Bucket, opts mirror.Options) error {
	log := c.logger(cfg, c.stderr)
	counts := metrics.NewMirror(opts.Name)
	if cfg.Mirror.Metrics != "" {
		server, err := counts.Serve(metrics.ServerOptions{Address: cfg.Mirror.Metrics, Token: cfg.Mirror.MetricsToken.Reveal(), Ready: counts.Ready})
		if err != nil {
			return err
		}
		defer func() {
			late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
			defer cancel()
			_ = server.Close(late) // nobody is waiting for an answer any more
		}()
		log.Info("metrics", "address", server.Address)
	}
	for {
		err := c.mirrorOnce(ctx, cfg, from, to, opts)
		counts.Ran(err, time.Now())
		switch {
		case ctx.Err() != nil:
			return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the mirror was ended")
		case err != nil && fault.ExitOf(err) == fault.ExitUsage:
			return err
		case err != nil:
			log.Error("the mirror failed and is run again", "error", err, "in", time.Duration(cfg.Mirror.Every))
		}
		select {
		case <-time.After(time.Duration(cfg.Mirror.Every)):
		case <-ctx.Done():
			return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the mirror was ended")
		}
	}
}

func mirrorOptions(cfg *config.Config) (mirror.Options, error) {
	m := &cfg.Mirror
	o := mirror.Options{
		Name: m.Name, Delete: m.Delete, MaxDelete: m.MaxDelete, MaxDeleteShare: m.MaxDeleteShare, Parallel: m.Parallel, MaxRate: int64(m.MaxRate), Attempts: m.Attempts,
		Backoff: 500 * time.Millisecond, WorkDir: m.WorkDir, Now: time.Now,
		Archived: mirror.Archived(m.Archived), RestoreDays: m.RestoreDays, RestoreTier: string(m.RestoreTier),
	}
	class, err := mirror.ParseClass(m.StorageClass)
	if err != nil {
		return o, err
	}
	o.Beside = mirror.Choices{
		StorageClass: class, ObjectLock: m.ObjectLock != config.ObjectLockOff, FollowLocks: m.ObjectLock == config.ObjectLockFollow,
		ACL: m.ACL == config.ACLLookCount,
	}
	if o.Parallel == 0 {
		o.Parallel = min(8*runtime.NumCPU(), 32)
	}
	for _, d := range []struct {
		key, given string
		to         *string
	}{{"mirror.first_date", m.FirstDate, &o.Filter.FirstDate}, {"mirror.last_date", m.LastDate, &o.Filter.LastDate}} {
		if _, err := time.Parse(time.DateOnly, d.given); d.given != "" && err != nil {
			return o, fault.New(fault.ConfigInvalid, d.key, "%q is not a date; write YYYY-MM-DD", d.given)
		}
		*d.to = d.given
	}
	for _, g := range []struct {
		key  string
		text []string
		to   *[]mirror.Glob
	}{{"mirror.include", m.Include, &o.Filter.Include}, {"mirror.exclude", m.Exclude, &o.Filter.Exclude}} {
		for _, text := range g.text {
			glob, err := mirror.ParseGlob(text)
			if err != nil {
				return o, fault.Wrap(err, fault.ConfigInvalid, g.key, "a pattern cannot be understood")
			}
			*g.to = append(*g.to, glob)
		}
	}
	return o, nil
}

// bound sets the times that objects must have been written within, which move on with each run of --watch.
func bound(f *mirror.Filter, m *config.Mirror, now time.Time) {
	if m.NewerThan > 0 {
		f.NewerThan = now.Add(-time.Duration(m.NewerThan))
	}
	if m.OlderThan > 0 {
		f.OlderThan = now.Add(-time.Duration(m.OlderThan))
	}
}

// openSides opens both buckets, each with what is its own.
func openSides(ctx context.Context, m *config.Mirror) (from, to bucket.Bucket, err error) {
	f, t := &m.From, &m.To
	here := bucket.Options{
		Endpoint: f.Endpoint, Region: f.Region, PathStyle: f.PathStyle == config.ToggleTrue, CAFile: f.CAFile, Proxy: f.Proxy, AllowHTTP: f.AllowHTTP, Stall: time.Duration(m.Stall),
		RequesterPays: f.RequesterPays, ReadOnly: true,
	}
	withKeys(&here, f.AccessKeyID, f.SecretAccessKey, f.SessionToken)
	there := bucket.Options{
		Endpoint: t.Endpoint, Region: t.Region, PathStyle: t.PathStyle == config.ToggleTrue, CAFile: t.CAFile, Proxy: t.Proxy, AllowHTTP: t.AllowHTTP, Stall: time.Duration(m.Stall),
		KMSKeyID: t.KMSKeyID, RequesterPays: t.RequesterPays, ACL: aclOf(t.ACL),
	}
	withKeys(&there, t.AccessKeyID, t.SecretAccessKey, t.SessionToken)
	if t.Encryption != config.EncryptionNone {
		there.SSE = string(t.Encryption)
	}
	if from, err = bucket.Open(ctx, f.URL, here); err != nil {
		return nil, nil, err
	}
	if to, err = bucket.Open(ctx, t.URL, there); err != nil {
		from.Close()
	}
	return from, to, err
}

// tables lets the lake rewrite the metadata of Iceberg tables.
type tables struct {
	from, to bucket.Bucket
	log      *slog.Logger
}

// Is looks whether the source has a table there.
func (t *tables) Is(ctx context.Context, root string) (bool, error) {
	is, err := lake.IsTable(ctx, t.from, root)
	if err == nil && !is {
		err = lake.NotDamaged(ctx, t.from, t.to, root)
	}
	return is, err
}

// Relocate brings one table over.
func (t *tables) Relocate(ctx context.Context, root string, files mirror.Files) (bool, error) {
	r := t.relocation(root)
	r.Read, r.Carry = files.Read, files.Carry
	done, err := r.Run(ctx)
	return !done.Nothing(), err
}

// Brought says what of a table is at the target.
func (t *tables) Brought(ctx context.Context, root string) (func(key string) bool, error) {
	return t.relocation(root).Brought(ctx)
}

func (t *tables) relocation(root string) *lake.Relocation {
	return &lake.Relocation{From: t.from, To: t.to, FromURL: t.from.Properties().URL, ToURL: t.to.Properties().URL, Root: root, Log: t.log}
}
