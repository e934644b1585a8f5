package bucket

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/leatdata/leat/internal/fault"
)

// oddKind is a kind of keys that some servers, and proxies before them, take for other keys.
type oddKind int

const (
	oddDot oddKind = iota
	oddClimb
	oddEmpty
	oddBackslash
	oddEscaped
	oddKinds int = iota
)

// odds tell of each kind what it is and how its sample goes on, which no server takes out of the sample's own folder.
var odds = [oddKinds]struct{ what, sample string }{
	oddDot:       {"a segment .", "/./k"},
	oddClimb:     {"a segment ..", "/a/../k"},
	oddEmpty:     {"an empty segment", "//k"},
	oddBackslash: {"a backslash", `/a\k`},
	oddEscaped:   {"a character as in a URL", "/a%2Fk%20x"},
}

// plainPath says at little cost that a key is of no odd kind, as nearly all are.
func plainPath(key string) bool {
	return key == "" || key[0] != '/' && key[0] != '.' && !strings.Contains(key, "//") && !strings.Contains(key, "/.") &&
		strings.IndexByte(key, '\\') < 0 && strings.IndexByte(key, '%') < 0
}

// oddKindsOf are the kinds of a key. A slash at its end alone makes none: servers know it from the markers of "folders".
func oddKindsOf(key string) (kinds []oddKind) {
	is := [oddKinds]bool{oddBackslash: strings.Contains(key, `\`)}
	for segment := range strings.SplitSeq(strings.TrimSuffix(strings.ReplaceAll(key, `\`, "/"), "/"), "/") {
		switch segment {
		case "":
			is[oddEmpty] = true
		case ".":
			is[oddDot] = true
		case "..":
			is[oddClimb] = true
		}
	}
	is[oddEscaped] = escapes(key)
	for kind, so := range is {
		if so {
			kinds = append(kinds, oddKind(kind))
		}
	}
	return kinds
}

// escapes says whether a key has a % with two hexadecimal digits, of which a server or proxy that decodes once too often makes another character.
func escapes(key string) bool {
	for i := range len(key) - 2 {
		if key[i] == '%' && isHex(key[i+1]) && isHex(key[i+2]) {
			return true
		}
	}
	return false
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// Holds is nil if a bucket keeps an object under a key as it is, and key-refused if it does not: it cannot, or it takes the key for another one. What
// an S3 server does with odd keys is tried on scratch objects, once for each kind of them. A folder
// takes a key for another one below its symbolic links.
func Holds(ctx context.Context, b Bucket, key string) error {
	if f, ok := b.(*front); ok {
		if err := f.check(key); err != nil {
			return fault.New(fault.KeyRefused, f.at.String(), "an object cannot be kept under the key %q", key).Because(err)
		}
		b = f.Bucket
	}
	switch k := b.(type) {
	case *s3Bucket:
		return k.holds(ctx, key)
	case *folder:
		return k.leads(key, false)
	}
	return nil
}

func (b *s3Bucket) holds(ctx context.Context, key string) error {
	if len(b.at.root)+len(key) > maxKey {
		return fault.New(fault.KeyRefused, b.at.object(key), "with the path of the place its key has more than %d bytes", maxKey)
	}
	if plainPath(key) && plainPath(b.at.root) {
		return nil
	}
	for _, kind := range oddKindsOf(b.at.root + key) {
		keeps, err := b.keeps[kind].find(ctx, func(ctx context.Context) (Support, error) { return b.probeKey(ctx, odds[kind].sample) })
		switch {
		case err != nil:
			return err
		case keeps != Supported:
			return fault.New(fault.KeyRefused, b.at.object(key), "its key has %s, and the server takes such a key for another one", odds[kind].what)
		}
	}
	return nil
}

// probeKey writes an object under an odd key in a folder of its own, and looks whether that is what the server has then.
func (b *s3Bucket) probeKey(ctx context.Context, sample string) (Support, error) {
	folder, text := ".leat-probe-"+rand.Text(), rand.Text()
	key := folder + sample
	left := []string{key}
	defer func() {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.opts.Grace)
		defer cancel()
		_ = b.Delete(late, left...) // without the right to delete they stay, as in withScratch
	}()
	// What is refused is no key of this server, for any reason; only what may heal is no answer.
	no := func(err error) (Support, error) {
		if err != nil && (ctx.Err() != nil || fault.Retryable(err)) {
			return Unknown, err
		}
		return Unsupported, nil
	}
	if _, err := WriteAll(ctx, b, key, []byte(text), WriteOptions{}); err != nil {
		return no(err)
	}
	kept := true
	for o, err := range b.List(ctx, folder) {
		if err != nil {
			return no(err)
		}
		left = append(left, o.Key)
		kept = kept && o.Key == key
	}
	got, err := ReadAll(ctx, b, key, int64(len(text)))
	if err != nil || string(got) != text || !kept || len(left) != 2 {
		return no(err)
	}
	return Supported, nil
}
