package bucket

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"golang.org/x/oauth2"

	"github.com/leatdata/leat/internal/fault"
)

// gcsCall is a request to GCS. Its body is kept in pieces, because it may have to be sent again.
type gcsCall struct {
	method string
	url    string
	header http.Header
	body   [][]byte
}

func (c gcsCall) request(ctx context.Context) (*http.Request, error) {
	var body io.Reader
	length := int64(0)
	if len(c.body) > 0 {
		pieces := make([]io.Reader, len(c.body))
		for i, piece := range c.body {
			pieces[i] = bytes.NewReader(piece)
			length += int64(len(piece))
		}
		body = io.MultiReader(pieces...)
	}
	if length == 0 {
		body = http.NoBody
	}
	req, err := http.NewRequestWithContext(ctx, c.method, c.url, body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = length
	for name, values := range c.header {
		req.Header[name] = values
	}
	return req, nil
}

// gcsError is an answer that says no.
type gcsError struct {
	status  int
	message string // "" when the server gave none
}

func (e *gcsError) Error() string {
	return fmt.Sprintf("%s (HTTP status %d)", cmp.Or(e.message, http.StatusText(e.status), "no reason given"), e.status)
}

// resumeIncomplete is the status by which GCS takes a piece of an upload that has more to come
// (cloud.google.com/storage/docs/performing-resumable-uploads).
const resumeIncomplete = http.StatusPermanentRedirect

// open sends a request once and returns its answer, or the error that it tells.
func (b *gcsBucket) open(ctx context.Context, c gcsCall) (*http.Response, error) {
	req, err := c.request(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 || resp.StatusCode == resumeIncomplete && resp.Header.Get("Location") == "" {
		return resp, nil
	}
	defer resp.Body.Close()
	var said struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10)); err == nil {
		_ = json.Unmarshal(text, &said) // what it cannot read leaves no message
	}
	return nil, &gcsError{resp.StatusCode, said.Error.Message}
}

// gcsAnswer is what comes with the body of an answer.
type gcsAnswer struct {
	status int
	header http.Header
}

// ask sends a request, again if it has to, reads the whole answer, and decodes it if that is wanted.
func (b *gcsBucket) ask(ctx context.Context, c gcsCall, into any) (answer gcsAnswer, err error) {
	defer fault.Catch(&err, nil, b.at.String())
	err = b.again(ctx, func() error {
		resp, err := b.open(ctx, c)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		answer = gcsAnswer{resp.StatusCode, resp.Header}
		text, err := io.ReadAll(&bounded{ReadCloser: resp.Body, left: mostAnswer})
		if err != nil || into == nil || resp.StatusCode == resumeIncomplete {
			return err
		}
		if !sayable(text) { // it would be decoded as other text: as the key of another object
			return errors.New("the answer cannot be understood: it has text that is no Unicode")
		}
		if err := DecodeJSON(text, into); err != nil {
			return fmt.Errorf("the answer cannot be understood: %w", err)
		}
		return nil
	})
	return answer, err
}

// sayable says whether JSON has no bytes and no numbers of characters that stand for nothing, which the decoder would replace by U+FFFD.
func sayable(text []byte) bool {
	if !utf8.Valid(text) {
		return false
	}
	number := func(at int) rune {
		if at+6 > len(text) || text[at] != '\\' || text[at+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseUint(string(text[at+2:at+6]), 16, 16)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		switch r := number(i); {
		case !utf16.IsSurrogate(r):
			i++ // what is escaped
		case utf16.DecodeRune(r, number(i+6)) == utf8.RuneError:
			return false
		default:
			i += 11
		}
	}
	return true
}

// again calls what may fail until it does not, it cannot heal, or it was too often. Pauses grow by doubling, up to the
// longest, and are taken at random from that.
func (b *gcsBucket) again(ctx context.Context, try func() error) error {
	longest := b.opts.Backoff / 20
	for attempt := 0; ; attempt++ {
		err := try()
		if err == nil || attempt >= b.opts.MaxRetries || ctx.Err() != nil || !b.heals(err) {
			return err
		}
		if pause(ctx, longest) != nil {
			return err
		}
		longest = min(2*longest, b.opts.Backoff)
	}
}

// heals says whether a request may be sent again. Every write is of a whole object and carries a mark: to repeat it does no harm.
func (b *gcsBucket) heals(err error) bool {
	var answer *gcsError
	var login *oauth2.RetrieveError
	switch {
	case errors.As(err, &answer):
		return answer.status == http.StatusRequestTimeout || answer.status == http.StatusTooManyRequests || answer.status >= 500
	case errors.As(err, &login):
		return false
	}
	return networkReason(err) != ""
}

// inBucket is the address of the JSON API for the bucket; rest goes on from there.
func (b *gcsBucket) inBucket(api, rest string, query url.Values) string {
	at := b.base + api + "/storage/v1/b/" + url.PathEscape(b.at.name) + "/o" + rest
	if len(query) > 0 {
		at += "?" + query.Encode()
	}
	return at
}

func (b *gcsBucket) object(key string, query url.Values) string {
	return b.inBucket("", "/"+url.PathEscape(b.at.root+key), query)
}

// fault judges an error. right is the permission that the request needs.
func (b *gcsBucket) fault(ctx context.Context, err error, right, key string) error {
	if err == nil {
		return nil
	}
	where := b.at.object(key)
	var answer *gcsError
	var login *oauth2.RetrieveError
	switch {
	case fault.Is(err, fault.Internal):
		return err
	case errors.As(err, &answer):
	case errors.Is(err, errChecksum):
		return fault.New(fault.ChecksumMismatch, where, "%s", whats[fault.ChecksumMismatch]).Because(err)
	case ctx.Err() != nil:
		return interrupted(ctx, where)
	case errors.As(err, &login):
		return b.newFault(fault.BucketAuth, where, "the login failed: "+login.ErrorCode, right, err)
	default:
		if f := networkFault(err, where); f != nil {
			return f
		}
		return fault.New(fault.BucketFailed, where, "the request failed").Because(&cause{scrub(err), err})
	}
	code := plainStatus(answer.status)
	if code == fault.ObjectMissing && (right == "storage.objects.create" || right == "storage.objects.list") {
		code = fault.BucketMissing // neither needs an object
	}
	return b.newFault(code, where, answer.Error(), right, err)
}

func (b *gcsBucket) newFault(code fault.Code, where, text, right string, err error) error {
	f := fault.New(code, where, "%s", whats[code]).Because(&cause{query.ReplaceAllString(text, "?…"), err})
	switch code {
	case fault.BucketRights:
		f.Mend = fmt.Sprintf("Give this identity the permission %s on the bucket %s (role Storage Object Admin has it).", right, b.at.name)
	case fault.BucketMissing:
		f.Mend = fmt.Sprintf("Create the bucket %s, or correct its name.", b.at.name)
	}
	return f
}

// gcsObject is what GCS says of an object
// (cloud.google.com/storage/docs/json_api/v1/objects).
type gcsObject struct {
	Name        string            `json:"name"`
	Size        int64             `json:"size,string"`
	Generation  int64             `json:"generation,string"`
	Updated     time.Time         `json:"updated"`
	ContentType string            `json:"contentType"`
	KMSKeyName  string            `json:"kmsKeyName"`
	CRC32C      string            `json:"crc32c"`
	MD5         string            `json:"md5Hash"`
	Metadata    map[string]string `json:"metadata"`
}
