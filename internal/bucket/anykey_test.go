package bucket_test

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// anyKeys are keys with each byte there is, and with what XML, URLs, paths and JSON read in ways of their own.
func anyKeys() []string {
	keys := []string{
		"gone\x01.txt", "gone\uFFFD.txt", "fffe\uFFFE", "ffff\uFFFF", "nel\u0085", "line\u2028sep", "para\u2029sep", " lead", "trail ", "\ttab\t", "\n", "cr\rlf\r\n", "a+b",
		"a%2Fb", "a%", "%zz", "back\\slash", "&amp;", "&#x1;", "]]>", "<a/>", "\"'", "?q=1&r", "#f", "\xff\xfe", "\xed\xa0\x80", "cut\xc3", "a\uFEFF", "\\u0001",
		strings.Repeat("\x01", 1024-len("root/")), strings.Repeat("ü", 500), "dir//x", "a/../b", "./c", "d/", "//",
	}
	for c := range 256 {
		keys = append(keys, fmt.Sprintf("byte%sx", []byte{byte(c)}), string([]byte{'k', byte(c)}))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// openAny opens a server of any keys as a Carrier, which takes keys as they are.
func openAny(t testing.TB, s testlab.Store, more ...func(*bucket.Options)) bucket.Carrier {
	t.Helper()
	o := bucket.Options{Endpoint: s.Endpoint, AccessKeyID: s.AccessKey, SecretAccessKey: func() string { return s.SecretKey }, MaxRetries: -1}
	for _, m := range more {
		m(&o)
	}
	c, ok := bucket.CarrierOf(open(t, "s3://"+s.Bucket+"/root", o))
	if !ok {
		t.Fatal("S3 cannot carry")
	}
	return c
}

func TestAnyKeyIsListedAsItIs(t *testing.T) {
	t.Parallel()
	for _, page := range []int{1, 7, 1000} { // with one on a page, every key becomes a token
		s := testlab.AnyKey(t, page)
		want := anyKeys()
		for _, key := range want {
			s.Put("root/"+key, []byte(key))
		}
		var got []string
		for o, err := range openAny(t, s.Store).List(t.Context(), "") {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, o.Key)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d on a page: got %d keys, want %d", page, len(got), len(want))
		}
	}
}

func TestDeletingAnyKeyDeletesNoOther(t *testing.T) {
	t.Parallel()
	s := testlab.AnyKey(t, 1000)
	b := openAny(t, s.Store)
	var gone, kept []string
	for i, key := range anyKeys() {
		s.Put("root/"+key, []byte(key))
		if key != "gone\uFFFD.txt" && (i%2 == 0 || key == "gone\x01.txt") {
			gone = append(gone, key)
		} else {
			kept = append(kept, "root/"+key)
		}
	}
	if err := b.Delete(t.Context(), append(gone, "was never there", "nor\x01this")...); err != nil {
		t.Fatal(err)
	}
	if got := s.Keys(); !slices.Equal(got, kept) {
		t.Errorf("there are %d keys, want %d", len(got), len(kept))
		for _, key := range kept {
			if !slices.Contains(got, key) {
				t.Errorf("%q is gone", key)
			}
		}
	}
}

func TestAnyKeyIsFoundReadAndSentInParts(t *testing.T) {
	t.Parallel()
	s := testlab.AnyKey(t, 1000)
	b := openAny(t, s.Store)
	fail := func(key, what string, err error) {
		if err != nil {
			t.Errorf("%s of %.40q: %v", what, key, err)
		}
	}
	for _, key := range anyKeys() {
		_, _, err := b.Fetch(t.Context(), key, "")
		if !fault.Is(err, fault.ObjectMissing) {
			t.Errorf("Fetch of %.40q, which is not there: %v", key, err)
		}
		_, err = b.Stat(t.Context(), key)
		if !fault.Is(err, fault.ObjectMissing) {
			t.Errorf("Stat of %.40q, which is not there: %v", key, err)
		}
		if _, err := bucket.ReadAll(t.Context(), b, key, 10); !fault.Is(err, fault.ObjectMissing) {
			t.Errorf("Open of %.40q, which is not there: %v", key, err)
		}
		c := bucket.Cargo{Object: bucket.Object{Key: key}}
		left, err := b.Begin(t.Context(), c) // what a killed run has begun
		fail(key, "Begin", err)
		id, err := b.Begin(t.Context(), c)
		fail(key, "Begin", err)
		var parts []bucket.Part
		for n := range 2 {
			etag, err := b.Send(t.Context(), key, id, n+1, []byte("part"))
			fail(key, "Send", err)
			parts = append(parts, bucket.Part{Number: n + 1, Size: 4, ETag: etag})
		}
		begun, err := b.Unfinished(t.Context(), key)
		fail(key, "Unfinished", err)
		if len(begun) != 2 || !slices.ContainsFunc(begun, func(u bucket.Unfinished) bool { return u.ID == id && slices.Equal(u.Parts, parts) }) {
			t.Errorf("unfinished uploads of %.40q: %+v", key, begun)
		}
		_, err = b.Complete(t.Context(), key, id, parts)
		fail(key, "Complete", err)
		fail(key, "Cancel", b.Cancel(t.Context(), key, left))
		if got := string(s.Data("root/" + key)); got != "partpart" {
			t.Errorf("%.40q holds %q", key, got)
		}
		_, _, err = b.Deliver(t.Context(), c, []byte("whole"), sha256.Sum256([]byte("whole")))
		fail(key, "Deliver", err)
		o, err := b.Describe(t.Context(), key)
		if fail(key, "Describe", err); o.Size != 5 {
			t.Errorf("%.40q has %d bytes", key, o.Size)
		}
		_, err = b.Begin(t.Context(), c)
		fail(key, "Begin", err)
	}
	if n, err := b.Sweep(t.Context(), "", time.Now()); err != nil || n != len(anyKeys()) || len(s.Uploads()) > 0 {
		t.Errorf("%d uploads were swept (%v), %q are left", n, err, s.Uploads())
	}
}

func TestAKeyThatAListingCannotSayIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	s := testlab.AnyKey(t, 1000)
	s.Plain()
	for _, key := range []string{"a\x01b", "real\uFFFD", "plain"} {
		s.Put("root/"+key, []byte(key))
	}
	untold := map[string]bool{}
	for o, err := range openAny(t, s.Store).List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		untold[o.Key] = o.Untold
	}
	for o, err := range openAny(t, s.Store).List(t.Context(), "a\x01") {
		t.Errorf("the listing of one key shows %q, %v", o.Key, err)
	}
	if len(untold) != 3 || !untold["a\uFFFDb"] || untold["real\uFFFD"] || untold["plain"] {
		t.Errorf("keys and whether they are others: %v", untold)
	}
}

func TestADeletionBelievesOnlyAnswersAboutTheKeysItAskedFor(t *testing.T) {
	t.Parallel()
	all := "<Deleted><Key>root/a</Key></Deleted><Deleted><Key>root/b</Key></Deleted>"
	for name, c := range map[string]struct {
		answer string
		code   fault.Code
	}{
		"both":                   {all, ""},
		"one was gone":           {"<Deleted><Key>root/a</Key></Deleted><Error><Key>root/b</Key><Code>NoSuchKey</Code></Error>", ""},
		"nothing":                {"", fault.BucketFailed},
		"one of two":             {"<Deleted><Key>root/b</Key></Deleted>", fault.BucketFailed},
		"another":                {all + "<Deleted><Key>root/c</Key></Deleted>", fault.BucketFailed},
		"another was gone":       {all + "<Error><Key>root/c</Key><Code>NoSuchKey</Code></Error>", fault.BucketFailed},
		"one may not":            {"<Deleted><Key>root/b</Key></Deleted><Error><Key>root/a</Key><Code>AccessDenied</Code></Error>", fault.BucketRights},
		"a key outside the path": {all + "<Deleted><Key>a</Key></Deleted>", fault.BucketFailed},
	} {
		s := testlab.FaultyS3(t, testlab.AnyKey(t, 1000).Store, testlab.Always(func(r *http.Request) bool { return r.Method == http.MethodPost },
			func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				fmt.Fprintf(w, "<DeleteResult>%s</DeleteResult>", c.answer)
			}))
		if err := openAny(t, s.Store).Delete(t.Context(), "a", "b"); (c.code == "") != (err == nil) || err != nil && !fault.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAListingThatContradictsItselfIsAnError(t *testing.T) {
	t.Parallel()
	contents := func(keys ...string) (text string) {
		for _, key := range keys {
			text += "<Contents><Key>root/" + key + "</Key></Contents>"
		}
		return text
	}
	token := func(text string) string { return "<NextContinuationToken>" + text + "</NextContinuationToken>" }
	const more, whole = "<IsTruncated>true</IsTruncated>", "<IsTruncated>false</IsTruncated>"
	for name, page := range map[string]func(token string) string{
		"fewer keys than it says": func(string) string { return whole + "<KeyCount>3</KeyCount>" + contents("a", "b") },
		"more keys than it says":  func(string) string { return whole + "<KeyCount>1</KeyCount>" + contents("a", "b") },
		"no word on the end":      func(string) string { return contents("a") },
		"more, and not where":     func(string) string { return more + contents("a") },
		"whole, and goes on":      func(string) string { return whole + contents("a") + token("x") },
		"the same page":           func(string) string { return more + contents("a") + token("x") },
		"a circle of empty pages": func(t string) string {
			return more + token(map[string]string{"": "x", "x": "y", "y": "z", "z": "x"}[t])
		},
		"a circle that comes back": func(t string) string {
			return more + contents("k"+t) + token(map[string]string{"": "u", "u": "v", "v": "w", "w": "x", "x": "w"}[t])
		},
		"a raw end of a line in a key": func(string) string { return whole + contents("a\rb") },
	} {
		s := testlab.FaultyS3(t, testlab.AnyKey(t, 1000).Store, testlab.Always(func(r *http.Request) bool { return r.URL.Query().Has("list-type") },
			func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
				fmt.Fprintf(w, "<ListBucketResult>%s</ListBucketResult>", page(r.URL.Query().Get("continuation-token")))
			}))
		var last error
		n := 0
		for _, err := range openAny(t, s.Store).List(t.Context(), "") {
			if last = err; err != nil || n > 100 {
				break
			}
			n++
		}
		if !fault.Is(last, fault.BucketFailed) {
			t.Errorf("%s: %d objects, then %v", name, n, last)
		}
	}
}

func TestAListingOfGCSIsOneOfKeysThatItHas(t *testing.T) {
	t.Parallel()
	item := func(name string) string { return `{"items":[{"name":"` + name + `","size":"1","generation":"1"}]}` }
	for name, c := range map[string]struct {
		page func(token string) string
		key  string // "" for an error
	}{
		"a plain key":               {func(string) string { return item("root/a") }, "a"},
		"an escaped backslash":      {func(string) string { return item(`root/\\ud800`) }, `\ud800`},
		"a pair":                    {func(string) string { return item(`root/\ud83e\udd86`) }, "\U0001F986"},
		"the replacement itself":    {func(string) string { return item("root/\uFFFD") }, "\uFFFD"},
		"half a pair":               {func(string) string { return item(`root/\ud800x`) }, ""},
		"two halves in wrong order": {func(string) string { return item(`root/\udd86\ud83e`) }, ""},
		"bytes that are no UTF-8":   {func(string) string { return item("root/\xff") }, ""},
		"a key that was not asked":  {func(string) string { return item("other/a") }, ""},
		"a circle": {func(t string) string {
			return `{"nextPageToken":"` + map[string]string{"": "x", "x": "y", "y": "x"}[t] + `"}`
		}, ""},
	} {
		g := newGoogle(t, func(_ *google, w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, c.page(r.URL.Query().Get("pageToken")))
			return true
		})
		for o, err := range g.open(t).List(t.Context(), "") {
			if (err == nil) != (c.key != "") || o.Key != c.key {
				t.Errorf("%s: %q, %v", name, o.Key, err)
			}
		}
	}
}

func TestAListingOfAzureIsOneOfKeysThatItHas(t *testing.T) {
	t.Parallel()
	const blob = `<Blob><Name%s>%s</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>`
	for name, c := range map[string]struct{ blob, marker, key string }{
		"a plain key":              {fmt.Sprintf(blob, "", "root/a"), "", "a"},
		"one that XML cannot say":  {fmt.Sprintf(blob, ` Encoded="true"`, "root%2Fa%01%EF%BF%BE%2Bb"), "", "a\x01\uFFFE+b"},
		"a key that was not asked": {fmt.Sprintf(blob, "", "other/a"), "", ""},
		"a circle":                 {"", "x", ""},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/xml")
			fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>%s</Blobs><NextMarker>%s</NextMarker></EnumerationResults>`, c.blob, c.marker)
		}))
		defer s.Close()
		b := open(t, "azblob://box/root", bucket.Options{Endpoint: s.URL + "/a", AccessKeyID: "a", SecretAccessKey: func() string { return "c2VjcmV0" }})
		for o, err := range b.List(t.Context(), "") {
			if (err == nil) != (c.key != "") || o.Key != c.key {
				t.Errorf("%s: %q, %v", name, o.Key, err)
			}
		}
	}
}
