package mirror_test

import (
	"fmt"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// oddKeys are keys with each byte there is, and with what XML, URLs and JSON read in ways of their own.
func oddKeys() []string {
	keys := []string{
		"gone\x01.txt", "gone\uFFFD.txt", "fffe\uFFFE", "ffff\uFFFF", " lead", "trail ", "\n", "cr\rlf\r\n", "a+b", "a%2Fb", "%zz", "back\\slash", "&#x1;", "]]>",
		"\xff\xfe", "\xef\xbf", "\\ud800", "a\u2028", strings.Repeat("\x01", 1024-len("copy/")), "d/",
	}
	for c := range 256 {
		keys = append(keys, fmt.Sprintf("byte%sx", []byte{byte(c)}))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// below gives the keys under a path, without our own records.
func below(s *testlab.AnyKeyStore, path string) (keys []string) {
	for _, key := range s.Keys() {
		if rest, ok := strings.CutPrefix(key, path+"/"); ok && !strings.HasPrefix(rest, ".leat/") {
			keys = append(keys, rest)
		}
	}
	return keys
}

func TestObjectsOfAnyKeyAreCarriedAndOnlyWhatIsGoneIsDeleted(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 50), testlab.AnyKey(t, 50)
	for _, key := range oddKeys() {
		near.Put("app/"+key, []byte(key))
	}
	near.Put("app/in\x01parts", noise(1, 17<<20))
	near.Put("app/in\xffparts", noise(2, 17<<20))
	from, to := open(t, near.Store, "app"), open(t, far.Store, "copy")
	_, _, err := run(t, from, to, nil)
	must(t, err)
	if got, want := below(far, "copy"), below(near, "app"); !slices.Equal(got, want) {
		t.Fatalf("%d keys came, of %d", len(got), len(want))
	}
	if left := far.Uploads(); len(left) > 0 {
		t.Errorf("unfinished uploads are left: %q", left)
	}
	// What goes and what stays differ by what XML, JSON and UTF-8 cannot tell apart.
	for i, key := range oddKeys() {
		if key == "gone\x01.txt" || key == "\xff\xfe" || strings.HasPrefix(key, "byte") && i%2 == 0 {
			near.Remove("app/" + key)
		}
	}
	r, _, err := run(t, from, to, func(o *mirror.Options) { o.Delete, o.MaxDelete, o.MaxDeleteShare = true, 1000, 100 })
	must(t, err)
	if got, want := below(far, "copy"), below(near, "app"); !slices.Equal(got, want) || r.Deleted < 100 {
		t.Errorf("%d deleted; there are %d keys, want %d", r.Deleted, len(got), len(want))
	}
}

func TestAnObjectWhoseKeyTheListingCannotSayIsReported(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 50), testlab.AnyKey(t, 50)
	for _, s := range []*testlab.AnyKeyStore{near, far} {
		s.Plain()
	}
	near.Put("app/a\x01b", []byte("1"))
	near.Put("app/plain", []byte("2"))
	near.Put("app/real\uFFFD", []byte("3"))
	far.Put("app/old\x02", []byte("4"))
	far.Put("app/old\uFFFE", []byte("5"))
	r, _, err := run(t, open(t, near.Store, "app"), open(t, far.Store, "app"), func(o *mirror.Options) { o.Delete = true })
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 1 || r.Gone != 0 {
		t.Errorf("%v; failed %v, gone %d", err, r.FailedBy, r.Gone)
	}
	if got := below(far, "app"); !slices.Equal(got, []string{"old\x02", "old\uFFFE", "plain", "real\uFFFD"}) {
		t.Errorf("the target has %q", got)
	}
}

func TestKeysThatTheTargetTakesForOthersLeaveItsPathAlone(t *testing.T) {
	t.Parallel()
	odd := []string{"../payroll.csv", "a/../y", "./z", "//z", "/lead", "a/..", "x/../../payroll.csv"}
	plain := []string{"y", "z", "a/b"}
	clean := func(t testing.TB, s testlab.Store) testlab.Store {
		return testlab.FaultyS3(t, s, func(*http.Request) testlab.Answer {
			return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
				r.URL.Path, r.URL.RawPath = path.Clean(r.URL.Path), ""
				upstream.ServeHTTP(w, r)
			}
		}).Store
	}
	versity, proxied := testlab.S3(t), testlab.AnyKey(t, 1000)
	top := t.TempDir()
	for name, c := range map[string]struct {
		to      func(t testing.TB) bucket.Bucket // a path app of a place
		outside func(t testing.TB) bucket.Bucket // that place
		kept    bool
	}{
		"versitygw": {
			to:      func(t testing.TB) bucket.Bucket { return open(t, versity, "app") },
			outside: func(t testing.TB) bucket.Bucket { return open(t, versity, "") },
		},
		"a proxy that cleans paths": {
			to:      func(t testing.TB) bucket.Bucket { return open(t, clean(t, proxied.Store), "app") },
			outside: func(t testing.TB) bucket.Bucket { return open(t, proxied.Store, "") },
		},
		"a folder": {
			to:      func(t testing.TB) bucket.Bucket { return openURL(t, filepath.Join(top, "app")) },
			outside: func(t testing.TB) bucket.Bucket { return openURL(t, top) },
		},
		"any keys": {to: func(t testing.TB) bucket.Bucket { return open(t, testlab.AnyKey(t, 1000).Store, "app") }, kept: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near := testlab.AnyKey(t, 1000)
			for _, key := range slices.Concat(odd, plain) {
				near.Put("src/"+key, []byte("the source's "+key))
			}
			to := c.to(t)
			if c.outside != nil {
				_, err := bucket.WriteAll(t.Context(), c.outside(t), "payroll.csv", []byte("the payroll"), bucket.WriteOptions{})
				must(t, err)
			}
			for pass := range 2 {
				if pass == 1 { // an object that is gone is deleted all the same
					near.Remove("src/a/b")
				}
				r, w, err := run(t, open(t, near.Store, "src"), to, func(o *mirror.Options) { o.Delete = true })
				carried := int64(len(w.carried))
				switch {
				case c.kept && (err != nil || pass == 0 && carried != 10 || pass == 1 && (carried != 0 || r.Deleted != 1)):
					t.Errorf("run %d: %v, %d carried, %d deleted", pass, err, carried, r.Deleted)
				case !c.kept && (!fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 7 || r.Failed != 7):
					t.Errorf("run %d: %v, failed by %v", pass, err, r.FailedBy)
				case !c.kept && (pass == 0 && carried != 3 || pass == 1 && (carried != 0 || r.Deleted != 1)):
					t.Errorf("run %d: %q carried, %d deleted", pass, w.carried, r.Deleted)
				}
			}
			for _, key := range plain[:2] {
				if data, err := bucket.ReadAll(t.Context(), to, key, 100); err != nil || string(data) != "the source's "+key {
					t.Errorf("%s holds %q, %v", key, data, err)
				}
			}
			if c.outside == nil {
				return
			}
			if data, err := bucket.ReadAll(t.Context(), c.outside(t), "payroll.csv", 100); err != nil || string(data) != "the payroll" {
				t.Errorf("outside there is %q, %v", data, err)
			}
		})
	}
}

func TestAnObjectIsNotDeletedInTheNameOfAnother(t *testing.T) {
	t.Parallel()
	near, far := testlab.AnyKey(t, 1000), testlab.AnyKey(t, 1000)
	near.Put("app/y", []byte("y"))
	for _, key := range []string{"app/y", "app/a/../y", "app//y", "precious", "app/../precious"} {
		far.Put(key, []byte(key[len(key)-1:]))
	}
	before := far.Keys()
	cleans := testlab.FaultyS3(t, far.Store, func(*http.Request) testlab.Answer {
		return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
			r.URL.Path, r.URL.RawPath = path.Clean(r.URL.Path), ""
			upstream.ServeHTTP(w, r)
		}
	})
	r, _, err := run(t, open(t, near.Store, "app"), open(t, cleans.Store, "app"), func(o *mirror.Options) { o.Delete = true })
	after := slices.DeleteFunc(far.Keys(), func(key string) bool { return strings.Contains(key, ".leat") })
	if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 3 || r.Deleted != 0 || !slices.Equal(after, before) {
		t.Errorf("%v, failed by %v, deleted %d: there is %q", err, r.FailedBy, r.Deleted, after)
	}
}

func openURL(t testing.TB, url string) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), url, bucket.Options{})
	must(t, err)
	t.Cleanup(func() { b.Close() })
	return b
}

func TestAReportTellsTheBytesOfAKeyThatIsNoText(t *testing.T) {
	t.Parallel()
	near := testlab.AnyKey(t, 1000)
	near.Put("app/\xff\xfe", []byte("x"))
	near.Put("app/\u00e9\\", []byte("x"))
	r, _, err := run(t, open(t, near.Store, "app"), folder(t, nil), nil)
	if !fault.Is(err, fault.MirrorIncomplete) || len(r.SetAside) < 1 {
		t.Fatalf("%v, set aside %v", err, r.SetAside)
	}
	for _, dead := range r.SetAside {
		if bytes := string(dead.KeyBytes); (bytes == dead.Key) == utf8.ValidString(dead.Key) {
			t.Errorf("%q has the bytes %q", dead.Key, bytes)
		}
	}
}
