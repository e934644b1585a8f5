package pipeline

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/lake"
	"github.com/leatdata/leat/internal/postgres"
)

// maintainAll compacts and expires beside the loop, table after table.
func (r *run) maintainAll(ctx context.Context) error {
	if r.o.Maintain <= 0 {
		return nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(r.o.Maintain):
		}
		for _, t := range r.live.all() {
			if err := r.maintainTable(ctx, t); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

func (r *run) maintainTable(ctx context.Context, t *table) error {
	done, err := t.lake.Maintain(ctx, r.o.MaintainTo)
	if err != nil {
		return fault.Wrap(err, codeOf(err), t.name, "cannot maintain the table")
	}
	if done != (lake.Maintained{}) {
		r.o.Log.Info("maintained", "table", t.name, "compacted", done.Compacted, "written", done.Written, "merged_deletes", done.MergedDeletes, "merged_manifests", done.MergedManifests,
			"expired", done.Snapshots, "removed", done.Removed)
	}
	return nil
}

// Swept is what Maintain has removed beside what it did table by table.
type Swept struct {
	Tables int   `json:"tables"`
	Files  int   `json:"files"`
	Bytes  int64 `json:"bytes"`
}

// Maintain does once what a run does in the background: it compacts and expires every table, and sweeps files that no
// table knows. It takes the pipeline's lease, so it is pipeline-busy beside a run.
func Maintain(ctx context.Context, source *postgres.Source, o Options, orphansOlderThan time.Duration) (did Swept, err error) {
	o.MaintainTo.Thorough = true
	r := &run{o: o, source: source, tables: map[string]*table{}, byOID: map[uint32]*table{}, stopping: new(atomic.Bool)}
	if err := r.takeLease(ctx); err != nil {
		return did, err
	}
	defer r.store.Close(context.WithoutCancel(ctx))
	if r.lake, err = o.Lake(ctx, r.store.Epoch()); err != nil {
		return did, err
	}
	defer r.close()
	catalog, err := source.Catalog(ctx)
	if err != nil {
		return did, err
	}
	chosen, err := catalog.Tables(ctx, o.Selection)
	if err != nil {
		return did, err
	}
	for _, table := range chosen {
		t, err := r.maintainOnce(ctx, catalog, table)
		if err != nil {
			return did, err
		}
		if t {
			did.Tables++
		}
	}
	did.Files, did.Bytes, err = r.lake.Sweep(ctx, orphansOlderThan)
	return did, err
}

// maintainOnce maintains a table that follows the log; others have no place in the lake yet, or one that a copy will replace.
func (r *run) maintainOnce(ctx context.Context, catalog *postgres.Catalog, source *change.Table) (bool, error) {
	if r.state.Tables[source.KeyName()].Phase != checkpoint.Streaming {
		return false, nil
	}
	t, _, err := r.newTable(source)
	if t == nil || err != nil {
		return false, err
	}
	plan, err := catalog.Plan(source, r.o.Policies)
	if err != nil {
		return false, err
	}
	if err := r.open(ctx, t, plan); err != nil {
		return false, err
	}
	r.tables[t.key] = t // closed with the run
	return true, r.maintainTable(ctx, t)
}
