package lake

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"iter"
	"math"
	"strconv"
	"sync"

	"github.com/apache/iceberg-go"
	iceio "github.com/apache/iceberg-go/io"
	"github.com/apache/iceberg-go/table"
)

// manifestList writes the list of a snapshot's manifests, and gives those numbers that have none yet.
type manifestList struct {
	meta     table.Metadata
	snapshot int64
	parent   *int64
	seq      int64
	firstRow int64 // of the snapshot
}

// listSchemas are the Avro schemas of lists as the library writes them, by version.
var listSchemas = map[int]func() (string, error){
	2: sync.OnceValues(func() (string, error) {
		var sample bytes.Buffer
		if _, err := iceberg.NewManifestListWriterV2(&sample, 1, 1, nil); err != nil {
			return "", err
		}
		return schemaIn(&sample)
	}),
	3: sync.OnceValues(func() (string, error) {
		var sample bytes.Buffer
		if _, err := iceberg.NewManifestListWriterV3(&sample, 1, 1, 0, nil); err != nil {
			return "", err
		}
		return schemaIn(&sample)
	}),
}

// write gives the list's file, the manifests as readers of it see them, and how many rows got ids.
func (l *manifestList) write(files []iceberg.ManifestFile) (data []byte, listed []iceberg.ManifestFile, rows int64, err error) {
	version := l.meta.Version()
	schema, ok := listSchemas[version]
	if !ok {
		return nil, nil, 0, fmt.Errorf("lists of manifests of format version %d are not written", version)
	}
	text, err := schema()
	if err != nil {
		return nil, nil, 0, err
	}
	parent := "null"
	if l.parent != nil {
		parent = strconv.FormatInt(*l.parent, 10)
	}
	head := []avroMeta{{"format-version", strconv.Itoa(version)}, {"snapshot-id", strconv.FormatInt(l.snapshot, 10)},
		{"sequence-number", strconv.FormatInt(l.seq, 10)}, {"parent-snapshot-id", parent}}
	if version >= 3 {
		head = append(head, avroMeta{"first-row-id", strconv.FormatInt(l.firstRow, 10)})
	}
	w, next := newAvroWriter(text, head...), l.firstRow
	for _, m := range files {
		if m.Version() > version {
			return nil, nil, 0, fmt.Errorf("the manifest %s has format version %d, the table %d", m.FilePath(), m.Version(), version)
		}
		if m, err = l.numbered(m); err != nil {
			return nil, nil, 0, err
		}
		if version >= 3 && m.ManifestContent() == iceberg.ManifestContentData && m.FirstRowID() == nil {
			at := next
			if next, err = rowsFrom(next, m); err != nil {
				return nil, nil, 0, err
			}
			m = rowNumbered{m, at}
		}
		w.block = l.appendManifest(w.block, m)
		if err := w.done(); err != nil {
			return nil, nil, 0, err
		}
		listed = append(listed, m)
	}
	data, err = w.close()
	return data, listed, next - l.firstRow, err
}

// numbered gives a manifest of this snapshot its sequence numbers.
func (l *manifestList) numbered(m iceberg.ManifestFile) (iceberg.ManifestFile, error) {
	seq, least := m.SequenceNum(), m.MinSequenceNum()
	if seq != -1 && least != -1 {
		return m, nil
	}
	if m.SnapshotID() != l.snapshot {
		return nil, fmt.Errorf("the manifest %s of snapshot %d has no sequence number", m.FilePath(), m.SnapshotID())
	}
	if seq == -1 {
		seq = l.seq
	}
	if least == -1 {
		least = l.seq
	}
	return iceberg.NewManifestFile(m.Version(), m.FilePath(), m.Length(), m.PartitionSpecID(), m.SnapshotID()).
		Content(m.ManifestContent()).SequenceNum(seq, least).Partitions(m.Partitions()).KeyMetadata(m.KeyMetadata()).
		AddedFiles(m.AddedDataFiles()).ExistingFiles(m.ExistingDataFiles()).DeletedFiles(m.DeletedDataFiles()).
		AddedRows(m.AddedRows()).ExistingRows(m.ExistingRows()).DeletedRows(m.DeletedRows()).Build(), nil
}

// rowsFrom is the first row id behind a manifest's rows.
func rowsFrom(first int64, m iceberg.ManifestFile) (int64, error) {
	added, existing := m.AddedRows(), m.ExistingRows()
	if added < 0 || existing < 0 {
		return 0, fmt.Errorf("the manifest %s does not tell how many rows it has, so they get no ids", m.FilePath())
	}
	if existing > math.MaxInt64-first || added > math.MaxInt64-first-existing {
		return 0, fmt.Errorf("there are no row ids left for the manifest %s", m.FilePath())
	}
	return first + existing + added, nil
}

// appendManifest appends a record of the list, whose fields come in this order.
func (l *manifestList) appendManifest(b []byte, m iceberg.ManifestFile) []byte {
	b = appendAvroString(b, m.FilePath())
	for _, n := range []int64{m.Length(), int64(m.PartitionSpecID()), int64(m.ManifestContent()), m.SequenceNum(), m.MinSequenceNum(), m.SnapshotID(),
		int64(m.AddedDataFiles()), int64(m.ExistingDataFiles()), int64(m.DeletedDataFiles())} {
		b = binary.AppendVarint(b, n)
	}
	b = l.appendSummaries(b, m)
	for _, n := range []int64{m.AddedRows(), m.ExistingRows(), m.DeletedRows()} {
		b = binary.AppendVarint(b, n)
	}
	key := m.KeyMetadata()
	b = appendAvroOptionalBytes(b, key, key != nil)
	if l.meta.Version() >= 3 {
		b = appendAvroOptional(b, m.FirstRowID())
	}
	return b
}

// appendSummaries appends what a manifest tells of its partitions. One without partitions has an empty list: there are
// readers that take no null. The library does not tell the two apart.
func (l *manifestList) appendSummaries(b []byte, m iceberg.ManifestFile) []byte {
	summaries := m.Partitions()
	if len(summaries) == 0 {
		if spec := l.meta.PartitionSpecByID(int(m.PartitionSpecID())); summaries == nil && (spec == nil || spec.NumFields() > 0) {
			return append(b, avroNull)
		}
		return append(b, avroSome, 0)
	}
	b = binary.AppendVarint(append(b, avroSome), int64(len(summaries)))
	for _, s := range summaries {
		b = appendAvroBool(b, s.ContainsNull)
		if s.ContainsNaN == nil {
			b = append(b, avroNull)
		} else {
			b = appendAvroBool(append(b, avroSome), *s.ContainsNaN)
		}
		for _, bound := range []*[]byte{s.LowerBound, s.UpperBound} {
			if bound == nil {
				b = append(b, avroNull)
			} else {
				b = appendAvroOptionalBytes(b, *bound, true)
			}
		}
	}
	return append(b, 0)
}

// rowNumbered is a manifest to whose rows a list gave ids.
type rowNumbered struct {
	iceberg.ManifestFile
	first int64
}

func (m rowNumbered) FirstRowID() *int64 { return &m.first }

// FetchEntries reads the entries as the embedded manifest would, but for the ids.
func (m rowNumbered) FetchEntries(files iceio.IO, discardDeleted bool) ([]iceberg.ManifestEntry, error) {
	f, err := files.Open(m.FilePath())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return iceberg.ReadManifest(m, f, discardDeleted)
}

// Entries is FetchEntries, one by one.
func (m rowNumbered) Entries(files iceio.IO, discardDeleted bool) iter.Seq2[iceberg.ManifestEntry, error] {
	return func(yield func(iceberg.ManifestEntry, error) bool) {
		all, err := m.FetchEntries(files, discardDeleted)
		for _, e := range all {
			if !yield(e, nil) {
				return
			}
		}
		if err != nil {
			yield(nil, err)
		}
	}
}
