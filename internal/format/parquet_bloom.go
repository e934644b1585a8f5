package format

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/cespare/xxhash/v2"
)

// bloomBytes is a filter's size while a row group is open: enough for a million distinct values
// at one false positive in a hundred. It is folded when the group ends.
const (
	bloomBytes = 2 << 20
	bloomFalse = 0.01
	bloomBlock = 32 // bytes
)

// bloom is a split-block Bloom filter
// (https://github.com/apache/parquet-format/blob/master/BloomFilter.md).
type bloom struct {
	blocks [][8]uint32
}

// bloomSalt holds the constants that the specification names.
var bloomSalt = [8]uint32{
	0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31,
}

func (f *bloom) reset() {
	if cap(f.blocks) == 0 {
		f.blocks = make([][8]uint32, bloomBytes/bloomBlock)
		return
	}
	f.blocks = f.blocks[:cap(f.blocks)]
	clear(f.blocks)
}

func (f *bloom) insert(hash uint64) {
	block := &f.blocks[(hash>>32)*uint64(len(f.blocks))>>32]
	for i, salt := range bloomSalt {
		block[i] |= 1 << (uint32(hash) * salt >> 27)
	}
}

func insertNumbers[T int32 | int64](f *bloom, v []T) {
	var b [8]byte
	var one T
	width := unsafe.Sizeof(one)
	for _, x := range v {
		binary.LittleEndian.PutUint64(b[:], uint64(x))
		f.insert(xxhash.Sum64(b[:width]))
	}
}

// fold halves the filter as long as false positives stay below bloomFalse. A block's number is a
// fraction of the filter's size, so two neighbours become one.
func (f *bloom) fold() {
	for len(f.blocks) > 1 {
		half := len(f.blocks) / 2
		if f.foldedRate() > bloomFalse {
			return
		}
		for i := range half {
			for w := range f.blocks[i] {
				f.blocks[i][w] = f.blocks[2*i][w] | f.blocks[2*i+1][w]
			}
		}
		f.blocks = f.blocks[:half]
	}
}

// foldedRate is the chance that a value which never came is found in the filter folded once.
func (f *bloom) foldedRate() float64 {
	var sum float64
	half := len(f.blocks) / 2
	for i := range half {
		p := 1.0
		for w := range f.blocks[0] {
			p *= float64(bits.OnesCount32(f.blocks[2*i][w]|f.blocks[2*i+1][w])) / 32
		}
		sum += p
	}
	return sum / float64(half)
}

// appendTo writes the filter with its header in front.
func (f *bloom) appendTo(dst []byte) []byte {
	t := thrift{b: dst}
	t.open()
	t.i32(1, int32(len(f.blocks)*bloomBlock))
	for id := 2; id <= 4; id++ { // split block, xxHash, uncompressed: the only members there are
		t.begin(id)
		t.empty(1)
		t.end()
	}
	t.end()
	for _, block := range f.blocks {
		for _, w := range block {
			t.b = binary.LittleEndian.AppendUint32(t.b, w)
		}
	}
	return t.b
}
