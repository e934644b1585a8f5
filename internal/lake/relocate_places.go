package lake

import (
	"strings"

	"github.com/leatdata/leat/internal/fault"
)

// places turns the names that metadata has for files below one root into the names they have below another.
type places struct {
	from []string // spellings of the first root, each with a slash at its end
	to   string   // the other one, with a slash at its end
}

// newPlaces takes the roots as metadata spells them. One place has several spellings: writers name S3 s3, s3a or s3n, and a
// local folder by a URL with three slashes or one, or by its path alone.
func newPlaces(from, to string) places {
	p := places{to: asFolder(to)}
	scheme, rest, found := strings.Cut(asFolder(from), "://")
	switch {
	case found && isS3(scheme):
		p.from = []string{"s3://" + rest, "s3a://" + rest, "s3n://" + rest}
	case found && scheme == "file":
		p.from = []string{"file://" + rest, "file:" + rest, rest}
	default:
		p.from = []string{asFolder(from)}
	}
	return p
}

func isS3(scheme string) bool { return scheme == "s3" || scheme == "s3a" || scheme == "s3n" }

func asFolder(url string) string {
	if strings.HasSuffix(url, "://") {
		return url
	}
	return strings.TrimRight(url, "/") + "/"
}

// root is the spelling that a name begins with and what follows it.
func (p places) root(name string) (root, key string, ok bool) {
	for _, root := range p.from {
		if key, ok := strings.CutPrefix(name, root); ok {
			return root, key, true
		}
	}
	return "", "", false
}

// key is the key of a file below both roots, or fault.LakeForeign.
func (p places) key(name string) (string, error) {
	if _, key, ok := p.root(name); ok && key != "" {
		return key, nil
	}
	return "", p.outside(name)
}

// moved is the new name of a file, or fault.LakeForeign.
func (p places) moved(name string) (string, error) {
	key, err := p.key(name)
	return p.to + key, err
}

// movedFolder is moved for a folder, which may be the root itself.
func (p places) movedFolder(name string) (string, error) {
	if _, key, ok := p.root(name); ok {
		return p.to + key, nil
	}
	if _, key, ok := p.root(name + "/"); ok && key == "" {
		return strings.TrimSuffix(p.to, "/"), nil
	}
	return "", p.outside(name)
}

func (p places) outside(name string) error {
	return fault.New(fault.LakeForeign, name, "the table's metadata names a file outside %s, which would not be found at the far side", p.from[0]).
		WithMend("Mirror a bucket or folder that holds all files of the table, or leave the table out.")
}

// movedBounds are the new least and greatest path of a file of position deletes. A bound may be cut to its first characters; then it may
// be shorter than the root, and whatever lies in the new root is between the bounds that are made. An absent one stays so.
func (p places) movedBounds(low, high []byte) (newLow, newHigh []byte) {
	a, lowKey, okLow := p.root(string(low))
	b, highKey, okHigh := p.root(string(high))
	if okLow && okHigh && a == b || okLow && high == nil || okHigh && low == nil { // between names of one spelling lie only such names
		return bound(low, p.to+lowKey), bound(high, p.to+highKey)
	}
	return bound(low, p.to), bound(high, strings.TrimSuffix(p.to, "/")+"0") // '0' follows '/'
}

func bound(old []byte, text string) []byte {
	if old == nil {
		return nil
	}
	return []byte(text)
}
