package testlab

import (
	"bytes"
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// AnyKeyStore is an S3 server in memory whose keys are any bytes, which real servers refuse in part. It writes its answers as Ceph does: keys of a
// listing as in a URL where that is asked for, and all other keys as they are, also where XML has no such characters.
type AnyKeyStore struct {
	Store

	mu      sync.Mutex
	objects map[string]anyObject
	uploads map[string]*anyUpload // by id
	page    int
	plain   bool
}

type anyObject struct {
	data     []byte
	etag     string
	modified time.Time
	header   http.Header
	parts    []int // bytes of each part that it was sent in
}

type anyUpload struct {
	key    string
	header http.Header
	parts  map[int][]byte
}

// AnyKey starts a server in memory. Its listings have so many keys on a page.
func AnyKey(t testing.TB, page int) *AnyKeyStore {
	t.Helper()
	a := &AnyKeyStore{objects: map[string]anyObject{}, uploads: map[string]*anyUpload{}, page: page}
	server := httptest.NewServer(a)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	a.Store = Store{Endpoint: server.URL, Region: "us-east-1", Bucket: "any", AccessKey: "any", SecretKey: Secret("any-key-secret-5Tq8rW")}
	return a
}

// Plain makes the server ignore encoding-type, and write U+FFFD for what XML does not have, as Go's encoder does.
func (a *AnyKeyStore) Plain() { a.mu.Lock(); a.plain = true; a.mu.Unlock() }

// Put keeps an object.
func (a *AnyKeyStore) Put(key string, data []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keep(key, data, "", http.Header{})
}

func (a *AnyKeyStore) keep(key string, data []byte, etag string, header http.Header) anyObject {
	sum := md5.Sum(data)
	o := anyObject{data: data, etag: cmp.Or(etag, `"`+hex.EncodeToString(sum[:])+`"`), modified: time.Now(), header: header}
	a.objects[key] = o
	return o
}

// Remove removes an object.
func (a *AnyKeyStore) Remove(key string) { a.mu.Lock(); delete(a.objects, key); a.mu.Unlock() }

// Keys are those of all objects, in order.
func (a *AnyKeyStore) Keys() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.objects))
}

// Data is an object's content; nil without one.
func (a *AnyKeyStore) Data(key string) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.objects[key].data
}

// Uploads are the keys of uploads that were begun and not ended.
func (a *AnyKeyStore) Uploads() (keys []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, u := range a.uploads {
		keys = append(keys, u.key)
	}
	slices.Sort(keys)
	return keys
}

func (a *AnyKeyStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	name, escaped, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	key, bad := url.PathUnescape(escaped)
	if err != nil || bad != nil || name != a.Bucket {
		http.Error(w, "no such request", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q := r.URL.Query()
	switch id := q.Get("uploadId"); {
	case key == "" && q.Has("delete"):
		a.deleteMany(w, body)
	case key == "" && q.Has("uploads"):
		a.listUploads(w, q)
	case key == "" && q.Has("list-type"):
		a.list(w, q)
	case key == "": // HEAD of the bucket
	case q.Has("uploads"):
		id := "id+/=" + strconv.Itoa(len(a.uploads)) + rndName()
		a.uploads[id] = &anyUpload{key, r.Header.Clone(), map[int][]byte{}}
		answer(w, "InitiateMultipartUploadResult", "<Bucket>"+a.Bucket+"</Bucket>"+a.element("Key", key)+a.element("UploadId", id))
	case id != "":
		a.upload(w, r, key, id, body)
	case q.Has("retention"), q.Has("legal-hold"):
		a.refuse(w, http.StatusNotImplemented, "NotImplemented", key)
	case q.Has("tagging"):
		answer(w, "Tagging", "<TagSet></TagSet>")
	default:
		a.object(w, r, key, body)
	}
}

func rndName() string { return strconv.FormatInt(time.Now().UnixNano(), 36) }

func (a *AnyKeyStore) object(w http.ResponseWriter, r *http.Request, key string, body []byte) {
	o, found := a.objects[key]
	match, absent := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case r.Method == http.MethodDelete:
		delete(a.objects, key)
		w.WriteHeader(http.StatusNoContent)
		return
	case !found && r.Method != http.MethodPut:
		a.refuse(w, http.StatusNotFound, "NoSuchKey", key)
		return
	case match != "" && (!found || match != o.etag), absent != "" && found:
		a.refuse(w, http.StatusPreconditionFailed, "PreconditionFailed", key)
		return
	case r.Method == http.MethodPut && r.Header.Get("X-Amz-Copy-Source") != "":
		source, err := url.PathUnescape(strings.TrimPrefix(r.Header.Get("X-Amz-Copy-Source"), "/"))
		from, found := a.objects[strings.TrimPrefix(source, a.Bucket+"/")]
		if err != nil || !found {
			a.refuse(w, http.StatusNotFound, "NoSuchKey", key)
			return
		}
		answer(w, "CopyObjectResult", a.element("ETag", a.keep(key, from.data, "", from.header).etag))
		return
	case r.Method == http.MethodPut:
		w.Header().Set("ETag", a.keep(key, body, "", r.Header.Clone()).etag)
		return
	}
	h := w.Header()
	for name, values := range o.header {
		if strings.HasPrefix(name, "X-Amz-Meta-") || name == "Content-Type" || name == "X-Amz-Storage-Class" || strings.HasPrefix(name, "X-Amz-Object-Lock-") {
			h[name] = values
		}
	}
	h.Set("ETag", o.etag)
	if n, err := strconv.Atoi(r.URL.Query().Get("partNumber")); err == nil && r.Method == http.MethodHead && 0 < n && n <= len(o.parts) { // as AWS answers
		h.Set("Content-Length", strconv.Itoa(o.parts[n-1]))
		w.WriteHeader(http.StatusPartialContent)
		return
	}
	http.ServeContent(w, r, "", o.modified, bytes.NewReader(o.data))
}

func (a *AnyKeyStore) upload(w http.ResponseWriter, r *http.Request, key, id string, body []byte) {
	u := a.uploads[id]
	if u == nil || u.key != key {
		a.refuse(w, http.StatusNotFound, "NoSuchUpload", key)
		return
	}
	switch r.Method {
	case http.MethodPut:
		number, _ := strconv.Atoi(r.URL.Query().Get("partNumber")) // a bad one is part 0, which nothing completes
		u.parts[number] = body
		sum := md5.Sum(body)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:])+`"`)
	case http.MethodGet:
		text := a.element("Key", key) + "<IsTruncated>false</IsTruncated>"
		for _, n := range slices.Sorted(maps.Keys(u.parts)) {
			sum := md5.Sum(u.parts[n])
			text += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>&quot;%x&quot;</ETag><Size>%d</Size></Part>", n, sum, len(u.parts[n]))
		}
		answer(w, "ListPartsResult", text)
	case http.MethodDelete:
		delete(a.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		var data []byte
		var parts []int
		all := md5.New()
		for _, n := range slices.Sorted(maps.Keys(u.parts)) {
			sum := md5.Sum(u.parts[n])
			all.Write(sum[:])
			data, parts = append(data, u.parts[n]...), append(parts, len(u.parts[n]))
		}
		o := a.keep(key, data, fmt.Sprintf(`"%x-%d"`, all.Sum(nil), len(u.parts)), u.header)
		o.parts = parts
		a.objects[key] = o
		delete(a.uploads, id)
		answer(w, "CompleteMultipartUploadResult", a.element("Location", r.Host+"/"+key)+a.element("Key", key)+a.element("ETag", o.etag))
	}
}

// deleteMany does what a strict reader of XML takes the request for.
func (a *AnyKeyStore) deleteMany(w http.ResponseWriter, body []byte) {
	var asked struct {
		Quiet  bool
		Object []struct{ Key string }
	}
	if xml.Unmarshal(body, &asked) != nil {
		a.refuse(w, http.StatusBadRequest, "MalformedXML", "")
		return
	}
	text := ""
	for _, o := range asked.Object {
		delete(a.objects, o.Key)
		if !asked.Quiet {
			text += "<Deleted>" + a.element("Key", o.Key) + "</Deleted>"
		}
	}
	answer(w, "DeleteResult", text)
}

func (a *AnyKeyStore) list(w http.ResponseWriter, q url.Values) {
	encode := q.Get("encoding-type") == "url" && !a.plain
	text, last, n, more := "", "", 0, false
	for _, key := range slices.Sorted(maps.Keys(a.objects)) {
		if !strings.HasPrefix(key, q.Get("prefix")) || q.Has("continuation-token") && key <= q.Get("continuation-token") {
			continue
		}
		if more = n == a.page; more {
			break
		}
		o := a.objects[key]
		n, last = n+1, key
		text += "<Contents>" + a.listedKey(key, encode) + fmt.Sprintf("<LastModified>%s</LastModified><ETag>%s</ETag><Size>%d</Size></Contents>",
			o.modified.UTC().Format("2006-01-02T15:04:05.000Z"), strings.ReplaceAll(o.etag, `"`, "&quot;"), len(o.data))
	}
	text = a.element("Prefix", q.Get("prefix")) + fmt.Sprintf("<KeyCount>%d</KeyCount><IsTruncated>%t</IsTruncated>", n, more) + encoding(encode) + text
	if more {
		text += a.element("NextContinuationToken", last)
	}
	answer(w, "ListBucketResult", text)
}

func (a *AnyKeyStore) listUploads(w http.ResponseWriter, q url.Values) {
	encode := q.Get("encoding-type") == "url" && !a.plain
	text := a.element("Prefix", q.Get("prefix")) + "<IsTruncated>false</IsTruncated>" + encoding(encode)
	for _, id := range slices.Sorted(maps.Keys(a.uploads)) {
		if u := a.uploads[id]; strings.HasPrefix(u.key, q.Get("prefix")) {
			text += "<Upload>" + a.listedKey(u.key, encode) + a.element("UploadId", id) + "<Initiated>2026-01-02T03:04:05.000Z</Initiated></Upload>"
		}
	}
	answer(w, "ListMultipartUploadsResult", text)
}

func encoding(on bool) string {
	if on {
		return "<EncodingType>url</EncodingType>"
	}
	return ""
}

func (a *AnyKeyStore) listedKey(key string, encode bool) string {
	if encode {
		key = url.QueryEscape(key)
	}
	return a.element("Key", key)
}

// element writes a text as Ceph writes it: control characters by their number, all other bytes as they are.
func (a *AnyKeyStore) element(name, text string) string {
	var b bytes.Buffer
	if a.plain {
		_ = xml.EscapeText(&b, []byte(text)) // a buffer takes all
		return "<" + name + ">" + b.String() + "</" + name + ">"
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, "&#x%02X;", c)
		case strings.IndexByte(`<>&'"`, c) >= 0:
			fmt.Fprintf(&b, "&#%d;", c)
		default:
			b.WriteByte(c)
		}
	}
	return "<" + name + ">" + b.String() + "</" + name + ">"
}

func answer(w http.ResponseWriter, root, text string) {
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><%s xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">%s</%s>", root, text, root)
}

func (a *AnyKeyStore) refuse(w http.ResponseWriter, status int, code, key string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>%s</Code><Message>said by the lab</Message>%s</Error>", code, a.element("Key", key))
}
