package mirror_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

var (
	aContents = regexp.MustCompile(`<Contents>.*?</Contents>`)
	aKeyCount = regexp.MustCompile(`<KeyCount>\d+`)
)

// leavesOut has a server's listings leave out the objects whose keys a pattern matches, and say that they are whole.
func leavesOut(t testing.TB, s testlab.Store, keys string) testlab.Store {
	t.Helper()
	key := regexp.MustCompile(`<Key>` + keys + `</Key>`)
	return testlab.FaultyS3(t, s, testlab.Always(func(r *http.Request) bool { return r.URL.Query().Has("list-type") },
		func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			whole := httptest.NewRecorder()
			upstream.ServeHTTP(whole, r)
			n := 0
			text := aContents.ReplaceAllStringFunc(whole.Body.String(), func(o string) string {
				if key.MatchString(o) {
					return ""
				}
				n++
				return o
			})
			_, _ = w.Write([]byte(aKeyCount.ReplaceAllString(text, "<KeyCount>"+strconv.Itoa(n))))
		})).Store
}

func TestNothingIsDeletedOnTheWordOfOneListing(t *testing.T) {
	t.Parallel()
	asks := func(method string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Method == method && strings.HasSuffix(r.URL.Path, "/d/07") }
	}
	for name, c := range map[string]struct {
		from    func(near testlab.Store) testlab.Store
		change  func(*mirror.Options)
		code    fault.Code
		left    int // of 100 objects, two of which are gone at the source
		deleted int64
	}{
		"an honest listing": {left: 98, deleted: 2},
		"one that leaves out objects": {
			from: func(s testlab.Store) testlab.Store { return leavesOut(t, s, `app%2Fd%2F1\d`) }, code: fault.MirrorRefused, left: 100,
		},
		"one that leaves out most": {
			from: func(s testlab.Store) testlab.Store { return leavesOut(t, s, `app%2Fd%2F[1-9]\d`) }, code: fault.MirrorRefused, left: 100,
		},
		"one that leaves out most, which is allowed": {
			from:   func(s testlab.Store) testlab.Store { return leavesOut(t, s, `app%2Fd%2F[1-9]\d`) },
			change: func(o *mirror.Options) { o.MaxDeleteShare = 100 }, code: fault.MirrorRefused, left: 100,
		},
		"a dry run": {
			from: func(s testlab.Store) testlab.Store { return leavesOut(t, s, `app%2Fd%2F1\d`) }, change: func(o *mirror.Options) { o.DryRun = true },
			code: fault.MirrorRefused, left: 100,
		},
		"a source that may not be asked": {
			from: func(s testlab.Store) testlab.Store {
				return testlab.FaultyS3(t, s, testlab.Always(asks(http.MethodHead), testlab.Fail(403, "AccessDenied"))).Store
			}, code: fault.MirrorIncomplete, left: 99, deleted: 1,
		},
		"a source that fails for a moment": {
			from: func(s testlab.Store) testlab.Store {
				return testlab.FaultyS3(t, s, testlab.Times(2, asks(http.MethodHead), testlab.Fail(503, "SlowDown"))).Store
			}, left: 98, deleted: 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			for i := range 100 {
				near.Put(fmt.Sprintf("app/d/%02d", i), []byte("x"))
			}
			to := open(t, far.Store, "app")
			_, _, err := run(t, open(t, near.Store, "app"), to, nil)
			must(t, err)
			near.Remove("app/d/07")
			near.Remove("app/d/77")
			from := near.Store
			if c.from != nil {
				from = c.from(near.Store)
			}
			r, _, err := run(t, open(t, from, "app"), to, func(o *mirror.Options) {
				o.Delete = true
				if c.change != nil {
					c.change(o)
				}
			})
			if (err == nil) != (c.code == "") || err != nil && !fault.Is(err, c.code) {
				t.Errorf("it ends with %v", err)
			}
			if got := below(far, "app"); len(got) != c.left || r.Deleted != c.deleted {
				t.Errorf("%d objects are left, and %d were deleted", len(got), r.Deleted)
			}
		})
	}
}

func TestAListingThatShrankByMoreThanItsShareDeletesNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		had, stays, comes int // objects at the target, those that the source still has, and those that it has beside
		share             int
		refused           bool
	}{
		"a little":                {100, 80, 0, 25, false},
		"more than the share":     {100, 74, 0, 25, true},
		"as much as the share":    {100, 75, 0, 25, false},
		"few objects":             {20, 1, 0, 25, false},
		"a day for another":       {60, 0, 60, 25, false},
		"a day for a smaller one": {100, 0, 60, 25, true},
		"with leave":              {100, 1, 0, 100, false},
		"with half a leave":       {100, 40, 0, 50, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			for i := range c.had {
				far.Put(fmt.Sprintf("app/a/%03d", i), []byte("x"))
			}
			for i := range c.stays {
				near.Put(fmt.Sprintf("app/a/%03d", i), []byte("x"))
			}
			for i := range c.comes {
				near.Put(fmt.Sprintf("app/b/%03d", i), []byte("x"))
			}
			r, _, err := run(t, open(t, near.Store, "app"), open(t, far.Store, "app"), func(o *mirror.Options) { o.Delete, o.MaxDeleteShare = true, c.share })
			want := c.had + c.comes
			if !c.refused {
				want = c.stays + c.comes
			}
			if fault.Is(err, fault.MirrorRefused) != c.refused || (err != nil) != c.refused || len(below(far, "app")) != want {
				t.Errorf("%v; %d objects are left, want %d; deleted %d", err, len(below(far, "app")), want, r.Deleted)
			}
			if c.refused && !strings.Contains(fault.Of(err).HowToMend(), "--max-delete-share") {
				t.Errorf("it does not say how to allow it: %s", fault.Of(err).HowToMend())
			}
		})
	}
}

func TestFilesOfATableDoNotCountAsLost(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
	for i := range 100 {
		far.Put(fmt.Sprintf("app/t/data/%03d.parquet", i), []byte("small"))
		far.Put(fmt.Sprintf("app/gone/data/%03d.parquet", i), []byte("x"))
		near.Put(fmt.Sprintf("app/kept/%03d", i), []byte("x"))
		far.Put(fmt.Sprintf("app/kept/%03d", i), []byte("x"))
	}
	near.Put("app/t/data/one.parquet", []byte("large"))
	near.Put("app/t/metadata/v1.metadata.json", []byte("{}"))
	from, to := open(t, near.Store, "app"), open(t, far.Store, "app")
	with := func(share int) func(*mirror.Options) {
		return func(o *mirror.Options) {
			o.Delete, o.MaxDelete, o.MaxDeleteShare = true, 1000, share
			o.Tables = &tables{from: from, to: to, files: []string{"data/one.parquet"}}
		}
	}
	// Of 200 objects beside the table's, the 100 of a table that is gone are lost.
	if _, _, err := run(t, from, to, with(49)); !fault.Is(err, fault.MirrorRefused) {
		t.Errorf("half is lost, and 49 percent may be: %v", err)
	}
	r, _, err := run(t, from, to, with(50))
	if must(t, err); r.Deleted != 200 {
		t.Errorf("%d deleted", r.Deleted)
	}
}
