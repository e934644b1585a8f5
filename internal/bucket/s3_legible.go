package bucket

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"unicode/utf8"
)

// legibleXML makes answers legible to the SDK, whose reader of XML refuses a whole answer for one character that XML does not have. Servers repeat keys
// as they are in errors and in the answers about uploads in parts, where nothing depends on them. Nothing else goes by the SDK that tells keys.
type legibleXML struct{ wire http.RoundTripper }

func (l legibleXML) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := l.wire.RoundTrip(req)
	if err != nil || req.Method == http.MethodHead || holdsContent(req, resp) {
		return resp, err
	}
	text, err := io.ReadAll(&bounded{ReadCloser: resp.Body, left: mostListed})
	rest := io.Reader(failing{err})
	switch {
	case err == nil:
		rest = bytes.NewReader(legible(text))
	case !errors.Is(err, errEndless):
		rest = io.MultiReader(bytes.NewReader(legible(text)), rest)
	}
	resp.ContentLength = -1
	resp.Body = &replaced{rest, resp.Body}
	return resp, nil
}

// holdsContent says whether an answer holds the bytes of an object. The SDK names the operation in the query.
func holdsContent(req *http.Request, resp *http.Response) bool {
	return resp.StatusCode < http.StatusMultipleChoices && req.URL.Query().Get("x-id") == "GetObject"
}

// replaced reads other bytes than those of the body that it closes.
type replaced struct {
	io.Reader
	io.Closer
}

// failing ends a body as it ended before.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// numbered is a character by its number.
var numbered = regexp.MustCompile(`&#(?:x[0-9A-Fa-f]+|[0-9]+);`)

// legible puts U+FFFD in the place of what is no character of XML 1.0 (www.w3.org/TR/xml/#charsets).
func legible(text []byte) []byte {
	text = bytes.Map(func(r rune) rune {
		if inXML(r) {
			return r
		}
		return utf8.RuneError
	}, text)
	return numbered.ReplaceAllFunc(text, func(ref []byte) []byte {
		digits, base := ref[2:len(ref)-1], 10
		if digits[0] == 'x' {
			digits, base = digits[1:], 16
		}
		n, err := strconv.ParseUint(string(digits), base, 31)
		if err != nil || !inXML(rune(n)) {
			return []byte(string(utf8.RuneError))
		}
		return ref
	})
}

func inXML(r rune) bool {
	return r == '\t' || r == '\n' || r == '\r' || r >= ' ' && r <= 0xD7FF || r >= 0xE000 && r <= 0xFFFD || r >= 0x10000 && r <= utf8.MaxRune
}
