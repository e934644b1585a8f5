package format_test

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/cespare/xxhash/v2"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/format"
)

// column makes a record of one nullable column.
func column(dt arrow.DataType, fill func(array.Builder)) arrow.RecordBatch {
	b := array.NewRecordBuilder(memory.DefaultAllocator, arrow.NewSchema([]arrow.Field{field("c", dt, true, "")}, nil))
	defer b.Release()
	fill(b.Field(0))
	return b.NewRecordBatch()
}

func ofBytes(values ...string) arrow.RecordBatch {
	return column(arrow.BinaryTypes.Binary, func(b array.Builder) {
		for _, v := range values {
			b.(*array.BinaryBuilder).Append([]byte(v))
		}
	})
}

func ofStrings(values ...string) arrow.RecordBatch {
	return column(arrow.BinaryTypes.String, func(b array.Builder) {
		b.(*array.StringBuilder).AppendValues(values, nil)
	})
}

func ofFloats(values ...float64) arrow.RecordBatch {
	return column(arrow.PrimitiveTypes.Float64, func(b array.Builder) {
		b.(*array.Float64Builder).AppendValues(values, nil)
	})
}

func ofFloats32(values ...float32) arrow.RecordBatch {
	return column(arrow.PrimitiveTypes.Float32, func(b array.Builder) {
		b.(*array.Float32Builder).AppendValues(values, nil)
	})
}

func ofLists(lists ...[]float64) arrow.RecordBatch {
	return column(arrow.ListOf(arrow.PrimitiveTypes.Float64), func(b array.Builder) {
		list := b.(*array.ListBuilder)
		for _, values := range lists {
			list.Append(true)
			list.ValueBuilder().(*array.Float64Builder).AppendValues(values, nil)
		}
	})
}

func ofDecimals(values ...int64) arrow.RecordBatch {
	return column(&arrow.Decimal128Type{Precision: 20}, func(b array.Builder) {
		for _, v := range values {
			b.(*array.Decimal128Builder).Append(decimal128.FromI64(v))
		}
	})
}

func ofUint32(values ...uint32) arrow.RecordBatch {
	return column(arrow.PrimitiveTypes.Uint32, func(b array.Builder) {
		b.(*array.Uint32Builder).AppendValues(values, nil)
	})
}

func float(x float64) string {
	var b [8]byte
	bits := math.Float64bits(x)
	for i := range b {
		b[i] = byte(bits >> (8 * i))
	}
	return string(b[:])
}

func TestBoundsEncloseTheValues(t *testing.T) {
	t.Parallel()
	nan, negZero, inf := math.NaN(), math.Copysign(0, -1), math.Inf(1)
	top := strings.Repeat("\U0010FFFF", 20)
	for name, c := range map[string]struct {
		rec      arrow.RecordBatch
		min, max string // both empty: none are written
	}{
		"short strings whole":                {ofStrings("b", "a", "ccc"), "a", "ccc"},
		"prefix before longer":               {ofStrings("ab", "a", "abc"), "a", "abc"},
		"zero bytes count":                   {ofBytes("a", "a\x00", "a\x00\x00"), "a", "a\x00\x00"},
		"strings by bytes, not letters":      {ofStrings("z", "ä", "Z"), "Z", "ä"},
		"long strings cut":                   {ofStrings(strings.Repeat("a", 70), strings.Repeat("b", 70)), strings.Repeat("a", 64), strings.Repeat("b", 63) + "c"},
		"long strings cut between letters":   {ofStrings(strings.Repeat("€", 30), strings.Repeat("日", 30)), strings.Repeat("€", 21), strings.Repeat("日", 20) + string('日'+1)},
		"the last letter cannot grow":        {ofStrings("x" + top), "x" + top[:60], "y"},
		"no letter can grow":                 {ofStrings(top), "", ""},
		"the letter before the surrogates":   {ofStrings(strings.Repeat("\uD7FF", 30)), strings.Repeat("\uD7FF", 21), strings.Repeat("\uD7FF", 20) + "\uE000"},
		"the last byte cannot grow":          {ofBytes("x" + strings.Repeat("\xff", 80)), "x" + strings.Repeat("\xff", 63), "y"},
		"no byte can grow":                   {ofBytes("a", strings.Repeat("\xff", 80)), "", ""},
		"sixty-four bytes are not cut":       {ofBytes(strings.Repeat("\xff", 64)), strings.Repeat("\xff", 64), strings.Repeat("\xff", 64)},
		"no bounds beside NaN":               {ofFloats(nan, 3, nan, -2), "", ""},
		"no bounds beside a late NaN":        {ofFloats(3, -2, nan), "", ""},
		"no bounds beside NaN, 32 bits":      {ofFloats32(3, float32(nan)), "", ""},
		"no bounds beside NaN in a list":     {ofLists([]float64{1, 2}, nil, []float64{nan}), "", ""},
		"bounds of lists without NaN":        {ofLists([]float64{1, 2}, []float64{}, []float64{-3}), float(-3), float(2)},
		"only NaN":                           {ofFloats(nan, nan), "", ""},
		"zeros of the other sign":            {ofFloats(0, 0), float(negZero), float(0)},
		"negative zero alone":                {ofFloats(negZero), float(negZero), float(0)},
		"infinities":                         {ofFloats(1, inf, -inf), float(-inf), float(inf)},
		"decimals of either sign":            {ofDecimals(5, -7, 300, -300), "\xff\xff\xff\xff\xff\xff\xff\xfe\xd4", "\x00\x00\x00\x00\x00\x00\x00\x01\x2c"},
		"decimals below zero":                {ofDecimals(-5, -7), "\xff\xff\xff\xff\xff\xff\xff\xff\xf9", "\xff\xff\xff\xff\xff\xff\xff\xff\xfb"},
		"unsigned integers past the sign":    {ofUint32(7, 1<<31, 1<<31+1), "\x07\x00\x00\x00", "\x01\x00\x00\x80"},
		"empty strings":                      {ofStrings("", ""), "", ""},
		"nothing but nulls":                  {column(arrow.BinaryTypes.String, func(b array.Builder) { b.AppendNulls(5) }), "", ""},
		"a short value equal to a cut bound": {ofBytes(strings.Repeat("b", 63)+"c", strings.Repeat("b", 70)), strings.Repeat("b", 64), strings.Repeat("b", 63) + "c"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Once as a page of its own and once with pages of one row, which are merged.
			for _, pageBytes := range []int64{0, 1} {
				data := writeParquet(t, c.rec.Schema(), format.ParquetOptions{PageBytes: pageBytes}, c.rec)
				chunk, err := openParquet(t, data).MetaData().RowGroup(0).ColumnChunk(0)
				if err != nil {
					t.Fatal(err)
				}
				stats, err := chunk.Statistics()
				if err != nil || stats == nil {
					t.Fatalf("no statistics: %v", err)
				}
				has := c.min != "" || c.max != "" || name == "empty strings"
				if stats.HasMinMax() != has {
					t.Fatalf("bounds are written: %v, want %v", stats.HasMinMax(), has)
				}
				if has && (string(stats.EncodeMin()) != c.min || string(stats.EncodeMax()) != c.max) {
					t.Errorf("bounds are %q and %q, want %q and %q", stats.EncodeMin(), stats.EncodeMax(), c.min, c.max)
				}
				if _, list := c.rec.Column(0).(*array.List); !list && stats.NullCount() != int64(c.rec.Column(0).NullN()) {
					t.Errorf("null count is %d", stats.NullCount())
				}
			}
		})
	}
}

// pageIndex reads the index of column i in the first row group.
func pageIndex(t *testing.T, data []byte, i int) (metadata.ColumnIndex, metadata.OffsetIndex) {
	t.Helper()
	group, err := openParquet(t, data).GetPageIndexReader().RowGroup(0)
	if err != nil {
		t.Fatal(err)
	}
	columns, err := group.GetColumnIndex(i)
	if err != nil {
		t.Fatal(err)
	}
	offsets, err := group.GetOffsetIndex(i)
	if err != nil {
		t.Fatal(err)
	}
	return columns, offsets
}

func TestThePageIndexTellsEachPage(t *testing.T) {
	t.Parallel()
	rec := column(arrow.BinaryTypes.String, func(b array.Builder) {
		for i := range 400 {
			if i >= 100 && i < 220 || i%5 == 0 {
				b.AppendNull()
			} else {
				b.(*array.StringBuilder).Append(strings.Repeat(string(rune('a'+i/20)), i%90+1))
			}
		}
	})
	data := writeParquet(t, rec.Schema(), format.ParquetOptions{PageBytes: 200}, rec)
	index, offsets := pageIndex(t, data, 0)
	pages := offsets.GetPageLocations()
	if len(pages) < 20 || len(index.GetNullPages()) != len(pages) {
		t.Fatalf("%d pages by offset, %d by bounds", len(pages), len(index.GetNullPages()))
	}
	values := rec.Column(0).(*array.String)
	for p, page := range pages {
		end := rec.NumRows()
		if p+1 < len(pages) {
			end = pages[p+1].FirstRowIndex
			if next := page.Offset + int64(page.CompressedPageSize); next != pages[p+1].Offset {
				t.Errorf("page %d ends at %d and the next begins at %d", p, next, pages[p+1].Offset)
			}
		}
		nulls, allNull := int64(0), true
		for row := page.FirstRowIndex; row < end; row++ {
			if values.IsNull(int(row)) {
				nulls++
				continue
			}
			allNull = false
			v := []byte(values.Value(int(row)))
			if bytes.Compare(v, index.GetMinValues()[p]) < 0 || bytes.Compare(v, index.GetMaxValues()[p]) > 0 {
				t.Errorf("row %d is outside page %d's bounds", row, p)
			}
		}
		if index.GetNullCounts()[p] != nulls || index.GetNullPages()[p] != allNull {
			t.Errorf("page %d: %d nulls, null page %v; the rows have %d", p, index.GetNullCounts()[p], index.GetNullPages()[p], nulls)
		}
	}
}

func TestTheBoundaryOrderIsTheOrderOfPages(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(31, 31))
	for name, c := range map[string]struct {
		value func(i int) int64
		want  metadata.BoundaryOrder
	}{
		"growing":   {func(i int) int64 { return int64(i) - 500 }, metadata.Ascending},
		"shrinking": {func(i int) int64 { return 500 - int64(i) }, metadata.Descending},
		"constant":  {func(int) int64 { return 5 }, metadata.Ascending},
		"mixed":     {func(int) int64 { return rng.Int64() }, metadata.Unordered},
	} {
		rec := column(arrow.PrimitiveTypes.Int64, func(b array.Builder) {
			for i := range 1000 {
				b.(*array.Int64Builder).Append(c.value(i))
			}
		})
		index, _ := pageIndex(t, writeParquet(t, rec.Schema(), format.ParquetOptions{PageBytes: 400}, rec), 0)
		if got := index.GetBoundaryOrder(); got != c.want {
			t.Errorf("%s values: boundary order is %s, want %s", name, got, c.want)
		}
	}
}

func TestAPageWithoutBoundsLeavesTheChunkWithoutColumnIndex(t *testing.T) {
	t.Parallel()
	rec := ofFloats(1, math.NaN(), 2)
	data := writeParquet(t, rec.Schema(), format.ParquetOptions{PageBytes: 1}, rec)
	group, err := openParquet(t, data).GetPageIndexReader().RowGroup(0)
	if err != nil {
		t.Fatal(err)
	}
	if index, err := group.GetColumnIndex(0); err == nil && index != nil {
		t.Errorf("a page of NaN has bounds %q", index.GetMinValues())
	}
}

func TestTheSummaryCountsNaN(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for name, c := range map[string]struct {
		rec    arrow.RecordBatch
		float  bool
		nans   int64
		bounds bool
	}{
		"doubles":          {ofFloats(1, nan, 2, nan), true, 2, false},
		"doubles, no NaN":  {ofFloats(1, 2), true, 0, true},
		"reals":            {ofFloats32(1, float32(nan)), true, 1, false},
		"lists of doubles": {ofLists([]float64{1, nan}, []float64{nan}), true, 2, false},
		"no floats at all": {ofUint32(1), false, 0, true},
	} {
		for _, pageBytes := range []int64{0, 1} {
			w, err := format.NewParquet(&bytes.Buffer{}, c.rec.Schema(), format.ParquetOptions{PageBytes: pageBytes})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(w.Write(c.rec), w.Close()); err != nil {
				t.Fatal(err)
			}
			sum, _ := format.SummaryOf(w)
			if l := sum.Leaves[0]; l.Float != c.float || l.NaNs != c.nans || (l.Min != nil) != c.bounds || (l.Max != nil) != c.bounds {
				t.Errorf("%s: the summary is %+v", name, l)
			}
		}
	}
}

// Iceberg's Java library compares uuids as signed numbers: a minimum, a maximum or a dictionary entry hides rows from it.
func TestUUIDsOfATableHaveNeitherBoundsNorADictionary(t *testing.T) {
	t.Parallel()
	for name, ids := range map[string]bool{"of a dump": false, "of a table": true, "in lists of a table": true} {
		keys, values := []string{change.LogicalKey}, []string{change.LogicalUUID}
		if ids {
			keys, values = append(keys, format.FieldIDKey), append(values, "7")
		}
		f := arrow.Field{Name: "u", Type: &arrow.FixedSizeBinaryType{ByteWidth: 16}, Nullable: true, Metadata: arrow.NewMetadata(keys, values)}
		uuids := array.NewFixedSizeBinaryBuilder(memory.DefaultAllocator, &arrow.FixedSizeBinaryType{ByteWidth: 16})
		for i := range 1000 {
			uuids.Append([]byte(strings.Repeat(string(rune('a'+i%3)), 16)))
		}
		values16, rows := uuids.NewArray(), int64(1000)
		if name == "in lists of a table" {
			f = arrow.Field{Name: "l", Type: arrow.ListOfField(f)}
			lists := array.NewListData(array.NewData(f.Type, 1, []*memory.Buffer{nil, memory.NewBufferBytes([]byte{0, 0, 0, 0, 0xe8, 3, 0, 0})}, []arrow.ArrayData{values16.Data()}, 0, 0))
			values16, rows = lists, 1
		}
		rec := array.NewRecordBatch(arrow.NewSchema([]arrow.Field{f}, nil), []arrow.Array{values16}, rows)
		r := openParquet(t, writeParquet(t, rec.Schema(), format.ParquetOptions{}, rec))
		chunk, err := r.MetaData().RowGroup(0).ColumnChunk(0)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := chunk.Statistics()
		if err != nil || stats.HasMinMax() == ids || chunk.HasDictionaryPage() == ids {
			t.Errorf("uuids %s have bounds: %v, a dictionary: %v (%v)", name, stats.HasMinMax(), chunk.HasDictionaryPage(), err)
		}
	}
}

func TestADictionaryAndABloomFilterWithOneZeroHaveTheOther(t *testing.T) {
	t.Parallel()
	negative := math.Copysign(0, -1)
	for name, c := range map[string]struct {
		value     func(i int) float64
		dict      string    // in PLAIN form, empty for none
		here, not []float64 // what the Bloom filter finds
	}{
		"zero":          {func(i int) float64 { return float64(i % 2) }, float(0) + float(1) + float(negative), []float64{0, negative, 1}, []float64{2}},
		"negative zero": {func(int) float64 { return negative }, float(negative) + float(0), []float64{0, negative}, []float64{1}},
		"both":          {func(i int) float64 { return math.Copysign(0, float64(i%2)-0.5) }, float(negative) + float(0), []float64{0, negative}, []float64{1}},
		"none":          {func(i int) float64 { return float64(i%2 + 1) }, float(1) + float(2), []float64{1, 2}, []float64{0, negative}},
		"no dictionary": {func(i int) float64 { return float64(i) * 1.5 }, "", []float64{0, negative, 1.5}, []float64{-1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := column(arrow.PrimitiveTypes.Float64, func(b array.Builder) {
				for i := range 1000 {
					b.(*array.Float64Builder).Append(c.value(i))
				}
			})
			data := writeParquet(t, rec.Schema(), format.ParquetOptions{Bloom: []string{"c"}}, rec)
			holdsRecords(t, data, rec)
			r := openParquet(t, data)
			pages, err := r.RowGroup(0).GetColumnPageReader(0)
			if err != nil {
				t.Fatal(err)
			}
			dict := ""
			if pages.Next() {
				if page, ok := pages.Page().(*file.DictionaryPage); ok {
					dict = string(page.Data())
				}
			}
			if dict != c.dict {
				t.Errorf("the dictionary is %q, want %q", dict, c.dict)
			}
			filters, err := r.GetBloomFilterReader().RowGroup(0)
			if err != nil {
				t.Fatal(err)
			}
			filter, err := filters.GetColumnBloomFilter(0)
			if err != nil {
				t.Fatal(err)
			}
			for want, values := range map[bool][]float64{true: c.here, false: c.not} {
				for _, v := range values {
					if filter.CheckHash(xxhash.Sum64String(float(v))) != want {
						t.Errorf("the Bloom filter finds %v: %v", v, !want)
					}
				}
			}
		})
	}
}
