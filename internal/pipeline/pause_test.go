package pipeline_test

import (
	"os"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The lease of a machine that is suspended runs out, but nobody need have taken it.
func TestAPausedPipelineMaySleep(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	b.db.Exec("create table notes (id int primary key)")
	b.mustCatchUp()
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.ask("pause")
	p.WaitFor("leat resume goes on")
	state, _ := b.state()
	renewed := func() time.Time {
		about, err := os.Stat(state[:len(state)-len("state.json")] + "lease.json")
		if err != nil {
			t.Fatal(err)
		}
		return about.ModTime()
	}
	p.Signal(syscall.SIGSTOP)
	slept := renewed()
	b.until("the lease has run out", func() bool { return time.Since(slept) > 5*time.Second })
	p.Signal(syscall.SIGCONT)
	b.until("the lease is renewed, or the run ends", func() bool {
		select {
		case <-p.Done():
			t.Fatalf("leat run ends: %s", p.Wait().Stderr)
		default:
		}
		return renewed().After(slept)
	})
	b.ask("resume")
	b.db.Exec("insert into notes values (1)")
	b.until("the log is followed again", func() bool { return slices.Contains(b.inLake("notes")["notes"].chosen([]string{"id"}), "1") })
	p.Signal(syscall.SIGTERM)
	p.Wait()
}
