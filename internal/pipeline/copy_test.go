package pipeline_test

import "testing"

// A table that waits to be drained is copied anew: by an operator's wish, or because the process ended and the copy begins again.
func TestACopyThatBeginsAgainLeavesNoGapInTheHistory(t *testing.T) {
	t.Parallel()
	b := newBed(t, 16)
	b.db.Exec("create table notes (id int primary key, v text); insert into notes select i, 'old' from generate_series(1, 4) i")
	b.mustCatchUp()
	become := func(phase, guard string) {
		b.restate(func(saved map[string]any) {
			s := stateOf(saved, "notes")
			s["phase"], s["anew"], saved["guard"] = phase, phase == "copying", guard
			if s["since"] == nil || phase == "spooling" {
				s["since"] = saved["position"]
			}
		})
	}
	become("spooling", "spooling")
	b.more = []string{"--set", "run.guard_spool=1KiB"} // the server keeps more than that at any time
	p := b.start()
	b.until("the log is followed", func() bool { return b.active() != "" })
	b.db.Exec("insert into notes values (10, 'new'); update notes set v = 'changed' where id = 1; delete from notes where id = 2")
	b.takenFrom(func() { b.db.Exec("update notes set v = 'again' where id = 1") })
	p.Kill()
	become("copying", "")
	b.more = nil
	b.db.Exec("update notes set v = 'last' where id = 3; delete from notes where id = 10")
	b.mustCatchUp()
	b.judge("notes")
	told := map[string]int{}
	for _, row := range b.inLake("notes_history")["notes_history"].chosen([]string{"_leat_op", "id", "v"}) {
		told[row]++
	}
	for _, want := range []string{"c|10|new", "u|1|changed", "d|2|NULL", "u|1|again", "u|3|last", "d|10|NULL"} {
		if told[want] != 1 {
			t.Errorf("the history has %d times %s; all of it: %v", told[want], want, told)
		}
	}
}
