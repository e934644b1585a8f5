package crash_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/testlab"
)

// place is where dumps go, as a stranger sees it.
type place interface {
	keys(t testing.TB) []string         // all that is visible
	read(t testing.TB, k string) []byte // nil if it is not there
	unfinished(t testing.TB) []string   // uploads that were begun and not ended
}

// s3Place is a bucket, seen by the SDK alone.
type s3Place struct{ testlab.Store }

func (p s3Place) keys(t testing.TB) []string { return p.List(t) }

func (p s3Place) read(t testing.TB, key string) []byte {
	t.Helper()
	reply, err := p.Client().GetObject(t.Context(), &s3.GetObjectInput{Bucket: &p.Bucket, Key: &key})
	if err != nil {
		if strings.Contains(err.Error(), "NoSuchKey") {
			return nil
		}
		t.Fatal(err)
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (p s3Place) unfinished(t testing.TB) (keys []string) {
	t.Helper()
	out, err := p.Client().ListMultipartUploads(context.WithoutCancel(t.Context()), &s3.ListMultipartUploadsInput{Bucket: &p.Bucket})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range out.Uploads {
		keys = append(keys, aws.ToString(u.Key))
	}
	return keys
}

func (p s3Place) open(t testing.TB, opts bucket.Options) bucket.Bucket {
	t.Helper()
	opts.Endpoint, opts.Region, opts.AccessKeyID = p.Endpoint, p.Region, p.AccessKey
	opts.SecretAccessKey = func() string { return p.SecretKey }
	return openPlace(t, "s3://"+p.Bucket, opts)
}

// folderPlace is a folder, seen by os alone.
type folderPlace string

const unfinishedFolder = ".leat-tmp"

func (p folderPlace) keys(t testing.TB) (keys []string) {
	t.Helper()
	for _, k := range p.walk(t) {
		if !strings.HasPrefix(k, unfinishedFolder+"/") {
			keys = append(keys, k)
		}
	}
	return keys
}

func (p folderPlace) walk(t testing.TB) (keys []string) {
	t.Helper()
	err := filepath.WalkDir(string(p), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !d.IsDir() {
			key, _ := filepath.Rel(string(p), path) // both are absolute
			keys = append(keys, filepath.ToSlash(key))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (p folderPlace) read(t testing.TB, key string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(string(p), filepath.FromSlash(key)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return data
}

func (p folderPlace) unfinished(t testing.TB) (keys []string) {
	t.Helper()
	for _, k := range p.walk(t) {
		if strings.HasPrefix(k, unfinishedFolder+"/") && k != unfinishedFolder+"/lock" {
			keys = append(keys, k)
		}
	}
	return keys
}

func (p folderPlace) open(t testing.TB) bucket.Bucket {
	return openPlace(t, string(p), bucket.Options{})
}

func openPlace(t testing.TB, url string, opts bucket.Options) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), url, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}
