package bucket

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/aws/smithy-go"
)

// s3Page is a page of a listing. Its slices serve one page after another.
type s3Page struct {
	items     []s3Item
	truncated string // "true" or "false"; "" where the server doesn't say
	token     string // for the page after it
	count     int64  // of keys, as the server says; below zero where it does not
	encoded   bool   // keys are written as in a URL
	unclear   bool   // a key has an end of a line as XML readers change it
}

// s3Item is an object of a page; its bytes are the page's.
type s3Item struct {
	key, etag []byte
	size      int64
	modified  time.Time
}

// errXML says that an answer is not what a listing looks like.
var errXML = errors.New("the listing cannot be understood")

func badXML(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errXML, fmt.Sprintf(format, args...))
}

// read reads the answer to ListObjectsV2, whose bytes it changes and keeps. An answer that ends too early is io.ErrUnexpectedEOF. What no
// server writes into a listing is refused: comments, CDATA, document types and entities of their own.
func (p *s3Page) read(text []byte) error {
	*p = s3Page{items: p.items[:0], count: -1}
	s := xmlScanner{text: text}
	return s.document("ListBucketResult", func(t xmlTag) error { return p.element(&s, t) })
}

// element reads an element of the page.
func (p *s3Page) element(s *xmlScanner, t xmlTag) error {
	switch string(t.local()) {
	case "Contents":
		return p.item(s, t)
	case "IsTruncated":
		text, err := s.leaf(t)
		p.truncated = string(text)
		if err == nil && p.truncated != "true" && p.truncated != "false" {
			err = badXML("IsTruncated is %q", text)
		}
		return err
	case "NextContinuationToken":
		text, err := s.leaf(t)
		p.token = string(text)
		return err
	case "KeyCount":
		var err error
		p.count, err = s.number(t)
		return err
	case "EncodingType":
		text, err := s.leaf(t)
		p.encoded = string(text) == "url"
		return err
	}
	return s.skip(t)
}

func (p *s3Page) item(s *xmlScanner, contents xmlTag) error {
	if contents.empty {
		return badXML("an object has no key")
	}
	var it s3Item
	for {
		t, err := s.tag()
		if err != nil {
			return err
		}
		if t.closes {
			if it.key == nil {
				return badXML("an object has no key")
			}
			p.items = append(p.items, it)
			return contents.closedBy(t)
		}
		switch string(t.local()) {
		case "Key":
			rest := s.text[s.at:]
			p.unclear = p.unclear || bytes.IndexByte(rest[:max(bytes.IndexByte(rest, '<'), 0)], '\r') >= 0
			it.key, err = s.leaf(t)
		case "ETag":
			it.etag, err = s.leaf(t)
		case "Size":
			it.size, err = s.number(t)
		case "LastModified":
			var text []byte
			if text, err = s.leaf(t); err == nil && it.modified.UnmarshalText(text) != nil {
				err = badXML("LastModified is %q", text)
			}
		default:
			err = s.skip(t)
		}
		if err != nil {
			return err
		}
	}
}

// xmlScanner reads as much of XML as the answers of S3 use. It gives out pieces of the text, which it changes where they have entities. Characters
// that XML does not have are read as what they are: servers write them where a key, a prefix or a token has them.
type xmlScanner struct {
	text []byte
	at   int
}

// xmlTag is <name>, </name> or <name/>.
type xmlTag struct {
	name   []byte // as it is written, with its prefix
	closes bool
	empty  bool
}

// local is the name without its prefix.
func (t xmlTag) local() []byte { return t.name[bytes.IndexByte(t.name, ':')+1:] }

func (t xmlTag) closedBy(end xmlTag) error {
	if !bytes.Equal(t.name, end.name) {
		return badXML("%q is closed by %q", t.name, end.name)
	}
	return nil
}

// document reads a document: each is called for every element of its root, to read or skip it. An error in the root's place is returned as one.
func (s *xmlScanner) document(name string, each func(xmlTag) error) error {
	if err := s.begin(); err != nil {
		return err
	}
	root, err := s.tag()
	if err != nil {
		return err
	}
	switch {
	case root.closes || root.empty:
		return badXML("it is empty")
	case string(root.local()) == "Error":
		return s.said(root)
	case string(root.local()) != name:
		return badXML("it begins with %q", root.name)
	}
	for {
		t, err := s.tag()
		if err != nil {
			return err
		}
		if t.closes {
			if err := root.closedBy(t); err != nil {
				return err
			}
			return s.end()
		}
		if err := each(t); err != nil {
			return err
		}
	}
}

// begin skips the declaration.
func (s *xmlScanner) begin() error {
	if !bytes.HasPrefix(s.text, []byte("<?xml ")) {
		return nil
	}
	length := bytes.Index(s.text, []byte("?>"))
	if length < 0 {
		return io.ErrUnexpectedEOF
	}
	declaration := s.text[:length]
	if i := bytes.Index(declaration, []byte("encoding")); i >= 0 && !bytes.Contains(bytes.ToUpper(declaration[i:]), []byte("UTF-8")) {
		return badXML("it begins with %q", declaration)
	}
	s.at = length + len("?>")
	return nil
}

// end looks whether nothing comes behind the last tag.
func (s *xmlScanner) end() error {
	if s.space(); s.at < len(s.text) {
		return badXML("something comes behind its end")
	}
	return nil
}

func (s *xmlScanner) space() {
	for s.at < len(s.text) && isSpace(s.text[s.at]) {
		s.at++
	}
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }

// tag reads the next tag. Only white space may come before it.
func (s *xmlScanner) tag() (t xmlTag, err error) {
	s.space()
	if s.at+1 >= len(s.text) {
		return t, io.ErrUnexpectedEOF
	}
	if s.text[s.at] != '<' {
		return t, badXML("there is text between the tags")
	}
	s.at++
	if s.text[s.at] == '/' {
		t.closes = true
		s.at++
	}
	if t.name, err = s.name(); err != nil {
		return t, err
	}
	for attributes := 0; ; attributes++ {
		before := s.at
		s.space()
		if s.at >= len(s.text) {
			return t, io.ErrUnexpectedEOF
		}
		switch c := s.text[s.at]; {
		case c == '>':
			s.at++
			return t, nil
		case c == '/' && !t.closes && s.at+1 < len(s.text) && s.text[s.at+1] == '>':
			s.at += 2
			t.empty = true
			return t, nil
		case before == s.at || t.closes:
			return t, badXML("the tag %q goes on with %q", t.name, c)
		}
		if err := s.attribute(); err != nil {
			return t, err
		}
	}
}

// name reads the name of a tag or an attribute.
func (s *xmlScanner) name() ([]byte, error) {
	from, colon := s.at, -1
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
			continue
		case c == ':' && colon < 0 && s.at > from:
			colon = s.at
			continue
		case (c >= '0' && c <= '9' || c == '-' || c == '.') && s.at > from && s.at != colon+1:
			continue
		}
		break
	}
	if s.at == from || s.at == colon+1 && colon >= 0 {
		return nil, badXML("a name is missing at byte %d", from)
	}
	return s.text[from:s.at], nil
}

// attribute skips name="value".
func (s *xmlScanner) attribute() error {
	if _, err := s.name(); err != nil {
		return err
	}
	if s.at+1 >= len(s.text) {
		return io.ErrUnexpectedEOF
	}
	quote := s.text[s.at+1]
	if s.text[s.at] != '=' || quote != '"' && quote != '\'' {
		return badXML("an attribute has no value")
	}
	s.at += 2
	length := bytes.IndexByte(s.text[s.at:], quote)
	if length < 0 {
		return io.ErrUnexpectedEOF
	}
	if bytes.ContainsAny(s.text[s.at:s.at+length], "<&") {
		return badXML("an attribute has a value that no listing has")
	}
	s.at += length + 1
	return nil
}

// leaf reads the text of an element that holds nothing else.
func (s *xmlScanner) leaf(t xmlTag) ([]byte, error) {
	if t.empty {
		return s.text[s.at:s.at], nil
	}
	length := bytes.IndexByte(s.text[s.at:], '<')
	if length < 0 {
		return nil, io.ErrUnexpectedEOF
	}
	text := s.text[s.at : s.at+length]
	s.at += length
	end, err := s.tag()
	if err != nil {
		return nil, err
	}
	if !end.closes {
		return nil, badXML("%q holds %q", t.name, end.name)
	}
	if err := t.closedBy(end); err != nil {
		return nil, err
	}
	return plainText(text)
}

// number reads the text of an element as a number that is not below zero.
func (s *xmlScanner) number(t xmlTag) (int64, error) {
	text, err := s.leaf(t)
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for _, c := range text {
		if c < '0' || c > '9' || n > (math.MaxInt64-int64(c-'0'))/10 {
			return 0, badXML("%s is %q", t.name, text)
		}
		n = n*10 + int64(c-'0')
	}
	if len(text) == 0 {
		return 0, badXML("%s is empty", t.name)
	}
	return n, nil
}

// deepest is how deep elements may lie in each other that are skipped.
const deepest = 16

// skip skips an element with all that it holds.
func (s *xmlScanner) skip(t xmlTag) error {
	open := make([]xmlTag, 0, deepest)
	for !t.closes || len(open) > 0 {
		switch {
		case t.closes:
			if err := open[len(open)-1].closedBy(t); err != nil {
				return err
			}
			open = open[:len(open)-1]
		case len(open) == deepest:
			return badXML("its elements lie too deep")
		case !t.empty:
			open = append(open, t)
		}
		if len(open) == 0 {
			return nil
		}
		length := bytes.IndexByte(s.text[s.at:], '<')
		if length < 0 {
			return io.ErrUnexpectedEOF
		}
		if _, err := plainText(s.text[s.at : s.at+length]); err != nil {
			return err
		}
		s.at += length
		var err error
		if t, err = s.tag(); err != nil {
			return err
		}
	}
	return nil
}

// said reads an error in the place of a listing.
func (s *xmlScanner) said(root xmlTag) error {
	var e smithy.GenericAPIError
	for {
		t, err := s.tag()
		if err != nil {
			return err
		}
		var text []byte
		switch {
		case t.closes && (e.Code == "" || root.closedBy(t) != nil):
			return badXML("an error has no code or no end")
		case t.closes:
			return &e
		case string(t.local()) == "Code":
			text, err = s.leaf(t)
			e.Code = string(text)
		case string(t.local()) == "Message":
			text, err = s.leaf(t)
			e.Message = string(text)
		default:
			err = s.skip(t)
		}
		if err != nil {
			return err
		}
	}
}

// entities are those that XML has by itself.
var entities = map[string]byte{"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\''}

// longestEntity is that of &#x10FFFF; without its first and last character.
const longestEntity = len("#x10FFFF")

// plainText puts characters in the place of entities and \n in the place of other ends of lines. The result is shorter and lies where the text lay.
func plainText(text []byte) ([]byte, error) {
	if bytes.IndexByte(text, '&') < 0 && bytes.IndexByte(text, '\r') < 0 {
		return text, nil
	}
	out := text[:0]
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\r':
			if i+1 < len(text) && text[i+1] == '\n' {
				i++
			}
			out = append(out, '\n')
		case '&':
			length := bytes.IndexByte(text[i:min(len(text), i+longestEntity+2)], ';')
			if length < 0 {
				return nil, badXML("it has an entity without end")
			}
			r, err := entity(text[i+1 : i+length])
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
			i += length
		default:
			out = append(out, c)
		}
	}
	return out, nil
}

func entity(name []byte) (rune, error) {
	if c, ok := entities[string(name)]; ok {
		return rune(c), nil
	}
	digits, base := bytes.TrimPrefix(name, []byte("#")), 10
	if len(digits) == len(name) {
		return 0, badXML("it has the entity %q", name)
	}
	if hex, ok := bytes.CutPrefix(digits, []byte("x")); ok {
		digits, base = hex, 16
	}
	n, err := strconv.ParseUint(string(digits), base, 32)
	if err != nil || n > utf8.MaxRune || !utf8.ValidRune(rune(n)) {
		return 0, badXML("it has the entity %q", name)
	}
	return rune(n), nil
}
