package lake

import (
	"net/url"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/fault"
)

// places turns the names that metadata has for files below one root into the names they have below another.
type places struct {
	from    []string // spellings of the first root, each with a slash at its end
	escaped []string // those of them that a URL cannot hold, escaped; what follows such a root is escaped too
	to      string   // the other root, with a slash at its end
}

// newPlaces takes the roots as metadata spells them. One place has several spellings: S3 has the schemes s3, s3a and s3n,
// Azure's abfs and wasb name one account by two hosts, and Hadoop's Path writes a local folder with one slash, or as its path
// alone.
func newPlaces(from, to string) places {
	root := asFolder(from)
	p := places{from: []string{root}, to: asFolder(to)}
	scheme, rest, found := strings.Cut(root, "://")
	switch {
	case !found:
		return p
	case slices.Contains(s3Schemes, scheme):
		for _, s := range s3Schemes {
			p.from = append(p.from, s+"://"+rest)
		}
	case scheme == "file":
		p.from = append(p.from, "file:"+rest, rest, "file://localhost"+rest)
	case slices.Contains(azureSchemes, scheme):
		for _, s := range azureSchemes {
			p.from = append(p.from, s+"://"+rest, s+"://"+strings.Replace(rest, ".dfs.", ".blob.", 1), s+"://"+strings.Replace(rest, ".blob.", ".dfs.", 1))
		}
	}
	for _, s := range p.from {
		if u, err := url.Parse(s); err == nil && u.String() != s {
			p.escaped = append(p.escaped, u.String())
		}
	}
	return p
}

var (
	s3Schemes    = []string{"s3", "s3a", "s3n"}
	azureSchemes = []string{"abfss", "abfs", "wasbs", "wasb"}
)

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
	for _, root := range p.escaped {
		if rest, ok := strings.CutPrefix(name, root); ok {
			key, err := url.PathUnescape(rest)
			return root, key, err == nil
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
