package main_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

// changeRow is a line of a change file of the table `steps`.
type changeRow struct {
	Op   string `json:"_leat_op"`
	LSN  int64  `json:"_leat_lsn"`
	Seq  int64  `json:"_leat_seq"`
	ID   int    `json:"id"`
	Step *int   `json:"step"`
}

// changeRows reads what the manifests of a table name, and holds each file against its hash.
func changeRows(t *testing.T, dir, table string) []changeRow {
	t.Helper()
	manifests, err := filepath.Glob(filepath.Join(dir, table, "_manifests", "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(manifests)
	var rows []changeRow
	for _, name := range manifests {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var m struct {
			Files []struct {
				Key, SHA256 string
				Rows        int
			}
		}
		if err := json.Unmarshal(data, &m); err != nil {
			t.Fatal(err)
		}
		for _, f := range m.Files {
			data, err := os.ReadFile(filepath.Join(dir, f.Key))
			if err != nil {
				t.Fatal(err)
			}
			if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 || bytes.Count(data, []byte("\n")) != f.Rows {
				t.Errorf("%s is not the file that %s names", f.Key, name)
			}
			for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
				var r changeRow
				if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
					t.Fatal(err)
				}
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// The log is followed into plain files while the process is killed again and again: every change is there once, and the last
// ones make the table as it is.
func TestChangeFilesTellEveryChangeOnceThroughKills(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create table steps (id int primary key, step int not null); insert into steps select i, 0 from generate_series(1, 300) i`)
	dir := t.TempDir()
	env := append(db.Env(), "LEAT_LAKE_TARGET=files", "LEAT_LAKE_FILE_FORMAT=jsonl", "LEAT_RUN_NAME=files_killed", "LEAT_RUN_LEASE_TTL=2s",
		"LEAT_RUN_WORK_DIR="+t.TempDir(), "LEAT_RUN_COMMIT_INTERVAL=50ms", "LEAT_TO_URL="+dir)
	leat := testlab.Leat(t)
	manifests := func() int {
		found, _ := filepath.Glob(filepath.Join(dir, "public.steps", "_manifests", "*.json"))
		return len(found)
	}
	// The first kill meets the copy. The shop opens when the copy is done: what the table holds is then told change by change.
	runUntilKilled(t, leat, env, func() bool { return manifests() > 0 })
	p := leat.Start(env, "run")
	waitUntil(t, func() bool { return manifests() > 1 }, p)
	stop := workSteps(t, db)
	waitUntil(t, func() bool { return manifests() > 3 }, p)
	p.Kill()
	p.Wait()
	for range 5 {
		before := manifests()
		runUntilKilled(t, leat, env, func() bool { return manifests() > before+2 })
	}
	stop()
	if r := leat.Run(env, "run", "--until-caught-up"); r.Exit != 0 {
		t.Fatalf("exit %d\n%s", r.Exit, r.Stderr)
	}
	checkSteps(t, changeRows(t, dir, "public.steps"), db)
}

func runUntilKilled(t *testing.T, leat *testlab.Binary, env []string, when func() bool) {
	t.Helper()
	p := leat.Start(env, "run")
	waitUntil(t, when, p)
	p.Kill()
	p.Wait()
}

// workSteps changes the table until the returned func is called.
func workSteps(t *testing.T, db *testlab.DB) (stop func()) {
	done := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			db.Exec(fmt.Sprintf(`begin; update steps set step = step + 1 where id %% 37 = %d; delete from steps where id = 1000 + %d;
				insert into steps values (%d, 1); commit`, i%37, i-3, 1000+i))
		}
	})
	stop = sync.OnceFunc(func() { close(done); work.Wait() })
	t.Cleanup(stop)
	return stop
}

// waitUntil waits for a condition while a process runs.
func waitUntil(t *testing.T, what func() bool, p *testlab.Process) {
	t.Helper()
	deadline := time.After(time.Minute)
	for tick := time.NewTicker(2 * time.Millisecond); !what(); {
		select {
		case <-tick.C:
		case <-p.Done():
			t.Fatalf("leat ended: %+v", p.Wait())
		case <-deadline:
			t.Fatal("nothing happens")
		}
	}
}

func checkSteps(t *testing.T, rows []changeRow, db *testlab.DB) {
	t.Helper()
	slices.SortFunc(rows, func(a, b changeRow) int {
		if a.LSN != b.LSN {
			return int(a.LSN - b.LSN)
		}
		return int(a.Seq - b.Seq)
	})
	state := map[int]int{}
	for i, r := range rows {
		if i > 0 && r.Op != "r" && r.LSN == rows[i-1].LSN && r.Seq == rows[i-1].Seq {
			t.Fatalf("a change is there twice: %+v", r)
		}
		switch r.Op {
		case "u":
			if *r.Step != state[r.ID]+1 {
				t.Fatalf("row %d went from step %d to %d", r.ID, state[r.ID], *r.Step)
			}
			state[r.ID] = *r.Step
		case "d":
			if _, ok := state[r.ID]; !ok {
				t.Fatalf("row %d was deleted and is not there", r.ID)
			}
			delete(state, r.ID)
		default:
			if before, ok := state[r.ID]; ok {
				t.Fatalf("row %d came with %q and is there, at step %d", r.ID, r.Op, before)
			}
			state[r.ID] = *r.Step
		}
	}
	var got []string
	for id, step := range state {
		got = append(got, fmt.Sprintf("%d %d", id, step))
	}
	var want []string
	for _, row := range db.Query("select id, step from steps") {
		want = append(want, strings.Join(row, " "))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the files tell %d rows and the table has %d, or others", len(got), len(want))
	}
	if len(rows) < 400 {
		t.Errorf("only %d changes were followed", len(rows))
	}
}

func TestChangeFilesRefuseToKeepTheLatestState(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec("create table steps (id int primary key)")
	r := testlab.Leat(t).Run(append(db.Env(), "LEAT_LAKE_TARGET=files", "LEAT_RUN_KEEP=both", "LEAT_RUN_NAME=files_both", "LEAT_RUN_WORK_DIR="+t.TempDir()),
		"run", "--until-caught-up", "--to", t.TempDir())
	if r.Exit != 2 || !strings.Contains(r.Stderr, "run.keep") {
		t.Errorf("exit %d\n%s", r.Exit, r.Stderr)
	}
}
