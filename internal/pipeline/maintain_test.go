package pipeline

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
)

// brokenOff is a table whose upkeep was ended in the middle of a commit.
type brokenOff struct{ lake.Table }

func (brokenOff) Maintain(context.Context, lake.MaintainOptions) (lake.Maintained, error) {
	return lake.Maintained{}, fault.New(fault.Interrupted, "orders", "stopped: context canceled")
}

// leased is a run that has the lease of a pipeline.
func leased(t *testing.T) *run {
	t.Helper()
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	r := &run{o: Options{Log: slog.New(slog.DiscardHandler), Maintain: time.Hour}}
	if r.store, err = checkpoint.Open(t.Context(), b, "p", checkpoint.Options{}); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestUpkeepThatTheEndOfTheLoopBrokeOffIsNoFailureOfTheRun(t *testing.T) {
	t.Parallel()
	r := leased(t)
	defer r.store.Close(context.WithoutCancel(t.Context()))
	r.live.put(&table{name: "orders", lake: brokenOff{}})
	if err := r.tendDue(t.Context(), time.Minute); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestWhoeverLostTheLeaseDoesNoUpkeep(t *testing.T) {
	t.Parallel()
	r := leased(t)
	r.store.Close(t.Context())
	if err := r.maintainTable(t.Context(), &table{name: "orders"}); !fault.Is(err, fault.PipelineFenced) { // there is no table in the lake to tend
		t.Errorf("got %v", err)
	}
}

func TestWhatFailsOnceThePipelineIsAnothersIsToldAsThat(t *testing.T) {
	t.Parallel()
	r := leased(t)
	gone := fault.New(fault.ObjectMissing, "spool", "there is no such object")
	if err := r.unlessFenced(t.Context(), gone); !fault.Is(err, fault.ObjectMissing) {
		t.Errorf("while the pipeline is ours: got %v", err)
	}
	r.store.Close(t.Context())
	if err := r.unlessFenced(t.Context(), gone); !fault.Is(err, fault.PipelineFenced) {
		t.Errorf("once it is not: got %v", err)
	}
	if err := r.unlessFenced(t.Context(), nil); err != nil {
		t.Errorf("what did not fail: got %v", err)
	}
}

func TestARunThatIsToEndDoesNoUpkeepBesideItsFirstMinute(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ends            bool
		interval, first time.Duration
	}{
		{true, time.Minute, time.Minute},
		{true, time.Second, time.Second},
		{false, time.Minute, 10 * time.Second},
		{false, time.Second, time.Second},
	} {
		r := &run{o: Options{UntilCaughtUp: c.ends, Maintain: c.interval}}
		if got := r.firstUpkeep(); got != c.first {
			t.Errorf("a run that ends by itself (%t), every %s: upkeep begins after %s, not %s", c.ends, c.interval, got, c.first)
		}
	}
}
