package mirror

import (
	"context"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// apart refuses places of which one lies in the other: a mirror would meet what it has just written, and delete what it is to carry.
func (r *run) apart() error {
	if path, inside := bucket.Inside(r.to.bucket, r.from.bucket); inside && !r.keptApart(path) {
		return r.within(path, "the target lies in the source")
	}
	if path, inside := bucket.Inside(r.from.bucket, r.to.bucket); inside && !r.keptApart(path) {
		return r.within(path, "the source lies in the target")
	}
	return nil
}

// keptApart says whether the filter leaves out all that lies where one place is in the other.
func (r *run) keptApart(path string) bool { return path != "" && r.o.Filter.keepsOut(path) }

func (r *run) within(path, how string) error {
	const beside = "Choose places that are beside each other, such as s3://bucket/app and s3://bucket/copy"
	f := fault.New(fault.MirrorRefused, r.to.bucket.Properties().URL, "the source and the target are the same place").WithMend("%s.", beside)
	if path != "" {
		f = fault.New(fault.MirrorRefused, r.to.bucket.Properties().URL, "%s, below %q", how, path).
			WithMend("%s, or leave out what lies there: --exclude %s.", beside, fault.Shell(path+"**"))
	}
	return f
}

// markKey is where a mirror marks a place, to see whether another one shows the mark. A killed run's mark is replaced by the next one's.
func markKey(name string) string { return reportFolder + change.EncodeName(name) + ".mark" }

// mark writes marks at the target and looks for them at the source: whether two places are one is seen by what is in them, and not by their names.
// The source may be one that is only read. Names of the server, of buckets or of mounts may hide that one place lies in the other, but as a rule not
// the names of the folders between them: so these are tried, at the target those of the source and at the source those of the target.
func (r *run) mark(ctx context.Context) error {
	if r.o.DryRun || r.inMemory() {
		return nil
	}
	for try := 1; ; try++ {
		for _, path := range paths(r.from.bucket) {
			if _, err := r.writeMark(ctx, path+r.markKey); err != nil {
				return err
			}
		}
		for _, path := range paths(r.to.bucket) {
			if err := r.seesMark(ctx, path+r.markKey); err != nil {
				return err
			}
		}
		held, err := r.holdsMarks(ctx)
		if held || err != nil {
			return err
		}
		busy := fault.New(fault.BucketBusy, r.to.bucket.Properties().URL, "another mirror of the name %q works at the same time", r.o.Name)
		if try >= r.o.Attempts {
			return busy.WithMend("Give each mirror a name of its own: mirror.name.")
		}
		if err := r.pause(ctx, job{object: bucket.Object{Key: r.markKey}, attempts: try}, busy); err != nil {
			return err
		}
	}
}

// inMemory says whether one of the places is in this process, where no other name leads to it.
func (r *run) inMemory() bool {
	return r.from.bucket.Properties().Kind == bucket.KindMemory || r.to.bucket.Properties().Kind == bucket.KindMemory
}

// marks are what was written at the target to tell the places apart, by key.
type marks struct {
	mu    sync.Mutex
	texts map[string]string
}

func (m *marks) put(key, text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.texts == nil {
		m.texts = map[string]string{}
	}
	m.texts[key] = text
}

func (m *marks) all() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.texts)
}

// mostPaths bounds how many places are tried.
const mostPaths = 6

// paths are those below which one place may lie in another one: the last folders of its own path, fewest first.
func paths(b bucket.Bucket) []string {
	all, path := []string{""}, ""
	for _, segment := range slices.Backward(bucket.Segments(b)) {
		if len(all) == mostPaths {
			break
		}
		path = segment + "/" + path
		all = append(all, path)
	}
	return all
}

// writeMark writes a mark and returns its text. Below a path where the target takes none, nothing can be carried or deleted either.
func (r *run) writeMark(ctx context.Context, key string) (text string, err error) {
	text = "leat mirror: this object may be deleted\n" + rand.Text() + "\n"
	err = r.insist(ctx, key, func() error {
		_, err := bucket.WriteAll(ctx, r.to.bucket, key, []byte(text), bucket.WriteOptions{ContentType: "text/plain"})
		return err
	})
	switch {
	case err == nil:
		r.marks.put(key, text)
		return text, nil
	case key == r.markKey || fault.Retryable(err) || r.ends(ctx, err):
		return "", err
	}
	return "", nil
}

// marked looks at an object of our own that the source lists, which may be a mark below a path that was not tried.
func (r *run) marked(ctx context.Context, p pair) error {
	if p.from == nil {
		return nil
	}
	return r.seesMark(ctx, p.from.Key)
}

// seesMark is an error when the source shows one of the marks under a key.
func (r *run) seesMark(ctx context.Context, key string) error {
	path, marked := strings.CutSuffix(key, r.markKey)
	all := r.marks.all()
	if !marked || len(all) == 0 || path != "" && !strings.HasSuffix(path, "/") {
		return nil
	}
	text, err := r.readMark(ctx, r.from.bucket, key)
	if err != nil {
		return err
	}
	for at, written := range all {
		if text != written {
			continue
		}
		below := strings.TrimSuffix(at, r.markKey)
		switch {
		case below == "" && path == "":
			return r.within("", "")
		case path == "" && !r.keptApart(below):
			return r.within(below, "the source lies in the target")
		case path != "" && !r.keptApart(path):
			return r.within(path, "the target lies in the source")
		}
	}
	return nil
}

// readMark reads what may be a mark; "" where there is none. Where only the list may be read, an object that it shows counts by its ETag.
func (r *run) readMark(ctx context.Context, b bucket.Bucket, key string) (text string, err error) {
	err = r.insist(ctx, key, func() error {
		data, err := bucket.ReadAll(ctx, b, key, 1<<10)
		text = string(data)
		return err
	})
	switch {
	case fault.Is(err, fault.ObjectMissing), fault.Is(err, fault.UsageInvalid), fault.Is(err, fault.BucketFailed):
		return "", nil // none, a key that this kind cannot have, or something larger
	case fault.Is(err, fault.BucketRights):
		return r.listedMark(ctx, b, key)
	}
	return text, err
}

func (r *run) listedMark(ctx context.Context, b bucket.Bucket, key string) (string, error) {
	for o, err := range b.List(ctx, key) {
		if err != nil || o.Key != key {
			return "", err
		}
		for _, text := range r.marks.all() {
			if o.Size == int64(len(text)) && (md5ETag(o.ETag) == "" || md5ETag(o.ETag) == hexMD5([]byte(text))) {
				return text, nil
			}
		}
		break
	}
	return "", nil
}

// holdsMarks says whether the target still has the marks: another mirror may have replaced or removed them before the source was looked at.
func (r *run) holdsMarks(ctx context.Context) (bool, error) {
	all := r.marks.all()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		text, err := r.readMark(ctx, r.to.bucket, key)
		if err != nil || text != all[key] {
			return false, err
		}
	}
	return true, nil
}

// unmark removes the marks. Without the right to delete they stay: a few bytes under a name that explains itself.
func (r *run) unmark(ctx context.Context) {
	if all := r.marks.all(); len(all) > 0 {
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = r.to.bucket.Delete(late, slices.Sorted(maps.Keys(all))...)
	}
}

func hexMD5(data []byte) string {
	sum := md5.Sum(data)
	return hex.EncodeToString(sum[:])
}
