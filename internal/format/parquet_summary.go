package format

import (
	"encoding/binary"
	"math/bits"
	"strconv"

	"github.com/apache/arrow-go/v18/arrow"
)

// ParquetSummary is what a table format wants to know of a Parquet file beside its rows.
type ParquetSummary struct {
	Rows   int64
	Groups []int64 // where each row group begins, in bytes
	Leaves []ParquetLeaf
}

// ParquetLeaf sums up one leaf column over all row groups.
type ParquetLeaf struct {
	FieldID int // of the schema, 0 where the field has none
	// Repeated says that the leaf lies below a list or map: Values then counts its entries, and there are no bounds.
	Repeated             bool
	Bytes, Values, Nulls int64 // Bytes with compression, Values with nulls
	Float                bool
	NaNs                 int64 // of a Float
	// Min and Max are bounds in Iceberg's single-value form (https://iceberg.apache.org/spec/#binary-single-value-serialization),
	// nil when nothing is known. Long strings are cut: the bounds then lie outside the values.
	Min, Max []byte
}

// SummaryOf tells what a Parquet writer made here has written. Its Close must have succeeded; it reports false for
// writers of other formats.
func SummaryOf(w Writer) (ParquetSummary, bool) {
	p, ok := w.(*parquetWriter)
	if !ok || !p.closed || p.err != nil {
		return ParquetSummary{}, false
	}
	s := ParquetSummary{Leaves: make([]ParquetLeaf, len(p.elements.leaves))}
	for i := range p.groups {
		s.Rows += p.groups[i].rows
		s.Groups = append(s.Groups, p.groups[i].at)
	}
	for i, l := range p.elements.leaves {
		s.Leaves[i] = p.sumUp(i, l)
	}
	return s, true
}

func (w *parquetWriter) sumUp(i int, l *leaf) ParquetLeaf {
	out := ParquetLeaf{FieldID: l.fieldID, Repeated: l.maxRep > 0, Float: l.order == orderFloat}
	var all bounds
	unknown := out.Repeated
	for g := range w.groups {
		k := &w.groups[g].chunks[i]
		out.Bytes += k.packed
		out.Values += k.levels
		out.Nulls += k.nulls
		out.NaNs += k.nans
		switch {
		case k.known:
			l.merge(&all, k.bounds)
		case k.nulls < k.levels:
			unknown = true
		}
	}
	if !unknown && all.known {
		out.Min, out.Max = l.single(all.min.value), l.single(all.max.value)
	}
	return out
}

// single turns a bound from PLAIN form into Iceberg's: the same but for decimals, which are big-endian and as short as can be.
func (k *storage) single(plain []byte) []byte {
	if !k.decimal {
		return plain
	}
	big := plain
	if k.phys != physFixed {
		big = binary.BigEndian.AppendUint64(nil, uint64(wideInt(plain)))
	}
	for len(big) > 1 && (big[0] == 0 && bits.LeadingZeros8(big[1]) > 0 || big[0] == 0xff && big[1]&0x80 != 0) {
		big = big[1:]
	}
	return big
}

// fieldIDOf reads a field's id, 0 for none.
func fieldIDOf(f arrow.Field) int {
	v, ok := f.Metadata.GetValue(FieldIDKey)
	if !ok {
		return 0
	}
	id, err := strconv.ParseInt(v, 10, 32)
	if err != nil {
		return 0
	}
	return int(id)
}

// EndRowGroup ends the open row group of a Parquet writer made here, where it has rows; it does nothing to writers of other formats.
func EndRowGroup(w Writer) error {
	p, ok := w.(*parquetWriter)
	if !ok || p.closed || p.rows == 0 {
		return nil
	}
	if p.err == nil {
		p.err = p.endGroup()
	}
	return p.err
}
