package config_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
)

func TestANamedPipeForAFileIsRefusedAtOnceAndAShellsPipeIsRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "leat.yaml")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	none := func(string) (string, bool) { return "", false }
	_, err := config.Load(config.LoadOptions{Path: path, Env: none})
	if !fault.Is(err, fault.ConfigInvalid) || !strings.Contains(err.Error(), "named pipe") {
		t.Errorf("a FIFO that nothing writes to: %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer w.Close()
		_, _ = w.WriteString("version: 1\ndump: {keep: 7}\n") // the reader tells whether it came
	}()
	c, err := config.Load(config.LoadOptions{Path: "/dev/fd/" + strconv.FormatUint(uint64(r.Fd()), 10), Env: none})
	if err != nil || c.Dump.Keep != 7 {
		t.Errorf("what a shell passes: %v", err)
	}
}
