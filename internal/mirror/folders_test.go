package mirror_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
	"github.com/leatdata/leat/internal/testlab"
)

// tree writes files below a folder, each with its own name as content.
func tree(t testing.TB, root string, keys ...string) {
	t.Helper()
	for _, key := range keys {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, key)), 0o777))
		must(t, os.WriteFile(filepath.Join(root, key), []byte(key), 0o666))
	}
}

// held lists what a place has, without our own records, with the content of each.
func held(t testing.TB, b bucket.Bucket) map[string]string {
	t.Helper()
	got := map[string]string{}
	for o, err := range b.List(t.Context(), "") {
		must(t, err)
		if !strings.HasPrefix(o.Key, ".leat/") {
			data, err := bucket.ReadAll(t.Context(), b, o.Key, 1<<20)
			must(t, err)
			got[o.Key] = string(data)
		}
	}
	return got
}

func TestALinkInTheTargetIsNotWrittenThrough(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	tree(t, from, "current/x", "releases/42/x", "plain", "link")
	tree(t, to, "releases/42/gone", "elsewhere")
	must(t, os.Symlink("releases/42", filepath.Join(to, "current")))
	must(t, os.Symlink("elsewhere", filepath.Join(to, "link")))
	for range 2 {
		r, _, err := run(t, openURL(t, from), openURL(t, to), func(o *mirror.Options) { o.Delete, o.MaxDeleteShare = true, 100 })
		if !fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != 1 || r.SetAside[0].Key != "current/x" {
			t.Errorf("%v; set aside %v", err, r.SetAside)
		}
	}
	if got, want := held(t, openURL(t, to)), map[string]string{"releases/42/x": "releases/42/x", "plain": "plain", "link": "link"}; !maps.Equal(got, want) {
		t.Errorf("the target has %q", got)
	}
}

func TestAFolderThatBecameALinkAtTheSourceIsNoListingThatLeavesOut(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	tree(t, from, "releases/42/x")
	tree(t, to, "current/x", "releases/42/x")
	must(t, os.Symlink("releases/42", filepath.Join(from, "current")))
	_, _, err := run(t, openURL(t, from), openURL(t, to), func(o *mirror.Options) { o.Delete = true })
	must(t, err)
	if got, want := held(t, openURL(t, to)), map[string]string{"releases/42/x": "releases/42/x"}; !maps.Equal(got, want) {
		t.Errorf("the target has %q", got)
	}
}

func TestAFileThatBecomesAFolderAndTheReverseHealWithTheNextRun(t *testing.T) {
	t.Parallel()
	versity := testlab.S3(t)
	for name, to := range map[string]bucket.Bucket{"a folder": openURL(t, t.TempDir()), "versitygw": open(t, versity, "app")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from := t.TempDir()
			tree(t, from, "a", "b/c/d", "x")
			change := func(o *mirror.Options) { o.Delete, o.MaxDeleteShare = true, 100 }
			_, _, err := run(t, openURL(t, from), to, change)
			must(t, err)
			must(t, os.Remove(filepath.Join(from, "a")))
			must(t, os.RemoveAll(filepath.Join(from, "b")))
			tree(t, from, "a/b", "b")
			r, _, err := run(t, openURL(t, from), to, change)
			if err != nil && (!fault.Is(err, fault.MirrorIncomplete) || r.FailedBy[fault.KeyRefused] != r.Failed) || r.Deleted != 2 {
				t.Errorf("%v; deleted %d, withheld %d, set aside %v", err, r.Deleted, r.Withheld, r.SetAside)
			}
			_, _, err = run(t, openURL(t, from), to, change)
			must(t, err)
			if got, want := held(t, to), map[string]string{"a/b": "a/b", "b": "b", "x": "x"}; !maps.Equal(got, want) {
				t.Errorf("the target has %q", got)
			}
		})
	}
}

func TestAFolderThatIsNotThereIsNoEmptySource(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o666))
	for _, path := range []string{filepath.Join(t.TempDir(), "no", "such"), file, file + "/below"} {
		if b, err := bucket.Open(t.Context(), path, bucket.Options{ReadOnly: true}); !fault.Is(err, fault.BucketMissing) {
			t.Errorf("%s: %v, %v", path, b, err)
		}
	}
}

func TestWhatPlacesBelowKeepForThemselvesIsNotCarried(t *testing.T) {
	t.Parallel()
	from, to := t.TempDir(), t.TempDir()
	tree(t, from, "a", "app/x", "app/.leat-meta/0123-x", "app/.leat-tmp/lock", "app/deep/.leat-meta/y")
	_, _, err := run(t, openURL(t, from), openURL(t, to), nil)
	must(t, err)
	if got, want := held(t, openURL(t, to)), map[string]string{"a": "a", "app/x": "app/x"}; !maps.Equal(got, want) {
		t.Errorf("the target has %q", got)
	}
}

func TestWhatAnotherMirrorOrPipelineKeepsBelowIsNotDeleted(t *testing.T) {
	t.Parallel()
	hub, first, second := t.TempDir(), t.TempDir(), t.TempDir()
	tree(t, first, "one", "two")
	tree(t, second, "b", "gone")
	tree(t, hub, "lake/_leat/leat/state.json", "lake/t/data", "_leat/leat/state.json", "killed/.leat/mirror/x.mark", "killed/gone")
	for i := range 30 { // more than may be missing, if they counted
		tree(t, hub, fmt.Sprintf("lake/t/more/%02d", i))
	}
	_, _, err := run(t, openURL(t, first), openURL(t, hub+"/below"), func(o *mirror.Options) { o.Delete = true })
	must(t, err)
	deleting := func(o *mirror.Options) { o.Delete, o.MaxDeleteShare = true, 25 }
	_, _, err = run(t, openURL(t, second), openURL(t, hub), deleting)
	must(t, err)
	must(t, os.Remove(filepath.Join(second, "gone")))
	r, _, err := run(t, openURL(t, second), openURL(t, hub), deleting)
	must(t, err)
	got := held(t, openURL(t, hub))
	if r.LeftOut[fault.ObjectForeign] != 33 || r.Deleted != 1 || got["killed/gone"] != "" {
		t.Errorf("left out are %v, deleted %d", r.LeftOut, r.Deleted)
	}
	for key := range got {
		if strings.Contains(key, "leat/") || strings.HasPrefix(key, "lake/t/more/") {
			delete(got, key)
		}
	}
	if want := map[string]string{"below/one": "one", "below/two": "two", "lake/t/data": "lake/t/data", "b": "b"}; !maps.Equal(got, want) {
		t.Errorf("the target has %q, want %q", got, want)
	}
}
