package bucket_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// files lists what lies under a folder, ours included.
func files(t *testing.T, root string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			found = append(found, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAFolderHoldsPlainFiles(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, "file://"+root, bucket.Options{})
	if _, err := bucket.WriteAll(t.Context(), b, "2026-11-21/t.csv", []byte("1,2\n"), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if found := files(t, root); len(found) != 1 || found[0] != "2026-11-21/t.csv" {
		t.Errorf("the folder holds %q", found)
	}
	if err := b.Delete(t.Context(), "2026-11-21/t.csv"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(root + "/2026-11-21"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the empty folder is still there: %v", err)
	}
}

func TestMetadataLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, root, bucket.Options{})
	with := bucket.WriteOptions{Metadata: map[string]string{"n": "1"}}
	for range 3 {
		if _, err := bucket.WriteAll(t.Context(), b, "k", nil, with); err != nil {
			t.Fatal(err)
		}
	}
	with.IfAbsent = true
	if _, err := bucket.WriteAll(t.Context(), b, "k", nil, with); !fault.Is(err, fault.ObjectExists) {
		t.Errorf("got %v", err)
	}
	if err := b.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if found := files(t, root); len(found) != 1 || found[0] != ".leat-tmp/lock" {
		t.Errorf("the folder holds %q", found)
	}
}

func TestNoLinkLeadsOutOfTheFolder(t *testing.T) {
	t.Parallel()
	outside, root := t.TempDir(), t.TempDir()
	if err := os.WriteFile(outside+"/secret", []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"folder": outside, "file": outside + "/secret"} {
		if err := os.Symlink(target, root+"/"+name); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, root, bucket.Options{})
	for _, key := range []string{"folder/secret", "file"} {
		if data, err := bucket.ReadAll(t.Context(), b, key, 100); err == nil {
			t.Errorf("%s can be read: %q", key, data)
		}
	}
	if _, err := bucket.WriteAll(t.Context(), b, "folder/new", nil, bucket.WriteOptions{}); err == nil {
		t.Error("a file could be written outside")
	}
	if err := b.Delete(t.Context(), "folder/secret"); err == nil {
		t.Error("a file outside could be deleted")
	}
	if found := files(t, outside); len(found) != 1 {
		t.Errorf("outside there is now %q", found)
	}
}

func TestAFileAndAFolderOfOneNameAreRefused(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, root, bucket.Options{})
	for _, key := range []string{"file", "folder/file"} {
		if _, err := bucket.WriteAll(t.Context(), b, key, nil, bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"file/below", "folder"} {
		for _, opts := range []bucket.WriteOptions{{}, {Metadata: map[string]string{"a": "b"}}} {
			if _, err := bucket.WriteAll(t.Context(), b, key, nil, opts); !fault.Is(err, fault.KeyRefused) {
				t.Errorf("%s: got %v", key, err)
			}
		}
	}
	if found := files(t, root); len(found) != 2 {
		t.Errorf("the folder holds %q", found)
	}
}

func TestAFullDiskIsSaidToBeFull(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small disk cannot be mounted (that needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk, 0); err != nil {
			t.Error(err)
		}
	})
	b := open(t, disk+"/root", bucket.Options{})
	_, err := bucket.WriteAll(t.Context(), b, "k", make([]byte, 1<<20), bucket.WriteOptions{})
	if !fault.Is(err, fault.BucketFull) {
		t.Errorf("got %v", err)
	}
	if found := files(t, disk); len(found) != 0 {
		t.Errorf("the failed write left %q", found)
	}
	if _, err := bucket.WriteAll(t.Context(), b, "k", make([]byte, 100<<10), bucket.WriteOptions{}); err != nil {
		t.Errorf("a write that fits: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestASecondProcessKeepsTheSameConditions(t *testing.T) {
	t.Parallel()
	// Each Bucket has a root and a lock of its own, as each process would.
	root := t.TempDir()
	start := open(t, root, bucket.Options{})
	if _, err := bucket.WriteAll(t.Context(), start, "counter", []byte("0"), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	const writers, each = 4, 25
	var group errgroup.Group
	for range writers {
		b := open(t, root, bucket.Options{})
		group.Go(func() error {
			for done := 0; done < each; {
				o, err := b.Stat(t.Context(), "counter")
				if err != nil {
					return err
				}
				text, err := bucket.ReadAll(t.Context(), b, "counter", 100)
				if err != nil {
					return err
				}
				n, err := strconv.Atoi(string(text))
				if err != nil {
					return err
				}
				_, err = bucket.WriteAll(t.Context(), b, "counter", fmt.Append(nil, n+1), bucket.WriteOptions{IfMatch: o.ETag})
				if err == nil {
					done++
				} else if !fault.Is(err, fault.ObjectExists) {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if text, err := bucket.ReadAll(t.Context(), start, "counter", 100); err != nil || string(text) != strconv.Itoa(writers*each) {
		t.Errorf("the counter is %q, want %d (%v)", text, writers*each, err)
	}
}

func TestWhatAKilledProcessLeftIsSweptByItsAge(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	killed := open(t, root, bucket.Options{})
	u, err := killed.Create(t.Context(), "2026/"+strings.Repeat("long name ", 20), bucket.WriteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Abort()
	if err := os.WriteFile(root+"/.leat-tmp/somebody-else's", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t, root, bucket.Options{})
	for _, c := range []struct {
		prefix string
		age    time.Duration
		want   int
	}{{"", time.Hour, 0}, {"2025", -time.Hour, 0}, {"2026/long", -time.Hour, 1}, {"", -time.Hour, 0}} {
		if n, err := b.Sweep(t.Context(), c.prefix, time.Now().Add(-c.age)); n != c.want || err != nil {
			t.Errorf("%q older than %s: swept %d, %v; want %d", c.prefix, c.age, n, err, c.want)
		}
	}
	if found := files(t, root); len(found) != 1 {
		t.Errorf("the folder holds %q", found)
	}
}

func TestReadsAndDeletionsBesideWritesFindWholeObjects(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir(), bucket.Options{})
	content := strings.Repeat("whole", 10_000)
	var group errgroup.Group
	for i := range 8 {
		group.Go(func() error {
			for round := range 50 {
				// The folder comes and goes all the time.
				key := fmt.Sprintf("dir/sub/%d", (i+round)%3)
				if _, err := bucket.WriteAll(t.Context(), b, key, []byte(content), bucket.WriteOptions{}); err != nil {
					return err
				}
				data, err := bucket.ReadAll(t.Context(), b, key, 1<<20)
				if err == nil && string(data) != content {
					return fmt.Errorf("%s holds %d bytes", key, len(data))
				}
				if err != nil && !fault.Is(err, fault.ObjectMissing) {
					return err
				}
				if err := b.Delete(t.Context(), key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

func TestIfAbsentNeverReplacesAWriteWithoutCondition(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir(), bucket.Options{})
	for round := range 200 {
		key := fmt.Sprintf("k%d", round)
		var group errgroup.Group
		for _, opts := range []bucket.WriteOptions{{}, {IfAbsent: true}} {
			group.Go(func() error {
				_, err := bucket.WriteAll(t.Context(), b, key, fmt.Append(nil, opts.IfAbsent), opts)
				if opts.IfAbsent && fault.Is(err, fault.ObjectExists) {
					return nil
				}
				return err
			})
		}
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		// Whichever came first, the write without a condition is what stays.
		if data, err := bucket.ReadAll(t.Context(), b, key, 100); err != nil || string(data) != "false" {
			t.Fatalf("round %d: the object is %q, %v", round, data, err)
		}
	}
}

func TestAConditionOfAFolderSaysNothingThatItCouldNotSee(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, root, bucket.Options{})
	for name, make := range map[string]func(string) error{
		"loop":     func(at string) error { return os.Symlink("loop", at) },
		"dangling": func(at string) error { return os.Symlink("nowhere", at) },
		"folder":   func(at string) error { return os.Mkdir(at, 0o777) },
	} {
		if err := make(root + "/" + name); err != nil {
			t.Fatal(err)
		}
		_, err := bucket.WriteAll(t.Context(), b, name, nil, bucket.WriteOptions{IfAbsent: true})
		if err == nil || fault.Is(err, fault.ObjectExists) || fault.Is(err, fault.ObjectMissing) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Another process that was stopped holds the lock as long as it is stopped.
func TestALockThatIsNeverGivenBackDoesNotKeepAWriteThatIsEnded(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	b := open(t, root, bucket.Options{})
	if _, err := bucket.WriteAll(t.Context(), b, "k", nil, bucket.WriteOptions{IfAbsent: true}); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(root + "/.leat-tmp/lock")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := syscall.Flock(int(other.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var all errgroup.Group
	for range 3 { // one waits for the other process, the others for the one
		all.Go(func() error {
			_, err := bucket.WriteAll(ctx, b, "k", nil, bucket.WriteOptions{IfAbsent: true})
			if !fault.Is(err, fault.Interrupted) {
				return fmt.Errorf("while another process has the lock: %w", err)
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		t.Error(err)
	}
	other.Close()
	if _, err := bucket.WriteAll(t.Context(), b, "k", nil, bucket.WriteOptions{IfAbsent: true}); !fault.Is(err, fault.ObjectExists) {
		t.Errorf("after it: %v", err)
	}
}
