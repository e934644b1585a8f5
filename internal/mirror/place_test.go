package mirror_test

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

const theMark = ".leat/mirror/test.mark"

// another gives a second endpoint of a server, as a gateway has.
func another(t testing.TB, s testlab.Store) testlab.Store {
	return testlab.FaultyS3(t, s, func(*http.Request) testlab.Answer { return nil }).Store
}

// mounted gives an endpoint at which a folder of the server's bucket is a bucket of its own.
func mounted(t testing.TB, s testlab.Store, folder, name string) testlab.Store {
	out := testlab.FaultyS3(t, s, func(*http.Request) testlab.Answer {
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			rest := strings.TrimPrefix(r.URL.Path, "/"+name)
			r.URL.Path, r.URL.RawPath = "/"+s.Bucket, ""
			if q := r.URL.Query(); rest == "" && q.Has("prefix") {
				q.Set("prefix", folder+q.Get("prefix"))
				r.URL.RawQuery = q.Encode()
			} else if rest != "" {
				r.URL.Path += "/" + folder + strings.TrimPrefix(rest, "/")
			}
			if r.Method == http.MethodPost { // a deletion, whose keys are in the body
				body, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				body = bytes.ReplaceAll(body, []byte("<Key>"), []byte("<Key>"+folder))
				r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			}
			whole := httptest.NewRecorder()
			upstream.ServeHTTP(whole, r)
			maps.Copy(w.Header(), whole.Header())
			w.Header().Del("Content-Length")
			w.WriteHeader(whole.Code)
			_, _ = w.Write([]byte(strings.NewReplacer("<Key>"+url.QueryEscape(folder), "<Key>", "<Key>"+folder, "<Key>").Replace(whole.Body.String())))
		}
	}).Store
	out.Bucket = name
	return out
}

func TestPlacesThatLieInOneAnotherAreRefusedByWhatTheyHold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from, to func(t testing.TB, s testlab.Store) bucket.Bucket
		fine     bool
	}{
		"the same by two endpoints": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
			to:   func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, another(t, s), "lake") },
		},
		"the target in the source": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
			to:   func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, another(t, s), "lake/app") },
		},
		"the target two folders deeper": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "") },
			to:   func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, another(t, s), "lake/app") },
		},
		"the source in the target": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, another(t, s), "lake/app") },
			to:   func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
		},
		"the source two folders deeper": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, another(t, s), "lake/app") },
			to:   func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "") },
		},
		"a bucket that is a folder of the target": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket {
				return open(t, mounted(t, s, "lake/app/", "app"), "")
			},
			to: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
		},
		"a bucket that is a folder of the source": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
			to: func(t testing.TB, s testlab.Store) bucket.Bucket {
				return open(t, mounted(t, s, "lake/app/", "app"), "")
			},
		},
		"a folder of another name": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
			to: func(t testing.TB, s testlab.Store) bucket.Bucket {
				return open(t, mounted(t, s, "lake/", "other"), "zz")
			},
		},
		"a bucket that is a folder of the source by another name, which only the listing shows": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
			to: func(t testing.TB, s testlab.Store) bucket.Bucket {
				return open(t, mounted(t, s, "lake/zz/", "other"), "")
			},
		},
		"a bucket that is a folder of the target by another name": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket {
				return open(t, mounted(t, s, "lake/app/", "in"), "")
			},
			to: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
		},
		"a bucket that is a folder of the target two folders deeper, by another name": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket {
				return open(t, mounted(t, s, "lake/app/", "in"), "")
			},
			to: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "") },
		},
		"another name of the bucket": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
			to:   func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, mounted(t, s, "", "alias"), "lake") },
		},
		"another spelling": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake/app") },
			to: func(t testing.TB, s testlab.Store) bucket.Bucket {
				s.Endpoint = strings.Replace(s.Endpoint, "http://127.0.0.1", "HTTP://localhost", 1) + "/"
				return open(t, s, "lake")
			},
		},
		"where only the list may be read": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket {
				return open(t, testlab.FaultyS3(t, s, testlab.Always(of(http.MethodGet, "/"+theMark), testlab.Fail(403, "AccessDenied"))).Store, "lake/app")
			},
			to: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake") },
		},
		"places beside each other": {
			from: func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, s, "lake/app") },
			to:   func(t testing.TB, s testlab.Store) bucket.Bucket { return open(t, another(t, s), "copy/app") },
			fine: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := testlab.AnyKey(t, 1000)
			for _, key := range []string{"lake/app/f0", "lake/app/f1", "lake/precious", "lake/zz/z", "other"} {
				s.Put(key, []byte(key))
			}
			before := s.Keys()
			_, _, err := run(t, c.from(t, s.Store), c.to(t, s.Store), func(o *mirror.Options) { o.Delete = true })
			if fault.Is(err, fault.MirrorRefused) == c.fine || (err == nil) != c.fine {
				t.Errorf("it ends with %v", err)
			}
			after := slices.DeleteFunc(s.Keys(), func(key string) bool { return c.fine && strings.HasPrefix(key, "copy/") })
			if strings.Contains(name, "only the listing shows") { // what comes before the mark may have been carried, and nothing is deleted or replaced
				after = slices.DeleteFunc(after, func(key string) bool { return strings.HasPrefix(key, "lake/zz/app/") || key == "lake/zz/precious" })
			}
			if strings.Contains(name, "of the target") && strings.Contains(name, "by another name") { // what is new may have been carried
				after = slices.DeleteFunc(after, func(key string) bool { return !slices.Contains(before, key) })
			}
			if !slices.Equal(after, before) {
				t.Errorf("there was %q and is %q", before, after)
			}
		})
	}
}

func TestAFilterKeepsPlacesApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from, to         string
		include, exclude []string
		fine             bool
	}{
		"the target is left out":                {"lake", "lake/copy", nil, []string{"copy/**"}, true},
		"more than the target is left out":      {"lake", "lake/a/copy", nil, []string{"a/**"}, true},
		"every folder of the name is left out":  {"lake", "lake/copy", nil, []string{"**copy/**"}, true},
		"not what lies deeper":                  {"lake", "lake/copy", nil, []string{"copy/*"}, false},
		"only some kinds of files":              {"lake", "lake/copy", nil, []string{"*.tmp"}, false},
		"another folder is left out":            {"lake", "lake/copy", nil, []string{"copies/**"}, false},
		"only another folder is taken":          {"lake", "lake/copy", []string{"app/**"}, nil, true},
		"also what may lie in it":               {"lake", "lake/copy", []string{"app/**", "*.csv"}, nil, false},
		"a folder of which it is a part":        {"lake", "lake/app/copy", []string{"app/**"}, nil, false},
		"the source is left out of its target":  {"lake/app", "lake", nil, []string{"app/**"}, true},
		"the source is not left out completely": {"lake/app", "lake", nil, []string{"app/x/**"}, false},
		"both are the same":                     {"lake", "lake", nil, []string{"**/**"}, false},
	} {
		for _, endpoints := range []string{"one endpoint", "two endpoints"} {
			t.Run(name+" by "+endpoints, func(t *testing.T) {
				t.Parallel()
				s := testlab.AnyKey(t, 1000)
				for _, key := range []string{"lake/app/f0", "lake/app/f1.csv", "lake/f2"} {
					s.Put(key, []byte(key))
				}
				before, far := s.Keys(), s.Store
				if endpoints == "two endpoints" {
					far = another(t, s.Store)
				}
				globs := func(texts []string) (out []mirror.Glob) {
					for _, text := range texts {
						g, err := mirror.ParseGlob(text)
						must(t, err)
						out = append(out, g)
					}
					return out
				}
				for range 2 {
					_, _, err := run(t, open(t, s.Store, c.from), open(t, far, c.to), func(o *mirror.Options) {
						o.Delete, o.Filter.Include, o.Filter.Exclude = c.to != "lake", globs(c.include), globs(c.exclude)
					})
					if (err == nil) != c.fine || err != nil && !fault.Is(err, fault.MirrorRefused) {
						t.Errorf("it ends with %v", err)
					}
				}
				for _, key := range before {
					if string(s.Data(key)) != key {
						t.Errorf("%s holds %q", key, s.Data(key))
					}
				}
				for _, key := range s.Keys() {
					if strings.Contains(key, "copy/copy") || strings.HasSuffix(key, ".mark") {
						t.Errorf("there is %s", key)
					}
				}
			})
		}
	}
}

func TestAFolderIsTheSameByALink(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	must(t, os.MkdirAll(filepath.Join(top, "lake", "app"), 0o755))
	must(t, os.WriteFile(filepath.Join(top, "lake", "app", "f0"), []byte("1"), 0o600))
	must(t, os.WriteFile(filepath.Join(top, "lake", "precious"), []byte("2"), 0o600))
	must(t, os.Symlink("lake", filepath.Join(top, "link")))
	from, err := bucket.Open(t.Context(), filepath.Join(top, "lake", "app"), bucket.Options{})
	must(t, err)
	defer from.Close()
	to, err := bucket.Open(t.Context(), filepath.Join(top, "link"), bucket.Options{})
	must(t, err)
	defer to.Close()
	for _, dry := range []bool{true, false} {
		_, _, err = run(t, from, to, func(o *mirror.Options) { o.Delete, o.DryRun = true, dry })
		if !fault.Is(err, fault.MirrorRefused) {
			t.Errorf("it ends with %v", err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(top, "lake", "precious")); err != nil || string(data) != "2" {
		t.Errorf("what lies beside the source is %q, %v", data, err)
	}
}

func TestMarksAreOnlyLookedFor(t *testing.T) {
	t.Parallel()
	marks := func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/"+theMark) }
	for name, c := range map[string]struct {
		stale  bool
		script func(near, far *testlab.AnyKeyStore) testlab.Script // of the source
		code   fault.Code
		left   []string
	}{
		"marks that killed runs left on both sides": {stale: true},
		"a source that fails when it is asked": {
			script: func(_, _ *testlab.AnyKeyStore) testlab.Script {
				return testlab.Always(marks, testlab.Fail(503, "SlowDown"))
			}, code: fault.BucketBusy,
		},
		"a source that fails for a moment": {
			script: func(_, _ *testlab.AnyKeyStore) testlab.Script {
				return testlab.Times(3, marks, testlab.Fail(503, "SlowDown"))
			},
		},
		"another mirror of the name that takes the marks away, once": {
			script: func(_, far *testlab.AnyKeyStore) testlab.Script {
				return testlab.Times(1, marks, func(w http.ResponseWriter, r *http.Request, up http.Handler) {
					far.Remove("copy/" + theMark)
					up.ServeHTTP(w, r)
				})
			},
		},
		"another mirror of the name that replaces them again and again": {
			script: func(_, far *testlab.AnyKeyStore) testlab.Script {
				return testlab.Always(marks, func(w http.ResponseWriter, r *http.Request, up http.Handler) {
					far.Put("copy/"+theMark, []byte("x"))
					up.ServeHTTP(w, r)
				})
			}, code: fault.BucketBusy,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
			near.Put("app/a", []byte("a"))
			if c.stale {
				near.Put("app/"+theMark, []byte("stale"))
				far.Put("copy/"+theMark, []byte("stale"))
			}
			from := near.Store
			if c.script != nil {
				from = testlab.FaultyS3(t, from, c.script(near, far)).Store
			}
			_, _, err := run(t, open(t, from, "app"), open(t, far.Store, "copy"), nil)
			if (err == nil) != (c.code == "") || err != nil && !fault.Is(err, c.code) {
				t.Errorf("it ends with %v", err)
			}
			var want []string
			if c.code == "" {
				want = []string{"copy/.leat/mirror/test.json", "copy/a"}
			}
			if got := far.Keys(); !slices.Equal(got, want) {
				t.Errorf("the target has %q", got)
			}
		})
	}
}

func TestNothingOfASourceThatIsAFolderOfTheTargetIsReplaced(t *testing.T) {
	t.Parallel()
	s := testlab.AnyKey(t, 1000)
	s.Put("lake/in/x/f", []byte("the source's own"))
	s.Put("lake/in/in/x/f", []byte("would come over it"))
	_, _, err := run(t, open(t, mounted(t, s.Store, "lake/in/", "zz"), ""), open(t, s.Store, "lake"), nil)
	if !fault.Is(err, fault.MirrorRefused) {
		t.Errorf("it ends with %v", err)
	}
	if got := string(s.Data("lake/in/x/f")); got != "the source's own" {
		t.Errorf("the source's object is %q", got)
	}
}

func TestFoldersThatHaveTheSourcesNamesAreDeletedAllTheSame(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
	near.Put("f", []byte("the same"))
	near.Put("x/f", []byte("newer"))
	for _, key := range []string{"old/f", "old/x/f", "f"} {
		far.Put(key, []byte("the same"))
	}
	far.Put("x/f", []byte("old"))
	_, _, err := run(t, open(t, near.Store, ""), open(t, far.Store, ""), func(o *mirror.Options) { o.Delete = true })
	must(t, err)
	if got, want := far.Keys(), []string{".leat/mirror/test.json", "f", "x/f"}; !slices.Equal(got, want) || string(far.Data("x/f")) != "newer" {
		t.Errorf("the target has %q, with %q", got, far.Data("x/f"))
	}
}
