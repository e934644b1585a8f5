package mirror_test

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

var listedTime = regexp.MustCompile(`<LastModified>[^<]*</LastModified>`)

// dated is a server whose clock is off by some time, and whose objects were all written at a time from now, by our clock.
func dated(t testing.TB, s testlab.Store, clock, written time.Duration) testlab.Store {
	at := time.Now().UTC().Add(clock + written)
	return testlab.FaultyS3(t, s, func(r *http.Request) testlab.Answer {
		return altered(func(h http.Header, body []byte) []byte {
			h.Set("Date", time.Now().UTC().Add(clock).Format(http.TimeFormat))
			if h.Get("Last-Modified") != "" {
				h.Set("Last-Modified", at.Format(http.TimeFormat))
			}
			return listedTime.ReplaceAll(body, []byte("<LastModified>"+at.Format("2006-01-02T15:04:05.000Z")+"</LastModified>"))
		})
	}).Store
}

func TestWhetherAnUnlistedObjectIsNewIsToldByTheSourcesClock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		clock, written time.Duration
		refused        bool
	}{
		"new, by a clock that is right":      {0, 10 * time.Second, false},
		"new, by a clock that is slow":       {-time.Hour, 10 * time.Second, false},
		"new, by a clock that is fast":       {time.Hour, 10 * time.Second, false},
		"old, by a clock that is right":      {0, -30 * time.Minute, true},
		"old, by a clock that is slow":       {-time.Hour, -30 * time.Minute, true},
		"old, by a clock that is fast":       {time.Hour, -30 * time.Minute, true},
		"old, by a clock that is a day fast": {24 * time.Hour, -time.Minute, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put("app/kept", []byte("x"))
			near.Put("app/unlisted", []byte("the source's"))
			far.Put("copy/unlisted", []byte("another"))
			from := dated(t, leavesOut(t, near.Store, `app%2Funlisted`), c.clock, c.written)
			r, _, err := run(t, open(t, from, "app"), open(t, far.Store, "copy"), func(o *mirror.Options) { o.Delete, o.MaxDeleteShare = true, 100 })
			if fault.Is(err, fault.MirrorRefused) != c.refused || err != nil != c.refused || r.Unlisted != 1 || far.Data("copy/unlisted") == nil {
				t.Errorf("%v; %d unlisted, the target has %q", err, r.Unlisted, far.Keys())
			}
		})
	}
}

func TestTimesOfTwoServersAreComparedByTheirClocks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		nearClock, nearWritten, farClock, farWritten time.Duration
		same                                         bool
	}{
		"written after, by right clocks":          {0, -20 * time.Minute, 0, -10 * time.Minute, true},
		"written before, by right clocks":         {0, -10 * time.Minute, 0, -20 * time.Minute, false},
		"written after, the target's clock slow":  {0, -20 * time.Minute, -time.Hour, -10 * time.Minute, true},
		"written before, the target's clock fast": {0, -10 * time.Minute, time.Hour, -20 * time.Minute, false},
		"written after, the source's clock fast":  {time.Hour, -20 * time.Minute, 0, -10 * time.Minute, true},
		"written before, the source's clock slow": {-time.Hour, -10 * time.Minute, 0, -20 * time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put("app/a", []byte("near"))
			far.Put("copy/a", []byte("far."))
			silent, _ := silents["ETags of its own"].before(t, near, nil)
			r, _, err := run(t, open(t, dated(t, silent, c.nearClock, c.nearWritten), "app"), open(t, dated(t, far.Store, c.farClock, c.farWritten), "copy"), nil)
			if must(t, err); (r.Same[mirror.WayTime] == 1) != c.same || (r.Reasons[mirror.ReasonTime] == 1) == c.same {
				t.Errorf("the same: %v, carried: %v", r.Same, r.Reasons)
			}
		})
	}
}

func readOnly(t *testing.T, path string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), path, bucket.Options{ReadOnly: true})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func TestNamesThatATargetTakesForOneAnotherLoseNoObject(t *testing.T) {
	t.Parallel()
	dir := testlab.Folding(t)
	near := testlab.AnyKey(t, 1000)
	for _, key := range []string{"A.txt", "a.txt", "README", "Dir/x", "gone", "\u00e9"} {
		near.Put("app/"+key, []byte(key))
	}
	from, to := open(t, near.Store, "app"), folderOf(t, dir)
	with := func(o *mirror.Options) { o.Delete, o.MaxDeleteShare = true, 100 }
	wrong := func() {
		t.Helper()
		for key, text := range held(t, to) {
			if text != key {
				t.Errorf("%s holds %q", key, text)
			}
		}
	}
	r, w, err := run(t, from, to, with)
	if !fault.Is(err, fault.MirrorIncomplete) || r.Failed != 1 || r.FailedBy[fault.KeyRefused] != 1 || len(w.carried) != 5 {
		t.Errorf("%v; failed by %v, carried %q", err, r.FailedBy, w.carried)
	}
	wrong()
	for was, now := range map[string]string{"README": "Readme", "Dir/x": "dir/x", "\u00e9": "e\u0301"} {
		near.Remove("app/" + was)
		near.Put("app/"+now, []byte(now))
	}
	near.Remove("app/gone")
	r, w, err = run(t, from, to, nil)
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 4 || r.Failed != 4 || r.Deleted != 0 || len(w.carried) != 0 {
		t.Errorf("without deletions: %v; failed by %v, carried %q", err, r.FailedBy, w.carried)
	}
	wrong()
	r, _, err = run(t, from, to, func(o *mirror.Options) { with(o); o.DryRun = true })
	if !fault.Is(err, fault.MirrorIncomplete) || r.Deleted != 4 || r.Reasons[mirror.ReasonMissing] != 3 || r.FailedBy[fault.KeyRefused] != 1 {
		t.Errorf("what would be done: %d deleted, carried because of %v, failed by %v", r.Deleted, r.Reasons, r.FailedBy)
	}
	r, w, err = run(t, from, to, func(o *mirror.Options) { with(o); o.MaxDelete = 3 })
	if !fault.Is(err, fault.MirrorRefused) || r.FailedBy[fault.KeyRefused] != 4 || len(w.carried) != 0 {
		t.Errorf("fewer deletions than it takes: %v; failed by %v, carried %q", err, r.FailedBy, w.carried)
	}
	wrong()
	r, w, err = run(t, from, to, with)
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 1 || r.Failed != 1 || r.Deleted != 4 || len(w.carried) != 3 {
		t.Errorf("%v; failed by %v, carried %q, %d deleted, left out %v", err, r.FailedBy, w.carried, r.Deleted, r.LeftOut)
	}
	wrong()
	got := slices.DeleteFunc(slices.Sorted(maps.Keys(held(t, to))), func(key string) bool { return strings.EqualFold(key, "a.txt") }) // one of the two
	if !slices.Equal(got, []string{"Readme", "dir/x", "e\u0301"}) {
		t.Errorf("the target has %q", got)
	}
}

func TestAFolderOfAnOldSpellingStaysWhileAnythingInItIsNeeded(t *testing.T) {
	t.Parallel()
	z, err := mirror.ParseGlob("z")
	must(t, err)
	for name, needed := range map[string]struct {
		change func(t *testing.T, near *testlab.AnyKeyStore, dir string)
		also   func(*mirror.Options)
	}{
		"the source has it":        {func(_ *testing.T, near *testlab.AnyKeyStore, _ string) { near.Put("app/Dir/y", []byte("Dir/y")) }, nil},
		"the filter leaves it out": {func(t *testing.T, _ *testlab.AnyKeyStore, dir string) { tree(t, dir, "Dir/z") }, func(o *mirror.Options) { o.Filter.Exclude = []mirror.Glob{z} }},
		"another mirror keeps it":  {func(t *testing.T, _ *testlab.AnyKeyStore, dir string) { tree(t, dir, "Dir/.leat/mirror/x.json") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, dir := testlab.AnyKey(t, 1000), testlab.Folding(t)
			near.Put("app/Dir/x", []byte("Dir/x"))
			near.Put("app/kept", []byte("kept"))
			from, to := open(t, near.Store, "app"), folderOf(t, dir)
			_, _, err := run(t, from, to, nil)
			must(t, err)
			near.Remove("app/Dir/x")
			near.Put("app/dir/x", []byte("Dir/x"))
			needed.change(t, near, dir)
			r, _, err := run(t, from, to, func(o *mirror.Options) {
				o.Delete, o.MaxDeleteShare = true, 100
				if needed.also != nil {
					needed.also(o)
				}
			})
			if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 1 || r.Failed != 1 || r.Deleted != 0 || held(t, to)["Dir/x"] != "Dir/x" {
				t.Errorf("%v; failed by %v, %d deleted, left out %v", err, r.FailedBy, r.Deleted, r.LeftOut)
			}
		})
	}
}

func TestAnOldSpellingInAFolderThatAnotherMirrorKeepsIsNotCountedAsGone(t *testing.T) {
	t.Parallel()
	near, dir := testlab.AnyKey(t, 1000), testlab.Folding(t)
	near.Put("app/Dir/x", []byte("x"))
	near.Put("app/kept", []byte("kept"))
	near.Put("app/gone", []byte("gone"))
	from, to := open(t, near.Store, "app"), folderOf(t, dir)
	_, _, err := run(t, from, to, nil)
	must(t, err)
	tree(t, dir, "Dir/.leat/mirror/x.json")
	near.Remove("app/Dir/x")
	near.Remove("app/gone") // so that anything is deleted
	near.Put("app/Dir/X", []byte("x"))
	r, _, err := run(t, from, to, func(o *mirror.Options) { o.Delete, o.MaxDeleteShare, o.DryRun = true, 100, true })
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 1 || r.Reasons[mirror.ReasonMissing] != 0 || r.LeftOut[fault.ObjectForeign] != 1 {
		t.Errorf("%v; failed by %v, carried because of %v, left out %v", err, r.FailedBy, r.Reasons, r.LeftOut)
	}
}

func TestADumpOfANewSpellingComesAfterTheOldOne(t *testing.T) {
	t.Parallel()
	near, dir := testlab.AnyKey(t, 1000), testlab.Folding(t)
	from, to := open(t, near.Store, "app"), folderOf(t, dir)
	with := func(o *mirror.Options) { o.Delete, o.MaxDeleteShare, o.Tables = true, 100, &tables{from: from, to: to} }
	put := func(folder string) {
		for _, key := range []string{"/manifest.json", "/a.csv", "/_manifests/000000000001.json", "/_manifests/latest"} {
			near.Put("app/"+folder+key, []byte(key))
		}
		near.Put("app/T"+folder+"/metadata/v1.metadata.json", []byte("{}"))
	}
	put("Dump")
	near.Put("app/kept", []byte("kept"))
	_, _, err := run(t, from, to, with)
	must(t, err)
	for _, key := range near.Keys() {
		if key != "app/kept" {
			near.Remove(key)
		}
	}
	put("dump")
	near.Put("app/TDump/needed", []byte("x")) // so that of the table nothing goes yet
	r, w, err := run(t, from, to, with)
	if !fault.Is(err, fault.MirrorIncomplete) || r.Failed != r.FailedBy[fault.KeyRefused] || r.LeftOut[fault.KeyRefused] != 1 ||
		held(t, to)["TDump/metadata/version-hint.text"] == "" || r.Withheld != 0 || !slices.Equal(w.carried, []string{"TDump/needed", "dump/a.csv"}) {
		t.Errorf("%v; failed by %v, carried %q, %d withheld, left out %v", err, r.FailedBy, w.carried, r.Withheld, r.LeftOut)
	}
	near.Remove("app/TDump/needed")
	r, _, err = run(t, from, to, with)
	if !fault.Is(err, fault.MirrorIncomplete) || r.Failed != 1 || r.FailedBy[fault.KeyRefused] != 1 || r.Withheld != 0 {
		t.Errorf("%v; failed by %v, %d withheld", err, r.FailedBy, r.Withheld)
	}
	_, _, err = run(t, from, to, with)
	must(t, err)
	want := []string{"Tdump/metadata/version-hint.text", "dump/_manifests/000000000001.json", "dump/_manifests/latest", "dump/a.csv", "dump/manifest.json", "kept"}
	if got := slices.Sorted(maps.Keys(held(t, to))); !slices.Equal(got, want) {
		t.Errorf("the target has %q", got)
	}
}

func TestASourceThatTakesNamesForOneAnotherIsBelieved(t *testing.T) {
	t.Parallel()
	dir := testlab.Folding(t)
	far := testlab.AnyKey(t, 1000)
	tree(t, dir, "Readme", "dir/x", "kept")
	for _, key := range []string{"README", "Dir/x", "kept"} {
		far.Put("copy/"+key, []byte("old"))
	}
	from, to := readOnly(t, dir), open(t, far.Store, "copy")
	r, _, err := run(t, from, to, func(o *mirror.Options) { o.Delete, o.MaxDeleteShare = true, 100 })
	if must(t, err); r.Deleted != 2 || r.Unlisted != 0 {
		t.Errorf("%d deleted, %d unlisted", r.Deleted, r.Unlisted)
	}
	if got := below(far, "copy"); len(got) != 3 || got[0] != "Readme" || got[1] != "dir/x" {
		t.Errorf("the target has %q", got)
	}
}
