package pipeline

import (
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
)

func TestWhoeverLostTheLeaseDoesNoUpkeep(t *testing.T) {
	t.Parallel()
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	r := &run{}
	if r.store, err = checkpoint.Open(t.Context(), b, "p", checkpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	r.store.Close(t.Context())
	if err := r.maintainTable(t.Context(), &table{name: "orders"}); !fault.Is(err, fault.PipelineFenced) { // there is no table in the lake to tend
		t.Errorf("got %v", err)
	}
}
