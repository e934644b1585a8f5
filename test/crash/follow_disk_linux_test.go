package crash_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// grow gives a mounted disk more room.
func (p folderPlace) grow(t testing.TB, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", string(p), "tmpfs", syscall.MS_REMOUNT, "size="+size); err != nil {
		t.Fatal(err)
	}
}

func TestAFullLakeEndsTheRunAndRoomHealsIt(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	lake := disk(t, "5m")
	f := newFollower(t, s, "file://"+string(lake))
	closed := s.open(dice)
	r := f.start().Wait()
	refused(t, r, 4, "code: bucket-full", string(lake))
	lake.grow(t, "900m")
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}

func TestAFullWorkFolderEndsTheRunAndRoomHealsIt(t *testing.T) {
	t.Parallel()
	dice := seeded(t)
	s := openShop(t, testlab.Postgres(t))
	f := followToFolder(t, s)
	work := disk(t, "256k")
	f.args = append(f.args, "--work-dir", string(work))
	closed := s.open(dice)
	p := f.start()
	r := p.Wait()
	if r.Exit == 0 || !strings.Contains(r.Stderr, string(work)) {
		t.Errorf("a full work folder ends the run with %d:\n%s", r.Exit, last(r.Stderr, 30))
	}
	work.grow(t, "900m")
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}
