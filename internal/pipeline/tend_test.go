package pipeline_test

import (
	"strings"
	"testing"
	"time"
)

func TestUpkeepAtTheEndOfARunIsDoneByChoice(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	b.db.Exec("create table notes (id int primary key, note text); insert into notes select g, 'one' from generate_series(1, 40) g")
	b.mustCatchUp()
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	for _, step := range []struct {
		name, choice, interval string
		saved                  map[string]any
		done                   bool
	}{
		{"auto, minutes after the copy", "auto", "1m", map[string]any{"tended": ago(2 * time.Minute)}, false},
		{"auto, within the hour", "auto", "1m", map[string]any{"tended": ago(50 * time.Minute), "untended": 2}, false},
		{"auto, after an hour", "auto", "1m", map[string]any{"tended": ago(70 * time.Minute)}, true},
		{"auto, the seventh run", "auto", "1m", map[string]any{"tended": ago(2 * time.Minute), "untended": 6}, false},
		{"auto, the eighth run", "auto", "1m", map[string]any{"tended": ago(2 * time.Minute)}, true},
		{"auto, the eighth run within the interval", "auto", "1h", map[string]any{"untended": 7}, false},
		{"auto, an hour ago and within the interval", "auto", "2h", map[string]any{"tended": ago(70 * time.Minute)}, false},
		{"never, after a day", "never", "1m", map[string]any{"tended": ago(24 * time.Hour), "untended": 100}, false},
		{"auto, where upkeep is left to leat lake maintain", "auto", "0s", nil, false},
		{"always, within the interval", "always", "1h", map[string]any{"tended": ago(time.Minute), "untended": 0}, true},
		{"always, where none is done beside the ingest", "always", "0s", nil, true},
	} {
		if step.saved != nil {
			b.restate(func(saved map[string]any) {
				for field, value := range step.saved {
					stateOf(saved, "notes")[field] = value
				}
			})
		}
		tended := func() any { _, saved := b.state(); return stateOf(saved, "notes")["tended"] }
		before := tended()
		b.db.Exec("update notes set note = note || ' more' where id > 3; insert into notes select max(id) + 1, 'new' from notes")
		b.more = []string{"--set", "run.maintain_at_end=" + step.choice, "--set", "run.maintain_interval=" + step.interval}
		r := b.mustCatchUp()
		if did := strings.Contains(r.Stderr, "maintained"); did != step.done || step.done == (tended() == before) {
			t.Errorf("%s: upkeep was done: %t; at %s before, now at %s\n%s", step.name, did, before, tended(), r.Stderr)
		}
		if _, saved := b.state(); step.done && stateOf(saved, "notes")["untended"] != nil {
			t.Errorf("%s: runs are counted as before: %v", step.name, stateOf(saved, "notes")["untended"])
		}
	}
	b.judge("notes")
}
