package main

import (
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/pipeline"
	"github.com/leatdata/leat/internal/postgres"
)

func (c *cli) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look, before it matters, whether a dump or a run would work",
		Long: `Check looks at the database and at the bucket as a dump or a run would: version,
rights table by table, wal_level, replica identities, publication, types that need a
policy; and writes, reads, lists and deletes a scratch object in the bucket. Each
finding has a code, a severity and a mend.

Exit status: 0 nothing stands in the way, 6 something does, others as for dump.`,
		Example: `  leat check --from postgres://app@db/shop --to s3://egress/shop
  leat check -f leat.yaml --deep --json
  leat check --for run --from postgres://repl@db/shop --to s3://lake/shop
  leat check --for run --readers spark,trino -f leat.yaml`,
		Args: cobra.NoArgs,
	}
	c.placeFlags(cmd)
	f := cmd.Flags()
	job := f.String("for", "dump", "what is to work: dump or run")
	deep := f.Bool("deep", false, "read the tables and count values that need a policy")
	readers := f.StringSlice("readers", nil, "programs that are to read what is written: "+strings.Join(format.Readers, ", "))
	lakeFlags(cmd, "run: ")
	keepFlag(cmd, "run: ")
	complete(cmd, "for", "dump", "run")
	complete(cmd, "readers", format.Readers...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		flags, err := checkKeys(cmd, *job)
		if err != nil {
			return err
		}
		c.flags = flags
		if err := readersFlag(*readers); err != nil {
			return err
		}
		return c.check(cmd, *job == "run", *deep, *readers)
	}
	return cmd
}

// checkKeys ties the flags to the settings of the job, and refuses those that say nothing of it.
func checkKeys(cmd *cobra.Command, job string) ([]flagKey, error) {
	jobs := map[string][]flagKey{"dump": placeKeys(), "run": append(pipelineKeys(), []flagKey{
		{"table", "run.tables"}, {"exclude", "run.exclude"}, {"partitions", "run.partitions"}, {"keep", "run.keep"},
	}...)}
	keys, known := jobs[job]
	if !known {
		return nil, fault.New(fault.UsageInvalid, "--for", "%q is neither dump nor run", job)
	}
	for _, of := range jobs {
		for _, k := range of {
			mine := slices.ContainsFunc(keys, func(m flagKey) bool { return m.flag == k.flag })
			if !mine && cmd.Flags().Changed(k.flag) {
				return nil, fault.New(fault.UsageInvalid, "--"+k.flag, "says nothing of a %s", job)
			}
		}
	}
	return keys, nil
}

func (c *cli) check(cmd *cobra.Command, run, deep bool, readers []string) error {
	cfg, err := c.load(cmd)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	report := &report{cli: c}
	look := checkSource
	if run {
		look = checkRunSource
	}
	findings, err := look(ctx, cfg, deep)
	report.add(findings, err)
	if err == nil {
		report.add(checkReaders(ctx, cfg, run, readers))
	}
	if cfg.To.URL != "" {
		c.checkTarget(ctx, cfg, run, report)
	}
	return report.end(ctx)
}

func (c *cli) checkTarget(ctx context.Context, cfg *config.Config, run bool, report *report) {
	b, err := openBucket(ctx, cfg)
	if err != nil {
		report.add(nil, err)
		return
	}
	defer b.Close()
	report.add(bucket.Check(ctx, b, time.Now))
	if run {
		report.add(c.checkCatalog(ctx, cfg, b))
	}
}

func checkSource(ctx context.Context, cfg *config.Config, deep bool) ([]fault.Finding, error) {
	source, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	cfg.Dump.Tables = orEvery(cfg.Dump.Tables)
	return source.Preflight(ctx, postgres.PreflightOptions{
		Selection: selection(&cfg.Dump, "dump.tables"), Policies: policies(cfg.Dump.Types), Typed: cfg.Dump.Format.Typed(), Deep: deep, Now: time.Now,
	})
}

func checkRunSource(ctx context.Context, cfg *config.Config, deep bool) ([]fault.Finding, error) {
	source, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	opts := runOptions(cfg, "", nil, nil, nil)
	findings, err := source.Preflight(ctx, postgres.PreflightOptions{
		Selection: opts.Selection, Policies: opts.Policies, Typed: true, Deep: deep, Now: time.Now, // text files too are written from typed values
		Slot: opts.Slot, Columns: opts.ColumnList, RowFilter: opts.RowFilter,
	})
	if err != nil {
		return findings, err
	}
	more, err := pipeline.Check(ctx, source, opts)
	return append(findings, more...), err
}

// checkCatalog asks the lake's catalog. One of files is the bucket, which must have conditional writes then, as its own check has found.
func (c *cli) checkCatalog(ctx context.Context, cfg *config.Config, b bucket.Bucket) ([]fault.Finding, error) {
	if cfg.Lake.Target == config.LakeFiles {
		return nil, nil
	}
	l, err := openIceberg(ctx, cfg, b, "", 0, c.logger(cfg, c.stderr), 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }() // nothing was written
	schema := "public"
	for _, p := range cfg.Run.Tables {
		if s, _, exact := p.Exact(); exact && s != "" {
			schema = s
			break
		}
	}
	if err := l.Reach(ctx, schema); err != nil {
		return nil, err
	}
	return []fault.Finding{{Code: "catalog", Severity: fault.SeverityOK, Where: string(cfg.Lake.Catalog.Type), What: "the catalog answers"}}, nil
}

// report shows findings as they come and remembers the worst.
type report struct {
	cli    *cli
	errors int
	warns  int
}

// add shows findings. An error that kept the check from looking is a finding too.
func (r *report) add(findings []fault.Finding, err error) {
	if err != nil {
		findings = append(findings, fault.FindingOf(err))
	}
	for _, f := range findings {
		switch f.Severity {
		case fault.SeverityError:
			r.errors++
		case fault.SeverityWarn:
			r.warns++
		}
		r.show(r.cli.stdout, f)
	}
}

func (r *report) show(w io.Writer, f fault.Finding) {
	if r.cli.json {
		_ = sayJSON(w, f) // strings always marshal
		return
	}
	if r.cli.quiet && (f.Severity == fault.SeverityOK || f.Severity == fault.SeverityInfo) {
		return
	}
	where := ""
	if f.Where != "" {
		where = f.Where + ": "
	}
	say(w, "%-5s  %s%s  (%s)\n", f.Severity, where, f.What, f.Code)
	if f.Mend != "" {
		sayMend(w, 7, f.Mend)
	}
}

func (r *report) end(ctx context.Context) error {
	if ctx.Err() != nil {
		return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the check was ended")
	}
	if r.errors > 0 {
		return fault.New(fault.CheckFindings, "", "found %s and %s", plural(r.errors, "error"), plural(r.warns, "warning"))
	}
	if !r.cli.json {
		say(r.cli.stdout, "Nothing stands in the way (%s).\n", plural(r.warns, "warning"))
	}
	return nil
}
