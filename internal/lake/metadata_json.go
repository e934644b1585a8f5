package lake

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
)

// metadataHead is a metadata file of version 2 or 3 without its snapshots and their log:
// https://iceberg.apache.org/spec/#table-metadata-fields.
type metadataHead struct {
	FormatVersion       int                             `json:"format-version"`
	UUID                uuid.UUID                       `json:"table-uuid"`
	Location            string                          `json:"location"`
	LastUpdated         int64                           `json:"last-updated-ms"`
	LastColumn          int                             `json:"last-column-id"`
	Schemas             []*iceberg.Schema               `json:"schemas"`
	CurrentSchema       int                             `json:"current-schema-id"`
	Specs               []iceberg.PartitionSpec         `json:"partition-specs"`
	DefaultSpec         int                             `json:"default-spec-id"`
	LastPartition       *int                            `json:"last-partition-id,omitempty"`
	Properties          iceberg.Properties              `json:"properties,omitempty"`
	CurrentSnapshot     int64                           `json:"current-snapshot-id"`
	MetadataLog         []table.MetadataLogEntry        `json:"metadata-log,omitempty"`
	SortOrders          []table.SortOrder               `json:"sort-orders"`
	DefaultSortOrder    int                             `json:"default-sort-order-id"`
	Refs                map[string]table.SnapshotRef    `json:"refs,omitempty"`
	Statistics          []table.StatisticsFile          `json:"statistics,omitempty"`
	PartitionStatistics []table.PartitionStatisticsFile `json:"partition-statistics,omitempty"`
	EncryptionKeys      []table.EncryptionKey           `json:"encryption-keys,omitempty"`
	LastSequenceNumber  int64                           `json:"last-sequence-number"`
	NextRowID           *int64                          `json:"next-row-id,omitempty"`
}

// encodeMetadata is json.Marshal of a table's metadata. Snapshots are most of it, and a commit changes one of hundreds:
// they are written without reflection, so that a commit to a table with a long past takes no longer than the first
// ones.
func encodeMetadata(m table.Metadata) ([]byte, error) {
	current := m.CurrentSnapshot()
	if m.Version() < 2 || current == nil {
		return json.Marshal(m)
	}
	snapshots := m.Snapshots()
	head := metadataHead{
		FormatVersion: m.Version(), UUID: m.TableUUID(), Location: m.Location(), LastUpdated: m.LastUpdatedMillis(), LastColumn: m.LastColumnID(),
		Schemas: m.Schemas(), CurrentSchema: m.CurrentSchema().ID, Specs: m.PartitionSpecs(), DefaultSpec: m.DefaultPartitionSpec(),
		LastPartition: m.LastPartitionSpecID(), Properties: m.Properties(), CurrentSnapshot: current.SnapshotID,
		MetadataLog: slices.Collect(m.PreviousFiles()), SortOrders: m.SortOrders(), DefaultSortOrder: m.DefaultSortOrder(), Refs: maps.Collect(m.Refs()),
		Statistics: slices.Collect(m.Statistics()), PartitionStatistics: slices.Collect(m.PartitionStatistics()),
		EncryptionKeys: slices.Collect(m.EncryptionKeys()), LastSequenceNumber: m.LastSequenceNumber(),
	}
	if m.Version() >= 3 {
		next := m.NextRowID()
		head.NextRowID = &next
	}
	out, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	e := snapshotEncoder{out: append(slices.Grow(out, 900*len(snapshots))[:len(out)-1], `,"snapshots":[`...)}
	for i := range snapshots {
		if err := e.snapshot(&snapshots[i]); err != nil {
			return nil, err
		}
	}
	e.end(`],"snapshot-log":[`)
	for entry := range m.SnapshotLogs() {
		e.out = strconv.AppendInt(append(e.out, `{"snapshot-id":`...), entry.SnapshotID, 10)
		e.number("timestamp-ms", &entry.TimestampMs)
		e.out = append(e.out, "},"...)
	}
	e.end("]}\n")
	return e.out, nil
}

// snapshotEncoder writes lists whose elements end in a comma, until end takes the last one away.
type snapshotEncoder struct {
	out   []byte
	names []string // of a summary, in order
}

func (e *snapshotEncoder) end(text string) {
	if last := len(e.out) - 1; e.out[last] == ',' {
		e.out = e.out[:last]
	}
	e.out = append(e.out, text...)
}

// snapshot adds a snapshot as the library encodes it.
func (e *snapshotEncoder) snapshot(s *table.Snapshot) error {
	if s.ManifestLocations != nil && s.ManifestList == "" { // of version 1
		one, err := json.Marshal(s)
		e.out = append(append(e.out, one...), ',')
		return err
	}
	e.out = strconv.AppendInt(append(e.out, `{"snapshot-id":`...), s.SnapshotID, 10)
	e.number("parent-snapshot-id", s.ParentSnapshotID)
	e.number("sequence-number", &s.SequenceNumber)
	e.number("timestamp-ms", &s.TimestampMs)
	if s.ManifestList != "" {
		e.out = appendText(append(e.out, `,"manifest-list":`...), s.ManifestList)
	}
	if s.Summary != nil {
		e.summary(s.Summary)
	}
	if s.SchemaID != nil {
		id := int64(*s.SchemaID)
		e.number("schema-id", &id)
	}
	e.number("first-row-id", s.FirstRowID)
	e.number("added-rows", s.AddedRows)
	e.out = append(e.out, "},"...)
	return nil
}

func (e *snapshotEncoder) summary(s *table.Summary) {
	e.out = append(e.out, `,"summary":{`...)
	e.names = e.names[:0]
	for name := range s.Properties {
		if name != "operation" || s.Operation == "" {
			e.names = append(e.names, name)
		}
	}
	slices.Sort(e.names)
	if s.Operation != "" {
		e.out = append(appendText(append(e.out, `"operation":`...), string(s.Operation)), ',')
	}
	for _, name := range e.names {
		e.out = append(appendText(e.out, name), ':')
		e.out = append(appendText(e.out, s.Properties[name]), ',')
	}
	e.end("}")
}

// number adds a field that follows another one, unless there is no number.
func (e *snapshotEncoder) number(name string, n *int64) {
	if n != nil {
		e.out = strconv.AppendInt(append(append(append(e.out, `,"`...), name...), `":`...), *n, 10)
	}
}

// appendText adds a JSON string.
func appendText(out []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // a string always encodes
			return append(out, text...)
		}
	}
	return append(append(append(out, '"'), s...), '"')
}
