package pipeline_test

import (
	"os"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

const hasNoContent = "the lake has no content of it"

// ask has an operator ask something of the pipeline.
func (b *bed) ask(command ...string) {
	b.t.Helper()
	r := testlab.Leat(b.t).Run(b.db.Env(), append(command, "--to", b.dir+"/lake")...)
	if r.Exit != 0 {
		b.t.Fatalf("leat %v ends with %d: %s", command, r.Exit, r.Stderr)
	}
}

func TestATableThatTheLakeHasNoContentOfIsCopiedAnew(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		before []string
		lose   func(b *bed)
	}{
		"kept in one more form": {before: []string{"--keep", "history"}, lose: func(*bed) {}},
		"dropped in the lake": {lose: func(b *bed) {
			if err := os.RemoveAll(b.dir + "/lake/public/notes"); err != nil {
				b.t.Fatal(err)
			}
		}},
		"while it was about to be drained": {lose: func(b *bed) {
			b.restate(func(saved map[string]any) {
				s := stateOf(saved, "notes")
				s["phase"], s["since"] = "spooling", saved["position"]
			})
			if err := os.RemoveAll(b.dir + "/lake/public/notes"); err != nil {
				b.t.Fatal(err)
			}
		}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 16, c.before...)
			b.db.Exec("create table notes (id int primary key, v text); insert into notes select i, 'old' from generate_series(1, 4) i; create table empty (id int primary key)")
			b.mustCatchUp()
			b.more = nil
			c.lose(b)
			b.db.Exec("insert into notes values (10, 'new'); update notes set v = 'changed' where id = 1; insert into empty values (1)")
			r := b.mustCatchUp()
			b.judge("notes")
			if n := strings.Count(r.Stderr, hasNoContent); n != 1 && len(c.before) == 0 || n == 0 {
				t.Errorf("%d tables are copied anew:\n%s", n, r.Stderr)
			}
			b.db.Exec("delete from notes where id = 2; insert into empty values (2)")
			if r := b.mustCatchUp(); strings.Contains(r.Stderr, hasNoContent) {
				t.Errorf("a table is copied again:\n%s", r.Stderr)
			}
			b.judge("notes", "empty")
		})
	}
}
