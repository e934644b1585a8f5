package lake

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
)

// A Parquet file that another program wrote is looked at before Arrow gets it: Arrow makes room for as much as the footer, a column chunk and
// the head of a page say, and a few bytes can say anything.

const (
	mostSchema     = 1 << 16  // elements of a schema; they may lie in one another
	mostPageValues = 1 << 24  // values of a page: Arrow makes room for all of them at once
	mostDictionary = 16 << 20 // bytes of the dictionary of a file of deletes
)

var (
	errParquet    = errors.New("it is no Parquet file, or it is encrypted")
	errSchema     = fmt.Errorf("its schema has more than %d elements, or says that it has more than there are", mostSchema)
	errRows       = errors.New("it has another number of rows than the table's metadata says, or one of its columns has")
	errChunk      = errors.New("its footer names bytes that the file does not have, or names them twice")
	errPage       = errors.New("a page says that it is larger than what is there, or larger than it can be")
	errPageValues = errors.New("a page says that it has more values than it can have")
)

// readable is what a Parquet file is read from.
type readable interface {
	parquet.ReaderAtSeeker
	io.Closer
}

// parquetLimits are what a Parquet file may have.
type parquetLimits struct {
	footer     int64 // bytes
	page       int64 // bytes of a page when it is unpacked
	dictionary int64 // the same for a dictionary
	rows       int64 // as many as the table's metadata says; -1 when it does not
}

// openChecked opens a Parquet file within its limits. The file is the caller's to close, with an error too.
func openChecked(in readable, most parquetLimits, props *parquet.ReaderProperties) (*file.Reader, *checkedFile, error) {
	size, err := in.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, nil, err
	}
	meta, err := readFooter(in, size, most.footer)
	if err != nil {
		return nil, nil, err
	}
	chunks, err := chunksOf(meta, size, most.rows)
	if err != nil {
		return nil, nil, err
	}
	props.MaxCompressedPageSize, props.MaxUncompressedPageSize = most.page, most.page
	pages := &checkedFile{readable: in, chunks: chunks, most: most}
	r, err := file.NewParquetReader(pages, file.WithReadProps(props), file.WithMetadata(meta))
	return r, pages, err
}

// The end of a Parquet file is its footer, the footer's length (4 bytes) and a magic text.
const (
	parquetMagic = "PAR1"
	parquetTail  = 4 + len(parquetMagic)
	likelyFooter = 64 << 10 // what is read at first
)

func readFooter(in io.ReaderAt, size, most int64) (*metadata.FileMetaData, error) {
	tail, err := readRange(in, max(0, size-likelyFooter), min(size, likelyFooter))
	if err != nil {
		return nil, err
	}
	if len(tail) < parquetTail || string(tail[len(tail)-len(parquetMagic):]) != parquetMagic {
		return nil, errParquet
	}
	body := tail[:len(tail)-parquetTail]
	length := int64(binary.LittleEndian.Uint32(tail[len(body):]))
	if length > most {
		return nil, fmt.Errorf("%w: %d, and may have %d", errFooter, length, most)
	}
	if length > size-int64(parquetTail) {
		return nil, errShort
	}
	if length <= int64(len(body)) {
		body = body[int64(len(body))-length:]
	} else if body, err = readRange(in, size-int64(parquetTail)-length, length); err != nil {
		return nil, err
	}
	if err := checkFooter(body); err != nil {
		return nil, err
	}
	meta, err := metadata.NewFileMetaData(body, nil)
	if err != nil {
		return nil, err
	}
	if meta.IsSetEncryptionAlgorithm() {
		return nil, errParquet
	}
	meta.SetSourceFileSize(size)
	return meta, nil
}

func readRange(in io.ReaderAt, offset, length int64) ([]byte, error) {
	data := make([]byte, length)
	n, err := in.ReadAt(data, offset)
	if n < len(data) {
		if err == nil || errors.Is(err, io.EOF) {
			err = errShort
		}
		return nil, err
	}
	return data, nil
}

// Fields of parquet.thrift's FileMetaData and what lies in it.
const (
	footerSchema    = 2
	footerGroups    = 4
	footerValues    = 5
	footerOrders    = 7
	elementChildren = 5
	groupColumns    = 1
	groupSorting    = 4
	chunkMeta       = 3
	chunkCrypto     = 8
	metaEncodings   = 2
	metaPath        = 3
	metaValues      = 8
	metaPages       = 13
	metaSizes       = 16
	metaSpace       = 17
)

// checkFooter walks through a footer before structures are made of it.
func checkFooter(data []byte) error {
	elements, children := int64(0), int64(0)
	bad := false
	w := compactWalk{data: data, left: compactItems, see: func(path []int, kind byte, n int64) {
		switch {
		case len(path) == 1 && path[0] == footerSchema:
			elements += n
		case len(path) == 2 && path[0] == footerSchema && path[1] == elementChildren && kind == compactI32:
			bad = bad || n < 0 || n > mostSchema
			children += n
		}
	}, items: footerItems}
	if err := w.structure(); err != nil {
		return err
	}
	if bad || elements > mostSchema || children > elements {
		return errSchema
	}
	return nil
}

// footerItems is of which kind the items of a list are, 0 where it is skipped: Thrift reads a list that it knows as what it should have,
// whatever it says.
func footerItems(path []int) byte {
	switch {
	case len(path) == 1:
		switch path[0] {
		case footerSchema, footerGroups, footerValues, footerOrders:
			return compactStruct
		}
	case path[0] != footerGroups:
	case len(path) == 2 && (path[1] == groupColumns || path[1] == groupSorting):
		return compactStruct
	case len(path) < 4 || path[1] != groupColumns:
	case path[2] == chunkCrypto:
		return compactBinary
	case path[2] != chunkMeta:
	case len(path) == 4:
		switch path[3] {
		case metaEncodings:
			return compactI32
		case metaPath:
			return compactBinary
		case metaValues, metaPages:
			return compactStruct
		}
	case path[3] == metaSizes:
		return compactI64
	case path[3] == metaSpace:
		return compactI32
	}
	return 0
}

// withoutArrowSchema leaves the types to Parquet's own schema. Ours have no other; what another program put beside it is in a form that says
// how much room it needs, and Arrow believes it.
func withoutArrowSchema(meta *metadata.FileMetaData) {
	for _, kv := range meta.FileMetaData.KeyValueMetadata {
		if kv.Key == "ARROW:schema" {
			kv.Key = "-"
		}
	}
}

// chunkFacts are what a footer says of a column chunk.
type chunkFacts struct {
	start, length, values int64
	codec                 compress.Compression
	width                 int   // the least bytes of a value in a dictionary
	fixed                 bool  // all values have that width
	column                int   // the leaf
	each                  int64 // values of a row, on the mean
}

// chunksOf are the column chunks of a file in the order of their bytes.
func chunksOf(meta *metadata.FileMetaData, size, rows int64) ([]*pageWalk, error) {
	var chunks []*pageWalk
	left, total, most := size, int64(0), size*mostRowsAByte
	if rows >= 0 {
		most = min(most, rows)
	}
	for g := range meta.RowGroups {
		group := meta.RowGroup(g)
		n := group.NumRows()
		if n < 0 || n > most-total || group.NumColumns() != meta.Schema.NumColumns() {
			return nil, errRows
		}
		total += n
		for i := range group.NumColumns() {
			chunk, err := group.ColumnChunk(i)
			if err != nil {
				return nil, err
			}
			start, length := startOf(chunk), chunk.TotalCompressedSize()
			if length < 0 || length > left || start < 0 || start > size-length {
				return nil, errChunk
			}
			left -= length
			column := meta.Schema.Column(i)
			values := chunk.NumValues()
			if flat := column.MaxRepetitionLevel() == 0; values < 0 || flat && values != n || !flat && values > n+size*mostItemsAByte {
				return nil, errRows
			}
			if values == 0 { // it is not read, and may have no place of its own
				continue
			}
			kind := column.PhysicalType()
			chunks = append(chunks, &pageWalk{chunkFacts: chunkFacts{
				start: start, length: length, values: values, codec: chunk.Compression(), column: i, each: (values + max(1, n) - 1) / max(1, n),
				width: leastWidth(kind, column.TypeLength()), fixed: kind != parquet.Types.ByteArray,
			}})
		}
	}
	if rows >= 0 && total != rows {
		return nil, errRows
	}
	slices.SortStableFunc(chunks, func(a, b *pageWalk) int { return cmp.Compare(a.start, b.start) })
	end := int64(0)
	for _, c := range chunks {
		if c.start < end {
			return nil, errChunk
		}
		end = c.start + c.length
	}
	return chunks, nil
}

// How many rows a byte of a file can stand for, and how many items of lists: a hundred million equal ones may have a few hundred bytes.
const (
	mostRowsAByte  = 1 << 20
	mostItemsAByte = 1 << 12
)

// startOf is where the bytes of a chunk begin, as Arrow finds it.
func startOf(chunk *metadata.ColumnChunkMetaData) int64 {
	start := chunk.DataPageOffset()
	if at := chunk.DictionaryPageOffset(); chunk.HasDictionaryPage() && at > 0 && at < start {
		start = at
	}
	return start
}

func leastWidth(t parquet.Type, length int) int {
	switch t {
	case parquet.Types.Int64, parquet.Types.Double:
		return 8
	case parquet.Types.Int96:
		return 12
	case parquet.Types.FixedLenByteArray:
		return max(1, length)
	case parquet.Types.Boolean:
		return 1
	}
	return 4
}
