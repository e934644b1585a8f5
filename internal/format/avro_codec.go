package format

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/fault"
)

// CodecDeflate is Avro's name for what is gzip elsewhere.
const CodecDeflate Compression = "deflate"

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
		return "zstandard", func(dst, src []byte) ([]byte, error) { return enc.EncodeAll(src, dst), nil }, nil
	}
	return "", nil, fault.New(fault.FormatUnusable, "avro", "compression %q is none of none, snappy, zstd and deflate", string(c))
}

// avroStore is the codec "null".
func avroStore(_, src []byte) ([]byte, error) { return src, nil }

// avroSnappy is a raw snappy block and, as Avro alone has it, the big-endian CRC-32 of what
// was compressed.
func avroSnappy(dst, src []byte) ([]byte, error) {
	dst = s2.EncodeSnappy(dst[:cap(dst)], src)
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(src)), nil
}

// newAvroDeflate returns the codec "deflate": RFC 1951 without a wrapper.
func newAvroDeflate() (avroCodec, error) {
	enc, err := flate.NewWriter(nil, DefaultGzipLevel)
	if err != nil {
		return nil, fault.Wrap(err, fault.Internal, "avro", "deflate cannot be started")
	}
	return func(dst, src []byte) ([]byte, error) {
		out := bytes.NewBuffer(dst)
		enc.Reset(out)
		if _, err := enc.Write(src); err != nil {
			return nil, err
		}
		err := enc.Close()
		return out.Bytes(), err
	}, nil
}
