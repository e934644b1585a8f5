package mirror_test

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// climbing is a server that takes a/../b for b, as those do that keep objects as files.
func climbing(t testing.TB, s testlab.Store) testlab.Store {
	return testlab.FaultyS3(t, s, func(*http.Request) testlab.Answer {
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			r.URL.Path, r.URL.RawPath = path.Clean(r.URL.Path), ""
			upstream.ServeHTTP(w, r)
		}
	}).Store
}

// naming is a table whose metadata names some files.
type naming struct {
	relocating
	files []string
}

func (n naming) Relocate(ctx context.Context, root string, files mirror.Files) (bool, error) {
	for _, key := range n.files {
		data, err := files.Read(ctx, key, 1<<20)
		if err != nil {
			return false, err
		}
		if err := files.Carry(ctx, key, int64(len(data))); err != nil {
			return false, err
		}
	}
	return n.relocating.Relocate(ctx, root, files)
}

// namings are keys that files of others name, each with what becomes of who names it.
var namings = map[string]struct {
	key     string
	exclude string
	has     bool // the target
	other   bool // the target has another one there
	code    fault.Code
}{
	"a file":                               {key: "t/data/part-1.parquet"},
	"a file that is listed under odd keys": {key: "t/data//part-%41.parquet"},
	"a pipeline's state":                   {key: "_leat/shop/state.json", code: fault.KeyRefused},
	"another mirror's report":              {key: "t/.leat/mirror/report.json", code: fault.KeyRefused},
	"a file above the source":              {key: "../secret/keys.csv", code: fault.KeyRefused},
	"a file above it by a detour":          {key: "t/data/../../../secret/keys.csv", code: fault.KeyRefused},
	"a file above it for who decodes":      {key: "t/%2e%2e/%2e%2e/secret/keys.csv", code: fault.KeyRefused},
	"a file that the filter leaves out":    {key: "t/data/part-2.parquet", exclude: "part-2*", code: fault.MirrorIncomplete},
	"one of which the target has another":  {key: "t/data/part-2.parquet", exclude: "part-2*", other: true, code: fault.MirrorIncomplete},
	"one that the target has":              {key: "t/data/part-2.parquet", exclude: "part-2*", has: true},
}

func TestFilesThatOthersNameAreCarriedOnlyFromBelowTheSource(t *testing.T) {
	t.Parallel()
	for name, c := range namings {
		for _, by := range []string{"a commit of change files", "a table"} {
			if by == "a table" && (c.has || c.other) {
				continue // its files are looked at by the table
			}
			t.Run(name+" by "+by, func(t *testing.T) {
				t.Parallel()
				near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
				for _, key := range []string{"t/data/part-1.parquet", "t/data/part-2.parquet", "t/data//part-%41.parquet", "_leat/shop/state.json", "t/.leat/mirror/report.json", "z"} {
					near.Put("app/"+key, []byte("x"))
				}
				near.Put("secret/keys.csv", []byte("x"))
				if c.has {
					far.Put("copy/"+c.key, []byte("x"))
				}
				server := near.Store
				if strings.Contains(c.key, "..") {
					server = climbing(t, near.Store)
				}
				if strings.Contains(c.key, "%2e") {
					server = decoding(t, climbing(t, near.Store))
				}
				from, to := open(t, server, "app"), open(t, far.Store, "copy")
				with := func(o *mirror.Options) {
					o.Delete, o.MaxDeleteShare = true, 100
					if by == "a table" {
						o.Tables = naming{relocating{from, to}, []string{c.key}}
					}
					if c.exclude != "" {
						glob, err := mirror.ParseGlob(c.exclude)
						must(t, err)
						o.Filter.Exclude = []mirror.Glob{glob}
					}
				}
				far.Put("copy/gone", []byte("x"))
				who := "t/_manifests/000000000001.json"
				if by == "a table" {
					who = "t/metadata/00000-a.metadata.json"
					near.Put("app/"+who, bareTable(1))
				} else {
					below := strings.TrimPrefix(c.key, "t/") // manifests name keys from the folder that their own lies in
					if strings.HasPrefix(below, "../") {
						below = "../" + below
					}
					near.Put("app/"+who, []byte(`{"files":[{"key":"t/`+below+`","bytes":1}]}`))
				}
				if c.other {
					far.Put("copy/"+c.key, []byte("another one"))
				}
				r, _, err := run(t, from, to, with)
				held := c.code != ""
				if (err != nil) != held || held && (r.FailedBy[c.code] != 1 || r.Deleted != 0) || !held && r.Deleted != 1 {
					t.Errorf("%v; failed by %v, %d deleted", err, r.FailedBy, r.Deleted)
				}
				if there := far.Data("copy/"+who) != nil; there == held {
					t.Errorf("%s is at the target: %v", who, there)
				}
				for _, key := range far.Keys() {
					if strings.Contains(key, "secret") || strings.Contains(key, "keys.csv") || strings.Contains(key, "_leat") || strings.HasSuffix(key, "/report.json") {
						t.Errorf("%s came", key)
					}
				}
			})
		}
	}
}

// decoding is a proxy that decodes what stands in a URL once too often.
func decoding(t testing.TB, s testlab.Store) testlab.Store {
	return testlab.FaultyS3(t, s, func(*http.Request) testlab.Answer {
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			if once, err := url.PathUnescape(r.URL.Path); err == nil {
				r.URL.Path, r.URL.RawPath = once, ""
			}
			upstream.ServeHTTP(w, r)
		}
	}).Store
}

func TestATableIsNotWrittenUnderKeysThatTheTargetTakesForOthers(t *testing.T) {
	t.Parallel()
	for _, root := range []string{"a%2Fb", `a%20b`, "x/%74"} {
		near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
		near.Put("app/"+root+"/metadata/00000-a.metadata.json", bareTable(1))
		near.Put("app/plain", []byte("1"))
		far.Put("copy/gone", []byte("x"))
		from, to := open(t, near.Store, "app"), open(t, decoding(t, far.Store), "copy")
		r, _, err := run(t, from, to, func(o *mirror.Options) { o.Tables, o.Delete, o.MaxDeleteShare = relocating{from, to}, true, 100 })
		if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 1 || r.Failed != 1 || r.Deleted != 1 || string(far.Data("copy/plain")) != "1" {
			t.Errorf("%s: %v, failed by %v, %d deleted", root, err, r.FailedBy, r.Deleted)
		}
		for _, key := range far.Keys() {
			if strings.Contains(key, "metadata") {
				t.Errorf("%s: %s came", root, key)
			}
		}
	}
}

func TestDeletionsWaitForATableOfWhichAFileCannotBeHeld(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
	near.Put("app/t/metadata/00000-a.metadata.json", bareTable(1))
	near.Put("app/t/data/p%20q.parquet", []byte("new"))
	far.Put("copy/t/data/old.parquet", []byte("x"))
	from, to := open(t, near.Store, "app"), open(t, decoding(t, far.Store), "copy")
	r, _, err := run(t, from, to, func(o *mirror.Options) {
		o.Tables, o.Delete, o.MaxDeleteShare = naming{relocating{from, to}, []string{"t/data/p%20q.parquet"}}, true, 100
	})
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 1 || r.Withheld != 1 || far.Data("copy/t/data/old.parquet") == nil {
		t.Errorf("%v, failed by %v, %d withheld", err, r.FailedBy, r.Withheld)
	}
}
