package lake

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

func TestATablesTimeStandsStillWhileTheClockIsBehind(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	b := open(t, testLake(t, dir, nil), spec)
	for i := range change.LSN(3) {
		write(t, b, changes(t, spec, 0x100*(i+1), "c", `[{"id":1}]`), 0x100*(i+1)+1)
	}
	// As if all that had been written by a clock that was an hour ahead.
	const hour = 3_600_000
	ahead, err := withTimes(b.history.ice.now().Metadata(), func(_ string, at json.Number) json.Number {
		return json.Number(strconv.FormatInt(toMillis(at)+hour, 10))
	})
	if err != nil {
		t.Fatal(err)
	}
	props := []table.Update{table.NewSetPropertiesUpdate(iceberg.Properties{"seen": "yes"})}
	next, err := updated(ahead, props, "v4.metadata.json")
	if err != nil {
		t.Fatal(err)
	}
	if next.Properties()["seen"] != "yes" || next.LastUpdatedMillis() != ahead.LastUpdatedMillis() || next.LastUpdatedMillis() < time.Now().UnixMilli() {
		t.Errorf("it was changed at %d, and before at %d", next.LastUpdatedMillis(), ahead.LastUpdatedMillis())
	}
	var before, after []int64
	for e := range ahead.SnapshotLogs() {
		before = append(before, e.TimestampMs)
	}
	for e := range next.SnapshotLogs() {
		after = append(after, e.TimestampMs)
	}
	if len(before) != 3 || len(after) != 3 || before[0] != after[0] || before[2] != after[2] {
		t.Errorf("the log of snapshots was %v and is %v", before, after)
	}
	if again, err := updated(next, props, "v5.metadata.json"); err != nil || again.LastUpdatedMillis() != next.LastUpdatedMillis() {
		t.Errorf("once more: %v", err)
	}
}

func TestATableOfADatabasesCatalogIsWrittenWhileTheClockIsBehind(t *testing.T) {
	t.Parallel()
	db, dir := testlab.Postgres(t), t.TempDir()
	for kind, uri := range map[string]string{"sqlite": dir + "/catalog.db", "postgres": db.URL} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			spec := historySpec()
			place := dir + "/" + kind
			lake := func() *Lake {
				return testLake(t, place, func(o *Options) { o.Catalog = CatalogOptions{Kind: kind, URI: uri, Name: kind} })
			}
			first := open(t, lake(), spec)
			for i := range change.LSN(3) {
				write(t, first, changes(t, spec, 0x100*(i+1), "c", `[{"id":1}]`), 0x100*(i+1)+1)
			}
			// As if all that had been written by a clock that was an hour ahead.
			ice := first.history.ice
			ahead, err := withTimes(ice.now().Metadata(), func(_ string, at json.Number) json.Number {
				return json.Number(strconv.FormatInt(toMillis(at)+3_600_000, 10))
			})
			if err != nil {
				t.Fatal(err)
			}
			data, err := json.Marshal(ahead)
			if err == nil {
				err = os.WriteFile(strings.TrimPrefix(ice.now().MetadataLocation(), "file://"), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			b := open(t, lake(), spec)
			for i, d := range []delta{{props: iceberg.Properties{"seen": "yes"}}, {updates: []table.Update{table.NewRemoveSnapshotsUpdate([]int64{ahead.Snapshots()[0].SnapshotID}, false)}}} {
				if err := b.history.ice.commit(t.Context(), d); err != nil {
					t.Fatalf("commit %d: %v", i, err)
				}
			}
			write(t, b, changes(t, spec, 0x400, "c", `[{"id":2}]`), 0x410)
			again := open(t, lake(), spec)
			live, _, err := again.history.ice.live(t.Context())
			if err != nil || len(live) != 4 || again.Position() != 0x410 || again.history.ice.property("seen") != "yes" {
				t.Errorf("it has %d files, stands at %s, and %v", len(live), again.Position(), err)
			}
		})
	}
}
