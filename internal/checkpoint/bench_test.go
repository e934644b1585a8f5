package checkpoint_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
)

// manyTables are states of tables that follow the log.
func manyTables(n int) map[string]checkpoint.TableState {
	tables := map[string]checkpoint.TableState{}
	for i := range n {
		name := fmt.Sprintf("table_%d", i)
		tables["public."+name] = checkpoint.TableState{
			Schema: "public", Table: name, Phase: checkpoint.Streaming, OID: uint32(20000 + i),
			Facts:  fmt.Sprintf("16500/740 %d/741 1 d %d abcabcabc #%d %[2]d:0:0:739:%[2]d:%[2]d:123456789:1", 17000+i, 20000+i, 1234567*i),
			Tended: time.Date(2026, 11, 30, 12, 0, i%60, 0, time.UTC),
		}
	}
	return tables
}

// A save at each commit, of which 30 tables had maintenance since the last.
func BenchmarkSave(b *testing.B) {
	for _, n := range []int{30, 3000} {
		for _, busy := range []int{0, 30} {
			for _, place := range []string{"mem://", b.TempDir()} {
				b.Run(fmt.Sprintf("%d tables, %d changed, %.6s", n, busy, place), func(b *testing.B) {
					t, err := bucket.Open(b.Context(), place, bucket.Options{})
					must(b, err)
					defer t.Close()
					s, err := checkpoint.Open(b.Context(), t, fmt.Sprintf("p%d-%d", n, busy), checkpoint.Options{TTL: time.Hour})
					must(b, err)
					defer s.Close(context.Background())
					state := checkpoint.State{Tables: manyTables(n)}
					must(b, s.Save(b.Context(), state))
					for at := 0; b.Loop(); at++ {
						for i := range busy {
							name := fmt.Sprintf("public.table_%d", i)
							was := state.Tables[name]
							was.Tended = was.Tended.Add(time.Minute)
							state.Tables[name] = was
						}
						state.Position = change.LSN(at)
						must(b, s.Save(b.Context(), state))
					}
				})
			}
		}
	}
}
