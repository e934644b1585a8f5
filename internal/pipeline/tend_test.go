package pipeline_test

import (
	"strings"
	"testing"
	"time"
)

func TestRunsThatEndSoonDoTheUpkeepThatIsDue(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16, "--set", "run.maintain_interval=1h")
	b.db.Exec("create table notes (id int primary key, note text); insert into notes select g, 'one' from generate_series(1, 40) g")
	b.mustCatchUp()
	tended := func() string { _, saved := b.state(); return stateOf(saved, "notes")["tended"].(string) }
	for i, due := range []bool{false, true, false} {
		if due {
			b.restate(func(saved map[string]any) {
				stateOf(saved, "notes")["tended"] = time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339)
			})
		}
		before := tended()
		b.db.Exec(map[bool]string{true: "delete from notes where id between 3 and 40", false: "insert into notes select max(id) + 1, 'more' from notes"}[due])
		r := b.mustCatchUp()
		if done := strings.Contains(r.Stderr, "maintained"); done != due || due == (tended() == before) {
			t.Errorf("run %d: upkeep was due: %t, was done: %t, and was said to be done before at %s, now at %s\n%s", i, due, done, before, tended(), r.Stderr)
		}
	}
	b.judge("notes")
}
