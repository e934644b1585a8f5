package crash_test

import (
	"slices"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/testlab"
)

// TestARunOutlivesAClockThatIsSet: the machine's wall clock is set while leat runs, the clocks of database and store are not.
func TestARunOutlivesAClockThatIsSet(t *testing.T) {
	t.Parallel()
	if !long() {
		t.Skip("leat and all that it is made of is compiled anew for this test: it runs with LEAT_TEST_LONG=1 only")
	}
	leat := testlab.LeatOnAClock(t)
	for _, set := range []struct{ name, jump string }{{"an hour back", "-1h"}, {"two days ahead", "48h"}} {
		for _, place := range []string{"folder", "S3"} {
			t.Run(set.name+", "+place, func(t *testing.T) {
				t.Parallel()
				s := openShop(t, testlab.Postgres(t))
				f := followToFolder(t, s)
				if place == "S3" {
					store := testlab.S3(t)
					f = followToS3(t, s, store, store)
				}
				f.binary = leat
				survivesClock(t, f, set.jump)
			})
		}
	}
}

func survivesClock(t *testing.T, f *follower, jump string) {
	t.Helper()
	s, plain := f.shop, f.env
	closed := s.open(seeded(t))
	f.env = append(slices.Clone(plain), testlab.SetClock+"=4s:"+jump)
	first := f.start()
	s.goes(f, first)
	f.lives(first, 5*time.Second) // the clock is set meanwhile
	for range 3 {
		s.goes(f, first)
	}

	second := newFollower(t, s, f.to)
	second.name, second.args = f.name, append(second.args, "--name", f.name)
	second.binary, second.env = f.binary, append(slices.Clone(plain), testlab.SetClock+"=0s:"+jump)
	refused(t, second.start().Wait(), 4, "code: pipeline-busy")
	s.goes(f, first)
	first.Kill()

	f.env = second.env
	heir := f.start() // begins on the clock that was set
	s.goes(f, heir)
	s.remember()
	s.goes(f, heir)
	heir.Kill()
	f.env = plain // and the clock is right again
	closed()
	f.catchUp()
	judgeLake(t, s, f, false)
}
