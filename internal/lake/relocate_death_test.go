package lake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
)

// mortal is a bucket whose process dies: from the n-th write on nothing is written any more.
type mortal struct {
	bucket.Bucket
	mu   sync.Mutex
	left int
}

var errDied = errors.New("the process has died")

func (m *mortal) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	u, err := m.Bucket.Create(ctx, key, o)
	return &mortalUpload{u, m}, err
}

type mortalUpload struct {
	bucket.Upload
	of *mortal
}

func (u *mortalUpload) Commit(ctx context.Context) (bucket.Object, error) {
	u.of.mu.Lock()
	defer u.of.mu.Unlock()
	if u.of.left == 0 {
		u.Abort()
		return bucket.Object{}, errDied
	}
	u.of.left--
	return u.Upload.Commit(ctx)
}

func TestARelocationThatDiesLeavesTheOldVersionOrNone(t *testing.T) {
	t.Parallel()
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			t.Parallel()
			s := folderSides(t, "public/visits")
			dir := s.dir(s.FromURL)
			tbl, spec := lived(t, testLake(t, dir, func(o *Options) { o.Format = version }))
			folder := s.To
			s.To = inMemoryBucket(t)
			fresh := dieEverywhere(t, s, nil)
			old := libraryRows(t, s.To, s.ToURL, s.Root)
			more(t, tbl, spec, 0x500)
			if n := dieEverywhere(t, s, old); n < 8 || fresh < 3*n/2 {
				t.Errorf("the first run wrote %d files, the second %d", fresh, n)
			}
			want := rowsBySnapshot(t, s.FromURL+"/public/visits")
			copyBucket(t, s.To, folder)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			sameRows(t, "PyIceberg", rowsBySnapshot(t, s.ToURL+"/public/visits"), want)
		})
	}
}

// dieEverywhere relocates again and again from what the far side has now, ending at each write in turn, and returns how many there are.
// Each time the far side must show what it showed before, or all that is new. The last run is left to its end.
func dieEverywhere(t *testing.T, s *sides, old map[string][]string) int {
	t.Helper()
	want := libraryRows(t, s.From, s.FromURL, s.Root)
	start := s.To
	for n := 0; ; n++ {
		far := inMemoryBucket(t)
		copyBucket(t, start, far)
		s.To = &mortal{Bucket: far, left: n}
		_, err := s.Run(t.Context())
		s.To = far
		if err == nil {
			sameRows(t, "whole", libraryRows(t, far, s.ToURL, s.Root), want)
			return n
		}
		if !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		if got := libraryRows(t, far, s.ToURL, s.Root); !maps.EqualFunc(got, old, slices.Equal) && !maps.EqualFunc(got, want, slices.Equal) {
			t.Fatalf("after %d writes the far side shows neither the old version nor the new one: %d snapshots", n, len(got)-1)
		}
		if n%8 == 0 { // the next run completes it
			s.run(t)
			sameRows(t, fmt.Sprint("completed after ", n), libraryRows(t, far, s.ToURL, s.Root), want)
		}
	}
}

func inMemoryBucket(t *testing.T) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func copyBucket(t *testing.T, from, to bucket.Bucket) {
	t.Helper()
	for o, err := range from.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		data, err := bucket.ReadAll(t.Context(), from, o.Key, 1<<30)
		if err == nil {
			_, err = bucket.WriteAll(t.Context(), to, o.Key, data, bucket.WriteOptions{Lazy: true})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
