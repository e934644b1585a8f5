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
	known  map[string]*look // by folder
	before map[string]*look // those of before, until known is full again
	files  int              // named by those that are known
}

// look is at the manifest of one folder.
type look struct {
	done  chan struct{}
	named *named // nil where there is no dump
	err   error
}

// named is what one manifest names.
type named struct {
	written time.Time            // zero where nobody knows
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

// mostNamed bounds what is remembered of manifests, twice. Keys come in order, so each is read about once all the same.
const mostNamed = 100_000

// of is what the manifest of a folder names; nil where there is none, or another program's. Whoever comes while it is read waits for it.
func (d *dumps) of(ctx context.Context, folder string) (*named, error) {
	l, ours := d.lookAt(folder)
	if ours {
		l.named, l.err = readNamed(ctx, d.bucket, folder)
		d.mu.Lock()
		if l.err != nil {
			delete(d.known, folder)
			delete(d.before, folder)
		} else if l.named != nil {
			d.files += len(l.named.files)
		}
		d.mu.Unlock()
		close(l.done)
	}
	select {
	case <-l.done:
		return l.named, l.err
	case <-ctx.Done():
		return nil, fault.Wrap(context.Cause(ctx), fault.Interrupted, folder, "the mirror was ended")
	}
}

// lookAt gives the look at a folder, and whether it is the caller's to take.
func (d *dumps) lookAt(folder string) (l *look, ours bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l = d.known[folder]; l != nil {
		return l, false
	}
	if d.known == nil || len(d.known) >= mostRemembered || d.files >= mostNamed {
		d.known, d.before, d.files = map[string]*look{}, d.known, 0
	}
	if l = d.before[folder]; l == nil {
		l, ours = &look{done: make(chan struct{})}, true
	}
	d.known[folder] = l // so that what is asked for again and again stays
	return l, ours
}

// forget notes that the manifest of a folder is gone.
func (d *dumps) forget(folder string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	none := &look{done: make(chan struct{})}
	close(none.done)
	d.known[folder] = none
}

func readNamed(ctx context.Context, b bucket.Bucket, folder string) (*named, error) {
	written, err := writtenAt(ctx, b, dump.ManifestKey(folder)) // first, so that a manifest counts as older than it may be
	if err != nil {
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

// sumOf is the SHA-256 of an object by the manifest that names it; hexadecimal, and empty where there is none. A manifest is written last:
// what was written behind it may be of another dump.
func (d *dumps) sumOf(ctx context.Context, o bucket.Object) (string, error) {
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

// kept is the SHA-256 that a server keeps of an object, hexadecimal; empty where it keeps none.
func kept(o bucket.Object) string {
	sum, err := base64.StdEncoding.DecodeString(o.Sums["sha256"])
	if err != nil {
		return "" // of parts, and not of the whole
	}
	return hex.EncodeToString(sum)
}
