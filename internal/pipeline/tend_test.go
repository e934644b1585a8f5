package pipeline_test

import (
	"strings"
	"testing"
	"time"
)

func TestRunsThatEndSoonDoTheUpkeepThatIsDue(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.maintain_interval=1h", "--set", "lake.keep_snapshots=1", "--set", "lake.snapshot_age=0s")
	b.db.Exec("create table notes (id int primary key, note text); insert into notes values (1, 'one')")
	b.mustCatchUp()
	tended := func() string { _, saved := b.state(); return stateOf(saved, "notes")["tended"].(string) }
	for i, due := range []bool{false, true, false} {
		if due {
			b.restate(func(saved map[string]any) {
				stateOf(saved, "notes")["tended"] = time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339)
			})
		}
		before := tended()
		b.db.Exec("insert into notes select max(id) + 1, 'more' from notes")
		r := b.mustCatchUp()
		if done := strings.Contains(r.Stderr, "maintained"); done != due || due == (tended() == before) {
			t.Errorf("run %d: upkeep was due: %t, was done: %t, and was said to be done before at %s, now at %s\n%s", i, due, done, before, tended(), r.Stderr)
		}
	}
	b.judge("notes")
}
