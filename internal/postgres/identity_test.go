package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// A standby that lagged is promoted: what its primary had logged beyond is gone, whatever is logged later.
func TestAServerThatHasGoneBackIsKnown(t *testing.T) {
	t.Parallel()
	for _, major := range []int{12, 17} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			primary := testlab.OwnPostgres(t, testlab.ServerOptions{Major: major})
			primary.Exec("create table leat_t (id int, filler text)")
			standby := primary.Standby()
			primary.CatchUp(standby)
			at := func(db *testlab.DB) change.LSN {
				lsn, err := change.ParseLSN(db.One("select pg_current_wal_flush_lsn()"))
				must(t, err)
				return lsn
			}
			both := at(primary)
			standby.Server.Stop()
			primary.Exec("insert into leat_t select i, repeat('x', 1000) from generate_series(1, 1000) i")
			lost := at(primary)
			primary.Server.Stop()
			must(t, standby.Server.Start())
			has := func(where change.LSN, timeline int, want fault.Code, says string) {
				t.Helper()
				id, err := sourceOf(t, standby).Identify(t.Context())
				must(t, err)
				if err = id.Has(where, timeline); want == "" && err != nil || want != "" && (!fault.Is(err, want) || !strings.Contains(err.Error(), says)) {
					t.Errorf("%s of timeline %d: %v", where, timeline, err)
				}
			}
			has(lost, 1, fault.SourceUnreachable, "the standby has come to")
			has(both, 1, "", "")
			standby.Exec("select pg_promote()")
			has(lost, 1, fault.SlotLost, "its log ends at")
			has(both, 1, "", "")
			standby.Exec("insert into leat_t select i, repeat('x', 1000) from generate_series(1, 2000) i")
			has(lost, 1, fault.SlotLost, "its log left timeline 1 at")
			has(lost, 2, "", "")
			has(lost, 0, "", "")
			has(lost, 7, fault.SlotLost, "nothing tells that this comes from 7")
			has(both, 1, "", "")
		})
	}
}
