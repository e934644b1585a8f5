package testlab_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leatdata/leat/internal/testlab"
)

func TestProgramTellsHowItEnded(t *testing.T) {
	t.Parallel()
	sh := testlab.Program(t, "/bin/sh")
	cases := []struct {
		script string
		want   testlab.Result
	}{
		{"echo out; echo err >&2; exit 3", testlab.Result{Exit: 3, Stdout: "out\n", Stderr: "err\n"}},
		{"kill -9 $$", testlab.Result{Exit: 137}},
		{"echo $MINE$AWS_PROFILE", testlab.Result{Stdout: "given\n"}},
	}
	for _, c := range cases {
		if got := sh.Run([]string{"MINE=given"}, "-c", c.script); got != c.want {
			t.Errorf("%s: got %+v", c.script, got)
		}
	}
}

func TestProgramIsWatchedAndSignalled(t *testing.T) {
	t.Parallel()
	p := testlab.Program(t, "/bin/sh").Start(nil, "-c", `trap 'echo stopping; exit 0' TERM; echo ready; while :; do :; done`)
	p.WaitFor("ready")
	p.Signal(syscall.SIGTERM)
	p.WaitFor("stopping")
	if r := p.Wait(); r.Exit != 0 {
		t.Errorf("ended with %d", r.Exit)
	}
}

// TestASecretInTheOutputFailsTheTest looks at a failing test from outside: the inner one runs in a process of
// its own.
func TestASecretInTheOutputFailsTheTest(t *testing.T) {
	if os.Getenv("LEAT_TEST_LEAK") != "" {
		secret := testlab.Secret("a leaked/secret")
		testlab.Program(t, "/bin/sh").Run([]string{"WORD=" + os.Getenv("LEAT_TEST_LEAK")}, "-c", "echo line one; echo \"$WORD\" >&2")
		_ = secret
		return
	}
	t.Parallel()
	for word, leaks := range map[string]bool{
		"x a leaked/secret y": true, "a+leaked%2Fsecret": true, "a%20leaked%2Fsecret": true, "harmless": false,
	} {
		inner := exec.Command(os.Args[0], "-test.run=^TestASecretInTheOutputFailsTheTest$")
		inner.Env = append(os.Environ(), "LEAT_TEST_LEAK="+word)
		out, err := inner.CombinedOutput()
		if failed := err != nil; failed != leaks {
			t.Errorf("output %q: test failed is %v, want %v\n%s", word, failed, leaks, out)
		}
		if leaks && !strings.Contains(string(out), "leat's stderr shows a secret in line 1") {
			t.Errorf("the report does not say where:\n%s", out)
		}
	}
}

// TestServersDieWithAKilledTestProcess kills a process that has a PostgreSQL server, and sees the server go.
func TestServersDieWithAKilledTestProcess(t *testing.T) {
	if os.Getenv("LEAT_TEST_KILL") != "" {
		fmt.Println("port", testlab.Postgres(t).Server.Port, "serves")
		select {} // until the outer test kills us
	}
	t.Parallel()
	mine := testlab.Postgres(t) // has the same password as the inner server, and skips where there is none
	env := []string{"LEAT_TEST_KILL=1"}
	for _, name := range []string{"HOME", "XDG_CACHE_HOME", "LEAT_TEST_CACHE"} { // where the servers' programs are
		env = append(env, name+"="+os.Getenv(name))
	}
	inner := testlab.Program(t, os.Args[0]).Start(env, "-test.run=^TestServersDieWithAKilledTestProcess$")
	config, err := pgconn.ParseConfig(mine.URL)
	if err != nil {
		t.Fatal(err)
	}
	config.Database = "postgres"
	inner.WaitFor("serves")
	inner.Signal(syscall.SIGSTOP) // it must not end by itself while we look
	if _, err := fmt.Sscanf(inner.Stdout(), "port %d", &config.Port); err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(context.Background(), config)
	if err != nil {
		t.Fatal(err)
	}
	inner.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for err == nil { // until the server has said its last word and cuts us off
		_, err = conn.ReceiveMessage(ctx)
	}
	if again, err := pgconn.ConnectConfig(context.Background(), config); err == nil {
		again.Close(context.Background())
		t.Error("the server still answers")
	}
}
