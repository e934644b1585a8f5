// Command leat carries PostgreSQL data into object storage and proves that nothing was lost.
//
// Each verb has a file of its own here: flags, wiring, output. What a verb does stands in internal/.
package main

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
)

// version is set by the linker in a release (make release).
var version = "dev"

func main() {
	stdlog.SetFlags(0) // of libraries, which put names into it as they are
	stdlog.SetOutput(printableLines{os.Stderr})
	boundMemory()
	dropStartup()
	ctx, stop := withSignals(context.Background())
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// cli is what all verbs share.
type cli struct {
	stdout, stderr io.Writer
	file           string
	sets           []string
	json, quiet    bool
	flags          []flagKey // of the verb that runs
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdout: stdout, stderr: stderr}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return int(fault.ExitOK)
	}
	if fault.Of(err) == nil && ctx.Err() == nil { // cobra's own: an unknown flag or verb
		err = fault.Wrap(err, fault.UsageInvalid, "", "the command line cannot be understood")
	}
	return c.fail(ctx, err)
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "leat",
		Short: "Carry PostgreSQL data into object storage, exactly",
		Long: `leat carries PostgreSQL into a data lake on S3, Ceph, GCS, Azure or a folder, every
value exact: dump takes tables, all at one moment, and writes a manifest that proves
what is there; run follows the write-ahead log into Iceberg tables, exactly once.`,
		Example: `  leat check --from postgres://app@db/shop --to s3://egress/shop
  leat run   --from postgres://repl@db/shop --to s3://lake/shop
  leat dump  --from postgres://app@db/shop --to s3://egress/shop --table 'public.*' --format parquet
  leat dump  -f leat.yaml`,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fault.Mended(fault.Wrap(err, fault.UsageInvalid, cmd.CommandPath(), "the command line cannot be understood"),
			"%sSee %s --help.", meant(cmd, err), cmd.CommandPath())
	})
	p := root.PersistentFlags()
	p.StringVarP(&c.file, "file", "f", "", "settings file, leat.yaml (also LEAT_CONFIG)")
	p.StringArrayVar(&c.sets, "set", nil, "any setting of leat.yaml, as key=value (dump.types.date=null); may be repeated")
	p.BoolVar(&c.json, "json", false, "machine-readable output, a JSON object a line")
	p.BoolVarP(&c.quiet, "quiet", "q", false, "only warnings and errors")
	root.AddCommand(c.dumpCommand(), c.runCommand(), c.statusCommand(), c.resyncCommand(), c.pauseCommand(), c.resumeCommand(), c.lakeCommand(),
		c.mirrorCommand(), c.checkCommand(), c.bucketCommand(), c.versionCommand())
	return root
}

// meant names the flag of the command that was probably meant by an unknown one: of a name like it, or of a part of it.
func meant(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || len(unknown.GetSpecifiedName()) < 2 {
		return ""
	}
	name := unknown.GetSpecifiedName()
	var all, alike []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		all = append(all, f.Name)
		if strings.HasSuffix(name, "-"+f.Name) || strings.HasSuffix(f.Name, "-"+name) {
			alike = append(alike, "--"+f.Name)
		}
	})
	if near := config.Nearest(name, all); near != "" {
		alike = []string{"--" + near}
	}
	if len(alike) == 0 {
		return ""
	}
	return "Did you mean " + strings.Join(alike, " or ") + "? "
}

// fail tells an error to whoever asked and gives the exit status.
func (c *cli) fail(ctx context.Context, err error) int {
	if sig := signalOf(ctx); sig != nil {
		say(c.stderr, "leat: ended by %s; nothing half-written is visible\n", sig)
		return 128 + int(*sig)
	}
	f := fault.Of(err)
	if f == nil {
		f = fault.New(fault.Internal, "", "%s", err.Error())
	}
	if c.json {
		_ = sayJSON(c.stdout, map[string]any{"event": "error", "code": f.Code, "where": fault.ValidText(f.Where),
			"what": fault.ValidText(err.Error()), "mend": fault.ValidText(f.HowToMend()), "retryable": fault.Retryable(err)})
	}
	for _, one := range joined(err) {
		say(c.stderr, "leat: %s\n", strings.TrimSpace(one.Error()))
	}
	sayMend(c.stderr, 2, f.HowToMend())
	say(c.stderr, "  code: %s (docs/errors.md)\n", f.Code)
	return int(fault.ExitOf(err))
}

// joined are the errors that one error holds side by side.
func joined(err error) []error {
	if all, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // only the outermost one has no text of its own
		return all.Unwrap()
	}
	return []error{err}
}

// flagKey ties a flag to the setting it gives.
type flagKey struct{ flag, key string }

// load reads the settings: flags over environment over file over defaults.
func (c *cli) load(cmd *cobra.Command) (*config.Config, error) {
	var overrides []config.Override
	for _, fk := range c.flags {
		flag := cmd.Flags().Lookup(fk.flag)
		if flag == nil || !flag.Changed {
			continue
		}
		values := []string{flag.Value.String()}
		if list, ok := flag.Value.(interface{ GetSlice() []string }); ok {
			values = list.GetSlice()
		}
		overrides = append(overrides, config.Override{Key: fk.key, Values: values, Flag: "--" + fk.flag})
	}
	for _, s := range c.sets {
		key, value, ok := strings.Cut(s, "=")
		if !ok {
			return nil, fault.New(fault.UsageInvalid, "--set "+s, "has no '='").WithMend("Write --set key=value.")
		}
		overrides = append(overrides, config.Override{Key: key, Values: []string{value}, Flag: "--set"})
	}
	return config.Load(config.LoadOptions{Path: c.file, Overrides: overrides})
}

// logger writes warnings and, unless quiet, more to stderr.
func (c *cli) logger(cfg *config.Config, w io.Writer) *slog.Logger {
	level := map[config.LogLevel]slog.Level{config.LogDebug: slog.LevelDebug, config.LogInfo: slog.LevelInfo, config.LogWarn: slog.LevelWarn, config.LogError: slog.LevelError}[cfg.Log.Level]
	if c.quiet {
		level = max(level, slog.LevelWarn)
	}
	opts := &slog.HandlerOptions{Level: level}
	if cfg.Log.Format == config.LogJSON || c.json {
		return slog.New(slog.NewJSONHandler(printableLog{w}, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		Run:   func(*cobra.Command, []string) { say(c.stdout, "leat %s\n", version) },
	}
}

// endedBy is the cause of a context that a signal ended.
type endedBy struct{ syscall.Signal }

func (e endedBy) Error() string { return e.String() }

// withSignals ends the context at SIGINT or SIGTERM; a second signal ends the process at once.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		first := <-signals
		cancel(endedBy{first.(syscall.Signal)})
		second := <-signals
		os.Exit(128 + int(second.(syscall.Signal)))
	}()
	return ctx, func() { signal.Stop(signals) }
}

func signalOf(ctx context.Context) *syscall.Signal {
	var e endedBy
	if errors.As(context.Cause(ctx), &e) {
		return &e.Signal
	}
	return nil
}
