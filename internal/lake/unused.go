package lake

import (
	"context"
	"maps"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
)

// addStatistics adds the statistics of snapshots that go, which the catalog forgets with them.
func addStatistics(meta table.Metadata, gone []table.Snapshot, to objects) {
	goes := make(map[int64]bool, len(gone))
	for _, s := range gone {
		goes[s.SnapshotID] = true
	}
	for s := range meta.Statistics() {
		if goes[s.SnapshotID] {
			to.add(s.StatisticsPath)
		}
	}
	for s := range meta.PartitionStatistics() {
		if goes[s.SnapshotID] {
			to.add(s.StatisticsPath)
		}
	}
}

// dropUnused takes what no snapshot needs any more out of the metadata: schemas, partition specs, statistics of snapshots that another program
// has expired. Where the catalog refuses that, they stay.
func (t *icebergTable) dropUnused(ctx context.Context) error {
	if t.lake.keepsUnused.Load() {
		return nil
	}
	updates, err := t.unused(ctx)
	if err != nil || len(updates) == 0 {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.broken != nil {
		return t.broken
	}
	base, mark := t.now().Metadata(), fresh()
	props := iceberg.Properties{propCommit: mark, propPipeline: t.lake.Pipeline, propEpoch: strconv.FormatInt(t.lake.Epoch, 10)}
	reqs := []table.Requirement{
		table.AssertTableUUID(base.TableUUID()), table.AssertRefSnapshotID(table.MainBranch, currentID(base)),
		table.AssertCurrentSchemaID(base.CurrentSchema().ID), table.AssertDefaultSpecID(base.DefaultPartitionSpec()),
	}
	meta, location, err := t.lake.catalog.CommitTable(ctx, slices.Clone(t.ident), reqs, append(updates, table.NewSetPropertiesUpdate(props)))
	if err == nil {
		t.adopt(meta, location)
		t.removeOldVersions(ctx, base, meta)
		return nil
	}
	if t.refuses(ctx, mark) {
		t.lake.keepsUnused.Store(true)
		t.lake.Log.Info("the catalog does not take schemas out of a table that nothing uses; they stay", "table", t.where(), "error", err)
		return nil
	}
	t.broken = t.judge(ctx, mark, err)
	return t.broken
}

// refuses says that a commit has not taken place, and not because another one was first. Servers that do not know an update answer by any status, some
// as if they were not there; so the table is what counts.
func (t *icebergTable) refuses(ctx context.Context, mark string) bool {
	if ctx.Err() != nil {
		return false
	}
	now, err := t.lake.catalog.LoadTable(ctx, slices.Clone(t.ident))
	return err == nil && now.Properties()[propCommit] != mark && !changed(t.now(), now)
}

// unused finds what nothing needs. A number that is higher than that of what is in use stays: the next one is counted from it.
func (t *icebergTable) unused(ctx context.Context) (updates []table.Update, err error) {
	meta := t.now().Metadata()
	schemas := map[int]bool{}
	for _, s := range meta.Snapshots() {
		if s.SchemaID != nil {
			schemas[*s.SchemaID] = true
		}
	}
	var old []int
	for _, s := range meta.Schemas() {
		if s.ID < meta.CurrentSchema().ID && !schemas[s.ID] {
			old = append(old, s.ID)
		}
	}
	if len(old) > 0 {
		updates = append(updates, table.NewRemoveSchemasUpdate(old))
	}
	specs, err := t.unusedSpecs(ctx, meta)
	if err != nil {
		return nil, err
	}
	if len(specs) > 0 {
		updates = append(updates, table.NewRemoveSpecUpdate(specs))
	}
	for s := range meta.Statistics() {
		if meta.SnapshotByID(s.SnapshotID) == nil {
			updates = append(updates, table.NewRemoveStatisticsUpdate(s.SnapshotID))
		}
	}
	for s := range meta.PartitionStatistics() {
		if meta.SnapshotByID(s.SnapshotID) == nil {
			updates = append(updates, table.NewRemovePartitionStatisticsUpdate(s.SnapshotID))
		}
	}
	return updates, nil
}

// unusedSpecs are the partition specs that no snapshot has manifests of. One that needs a spec is asked once: what is there later needs it as
// long as that snapshot stays.
func (t *icebergTable) unusedSpecs(ctx context.Context, meta table.Metadata) ([]int, error) {
	maps.DeleteFunc(t.specUsers, func(_ int, id int64) bool { return meta.SnapshotByID(id) == nil })
	open := map[int]bool{}
	for _, spec := range meta.PartitionSpecs() {
		if _, used := t.specUsers[spec.ID()]; !used && spec.ID() < meta.DefaultPartitionSpec() {
			open[spec.ID()] = true
		}
	}
	for _, m := range t.manifestsNow() {
		delete(open, int(m.PartitionSpecID()))
	}
	all := bySequence(meta)
	slices.Reverse(all) // the newest stays longest
	for _, s := range all {
		if len(open) == 0 {
			break
		}
		list, err := t.manifestsOf(ctx, s)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if id := int(m.PartitionSpecID()); open[id] {
				if t.specUsers == nil {
					t.specUsers = map[int]int64{}
				}
				t.specUsers[id] = s.SnapshotID
				delete(open, id)
			}
		}
	}
	return slices.Sorted(maps.Keys(open)), nil
}
