package format

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"slices"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/scratch"
)

// CodecDeflate is Avro's name for what is gzip elsewhere.
const CodecDeflate Compression = "deflate"

// avroPiece is the size in bytes of the pieces in which a block is worked on: see scratch.Copy.
const avroPiece = 1 << 20

// avroCodec compresses a block into dst's room, if it is large enough, or returns src itself.
type avroCodec func(dst, src []byte) ([]byte, error)

// newAvroCodec returns a codec and the name it has in the file's header (specification
// 1.11, "Required Codecs" and "Optional Codecs").
func newAvroCodec(c Compression) (string, avroCodec, error) {
	switch c {
	case CodecNone:
		return "null", avroStore, nil
	case CodecSnappy, "":
		return "snappy", avroSnappy, nil
	case CodecDeflate, CodecGzip:
		deflate, err := newAvroDeflate()
		return "deflate", deflate, err
	case CodecZstd:
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
		if err != nil {
			return "", nil, fault.Wrap(err, fault.Internal, "avro", "zstd cannot be started")
		}
		return "zstandard", func(dst, src []byte) ([]byte, error) {
			return enc.EncodeAll(src, scratch.Grow(dst, enc.MaxEncodedSize(len(src)))), nil
		}, nil
	}
	return "", nil, fault.New(fault.FormatUnusable, "avro", "compression %q is none of none, snappy, zstd and deflate", string(c))
}

// avroStore is the codec "null".
func avroStore(_, src []byte) ([]byte, error) { return src, nil }

// avroSnappy is a raw snappy block and, as Avro alone has it, the big-endian CRC-32 of what
// was compressed. Its elements are made piece by piece, as snappyPieces does.
func avroSnappy(dst, src []byte) ([]byte, error) {
	dst = scratch.Grow(dst, (len(src)/avroPiece+1)*s2.MaxEncodedLen(avroPiece)+crc32.Size)
	dst = binary.AppendUvarint(dst, uint64(len(src)))
	sum := uint32(0)
	for piece := range slices.Chunk(src, avroPiece) {
		sum = crc32.Update(sum, crc32.IEEETable, piece)
		packed := s2.EncodeSnappy(dst[len(dst):cap(dst)], piece)
		_, head := binary.Uvarint(packed) // the piece's own length
		dst = append(dst, packed[head:]...)
	}
	return binary.BigEndian.AppendUint32(dst, sum), nil
}

// newAvroDeflate returns the codec "deflate": RFC 1951 without a wrapper.
func newAvroDeflate() (avroCodec, error) {
	enc, err := flate.NewWriter(nil, DefaultGzipLevel)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "avro", "deflate cannot be started")
	}
	return func(dst, src []byte) ([]byte, error) {
		// What does not shrink is stored, in blocks of 16,384 bytes at least but for the last, 5 bytes more each.
		out := bytes.NewBuffer(scratch.Grow(dst, len(src)+len(src)/1024+64))
		enc.Reset(out)
		if _, err := enc.Write(src); err != nil {
			return nil, err
		}
		err := enc.Close()
		return out.Bytes(), err
	}, nil
}
