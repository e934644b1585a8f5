package bucket

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/leatdata/leat/internal/fault"
)

// mostListed is how many bytes an answer to a listing may have. S3 puts 1000 objects into one, with keys of 1024 bytes that may need three
// times as much.
const mostListed = 16 << 20

// listing reads the pages of a listing one after the other.
type listing struct {
	bucket *s3Bucket
	prefix string
	body   bytes.Buffer // of the page that is being read
	page   s3Page
	both   []byte // a key and its ETag
	passed tokens
}

// listed is a page as it is given out.
type listed struct {
	objects []Object
	next    string // token of the page after it, "" after the last
	err     error
}

func (b *s3Bucket) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		l := &listing{bucket: b, prefix: prefix}
		var ahead chan listed // the next page, once it was asked for
		defer func() {
			cancel()
			if ahead != nil {
				<-ahead
			}
		}()
		var spare []Object
		for now := l.get(ctx, "", nil); ; {
			for i, o := range now.objects {
				// Not with the first one: who needs one object alone shall not make the server list two pages.
				if next := now.next; next != "" && ahead == nil && i >= len(now.objects)/4 {
					ahead = make(chan listed, 1)
					go func(to chan<- listed, into []Object) { to <- l.get(ctx, next, into) }(ahead, spare)
				}
				if !yield(o, nil) {
					return
				}
			}
			switch {
			case now.err != nil:
				yield(Object{}, now.err)
				return
			case now.next == "":
				return
			case ahead == nil: // an empty page
				now = l.get(ctx, now.next, now.objects)
			default:
				spare = now.objects
				now = <-ahead
				ahead = nil
			}
		}
	}
}

// get asks for a page, again as often as the SDK would. Objects are put into a slice that is no longer needed. It runs in a goroutine too.
func (l *listing) get(ctx context.Context, token string, into []Object) (page listed) {
	b := l.bucket
	defer fault.Catch(&page.err, nil, b.at.object(l.prefix))
	at, err := b.courier()
	if err != nil {
		return listed{err: err}
	}
	if err := b.patiently(ctx, func() error { return l.ask(ctx, at, token) }); err != nil {
		return listed{err: b.fault(ctx, err, "s3:ListBucket", l.prefix)}
	}
	return l.objects(ctx, into[:0])
}

// patiently tries again what may heal, as often as the SDK would.
func (b *s3Bucket) patiently(ctx context.Context, try func() error) error {
	retryer := b.client.Options().Retryer
	for attempt := 1; ; attempt++ {
		err := try()
		if err == nil || ctx.Err() != nil || attempt >= retryer.MaxAttempts() || !retryer.IsErrorRetryable(err) {
			return err
		}
		if wait, fails := retryer.RetryDelay(attempt, err); fails != nil || sleep(ctx, wait) != nil {
			return err
		}
	}
}

// ask asks for a page once and reads the answer.
func (l *listing) ask(ctx context.Context, at *courier, token string) error {
	b := l.bucket
	query := url.Values{
		"list-type": {"2"}, "prefix": {b.at.root + l.prefix},
		// Without it a key with a character that XML does not know breaks the listing.
		"encoding-type": {"url"},
	}
	if token != "" {
		query.Set("continuation-token", token)
	}
	return b.readXML(ctx, at, "", query, &l.body, l.page.read)
}

// readXML asks for a document of XML about the bucket, or about what lies under a path, once, and has it read. An error in the place of the
// document is one of the SDK's form.
func (b *s3Bucket) readXML(
	ctx context.Context, at *courier, path string, query url.Values, body *bytes.Buffer, read func([]byte) error,
) (err error) {
	defer fault.Catch(&err, nil, b.at.String())
	resp, err := b.exchange(ctx, at, http.MethodGet, path, query.Encode(), http.Header{}, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body.Reset()
	if n := resp.ContentLength; n > 0 && n < mostListed {
		body.Grow(int(n) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(resp.Body, mostListed+1)); err != nil {
		return err
	}
	if body.Len() > mostListed {
		return badXML("it has more than %d bytes", mostListed)
	}
	err = read(body.Bytes())
	if said := (*smithy.GenericAPIError)(nil); errors.As(err, &said) { // the server had begun to answer
		return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: resp}, Err: said}
	}
	return err
}

// Answers lists one key.
func (b *s3Bucket) Answers(ctx context.Context) error {
	at, err := b.courier()
	if err != nil {
		return err
	}
	query := url.Values{"list-type": {"2"}, "max-keys": {"1"}, "prefix": {b.at.root}}
	resp, err := b.exchange(ctx, at, http.MethodGet, "", query.Encode(), http.Header{}, nil)
	if err == nil {
		err = drain(resp)
	}
	return b.fault(ctx, err, "s3:ListBucket", "")
}

// objects makes objects of the page that was read, and says where the listing goes on.
func (l *listing) objects(ctx context.Context, out []Object) listed {
	b := l.bucket
	bad := func(what string) listed {
		return listed{objects: out, err: b.newFault(fault.BucketFailed, badXML("%s", what), "", "")}
	}
	switch p := &l.page; {
	case p.truncated == "":
		return bad("it does not say whether it is whole")
	case p.truncated == "true" && p.token == "":
		return bad("it says that there is more and not where")
	case p.truncated == "false" && p.token != "":
		return bad("it says that it is whole and where it goes on")
	case p.count >= 0 && p.count != int64(len(p.items)):
		return bad(fmt.Sprintf("it tells of %d keys and has %d", p.count, len(p.items)))
	case p.unclear && !p.encoded:
		return bad("it has a key with an end of a line, and it does not show which one")
	case p.token != "" && l.passed.again(p.token):
		return bad("it goes on where it was before")
	}
	for _, it := range l.page.items {
		key, ok := it.key, true
		if l.page.encoded {
			key, ok = unescapeQuery(key)
		}
		if !ok || !bytes.HasPrefix(key, []byte(b.at.root+l.prefix)) {
			if !l.page.encoded && bytes.ContainsRune(key, utf8.RuneError) && (b.at.root == "" || allInXML(b.at.root)) {
				continue // another one, which the server cannot write: which one is not known
			}
			return bad("it has a key that was not asked for")
		}
		if key = key[len(b.at.root):]; len(key) == 0 {
			continue // the marker that some consoles leave for the root "folder"
		}
		l.both = append(append(l.both[:0], key...), it.etag...)
		text := string(l.both) // one piece of memory: they live and die together
		o := Object{Key: text[:len(key)], ETag: text[len(key):], Size: it.size, Modified: it.modified}
		if !l.page.encoded && strings.ContainsRune(o.Key, utf8.RuneError) {
			var err error
			if o.Untold, err = l.untold(ctx, o); err != nil {
				return listed{objects: out, err: err}
			}
		}
		out = append(out, o)
	}
	if l.page.truncated == "true" {
		return listed{objects: out, next: l.page.token}
	}
	return listed{objects: out}
}

// allInXML says whether XML has all characters of a text.
func allInXML(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !inXML(r) })
}

// untold finds out whether U+FFFD in a key stands for itself, or for what the server cannot write: then it has no such object.
func (l *listing) untold(ctx context.Context, o Object) (bool, error) {
	there, err := l.bucket.Stat(ctx, o.Key)
	if fault.Is(err, fault.ObjectMissing) {
		return true, nil
	}
	return there.ETag != o.ETag, err
}

// tokens notice a listing that runs in a circle, in little memory: one token is kept, and exchanged after twice as many pages each time
// (R. P. Brent, "An improved Monte Carlo factorization algorithm", 1980).
type tokens struct {
	kept        string
	pages, next int
}

// again says whether a page goes on with a token that an earlier one had.
func (t *tokens) again(token string) bool {
	if token == t.kept {
		return true
	}
	if t.pages++; t.pages >= t.next {
		t.kept, t.pages, t.next = token, 0, 2*max(t.next, 1)
	}
	return false
}

// unescapeQuery is [url.QueryUnescape] in place.
func unescapeQuery(text []byte) (plain []byte, ok bool) {
	if bytes.IndexByte(text, '%') < 0 && bytes.IndexByte(text, '+') < 0 {
		return text, true
	}
	out := text[:0]
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if i+2 >= len(text) {
				return nil, false
			}
			n, err := hex.Decode(text[i+2:i+3], text[i+1:i+3])
			if n != 1 || err != nil {
				return nil, false
			}
			i += 2
			c = text[i]
		}
		out = append(out, c)
	}
	return out, true
}
