package lake

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/twmb/avro/ocf"
)

// contents are a container file's header without what says how it is packed, and the bytes of its records.
func contents(t *testing.T, file []byte) (header map[string]string, records []byte, count int64) {
	t.Helper()
	r, err := ocf.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	header = map[string]string{}
	for k, v := range r.Metadata() {
		header[k] = string(v)
	}
	f, err := openAvro(file)
	if err != nil {
		t.Fatal(err)
	}
	err = f.each(t.Context(), func(block []byte, n int64) error {
		records, count = append(records, block...), count+n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return header, records, count
}

func sameFile(t *testing.T, what string, ours, theirs []byte) {
	t.Helper()
	ourHead, our, n := contents(t, ours)
	theirHead, their, m := contents(t, theirs)
	if !maps.Equal(ourHead, theirHead) {
		t.Errorf("%s: the header is\n%q\nand not\n%q", what, ourHead, theirHead)
	}
	if n != m || !bytes.Equal(our, their) {
		t.Errorf("%s: %d records are\n%s\nand not %d\n%s", what, n, hex.Dump(our), m, hex.Dump(their))
	}
}

// manifestFacts are what a manifest of a list says of itself.
func manifestFacts(m iceberg.ManifestFile) string {
	first := "none"
	if id := m.FirstRowID(); id != nil {
		first = fmt.Sprint(*id)
	}
	parts := ""
	for _, p := range m.Partitions() {
		parts += fmt.Sprint(p.ContainsNull, *p.ContainsNaN)
		for _, b := range []*[]byte{p.LowerBound, p.UpperBound} {
			if b == nil {
				parts += " none"
			} else {
				parts += fmt.Sprintf(" %x", *b)
			}
		}
	}
	return fmt.Sprint(m.Version(), m.FilePath(), m.Length(), m.PartitionSpecID(), m.ManifestContent(), m.SnapshotID(), m.AddedDataFiles(), m.ExistingDataFiles(),
		m.DeletedDataFiles(), m.AddedRows(), m.ExistingRows(), m.DeletedRows(), m.SequenceNum(), m.MinSequenceNum(), m.KeyMetadata() == nil, string(m.KeyMetadata()), first, parts)
}

// everyType is a column of each type that a table may be partitioned by.
func everyType() []iceberg.NestedField {
	types := []iceberg.Type{iceberg.PrimitiveTypes.Bool, iceberg.PrimitiveTypes.Int32, iceberg.PrimitiveTypes.Int64, iceberg.PrimitiveTypes.Float32, iceberg.PrimitiveTypes.Float64,
		iceberg.PrimitiveTypes.String, iceberg.PrimitiveTypes.Binary, iceberg.PrimitiveTypes.Date, iceberg.PrimitiveTypes.Time, iceberg.PrimitiveTypes.Timestamp,
		iceberg.PrimitiveTypes.TimestampTz, iceberg.PrimitiveTypes.UUID, iceberg.DecimalTypeOf(12, 2), iceberg.FixedTypeOf(5)}
	fields := make([]iceberg.NestedField, len(types))
	for i, typ := range types {
		fields[i] = iceberg.NestedField{ID: i + 1, Name: fmt.Sprintf("c%d", i+1), Type: typ}
	}
	return fields
}

var hostileTexts = []string{"", "plain", "\x00", "\xff\xfe", "ü\"\\{}\n", string(make([]byte, 300)), "null"}

// anyOf draws a value of a column's type as a transform gives it; nil is null.
func anyOf(r *rand.Rand, typ iceberg.Type) any {
	if r.IntN(5) == 0 {
		return nil
	}
	text := hostileTexts[r.IntN(len(hostileTexts))]
	switch typ.(type) {
	case iceberg.BooleanType:
		return r.IntN(2) == 0
	case iceberg.Int32Type:
		return int32(r.Uint32())
	case iceberg.Int64Type:
		return int64(r.Uint64())
	case iceberg.Float32Type:
		return []float32{float32(math.NaN()), float32(math.Inf(-1)), 0, -1.5, r.Float32()}[r.IntN(5)]
	case iceberg.Float64Type:
		return []float64{math.NaN(), math.Inf(1), 0, -1.5, r.Float64()}[r.IntN(5)]
	case iceberg.StringType:
		return text + "s" // the library loses the bound of an empty one
	case iceberg.BinaryType:
		return []byte(text)
	case iceberg.DateType:
		return iceberg.Date(r.Int32N(1<<20) - 1<<19)
	case iceberg.TimeType:
		return iceberg.Time(r.Int64N(86_400_000_000))
	case iceberg.TimestampType, iceberg.TimestampTzType:
		return iceberg.Timestamp(int64(r.Uint64()) >> 8)
	case iceberg.UUIDType:
		return uuid.UUID{byte(r.Uint32()), 15: byte(r.Uint32())}
	case iceberg.DecimalType:
		return iceberg.Decimal{Val: decimal128.FromI64(r.Int64N(2_000_000) - 1_000_000), Scale: 2}
	case iceberg.FixedType:
		return []byte{byte(r.Uint32()), 0, 1, 2, byte(r.Uint32())}
	}
	panic(typ.String())
}

// anyFile draws a file of a manifest's content.
func anyFile(t *testing.T, r *rand.Rand, version int, spec iceberg.PartitionSpec, schema *iceberg.Schema, content iceberg.ManifestContent) iceberg.DataFile {
	t.Helper()
	kind, format := iceberg.EntryContentData, iceberg.ParquetFile
	if content == iceberg.ManifestContentDeletes {
		kind = []iceberg.ManifestEntryContent{iceberg.EntryContentPosDeletes, iceberg.EntryContentEqDeletes}[r.IntN(2)]
		if version == 3 && kind == iceberg.EntryContentPosDeletes {
			format = iceberg.PuffinFile
		}
	}
	values := map[int]any{}
	for _, f := range spec.PartitionType(schema).FieldList {
		values[f.ID] = anyOf(r, f.Type)
	}
	text := hostileTexts[1+r.IntN(len(hostileTexts)-1)]
	b, err := iceberg.NewDataFileBuilder(spec, kind, "s3://b/"+text, format, values, nil, nil, r.Int64N(1<<40), r.Int64N(1<<40))
	if err != nil {
		t.Fatal(err)
	}
	some := func() bool { return r.IntN(2) == 0 }
	counts := func() map[int]int64 {
		return []map[int]int64{nil, {}, {1: 0, 1 << 30: math.MaxInt64}, {3: -1}}[r.IntN(4)]
	}
	bounds := func() map[int][]byte {
		return []map[int][]byte{nil, {}, {1: {}, 2: []byte(text)}, {7: {0, 255}}}[r.IntN(4)]
	}
	b.ColumnSizes(counts()).ValueCounts(counts()).NullValueCounts(counts()).NaNValueCounts(counts()).LowerBoundValues(bounds()).UpperBoundValues(bounds())
	if some() {
		b.KeyMetadata([]byte(text)).SplitOffsets([]int64{4, math.MaxInt64})
	}
	if some() {
		b.SplitOffsets([]int64{}).SortOrderID(r.IntN(3))
	}
	if some() {
		b.EqualityFieldIDs([]int{1, 2}).FirstRowID(r.Int64N(1 << 40))
	}
	if some() {
		b.ReferencedDataFile(text).ContentOffset(r.Int64()).ContentSizeInBytes(4)
	}
	return b.Build()
}

// drawnManifest writes the same entries by the library and by ourselves, and says that they are the same. It gives the
// manifest.
func drawnManifest(t *testing.T, r *rand.Rand, meta table.Metadata, spec iceberg.PartitionSpec, content iceberg.ManifestContent, entries int, id int64) iceberg.ManifestFile {
	t.Helper()
	version, schema := meta.Version(), meta.CurrentSchema()
	ours, err := newManifestWriter(version, spec, schema, content, id)
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	theirs, err := iceberg.NewManifestWriter(version, &file, spec, schema, id, iceberg.WithManifestWriterContent(content))
	if err != nil {
		t.Fatal(err)
	}
	for range entries {
		f := anyFile(t, r, version, spec, schema, content)
		before, seq := r.Int64(), r.Int64N(1<<40)
		fileSeq := []*int64{nil, new(r.Int64N(1 << 40))}[r.IntN(2)]
		was := iceberg.NewManifestEntry(iceberg.EntryStatusEXISTING, &before, &seq, fileSeq, f)
		switch r.IntN(3) {
		case 0:
			err = theirs.Add(iceberg.NewManifestEntry(iceberg.EntryStatusADDED, &id, nil, nil, f))
			if err == nil {
				err = ours.added(f)
			}
		case 1:
			if err = theirs.Existing(was); err == nil {
				err = ours.existing(was)
			}
		case 2:
			if err = theirs.Delete(was); err == nil {
				err = ours.deleted(was)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	data, err := ours.close()
	if err != nil {
		t.Fatal(err)
	}
	name := "s3://b/" + hostileTexts[r.IntN(len(hostileTexts))] + fmt.Sprint(id)
	m, err := ours.listed(name, len(data))
	if err != nil {
		t.Fatal(err)
	}
	want, err := theirs.ToManifestFile(name, int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	sameFile(t, fmt.Sprintf("v%d, %s, by %v", version, content, spec), data, file.Bytes())
	if got, want := manifestFacts(m), manifestFacts(want); got != want {
		t.Errorf("v%d, by %v: the manifest is\n%s\nand not\n%s", version, spec, got, want)
	}
	if got, want := entryFacts(t, m, data), entryFacts(t, m, file.Bytes()); len(got) != entries || !slices.Equal(got, want) {
		t.Errorf("v%d, by %v: %d entries are read as\n%q\nand not\n%q", version, spec, len(got), got, want)
	}
	return m
}

// entryFacts are what the library reads of each entry.
func entryFacts(t *testing.T, m iceberg.ManifestFile, file []byte) (facts []string) {
	t.Helper()
	all, err := iceberg.ReadManifest(m, bytes.NewReader(file), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		f := e.DataFile()
		facts = append(facts, fmt.Sprint(e.Status(), e.SnapshotID(), e.SequenceNum(), e.FileSequenceNum() != nil, f.ContentType(), f.FilePath(), f.FileFormat(), f.Partition(),
			f.Count(), f.FileSizeBytes(), f.ColumnSizes(), f.ValueCounts(), f.NullValueCounts(), f.NaNValueCounts(), f.LowerBoundValues(), f.UpperBoundValues(),
			string(f.KeyMetadata()), f.SplitOffsets(), f.EqualityFieldIDs(), f.SortOrderID() != nil, f.FirstRowID() != nil, f.ReferencedDataFile() != nil, f.ContentOffset() != nil))
	}
	return facts
}

func metadataOf(t *testing.T, version int, schema *iceberg.Schema, spec iceberg.PartitionSpec) table.Metadata {
	t.Helper()
	meta, err := table.NewMetadata(schema, &spec, table.UnsortedSortOrder, "s3://b/t", iceberg.Properties{table.PropertyFormatVersion: fmt.Sprint(version)})
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

func TestManifestsAndListsAreThoseOfTheLibrary(t *testing.T) {
	t.Parallel()
	schema := iceberg.NewSchema(0, everyType()...)
	specs := []iceberg.PartitionSpec{*iceberg.UnpartitionedSpec}
	var all []iceberg.PartitionField
	for i, f := range schema.Fields() {
		field := iceberg.PartitionField{SourceIDs: []int{f.ID}, FieldID: 1000 + i, Name: "p_" + f.Name, Transform: iceberg.IdentityTransform{}}
		all = append(all, field)
		specs = append(specs, iceberg.NewPartitionSpec(field))
	}
	specs = append(specs, iceberg.NewPartitionSpec(all...), iceberg.NewPartitionSpec(
		iceberg.PartitionField{SourceIDs: []int{11}, FieldID: 1000, Name: "d", Transform: iceberg.DayTransform{}},
		iceberg.PartitionField{SourceIDs: []int{10}, FieldID: 1001, Name: "h", Transform: iceberg.HourTransform{}},
		iceberg.PartitionField{SourceIDs: []int{6}, FieldID: 1002, Name: "b", Transform: iceberg.BucketTransform{NumBuckets: 4}},
		iceberg.PartitionField{SourceIDs: []int{13}, FieldID: 1003, Name: "t", Transform: iceberg.TruncateTransform{Width: 10}},
		iceberg.PartitionField{SourceIDs: []int{6}, FieldID: 1004, Name: "v", Transform: iceberg.VoidTransform{}}))
	for _, version := range []int{2, 3} {
		for i, spec := range specs {
			r := rand.New(rand.NewPCG(uint64(version), uint64(i)))
			meta := metadataOf(t, version, schema, spec)
			var manifests []iceberg.ManifestFile
			for _, content := range []iceberg.ManifestContent{iceberg.ManifestContentData, iceberg.ManifestContentDeletes} {
				for _, entries := range []int{1, 2, 30} {
					manifests = append(manifests, drawnManifest(t, r, meta, meta.PartitionSpec(), content, entries, 77))
				}
			}
			drawnManifest(t, r, meta, meta.PartitionSpec(), iceberg.ManifestContentData, 400, 5) // of several blocks
			sameLists(t, meta, manifests)
		}
	}
}

// sameLists writes lists by the library and by ourselves: of new manifests, and of these and older ones.
func sameLists(t *testing.T, meta table.Metadata, fresh []iceberg.ManifestFile) {
	t.Helper()
	spec, encrypted := meta.PartitionSpec(), iceberg.NewManifestFile(meta.Version(), "s3://b/e", 5, 0, 3).SequenceNum(4, 2).KeyMetadata([]byte{}).AddedFiles(1).AddedRows(9)
	told := iceberg.NewManifestFile(1, "s3://b/v1", 5, 0, 3).AddedFiles(1).AddedRows(9)
	if spec.IsUnpartitioned() { // without, ours have an empty list all the same
		encrypted, told = encrypted.Partitions([]iceberg.FieldSummary{}), told.Partitions([]iceberg.FieldSummary{})
	}
	older := append([]iceberg.ManifestFile{encrypted.Build()}, olderManifests(t, told.Build())...)
	var before []iceberg.ManifestFile
	for i, of := range [][]iceberg.ManifestFile{fresh, older, nil, slices.Concat(fresh, older)} {
		l := &manifestList{meta: meta, snapshot: 77, seq: 9, firstRow: 1000}
		if i > 0 {
			l.parent = new(int64(42))
			of = slices.Concat(of, before)
		}
		data, listed, rows, err := l.write(of)
		if err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		next := l.firstRow
		if meta.Version() == 3 {
			w, err := iceberg.NewManifestListWriterV3(&file, l.snapshot, l.seq, l.firstRow, l.parent)
			if err == nil {
				err = w.AddManifests(of)
			}
			if err == nil {
				next, err = *w.NextRowID(), w.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		} else if err := iceberg.WriteManifestList(2, &file, l.snapshot, l.parent, &l.seq, 0, of); err != nil {
			t.Fatal(err)
		}
		what := fmt.Sprintf("list %d of v%d", i, meta.Version())
		sameFile(t, what, data, file.Bytes())
		read, err := iceberg.ReadManifestList(&file)
		if err != nil || len(read) != len(of) || rows != next-l.firstRow {
			t.Fatalf("%s: %d manifests, %d rows instead of %d, %v", what, len(read), rows, next-l.firstRow, err)
		}
		for j, m := range read {
			if got, want := manifestFacts(listed[j]), manifestFacts(m); got != want && m.Version() == listed[j].Version() {
				t.Errorf("%s: manifest %d is\n%s\nand not\n%s", what, j, got, want)
			}
		}
		if before == nil {
			before = read // as a later commit finds them
		}
	}
}

// olderManifests are manifests as the list of a table of format version 1 has them.
func olderManifests(t *testing.T, told iceberg.ManifestFile) []iceberg.ManifestFile {
	t.Helper()
	var file bytes.Buffer
	if err := iceberg.WriteManifestList(1, &file, 3, nil, nil, 0, []iceberg.ManifestFile{told}); err != nil {
		t.Fatal(err)
	}
	all, err := iceberg.ReadManifestList(&file)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Readers take a manifest without a lower bound for one of nulls alone, and pass over its rows.
func TestABoundThatIsEmptyIsThere(t *testing.T) {
	t.Parallel()
	schema := iceberg.NewSchema(0, everyType()...)
	for _, source := range []int{6, 7} { // text and bytes
		meta := metadataOf(t, 2, schema, iceberg.NewPartitionSpec(iceberg.PartitionField{SourceIDs: []int{source}, FieldID: 1000, Name: "p", Transform: iceberg.IdentityTransform{}}))
		w, err := newManifestWriter(2, meta.PartitionSpec(), schema, iceberg.ManifestContentData, 77)
		if err != nil {
			t.Fatal(err)
		}
		value := map[int]any{6: "", 7: []byte{}}[source]
		b, err := iceberg.NewDataFileBuilder(meta.PartitionSpec(), iceberg.EntryContentData, "s3://b/f", iceberg.ParquetFile, map[int]any{1000: value}, nil, nil, 1, 1)
		if err == nil {
			err = w.added(b.Build())
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := w.listed("s3://b/m", 5)
		if err != nil {
			t.Fatal(err)
		}
		data, _, _, err := (&manifestList{meta: meta, snapshot: 77, seq: 1}).write([]iceberg.ManifestFile{m})
		if err != nil {
			t.Fatal(err)
		}
		listed, err := iceberg.ReadManifestList(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if p := listed[0].Partitions()[0]; p.LowerBound == nil || p.UpperBound == nil || len(*p.LowerBound)+len(*p.UpperBound) > 0 || p.ContainsNull {
			t.Errorf("the summary is %+v", p)
		}
	}
}

func TestAListRefusesWhatItCannotNumber(t *testing.T) {
	t.Parallel()
	schema := iceberg.NewSchema(0, everyType()...)
	meta := func(version int) table.Metadata { return metadataOf(t, version, schema, *iceberg.UnpartitionedSpec) }
	whole := func(version int, snapshot int64) *iceberg.ManifestBuilder {
		return iceberg.NewManifestFile(version, "s3://b/m", 5, 0, snapshot).AddedFiles(1)
	}
	for what, c := range map[string]struct {
		meta table.Metadata
		m    iceberg.ManifestFile
	}{
		"a manifest of another snapshot without a sequence number": {meta(2), whole(2, 3).Build()},
		"a manifest of a newer format":                             {meta(2), whole(3, 1).SequenceNum(1, 1).Build()},
		"rows that are not counted":                                {meta(3), whole(3, 1).ExistingRows(-1).Build()},
		"more rows than there are ids":                             {meta(3), whole(3, 1).AddedRows(math.MaxInt64).Build()},
	} {
		l := &manifestList{meta: c.meta, snapshot: 1, seq: 1, firstRow: 1}
		if _, _, _, err := l.write([]iceberg.ManifestFile{c.m}); err == nil {
			t.Errorf("%s is listed", what)
		}
	}
	w, err := newManifestWriter(2, *iceberg.UnpartitionedSpec, schema, iceberg.ManifestContentData, 1)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	deletes := anyFile(t, r, 2, *iceberg.UnpartitionedSpec, schema, iceberg.ManifestContentDeletes)
	if err := w.added(deletes); err == nil {
		t.Error("a file of deletes is entered in a manifest of data")
	}
	data := anyFile(t, r, 2, *iceberg.UnpartitionedSpec, schema, iceberg.ManifestContentData)
	if err := w.existing(iceberg.NewManifestEntry(iceberg.EntryStatusEXISTING, nil, nil, nil, data)); err == nil {
		t.Error("an entry that was there has no sequence number")
	}
}
