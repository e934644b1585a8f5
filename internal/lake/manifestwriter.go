package lake

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/apache/iceberg-go"
)

// manifestWriter writes a manifest. The Iceberg library's own writer makes a compressor and compiles Avro schemas for
// each file, which costs a small table more than all else. What an entry says of its file is the library's encoding
// here too, by a schema that it compiles once.
type manifestWriter struct {
	*avroWriter
	version  int
	spec     iceberg.PartitionSpec
	schema   *iceberg.Schema
	content  iceberg.ManifestContent
	snapshot int64

	files, rows [3]int64 // by status
	parts       []*partitionSummary
	oldest      int64 // the least sequence number of live files that have one; -1 without any
}

func newManifestWriter(version int, spec iceberg.PartitionSpec, schema *iceberg.Schema, content iceberg.ManifestContent, snapshot int64) (*manifestWriter, error) {
	w := &manifestWriter{version: version, spec: spec, schema: schema, content: content, snapshot: snapshot, oldest: -1}
	fields := spec.PartitionType(schema).FieldList
	for _, f := range fields {
		w.parts = append(w.parts, &partitionSummary{field: f})
	}
	text, err := entrySchemas.of(version, spec, schema, fields)
	if err != nil {
		return nil, err
	}
	columns, err := json.Marshal(schema)
	if err != nil {
		return nil, err
	}
	of := []iceberg.PartitionField{}
	for _, f := range spec.Fields() {
		of = append(of, f)
	}
	partitions, err := json.Marshal(of)
	if err != nil {
		return nil, err
	}
	w.avroWriter = newAvroWriter(text, avroMeta{"schema", string(columns)}, avroMeta{"schema-id", strconv.Itoa(schema.ID)},
		avroMeta{"partition-spec", string(partitions)}, avroMeta{"partition-spec-id", strconv.Itoa(spec.ID())},
		avroMeta{"format-version", strconv.Itoa(version)}, avroMeta{"content", content.String()})
	return w, nil
}

// schemaTexts are the Avro schemas of manifests' entries as the library writes them, by version and partition.
type schemaTexts struct {
	mu   sync.Mutex
	text map[string]string
}

// mostSchemas bounds how many are known at once: tables may be partitioned in as many ways as there are tables.
const mostSchemas = 256

var entrySchemas schemaTexts

func init() { _ = iceberg.SetSchemaCacheSize(mostSchemas) } // of the library's compiled ones; only a size below 1 is an error

func (s *schemaTexts) of(version int, spec iceberg.PartitionSpec, schema *iceberg.Schema, fields []iceberg.NestedField) (string, error) {
	var key strings.Builder
	fmt.Fprint(&key, version)
	for _, f := range fields {
		fmt.Fprintf(&key, " %d %q %s", f.ID, f.Name, f.Type)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if text, ok := s.text[key.String()]; ok {
		return text, nil
	}
	var sample bytes.Buffer
	if _, err := iceberg.NewManifestWriter(version, &sample, spec, schema, 1); err != nil {
		return "", err
	}
	text, err := schemaIn(&sample)
	if err != nil {
		return "", err
	}
	if s.text == nil || len(s.text) >= mostSchemas {
		s.text = map[string]string{}
	}
	s.text[key.String()] = text
	return text, nil
}

// schemaIn is the schema of an Avro file.
func schemaIn(file *bytes.Buffer) (string, error) {
	f, err := openAvro(file.Bytes())
	if err != nil {
		return "", err
	}
	return string(f.text), nil
}

// added enters a file that the snapshot adds.
func (w *manifestWriter) added(f iceberg.DataFile) error {
	return w.enter(iceberg.EntryStatusADDED, w.snapshot, nil, nil, f)
}

// existing enters a file that was there before.
func (w *manifestWriter) existing(e iceberg.ManifestEntry) error {
	seq, err := w.sequenceOf(e)
	if err != nil {
		return err
	}
	return w.enter(iceberg.EntryStatusEXISTING, e.SnapshotID(), &seq, e.FileSequenceNum(), e.DataFile())
}

// deleted enters a file that the snapshot removes.
func (w *manifestWriter) deleted(e iceberg.ManifestEntry) error {
	seq, err := w.sequenceOf(e)
	if err != nil {
		return err
	}
	return w.enter(iceberg.EntryStatusDELETED, w.snapshot, &seq, e.FileSequenceNum(), e.DataFile())
}

func (w *manifestWriter) sequenceOf(e iceberg.ManifestEntry) (int64, error) {
	seq := e.SequenceNum()
	if seq < 0 {
		return 0, fmt.Errorf("the entry of %s has no sequence number", e.DataFile().FilePath())
	}
	return seq, nil
}

// entryHead is what the library writes of an entry before its file: status added, no snapshot, no sequence numbers.
const entryHead = "\x02\x00\x00\x00"

var errEntryForm = errors.New("the Iceberg library writes entries of manifests in a form that is not known here")

func (w *manifestWriter) enter(status iceberg.ManifestEntryStatus, snapshot int64, seq, fileSeq *int64, f iceberg.DataFile) error {
	if (f.ContentType() == iceberg.EntryContentData) != (w.content == iceberg.ManifestContentData) {
		return fmt.Errorf("%s does not belong into a manifest of %s", f.FilePath(), w.content)
	}
	m, ok := f.(iceberg.AvroEntryMarshaler)
	if !ok {
		return errEntryForm
	}
	entry, err := m.MarshalAvroEntry(w.spec, w.schema, w.version)
	if err != nil {
		return err
	}
	file, ok := bytes.CutPrefix(entry, []byte(entryHead))
	if !ok {
		return errEntryForm
	}
	b := binary.AppendVarint(w.block, int64(status))
	b = appendAvroOptional(b, &snapshot)
	b = appendAvroOptional(b, seq)
	b = appendAvroOptional(b, fileSeq)
	w.block = append(b, file...)
	if len(w.parts) > 0 {
		values := f.Partition()
		for _, p := range w.parts {
			if err := p.add(values[p.field.ID]); err != nil {
				return err
			}
		}
	}
	w.files[status]++
	w.rows[status] += f.Count()
	if seq != nil && status != iceberg.EntryStatusDELETED && (w.oldest < 0 || *seq < w.oldest) {
		w.oldest = *seq
	}
	return w.done()
}

// listed is what a list of manifests tells of the one that was written. Sequence numbers that are -1 yet are given by
// the list.
func (w *manifestWriter) listed(url string, length int) (iceberg.ManifestFile, error) {
	summaries := make([]iceberg.FieldSummary, len(w.parts))
	for i, p := range w.parts {
		var err error
		if summaries[i], err = p.summary(); err != nil {
			return nil, err
		}
	}
	const added, existing, deleted = iceberg.EntryStatusADDED, iceberg.EntryStatusEXISTING, iceberg.EntryStatusDELETED
	return iceberg.NewManifestFile(w.version, url, int64(length), int32(w.spec.ID()), w.snapshot).Content(w.content).SequenceNum(-1, w.oldest).
		AddedFiles(int32(w.files[added])).ExistingFiles(int32(w.files[existing])).DeletedFiles(int32(w.files[deleted])).
		AddedRows(w.rows[added]).ExistingRows(w.rows[existing]).DeletedRows(w.rows[deleted]).Partitions(summaries).Build(), nil
}
