//go:build linux

// Command bench measures how fast leat dumps and how much memory it takes, against the programs that people
// use for the same today: make bench. README.md says how to run it and what came out.
//
// It starts a PostgreSQL of its own with a table like TPC-H's lineitem and keeps the data folder between runs.
// The key type is a [contender]: a command with a name. Those of one group run in turn, A B C A B C …, after one
// round that is not counted, so that a machine that slows down slows all of them.
//
// What it holds to: every counted run has a manifest with the right number of rows, or it is an error; the
// disk is in step again before the next run begins; nothing outlives it but the database's files. It needs Linux:
// the CPU time of the server's processes is read from /proc. It is not part of the binary that users get.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/leatdata/leat/internal/testlab"
)

// The server must die with us, and Linux ties that to the thread that started it: main keeps to one.
func init() { runtime.LockOSThread() }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := serveOrBench(ctx)
	testlab.Stop() // the gateways
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "bench: ended early; the database's files stay for the next run")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func serveOrBench(ctx context.Context) error {
	if len(os.Args) == 2 && os.Args[1] == serveS3 {
		return serve(ctx)
	}
	if len(os.Args) > 1 && os.Args[1] == servePipelines {
		return pipelines(ctx, os.Args[2:])
	}
	o, err := readFlags(os.Args[1:])
	if err != nil {
		return err
	}
	return run(ctx, o)
}

// options are the flags.
type options struct {
	n      int
	rows   int64
	scale  float64
	only   []string
	cache  string
	bin    string
	leat   string
	python string
	peers  string
	spark  string
	trino  string
	readme string
}

// usualRows is the size for which the reaches are given.
const usualRows = 6_000_000

func readFlags(args []string) (options, error) {
	var o options
	var only string
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.IntVar(&o.n, "n", 5, "counted runs of each command; one more warms up")
	f.Int64Var(&o.rows, "rows", usualRows, "rows of lineitem; more than 6000000 measures memory only, unless -only says otherwise")
	f.Float64Var(&o.scale, "scale", 1, "part of the usual number of rows and changes that the run- parts take")
	f.StringVar(&only, "only", "", "parts to run, by commas: "+strings.Join(partNames(), ", "))
	f.StringVar(&o.cache, "cache", cacheFolder(), "folder for the database's files; about 12 GB for 60,000,000 rows")
	f.StringVar(&o.bin, "pgbin", "", "folder with PostgreSQL's programs (the newest of Debian's, else PATH)")
	f.StringVar(&o.leat, "leat", "", "a leat to measure instead of this tree's")
	f.StringVar(&o.python, "python", "/var/cache/leat-test/python/bin/python", "a Python with pyiceberg and pyarrow, for run-scan")
	f.StringVar(&o.peers, "peers", "/var/cache/leat-test/peers", "folder with the programs of others, which hack/bench-peers makes, for the peers- parts")
	f.StringVar(&o.spark, "spark", "/var/cache/leat-test/spark", "folder with Spark and Iceberg's library, which hack/test-deps makes, for run-soak; empty leaves it out")
	f.StringVar(&o.trino, "trino", "", "URL of a Trino server on this machine with a catalog called iceberg, to read what run-soak has left")
	f.StringVar(&o.readme, "readme", "", "file to write the result into, between the two marks for this number of rows: bench/README.md")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	switch {
	case only != "":
		o.only = strings.Split(only, ",")
	case o.rows > usualRows:
		o.only = []string{"memory"}
	default:
		o.only = []string{"parquet", "csv", "s3", "many", "wide"}
	}
	for _, name := range o.only {
		if group(name) != group(o.only[0]) && o.readme != "" {
			return o, fmt.Errorf("-readme has places of their own for the parts of %q and %q: run them one after the other", group(name), group(o.only[0]))
		}
		if !slices.Contains(partNames(), name) {
			return o, fmt.Errorf("-only %s: the parts are %s", name, strings.Join(partNames(), ", "))
		}
	}
	if o.n < 1 || o.rows < 1 || o.scale <= 0 {
		return o, fmt.Errorf("-n and -rows must be at least 1, -scale above 0")
	}
	return o, nil
}

// mark names the place in the page that the result belongs to.
func (o options) mark() string {
	switch verb := group(o.only[0]); {
	case verb == "":
		return fmt.Sprintf("%d rows", o.rows)
	case o.scale != 1:
		return fmt.Sprintf("leat %s, scale %g", verb, o.scale)
	default:
		return "leat " + verb
	}
}

// group is the verb that a part measures: what stands before its name's first dash, empty for dump.
func group(part string) string {
	verb, _, found := strings.Cut(part, "-")
	if !found {
		return ""
	}
	return verb
}

// cacheFolder is where the database lies between runs. Root's own cache is closed to the server's user.
func cacheFolder() string {
	if os.Getuid() == 0 {
		return "/var/cache/leat-bench"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "leat-bench")
}

// bench is what the parts share.
type bench struct {
	options
	scratch string // for what is written, on one file system
	cluster *cluster
	report  *report
	ledger  *ledger // what the run- parts share; nil until one runs
	sky     *clouds // what the mirror- parts share
}

func run(ctx context.Context, o options) (err error) {
	b := &bench{options: o}
	if b.scratch, err = os.MkdirTemp("", "leat-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.scratch)
	if err := os.Chmod(b.scratch, 0o755); err != nil { // the server's user has its socket here
		return err
	}
	if b.leat == "" {
		if b.leat, err = buildLeat(ctx, b.scratch); err != nil {
			return err
		}
	}
	if b.cluster, err = openCluster(ctx, b.cache, b.bin, b.scratch); err != nil {
		return err
	}
	defer b.cluster.stop()
	if b.report, err = newReport(ctx, b); err != nil {
		return err
	}
	for _, p := range parts {
		if !slices.Contains(o.only, p.name) {
			continue
		}
		if err := p.run(ctx, b); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return b.report.publish(o.readme, o.mark())
}

func buildLeat(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, "leat")
	version, err := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		version = []byte("unknown") // measured outside a checkout
	}
	build := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X main.version="+strings.TrimSpace(string(version)), "-o", path, "./cmd/leat")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build ./cmd/leat, from the project's root: %w\n%s", err, out)
	}
	return path, nil
}

// progress tells on stderr what is going on; the result alone goes to stdout.
func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }
