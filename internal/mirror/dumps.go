package mirror

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
)

// dumps is what the manifests of one side say of the files that they name.
type dumps struct {
	bucket bucket.Bucket
	mu     sync.Mutex
	known  map[string]*named // by folder; nil where there is no dump
	files  int               // of all that are known
}

// named is what one manifest names.
type named struct {
	written time.Time
	files   map[string]namedFile // by key
}

func (n *named) has(key string) bool {
	if n == nil {
		return false
	}
	_, ok := n.files[key]
	return ok
}

type namedFile struct {
	sum   string // SHA-256, hexadecimal
	bytes int64
}

// mostNamed bounds what is remembered of manifests. Keys come in order, so each is read about once all the same.
const mostNamed = 200_000

// of is what the manifest of a folder names; nil where there is none, or another program's.
func (d *dumps) of(ctx context.Context, folder string) (*named, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, known := d.known[folder]; known {
		return n, nil
	}
	n, err := readNamed(ctx, d.bucket, folder)
	if err != nil {
		return nil, err
	}
	if d.known == nil || len(d.known) >= mostRemembered || d.files >= mostNamed {
		d.known, d.files = map[string]*named{}, 0
	}
	d.known[folder] = n
	if n != nil {
		d.files += len(n.files)
	}
	return n, nil
}

func readNamed(ctx context.Context, b bucket.Bucket, folder string) (*named, error) {
	written, err := writtenAt(ctx, b, dump.ManifestKey(folder)) // first, so that a manifest counts as older than it may be
	if written.IsZero() || err != nil {
		return nil, err
	}
	m, err := dump.ReadManifest(ctx, b, folder)
	switch {
	case fault.Is(err, fault.ObjectMissing), fault.Is(err, fault.BucketFailed), fault.Is(err, fault.BucketUnsupported):
		return nil, nil
	case err != nil:
		return nil, err
	}
	n := &named{written: written, files: map[string]namedFile{}}
	for _, f := range filesOf(m, folder) {
		n.files[f.Key] = namedFile{f.SHA256, f.Bytes}
	}
	return n, nil
}

// writtenAt is when an object was written; zero where there is none. The listing is asked, which tells it as exactly as it does of other objects:
// the object's own header has whole seconds.
func writtenAt(ctx context.Context, b bucket.Bucket, key string) (time.Time, error) {
	for o, err := range b.List(ctx, key) {
		if err != nil || o.Key == key {
			return o.Modified, err
		}
		break // longer names come behind it
	}
	return time.Time{}, nil
}

// forget notes that the manifest of a folder is gone.
func (d *dumps) forget(folder string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known[folder] = nil
}

// sumOf is the SHA-256 of an object, from the server if it keeps one, else from the manifest that names the object; hexadecimal, and
// empty where there is neither. A manifest is written last: what was written behind it may be of another dump.
func (d *dumps) sumOf(ctx context.Context, o bucket.Object, sums map[string]string) (string, error) {
	if sum, err := base64.StdEncoding.DecodeString(sums["sha256"]); err == nil && len(sum) > 0 {
		return hex.EncodeToString(sum), nil
	}
	for folder := folderOf(o.Key); ; folder = folderOf(folder) {
		n, err := d.of(ctx, folder)
		if err != nil {
			return "", err
		}
		if n.has(o.Key) && n.files[o.Key].bytes == o.Size && !o.Modified.After(n.written) {
			return n.files[o.Key].sum, nil
		}
		if folder == "" {
			return "", nil
		}
	}
}
