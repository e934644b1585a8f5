package pipeline_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/pipeline"
)

// hintedLake counts the looks at hints that others have left, and leaves its own where the process is to die.
type hintedLake struct {
	pipeline.Lake
	dies  bool
	looks *int
}

func (l *hintedLake) WriteHints(ctx context.Context, all bool) bool {
	return !l.dies && l.Lake.WriteHints(ctx, all)
}

func (l *hintedLake) FindHints(ctx context.Context, of []change.Table) bool {
	*l.looks++
	return l.Lake.FindHints(ctx, of)
}

func TestVersionHintsThatAProcessLeftBehindAreBroughtUpToDateByTheNext(t *testing.T) {
	t.Parallel()
	b := newBed(t, 0)
	b.db.Exec("create table notes (id int primary key); create table other (id int primary key)")
	looks := 0
	run := func(dies bool) {
		t.Helper()
		var log bytes.Buffer
		source, o := b.within("", &log)
		o.HintEvery, o.CommitRows = time.Hour, 1
		target := o.State
		o.Lake = func(ctx context.Context, epoch int64) (pipeline.Lake, error) {
			l, err := lake.Open(ctx, lake.Options{Bucket: target, Location: target.Properties().URL, WorkDir: b.dir + "/work", Epoch: epoch, Pipeline: "leat", HintEvery: time.Hour, Log: o.Log})
			return &hintedLake{l, dies, &looks}, err
		}
		if err := pipeline.Run(t.Context(), source, o); err != nil {
			t.Fatalf("%v\n%s", err, log.String())
		}
	}
	lag := func() (behind int) {
		t.Helper()
		for _, name := range []string{"notes", "notes_history", "other", "other_history"} {
			folder := b.dir + "/lake/public/" + name + "/metadata"
			hint, err := os.ReadFile(folder + "/version-hint.text")
			if err != nil {
				t.Fatal(err)
			}
			said, err := strconv.Atoi(strings.TrimSpace(string(hint)))
			if err != nil {
				t.Fatal(err)
			}
			if later, _ := filepath.Glob(folder + "/v" + strconv.Itoa(said+1) + ".metadata.json"); len(later) > 0 {
				behind++
			}
		}
		return behind
	}
	flagged := func() bool {
		t.Helper()
		_, state := b.state()
		return state["hints_behind"] == true
	}
	run(false)
	for i := range 3 { // of which the first one's commit brings its hint along
		b.db.Exec("insert into notes values ($1)", i)
		b.db.Exec("insert into other values ($1)", i)
	}
	looks = 0
	run(true)
	if lag() == 0 || !flagged() {
		t.Fatalf("%d hints are behind, and the saved state says %v", lag(), flagged())
	}
	run(false) // nothing has changed at the source
	if n := lag(); n != 0 || flagged() || looks == 0 {
		t.Errorf("%d hints are behind, the saved state says %v, after %d looks", n, flagged(), looks)
	}
	looks = 0
	b.db.Exec("insert into notes values (9)")
	run(false)
	if n := lag(); n != 0 || flagged() || looks != 0 {
		t.Errorf("of a run after one that had ended well %d hints are behind, the saved state says %v, after %d looks", n, flagged(), looks)
	}
}
