package lake

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
)

// deletions is a bucket that notes which objects each request deletes.
type deletions struct {
	bucket.Bucket
	requests [][]string
}

func (d *deletions) Delete(ctx context.Context, keys ...string) error {
	d.requests = append(d.requests, keys)
	return d.Bucket.Delete(ctx, keys...)
}

func TestFilesOfExpiredSnapshotsGoInOneRequest(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	for id := range int64(12) {
		b.write(t, event{op: change.OpInsert, id: id, v: "v", big: "b"})
		b.commit(t)
	}
	store := &deletions{Bucket: b.lake.Bucket}
	b.lake.Bucket = store
	done, err := b.table.Maintain(t.Context(), MaintainOptions{Snapshots: Retention{Keep: 1}})
	if err != nil || done.Snapshots != 11 || done.Removed != 11 {
		t.Fatalf("%+v, %v", done, err)
	}
	data := slices.DeleteFunc(store.requests, func(keys []string) bool {
		return !slices.ContainsFunc(keys, func(key string) bool { return strings.Contains(key, "/snap-") })
	})
	if len(data) != 1 {
		t.Errorf("%d requests for %d objects: %q", len(data), done.Removed, data)
	}
}

func TestANameThatIsNotTheLakesIsNotRemovedAndKeepsNoOther(t *testing.T) {
	t.Parallel()
	var said bytes.Buffer
	l := testLake(t, t.TempDir(), func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&said, nil)) })
	names := []string{"file:///elsewhere/x"}
	for _, key := range []string{"a/1", "a/2", "b"} {
		if _, err := bucket.WriteAll(t.Context(), l.Bucket, key, []byte("x"), bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"a/1", "a/../b", "a//1", ".leat-tmp/x", "a/\n", strings.Repeat("x", 300), "a/2", "no-more"} {
		names = append(names, l.url(key))
	}
	n, err := l.removeAll(t.Context(), names...)
	if n != 3 || err != nil {
		t.Errorf("%d were removed: %v", n, err)
	}
	if _, err := l.Bucket.Stat(t.Context(), "b"); err != nil || count(t, l, "a/") != 0 {
		t.Errorf("%d objects are left, %v", count(t, l, "a/"), err)
	}
	if warned := strings.Count(said.String(), "level=WARN"); warned != 6 {
		t.Errorf("%d warnings:\n%s", warned, said.String())
	}
}
