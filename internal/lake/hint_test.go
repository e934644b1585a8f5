package lake

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/change"
)

func TestTheHintOfVersionsThatFollowOneAnotherIsWrittenOnceInAWhile(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	seldom := func(o *Options) { o.HintEvery = time.Hour }
	l := testLake(t, dir, seldom)
	table := open(t, l, spec)
	says := func(what, want string) {
		t.Helper()
		if hint, err := os.ReadFile(dir + "/public/orders_history/metadata/version-hint.text"); err != nil || string(hint) != want {
			t.Errorf("%s the hint is %q, and should be %s: %v", what, hint, want, err)
		}
	}
	at := change.LSN(0x100)
	commits := func(n int) {
		for range n {
			write(t, table, changes(t, spec, at, "c", `[{"id":1}]`), at+8)
			at += 0x10
		}
	}
	commits(1) // which makes the table
	says("of a new table", "1")
	if l.HintsBehind() {
		t.Error("a new table's hint is behind")
	}
	commits(mostUnhinted - 1)
	says("after a few commits", "1")
	if !l.HintsBehind() || l.WriteHints(t.Context(), false) || !l.HintsBehind() {
		t.Error("a hint that is behind is not told of, or was written before its time")
	}
	commits(1)
	says("after as many commits as it may lag behind", fmt.Sprint(mostUnhinted+1))
	commits(3)
	if !l.WriteHints(t.Context(), true) || l.HintsBehind() {
		t.Error("a hint is left behind")
	}
	says("at the end", fmt.Sprint(mostUnhinted+4))

	commits(2) // and the process dies
	heir := testLake(t, dir, seldom)
	if !heir.FindHints(t.Context(), []change.Table{*spec.Table, {Schema: "public", Name: "there_is_none"}}) {
		t.Error("a hint was not found")
	}
	says("after another process has looked", fmt.Sprint(mostUnhinted+6))
	commits(2)
	table = open(t, heir, spec)
	if p := table.Position(); p != at-8 {
		t.Errorf("it stands at %s", p)
	}
	if !heir.HintsBehind() {
		t.Error("a hint that was behind when the table was opened is not told of")
	}
	if !heir.WriteHints(t.Context(), false) || heir.HintsBehind() {
		t.Error("such a hint is due at once")
	}
	says("after that", fmt.Sprint(mostUnhinted+8))
}

func TestAHintThatCannotBeWrittenIsWrittenLater(t *testing.T) {
	t.Parallel()
	wire, lake := countedLake(t, 2)
	spec := historySpec()
	l := lake()
	table := open(t, l, spec)
	wire.refused.Store(new("/version-hint.text"))
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x108)
	if !l.HintsBehind() || l.WriteHints(t.Context(), true) {
		t.Error("a hint that was refused counts as written")
	}
	wire.refused.Store(nil)
	if !l.WriteHints(t.Context(), true) || l.HintsBehind() {
		t.Error("the hint is not written later")
	}
}
