package crash_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

// disk mounts a small file system of the test's own.
func disk(t *testing.T, size string) folderPlace {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("this test needs root and the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return folderPlace(dir)
}

func TestAFullDiskIsAClearErrorAndLeavesNothing(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	for _, c := range everyFormat {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := disk(t, "2m")
			_, err := dump.Run(t.Context(), reach(t, db.URL), dir.open(t), options(c.kind, c.layout))
			wants(t, err, fault.BucketFull, string(dir))
			nothing(t, dir)
		})
	}
}

func TestAFolderThatCannotBeWrittenToIsAClearError(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	warehouse(t, db)
	dir := disk(t, "2m")
	b := dir.open(t)
	if err := syscall.Mount("", string(dir), "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, err := dump.Run(t.Context(), reach(t, db.URL), b, options(format.Parquet, dump.LayoutRun))
	wants(t, err, fault.BucketRights, string(dir), "write to this folder")
	nothing(t, dir)
	if _, err := os.Stat(string(dir)); err != nil {
		t.Error(err)
	}
}
