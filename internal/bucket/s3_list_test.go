package bucket_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// aPage is what Ceph and AWS answer.
const aPage = `<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys>
<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><KeyCount>2</KeyCount><NextContinuationToken>a&amp;b</NextContinuationToken>
<Contents><Key>a%2Bb+c&lt;</Key><LastModified>2026-01-02T03:04:05.678Z</LastModified><ETag>&quot;d41d8cd9&#34;</ETag><Size>12345678901</Size>
<StorageClass>STANDARD</StorageClass><Owner><ID>i</ID><DisplayName/></Owner><ChecksumAlgorithm>CRC32</ChecksumAlgorithm></Contents>
<Contents><Key>%C3%BC</Key><LastModified>2026-01-02T03:04:05Z</LastModified><ETag></ETag><Size>0</Size></Contents></ListBucketResult>
`

func TestAPageOfAListingIsRead(t *testing.T) {
	t.Parallel()
	objects, truncated, token, encoded, err := bucket.ReadPage([]byte(aPage))
	want := []bucket.Listed{
		{Key: "a%2Bb+c<", ETag: `"d41d8cd9"`, Size: 12345678901, Modified: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)},
		{Key: "%C3%BC", Modified: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
	}
	if err != nil || truncated != "true" || token != "a&b" || !encoded || !slices.Equal(objects, want) {
		t.Errorf("got %+v, %q, %q, %t, %v", objects, truncated, token, encoded, err)
	}
}

func FuzzAPageIsReadAsEncodingXMLReadsIt(f *testing.F) {
	f.Add([]byte(aPage))
	f.Add([]byte(`<Error><Code>SlowDown</Code></Error>`))
	f.Add([]byte("<p:ListBucketResult xmlns:p='x'><p:Contents >\r\n<p:Key>\r\n]&gt;&#x10FFFF;</p:Key></p:Contents></p:ListBucketResult >"))
	f.Add([]byte(`<!DOCTYPE a [<!ENTITY b "c">]><ListBucketResult><Contents><Key>&b;</Key></Contents></ListBucketResult>`))
	f.Add([]byte(`<ListBucketResult><a><b><c/>&lt;<!-- --></b></a><IsTruncated/><Contents/></ListBucketResult>`))
	f.Fuzz(func(t *testing.T, text []byte) {
		objects, truncated, token, encoded, err := bucket.ReadPage(text)
		if err != nil {
			return // it may refuse what encoding/xml takes
		}
		var want struct {
			XMLName               xml.Name `xml:"ListBucketResult"`
			IsTruncated           string
			NextContinuationToken string
			EncodingType          string
			Contents              []struct {
				Key, ETag    string
				Size         int64
				LastModified time.Time
			}
		}
		if err := xml.Unmarshal(text, &want); err != nil {
			lenient := strings.Contains(err.Error(), "version") || strings.Contains(err.Error(), "encoding") // which is not read
			for _, refused := range []string{"invalid UTF-8", "illegal character code", "invalid character entity", "unescaped ]]>"} {
				lenient = lenient || strings.Contains(err.Error(), refused) // what servers write all the same
			}
			if lenient {
				return
			}
			t.Fatalf("it was read, and encoding/xml says %v", err)
		}
		if truncated != want.IsTruncated || token != want.NextContinuationToken || encoded != (want.EncodingType == "url") || len(objects) != len(want.Contents) {
			t.Fatalf("%d objects, %q, %q, %t; want %+v", len(objects), truncated, token, encoded, want)
		}
		for i, o := range objects {
			if w := want.Contents[i]; o.Key != w.Key || o.ETag != w.ETag || o.Size != w.Size || !o.Modified.Equal(w.LastModified) {
				t.Fatalf("got %+v, want %+v", o, w)
			}
		}
	})
}

func FuzzKeysAreDecodedAsNetURLDecodesThem(f *testing.F) {
	f.Add("a+b%2Bc%2f%")
	f.Add("%\x106")
	f.Fuzz(func(t *testing.T, text string) {
		want, err := url.QueryUnescape(text)
		got, ok := bucket.UnescapeQuery([]byte(text))
		if ok != (err == nil) || ok && string(got) != want {
			t.Errorf("%q: got %q, %t; want %q, %v", text, got, ok, want, err)
		}
	})
}

func TestAPageThatNoServerSendsIsRefused(t *testing.T) {
	t.Parallel()
	contents := "<Contents><Key>k</Key></Contents>"
	for name, text := range map[string]string{
		"nothing":           "",
		"another document":  "<html></html>",
		"text":              "<ListBucketResult>hello</ListBucketResult>",
		"an entity":         "<ListBucketResult><Contents><Key>&bomb;</Key></Contents></ListBucketResult>",
		"a document type":   "<!DOCTYPE a><ListBucketResult></ListBucketResult>",
		"a comment":         "<ListBucketResult><!-- --></ListBucketResult>",
		"CDATA":             "<ListBucketResult><Contents><Key><![CDATA[k]]></Key></Contents></ListBucketResult>",
		"a wrong end":       "<ListBucketResult>" + contents + "</ListBucket>",
		"something behind":  "<ListBucketResult></ListBucketResult>x",
		"no key":            "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
		"a huge size":       "<ListBucketResult><Contents><Key>k</Key><Size>9223372036854775808</Size></Contents></ListBucketResult>",
		"a size below zero": "<ListBucketResult><Contents><Key>k</Key><Size>-1</Size></Contents></ListBucketResult>",
		"a time of no kind": "<ListBucketResult><Contents><Key>k</Key><LastModified>now</LastModified></Contents></ListBucketResult>",
		"another encoding":  `<?xml version="1.0" encoding="UTF-16"?><ListBucketResult></ListBucketResult>`,
		"half a surrogate":  "<ListBucketResult><a>&#xD800;</a></ListBucketResult>",
		"no character":      "<ListBucketResult><a>&#x110000;</a></ListBucketResult>",
		"depth":             "<ListBucketResult>" + strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100) + "</ListBucketResult>",
	} {
		if _, _, _, _, err := bucket.ReadPage([]byte(text)); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
	for n := range len(aPage) - len("\n") {
		if _, _, _, _, err := bucket.ReadPage([]byte(aPage[:n])); err == nil {
			t.Fatalf("the first %d bytes of a page pass for one", n)
		}
	}
}

// pages is an S3 server that answers each request for a listing with the next of its answers, the last one again and again.
type pages struct {
	answers []http.HandlerFunc

	mu    sync.Mutex
	asked []url.Values
}

func (p *pages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.URL.Query())
	answer := p.answers[min(len(p.asked), len(p.answers))-1]
	p.mu.Unlock()
	answer(w, r)
}

func (p *pages) requests() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

func (p *pages) open(t *testing.T) bucket.Bucket {
	server := httptest.NewServer(p)
	t.Cleanup(server.Close)
	opts := impatient()
	opts.Endpoint, opts.AccessKeyID, opts.SecretAccessKey = server.URL, "id", func() string { return "secret" }
	return open(t, "s3://bucket/root", opts)
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func fails(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); fmt.Fprint(w, text) }
}

// page is a page with keys; more is the token of the next one.
func page(more string, keys ...string) http.HandlerFunc {
	var text strings.Builder
	fmt.Fprintf(&text, "<ListBucketResult><IsTruncated>%t</IsTruncated>", more != "")
	if more != "" {
		fmt.Fprintf(&text, "<NextContinuationToken>%s</NextContinuationToken>", more)
	}
	for _, key := range keys {
		fmt.Fprintf(&text, "<Contents><Key>%s</Key><Size>1</Size></Contents>", key)
	}
	return says(text.String() + "</ListBucketResult>")
}

func keysOf(t *testing.T, b bucket.Bucket) (keys []string, err error) {
	t.Helper()
	for o, err := range b.List(t.Context(), "") {
		if err != nil {
			return keys, err
		}
		keys = append(keys, o.Key)
	}
	return keys, nil
}

func TestAListingHealsOrSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	cut := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = io.WriteString(w, "<ListBucketResult>")
	}
	slow := fails(503, "<Error><Code>SlowDown</Code><Message>wait</Message></Error>")
	for name, c := range map[string]struct {
		answers []http.HandlerFunc
		want    fault.Code // "" for a, b and c
		tries   int
	}{
		"pages":                           {[]http.HandlerFunc{page("1", "root/a", "root/b"), page("2"), page("", "root/c")}, "", 3},
		"503 for a moment":                {[]http.HandlerFunc{page("1", "root/a"), slow, slow, slow, page("", "root/b", "root/c")}, "", 5},
		"503 for ever":                    {[]http.HandlerFunc{slow}, fault.BucketBusy, 4},
		"an error inside 200":             {[]http.HandlerFunc{says("<Error><Code>InternalError</Code></Error>"), page("", "root/a", "root/b", "root/c")}, "", 2},
		"403":                             {[]http.HandlerFunc{fails(403, "<Error><Code>AccessDenied</Code></Error>")}, fault.BucketRights, 1},
		"no bucket":                       {[]http.HandlerFunc{fails(404, "<Error><Code>NoSuchBucket</Code></Error>")}, fault.BucketMissing, 1},
		"an answer that is cut":           {[]http.HandlerFunc{cut, page("", "root/a", "root/b", "root/c")}, "", 2},
		"XML that is cut":                 {[]http.HandlerFunc{says("<ListBucketResult><IsTruncated>false</IsTruncated>"), page("", "root/a", "root/b", "root/c")}, "", 2},
		"no XML":                          {[]http.HandlerFunc{says("hello")}, fault.BucketFailed, 1},
		"more, and not where":             {[]http.HandlerFunc{says("<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>")}, fault.BucketFailed, 1},
		"perhaps more":                    {[]http.HandlerFunc{says("<ListBucketResult></ListBucketResult>")}, fault.BucketFailed, 1},
		"the same page again":             {[]http.HandlerFunc{page("1", "root/a"), page("1", "root/b")}, fault.BucketFailed, 2},
		"a key that was not asked for":    {[]http.HandlerFunc{page("", "elsewhere/a")}, fault.BucketFailed, 1},
		"a key that cannot be decoded":    {[]http.HandlerFunc{says("<ListBucketResult><Contents><Key>root/%</Key></Contents><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated></ListBucketResult>")}, fault.BucketFailed, 1},
		"an answer that does not end":     {[]http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, endless{}) }}, fault.BucketFailed, 1},
		"the marker of the folder itself": {[]http.HandlerFunc{page("", "root/", "root/a", "root/b", "root/c")}, "", 1},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			server := &pages{answers: c.answers}
			keys, err := keysOf(t, server.open(t))
			switch {
			case c.want != "" && !fault.Is(err, c.want):
				t.Errorf("want the fault %s, got %q, %v", c.want, keys, err)
			case c.want == "" && (err != nil || !slices.Equal(keys, []string{"a", "b", "c"})):
				t.Errorf("got %q, %v", keys, err)
			}
			if n := server.requests(); n != c.tries {
				t.Errorf("%d requests, want %d", n, c.tries)
			}
		})
	}
}

// endless is white space without end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

func TestTheNextPageIsAskedForAheadAndNotTooSoon(t *testing.T) {
	t.Parallel()
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprintf("root/%03d", i))
	}
	server := &pages{answers: []http.HandlerFunc{page("1", keys...), page("", "root/z")}}
	b := server.open(t)
	for range b.List(t.Context(), "") {
		break
	}
	if n := server.requests(); n != 1 {
		t.Errorf("for the first object alone there were %d requests", n)
	}
	second := make(chan struct{})
	server = &pages{answers: []http.HandlerFunc{server.answers[0], func(w http.ResponseWriter, r *http.Request) {
		close(second)
		page("", "root/z")(w, r)
	}}}
	b, seen := server.open(t), 0
	for _, err := range b.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == len(keys) {
			select { // nobody has asked for the 101st object yet
			case <-second:
			case <-time.After(10 * time.Second):
				t.Fatal("the next page is not asked for while the one before it is used")
			}
		}
	}
	if seen != len(keys)+1 || server.asked[1].Get("continuation-token") != "1" || server.asked[0].Get("prefix") != "root/" {
		t.Errorf("%d objects by the requests %v", seen, server.asked)
	}
}

func BenchmarkAPageOfAListing(b *testing.B) {
	var text strings.Builder
	text.WriteString(`<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>`)
	for i := range 1000 {
		fmt.Fprintf(&text, `<Contents><Key>folder%%2Fobject-%09d</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;d41d8cd98f00b204e9800998ecf8427e&quot;</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>`, i)
	}
	text.WriteString("</ListBucketResult>")
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, _, _, _, err := bucket.ReadPage(data); err != nil {
			b.Fatal(err)
		}
	}
}
