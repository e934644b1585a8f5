package bucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/leatdata/leat/internal/fault"
)

// gcsPiece is what the pieces of an upload must be a multiple of, in bytes, but for the last
// (cloud.google.com/storage/docs/performing-resumable-uploads).
const gcsPiece = 256 << 10

// gcsWrite is one object on its way. GCS takes parts in order only, so they are sent one after the other.
type gcsWrite struct {
	bucket *gcsBucket
	key    string
	opts   WriteOptions
	mark   string

	session string // the URL of a resumable upload
	sent    int64  // bytes that GCS has
	rest    []byte // that come after them: less than a piece
	sum     uint32 // CRC32C of all so far
}

func (b *gcsBucket) Create(ctx context.Context, key string, opts WriteOptions) (Upload, error) {
	where := b.at.object(key)
	if ctx.Err() != nil {
		return nil, interrupted(ctx, where)
	}
	if opts.IfMatch != "" {
		if _, err := strconv.ParseInt(opts.IfMatch, 10, 64); err != nil {
			return nil, fault.New(fault.UsageInvalid, where, "%q is not an ETag that GCS objects have here", opts.IfMatch)
		}
	}
	w := &gcsWrite{bucket: b, key: key, opts: opts, mark: rand.Text()}
	return newPartUpload(ctx, sending{
		where: where, whole: w.whole, begin: w.begin,
		partSize: b.opts.PartSize, parallel: 1, grace: b.opts.Grace, buffers: &b.buffers,
	}), nil
}

// call makes the request that writes or begins an object, and what it says of the object in JSON. sum is "" where it isn't known yet.
func (w *gcsWrite) call(kind, sum string) (gcsCall, []byte, error) {
	query := url.Values{"uploadType": {kind}, "name": {w.bucket.at.root + w.key}, "prettyPrint": {"false"}}
	switch {
	case w.opts.IfAbsent:
		query.Set("ifGenerationMatch", "0")
	case w.opts.IfMatch != "":
		query.Set("ifGenerationMatch", w.opts.IfMatch)
	}
	about, err := json.Marshal(struct {
		Name        string            `json:"name"`
		ContentType string            `json:"contentType,omitempty"`
		CRC32C      string            `json:"crc32c,omitempty"`
		Metadata    map[string]string `json:"metadata"`
	}{w.bucket.at.root + w.key, w.opts.ContentType, sum, marked(w.opts.Metadata, w.mark)})
	return gcsCall{method: http.MethodPost, url: w.bucket.inBucket("/upload", "", query), header: http.Header{}}, about, err
}

// contentType is given with the bytes too: what GCS takes it from differs between its ways of writing.
func (w *gcsWrite) contentType() string {
	if w.opts.ContentType == "" {
		return "application/octet-stream"
	}
	return w.opts.ContentType
}

func (w *gcsWrite) whole(ctx context.Context, data []byte) (Object, error) {
	// Given beforehand, so that GCS refuses bytes that changed on their way.
	c, about, err := w.call("multipart", encodeCRC32C(crc32.Checksum(data, castagnoli)))
	if err != nil {
		return Object{}, w.judge(ctx, err)
	}
	border := rand.Text()
	c.header.Set("Content-Type", "multipart/related; boundary="+border)
	var head bytes.Buffer
	fmt.Fprintf(&head, "--%s\r\nContent-Type: application/json\r\n\r\n%s\r\n--%s\r\nContent-Type: %s\r\n\r\n", border, about, border, w.contentType())
	c.body = [][]byte{head.Bytes(), data, []byte("\r\n--" + border + "--\r\n")}
	return w.last(ctx, c)
}

// last sends the request that makes the object visible.
func (w *gcsWrite) last(ctx context.Context, c gcsCall) (Object, error) {
	var said gcsObject
	answer, err := w.bucket.ask(ctx, c, &said)
	if err == nil && answer.status == resumeIncomplete {
		err = fmt.Errorf("GCS has only the bytes %q of %d", answer.header.Get("Range"), w.sent+int64(len(w.rest)))
	}
	if err != nil {
		return w.settle(ctx, err)
	}
	o, _ := said.describe(w.key)
	o.Metadata = w.opts.Metadata
	return o, nil
}

func (w *gcsWrite) begin(ctx context.Context) (parts, error) {
	c, about, err := w.call("resumable", "")
	if err != nil {
		return nil, w.judge(ctx, err)
	}
	c.header.Set("Content-Type", "application/json; charset=UTF-8")
	c.header.Set("X-Upload-Content-Type", w.contentType())
	c.body = [][]byte{about}
	answer, err := w.bucket.ask(ctx, c, nil)
	if err == nil && answer.header.Get("Location") == "" {
		err = fmt.Errorf("the answer names no upload")
	}
	if err != nil {
		return nil, w.judge(ctx, err)
	}
	w.session = answer.header.Get("Location")
	return w, nil
}

// put sends what makes whole pieces and keeps the rest: nothing may be visible before complete.
func (w *gcsWrite) put(ctx context.Context, _ int, data []byte) error {
	w.sum = crc32.Update(w.sum, castagnoli, data)
	pending := len(w.rest) + len(data)
	whole := pending - pending%gcsPiece
	if whole == 0 {
		w.rest = append(w.rest, data...)
		return nil
	}
	now := whole - len(w.rest) // bytes of data that go
	body := [][]byte{w.rest, data[:now]}
	for whole > 0 {
		took, err := w.send(ctx, body, whole)
		if err != nil {
			return w.judge(ctx, err)
		}
		w.sent, whole, body = w.sent+int64(took), whole-took, skip(body, took)
	}
	w.rest = append(w.rest[:0], data[now:]...)
	return nil
}

// send sends the next bytes of an upload, and returns how many of them GCS has taken.
func (w *gcsWrite) send(ctx context.Context, body [][]byte, length int) (int, error) {
	c := gcsCall{method: http.MethodPut, url: w.session, header: http.Header{}, body: body}
	c.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", w.sent, w.sent+int64(length)-1))
	answer, err := w.bucket.ask(ctx, c, nil)
	if err != nil {
		return 0, err
	}
	end, found := strings.CutPrefix(answer.header.Get("Range"), "bytes=0-")
	last, err := strconv.ParseInt(end, 10, 64)
	took := last + 1 - w.sent
	if answer.status != resumeIncomplete || !found || err != nil || took <= 0 || took > int64(length) {
		return 0, fmt.Errorf("GCS says status %d and that it has the bytes %q, after %d bytes", answer.status, answer.header.Get("Range"), w.sent+int64(length))
	}
	return int(took), nil
}

// skip leaves the first n bytes away.
func skip(body [][]byte, n int) [][]byte {
	for len(body) > 0 && n >= len(body[0]) {
		n, body = n-len(body[0]), body[1:]
	}
	if n > 0 {
		body = append([][]byte{body[0][n:]}, body[1:]...)
	}
	return body
}

func (w *gcsWrite) complete(ctx context.Context) (Object, error) {
	size := w.sent + int64(len(w.rest))
	c := gcsCall{method: http.MethodPut, url: w.session, header: http.Header{}, body: [][]byte{w.rest}}
	c.header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", w.sent, size-1, size))
	if len(w.rest) == 0 {
		c.header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
	}
	// GCS refuses to make an object of other bytes.
	c.header.Set("X-Goog-Hash", "crc32c="+encodeCRC32C(w.sum))
	return w.last(ctx, c)
}

// abort gives the session up. It would be invisible, and end by itself after a week.
func (w *gcsWrite) abort(ctx context.Context) error {
	resp, err := w.bucket.open(ctx, gcsCall{method: http.MethodDelete, url: w.session})
	if err != nil {
		return err // GCS says 499 when it has done so
	}
	return resp.Body.Close()
}

func (w *gcsWrite) judge(ctx context.Context, err error) error {
	return writeFailed(w.bucket.fault(ctx, err, "storage.objects.create", w.key), w.bucket.at.object(w.key), w.opts)
}

func (w *gcsWrite) settle(ctx context.Context, err error) (Object, error) {
	return settle(ctx, w.bucket.opts.Grace, w.judge(ctx, err), w.mark, func(ctx context.Context) (Object, string, error) {
		return w.bucket.look(ctx, w.key)
	})
}
