package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/pipeline"
)

func (c *cli) lakeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lake",
		Short: "Look after the lake's tables",
	}
	cmd.AddCommand(c.maintainCommand())
	return cmd
}

func (c *cli) maintainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "maintain",
		Short: "Compact files, expire snapshots and sweep what no table knows",
		Long: `Maintain does once what leat run does in the background. It takes the pipeline's lease:
beside a run it is refused, for the run does it itself.`,
		Example: `  leat lake maintain -f leat.yaml
  leat lake maintain -f leat.yaml --set lake.snapshots.keep=10 --set lake.snapshots.daily=168h`,
		Args: cobra.NoArgs,
	}
	c.pipelineFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c.flags = pipelineKeys()
		return c.maintain(cmd)
	}
	return cmd
}

func (c *cli) maintain(cmd *cobra.Command) error {
	cfg, target, err := c.pipelinePlace(cmd)
	if err != nil {
		return err
	}
	defer target.Close()
	view := c.newRunView(cfg)
	defer view.close()
	log := c.logger(cfg, view)
	ctx := cmd.Context()
	source, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	work, err := workDir(&cfg.Run)
	if err != nil {
		return err
	}
	did, err := pipeline.Maintain(ctx, source, runOptions(cfg, work, target, log, view), time.Duration(cfg.Lake.OrphanAge))
	if err != nil {
		return err
	}
	view.close()
	if c.json {
		_ = sayJSON(c.stdout, did) // numbers always marshal
		return nil
	}
	say(c.stdout, "Maintained %s; removed %s (%s) that no table knows.\n", plural(did.Tables, "table"), plural(did.Files, "file"), byteText(did.Bytes))
	return nil
}
