package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

func (c *cli) checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look, before it matters, whether a dump would work",
		Long: `Check looks at the database and at the bucket as a dump would: version, rights table
by table, wal_level, replica identities, types that need a policy; and writes,
reads, lists and deletes a scratch object in the bucket. Each finding has a code, a
severity and a mend.

Exit status: 0 nothing stands in the way, 6 something does, others as for dump.`,
		Example: `  leat check --from postgres://app@db/shop --to s3://egress/shop
  leat check -f leat.yaml --deep --json`,
		Args: cobra.NoArgs,
	}
	c.placeFlags(cmd)
	deep := cmd.Flags().Bool("deep", false, "read the tables and count values that need a policy")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c.flags = placeKeys()
		return c.check(cmd, *deep)
	}
	return cmd
}

func (c *cli) check(cmd *cobra.Command, deep bool) error {
	cfg, err := c.load(cmd)
	if err != nil {
		return err
	}
	if len(cfg.Dump.Tables) == 0 { // everything one can see is a good question to begin with
		all, err := config.ParsePattern("*.*")
		if err != nil {
			return err
		}
		cfg.Dump.Tables = []config.Pattern{all}
	}
	ctx := cmd.Context()
	report := &report{cli: c}
	report.add(checkSource(ctx, cfg, deep))
	if cfg.To.URL != "" {
		report.add(checkBucket(ctx, cfg))
	}
	return report.end(ctx)
}

func checkSource(ctx context.Context, cfg *config.Config, deep bool) ([]fault.Finding, error) {
	source, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return source.Preflight(ctx, postgres.PreflightOptions{
		Selection: selection(&cfg.Dump), Policies: policies(cfg.Dump.Types), Typed: cfg.Dump.Format.Typed(), Deep: deep, Now: time.Now,
	})
}

func checkBucket(ctx context.Context, cfg *config.Config) ([]fault.Finding, error) {
	b, err := openBucket(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	return bucket.Check(ctx, b, time.Now)
}

// report shows findings as they come and remembers the worst.
type report struct {
	cli    *cli
	errors int
	warns  int
}

// add shows findings. An error that kept the check from looking is a finding too.
func (r *report) add(findings []fault.Finding, err error) {
	if f := fault.Of(err); f != nil {
		findings = append(findings, fault.Finding{Code: string(f.Code), Severity: fault.SeverityError, Where: f.Where, What: err.Error(), Mend: f.HowToMend()})
	} else if err != nil {
		findings = append(findings, fault.Finding{Code: string(fault.Internal), Severity: fault.SeverityError, What: err.Error()})
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
		data, _ := json.Marshal(f) // strings always marshal
		fmt.Fprintf(w, "%s\n", data)
		return
	}
	if r.cli.quiet && (f.Severity == fault.SeverityOK || f.Severity == fault.SeverityInfo) {
		return
	}
	where := ""
	if f.Where != "" {
		where = f.Where + ": "
	}
	fmt.Fprintf(w, "%-5s  %s%s  (%s)\n", f.Severity, where, f.What, f.Code)
	if f.Mend != "" {
		fmt.Fprintf(w, "       mend: %s\n", f.Mend)
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
		fmt.Fprintf(r.cli.stdout, "Nothing stands in the way (%s).\n", plural(r.warns, "warning"))
	}
	return nil
}
