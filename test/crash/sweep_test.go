package crash_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// small is a database of one small table.
func small(t testing.TB) (*testlab.DB, map[string]content) {
	db := testlab.Postgres(t)
	db.Exec("create table scans (id bigint); insert into scans select generate_series(1, 100)")
	return db, map[string]content{"scans": contentOf(db, "scans", "id")}
}

func (p folderPlace) write(t testing.TB, key, text string) {
	t.Helper()
	path := filepath.Join(string(p), filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// age makes an object an hour old.
func (p folderPlace) age(t testing.TB, key string) {
	t.Helper()
	then := time.Now().Add(-time.Hour)
	if err := os.Chtimes(filepath.Join(string(p), filepath.FromSlash(key)), then, then); err != nil {
		t.Fatal(err)
	}
}

const marks = ".leat/running/"

func TestASweepTakesWhatIsDeadAndOursAndNothingElse(t *testing.T) {
	t.Parallel()
	db, _ := small(t)
	dir := folderPlace(t.TempDir())
	dead := map[string]string{
		"2026-01-01T000000Z/public.scans/00000-00.csv": "1\n",
		"2026-01-02/scans.csv":                         "1\n",
		marks + "2026-01-01T000000Z-aa.json":           `{"id":"2026-01-01T000000Z","folder":"2026-01-01T000000Z","layout":"run"}`,
		marks + "2026-01-02T000000Z-bb.json":           `{"id":"2026-01-02T000000Z","folder":"2026-01-02","layout":"date","keys":["2026-01-02/scans.csv","elsewhere/scans.csv"]}`,
	}
	stays := map[string]string{
		"README.txt":                         "somebody's",
		"elsewhere/scans.csv":                "somebody's",
		"2026-01-01T000000Z/notes.txt":       "somebody's, in a dead dump's folder",
		"2026-01-02/other.csv":               "another job's, in the same day's folder",
		"2025-01-01T000000Z/t/00000-00.csv":  "a dump without a mark",
		"important/t/00000-00.csv":           "what the lying mark points at",
		marks + "2026-01-03T000000Z-cc.json": `{"id":"x","folder":"important","layout":"run"}`,
		marks + "2026-01-04T000000Z-dd.json": "not even JSON",
		"2026-01-05T000000Z/t/00000-00.csv":  "a living dump's",
		marks + "2026-01-05T000000Z-ee.json": `{"id":"2026-01-05T000000Z","folder":"2026-01-05T000000Z","layout":"run"}`,
		marks + "2026-01-05T000000Z-gg.json": `{"id":"2026-01-05T000000Z","folder":"2026-01-05T000000Z","layout":"run"}`, // dead, beside the living one
		"2026-01-06T000000Z/t/00000-00.csv":  "a dump that was killed after its manifest",
		"2026-01-06T000000Z/manifest.json":   `{"format_version":1,"folder":"2026-01-06T000000Z","tables":[{"files":[{"key":"2026-01-06T000000Z/t/00000-00.csv"}]}]}`,
	}
	for key, text := range dead {
		dir.write(t, key, text)
		dir.age(t, key)
	}
	for key, text := range stays {
		dir.write(t, key, text)
		if !strings.Contains(key, "-ee.json") {
			dir.age(t, key)
		}
	}
	finished := marks + "2026-01-06T000000Z-ff.json"
	dir.write(t, finished, `{"id":"2026-01-06T000000Z","folder":"2026-01-06T000000Z","layout":"run"}`)
	dir.age(t, finished)
	if _, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), options(format.CSV, dump.LayoutRun)); err != nil {
		t.Fatal(err)
	}
	for key := range dead {
		if dir.read(t, key) != nil {
			t.Errorf("%s is still there", key)
		}
	}
	if dir.read(t, finished) != nil {
		t.Errorf("the mark of the finished dump is still there")
	}
	for key, text := range stays {
		if string(dir.read(t, key)) != text {
			t.Errorf("%s (%s) is gone", key, text)
		}
	}
}

// TestADeadDumpOfTodayIsSweptByTodaysNext although it wrote a table that the next one does not.
func TestADeadDumpOfTodayIsSweptByTodaysNext(t *testing.T) {
	t.Parallel()
	db, want := small(t)
	dir := folderPlace(t.TempDir())
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	mark := marks + "2026-03-04T000000Z-aa.json"
	dir.write(t, mark, `{"id":"2026-03-04T000000Z","folder":"2026-03-04","layout":"date","keys":["2026-03-04/public.dropped.csv","2026-03-04/public.scans.csv"]}`)
	dir.write(t, "2026-03-04/public.dropped.csv", "1\n")
	dir.write(t, "2026-03-04/public.scans.csv", "1\n")
	dir.age(t, mark)
	opts := options(format.CSV, dump.LayoutDate)
	opts.Now = func() time.Time { return now }
	if _, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), opts); err != nil {
		t.Fatal(err)
	}
	judgeClean(t, dir, want)
}

func TestDumpsThatBeginAtOnceAllSucceed(t *testing.T) {
	t.Parallel()
	db, want := small(t)
	source := reach(t, db.URL)
	for layout, folders := range map[dump.Layout]int{dump.LayoutRun: 3, dump.LayoutDate: 1} {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			store := s3Place{testlab.S3(t)}
			b := store.open(t, quick)
			day := time.Now().UTC().Truncate(24 * time.Hour)
			began := time.Now()
			var runs sync.WaitGroup
			for range 3 {
				runs.Go(func() {
					opts := options(format.CSV, layout)
					// The clock goes on, but midnight must not come between.
					opts.Now = func() time.Time { return day.Add(time.Since(began)) }
					if _, err := dump.Run(t.Context(), source, b, opts); err != nil {
						t.Error(err)
					}
				})
			}
			runs.Wait()
			if v := judgeClean(t, store, want); len(v.manifests) != folders {
				t.Errorf("%d dumps, want %d", len(v.manifests), folders)
			}
		})
	}
}

// TestADumpThatWasTakenForDeadWritesNoManifest: somebody has swept it while it slept.
func TestADumpThatWasTakenForDeadWritesNoManifest(t *testing.T) {
	t.Parallel()
	db, _ := small(t)
	dir := folderPlace(t.TempDir())
	opts := options(format.CSV, dump.LayoutRun)
	opts.Watch = watches{started: func(*dump.Progress) {
		for _, key := range dir.keys(t) {
			if strings.HasPrefix(key, marks) {
				if err := os.Remove(filepath.Join(string(dir), key)); err != nil {
					t.Error(err)
				}
			}
		}
	}}
	_, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), opts)
	wants(t, err, fault.BucketFailed, "took this one for dead")
	nothing(t, dir)
}

// TestAMarkThatIsGoneIsNotWrittenAgain, or a swept dump would not notice when it wakes.
func TestAMarkThatIsGoneIsNotWrittenAgain(t *testing.T) {
	t.Parallel()
	db, _ := small(t)
	store := testlab.S3(t)
	renewals := make(chan struct{}, 10)
	proxy := testlab.FaultyS3(t, store, func(r *http.Request) testlab.Answer {
		if r.Method == http.MethodHead && strings.Contains(r.URL.Path, marks) {
			select {
			case renewals <- struct{}{}:
			default:
			}
		}
		return nil
	})
	at := s3Place{store}
	plain := at.open(t, quick)
	opts := options(format.CSV, dump.LayoutRun)
	opts.Liveness = time.Second // so a renewal comes each second
	log := &hears{}
	opts.Log = logTo(log)
	var once sync.Once
	opts.Watch = watches{started: func(*dump.Progress) {
		once.Do(func() {
			for _, key := range at.keys(t) {
				if strings.HasPrefix(key, marks) {
					if err := plain.Delete(t.Context(), key); err != nil {
						t.Error(err)
					}
				}
			}
			until(t, "a renewal is tried", func() bool { return log.times("cannot renew the mark") > 0 })
		})
	}}
	_, err := dump.Run(t.Context(), reach(t, db.URL), s3Place{proxy.Store}.open(t, quick), opts)
	wants(t, err, fault.BucketFailed, "took this one for dead")
	nothing(t, at)
}

// days dumps on several days of the past and returns their folders, the oldest first.
func days(t testing.TB, db *testlab.DB, b bucket.Bucket, n int) (folders []string) {
	t.Helper()
	source := reach(t, db.URL)
	for day := 1; day <= n; day++ {
		opts := options(format.CSV, dump.LayoutRun)
		opts.Now = func() time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }
		m, err := dump.Run(t.Context(), source, b, opts)
		if err != nil {
			t.Fatal(err)
		}
		folders = append(folders, m.Folder)
	}
	return folders
}

func TestKeepCountsOurDumpsAndNeverDeletesTheNewOne(t *testing.T) {
	t.Parallel()
	db, _ := small(t)
	dir := folderPlace(t.TempDir())
	b := dir.open(t)
	old := days(t, db, b, 3)
	foreign := []string{"latest/manifest.json", "2030-01-01/manifest.json", "2031-01-01T000000Z/manifest.json"}
	dir.write(t, foreign[0], `{"format_version":1,"folder":"latest"}`)
	dir.write(t, foreign[1], "[]")
	dir.write(t, foreign[2], `{"format_version":1,"folder":"`+old[0]+`"}`)
	opts := options(format.CSV, dump.LayoutRun)
	opts.Keep = 2
	opts.Now = func() time.Time { return time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC) } // a clock that was set back
	m, err := dump.Run(t.Context(), reach(t, db.URL), b, opts)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, key := range dir.keys(t) {
		if strings.HasSuffix(key, manifestName) && !slices.Contains(foreign, key) {
			left = append(left, strings.TrimSuffix(key, manifestName))
		}
	}
	if want := []string{m.Folder, old[2]}; !slices.Equal(left, want) {
		t.Errorf("left are %q, want %q", left, want)
	}
	for _, key := range foreign {
		if dir.read(t, key) == nil {
			t.Errorf("the foreign %s is gone", key)
		}
	}
	if dir.read(t, old[0]+"/public.scans/00000-00.csv") != nil {
		t.Error("the files of a pruned dump are still there")
	}
}

// TestAPruneThatDiesLeavesNoManifestThatLies cuts each request of the pruning in turn.
func TestAPruneThatDiesLeavesNoManifestThatLies(t *testing.T) {
	t.Parallel()
	db, want := small(t)
	source := reach(t, db.URL)
	for n := range 4 {
		store := testlab.S3(t)
		at := s3Place{store}
		old := days(t, db, at.open(t, quick), 3)
		deletes := func(r *http.Request) bool {
			return r.Method == http.MethodDelete && strings.Contains(r.URL.Path, "/2026-") || r.Method == http.MethodPost && r.URL.Query().Has("delete")
		}
		passed := testlab.Times(n, deletes, func(w http.ResponseWriter, r *http.Request, up http.Handler) { up.ServeHTTP(w, r) })
		proxy := testlab.FaultyS3(t, store, func(r *http.Request) testlab.Answer {
			if answer := passed(r); answer != nil {
				return answer
			}
			if deletes(r) {
				return testlab.Reset
			}
			return nil
		})
		few := quick
		few.MaxRetries = 1
		opts := options(format.CSV, dump.LayoutRun)
		opts.Keep = 1
		if _, err := dump.Run(t.Context(), source, s3Place{proxy.Store}.open(t, few), opts); n < 2 && err == nil {
			t.Errorf("%d deletes pass and the pruning succeeds", n)
		}
		v := judge(t, at, want)
		if _, there := v.manifests[old[0]]; there && n > 0 {
			t.Errorf("after %d deletes the manifest of %s is still there", n, old[0])
		}
		if len(v.manifests) == 0 {
			t.Error("the new dump is gone")
		}
	}
}
