package bucket_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
)

func TestPlacesAreKnownByWhatTheyAre(t *testing.T) {
	t.Parallel()
	secret := func() string { return "secret" }
	at := func(endpoint, url string) bucket.Bucket {
		return open(t, url, bucket.Options{Endpoint: endpoint, Region: "eu-west-1", AccessKeyID: "id", SecretAccessKey: secret, AllowHTTP: true})
	}
	top := t.TempDir()
	for _, dir := range []string{"lake/app/deep", "lakes"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"link": "lake", "lakes/in": "../lake/app"} {
		if err := os.Symlink(to, filepath.Join(top, link)); err != nil {
			t.Fatal(err)
		}
	}
	folder := func(path string) bucket.Bucket { return open(t, filepath.Join(top, path), bucket.Options{}) }
	const gw = "http://gw.example.com"
	for name, c := range map[string]struct {
		inner, outer bucket.Bucket
		path         string
		inside       bool
	}{
		"the same":                {at(gw, "s3://b"), at(gw, "s3://b"), "", true},
		"below":                   {at(gw, "s3://b/a/b"), at(gw, "s3://b/a"), "b/", true},
		"above":                   {at(gw, "s3://b"), at(gw, "s3://b/a"), "", false},
		"beside":                  {at(gw, "s3://b/ab"), at(gw, "s3://b/a"), "", false},
		"another bucket":          {at(gw, "s3://c"), at(gw, "s3://b"), "", false},
		"a slash":                 {at(gw+"/", "s3://b/"), at(gw, "s3://b"), "", true},
		"upper case":              {at("HTTP://GW.Example.com", "s3://b"), at(gw, "s3://b"), "", true},
		"the usual port":          {at(gw+":80", "s3://b"), at(gw, "s3://b"), "", true},
		"another port":            {at(gw+":81", "s3://b"), at(gw, "s3://b"), "", false},
		"a root's dot":            {at("http://gw.example.com.", "s3://b"), at(gw, "s3://b"), "", true},
		"another server":          {at("http://gw2.example.com", "s3://b"), at(gw, "s3://b"), "", false},
		"another path":            {at(gw+"/s3", "s3://b"), at(gw, "s3://b"), "", false},
		"this machine":            {at("http://localhost:9000", "s3://b/x"), at("http://127.0.0.1:9000", "s3://b"), "x/", true},
		"this machine by IPv6":    {at("http://[::1]:9000", "s3://b"), at("http://127.0.0.1:9000", "s3://b"), "", true},
		"AWS by its regions":      {at("https://s3.eu-west-1.amazonaws.com", "s3://b"), at("", "s3://b"), "", true},
		"AWS in China":            {at("https://s3.cn-north-1.amazonaws.com.cn", "s3://b"), at("", "s3://b"), "", false},
		"another kind":            {open(t, "gs://b", bucket.Options{Endpoint: gw, AllowHTTP: true}), at(gw, "s3://b"), "", false},
		"GCS":                     {open(t, "gs://b/x", bucket.Options{Endpoint: gw, AllowHTTP: true}), open(t, "gs://b", bucket.Options{Endpoint: gw + "/", AllowHTTP: true}), "x/", true},
		"a folder":                {folder("lake/app"), folder("lake"), "app/", true},
		"a folder deeper":         {folder("lake/app/deep"), folder("lake"), "app/deep/", true},
		"a folder by a link":      {folder("link/app"), folder("lake"), "app/", true},
		"below a link":            {folder("lake/app"), folder("link"), "app/", true},
		"a link into it":          {folder("lakes/in"), folder("lake"), "app/", true},
		"a link is not inside":    {folder("lakes/in"), folder("lakes"), "", false},
		"a folder's name as text": {folder("lakes"), folder("lake"), "", false},
		"memory":                  {open(t, "mem://", bucket.Options{}), open(t, "mem://", bucket.Options{}), "", false},
	} {
		if path, inside := bucket.Inside(c.inner, c.outer); inside != c.inside || inside && path != c.path {
			t.Errorf("%s: %q, %t", name, path, inside)
		}
	}
}
