package lake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
)

// usual is what lake.snapshots has unless it is set.
var usual = Retention{Keep: 100, Minutely: time.Hour, Hourly: 24 * time.Hour, Daily: 720 * time.Hour, Grace: 24 * time.Hour}

func schemaIDs(meta table.Metadata) (ids []int) {
	for _, s := range meta.Schemas() {
		ids = append(ids, s.ID)
	}
	return ids
}

// widen has another program give the table one more definition, and in part of the cases another partition spec.
func widen(t *testing.T, ice *icebergTable, also ...table.Update) {
	t.Helper()
	now := ice.now().Metadata()
	fields := append(now.CurrentSchema().Fields(), iceberg.NestedField{ID: now.LastColumnID() + 1, Name: fmt.Sprint("more_", now.LastColumnID()), Type: iceberg.PrimitiveTypes.String})
	_, _, err := ice.lake.catalog.CommitTable(t.Context(), ice.ident, nil, append([]table.Update{
		addSchema(iceberg.NewSchema(now.CurrentSchema().ID+1, fields...), now.LastColumnID()+1), table.NewSetCurrentSchemaUpdate(-1)}, also...))
	if err != nil {
		t.Fatal(err)
	}
	if err := ice.load(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWhatNoSnapshotNeedsLeavesTheMetadata(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.insert(t, 1)
	ice := b.table.current.t
	first := ice.now().Metadata().CurrentSnapshot().SnapshotID
	stats := table.StatisticsFile{SnapshotID: first, StatisticsPath: b.lake.url("public/orders/metadata/s.puffin"), BlobMetadata: []table.BlobMetadata{}}
	if _, err := bucket.WriteAll(t.Context(), b.lake.Bucket, "public/orders/metadata/s.puffin", []byte("PFA1"), bucket.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	spec := iceberg.NewPartitionSpecID(1, iceberg.PartitionField{SourceIDs: []int{1}, FieldID: 1000, Name: "id_bucket", Transform: iceberg.BucketTransform{NumBuckets: 4}})
	widen(t, ice, table.NewSetStatisticsUpdate(stats))
	widen(t, ice) // a definition that no snapshot ever had
	widen(t, ice, table.NewAddPartitionSpecUpdate(&spec, false), table.NewSetDefaultSpecUpdate(-1))
	wide := ice.now().Metadata().CurrentSchema().ID
	next := *ice.now().Metadata().CurrentSnapshot()
	next.SnapshotID, next.ParentSnapshotID, next.SequenceNumber, next.TimestampMs, next.SchemaID = 77, &first, next.SequenceNumber+1, next.TimestampMs+1, &wide
	if err := ice.commitOnce(t.Context(), delta{updates: []table.Update{table.NewAddSnapshotUpdate(&next), table.NewSetSnapshotRefUpdate(table.MainBranch, 77, table.BranchRef, 0, 0, 0)}}); err != nil {
		t.Fatal(err)
	}
	if err := ice.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ice.dropUnused(t.Context()); err != nil {
		t.Fatal(err)
	}
	meta := ice.now().Metadata()
	if got := schemaIDs(meta); !slices.Equal(got, []int{0, wide}) || len(meta.PartitionSpecs()) != 2 {
		t.Errorf("with a snapshot of the first definition there are schemas %d and %d specs", got, len(meta.PartitionSpecs()))
	}
	b.maintain(t, Retention{Keep: 1})
	meta = ice.now().Metadata()
	if got := schemaIDs(meta); !slices.Equal(got, []int{wide}) || len(meta.PartitionSpecs()) != 2 {
		t.Errorf("without it there are schemas %d, and %d specs, of which a manifest has the first", got, len(meta.PartitionSpecs()))
	}
	for s := range meta.Statistics() {
		t.Errorf("statistics of snapshot %d are left", s.SnapshotID)
	}
	if n := count(t, b.lake, "public/orders/metadata/s.puffin"); n != 0 {
		t.Error("the file of statistics is left")
	}
	if len(ice.specUsers) != 0 { // the current snapshot has it in memory
		t.Errorf("snapshots were asked for specs: %v", ice.specUsers)
	}
	if got := len(b.rows(t)); got != 1 {
		t.Errorf("%d rows", got)
	}
}

// refusing is a catalog that does not know how to remove schemas.
type refusing struct {
	tables
	asked int
}

func (c *refusing) CommitTable(ctx context.Context, ident table.Identifier, reqs []table.Requirement, updates []table.Update) (table.Metadata, string, error) {
	if slices.ContainsFunc(updates, func(u table.Update) bool { return u.Action() == table.UpdateRemoveSchemas }) {
		c.asked++
		return nil, "", errors.New("400 Bad Request: unknown update")
	}
	return c.tables.CommitTable(ctx, ident, reqs, updates)
}

func TestACatalogThatRemovesNoSchemasStopsNothing(t *testing.T) {
	t.Parallel()
	b := newCurrentBed(t, 2, false)
	b.insert(t, 1)
	widen(t, b.table.current.t)
	b.reopen(t, false)
	catalog := &refusing{tables: b.lake.catalog}
	b.lake.catalog = catalog
	for id := range int64(3) {
		b.insert(t, id+2)
		b.maintain(t, Retention{Keep: 1})
	}
	meta := b.table.current.t.now().Metadata()
	if got := len(b.rows(t)); got != 4 || len(meta.Schemas()) != 2 || len(meta.Snapshots()) != 1 || catalog.asked != 1 {
		t.Errorf("%d rows, schemas %d, %d snapshots; the catalog was asked %d times", got, schemaIDs(meta), len(meta.Snapshots()), catalog.asked)
	}
}

func TestOtherEnginesAreToldWhichSnapshotsStay(t *testing.T) {
	t.Parallel()
	dir, spec := t.TempDir(), historySpec()
	told := func(r Retention, commit bool) (age, least string) {
		l := testLake(t, dir, func(o *Options) { o.Snapshots = r })
		held := open(t, l, spec)
		defer held.Close()
		if commit {
			at := held.Position() + 0x100
			write(t, held, changes(t, spec, at, "c", `[{"id":1}]`), at+8)
		}
		p := held.history.ice.now().Properties()
		return p["history.expire.max-snapshot-age-ms"], p["history.expire.min-snapshots-to-keep"]
	}
	for i, c := range []struct {
		r          Retention
		commit     bool
		age, least string
	}{
		{usual, true, "2592000000", "100"},
		{Retention{Keep: 7, All: time.Hour}, false, "2592000000", "100"},
		{Retention{Keep: 7, All: time.Hour}, true, "3600000", "7"},
		{Retention{Keep: 7}, true, "1", "7"},
		{Retention{}, true, "1", "7"},
	} {
		if age, least := told(c.r, c.commit); age != c.age || least != c.least {
			t.Errorf("case %d: %s ms and %s snapshots", i, age, least)
		}
	}
}

// The metadata of a table that changes all the time, at the usual settings.
func TestMetadataStaysSmall(t *testing.T) {
	t.Parallel()
	spec := bothSpec()
	location := "s3://a-bucket-of-a-usual-name/production/lake"
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), Options{Bucket: b, Location: location, Pipeline: "production", Epoch: 1234, WorkDir: t.TempDir(), Snapshots: usual})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held := open(t, l, spec)
	for i := range 24 {
		at := change.LSN(0x1A2_3B4C_5D00 + 0x100*i)
		write(t, held, changes(t, spec, at, "cu", fmt.Sprintf(`[{"id":%d},{"id":%d,"name":"x"}]`, i, i/2)), at+0x10)
	}
	for _, ice := range []*icebergTable{held.history.ice, held.current.t} {
		meta := longUsed(t, ice.now().Metadata())
		keep, _ := usual.split(meta)
		if most := 100 + 60 + 24 + 30; len(keep) > most || len(keep) < most-6 {
			t.Errorf("%s: %d snapshots stay", ice.where(), len(keep))
		}
		each := (size(t, meta) - size(t, withoutSnapshots(t, meta))) / len(meta.Snapshots())
		all := size(t, withoutSnapshots(t, meta)) + each*(len(keep)+usual.slack())
		t.Logf("%s: %d bytes a snapshot with its entry in the log, %d bytes in all", ice.where(), each, all)
		if all > 200_000 {
			s, _ := json.Marshal(meta.CurrentSnapshot())
			t.Errorf("%s: the metadata has %d bytes, %d a snapshot: %s", ice.where(), all, each, s)
		}
	}
}

// longUsed gives a table the snapshots of forty days: each half a second of the last minute, each half a minute before, each ten minutes, each
// four hours.
func longUsed(t *testing.T, meta table.Metadata) table.Metadata {
	t.Helper()
	now := time.Now()
	var ages []time.Duration
	for age := 40 * 24 * time.Hour; age > 3*24*time.Hour; age -= 4 * time.Hour {
		ages = append(ages, age)
	}
	for age := 3 * 24 * time.Hour; age > 2*time.Hour; age -= 10 * time.Minute {
		ages = append(ages, age)
	}
	for age := 2 * time.Hour; age > time.Minute; age -= 30 * time.Second {
		ages = append(ages, age)
	}
	for age := time.Minute; age > 0; age -= 500 * time.Millisecond {
		ages = append(ages, age)
	}
	last := *meta.CurrentSnapshot()
	data, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	var snapshots, log []any
	for i, age := range ages {
		s := last
		s.SnapshotID, s.SequenceNumber, s.TimestampMs = int64(1_000_000_000_000_000_000+i), int64(i+1), now.Add(-age).UnixMilli()
		if i > 0 {
			s.ParentSnapshotID = new(s.SnapshotID - 1)
		}
		summary := *last.Summary
		summary.Properties = maps.Clone(summary.Properties)
		for key, v := range summary.Properties { // of a table that has grown
			if strings.HasPrefix(key, "total-") {
				summary.Properties[key] = strconv.Itoa(len(v) + 123_456_789)
			}
		}
		s.Summary = &summary
		snapshots = append(snapshots, s)
		log = append(log, table.SnapshotLogEntry{SnapshotID: s.SnapshotID, TimestampMs: s.TimestampMs})
	}
	head := 1_000_000_000_000_000_000 + len(ages) - 1
	doc["snapshots"], doc["snapshot-log"], doc["current-snapshot-id"], doc["last-sequence-number"] = snapshots, log, head, len(ages)
	doc["refs"] = map[string]any{"main": map[string]any{"snapshot-id": head, "type": "branch"}}
	doc["last-updated-ms"] = now.UnixMilli()
	data, err = json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	long, err := table.ParseMetadataBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	return long
}

// withoutSnapshots is the metadata with the current snapshot alone.
func withoutSnapshots(t *testing.T, meta table.Metadata) table.Metadata {
	t.Helper()
	var ids []int64
	for _, s := range meta.Snapshots() {
		if s.SnapshotID != meta.CurrentSnapshot().SnapshotID {
			ids = append(ids, s.SnapshotID)
		}
	}
	meta, err := updated(meta, []table.Update{table.NewRemoveSnapshotsUpdate(ids, false)}, "")
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

// size is how many bytes the metadata has as it is written.
func size(t *testing.T, meta table.Metadata) int {
	t.Helper()
	data, err := json.Marshal(meta)
	if err != nil {
		t.Fatal(err)
	}
	return len(data)
}
