package postgres_test

import (
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/postgres"
)

func TestAChunkIsSmallEnoughForEveryConnectionToHaveWorkToTheEnd(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, c := range []struct {
		name       string
		tables     []int64 // MiB of heap
		chunks     int
		most, want int64 // MiB
	}{
		{"of much, as large as it may be", []int64{10_000, 10_000}, 4, 256, 256},
		{"of little, as many as are wanted", []int64{500, 300}, 8, 256, 100},
		{"but no smaller than is worth a file", []int64{100}, 4, 256, 64},
		{"unless smaller ones are asked for", []int64{100}, 4, 1, 1},
		{"of nothing", nil, 4, 256, 64},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sn := &postgres.Snapshot{}
			for _, heap := range c.tables {
				sn.Tables = append(sn.Tables, &change.Table{Bytes: heap * mib})
			}
			if got := sn.ChunkBytes(c.chunks, c.most*mib); got != c.want*mib {
				t.Errorf("chunks of %d bytes, not %d MiB", got, c.want)
			}
		})
	}
}
