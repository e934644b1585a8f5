package format

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"github.com/leatdata/leat/internal/scratch"
)

// MostUnpacked is how many bytes a file's metadata, or a block of it, may have when it is unpacked: some hundred bytes of what others wrote
// can hold gigabytes.
const MostUnpacked = scratch.AtHand

var (
	errTooLarge    = fmt.Errorf("it has more than %d bytes when it is unpacked, which are not held in memory", MostUnpacked)
	errAvroPacking = errors.New("a block of the Avro file is damaged")
)

// UnpackGzip unpacks gzip, up to MostUnpacked.
func UnpackGzip(packed []byte) ([]byte, error) {
	return unpackStream(func() (io.Reader, error) { return gzip.NewReader(bytes.NewReader(packed)) })
}

// UnpackAvro unpacks a block of an Avro file, up to MostUnpacked. The codec is named as in the file's header.
func UnpackAvro(codec string, packed []byte) ([]byte, error) {
	switch codec {
	case "null", "":
		return packed, nil
	case "deflate":
		return unpackStream(func() (io.Reader, error) { return flate.NewReader(bytes.NewReader(packed)), nil })
	case "zstandard":
		dec, err := boundedZstd()
		if err != nil {
			return nil, err
		}
		data, err := dec.DecodeAll(packed, nil)
		if errors.Is(err, zstd.ErrDecoderSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeExceeded) {
			err = errTooLarge
		}
		return data, err
	case "snappy":
		if len(packed) < crc32.Size {
			return nil, errAvroPacking
		}
		body, sum := packed[:len(packed)-crc32.Size], packed[len(packed)-crc32.Size:]
		n, err := s2.DecodedLen(body)
		if err != nil {
			return nil, err
		}
		if n > MostUnpacked {
			return nil, errTooLarge
		}
		data, err := s2.Decode(nil, body)
		if err == nil && binary.BigEndian.Uint32(sum) != crc32.ChecksumIEEE(data) {
			err = errAvroPacking
		}
		return data, err
	}
	return nil, fmt.Errorf("the Avro file is packed by %q, which is not known here", codec)
}

var boundedZstd = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(MostUnpacked), zstd.WithDecoderMaxWindow(MostUnpacked))
})

// unpackStream counts what is more than a little before it makes room for it.
func unpackStream(open func() (io.Reader, error)) ([]byte, error) {
	const little = 1 << 20
	r, err := open()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(r, little))
	if err != nil || len(data) < little {
		return data, err
	}
	rest, err := io.Copy(io.Discard, io.LimitReader(r, MostUnpacked-little+1))
	if err != nil || rest == 0 {
		return data, err
	}
	if rest > MostUnpacked-little {
		return nil, errTooLarge
	}
	if r, err = open(); err != nil {
		return nil, err
	}
	data = make([]byte, little+rest)
	_, err = io.ReadFull(r, data)
	return data, err
}

// Pages of Parquet say how long they are when they are unpacked, and arrow-go has made that much room. Its codecs for zstd and snappy would
// make more, up to what the packed bytes say.
func init() {
	for _, c := range []compress.Compression{compress.Codecs.Zstd, compress.Codecs.Snappy} {
		codec, err := compress.GetCodec(c)
		if err != nil {
			continue
		}
		if streaming, ok := codec.(streamingCodec); ok {
			compress.RegisterCodec(c, boundedCodec{streamingCodec: streaming, snappy: c == compress.Codecs.Snappy})
		}
	}
}

type streamingCodec interface {
	compress.Codec
	compress.StreamingCodec
}

// boundedCodec unpacks no more than there is room for.
type boundedCodec struct {
	streamingCodec
	snappy bool
}

var cappedZstd = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecodeAllCapLimit(true))
})

// DecodeWithError takes the place of Decode where arrow-go finds it.
func (c boundedCodec) DecodeWithError(dst, src []byte) ([]byte, error) {
	if dst == nil {
		return compress.Decode(c.streamingCodec, dst, src)
	}
	if c.snappy {
		n, err := s2.DecodedLen(src)
		if err == nil && n > len(dst) {
			err = fmt.Errorf("a page has %d bytes when it is unpacked, and says %d", n, len(dst))
		}
		if err != nil {
			return nil, err
		}
		return compress.Decode(c.streamingCodec, dst, src)
	}
	dec, err := cappedZstd()
	if err != nil {
		return nil, err
	}
	return dec.DecodeAll(src, dst[:0])
}
