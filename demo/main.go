// Command demo shows leat at work, on this machine alone: make demo.
//
// It starts a scratch PostgreSQL with a shop in it and an S3 server (internal/testlab), runs the real leat as
// a user would, prints each command before its output, and then reads every file back with readers that are
// not leat's own: Arrow's for Parquet, gunzip for CSV. If a row is missing it says so and fails.
//
// What it holds to: it downloads nothing itself (hack/test-deps installs PostgreSQL where there is none);
// everything listens on 127.0.0.1; servers and files are gone when it ends, however it ends. It is no part of
// the binary that users get, and it measures nothing: that is bench.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	interrupted := ctx.Err() != nil
	stop() // a second Ctrl-C ends us at once
	testlab.Stop()
	switch {
	case interrupted:
		fmt.Println("\nEnded early; the servers and their files are gone.")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

// demo is what the steps share.
type demo struct {
	leat  string // path of the binary
	work  string // a folder for leat run
	shop  *shop
	store *store
}

func run(ctx context.Context) error {
	began := time.Now()
	root, err := os.Getwd() // before the S3 server starts: it changes the working folder
	if err != nil {
		return err
	}
	d := &demo{leat: filepath.Join(root, "bin", "leat")}
	if _, err := os.Stat(d.leat); err != nil {
		return fmt.Errorf("%s is not there; start the demo with make demo: %w", d.leat, err)
	}
	if d.work, err = os.MkdirTemp("", "leat-demo-work-"); err != nil {
		return err
	}
	defer os.RemoveAll(d.work)
	if err := d.setUp(ctx, root); err != nil {
		return err
	}
	if err := d.useLeat(ctx); err != nil {
		return err
	}
	if err := d.showResult(ctx); err != nil {
		return err
	}
	if err := d.follow(ctx); err != nil {
		return err
	}
	fmt.Printf("\nThat took %.0f s.", time.Since(began).Seconds())
	if os.Getenv("DEMO_KEEP") == "1" {
		return d.keep(ctx)
	}
	fmt.Print(` Servers, database and bucket are removed now; bin/leat stays (make clean).
To keep them running and try things yourself: DEMO_KEEP=1 make demo
`)
	return nil
}

func (d *demo) setUp(ctx context.Context, root string) (err error) {
	heading("A shop in PostgreSQL, a bucket on an S3 server")
	if d.shop, err = openShop(ctx, root); err != nil {
		return err
	}
	fmt.Printf("PostgreSQL %d  %s\n", d.shop.server.Major, d.shop.url)
	if d.store, err = openStore(ctx); err != nil {
		return err
	}
	fmt.Printf("S3 server      %s, bucket %s\n", d.store.Endpoint, d.store.Bucket)
	return d.shop.fill(ctx)
}

// useLeat does what a user would: look whether it would work, dump to Parquet, and take the old job's place.
func (d *demo) useLeat(ctx context.Context) error {
	heading("Would a dump work?")
	place := []string{"--from", d.shop.url, "--to", d.store.url("shop"), "--table", "public.*", "--exclude", "public.audit_*"}
	if err := d.runLeat(ctx, nil, append(append([]string{"check"}, place...), "--deep")...); err != nil {
		return err
	}
	heading("Dump all tables but the audit log to Parquet")
	if err := d.runLeat(ctx, nil, append(append([]string{"dump"}, place...), "--format", "parquet")...); err != nil {
		return err
	}
	heading("In place of the old shell job: the environment alone, to csv.gz")
	job := []string{"TABLES=customers reviews", "S3_OUTPUT=" + d.store.url("job"),
		"PGHOST=127.0.0.1", fmt.Sprintf("PGPORT=%d", d.shop.server.Port), "PGUSER=" + role, "PGDATABASE=" + database}
	return d.runLeat(ctx, job, "dump")
}

// runLeat shows a command as one would type it, then runs it.
func (d *demo) runLeat(ctx context.Context, env []string, args ...string) error {
	showCommand(env, args)
	cmd := d.command(ctx, env, args)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("leat %s: %w", args[0], err)
	}
	return nil
}

func showCommand(env, args []string) {
	shown := []string{"$"}
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		shown = append(shown, name+"="+quote(value))
	}
	shown = append(shown, "leat")
	for _, a := range args {
		if strings.HasPrefix(a, "--") {
			a = "\\\n    " + a
		} else {
			a = quote(a)
		}
		shown = append(shown, a)
	}
	fmt.Println(strings.Join(shown, " "))
}

// command is leat with its credentials in the environment, unseen.
func (d *demo) command(ctx context.Context, env, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.leat, args...)
	cmd.Dir = os.TempDir()
	cmd.Env = append(append(d.credentials(), "PATH="+os.Getenv("PATH"), "HOME="+os.TempDir(), "TERM="+os.Getenv("TERM")), env...)
	// A group of its own: else Ctrl-C reaches leat twice, from the terminal and from us, and the second ends it at once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func (d *demo) credentials() []string {
	return append(d.store.Env(), "PGPASSWORD="+d.shop.password)
}

// keep leaves everything running until somebody has seen enough.
func (d *demo) keep(ctx context.Context) error {
	fmt.Printf(" Everything keeps running. In another terminal:\n\n  export PATH=%s:$PATH\n", filepath.Dir(d.leat))
	for _, e := range d.credentials() {
		fmt.Println("  export", e)
	}
	fmt.Printf("  leat dump --from %s --to %s --table orders_2026_01 --format jsonl.gz\n  psql %s\n\nEnter or Ctrl-C ends it and removes everything.\n",
		quote(d.shop.url), d.store.url("mine"), quote(d.shop.url))
	entered := make(chan error, 1)
	go func() { // ends with the process at the latest: nothing can take a read of the terminal back
		_, err := os.Stdin.Read(make([]byte, 1))
		entered <- err
	}()
	select {
	case <-ctx.Done():
	case err := <-entered:
		if errors.Is(err, io.EOF) { // nobody sits there: only a signal can end it
			<-ctx.Done()
		}
	}
	return nil
}

func heading(text string) { fmt.Printf("\n== %s ==\n", text) }

// quote writes a word so that a shell reads it as it is.
func quote(word string) string {
	if strings.ContainsAny(word, " *?&;$'\"\\") {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}
