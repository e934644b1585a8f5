package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/pipeline"
	"github.com/leatdata/leat/internal/postgres"
)

func (c *cli) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell how far a pipeline is, who runs it, and what the server keeps for it",
		Long: `Status reads the saved state of a pipeline and asks the server for its slot. It takes no
lease and changes nothing.`,
		Example: `  leat status -f leat.yaml
  leat status --from postgres://repl@db/shop --to s3://lake/shop --json`,
		Args: cobra.NoArgs,
	}
	c.pipelineFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c.flags = pipelineKeys()
		return c.status(cmd)
	}
	return cmd
}

// pipelineReport is what leat status tells; its JSON is an interface.
type pipelineReport struct {
	Pipeline string                           `json:"pipeline"`
	Running  bool                             `json:"running"`
	Paused   bool                             `json:"paused"`
	Owner    string                           `json:"owner,omitempty"` // host and process that hold or held the lease
	Position change.LSN                       `json:"position"`
	Saved    *time.Time                       `json:"saved,omitempty"`
	Tables   map[string]checkpoint.TableState `json:"tables"`
	LeftOut  map[string]string                `json:"left_out,omitempty"` // tables that cannot be followed, and why
	Server   string                           `json:"server"`
	End      change.LSN                       `json:"server_position"`
	Lag      int64                            `json:"lag_bytes"`
	Slot     slotReport                       `json:"slot"`
	phases   map[checkpoint.Phase]int
}

type slotReport struct {
	Name     string `json:"name"`
	Exists   bool   `json:"exists"`
	Active   bool   `json:"active"`
	Retained int64  `json:"retained_bytes"`
	SafeSize int64  `json:"safe_wal_size"` // -1 unknown or without limit
	Status   string `json:"wal_status,omitempty"`
	Trouble  string `json:"trouble,omitempty"`
}

func (c *cli) status(cmd *cobra.Command) error {
	cfg, target, err := c.pipelinePlace(cmd)
	if err != nil {
		return err
	}
	defer target.Close()
	ctx := cmd.Context()
	source, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	r, err := look(ctx, cfg, target, source)
	if err != nil {
		return err
	}
	if c.json {
		return sayJSON(c.stdout, r)
	}
	r.write(c.stdout)
	return nil
}

// pipelinePlace loads the settings and opens the bucket that holds the pipeline's state.
func (c *cli) pipelinePlace(cmd *cobra.Command) (*config.Config, bucket.Bucket, error) {
	cfg, err := c.load(cmd)
	if err != nil {
		return nil, nil, err
	}
	if err := cfg.Require("to.url"); err != nil {
		return nil, nil, err
	}
	target, err := openBucket(cmd.Context(), cfg)
	return cfg, target, err
}

func look(ctx context.Context, cfg *config.Config, target bucket.Bucket, source *postgres.Source) (*pipelineReport, error) {
	state, lease, err := checkpoint.Read(ctx, target, pipeline.StatePrefix(cfg.Run.Name))
	if err != nil {
		return nil, err
	}
	r := &pipelineReport{Pipeline: cfg.Run.Name, Paused: state.Control.Paused, Position: state.Position, Tables: state.Tables, LeftOut: state.LeftOut, Server: source.Name, phases: map[checkpoint.Phase]int{}}
	if lease.Epoch > 0 {
		r.Owner = fmt.Sprintf("%s, process %d", lease.Host, lease.PID)
		r.Running = !lease.Released && time.Since(lease.Modified) < 2*lease.TTL
		r.Saved = &state.Saved
	}
	for key, t := range state.Tables {
		r.phases[t.Phase]++
		state.Tables[key] = t.Named(key)
	}
	if r.End, err = source.LogEnd(ctx); err != nil {
		return nil, err
	}
	if r.Position > 0 && r.End > r.Position {
		r.Lag = int64(r.End - r.Position)
	}
	slot, err := source.Slot(ctx, orName(cfg.Run.Slot, cfg.Run.Name))
	if err != nil {
		return nil, err
	}
	r.Slot = slotReport{Name: slot.Name, Exists: slot.Exists, Active: slot.Active, Retained: slot.Retained, SafeSize: slot.SafeWALSize, Status: slot.WALStatus}
	if state.Position > 0 {
		r.Slot.Trouble = slot.Lost()
	}
	return r, nil
}

func (r *pipelineReport) write(out io.Writer) {
	running := "not running"
	switch {
	case r.Owner == "":
		running = "never ran"
	case r.Paused:
		running = "paused"
	case r.Running:
		running = "runs on " + r.Owner
	}
	say(out, "pipeline %s: %s\n", r.Pipeline, running)
	if r.Position > 0 && r.Saved == nil { // the lease was removed, or the state is of elsewhere
		say(out, "position %s; %s is at %s, %s ahead\n", r.Position, r.Server, r.End, byteText(r.Lag))
	} else if r.Position > 0 {
		say(out, "position %s, saved %s ago; %s is at %s, %s ahead\n", r.Position, durationText(time.Since(*r.Saved)), r.Server, r.End, byteText(r.Lag))
	}
	switch {
	case r.Slot.Trouble != "":
		say(out, "slot %s: %s\n", r.Slot.Name, r.Slot.Trouble)
	case !r.Slot.Exists:
		say(out, "slot %s: there is none yet\n", r.Slot.Name)
	default:
		say(out, "slot %s: the server keeps %s of its log for it\n", r.Slot.Name, byteText(r.Slot.Retained))
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, key := range slices.Sorted(maps.Keys(r.Tables)) {
		t := r.Tables[key]
		phase := string(t.Phase)
		if !t.Recopied.IsZero() && settled(phase) {
			phase = pipeline.Recopied
		}
		say(w, "  %s\t%s", written(key, t), phase)
		if !t.Recopied.IsZero() {
			say(w, "\tcopied %s ago; the log does not tell of it", durationText(time.Since(t.Recopied)))
		}
		if t.Every > 0 && settled(phase) {
			say(w, "\tcommitted every %s", durationText(time.Duration(t.Every)*time.Second))
		}
		if t.Special > 0 {
			say(w, "\t%s in %s", plural(int(t.Special), "special value"), change.SpecialName)
		}
		say(w, "\n")
		if t.Foreign > 0 {
			say(w, "  \t%d rows were added or removed by other programs\n", t.Foreign)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.LeftOut)) {
		say(w, "  %s\tleft out\t%s\n", name, r.LeftOut[name])
	}
	_ = w.Flush()
}

// written is a table's name as people write it.
func written(key string, t checkpoint.TableState) string {
	if t = t.Named(key); t.Table == "" {
		return key
	}
	return postgres.WriteTable(t.Schema, t.Table)
}

func (c *cli) pauseCommand() *cobra.Command {
	return c.askCommand("pause", "Let a pipeline stop reading; it keeps its place, and the server keeps its log",
		"  leat pause -f leat.yaml", checkpoint.Pause)
}

func (c *cli) resumeCommand() *cobra.Command {
	return c.askCommand("resume", "Let a paused pipeline go on", "  leat resume -f leat.yaml", checkpoint.Resume)
}

func (c *cli) resyncCommand() *cobra.Command {
	cmd := c.askCommand("resync", "Copy tables anew, exactly, while the others go on",
		"  leat resync -f leat.yaml --table public.orders\n  leat resync -f leat.yaml --all", checkpoint.Resync)
	cmd.Flags().StringArrayP("table", "t", nil, "table to copy anew, schema.name; may be repeated")
	cmd.Flags().Bool("all", false, "every table; also the way out when the slot is lost")
	return cmd
}

// askCommand leaves a request in the bucket. A running pipeline takes it up within seconds, another one at its next start.
func (c *cli) askCommand(use, short, example string, action checkpoint.Action) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.NoArgs,
		Long: short + ".\nThe request is left in the bucket: a pipeline that runs takes it up within seconds,\nany other one when it is started next.",
	}
	c.pipelineFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c.flags = pipelineKeys()
		q := checkpoint.Request{Action: action, By: whoAsks(), At: time.Now().UTC()}
		if action == checkpoint.Resync {
			q.Tables, _ = cmd.Flags().GetStringArray("table")
			q.All, _ = cmd.Flags().GetBool("all")
			if len(q.Tables) == 0 && !q.All {
				return fault.New(fault.UsageInvalid, "leat resync", "names no table").WithMend("Give --table public.orders, or --all.")
			}
		}
		return c.ask(cmd, q)
	}
	return cmd
}

func (c *cli) ask(cmd *cobra.Command, q checkpoint.Request) error {
	cfg, target, err := c.pipelinePlace(cmd)
	if err != nil {
		return err
	}
	defer target.Close()
	prefix := pipeline.StatePrefix(cfg.Run.Name)
	state, lease, err := checkpoint.Read(cmd.Context(), target, prefix)
	if err != nil {
		return err
	}
	if lease.Epoch == 0 {
		return fault.New(fault.UsageInvalid, cfg.Run.Name, "there is no pipeline of this name at %s", target.Properties().URL).WithMend("Check --name and --to.")
	}
	for i, name := range q.Tables {
		if q.Tables[i], err = tableOf(state, name); err != nil {
			return err
		}
	}
	q, err = checkpoint.Ask(cmd.Context(), target, prefix, q)
	if err != nil {
		return err
	}
	if c.json {
		_ = sayJSON(c.stdout, q) // strings and a time always marshal
		return nil
	}
	say(c.stdout, "Asked for: %s. leat status shows when it is done.\n", q.Action)
	return nil
}

// tableOf is the name by which the saved state knows a table, of any way to write it: with or without SQL's quotes, or as in the state.
func tableOf(state checkpoint.State, name string) (string, error) {
	_, known := state.Tables[name]
	if _, left := state.LeftOut[name]; known || left {
		return name, nil
	}
	for key, t := range state.Tables {
		t = t.Named(key)
		if slices.Contains([]string{t.Name(key), written(key, t), postgres.QuoteTable(t.Schema, t.Table)}, name) {
			return key, nil
		}
	}
	return "", fault.New(fault.UsageInvalid, name, "the pipeline has no such table").WithMend("leat status lists its tables.")
}

// whoAsks is for the log of the pipeline.
func whoAsks() string {
	host, _ := os.Hostname()
	name := "somebody"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	return name + "@" + host
}
