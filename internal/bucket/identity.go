package bucket

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// Inside says whether a place lies in another one, as far as that can be known without asking a server, and below which path: one that ends with a
// slash, or "" where both are the same. That it cannot be known is no proof: a server may have several names.
func Inside(inner, outer Bucket) (path string, inside bool) {
	switch in := bare(inner).(type) {
	case *folder:
		if out, ok := bare(outer).(*folder); ok {
			return in.inside(out)
		}
		return "", false
	case *memory:
		return "", bare(inner) == bare(outer)
	}
	a, aServer := served(inner)
	b, bServer := served(outer)
	if a.kind == "" || a.kind != b.kind || a.name != b.name || aServer != bServer {
		return "", false
	}
	return strings.CutPrefix(a.root, b.root)
}

// Segments are the names that a place is reached by, from the outermost on: of a bucket and of the folders in its path.
func Segments(b Bucket) []string {
	var text string
	switch k := bare(b).(type) {
	case *folder:
		text = k.real()
	default:
		at, _ := served(b)
		text = at.name + "/" + at.root
	}
	return strings.FieldsFunc(text, func(r rune) bool { return r == '/' })
}

func bare(b Bucket) Bucket {
	if f, ok := b.(*front); ok {
		return f.Bucket
	}
	return b
}

// served is a place on a server, and which server that is.
func served(b Bucket) (place, string) {
	switch k := bare(b).(type) {
	case *s3Bucket:
		return k.at, serverName(k.known.Endpoint)
	case *gcsBucket:
		return k.at, serverName(k.known.Endpoint)
	case *azureBucket:
		return k.at, serverName(k.known.Endpoint)
	}
	return place{}, ""
}

// serverName is the same for the usual spellings of one server's address. All of AWS is one: the names of buckets are.
func serverName(endpoint string) string {
	u, err := url.Parse(endpoint)
	if endpoint == "" || isAWS(endpoint) || err != nil {
		if err == nil && strings.HasSuffix(u.Hostname(), ".cn") {
			return "aws-cn"
		}
		return "aws"
	}
	host, port := strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
	}
	if ip := net.ParseIP(host); ip != nil {
		host = ip.String() // one spelling of IPv6
	}
	if loopback(host) || strings.HasSuffix(host, ".localhost") {
		host = "localhost"
	}
	return net.JoinHostPort(host, port) + strings.TrimRight(u.Path, "/")
}

// real is the folder's path without symbolic links.
func (f *folder) real() string {
	if path, err := filepath.EvalSymlinks(f.at.name); err == nil {
		return path
	}
	return f.at.name
}

// inside compares the folders themselves, and not their names: one may be mounted in two places.
func (f *folder) inside(outer *folder) (string, bool) {
	want, err := outer.root.Stat(".")
	if err != nil {
		return "", false
	}
	begin := f.real()
	for at := begin; ; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil && os.SameFile(info, want) {
			path := strings.Trim(strings.TrimPrefix(begin, at), "/")
			if path != "" {
				path += "/"
			}
			return path, true
		}
		if at == filepath.Dir(at) {
			return "", false
		}
	}
}
