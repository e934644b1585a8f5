package mirror_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// oddKeys are keys with each byte there is, and with what XML, URLs and JSON read in ways of their own.
func oddKeys() []string {
	keys := []string{
		"gone\x01.txt", "gone\uFFFD.txt", "fffe\uFFFE", "ffff\uFFFF", " lead", "trail ", "\n", "cr\rlf\r\n", "a+b", "a%2Fb", "%zz", "back\\slash", "&#x1;", "]]>",
		"\xff\xfe", "\xef\xbf", "\\ud800", "a\u2028", strings.Repeat("\x01", 1024-len("app/")), "d/",
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
		t.Errorf("the far side has %q", got)
	}
}
